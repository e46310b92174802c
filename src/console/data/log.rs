//! The program's own log, kept in memory for the log pane: a ring of the newest records with a count of those
//! that fell out.

use std::borrow::Cow;
use std::collections::VecDeque;
use std::fmt::Write;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::Context;

use crate::console::filter::Filterable;
use crate::text::clip;
use crate::time::{Clock, Instant};

/// Records that are kept.
pub const KEPT: usize = 4_096;
/// Longest record, in characters.
const MAX_RECORD: usize = 2_000;

/// One record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// Its number, from 1, over the life of the program.
    pub seq: u64,
    /// When.
    pub at: Instant,
    /// How grave.
    pub level: Level,
    /// Which part of the program.
    pub target: String,
    /// What it says, its fields behind it.
    pub text: String,
}

impl Filterable for Record {
    fn field(&self, key: &str) -> Option<Cow<'_, str>> {
        Some(match key {
            "level" | "state" => Cow::Borrowed(self.level.as_str()),
            "target" => Cow::Borrowed(self.target.as_str()),
            _ => return None,
        })
    }

    fn age(&self) -> Option<Duration> {
        None
    }

    fn text(&self) -> Cow<'_, str> {
        Cow::Owned(format!("{} {} {}", self.level, self.target, self.text))
    }
}

#[derive(Debug, Default)]
struct Kept {
    records: VecDeque<Arc<Record>>,
    seen: u64,
}

/// The newest records of this program. Clones share one ring.
#[derive(Debug, Clone)]
pub struct Ring {
    kept: Arc<Mutex<Kept>>,
    clock: Arc<dyn Clock>,
    size: usize,
}

/// What the ring holds at one moment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LogView {
    /// The records, oldest first.
    pub records: Vec<Arc<Record>>,
    /// Records that are no longer there.
    pub dropped: u64,
}

impl Ring {
    /// A ring of [`KEPT`] records.
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        Self::of(KEPT, clock)
    }

    /// A ring of so many records.
    pub fn of(size: usize, clock: Arc<dyn Clock>) -> Self {
        Ring { kept: Arc::default(), clock, size: size.max(1) }
    }

    /// The layer that fills it.
    pub fn layer(&self) -> RingLayer {
        RingLayer(self.clone())
    }

    /// Records that there ever were: a number that tells whether anything is new.
    pub fn seen(&self) -> u64 {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner).seen
    }

    /// What it holds now.
    pub fn view(&self) -> LogView {
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        LogView { records: kept.records.iter().cloned().collect(), dropped: kept.seen - kept.records.len() as u64 }
    }

    fn push(&self, level: Level, target: &str, text: &str) {
        let (at, text) = (self.clock.now(), clip(text, MAX_RECORD).into_owned());
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.seen += 1;
        let seq = kept.seen;
        if kept.records.len() == self.size {
            kept.records.pop_front();
        }
        kept.records.push_back(Arc::new(Record { seq, at, level, target: target.to_owned(), text }));
    }
}

/// Puts what the program traces into a [`Ring`].
#[derive(Debug, Clone)]
pub struct RingLayer(Ring);

impl<S: Subscriber> Layer<S> for RingLayer {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let mut text = Text::default();
        event.record(&mut text);
        let metadata = event.metadata();
        self.0.push(*metadata.level(), metadata.target(), &format!("{}{}", text.message, text.fields));
    }
}

/// A record as one line: its message, then its fields.
#[derive(Default)]
struct Text {
    message: String,
    fields: String,
}

impl Visit for Text {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.record_debug(field, &format_args!("{value}"));
    }

    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        let _ = match field.name() {
            "message" => write!(self.message, "{value:?}"),
            name => write!(self.fields, " {name}={value:?}"),
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::FixedClock;
    use tracing_subscriber::layer::SubscriberExt;

    #[test]
    fn the_newest_records_stay_and_the_others_are_counted() {
        let ring = Ring::of(3, Arc::new(FixedClock::new(Instant(7))));
        let subscriber = tracing_subscriber::registry().with(ring.layer());
        tracing::subscriber::with_default(subscriber, || {
            for n in 0..5u32 {
                tracing::warn!(run_key = "k", n, "passed");
            }
        });
        let view = ring.view();
        assert_eq!((view.records.len(), view.dropped, ring.seen()), (3, 2, 5));
        let newest = view.records.last().unwrap();
        assert_eq!((newest.seq, newest.level, newest.at), (5, Level::WARN, Instant(7)));
        assert_eq!(newest.text, "passed run_key=k n=4");
    }

    #[test]
    fn a_long_record_is_clipped() {
        let ring = Ring::of(1, Arc::new(FixedClock::new(Instant(0))));
        ring.push(Level::INFO, "t", &"x".repeat(1 << 20));
        assert!(ring.view().records[0].text.chars().count() <= MAX_RECORD + 1);
    }
}
