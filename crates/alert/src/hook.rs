//! Sends signals: to the log at once, to a webhook through a bounded queue and a thread of its own.
//!
//! ```text
//!   send --> log
//!        \-> queue (64) --thread--> POST --2xx--> next
//!              full: dropped and logged  \--else--> pause 1, 2, 4 .. 60 s, at most 8 times
//! ```

#![expect(clippy::disallowed_types, reason = "a thread waits on a condition, without the engine's crates")]

use crate::{Alert, Kind, RaisedAlerts, Signal, State, trust};
use std::{
    fmt,
    sync::{
        Arc, Condvar, Mutex, MutexGuard,
        mpsc::{Receiver, SyncSender, sync_channel},
    },
    thread,
    time::{Duration, Instant},
};
use ureq::tls::RootCerts;

/// Signals that may wait for the hook; further ones are dropped.
const QUEUE: usize = 64;
/// Attempts to send one signal before it is given up.
const ATTEMPTS: u32 = 8;
/// Pause after the first failed attempt; doubled after each, up to [`PAUSE_MAX`].
const PAUSE: Duration = Duration::from_secs(1);
/// Longest pause between two attempts.
const PAUSE_MAX: Duration = Duration::from_secs(60);
/// Time limit of one attempt, from the name lookup to the last byte.
const ATTEMPT: Duration = Duration::from_secs(10);

/// Time that a node which ends waits for its last alert to be sent.
const LAST_WORDS: Duration = Duration::from_secs(5);

/// The error of an address or a certificate file that cannot be used for alerts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadHook {
    /// The address is no HTTP URL with a host.
    #[error("an alert URL begins with http:// or https:// and names a host")]
    Url,
    /// The file holds no usable certificate of an authority.
    #[error("the file of certificate authorities holds no certificate that could sign another, in PEM form")]
    Authorities,
}

/// The destination of alerts: cheap to clone; sending never waits. The default sends to the log alone.
#[derive(Clone, Default)]
pub struct Alerts {
    hook: Option<Hook>,
}

#[derive(Clone)]
struct Hook {
    queue: SyncSender<Signal>,
    /// Count of the signals that are neither sent nor given up yet.
    waiting: Arc<Waiting>,
}

#[derive(Default)]
struct Waiting {
    count: Mutex<usize>,
    changed: Condvar,
}

impl Waiting {
    fn count(&self) -> MutexGuard<'_, usize> {
        self.count.lock().expect("no holder of this lock panics")
    }

    fn add(&self) {
        *self.count() += 1;
    }

    fn done(&self) {
        *self.count() -= 1;
        self.changed.notify_all();
    }
}

impl fmt::Debug for Alerts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The address is a secret: anyone who knows it may write there.
        f.debug_struct("Alerts").field("hook", &self.hook.is_some()).finish()
    }
}

impl Alerts {
    /// Sends alerts to the log and, as JSON, to this address if one is given. The certificate of an `https` host
    /// must be signed by one of these authorities (PEM), if given.
    ///
    /// # Errors
    /// [`BadHook`] for an unusable address or file.
    pub fn to(url: Option<&str>, authorities: Option<&[u8]>) -> Result<Self, BadHook> {
        let roots = trust::roots(authorities)?;
        url.map_or(Ok(Self::default()), |url| Self::paced(url, roots, PAUSE))
    }

    pub(crate) fn paced(url: &str, roots: RootCerts, pause: Duration) -> Result<Self, BadHook> {
        let rest =
            url.strip_prefix("http://").or_else(|| url.strip_prefix("https://")).ok_or(BadHook::Url)?;
        if rest.is_empty() || rest.starts_with('/') || rest.contains(char::is_whitespace) {
            return Err(BadHook::Url);
        }
        let (queue, signals) = sync_channel(QUEUE);
        let waiting = Arc::new(Waiting::default());
        let (url, delivery) = (url.to_owned(), waiting.clone());
        let thread = thread::Builder::new().name("alerts".into());
        let started = thread.spawn(move || deliver(&url, roots, &signals, &delivery, pause));
        if let Err(error) = started {
            tracing::error!(%error, "no thread for alerts could start: alerts go to the log only");
            return Ok(Self::default());
        }
        Ok(Self { hook: Some(Hook { queue, waiting }) })
    }

    /// Sends a signal for each alert of `node` that began or ended, given the alerts that hold now.
    pub fn watch(&self, watch: &mut RaisedAlerts, node: &str, height: Option<u64>, now: Vec<Alert>) {
        for (state, alert) in watch.step(now) {
            self.send(Signal::new(node.to_owned(), height, state, alert));
        }
    }

    /// Sends a signal: to the log at once, to the hook as soon as its thread is free.
    pub fn send(&self, signal: Signal) {
        let Signal { alert, state, height, what, next, due, .. } = &signal;
        match state {
            State::Raised => {
                tracing::warn!(target: "posync::alert", ?alert, ?height, ?due, "{what}; {next}");
            }
            State::Cleared => tracing::info!(target: "posync::alert", ?alert, ?height, "over: {what}"),
        }
        let Some(hook) = &self.hook else { return };
        hook.waiting.add();
        if hook.queue.try_send(signal).is_err() {
            hook.waiting.done();
            tracing::warn!("{QUEUE} alerts wait for the webhook; this one is in the log only");
        }
    }

    /// Sends the alert that `node` has ended, and waits up to five seconds for its delivery.
    pub fn offline(&self, node: &str, height: Option<u64>, why: &dyn fmt::Display) {
        let next = "it earns and decides nothing until it runs again: mend the cause and start it";
        let (what, next) = (format!("it went offline: {why}"), next.into());
        let alert = Alert { kind: Kind::Offline, what, next, due: None };
        self.send(Signal::new(node.to_owned(), height, State::Raised, alert));
        if !self.flush(LAST_WORDS) {
            tracing::warn!("the webhook did not get the alert that this node went offline");
        }
    }

    /// Waits at most this long until every signal was sent or given up; returns false if some still wait.
    pub fn flush(&self, within: Duration) -> bool {
        let Some(hook) = &self.hook else { return true };
        let deadline = Instant::now() + within;
        let mut count = hook.waiting.count();
        while *count > 0 {
            let Some(left) = deadline.checked_duration_since(Instant::now()) else { return false };
            let waited = hook.waiting.changed.wait_timeout(count, left);
            count = waited.expect("no holder of this lock panics").0;
        }
        true
    }
}

/// The body of the thread: sends one signal after the other until every sender is gone.
fn deliver(url: &str, roots: RootCerts, signals: &Receiver<Signal>, waiting: &Waiting, pause: Duration) {
    let tls = trust::tls(roots);
    let agent = ureq::Agent::config_builder().timeout_global(Some(ATTEMPT)).tls_config(tls).build();
    let agent = ureq::Agent::from(agent);
    while let Ok(signal) = signals.recv() {
        let body = serde_json::to_vec(&signal).expect("a signal is plain data");
        let mut rest = pause;
        for attempt in 1..=ATTEMPTS {
            let sent = agent.post(url).content_type("application/json").send(&body);
            let Err(error) = sent else { break };
            let last = attempt == ATTEMPTS || !may_pass(&error);
            tracing::warn!(attempt, last, "an alert did not reach its webhook: {}", describe(&error));
            if last {
                break;
            }
            thread::sleep(rest);
            // Not the `Backoff` of the client: this crate links none of the network.
            rest = (rest * 2).min(PAUSE_MAX);
        }
        waiting.done();
    }
}

/// True if the same request may succeed later.
const fn may_pass(error: &ureq::Error) -> bool {
    match error {
        ureq::Error::StatusCode(code) => *code == 408 || *code == 429 || *code >= 500,
        _ => true,
    }
}

/// An error in words, without the address.
fn describe(error: &ureq::Error) -> String {
    if let Some(handshake) = trust::describe(error) {
        return handshake.into();
    }
    match error {
        ureq::Error::StatusCode(code) => format!("it answered with status {code}"),
        ureq::Error::Timeout(_) => "it did not answer in time".into(),
        ureq::Error::Io(error) => format!("the connection failed ({})", error.kind()),
        ureq::Error::HostNotFound => "its host has no address".into(),
        _ => "the request failed".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_utils::listen;
    use std::{net::TcpListener, sync::mpsc};

    const SOON: Duration = Duration::from_millis(5);
    const LONG: Duration = Duration::from_secs(30);

    fn signal(what: &str) -> Signal {
        let alert = Alert { kind: Kind::ReadsFail, what: what.into(), next: "act".into(), due: Some(4) };
        Signal::new("sync1x".into(), Some(9), State::Raised, alert)
    }

    #[test]
    fn an_alert_is_posted_as_json() {
        let (url, got) = listen(vec![]);
        let alerts = Alerts::to(Some(&url), None).expect("an address");
        alerts.send(signal("reads fail"));
        let posted = got.recv_timeout(LONG).expect("it arrives");
        assert_eq!(posted.line, "POST /hook/secret HTTP/1.1");
        assert_eq!(posted.json, serde_json::to_value(signal("reads fail")).expect("plain data"));
        assert!(alerts.flush(LONG));
        assert!(!format!("{alerts:?}").contains("secret"));
    }

    #[test]
    fn a_hook_that_fails_is_tried_again_and_one_that_refuses_is_not() {
        let (url, got) = listen(vec![500, 429, 503, 200, 404, 200]);
        let alerts = Alerts::paced(&url, RootCerts::WebPki, SOON).expect("an address");
        for what in ["one", "two", "three"] {
            alerts.send(signal(what));
        }
        assert!(alerts.flush(LONG));
        let texts: Vec<String> =
            got.try_iter().map(|posted| posted.json["what"].as_str().expect("text").to_owned()).collect();
        assert_eq!(texts, ["one", "one", "one", "one", "two", "three"]);
    }

    #[test]
    fn a_hook_that_hangs_makes_nobody_wait() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let url = format!("http://{}/", listener.local_addr().expect("it is bound"));
        let alerts = Alerts::to(Some(&url), None).expect("an address");
        let (sent, all) = mpsc::channel();
        let sender = alerts.clone();
        thread::spawn(move || {
            for number in 0..10 * QUEUE {
                sender.send(signal(&number.to_string()));
            }
            sent.send(()).expect("it is awaited");
        });
        all.recv_timeout(ATTEMPT / 2).expect("sending takes no time");
        assert!(!alerts.flush(Duration::from_millis(1)), "the hook has answered nothing");
        let waiting = alerts.hook.as_ref().map(|hook| *hook.waiting.count());
        assert!(waiting.is_some_and(|count| count <= QUEUE + 1), "{waiting:?}");
    }

    #[test]
    fn nobody_listens_and_it_is_given_up() {
        let free = TcpListener::bind("127.0.0.1:0").expect("a free port").local_addr().expect("it was bound");
        let alerts = Alerts::paced(&format!("http://{free}/"), RootCerts::WebPki, SOON).expect("an address");
        alerts.send(signal("to nobody"));
        assert!(alerts.flush(LONG), "eight attempts, then the next");
    }

    #[test]
    fn a_node_that_ends_says_so_before_it_is_gone() {
        let (url, got) = listen(vec![]);
        let alerts = Alerts::to(Some(&url), None).expect("an address");
        alerts.offline("sync1x", Some(3), &"the volume is gone");
        let json = got.try_recv().expect("it was heard").json;
        assert_eq!(
            (&json["alert"], &json["what"]),
            (&"offline".into(), &"it went offline: the volume is gone".into())
        );
    }

    #[test]
    fn addresses_are_checked() {
        for bad in ["", "example.org", "ftp://example.org", "http://", "https:///x", "http://a b"] {
            assert_eq!(Alerts::to(Some(bad), None).err(), Some(BadHook::Url), "{bad}");
        }
        let alerts = Alerts::to(Some("https://hooks.example.org/services/x"), None).expect("an address");
        assert!(alerts.flush(Duration::ZERO));
        assert!(Alerts::to(None, None).expect("none").flush(Duration::ZERO));
    }
}
