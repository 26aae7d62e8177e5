//! A value that several tasks follow: they see the newest value, not every one.
//!
//! `tokio::sync::watch` wakes its waiters in random order. That is fair on many threads, but a run of the
//! deterministic runtime could then never be repeated. Here they wake in the order in which they began to
//! wait ([`tokio::sync::Notify`]). The names are tokio's.

use commonware_utils::sync::{Mutex, MutexGuard};
use std::{
    ops::Deref,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};
use tokio::sync::Notify;

/// Every sender is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no task is left that could change the value")]
pub struct Closed;

struct State<T> {
    value: T,
    version: u64,
}

struct Shared<T> {
    state: Mutex<State<T>>,
    senders: AtomicUsize,
    changed: Notify,
}

impl<T> Shared<T> {
    fn lock(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock()
    }
}

/// The side that changes the value; clones share it.
pub struct Sender<T>(Arc<Shared<T>>);

/// The side that follows the value; each one has its own mark of the version it has seen.
pub struct Receiver<T> {
    shared: Arc<Shared<T>>,
    seen: u64,
}

/// A lock on the value: drop it at once.
pub struct Ref<'a, T>(MutexGuard<'a, State<T>>);

impl<T> Deref for Ref<'_, T> {
    type Target = T;
    fn deref(&self) -> &T {
        &self.0.value
    }
}

/// Creates a sender, and a receiver that has seen `value`.
pub fn channel<T>(value: T) -> (Sender<T>, Receiver<T>) {
    let sender = Sender::new(value);
    let receiver = sender.subscribe();
    (sender, receiver)
}

impl<T> Sender<T> {
    /// Creates a sender without receivers.
    pub fn new(value: T) -> Self {
        let state = Mutex::new(State { value, version: 0 });
        Self(Arc::new(Shared { state, senders: AtomicUsize::new(1), changed: Notify::new() }))
    }

    /// Returns a receiver that has seen the present value.
    pub fn subscribe(&self) -> Receiver<T> {
        let seen = self.0.lock().version;
        Receiver { shared: self.0.clone(), seen }
    }

    /// The present value, locked.
    pub fn borrow(&self) -> Ref<'_, T> {
        Ref(self.0.lock())
    }

    /// Changes the value and wakes all waiting tasks, even if it is equal. Returns the old value.
    pub fn send_replace(&self, value: T) -> T {
        let mut old = value;
        self.send_if_modified(|now| {
            std::mem::swap(now, &mut old);
            true
        });
        old
    }

    /// Changes the value in place. Wakes all waiting tasks if `change` returns true, and returns that.
    pub fn send_if_modified(&self, change: impl FnOnce(&mut T) -> bool) -> bool {
        let mut state = self.0.lock();
        let modified = change(&mut state.value);
        state.version += u64::from(modified);
        drop(state);
        if modified {
            self.0.changed.notify_waiters();
        }
        modified
    }
}

impl<T> Clone for Sender<T> {
    fn clone(&self) -> Self {
        self.0.senders.fetch_add(1, Ordering::Relaxed);
        Self(self.0.clone())
    }
}

impl<T> Drop for Sender<T> {
    fn drop(&mut self) {
        if self.0.senders.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.0.changed.notify_waiters();
        }
    }
}

impl<T> Receiver<T> {
    /// The present value; it does not count as seen.
    pub fn borrow(&self) -> Ref<'_, T> {
        Ref(self.shared.lock())
    }

    /// The present value, which counts as seen.
    pub fn borrow_and_update(&mut self) -> Ref<'_, T> {
        let state = self.shared.lock();
        self.seen = state.version;
        Ref(state)
    }

    /// Marks the present value as seen.
    pub fn mark_unchanged(&mut self) {
        self.seen = self.shared.lock().version;
    }

    /// Waits for a value that was not seen, and marks it as seen.
    ///
    /// # Errors
    /// [`Closed`].
    pub async fn changed(&mut self) -> Result<(), Closed> {
        loop {
            let changed = self.shared.changed.notified();
            tokio::pin!(changed);
            // Registered here, so that a change after the check is not missed.
            changed.as_mut().enable();
            let version = self.shared.lock().version;
            if version != self.seen {
                self.seen = version;
                return Ok(());
            }
            if self.shared.senders.load(Ordering::Acquire) == 0 {
                return Err(Closed);
            }
            changed.await;
        }
    }

    /// Waits until the value, seen or not, satisfies `good`.
    ///
    /// # Errors
    /// [`Closed`].
    pub async fn wait_for(&mut self, mut good: impl FnMut(&T) -> bool) -> Result<Ref<'_, T>, Closed> {
        while !good(&self.borrow_and_update()) {
            self.changed().await?;
        }
        Ok(self.borrow())
    }
}

impl<T> Clone for Receiver<T> {
    fn clone(&self) -> Self {
        Self { shared: self.shared.clone(), seen: self.seen }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::{FutureExt as _, task::ArcWake};

    #[test]
    fn sees_the_newest_value_once() {
        let (sender, mut receiver) = channel(1);
        assert!(receiver.changed().now_or_never().is_none());
        assert_eq!((sender.send_replace(2), sender.send_replace(3)), (1, 2));
        assert_eq!(receiver.changed().now_or_never(), Some(Ok(())));
        assert_eq!(*receiver.borrow(), 3);
        assert!(receiver.changed().now_or_never().is_none());
        assert!(!sender.send_if_modified(|_| false));
        assert!(receiver.changed().now_or_never().is_none());
        sender.send_replace(3);
        receiver.mark_unchanged();
        assert!(receiver.changed().now_or_never().is_none());
        assert_eq!(*receiver.wait_for(|value| *value == 3).now_or_never().expect("now").expect("open"), 3);
    }

    #[test]
    fn ends_with_the_last_sender_but_shows_the_last_value_first() {
        let (sender, mut receiver) = channel(1);
        let second = sender.clone();
        drop(sender);
        assert!(receiver.changed().now_or_never().is_none());
        second.send_replace(2);
        drop(second);
        assert_eq!(receiver.changed().now_or_never(), Some(Ok(())));
        assert_eq!(receiver.changed().now_or_never(), Some(Err(Closed)));
        assert_eq!(receiver.wait_for(|value| *value == 9).now_or_never().expect("now").err(), Some(Closed));
    }

    struct Order(usize, Arc<Mutex<Vec<usize>>>);

    impl ArcWake for Order {
        fn wake_by_ref(this: &Arc<Self>) {
            this.1.lock().push(this.0);
        }
    }

    #[test]
    fn wakes_in_the_order_of_waiting() {
        let (sender, receiver) = channel(0);
        let woken: Arc<Mutex<Vec<usize>>> = Arc::default();
        let mut waiting: Vec<_> = (0..32)
            .map(|_| {
                let mut receiver = receiver.clone();
                async move { receiver.changed().await }.boxed()
            })
            .collect();
        for (place, future) in waiting.iter_mut().enumerate() {
            let waker = futures::task::waker(Arc::new(Order(place, woken.clone())));
            assert!(future.as_mut().poll(&mut std::task::Context::from_waker(&waker)).is_pending());
        }
        sender.send_replace(1);
        assert!(woken.lock().iter().copied().eq(0..32));
    }
}
