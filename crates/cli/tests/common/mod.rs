//! A real network for a test: processes, sockets and disks, driven through the command line.
#![allow(dead_code, reason = "every test file uses its own part")]

use commonware_codec::{Copying, DecodeExt as _};
use commonware_cryptography::ed25519::PrivateKey;
use serde_json::Value;
use std::{
    ffi::OsStr,
    fs::{self, File},
    io::{BufRead as _, BufReader},
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    time::{Duration, Instant},
};

/// Path of the program under test.
pub(crate) const POSYNC: &str = env!("CARGO_BIN_EXE_posync");

/// Runs a command with `--json` and without any network of the environment.
pub(crate) fn posync(arguments: &[&str]) -> Output {
    let mut command = Command::new(POSYNC);
    command.arg("--json").args(arguments).env_remove("POSYNC_NET");
    command.stdin(Stdio::null()).output().expect("the program starts")
}

/// Runs one member by hand, with an input that ends at once, until it ends; its exit code and its log.
pub(crate) fn run_role(directory: &Path) -> (Option<i32>, String) {
    let output = Command::new(POSYNC).args(["start", "--dir"]).arg(directory).stdin(Stdio::null()).output();
    let output = output.expect("the program starts");
    (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
}

/// A port on loopback that nobody listens on.
pub(crate) fn port() -> u16 {
    TcpListener::bind("127.0.0.1:0").expect("a free port").local_addr().expect("bound").port()
}

/// A network in a temporary directory; dropping it stops it.
pub(crate) struct Net {
    /// The network's directory, inside a temporary one.
    pub(crate) directory: PathBuf,
    process: Option<Child>,
    log: Option<String>,
    arguments: Vec<String>,
    _home: Option<tempfile::TempDir>,
}

impl Net {
    /// Starts a new network and waits until it is ready.
    pub(crate) fn start() -> Self {
        Self::start_as(None, &[])
    }

    /// Starts a new network whose members log what `filter` lets through.
    pub(crate) fn logging(filter: &str) -> Self {
        Self::start_as(Some(filter.into()), &[])
    }

    /// Starts a new network whose `devnet` also gets these arguments.
    pub(crate) fn start_with(arguments: &[&str]) -> Self {
        Self::start_as(None, arguments)
    }

    fn start_as(log: Option<String>, arguments: &[&str]) -> Self {
        let home = tempfile::tempdir().expect("a temporary directory");
        let directory = home.path().join("net");
        let arguments = arguments.iter().map(ToString::to_string).collect();
        let mut net = Self { directory, process: None, log, arguments, _home: Some(home) };
        net.up();
        net
    }

    /// Starts the network (again) in its directory and waits until it reports that it is ready.
    pub(crate) fn up(&mut self) {
        let mut child = Command::new(POSYNC)
            // Tests wait for epochs, which end after a number of blocks.
            .args(["--json", "devnet", "--quiet-ms", "0", "--dir"])
            .arg(&self.directory)
            .envs(self.log.iter().map(|filter| ("POSYNC_LOG", filter)))
            .args(&self.arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(self.err())
            .spawn()
            .expect("the program starts");
        let mut line = String::new();
        let stdout = child.stdout.take().expect("it is piped");
        BufReader::new(stdout).read_line(&mut line).expect("readable");
        if line.is_empty() {
            panic!("the network did not start: {}{}", self.told(), self.logs());
        }
        self.process = Some(child);
    }

    /// The file that collects the messages of `devnet` besides its answer.
    fn err(&self) -> File {
        let path = self.directory.with_file_name("devnet.err");
        File::options().create(true).append(true).open(path).expect("writable")
    }

    /// All messages of `devnet` so far.
    pub(crate) fn told(&self) -> String {
        fs::read_to_string(self.directory.with_file_name("devnet.err")).unwrap_or_default()
    }

    /// Process id of a member; 0 if it does not run.
    pub(crate) fn pid(&self, name: &str) -> u32 {
        let description = self.description();
        let nodes = description["nodes"].as_array().expect("a list");
        let node = nodes.iter().find(|node| node["name"] == name).expect("a member");
        u32::try_from(node["pid"].as_u64().expect("a number")).expect("a pid")
    }

    /// Sends SIGTERM to the supervisor; waits for it and for every member.
    pub(crate) fn down(&mut self) {
        let Some(mut child) = self.process.take() else { return };
        let pids = self.pids();
        signal("TERM", child.id());
        let status = child.wait().expect("it was started here");
        assert!(status.success(), "devnet ended with {status}");
        assert!(pids.iter().all(|pid| !runs(*pid)), "a member outlived the network");
    }

    /// Kills the supervisor without a chance to clean up; returns the members' process ids.
    pub(crate) fn kill_supervisor(&mut self) -> Vec<u32> {
        let pids = self.pids();
        let mut child = self.process.take().expect("it runs");
        child.kill().expect("it was started here");
        child.wait().expect("it was started here");
        pids
    }

    /// The parsed content of `devnet.json`.
    pub(crate) fn description(&self) -> Value {
        let text = fs::read_to_string(self.directory.join("devnet.json")).expect("it is written");
        serde_json::from_str(&text).expect("it is JSON")
    }

    /// Process ids of all members.
    pub(crate) fn pids(&self) -> Vec<u32> {
        let nodes = self.description()["nodes"].as_array().expect("a list").clone();
        nodes
            .iter()
            .map(|node| u32::try_from(node["pid"].as_u64().expect("a number")).expect("a pid"))
            .collect()
    }

    /// Every member's name and process.
    pub(crate) fn members(&self) -> Vec<(String, u32)> {
        let nodes = self.description()["nodes"].as_array().expect("a list").clone();
        let names = nodes.iter().map(|node| text(&node["name"]).to_owned());
        names.zip(self.pids()).collect()
    }

    /// Runs a command on this network.
    pub(crate) fn run<S: AsRef<OsStr>>(&self, arguments: &[S]) -> Output {
        let mut command = Command::new(POSYNC);
        command.arg("--json").arg("--net").arg(&self.directory).args(arguments);
        command.stdin(Stdio::null()).output().expect("the program starts")
    }

    /// Runs a command that must succeed; returns its answer.
    pub(crate) fn ask<S: AsRef<OsStr>>(&self, arguments: &[S]) -> Value {
        let output = self.run(arguments);
        let words: Vec<_> = arguments.iter().map(|word| word.as_ref().to_string_lossy()).collect();
        assert!(
            output.status.success(),
            "posync {words:?} ended with {}: {}{}",
            output.status,
            String::from_utf8_lossy(&output.stderr),
            self.logs()
        );
        serde_json::from_slice(&output.stdout).unwrap_or(Value::Null)
    }

    /// Runs a command that must fail; returns its exit code and the error object.
    pub(crate) fn refuse<S: AsRef<OsStr>>(&self, arguments: &[S]) -> (i32, Value) {
        let output = self.run(arguments);
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        let code = output.status.code().expect("it was not killed");
        assert_ne!(code, 0, "it was expected to fail");
        let last = text.lines().last().unwrap_or_default();
        (code, serde_json::from_str(last).unwrap_or_else(|_| panic!("no JSON error: {text}")))
    }

    /// Stores a file and reads it back; panics on any difference.
    pub(crate) fn round_trip(&self, source: &Path, name: &str) {
        self.ask(&[OsStr::new("put"), source.as_os_str(), OsStr::new(name)]);
        self.reads(source, name);
    }

    /// Reads the file `name` from the network and compares it with the source.
    pub(crate) fn reads(&self, source: &Path, name: &str) {
        let target = self.directory.with_file_name("read-back");
        self.ask(&[OsStr::new("get"), OsStr::new(name), target.as_os_str()]);
        let same = fs::read(source).expect("readable") == fs::read(&target).expect("readable");
        assert!(same, "'{name}' came back with other bytes");
    }

    /// Repeats a question until `holds` accepts the answer; panics with the last one after `seconds`.
    pub(crate) fn wait_for(
        &self,
        arguments: &[&str],
        seconds: u64,
        what: &str,
        holds: impl Fn(&Value) -> bool,
    ) -> Value {
        let start = Instant::now();
        loop {
            let answer = self.ask(arguments);
            if holds(&answer) {
                return answer;
            }
            assert!(
                start.elapsed() < Duration::from_secs(seconds),
                "{what}: not within {seconds} s; last answer {answer}{}",
                self.logs()
            );
        }
    }

    /// Height of the newest final block.
    pub(crate) fn height(&self) -> u64 {
        self.ask(&["status"])["height"].as_u64().expect("a number")
    }

    /// Exports all blocks and lets the independent script recompute every settled fee.
    pub(crate) fn recompute(&self) {
        let output = self.run(&["blocks"]);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let export = self.directory.with_file_name("blocks.jsonl");
        fs::write(&export, &output.stdout).expect("writable");
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/settlement.py");
        let judged = Command::new("python3").arg(script).arg(&export).output().expect("python3 is there");
        let text = String::from_utf8_lossy(&judged.stdout).into_owned();
        assert!(judged.status.success(), "{text}{}", String::from_utf8_lossy(&judged.stderr));
        eprintln!("{}", text.trim());
    }

    /// The end of every member's log, for the message of a failing test.
    pub(crate) fn logs(&self) -> String {
        let Ok(entries) = fs::read_dir(&self.directory) else { return String::new() };
        let mut text = String::new();
        for entry in entries.filter_map(Result::ok) {
            let Ok(log) = fs::read_to_string(entry.path().join("log")) else { continue };
            let lines: Vec<&str> = log.lines().collect();
            let last = &lines[lines.len().saturating_sub(6)..];
            text += &format!("\n-- {}\n{}", entry.file_name().display(), last.join("\n"));
        }
        text
    }
}

impl Drop for Net {
    fn drop(&mut self) {
        if let Some(mut child) = self.process.take() {
            signal("TERM", child.id());
            let _ = child.wait();
        }
    }
}

/// Changes a setting of the role in `directory`, to a value in TOML, from its next start on.
pub(crate) fn set(directory: &Path, key: &str, value: &str) {
    let path = directory.join("config.toml");
    let text = fs::read_to_string(&path).expect("readable");
    let start = format!("{key} = ");
    assert_eq!(text.lines().filter(|line| line.starts_with(&start)).count(), 1, "{key}");
    let change = |line: &str| if line.starts_with(&start) { format!("{start}{value}") } else { line.into() };
    let lines: Vec<String> = text.lines().map(change).collect();
    fs::write(&path, lines.join("\n") + "\n").expect("writable");
}

/// Waits until `holds` is true; panics after `seconds`.
pub(crate) fn eventually(seconds: u64, what: &str, mut holds: impl FnMut() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < Duration::from_secs(seconds), "{what}: not within {seconds} s");
        std::thread::park_timeout(Duration::from_millis(20));
    }
}

/// Ends a member for good: the supervisor does not restart a member that ends on SIGTERM.
pub(crate) fn end(pid: u32) {
    signal("TERM", pid);
    eventually(10, "a member ends when it is told to", || !runs(pid));
}

/// A string in an answer.
pub(crate) fn text(value: &Value) -> &str {
    value.as_str().expect("text")
}

/// Bytes in an answer, which holds them as hex digits.
pub(crate) fn bytes<const N: usize>(value: &Value) -> [u8; N] {
    hex::decode(text(value)).expect("hex digits").try_into().expect("the right length")
}

/// Reads the private key in a file.
pub(crate) fn key(path: &Path) -> PrivateKey {
    let digits = fs::read_to_string(path).expect("a key file");
    PrivateKey::decode(Copying(&hex::decode(digits.trim()).expect("hex digits"))).expect("a key")
}

/// An amount of money in an answer, in grains; fails unless it is one amount in both units.
pub(crate) fn grains(value: &Value) -> u128 {
    let grains = value["grains"].as_str().unwrap_or_else(|| panic!("money is an object, this is {value}"));
    let grains: u128 = grains.parse().expect("digits");
    let sync = format!("{}.{:09}", grains / 1_000_000_000, grains % 1_000_000_000);
    assert_eq!(value, &serde_json::json!({ "grains": grains.to_string(), "sync": sync }));
    grains
}

/// An integer that is a string of digits in an answer, such as a price.
pub(crate) fn digits(value: &Value) -> u128 {
    let digits = value.as_str().unwrap_or_else(|| panic!("it is a string of digits, not {value}"));
    digits.parse().expect("digits")
}

/// Sends a signal to a process that the test started.
pub(crate) fn signal(name: &str, pid: u32) {
    let status = Command::new("kill").arg(format!("-{name}")).arg(pid.to_string()).status();
    status.expect("kill is there");
}

/// True if a process runs (a zombie does not count).
pub(crate) fn runs(pid: u32) -> bool {
    let status = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let state = status.rsplit_once(')').map(|(_, rest)| rest.trim_start().chars().next());
    matches!(state, Some(Some(state)) if state != 'Z' && state != 'X')
}

/// A file of `length` incompressible bytes without repetition, the same for the same seed.
pub(crate) fn file(directory: &Path, name: &str, length: usize, seed: u64) -> PathBuf {
    let mut bytes = vec![0; length];
    blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof().fill(&mut bytes);
    let path = directory.join(name);
    fs::write(&path, bytes).expect("writable");
    path
}
