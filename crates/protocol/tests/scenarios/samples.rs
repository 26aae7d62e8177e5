//! The largest value of every record, and a full value of every other encoded type.

use posync_protocol::{
    Account, AgreementId, Amount, Body, Bounded, Code, Metered, Operation, PerClass, Record, Slot, Units,
    block::{BlockBody, Draw, Header, Receipts},
    limits::{
        ADDRESS_BYTES_MAX, DRAWS_MAX, FAULT_EPOCHS, LEAF_BYTES, LEAF_LEVELS_MAX, OPERATOR_BYTES,
        REGION_BYTES_MAX, SUM_LEVELS_MAX,
    },
    operation::{
        AnnounceNode, AuditCommit, AuditReveal, Close, CloseAlone, Commitments, DataSetClaim, Evidence,
        FoundRead, Measure, MissingRead, Open, ProbeCount, Proposals, ProvedRead, ReadAnswer, Reasked,
        Redeem, Redemption, RefusedPlacement, RegisterProvider, Report, RotateKey, SetDataSet, Settle,
        StillMissing, StorageProof, SumPath, TopUp, Transfer, Unjail, UpdateProvider, Voucher,
    },
    record::{
        self, AccountState, Agreement, Audit, Books, Challenge, Closing, Commitment, DataSet, Ending,
        Endings, Endpoint, FAULT_BYTES, FaultBits, FaultRing, FeeTree, Finding, Lock, Market, Measured,
        Missing, Newcomer, Node, NodeAt, Offences, Offer, Peak, Probe, Provider, ProviderAt, Ratio, Reports,
        Reputation, RoundInfo, Seat, SeatAt, ServiceRound, Settlement, SlotTree, System, Usage, Version,
    },
};

const ACCOUNT: Account = Account([0xaa; 32]);
const FULL: [u8; 32] = [0xff; 32];

fn full<T: Clone, const MAX: usize>(item: T) -> Bounded<T, MAX> {
    few(item, MAX)
}

fn few<T: Clone, const MAX: usize>(item: T, count: usize) -> Bounded<T, MAX> {
    Bounded::new(vec![item; count]).expect("at most as many as fit")
}

fn id() -> AgreementId {
    AgreementId { provider: ACCOUNT, slot: u32::MAX, opened: u64::MAX }
}

fn version() -> Version {
    Version { version: u64::MAX, root: FULL, leaves: u64::MAX, bytes: u64::MAX, grown_at: u32::MAX }
}

/// Every kind of record, with the largest values.
pub(crate) fn records() -> Vec<(&'static str, Slot)> {
    let mut records = ledger_records();
    records.extend(agreement_records());
    records.extend(book_records());
    records.extend(seat_records());
    records.extend(service_records());
    records
}

fn ledger_records() -> Vec<(&'static str, Slot)> {
    let money = Amount::MAX;
    let system = System {
        height: u64::MAX,
        providers: u32::MAX,
        vacant: Some(u32::MAX),
        newcomers: u32::MAX,
        agreements: u64::MAX,
        balances: money,
        voucher_reserves: money,
        storage_pools: money,
        bonds: money,
        deposits: money,
        burned: money,
        committee: money,
        reserve: money,
        carry: money,
        fee_weight: u128::MAX,
        turn: u64::MAX,
        seats: u32::MAX,
        seat_bonds: money,
        base_fee: u64::MAX,
    };
    let provider = Provider {
        index: u32::MAX,
        born: u64::MAX,
        leaves_at: u64::MAX,
        bond: money,
        sold: PerClass::all(u64::MAX),
        cut: u64::MAX,
        slots: u32::MAX,
        leaves: u64::MAX,
        slot_weight: u128::MAX,
        paid: u128::MAX,
        paid_base: u128::MAX,
        weighed: u128::MAX,
        pool: money,
        acc: u128::MAX,
        settled_round: u64::MAX,
    };
    let audit = Audit {
        challenge: Some(Challenge { height: u64::MAX, seed: FULL, by_fee: true }),
        history: u64::MAX,
        on_time: u64::MAX,
        silent: u64::MAX,
        drawn: u32::MAX,
        settlements: u32::MAX,
        closed: u8::MAX,
        answered: u32::MAX,
        last_height: u64::MAX,
        missing: full(Missing { slot: u32::MAX, shard: FULL, leaf: u32::MAX, asks_left: u8::MAX }),
    };
    vec![
        ("record/System", system.to_slot()),
        ("record/AccountState", AccountState { nonce: u64::MAX, balance: money }.to_slot()),
        ("record/Provider", provider.to_slot()),
        ("record/Audit", audit.to_slot()),
        ("record/ProviderAt", ProviderAt { account: Some(ACCOUNT), next_vacant: Some(u32::MAX) }.to_slot()),
        ("record/Endpoint", Endpoint { addresses: full(full::<_, ADDRESS_BYTES_MAX>(b'a')) }.to_slot()),
        ("record/Offer", offer().to_slot()),
        (
            "record/RoundInfo",
            RoundInfo { round: u64::MAX, anchor: FULL, drawn: u32::MAX, on_time: u32::MAX }.to_slot(),
        ),
        ("record/Newcomer", Newcomer { account: ACCOUNT, born: u64::MAX }.to_slot()),
        ("record/FeeTree", FeeTree { sum: u128::MAX }.to_slot()),
    ]
}

fn offer() -> Offer {
    Offer {
        operator: [0xff; OPERATOR_BYTES],
        capacity: PerClass::new(u64::MAX, u64::MAX, u64::MAX),
        reserve: PerClass::new(u64::MAX, u64::MAX, u64::MAX),
        term_max: u32::MAX,
        region: full::<_, REGION_BYTES_MAX>(b'r'),
    }
}

/// Samples of the authorities' records.
fn seat_records() -> Vec<(&'static str, Slot)> {
    let money = Amount::MAX;
    let seat = Seat {
        index: u32::MAX,
        bond: money,
        credits: [u32::MAX; 4],
        exposed: [money; 4],
        jailed: Some(u64::MAX),
        paid: money,
        slashed: money,
    };
    vec![
        ("record/Seat", seat.to_slot()),
        ("record/SeatAt", SeatAt { account: ACCOUNT }.to_slot()),
        ("record/Offences", Offences { epoch: u64::MAX, seats: FULL }.to_slot()),
        ("record/Node", node().to_slot()),
        ("record/NodeAt", NodeAt { account: ACCOUNT }.to_slot()),
    ]
}

fn node() -> Node {
    Node {
        place: Some(u32::MAX),
        address: full(b'a'),
        archive: true,
        region: full(b'r'),
        deposit: Amount::MAX,
        announced: u64::MAX,
    }
}

/// Samples of the service audits' records.
fn service_records() -> Vec<(&'static str, Slot)> {
    let round = ServiceRound { epoch: u64::MAX, seed: FULL, providers: u32::MAX, seats: u32::MAX };
    let finding = Finding {
        auditor: u8::MAX,
        asked: u16::MAX,
        answered: u16::MAX,
        correct: u16::MAX,
        latency: u8::MAX,
        throughput: u8::MAX,
    };
    vec![
        ("record/ServiceRound", round.to_slot()),
        ("record/Commitment", Commitment { epoch: u64::MAX, digest: FULL }.to_slot()),
        ("record/Reports", Reports { epoch: u64::MAX, findings: full(finding) }.to_slot()),
    ]
}

/// Samples of the records of epoch accounting.
fn book_records() -> Vec<(&'static str, Slot)> {
    vec![
        ("record/Settlement", row().to_slot()),
        ("record/Market", market().to_slot()),
        ("record/Reputation", reputation().to_slot()),
        ("record/Closing", closing().to_slot()),
        ("record/Books", books().to_slot()),
        ("record/Peak", Peak { node: FULL }.to_slot()),
        ("record/FaultRing", FaultRing { epoch: u64::MAX, counts: [u16::MAX; FAULT_EPOCHS] }.to_slot()),
        ("record/FaultBits", FaultBits { last: u64::MAX, bits: [0xff; FAULT_BYTES] }.to_slot()),
        ("record/Measured", measured().to_slot()),
        ("record/Probe", Probe { epoch: u64::MAX, seed: FULL, providers: u32::MAX }.to_slot()),
    ]
}

const fn measured() -> Measured {
    Measured { taken: u8::MAX, epochs: [u64::MAX; record::MEASURED], rates: [u64::MAX; record::MEASURED] }
}

fn row() -> Settlement {
    let money = Amount::MAX;
    Settlement {
        epoch: u64::MAX,
        fee: money,
        burn: money,
        committee: money,
        pay: money,
        base: money,
        redeemed: Units { egress: u64::MAX, gas: u64::MAX },
        storage: u64::MAX,
        signed: money,
        disputed: money,
        reads: u32::MAX,
        answers: u32::MAX,
        wrong: u8::MAX,
        late: 5,
        correct: PerClass::all(Ratio::UNMEASURED),
        available: Ratio::UNMEASURED,
        latency: Ratio::UNMEASURED,
        quality: Ratio::UNMEASURED,
        least: Ratio::UNMEASURED,
        weight: u128::MAX,
        subsidy: money,
        scores: PerClass::all(Ratio::UNMEASURED),
        assigned: u8::MAX,
        reported: u8::MAX,
    }
}

const fn market() -> Market {
    Market {
        price: u64::MAX,
        slow: u64::MAX,
        excess: u64::MAX,
        bucket: u128::MAX,
        capacity: u128::MAX,
        used: u128::MAX,
        epoch: u64::MAX,
    }
}

const fn reputation() -> Reputation {
    Reputation {
        registered: u64::MAX,
        scores: PerClass::all(u64::MAX),
        qualities: [u64::MAX; record::QUALITIES],
        idle: u32::MAX,
        drawn_at_close: u32::MAX,
        answered_at_close: u32::MAX,
        low_correct: u8::MAX,
        low_egress: u8::MAX,
        low_available: u8::MAX,
        suspended: u64::MAX,
        warned: u64::MAX,
        jailed_until: u64::MAX,
        jailings: u8::MAX,
        last_jailed: u64::MAX,
        probation: u8::MAX,
        released: u64::MAX,
        answered: u64::MAX,
        latency: u64::MAX,
        on_time: u64::MAX,
        proven: u64::MAX,
        silent: u8::MAX,
    }
}

const fn closing() -> Closing {
    let money = Amount::MAX;
    Closing {
        epoch: u64::MAX,
        providers: u32::MAX,
        rows: u64::MAX,
        burn: money,
        weight: u128::MAX,
        capacity: PerClass::all(u128::MAX),
        used: PerClass::all(u128::MAX),
        emission: money,
        pool: money,
        drawn: money,
        paid: money,
        committee: money,
    }
}

const fn books() -> Books {
    let money = Amount::MAX;
    Books {
        epoch: u64::MAX,
        rows: u64::MAX,
        root: FULL,
        burn: money,
        weight: u128::MAX,
        emission: money,
        pool: money,
        drawn: money,
        paid: money,
        carry: money,
        prices: PerClass::all(u64::MAX),
        slow: PerClass::all(u64::MAX),
        committee: money,
        credits: u64::MAX,
    }
}

fn agreement_records() -> Vec<(&'static str, Slot)> {
    let money = Amount::MAX;
    let agreement = Agreement {
        opened: u64::MAX,
        consumer: ACCOUNT,
        session_key: ACCOUNT,
        storage_key: ACCOUNT,
        end_epoch: u64::MAX,
        prices: PerClass::new(
            record::Pair { price: u64::MAX, slow: u64::MAX },
            record::Pair { price: u64::MAX, slow: u64::MAX },
            record::Pair { price: u64::MAX, slow: u64::MAX },
        ),
        quota: PerClass::new(u64::MAX, u64::MAX, u64::MAX),
        rate: Units { egress: u64::MAX, gas: u64::MAX },
    };
    let usage = Usage {
        storage_reserve: money,
        voucher_reserve: money,
        deposit: money,
        redeemed: Units { egress: u64::MAX, gas: u64::MAX },
        acc: u128::MAX,
        closing_epoch: Some(u64::MAX),
        old_session_key: ACCOUNT,
        old_key_until: u32::MAX,
        signed: money,
        disputed: money,
        audited: u64::MAX,
        held_round: u64::MAX,
        lock: Some(Lock {
            prices: Metered {
                egress: record::Pair { price: u64::MAX, slow: u64::MAX },
                gas: record::Pair { price: u64::MAX, slow: u64::MAX },
            },
            from: Units { egress: u64::MAX, gas: u64::MAX },
            before: Metered {
                egress: record::Before { price: u64::MAX, base: u64::MAX },
                gas: record::Before { price: u64::MAX, base: u64::MAX },
            },
        }),
    };
    let ending = Ending {
        paid: u128::MAX,
        paid_base: u128::MAX,
        leaves: u64::MAX,
        acc: Some(u128::MAX),
        agreements: u32::MAX,
    };
    vec![
        ("record/Agreement", agreement.to_slot()),
        ("record/Usage", usage.to_slot()),
        ("record/DataSet", DataSet { current: version(), next: Some(version()) }.to_slot()),
        ("record/SlotTree", SlotTree { sum: u128::MAX }.to_slot()),
        ("record/Ending", ending.to_slot()),
        ("record/Endings", Endings { crossed: u64::MAX, bits: [0xff; record::ENDING_BYTES] }.to_slot()),
    ]
}

fn path() -> SumPath {
    SumPath { lefts: u32::MAX, siblings: full::<_, SUM_LEVELS_MAX>((FULL, u64::MAX)) }
}

fn redemption() -> Redemption {
    let voucher =
        Voucher { agreement: id(), units: Units { egress: u64::MAX, gas: u64::MAX }, signature: [3; 64] };
    Redemption { voucher, session_key: ACCOUNT, claim: Some(Units { egress: u64::MAX, gas: u64::MAX }) }
}

/// A storage proof with the largest values.
pub(crate) fn storage_proof() -> StorageProof {
    let read = ProvedRead {
        place: u32::MAX,
        shard: FULL,
        length: u64::MAX,
        position: path(),
        leaf: full::<_, { LEAF_BYTES as usize }>(0xcc),
        path: full::<_, LEAF_LEVELS_MAX>(FULL),
    };
    let found = FoundRead {
        slot: u32::MAX,
        shard: FULL,
        length: u64::MAX,
        leaf: full::<_, { LEAF_BYTES as usize }>(0xcc),
        path: full::<_, LEAF_LEVELS_MAX>(FULL),
    };
    StorageProof {
        height: u64::MAX,
        anchor: FULL,
        index: u32::MAX,
        answers: full(ReadAnswer::Proved(read)),
        reasked: full(Reasked::Proved(found)),
        vouchers: full(redemption()),
        apply: full((u32::MAX, ACCOUNT, u64::MAX)),
        endings: full(u64::MAX),
    }
}

/// A redemption with the largest values.
pub(crate) fn redeem() -> Redeem {
    Redeem { vouchers: full(redemption()) }
}

fn missing() -> StorageProof {
    let read = MissingRead { place: 1, shard: FULL, length: 5, position: path() };
    StorageProof {
        answers: few(ReadAnswer::Missing(read), 1),
        reasked: few(Reasked::Missing(StillMissing { slot: 2 }), 1),
        vouchers: few(redemption(), 1),
        ..storage_proof()
    }
}

/// A sample of every operation body.
pub(crate) fn bodies() -> Vec<(&'static str, Body)> {
    let amount = Amount::MAX;
    let claim =
        DataSetClaim { agreement: id(), version: u64::MAX, root: FULL, leaves: u64::MAX, bytes: u64::MAX };
    let set = SetDataSet {
        claim,
        index: u32::MAX,
        end_epoch: u64::MAX,
        storage_key: ACCOUNT,
        consumer_signature: [1; 64],
        provider_signature: Some([2; 64]),
    };
    let close = Close {
        agreement: id(),
        consumer: ACCOUNT,
        index: 7,
        end_epoch: u64::MAX,
        last: u64::MAX,
        second: [9; 64],
    };
    let top_up = TopUp { agreement: id(), amount, price_max: Units { egress: u64::MAX, gas: u64::MAX } };
    let settle = Settle {
        provider: ACCOUNT,
        index: u32::MAX,
        slots: full((u32::MAX, ACCOUNT, u64::MAX)),
        endings: full(u64::MAX),
    };
    let rotate = RotateKey { agreement: id(), session_key: ACCOUNT };
    vec![
        ("body/Transfer", Body::Transfer(Transfer { to: ACCOUNT, amount })),
        ("body/RegisterProvider", Body::RegisterProvider(register())),
        ("body/UpdateProvider", Body::UpdateProvider(update())),
        ("body/Open", Body::Open(open())),
        ("body/TopUp", Body::TopUp(top_up)),
        ("body/Close", Body::Close(close)),
        ("body/CloseAlone", Body::CloseAlone(CloseAlone { agreement: id() })),
        ("body/RotateKey", Body::RotateKey(rotate)),
        ("body/SetDataSet", Body::SetDataSet(set)),
        ("body/StorageProof", Body::StorageProof(storage_proof())),
        ("body/StorageProof/missing", Body::StorageProof(missing())),
        ("body/Redeem", Body::Redeem(redeem())),
        ("body/Settle", Body::Settle(settle)),
        ("body/Refusal", Body::Refusal(refusal())),
        ("body/Unjail", Body::Unjail(Unjail { bond_add: amount })),
        ("body/AuditCommit", Body::AuditCommit(audit_commit())),
        ("body/AuditReveal", Body::AuditReveal(reveal())),
        ("body/Evidence", Body::Evidence(Evidence::Proposals(Proposals { headers: full(header()) }))),
        ("body/Measure", Body::Measure(measure())),
        ("body/AnnounceNode", Body::AnnounceNode(announcement())),
        (
            "body/Evidence/commitments",
            Body::Evidence(Evidence::Commitments(Commitments {
                seat: ACCOUNT,
                commits: full(audit_commit()),
            })),
        ),
    ]
}

fn announcement() -> AnnounceNode {
    AnnounceNode {
        address: Some(full(b'a')),
        archive: true,
        region: full(b'r'),
        place: u32::MAX,
        deposit_add: Amount::MAX,
        displaces: Some(ACCOUNT),
    }
}

const fn audit_commit() -> AuditCommit {
    AuditCommit { epoch: u64::MAX, digest: FULL, signature: [5; 64] }
}

/// A reveal with the largest values.
pub(crate) fn reveal() -> AuditReveal {
    let report = Report {
        stratum: u16::MAX,
        auditor: u8::MAX,
        provider: ACCOUNT,
        index: u32::MAX,
        slot: u32::MAX,
        opened: u64::MAX,
        session_key: ACCOUNT,
        asked: u16::MAX,
        answered: u16::MAX,
        correct: u16::MAX,
        latency: u8::MAX,
        throughput: u8::MAX,
        signature: [6; 64],
    };
    AuditReveal { epoch: u64::MAX, salt: FULL, batch: u8::MAX, others: full(FULL), reports: full(report) }
}

fn register() -> RegisterProvider {
    RegisterProvider {
        operator: [b'o'; OPERATOR_BYTES],
        bond: Amount::MAX,
        capacity: PerClass::new(u64::MAX, u64::MAX, u64::MAX),
        reserve: PerClass::new(u64::MAX, u64::MAX, u64::MAX),
        term_max: u32::MAX,
        addresses: full(full(b'a')),
        region: full(b'r'),
    }
}

fn measure() -> Measure {
    let count = ProbeCount {
        epoch: u64::MAX,
        sender: ACCOUNT,
        receiver: ACCOUNT,
        draw: 7,
        bytes: u64::MAX,
        signature: [6; 64],
    };
    Measure { epoch: u64::MAX, counts: full((u32::MAX, count)) }
}

const fn refusal() -> RefusedPlacement {
    RefusedPlacement {
        provider: ACCOUNT,
        consumer: ACCOUNT,
        agreement: Some(AgreementId { provider: ACCOUNT, slot: u32::MAX, opened: u64::MAX }),
        leaves: u64::MAX,
        height: u64::MAX,
        signature: [3; 64],
    }
}

fn update() -> UpdateProvider {
    UpdateProvider {
        bond_add: Amount::MAX,
        capacity: PerClass::new(u64::MAX, u64::MAX, u64::MAX),
        reserve: PerClass::new(u64::MAX, u64::MAX, u64::MAX),
        term_max: u32::MAX,
        addresses: full(full(b'a')),
        index: u32::MAX,
        leave: true,
        exit: Some(u64::MAX),
    }
}

fn open() -> Open {
    Open {
        provider: ACCOUNT,
        slot: u32::MAX,
        session_key: ACCOUNT,
        storage_key: ACCOUNT,
        price_max: PerClass::new(u64::MAX, u64::MAX, u64::MAX),
        quota: PerClass::new(u64::MAX, u64::MAX, u64::MAX),
        rate: Units { egress: u64::MAX, gas: u64::MAX },
        end_epoch: u64::MAX,
        voucher_reserve: Amount::MAX,
        storage_reserve_max: Amount::MAX,
    }
}

/// Wraps a body in an envelope.
pub(crate) fn envelope(body: Body) -> Operation {
    Operation { signer: ACCOUNT, nonce: 5, max_fee: Amount::MAX, expires: 6, body, signature: [4; 64] }
}

/// A header that carries a beacon.
pub(crate) fn header() -> Header {
    Header {
        version: 1,
        chain: FULL,
        term: 2,
        view: 3,
        leader: ACCOUNT,
        parent_view: 4,
        parent: FULL,
        height: 5,
        time_ms: 6,
        beacon: Some([7; 48]),
        body_root: FULL,
        receipts_root: FULL,
        state_root: FULL,
        ops_root: FULL,
        range_start: 8,
        range_end: 9,
        signature: [1; 64],
    }
}

/// A block body with every kind of operation.
pub(crate) fn block_body() -> BlockBody {
    let operations = bodies().into_iter().map(|(_, body)| envelope(body)).collect();
    let draw = Some(Draw { index: 3, account: ACCOUNT });
    BlockBody {
        draws: few::<_, DRAWS_MAX>(draw, 2),
        operations: Bounded::new(operations).expect("few"),
        dkg: few(1, 9),
    }
}

/// Receipts with every code.
pub(crate) fn receipts() -> Receipts {
    let rows = Code::ALL.iter().map(|code| (FULL, *code)).collect();
    Receipts { rows: Bounded::new(rows).expect("fewer codes than operations") }
}
