//! The fuzz targets are those of the tests in `crates/protocol`: a fuzzer finds inputs, and the
//! tests replay them.

#![allow(dead_code)]

#[path = "../../crates/protocol/tests/scenarios/messages.rs"]
mod messages;
#[path = "../../crates/protocol/tests/scenarios/model_provider.rs"]
mod model_provider;
#[path = "../../crates/protocol/tests/scenarios/numbers.rs"]
mod numbers;
#[path = "../../crates/protocol/tests/scenarios/populated.rs"]
mod populated;
#[path = "../../crates/protocol/tests/scenarios/samples.rs"]
mod samples;
#[path = "../../crates/protocol/tests/scenarios/script.rs"]
mod script;
#[path = "../../crates/protocol/tests/scenarios/targets.rs"]
mod targets;
#[path = "../../crates/protocol/tests/scenarios/world.rs"]
mod world;

/// Runs the target with this name.
///
/// # Panics
/// If a promise of the rules is broken, or if there is no such target.
pub fn run(name: &str, data: &[u8]) {
    let target = targets::TARGETS.iter().find(|(own, _)| *own == name);
    target.expect("a target of this name").1(data);
}

/// Writes the [`seeds`] into the directory in `POSYNC_SEEDS`, if it is set, and exits.
pub fn seed() {
    let Some(root) = std::env::var_os("POSYNC_SEEDS") else { return };
    for (number, (target, input)) in seeds().into_iter().enumerate() {
        let directory = std::path::Path::new(&root).join(target);
        let written = std::fs::create_dir_all(&directory)
            .and_then(|()| std::fs::write(directory.join(format!("seed-{number:03}")), input));
        written.expect("a directory that can be written");
    }
    std::process::exit(0);
}

/// Inputs with which a fuzzer starts without a corpus: a value of everything, as (target, input).
fn seeds() -> Vec<(&'static str, Vec<u8>)> {
    use commonware_codec::Encode as _;
    let mut seeds = Vec::new();
    for at in populated::moments() {
        let built =
            (0..populated::OPERATIONS).filter_map(|number| populated::operation(&mut at.clone(), number));
        seeds.extend(built.map(|operation| ("operation", operation.encode().to_vec())));
    }
    let bodies = samples::bodies().into_iter();
    seeds.extend(bodies.map(|(_, body)| ("operation", samples::envelope(body).encode().to_vec())));
    seeds.push(("block", [&[0], &samples::header().encode()[..]].concat()));
    seeds.push(("block", [&[1], &samples::block_body().encode()[..]].concat()));
    seeds.push(("block", [&[2], &samples::receipts().encode()[..]].concat()));
    seeds.extend(samples::records().into_iter().map(|(_, slot)| ("record", slot.to_vec())));
    let messages = messages::messages().into_iter();
    seeds.extend(messages.map(|message| ("message", [&[message.kind], &message.bytes[..]].concat())));
    for moment in 0..populated::moments().len() as u8 {
        // One unchanged operation a block, in turn.
        let turns = (0..populated::OPERATIONS as u8).step_by(8);
        let blocks =
            turns.map(|first| (first..first + 8).flat_map(|number| [1, number, 0]).collect::<Vec<u8>>());
        seeds.extend(blocks.map(|blocks| ("execute", [&[moment, 0], &blocks[..]].concat())));
    }
    seeds
}
