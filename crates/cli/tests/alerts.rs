//! A real provider with damaged shards posts alerts to a webhook, and `watch` reports one
//! that was stopped.

mod common;

use common::{Net, POSYNC, end, file, grains, signal};
use posync_alert::test_utils::{Posted, listen};
use posync_provider::packs::extents;
use serde_json::Value;
use std::{
    fs::OpenOptions,
    io::{BufRead as _, BufReader},
    os::unix::fs::FileExt as _,
    path::Path,
    process::{Command, Stdio},
    sync::mpsc::Receiver,
    time::{Duration, Instant},
};

/// Time limit for an alert: a few epochs of a busy machine.
const PATIENCE: Duration = Duration::from_secs(120);

/// Changes a byte in every leaf that a provider keeps.
fn damage(member: &Path) {
    let extents = extents(&member.join("storage")).expect("its packs");
    assert!(!extents.is_empty());
    for extent in extents {
        let file = OpenOptions::new().read(true).write(true).open(&extent.path).expect("a segment");
        for place in (extent.offset..extent.offset + extent.length).step_by(1024) {
            let mut byte = [0];
            file.read_exact_at(&mut byte, place).expect("within the shard");
            file.write_all_at(&[byte[0] ^ 1], place).expect("writable");
        }
    }
}

/// Two providers that hold shards: their names, accounts, processes and directories.
fn holders(net: &Net) -> Vec<(String, String, u32, String)> {
    let rows = net.ask(&["agreements"]);
    let rows = rows.as_array().expect("a list");
    let holding = rows.iter().filter(|row| row["shards"].as_u64() > Some(0));
    let accounts: Vec<&str> =
        holding.map(|row| row["agreement"]["provider"].as_str().expect("text")).collect();
    let description = net.description();
    let text = |node: &Value, field: &str| node[field].as_str().expect("text").to_owned();
    let nodes = description["nodes"].as_array().expect("a list").iter();
    let nodes = nodes.filter(|node| accounts.contains(&node["account"].as_str().expect("text")));
    let member = |node: &Value| {
        let pid = u32::try_from(node["pid"].as_u64().expect("a number")).expect("a pid");
        (text(node, "name"), text(node, "account"), pid, text(node, "dir"))
    };
    nodes.map(member).take(2).collect()
}

/// A network that posts its alerts, with a file whose shards are all durable; and the posted alerts.
fn watched() -> (Net, Receiver<Posted>) {
    let (url, got) = listen(vec![]);
    let net = Net::start_with(&["--alert-url", &url]);
    let home = tempfile::tempdir().expect("a temporary directory");
    let source = file(home.path(), "source", 1_500_000, 17);
    net.round_trip(&source, "watched");
    net.wait_for(&["ls"], 60, "all shards are durable", |files| {
        files.as_array().expect("a list").iter().all(|file| file["shards_durable"] == file["shards"])
    });
    (net, got)
}

#[test]
fn a_webhook_and_a_watcher_hear_of_it_before_the_penalty() {
    let (net, got) = watched();
    let holders = holders(&net);
    let [(name, account, _, directory), (killed, gone, pid, _)] = &holders[..] else {
        panic!("two hold shards: {holders:?}");
    };
    damage(Path::new(directory));
    let start = Instant::now();
    let alert = loop {
        let left = PATIENCE.checked_sub(start.elapsed()).expect("an alert in time");
        let posted =
            got.recv_timeout(left).unwrap_or_else(|_| panic!("no alert of {name}{}", net.logs())).json;
        if posted["node"] == account.as_str() && posted["alert"] == "reads_missing" {
            break posted;
        }
    };
    assert_eq!(alert["state"], "raised");
    assert!(
        alert["height"].as_u64() > Some(0) && alert["text"].as_str().is_some_and(|t| t.contains(account))
    );
    net.wait_for(&["why", name], 60, "why lists what holds", |why| {
        why["ledger"]["alerts"].as_array().is_some_and(|alerts| !alerts.is_empty())
    });

    end(*pid);
    let mut watch = Command::new(POSYNC)
        .arg("--json")
        .arg("--net")
        .arg(&net.directory)
        .args(["watch", killed])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .expect("the program starts");
    let lines = BufReader::new(watch.stdout.take().expect("it is piped")).lines();
    let waits = lines.map(|line| line.expect("text")).find(|line| {
        let told: Value = serde_json::from_str(line).expect("JSON");
        assert_eq!(told["node"], gone.as_str());
        told["alert"] == "challenge_waits" && told["state"] == "raised"
    });
    watch.kill().expect("it was started here");
    watch.wait().expect("it was started here");
    assert!(waits.is_some(), "a stopped provider's challenge waits");
    authorities_say_that_they_are_behind(&net, &got);
}

/// Two of four authorities are stopped: the others make no blocks, report that, and report its end.
fn authorities_say_that_they_are_behind(net: &Net, got: &Receiver<Posted>) {
    let description = net.description();
    let nodes = description["nodes"].as_array().expect("a list").iter();
    let authorities: Vec<&Value> = nodes.filter(|node| node["role"] == "authority").collect();
    let pid = |node: &Value| u32::try_from(node["pid"].as_u64().expect("a number")).expect("a pid");
    let stopped: Vec<u32> = authorities[2..].iter().map(|node| pid(node)).collect();
    let heard = |state: &str| {
        let mut missing: Vec<&Value> = authorities[..2].iter().map(|node| &node["account"]).collect();
        let start = Instant::now();
        while !missing.is_empty() {
            let left = PATIENCE.checked_sub(start.elapsed()).expect("an alert in time");
            let posted = got.recv_timeout(left).unwrap_or_else(|_| panic!("not {state}{}", net.logs())).json;
            if posted["alert"] == "behind" && posted["state"] == state {
                missing.retain(|account| **account != posted["node"]);
            }
        }
    };
    stopped.iter().for_each(|pid| signal("STOP", *pid));
    heard("raised");
    stopped.iter().for_each(|pid| signal("CONT", *pid));
    heard("cleared");
}

#[test]
fn an_address_that_is_none_is_refused_and_not_repeated() {
    let home = tempfile::tempdir().expect("a temporary directory");
    let output = Command::new(POSYNC)
        .args(["--json", "devnet", "--dir"])
        .arg(home.path().join("net"))
        .args(["--alert-url", "hooks.example.org/secret"])
        .output()
        .expect("the program starts");
    assert_eq!(output.status.code(), Some(2));
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(text.contains("https://") && !text.contains("secret"), "{text}");
}

#[test]
fn a_file_of_authorities_that_is_none_is_refused_before_anything_starts() {
    let home = tempfile::tempdir().expect("a temporary directory");
    let (net, file) = (home.path().join("net"), home.path().join("ca.pem"));
    std::fs::write(&file, "no certificate").expect("writable");
    for (path, code) in [(file, 2), (home.path().join("missing.pem"), 8)] {
        let output = Command::new(POSYNC)
            .args(["--json", "devnet", "--alert-url", "https://hooks.example.org/secret", "--dir"])
            .arg(&net)
            .arg("--alert-ca")
            .arg(path)
            .output()
            .expect("the program starts");
        let text = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{text}");
        assert!(text.contains("ca.pem") || text.contains("PEM") || text.contains("missing.pem"), "{text}");
        assert!(!text.contains("secret") && !net.exists(), "{text}");
    }
}

/// A person adds to a provider's bond, and sees what its declared capacity needs.
fn add_to_bond(directory: &str) {
    let bond = |more: &[&str]| -> Value {
        let command = ["--json", "bond", "--dir", directory];
        let output = Command::new(POSYNC).args(command).args(more).output().expect("the program starts");
        let text = String::from_utf8_lossy(&output.stdout);
        serde_json::from_str(&text).unwrap_or_else(|_| panic!("{}", String::from_utf8_lossy(&output.stderr)))
    };
    let (before, after) = (bond(&[]), bond(&["--add", "1.5"]));
    let more = 1_500_000_000;
    assert_eq!(grains(&after["bond"]) - grains(&before["bond"]), more, "{after}");
    assert_eq!((grains(&after["added"]), grains(&after["missing"])), (more, 0), "{after}");
}

/// Wrong answers jail a provider: it says until when, a release before that is refused and costs nothing, and one
/// after it is accepted once.
#[test]
fn a_jailed_provider_is_released_by_a_command_when_its_term_is_over() {
    let (net, got) = watched();
    let holders = holders(&net);
    let (_, account, _, directory) = &holders[0];
    let unjail = |directory: &str| {
        let output = Command::new(POSYNC).args(["--json", "unjail", "--dir", directory]).output();
        let output = output.expect("the program starts");
        let printed = if output.status.success() { &output.stdout } else { &output.stderr };
        let text = String::from_utf8_lossy(printed);
        (output.status.code(), serde_json::from_str::<Value>(&text).unwrap_or_else(|_| panic!("{text}")))
    };
    let (code, free) = unjail(directory);
    assert_eq!(
        (code, free["error"]["what"].as_str()),
        (Some(5), Some("the provider is not in jail")),
        "{free}"
    );

    add_to_bond(directory);

    // Its data set is in force: the ledger's draws read it, whatever becomes of the gateway.
    net.wait_for(&["providers"], 60, "the ledger counts what the provider holds", |rows| {
        let mut rows = rows.as_array().expect("a list").iter();
        rows.any(|row| row["account"] == account.as_str() && row["stored_bytes"].as_u64() > Some(0))
    });
    // Nobody rebuilds its shards elsewhere: it goes on being asked for them.
    let gateway = net.pid("gateway");
    signal("STOP", gateway);
    damage(Path::new(directory));
    let hear = |alert: &str| {
        let start = Instant::now();
        loop {
            let left = PATIENCE.checked_sub(start.elapsed());
            let posted = left.and_then(|left| got.recv_timeout(left).ok());
            let posted = posted.unwrap_or_else(|| panic!("no {alert}{}", net.logs())).json;
            if posted["node"] == account.as_str() && posted["alert"] == alert && posted["state"] == "raised" {
                return posted;
            }
        }
    };
    let jailed = hear("jailed");
    let until = jailed["due"].as_u64().expect("an epoch");
    assert!(jailed["next"].as_str().is_some_and(|next| next.contains("posync unjail --dir")), "{jailed}");
    let (code, early) = unjail(directory);
    assert_eq!(code, Some(5), "{early}");
    let text = early.to_string();
    assert!(text.contains(&format!("until epoch {until}")) && text.contains("nothing was sent"), "{text}");
    let doctor = Command::new(POSYNC).args(["doctor", "--dir", directory]).output().expect("it starts");
    let text = String::from_utf8_lossy(&doctor.stdout);
    assert!(text.contains(&format!("posync unjail --dir {directory}")), "{text}");

    hear("jail_over");
    let (code, released) = unjail(directory);
    assert_eq!((code, &released["released"]), (Some(0), &Value::Bool(true)), "{released}{}", net.logs());
    let (code, again) = unjail(directory);
    assert_eq!(
        (code, again["error"]["what"].as_str()),
        (Some(5), Some("the provider is not in jail")),
        "{again}"
    );
    signal("CONT", gateway);
}
