//! Time that no clock setting moves: seconds that this process ran.
//!
//! A wall clock may jump by hours when it is set. Delays before a removal, or before a claim of unpaid
//! bytes, are measured by this time. Seconds in which the process was suspended do not count.

use commonware_runtime::Clock;
use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, SystemTime},
};

/// A handle on the time: cheap to clone. It advances only while [`Uptime::run`] runs.
#[derive(Clone, Debug, Default)]
pub(crate) struct Uptime(Arc<AtomicU64>);

impl Uptime {
    /// Advances the time, forever.
    pub(crate) async fn run<E: Clock>(self, context: E) {
        loop {
            context.sleep(Duration::from_secs(1)).await;
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// The current time: whole seconds of this process, counted from the Unix epoch.
    pub(crate) fn now(&self) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(self.0.load(Ordering::Relaxed))
    }
}
