//! Awkward files of every kind through a real network, and the messages of commands that refuse.

mod common;

use common::{Net, POSYNC, digits, file, grains};
use std::{
    ffi::OsStr,
    io::Write as _,
    process::{Command, Stdio},
};

const SEGMENT: usize = 4 << 20;

#[test]
fn files_of_every_kind() {
    let net = Net::start();
    let home = tempfile::tempdir().expect("a temporary directory");
    sizes(&net, home.path());
    names(&net, home.path());
    twice(&net, home.path());
    a_cancelled_put_leaves_nothing(&net);
    refusals(&net, home.path());
    sources(&net, home.path());
    targets(&net, home.path());
    money(&net);
    settled(&net);
    why(&net);
    prices(&net);
}

/// Prices start at the genesis's and follow the ledger's events; the offer is known once an epoch is closed.
fn prices(net: &Net) {
    let sealed = |prices: &serde_json::Value| !prices["epochs"].as_array().expect("a list").is_empty();
    let prices = net.wait_for(&["prices"], 120, "an epoch is closed", sealed);
    for (at, class, posted) in [(0, "storage", 10_000_000), (1, "egress", 1_000_000)] {
        let now = &prices["now"][at];
        assert_eq!(now["class"], class);
        assert!(digits(&now["price"]) >= posted && digits(&now["slow_price"]) >= posted, "{prices}");
        // Egress counts as offered once it has been measured three times.
        assert!(class == "egress" || now["used_percent"].is_f64(), "what is offered is known: {prices}");
    }
    let stored: u64 = net
        .ask(&["providers"])
        .as_array()
        .expect("a list")
        .iter()
        .map(|row| row["stored_bytes"].as_u64().expect("a number"))
        .sum();
    assert!(stored > 0 && stored.is_multiple_of(1024), "{stored}");
}

/// `why` agrees with the other commands about a provider.
fn why(net: &Net) {
    let provider = &net.ask(&["providers"])[0];
    let account = provider["account"].as_str().expect("text");
    let why = net.ask(&["why", account]);
    let operated = net.ask(&["why", provider["operator"].as_str().expect("text")]);
    assert_eq!(operated["account"], account, "an operator's name will do");
    assert_eq!(why["account"], account);
    assert_eq!(why["placement"]["recent"], true, "{why}");
    let segments = why["placement"]["segments"].as_array().expect("a list");
    assert!(!segments.is_empty() && segments.iter().all(|segment| segment["reason"] != "unknown"), "{why}");
    assert_eq!(why["ledger"]["operator"], provider["operator"]);
    assert_eq!(why["ledger"]["bond_covers_capacity"], true, "{why}");
    assert_eq!(net.refuse(&["why", "nobody"]).0, 2);
    let authority = net.ask(&["status"])["members"][0]["name"].as_str().expect("text").to_owned();
    assert_eq!(net.refuse(&["why", &authority]).0, 4, "an authority is no provider");
}

fn sizes(net: &Net, home: &std::path::Path) {
    for (seed, length) in [0, 1, SEGMENT - 1, SEGMENT, SEGMENT + 1].into_iter().enumerate() {
        let source = file(home, &format!("size-{length}"), length, seed as u64);
        net.round_trip(&source, &format!("size-{length}"));
    }
    let listed = net.ask(&["ls"]);
    let shards = |name: &str| {
        let files = listed.as_array().expect("a list");
        files.iter().find(|file| file["name"] == name).expect("it is listed")["shards"]
            .as_u64()
            .expect("a number")
    };
    assert_eq!((shards("size-1"), shards("size-4194304"), shards("size-4194305")), (8, 8, 16));
}

fn names(net: &Net, home: &std::path::Path) {
    let source = file(home, "named", 3_000, 77);
    let longest = "n".repeat(1024);
    for name in ["a b", "../up", "/", "ünïcödé 文件 🗄", "quote\"back\\slash", "-dash", "new\nline", &longest]
    {
        net.ask(&[OsStr::new("put"), source.as_os_str(), OsStr::new("--"), OsStr::new(name)]);
        let target = home.join("out");
        net.ask(&[OsStr::new("get"), OsStr::new("--"), OsStr::new(name), target.as_os_str()]);
        assert_eq!(
            std::fs::read(&source).expect("readable"),
            std::fs::read(&target).expect("readable"),
            "{name:?}"
        );
        net.ask(&["rm", "--", name]);
        assert_eq!(net.refuse(&["get", "--", name, "/dev/null"]).0, 4, "{name:?} is gone");
    }
}

/// Stores the same bytes under two names, and other bytes under a name in use.
fn twice(net: &Net, home: &std::path::Path) {
    let (first, second) = (file(home, "first", 100_000, 5), file(home, "second", 70_000, 6));
    net.round_trip(&first, "one");
    net.round_trip(&first, "other");
    net.ask(&["rm", "one"]);
    net.reads(&first, "other");
    net.round_trip(&second, "other");
    let files = net.ask(&["ls"]);
    let count = files.as_array().expect("a list").iter().filter(|file| file["name"] == "other").count();
    assert_eq!(count, 1, "a name is listed once");
}

/// Interrupts a put halfway; the file does not appear and its space comes back.
fn a_cancelled_put_leaves_nothing(net: &Net) {
    let stored = |net: &Net| -> u64 {
        let rows = net.ask(&["agreements"]);
        rows.as_array().expect("a list").iter().map(|row| row["shards"].as_u64().expect("a number")).sum()
    };
    let before = stored(net);
    // The command reads a pipe that never delivers the second half of the file.
    let mut put = Command::new(POSYNC)
        .arg("--net")
        .arg(&net.directory)
        .args(["put", "-", "cancelled", "--length"])
        .arg((6 * SEGMENT).to_string())
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("the program starts");
    let mut pipe = put.stdin.take().expect("it is piped");
    pipe.write_all(&vec![7; 3 * SEGMENT]).expect("the command reads");
    put.kill().expect("it was started here");
    put.wait().expect("it was started here");
    assert_eq!(net.refuse(&["get", "cancelled", "/dev/null"]).0, 4);
    net.wait_for(&["agreements"], 60, "the space of a cancelled put comes back", |rows| {
        let now: u64 = rows.as_array().expect("a list").iter().filter_map(|row| row["shards"].as_u64()).sum();
        now <= before
    });
}

fn refusals(net: &Net, home: &std::path::Path) {
    let small = file(home, "small", 10, 9);
    let text = |path: &std::path::Path| path.to_str().expect("text").to_owned();
    let long = "x".repeat(1025);
    let cases: Vec<(Vec<String>, i32)> = vec![
        (vec!["get".into(), "nothing".into(), text(&home.join("x"))], 4),
        (vec!["rm".into(), "nothing".into()], 4),
        (vec!["put".into(), text(&home.join("absent"))], 8),
        (vec!["put".into(), text(home)], 8),
        (vec!["put".into(), text(&small), String::new()], 2),
        (vec!["put".into(), text(&small), long], 2),
        (vec!["get".into(), "size-1".into(), text(&home.join("no/such/directory"))], 8),
        (vec!["send".into(), "provider-0".into(), "0.0000000001".into()], 2),
        (vec!["send".into(), "sync1nobody".into(), "1".into()], 2),
        (vec!["send".into(), "provider-0".into(), "999999999".into()], 5),
        (vec!["blocks".into(), "--from".into(), "99999999".into()], 4),
        (vec!["verify".into(), text(&small), "--network-key".into(), "00".into()], 2),
    ];
    for (arguments, code) in cases {
        let (got, error) = net.refuse(&arguments);
        assert_eq!(got, code, "{arguments:?}: {error}");
        for part in ["what", "why", "next"] {
            assert!(
                error["error"][part].as_str().is_some_and(|text| !text.is_empty()),
                "{arguments:?}: {error}"
            );
        }
    }
    let nowhere =
        Command::new(POSYNC).args(["--net", "/nonexistent", "ls"]).output().expect("the program starts");
    assert_eq!(nowhere.status.code(), Some(3));
}

/// A put stores the source as it was, whole, or fails and stores nothing.
fn sources(net: &Net, home: &std::path::Path) {
    let out = home.join("out");
    let read = |name: &str| {
        net.ask(&["get", name, out.to_str().expect("text")]);
        std::fs::read(&out).expect("written")
    };
    // A file with length 0 that holds bytes, and a pipe without a length.
    net.ask(&["put", "/proc/version", "version"]);
    assert_eq!(read("version"), std::fs::read("/proc/version").expect("readable"));
    let put = |arguments: &[&str], bytes: &[u8]| {
        let mut command = Command::new(POSYNC);
        command.arg("--json").arg("--net").arg(&net.directory).args(arguments).stdin(Stdio::piped());
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("it starts");
        // A command that refuses before it has read them all closes the pipe.
        let _ = child.stdin.take().expect("it is piped").write_all(bytes);
        child.wait().expect("it was started here").code()
    };
    assert_eq!(put(&["put", "-", "piped"], b"of no known length"), Some(0));
    assert_eq!(read("piped"), b"of no known length");
    for (length, name) in [("5", "longer"), ("7", "shorter")] {
        assert_eq!(put(&["put", "-", name, "--length", length], b"123456"), Some(8), "{name}");
        assert_eq!(net.refuse(&["get", name, "/dev/null"]).0, 4, "nothing of it is stored");
    }
    assert_eq!(net.refuse(&["put", "/dev/zero", "endless"]).0, 8);
    let file = home.join("of-six");
    std::fs::write(&file, b"123456").expect("writable");
    let file = file.to_str().expect("text");
    assert_eq!(net.refuse(&["put", file, "of-six", "--length", "7"]).0, 8);
    assert_eq!(net.refuse(&["get", "of-six", "/dev/null"]).0, 4, "nothing of it is stored");
    net.ask(&["put", file, "of-six", "--length", "6"]);
}

/// An existing file or link survives every kind of output.
fn targets(net: &Net, home: &std::path::Path) {
    let part = home.join("target.part");
    let target = home.join("target");
    std::fs::write(&part, "the user's own").expect("writable");
    let text = |path: &std::path::Path| path.to_str().expect("text").to_owned();
    assert_eq!(net.refuse(&["get", "nothing", &text(&target)]).0, 4);
    assert!(!target.exists());
    net.ask(&["get", "piped", &text(&target)]);
    assert_eq!(std::fs::read(&part).expect("still there"), b"the user's own");
    let link = home.join("null");
    std::os::unix::fs::symlink("/dev/null", &link).expect("made");
    net.ask(&["get", "piped", &text(&link)]);
    assert!(!std::fs::metadata("/dev/null").expect("there").is_file(), "a device stays a device");
    assert!(std::fs::symlink_metadata(&link).expect("there").is_symlink(), "a link stays a link");
    // One of two hard links: the other name keeps what it showed.
    let (kept, shared) = (home.join("kept"), home.join("shared"));
    std::fs::write(&kept, "before").expect("writable");
    std::fs::hard_link(&kept, &shared).expect("made");
    assert_eq!(net.refuse(&["get", "nothing", &text(&shared)]).0, 4);
    net.ask(&["get", "piped", &text(&shared)]);
    assert_eq!(std::fs::read(&kept).expect("there"), b"before");
    assert!(std::fs::read(&shared).expect("there").starts_with(b"of no known length"));
    // A pipe that the caller names below /dev/fd is written to, as standard output is.
    let mut get = Command::new(POSYNC);
    get.arg("--net").arg(&net.directory).args(["get", "piped", "/dev/fd/1"]);
    let got = get.stdout(Stdio::piped()).output().expect("it starts");
    assert_eq!((got.status.code(), got.stdout.starts_with(b"of no known length")), (Some(0), true));
    // A reader that closes the pipe early is not a failed disk, and gets no message.
    let mut get = Command::new(POSYNC);
    get.arg("--net").arg(&net.directory).args(["get", "size-4194305", "-"]);
    let mut get = get.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it starts");
    drop(get.stdout.take());
    let ended = get.wait_with_output().expect("it was started here");
    assert_eq!((ended.status.code(), ended.stderr.len()), (Some(141), 0));
    let mut watch = Command::new(POSYNC);
    watch.arg("--net").arg(&net.directory).arg("watch");
    let mut watch = watch.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().expect("it starts");
    drop(watch.stdout.take());
    assert!(watch.wait().expect("it ends by itself").success());
}

fn money(net: &Net) {
    let provider = net.description()["nodes"][4]["name"].as_str().expect("a name").to_owned();
    let sent = net.ask(&["send", &provider, "1.5"]);
    assert_eq!(grains(&sent["amount"]), 1_500_000_000);
    let status = net.ask(&["status"]);
    assert_eq!(grains(&status["accounted"]), 1_000_000_000_000_000_000, "money is conserved");
}

fn settled(net: &Net) {
    net.wait_for(&["providers"], 120, "every holder was paid", |rows| {
        let rows = rows.as_array().expect("a list");
        let paid = rows.iter().filter(|row| grains(&row["earned_recent_epochs"]) > 0).count();
        paid >= 8
    });
    net.recompute();
}
