//! One machine of a simulated network: the deterministic runtime as a single process sees it, with
//! a switch that stops every task of the process, and a disk of its own that fails in parts.
//!
//! Invariants
//! 1. While a [`Gate`] is closed, no task of the process runs: the process computes, sends and
//!    notices nothing,
//!    as after SIGSTOP. Time goes on, so everything it waited for is overdue when the gate opens.
//! 2. A fault of a [`Disk`] affects this machine alone, in this life and all later ones.

pub(crate) mod disk;
#[cfg(test)]
mod tests;

use commonware_runtime::{
    Clock, Handle, Metrics, Name, Resolver, Spawner, Supervisor,
    deterministic::Context,
    signal::Signal,
    telemetry::metrics::{Metric, Registered},
};
use commonware_utils::sync::Mutex;
pub(crate) use disk::{Damage, Disk, Refused};
use rand_core::{TryCryptoRng, TryRng};
use std::{
    convert::Infallible,
    fmt::Display,
    future::Future,
    net::IpAddr,
    pin::Pin,
    sync::Arc,
    task::{Poll, Waker},
    time::{Duration, SystemTime},
};

/// Controls whether the tasks of a process run. Clones share it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Gate(Arc<Mutex<Closed>>);

#[derive(Debug, Default)]
struct Closed {
    closed: bool,
    waiting: Vec<Waker>,
}

impl Gate {
    /// Stops every task of the process.
    pub(crate) fn close(&self) {
        self.0.lock().closed = true;
    }

    /// Lets every task continue.
    pub(crate) fn open(&self) {
        let mut state = self.0.lock();
        state.closed = false;
        state.waiting.drain(..).for_each(Waker::wake);
    }

    /// Polls `future` only while the gate is open.
    async fn pass<F: Future>(self, future: F) -> F::Output {
        let mut future = Box::pin(future);
        std::future::poll_fn(move |task| {
            let mut state = self.0.lock();
            if state.closed {
                if !state.waiting.iter().any(|waiting| waiting.will_wake(task.waker())) {
                    state.waiting.push(task.waker().clone());
                }
                return Poll::Pending;
            }
            drop(state);
            Pin::as_mut(&mut future).poll(task)
        })
        .await
    }
}

/// The runtime as one process sees it.
pub(crate) struct Machine {
    context: Context,
    gate: Gate,
    disk: Disk,
}

impl Machine {
    /// A machine with this gate and this disk.
    pub(crate) const fn new(context: Context, gate: Gate, disk: Disk) -> Self {
        Self { context, gate, disk }
    }
}

impl Supervisor for Machine {
    fn name(&self) -> Name {
        self.context.name()
    }

    fn child(&self, label: &'static str) -> Self {
        Self::new(self.context.child(label), self.gate.clone(), self.disk.clone())
    }

    fn with_attribute(self, key: &'static str, value: impl Display) -> Self {
        Self { context: self.context.with_attribute(key, value), ..self }
    }
}

impl Spawner for Machine {
    fn shared(self, blocking: bool) -> Self {
        Self { context: self.context.shared(blocking), ..self }
    }

    fn dedicated(self) -> Self {
        Self { context: self.context.dedicated(), ..self }
    }

    fn spawn<F, Fut, T>(self, f: F) -> Handle<T>
    where
        F: FnOnce(Self) -> Fut + Send + 'static,
        Fut: Future<Output = T> + Send + 'static,
        T: Send + 'static,
    {
        let Self { context, gate, disk } = self;
        context.spawn(move |context| gate.clone().pass(f(Self::new(context, gate, disk))))
    }

    async fn stop(self, value: i32, timeout: Option<Duration>) -> Result<(), commonware_runtime::Error> {
        self.context.stop(value, timeout).await
    }

    fn stopped(&self) -> Signal {
        self.context.stopped()
    }
}

impl Metrics for Machine {
    fn register<N: Into<String>, H: Into<String>, M: Metric>(
        &self,
        name: N,
        help: H,
        metric: M,
    ) -> Registered<M> {
        self.context.register(name, help, metric)
    }

    fn encode(&self) -> String {
        self.context.encode()
    }
}

impl governor::clock::Clock for Machine {
    type Instant = SystemTime;

    fn now(&self) -> SystemTime {
        self.context.current()
    }
}

impl governor::clock::ReasonablyRealtime for Machine {}

impl Clock for Machine {
    fn current(&self) -> SystemTime {
        self.context.current()
    }

    fn sleep(&self, duration: Duration) -> impl Future<Output = ()> + Send + 'static + use<> {
        self.context.sleep(duration)
    }

    fn sleep_until(&self, deadline: SystemTime) -> impl Future<Output = ()> + Send + 'static + use<> {
        self.context.sleep_until(deadline)
    }
}

impl TryRng for Machine {
    type Error = Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Infallible> {
        self.context.try_next_u32()
    }

    fn try_next_u64(&mut self) -> Result<u64, Infallible> {
        self.context.try_next_u64()
    }

    fn try_fill_bytes(&mut self, bytes: &mut [u8]) -> Result<(), Infallible> {
        self.context.try_fill_bytes(bytes)
    }
}

impl TryCryptoRng for Machine {}

impl Resolver for Machine {
    async fn resolve(&self, host: &str) -> Result<Vec<IpAddr>, commonware_runtime::Error> {
        self.context.resolve(host).await
    }
}
