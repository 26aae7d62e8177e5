//! The fuzz targets, which an ordinary test also replays from the corpus. Each is a function of
//! bytes that returns for any bytes, or panics because a promise is broken.
//!
//! `fuzz/` includes this file, so that the fuzzer, the replay and the property tests run the same code.

use crate::{
    numbers::{bounds, edges, numbers},
    populated::{Moment, OPERATIONS, moments, operation},
    world::World,
};
use commonware_codec::{Copying, DecodeExt, Encode, Read};
use posync_protocol::{
    Operation, Record, Slot,
    block::{BlockBody, Draw, Header, Receipts},
    ledger::{self, BlockContext, Invalid, Mode, Outcome, execute, fee, select, touches_operation},
    limits::Parameters,
    operation::check_structure,
    record::*,
    shard,
    tree::SumTree,
    wire,
};

/// A target and its name, which is also a directory of the corpus and a binary of `fuzz/`.
pub(crate) type Target = (&'static str, fn(&[u8]));

/// All targets, by name.
pub(crate) const TARGETS: &[Target] = &[
    ("operation", an_operation),
    ("block", a_block),
    ("record", a_record),
    ("message", a_message),
    ("execute", blocks),
];

/// Decodes a value, and checks that the bytes are canonical if it decodes.
fn decoded<T: Encode + Read<Cfg = ()>>(bytes: &[u8]) -> Option<T> {
    let value = T::decode(Copying(bytes)).ok()?;
    assert_eq!(value.encode(), bytes, "a value has one encoding");
    Some(value)
}

/// Any bytes as an operation, handled as by a node's ingress and a wallet, at any height.
pub(crate) fn an_operation(data: &[u8]) {
    let Some(operation) = decoded::<Operation>(data) else { return };
    let chain = [7; 32];
    operation.signatures(&chain);
    for height in [1, 1_000, operation.expires, u64::MAX] {
        let context = BlockContext {
            chain,
            parameters: Parameters::LOCAL,
            height,
            leader: operation.signer,
            parent: [1; 32],
            seed: None,
        };
        let _ = check_structure(&operation, &context);
        touches_operation(&context, &operation);
        fee(&context, u64::MAX, &operation);
    }
}

/// Any bytes as the parts of a block.
pub(crate) fn a_block(data: &[u8]) {
    let Some((kind, rest)) = data.split_first() else { return };
    match kind % 3 {
        0 => drop(decoded::<Header>(rest).map(|header| (header.digest(), header.check()))),
        1 => drop(decoded::<BlockBody>(rest).map(|body| body.root())),
        _ => drop(decoded::<Receipts>(rest).map(|receipts| receipts.root())),
    }
}

/// Decodes a slot as a kind and encodes it again. Returns true if it is of that kind.
fn of_kind<R: Record>(slot: &Slot) -> bool {
    let Ok(record) = R::from_slot(slot) else { return slot[0] == R::KIND };
    assert_eq!(record.to_slot(), *slot, "a record has one slot");
    true
}

/// One function for every kind of record.
const KINDS: &[fn(&Slot) -> bool] = &[
    of_kind::<System>,
    of_kind::<AccountState>,
    of_kind::<Provider>,
    of_kind::<Audit>,
    of_kind::<ProviderAt>,
    of_kind::<Endpoint>,
    of_kind::<Offer>,
    of_kind::<Agreement>,
    of_kind::<Usage>,
    of_kind::<DataSet>,
    of_kind::<SlotTree>,
    of_kind::<FeeTree>,
    of_kind::<Ending>,
    of_kind::<Endings>,
    of_kind::<RoundInfo>,
    of_kind::<Settlement>,
    of_kind::<Newcomer>,
    of_kind::<Market>,
    of_kind::<Reputation>,
    of_kind::<Closing>,
    of_kind::<Books>,
    of_kind::<Peak>,
    of_kind::<Seat>,
    of_kind::<SeatAt>,
    of_kind::<Offences>,
    of_kind::<FaultRing>,
    of_kind::<FaultBits>,
    of_kind::<Measured>,
    of_kind::<Probe>,
    of_kind::<ServiceRound>,
    of_kind::<Commitment>,
    of_kind::<Reports>,
    of_kind::<Node>,
    of_kind::<NodeAt>,
];

/// True if this file knows the kind of the record.
pub(crate) fn is_known(slot: &Slot) -> bool {
    KINDS.iter().any(|kind| kind(slot))
}

/// Any bytes as a slot of any record kind.
pub(crate) fn a_record(data: &[u8]) {
    let mut slot = [0; 256];
    let length = data.len().min(slot.len());
    slot[..length].copy_from_slice(&data[..length]);
    is_known(&slot);
}

/// Any bytes as a message of every service, and the figures that the rules compute from its numbers.
pub(crate) fn a_message(data: &[u8]) {
    use wire::{gateway, node, provider};
    let Some((kind, rest)) = data.split_first() else { return };
    match kind % 7 {
        0 => drop(decoded::<node::Ask>(rest)),
        1 => match decoded::<node::NodeAnswer>(rest) {
            Some(node::NodeAnswer::Info(info)) => every_figure(&info.parameters, info.height),
            _ => {}
        },
        2 => drop(decoded::<gateway::Request>(rest)),
        3 => drop(decoded::<gateway::Response>(rest)),
        4 => match decoded::<provider::Request>(rest).map(|request| request.ask) {
            Some(provider::Ask::Sign(sign)) => drop(SumTree::default().change(&sign.removes, &sign.adds)),
            Some(provider::Ask::Get(get)) => drop(shard::prove_slice(get.length, get.offset, &[])),
            Some(provider::Ask::Probe(probe)) => {
                let drawn = Probe { epoch: probe.epoch, seed: [1; 32], providers: 9 };
                drawn.peer(&Default::default(), probe.index, probe.draw);
                drawn.window(&Parameters::LOCAL);
            }
            _ => {}
        },
        5 => match decoded::<provider::Response>(rest).map(|response| response.answer) {
            Some(provider::ProviderAnswer::Slice(slice)) => {
                shard::verify_slice(&[1; 32], slice.shard_bytes, slice.offset, &slice.data, &slice.path);
            }
            _ => {}
        },
        _ => match decoded::<Parameters>(rest) {
            Some(parameters) => every_figure(&parameters, parameters.block_ms),
            None => {}
        },
    }
}

/// Everything that follows from parameters and a number; a node sends both.
pub(crate) fn every_figure(parameters: &Parameters, number: u64) {
    parameters.term_blocks();
    parameters.epoch_blocks();
    parameters.round(number);
    parameters.epoch(number);
    parameters.epoch_start(number);
    parameters.indices_max();
    parameters.faults_max();
    parameters.probe_blocks();
    parameters.bytes_per_epoch(number);
    parameters.bytes_per_second(number);
    posync_protocol::capacity::rate([number; 8], parameters);
    posync_protocol::capacity::share(number, number, u64::MAX, parameters);
    posync_protocol::provider::bond_needed(number, parameters);
}

/// Runs a block's draws and operations as its proposer, and as a verifier of all of them. For any
/// input they return an outcome or an [`Invalid`].
pub(crate) fn run(
    world: &World,
    context: &BlockContext,
    draws: &[Option<Draw>],
    operations: &[Operation],
) -> Result<Outcome, Invalid> {
    for operation in operations {
        let _ = check_structure(operation, context);
        touches_operation(context, operation);
        fee(context, u64::MAX, operation);
        operation.signatures(&context.chain);
    }
    let system = world.system();
    let closing_set = world.closing_set(context);
    let read = |keys: Vec<posync_protocol::Key>| {
        keys.into_iter().map(|key| (key, world.state.get(&key).copied())).collect::<ledger::Records>()
    };
    // A proposer never sees an operation with a wrong structure, and `execute` must not rely on that.
    let named = ledger::touches(context, &system, &closing_set, draws, operations);
    let records = match &named {
        Ok(keys) => read(keys.clone()),
        Err(_) => read(ledger::touches(context, &system, &closing_set, draws, &[])?),
    };
    let proposed = execute(context, draws, operations, &records, Mode::Propose);
    let verified = execute(context, draws, operations, &records, Mode::Verify);
    named?;
    match (proposed, verified) {
        (Ok(proposed), Ok(verified)) => {
            assert_eq!(proposed.changes, verified.changes, "proposer and verifier agree");
            Ok(verified)
        }
        (Err(invalid), _) | (Ok(_), Err(invalid)) => Err(invalid),
    }
}

/// Bytes that decide each next choice; zeros when they are used up.
struct Input<'a>(&'a [u8]);

impl Input<'_> {
    fn byte(&mut self) -> u8 {
        let Some((first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        *first
    }

    fn below(&mut self, bound: usize) -> usize {
        let number = if bound > 256 { usize::from(self.byte()) << 8 } else { 0 };
        (number + usize::from(self.byte())) % bound.max(1)
    }

    fn word(&mut self) -> u64 {
        (0..8).fold(0, |word, _| word << 8 | u64::from(self.byte()))
    }
}

/// Blocks of operations on a populated world, decoded from bytes: the moment, then for each block
/// the number of operations, the operations, and new values for some of their numbers. After each
/// block the whole state is checked, and money is conserved.
pub(crate) fn blocks(data: &[u8]) {
    let mut input = Input(data);
    let all = moments();
    let mut at = all[input.below(all.len())].clone();
    at.stage.world.draws = input.byte().is_multiple_of(2);
    for _ in 0..8 {
        if input.0.is_empty() {
            return;
        }
        let count = input.below(8);
        if count == 7 {
            let blocks = input.below(16);
            (0..blocks).for_each(|_| block(&mut at.stage.world, &[]));
            continue;
        }
        let candidates: Vec<Operation> = (0..count).filter_map(|_| changed(&mut at, &mut input)).collect();
        block(&mut at.stage.world, &candidates);
    }
}

/// An operation of this moment with up to three numbers changed.
fn changed(at: &mut Moment, input: &mut Input<'_>) -> Option<Operation> {
    let operation = operation(at, input.below(OPERATIONS))?;
    let mut bytes = operation.encode().to_vec();
    let near = [at.stage.world.height, at.stage.world.epoch()];
    for _ in 0..input.below(4) {
        let found = numbers::<Operation>(&bytes);
        let number = found[input.below(found.len())];
        let edges: Vec<u128> = edges(number, number.get(&bytes), &bounds(&near)).into_iter().collect();
        let value = match input.below(edges.len() + 1) {
            place if place < edges.len() => edges[place],
            _ => u128::from(input.word()),
        };
        let changed = number.set(&bytes, value);
        // A tag or a length that does not decode would end the run early, so it is left unchanged.
        if Operation::decode(Copying(&changed)).is_ok() {
            bytes = changed;
        }
    }
    Operation::decode(Copying(&bytes)).ok()
}

/// Runs the next block as a node with a full mempool does: selects, proposes, verifies, applies.
fn block(world: &mut World, candidates: &[Operation]) {
    let context = world.context(world.height + 1);
    let draws = world.resolve(&context);
    let chosen = select(&context, &world.system(), &world.closing_set(&context), &draws, candidates);
    let operations: Vec<Operation> = chosen.into_iter().map(|place| candidates[place].clone()).collect();
    world.block(&operations).expect("what is selected makes a valid block");
}
