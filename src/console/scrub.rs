//! Time travel: what a run looked like at any of its events and progress samples, computed from the record
//! alone.

use std::collections::BTreeMap;
use std::fmt;

use serde_json::Value;

use crate::ledger::{EventRow, SampleRow, Status};
use crate::time::Instant;

/// A moment that can be travelled to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Point {
    Event(usize),
    Sample(usize),
}

/// A moment's name: what it is found by again when the record has grown, or lost some of its samples.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stop {
    /// When.
    pub at: Instant,
    /// Number of the latest event by then.
    pub seq: u64,
    /// It is a progress sample after that event, not the event itself.
    pub sample: bool,
}

impl fmt::Display for Stop {
    /// What panes of the past are titled with: a `+` stands for a sample after the event.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let at = self.at.to_string();
        // Milliseconds tell samples apart; the rest only takes room.
        let at = at.get(..23).filter(|_| at.len() > 24).map_or(at.clone(), |at| format!("{at}Z"));
        write!(f, "AS OF #{}{} {at}", self.seq, if self.sample { "+" } else { "" })
    }
}

/// All moments of a run, in order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Stops(Vec<Stop>);

impl Stops {
    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The one at a place, counted from 0.
    pub fn get(&self, at: usize) -> Option<Stop> {
        self.0.get(at).copied()
    }

    /// The place of a moment; where it is gone, of the latest one before it.
    pub fn place(&self, stop: &Stop) -> Option<usize> {
        let before = |s: &Stop| s.seq < stop.seq || (s.seq == stop.seq && (!s.sample || (stop.sample && s.at <= stop.at)));
        self.0.iter().position(|s| s == stop).or_else(|| self.0.iter().rposition(before))
    }

    /// The place of an event, by its number.
    pub fn of_event(&self, seq: u64) -> Option<usize> {
        self.0.iter().position(|s| s.seq == seq && !s.sample)
    }

    /// The event nearest before moment `from`, or after it.
    pub fn event(&self, from: usize, on: bool) -> Option<usize> {
        let event = |at: &usize| self.get(*at).is_some_and(|s| !s.sample);
        if on { (from.saturating_add(1)..self.len()).find(event) } else { (0..from.min(self.len())).rev().find(event) }
    }

    /// How many microseconds pass between a moment and the next one; none at the end.
    pub fn gap(&self, at: usize) -> Option<i64> {
        Some(self.get(at.checked_add(1)?)?.at.0.saturating_sub(self.get(at)?.at.0).max(0))
    }
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
    /// Which it is.
    pub stop: Stop,
    /// What happened at this very moment, if it was an event.
    pub event: Option<String>,
    /// State.
    pub status: Status,
    /// Why, if it had ended.
    pub reason: Option<String>,
    /// The refusal's document, where the event that ended it holds one.
    pub document: Option<Value>,
    /// The attempt.
    pub attempt: u32,
    /// Who worked on it, as the record names an owner.
    pub owner: Option<Value>,
    /// The identity that it had resolved to: fingerprint and manifest id.
    pub identity: Option<(String, String)>,
    /// The manifest, once it was out.
    pub manifest: Option<String>,
    /// Whether it waited at a gate for a person.
    pub paused: bool,
    /// The phase entered last.
    pub phase: Option<String>,
    /// Gates of the attempt by phase, as far as it had come.
    pub gates: BTreeMap<String, Gate>,
    /// The latest progress sample of this attempt, as it was written.
    pub sample: Option<Value>,
    /// Units done and to do, by that sample.
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

    /// The names of its moments.
    pub fn stops(&self) -> Stops {
        let mut seq = 0;
        let stop = |(at, point): (usize, &Point)| {
            if let Point::Event(i) = point {
                seq = self.events.get(*i).map_or(seq, |e| e.seq);
            }
            Some(Stop { at: self.time(at)?, seq, sample: matches!(point, Point::Sample(_)) })
        };
        Stops(self.points.iter().enumerate().filter_map(stop).collect())
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
        let mut moment = Moment::before(self.time(at)?);
        for point in shown {
            match point {
                Point::Event(i) => {
                    if let Some(event) = self.events.get(*i) {
                        moment.take(event);
                    }
                }
                Point::Sample(i) => {
                    if let Some(sample) = self.samples.get(*i).filter(|s| moment.attempt <= s.attempt) {
                        moment.measure(&sample.sample);
                    }
                }
            }
        }
        if matches!(self.points.get(at), Some(Point::Sample(_))) {
            (moment.event, moment.stop.sample) = (None, true);
        }
        Some(moment)
    }
}

impl Moment {
    /// A run of which nothing is known yet.
    fn before(at: Instant) -> Self {
        Moment {
            stop: Stop { at, seq: 0, sample: false },
            event: None,
            status: Status::Queued,
            reason: None,
            document: None,
            attempt: 0,
            owner: None,
            identity: None,
            manifest: None,
            paused: false,
            phase: None,
            gates: BTreeMap::new(),
            sample: None,
            units: (0, 0),
            lanes: Vec::new(),
        }
    }

    /// What an event changes.
    fn take(&mut self, event: &EventRow) {
        // A note about a run that has ended leaves its reason as it is.
        if event.status != self.status || event.reason_code.is_some() {
            self.reason = event.reason_code.clone().filter(|_| event.status != Status::Running);
            self.document = self.reason.as_ref().map(|_| event.detail.clone());
        }
        (self.stop.seq, self.status, self.event) = (event.seq, event.status, Some(event.event_type.clone()));
        let text = |key: &str| event.detail.get(key).and_then(Value::as_str).map(str::to_owned);
        let phase = text("phase");
        match event.event_type.as_str() {
            "RUN_STARTED" => {
                let attempt = event.detail.get("attempt").and_then(Value::as_u64).and_then(|n| u32::try_from(n).ok());
                self.attempt = attempt.unwrap_or(self.attempt + 1);
                self.begin(event.detail.get("owner"));
            }
            "LEASE_TAKEN_OVER" => self.begin(event.detail.get("to")),
            "IDENTITY_RESOLVED" => self.identity = text("fingerprint").zip(text("manifest_id")),
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
        if self.status == Status::Done {
            self.manifest = text("manifest_ref").or(self.manifest.take());
        }
        if self.status != Status::Running {
            (self.paused, self.owner) = (false, None);
            self.gates.values_mut().filter(|gate| **gate == Gate::Running).for_each(|gate| *gate = Gate::Ended);
        }
    }

    /// Somebody goes to work on it: what was measured before was another's work.
    fn begin(&mut self, owner: Option<&Value>) {
        (self.phase, self.paused, self.owner) = (None, false, owner.cloned());
        (self.sample, self.units) = (None, (0, 0));
        self.gates.clear();
        self.lanes.clear();
    }

    /// What a progress sample says, as [`crate::pipeline::progress::Progress::sample`] writes it.
    fn measure(&mut self, sample: &Value) {
        let number = |value: Option<&Value>| value.and_then(Value::as_u64).unwrap_or(0);
        self.sample = Some(sample.clone());
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
        assert_eq!((second.stop, second.event), (Stop { at: Instant(50), seq: 7, sample: true }, None));
        let failed = at(9);
        assert_eq!(
            (failed.status, failed.reason.as_deref(), failed.gates.get("replay")),
            (Status::Failed, Some("REPLAY_INCOMPLETE"), Some(&Gate::Ended))
        );
        assert_eq!((failed.gates.get("pins"), failed.units), (Some(&Gate::Passed), (7, 10)));
        let again = at(10);
        assert_eq!((again.attempt, again.gates.len(), again.reason, again.units), (2, 0, None, (0, 0)));
        assert_eq!(story.at(11), None);
        assert!(Story::default().at(0).is_none() && Story::default().is_empty());
    }

    #[test]
    fn scrubbing_goes_from_moment_to_moment_and_from_event_to_event() {
        let stops = story().stops();
        assert_eq!(
            (stops.event(6, true), stops.event(9, false), stops.event(10, true), stops.event(0, false)),
            (Some(9), Some(6), None, None)
        );
        assert_eq!((stops.of_event(8), stops.of_event(99)), (Some(9), None));
        assert_eq!((stops.gap(6), stops.gap(10)), (Some(10), None));
        assert_eq!(stops.event(usize::MAX, true), None);
        for at in 0..stops.len() {
            let stop = stops.get(at).unwrap();
            assert_eq!((stops.place(&stop), story().at(at).unwrap().stop), (Some(at), stop));
        }
        // A sample that was thinned out is found at the one before it, or at its event.
        assert_eq!(stops.place(&Stop { at: Instant(45), seq: 7, sample: true }), Some(7));
        assert_eq!(stops.place(&Stop { at: Instant(35), seq: 7, sample: true }), Some(6));
        assert_eq!(stops.place(&Stop { at: Instant(0), seq: 0, sample: false }), None);
    }

    #[test]
    fn a_moment_is_named_by_its_event_and_its_time() {
        let stop = Stop { at: Instant::parse("2013-09-23T13:22:05.123456Z").unwrap(), seq: 12, sample: true };
        assert_eq!(stop.to_string(), "AS OF #12+ 2013-09-23T13:22:05.123Z");
        let whole = Stop { at: Instant::parse("2013-09-23T13:22:05Z").unwrap(), sample: false, ..stop };
        assert_eq!(whole.to_string(), "AS OF #12 2013-09-23T13:22:05.000Z");
    }

    #[test]
    fn a_note_leaves_the_reason_and_a_new_owner_starts_again() {
        use Status::{Failed, Running};
        let story = Story::new(
            vec![
                event(1, 0, "RUN_STARTED", Running, json!({"attempt": 1, "owner": {"host": "a"}})),
                event(2, 1, "GATE_PASSED", Running, json!({"phase": "pins"})),
                event(3, 2, "LEASE_TAKEN_OVER", Running, json!({"to": {"host": "b"}})),
                event(4, 3, "RUN_FAILED", Failed, json!({"phase": "replay", "code": "REPLAY_INCOMPLETE"})),
                EventRow { reason_code: None, ..event(5, 4, "NOTE_ADDED", Failed, json!({"text": "x"})) },
            ],
            Vec::new(),
        );
        let over = story.at(2).unwrap();
        assert_eq!((over.attempt, over.gates.len(), over.owner), (1, 0, Some(json!({"host": "b"}))));
        let noted = story.at(4).unwrap();
        assert_eq!(noted.reason.as_deref(), Some("REPLAY_INCOMPLETE"));
        assert_eq!((noted.document.unwrap()["phase"].clone(), noted.owner), (json!("replay"), None));
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
        assert_eq!((story.at(0).unwrap().stop.seq, story.at(1).unwrap().stop.seq), (1, 2));
        assert_eq!(story.stops().gap(0), Some(0));
    }
}
