//! The alerts of a role whose machine has a wrong clock.

use crate::{Alert, Kind};

/// Seconds `off` in words: on which side of the others the clock is.
fn beside(off: i64, others: &str) -> String {
    let side = if off < 0 { "behind" } else { "ahead of" };
    format!("is {} seconds {side} {others}", off.unsigned_abs())
}

/// The alert of an authority. It holds if the clock was set by `stepped` seconds since the node's start, or is `off`
/// seconds ahead of (if negative, behind) what the clocks or the blocks of the other authorities show.
pub fn clock_conditions(stepped: Option<i64>, off: Option<i64>) -> Option<Alert> {
    let set = stepped.map(|seconds| format!("was set by {seconds} seconds while the node ran"));
    let off = off.map(|seconds| beside(seconds, "what the other authorities show"));
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

/// The alert of a role that runs by the machine's clock alone, which is `off` seconds ahead of (if negative, behind)
/// the clocks of most nodes.
pub fn clock_off(off: i64) -> Alert {
    let what = format!("the clock of this machine {}", beside(off, "the clocks of most nodes"));
    let next = "the role works on, and log and file times of this machine are wrong; authorities refuse each \
                other from two hours on, and providers and gateways a machine whose clock is two days off: see that a \
                time service sets it";
    Alert { kind: Kind::ClockOff, what, next: next.into(), due: None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_side_on_which_a_clock_is_off_is_named() {
        let behind = "the clock of this machine is 3600 seconds behind the clocks of most nodes";
        assert_eq!(clock_off(-3_600).what, behind);
        assert!(clock_off(12).what.contains("is 12 seconds ahead of"));
        assert_eq!(clock_off(12).kind, Kind::ClockOff);
    }

    #[test]
    fn a_clock_that_was_set_or_is_off_is_told_and_a_good_one_is_not() {
        let told = |stepped, off| clock_conditions(stepped, off).map(|alert| alert.what);
        assert_eq!(told(None, None), None);
        let set = "the clock of this machine was set by -20 seconds while the node ran";
        assert_eq!(told(Some(-20), None).as_deref(), Some(set));
        let behind = "the clock of this machine is 60 seconds behind what the other authorities show";
        assert_eq!(told(None, Some(-60)).as_deref(), Some(behind));
        let both = told(Some(3_600), Some(3_600)).expect("both are told");
        assert!(both.contains("set by 3600") && both.contains("3600 seconds ahead of"), "{both}");
    }
}
