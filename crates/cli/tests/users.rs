//! A network's gateway serves its user; any other key is refused until the owner lists it.

mod common;

use common::{Net, POSYNC, file, set};
use std::{fs, path::Path, process::Command};

/// Runs a command with the description and the key in `directory`; returns its exit code and its output.
fn run(directory: &Path, arguments: &[&str]) -> (Option<i32>, String) {
    let output = Command::new(POSYNC).arg("--json").arg("--net").arg(directory).args(arguments).output();
    let output = output.expect("the program starts");
    let text = [output.stdout, output.stderr].concat();
    (output.status.code(), String::from_utf8(text).expect("UTF-8"))
}

/// Adds these accounts to those that the gateway serves, from its next start on.
fn list(net: &Net, users: &[&str]) {
    let users: Vec<String> = users.iter().map(|user| format!("\"{user}\"")).collect();
    set(&net.directory.join("gateway"), "users", &format!("[{}]", users.join(", ")));
}

#[test]
fn who_is_not_listed_gets_nothing_and_who_is_gets_its_own_files_alone() {
    let mut net = Net::start();
    let home = tempfile::tempdir().expect("a temporary directory");
    let (of_owner, of_other) = (file(home.path(), "owner", 10_000, 1), file(home.path(), "other", 7_000, 2));
    let [of_owner, of_other] = [&of_owner, &of_other].map(|path| path.to_str().expect("UTF-8"));
    net.ask(&["put", of_owner, "name"]);

    let other = home.path().join("their network");
    fs::create_dir(&other).expect("made");
    fs::copy(net.directory.join("network.toml"), other.join("network.toml")).expect("copied");
    fs::write(other.join("user.key"), "5a".repeat(32)).expect("written");
    let out = home.path().join("out");
    let out = out.to_str().expect("UTF-8");
    let mut said = String::new();
    for arguments in [&["ls"][..], &["get", "name", out], &["put", of_other, "name"], &["rm", "name"]] {
        let (code, text) = run(&other, arguments);
        assert_eq!(code, Some(5), "{arguments:?}: {text}");
        assert!(text.contains("ask the gateway's owner to add your account"), "{arguments:?}: {text}");
        said = text;
    }
    assert_eq!(run(&other, &["status"]).0, Some(0), "the network's state is everybody's");
    let account = said.split_whitespace().find(|word| word.starts_with("sync1")).expect("it names who asked");

    net.down();
    list(&net, &[account]);
    net.up();
    assert_eq!(run(&other, &["ls"]), (Some(0), "[]\n".into()), "nothing of the owner's");
    assert_eq!(run(&other, &["get", "name", out]).0, Some(4));
    assert_eq!(run(&other, &["rm", "name"]).0, Some(4));
    assert_eq!(run(&other, &["put", of_other, "name"]).0, Some(0));
    assert_eq!(run(&other, &["get", "name", out]).0, Some(0));
    assert_eq!(fs::read(out).expect("written"), fs::read(of_other).expect("readable"));
    net.reads(Path::new(of_owner), "name");
    assert_eq!(net.ask(&["ls"]).as_array().map(Vec::len), Some(1));
    assert_eq!(run(&other, &["rm", "name"]).0, Some(0));
    net.reads(Path::new(of_owner), "name");

    // The account is taken off the list, and its owner pays for its file until it removes it.
    assert_eq!(run(&other, &["put", of_other, "left behind"]).0, Some(0));
    assert_eq!(net.refuse(&["rm", "left behind", "--account", account, "--for-good"]).0, 5, "it is listed");
    net.down();
    set(&net.directory.join("gateway"), "users", "[]");
    net.up();
    let listed = net.ask(&["ls", "--account", account]);
    assert_eq!((&listed[0]["name"], &listed[0]["bytes"]), (&"left behind".into(), &7_000.into()), "{listed}");
    let (code, error) = net.refuse(&["rm", "left behind", "--account", account]);
    assert_eq!(code, 2, "{error}");
    assert!(common::text(&error["error"]["next"]).contains("--for-good"), "{error}");
    net.ask(&["rm", "left behind", "--account", account, "--for-good"]);
    assert_eq!(net.ask(&["ls", "--account", account]), serde_json::json!([]));
    net.reads(Path::new(of_owner), "name");
}
