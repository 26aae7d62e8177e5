//! Ctrl-C, SIGTERM and SIGHUP: a command ends in order, so that half-written files go with it.
//!
//! A thread listens. It interrupts the command, and ends the process itself if the command does not end
//! soon: one that waits for its input or for the reader of its output cannot hear.

use crate::failure::{Exit, Failure, Outcome};
use std::{process, sync::Arc, thread, time::Duration};
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::watch,
};

/// Time that a command has to end in order.
const END_WITHIN: Duration = Duration::from_secs(1);

/// The origin of the request that ends a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Interrupt {
    /// The user, with Ctrl-C.
    User,
    /// The system: SIGTERM or SIGHUP.
    System,
}

/// Signals as they come, from the moment that this was made.
#[derive(Clone)]
pub(crate) struct Signals(Arc<watch::Sender<Option<Interrupt>>>);

impl Signals {
    /// Starts to listen for the three signals.
    pub(crate) fn listen() -> Outcome<Self> {
        let failed = |error: std::io::Error| {
            let next = "raise the limits of open files and threads (`ulimit -n`, `ulimit -u`), and try again";
            Failure::new(Exit::Failed, "cannot listen for signals", error, next)
        };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(failed)?;
        let [mut user, mut terminate, mut hang_up] = {
            let _entered = runtime.enter();
            let kinds = [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup()];
            let [user, terminate, hang_up] = kinds.map(signal);
            [user.map_err(failed)?, terminate.map_err(failed)?, hang_up.map_err(failed)?]
        };
        let tell = Arc::new(watch::Sender::new(None));
        let told = tell.clone();
        thread::spawn(move || {
            runtime.block_on(async {
                let (by, exit) = tokio::select! {
                    _ = user.recv() => (Interrupt::User, Exit::Interrupted),
                    _ = terminate.recv() => (Interrupt::System, Exit::Terminated),
                    _ = hang_up.recv() => (Interrupt::System, Exit::Terminated),
                };
                told.send_replace(Some(by));
                tokio::time::sleep(END_WITHIN).await;
                process::exit(exit as i32);
            });
        });
        Ok(Self(tell))
    }

    /// Waits for the first signal.
    pub(crate) async fn wait(&self) -> Interrupt {
        let mut told = self.0.subscribe();
        let by = told.wait_for(Option::is_some).await.map(|by| *by);
        // The sender lives in `self`, so the awaited value is there.
        by.ok().flatten().unwrap_or(Interrupt::System)
    }
}
