//! File descriptors: as many as the system gives are taken at the start, and too few are an error
//! then, with the number that is needed, not a panic an hour later.

use crate::failure::{Exit, Failure, Outcome};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// What a command needs: a runtime, a connection to each of 32 authorities and the gateway, files.
pub(crate) const COMMAND: u64 = 64;

/// Raises this process's limit to what the system gives it; children inherit that.
///
/// # Errors
/// [`Failure`] if that is less than `who` needs.
pub(crate) fn ensure(who: &str, needed: u64) -> Outcome {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current != maximum {
        // What the system does not grant is counted below.
        let _ = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum });
    }
    judge(who, needed, getrlimit(Resource::Nofile).current)
}

/// Whether `may`, without a bound if `None`, is enough.
fn judge(who: &str, needed: u64, may: Option<u64>) -> Outcome {
    match may {
        Some(may) if may < needed => Err(Failure::new(
            Exit::Local,
            "too few file descriptors",
            format!("{who} needs {needed}, and this process may open {may} at most"),
            format!(
                "raise the limit (`ulimit -n {needed}`, or LimitNOFILE={needed} for a service) and start again"
            ),
        )),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn too_few_descriptors_are_an_error_that_says_how_many() {
        for (may, fits) in [(Some(63), false), (Some(64), true), (Some(1 << 20), true), (None, true)] {
            assert_eq!(judge("a command", COMMAND, may).is_ok(), fits, "{may:?}");
        }
        let text = judge("a provider", 768, Some(400)).expect_err("too few").in_one_line();
        assert!(text.contains("a provider needs 768") && text.contains("400 at most"), "{text}");
        assert!(text.contains("ulimit -n 768"), "{text}");
    }
}
