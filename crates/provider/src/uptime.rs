//! Time that nobody can set: seconds that this process ran.
//!
//! A wall clock may step by hours when it is set. What is removed after a while, or claimed as unpaid
//! after a while, is measured by this one. Seconds in which the process stood still do not count.

use commonware_runtime::Clock;
use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, SystemTime},
};

/// A handle on the time: cheap to clone. It stands still until [`Uptime::run`] runs.
#[derive(Clone, Debug, Default)]
pub struct Uptime(Arc<AtomicU64>);

impl Uptime {
    /// Lets the time pass, for ever.
    pub async fn run<E: Clock>(self, context: E) {
        loop {
            context.sleep(Duration::from_secs(1)).await;
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Now: whole seconds of this process, counted from the start of the calendar.
    pub fn now(&self) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(self.0.load(Ordering::Relaxed))
    }
}
