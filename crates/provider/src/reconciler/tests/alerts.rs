//! Alerts come before the penalties: the real rules, and a real listener for the webhook.

use super::*;
use posync_alert::{
    Alerts,
    test_utils::{Posted, listen},
};
use posync_protocol::ledger::{ReputationReason, ReputationStep};
use serde_json::Value;
use std::sync::mpsc::Receiver;

/// Events, each with the height of its block.
type Told = Vec<(u64, Event)>;

impl Bench {
    /// Runs blocks and waits after each until its alerts arrived; with `answers`, storage proofs reach blocks.
    async fn watch(&mut self, alerts: &Alerts, blocks: u64, answers: bool) -> Told {
        let mut told = vec![];
        for _ in 0..blocks {
            if !answers {
                self.ledger.waiting.lock().clear();
            }
            let events = self.step().await;
            let height = self.ledger.world.lock().height;
            told.extend(events.into_iter().map(|event| (height, event)));
            assert!(alerts.flush(Duration::from_secs(30)), "everything reached the listener");
        }
        told
    }
}

/// The height of the first event that satisfies `is`.
fn first(told: &Told, is: impl Fn(&Event) -> bool) -> u64 {
    told.iter().find(|(_, event)| is(event)).expect("it happened").0
}

fn step_of(told: &Told, step: ReputationStep, reason: ReputationReason) -> u64 {
    first(
        told,
        |event| matches!(event, Event::Reputation { step: s, reason: r, .. } if (*s, *r) == (step, reason)),
    )
}

/// The height at which an alert was first raised.
fn raised(posted: &[Value], kind: &str) -> u64 {
    let is = |json: &&Value| json["alert"] == kind && json["state"] == "raised";
    let found = posted.iter().find(is).unwrap_or_else(|| panic!("no {kind} in {posted:?}"));
    assert_eq!(found["node"], account("paul").to_string());
    assert!(found["text"].as_str().is_some_and(|text| text.contains(found["what"].as_str().expect("text"))));
    found["height"].as_u64().expect("a height")
}

/// A provider that holds two shards, is drawn, and posts its alerts to a webhook.
async fn bench(context: &Context) -> (Bench, Alerts, Receiver<Posted>) {
    let (url, got) = listen(vec![]);
    let alerts = Alerts::to(Some(&url), None).expect("an address");
    let mut bench = Bench::new(context).await;
    let report = Reporter::new(alerts.clone(), None);
    bench = bench.restart(context, report).await;
    bench.steps(10).await;
    let id = bench.open(600);
    bench.set(id, 1, &[], &[data(1, 100_000), data(2, 5_000)]).await;
    bench.ledger.world.lock().draws = true;
    (bench, alerts, got)
}

#[test]
fn alerts_come_before_the_penalties_for_lost_shards() {
    run(|context| async move {
        let (mut bench, alerts, got) = bench(&context).await;
        let good = bench.watch(&alerts, 60, true).await;
        let early: Vec<Value> = got.try_iter().map(|posted| posted.json).collect();
        assert!(early.iter().all(|json| json["alert"] == "challenge_waits"), "{early:?}");
        assert!(first(&good, |event| matches!(event, Event::Audited { passed: 4, .. })) > 0);
        let shards: Vec<Hash> = bench.shards.iter().map(|(name, _)| *name).collect();
        let agreement: Option<Agreement> = bench.ledger.world.lock().get(Agreement::key(&account("paul"), 0));
        let id = agreement.expect("it is open").id(account("paul"), 0);
        bench.handler.parts().store.unlink(id, &shards).await.expect("they leave the disk");
        let told = bench.watch(&alerts, 8 * 40, true).await;
        let posted: Vec<Value> = got.try_iter().map(|posted| posted.json).collect();
        let wrong = ReputationReason::Correctness;
        let paid_back = first(&told, |event| matches!(event, Event::Restitution { .. }));
        assert!(raised(&posted, "reads_missing") < paid_back);
        assert!(raised(&posted, "reads_fail") < step_of(&told, ReputationStep::Warned, wrong));
        let jailed = step_of(&told, ReputationStep::Jailed, wrong);
        assert!(raised(&posted, "warned_reads") < jailed && raised(&posted, "jail_next") < jailed);
        assert!(raised(&posted, "bond_short") >= paid_back, "stake went to the consumer");
        assert!(raised(&posted, "jailed") >= jailed);
        assert_eq!(bench.handler.parts().view.check_grows(), Err(Code::GrowthJailed));
        let cleared =
            |kind: &str| posted.iter().any(|json| json["alert"] == kind && json["state"] == "cleared");
        assert!(cleared("warned_reads") && cleared("jail_next"), "in jail there is nothing to warn of");
    });
}

#[test]
fn alerts_come_before_the_suspension_of_who_is_silent() {
    run(|context| async move {
        let (mut bench, alerts, got) = bench(&context).await;
        bench.watch(&alerts, 4, true).await;
        let told = bench.watch(&alerts, 24 * 40, false).await;
        let posted: Vec<Value> = got.try_iter().map(|posted| posted.json).collect();
        let away = ReputationReason::Availability;
        let late = first(&told, |event| matches!(event, Event::Audited { on_time: false, .. }));
        assert!(raised(&posted, "challenge_waits") < late && raised(&posted, "challenge_expires") < late);
        let suspended = step_of(&told, ReputationStep::Suspended, away);
        assert!(raised(&posted, "answers_late") < step_of(&told, ReputationStep::Warned, away));
        assert!(raised(&posted, "warned_answers") < suspended && raised(&posted, "suspend_next") < suspended);
        assert!(raised(&posted, "suspended") >= suspended);
        assert_eq!(bench.handler.parts().view.check_grows(), Err(Code::GrowthSuspended));
        let back = bench.watch(&alerts, 12 * 40, true).await;
        step_of(&back, ReputationStep::Resumed, away);
        let posted: Vec<Value> = got.try_iter().map(|posted| posted.json).collect();
        assert!(posted.iter().any(|json| json["alert"] == "suspended" && json["state"] == "cleared"));
        assert_eq!(bench.handler.parts().view.check_grows(), Ok(()));
    });
}
