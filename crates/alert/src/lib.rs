//! Alerts for an operator: what is about to go wrong, before the ledger makes it a penalty.
//!
//! ```text
//!   proven records, free space --conditions--> alerts that hold now
//!        --RaisedAlerts--> raised, cleared --Alerts--> log (an event of target `posync::alert`)
//!                                          \--> queue of 64 --thread--> POST JSON to a webhook
//! ```
//!
//! Guarantees
//! 1. Every alert follows from proven records of the ledger and the node's own disk; `posync why`
//!    computes the same list from the same records. Tests: [`conditions`].
//! 2. An alert precedes every penalty: what warns, suspends or jails shows in the figures before.
//!    Tests: `alerts_come_before_the_penalties` of the provider, with a listener on a socket.
//! 3. A role never waits for a webhook: the queue is bounded, signals that do not fit are dropped with a
//!    warning in the log, and a failing hook is retried a bounded number of times. Tests: [`hook`].
//! 4. The hook's address never reaches a log: anyone who knows it may write to it.
//! 5. No signal is sent to a host whose certificate is not trusted. Tests: [`trust`].

mod clock;
mod conditions;
mod hook;
mod seat;
mod space;
#[cfg(any(test, feature = "test-utils"))]
pub mod test_utils;
mod trust;

pub use clock::{clock_conditions, clock_off};
pub use conditions::{Facts, conditions, low_space};
pub use hook::{Alerts, BadHook};
pub use seat::seat_conditions;
pub use space::{Space, full_volume};

use std::collections::BTreeMap;

/// The subject of an alert; at most one alert of each kind holds at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
#[cfg_attr(test, derive(serde::Deserialize))]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// Too few of the last reads were proved; no epoch was judged by that yet.
    ReadsFail,
    /// Too few of the last answers were on time; no epoch was judged by that yet.
    AnswersLate,
    /// The ledger warned the provider for reads that were not proved.
    WarnedReads,
    /// The ledger warned the provider for late answers.
    WarnedAnswers,
    /// Jail follows if reads go on failing.
    JailNext,
    /// Suspension follows if answers go on being late.
    SuspendNext,
    /// The provider is in jail.
    Jailed,
    /// The provider's term in jail is over, and a command releases it.
    JailOver,
    /// The provider is suspended.
    Suspended,
    /// Stake moves to a consumer if a missing read stays missing.
    ReadsMissing,
    /// An open challenge is past half its deadline.
    ChallengeWaits,
    /// An open challenge is past half the time after which it expires.
    ChallengeExpires,
    /// The bond covers less than the declared capacity.
    BondShort,
    /// The volume has less room than was promised, or nearly none.
    LowSpace,
    /// The volume has so little room that nothing new is written.
    VolumeFull,
    /// The volume is not mounted any more, or another one is in its place.
    VolumeAway,
    /// Something on the disk is damaged.
    Damaged,
    /// The machine has a clock that was set, or that differs from those of the others.
    ClockOff,
    /// An authority applied no block for a while.
    Behind,
    /// An authority's seat is in jail.
    SeatJailed,
    /// The role has ended and does no work.
    Offline,
    /// A gateway's agreement that holds data is near its end and has no successor.
    AgreementEnds,
    /// Rows of a gateway's catalogue do not decode.
    RowsSetAside,
    /// The account of a gateway cannot pay for agreements that it needs.
    MoneyShort,
}

/// A condition that an operator should act on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Alert {
    /// The condition that it reports.
    pub kind: Kind,
    /// The facts, in words.
    pub what: String,
    /// The consequence, and what to do about it.
    pub next: String,
    /// The epoch in which the penalty follows, or from which it can be lifted.
    pub due: Option<u64>,
}

/// Says if an alert begins or ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// The alert holds from now on.
    Raised,
    /// The alert no longer holds.
    Cleared,
}

/// An alert that begins or ends, as it is sent. The fields are those of the JSON that is posted.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Signal {
    /// The whole signal as one sentence, for chat services.
    pub text: String,
    /// The condition that it reports.
    pub alert: Kind,
    /// `Raised` when it begins, `Cleared` when it ends.
    pub state: State,
    /// Account of the node that the alert is about.
    pub node: String,
    /// The ledger's height by which it was judged, if it follows from the ledger.
    pub height: Option<u64>,
    /// The facts, in words.
    pub what: String,
    /// The consequence, and what to do about it.
    pub next: String,
    /// The epoch in which the penalty follows, or from which it can be lifted.
    pub due: Option<u64>,
}

impl Signal {
    /// Makes the signal of an alert about `node`, judged at `height`.
    pub fn new(node: String, height: Option<u64>, state: State, alert: Alert) -> Self {
        let Alert { kind, what, next, due } = alert;
        let text = match state {
            State::Raised => format!("posync {node}: {what}; {next}"),
            State::Cleared => format!("posync {node}: over: {what}"),
        };
        Self { text, alert: kind, state, node, height, what, next, due }
    }
}

/// Remembers which alerts hold, so that each is sent once when it begins and once when it ends.
#[derive(Clone, Debug, Default)]
pub struct RaisedAlerts(BTreeMap<Kind, Alert>);

impl RaisedAlerts {
    /// Takes the alerts that hold now; returns those that began and those that ended since the last call.
    pub fn step(&mut self, now: Vec<Alert>) -> Vec<(State, Alert)> {
        let now: BTreeMap<Kind, Alert> = now.into_iter().map(|alert| (alert.kind, alert)).collect();
        let began = now.iter().filter(|(kind, _)| !self.0.contains_key(kind));
        let began = began.map(|(_, alert)| (State::Raised, alert.clone()));
        let ended = self.0.iter().filter(|(kind, _)| !now.contains_key(kind));
        let ended = ended.map(|(_, alert)| (State::Cleared, alert.clone()));
        let news = began.chain(ended).collect();
        self.0 = now;
        news
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde::de;
    use std::collections::BTreeSet;

    fn alert(kind: Kind, what: &str) -> Alert {
        Alert { kind, what: what.into(), next: "act".into(), due: None }
    }

    #[test]
    fn an_alert_is_told_once_when_it_begins_and_once_when_it_ends() {
        let mut watch = RaisedAlerts::default();
        let (one, two) = (alert(Kind::ReadsFail, "3 of 4"), alert(Kind::LowSpace, "1 MB"));
        assert_eq!(watch.step(vec![one.clone()]), [(State::Raised, one.clone())]);
        let changed = alert(Kind::ReadsFail, "2 of 4");
        assert_eq!(watch.step(vec![changed.clone()]), [], "the same alert with other figures");
        let expected = [(State::Raised, two.clone()), (State::Cleared, changed)];
        assert_eq!(watch.step(vec![two.clone()]), expected);
        assert_eq!(watch.step(vec![]), [(State::Cleared, two)]);
        assert_eq!(watch.step(vec![one.clone()]), [(State::Raised, one)], "it came back");
    }

    /// The names of all kinds, from the error that names what would have decoded.
    fn kinds() -> BTreeSet<String> {
        let other = de::value::StrDeserializer::<de::value::Error>::new("no kind");
        let error = <Kind as serde::Deserialize>::deserialize(other).expect_err("it is no kind");
        error.to_string().split('`').skip(1).step_by(2).skip(1).map(str::to_owned).collect()
    }

    #[test]
    fn each_kind_of_alert_has_a_row_in_the_documentation_and_no_row_is_of_another() {
        let kinds = kinds();
        assert!(kinds.contains("reads_fail") && kinds.contains("money_short"), "{kinds:?}");
        let document = include_str!("../../../docs/alerts.md");
        let rows = document.lines().skip_while(|line| !line.starts_with("| alert | holds while |")).skip(2);
        let cells = rows.take_while(|line| line.starts_with('|')).filter_map(|line| line.split('|').nth(1));
        let documented: Vec<String> =
            cells.flat_map(|cell| cell.split('`').skip(1).step_by(2)).map(str::to_owned).collect();
        let once: BTreeSet<String> = documented.iter().cloned().collect();
        assert_eq!(once, kinds);
        assert_eq!(once.len(), documented.len(), "a kind has two rows: {documented:?}");
    }

    #[test]
    fn the_json_is_what_the_documentation_says() {
        let signal =
            Signal::new("sync1x".into(), Some(7), State::Raised, alert(Kind::JailNext, "reads fail"));
        let json = serde_json::to_value(&signal).expect("plain data");
        let expected = serde_json::json!({ "text": "posync sync1x: reads fail; act", "alert": "jail_next",
            "state": "raised", "node": "sync1x", "height": 7, "what": "reads fail", "next": "act", "due": null });
        assert_eq!(json, expected);
    }
}
