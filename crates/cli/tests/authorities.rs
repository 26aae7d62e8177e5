//! Authorities of a real network that are away, and come back.

mod common;

use common::{Net, POSYNC, end, eventually};
use serde_json::Value;
use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Instant,
};

/// Seconds within which a step must happen on a busy machine.
const PATIENCE: u64 = 240;
/// Looks at a network without a quorum, each of which waits for blocks that do not come.
const LOOKS: usize = 3;

/// An authority that was started by hand, and its log; dropping it ends it.
struct Authority {
    process: Child,
    log: PathBuf,
}

impl Authority {
    fn start(directory: &Path) -> Self {
        common::set(directory, "log", "\"stderr\"");
        let log = directory.with_extension("by-hand");
        let mut command = Command::new(POSYNC);
        command.args(["start", "--dir"]).arg(directory).env_remove("POSYNC_NET");
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(File::create(&log).expect("writable"));
        Self { process: command.spawn().expect("it starts"), log }
    }

    fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }
}

impl Drop for Authority {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn consensus<'a>(status: &'a Value, name: &str) -> &'a Value {
    &status["consensus"][name]
}

/// With two of four down nothing becomes final, and `status` says since when there is no quorum. The third brings
/// finality back.
#[test]
fn two_of_four_down_are_no_quorum_and_blocks_become_final_once_the_third_is_back() {
    let net = Net::start_with(&["--providers", "8"]);
    end(net.pid("authority-2"));
    end(net.pid("authority-3"));
    let first = net.wait_for(&["status"], PATIENCE, "there is no quorum", |status| {
        let said = ["state", "answering", "needed"].map(|name| consensus(status, name).clone());
        // Votes that were out when the third one ended may still make a block final.
        said == [Value::from("no quorum"), 2.into(), 3.into()]
            && consensus(status, "seconds_since_block").as_u64() >= Some(10)
    });
    let (stood, mut since) = (first["height"].as_u64(), consensus(&first, "seconds_since_block").as_u64());
    for _ in 0..LOOKS {
        let status = net.ask(&["status"]);
        assert_ne!(*consensus(&status, "state"), "running", "{status}");
        if *consensus(&status, "answering") != 2 {
            continue;
        }
        assert_eq!(status["height"].as_u64(), stood, "two of four make nothing final");
        let now = consensus(&status, "seconds_since_block").as_u64();
        assert!(now >= since && now.is_some(), "it says for how long: {status}");
        since = now;
    }
    eventually(PATIENCE, "it is said in words", || {
        let shown = Command::new(POSYNC).arg("--net").arg(&net.directory).arg("status").output();
        let shown = String::from_utf8_lossy(&shown.expect("it runs").stdout).into_owned();
        shown.contains("NO QUORUM: 2 of 4 authorities answer") && shown.contains("s old")
    });

    let began = Instant::now();
    let third = Authority::start(&net.directory.join("authority-2"));
    net.wait_for(&["status"], PATIENCE, "a block is final again", |status| status["height"].as_u64() > stood);
    eprintln!("a new block was seen {:.1} s after the start of the third", began.elapsed().as_secs_f64());
    net.wait_for(&["status"], PATIENCE, "the network runs", |status| {
        *consensus(status, "state") == "running"
    });
    assert!(!third.log().contains("ERROR"), "{}", third.log());
}
