//! A file larger than the memory of the gateway that stores it: 1 GiB through a process of at most 384 MiB.

mod common;

use common::{Net, POSYNC};
use std::{
    fs,
    io::{Read, Write},
    process::{Command, Stdio},
    time::Instant,
};

const BYTES: u64 = 1 << 30;
/// Peak memory: what one account may hold in both directions, what is coded at once, and the program.
const MEMORY_MAX_KIB: u64 = 384 << 10;
const PIECE: usize = 1 << 20;

#[test]
fn a_gibibyte_goes_through_little_memory() {
    let net = Net::start();
    let start = Instant::now();
    put(&net);
    let stored = start.elapsed();
    let hash = get(&net);
    let read = start.elapsed() - stored;
    assert_eq!(hash, expected().finalize());
    let peak = peak_kib(gateway(&net));
    eprintln!("1 GiB: put {stored:.1?}, get {read:.1?}, gateway at most {} MiB", peak >> 10);
    assert!(peak <= MEMORY_MAX_KIB, "the gateway used {} MiB", peak >> 10);
}

fn put(net: &Net) {
    let mut command = command(net, &["put", "-", "large", "--length", &BYTES.to_string()]);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::null()).spawn().expect("the program starts");
    let mut pipe = child.stdin.take().expect("it is piped");
    let mut source = source();
    let mut piece = vec![0; PIECE];
    for _ in 0..BYTES / PIECE as u64 {
        source.fill(&mut piece);
        pipe.write_all(&piece).expect("the command reads");
    }
    drop(pipe);
    let status = child.wait().expect("it was started here");
    assert!(status.success(), "put ended with {status}{}", net.logs());
}

fn get(net: &Net) -> blake3::Hash {
    let mut command = command(net, &["get", "large", "-"]);
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().expect("the program starts");
    let mut pipe = child.stdout.take().expect("it is piped");
    let mut hasher = blake3::Hasher::new();
    let mut piece = vec![0; PIECE];
    loop {
        match pipe.read(&mut piece).expect("the command writes") {
            0 => break,
            read => hasher.update(&piece[..read]),
        };
    }
    let status = child.wait().expect("it was started here");
    assert!(status.success(), "get ended with {status}{}", net.logs());
    hasher.finalize()
}

fn command(net: &Net, arguments: &[&str]) -> Command {
    let mut command = Command::new(POSYNC);
    command.arg("--net").arg(&net.directory).args(arguments);
    command
}

/// A gibibyte that is generated anew whenever it is needed.
fn source() -> blake3::OutputReader {
    blake3::Hasher::new().update(b"large").finalize_xof()
}

fn expected() -> blake3::Hasher {
    let (mut source, mut hasher, mut piece) = (source(), blake3::Hasher::new(), vec![0; PIECE]);
    for _ in 0..BYTES / PIECE as u64 {
        source.fill(&mut piece);
        hasher.update(&piece);
    }
    hasher
}

fn gateway(net: &Net) -> u64 {
    let description = net.description();
    let nodes = description["nodes"].as_array().expect("a list");
    nodes.iter().find(|node| node["role"] == "gateway").expect("there is one")["pid"]
        .as_u64()
        .expect("a number")
}

/// Peak resident memory of a process, in KiB.
fn peak_kib(pid: u64) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("it runs");
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).expect("Linux says it");
    line.split_whitespace().nth(1).and_then(|kib| kib.parse().ok()).expect("a number")
}
