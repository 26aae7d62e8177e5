//! The runtime behind one small handle: sleep, spawn, time, randomness. Only [`crate::run`] knows which
//! runtime and network it is; everything below is compiled once.

use commonware_macros::select;
use commonware_runtime::{Clock, Handle, Spawner};
use rand_core::CryptoRng;
use std::{
    future::Future,
    pin::Pin,
    sync::{Arc, Mutex},
    time::{Duration, SystemTime},
};

type Task = Pin<Box<dyn Future<Output = ()> + Send>>;

/// A handle to the runtime.
#[derive(Clone)]
pub struct Environment {
    sleep: Arc<dyn Fn(Duration) -> Task + Send + Sync>,
    spawn: Arc<dyn Fn(Task) -> Handle<()> + Send + Sync>,
    random: Arc<dyn Fn() -> [u8; 32] + Send + Sync>,
    now: Arc<dyn Fn() -> SystemTime + Send + Sync>,
}

impl Environment {
    /// Tasks become children of `context`: they end with it.
    pub fn new<E: Spawner + Clock + CryptoRng>(context: &E) -> Self {
        let (sleeper, spawner) = (context.child("sleep"), context.child("tasks"));
        let clock = context.child("clock");
        let random = Mutex::new(context.child("random"));
        Self {
            sleep: Arc::new(move |duration| Box::pin(sleeper.sleep(duration))),
            spawn: Arc::new(move |task| spawner.child("task").spawn(|_| task)),
            random: Arc::new(move || {
                let mut bytes = [0; 32];
                random.lock().expect("no holder of this lock panics").fill_bytes(&mut bytes);
                bytes
            }),
            now: Arc::new(move || clock.current()),
        }
    }

    /// The time, to measure how long something takes.
    pub fn now(&self) -> SystemTime {
        (self.now)()
    }

    /// Waits.
    pub fn sleep(&self, duration: Duration) -> impl Future<Output = ()> + Send + use<> {
        (self.sleep)(duration)
    }

    /// Runs a task; it goes on when the handle is dropped.
    pub fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) -> Handle<()> {
        (self.spawn)(Box::pin(task))
    }

    /// 32 random bytes.
    pub fn random(&self) -> [u8; 32] {
        (self.random)()
    }

    /// What `work` gives within `duration`, else `None` (and `work` is dropped).
    pub async fn within<T>(&self, duration: Duration, work: impl Future<Output = T>) -> Option<T> {
        select! {
            result = work => Some(result),
            () = self.sleep(duration) => None,
        }
    }
}
