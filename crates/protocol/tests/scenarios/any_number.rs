//! No number that someone else chose makes a node panic: neither in an operation, nor in a block's
//! header, nor in a message.

use crate::{
    messages::{Message, messages},
    numbers::{Number, bounds, edges, numbers},
    populated::{Moment, OPERATIONS, moments, operation},
    samples,
    targets::{TARGETS, a_message, blocks, every_figure, is_known, run},
    world::World,
};
use commonware_codec::{Copying, DecodeExt, Encode, Read};
use posync_protocol::{
    Amount, Bounded, Code, Operation,
    block::{BlockBody, Header},
    ledger::{BlockContext, Invalid, fee},
    limits::Parameters,
    operation::check_structure,
};
use proptest::prelude::*;
use std::{
    collections::{BTreeMap, BTreeSet},
    panic::{AssertUnwindSafe, catch_unwind},
};

/// Heights at which a block with wrong numbers also runs, besides the next one: the ends of the range.
const HEIGHTS: [u64; 4] = [0, u64::MAX / 2, u64::MAX - 1_000, u64::MAX];

/// A kind of operation: its tag on the wire.
fn kind(operation: &Operation) -> u8 {
    operation.body.encode()[0]
}

/// The operations that can be built at a moment, each with its number.
fn operations_of(at: &Moment) -> Vec<(usize, Operation)> {
    let build = |number| Some((number, operation(&mut at.clone(), number)?));
    (0..OPERATIONS).filter_map(build).collect()
}

fn context_at(world: &World, height: u64) -> BlockContext {
    let next = world.context(world.height + 1);
    BlockContext { height, seed: Some([5; 32]).filter(|_| height % 3 == 1), ..next }
}

/// Runs the body of a block. Returns the text of the panic, if it panicked.
fn panics(world: &World, context: &BlockContext, body: &BlockBody) -> Option<String> {
    let outcome = catch_unwind(AssertUnwindSafe(|| {
        if let Ok(outcome) = run(world, context, &body.draws, &body.operations)
            && context.height == world.height + 1
        {
            world.clone().apply(context.height, &outcome);
        }
    }));
    let cause = outcome.err()?;
    let text = cause.downcast_ref::<String>().map(String::as_str);
    Some(text.or_else(|| cause.downcast_ref::<&str>().copied()).unwrap_or("a panic").into())
}

/// Sets every number of a block's body (draws and one operation) to each of its edges, and runs it.
/// Returns the number of runs, and the panics.
fn break_every_number(at: &Moment, name: usize, operation: Operation) -> (usize, Vec<String>) {
    let world = &at.stage.world;
    let draws = world.resolve(&world.context(world.height + 1));
    let body = BlockBody {
        draws: Bounded::new(draws).expect("a block's draws"),
        operations: Bounded::new(vec![operation]).expect("one"),
        dkg: Bounded::default(),
    };
    let bytes = body.encode().to_vec();
    let near = [world.height, world.epoch(), world.parameters.round(world.height)];
    let (bounds, mut ran, mut found) = (bounds(&near), 0, Vec::new());
    for number in numbers::<BlockBody>(&bytes) {
        for value in edges(number, number.get(&bytes), &bounds) {
            let Ok(broken) = BlockBody::decode(Copying(&number.set(&bytes, value))) else { continue };
            let heights = if value == number.max() { &HEIGHTS[..] } else { &[] };
            for height in [world.height + 1].iter().chain(heights) {
                ran += 1;
                if let Some(text) = panics(world, &context_at(world, *height), &broken) {
                    found.push(format!(
                        "{}: operation {name}, {number:?} = {value}, height {height}: {text}",
                        at.name
                    ));
                }
            }
        }
    }
    (ran, found)
}

/// The outcome of an operation that is alone in the next block of a moment.
fn alone(at: &Moment, operation: &Operation) -> Result<Code, Code> {
    let world = &at.stage.world;
    let context = world.context(world.height + 1);
    match run(world, &context, &world.resolve(&context), core::slice::from_ref(operation)) {
        Ok(outcome) => Ok(outcome.receipts[0].1),
        Err(Invalid::Operation { code, .. }) => Err(code),
        Err(invalid) => panic!("{}: {invalid}", at.name),
    }
}

/// Every operation at every moment, but only once for each outcome that it has unchanged.
fn distinct() -> Vec<(&'static Moment, usize, Operation)> {
    let mut seen = BTreeSet::new();
    let all = moments()
        .iter()
        .flat_map(|at| operations_of(at).into_iter().map(move |(number, operation)| (at, number, operation)));
    all.filter(|(at, number, operation)| seen.insert((*number, alone(at, operation)))).collect()
}

#[test]
fn no_number_of_any_operation_makes_a_block_panic() {
    let work = distinct();
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let work_of = |thread: usize| work.iter().skip(thread).step_by(threads);
    let results: Vec<(usize, Vec<String>)> = std::thread::scope(|scope| {
        let running: Vec<_> = (0..threads)
            .map(|thread| {
                let own = work_of(thread);
                scope.spawn(move || {
                    own.map(|(at, name, operation)| break_every_number(at, *name, operation.clone()))
                        .collect::<Vec<_>>()
                })
            })
            .collect();
        running.into_iter().flat_map(|thread| thread.join().expect("it catches panics")).collect()
    });
    let ran: usize = results.iter().map(|(ran, _)| ran).sum();
    let found: Vec<String> = results.into_iter().flat_map(|(_, found)| found).collect();
    assert!(ran > 20_000, "only {ran} blocks ran");
    assert!(
        found.is_empty(),
        "{} of {ran} blocks panicked:\n{}",
        found.len(),
        found[..found.len().min(40)].join("\n")
    );
}

/// The test above depends on this: every kind of operation is tried, and each succeeds unchanged at
/// some moment, so that a wrong number reaches all of the code and not only its first check.
#[test]
fn every_kind_of_operation_succeeds_at_some_moment() {
    let mut codes: BTreeMap<u8, BTreeSet<Result<Code, Code>>> = BTreeMap::new();
    for (at, _, operation) in distinct() {
        codes.entry(kind(&operation)).or_default().insert(alone(at, &operation));
    }
    let all: BTreeSet<u8> = samples::bodies().iter().map(|(_, body)| body.encode()[0]).collect();
    assert_eq!(codes.keys().copied().collect::<BTreeSet<_>>(), all, "no kind is left out");
    for (kind, codes) in codes {
        assert!(codes.contains(&Ok(Code::Done)), "kind {kind} only got {codes:?}");
    }
}

/// A block's header says its height, its leader and its time.
#[test]
fn no_number_of_a_header_makes_a_block_panic() {
    let bytes = samples::header().encode().to_vec();
    let mut ran = 0;
    for at in moments().iter().skip(1).step_by(2) {
        let world = &at.stage.world;
        let operations: Vec<Operation> =
            operations_of(at).into_iter().map(|(_, operation)| operation).collect();
        for number in numbers::<Header>(&bytes) {
            let edges = edges(number, number.get(&bytes), &bounds(&[world.height, world.epoch()]));
            for value in edges {
                let Ok(header) = Header::decode(Copying(&number.set(&bytes, value))) else { continue };
                header.check();
                let seed = header.beacon.map(|beacon| posync_protocol::block::sha256(&beacon));
                let context = BlockContext { height: header.height, seed, ..world.context(world.height + 1) };
                let draws = world.resolve(&context);
                for draws in [&draws[..], &[]] {
                    let _ = run(world, &context, draws, &operations);
                }
                ran += 1;
            }
        }
    }
    assert!(ran > 1_000);
}

/// A body of every kind with every list filled and every number at its largest, for lists that no
/// operation above fills.
#[test]
fn no_number_in_a_full_list_makes_a_block_panic() {
    let (at, mut ran) = (&moments()[1], 0);
    let world = &at.stage.world;
    let context = world.context(world.height + 1);
    for (name, body) in samples::bodies() {
        let (free, has_nonce) = (body.is_free(), body.has_nonce());
        let envelope = Operation { expires: context.height, ..samples::envelope(body) };
        let nonce = if has_nonce { envelope.nonce } else { 0 };
        let max_fee = if free { Amount::ZERO } else { envelope.max_fee };
        let bytes = Operation { nonce, max_fee, ..envelope }.encode().to_vec();
        for number in numbers::<Operation>(&bytes) {
            for value in [0, 1, number.max() / 2, number.max()] {
                let Ok(broken) = Operation::decode(Copying(&number.set(&bytes, value))) else { continue };
                let outcome = catch_unwind(AssertUnwindSafe(|| run(world, &context, &[], &[broken])));
                assert!(outcome.is_ok(), "{name}: {number:?} = {value}");
                ran += 1;
            }
        }
    }
    assert!(ran > 3_000, "only {ran}");
}

/// Sets every number of a message to each of its edges.
fn broken_messages<T: Encode + Read<Cfg = ()>>(message: &T) -> Vec<T> {
    let bytes = message.encode().to_vec();
    let set = |number: Number| {
        edges(number, number.get(&bytes), &bounds(&[])).into_iter().map(move |value| (number, value))
    };
    let all = numbers::<T>(&bytes).into_iter().flat_map(set);
    all.filter_map(|(number, value)| T::decode(Copying(&number.set(&bytes, value))).ok()).collect()
}

/// A node sends its network's parameters, and clients use them unchecked.
#[test]
fn no_number_of_told_parameters_makes_a_client_panic() {
    for parameters in [Parameters::LOCAL, Parameters::PRODUCTION] {
        let broken = broken_messages(&parameters);
        assert!(broken.len() > 1_000);
        for parameters in broken {
            for number in [0, 1, 4_711, u64::MAX / 2, u64::MAX] {
                every_figure(&parameters, number);
            }
            fees_of_everything(&parameters);
        }
    }
}

/// A client computes the fee of an operation from a node's answer.
fn fees_of_everything(parameters: &Parameters) {
    let world = &moments()[0].stage.world;
    let context = BlockContext { parameters: *parameters, ..world.context(world.height + 1) };
    for (_, body) in samples::bodies() {
        let operation = samples::envelope(body);
        let _ = check_structure(&operation, &context);
        fee(&context, u64::MAX, &operation);
    }
}

#[test]
fn no_number_of_a_message_makes_its_reader_panic() {
    let mut ran = 0;
    for Message { kind, bytes, numbers } in messages() {
        for number in numbers {
            for value in edges(number, number.get(&bytes), &bounds(&[])) {
                a_message(&[&[kind], &number.set(&bytes, value)[..]].concat());
                ran += 1;
            }
        }
    }
    assert!(ran > 10_000, "only {ran} messages");
}

#[test]
fn every_kind_of_record_is_a_target() {
    for (name, slot) in samples::records() {
        assert!(is_known(&slot), "{name} is not in targets.rs");
    }
}

/// The inputs that the fuzzer kept, on the toolchain that runs the tests.
#[test]
fn the_corpus_of_the_fuzzer_holds() {
    for (name, target) in TARGETS {
        let directory = format!("{}/../../fuzz/corpus/{name}", env!("CARGO_MANIFEST_DIR"));
        let files = std::fs::read_dir(&directory).expect("a corpus for each target");
        let inputs: Vec<Vec<u8>> =
            files.map(|file| std::fs::read(file.expect("listed").path()).expect("readable")).collect();
        assert!(inputs.len() >= 10, "{name}: only {} inputs", inputs.len());
        inputs.iter().for_each(|input| target(input));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Every kind of operation, with numbers of any value and at their edges, several a block, over
    /// epochs. [`blocks`] checks the whole state after each block.
    #[test]
    fn any_blocks_with_any_numbers_conserve_to_the_grain(data in prop::collection::vec(any::<u8>(), 0..300)) {
        blocks(&data);
    }

    #[test]
    fn no_bytes_make_a_target_panic(data in prop::collection::vec(any::<u8>(), 0..400)) {
        for (_, target) in &TARGETS[..TARGETS.len() - 1] {
            target(&data);
        }
    }
}
