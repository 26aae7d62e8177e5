//! A volume that is not mounted is waited for: nothing on it counts as lost, and nothing is written in its place.

mod common;

use common::{Net, POSYNC, file, run_role};
use std::{fs, process::Command};

#[test]
fn a_member_without_its_volume_ends_writes_nothing_and_goes_on_when_it_is_mounted() {
    let mut net = Net::start();
    let home = tempfile::tempdir().expect("a directory");
    let source = file(home.path(), "source", 3_000_000, 31);
    net.round_trip(&source, "kept");
    net.down();
    for member in ["provider-0", "provider-1", "provider-2", "gateway"] {
        let directory = net.directory.join(member);
        let (volume, away) = (directory.join("storage"), home.path().join(member));
        fs::rename(&volume, &away).expect("unmounted");
        // The mount point of a volume that is not mounted.
        fs::create_dir(&volume).expect("made");
        let (code, said) = run_role(&directory);
        assert_eq!(code, Some(8), "{said}");
        assert!(said.contains("not mounted") && said.contains("--take-this-volume"), "{said}");
        assert_eq!(fs::read_dir(&volume).expect("there").count(), 0, "nothing is written there");
        let doctor = Command::new(POSYNC).args(["--json", "doctor", "--dir"]).arg(&directory).output();
        let report = String::from_utf8_lossy(&doctor.expect("it runs").stdout).into_owned();
        assert!(report.contains("is not this member's volume"), "{report}");
        fs::remove_dir(&volume).expect("empty");
        fs::rename(&away, &volume).expect("mounted");
    }
    net.up();
    net.reads(&source, "kept");
    net.down();
}

#[test]
fn a_refused_restore_marks_no_mount_point_as_the_gateways_volume() {
    let mut net = Net::start();
    net.down();
    let home = tempfile::tempdir().expect("a directory");
    let gateway = net.directory.join("gateway");
    let (volume, away) = (gateway.join("storage"), home.path().join("away"));
    fs::rename(&volume, &away).expect("unmounted");
    fs::create_dir(&volume).expect("the mount point");
    let junk = file(home.path(), "junk", 5_000, 7);
    let (_, error) = net.refuse(&["gateway", "restore", junk.to_str().expect("text")]);
    assert!(error.to_string().contains("no whole backup"), "{error}");
    assert_eq!(fs::read_dir(&volume).expect("there").count(), 0, "nothing is written there");
    let (code, said) = run_role(&gateway);
    assert_eq!(code, Some(8), "it waits for its volume: {said}");
    fs::remove_dir(&volume).expect("empty");
    fs::rename(&away, &volume).expect("mounted");
}
