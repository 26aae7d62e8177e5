//! File descriptors: a process raises its limit as far as the system permits at its start. Too few are
//! an error then, with the number that is needed, not a panic an hour later.

use crate::failure::{Exit, Failure, Outcome};
use posync_client::descriptors::{TooFew, require};

/// Descriptors of a command: a runtime, connections to each of 32 authorities and the gateway, files.
pub(crate) const COMMAND: u64 = 64;

/// Raises this process's limit as far as the system permits; children inherit it.
///
/// # Errors
/// [`Failure`] if the limit stays below `needed`; it names `who` needs them.
pub(crate) fn ensure(who: &str, needed: u64) -> Outcome {
    require(needed).map(drop).map_err(|few| too_few(who, few))
}

fn too_few(who: &str, TooFew { limit, needed }: TooFew) -> Failure {
    Failure::new(
        Exit::Local,
        "too few file descriptors",
        format!("{who} needs {needed}, and this process may open {limit} at most"),
        format!(
            "raise the limit (`ulimit -n {needed}`, or LimitNOFILE={needed} for a service) and start again"
        ),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn too_few_descriptors_are_an_error_that_says_how_many() {
        let text = too_few("a provider", TooFew { limit: 400, needed: 768 }).in_one_line();
        assert!(text.contains("a provider needs 768") && text.contains("400 at most"), "{text}");
        assert!(text.contains("ulimit -n 768"), "{text}");
    }
}
