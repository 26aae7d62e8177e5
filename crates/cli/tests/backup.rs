//! A lost catalogue comes back from its backup, and the files with it.

mod common;

use common::{Net, file};
use std::{fs, os::unix::fs::PermissionsExt as _};

#[test]
fn files_are_read_back_after_the_gateways_catalogue_was_destroyed() {
    let mut net = Net::start();
    let home = tempfile::tempdir().expect("a temporary directory");
    let (first, second) = (file(home.path(), "first", 3_000_000, 1), file(home.path(), "second", 5_000, 2));
    net.round_trip(&first, "first");
    net.round_trip(&second, "second");
    let backup = home.path().join("backup");
    let (_, refused) = net.refuse(&["gateway", "restore", second.to_str().expect("text")]);
    assert!(refused.to_string().contains("the gateway runs"), "{refused}");
    let saved = net.ask(&["gateway", "backup", backup.to_str().expect("text")]);
    assert_eq!(saved["files"], 2, "while it runs: {saved}");
    let mode = fs::metadata(&backup).expect("it is there").permissions().mode();
    assert_eq!(mode & 0o777, 0o600, "who has it reads all files");
    let (_, refused) = net.refuse(&["gateway", "backup", backup.to_str().expect("text")]);
    assert!(refused.to_string().contains("there is a file of that name"), "{refused}");
    net.down();
    let (_, refused) = net.refuse(&["gateway", "restore", backup.to_str().expect("text")]);
    assert!(refused.to_string().contains("not empty"), "{refused}");
    let storage = net.directory.join("gateway").join("storage");
    fs::remove_dir_all(&storage).expect("it is there");
    let restored = net.ask(&["gateway", "restore", backup.to_str().expect("text")]);
    assert_eq!(restored["files"], 2, "{restored}");
    net.up();
    net.reads(&second, "second");
    net.reads(&first, "first");
}
