//! Tells an operator what is about to go wrong, before the ledger makes it a penalty.
//!
//! ```text
//!   proven records, free space --conditions--> alerts that hold now
//!        --Watch--> raised, cleared --Alerts--> log (an event of target `posync::alert`)
//!                                          \--> queue of 64 --thread--> POST JSON to a webhook
//! ```
//!
//! Guarantees
//! 1. What is said follows from proven records of the ledger and the node's own disk; `posync why`
//!    computes the same list from the same records. Tests: [`conditions`].
//! 2. A penalty is preceded by an alert: what warns, suspends or jails shows in the figures before.
//!    Tests: `alerts_come_before_the_penalties` of the provider, with a listener on a socket.
//! 3. A role never waits for a webhook: the queue is bounded, what does not fit is dropped and told,
//!    a hook that fails is tried again a bounded number of times. Tests: [`hook`].
//! 4. The hook's address never reaches a log: whoever knows it may write to it.
//! 5. Nothing is told to a host whose certificate is not believed. Tests: [`trust`].

mod clock;
mod conditions;
mod hook;
mod seat;
mod space;
#[cfg(any(test, feature = "test-utils"))]
pub mod test_utils;
mod trust;

pub use clock::clock_conditions;
pub use conditions::{Facts, conditions, low_space};
pub use hook::{Alerts, BadHook};
pub use seat::seat_conditions;
pub use space::{Space, full_volume};

use std::collections::BTreeMap;

/// What an alert is about; at most one of each holds at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// Too few of the last reads were proved; no epoch was judged by it yet.
    ReadsFail,
    /// Too few of the last answers were on time; no epoch was judged by it yet.
    AnswersLate,
    /// The ledger warned it for reads that were not proved.
    WarnedReads,
    /// The ledger warned it for answers that were late.
    WarnedAnswers,
    /// Jail follows if it goes on.
    JailNext,
    /// Suspension follows if it goes on.
    SuspendNext,
    /// It is in jail.
    Jailed,
    /// It is suspended.
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
    /// Something on the disk is damaged.
    Damaged,
    /// An authority's machine has a clock that was set, or that differs from those of the others.
    ClockOff,
    /// An authority applied no block for a while.
    Behind,
    /// An authority's seat is in jail.
    SeatJailed,
    /// The role has ended.
    Offline,
    /// A gateway's agreement with data is near its end without a successor.
    AgreementEnds,
    /// Rows of a gateway's catalogue do not decode.
    RowsSetAside,
}

/// Something that an operator should do something about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Alert {
    /// What about.
    pub kind: Kind,
    /// What is the case.
    pub what: String,
    /// What follows and what to do.
    pub next: String,
    /// The epoch in which the penalty follows, or from which it can be lifted.
    pub due: Option<u64>,
}

/// Whether an alert begins or ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// It holds from now on.
    Raised,
    /// It holds no more.
    Cleared,
}

/// What is sent: an alert that begins or ends. The fields are those of the JSON that is posted.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Signal {
    /// All of it in a sentence: what chat services show.
    pub text: String,
    /// What about.
    pub alert: Kind,
    /// Whether it begins or ends.
    pub state: State,
    /// The node's account.
    pub node: String,
    /// The ledger's height by which it was judged, for what the ledger says.
    pub height: Option<u64>,
    /// What is the case.
    pub what: String,
    /// What follows and what to do.
    pub next: String,
    /// The epoch in which the penalty follows, or from which it can be lifted.
    pub due: Option<u64>,
}

impl Signal {
    /// About `node`, seen at `height`.
    pub fn new(node: String, height: Option<u64>, state: State, alert: Alert) -> Self {
        let Alert { kind, what, next, due } = alert;
        let text = match state {
            State::Raised => format!("posync {node}: {what}; {next}"),
            State::Cleared => format!("posync {node}: over: {what}"),
        };
        Self { text, alert: kind, state, node, height, what, next, due }
    }
}

/// Remembers which alerts hold, so that each is told when it begins and when it ends.
#[derive(Clone, Debug, Default)]
pub struct Watch(BTreeMap<Kind, Alert>);

impl Watch {
    /// What began and what ended, now that these alerts hold.
    pub fn step(&mut self, now: Vec<Alert>) -> Vec<(State, Alert)> {
        let now: BTreeMap<Kind, Alert> = now.into_iter().map(|alert| (alert.kind, alert)).collect();
        let began = now.iter().filter(|(kind, _)| !self.0.contains_key(kind));
        let began = began.map(|(_, alert)| (State::Raised, alert.clone()));
        let ended = self.0.iter().filter(|(kind, _)| !now.contains_key(kind));
        let ended = ended.map(|(_, alert)| (State::Cleared, alert.clone()));
        let told = began.chain(ended).collect();
        self.0 = now;
        told
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn alert(kind: Kind, what: &str) -> Alert {
        Alert { kind, what: what.into(), next: "act".into(), due: None }
    }

    #[test]
    fn an_alert_is_told_once_when_it_begins_and_once_when_it_ends() {
        let mut watch = Watch::default();
        let (one, two) = (alert(Kind::ReadsFail, "3 of 4"), alert(Kind::LowSpace, "1 MB"));
        assert_eq!(watch.step(vec![one.clone()]), [(State::Raised, one.clone())]);
        let changed = alert(Kind::ReadsFail, "2 of 4");
        assert_eq!(watch.step(vec![changed.clone()]), [], "the same alert with other figures");
        let expected = [(State::Raised, two.clone()), (State::Cleared, changed)];
        assert_eq!(watch.step(vec![two.clone()]), expected);
        assert_eq!(watch.step(vec![]), [(State::Cleared, two)]);
        assert_eq!(watch.step(vec![one.clone()]), [(State::Raised, one)], "it came back");
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
