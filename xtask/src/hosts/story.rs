//! The beginning of a network, as four new users would do it: ceremony, start, providers, gateways, files.

use super::{
    manual::{self, field, number, row, with},
    relay::Relay,
    world::{DOMAIN, Side, World},
};
use std::{
    collections::BTreeMap,
    fs,
    path::Path,
    time::{Duration, Instant},
};

/// The four authorities; the last one comes late to the ceremony.
pub(super) const AUTHORITIES: [&str; 4] = ["a0", "a1", "a2", "a3"];
/// Money for a provider's bond and some fees, in SYNC: the bond of the least capacity is 1,000.
const PROVIDER_MONEY: &str = "1010";
/// The bond of the least capacity, in SYNC.
pub(super) const BOND: f64 = 1_000.0;
/// Capacity of each provider, instead of the document's example.
const CAPACITY: &str = "2 GiB";
/// The directory of a user that has more of the network than its file.
pub(super) const USER_NET: &str = "N";
/// Seconds for a step on a machine that is busy with other work.
pub(super) const PATIENCE: u64 = 120;
/// Bytes of a test file: a segment and a piece of the next one.
const FILE_BYTES: usize = (4 << 20) + 12_345;

/// Everything that the steps of a run share.
pub(super) struct Story {
    pub(super) world: World,
    /// Names of the providers that run, in order.
    pub(super) providers: Vec<String>,
    /// Accounts of the providers, the gateways and the owners, by the machine's name.
    pub(super) accounts: BTreeMap<String, String>,
    /// The network file as a line.
    pub(super) line: String,
}

/// Figures of a step, for its line; or the reason for which it failed.
pub(super) type Told = Result<String, String>;

/// The host name of a machine.
pub(super) fn host(machine: &str) -> String {
    format!("{machine}.{DOMAIN}")
}

fn seconds(since: Instant) -> String {
    format!("{:.1} s", since.elapsed().as_secs_f64())
}

/// A whole number of a text such as `share-0012`.
pub(super) fn digits(text: &str) -> Option<u64> {
    text.trim_start_matches(|letter: char| !letter.is_ascii_digit()).parse().ok()
}

/// Bytes that no compression shortens, the same for the same seed (xorshift64*).
pub(super) fn noise(seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(2).wrapping_add(0x9E37_79B9_7F4A_7C15);
    let mut next = || {
        state ^= state >> 12;
        state ^= state << 25;
        state ^= state >> 27;
        (state.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 56) as u8
    };
    (0..FILE_BYTES).map(|_| next()).collect()
}

impl Story {
    /// Makes the world with its authorities and a client, and installs the program.
    pub(super) fn new(program: &Path, relay: Option<Relay>) -> Result<Self, String> {
        let mut world = World::new()?;
        world.relay = relay;
        world.install(program)?;
        for (number, name) in AUTHORITIES.iter().enumerate() {
            world.add(name, Side::of(number))?;
        }
        world.add("c0", Side::Left)?;
        Ok(Self { world, providers: Vec::new(), accounts: BTreeMap::new(), line: String::new() })
    }

    /// A command on a machine that must succeed, answered in JSON.
    pub(super) fn json(&self, machine: &str, command: &str) -> Result<String, String> {
        self.world.run(machine, &format!("{command} --json"))
    }

    pub(super) fn account(&self, machine: &str) -> Result<String, String> {
        self.accounts.get(machine).cloned().ok_or_else(|| format!("{machine} has no account"))
    }

    /// The network's state as the client sees it.
    pub(super) fn status(&self) -> Result<String, String> {
        self.json("c0", &with(manual::STATUS, &[("--net D", "--net network.toml")]))
    }

    /// Waits for the `ready` line that a role logs after its latest start.
    pub(super) fn ready(&mut self, machine: &str, from: usize) -> Result<(), String> {
        self.world.until(&format!("{machine} is ready"), PATIENCE, &[machine], |world| {
            if let Some(status) = world.ended(machine)? {
                return Err(format!("{machine} ended with {status}: {}", world.screen(machine)));
            }
            Ok(world.screen(machine).get(from..).is_some_and(|new| new.contains(" ready: ")).then_some(()))
        })
    }

    /// Starts a role and waits until it is ready; returns the time that it took.
    pub(super) fn start(&mut self, machine: &str) -> Result<Duration, String> {
        let (from, since) = (self.world.screen(machine).len(), Instant::now());
        self.world.start(machine, manual::START)?;
        self.ready(machine, from)?;
        Ok(since.elapsed())
    }

    /// Sends money from an authority's account.
    pub(super) fn send(&self, from: &str, account: &str, sum: &str) -> Result<(), String> {
        self.world.run(from, &with(manual::SEND, &[("sync1...", account), ("SUM", sum)])).map(drop)
    }
}

/// Each authority makes its directory; the cards become a draft, which all read alike.
pub(super) fn draft(story: &mut Story) -> Told {
    let world = &story.world;
    for name in AUTHORITIES {
        world.run(name, &with(manual::INIT_AUTHORITY, &[("node.example.org", &host(name))]))?;
        world.mail(name, "D/card.json", "a0", &format!("cards/{name}.json"))?;
    }
    for archive in ["a0", "a1"] {
        world.run(archive, "sed -i 's/^archive = false$/archive = true/' D/config.toml")?;
    }
    world.run("a0", &with(manual::DRAFT, &[("production", "local")]))?;
    let shown = world.run("a0", manual::SHOW)?;
    for name in &AUTHORITIES[1..] {
        world.mail("a0", "draft.json", name, "draft.json")?;
        if world.run(name, manual::SHOW)? != shown {
            return Err(format!("{name} reads another draft than a0"));
        }
    }
    for (one, other) in [("a0", "a1"), ("a1", "a2"), ("c0", "a0")] {
        let secret = world.home(other).join("D/node.key");
        if world.ask(one, &format!("cat {}", secret.display()))?.0 == 0 {
            return Err(format!("{one} reads a secret of {other}"));
        }
    }
    Ok("4 cards, one draft, no machine reads another's files".into())
}

/// Three authorities attend and name the missing one; it comes, and all have the same genesis.
pub(super) fn ceremony(story: &mut Story) -> Told {
    let [early @ .., late] = AUTHORITIES;
    for name in early {
        story.world.start(name, manual::CEREMONY)?;
    }
    let missing = format!("{}:4000 is missing for", host(late));
    for name in early {
        let says_so = |world: &mut World| Ok(world.screen(name).contains(&missing).then_some(()));
        story.world.until(&format!("{name} names {late}"), PATIENCE, &[name], says_so)?;
    }
    if early.iter().any(|name| story.world.home(name).join("D/genesis").exists()) {
        return Err("a genesis exists before all were there".into());
    }
    let since = Instant::now();
    story.world.start(late, manual::CEREMONY)?;
    let mut genesis = Vec::new();
    for name in AUTHORITIES {
        let status =
            story.world.until("the ceremony ends", PATIENCE, &AUTHORITIES, |world| world.ended(name))?;
        if !status.success() {
            return Err(format!("{name}: {status}: {}", story.world.screen(name)));
        }
        genesis.push(fs::read(story.world.home(name).join("D/genesis")).map_err(|error| error.to_string())?);
    }
    if genesis.iter().any(|other| *other != genesis[0]) {
        return Err("the authorities have different geneses".into());
    }
    Ok(format!("{} after the last of 4 came", seconds(since)))
}

/// The authorities start; a client that has the network file alone sees blocks.
pub(super) fn begin(story: &mut Story) -> Told {
    let since = Instant::now();
    for name in AUTHORITIES {
        story.world.start(name, manual::START)?;
    }
    for name in AUTHORITIES {
        story.ready(name, 0)?;
    }
    let took = seconds(since);
    story.world.mail("a0", "D/network.toml", "c0", "network.toml")?;
    story.line = field(&story.json("a0", manual::NET_SHOW)?, "line")?.to_owned();
    let status = story.status()?;
    match field(&status, "state")? {
        "running" => Ok(format!("first blocks after {took}")),
        other => Err(format!("the network is {other}: {status}")),
    }
}

/// Providers make a directory, get money from an authority, and start.
pub(super) fn providers(story: &mut Story, count: usize) -> Told {
    let since = Instant::now();
    for number in 0..count {
        let name = format!("p{number}");
        story.world.add(&name, Side::of(number))?;
        story.world.mail("a0", "D/network.toml", &name, "network.toml")?;
        let region = format!("region=region-{}", number % 3);
        let own = [
            ("operator=ann", format!("operator=operator-{number}")),
            ("region=eu-north", region),
            ("p.example.org", host(&name)),
        ];
        let own = own.each_ref().map(|(from, to)| (*from, to.as_str()));
        story
            .world
            .run(&name, &format!("{} --set 'capacity={CAPACITY}'", with(manual::INIT_PROVIDER, &own)))?;
        let account = field(&story.json(&name, manual::ACCOUNT)?, "account")?.to_owned();
        story.send(AUTHORITIES[number % 4], &account, PROVIDER_MONEY)?;
        story.world.start(&name, manual::START)?;
        story.accounts.insert(name.clone(), account);
        story.providers.push(name);
    }
    on_offer(story)?;
    Ok(format!("{count} on offer after {}", seconds(since)))
}

/// Waits until every provider is on the ledger.
fn on_offer(story: &mut Story) -> Result<(), String> {
    let accounts: Vec<String> =
        story.providers.iter().map(|name| story.account(name)).collect::<Result<_, _>>()?;
    let providers: Vec<String> = story.providers.clone();
    let shown: Vec<&str> = providers.iter().map(String::as_str).collect();
    story.world.until("every provider is on offer", PATIENCE, &shown[..1], |world| {
        let list = world.run("c0", manual::PROVIDERS)?;
        Ok(accounts.iter().all(|account| row(&list, account).is_some()).then_some(()))
    })
}

/// The steps of `posync join` up to its line `last`, with the money that it asks for; returns the moment at which
/// the money was sent.
pub(super) fn join(story: &mut Story, name: &str, command: &str, last: &str) -> Result<Instant, String> {
    story.world.start(name, &format!("{command} --json"))?;
    let sum = story.world.until("join names the sum", PATIENCE, &[name], |world| {
        if let Some(status) = world.ended(name)? {
            return Err(format!("join ended with {status}: {}", world.screen(name)));
        }
        let screen = world.screen(name);
        Ok(screen.lines().find(|line| line.contains("\"step\":\"sum\"")).map(str::to_owned))
    })?;
    let account = field(&sum, "account")?.to_owned();
    let total = sum.split_once("\"sum\":").map(|(_, total)| total).ok_or("no sum")?;
    let paid = Instant::now();
    story.send("a1", &account, field(total, "sync")?)?;
    story.world.until(&format!("join of {name} says {last}"), PATIENCE, &[name], |world| {
        Ok(world.screen(name).contains(last).then_some(()))
    })?;
    story.accounts.insert(name.to_owned(), account);
    Ok(paid)
}

/// A provider that joins by `posync join`; returns its name, and the moment at which its money was sent.
pub(super) fn join_provider(story: &mut Story, number: usize) -> Result<(String, Instant), String> {
    let name = format!("p{number}");
    story.world.add(&name, Side::of(number))?;
    let (operator, line) = (format!("operator=operator-{number}"), story.line.clone());
    let own = [
        ("posync1...", line.as_str()),
        ("/srv/posync", "D"),
        ("operator=NAME", &operator),
        ("storage.example.org", &host(&name)),
        ("500 GiB", CAPACITY),
    ];
    let paid = join(story, &name, &with(manual::JOIN_PROVIDER, &own), "\"step\":\"registered\"")?;
    story.providers.push(name.clone());
    Ok((name, paid))
}

/// A gateway joins. Its owner works on the machine `owner`, and it also serves the user of each machine in `more`.
pub(super) fn gateway(story: &mut Story, name: &str, owner: &str, more: &[&str]) -> Told {
    story.world.add(name, Side::Left)?;
    story.world.mail("a0", "D/network.toml", name, "network.toml")?;
    for user in more {
        story.world.add(user, Side::Right)?;
    }
    for user in more.iter().chain([&owner]) {
        story.world.mail("a0", "D/network.toml", user, "network.toml")?;
        let account = field(&story.json(user, manual::KEY)?, "account")?.to_owned();
        story.accounts.insert(format!("user {user}"), account);
    }
    let owner = story.account(&format!("user {owner}"))?;
    let mut command = with(manual::JOIN_GATEWAY, &[("/srv/gateway", "D"), ("sync1...", &owner)]);
    if let Some(user) = more.first() {
        let users = story.account(&format!("user {user}"))?;
        command.push_str(&format!(" --set 'users=[\"{users}\"]'"));
    }
    let paid = join(story, name, &command, " ready: ")?;
    Ok(format!("ready {} after its money", seconds(paid)))
}

/// The manual's `put`, of a file on this machine, at a gateway on `at`.
pub(super) fn put(story: &Story, gateway: &str, at: &str) -> Result<String, String> {
    let account = story.account(gateway)?;
    Ok(with(manual::PUT, &[("sync1...", &account), ("127.0.0.1", at)]))
}

/// The command of a user: one who has a directory names it as the network, and commands keep there what they learn.
fn by(story: &Story, user: &str, command: String) -> String {
    if story.world.home(user).join(USER_NET).exists() {
        return command.replace("--net network.toml", &format!("--net {USER_NET}"));
    }
    command
}

/// The same access for another command.
fn at_gateway(story: &Story, gateway: &str, at: &str, command: &str) -> Result<String, String> {
    Ok(put(story, gateway, at)?.replace("put report.pdf", command))
}

/// Repeats a user's command until it ends with 0; returns the time that this took.
fn until_done(
    story: &mut Story,
    awaited: &str,
    (user, command): (&str, &str),
    gateway: &str,
) -> Result<Duration, String> {
    let (since, mut last) = (Instant::now(), String::new());
    let done = story.world.until(awaited, PATIENCE, &[gateway], |world| {
        let (code, _, why) = world.ask(user, command)?;
        last = why;
        Ok((code == 0).then_some(()))
    });
    done.map(|()| since.elapsed()).map_err(|error| format!("{error}\nthe last answer: {last}"))
}

/// Stores `report.pdf` with these bytes, trying until the gateway has agreements with enough providers.
pub(super) fn store(
    story: &mut Story,
    user: &str,
    gateway: &str,
    at: &str,
    seed: u64,
) -> Result<Duration, String> {
    story.world.write(user, "report.pdf", &noise(seed))?;
    let command = by(story, user, put(story, gateway, at)?);
    until_done(story, "the file is stored", (user, &command), gateway)
}

/// Reads `report.pdf` back and compares every byte, trying until it works.
pub(super) fn fetch(
    story: &mut Story,
    user: &str,
    gateway: &str,
    at: &str,
    seed: u64,
) -> Result<Duration, String> {
    let command = by(story, user, at_gateway(story, gateway, at, "get report.pdf copy.pdf")?);
    let took = until_done(story, "the file is read", (user, &command), gateway)?;
    let copy = story.world.home(user).join("copy.pdf");
    let bytes = fs::read(&copy).map_err(|error| format!("{}: {error}", copy.display()))?;
    fs::remove_file(&copy).map_err(|error| format!("{}: {error}", copy.display()))?;
    if bytes == noise(seed) { Ok(took) } else { Err(format!("{user} got other bytes")) }
}

/// An owner stores a file and reads it back.
pub(super) fn put_get(story: &mut Story) -> Told {
    let wrote = store(story, "g1", "g1", "127.0.0.1", 1)?;
    let read = fetch(story, "g1", "g1", "127.0.0.1", 1)?;
    Ok(format!("stored after {:.1} s, read in {:.1} s", wrote.as_secs_f64(), read.as_secs_f64()))
}

/// An authority stops and comes back; blocks go on meanwhile, and it follows.
pub(super) fn away_and_back(story: &mut Story) -> Told {
    let status = story.world.end("a3", "TERM")?;
    if !status.success() {
        return Err(format!("a3 ended with {status} on SIGTERM"));
    }
    let before = newest(&story.status()?)?;
    blocks_from(story, before, 8)?;
    let took = story.start("a3")?;
    let behind = follows(story, "a3")?;
    Ok(format!("ready {:.1} s after its start, follows {behind:.1} s later", took.as_secs_f64()))
}

/// The newest height in the answer of `status`: the one after the list of authorities, each of which has its own.
pub(super) fn newest(status: &str) -> Result<u64, String> {
    number(status.split_once("\"gateway\":").map_or(status, |(_, rest)| rest), "height")
}

/// Waits for `more` blocks after a height; returns the new height.
pub(super) fn blocks_from(story: &mut Story, height: u64, more: u64) -> Result<u64, String> {
    story.world.until(&format!("block {}", height + more), PATIENCE, &AUTHORITIES, |world| {
        let (code, text, _) = world.ask("c0", "posync status --net network.toml --json")?;
        let now = if code == 0 { newest(&text)? } else { 0 };
        Ok((now >= height + more).then_some(now))
    })
}

/// Waits until an authority proves the newest height; returns the seconds.
pub(super) fn follows(story: &mut Story, name: &str) -> Result<f64, String> {
    let since = Instant::now();
    let at = format!(" at {}:4001", host(name));
    story.world.until(&format!("{name} follows"), PATIENCE, &[name], |world| {
        let (code, text, _) = world.ask("c0", "posync status --net network.toml --json")?;
        if code != 0 {
            return Ok(None);
        }
        // The row of an authority names its height before its name.
        let newest = newest(&text)?;
        let own = text.split_once(&at).and_then(|(before, _)| before.rsplit_once("\"height\":"));
        let own = own.and_then(|(_, rest)| rest.split(',').next()?.parse::<u64>().ok());
        Ok(own.filter(|own| own + 8 >= newest).map(drop))
    })?;
    Ok(since.elapsed().as_secs_f64())
}

/// Every process ends on SIGTERM with code 0.
pub(super) fn end(story: &mut Story) -> Told {
    let running = story.world.running();
    for name in running.iter().rev() {
        let status = story.world.end(name, "TERM")?;
        if !status.success() {
            return Err(format!("{name} ended with {status} on SIGTERM"));
        }
    }
    Ok(format!("{} processes ended with code 0", running.len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn noise_differs_by_seed_and_digits_are_read_from_names() {
        assert!(noise(1) == noise(1) && noise(1) != noise(2) && noise(1).len() == FILE_BYTES);
        assert_eq!(digits("share-00000000000000000012"), Some(12));
        assert_eq!(digits("share-"), None);
    }
}
