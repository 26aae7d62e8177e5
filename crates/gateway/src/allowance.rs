//! The bytes that a user may read in a day. All reads are paid from the gateway's account, so without a bound one listed
//! account could spend all of it.
//!
//! ```text
//!   a read begins ─► fewer bytes counted than the allowance? ─► counts in full ─► its end gives back what was not read
//!                                                    └─ no: refused, with the time until it may begin
//! ```
//!
//! Invariants
//! 1. A read begins only while fewer bytes than the allowance are counted, and counts in full from then on. So a file
//!    larger than the allowance can be read, and delays the next read for as long as it takes; reads that begin at one
//!    moment exceed the allowance by one file together.
//! 2. The count falls by the allowance in a day, all the time, by the steady clock, which takes over a step of a day or more. A restart forgets it.
//! 3. The count is of the segments that were read from providers, whole ones: a read of one byte costs its segment.

use commonware_utils::sync::Mutex;
use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

/// Time in which a count falls by one allowance.
const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// The bytes that an account may read in a day, and those that count now.
pub(crate) struct Allowance {
    most: u64,
    counted: Mutex<Counted>,
}

/// The count at a moment.
struct Counted {
    bytes: u64,
    at: SystemTime,
}

/// A read that does not begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Spent {
    /// Bytes that count now.
    pub counted: u64,
    /// Bytes that the account may read in a day.
    pub most: u64,
    /// Time until a read may begin.
    pub wait: Duration,
}

/// The part of a read that counts and was not begun; dropping it gives that part back.
pub(crate) struct Reading {
    allowance: Option<Arc<Allowance>>,
    left: u64,
}

/// The time in which `bytes` are taken off a count; at least one byte is allowed in a day.
fn time_of(bytes: u64, most: u64) -> Duration {
    let nanos = DAY.as_nanos() * u128::from(bytes) / u128::from(most);
    Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
}

impl Allowance {
    /// An allowance of `most` bytes in a day, at least one, of which none is used.
    pub(crate) fn new(most: u64) -> Self {
        Self { most: most.max(1), counted: Mutex::new(Counted { bytes: 0, at: SystemTime::UNIX_EPOCH }) }
    }

    /// Takes off what the time until `now` has freed, and counts `bytes`.
    ///
    /// # Errors
    /// [`Spent`], with nothing counted.
    fn take(&self, bytes: u64, now: SystemTime) -> Result<(), Spent> {
        let mut counted = self.counted.lock();
        let passed = now.duration_since(counted.at).unwrap_or_default();
        let freed = u128::from(self.most) * passed.as_nanos() / DAY.as_nanos();
        let freed = u64::try_from(freed).unwrap_or(u64::MAX);
        if freed >= counted.bytes {
            *counted = Counted { bytes: 0, at: now };
        } else {
            counted.bytes -= freed;
            counted.at += time_of(freed, self.most);
        }
        if counted.bytes >= self.most {
            let wait = time_of(counted.bytes - self.most + 1, self.most);
            return Err(Spent { counted: counted.bytes, most: self.most, wait });
        }
        counted.bytes = counted.bytes.saturating_add(bytes);
        Ok(())
    }

    fn give_back(&self, bytes: u64) {
        let mut counted = self.counted.lock();
        counted.bytes = counted.bytes.saturating_sub(bytes);
    }
}

impl Reading {
    /// Begins a read of `bytes` at `now`, under an allowance if there is one.
    ///
    /// # Errors
    /// [`Spent`].
    pub(crate) fn begin(
        allowance: Option<&Arc<Allowance>>,
        bytes: u64,
        now: SystemTime,
    ) -> Result<Self, Spent> {
        let allowance = allowance.filter(|_| bytes > 0).cloned();
        if let Some(allowance) = &allowance {
            allowance.take(bytes, now)?;
        }
        Ok(Self { allowance, left: bytes })
    }

    /// Notes that the providers are asked for `bytes` of it, which count from now on whatever becomes of the read.
    pub(crate) const fn ask(&mut self, bytes: u64) {
        self.left = self.left.saturating_sub(bytes);
    }
}

impl Drop for Reading {
    fn drop(&mut self) {
        if let Some(allowance) = &self.allowance {
            allowance.give_back(self.left);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_secs(3_600);

    fn at(hours: u32) -> SystemTime {
        SystemTime::UNIX_EPOCH + DAY * 400 + HOUR * hours
    }

    #[test]
    fn a_read_begins_while_fewer_bytes_count_than_the_allowance_and_the_count_falls_with_time() {
        let allowance = Allowance::new(2_400);
        assert_eq!(allowance.take(2_399, at(0)), Ok(()));
        assert_eq!(allowance.take(10_000, at(0)), Ok(()), "one more byte was free");
        let spent = |counted, wait| Err(Spent { counted, most: 2_400, wait });
        let of = |bytes: u32| HOUR * bytes / 100;
        assert_eq!(allowance.take(1, at(0)), spent(12_399, of(10_000)));
        assert_eq!(allowance.take(1, at(99)), spent(2_499, of(100)), "100 bytes an hour");
        assert_eq!(allowance.take(1, at(100)), Ok(()));
        assert_eq!(allowance.take(1, at(100)), spent(2_400, of(1)));
        assert_eq!(allowance.take(1, at(500)), Ok(()));
        assert_eq!(allowance.counted.lock().bytes, 1, "a long pause saves nothing up");
    }

    #[test]
    fn many_looks_take_off_no_less_than_one_and_a_clock_that_stands_or_goes_back_nothing() {
        let allowance = Allowance::new(2_400);
        allowance.take(4_800, at(0)).expect("nothing counts");
        for seconds in 0..24 * 3_600 {
            let refused = allowance.take(1, at(0) + Duration::from_secs(seconds));
            assert!(refused.is_err(), "{seconds}");
        }
        assert!(allowance.take(1, at(1)).is_err(), "an hour that counted already");
        assert_eq!(allowance.take(1, at(25)), Ok(()));
    }

    #[test]
    fn a_read_that_ends_early_gives_back_what_was_not_asked_for() {
        let allowance = Arc::new(Allowance::new(100));
        let mut read = Reading::begin(Some(&allowance), 80, at(0)).expect("nothing counts");
        read.ask(30);
        drop(read);
        assert_eq!(allowance.counted.lock().bytes, 30);
        let none = Reading::begin(Some(&allowance), 0, at(0)).expect("an empty file costs nothing");
        drop((none, Reading::begin(None, u64::MAX, at(0)).expect("the owner has no bound")));
        assert_eq!(allowance.counted.lock().bytes, 30);
        let mut whole = Reading::begin(Some(&allowance), 80, at(0)).expect("70 are left");
        whole.ask(80);
        drop(whole);
        assert_eq!(Reading::begin(Some(&allowance), 1, at(0)).err().map(|spent| spent.counted), Some(110));
    }
}
