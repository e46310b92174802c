//! Time travel: what a run looked like at any of its events and progress samples, computed from the record
//! alone.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::ledger::{EventRow, SampleRow, Status};
use crate::time::Instant;

/// A moment that can be travelled to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Point {
    Event(usize),
    Sample(usize),
}

/// How a gate stood.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Gate {
    /// Being worked at.
    Running,
    /// Passed.
    Passed,
    /// It refused, or the run ended there.
    Ended,
}

/// How far a partition was.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LaneThen {
    /// The partition.
    pub name: String,
    /// Offsets wanted.
    pub wanted: u64,
    /// Records delivered.
    pub delivered: u64,
}

/// A run as it stood at one moment.
#[derive(Debug, Clone, PartialEq)]
pub struct Moment {
    /// When.
    pub at: Instant,
    /// Number of the latest event by then.
    pub seq: u64,
    /// What happened at this very moment, if it was an event.
    pub event: Option<String>,
    /// State.
    pub status: Status,
    /// Why, if it had ended.
    pub reason: Option<String>,
    /// The attempt.
    pub attempt: u32,
    /// Whether it waited at a gate for a person.
    pub paused: bool,
    /// The phase entered last.
    pub phase: Option<String>,
    /// Gates of the attempt by phase, as far as it had come.
    pub gates: BTreeMap<String, Gate>,
    /// Units done and to do, by the latest sample.
    pub units: (u64, u64),
    /// Partitions, by the latest sample.
    pub lanes: Vec<LaneThen>,
}

/// The record of a run, to be travelled in.
#[derive(Debug, Clone, Default)]
pub struct Story {
    events: Vec<EventRow>,
    samples: Vec<SampleRow>,
    points: Vec<Point>,
}

impl Story {
    /// The moments of these events and samples, in order; where both are of one instant the event comes first.
    pub fn new(events: Vec<EventRow>, samples: Vec<SampleRow>) -> Self {
        let mut keyed: Vec<(Instant, u8, usize, Point)> = Vec::with_capacity(events.len() + samples.len());
        keyed.extend(events.iter().enumerate().map(|(i, e)| (e.at, 0, i, Point::Event(i))));
        keyed.extend(samples.iter().enumerate().map(|(i, s)| (s.at, 1, i, Point::Sample(i))));
        keyed.sort_by_key(|(at, kind, i, _)| (*at, *kind, *i));
        // A clock that was set back must not turn the events round: their numbers are their order.
        let mut order = 0..events.len();
        let points = keyed
            .into_iter()
            .map(|(.., point)| match point {
                Point::Event(_) => order.next().map_or(point, Point::Event),
                Point::Sample(_) => point,
            })
            .collect();
        Story { events, samples, points }
    }

    /// How many moments there are.
    pub fn len(&self) -> usize {
        self.points.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.points.is_empty()
    }

    /// The moment of an event, by its number.
    pub fn of_event(&self, seq: u64) -> Option<usize> {
        let index = self.events.iter().position(|e| e.seq == seq)?;
        self.points.iter().position(|p| *p == Point::Event(index))
    }

    /// The event nearest before moment `from`, or after it, as a moment.
    pub fn step(&self, from: usize, on: bool) -> Option<usize> {
        let event = |at: &usize| matches!(self.points.get(*at), Some(Point::Event(_)));
        if on { (from.saturating_add(1)..self.len()).find(event) } else { (0..from.min(self.len())).rev().find(event) }
    }

    /// How many microseconds pass between a moment and the next one; none at the end.
    pub fn gap(&self, at: usize) -> Option<i64> {
        Some(self.time(at.checked_add(1)?)?.0.saturating_sub(self.time(at)?.0).max(0))
    }

    fn time(&self, at: usize) -> Option<Instant> {
        match self.points.get(at)? {
            Point::Event(i) => self.events.get(*i).map(|e| e.at),
            Point::Sample(i) => self.samples.get(*i).map(|s| s.at),
        }
    }

    /// The run as it stood at moment `at`, counted from 0; nothing beyond the last one.
    pub fn at(&self, at: usize) -> Option<Moment> {
        let shown = self.points.get(..=at)?;
        let mut moment = Moment {
            at: self.time(at)?,
            seq: 0,
            event: None,
            status: Status::Queued,
            reason: None,
            attempt: 0,
            paused: false,
            phase: None,
            gates: BTreeMap::new(),
            units: (0, 0),
            lanes: Vec::new(),
        };
        let mut sample = None;
        for point in shown {
            match point {
                Point::Event(i) => {
                    if let Some(event) = self.events.get(*i) {
                        moment.take(event);
                    }
                }
                Point::Sample(i) => sample = self.samples.get(*i).filter(|s| moment.attempt <= s.attempt),
            }
        }
        if !matches!(self.points.get(at), Some(Point::Event(_))) {
            moment.event = None;
        }
        if let Some(sample) = sample {
            moment.measure(&sample.sample);
        }
        Some(moment)
    }
}

impl Moment {
    /// What an event changes.
    fn take(&mut self, event: &EventRow) {
        (self.seq, self.status, self.event) = (event.seq, event.status, Some(event.event_type.clone()));
        self.reason = event.reason_code.clone().filter(|_| event.status != Status::Running);
        let phase = event.detail.get("phase").and_then(Value::as_str).map(str::to_owned);
        match event.event_type.as_str() {
            "RUN_STARTED" => {
                let attempt = event.detail.get("attempt").and_then(Value::as_u64).and_then(|n| u32::try_from(n).ok());
                self.attempt = attempt.unwrap_or(self.attempt + 1);
                (self.phase, self.paused) = (None, false);
                self.gates.clear();
            }
            "PHASE_ENTERED" => {
                if let Some(phase) = &phase {
                    self.gates.insert(phase.clone(), Gate::Running);
                }
                self.phase = phase;
            }
            "GATE_PASSED" => {
                if let Some(phase) = phase {
                    self.gates.insert(phase, Gate::Passed);
                }
            }
            "RUN_PAUSED" => self.paused = true,
            "RUN_UNPAUSED" => self.paused = false,
            _ => {}
        }
        if self.status != Status::Running {
            self.paused = false;
            self.gates.values_mut().filter(|gate| **gate == Gate::Running).for_each(|gate| *gate = Gate::Ended);
        }
    }

    /// What a progress sample says, as [`crate::pipeline::progress::Progress::sample`] writes it.
    fn measure(&mut self, sample: &Value) {
        let number = |value: Option<&Value>| value.and_then(Value::as_u64).unwrap_or(0);
        self.units = (number(sample.get("done")), number(sample.get("total")));
        let lanes = sample.get("lanes").and_then(Value::as_array).into_iter().flatten();
        self.lanes = lanes
            .filter_map(|lane| {
                let name = lane.get(0)?.as_str()?.to_owned();
                Some(LaneThen { name, wanted: lane.get(1)?.as_u64()?, delivered: lane.get(2)?.as_u64()? })
            })
            .collect();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn event(seq: u64, at: i64, name: &str, status: Status, detail: Value) -> EventRow {
        EventRow {
            run_key: "k".into(),
            seq,
            event_type: name.into(),
            status,
            at: Instant(at),
            actor: "a".into(),
            reason_code: (status == Status::Failed).then(|| "REPLAY_INCOMPLETE".into()),
            detail,
            prev_hash: String::new(),
            hash: String::new(),
        }
    }

    fn sample(at: i64, delivered: u64) -> SampleRow {
        let lanes = json!([["t/0", 10, delivered], ["broken"]]);
        SampleRow { attempt: 1, at: Instant(at), sample: json!({"phase": "replay", "done": delivered, "total": 10, "lanes": lanes}) }
    }

    fn story() -> Story {
        use Status::{Failed, Queued, Running};
        let events = vec![
            event(1, 0, "RUN_SUBMITTED", Queued, json!({})),
            event(2, 10, "RUN_STARTED", Running, json!({"attempt": 1})),
            event(3, 10, "PHASE_ENTERED", Running, json!({"phase": "pins"})),
            event(4, 20, "GATE_PASSED", Running, json!({"phase": "pins"})),
            event(5, 20, "RUN_PAUSED", Running, json!({"phase": "pins"})),
            event(6, 30, "RUN_UNPAUSED", Running, json!({"phase": "pins"})),
            event(7, 30, "PHASE_ENTERED", Running, json!({"phase": "replay"})),
            event(8, 60, "RUN_FAILED", Failed, json!({"phase": "replay"})),
            event(9, 90, "RUN_STARTED", Running, json!({"attempt": 2})),
        ];
        Story::new(events, vec![sample(40, 3), sample(50, 7)])
    }

    #[test]
    fn every_moment_shows_what_was_known_then() {
        let story = story();
        assert_eq!(story.len(), 11);
        let at = |i: usize| story.at(i).unwrap();
        assert_eq!((at(0).status, at(0).attempt, at(0).gates.len()), (Status::Queued, 0, 0));
        assert_eq!((at(2).phase.as_deref(), at(2).gates.get("pins")), (Some("pins"), Some(&Gate::Running)));
        assert!(at(4).paused && !at(5).paused);
        let (before, first, second) = (at(6), at(7), at(8));
        assert_eq!((before.units, first.units, second.units), ((0, 0), (3, 10), (7, 10)));
        assert_eq!(second.lanes, [LaneThen { name: "t/0".into(), wanted: 10, delivered: 7 }]);
        assert_eq!((second.seq, second.event, second.at), (7, None, Instant(50)));
        let failed = at(9);
        assert_eq!(
            (failed.status, failed.reason.as_deref(), failed.gates.get("replay")),
            (Status::Failed, Some("REPLAY_INCOMPLETE"), Some(&Gate::Ended))
        );
        assert_eq!((failed.gates.get("pins"), failed.units), (Some(&Gate::Passed), (7, 10)));
        let again = at(10);
        assert_eq!((again.attempt, again.gates.len(), again.reason), (2, 0, None));
        assert_eq!(story.at(11), None);
        assert!(Story::default().at(0).is_none() && Story::default().is_empty());
    }

    #[test]
    fn scrubbing_goes_from_event_to_event() {
        let story = story();
        assert_eq!((story.step(6, true), story.step(9, false), story.step(10, true), story.step(0, false)), (Some(9), Some(6), None, None));
        assert_eq!((story.of_event(8), story.of_event(99)), (Some(9), None));
        assert_eq!((story.gap(6), story.gap(10)), (Some(10), None));
        assert_eq!(story.step(usize::MAX, true), None);
    }

    #[test]
    fn a_clock_that_was_set_back_keeps_the_order_of_events() {
        let story = Story::new(
            vec![
                event(1, 100, "RUN_SUBMITTED", Status::Queued, json!({})),
                event(2, 50, "RUN_STARTED", Status::Running, json!({"attempt": 1})),
            ],
            Vec::new(),
        );
        assert_eq!((story.at(0).unwrap().seq, story.at(1).unwrap().seq), (1, 2));
        assert_eq!(story.gap(0), Some(0));
    }
}
