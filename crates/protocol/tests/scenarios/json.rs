//! The JSON of every operation, event, record and block, word by word: scripts and pages read it.

use crate::{
    events::events,
    samples::{block_body, bodies, envelope, header, receipts, records, storage_proof},
};
use posync_protocol::{
    Account, AgreementId, Amount, Body, Bounded,
    event::{AgreementChange, Event, ReputationReason, ReputationStep},
    json::AnyRecord,
    limits::Parameters,
    operation::{EndedRead, ReadAnswer, StorageProof},
    wire::gateway::{AgreementRow, Fault, File, Status, UserRow},
};
use serde::Serialize;
use serde_json::{Value, json};

/// Events with the words that the other samples do not have.
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
    let answers = Bounded::new(vec![ReadAnswer::Ended(EndedRead { place: 9 })]).expect("one");
    Body::StorageProof(StorageProof { answers, ..storage_proof() })
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

fn json_of(value: &impl Serialize) -> Value {
    serde_json::to_value(value).expect("it is plain data with string keys")
}

fn rows() -> Vec<(String, Value)> {
    let mut rows: Vec<(String, Value)> = Vec::new();
    for (name, body) in bodies().into_iter().chain([("body/StorageProof/ended", ended())]) {
        rows.push((name.into(), json_of(&envelope(body))));
    }
    for event in events().iter().chain(&words()) {
        let value = json_of(event);
        rows.push((format!("event/{}", value["event"].as_str().expect("a name")), value));
    }
    for (name, slot) in records() {
        let record = AnyRecord::read(&slot).unwrap_or_else(|| panic!("{name} has no name"));
        rows.push((name.into(), json!({ "record": record.name, "fields": json_of(&record) })));
    }
    rows.push(("block/Header".into(), json_of(&header())));
    rows.push(("block/Receipts".into(), json_of(&receipts())));
    rows.push(("genesis/Parameters/local".into(), json_of(&Parameters::LOCAL)));
    rows.extend(of_the_gateway());
    rows
}

/// Rows of the gateway's answers to its users.
fn of_the_gateway() -> [(String, Value); 3] {
    let file = File {
        name: Bounded::new(b"a \xff b".to_vec()).expect("short"),
        bytes: 5,
        blake3: [2; 32],
        segments: 1,
        shards_durable: 7,
        shards: 8,
    };
    let agreement = AgreementRow {
        agreement: AgreementId { provider: Account([7; 32]), slot: 4, opened: 5 },
        shards: 1,
        bytes: 2,
        version: 3,
        egress: 4,
        end_epoch: 5,
        voucher_reserve: Amount::sync(6),
    };
    let fault =
        Fault { provider: Account([7; 32]), found_by: 1, round: 9, shards_lost: 3, shards_repaired: 2 };
    let user =
        UserRow { account: Account([9; 32]), listed: true, quota: Some(10), files: 1, bytes: 6, pending: 2 };
    let status = Status {
        account: Account([8; 32]),
        height: 4,
        files: 2,
        repairs_open: 1,
        faults: Bounded::new(vec![fault]).expect("one"),
        users: Bounded::new(vec![user]).expect("one"),
    };
    [
        ("gateway/File".into(), json_of(&file)),
        ("gateway/AgreementRow".into(), json_of(&agreement)),
        ("gateway/Status".into(), json_of(&status)),
    ]
}

/// `CONFORMANCE=write` replaces the file: a deliberate change of what scripts read, not a repair.
#[test]
fn no_word_of_the_json_changed() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/json.txt");
    let now: String = rows().into_iter().map(|(name, value)| format!("{name} {}\n", short(value))).collect();
    if std::env::var("CONFORMANCE").as_deref() == Ok("write") {
        std::fs::write(path, &now).expect("the crate's directory is writable");
    }
    let written = std::fs::read_to_string(path).expect("json.txt is part of the crate");
    assert!(written == now, "the JSON changed; if that is meant, json.txt becomes:\n{now}");
}

/// Scripts add amounts up and show them; nobody needs the signatures to do so.
#[test]
fn a_block_holds_money_in_both_units_and_no_signature() {
    let block = json_of(&block_body());
    let transfer = &block["operations"][0];
    let most = Amount::MAX;
    let amount = json!({ "grains": most.grains().to_string(), "sync": most.to_string() });
    assert_eq!((&transfer["kind"], &transfer["fields"]["amount"]), (&json!("Transfer"), &amount));
    assert_eq!(block["draws"][0]["index"], 3);
    assert!(!block.to_string().contains("signature"), "{block}");
}
