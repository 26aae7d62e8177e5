//! Bounded waits: every wait of a command ends, and a failed one names the awaited event.

use crate::failure::{Failure, Outcome};
use std::time::{Duration, Instant};

/// Pause between two checks of a condition.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// The result of one check.
pub(crate) enum Look<T> {
    /// The awaited condition holds.
    Done(T),
    /// It does not hold yet; holds a description of the state so far.
    Waiting(String),
}

/// Checks until the condition holds; fails after `bound` with the last description of the state.
pub(crate) async fn until<T>(
    awaited: &str,
    bound: Duration,
    next: &str,
    mut look: impl AsyncFnMut() -> Outcome<Look<T>>,
) -> Outcome<T> {
    let start = Instant::now();
    loop {
        match look().await? {
            Look::Done(value) => return Ok(value),
            Look::Waiting(seen) if start.elapsed() >= bound => {
                return Err(Failure::timed_out(awaited, bound.as_secs(), seen, next));
            }
            Look::Waiting(_) => tokio::time::sleep(LOOK_EVERY).await,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::failure::Exit;

    #[tokio::test]
    async fn a_wait_ends_with_what_was_seen() {
        let mut looks = 0;
        let failure = until::<()>("rain", Duration::ZERO, "move", async || {
            looks += 1;
            Ok(Look::Waiting(format!("{looks} clouds")))
        })
        .await
        .expect_err("it never rains");
        assert_eq!(failure.exit, Exit::TimedOut);
        assert!(failure.to_json().to_string().contains(&format!("{looks} clouds")));
    }

    #[tokio::test]
    async fn what_happened_is_handed_on() {
        let value = until("rain", Duration::ZERO, "move", async || Ok(Look::Done(7))).await;
        assert_eq!(value.ok(), Some(7));
    }
}
