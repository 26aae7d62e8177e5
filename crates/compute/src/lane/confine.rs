//! Takes from a lane the rights of its user that it does not need.
//!
//! | part of the kernel | takes |
//! | --- | --- |
//! | Landlock | all files and directories but the cache of machine code; TCP; signals to others |
//! | seccomp | sockets, new processes and programs, other processes' memory, kernel interfaces that no lane uses |
//! | the mask of new files | rights of group and others on machine code |
//!
//! The limits hold for the thread that sets them and for those that it starts, so a lane sets them before its first one.
//! Files that are open, such as the pipes of its owner, stay usable.

use landlock::{
    ABI, Access as _, AccessFs, AccessNet, BitFlags, PathBeneath, PathFd, Ruleset, RulesetAttr as _,
    RulesetCreatedAttr as _, RulesetStatus, Scope,
};
use rustix::fs::Mode;
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
};
use std::{collections::BTreeMap, error::Error, path::Path};

/// The newest interface of Landlock whose rights are taken. An older kernel takes those that it knows.
const NEWEST: ABI = ABI::V6;

/// System calls that a lane never makes and that a broken engine must not make for it.
const DENIED: &[i64] = &[
    libc::SYS_socket,
    libc::SYS_socketpair,
    libc::SYS_execve,
    libc::SYS_execveat,
    libc::SYS_kill,
    libc::SYS_ptrace,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_pidfd_getfd,
    libc::SYS_io_uring_setup,
    libc::SYS_bpf,
    libc::SYS_perf_event_open,
    libc::SYS_userfaultfd,
    libc::SYS_add_key,
    libc::SYS_keyctl,
    libc::SYS_request_key,
    libc::SYS_mount,
    libc::SYS_unshare,
    libc::SYS_setns,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_fork,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_vfork,
];

/// Takes the rights from this thread and all that it will start. Of the file system it keeps `cache`, a directory that
/// exists.
///
/// # Errors
/// The parts that this machine does not take; those that it does take are gone.
pub(super) fn confine(cache: Option<&Path>) -> Result<(), String> {
    rustix::process::umask(Mode::RWXG | Mode::RWXO);
    let parts = [("files and TCP", files(cache)), ("system calls", calls())];
    let left = parts.into_iter().filter_map(|(part, done)| Some(format!("{part}: {}", done.err()?)));
    let left = left.collect::<Vec<_>>().join("; ");
    if left.is_empty() { Ok(()) } else { Err(left) }
}

/// Takes the file system but for the cache, TCP, and signals to processes outside.
fn files(cache: Option<&Path>) -> Result<(), Box<dyn Error>> {
    let rules = Ruleset::default()
        .handle_access(AccessFs::from_all(NEWEST))?
        .handle_access(AccessNet::from_all(NEWEST))?
        .scope(Scope::from_all(NEWEST))?
        .create()?;
    let rules = match cache {
        Some(cache) => rules.add_rule(PathBeneath::new(PathFd::new(cache)?, kept()))?,
        None => rules,
    };
    match rules.restrict_self()?.ruleset {
        RulesetStatus::NotEnforced => Err("this kernel has no Landlock, or it is switched off".into()),
        RulesetStatus::PartiallyEnforced | RulesetStatus::FullyEnforced => Ok(()),
    }
}

/// Rights on the cache: regular files and directories are read, made, written and removed, and nothing is run.
fn kept() -> BitFlags<AccessFs> {
    AccessFs::ReadFile
        | AccessFs::ReadDir
        | AccessFs::WriteFile
        | AccessFs::Truncate
        | AccessFs::MakeReg
        | AccessFs::MakeDir
        | AccessFs::RemoveFile
        | AccessFs::RemoveDir
}

/// Takes system calls. `clone` may make threads and no processes; the flags of `clone3` are in memory, where no filter
/// sees them, so it looks like a kernel without it, and the C library takes `clone`.
fn calls() -> Result<(), Box<dyn Error>> {
    let thread = libc::CLONE_THREAD as u64;
    let process = SeccompCondition::new(0, SeccompCmpArgLen::Qword, SeccompCmpOp::MaskedEq(thread), 0)?;
    let mut denied: BTreeMap<i64, Vec<SeccompRule>> = DENIED.iter().map(|call| (*call, Vec::new())).collect();
    denied.insert(libc::SYS_clone, vec![SeccompRule::new(vec![process])?]);
    for (calls, errno) in
        [(denied, libc::EPERM), (BTreeMap::from([(libc::SYS_clone3, vec![])]), libc::ENOSYS)]
    {
        let (allow, deny) = (SeccompAction::Allow, SeccompAction::Errno(errno.unsigned_abs()));
        let filter = SeccompFilter::new(calls, allow, deny, std::env::consts::ARCH.try_into()?)?;
        seccompiler::apply_filter(&BpfProgram::try_from(filter)?)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{
        fs,
        io::{self, ErrorKind},
        net::{TcpListener, TcpStream, UdpSocket},
        os::unix::{fs::PermissionsExt as _, net::UnixStream},
        process::Command,
        thread,
    };

    /// Runs `work` on a confined thread.
    fn confined<T: Send + 'static>(cache: &Path, work: impl FnOnce() -> T + Send + 'static) -> T {
        let cache = cache.to_owned();
        let thread = thread::spawn(move || {
            confine(Some(&cache)).expect("this kernel takes all of it");
            work()
        });
        thread.join().expect("it does not panic")
    }

    fn refused<T>(done: io::Result<T>) -> ErrorKind {
        done.err().expect("it is refused").kind()
    }

    #[test]
    fn files_outside_the_cache_are_neither_read_nor_written() {
        let place = tempfile::tempdir().expect("a directory");
        let (cache, key) = (place.path().join("cache"), place.path().join("key"));
        fs::create_dir(&cache).expect("there is room");
        fs::write(&key, "secret").expect("there is room");
        let (read, written, made, removed) = confined(&cache, {
            let key = key.clone();
            move || {
                let beside = key.with_file_name("beside");
                (fs::read(&key), fs::write(&key, "x"), fs::create_dir(beside), fs::remove_file(&key))
            }
        });
        for refusal in [refused(read), refused(written), refused(made), refused(removed)] {
            assert_eq!(refusal, ErrorKind::PermissionDenied);
        }
        assert_eq!(fs::read(&key).expect("it is there"), b"secret");
    }

    #[test]
    fn the_cache_is_used_and_is_for_this_user_alone() {
        let place = tempfile::tempdir().expect("a directory");
        let code = place.path().join("modules/code");
        confined(place.path(), {
            let code = code.clone();
            move || -> io::Result<()> {
                fs::create_dir(code.parent().expect("it is below the cache"))?;
                fs::write(code.with_extension("new"), "machine code")?;
                fs::rename(code.with_extension("new"), &code)?;
                fs::read(&code).map(drop)
            }
        })
        .expect("the cache is its own");
        let mode = |path: &Path| fs::metadata(path).expect("it is there").permissions().mode() & 0o777;
        assert_eq!((mode(&code), mode(code.parent().expect("a directory"))), (0o600, 0o700));
    }

    #[test]
    fn there_is_no_network_and_no_other_process() {
        let place = tempfile::tempdir().expect("a directory");
        let listener = TcpListener::bind("127.0.0.1:0").expect("loopback");
        let address = listener.local_addr().expect("it is bound");
        let (tcp, udp, unix, process, thread) = confined(place.path(), move || {
            let process = Command::new("/bin/true").spawn().and_then(|mut child| child.wait());
            let thread = thread::Builder::new().spawn(|| 7).map(|thread| thread.join().ok());
            (TcpStream::connect(address), UdpSocket::bind("127.0.0.1:0"), UnixStream::pair(), process, thread)
        });
        for refusal in [refused(tcp), refused(udp), refused(unix), refused(process)] {
            assert_eq!(refusal, ErrorKind::PermissionDenied);
        }
        assert_eq!(thread.expect("threads are allowed"), Some(7));
    }
}
