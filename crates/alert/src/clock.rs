//! The clock of an authority's machine.

use crate::{Alert, Kind};

/// The alert that holds if the clock was set by `stepped` seconds since the node's start, or is `off` seconds
/// ahead of (if negative, behind) what the blocks of the other authorities show.
pub fn clock_conditions(stepped: Option<i64>, off: Option<i64>) -> Option<Alert> {
    let set = stepped.map(|seconds| format!("was set by {seconds} seconds while the node ran"));
    let off = off.map(|seconds| {
        let side = if seconds < 0 { "behind" } else { "ahead of" };
        format!("is {} seconds {side} the blocks of the other authorities", seconds.unsigned_abs())
    });
    let what: Vec<String> = set.into_iter().chain(off).collect();
    if what.is_empty() {
        return None;
    }
    let next = "certificates, logs and file times of this machine are wrong, or the node's own time is: see that \
                one time service sets the clock, and in small steps; a node that was started with a wrong clock is \
                right again after a restart, and ends by itself if its network goes on without it";
    let what = format!("the clock of this machine {}", what.join(", and "));
    Some(Alert { kind: Kind::ClockOff, what, next: next.into(), due: None })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_that_was_set_or_is_off_is_told_and_a_good_one_is_not() {
        let told = |stepped, off| clock_conditions(stepped, off).map(|alert| alert.what);
        assert_eq!(told(None, None), None);
        let set = "the clock of this machine was set by -20 seconds while the node ran";
        assert_eq!(told(Some(-20), None).as_deref(), Some(set));
        let behind = "the clock of this machine is 60 seconds behind the blocks of the other authorities";
        assert_eq!(told(None, Some(-60)).as_deref(), Some(behind));
        let both = told(Some(3_600), Some(3_600)).expect("both are told");
        assert!(both.contains("set by 3600") && both.contains("3600 seconds ahead of"), "{both}");
    }
}
