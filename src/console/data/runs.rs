//! The list of runs: all of them in brief, merged as they change, and the rows that a filter and an order
//! leave of them.

use std::borrow::Cow;
use std::cmp::Ordering;
use std::collections::HashMap;
use std::time::Duration;

use crate::console::filter::{Filter, Filterable};
use crate::ledger::{Limits, RunLine, Status};
use crate::time::Instant;

/// What of the ledger changed.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct RunsUpdate {
    /// Runs that are new or changed.
    pub lines: Vec<RunLine>,
    /// Every run has been told by now.
    pub complete: bool,
    /// Workers that are alive.
    pub workers: usize,
}

/// All runs, in brief.
#[derive(Debug, Clone)]
pub struct Runs {
    lines: Vec<RunLine>,
    /// What substrings are looked for in, by run, in lower case.
    folded: Vec<Box<str>>,
    index: HashMap<String, u32>,
    limits: Limits,
    workers: usize,
    complete: bool,
    /// Runs that have not ended: only they can be stuck.
    live: Vec<u32>,
    counts: Counts,
    counted: Instant,
}

/// How many runs there are of what needs a look.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// All.
    pub all: usize,
    /// RUNNING.
    pub running: usize,
    /// QUEUED.
    pub queued: usize,
    /// PUBLISH_PENDING.
    pub pending: usize,
    /// FAILED.
    pub failed: usize,
    /// DONE.
    pub done: usize,
    /// Stuck, in whatever state.
    pub stuck: usize,
    /// Stuck while RUNNING: nobody works on it.
    pub stalled: usize,
}

impl Runs {
    /// No runs yet; `limits` say when one is stuck.
    pub fn new(limits: Limits) -> Self {
        Runs {
            lines: Vec::new(),
            folded: Vec::new(),
            index: HashMap::new(),
            limits,
            workers: 0,
            complete: false,
            live: Vec::new(),
            counts: Counts::default(),
            counted: Instant(i64::MIN),
        }
    }

    /// Takes in what changed. Says whether anything did.
    pub fn merge(&mut self, update: RunsUpdate, now: Instant) -> bool {
        let mut changed = (self.workers, self.complete) != (update.workers, update.complete || self.complete);
        (self.workers, self.complete) = (update.workers, update.complete || self.complete);
        for line in update.lines {
            match self.index.get(&line.run_key).map(|at| *at as usize) {
                Some(at) if self.lines.get(at) == Some(&line) => {}
                Some(at) => {
                    if let (Some(slot), Some(folded)) = (self.lines.get_mut(at), self.folded.get_mut(at)) {
                        *folded = fold(&line);
                        *slot = line;
                        changed = true;
                    }
                }
                None => {
                    let at = u32::try_from(self.lines.len()).unwrap_or(u32::MAX);
                    self.index.insert(line.run_key.clone(), at);
                    self.folded.push(fold(&line));
                    self.lines.push(line);
                    changed = true;
                }
            }
        }
        if changed {
            self.count(now);
        }
        changed
    }

    /// How far a run is, seen nearer than its owner writes it down.
    pub fn measure(&mut self, run_key: &str, phase: Option<&str>, units: (u64, u64)) {
        let at = self.index.get(run_key).map(|at| *at as usize);
        if let Some(line) =
            at.and_then(|at| self.lines.get_mut(at)).filter(|line| line.status == Status::Running && line.phase.as_deref() == phase)
        {
            line.progress = Some(units);
        }
    }

    /// Whether every run has been told; until then the list is only a beginning.
    pub fn complete(&self) -> bool {
        self.complete
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.lines.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.lines.is_empty()
    }

    /// All of them, in no order.
    pub fn all(&self) -> impl Iterator<Item = &RunLine> {
        self.lines.iter()
    }

    /// The run at a place.
    pub fn at(&self, at: u32) -> Option<&RunLine> {
        self.lines.get(at as usize)
    }

    /// The run with that key.
    pub fn get(&self, run_key: &str) -> Option<&RunLine> {
        self.index.get(run_key).and_then(|at| self.at(*at))
    }

    /// The run meant by a key, a unique beginning of one, or a request id.
    pub fn find(&self, given: &str) -> Option<&RunLine> {
        if let Some(line) = self.get(given) {
            return Some(line);
        }
        let mut near = self.lines.iter().filter(|l| given.len() >= 4 && l.run_key.starts_with(given));
        match (near.next(), near.next()) {
            (Some(line), None) => Some(line),
            _ => self.lines.iter().find(|l| l.request_id.as_deref() == Some(given)),
        }
    }

    /// All of them, in no order that matters.
    pub fn iter(&self) -> impl Iterator<Item = &RunLine> {
        self.lines.iter()
    }

    /// Why a run does not move, if it does not.
    pub fn stuck(&self, line: &RunLine, now: Instant) -> Option<&'static str> {
        line.standing().stuck_reason(now, &self.limits, self.workers > 0)
    }

    /// Workers that are alive.
    pub fn workers(&self) -> usize {
        self.workers
    }

    /// What there is to look at, as last counted.
    pub fn counts(&self) -> Counts {
        self.counts
    }

    /// Counts anew what time alone makes stuck; at most once a second, as lists are long.
    pub fn clock(&mut self, now: Instant) {
        if now.0.saturating_sub(self.counted.0) >= 1_000_000 {
            self.counted = now;
            let stuck = |at: &u32| self.at(*at).filter(|line| self.stuck(line, now).is_some());
            let stuck: Vec<&RunLine> = self.live.iter().filter_map(stuck).collect();
            let (all, stalled) = (stuck.len(), stuck.iter().filter(|line| line.status == Status::Running).count());
            (self.counts.stuck, self.counts.stalled) = (all, stalled);
        }
    }

    fn count(&mut self, now: Instant) {
        self.counts = Counts { all: self.lines.len(), ..Counts::default() };
        self.live.clear();
        for (at, line) in (0u32..).zip(&self.lines) {
            let counts = &mut self.counts;
            let slot = match line.status {
                Status::Running => &mut counts.running,
                Status::Queued => &mut counts.queued,
                Status::PublishPending => &mut counts.pending,
                Status::Failed => &mut counts.failed,
                Status::Done => &mut counts.done,
                Status::Cancelled | Status::Rejected => continue,
            };
            *slot += 1;
            if !matches!(line.status, Status::Failed | Status::Done) {
                self.live.push(at);
            }
        }
        self.counted = Instant(i64::MIN);
        self.clock(now);
    }

    /// The rows that pass `filter`, in order. Where `within` is given only those rows are looked at.
    pub fn rows(&self, filter: &Filter, within: Option<&[u32]>, order: Order, now: Instant) -> Vec<u32> {
        let passes = |at: &u32| filter.is_empty() || self.row(*at, now).is_some_and(|row| filter.matches(&row));
        let mut rows: Vec<u32> = match within {
            Some(rows) => rows.iter().copied().filter(passes).collect(),
            None => (0..u32::try_from(self.lines.len()).unwrap_or(u32::MAX)).filter(passes).collect(),
        };
        rows.sort_by(|a, b| match (self.at(*a), self.at(*b)) {
            (Some(a), Some(b)) => self.compare(a, b, order, now),
            _ => Ordering::Equal,
        });
        rows
    }

    /// A row as filters see it.
    pub fn row(&self, at: u32, now: Instant) -> Option<RunRef<'_>> {
        Some(RunRef { runs: self, line: self.at(at)?, folded: self.folded.get(at as usize)?, now })
    }

    fn compare(&self, a: &RunLine, b: &RunLine, order: Order, now: Instant) -> Ordering {
        let by = match order.by {
            // The youngest first is what people mean by sorted by age.
            By::Age => b.updated.cmp(&a.updated),
            By::State => self.urgency(a, now).cmp(&self.urgency(b, now)),
            By::Request => a.request_id.cmp(&b.request_id),
            By::Run => a.run_key.cmp(&b.run_key),
            By::Phase => a.phase.cmp(&b.phase),
            By::Attempts => b.attempts().cmp(&a.attempts()),
            By::Reason => (a.reason_code.is_none(), &a.reason_code).cmp(&(b.reason_code.is_none(), &b.reason_code)),
        };
        let by = if order.reverse { by.reverse() } else { by };
        by.then_with(|| b.updated.cmp(&a.updated)).then_with(|| a.run_key.cmp(&b.run_key))
    }

    /// What needs a person first comes first.
    fn urgency(&self, line: &RunLine, now: Instant) -> u8 {
        match line.status {
            _ if self.stuck(line, now).is_some() => 0,
            Status::Failed => 1,
            Status::PublishPending => 2,
            Status::Running => 3,
            Status::Queued => 4,
            Status::Rejected => 5,
            Status::Cancelled => 6,
            Status::Done => 7,
        }
    }
}

/// What rows are sorted by.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum By {
    /// Age of the newest event.
    #[default]
    Age,
    /// What needs a person first.
    State,
    /// Request id.
    Request,
    /// Run key.
    Run,
    /// Phase.
    Phase,
    /// Number of attempts, most first.
    Attempts,
    /// Reason code.
    Reason,
}

/// How rows are sorted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Order {
    /// By what.
    pub by: By,
    /// The other way round.
    pub reverse: bool,
}

impl By {
    /// All of them, as the sort key walks through them.
    pub const ALL: [By; 7] = [By::Age, By::State, By::Request, By::Run, By::Phase, By::Attempts, By::Reason];

    /// The column's head.
    pub fn name(self) -> &'static str {
        match self {
            By::Age => "AGE",
            By::State => "STATE",
            By::Request => "REQUEST",
            By::Run => "RUN",
            By::Phase => "PHASE",
            By::Attempts => "ATT",
            By::Reason => "REASON",
        }
    }

    /// The next one.
    pub fn next(self) -> Self {
        let at = By::ALL.iter().position(|by| *by == self).unwrap_or(0);
        By::ALL.get((at + 1) % By::ALL.len()).copied().unwrap_or_default()
    }
}

/// A run as filters see it.
#[derive(Debug, Clone, Copy)]
pub struct RunRef<'r> {
    runs: &'r Runs,
    line: &'r RunLine,
    folded: &'r str,
    now: Instant,
}

impl Filterable for RunRef<'_> {
    fn field(&self, key: &str) -> Option<Cow<'_, str>> {
        let line = self.line;
        let text = |text: &'_ Option<String>| text.clone().map(Cow::Owned);
        match key {
            "state" | "status" if line.paused_since.is_some() => Some(Cow::Borrowed("PAUSED")),
            "state" | "status" => Some(Cow::Borrowed(line.status.as_str())),
            "run" | "run_key" | "key" => Some(Cow::Borrowed(&line.run_key)),
            "request" | "request_id" => text(&line.request_id),
            "kind" | "intent_kind" => text(&line.intent_kind),
            "phase" => text(&line.phase),
            "reason" | "reason_code" | "code" => text(&line.reason_code),
            "manifest" | "manifest_id" => text(&line.manifest_id),
            "owner" => line.owner.as_ref().map(|o| Cow::Owned(o.to_string())),
            "attempts" => Some(Cow::Owned(line.attempts().to_string())),
            "stuck" => Some(Cow::Borrowed(if self.runs.stuck(line, self.now).is_some() { "true" } else { "false" })),
            "stuck_reason" => self.runs.stuck(line, self.now).map(Cow::Borrowed),
            _ => None,
        }
    }

    fn age(&self) -> Option<Duration> {
        u64::try_from(self.now.0.saturating_sub(self.line.sign().0)).ok().map(Duration::from_micros)
    }

    fn text(&self) -> Cow<'_, str> {
        Cow::Borrowed(self.folded)
    }

    fn folded(&self) -> Cow<'_, str> {
        Cow::Borrowed(self.folded)
    }
}

fn fold(line: &RunLine) -> Box<str> {
    let owner = line.owner.as_ref().map(ToString::to_string).unwrap_or_default();
    let parts = [&line.request_id, &line.phase, &line.reason_code, &line.intent_kind, &line.manifest_id];
    let mut text = format!("{} {} {owner}", line.run_key, line.status);
    for part in parts.into_iter().flatten() {
        text.push(' ');
        text.push_str(part);
    }
    text.to_lowercase().into_boxed_str()
}
