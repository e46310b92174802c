//! A run's events in time, with the progress between them.

use std::borrow::Cow;
use std::time::Duration;

use serde_json::Value;

use super::Source;
use crate::console::filter::Filterable;
use crate::ledger::{EventRow, RunRow, SampleRow, Status};
use crate::text::clip;
use crate::time::Instant;

/// Latest attempts whose progress samples are read.
const ATTEMPTS: u32 = 5;
/// Longest detail of an event, in characters.
const MAX_DETAIL: usize = 2_000;

/// One event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// Its number.
    pub seq: u64,
    /// What happened.
    pub name: String,
    /// The status that the run had then.
    pub status: Status,
    /// When.
    pub at: Instant,
    /// Who.
    pub actor: String,
    /// Why, as a reason code.
    pub reason: Option<String>,
    /// The gate it is about.
    pub phase: Option<String>,
    /// Its particulars as JSON in one line.
    pub detail: String,
    /// Micros from this run's first event in sight to this one.
    pub since_first: i64,
    /// Micros since the last snapshot, for the filter.
    pub age_us: i64,
}

impl Filterable for Event {
    fn field(&self, key: &str) -> Option<Cow<'_, str>> {
        Some(match key {
            "event" | "type" => Cow::Borrowed(self.name.as_str()),
            "state" | "status" => Cow::Borrowed(self.status.as_str()),
            "actor" => Cow::Borrowed(self.actor.as_str()),
            "reason" => Cow::Borrowed(self.reason.as_deref().unwrap_or_default()),
            "phase" => Cow::Borrowed(self.phase.as_deref().unwrap_or_default()),
            "seq" => Cow::Owned(self.seq.to_string()),
            _ => return None,
        })
    }

    fn age(&self) -> Option<Duration> {
        u64::try_from(self.age_us).ok().map(Duration::from_micros)
    }

    fn text(&self) -> Cow<'_, str> {
        Cow::Owned(format!("{} {} {} {} {}", self.name, self.status, self.actor, self.reason.as_deref().unwrap_or_default(), self.detail))
    }
}

/// How far the run was at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sample {
    /// The attempt.
    pub attempt: u32,
    /// When.
    pub at: Instant,
    /// The gate it worked at.
    pub phase: String,
    /// Units done and to do.
    pub done: u64,
    /// Units to do; 0 where that is not known.
    pub total: u64,
}

/// The story of one run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TimelineView {
    /// Its newest events, in order.
    pub events: Vec<Event>,
    /// Events that there are, in sight or not.
    pub total: u64,
    /// Progress, in order.
    pub samples: Vec<Sample>,
    /// What is wrong with the chain of events; none where it was not looked at.
    pub chain: Result<Vec<String>, String>,
    /// Why samples are missing, where they could not be read.
    pub unknown: Option<String>,
}

impl TimelineView {
    /// Reads it.
    pub fn load(source: &Source, row: &RunRow, events: &[EventRow]) -> Self {
        let (samples, unknown) = samples(source, row);
        Self::of(source, row, events, &samples, unknown)
    }

    /// Makes it of what was read already.
    pub fn of(source: &Source, row: &RunRow, events: &[EventRow], samples: &[SampleRow], unknown: Option<String>) -> Self {
        let number = |s: &SampleRow, key: &str| s.sample.get(key).and_then(Value::as_u64).unwrap_or(0);
        let samples = samples.iter().map(|s| Sample {
            attempt: s.attempt,
            at: s.at,
            phase: s.sample.get("phase").and_then(Value::as_str).unwrap_or_default().to_owned(),
            done: number(s, "done"),
            total: number(s, "total"),
        });
        let first = events.first().map_or(0, |e| e.at.0);
        let now = source.clock.now();
        TimelineView {
            events: events.iter().map(|e| event(e, first, now)).collect(),
            total: row.last_seq,
            samples: samples.collect(),
            chain: source.ledger.verify_chain(&row.run_key).map_err(|e| e.to_string()),
            unknown,
        }
    }

    /// The statuses that the run went through: from which event on it had which.
    pub fn states(&self) -> Vec<(usize, Status)> {
        let mut states: Vec<(usize, Status)> = Vec::new();
        for (index, event) in self.events.iter().enumerate() {
            if states.last().is_none_or(|(_, status)| *status != event.status) {
                states.push((index, event.status));
            }
        }
        states
    }

    /// The gate and its progress in hundredths at each sample up to a moment, oldest first.
    pub fn progress(&self, until: Option<Instant>) -> Vec<(&str, u64)> {
        let in_time = |s: &&Sample| until.is_none_or(|until| s.at <= until) && s.total > 0;
        let share = |s: &Sample| u64::try_from(u128::from(s.done) * 100 / u128::from(s.total)).unwrap_or(100).min(100);
        self.samples.iter().filter(in_time).map(|sample| (sample.phase.as_str(), share(sample))).collect()
    }
}

/// The progress samples of the latest attempts, in order, and why some could not be read.
pub fn samples(source: &Source, row: &RunRow) -> (Vec<SampleRow>, Option<String>) {
    let (mut samples, mut unknown) = (Vec::new(), None);
    for attempt in row.attempt().saturating_sub(ATTEMPTS)..=row.attempt() {
        match source.ledger.samples(&row.run_key, attempt) {
            Ok(found) => samples.extend(found),
            Err(error) => unknown = Some(error.to_string()),
        }
    }
    (samples, unknown)
}

fn event(event: &EventRow, first: i64, now: Instant) -> Event {
    Event {
        seq: event.seq,
        name: event.event_type.clone(),
        status: event.status,
        at: event.at,
        actor: event.actor.clone(),
        reason: event.reason_code.clone(),
        phase: event.detail.get("phase").and_then(Value::as_str).map(str::to_owned),
        detail: clip(&event.detail.to_string(), MAX_DETAIL).into_owned(),
        since_first: event.at.0.saturating_sub(first),
        age_us: now.0.saturating_sub(event.at.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::console::data::testing::World;

    #[test]
    fn the_story_has_its_states_and_an_unbroken_chain() {
        let world = World::play("commit-refused");
        let (source, row, events) = world.newest();
        let view = TimelineView::load(&source, &row, &events);
        let states: Vec<Status> = view.states().into_iter().map(|(_, s)| s).collect();
        assert_eq!(states, [Status::Queued, Status::Running, Status::PublishPending, Status::Running, Status::Done]);
        assert_eq!((view.events.len() as u64, view.chain.clone()), (view.total, Ok(Vec::new())));
        assert_eq!(view.events[0].since_first, 0);
        assert!(view.events.iter().any(|e| e.reason.as_deref() == Some("COMMIT_FAILED")));
        assert!(!view.progress(None).is_empty() && view.progress(Some(Instant(0))).is_empty());
    }
}
