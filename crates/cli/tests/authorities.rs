//! Authorities of a real network that are away, come back, or run on two machines with one key.

mod common;

use common::{Net, POSYNC, end, eventually, port, signal, text};
use serde_json::Value;
use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
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

    /// Waits until it ends by itself; returns its exit code.
    fn code(&mut self) -> i32 {
        let start = Instant::now();
        loop {
            let ended = self.process.try_wait().expect("it was started here");
            if let Some(status) = ended {
                return status.code().expect("it was not killed");
            }
            // The log is read now: it says what the process waits for.
            assert!(start.elapsed() < Duration::from_secs(PATIENCE), "it does not end: {}", self.log());
            std::thread::park_timeout(Duration::from_millis(20));
        }
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

/// True if `account` led a block from `height` on.
fn has_led(net: &Net, account: &str, height: u64) -> bool {
    let output = net.run(&["blocks", "--from", &height.to_string()]);
    let printed = String::from_utf8_lossy(&output.stdout).into_owned();
    let mut blocks = printed.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    blocks.any(|block| block["leader"] == account)
}

/// The directory of an authority is copied to a second machine, with ports of its own, while the first one goes on.
/// The copy signs nothing: it is refused with both views as soon as the others answer it, and nobody is slashed.
#[test]
fn a_copy_on_a_second_machine_is_refused_with_both_views_and_nobody_is_slashed() {
    const NAME: &str = "authority-3";
    let net = Net::start_with(&["--providers", "8"]);
    let first = net.directory.join(NAME);
    let description = net.description();
    let mut members = description["nodes"].as_array().expect("a list").iter();
    let account = text(&members.find(|node| node["name"] == NAME).expect("a member")["account"]).to_owned();
    eventually(PATIENCE, "it has led", || has_led(&net, &account, 1));
    end(net.pid(NAME));
    let copied_at = net.height();
    let second = net.directory.with_file_name("second-machine");
    let copied = Command::new("cp").arg("-a").arg(&first).arg(&second).status().expect("cp is there");
    assert!(copied.success());
    for setting in ["listen", "service_listen"] {
        common::set(&second, setting, &format!("\"127.0.0.1:{}\"", port()));
    }

    let original = Authority::start(&first);
    eventually(PATIENCE, "the first machine leads again", || has_led(&net, &account, copied_at + 1));
    let mut copy = Authority::start(&second);
    eventually(PATIENCE, "the copy runs", || {
        copy.log().contains("node service listens") || copy.log().contains("signs elsewhere")
    });
    // The others hold one connection of a key: they answer the copy at the latest when the first machine is gone.
    signal("KILL", original.process.id());
    assert_eq!(copy.code(), 5, "{}", copy.log());
    let said = copy.log();
    let refusal = said.lines().last().expect("it says why");
    assert!(
        refusal.contains("this authority's key signs elsewhere, or its directory is an old copy"),
        "{said}"
    );
    for view in ["recorded here is of term", "but the network holds a", "signed by this key at", "view "] {
        assert!(refusal.contains(view), "{view}: {refusal}");
    }
    assert!(refusal.contains("--i-stopped-the-other"), "{refusal}");
    let (code, again) = common::run_role(&second);
    assert!(code == Some(5) && again.contains("signs elsewhere"), "a second start is refused, too: {again}");

    // The first machine comes back as it was; nobody holds a second signature of its key.
    drop(original);
    let height = net.height();
    let original = Authority::start(&first);
    eventually(PATIENCE, "the first machine leads again", || has_led(&net, &account, height + 1));
    let status = net.ask(&["status"]);
    for seat in status["seats"].as_array().expect("a list") {
        assert!(seat["jailed"].is_null() && common::grains(&seat["slashed"]) == 0, "{seat}");
    }
    assert!(!original.log().contains("signs elsewhere"), "{}", original.log());
}
