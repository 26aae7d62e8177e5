//! A command that is interrupted ends, and leaves no files behind.

mod common;

use common::{Net, POSYNC, eventually, runs, signal};
use std::{
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

fn start(net: &Net, arguments: &[&str], input: Stdio) -> Child {
    let mut command = Command::new(POSYNC);
    command.arg("--json").arg("--net").arg(&net.directory).args(arguments);
    command.stdin(input).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().expect("the program starts")
}

/// The directory that the command's runtime locked, even if it was removed.
fn scratch(pid: u32) -> Option<PathBuf> {
    let open = fs::read_dir(format!("/proc/{pid}/fd")).ok()?;
    let links = open.filter_map(|entry| fs::read_link(entry.ok()?.path()).ok());
    links
        .map(|link| PathBuf::from(link.to_string_lossy().trim_end_matches(" (deleted)")))
        .find_map(|link| link.ends_with(".hold").then(|| link.parent().map(Path::to_path_buf)).flatten())
}

fn names(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).expect("readable");
    entries.map(|entry| entry.expect("an entry").file_name().into_string().expect("text")).collect()
}

#[test]
fn an_interrupted_command_ends_and_leaves_nothing() {
    let mut net = Net::start();
    let home = tempfile::tempdir().expect("a directory");

    // A running command leaves no directory, however it ends.
    let mut watch = start(&net, &["watch"], Stdio::null());
    let mut locked = None;
    eventually(30, "the runtime is up", || {
        locked = scratch(watch.id());
        locked.as_ref().is_some_and(|directory| !directory.exists())
    });
    watch.kill().expect("it was started here");
    watch.wait().expect("it was started here");
    let locked = locked.expect("a directory");
    assert!(
        locked.file_name().is_some_and(|name| name.to_string_lossy().starts_with("posync-")),
        "{locked:?}"
    );
    assert!(!locked.exists(), "{locked:?}");

    // A source that yields no bytes: the command waits for it, and can still be interrupted.
    let mut put = start(&net, &["put", "-", "never", "--length", "9"], Stdio::piped());
    eventually(30, "the runtime is up", || scratch(put.id()).is_some());
    signal("INT", put.id());
    eventually(10, "the put ends", || !runs(put.id()));
    assert_eq!(put.wait().expect("it was started here").code(), Some(130));

    // A gateway that does not answer: the half-written file is removed with the command.
    signal("STOP", net.pid("gateway"));
    let target = home.path().join("target");
    fs::write(&target, "before").expect("writable");
    for (name, code) in [("INT", 130), ("TERM", 143), ("HUP", 143)] {
        let get = start(&net, &["get", "anything", target.to_str().expect("text")], Stdio::null());
        eventually(30, "it has begun to write", || {
            names(home.path()).len() == 2 && scratch(get.id()).is_some()
        });
        signal(name, get.id());
        eventually(10, "the get ends", || !runs(get.id()));
        let ended = get.wait_with_output().expect("it was started here");
        assert_eq!(ended.status.code(), Some(code));
        assert!(String::from_utf8_lossy(&ended.stderr).contains("interrupted"), "{ended:?}");
        assert_eq!(names(home.path()), ["target"]);
        assert_eq!(fs::read(&target).expect("there"), b"before");
    }
    signal("CONT", net.pid("gateway"));
    net.down();
}
