//! The liveness of a network: which authorities answer, what they prove, and since when no block is new.

use crate::{
    ledger::Ledger,
    net::{Net, file::Service},
};
use posync_client::connection::Heard;
use posync_protocol::{
    Account,
    limits::{SEATS_MAX, TIME_STEP_MS_MAX},
    record::{SeatAt, System},
};
use serde_json::{Value, json};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Blocks by which the newest may be late before that is reported, and the least such time.
const LATE_BLOCKS: u64 = 20;
const LATE_MS_MIN: u64 = 10_000;
/// Blocks within whose time a network that goes on has one more, and the least such time.
const NEXT_BLOCKS: u64 = 4;
const NEXT_MS_MIN: u64 = 2_000;
/// Blocks by which an authority may be behind the newest and still count as keeping up.
const BEHIND_BLOCKS_MAX: u64 = 16;
/// Milliseconds by which clocks may differ before `status` points at it: what a block's time can bear.
const SKEW_MS_MAX: i64 = 2_000;

/// An authority and its answer to a question asked just now.
struct Authority {
    name: String,
    /// The newest height that it proves, or the reason why it proves none; `None` if no address of it is known here.
    newest: Option<Result<u64, String>>,
    /// Milliseconds by which its clock is ahead of this machine's, if it says.
    ahead_ms: Option<i64>,
}

/// The blocks that came while the newest one looked old.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Came {
    /// There was none, or nobody waited for one.
    None,
    /// New ones after a halt: a block's time makes up for it by at most ten seconds (BL-2), so their times may be hours
    /// old.
    New,
    /// Old ones, with their distance of then: a node that answers catches up, and shows nothing of the network.
    Old,
}

impl Came {
    /// The kind of the blocks between two looks, each with its height and the time of its newest block.
    fn between(first: (u64, Option<u64>), second: (u64, Option<u64>)) -> Self {
        let blocks = second.0.saturating_sub(first.0);
        let step = second.1.zip(first.1).map(|(second, first)| second.saturating_sub(first));
        match step.and_then(|step| step.checked_div(blocks)) {
            None => Self::None,
            Some(step) if step >= TIME_STEP_MS_MAX / 2 => Self::New,
            Some(_) => Self::Old,
        }
    }
}

/// The state of the network as a client sees it.
pub(crate) struct Liveness {
    /// The newest proved height; 0 if there is none.
    pub(crate) height: u64,
    /// Age of the newest block, from its own time, by this machine's clock.
    age_ms: Option<u64>,
    late_ms: u64,
    /// Time of the newest block, in milliseconds since the Unix epoch.
    time_ms: Option<u64>,
    /// The blocks that came while this was found out.
    came: Came,
    authorities: Vec<Authority>,
    /// Number of nodes known here, with and without a seat.
    nodes: usize,
}

impl Liveness {
    /// Asks every authority for its newest proved height; once more a moment later if the newest block looks old.
    pub(crate) async fn take(ledger: &Ledger, net: &Net) -> Self {
        let first = Self::look(ledger, net).await;
        if !first.is_late() || first.height == 0 {
            return first;
        }
        let next_ms = (ledger.parameters().block_ms * NEXT_BLOCKS).max(NEXT_MS_MIN);
        tokio::time::sleep(Duration::from_millis(next_ms)).await;
        let second = Self::look(ledger, net).await;
        let came = Came::between((first.height, first.time_ms), (second.height, second.time_ms));
        Self { came, ..second }
    }

    async fn look(ledger: &Ledger, net: &Net) -> Self {
        let heard = ledger.survey().await;
        let newest = heard.iter().filter_map(|heard| heard.newest.as_ref().ok());
        let newest = newest.max_by_key(|header| header.height);
        let (height, time_ms) = newest.map_or((0, None), |header| (header.height, Some(header.time_ms)));
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
        let now = u64::try_from(now).unwrap_or(u64::MAX);
        let nodes = heard.len();
        let authority = |(account, heard): (Account, Option<Heard>)| {
            let Some(heard) = heard else {
                let name = net.members.iter().find(|member| member.account == account.to_string());
                let name = name.map_or_else(|| account.to_string(), |member| member.name.clone());
                return Authority { name, newest: None, ahead_ms: None };
            };
            Authority {
                name: net.name(&Service::of(heard.endpoint)),
                newest: Some(heard.newest.map(|header| header.height)),
                ahead_ms: heard.ahead_ms,
            }
        };
        let authorities = seated(ledger, net, heard).await.into_iter().map(authority);
        let late_ms = (ledger.parameters().block_ms * LATE_BLOCKS).max(LATE_MS_MIN);
        let age_ms = time_ms.map(|time_ms| now.saturating_sub(time_ms));
        Self { height, age_ms, late_ms, time_ms, came: Came::None, authorities: authorities.collect(), nodes }
    }

    /// Median of the authorities' clocks less this machine's, in milliseconds.
    fn ahead_ms(&self) -> Option<i64> {
        let mut all: Vec<i64> = self.authorities.iter().filter_map(|one| one.ahead_ms).collect();
        all.sort_unstable();
        all.get(all.len() / 2).copied()
    }

    /// Number of authorities that answer and keep up.
    fn answering(&self) -> usize {
        let keeps_up = |height: &u64| height + BEHIND_BLOCKS_MAX >= self.height;
        let is_up = |one: &&Authority| one.newest.as_ref().is_some_and(|it| it.as_ref().is_ok_and(keeps_up));
        self.authorities.iter().filter(is_up).count()
    }

    /// Number of authorities of which no address is known here.
    fn unknown(&self) -> usize {
        self.authorities.iter().filter(|one| one.newest.is_none()).count()
    }

    /// Number of authorities that must agree on a block: all but a third, which may be faulty.
    fn needed(&self) -> usize {
        let all = self.authorities.len();
        all - all.saturating_sub(1) / 3
    }

    /// True if enough authorities answer. Those not known here may be up: then new blocks show it.
    fn has_quorum(&self) -> bool {
        let answering = self.answering();
        let may_have = answering + self.unknown() >= self.needed();
        answering >= self.needed() || (may_have && !self.is_late())
    }

    /// True if the newest block is older than it should be and no new one came meanwhile, or none is proved. Its age
    /// counts by the authorities' clocks where this machine's is ahead of them.
    fn is_late(&self) -> bool {
        let ahead = self.ahead_ms().unwrap_or_default().min(0).unsigned_abs();
        self.came != Came::New && self.age_ms.is_none_or(|age| age.saturating_sub(ahead) > self.late_ms)
    }

    fn state(&self, is_late: bool, has_quorum: bool) -> &'static str {
        match (is_late, has_quorum) {
            (true, _) if self.came == Came::Old => "catching up",
            (false, true) => "running",
            (_, false) => "no quorum",
            (true, true) => "no blocks",
        }
    }

    pub(crate) fn to_json(&self) -> Value {
        let authorities: Vec<Value> = self
            .authorities
            .iter()
            .map(|one| {
                let newest = one.newest.as_ref();
                json!({ "name": one.name, "known_here": newest.is_some(),
                    "answers": newest.is_some_and(Result::is_ok), "height": newest.and_then(|it| it.as_ref().ok()),
                    "clock_ahead_ms": one.ahead_ms, "why": newest.and_then(|it| it.as_ref().err()) })
            })
            .collect();
        json!({ "state": self.state(self.is_late(), self.has_quorum()), "quorum": self.has_quorum(),
            "answering": self.answering(), "needed": self.needed(), "not_known_here": self.unknown(),
            "nodes_known": self.nodes, "clock_behind_ms": self.ahead_ms(),
            "seconds_since_block": self.age_ms.map(|age| age / 1_000), "authorities": authorities })
    }

    pub(crate) fn to_text(&self) -> String {
        let (answering, needed, all) = (self.answering(), self.needed(), self.authorities.len());
        let age = self.age_ms.map_or_else(
            || "no block is proved".to_owned(),
            |age| match self.came {
                Came::New => format!(
                    "blocks come; after a halt, their times are {} s old and catch up by ten seconds a block",
                    age / 1_000
                ),
                Came::None | Came::Old => format!("the newest block is {} s old", age / 1_000),
            },
        );
        let text = match self.state(self.is_late(), self.has_quorum()) {
            "catching up" => format!(
                "NOT KNOWN: the nodes that answer are behind and catch up; {age}. {answering} of {all} authorities answer; \
                 repeat the command later, or name more nodes (--net)"
            ),
            "no quorum" => format!(
                "NO QUORUM: {answering} of {all} authorities answer and keep up, {needed} are needed; {age}. \
                 Nothing becomes final until more are back"
            ),
            "no blocks" => format!(
                "NO BLOCKS: {age}, though {answering} of {all} authorities answer; look at their logs, and \
                 whether this machine's clock is right"
            ),
            _ => format!("{answering} of {all} authorities answer, {age}"),
        };
        let silent = self.authorities.iter().filter_map(|one| match &one.newest {
            None => {
                Some(format!("\n          {} is not known here: the ledger lists no address of it", one.name))
            }
            Some(Err(why)) => Some(format!("\n          {} does not answer: {why}", one.name)),
            Some(Ok(_)) => None,
        });
        text + &silent.collect::<String>() + &self.clocks()
    }

    /// The clocks, and the nodes known.
    fn clocks(&self) -> String {
        let seconds = |ms: i64| format!("{:+.1} s", ms as f64 / 1_000.0);
        let nodes = format!("\nnodes     {} known", self.nodes);
        let Some(median) = self.ahead_ms() else { return nodes };
        let own = if median.abs() > SKEW_MS_MAX {
            format!(": THIS MACHINE'S CLOCK IS OFF by {}; set it", seconds(-median))
        } else {
            String::new()
        };
        let off = self.authorities.iter().filter_map(|one| {
            let skew = one.ahead_ms? - median;
            (skew.abs() > SKEW_MS_MAX).then(|| {
                format!(
                    "\n          the clock of {} is off by {}: its operator sets it",
                    one.name,
                    seconds(skew)
                )
            })
        });
        let off: String = off.collect();
        format!(
            "{nodes}\nclocks    this machine {} against the median of the authorities{own}{off}",
            seconds(-median)
        )
    }
}

/// The accounts that have a seat, each with its answer if it is known here; the nodes of the network file if the ledger
/// does not say who has one.
async fn seated(ledger: &Ledger, net: &Net, heard: Vec<Heard>) -> Vec<(Account, Option<Heard>)> {
    let mut once: Vec<Heard> = Vec::new();
    for one in heard {
        match once.iter_mut().find(|other| other.endpoint.account == one.endpoint.account) {
            Some(other) if other.newest.is_err() => *other = one,
            Some(_) => (),
            None => once.push(one),
        }
    }
    let system = ledger.read::<System>(System::key()).await.ok().flatten().unwrap_or_default();
    let keys = (0..system.seats.min(SEATS_MAX)).map(SeatAt::key).collect();
    let seats = ledger.read_all::<SeatAt>(keys).await.unwrap_or_default();
    let seats: Vec<Account> = seats.into_iter().flatten().map(|seat| seat.account).collect();
    if seats.is_empty() {
        once.truncate(net.file.nodes.len());
        return once.into_iter().map(|heard| (heard.endpoint.account, Some(heard))).collect();
    }
    let mut heard = |account: Account| {
        let place = once.iter().position(|heard| heard.endpoint.account == account)?;
        Some(once.swap_remove(place))
    };
    seats.into_iter().map(|account| (account, heard(account))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn liveness(newest: &[Option<u64>], age_ms: u64) -> Liveness {
        let authority = |(place, newest): (usize, &Option<u64>)| Authority {
            name: format!("authority-{place}"),
            newest: Some(newest.ok_or_else(|| "it hangs".to_owned())),
            ahead_ms: None,
        };
        let authorities = newest.iter().enumerate().map(authority).collect();
        Liveness {
            height: 100,
            age_ms: Some(age_ms),
            late_ms: 10_000,
            time_ms: None,
            came: Came::None,
            authorities,
            nodes: 7,
        }
    }

    #[test]
    fn the_state_of_consensus_is_said_plainly() {
        let (up, behind, gone) = (Some(100), Some(50), None);
        let table = [
            (vec![up, up, up, up], 200, "running", 4, 3),
            (vec![up, up, up, gone], 200, "running", 3, 3),
            (vec![up, up, gone, gone], 200, "no quorum", 2, 3),
            (vec![up, up, behind, gone], 90_000, "no quorum", 2, 3),
            (vec![up, up, up, up], 90_000, "no blocks", 4, 3),
            (vec![up, up, up, up, gone], 200, "running", 4, 4),
            (vec![up, up, up, gone, gone], 200, "no quorum", 3, 4),
        ];
        for (newest, age_ms, state, answering, needed) in table {
            let liveness = liveness(&newest, age_ms);
            let json = liveness.to_json();
            assert_eq!(json["state"], state, "{newest:?} {age_ms}");
            assert_eq!((liveness.answering(), liveness.needed()), (answering, needed), "{newest:?}");
            let text = liveness.to_text();
            assert_eq!(text.contains("NO QUORUM"), state == "no quorum", "{text}");
            assert_eq!(text.contains("it hangs"), newest.contains(&gone), "{text}");
            assert!(text.contains(&format!("{} s old", age_ms / 1_000)), "{text}");
        }
    }

    #[test]
    fn blocks_that_come_after_a_halt_are_no_halt_however_old_their_times_are() {
        // Each block makes up for ten seconds; between two looks, two came.
        let came = Came::between((98, Some(1_000)), (100, Some(21_000)));
        let moving = |newest: &[Option<u64>]| Liveness { came, ..liveness(newest, 90_000) };
        let (json, text) = (moving(&[Some(100); 4]).to_json(), moving(&[Some(100); 4]).to_text());
        assert_eq!(json["state"], "running");
        assert!(text.contains("blocks come") && text.contains("90 s old"), "{text}");
        // Two of four answer: the blocks come from others whom this machine does not reach.
        assert_eq!(moving(&[Some(100), Some(100), None, None]).to_json()["state"], "no quorum");
    }

    #[test]
    fn old_blocks_of_a_node_that_catches_up_are_no_sign_of_life() {
        let [none, old, new] = [(100, 1_000), (400, 76_000), (101, 11_000)]
            .map(|(height, time_ms)| Came::between((100, Some(1_000)), (height, Some(time_ms))));
        assert_eq!([none, old, new], [Came::None, Came::Old, Came::New]);
        let unknown = || Authority { name: "sync1unknown".into(), newest: None, ahead_ms: None };
        let authorities: Vec<Authority> = (0..4).map(|_| unknown()).collect();
        let catching_up = Liveness { came: old, authorities, ..liveness(&[], 90_000) };
        let (json, text) = (catching_up.to_json(), catching_up.to_text());
        assert_eq!((&json["state"], &json["quorum"]), (&"catching up".into(), &false.into()));
        assert!(text.contains("NOT KNOWN") && text.contains("90 s old") && !text.contains("final"), "{text}");
        // By the time that it has caught up, the network is known to run.
        let caught_up = Liveness { age_ms: Some(200), ..catching_up };
        assert_eq!(caught_up.to_json()["state"], "running");
    }

    #[test]
    fn a_clock_that_is_ahead_of_the_authorities_makes_no_block_late() {
        let came = Came::between((96, Some(1_000)), (100, Some(5_000)));
        let seen = |ahead_ms| {
            let mut seen = Liveness { came, ..liveness(&[Some(100); 4], 90_000) };
            seen.authorities.iter_mut().for_each(|one| one.ahead_ms = Some(ahead_ms));
            seen.to_json()["state"].clone()
        };
        assert_eq!([seen(-89_000), seen(0), seen(89_000)], ["running", "catching up", "catching up"]);
    }

    #[test]
    fn all_seats_count_for_the_quorum_and_those_not_known_here_are_neither_up_nor_down() {
        let with_unknown = |newest: &[Option<u64>], unknown: usize, age_ms| {
            let mut liveness = liveness(newest, age_ms);
            let authority = |_| Authority { name: "sync1unknown".into(), newest: None, ahead_ms: None };
            liveness.authorities.extend((0..unknown).map(authority));
            liveness
        };
        let (up, gone) = (Some(100), None);
        for (newest, unknown, age_ms, state) in [
            (vec![up], 6, 200, "running"),
            (vec![up], 6, 90_000, "no quorum"),
            (vec![up, gone, gone, gone], 3, 200, "no quorum"),
            (vec![up; 5], 2, 90_000, "no blocks"),
        ] {
            let liveness = with_unknown(&newest, unknown, age_ms);
            let (json, text) = (liveness.to_json(), liveness.to_text());
            assert_eq!(
                (&json["state"], liveness.needed()),
                (&state.into(), 5),
                "{newest:?} {unknown}: {text}"
            );
            assert_eq!(json["not_known_here"], unknown);
            assert!(text.contains("sync1unknown is not known here"), "{text}");
        }
    }

    #[test]
    fn a_clock_that_is_off_is_named_this_machines_or_an_authoritys() {
        let clocks = |ahead: [Option<i64>; 4]| {
            let mut liveness = liveness(&[Some(100); 4], 200);
            for (one, ahead_ms) in liveness.authorities.iter_mut().zip(ahead) {
                one.ahead_ms = ahead_ms;
            }
            (liveness.to_text(), liveness.to_json())
        };
        let (text, json) = clocks([Some(40), Some(-30), Some(20), None]);
        assert!(text.contains("7 known") && text.contains("-0.0 s") && !text.contains("off"), "{text}");
        assert_eq!(json["clock_behind_ms"], 20);
        assert!(json["authorities"][3]["clock_ahead_ms"].is_null());
        let (text, _) = clocks([Some(3_600_000); 4]);
        assert!(text.contains("THIS MACHINE'S CLOCK IS OFF by -3600.0 s"), "{text}");
        let (text, _) = clocks([Some(10), Some(0), Some(-10), Some(3_600_000)]);
        assert!(text.contains("the clock of authority-3 is off by +3600.0 s"), "{text}");
        assert!(!text.contains("THIS MACHINE"), "{text}");
        let (text, json) = clocks([None; 4]);
        assert!(json["clock_behind_ms"].is_null() && !text.contains("clocks"), "{text}");
    }
}
