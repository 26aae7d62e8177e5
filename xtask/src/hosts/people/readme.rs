//! The ten lines of README.md, "A network of your own", as a stranger would type them: four machines with an
//! authority each, and one for each provider that a first file needs.

use super::{Facts, NAMES, PLACE, Page, PageStep, People, fs, host, noise, with};
use std::path::Path;

/// Heading of the section.
const SECTION: &str = "## A network of your own\n";
/// The machines: first those of the authorities, then those of the providers.
const MACHINES: [&str; 10] = ["ann", "bob", "cid", "dan", "eva", "fay", "gus", "hal", "ida", "jim"];
/// The part of a machine's disk that a provider offers here.
const CAPACITY: &str = " --set 'capacity=2 GiB'";

/// The steps of the section.
pub(super) const STEPS: [PageStep; 4] = [
    ("README, a key without a dealer", key),
    ("README, a network", network),
    ("README, providers", providers),
    ("README, a file", file),
];

/// Machines with the program installed, and the section.
pub(super) fn people(program: &Path) -> Result<People, String> {
    println!("  added here: {CAPACITY} for each provider of README.md");
    let path = crate::tools::root().join("README.md");
    let text = fs::read_to_string(&path).map_err(|error| format!("{}: {error}", path.display()))?;
    let mut people = People::new(program, Page::blocks(&text, SECTION)?, &MACHINES)?;
    for machine in &mut people.machines {
        machine.run(&format!("install target/release/posync /usr/local/bin/ && mkdir {PLACE}"))?;
        machine.begin_terminals_with("");
    }
    Ok(people)
}

/// Everybody's card, one draft, and the ceremony.
fn key(people: &mut People) -> Facts {
    people.machines[0].run("mkdir cards")?;
    for (person, name) in NAMES.iter().enumerate() {
        people.types(person, 1, "posync init")?;
        people.send(person, "D/card.json", 0, &format!("cards/{name}.json"))?;
    }
    people.types(0, 2, "ceremony draft")?;
    let shown = people.types(0, 2, "ceremony show")?;
    for person in 1..NAMES.len() {
        people.send(0, "draft.json", person, "draft.json")?;
        if people.types(person, 2, "ceremony show")? != shown {
            return Err("two read different drafts".into());
        }
    }
    for person in 0..NAMES.len() {
        let ceremony = people.command(2, "ceremony --dir", person)?;
        people.machines[person].open("ceremony", &ceremony)?;
    }
    for person in 0..NAMES.len() {
        people.line(person, "ceremony", "chain  ")?;
        people.ceremony_ends(person)?;
    }
    Ok("four have the genesis".into())
}

/// All start; the others get the network file.
fn network(people: &mut People) -> Facts {
    for person in 0..NAMES.len() {
        let start = people.command(2, "posync start", person)?;
        people.machines[person].open("start", &start)?;
    }
    for person in 0..NAMES.len() {
        people.line(person, "start", "ready:")?;
    }
    for person in 0..MACHINES.len() {
        people.send(0, "D/network.toml", person, "network.toml")?;
    }
    people.machines[9].run("posync status --net network.toml").map(|_| "a stranger sees it".into())
}

/// Providers join, and an authority pays the named sum.
fn providers(people: &mut People) -> Facts {
    for (person, name) in MACHINES.iter().enumerate().skip(NAMES.len()) {
        let pay = people.command(3, "posync send", 0)?;
        let join = people.command(3, "posync join provider", person)?;
        let join = with(&join, &[("NAME", name), ("REGION", "here"), ("p.example.org", &host(name))]);
        let pay = |sum: &str, account: &str| with(&pay, &[("sync1...", account), ("SUM", sum)]);
        people.join((person, 0), ("join", &format!("{join}{CAPACITY}")), pay, "registered")?;
    }
    Ok(format!("{} joined, and each goes on serving", MACHINES.len() - NAMES.len()))
}

/// A person makes a key and a gateway, and stores a file.
fn file(people: &mut People) -> Facts {
    let key = people.types(0, 4, "posync key new")?;
    let account = key.split_whitespace().find(|word| word.starts_with("sync1")).ok_or("no account")?;
    let join = with(&people.command(4, "posync join gateway", 0)?, &[("sync1...", account)]);
    let pay = people.command(3, "posync send", 0)?;
    let pay = |sum: &str, account: &str| with(&pay, &[("sync1...", account), ("SUM", sum)]);
    let gateway = people.join((0, 0), ("gateway", &join), pay, "ready:")?;
    fs::write(people.machines[0].path(PLACE).join("report.pdf"), noise(0))
        .map_err(|error| error.to_string())?;
    let put = with(&people.command(4, "posync put", 0)?, &[("sync1...", &gateway)]);
    let stored = people.repeats(0, &put)?;
    people.machines[0].run(&put.replace("put report.pdf", "get report.pdf copy.pdf"))?;
    if fs::read(people.machines[0].path(PLACE).join("copy.pdf")).ok() != Some(noise(0)) {
        return Err("another file comes back".into());
    }
    Ok(format!("stored after {:.1} s, and read", stored.as_secs_f64()))
}
