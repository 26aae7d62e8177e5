//! Volumes that are really full, or go away: small ones, mounted for these tests alone, under members of a real network.

mod common;

use common::{Net, POSYNC, eventually, file, posync, signal, text};
use posync_alert::test_utils::{Posted, listen};
use posync_client::volume::free;
use posync_provider::packs::extents;
use rustix::fs::{Advice, FallocateFlags, fadvise, fallocate};
use serde_json::Value;
use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, File},
    path::{Path, PathBuf},
    process::Command,
    sync::mpsc::Receiver,
    time::{Duration, Instant},
};

/// Set in the process that may mount.
const INSIDE: &str = "POSYNC_TEST_MAY_MOUNT";
/// Time in which puts fill a volume, or come to it again: a gateway passes a full provider over for a minute.
const PUTS_WITHIN: Duration = Duration::from_secs(600);
/// Time for an alert and its end: a member looks every 30 s.
const PATIENCE: Duration = Duration::from_secs(120);
/// Bytes of each small volume. A provider leaves 16 MiB of such a one alone.
const VOLUME: u64 = 96 << 20;

/// A process that may mount volumes which nobody else sees, of a user who owns nothing else.
fn that_may_mount() -> Command {
    let mut command = Command::new("unshare");
    command.args(["--user", "--map-root-user", "--mount"]);
    command
}

/// Returns true if this machine lets a user mount volumes in a namespace of its own.
fn may_mount(at: &Path) -> bool {
    let mut probe = that_may_mount();
    let probe = probe.args(["mount", "-t", "tmpfs", "-o", "size=1m", "none"]).arg(at).output();
    probe.is_ok_and(|probe| probe.status.success())
}

/// Puts a member's directory on a volume of its own.
fn onto_a_volume(directory: &Path) {
    let network = directory.parent().expect("that of its network");
    let aside = network.with_file_name(directory.file_name().expect("that of a member"));
    fs::rename(directory, &aside).expect("it is there");
    fs::create_dir(directory).expect("a place for it");
    let size = format!("size={VOLUME},mode=0700");
    let run = |program: &str, arguments: &[&Path]| {
        let status = Command::new(program).args(arguments).status().expect("it starts");
        assert!(status.success(), "{program} {arguments:?}");
    };
    let mount = ["-t", "tmpfs", "-o", &size, "none"].map(Path::new);
    run("mount", &[&mount[..], &[directory]].concat());
    run("cp", &[Path::new("-a"), &aside.join("."), directory]);
}

/// Takes all room of a volume but so many bytes, until the file is removed.
fn fill(directory: &Path, but: u64) -> PathBuf {
    let path = directory.join("ballast");
    let room = free(directory).expect("a volume").checked_sub(but).expect("there is room");
    let ballast = File::create(&path).expect("writable");
    fallocate(&ballast, FallocateFlags::empty(), 0, room).expect("there is room");
    path
}

/// Collects received alerts in `seen` until one of a node is in this state.
fn wait(net: &Net, got: &Receiver<Posted>, seen: &mut Vec<Value>, (node, alert, state): (&str, &str, &str)) {
    let start = Instant::now();
    let is = |json: &Value| json["node"] == node && json["alert"] == alert && json["state"] == state;
    while !seen.iter().any(is) {
        let left = PATIENCE.checked_sub(start.elapsed()).unwrap_or_default();
        let posted = got.recv_timeout(left);
        let posted =
            posted.unwrap_or_else(|_| panic!("{alert} of {node} is not {state}: {seen:?}{}", net.logs()));
        seen.push(posted.json);
    }
}

/// The account of a member.
fn account(net: &Net, name: &str) -> String {
    let description = net.description();
    let mut nodes = description["nodes"].as_array().expect("a list").iter();
    text(&nodes.find(|node| node["name"] == name).expect("a member")["account"]).to_owned()
}

/// Puts one file after the other until `done`; their names and sources.
fn put_until(net: &Net, kind: u64, mut done: impl FnMut() -> bool) -> Vec<(String, PathBuf)> {
    let home = net.directory.with_file_name("sources");
    fs::create_dir_all(&home).expect("writable");
    let (mut put, start) = (vec![], Instant::now());
    while !done() {
        assert!(start.elapsed() < PUTS_WITHIN, "after {} puts{}", put.len(), net.logs());
        let name = format!("{kind}-{}", put.len());
        let source = file(&home, &name, 4_000_000, kind << 32 | put.len() as u64);
        net.ask(&["put", source.to_str().expect("text"), &name]);
        put.push((name, source));
    }
    put
}

/// Runs a test of this name where it may mount volumes.
fn where_it_may_mount(name: &str, test: fn()) {
    if std::env::var_os(INSIDE).is_some() {
        return test();
    }
    let home = tempfile::tempdir().expect("a directory");
    if !may_mount(home.path()) {
        eprintln!("NOT TESTED: this machine lets no user mount a volume (`unshare --user --mount` fails)");
        return;
    }
    let mut inside = that_may_mount();
    inside.arg(std::env::current_exe().expect("this test")).args(["--exact", "--nocapture", name]);
    let status = inside.env(INSIDE, "1").env("TMPDIR", home.path()).status().expect("it starts");
    assert!(status.success(), "{status}");
}

/// Bytes of a disk on which no role can begin.
const TINY: &str = "size=10m,mode=0700";

#[test]
fn a_disk_of_ten_megabytes_is_refused_by_init_join_and_a_ceremony_before_anything_is_made_there() {
    let name = "a_disk_of_ten_megabytes_is_refused_by_init_join_and_a_ceremony_before_anything_is_made_there";
    where_it_may_mount(name, on_a_tiny_disk);
}

fn on_a_tiny_disk() {
    let net = Net::start_with(&["--providers", "8"]);
    let home = tempfile::tempdir().expect("a directory");
    let disk = home.path().join("disk");
    fs::create_dir(&disk).expect("made");
    let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", TINY, "none"]).arg(&disk).status();
    assert!(mounted.expect("it starts").success());
    let at = |name: &str| disk.join(name).display().to_string();
    let of_net = net.directory.display().to_string();
    let refused = |arguments: &[&str]| {
        let output = posync(&[&["--net", &of_net], arguments].concat());
        let code = output.status.code().expect("it ends by itself");
        (code, String::from_utf8_lossy(&output.stderr).into_owned())
    };
    for role in ["authority", "provider", "gateway", "node"] {
        let (code, said) = refused(&["init", role, "--dir", &at(role)]);
        assert_eq!(code, 8, "{said}");
        for part in
            [&format!("the disk of {} is too small for a", at(role)), "less than 32 MiB", "larger disk"]
        {
            assert!(said.contains(part), "{part}: {said}");
        }
        assert!(!disk.join(role).join("node.key").exists(), "no key is made");
    }
    let listen = format!("listen=127.0.0.1:{}", common::port());
    let settings = ["operator=ann", "region=north", "private=true", &listen, "capacity=1 GiB"];
    let settings: Vec<&str> = settings.iter().flat_map(|setting| ["--set", setting]).collect();
    let joining = at("joining");
    let (code, said) =
        refused(&[&["join", "provider", "--dir", &joining, "--patience", "1"], &settings[..]].concat());
    assert_eq!(code, 8, "{said}");
    for part in ["is too small for a provider", "less than 32 MiB", "larger disk"] {
        assert!(said.contains(part), "{part}: {said}");
    }
    assert!(!disk.join("joining/node.key").exists(), "no key is made, and no account to pay");
    let providers = net.ask(&["providers"]);
    assert_eq!(providers.as_array().map(Vec::len), Some(8), "{providers}");

    // The directory of an authority was made on another disk, and then moved to this one.
    let mut draft = vec!["ceremony", "draft", "--parameters", "local", "--cards"];
    let cards: Vec<String> = (0..4).map(|index| card(home.path(), index)).collect();
    draft.extend(cards.iter().map(String::as_str));
    let draft = Command::new(POSYNC).args(&draft).output().expect("it starts");
    assert!(draft.status.success(), "{}", String::from_utf8_lossy(&draft.stderr));
    let path = home.path().join("draft");
    fs::write(&path, draft.stdout).expect("writable");
    must("cp", &[Path::new("-a"), &home.path().join("0"), &disk.join("0")]);
    let output = posync(&["ceremony", "--dir", &at("0"), path.to_str().expect("text")]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(8), "{said}");
    for part in [&format!("the disk of {} is too small for an authority", at("0")), "less than 32 MiB"] {
        assert!(said.contains(part), "{part}: {said}");
    }
    assert!(!disk.join("0/secrets").exists(), "nothing is dealt");
}

/// Makes the directory of an authority; returns the path of its card.
fn card(home: &Path, index: usize) -> String {
    let directory = home.join(index.to_string());
    let [listen, service] =
        ["listen", "service_listen"].map(|key| format!("{key}=127.0.0.1:{}", common::port()));
    let at = directory.to_str().expect("text");
    let mut arguments = vec!["init", "authority", "--dir", at];
    for setting in ["private=true", &listen, &service] {
        arguments.extend(["--set", setting]);
    }
    let made = posync(&arguments);
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    directory.join("card.json").to_str().expect("text").to_owned()
}

#[test]
fn a_full_volume_costs_nothing_that_was_acknowledged_is_told_and_ends_with_room() {
    let name = "a_full_volume_costs_nothing_that_was_acknowledged_is_told_and_ends_with_room";
    where_it_may_mount(name, on_small_volumes);
}

#[test]
fn a_volume_that_is_unmounted_under_a_running_provider_takes_nothing_and_loses_nothing() {
    let name = "a_volume_that_is_unmounted_under_a_running_provider_takes_nothing_and_loses_nothing";
    where_it_may_mount(name, unmounted_under_a_provider);
}

#[test]
fn a_gateway_on_a_full_volume_reads_and_removes_refuses_new_files_and_takes_them_again_with_room() {
    let name =
        "a_gateway_on_a_full_volume_reads_and_removes_refuses_new_files_and_takes_them_again_with_room";
    where_it_may_mount(name, gateway_on_a_small_volume);
}

/// Runs a program of the system that must succeed.
fn must(program: &str, arguments: &[&Path]) {
    let status = Command::new(program).args(arguments).status().expect("it starts");
    assert!(status.success(), "{program} {arguments:?}");
}

/// The files below a directory.
fn files(directory: &Path) -> Vec<PathBuf> {
    let below = |path: PathBuf| if path.is_dir() { files(&path) } else { vec![path] };
    names(directory).into_iter().flat_map(below).collect()
}

/// The files below a directory, with their bytes.
fn tree(directory: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let read = |path: PathBuf| (path.clone(), fs::read(path).expect("readable"));
    files(directory).into_iter().map(read).collect()
}

/// Names of the files in a directory.
fn names(directory: &Path) -> Vec<PathBuf> {
    fs::read_dir(directory).expect("a directory").map(|entry| entry.expect("readable").path()).collect()
}

fn unmounted_under_a_provider() {
    let (url, got) = listen(vec![]);
    let mut net = Net::start_with(&["--alert-url", &url]);
    net.down();
    // A volume of its own, seen at the place of the provider's storage: what is unmounted there stays on it.
    let storage = net.directory.join("provider-0").join("storage");
    let volume = net.directory.with_file_name("volume");
    fs::rename(&storage, &volume).expect("it is there");
    fs::create_dir(&storage).expect("the mount point");
    // A copy of the data as it was before the last start.
    let copy = net.directory.with_file_name("copy");
    must("cp", &[Path::new("-a"), &volume, &copy]);
    let mount = || must("mount", &[Path::new("--bind"), &volume, &storage]);
    mount();
    net.up();
    let account = account(&net, "provider-0");
    let before = put_until(&net, 1, || extents(&volume).is_ok_and(|extents| !extents.is_empty()));
    let held = extents(&volume).expect("its packs").len();

    must("umount", &[Path::new("--lazy"), &storage]);
    assert_eq!(names(&storage), [] as [PathBuf; 0], "its name leads to the mount point now");
    let mut seen = vec![];
    wait(&net, &got, &mut seen, (&account, "volume_away", "raised"));
    let mut rounds = 0;
    let during = put_until(&net, 2, || {
        rounds += 1;
        rounds > 4
    });
    before.iter().chain(&during).for_each(|(name, source)| net.reads(source, name));
    assert_eq!(names(&storage), [] as [PathBuf; 0], "nothing is written below the volume");
    assert_eq!(extents(&volume).expect("its packs").len(), held, "no shard is taken");

    // An older copy of its data below the mount point is not taken for it.
    must("cp", &[Path::new("-a"), &copy.join("."), &storage]);
    let below = tree(&storage);
    let mut rounds = 0;
    let beside = put_until(&net, 4, || {
        rounds += 1;
        rounds > 3
    });
    assert!(tree(&storage) == below, "nothing is written to the copy");

    // It does not start while the volume is away, and goes on when it is back.
    signal("KILL", net.pid("provider-0"));
    wait(&net, &got, &mut seen, (&account, "offline", "raised"));
    assert!(tree(&storage) == below, "nor by a start");
    mount();
    let after = put_until(&net, 3, || extents(&volume).is_ok_and(|now| now.len() > held));
    let all = before.iter().chain(&during).chain(&beside).chain(&after);
    all.for_each(|(name, source)| net.reads(source, name));
    seen.extend(got.try_iter().map(|posted| posted.json));
    let lost = ["damaged", "reads_missing", "reads_fail"];
    let lost = seen.iter().find(|json| lost.iter().any(|alert| json["alert"] == *alert));
    assert_eq!(lost, None, "nothing that was acknowledged is lost");
    net.down();
    must("umount", &[&storage]);
}

/// Set in the process that may have a block device of its own.
const WITH_DEVICE: &str = "POSYNC_TEST_MAY_HAVE_A_DEVICE";
/// Sets the bytes of a loop device that can be read and written; 0: all. Its image keeps all bytes.
const LIMIT: &str = "import fcntl,os,struct,sys
device = os.open(sys.argv[1], os.O_RDONLY)
status = bytearray(232)
fcntl.ioctl(device, 0x4C05, status)
struct.pack_into('Q', status, 32, int(sys.argv[2]))
fcntl.ioctl(device, 0x4C04, bytes(status))";

/// A block device of its own, over a file; dropping it removes it.
struct Device(PathBuf);

impl Device {
    fn over(image: &Path, bytes: u64) -> Option<Self> {
        File::create(image).and_then(|image| image.set_len(bytes)).expect("writable");
        let output = Command::new("losetup").args(["--find", "--show"]).arg(image).output().ok()?;
        let name = String::from_utf8(output.stdout).expect("text");
        output.status.success().then(|| Self(name.trim().into()))
    }

    fn limit(&self, bytes: u64) {
        let bytes = bytes.to_string();
        must("python3", &[Path::new("-c"), Path::new(LIMIT), &self.0, Path::new(&bytes)]);
    }
}

impl Drop for Device {
    fn drop(&mut self) {
        let _ = Command::new("losetup").arg("--detach").arg(&self.0).status();
    }
}

#[test]
fn a_device_that_fails_under_a_running_provider_loses_nothing_and_goes_on_when_it_answers_again() {
    let name = "a_device_that_fails_under_a_running_provider_loses_nothing_and_goes_on_when_it_answers_again";
    if std::env::var_os(WITH_DEVICE).is_some() {
        return failing_under_a_provider();
    }
    let home = tempfile::tempdir().expect("a directory");
    let may_mount = Command::new("unshare").args(["--mount", "true"]).status();
    let device = Device::over(&home.path().join("probe"), 1 << 20);
    if device.is_none() || !may_mount.is_ok_and(|status| status.success()) {
        eprintln!("NOT TESTED: this machine lets this user have no block device (`losetup`)");
        return;
    }
    drop(device);
    let mut inside = Command::new("unshare");
    inside.arg("--mount").arg(std::env::current_exe().expect("this test"));
    inside.args(["--exact", "--nocapture", name]).env(WITH_DEVICE, "1").env("TMPDIR", home.path());
    let status = inside.status().expect("it starts");
    assert!(status.success(), "{status}");
}

/// Drops the bytes of all packs from memory.
fn forget(storage: &Path) {
    let packs: BTreeSet<PathBuf> =
        extents(storage).expect("its packs").into_iter().map(|extent| extent.path).collect();
    for path in packs {
        let file = File::open(path).expect("a pack");
        file.sync_all().expect("durable");
        fadvise(&file, 0, None, Advice::DontNeed).expect("a file");
    }
}

fn failing_under_a_provider() {
    let (url, got) = listen(vec![]);
    let mut net = Net::start_with(&["--alert-url", &url]);
    net.down();
    let storage = net.directory.join("provider-0").join("storage");
    let (image, aside): (PathBuf, PathBuf) =
        ["image", "aside"].map(|name| net.directory.with_file_name(name)).into();
    let device = Device::over(&image, 512 << 20).expect("there was one");
    must("mkfs.ext4", &[Path::new("-q"), &device.0]);
    fs::rename(&storage, &aside).expect("it is there");
    fs::create_dir(&storage).expect("the mount point");
    let mount = || must("mount", &[Path::new("-o"), Path::new("errors=continue"), &device.0, &storage]);
    mount();
    must("cp", &[Path::new("-a"), &aside.join("."), &storage]);
    net.up();
    let account = account(&net, "provider-0");
    let mut stored = put_until(&net, 1, || extents(&storage).is_ok_and(|extents| extents.len() > 2));
    let held = extents(&storage).expect("its packs").len();

    forget(&storage);
    device.limit(4096);
    let mut seen = vec![];
    let is_noticed = |json: &Value| {
        json["node"] == account.as_str()
            && (json["alert"] == "volume_away" || json["alert"] == "offline")
            && json["state"] == "raised"
    };
    stored.extend(put_until(&net, 2, || {
        seen.extend(got.try_iter().map(|posted| posted.json));
        seen.iter().any(is_noticed)
    }));
    stored.iter().for_each(|(name, source)| net.reads(source, name));

    // The file system gave up its journal: it is mounted anew once no process has it open.
    device.limit(0);
    let umount = || Command::new("umount").arg(&storage).status().is_ok_and(|status| status.success());
    if let pid @ 1.. = net.pid("provider-0") {
        signal("KILL", pid);
    }
    eventually(90, "no process has it open", umount);
    mount();
    stored.extend(put_until(&net, 3, || extents(&storage).is_ok_and(|now| now.len() > held)));
    stored.iter().for_each(|(name, source)| net.reads(source, name));
    seen.extend(got.try_iter().map(|posted| posted.json));
    let lost = ["damaged", "reads_missing", "reads_fail"];
    let lost = seen.iter().find(|json| lost.iter().any(|alert| json["alert"] == *alert));
    assert_eq!(lost, None, "nothing that was acknowledged is lost");
    net.down();
    must("umount", &[&storage]);
}

fn gateway_on_a_small_volume() {
    let (url, got) = listen(vec![]);
    let mut net = Net::start_with(&["--alert-url", &url]);
    net.down();
    let gateway = net.directory.join("gateway");
    onto_a_volume(&gateway);
    net.up();
    let (account, pid) = (account(&net, "gateway"), net.pid("gateway"));
    let home = net.directory.with_file_name("sources");
    fs::create_dir_all(&home).expect("writable");
    let sources = ["kept", "removed", "new"].map(|name| (name, file(&home, name, 300_000, 7)));
    let [kept, removed, new] =
        sources.each_ref().map(|(name, source)| (source.to_str().expect("text"), *name));
    for (source, name) in [kept, removed] {
        net.ask(&["put", source, name]);
    }

    // Below its reserve: what grows the catalogue waits, all else goes on.
    let ballast = fill(&gateway, 24 << 20);
    let (exit, answer) = net.refuse(&["put", new.0, new.1]);
    let (why, next) = (text(&answer["error"]["why"]), text(&answer["error"]["next"]));
    assert!(exit == 5 && why.contains("takes no new files") && next.contains("make room"), "{answer}");
    let mut seen = vec![];
    wait(&net, &got, &mut seen, (&account, "volume_full", "raised"));
    net.reads(&sources[0].1, "kept");
    net.ask(&["rm", "removed"]);
    let left = free(&gateway).expect("a volume");
    assert!(left > 16 << 20, "the reserve is there for them: {left}");
    assert_eq!(net.pid("gateway"), pid, "it did not end");

    fs::remove_file(ballast).expect("it is there");
    net.ask(&["put", new.0, new.1]);
    net.reads(&sources[2].1, "new");
    wait(&net, &got, &mut seen, (&account, "volume_full", "cleared"));
    assert_eq!(net.pid("gateway"), pid, "it went on by itself");

    // Without any room the first write ends it, as ever, and nothing is lost.
    let ballast = fill(&gateway, 0);
    net.run(&["rm", "kept"]);
    fs::remove_file(ballast).expect("it is there");
    eventually(90, "it runs again with room", || net.run(&["ls"]).status.success());
    net.reads(&sources[2].1, "new");
    net.down();
}

fn on_small_volumes() {
    let (url, got) = listen(vec![]);
    let mut net = Net::start_with(&["--alert-url", &url]);
    net.down();
    let at = |name: &str| net.directory.join(name);
    let (authority, gateway, provider) = (at("authority-3"), at("gateway"), at("provider-0"));
    [&authority, &gateway, &provider].into_iter().for_each(|directory| onto_a_volume(directory));
    net.up();
    let mut seen = vec![];
    {
        let ballast = [fill(&authority, 24 << 20), fill(&gateway, 24 << 20)];
        let accounts = ["authority-3", "gateway"].map(|name| account(&net, name));
        for state in ["raised", "cleared"] {
            for account in &accounts {
                wait(&net, &got, &mut seen, (account, "low_space", "raised"));
                wait(&net, &got, &mut seen, (account, "volume_full", state));
            }
            ballast.iter().for_each(|path| drop(fs::remove_file(path)));
        }
    }
    let full = account(&net, "provider-0");
    let ballast = fill(&provider, 22 << 20);
    let mut posted = vec![];
    let is = |json: &Value, state: &str| {
        json["node"] == full.as_str() && json["alert"] == "volume_full" && json["state"] == state
    };
    let before = put_until(&net, 1, || {
        posted.extend(got.try_iter().map(|posted| posted.json));
        posted.iter().any(|json| is(json, "raised"))
    });
    assert!(free(&provider).expect("a volume") >= 8 << 20, "it stopped before the end");

    // A crash of a member whose volume is full.
    let pid = net.pid("provider-0");
    signal("KILL", pid);
    eventually(90, "it runs again on a full volume", || ![0, pid].contains(&net.pid("provider-0")));
    before.iter().for_each(|(name, source)| net.reads(source, name));

    let kept = extents(&provider.join("storage")).expect("its packs").len();
    fs::remove_file(ballast).expect("it is there");
    let after = put_until(&net, 2, || extents(&provider.join("storage")).is_ok_and(|now| now.len() > kept));
    seen.extend(posted);
    // Its alert ended with its process or with the first shard that it took.
    before.iter().chain(&after).for_each(|(name, source)| net.reads(source, name));
    seen.extend(got.try_iter().map(|posted| posted.json));
    let lost = ["damaged", "reads_missing", "reads_fail"];
    let lost = seen.iter().find(|json| lost.iter().any(|alert| json["alert"] == *alert));
    assert_eq!(lost, None, "nothing that was acknowledged is lost");
    net.down();
}
