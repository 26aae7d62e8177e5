//! The signatures of each operation: a changed bit anywhere is noticed.

use crate::{
    samples::bodies,
    script::Stage,
    world::{account, key},
};
use commonware_codec::{Copying, DecodeExt, Encode};
use posync_protocol::{
    Amount, Body, Bounded, Operation, Units,
    block::with_chain,
    operation::{
        AuditCommit, CLOSE_NAMESPACE, Commitments, DATA_SET_NAMESPACE, DataSetClaim, Evidence, Redeem,
        Redemption, Report, SetDataSet, Voucher, reveals, sign,
    },
};

fn verifies(operation: &Operation, chain: &[u8; 32]) -> bool {
    operation.signatures(chain).iter().all(|check| check.verify())
}

fn set_data_set(stage: &Stage, provider: &str) -> Body {
    let claim =
        DataSetClaim { agreement: stage.id("p/0"), version: 1, root: [1; 32], leaves: 2, bytes: 2_000 };
    let message = with_chain(&stage.world.chain, &claim);
    Body::SetDataSet(SetDataSet {
        claim,
        index: 0,
        end_epoch: 20,
        storage_key: account("storage"),
        consumer_signature: sign(&key("storage"), DATA_SET_NAMESPACE, &message),
        provider_signature: Some(sign(&key(provider), DATA_SET_NAMESPACE, &message)),
    })
}

fn two_commitments(stage: &Stage) -> Body {
    let commits = [3, 4].map(|digest| AuditCommit::signed(&key("p"), &stage.world.chain, 2, [digest; 32]));
    let commits = Bounded::new(commits.to_vec()).unwrap();
    Body::Evidence(Evidence::Commitments(Commitments { seat: account("p"), commits }))
}

fn audit_commit(stage: &Stage) -> Body {
    Body::AuditCommit(AuditCommit::signed(&key("a"), &stage.world.chain, 3, [4; 32]))
}

fn audit_reveal(stage: &Stage) -> Body {
    let report = |stratum: u16| {
        let report = Report {
            stratum,
            auditor: 1,
            provider: account("p"),
            index: 0,
            slot: 0,
            opened: 2,
            session_key: account("session"),
            asked: 4,
            answered: 3,
            correct: 2,
            latency: 1,
            throughput: 1,
            signature: [0; 64],
        };
        report.signed(&key("session"), &stage.world.chain, 3, &account("a"))
    };
    Body::AuditReveal(reveals(3, [5; 32], vec![report(0), report(1)]).unwrap().remove(0))
}

/// Every operation that carries more signatures than its envelope's.
fn countersigned() -> Vec<(Operation, usize)> {
    let mut stage = Stage::new();
    stage.play("p register\n a open p");
    let voucher =
        Voucher::signed(&key("session"), &stage.world.chain, stage.id("p/0"), Units { egress: 5, gas: 6 });
    let redemption =
        Redemption { voucher, session_key: account("session"), claim: Some(Units { egress: 7, gas: 8 }) };
    let redeem = Body::Redeem(Redeem { vouchers: Bounded::new(vec![redemption; 2]).unwrap() });
    vec![
        (stage.sign("a send b 1"), 1),
        (stage.sign("a close p/0 second=p"), 2),
        (stage.sign("p close p/0 second=a"), 2),
        (stage.world.sign("a", set_data_set(&stage, "p")), 3),
        (stage.world.sign("p", redeem), 3),
        (stage.sign("b refusal p leaves=3 within=p/0"), 2),
        (stage.world.sign("a", audit_commit(&stage)), 2),
        (stage.world.sign("a", audit_reveal(&stage)), 3),
        (stage.sign("b evidence p"), 3),
        (stage.world.sign("b", two_commitments(&stage)), 3),
    ]
}

#[test]
fn a_changed_bit_anywhere_is_noticed() {
    let chain = Stage::new().world.chain;
    for (operation, signatures) in countersigned() {
        assert_eq!(operation.signatures(&chain).len(), signatures);
        assert!(verifies(&operation, &chain));
        assert!(!verifies(&operation, &[8; 32]), "another network");
        let bytes = operation.encode();
        for place in 0..bytes.len() {
            let mut changed = bytes.to_vec();
            changed[place] ^= 1 << (place % 8);
            let noticed =
                Operation::decode(Copying(&changed)).map_or(true, |other| !verifies(&other, &chain));
            assert!(noticed, "byte {place} of {operation:?}");
        }
    }
}

/// Signatures in the fields of a sample, by their first byte: in samples each is one byte of 1 to 9, repeated,
/// and nothing else repeats such a byte as often.
fn signatures_in(mut bytes: &[u8]) -> Vec<u8> {
    let mut found = Vec::new();
    while let Some(first) = bytes.first() {
        let is_signature =
            (1..=9).contains(first) && bytes.len() >= 64 && bytes[..64].iter().all(|byte| byte == first);
        if is_signature {
            found.push(*first);
        }
        bytes = &bytes[if is_signature { 64 } else { 1 }..];
    }
    found
}

#[test]
fn every_signature_that_an_operation_carries_is_verified() {
    for (name, body) in bodies() {
        let carried = signatures_in(&body.encode());
        let operation = Operation::signed(&key("a"), &[7; 32], 1, Amount::sync(1), 9, body);
        let verified: Vec<u8> =
            operation.signatures(&[7; 32]).iter().skip(1).map(|check| check.signature[0]).collect();
        assert_eq!(verified, carried, "{name}");
    }
}

#[test]
fn a_countersignature_of_the_wrong_party_is_noticed() {
    let mut stage = Stage::new();
    stage.play("p register\n a open p");
    let chain = stage.world.chain;
    let wrong = [
        stage.sign("a close p/0 second=a"),
        stage.sign("p close p/0 second=p"),
        stage.world.sign("a", set_data_set(&stage, "q")),
    ];
    for operation in wrong {
        assert!(!verifies(&operation, &chain), "{operation:?}");
    }
}

#[test]
fn an_envelope_covers_every_body() {
    let chain = [7; 32];
    for (name, body) in bodies() {
        let operation = Operation::signed(&key("a"), &chain, 1, Amount::sync(1), 9, body);
        let own = &operation.signatures(&chain)[0];
        assert!(own.verify(), "{name}");
        let other = Operation { nonce: 2, ..operation.clone() };
        assert!(!other.signatures(&chain)[0].verify(), "{name}");
        assert_eq!(operation.id(), Operation::decode(operation.encode()).unwrap().id());
    }
    assert_ne!(CLOSE_NAMESPACE, DATA_SET_NAMESPACE);
}
