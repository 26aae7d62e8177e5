//! `--fresh` removes the files of a network and no others.

mod common;

use common::POSYNC;
use std::{
    fs::{self, File},
    path::Path,
    process::{Command, Output},
};

/// Runs `devnet --fresh` on a directory.
fn fresh(directory: &Path) -> Output {
    let mut command = Command::new(POSYNC);
    command.args(["--json", "devnet", "--fresh", "--dir"]).arg(directory).output().expect("it starts")
}

/// Writes the part of `devnet.json` that names these members.
fn describe(directory: &Path, members: &[&str]) {
    let nodes: Vec<_> =
        members.iter().map(|name| serde_json::json!({ "name": name, "account": "sync1" })).collect();
    let text = serde_json::json!({ "nodes": nodes }).to_string();
    fs::write(directory.join("devnet.json"), text).expect("writable");
}

/// Entries for which `--fresh` must refuse to remove anything; true for a directory.
const STRAYS: &[(&str, bool)] = &[
    ("notes.txt", false),
    ("provider-3", false),
    ("provider-7", true),
    ("devnet.json", true),
    ("provider-x", true),
    ("Gateway", true),
];

#[test]
fn a_directory_that_holds_anything_else_stays_as_it_is() {
    for (stray, is_directory) in STRAYS {
        let home = tempfile::tempdir().expect("a directory");
        let at = |name: &str| home.path().join(name);
        fs::write(at("lock"), "").expect("writable");
        fs::write(at("genesis"), "old").expect("writable");
        fs::create_dir(at("authority-0")).expect("made");
        if *stray != "devnet.json" {
            describe(home.path(), &["authority-0", "provider-3", "provider-x", "Gateway"]);
        }
        if *is_directory {
            fs::create_dir(at(stray)).expect("made");
        } else {
            fs::write(at(stray), "mine").expect("writable");
        }
        let output = fresh(home.path());
        assert_eq!(output.status.code(), Some(2), "{stray}");
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(error.contains(stray), "it names what is in the way: {error}");
        for kept in ["lock", "genesis", "authority-0", stray] {
            assert!(at(kept).exists(), "{kept} beside {stray}");
        }
    }
}

#[test]
fn a_users_own_directory_with_the_name_of_a_member_stays_as_it_is() {
    for name in ["gateway", "provider-1"] {
        let home = tempfile::tempdir().expect("a directory");
        let mine = home.path().join(name).join("main.rs");
        fs::create_dir(home.path().join(name)).expect("made");
        fs::write(&mine, "mine").expect("writable");
        describe(home.path(), &["gateway", "provider-1"]);
        let output = fresh(home.path());
        assert_eq!(output.status.code(), Some(2), "{name}");
        assert!(String::from_utf8_lossy(&output.stderr).contains(name), "it names what is in the way");
        assert_eq!(fs::read(&mine).expect("still there"), b"mine");
    }
}

/// The files of members and of a network that runs elsewhere have the same names as those of a local network.
#[test]
fn a_directory_that_describes_no_local_network_stays_as_it_is() {
    let user: &[&str] = &["network.toml", "user.key"];
    let member: &[&str] = &["network.toml", "genesis", "provider-1/config.toml", "provider-1/node.key"];
    let other: &[&str] = &["network.toml", "user.key", "devnet.json"];
    for files in [user, member, other] {
        let home = tempfile::tempdir().expect("a directory");
        for file in files {
            let path = home.path().join(file);
            fs::create_dir_all(path.parent().expect("it has one")).expect("made");
            fs::write(path, "{}").expect("writable");
        }
        let output = fresh(home.path());
        let error = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{error}");
        assert!(error.contains("devnet.json"), "it names the file that would show a network: {error}");
        for file in files {
            assert_eq!(fs::read(home.path().join(file)).expect("still there"), b"{}", "{file}");
        }
        assert!(!home.path().join("lock").exists(), "nothing is added either");
    }
}

#[test]
fn a_network_with_a_member_that_runs_stays_as_it_is() {
    for (member, lock) in
        [("authority-0", "lock"), ("provider-1", "provider.lock"), ("gateway", "gateway.lock")]
    {
        let home = tempfile::tempdir().expect("a directory");
        let at = home.path().join(member);
        fs::create_dir(&at).expect("made");
        fs::write(at.join("config.toml"), "").expect("writable");
        describe(home.path(), &[member]);
        let held = File::create(at.join(lock)).expect("writable");
        held.try_lock().expect("nobody else has it");
        let output = fresh(home.path());
        let error = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(5), "{error}");
        assert!(error.contains(&format!("{member}/{lock}")), "it names the lock: {error}");
        assert!(at.join("config.toml").exists() && home.path().join("devnet.json").exists(), "{member}");
    }
}
