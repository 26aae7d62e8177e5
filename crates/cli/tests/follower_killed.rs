//! A node without a seat as a process of its own: it takes its state from a running network, is killed at points of
//! its start and its work, and follows and serves again each time.

mod common;

use common::{Net, POSYNC, eventually, port, posync, set, text};
use commonware_codec::{Copying, DecodeExt as _};
use commonware_runtime::{Runner as _, Supervisor as _, tokio};
use posync_client::{
    connection::{Connection, Endpoint},
    light::Light,
};
use posync_node::genesis::Genesis;
use posync_protocol::{Account, record::System};
use serde_json::Value;
use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

/// A node without a seat in a directory of its own.
struct Follower {
    directory: PathBuf,
    log: PathBuf,
    at: Endpoint,
    starts: u32,
    process: Option<Child>,
}

impl Follower {
    /// Makes its directory: it runs 20 blocks itself at most.
    fn init(net: &Net, home: &Path) -> Self {
        let (directory, port) = (home.join("node"), port());
        let shown = posync(&["net", "show", "--net", net.directory.to_str().expect("text")]);
        let shown: Value = serde_json::from_slice(&shown.stdout).expect("JSON");
        let (at, listen) = (directory.to_str().expect("text"), format!("service_listen=127.0.0.1:{port}"));
        let made = posync(&[
            "--net",
            text(&shown["line"]),
            "init",
            "node",
            "--dir",
            at,
            "--set",
            "private=true",
            "--set",
            &listen,
        ]);
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        let made: Value = serde_json::from_slice(&made.stdout).expect("JSON");
        set(&directory, "replay_blocks", "20");
        fs::copy(net.directory.join("genesis"), directory.join("genesis")).expect("copied");
        let account: Account = text(&made["account"]).parse().expect("an account");
        let address = format!("127.0.0.1:{port}").parse().expect("an address");
        let at = Endpoint { account, address };
        Self { directory, log: home.join("node.log"), at, starts: 0, process: None }
    }

    /// Starts it; its log begins anew.
    fn start(&mut self) {
        let log = File::create(&self.log).expect("writable");
        let mut command = Command::new(POSYNC);
        command.args(["start", "--dir"]).arg(&self.directory);
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).spawn();
        self.process = Some(child.expect("it starts"));
        self.starts += 1;
    }

    fn says(&mut self, what: &str) {
        let child = self.process.as_mut().expect("it runs");
        eventually(60, what, || {
            let log = fs::read_to_string(&self.log).unwrap_or_default();
            assert_eq!(child.try_wait().expect("it was started here"), None, "start {}: {log}", self.starts);
            log.contains(what)
        });
    }

    /// Ends it as a loss of power does, without a chance to clean up.
    fn kill(&mut self) {
        let mut child = self.process.take().expect("it runs");
        child.kill().expect("it was started here");
        child.wait().expect("it was started here");
    }

    /// Height of the newest state that it alone proves to a client, from `goal` on.
    fn serves(&self, genesis: &Genesis, goal: u64) -> u64 {
        let (mut height, mut said) = (0, String::new());
        eventually(60, "it serves the newest state", || {
            let light = Light::new(genesis.chain(), genesis.network_key());
            let at = vec![self.at.clone()];
            let read = tokio::Runner::new(tokio::Config::new()).start(|context| async move {
                let key =
                    commonware_cryptography::ed25519::PrivateKey::decode(Copying(&[7; 32])).expect("a key");
                let connection =
                    Connection::new(context.child("client"), context.child("network"), key, at, light);
                connection.read::<System>(System::key()).await
            });
            match read {
                Ok(read) => height = read.header.height,
                Err(error) => said = error.to_string(),
            }
            height >= goal
        });
        assert!(height >= goal, "{said}");
        height
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        if let Some(mut child) = self.process.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

#[test]
fn a_killed_follower_follows_and_serves_again() {
    let net = Net::start();
    let home = tempfile::tempdir().expect("a directory");
    net.wait_for(&["status"], 60, "there are more blocks than it runs", |status| {
        status["height"].as_u64() >= Some(40)
    });
    let genesis =
        Genesis::from_bytes(&fs::read(net.directory.join("genesis")).expect("there")).expect("whole");
    let mut node = Follower::init(&net, home.path());
    // As it starts, as it takes its state, as it has it, and as it applies blocks.
    node.start();
    node.kill();
    for point in ["this node has no state", "the node service listens", "ready: "] {
        node.start();
        node.says(point);
        node.kill();
    }
    let mut height = net.height();
    for _ in 0..3 {
        node.start();
        node.says("ready: ");
        height = node.serves(&genesis, height) + 4;
        assert!(node.serves(&genesis, height) >= height, "it goes on");
        node.kill();
    }
    node.start();
    assert!(node.serves(&genesis, net.height()) > 0);
}
