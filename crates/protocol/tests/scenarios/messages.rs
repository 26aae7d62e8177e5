//! A full value of every message between processes, with the places of its integers.

use crate::{
    numbers::{Number, numbers},
    samples::{block_body, bodies, envelope, header, receipts},
};
use commonware_codec::{Copying, DecodeExt, Encode, Error, Read};
use posync_protocol::{
    Account, AgreementId, Amount, Body, Bounded, Code, Key, Units,
    ledger::Event,
    limits::Parameters,
    operation::{DataSetClaim, ProbeCount, Voucher},
    wire::{gateway, node, provider},
};

const ACCOUNT: Account = Account([0xaa; 32]);

/// An encoded message and its integers.
pub(crate) struct Message {
    /// Kind of the message, as [`crate::targets::a_message`] numbers them.
    pub(crate) kind: u8,
    pub(crate) bytes: Vec<u8>,
    pub(crate) numbers: Vec<Number>,
}

fn message<T: Encode + Read<Cfg = ()>>(kind: u8, value: &T) -> Message {
    let bytes = value.encode().to_vec();
    Message { kind, numbers: numbers::<T>(&bytes), bytes }
}

/// Every message; [`assert_complete`] fails if a variant is missing here.
pub(crate) fn messages() -> Vec<Message> {
    let node_asks = node_asks();
    let node_answers = node_answers();
    let gateway_asks = gateway_asks();
    let gateway_answers = gateway_answers();
    let (provider_asks, provider_answers) = (provider_asks(), provider_answers());
    assert_complete::<node::Ask>(&node_asks);
    assert_complete::<node::NodeAnswer>(&node_answers);
    assert_complete::<gateway::Ask>(&gateway_asks);
    assert_complete::<gateway::GatewayAnswer>(&gateway_answers);
    assert_complete::<provider::Ask>(&provider_asks);
    assert_complete::<provider::ProviderAnswer>(&provider_answers);
    let mut all: Vec<Message> = node_asks.iter().map(|ask| message(0, ask)).collect();
    all.extend(node_answers.iter().map(|answer| message(1, answer)));
    all.extend(gateway_asks.into_iter().map(|ask| message(2, &gateway::Request { id: 7, ask })));
    all.extend(gateway_answers.into_iter().map(|answer| message(3, &gateway::Response { id: 7, answer })));
    all.extend(provider_asks.into_iter().map(|ask| message(4, &provider::Request { id: 7, ask })));
    all.extend(provider_answers.into_iter().map(|answer| message(5, &provider::Response { id: 7, answer })));
    all.push(message(6, &Parameters::LOCAL));
    all
}

/// Asserts that each tag that decodes has a sample.
fn assert_complete<T: Encode + Read<Cfg = ()>>(samples: &[T]) {
    let known: Vec<u8> = samples.iter().map(|sample| sample.encode()[0]).collect();
    for tag in 0..=255 {
        let exists = !matches!(T::decode(Copying(&[tag])), Err(Error::InvalidEnum(_)));
        assert_eq!(exists, known.contains(&tag), "tag {tag} of {}", std::any::type_name::<T>());
    }
}

/// Every kind of body has a sample.
#[test]
fn every_body_has_a_sample() {
    assert_complete::<Body>(&bodies().into_iter().map(|(_, body)| body).collect::<Vec<_>>());
    assert!(!messages().is_empty());
}

fn few<T, const MAX: usize>(items: Vec<T>) -> Bounded<T, MAX> {
    Bounded::new(items).expect("few")
}

const fn id() -> AgreementId {
    AgreementId { provider: ACCOUNT, slot: 3, opened: 4 }
}

fn node_asks() -> Vec<node::Ask> {
    let operation = envelope(bodies().swap_remove(0).1);
    vec![
        node::Ask::Info(node::Nothing {}),
        node::Ask::submit(&operation).expect("small"),
        node::Ask::Receipt([1; 32]),
        node::Ask::Read(few(vec![Key([2; 32])])),
        node::Ask::Follow(5),
        node::Ask::Body(5),
        node::Ask::Events(5),
        node::Ask::Header(5),
        node::Ask::Clock(node::Nothing {}),
        node::Ask::Genesis(node::Nothing {}),
        node::Ask::DialBack(node::DialBack {
            port: 7,
            account: ACCOUNT,
            service: node::Dial::Provider(node::Nothing {}),
        }),
        node::Ask::State(few(vec![1; 29])),
    ]
}

fn node_answers() -> Vec<node::NodeAnswer> {
    let certified = node::Certified { headers: few(vec![header(), header()]), finalization: few(vec![1; 8]) };
    let record = node::ProvenRecord { slot: Some([1; 256]), proof: few(vec![1; 8]) };
    let info = node::Info { chain: [1; 32], network_key: [2; 96], parameters: Parameters::LOCAL, height: 5 };
    let events = vec![
        Event::Drawn { provider: ACCOUNT, height: 7 },
        Event::RoundFaulty { round: 1, drawn: 2, on_time: 3 },
    ];
    vec![
        node::NodeAnswer::Info(info),
        node::NodeAnswer::Accepted([1; 32]),
        node::NodeAnswer::Refused(Code::Balance),
        node::NodeAnswer::Receipt(Some(node::Receipt { height: 4, index: 3, code: Code::Done })),
        node::NodeAnswer::Read(node::Read { certified: certified.clone(), records: few(vec![record]) }),
        node::NodeAnswer::Certified(certified),
        node::NodeAnswer::Body(node_body()),
        node::NodeAnswer::Events(node::BlockEvents { receipts: receipts(), events: few(events), last: true }),
        node::NodeAnswer::Unavailable(node::Unavailable::Busy),
        node::NodeAnswer::Clock(7),
        node::NodeAnswer::Genesis(few(vec![1; 77])),
        node::NodeAnswer::Dialled(node::Dialled {
            ip: [3; 16],
            outcome: node::DialOutcome::TimedOut(node::Nothing {}),
        }),
        node::NodeAnswer::State(few(vec![1; 99])),
    ]
}

/// A body of draws and one operation; the other operations are tried by themselves.
fn node_body() -> posync_protocol::block::BlockBody {
    let body = block_body();
    let first = body.operations[..1].to_vec();
    posync_protocol::block::BlockBody { operations: few(first), ..body }
}

fn gateway_asks() -> Vec<gateway::Ask> {
    let name = || few(b"name".to_vec());
    vec![
        gateway::Ask::Put(gateway::Put { name: name(), length: 9 }),
        gateway::Ask::Data(few(vec![1; 9])),
        gateway::Ask::Cancel(node::Nothing {}),
        gateway::Ask::Get(gateway::Get { name: name(), offset: 4, length: Some(5) }),
        gateway::Ask::List(name()),
        gateway::Ask::Remove(name()),
        gateway::Ask::Status(node::Nothing {}),
        gateway::Ask::Agreements(node::Nothing {}),
        gateway::Ask::Why(ACCOUNT),
    ]
}

fn gateway_answers() -> Vec<gateway::GatewayAnswer> {
    let file = || gateway::File {
        name: few(b"name".to_vec()),
        bytes: 9,
        blake3: [1; 32],
        segments: 2,
        shards_durable: 15,
        shards: 16,
    };
    let fault =
        gateway::Fault { provider: ACCOUNT, found_by: 1, round: 2, shards_lost: 3, shards_repaired: 4 };
    let user =
        gateway::UserRow { account: ACCOUNT, listed: true, quota: Some(8), files: 9, bytes: 10, pending: 11 };
    let status = gateway::Status {
        account: ACCOUNT,
        height: 5,
        files: 6,
        repairs_open: 7,
        faults: few(vec![fault]),
        users: few(vec![user]),
    };
    let row = gateway::AgreementRow {
        agreement: id(),
        shards: 1,
        bytes: 2,
        version: 3,
        egress: 4,
        end_epoch: 5,
        voucher_reserve: Amount::sync(6),
    };
    let seen = gateway::Seen {
        trusted: true,
        vetted: true,
        score: 1,
        room: Some((2, 3)),
        unanswered: 4,
        left_out: 5,
    };
    let placement =
        gateway::Placement { segment: few(vec![1; 9]), leaves: 1, reason: 2, candidates: 3, chosen: 4 };
    vec![
        gateway::GatewayAnswer::Stored(file()),
        gateway::GatewayAnswer::Found(file()),
        gateway::GatewayAnswer::Data(few(vec![1; 9])),
        gateway::GatewayAnswer::End(node::Nothing {}),
        gateway::GatewayAnswer::Files(few(vec![file(), file()])),
        gateway::GatewayAnswer::Removed(file()),
        gateway::GatewayAnswer::Status(status),
        gateway::GatewayAnswer::Agreements(few(vec![row])),
        gateway::GatewayAnswer::Refused(gateway::Refused {
            kind: gateway::Refusal::NoFile,
            text: few(b"no".to_vec()),
        }),
        gateway::GatewayAnswer::Why(gateway::Why {
            seen: Some(seen),
            recent: true,
            placements: few(vec![placement]),
        }),
    ]
}

fn provider_asks() -> Vec<provider::Ask> {
    let claim = DataSetClaim { agreement: id(), version: 1, root: [1; 32], leaves: 2, bytes: 3 };
    let sign = provider::Sign {
        claim,
        adds: few(vec![([1; 32], 5), ([2; 32], 6)]),
        removes: few(vec![0, 1]),
        signature: [1; 64],
    };
    let voucher = Voucher { agreement: id(), units: Units { egress: 1, gas: 2 }, signature: [1; 64] };
    vec![
        provider::Ask::Put(provider::Put { agreement: id(), shard: [1; 32], data: few(vec![1; 9]) }),
        provider::Ask::Sign(sign),
        provider::Ask::Get(provider::Get { agreement: id(), shard: [1; 32], offset: 65_536, length: 9 }),
        provider::Ask::Pay(voucher),
        provider::Ask::Status(node::Nothing {}),
        provider::Ask::Probe(provider::Probe { epoch: 1, index: 2, draw: 3 }),
        provider::Ask::Filler(provider::Filler { data: few(vec![1; 9]), last: true }),
    ]
}

fn provider_answers() -> Vec<provider::ProviderAnswer> {
    let slice = provider::Slice {
        shard_bytes: 70_000,
        offset: 65_536,
        data: few(vec![1; 9]),
        path: few(vec![[1; 32]; 3]),
        last: true,
    };
    let Some(Body::Refusal(signed)) =
        bodies().into_iter().map(|(_, body)| body).find(|body| matches!(body, Body::Refusal(_)))
    else {
        panic!("a refusal is among the samples")
    };
    let refused = provider::Refused {
        reason: provider::Refusal::Space,
        text: few(b"full".to_vec()),
        signed: Some(signed),
    };
    let count =
        ProbeCount { epoch: 1, sender: ACCOUNT, receiver: ACCOUNT, draw: 2, bytes: 3, signature: [1; 64] };
    vec![
        provider::ProviderAnswer::Stored([1; 32]),
        provider::ProviderAnswer::Signed([1; 64]),
        provider::ProviderAnswer::Slice(slice),
        provider::ProviderAnswer::Status(provider::Status {
            free_leaves: 1,
            load: 2,
            bad: few(vec![[1; 32]]),
        }),
        provider::ProviderAnswer::Refused(refused),
        provider::ProviderAnswer::Counted(count),
    ]
}
