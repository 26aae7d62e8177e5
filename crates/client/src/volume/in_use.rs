//! The volume of a member that runs: it is there while its name leads to the directory that was there at the start, and
//! while its device answers.
//!
//! ```text
//!   name --> another device or inode than at the start --> away, whatever lies there: a copy below the mount point
//!   file system is read-only, also by an error               --> away, until it takes writes again
//!   read of a file fails --> read a probe from the device --> one of two answers: the error is of that file
//!                                                         --> both fail, too: away, until one answers again
//! ```

use super::{PROBE_BYTES, PROBES, VolumeError, check};
use commonware_utils::sync::Mutex;
use posync_protocol::Account;
use rustix::{
    fs::{Advice, Mode, OFlags, StatVfsMountFlags, fadvise, fstatvfs, openat},
    io::{Errno, pread},
};
use std::{
    fs::{self, File},
    io,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

/// Time for which a device that did not answer is not asked again: a dying disk may take long to fail a read.
const ASK_AGAIN_AFTER: Duration = Duration::from_secs(5);
/// Errors of the process, not of a device.
const OWN_ERRORS: [Errno; 6] =
    [Errno::MFILE, Errno::NFILE, Errno::NOMEM, Errno::ACCESS, Errno::PERM, Errno::INTR];

/// The volume of a member that runs. Clones share what they know of its device.
#[derive(Clone, Debug)]
pub struct InUse {
    directory: PathBuf,
    volume: PathBuf,
    account: Account,
    partition: String,
    held: Arc<Held>,
}

/// The directory that was the volume at the start.
#[derive(Debug)]
struct Held {
    /// While it is open, no other file system gets its device number, and no other directory its inode.
    root: File,
    /// Last failed read of the probe; `None` while the device answers.
    failed: Mutex<Option<(Instant, Errno)>>,
}

impl InUse {
    /// Opens the volume that the member claimed at its start, by the same names as for [`super::claim`], and reads from
    /// its device.
    ///
    /// # Errors
    /// `File`, `Failing`, `ReadOnly`.
    pub fn new(
        directory: &Path,
        volume: &Path,
        account: &Account,
        partition: &str,
    ) -> Result<Self, VolumeError> {
        let root = File::open(volume).map_err(|error| VolumeError::File(volume.into(), error))?;
        let held = Arc::new(Held { root, failed: Mutex::new(None) });
        let (directory, volume) = (directory.to_path_buf(), volume.to_path_buf());
        let in_use = Self { directory, volume, account: *account, partition: partition.into(), held };
        in_use.ask()?;
        in_use.check().map(|()| in_use)
    }

    /// Checks that the name of the volume still leads to it, that it takes writes, and that its device answers, as far
    /// as is known. A file that is opened for writing on a read-only file system fails, whatever is in it.
    ///
    /// # Errors
    /// [`VolumeError`].
    pub fn check(&self) -> Result<(), VolumeError> {
        check(&self.directory, &self.volume, &self.account, &self.partition)?;
        let failed = |error| VolumeError::File(self.volume.clone(), error);
        let at_start = self.held.root.metadata().map_err(failed)?;
        let now = fs::metadata(&self.volume).map_err(failed)?;
        if (now.dev(), now.ino()) != (at_start.dev(), at_start.ino()) {
            return Err(VolumeError::Other(self.volume.clone()));
        }
        let mounted = fstatvfs(&self.held.root).map_err(|error| failed(error.into()))?;
        if mounted.f_flag.contains(StatVfsMountFlags::RDONLY) {
            return Err(VolumeError::ReadOnly(self.volume.clone()));
        }
        let is_failing = self.held.failed.lock().is_some();
        if is_failing { self.ask() } else { Ok(()) }
    }

    /// Finds out, after a read that failed, whether the device answers at all.
    ///
    /// # Errors
    /// `Failing`: nothing on it can be read now, so nothing is damaged by that.
    pub fn ask(&self) -> Result<(), VolumeError> {
        let mut failed = self.held.failed.lock();
        let failing = |error: Errno| Err(VolumeError::Failing(self.volume.clone(), error.into()));
        if let Some((at, error)) = *failed
            && at.elapsed() < ASK_AGAIN_AFTER
        {
            return failing(error);
        }
        match self.held.read_probes() {
            Err(error) => {
                let volume = self.volume.display().to_string();
                if failed.replace((Instant::now(), error)).is_none() {
                    let error = io::Error::from(error);
                    tracing::error!(volume, %error, "the device of the volume answers no read: the volume counts as away");
                }
                failing(error)
            }
            Ok(()) => {
                if failed.take().is_some() {
                    tracing::info!("over: the device of the volume answers again");
                }
                Ok(())
            }
        }
    }
}

impl Held {
    /// Succeeds if the device answers for one of the probes, as a bad sector may lie under another; also if an error of
    /// the process is all that is known, or there is no probe.
    fn read_probes(&self) -> Result<(), Errno> {
        let (mut is_there, mut failed) = (false, None);
        for name in PROBES {
            match read_probe(&self.root, name) {
                Ok(()) => return Ok(()),
                Err(Errno::NOENT) => {}
                Err(error) if OWN_ERRORS.contains(&error) => is_there = true,
                Err(error) => failed = failed.or(Some(error)),
            }
        }
        failed.filter(|_| !is_there).map_or(Ok(()), Err)
    }
}

/// Reads a probe in a volume's directory, and not from memory: its pages are dropped first.
pub(super) fn read_probe(root: &File, name: &str) -> Result<(), Errno> {
    let probe = openat(root, name, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
    fadvise(&probe, 0, None, Advice::DontNeed)?;
    match pread(&probe, &mut [0; PROBE_BYTES], 0)? {
        PROBE_BYTES => Ok(()),
        _ => Err(Errno::IO),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::volume::{away, claim, is_away};
    use std::process::Command;

    const OWN: Account = Account([7; 32]);
    const PARTITION: &str = "provider";
    /// Set in the process that may mount.
    const INSIDE: &str = "POSYNC_TEST_MAY_FAIL_A_DEVICE";
    const NAME: &str =
        "volume::in_use::tests::a_device_that_answers_no_read_is_away_and_one_with_bad_sectors_is_there";
    /// Bytes of the device.
    const DEVICE: u64 = 32 << 20;
    /// Sets the bytes of a loop device that can be read and written; 0: all. Its image keeps all bytes.
    const LIMIT: &str = "import fcntl,os,struct,sys
device = os.open(sys.argv[1], os.O_RDONLY)
status = bytearray(232)
fcntl.ioctl(device, 0x4C05, status)
struct.pack_into('Q', status, 32, int(sys.argv[2]))
fcntl.ioctl(device, 0x4C04, bytes(status))";

    /// Output of a program of the system; the error is that it failed.
    fn run(program: &str, arguments: &[&str]) -> Result<String, String> {
        let output = Command::new(program).args(arguments).output().map_err(|error| error.to_string())?;
        let said = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
        if output.status.success() { Ok(said(&output.stdout)) } else { Err(said(&output.stderr)) }
    }

    fn must(program: &str, arguments: &[&str]) -> String {
        run(program, arguments).unwrap_or_else(|error| panic!("{program} {arguments:?}: {error}"))
    }

    /// A block device of its own, over a file; dropping it removes it.
    struct Device(String);

    impl Device {
        fn over(image: &str) -> Result<Self, String> {
            run("losetup", &["--find", "--show", image]).map(Self)
        }

        fn limit(&self, bytes: u64) {
            must("python3", &["-c", LIMIT, &self.0, &bytes.to_string()]);
        }
    }

    impl Drop for Device {
        fn drop(&mut self) {
            let _ = run("losetup", &["--detach", &self.0]);
        }
    }

    /// Bytes of a file as its device gives them.
    fn uncached(path: &Path) -> io::Result<Vec<u8>> {
        fadvise(File::open(path)?, 0, None, Advice::DontNeed)?;
        fs::read(path)
    }

    #[test]
    fn a_device_that_answers_no_read_is_away_and_one_with_bad_sectors_is_there() {
        let home = tempfile::tempdir().expect("a directory");
        let image = home.path().join("image");
        File::create(&image).and_then(|image| image.set_len(DEVICE)).expect("writable");
        let device = Device::over(image.to_str().expect("text"));
        let device = match (device, std::env::var_os(INSIDE)) {
            (Ok(device), Some(_)) => return on_a_device(home.path(), &device),
            (Ok(device), None) if run("unshare", &["--mount", "true"]).is_ok() => device,
            _ => {
                eprintln!("NOT TESTED: this machine lets this user have no block device (`losetup`)");
                return;
            }
        };
        drop(device);
        let mut inside = Command::new("unshare");
        inside.arg("--mount").arg(std::env::current_exe().expect("this test"));
        let output = inside.args(["--exact", "--nocapture", NAME]).env(INSIDE, "1").output();
        let output = output.expect("it starts");
        let said = [output.stdout, output.stderr].concat();
        let said = String::from_utf8_lossy(&said);
        assert!(output.status.success() && said.contains("1 passed"), "{said}");
    }

    fn on_a_device(home: &Path, device: &Device) {
        let (directory, volume) = (home.join("member"), home.join("volume"));
        fs::create_dir(&directory).and_then(|()| fs::create_dir(&volume)).expect("made");
        let at = volume.to_str().expect("text");
        must("mkfs.ext4", &["-q", &device.0]);
        must("mount", &["-o", "errors=continue", &device.0, at]);
        claim(&directory, &volume, &OWN, PARTITION).expect("a first start");
        let in_use = InUse::new(&directory, &volume, &OWN, PARTITION).expect("it answers");
        let data = volume.join("data");
        fs::write(&data, vec![7; 20 << 20]).expect("there is room");
        File::open(&data).and_then(|data| data.sync_all()).expect("durable");

        device.limit(DEVICE / 2);
        uncached(&data).expect_err("half of its sectors are gone");
        in_use.ask().expect("but others are there");
        in_use.check().expect("so it is there");

        device.limit(4096);
        uncached(&data).expect_err("no sector is there");
        check(&directory, &volume, &OWN, PARTITION).expect("the mark comes from memory");
        for failing in [in_use.ask(), in_use.check(), in_use.clone().check()] {
            let error = failing.expect_err("it answers nothing");
            assert!(matches!(error, VolumeError::Failing(..)), "{error}");
            assert!(error.to_string().contains("answers no read") && is_away(&away(error)));
        }
        let start = InUse::new(&directory, &volume, &OWN, PARTITION);
        assert!(matches!(start, Err(VolumeError::Failing(..))), "nor does a member start on it");

        device.limit(0);
        let start = Instant::now();
        while let Err(error) = in_use.check() {
            assert!(start.elapsed() < 6 * ASK_AGAIN_AFTER, "{error}");
            std::thread::park_timeout(Duration::from_millis(100));
        }
        assert_eq!(uncached(&data).expect("it is back").len(), 20 << 20, "nothing was lost");
        drop(in_use);
        must("umount", &[at]);
    }
}
