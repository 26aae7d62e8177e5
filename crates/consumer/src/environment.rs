//! The runtime behind one small handle: sleep, spawn, time, randomness. Only [`crate::run`] is generic
//! over runtime and network; everything below it is compiled once.

use commonware_macros::select;
use commonware_runtime::{Clock, Handle, Resolver, Spawner};
use commonware_utils::sync::Mutex;
use posync_client::address::Address;
use rand_core::CryptoRng;
use std::{
    future::Future,
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
    time::{Duration, SystemTime},
};

/// The first socket address of a service, if it has one now.
type Resolved = Pin<Box<dyn Future<Output = Option<SocketAddr>> + Send>>;
type Task = Pin<Box<dyn Future<Output = ()> + Send>>;

/// A cloneable handle to the runtime, without type parameters.
#[derive(Clone)]
pub struct Environment {
    sleep: Arc<dyn Fn(Duration) -> Task + Send + Sync>,
    spawn: Arc<dyn Fn(Task) -> Handle<()> + Send + Sync>,
    random: Arc<dyn Fn() -> [u8; 32] + Send + Sync>,
    now: Arc<dyn Fn() -> SystemTime + Send + Sync>,
    resolve: Arc<dyn Fn(Address) -> Resolved + Send + Sync>,
}

impl Environment {
    /// A handle whose tasks are children of `context`, and end with it.
    pub fn new<E: Spawner + Clock + CryptoRng + Resolver>(context: &E) -> Self {
        let (sleeper, spawner) = (context.child("sleep"), context.child("tasks"));
        let clock = context.child("clock");
        let resolver = Arc::new(context.child("resolver"));
        let random = Mutex::new(context.child("random"));
        Self {
            sleep: Arc::new(move |duration| Box::pin(sleeper.sleep(duration))),
            spawn: Arc::new(move |task| spawner.child("task").spawn(|_| task)),
            random: Arc::new(move || {
                let mut bytes = [0; 32];
                random.lock().fill_bytes(&mut bytes);
                bytes
            }),
            now: Arc::new(move || clock.current()),
            resolve: Arc::new(move |address| {
                let resolver = resolver.clone();
                Box::pin(async move { address.resolve(&*resolver).await.ok()?.first().copied() })
            }),
        }
    }

    /// The same, with another clock on the wall.
    #[cfg(test)]
    pub(crate) fn with_now(self, now: impl Fn() -> SystemTime + Send + Sync + 'static) -> Self {
        Self { now: Arc::new(now), ..self }
    }

    /// The runtime's current time, for measuring durations.
    pub fn now(&self) -> SystemTime {
        (self.now)()
    }

    /// Completes after `duration` of the runtime's time.
    pub fn sleep(&self, duration: Duration) -> impl Future<Output = ()> + Send + use<> {
        (self.sleep)(duration)
    }

    /// Runs a task, which continues if the handle is dropped.
    pub fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) -> Handle<()> {
        (self.spawn)(Box::pin(task))
    }

    /// Draws 32 random bytes from the runtime.
    pub fn random(&self) -> [u8; 32] {
        (self.random)()
    }

    /// The first socket address that `address` has now; `None` if its name has none.
    pub(crate) async fn resolve(&self, address: Address) -> Option<SocketAddr> {
        (self.resolve)(address).await
    }

    /// Runs `work` for at most `duration`; after that drops it and returns `None`.
    pub async fn within<T>(&self, duration: Duration, work: impl Future<Output = T>) -> Option<T> {
        select! {
            result = work => Some(result),
            () = self.sleep(duration) => None,
        }
    }
}
