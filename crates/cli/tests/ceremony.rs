//! Ceremonies of real processes: each member has a directory of its own, and they meet over loopback only.

mod common;

use common::{POSYNC, eventually, signal, text};
use commonware_codec::{Copying, DecodeExt as _, Encode as _};
use commonware_cryptography::bls12381::primitives::{
    group::{Scalar, Share},
    variant::{MinSig, Variant},
};
use commonware_math::algebra::{Additive as _, CryptoGroup as _, Field as _};
use posync_node::genesis::{Genesis, SIGNATURES_FILE};
use serde_json::Value;
use std::{
    fs::{self, File},
    net::{SocketAddr, TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    time::{Duration, Instant},
};

/// Seconds within which a step must happen on a busy machine.
const PATIENCE: u64 = 120;
/// The machine that keeps all blocks.
const ARCHIVE: usize = 1;
const SHARE: &str = "share-00000000000000000000";

/// A machine: a directory, its addresses, and the process that runs on it.
struct Machine {
    directory: PathBuf,
    peers: SocketAddr,
    account: String,
    process: Option<Child>,
}

/// The machines of one ceremony, in a temporary directory.
struct World {
    home: tempfile::TempDir,
    machines: Vec<Machine>,
    /// A library that is loaded before all others into each process.
    preload: Option<PathBuf>,
}

fn posync<S: AsRef<std::ffi::OsStr>>(arguments: &[S]) -> Output {
    Command::new(POSYNC).arg("--json").args(arguments).stdin(Stdio::null()).output().expect("it starts")
}

fn answer(output: &Output) -> Value {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).expect("one JSON value")
}

impl World {
    /// Makes `count` machines, each with a key, settings and a card.
    fn new(count: usize) -> Self {
        let home = tempfile::tempdir().expect("a directory");
        // All are held until all are known, so that none comes twice.
        let held: Vec<TcpListener> =
            (0..2 * count).map(|_| TcpListener::bind("127.0.0.1:0").expect("a free port")).collect();
        let ports: Vec<SocketAddr> =
            held.iter().map(|held| held.local_addr().expect("it is bound")).collect();
        drop(held);
        let machine = |index: usize| {
            let directory = home.path().join(format!("machine-{index}"));
            let (peers, service) = (ports[2 * index], ports[2 * index + 1]);
            let (peers_at, serves) = (format!("listen={peers}"), format!("service_listen={service}"));
            let mut arguments = vec!["init", "authority", "--dir", directory.to_str().expect("text")];
            let archive = format!("archive={}", index == ARCHIVE);
            for setting in [&peers_at, &serves, "private=true", &archive] {
                arguments.extend(["--set", setting]);
            }
            let made = answer(&posync(&arguments));
            assert_eq!(text(&made["card"]), directory.join("card.json").to_str().expect("text"));
            Machine { account: text(&made["account"]).into(), directory, peers, process: None }
        };
        let machines = (0..count).map(machine).collect();
        Self { home, machines, preload: None }
    }

    /// Collects the cards of `machines` into a draft.
    fn draft(&self, name: &str, machines: &[usize]) -> PathBuf {
        let cards: Vec<PathBuf> =
            machines.iter().map(|index| self.machines[*index].directory.join("card.json")).collect();
        let output = Command::new(POSYNC)
            .args(["ceremony", "draft", "--parameters", "local", "--each-authority", "1000", "--cards"])
            .args(cards)
            .output()
            .expect("it starts");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let path = self.home.path().join(name);
        fs::write(&path, output.stdout).expect("writable");
        path
    }

    fn all(&self) -> Vec<usize> {
        (0..self.machines.len()).collect()
    }

    /// Starts the ceremony on a machine; its screen goes to a file.
    fn attend(&mut self, index: usize, draft: &Path) {
        let machine = &mut self.machines[index];
        let screen =
            File::options().create(true).append(true).open(screen(&machine.directory)).expect("writable");
        let mut command = Command::new(POSYNC);
        command.args(["--json", "ceremony", "--dir"]).arg(&machine.directory).arg(draft);
        command.envs(self.preload.iter().map(|library| ("LD_PRELOAD", library)));
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(screen);
        machine.process = Some(command.spawn().expect("it starts"));
    }

    fn kill(&mut self, index: usize) {
        let mut process = self.machines[index].process.take().expect("it runs");
        process.kill().expect("it was started here");
        process.wait().expect("it was started here");
    }

    /// Waits until a machine's process ends by itself; returns its exit code.
    fn code(&mut self, index: usize) -> i32 {
        let mut process = self.machines[index].process.take().expect("it runs");
        let start = Instant::now();
        loop {
            if let Some(status) = process.try_wait().expect("it was started here") {
                return status.code().expect("it was not killed");
            }
            assert!(
                start.elapsed() < Duration::from_secs(PATIENCE),
                "{index} does not end: {}",
                self.screens()
            );
            std::thread::park_timeout(Duration::from_millis(20));
        }
    }

    fn screen(&self, index: usize) -> String {
        fs::read_to_string(screen(&self.machines[index].directory)).unwrap_or_default()
    }

    fn screens(&self) -> String {
        self.all().iter().map(|index| format!("\n-- {index}\n{}", self.screen(*index))).collect()
    }

    fn shows(&self, index: usize, words: &str) {
        eventually(PATIENCE, &format!("machine {index} shows {words}: {}", self.screens()), || {
            self.screen(index).contains(words)
        });
    }

    /// Returns true if a machine holds a dealing.
    fn has_dealings(&self, index: usize) -> bool {
        let store = fs::read_dir(self.machines[index].directory.join("ceremony/store"));
        let names =
            store.into_iter().flatten().filter_map(|entry| entry.ok()?.file_name().into_string().ok());
        names.into_iter().any(|name| name.starts_with("dealing-"))
    }

    fn has(&self, index: usize, path: &str) -> bool {
        self.machines[index].directory.join(path).exists()
    }

    /// Waits until all machines have ended well; returns their genesis.
    fn succeed(&mut self, machines: &[usize]) -> Genesis {
        for index in machines {
            let code = self.code(*index);
            assert_eq!(code, 0, "machine {index}: {}", self.screens());
        }
        let read =
            |index: &usize| fs::read(self.machines[*index].directory.join("genesis")).expect("a genesis");
        let genesis = read(&machines[0]);
        assert!(machines.iter().all(|index| read(index) == genesis), "all have the same genesis");
        Genesis::from_bytes(&genesis).expect("a genesis")
    }

    /// Checks that no directory of the finished ceremony has more than its own share.
    fn hides_the_key(&self, machines: &[usize], genesis: &Genesis) {
        let shares: Vec<(usize, Share, Vec<u8>)> = machines
            .iter()
            .map(|index| {
                let bytes =
                    fs::read(self.machines[*index].directory.join("secrets").join(SHARE)).expect("a share");
                (*index, Share::decode(Copying(&bytes)).expect("a share"), bytes)
            })
            .collect();
        let secret = network_secret(&shares, genesis);
        for index in machines {
            let directory = &self.machines[*index].directory;
            let secrets = fs::read_dir(directory.join("secrets")).expect("readable");
            let names: Vec<_> = secrets.map(|entry| entry.expect("readable").file_name()).collect();
            assert_eq!(names, [SHARE], "the share is all that is left");
            assert!(!directory.join("ceremony").exists() && !directory.join("ceremony.ended").exists());
            for (path, bytes) in files(directory) {
                for (owner, share, _) in &shares {
                    let private = share.private.clone().expose(|scalar| scalar.encode().to_vec());
                    assert!(
                        owner == index || !contains(&bytes, &private),
                        "{} has {owner}'s",
                        path.display()
                    );
                }
                assert!(!contains(&bytes, &secret), "{} has the network's key", path.display());
            }
        }
    }
}

impl Drop for World {
    fn drop(&mut self) {
        for machine in &mut self.machines {
            if let Some(mut process) = machine.process.take() {
                let _ = process.kill();
                let _ = process.wait();
            }
        }
    }
}

fn screen(directory: &Path) -> PathBuf {
    directory.with_extension("screen")
}

/// All files below a directory, with their bytes.
fn files(directory: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).expect("readable").map(|entry| entry.expect("readable").path()) {
        if entry.is_dir() {
            found.extend(files(&entry));
        } else {
            let bytes = fs::read(&entry).expect("readable");
            found.push((entry, bytes));
        }
    }
    found
}

/// Returns true if `bytes` have `wanted` somewhere, raw or as hex digits.
fn contains(bytes: &[u8], wanted: &[u8]) -> bool {
    let digits = hex::encode(wanted).into_bytes();
    [wanted, &digits].into_iter().any(|wanted| bytes.windows(wanted.len()).any(|window| window == wanted))
}

/// The secret of the network's key, made from all shares: what no machine may have.
fn network_secret(shares: &[(usize, Share, Vec<u8>)], genesis: &Genesis) -> Vec<u8> {
    let at = |share: &Share| Scalar::from_u64(u64::from(share.index.get()) + 1);
    let mut secret = Scalar::zero();
    for (_, share, _) in shares {
        let mut term = share.private.clone().expose_unwrap();
        for (_, other, _) in shares.iter().filter(|(_, other, _)| other.index != share.index) {
            let mut distance = at(other);
            distance -= &at(share);
            term *= &at(other);
            term *= &distance.inv();
        }
        secret += &term;
    }
    let public = <MinSig as Variant>::Public::generator() * &secret;
    assert_eq!(public, genesis.network_key(), "this is how the key would be made");
    secret.encode().to_vec()
}

/// Starts the authorities of a finished ceremony; returns the network file for commands.
fn start_authorities(world: &mut World) -> PathBuf {
    for machine in &mut world.machines {
        machine.process = Some(start(&machine.directory));
    }
    world.machines[0].directory.join("network.toml")
}

fn start(directory: &Path) -> Child {
    let screen = File::options().create(true).append(true).open(screen(directory)).expect("writable");
    let mut command = Command::new(POSYNC);
    command.args(["start", "--dir"]).arg(directory).stdin(Stdio::null()).stdout(Stdio::null()).stderr(screen);
    command.spawn().expect("it starts")
}

/// The newest height that the network proves.
fn height(net: &Path) -> Option<u64> {
    let net = net.to_str().expect("text");
    let output = posync(&["--net", net, "blocks", "--from", "1"]);
    let last = String::from_utf8(output.stdout).ok()?;
    serde_json::from_str::<Value>(last.lines().last()?).ok()?["height"].as_u64()
}

#[test]
fn four_machines_make_a_key_that_nobody_holds_and_run_its_network() {
    let mut world = World::new(4);
    let draft = world.draft("draft.json", &world.all());
    // One machine is late: nothing is dealt without it, however long that takes.
    for index in [0, 1, 2] {
        world.attend(index, &draft);
    }
    let late = world.machines[3].peers.to_string();
    for index in [0, 1, 2] {
        world.shows(index, &format!("{} at {late} is missing for 1", world.machines[3].account));
    }
    for index in [0, 1, 2] {
        assert!(!world.has(index, "ceremony/begun") && !world.screen(index).contains("deal shares"));
        assert!(
            files(&world.machines[index].directory.join("ceremony/store")).is_empty(),
            "nothing is dealt"
        );
    }
    world.attend(3, &draft);
    let all = world.all();
    let genesis = world.succeed(&all);
    world.hides_the_key(&all, &genesis);
    assert!(all.iter().all(|index| world.screen(*index).contains("this draft's id is")));

    // The same command again changes nothing.
    world.attend(0, &draft);
    assert_eq!(world.succeed(&[0]), genesis);

    let net = start_authorities(&mut world);
    // In the second term, they sign with shares of a reshare.
    let blocks = genesis.parameters.term_blocks() + 5;
    eventually(PATIENCE, &format!("blocks: {}", world.screens()), || height(&net) >= Some(blocks));

    names_its_archive(&world, &net);

    // An authority that lacks a signature of the genesis does not start.
    signal("TERM", world.machines[2].process.as_ref().expect("it runs").id());
    assert_eq!(world.code(2), 0);
    let signatures = world.machines[2].directory.join(SIGNATURES_FILE);
    let text = fs::read_to_string(&signatures).expect("it is there");
    let absent = text.lines().next().and_then(|line| line.split(' ').next()).expect("an account").to_owned();
    let fewer: String = text.lines().skip(1).map(|line| format!("{line}\n")).collect();
    fs::write(&signatures, fewer).expect("writable");
    world.machines[2].process = Some(start(&world.machines[2].directory));
    assert_ne!(world.code(2), 0);
    assert!(world.screen(2).contains(&format!("did not sign it: {absent}")), "{}", world.screen(2));
}

/// Each authority enters in the ledger if it keeps all blocks; the network file that is written anew says so, first of
/// all in its line. The one of the ceremony was written before any of them ran.
fn names_its_archive(world: &World, net: &Path) {
    let written = fs::read_to_string(net).expect("the ceremony wrote it");
    assert!(!written.contains("archive"), "{written}");
    let newer = world.home.path().join("newer.toml");
    let [net, newer] = [net, &newer].map(|path| path.to_str().expect("text"));
    let mut nodes = Value::Null;
    eventually(PATIENCE, &format!("the archive is listed: {}", world.screens()), || {
        let exported = posync(&["--net", net, "net", "export", newer]);
        let line = serde_json::from_slice::<Value>(&exported.stdout).unwrap_or_default()["line"].clone();
        let Some(line) = line.as_str() else { return false };
        nodes = answer(&posync(&["net", "show", "--net", line]))["nodes"].clone();
        let all = nodes.as_array().expect("a list");
        all.len() == 4 && all.iter().any(|node| node["archive"] == true)
    });
    let marked: Vec<&str> = nodes
        .as_array()
        .expect("a list")
        .iter()
        .filter(|node| node["archive"] == true)
        .map(|node| text(&node["account"]))
        .collect();
    assert_eq!(marked, [world.machines[ARCHIVE].account.as_str()], "{nodes}");
    assert_eq!(nodes[0]["account"], world.machines[ARCHIVE].account.as_str(), "it comes first: {nodes}");
}

/// Builds a library with which each sync of a file takes 40 ms longer, as on a disk that is busy or old.
fn slow_disk(directory: &Path) -> PathBuf {
    const SOURCE: &str = r"
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>
static int slow(long call, int file) {
    struct timespec wait = {0, 40 * 1000 * 1000};
    nanosleep(&wait, 0);
    return (int)syscall(call, file);
}
int fsync(int file) { return slow(SYS_fsync, file); }
int fdatasync(int file) { return slow(SYS_fdatasync, file); }
";
    let (source, library) = (directory.join("slow.c"), directory.join("slow.so"));
    fs::write(&source, SOURCE).expect("writable");
    let compiler = std::env::var("CC").unwrap_or_else(|_| "cc".into());
    let mut command = Command::new(compiler);
    command.args(["-shared", "-fPIC", "-o"]).arg(&library).arg(&source);
    assert!(command.status().expect("the engine needs a C compiler as well").success());
    library
}

#[test]
fn a_ceremony_on_slow_disks_takes_longer_and_ends_well() {
    let mut world = World::new(4);
    world.preload = Some(slow_disk(world.home.path()));
    let (draft, all) = (world.draft("draft.json", &world.all()), world.all());
    for index in &all {
        world.attend(*index, &draft);
    }
    let genesis = world.succeed(&all);
    world.hides_the_key(&all, &genesis);
}

#[test]
fn a_machine_may_be_killed_in_every_phase_and_the_ceremony_ends_well() {
    let mut world = World::new(4);
    let draft = world.draft("draft.json", &world.all());
    for index in [0, 1, 2] {
        world.attend(index, &draft);
    }
    world.shows(1, "is missing");
    world.kill(1);
    world.attend(1, &draft);
    world.attend(3, &draft);
    for phase in ["deal shares", "the key is made", "signed by all and in place"] {
        world.shows(1, phase);
        if phase == "deal shares" {
            eventually(PATIENCE, "something is dealt", || world.has_dealings(0));
        }
        let away = format!("{} at {} is missing", world.machines[1].account, world.machines[1].peers);
        let count = |world: &World, index: usize| world.screen(index).matches(&away).count();
        let before = [0, 2, 3].map(|index| (index, count(&world, index)));
        world.kill(1);
        if phase == "deal shares" {
            // Nobody else may finish now: all sign, or nobody has a network.
            for (index, before) in before {
                eventually(PATIENCE, "the others miss it", || count(&world, index) > before);
                assert!(!world.has(index, "genesis"));
            }
            dealings_are_private(&world);
        }
        let machine = &mut world.machines[1];
        let screen = File::options().append(true).open(screen(&machine.directory)).expect("writable");
        let mut command = Command::new(POSYNC);
        command.args(["ceremony", "--give-up-after", "3s", "--dir"]).arg(&machine.directory).arg(&draft);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(screen);
        machine.process = Some(command.spawn().expect("it starts"));
    }
    let all = world.all();
    let genesis = world.succeed(&all);
    world.hides_the_key(&all, &genesis);
}

/// Checks that a dealing lies with its receiver alone, while the ceremony runs.
fn dealings_are_private(world: &World) {
    let mut seen = 0;
    for (owner, machine) in world.machines.iter().enumerate() {
        for (path, dealing) in files(&machine.directory.join("ceremony/store")) {
            if !path.to_string_lossy().contains("dealing-") {
                continue;
            }
            seen += 1;
            for (index, other) in world.machines.iter().enumerate().filter(|(index, _)| *index != owner) {
                for (place, bytes) in files(&other.directory) {
                    assert!(
                        !contains(&bytes, &dealing),
                        "{index} has a dealing of {owner} in {}",
                        place.display()
                    );
                }
            }
        }
    }
    assert!(seen > 0, "something was dealt");
}

#[test]
fn a_power_cut_of_all_machines_while_they_deal_loses_nothing() {
    let mut world = World::new(4);
    let draft = world.draft("draft.json", &world.all());
    for index in world.all() {
        world.attend(index, &draft);
    }
    world.shows(0, "deal shares");
    for index in world.all() {
        world.kill(index);
    }
    for index in world.all() {
        world.attend(index, &draft);
    }
    let all = world.all();
    let genesis = world.succeed(&all);
    world.hides_the_key(&all, &genesis);
}

#[test]
fn a_ceremony_listens_where_its_authority_will_listen_and_not_at_the_port_of_its_card() {
    let mut world = World::new(4);
    let draft = world.draft("draft.json", &world.all());
    let own = TcpListener::bind("127.0.0.1:0").and_then(|held| held.local_addr()).expect("a free port");
    let (settings, carded) = (world.machines[0].directory.join("config.toml"), world.machines[0].peers);
    let text = fs::read_to_string(&settings).expect("readable");
    let changed = text.replace(&format!("listen = \"{carded}\""), &format!("listen = \"{own}\""));
    assert_ne!(changed, text, "the setting is there");
    fs::write(&settings, changed).expect("writable");
    world.attend(0, &draft);
    eventually(PATIENCE, "it listens at the address of config.toml", || TcpStream::connect(own).is_ok());
    assert!(TcpStream::connect(carded).is_err(), "nothing listens at the port of the card");
    world.shows(0, &format!("the card names port {}, which must lead to {own}", carded.port()));
}

#[test]
fn a_draft_that_differs_by_one_byte_is_named_on_both_sides() {
    let mut world = World::new(4);
    let draft = world.draft("draft.json", &world.all());
    let other = world.home.path().join("other.json");
    fs::write(&other, [fs::read(&draft).expect("readable"), b"\n".to_vec()].concat()).expect("writable");
    for index in [0, 1, 2] {
        world.attend(index, &draft);
    }
    world.attend(3, &other);
    let ids = [&draft, &other].map(|path| {
        let shown = answer(&posync(&["ceremony", "show", path.to_str().expect("text")]));
        let digits = text(&shown["id"]).to_owned();
        (0..16).map(|group| digits[4 * group..4 * group + 4].to_owned()).collect::<Vec<_>>().join(" ")
    });
    for (index, named, id) in [(0, 3, &ids[1]), (1, 3, &ids[1]), (3, 0, &ids[0])] {
        world.shows(
            index,
            &format!(
                "{} at {} has another draft",
                world.machines[named].account, world.machines[named].peers
            ),
        );
        world.shows(index, id);
        assert!(!world.has(index, "ceremony/begun"), "nothing is dealt");
    }
}

#[test]
fn an_attempt_that_lost_its_secrets_never_goes_on_and_a_new_draft_does() {
    let mut world = World::new(4);
    let draft = world.draft("draft.json", &world.all());
    for index in world.all() {
        world.attend(index, &draft);
    }
    world.all().iter().for_each(|index| world.shows(*index, "deal shares"));
    world.kill(0);
    // The whole attempt is gone from the machine: only the others can know that it dealt.
    fs::remove_dir_all(world.machines[0].directory.join("ceremony")).expect("it was there");
    world.attend(0, &draft);
    assert_eq!(world.code(0), 5, "{}", world.screen(0));
    assert!(world.screen(0).contains("start a new ceremony"), "{}", world.screen(0));
    // The same id again, on the same machine.
    world.attend(0, &draft);
    assert_eq!(world.code(0), 5);
    assert!(world.screen(0).contains("an id serves once"), "{}", world.screen(0));
    for index in [1, 2, 3] {
        world.kill(index);
    }
    let anew = world.draft("anew.json", &world.all());
    for index in world.all() {
        world.attend(index, &anew);
    }
    let all = world.all();
    let genesis = world.succeed(&all);
    world.hides_the_key(&all, &genesis);
    world.attend(1, &draft);
    assert_eq!(world.code(1), 5, "the first draft serves no more: {}", world.screen(1));
}

#[test]
fn what_cannot_become_a_network_is_refused_before_anything_is_dealt() {
    let mut world = World::new(4);
    let draft = world.draft("draft.json", &world.all());
    let refused = |arguments: &[&str]| {
        let output = posync(arguments);
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let path = |path: &Path| path.to_str().expect("text").to_owned();
    // A card that another key signed.
    let cards: Vec<String> =
        world.machines.iter().map(|machine| path(&machine.directory.join("card.json"))).collect();
    let forged = world.home.path().join("forged.json");
    let (own, other) = (&world.machines[0].account, &world.machines[1].account);
    let card = fs::read_to_string(&cards[0]).expect("readable").replacen(own.as_str(), other, 1);
    fs::write(&forged, card).expect("writable");
    let (code, why) = refused(&["ceremony", "draft", "--parameters", "local", "--cards", &path(&forged)]);
    assert_eq!(code, Some(2));
    assert!(why.contains("signed by another key") && why.contains(other.as_str()), "{why}");
    // Parameters that contradict each other, or that do not exist.
    for (set, named) in [("term_rounds=7", "whole terms"), ("speed=9", "speed")] {
        let mut arguments = vec!["ceremony", "draft", "--parameters", "production", "--set", set, "--cards"];
        arguments.extend(cards.iter().map(String::as_str));
        let (code, why) = refused(&arguments);
        assert_eq!(code, Some(2), "{why}");
        assert!(why.contains(named), "{why}");
    }
    // A directory that cannot be written, found before the others wait for it.
    fs::create_dir(world.machines[2].directory.join("genesis")).expect("writable");
    world.attend(2, &draft);
    assert_eq!(world.code(2), 8, "{}", world.screen(2));
    assert!(world.screen(2).contains("genesis"), "{}", world.screen(2));
    // Private addresses that this machine would never dial after the ceremony.
    let settings = world.machines[3].directory.join("config.toml");
    let text = fs::read_to_string(&settings).expect("readable");
    assert!(text.contains("private = true"), "{text}");
    fs::write(&settings, text.replace("private = true", "private = false")).expect("writable");
    world.attend(3, &draft);
    assert_eq!(world.code(3), 2, "{}", world.screen(3));
    assert!(world.screen(3).contains("set private = true"), "{}", world.screen(3));
    // A port that another program holds.
    let held = TcpListener::bind(world.machines[1].peers).expect("it is free");
    world.attend(1, &draft);
    assert_eq!(world.code(1), 8, "{}", world.screen(1));
    drop(held);
    // A machine without a card in the draft.
    let three = World::new(1);
    let (code, why) = refused(&["ceremony", "--dir", &path(&three.machines[0].directory), &path(&draft)]);
    assert_eq!(code, Some(2), "{why}");
    // Money for one authority beside that for each is added; the same account twice is a mistake.
    let account = format!("{}=5", world.machines[0].account);
    let mut arguments = vec!["ceremony", "draft", "--parameters", "local", "--each-authority", "1000"];
    arguments.extend(["--account", &account, "--cards"]);
    arguments.extend(cards.iter().map(String::as_str));
    let (code, why) = refused(&arguments);
    assert_eq!(code, Some(0), "{why}");
    arguments.extend(["--account", &account]);
    let (code, why) = refused(&arguments);
    assert!(code == Some(2) && why.contains("funded twice"), "{why}");
    assert!(world.all().iter().all(|index| !world.has(*index, "ceremony/begun")));
}

#[test]
fn a_local_network_can_begin_with_a_ceremony_and_then_each_authority_has_its_own_share_alone() {
    let mut net = common::Net::start_with(&["--ceremony", "--providers", "8"]);
    let path = net.directory.join("network.toml");
    let path = path.to_str().expect("text");
    net.ask(&["put", path, "a file"]);
    let copy = net.directory.with_file_name("copy");
    net.ask(&["get", "a file", copy.to_str().expect("text")]);
    assert_eq!(fs::read(path).expect("readable"), fs::read(&copy).expect("readable"));
    net.down();

    let authority = |index: usize| net.directory.join(format!("authority-{index}"));
    for index in 0..4 {
        assert!(!authority(index).join("ceremony").exists(), "the share is all that is left");
        assert!(authority(index).join(SIGNATURES_FILE).exists());
        let mut shares = files(&authority(index).join("secrets"));
        shares.retain(|(path, _)| {
            path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("share-"))
        });
        assert!(!shares.is_empty(), "authority {index} has no share");
        for other in (0..4).filter(|other| *other != index) {
            // The storage holds blocks, which all have.
            let storage = authority(other).join("storage");
            for (file, bytes) in
                files(&authority(other)).iter().filter(|(file, _)| !file.starts_with(&storage))
            {
                assert!(
                    !shares.iter().any(|(_, share)| contains(bytes, share)),
                    "{} has the share of authority {index}",
                    file.display()
                );
            }
        }
    }
}
