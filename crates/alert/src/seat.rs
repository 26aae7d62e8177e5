//! Computes the alerts of an authority: pure, from its seat's record and the age of its last block.
//!
//! The voters of a block cannot be reported: its certificate is a threshold signature, which does not show
//! whose shares made it. A node that applies blocks keeps up; one that applies none is behind, or all are.

use crate::{Alert, Kind};
use posync_protocol::{limits::Parameters, record::Seat};
use std::time::Duration;

/// Block times within which a node must have applied a block.
const BEHIND_BLOCKS: u64 = 40;

/// The alerts that hold for an authority that applied its last block `since` ago (AU-5, AU-9, AU-10).
pub fn seat_conditions(parameters: &Parameters, seat: Option<&Seat>, since: Duration) -> Vec<Alert> {
    let mut alerts = Vec::new();
    let most = Duration::from_millis(parameters.block_ms.saturating_mul(BEHIND_BLOCKS));
    if since > most {
        let what = format!("no block became final here for more than {} seconds", most.as_secs());
        let next = "it leads nothing and earns no credits: see that it reaches the other authorities; if all \
                    say so, fewer than two thirds of them run";
        alerts.push(Alert { kind: Kind::Behind, what, next: next.into(), due: None });
    }
    if let Some(Seat { jailed: Some(height), slashed, .. }) = seat {
        let what = format!(
            "this authority signed two headers or commitments that contradict each other, as block {height} \
             proved: {slashed} SYNC of its bond were slashed, and it is jailed for ever"
        );
        let next = "from the next term on it leads no block, and once four others are there it holds no share of \
                    the network's key: stop whatever else signs with its key, a copy or an old backup; let it run, \
                    it votes until then; keep its directory; and give a new authority a key of its own";
        alerts.push(Alert { kind: Kind::SeatJailed, what, next: next.into(), due: None });
    }
    alerts
}

#[cfg(test)]
mod tests {
    use super::*;
    use posync_protocol::Amount;

    #[test]
    fn who_is_behind_or_lost_its_seat_is_told() {
        let parameters = Parameters::LOCAL;
        let sound = Seat::new(0, Amount::sync(1_000));
        let jailed = Seat { jailed: Some(7), slashed: Amount::sync(50), ..sound.clone() };
        let most = Duration::from_millis(parameters.block_ms * BEHIND_BLOCKS);
        let later = most + Duration::from_millis(1);
        for (seat, since, kinds) in [
            (None, most, vec![]),
            (Some(&sound), most, vec![]),
            (Some(&sound), later, vec![Kind::Behind]),
            (Some(&jailed), most, vec![Kind::SeatJailed]),
            (Some(&jailed), later, vec![Kind::Behind, Kind::SeatJailed]),
        ] {
            let alerts = seat_conditions(&parameters, seat, since);
            assert_eq!(alerts.iter().map(|alert| alert.kind).collect::<Vec<_>>(), kinds, "{alerts:?}");
            assert!(alerts.is_sorted_by_key(|alert| alert.kind));
        }
        let told = seat_conditions(&parameters, Some(&jailed), most);
        assert!(told[0].what.contains("50.000000000 SYNC"), "{told:?}");
    }
}
