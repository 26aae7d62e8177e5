//! `--fresh` removes the files of a network and no others.

mod common;

use common::POSYNC;
use std::{fs, process::Command};

/// Entries for which `--fresh` must refuse to remove anything; true for a directory.
const STRAYS: &[(&str, bool)] = &[
    ("notes.txt", false),
    ("provider-3", false),
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
        if *is_directory {
            fs::create_dir(at(stray)).expect("made");
        } else {
            fs::write(at(stray), "mine").expect("writable");
        }
        let output = Command::new(POSYNC)
            .args(["--json", "devnet", "--fresh", "--dir"])
            .arg(home.path())
            .output()
            .expect("it starts");
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
        let fresh = Command::new(POSYNC).args(["devnet", "--fresh", "--dir"]).arg(home.path()).output();
        let fresh = fresh.expect("it starts");
        assert_eq!(fresh.status.code(), Some(2), "{name}");
        assert!(String::from_utf8_lossy(&fresh.stderr).contains(name), "it names what is in the way");
        assert_eq!(fs::read(&mine).expect("still there"), b"mine");
    }
}
