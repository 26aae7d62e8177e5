//! The JSON of every operation, event and record, word by word.

#[path = "../../../protocol/tests/scenarios/events.rs"]
mod events;
#[path = "../../../protocol/tests/scenarios/samples.rs"]
#[allow(dead_code, reason = "other tests use the rest")]
mod samples;

use posync_protocol::{
    Account, AgreementId, Amount, Body, Bounded,
    event::{AgreementChange, Event, ReputationReason, ReputationStep},
    limits::Parameters,
    operation::{Answer, EndedRead},
    record::Slot,
};
use serde_json::{Value, json};

/// Two events for each word that stands for a number in an event.
fn words() -> Vec<Event> {
    let provider = Account([7; 32]);
    let agreement = AgreementId { provider, slot: 4, opened: 5 };
    let steps = [
        (ReputationStep::Warned, ReputationReason::Correctness),
        (ReputationStep::Suspended, ReputationReason::Availability),
        (ReputationStep::Resumed, ReputationReason::Request),
        (ReputationStep::Jailed, ReputationReason::Equivocation),
    ];
    let mut events = vec![Event::Settled {
        epoch: 1,
        provider,
        agreement: None,
        fee: Amount::sync(1),
        burn: Amount::ZERO,
        committee: Amount::new(7).expect("small"),
        pay: Amount::sync(2),
    }];
    events.extend(steps.map(|(step, reason)| Event::Reputation {
        provider,
        epoch: 1,
        step,
        reason,
        evidence: [0; 32],
        until: 3,
    }));
    events.extend([AgreementChange::Opened, AgreementChange::Closing].map(|change| Event::Agreement {
        agreement,
        consumer: provider,
        change,
    }));
    events
}

/// A storage proof that answers for an agreement that has ended.
fn ended() -> Body {
    let answers = Bounded::new(vec![Answer::Ended(EndedRead { place: 9 })]).expect("one");
    Body::StorageProof(posync_protocol::operation::StorageProof { answers, ..samples::storage_proof() })
}

/// A list of equal items as the first of them and their number.
fn short(value: Value) -> Value {
    match value {
        Value::Array(all) if all.len() > 3 && all.iter().all(|one| *one == all[0]) => {
            json!([short(all[0].clone()), format!("and {} more", all.len() - 1)])
        }
        Value::Array(all) => Value::Array(all.into_iter().map(short).collect()),
        Value::Object(all) => Value::Object(all.into_iter().map(|(name, one)| (name, short(one))).collect()),
        other => other,
    }
}

fn rows() -> Vec<(String, Value)> {
    let mut rows: Vec<(String, Value)> = Vec::new();
    for (name, body) in samples::bodies().into_iter().chain([("body/StorageProof/ended", ended())]) {
        rows.push((name.into(), super::operation(&samples::envelope(body))));
    }
    for event in events::events().iter().chain(&words()) {
        let value = super::event(event);
        rows.push((format!("event/{}", value["event"].as_str().expect("a name")), value));
    }
    for (name, slot) in samples::records() {
        let slot: Slot = slot;
        if let Some((kind, value)) = crate::records::describe(&slot) {
            rows.push((name.into(), json!({ "record": kind, "fields": value })));
        }
    }
    let parameters = Parameters::LOCAL;
    rows.push(("block/Header".into(), super::header(&samples::header(), &parameters)));
    rows.push(("genesis/Parameters/local".into(), super::parameters(&parameters)));
    rows
}

#[test]
fn no_word_of_the_json_changed() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../protocol/json.txt");
    let rows = rows().into_iter().map(|(name, value)| format!("{name} {}\n", short(value)));
    let now: String = rows.collect();
    if std::env::var("CONFORMANCE").as_deref() == Ok("write") {
        std::fs::write(path, &now).expect("the crate's directory is writable");
    }
    let written = std::fs::read_to_string(path).expect("json.txt is part of the crate");
    assert!(written == now, "the JSON changed; if that is meant, json.txt becomes:\n{now}");
}
