//! The number of files that a process may have open: raised at start, and checked against the need.
//!
//! A role calls [`require`] before it opens anything: too low a limit is reported then, with the number to
//! set, and not by a failure hours later.

use crate::channel::HANDSHAKES_MAX;
use posync_protocol::limits::CONNECTIONS_MAX;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Connections and handshakes that a listener holds at most, whatever its peers do.
pub const LISTENER: u64 = (CONNECTIONS_MAX + HANDSHAKES_MAX) as u64;
/// Handshakes at once with other authorities.
pub const PEER_HANDSHAKES: u32 = 64;
/// Connections of an authority to the others: two of each while one replaces the other.
const PEERS: u64 = 64;
/// Files of an authority's engine (measured below 300 with an empty ledger), and its auditor's connections.
const ENGINE: u64 = 384;
/// Connections of a provider or a gateway to others.
const OTHERS: u64 = CONNECTIONS_MAX as u64;
/// Files of a provider or a gateway: packs, journals, the runtime.
const FILES: u64 = 256;

/// Files that a member needs: an authority, a provider or a gateway. The log of an authority's state needs
/// one more file for each 8,192 of its entries.
pub const MEMBER: u64 = {
    let (authority, service) =
        (LISTENER + PEER_HANDSHAKES as u64 + PEERS + ENGINE, LISTENER + OTHERS + FILES);
    if authority > service { authority } else { service }
};

/// The limit is below what the role needs, and this process may not raise it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "this process may have {limit} files open at once, and {needed} are needed; raise the hard limit: \
     `ulimit -n {needed}` in the shell that starts it, or LimitNOFILE={needed} in its service unit"
)]
pub struct TooFew {
    /// Files that the process may open.
    pub limit: u64,
    /// Files that the role needs.
    pub needed: u64,
}

/// Raises the soft limit of open files to the hard limit, and checks that it is at least `needed`.
/// Returns the limit that holds from now on.
///
/// # Errors
/// [`TooFew`].
pub fn require(needed: u64) -> Result<u64, TooFew> {
    let before = getrlimit(Resource::Nofile);
    if before.current != before.maximum {
        let raised = Rlimit { current: before.maximum, maximum: before.maximum };
        // Systems may cap it below the hard limit, so the actual value is read back.
        let _ = setrlimit(Resource::Nofile, raised);
    }
    judge(needed, getrlimit(Resource::Nofile).current)
}

/// Returns `limit` if it is enough; `None` means unlimited.
fn judge(needed: u64, limit: Option<u64>) -> Result<u64, TooFew> {
    let limit = limit.unwrap_or(u64::MAX);
    if limit < needed { Err(TooFew { limit, needed }) } else { Ok(limit) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    /// `docs/operating.md` gives operators the same numbers.
    #[test]
    fn a_member_asks_for_all_that_its_listener_its_peers_and_its_files_may_take() {
        let (authority, service) =
            (LISTENER + u64::from(PEER_HANDSHAKES) + PEERS + ENGINE, LISTENER + OTHERS + FILES);
        assert_eq!([authority, service].into_iter().max(), Some(MEMBER));
        assert_eq!((MEMBER, LISTENER), (1_024, 512));
    }

    const CHILD: &str = "POSYNC_TEST_DESCRIPTORS";

    /// Runs this test again in a shell with limits of its own.
    fn with_limits(soft: u64, hard: u64, needed: u64) -> bool {
        let program = std::env::current_exe().expect("this test");
        let script = format!(
            "ulimit -Sn {soft} && ulimit -Hn {hard} && exec \"$0\" --exact \
             descriptors::tests::the_limit_is_raised_and_too_few_are_named"
        );
        let mut child = Command::new("sh");
        child.arg("-c").arg(script).arg(program).env(CHILD, needed.to_string());
        child.output().expect("a shell").status.success()
    }

    #[test]
    fn as_many_as_are_needed_are_enough() {
        for (may, fits) in [(Some(63), false), (Some(64), true), (Some(1 << 20), true), (None, true)] {
            assert_eq!(judge(64, may).is_ok(), fits, "{may:?}");
        }
    }

    #[test]
    fn the_limit_is_raised_and_too_few_are_named() {
        if let Ok(needed) = std::env::var(CHILD) {
            require(needed.parse().expect("a number")).expect("enough");
            return;
        }
        assert!(with_limits(64, 128, 100), "the soft limit is raised to the hard one");
        assert!(!with_limits(64, 128, 129), "one too few is refused");
        let told = TooFew { limit: 128, needed: 129 }.to_string();
        assert!(told.contains("ulimit -n 129") && told.contains("128 files"), "{told}");
    }
}
