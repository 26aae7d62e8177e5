//! Events: a full value of each kind, and the promise that no byte of them changes by accident.

use commonware_codec::{Copying, DecodeExt as _, Encode as _, Error};
use posync_protocol::{
    Account, AgreementId, Amount, Class, Code,
    block::sha256,
    event::{AgreementChange, Event, ReputationReason, ReputationStep},
};

/// One event of each kind that service audits emit.
fn of_service(provider: Account) -> [Event; 2] {
    [
        Event::ServiceMeasured {
            epoch: 1,
            provider,
            assigned: 4,
            reported: 3,
            on_time: 5,
            answered: 6,
            correct: 7,
            latency: 8,
            throughput: u64::MAX,
            stands: [6, 8],
        },
        Event::Reported {
            epoch: 1,
            provider,
            auditor: provider,
            asked: 4,
            answered: 3,
            correct: 2,
            latency: 1,
            throughput: 5,
            code: Code::AuditUnbacked,
        },
    ]
}

/// One event of each kind.
pub(crate) fn events() -> Vec<Event> {
    let (provider, amount) = (Account([7; 32]), Amount::sync(3));
    let agreement = AgreementId { provider, slot: 4, opened: 5 };
    let mut events = vec![
        Event::Settled {
            epoch: 1,
            provider,
            agreement: Some(agreement),
            fee: amount,
            burn: amount,
            committee: amount,
            pay: amount,
        },
        Event::Drawn { provider, height: 9 },
        Event::Audited {
            provider,
            height: 9,
            answered: true,
            passed: 3,
            reads: 4,
            on_time: false,
            excused: true,
        },
        Event::Agreement { agreement, consumer: provider, change: AgreementChange::Deleted },
        Event::VoucherRefused { agreement, code: Code::Balance },
        Event::Restitution { provider, agreement, amount },
        Event::CapacityCut { provider, consumer: provider, before: 7, after: 6 },
        Event::Pool { epoch: 1, weight: 2, emission: amount, pool: amount, drawn: amount },
        Event::Priced { epoch: 1, class: Class::Compute, price: 3, slow: 4 },
        Event::Subsidy { epoch: 1, provider, amount },
        Event::Reputation {
            provider,
            epoch: 1,
            step: ReputationStep::Unjailed,
            reason: ReputationReason::Request,
            evidence: [2; 32],
            until: 3,
        },
        Event::Closed { epoch: 1, rows: 2, root: [3; 32] },
        Event::Slashed {
            seat: provider,
            epoch: 1,
            parts: 2,
            amount,
            burned: amount,
            reporter: Some(provider),
            evidence: [2; 32],
            until: u64::MAX,
        },
        Event::CommitteePaid { epoch: 1, seat: provider, credits: 7, amount },
        Event::RoundFaulty { round: 5, drawn: 16, on_time: 12 },
        Event::CapacityMeasured { epoch: 1, provider, rate: 2, median: Some(3) },
        Event::CapacityMeasured { epoch: 1, provider, rate: 2, median: None },
    ];
    events.extend(of_service(provider));
    events
}

#[test]
fn events_survive_their_bytes() {
    for event in events() {
        assert_eq!(Event::decode(event.encode()).ok(), Some(event));
    }
}

/// Nodes keep events on disk. A change of these bytes is a change of that format.
#[test]
fn no_byte_of_an_event_changed() {
    let bytes: Vec<u8> = events().iter().flat_map(|event| event.encode().to_vec()).collect();
    let digest = sha256(&bytes);
    assert_eq!(digest[..8], [37, 5, 139, 37, 132, 105, 148, 217]);
}

/// The samples' bytes and JSON are recorded, so that an event without one would not be.
#[test]
fn every_event_has_a_sample() {
    let sampled: Vec<u8> = events().iter().map(|event| event.encode()[0]).collect();
    for tag in 0..=255 {
        let exists = !matches!(Event::decode(Copying(&[tag])), Err(Error::InvalidEnum(_)));
        assert_eq!(exists, sampled.contains(&tag), "event {tag}");
    }
}
