//! Logs a lasting condition once when it begins and once when it is over, however often it is reported in
//! between.
//!
//! Two lines report one condition if they come from one place in the program and differ at most in
//! the object they name (a shard, a segment, a height). It is over when that place was silent for a
//! minute. Only warnings and errors are conditions; alerts have a beginning and an end of their own.

use commonware_utils::sync::Mutex;
use std::{
    collections::{HashMap, HashSet, hash_map::DefaultHasher},
    fmt::{self, Write as _},
    hash::{Hash as _, Hasher as _},
    sync::Arc,
    thread,
    time::{Duration, Instant},
};
use tracing::{
    Event, Level, Subscriber,
    callsite::Identifier,
    field::{Field, Visit},
};
use tracing_subscriber::{
    fmt::{
        FmtContext, FormatEvent, FormatFields,
        format::{Format, Writer},
    },
    registry::LookupSpan,
};

/// Time without a line from its place after which a condition is over.
const SILENT_FOR: Duration = Duration::from_secs(60);
/// Conditions of one place that are distinguished; further ones are only counted.
const APART_MAX: usize = 16;
/// Time between two searches for conditions that are over.
const LOOK_EVERY: Duration = Duration::from_secs(10);
/// Characters of a condition's first line that the line about its end repeats.
const WHAT_MAX: usize = 200;
/// Fields that name the object of a condition; they do not distinguish conditions.
const OBJECTS: [&str; 7] = ["shard", "segment", "height", "epoch", "attempt", "version", "id"];
/// Log target of alerts, which are logged once already.
const ALERTS: &str = "posync::alert";

/// The filter that lets only the first line of every condition pass.
#[derive(Clone, Default)]
pub(super) struct Repeats(Arc<Mutex<Conditions>>);

#[derive(Default)]
struct Conditions(HashMap<Identifier, Condition>);

struct Condition {
    /// Start of its first line.
    what: String,
    logged: HashSet<u64>,
    hidden: u64,
    began: Instant,
    last: Instant,
}

/// A condition that is over, and had lines that were not written.
#[derive(Debug, PartialEq, Eq)]
struct Over {
    what: String,
    hidden: u64,
    lasted: Duration,
}

impl Conditions {
    /// Records a line; returns true if it is to be written.
    fn note(&mut self, place: Identifier, line: &Line, now: Instant) -> bool {
        let condition = self.0.entry(place).or_insert_with(|| Condition {
            what: line.text.chars().take(WHAT_MAX).collect(),
            logged: HashSet::new(),
            hidden: 0,
            began: now,
            last: now,
        });
        condition.last = now;
        let is_new = condition.logged.len() < APART_MAX && condition.logged.insert(line.identity());
        condition.hidden += u64::from(!is_new);
        is_new
    }

    /// Forgets the conditions that are over; returns those with lines that were not written.
    fn over(&mut self, now: Instant) -> Vec<Over> {
        let mut over = Vec::new();
        self.0.retain(|_, condition| {
            let lasts = now.saturating_duration_since(condition.last) < SILENT_FOR;
            if !lasts && condition.hidden > 0 {
                let lasted = condition.last.saturating_duration_since(condition.began);
                over.push(Over {
                    what: std::mem::take(&mut condition.what),
                    hidden: condition.hidden,
                    lasted,
                });
            }
            lasts
        });
        over
    }
}

/// The content of a log event.
#[derive(Default)]
struct Line {
    /// The message and its fields.
    text: String,
    /// Hash of the same without the fields that name the object.
    identity: DefaultHasher,
}

impl Line {
    fn identity(&self) -> u64 {
        self.identity.finish()
    }
}

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        let start = self.text.len();
        // Writing to a string cannot fail.
        let _ = match field.name() {
            "message" => write!(self.text, "{value:?} "),
            name => write!(self.text, "{name}={value:?} "),
        };
        if !OBJECTS.contains(&field.name()) {
            self.text[start..].hash(&mut self.identity);
        }
    }
}

impl Repeats {
    /// Logs the end of every condition that is over, from a thread of its own.
    pub(super) fn log_ends(&self) {
        let Self(conditions) = self.clone();
        thread::spawn(move || {
            loop {
                thread::sleep(LOOK_EVERY);
                let over = conditions.lock().over(Instant::now());
                for Over { what, hidden, lasted } in over {
                    let seconds = lasted.as_secs();
                    tracing::info!(repeated = hidden, seconds, "over: {}", what.trim());
                }
            }
        });
    }
}

impl Repeats {
    fn is_logged(&self, event: &Event<'_>) -> bool {
        let about = event.metadata();
        if *about.level() > Level::WARN || about.target() == ALERTS {
            return true;
        }
        let mut line = Line::default();
        event.record(&mut line);
        let mut conditions = self.0.lock();
        conditions.note(about.callsite(), &line, Instant::now())
    }
}

/// The standard format, for the lines that are to be written.
pub(super) struct WithoutRepeats(pub(super) Repeats);

impl<S, N> FormatEvent<S, N> for WithoutRepeats
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        // A suppressed event is formatted as an empty line without an end: nothing is written.
        if self.0.is_logged(event) { Format::default().format_event(context, writer, event) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{self, Write};

    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// The lines that are written of those that `say` logs, and the conditions that are over a minute later.
    fn written(say: impl FnOnce()) -> (Vec<String>, Vec<Over>) {
        let (lines, repeats) = (Lines::default(), Repeats::default());
        let made = lines.clone();
        let format = tracing_subscriber::fmt().with_ansi(false).event_format(WithoutRepeats(repeats.clone()));
        tracing::subscriber::with_default(format.with_writer(move || made.clone()).finish(), say);
        let text = String::from_utf8(lines.0.lock().clone()).expect("text");
        let mut conditions = repeats.0.lock();
        assert_eq!(conditions.over(Instant::now()), [], "nothing is over yet");
        let over = conditions.over(Instant::now() + SILENT_FOR);
        assert!(conditions.0.is_empty(), "what is over is forgotten");
        (text.lines().map(str::to_owned).collect(), over)
    }

    #[test]
    fn hundreds_of_lines_for_one_cancelled_put_are_one_and_its_end() {
        let (lines, over) = written(|| {
            for shard in 0..378 {
                tracing::warn!(error = "it was cancelled", shard, "a rebuilt shard was not taken");
            }
        });
        assert_eq!(lines.len(), 1, "{lines:?}");
        assert!(lines[0].contains("shard=0"), "{lines:?}");
        assert_eq!(over.len(), 1);
        assert_eq!(over[0].hidden, 377);
        assert!(over[0].what.starts_with("a rebuilt shard was not taken"), "{over:?}");
    }

    #[test]
    fn different_conditions_and_events_are_all_told() {
        let (lines, over) = written(|| {
            for provider in 0..10 {
                tracing::warn!(provider, "a provider lost shards");
                tracing::info!("an agreement is closed");
                tracing::warn!(target: ALERTS, "an alert");
            }
        });
        assert_eq!((lines.len(), over), (30, Vec::new()));
    }

    #[test]
    fn one_place_fills_neither_the_log_nor_memory() {
        let (lines, over) = written(|| {
            for peer in 0..10_000 {
                tracing::error!(peer, "a stranger sent nonsense");
            }
        });
        assert_eq!((lines.len(), over[0].hidden), (APART_MAX, 10_000 - APART_MAX as u64));
    }
}
