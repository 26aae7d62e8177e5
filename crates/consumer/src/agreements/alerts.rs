//! Alerts that a gateway's operator should act on. Pure decisions; sends nothing.

use posync_alert::{Alert, Kind};
use std::collections::BTreeMap;

/// The alerts that hold now. `unpaid` is the number of providers with which an agreement is needed and the account
/// cannot pay for it. `ending` are agreements with data that are near their end without a
/// successor, with the epochs that are left; `aside` are the rows that do not decode; `ends` is the first
/// epoch in which an agreement ends under which such rows may describe shards.
pub(super) fn alerts(
    unpaid: usize,
    ending: &BTreeMap<u32, u64>,
    aside: &[String],
    ends: Option<u64>,
) -> Vec<Alert> {
    let mut alerts = Vec::new();
    if unpaid > 0 {
        alerts.push(Alert {
            kind: Kind::MoneyShort,
            what: format!("the account has too little money for agreements with {unpaid} providers"),
            next: "send money to it; new files are refused once the open agreements are full".into(),
            due: None,
        });
    }
    if let Some(left) = ending.values().min() {
        alerts.push(Alert {
            kind: Kind::AgreementEnds,
            what: format!("{} agreements with data have no successor; the first ends in {left} epochs", ending.len()),
            next: "add money to the gateway's account, or providers with room; what cannot move by then may be lost".into(),
            due: None,
        });
    }
    if let Some(first) = aside.first() {
        alerts.push(Alert {
            kind: Kind::RowsSetAside,
            what: format!("{} rows of the catalogue do not decode, the first is of {first}", aside.len()),
            next:
                "all else goes on; take a backup, and restore an older one with `posync gateway restore` if \
                   files are missing"
                    .into(),
            due: ends,
        });
    }
    alerts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_be_lost_is_told_before_it_is() {
        assert_eq!(alerts(3, &BTreeMap::new(), &[], None)[0].kind, Kind::MoneyShort);
        let kinds = |ending: &[(u32, u64)], aside: &[&str]| {
            let aside: Vec<String> = aside.iter().map(ToString::to_string).collect();
            let all = alerts(0, &ending.iter().copied().collect(), &aside, Some(77));
            all.into_iter().map(|alert| (alert.kind, alert.what, alert.due)).collect::<Vec<_>>()
        };
        assert_eq!(kinds(&[], &[]), []);
        let told = kinds(&[(3, 90), (7, 12)], &["file 4"]);
        assert_eq!(
            told.iter().map(|(kind, ..)| *kind).collect::<Vec<_>>(),
            [Kind::AgreementEnds, Kind::RowsSetAside]
        );
        assert!(told[0].1.contains("2 agreements") && told[0].1.contains("12 epochs"), "{told:?}");
        assert!(told[1].1.contains("file 4") && told[1].2 == Some(77), "{told:?}");
    }
}
