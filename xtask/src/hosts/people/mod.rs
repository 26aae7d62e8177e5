//! Four people begin a network: `cargo xtask hosts --people` does what docs/operating.md, "A network of four
//! people", says, with the commands that it prints, on four machines that share nothing.
//!
//! A person types the commands of a step as they stand there, with the own names in the places of the example's.
//! Files go from one machine to another only where the page says that somebody sends them. The parameters are
//! those of production. Then a stranger does the same with the ten lines of README.md. [`VALUES`] and [`REPLACED`] are all that differs from the page, and the run prints both.

mod machine;
mod page;
mod readme;

use super::{
    manual::with,
    world::{DOMAIN, Side, World, poll},
};
use machine::{Machine, PLACE, REPLACED, is_replaced};
use page::Page;
use std::{
    fs,
    path::Path,
    process::ExitStatus,
    time::{Duration, Instant},
};

/// Values of the page that cannot be used here, their replacement, and the reason.
const VALUES: [(&str, &str, &str); 1] =
    [("capacity=500 GiB", "capacity=2 GiB", "all providers share the disk of one machine")];

/// The machines, by their owners A to D.
const NAMES: [&str; 4] = ["ann", "bob", "cid", "dan"];
/// The example's host name, without its domain.
const EXAMPLE: &str = "a.example.org";
/// Those who store files, and whose machines run a gateway.
const OWNERS: [usize; 2] = [0, 2];
/// Those who keep every block.
const ARCHIVES: [usize; 2] = [0, 1];
/// Longest wait for something that the page awaits.
const PATIENCE: Duration = Duration::from_secs(180);
/// Bytes of a stored file: a segment and a piece of the next one.
const FILE_BYTES: usize = (4 << 20) + 12_345;

/// The page and the four people.
struct People {
    page: Page,
    machines: Vec<Machine>,
    // Dropped after the machines, whose processes use its namespaces.
    _world: World,
}

/// Facts of a step, for its line; or the reason for which it failed.
type Facts = Result<String, String>;

/// A step of the page: its name, and its function.
type PageStep = (&'static str, fn(&mut People) -> Facts);

/// The steps, by their numbers on the page.
const STEPS: [PageStep; 10] = [
    ("build", build),
    ("clock and ports", clocks),
    ("names", names),
    ("cards", cards),
    ("the draft", draft),
    ("the ceremony", ceremony),
    ("start", start),
    ("providers", providers),
    ("gateways and files", files),
    ("backups, and those who come later", backups),
];

/// Follows the page from its first step to its last one.
pub(super) fn run(program: &Path) -> Result<(), String> {
    let began = Instant::now();
    for (command, here) in REPLACED {
        println!("  not run here: `{command} ...`: {here}");
    }
    for (value, here, why) in VALUES {
        println!("  another value here: {value} is {here}: {why}");
    }
    let path = crate::tools::root().join("docs/operating.md");
    let text = fs::read_to_string(&path).map_err(|error| format!("{}: {error}", path.display()))?;
    let page = Page::read(&text)?;
    if page.len() != STEPS.len() {
        return Err(format!("the page has {} steps, and this run {}", page.len(), STEPS.len()));
    }
    People::new(program, page, &NAMES)?.follow(&STEPS)?;
    readme::people(program)?.follow(&readme::STEPS)?;
    println!("  all    {:6.1} s", began.elapsed().as_secs_f64());
    Ok(())
}

impl People {
    /// Makes the machines, connected to two switches in turn.
    fn new(program: &Path, page: Page, names: &[&'static str]) -> Result<Self, String> {
        let mut world = World::new()?;
        let made = (0..)
            .zip(names.iter().copied())
            .map(|(number, name)| Machine::new(&mut world, name, Side::of(number), program));
        let machines = made.collect::<Result<Vec<_>, String>>()?;
        machines.iter().try_for_each(Machine::resolve)?;
        Ok(Self { page, machines, _world: world })
    }

    /// Does all steps, prints each with its time, and ends all services.
    ///
    /// # Errors
    /// The first step that fails, or the commands of the page that none of them ran.
    fn follow(mut self, steps: &[PageStep]) -> Result<(), String> {
        for (number, (name, step)) in (1..).zip(steps) {
            let since = Instant::now();
            match step(&mut self) {
                Ok(facts) => {
                    println!("  held   {:6.1} s  {number}. {name}: {facts}", since.elapsed().as_secs_f64());
                }
                Err(error) => {
                    let screens = crate::tools::target_directory().join("hosts-failed");
                    let _ = fs::remove_dir_all(&screens);
                    self.machines.iter().try_for_each(|machine| machine.keep_screens(&screens))?;
                    let kept = screens.display();
                    return Err(format!("FAILED: {number}. {name}: {error}\nall screens are in {kept}"));
                }
            }
        }
        for machine in &mut self.machines {
            machine.end_all()?;
        }
        match self.page.left() {
            left if left.is_empty() => Ok(()),
            left => Err(format!("the page prints what nobody ran:\n{}", left.join("\n"))),
        }
    }

    /// A command of the page, with this person's host name.
    fn command(&self, step: usize, words: &str, person: usize) -> Result<String, String> {
        let mut command = self.page.take(step, words)?.replace(EXAMPLE, &host(self.machines[person].name));
        for (value, here, _) in VALUES {
            command = command.replace(value, here);
        }
        Ok(command)
    }

    /// A person types a command of the page; it must succeed.
    fn types(&self, person: usize, step: usize, words: &str) -> Result<String, String> {
        self.machines[person].run(&self.command(step, words, person)?)
    }

    /// A person does what `systemctl` of the page would do.
    fn enables(&mut self, person: usize, step: usize, unit: &str) -> Result<String, String> {
        let command = self.command(step, &format!("systemctl enable --now {unit}"), person)?;
        self.machines[person].enable(&command)
    }

    /// Sends a file of one person to another, who saves it in the directory of all commands.
    fn send(&self, from: usize, file: &str, to: usize, into: &str) -> Result<(), String> {
        let (from, to) =
            (self.machines[from].path(PLACE).join(file), self.machines[to].path(PLACE).join(into));
        fs::copy(&from, &to).map(drop).map_err(|error| format!("{}: {error}", from.display()))
    }

    /// Waits until a screen has a line with these words, and returns the line.
    fn line(&mut self, person: usize, terminal: &str, words: &str) -> Result<String, String> {
        let machine = &mut self.machines[person];
        let found = poll(PATIENCE, || {
            if let Some(line) = machine.screen(terminal).lines().find(|line| line.contains(words)) {
                return Ok(Some(line.to_owned()));
            }
            match machine.ended(terminal)? {
                Some(status) => Err(format!("{terminal} ended with {status}{}", machine.tail(terminal))),
                None => Ok(None),
            }
        })?;
        found.ok_or_else(|| format!("no line says '{words}'{}", machine.tail(terminal)))
    }

    /// Waits until a ceremony has ended with success.
    fn ceremony_ends(&mut self, person: usize) -> Result<(), String> {
        let machine = &mut self.machines[person];
        let ended = poll(PATIENCE, || Ok(machine.ended("ceremony")?.filter(ExitStatus::success)))?;
        ended.map(drop).ok_or_else(|| format!("the ceremony does not end{}", machine.tail("ceremony")))
    }

    /// Repeats a command until it succeeds, as the page advises for a put; returns the time that this took.
    fn repeats(&self, person: usize, command: &str) -> Result<Duration, String> {
        let (began, mut last) = (Instant::now(), String::new());
        let done = poll(PATIENCE, || match self.machines[person].run(command) {
            Ok(_) => Ok(Some(began.elapsed())),
            Err(error) => {
                last = error;
                Ok(None)
            }
        })?;
        done.ok_or(last)
    }

    /// A person joins in one terminal, and the sum is paid from another one by the command that `pay` makes of the
    /// sum and the account; returns the account when the terminal has said the awaited words.
    fn join(
        &mut self,
        (person, payer): (usize, usize),
        (terminal, command): (&str, &str),
        pay: impl Fn(&str, &str) -> String,
        last: &str,
    ) -> Facts {
        self.machines[person].open(terminal, command)?;
        let line = self.line(person, terminal, " SYNC to sync1")?;
        let (sum, account) = sum_and_account(&line).ok_or_else(|| format!("no sum and account: {line}"))?;
        self.machines[payer].run(&pay(&sum, &account))?;
        self.line(person, terminal, last)?;
        Ok(account)
    }
}

fn host(name: &str) -> String {
    format!("{name}.{DOMAIN}")
}

/// The sum and the account of the line `sum        send 1,000.5 SYNC to sync1...:`.
fn sum_and_account(line: &str) -> Option<(String, String)> {
    let (before, after) = line.split_once(" SYNC to ")?;
    let account = after.split([':', ' ']).next()?;
    Some((before.split_whitespace().next_back()?.to_owned(), account.to_owned()))
}

/// Step 1: everything but the build itself, in one terminal.
fn build(people: &mut People) -> Facts {
    let commands: Vec<String> =
        people.page.all(1)?.into_iter().filter(|command| !is_replaced(command)).collect();
    let profile =
        commands.iter().find(|command| command.starts_with("alias ")).ok_or("no alias is printed")?;
    for machine in &mut people.machines {
        machine.run(&commands.join("\n"))?;
        machine.begin_terminals_with(profile);
        let user = machine.run("runuser -u posync -- id -un; ls -A")?;
        if user != "posync" {
            return Err(format!("{}: the directory is not a new user's: {user}", machine.name));
        }
    }
    Ok(format!("{} commands on each of four machines", commands.len()))
}

/// Step 2: all machines share one clock, and no firewall is in the way; step 4 checks both.
fn clocks(people: &mut People) -> Facts {
    people.page.all(2).map(|_| "checked by `posync doctor` in steps 4 and 7".into())
}

/// Step 3: each name leads to one address, on the own machine and on another one.
fn names(people: &mut People) -> Facts {
    for (person, name) in NAMES.iter().enumerate() {
        let command = people.command(3, "getent", person)?;
        let address = |machine: &Machine| -> Result<Vec<String>, String> {
            let answer = machine.run(&command)?;
            let mut all: Vec<_> =
                answer.lines().filter_map(|line| line.split(' ').next()).map(str::to_owned).collect();
            all.dedup();
            Ok(all)
        };
        let (own, other) =
            (address(&people.machines[person])?, address(&people.machines[(person + 1) % NAMES.len()])?);
        if own.len() != 1 || own != other || own[0].starts_with("127.") {
            return Err(format!("{name}: {own:?}, and {other:?} elsewhere"));
        }
    }
    Ok("one address each".into())
}

/// Step 4: the authorities' directories; two of them will keep every block.
fn cards(people: &mut People) -> Facts {
    for person in 0..NAMES.len() {
        let mut init = people.command(4, "posync init authority", person)?;
        if ARCHIVES.contains(&person) {
            init.push_str(" --set archive=true");
        }
        people.machines[person].run(&init)?;
        people.types(person, 4, "posync doctor")?;
    }
    Ok("four cards, and no check failed".into())
}

/// Step 5: A collects the cards and makes the draft.
fn draft(people: &mut People) -> Facts {
    people.types(0, 5, "mkdir")?;
    for (person, name) in NAMES.iter().enumerate() {
        people.send(person, "authority-main/card.json", 0, &format!("cards/{}.json", &name[..1]))?;
    }
    people.types(0, 5, "chmod")?;
    people.types(0, 5, "posync ceremony draft")?;
    for person in 1..NAMES.len() {
        people.send(0, "draft.json", person, "draft.json")?;
        people.machines[person].run("chmod 644 draft.json")?;
    }
    Ok("with the parameters of production".into())
}

/// Step 6: all read the same draft, and make the network key together.
fn ceremony(people: &mut People) -> Facts {
    let shown: Vec<String> =
        (0..NAMES.len()).map(|person| people.types(person, 6, "ceremony show")).collect::<Result<_, _>>()?;
    if shown.iter().any(|text| *text != shown[0]) {
        return Err("the four read different drafts".into());
    }
    for person in 0..NAMES.len() {
        let command = people.command(6, "ceremony --dir", person)?;
        people.machines[person].open("ceremony", &command)?;
    }
    let chain = people.line(0, "ceremony", "chain  ")?;
    for person in 0..NAMES.len() {
        if people.line(person, "ceremony", "chain  ")? != chain {
            return Err("the ceremony gave two chains".into());
        }
        people.ceremony_ends(person)?;
    }
    Ok(format!("four times the {}", chain.split_whitespace().collect::<Vec<_>>().join(" ")))
}

/// Step 7: the authorities run as services.
fn start(people: &mut People) -> Facts {
    let units = (0..NAMES.len()).map(|person| people.enables(person, 7, "posync-authority@main"));
    let units = units.collect::<Result<Vec<_>, String>>()?;
    people.page.take(7, "journalctl")?;
    let mut facts = String::new();
    for (person, unit) in units.iter().enumerate() {
        people.line(person, unit, "ready:")?;
    }
    for person in 0..NAMES.len() {
        facts = quorum(people, person)?;
        people.types(person, 7, "posync doctor")?;
        people.types(person, 7, "cp authority-main/network.toml")?;
    }
    Ok(facts)
}

/// A person reads the network's state: it has a quorum and four seats.
fn quorum(people: &People, person: usize) -> Facts {
    let status = people.types(person, 7, "posync status")?;
    let seats = NAMES.iter().filter(|name| status.contains(&host(name))).count();
    let height = status.lines().find(|line| line.starts_with("height"));
    match height.filter(|_| status.contains("4 of 4 authorities answer") && seats == NAMES.len()) {
        Some(height) => Ok(format!(
            "4 of 4 authorities answer, {}",
            height.split_whitespace().collect::<Vec<_>>().join(" ")
        )),
        None => Err(format!("{}: no quorum of four seats:\n{status}", NAMES[person])),
    }
}

/// Step 8: two providers on each machine, one after the other.
fn providers(people: &mut People) -> Facts {
    for (number, name) in ["one", "two"].into_iter().enumerate() {
        for (person, letter) in NAMES.iter().enumerate() {
            if number == 1 {
                people.types(person, 8, "install -d")?;
            }
            let operator = format!("{letter}-{}", number + 1);
            let example = format!("ann-{}", number + 1);
            let terminal = format!("provider-{name}");
            let join = people.command(8, &format!("--dir {terminal}"), person)?;
            let join = with(&join, &[(&example, &operator)]);
            let pay = people.command(8, "posync send", person)?;
            let pay = |_: &str, account: &str| with(&pay, &[("sync1...", account)]);
            people.join((person, person), (&terminal, &join), pay, "registered")?;
            people.machines[person].end(&terminal, "INT")?;
            people.enables(person, 8, &format!("posync-provider@{name}"))?;
        }
    }
    for person in 0..NAMES.len() {
        for name in ["one", "two"] {
            people.line(person, &format!("posync-provider@{name}"), "ready:")?;
        }
        let list = people.types(person, 8, "posync providers")?;
        let there = |name: &&str| [1, 2].iter().all(|number| list.contains(&format!("{name}-{number}")));
        if !NAMES.iter().all(there) {
            return Err(format!("not all eight are listed:\n{list}"));
        }
    }
    Ok("eight of eight operators are listed on each machine".into())
}

/// Step 9: two owners, each with a gateway, store a file and read it back.
fn files(people: &mut People) -> Facts {
    let mut facts = Vec::new();
    for owner in OWNERS {
        let key = people.types(owner, 9, "posync key new")?;
        let account = key.split_whitespace().find(|word| word.starts_with("sync1")).ok_or("no account")?;
        let join = with(&people.command(9, "posync join gateway", owner)?, &[("sync1...", account)]);
        let pay = people.command(8, "posync send", owner)?;
        let pay = |sum: &str, account: &str| with(&pay, &[("sync1...", account), ("1010", sum)]);
        let gateway = people.join((owner, owner), ("gateway", &join), pay, "start ")?;
        people.machines[owner].end("gateway", "INT")?;
        let unit = people.enables(owner, 9, "posync-gateway@main")?;
        people.line(owner, &unit, "ready:")?;
        let report = people.machines[owner].path(PLACE).join("report.pdf");
        fs::write(&report, noise(owner)).map_err(|error| error.to_string())?;
        let put = people.command(9, "posync put", owner)?.replace("sync1...", &gateway);
        let stored = people.repeats(owner, &put)?;
        facts.push(format!("{} stored after {:.1} s", NAMES[owner], stored.as_secs_f64()));
        let get = people.command(9, "posync get", owner)?.replace("sync1...", &gateway);
        let read = people.repeats(owner, &get)?;
        if fs::read(people.machines[owner].path(PLACE).join("copy.pdf")).ok() != Some(noise(owner)) {
            return Err(format!("{} reads another file than it stored", NAMES[owner]));
        }
        facts.push(format!("read after {:.1} s", read.as_secs_f64()));
    }
    quorum(people, 3)?;
    Ok(facts.join(", "))
}

/// Step 10: a copy of each catalogue, and the line for those who come later.
fn backups(people: &mut People) -> Facts {
    for owner in OWNERS {
        people.types(owner, 10, "posync gateway backup")?;
    }
    let line = people.types(3, 10, "posync net show")?;
    if !line.contains("posync1") {
        return Err(format!("no line of the network: {line}"));
    }
    quorum(people, 0)
}

/// The bytes of an owner's file.
fn noise(owner: usize) -> Vec<u8> {
    super::story::noise(owner as u64)[..FILE_BYTES].to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sum_and_the_account_are_read_from_the_line_of_join() {
        let line = "sum        send 1000.25 SYNC to sync1abc:";
        assert_eq!(sum_and_account(line), Some(("1000.25".into(), "sync1abc".into())));
        assert_eq!(sum_and_account("account    sync1abc, a provider"), None);
    }

    #[test]
    fn every_replaced_value_stands_on_the_page() {
        let text = fs::read_to_string(crate::tools::root().join("docs/operating.md")).unwrap_or_default();
        for (value, ..) in VALUES {
            assert!(text.contains(value), "{value}");
        }
        for (command, _) in REPLACED {
            assert!(text.contains(command), "{command}");
        }
    }
}
