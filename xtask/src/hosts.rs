//! A network on machines of its own: `cargo xtask hosts` makes network namespaces, runs the commands of
//! docs/operating.md in them, and checks every step of a network's life.
//!
//! It needs root and Linux. `--small` is the part that `cargo xtask test` runs; `--figures` measures; `--people`
//! follows the page for four new users to the letter.

mod far;
mod figures;
mod manual;
mod people;
mod providers;
mod relay;
mod story;
mod trouble;
mod world;

use relay::Relay;
use std::{
    path::{Path, PathBuf},
    process::ExitCode,
    time::{Duration, Instant},
};
use story::{Story, Told};

pub(crate) use world::unavailable;

/// Longest time of a whole run.
const FULL_MAX: Duration = Duration::from_secs(480);
/// Providers of a small run: a put needs six.
const PROVIDERS_SMALL: usize = 7;

/// Providers that a full run begins with; three more join later.
const PROVIDERS_FULL: usize = 9;

/// A step: its promise, and its function.
type Scene = (&'static str, fn(&mut Story) -> Told);

const SMALL: &[Scene] = &[
    ("four machines agree on a draft", story::draft),
    ("the ceremony waits for a late machine", story::ceremony),
    ("the authorities make blocks", story::begin),
    ("providers come", |story| story::providers(story, PROVIDERS_SMALL)),
    ("a gateway joins", |story| story::gateway(story, "g1", "g1", &[])),
    ("an owner stores and reads a file", story::put_get),
    ("an authority stops and comes back", story::away_and_back),
    ("every process ends in order", story::end),
];

const FULL: &[Scene] = &[
    ("four machines agree on a draft", story::draft),
    ("the ceremony waits for a late machine", story::ceremony),
    ("the authorities make blocks", story::begin),
    ("a node without a seat follows", trouble::node),
    ("providers come", |story| story::providers(story, PROVIDERS_FULL)),
    ("a gateway with two users joins", |story| story::gateway(story, "g0", "c0", &["c1"])),
    ("a gateway of another owner joins", |story| story::gateway(story, "g1", "g1", &[])),
    ("owners see their own files only", trouble::two_owners),
    ("a stranger is refused", trouble::stranger),
    ("providers join under load, get data and prove it", providers::joins),
    ("a provider announces that it leaves, and its data moves away", providers::leaves),
    ("an authority loses its disk and signs again", trouble::lost_disk),
    ("addresses change", trouble::addresses),
    ("a partition of two and two heals", trouble::partition),
    ("all nodes that a client was born with are replaced", trouble::replaced),
    ("a gateway moves to another machine", trouble::gateway_moves),
    ("a machine without a role checks the books", trouble::outsider),
    ("the provider has its bond back, and its machine is switched off", providers::has_left),
    ("every process ends in order", story::end),
];

/// The steps of a run that measures: those of [`FULL`] that give figures, and the idle roles.
const FIGURES: &[Scene] = &[
    ("four machines agree on a draft", story::draft),
    ("the ceremony waits for a late machine", story::ceremony),
    ("the authorities make blocks", story::begin),
    ("a node without a seat follows", trouble::node),
    ("providers come", |story| story::providers(story, PROVIDERS_FULL)),
    ("a gateway with two users joins", |story| story::gateway(story, "g0", "c0", &["c1"])),
    ("every role is measured while nobody uses it", figures::idle),
    ("providers join under load, get data and prove it", providers::joins),
    ("an authority loses its disk and signs again", trouble::lost_disk),
    ("every process ends in order", story::end),
];

/// The steps of a run with the halves of the network far apart.
const FAR: &[Scene] = &[
    ("four machines agree on a draft", story::draft),
    ("the ceremony waits for a late machine", story::ceremony),
    ("the authorities make blocks", story::begin),
    ("blocks go on", far::blocks),
    ("providers come", |story| story::providers(story, far::PROVIDERS)),
    ("a gateway joins", |story| story::gateway(story, "g1", "g1", &[])),
    ("an owner stores and reads files", far::files),
    ("an authority that no one hears is missed by nobody", far::silenced),
    ("an authority that hears no one is missed by nobody", far::deafened),
    ("every process ends in order", story::end),
];

/// The parts of a network's life that a run goes through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Small,
    Full,
    Figures,
    Far,
    People,
}

/// Runs the small or the whole story, or measures.
pub(crate) fn run(options: &[&str]) -> ExitCode {
    let Some((kind, program)) = read(options) else {
        eprintln!("usage: cargo xtask hosts [--small|--figures|--far|--people] [--program FILE]");
        return ExitCode::from(2);
    };
    if let Some(why) = unavailable() {
        eprintln!("hosts: {why}");
        return ExitCode::from(2);
    }
    match crate::net::program(program).and_then(|program| tell(kind, &program)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("hosts: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Reads the kind of the run, and the program if one is named.
fn read(options: &[&str]) -> Option<(Kind, Option<PathBuf>)> {
    let (mut kind, mut program, mut rest) = (Kind::Full, None, options.iter());
    while let Some(option) = rest.next() {
        match *option {
            "--small" => kind = Kind::Small,
            "--far" => kind = Kind::Far,
            "--people" => kind = Kind::People,
            "--figures" => kind = Kind::Figures,
            "--program" => program = Some(PathBuf::from(rest.next()?)),
            _ => return None,
        }
    }
    Some((kind, program))
}

/// Runs the steps in order, and prints each with its time; stops at the first that fails.
fn tell(kind: Kind, program: &Path) -> Result<(), String> {
    let began = Instant::now();
    let steps = match kind {
        Kind::Small => SMALL,
        Kind::Full => FULL,
        Kind::Far => FAR,
        Kind::People => return people::run(program),
        Kind::Figures => {
            figures::ceremonies(program)?;
            FIGURES
        }
    };
    let relay = (kind == Kind::Far).then(|| Relay::new(far::WAY, far::SEED));
    let mut story = Story::new(program, relay)?;
    for (promise, step) in steps {
        let since = Instant::now();
        let told = step(&mut story);
        let time = since.elapsed().as_secs_f64();
        match told {
            Ok(figures) => println!("  held   {time:6.1} s  {promise}: {figures}"),
            Err(error) => {
                let screens = crate::tools::target_directory().join("hosts-failed");
                story.world.keep_screens(&screens)?;
                let kept = screens.display();
                return Err(format!(
                    "FAILED after {time:.1} s: {promise}: {error}\nall screens are in {kept}"
                ));
            }
        }
    }
    let took = began.elapsed();
    println!("  all    {:6.1} s", took.as_secs_f64());
    if kind == Kind::Full && took > FULL_MAX {
        return Err(format!("every step held, but the run took more than {} s", FULL_MAX.as_secs()));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_read_or_refused() {
        assert_eq!(read(&[]), Some((Kind::Full, None)));
        assert_eq!(read(&["--small", "--program", "p"]), Some((Kind::Small, Some(PathBuf::from("p")))));
        assert_eq!(read(&["--figures"]), Some((Kind::Figures, None)));
        assert_eq!(read(&["--program"]), None);
        assert_eq!(read(&["--large"]), None);
    }
}
