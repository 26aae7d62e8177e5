//! The checks of the machine: descriptors, disk, address, and its clock against certified blocks.

use super::{Check, door::Door};
use crate::{
    failure::{Exit, Failure, Outcome},
    keys,
    network::Role,
    role::{settings::Settings, start},
};
use posync_client::{
    address::Address,
    blob_header::partitions,
    descriptors::{MEMBER, require},
    volume,
};
use std::{
    fs,
    io::{self, Seek as _, SeekFrom, Write as _},
    net::{IpAddr, ToSocketAddrs as _},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

/// Milliseconds off from which a clock needs a look: half of what is an error.
const OFF_WARN_MS: i64 = 5_000;
/// Milliseconds off from which a clock is wrong; nodes report the same distance.
const OFF_FAIL_MS: i64 = 10_000;
/// Most writes of the measurement of a disk.
const WRITES: u32 = 32;
/// Time after which that measurement ends with what it has.
const WRITING: Duration = Duration::from_secs(2);
/// Bytes of each write.
const WRITE_BYTES: usize = 4 << 10;
/// Durable writes a second below which a disk is slow: each acknowledged shard and voucher waits for one.
const SLOW: f64 = 20.0;
/// Free bytes below which a role ends or takes no part.
const FULL: u64 = 32 << 20;
/// Free bytes below which a role that promised no room soon needs more.
const LOW: u64 = 1 << 30;
/// Advice for a volume on which no role can begin.
const LARGER: &str = "use a larger disk, and name a directory on it with --dir, or `volume` for a provider";
/// Most files that are counted on a volume.
const FILES_MAX: usize = 1 << 20;

/// The checks that need no network.
pub(super) fn checks(settings: &Settings) -> Vec<Check> {
    vec![descriptors(), disk(settings), address(settings)]
}

fn descriptors() -> Check {
    match require(MEMBER) {
        Ok(limit) => {
            Check::ok("descriptors", format!("this process may open {limit} files, a role needs {MEMBER}"))
        }
        Err(few) => Check::fail(
            "descriptors",
            format!("this process may open {} files, a role needs {}", few.limit, few.needed),
            "every connection and every file takes one",
            format!("raise the limit: `ulimit -n {MEMBER}`, or LimitNOFILE={MEMBER} in the service's unit"),
        ),
    }
}

/// The directory in which the role stores, and the bytes that it promises to have room for. Where `storage` of another
/// role than a provider is a volume of its own, it is the fuller one.
fn volume_of(settings: &Settings) -> (PathBuf, Option<u64>) {
    if settings.role != Role::Provider {
        let both = [settings.directory.clone(), settings.directory.join("storage")];
        let fuller = both.into_iter().min_by_key(|path| volume::free(path).unwrap_or(u64::MAX));
        return (fuller.unwrap_or_else(|| settings.directory.clone()), None);
    }
    let path = settings.file("volume").unwrap_or_else(|_| settings.directory.clone());
    let promised = settings.promised().unwrap_or_default();
    let is_first = path == settings.directory.join("storage") && !path.exists();
    (if is_first { settings.directory.clone() } else { path }, Some(promised))
}

fn disk(settings: &Settings) -> Check {
    let (path, promised) = volume_of(settings);
    let at = path.display();
    if !path.is_dir() {
        let next = "mount the volume, or set `volume` in config.toml to the directory of the shards";
        return Check::fail("disk", format!("{at} is no directory"), "the volume is not there", next);
    }
    if let Some(missing) = unmounted(settings) {
        return missing;
    }
    let rate = match fsyncs(&path) {
        Ok(rate) => rate,
        Err(error) => {
            let next =
                "check that the volume is mounted read-write, that this user may write there, and its space";
            return Check::fail("disk", format!("{at} cannot be written"), error, next);
        }
    };
    let free = match volume::free(&path) {
        Ok(free) => free,
        Err(error) => {
            return Check::fail("disk", format!("{at} does not say its space"), error, "check the mount");
        }
    };
    let held = if promised.is_some() { held(&path) } else { 0 };
    judge_disk(&path, rate, free, held, promised)
}

/// The check of a member whose volume lacks the mark that it left there.
fn unmounted(settings: &Settings) -> Option<Check> {
    let (volume, partition) = match settings.role {
        Role::Provider => (settings.file("volume").ok()?, start::PROVIDER),
        Role::Gateway => (settings.directory.join("storage"), start::GATEWAY),
        Role::Authority | Role::Node => return None,
    };
    let account = keys::account(&settings.key().ok()?);
    let error = volume::check(&settings.directory, &volume, &account, partition).err()?;
    let next = "mount the volume; `posync start` says what to do if it is lost for good";
    Some(Check::fail("disk", format!("{} is not this member's volume", volume.display()), error, next))
}

/// Judges a disk by its durable writes a second, its free bytes, those that the role holds already, and those
/// that it promises.
fn judge_disk(path: &Path, rate: f64, free: u64, held: u64, promised: Option<u64>) -> Check {
    let room = free.saturating_add(held);
    let what = format!("{}: {rate:.0} durable writes a second, {} free", path.display(), size(free));
    if let Err(why) = is_enough(room) {
        let next = if promised.is_some() { LARGER } else { "make room on the volume" };
        return Check::fail("disk", what, why, next);
    }
    if let Some(promised) = promised.filter(|promised| *promised > room) {
        let why = format!("{} are offered, and {} are here or free", size(promised), size(room));
        let next = format!(
            "make room, or set `capacity` (or `space`) in config.toml to \"{} MiB\" at most: a promise that a \
             full disk breaks cuts the capacity on the ledger",
            room.saturating_sub(LOW.min(room / 10)) >> 20
        );
        return Check::fail("disk", what, why, next);
    }
    if let Err(why) = is_enough(free) {
        return Check::fail("disk", what, why, "make room on the volume");
    }
    if rate < SLOW {
        let why = format!("below {SLOW:.0} a second, what is stored waits for the disk");
        return Check::warn("disk", what, why, "use an SSD, or stop what else writes to this disk");
    }
    if promised.is_none() && free < LOW {
        return Check::warn("disk", what, "it grows while the role runs", "make room on the volume soon");
    }
    Check::ok("disk", what)
}

/// Refuses a volume with less than any role needs.
///
/// # Errors
/// The reason, with both sizes.
fn is_enough(room: u64) -> Result<(), String> {
    let why = || format!("a role with less than {} writes nothing, and {} are there", size(FULL), size(room));
    if room < FULL { Err(why()) } else { Ok(()) }
}

/// Checks that a new role has a volume on which any role can begin; a full one is found before anything is made there.
///
/// # Errors
/// [`Failure`] that names the directory, its free bytes and the least.
pub(crate) fn has_room(settings: &Settings) -> Outcome {
    has_room_at(&volume_of(settings).0, settings.role)
}

/// The same for a role that will store in this directory.
///
/// # Errors
/// As [`has_room`].
pub(crate) fn has_room_at(path: &Path, role: Role) -> Outcome {
    // A volume that is not mounted yet is none that is full.
    let Ok(free) = volume::free(path) else { return Ok(()) };
    is_enough(free).map_err(|why| {
        let article = if role == Role::Authority { "an" } else { "a" };
        let what = format!("the disk of {} is too small for {article} {role}", path.display());
        Failure::new(Exit::Local, what, why, LARGER)
    })
}

/// Durable writes a second, by overwriting a small file that is gone afterwards.
fn fsyncs(path: &Path) -> io::Result<f64> {
    let mut file = tempfile::tempfile_in(path)?;
    let (bytes, start) = ([7; WRITE_BYTES], Instant::now());
    let mut written = 0;
    while written < WRITES && start.elapsed() < WRITING {
        file.seek(SeekFrom::Start(0))?;
        file.write_all(&bytes)?;
        file.sync_data()?;
        written += 1;
    }
    Ok(f64::from(written) / start.elapsed().as_secs_f64().max(1e-6))
}

/// Bytes that the provider holds on a volume, which may hold other things as well.
fn held(volume: &Path) -> u64 {
    let own = partitions(volume, start::PROVIDER).unwrap_or_default();
    own.iter().fold(0, |bytes, partition| bytes.saturating_add(bytes_below(partition)))
}

/// Bytes of all files below a directory, of the first [`FILES_MAX`].
fn bytes_below(path: &Path) -> u64 {
    let (mut directories, mut bytes, mut files) = (vec![path.to_path_buf()], 0u64, 0);
    while let Some(directory) = directories.pop() {
        let Ok(entries) = fs::read_dir(directory) else { continue };
        for entry in entries.filter_map(Result::ok) {
            let Ok(about) = entry.metadata() else { continue };
            files += 1;
            if files > FILES_MAX {
                return bytes;
            }
            if about.is_dir() {
                directories.push(entry.path());
            } else {
                bytes = bytes.saturating_add(about.len());
            }
        }
    }
    bytes
}

fn size(bytes: u64) -> String {
    if bytes >= 10 << 30 { format!("{} GiB", bytes >> 30) } else { format!("{} MiB", bytes >> 20) }
}

fn address(settings: &Settings) -> Check {
    let Door { listen, advertise, .. } = Door::of(settings.role);
    let Some(advertise) = advertise else {
        return Check::ok(
            "address",
            "a gateway is announced nowhere: its owner gives its address to its users",
        );
    };
    let address = match settings.announced(advertise, listen) {
        Ok(address) => address,
        Err(failure) if failure.exit == Exit::Usage => return Check::failed("address", &failure),
        Err(failure) => return Check::failed("address", &failure),
    };
    let ips: Vec<IpAddr> = match &address {
        Address::Ip(address) => vec![address.ip()],
        Address::Name(name, port) => match (&**name, *port).to_socket_addrs() {
            Ok(all) => all.map(|address| address.ip()).collect(),
            Err(error) => {
                let what = format!("the name in {address} has no address here");
                let next = format!(
                    "check the spelling of the name in `{advertise}` and its record: others look it up for each \
                     connection, and find nobody"
                );
                return Check::fail("address", what, error, next);
            }
        },
    };
    let is_private = settings.flag("private").unwrap_or_default();
    if !is_private && ips.iter().any(is_local) {
        let next =
            format!("set `{advertise}` to the address that the internet sees, and forward its port to here");
        let why = "only machines of the same private network reach such an address";
        return Check::warn("address", format!("{address} is announced, which is private"), why, next);
    }
    Check::ok("address", format!("{address} is announced"))
}

/// True for an address that is not routed on the internet.
const fn is_local(ip: &IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => {
            let [first, second, ..] = ip.octets();
            ip.is_private() || ip.is_loopback() || ip.is_link_local() || (first == 100 && second & 0xc0 == 64)
        }
        IpAddr::V6(ip) => ip.is_loopback() || ip.is_unique_local() || ip.is_unicast_link_local(),
    }
}

/// Judges the clock by the milliseconds by which it is ahead of `of`.
pub(super) fn judge_clock(ahead_ms: i64, of: &str) -> Check {
    let side = if ahead_ms < 0 { "behind" } else { "ahead of" };
    let seconds = ahead_ms.unsigned_abs() as f64 / 1_000.0;
    let what = format!("the clock is {seconds:.1} s {side} {of}");
    let next = "run one time service on this machine (chrony, systemd-timesyncd); compare with `date -u`";
    let why = "authorities refuse each other from two hours on, and providers and gateways a clock that is two days off";
    match ahead_ms.saturating_abs() {
        off if off >= OFF_FAIL_MS => Check::fail("clock", what, why, next),
        off if off >= OFF_WARN_MS => Check::warn("clock", what, why, next),
        _ => Check::ok("clock", what),
    }
}

#[cfg(test)]
mod tests {
    use super::{super::State, *};

    #[test]
    fn a_clock_is_right_within_seconds_and_wrong_by_a_day_in_both_directions() {
        const DAY: i64 = 86_400_000;
        for (ahead, state) in [
            (0, State::Ok),
            (-4_999, State::Ok),
            (5_000, State::Warn),
            (-9_999, State::Warn),
            (10_000, State::Fail),
            (-DAY, State::Fail),
            (DAY, State::Fail),
            (i64::MIN, State::Fail),
        ] {
            assert_eq!(judge_clock(ahead, "a block").state, state, "{ahead}");
        }
        assert!(
            judge_clock(-DAY, "a block").what.contains("86400.0 s behind a block"),
            "{:?}",
            judge_clock(-DAY, "a block")
        );
    }

    #[test]
    fn a_disk_that_has_less_than_is_offered_fails_and_says_how_much_it_can_offer() {
        let judge = |rate, free, held, promised| judge_disk(Path::new("/v"), rate, free, held, promised);
        let gib = 1 << 30;
        assert_eq!(judge(500.0, 100 * gib, 0, Some(100 * gib)).state, State::Ok);
        assert_eq!(judge(500.0, 40 * gib, 60 * gib, Some(100 * gib)).state, State::Ok, "what is held counts");
        let small = judge(500.0, 100 << 20, 0, Some(100 * gib));
        assert!(small.state == State::Fail && small.next.contains("\"90 MiB\""), "{small:?}");
        let smallest = judge(500.0, 10 << 20, 0, Some(100 * gib));
        assert!(
            smallest.why.contains("less than 32 MiB") && smallest.next.contains("larger"),
            "{smallest:?}"
        );
        assert_eq!(judge(500.0, 10 << 20, 0, None).state, State::Fail);
        assert_eq!(judge(500.0, 100 << 20, 0, None).state, State::Warn);
        assert_eq!(judge(3.0, 100 * gib, 0, None).state, State::Warn);
    }

    /// Nothing can be written to `/proc`, which has no free byte.
    #[cfg(target_os = "linux")]
    #[test]
    fn the_volume_of_an_authority_is_the_fuller_one_of_its_two() {
        let home = tempfile::tempdir().expect("a directory");
        let authority = Settings::new(Role::Authority, home.path());
        assert_eq!(volume_of(&authority), (home.path().to_path_buf(), None), "`storage` is not there yet");
        assert!(has_room(&authority).is_ok());
        std::os::unix::fs::symlink("/proc", home.path().join("storage")).expect("writable");
        assert_eq!(volume_of(&authority), (home.path().join("storage"), None));
        assert!(has_room(&authority).is_err());
    }

    #[test]
    fn a_disk_is_measured_with_a_file_that_is_gone_afterwards() {
        let home = tempfile::tempdir().expect("a directory");
        assert!(fsyncs(home.path()).expect("writable") > 0.0);
        assert_eq!(fs::read_dir(home.path()).expect("readable").count(), 0);
        fs::create_dir(home.path().join("below")).expect("made");
        fs::write(home.path().join("below/file"), [1; 1_000]).expect("written");
        assert_eq!(
            (bytes_below(home.path()), held(home.path())),
            (1_000, 0),
            "others' files are not the provider's"
        );
        for (name, bytes) in
            [("provider-packs-segments", 70), ("provider-journal", 7), ("provider2-journal", 5)]
        {
            fs::create_dir(home.path().join(name)).expect("made");
            fs::write(home.path().join(name).join("file"), vec![1; bytes]).expect("written");
        }
        assert_eq!(held(home.path()), 77, "each of its partitions counts");
        assert!(fsyncs(&home.path().join("missing")).is_err());
    }
}
