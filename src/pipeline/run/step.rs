//! Step mode: a gatekeeper that stops at gates and asks. The command line and the console differ only in
//! who is told and who answers.
//!
//! A run that stands at a gate is PAUSED in the ledger and keeps its lease, for at most
//! `max_pause_seconds`; then it is handed back as QUEUED, so that nobody who went to lunch holds a run.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError};

use super::{GateView, Gatekeeper, Halt, Verdict};
use crate::contract::ReasonCode;
use crate::contract::reason::REASONS;
use crate::pipeline::gate::{Phase, Refusal};
use crate::pipeline::peek::{Look, Peeked, Question};

/// Pause between two looks at whether a paused run was told to stop: twice a second.
const LOOK: Duration = Duration::from_millis(500);

/// The word under which a run is handed back that nobody answered in time.
pub const PAUSE_LIMIT: &str = "PAUSE_LIMIT";

/// Where a run stops besides at every gate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Breakpoint {
    /// After this gate has passed.
    Phase(Phase),
    /// When a gate refuses with this code, before the run is closed.
    Code(ReasonCode),
}

impl Breakpoint {
    /// Reads the name of a gate (`labels`) or of a reason code (`REPLAY_INCOMPLETE`).
    ///
    /// # Errors
    /// What it is not, and what it may have been meant to be.
    pub fn parse(word: &str) -> Result<Self, String> {
        let word = word.trim();
        if let Some(phase) = Phase::RUN.into_iter().find(|p| p.as_str().eq_ignore_ascii_case(word)) {
            return Ok(Breakpoint::Phase(phase));
        }
        if let Some(code) = ReasonCode::parse(&word.to_ascii_uppercase()) {
            return Ok(Breakpoint::Code(code));
        }
        let names = Phase::RUN.iter().map(|p| p.as_str()).chain(REASONS.iter().map(|r| r.name));
        let near = crate::text::nearest(word, names).map(|n| format!("; did you mean {n}?")).unwrap_or_default();
        Err(format!("{} is neither a gate nor a reason code{near}", crate::text::clip(word, 60)))
    }

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Breakpoint::Phase(phase) => phase.as_str(),
            Breakpoint::Code(code) => code.as_str(),
        }
    }
}

/// Breakpoints that several builds share and that can be changed while they run.
#[derive(Debug, Clone, Default)]
pub struct Breakpoints(Arc<Mutex<BTreeSet<Breakpoint>>>);

impl Breakpoints {
    /// Sets one, or takes it away where it is set. Says whether it is set now.
    pub fn toggle(&self, at: Breakpoint) -> bool {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let gone = all.remove(&at);
        if !gone {
            all.insert(at);
        }
        !gone
    }

    /// Those that are set.
    pub fn all(&self) -> Vec<Breakpoint> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).iter().copied().collect()
    }

    fn has(&self, at: Breakpoint) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).contains(&at)
    }
}

/// What a person answers at a gate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// Pass this gate, stop at the next.
    Continue,
    /// Go to the end without another stop.
    RunToEnd,
    /// Call the run off.
    Abort,
    /// Show something, and ask again.
    Look(Question),
    /// Hand the run back under this word.
    HandBack(&'static str),
}

/// Why a run stands at a gate.
#[derive(Debug, Clone, PartialEq)]
pub enum Why {
    /// It is stepped.
    Step,
    /// The gate is a breakpoint.
    Breakpoint,
    /// The gate refused with a code that is a breakpoint. Whatever is answered, the refusal stands.
    Refused(Box<Refusal>),
}

/// A run that stands at a gate.
#[derive(Debug, Clone)]
pub struct Paused {
    /// The gate and what it proved; a gate that refused has proved nothing.
    pub gate: GateView,
    /// Why.
    pub why: Why,
    /// What there is to look at.
    pub looks: &'static [Look],
    /// Since when.
    pub since: crate::time::Instant,
    /// When it is handed back unless somebody answers.
    pub until: crate::time::Instant,
}

/// What happens at gates.
#[derive(Debug, Clone)]
pub enum Told {
    /// A gate has passed.
    Passed(GateView),
    /// The run waits for an answer.
    Paused(Box<Paused>),
    /// What was asked to be shown.
    Shown(Result<Peeked, Box<Refusal>>),
    /// It waits no longer.
    Unpaused,
}

/// Who is told.
pub type Tell = Box<dyn Fn(Told) + Send + Sync>;

/// The gatekeeper of step mode and of breakpoints.
pub struct Stepper {
    stepping: AtomicBool,
    /// Whether it was told to stop nowhere any more.
    free: AtomicBool,
    breakpoints: Breakpoints,
    answers: Receiver<Answer>,
    tell: Tell,
}

impl Stepper {
    /// Stops at every gate where `stepping`, and at the breakpoints; tells `tell` and takes `answers`.
    pub fn new(stepping: bool, breakpoints: Breakpoints, answers: Receiver<Answer>, tell: Tell) -> Self {
        Stepper { stepping: stepping.into(), free: false.into(), breakpoints, answers, tell }
    }

    fn stops_at(&self, at: Breakpoint) -> Option<Why> {
        if self.free.load(Ordering::SeqCst) {
            return None;
        }
        // A refusal ends the run: in step mode, too, it is looked at before.
        let stepped = self.stepping.load(Ordering::SeqCst);
        if stepped && matches!(at, Breakpoint::Phase(_)) {
            return Some(Why::Step);
        }
        (stepped || self.breakpoints.has(at)).then_some(Why::Breakpoint)
    }

    /// Waits for an answer that ends the pause.
    fn pause(&self, gate: GateView, why: Why, halt: &dyn Halt) -> Verdict {
        if halt.set_paused(true).is_err() {
            // Nothing can be recorded any more: the pipeline finds that out at once.
            return Verdict::Go;
        }
        // What was typed before the question was asked is no answer to it.
        while self.answers.try_recv().is_ok() {}
        let since = halt.now();
        let until = since.plus_micros(halt.max_pause_us());
        (self.tell)(Told::Paused(Box::new(Paused { gate, why, looks: halt.looks(), since, until })));
        let verdict = self.answer(until, halt);
        if verdict == Verdict::Go && !halt.told_to_stop() {
            let _ = halt.set_paused(false);
        }
        (self.tell)(Told::Unpaused);
        verdict
    }

    fn answer(&self, until: crate::time::Instant, halt: &dyn Halt) -> Verdict {
        loop {
            if halt.told_to_stop() {
                return Verdict::Go;
            }
            if halt.now() >= until {
                tracing::warn!(run_key = halt.run_key(), "nobody answered at the gate in time");
                return Verdict::HandBack(PAUSE_LIMIT);
            }
            match self.answers.recv_timeout(LOOK) {
                Ok(Answer::Continue) => return Verdict::Go,
                Ok(Answer::RunToEnd) => {
                    self.free.store(true, Ordering::SeqCst);
                    return Verdict::Go;
                }
                Ok(Answer::Abort) => return Verdict::CallOff,
                Ok(Answer::HandBack(why)) => return Verdict::HandBack(why),
                Ok(Answer::Look(question)) => (self.tell)(Told::Shown(halt.peek(&question).map_err(Box::new))),
                Err(RecvTimeoutError::Timeout) => {}
                // Nobody is left who could answer.
                Err(RecvTimeoutError::Disconnected) => return Verdict::HandBack("NOBODY_ASKED"),
            }
        }
    }
}

impl Gatekeeper for Stepper {
    fn passed(&self, gate: &GateView, halt: &dyn Halt) -> Verdict {
        (self.tell)(Told::Passed(gate.clone()));
        match self.stops_at(Breakpoint::Phase(gate.phase)) {
            Some(why) => self.pause(gate.clone(), why, halt),
            None => Verdict::Go,
        }
    }

    fn refused(&self, refusal: &Refusal, halt: &dyn Halt) {
        if self.stops_at(Breakpoint::Code(refusal.code)).is_some() {
            let gate = GateView {
                run_key: halt.run_key().to_owned(),
                phase: refusal.phase,
                facts: vec![("refused", format!("{}: {}", refusal.code, refusal.message))],
                evidence: String::new(),
                reproved: false,
            };
            self.pause(gate, Why::Refused(Box::new(refusal.clone())), halt);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::LedgerError;
    use crate::time::{Clock, FixedClock, Instant};

    /// A gate without a pipeline.
    struct Gate {
        clock: FixedClock,
        paused: Mutex<Vec<bool>>,
        stop: AtomicBool,
    }

    impl Gate {
        fn new() -> Arc<Self> {
            Arc::new(Gate { clock: FixedClock::new(Instant(0)), paused: Mutex::default(), stop: false.into() })
        }

        fn story(&self) -> Vec<bool> {
            self.paused.lock().unwrap().clone()
        }
    }

    impl Halt for Gate {
        fn run_key(&self) -> &str {
            "k"
        }
        fn set_paused(&self, paused: bool) -> Result<(), LedgerError> {
            self.paused.lock().unwrap().push(paused);
            Ok(())
        }
        fn told_to_stop(&self) -> bool {
            self.stop.load(Ordering::SeqCst)
        }
        fn now(&self) -> Instant {
            self.clock.now()
        }
        fn max_pause_us(&self) -> i64 {
            1_000
        }
        fn looks(&self) -> &'static [Look] {
            &[Look::Pins]
        }
        fn peek(&self, question: &Question) -> Result<Peeked, Refusal> {
            Ok(Peeked { question: question.clone(), columns: vec![], rows: vec![], scanned: 7, matched: 0, whole: true, note: None })
        }
    }

    fn view(phase: Phase) -> GateView {
        GateView { run_key: "k".into(), phase, facts: vec![], evidence: "R/x.json".into(), reproved: false }
    }

    /// A stepper whose pauses are answered one after the other by `answers`; what it told.
    fn stepper(stepping: bool, breakpoints: Breakpoints, answers: Vec<Answer>) -> (Stepper, Arc<Mutex<Vec<&'static str>>>) {
        let (tx, rx) = crossbeam_channel::unbounded();
        let story = Arc::new(Mutex::new(Vec::new()));
        let (told, answers) = (story.clone(), Mutex::new(answers.into_iter()));
        let tell: Tell = Box::new(move |event| {
            let (word, answers_now) = match event {
                Told::Passed(_) => ("passed", false),
                Told::Paused(_) => ("paused", true),
                Told::Shown(_) => ("shown", true),
                Told::Unpaused => ("unpaused", false),
            };
            told.lock().unwrap().push(word);
            if answers_now && let Some(answer) = answers.lock().unwrap().next() {
                tx.send(answer).unwrap();
            }
        });
        (Stepper::new(stepping, breakpoints, rx, tell), story)
    }

    #[test]
    fn step_mode_stops_at_each_gate_until_it_is_let_go() {
        let look = Answer::Look(Question { look: Look::Pins, find: String::new(), limit: 1 });
        let (keeper, story) = stepper(true, Breakpoints::default(), vec![Answer::Continue, look, Answer::RunToEnd]);
        let gate = Gate::new();
        for phase in [Phase::Pins, Phase::Replay, Phase::Labels] {
            assert_eq!(keeper.passed(&view(phase), gate.as_ref()), Verdict::Go);
        }
        let told = story.lock().unwrap().join(" ");
        assert_eq!(told, "passed paused unpaused passed paused shown unpaused passed");
        assert_eq!(gate.story(), [true, false, true, false]);
    }

    #[test]
    fn an_abort_and_a_hand_back_stay_paused_for_the_pipeline_to_close() {
        for (answer, verdict) in [(Answer::Abort, Verdict::CallOff), (Answer::HandBack("QUIT"), Verdict::HandBack("QUIT"))] {
            let (keeper, _) = stepper(true, Breakpoints::default(), vec![answer]);
            let gate = Gate::new();
            assert_eq!(keeper.passed(&view(Phase::Pins), gate.as_ref()), verdict);
            assert_eq!(gate.story(), [true]);
        }
    }

    #[test]
    fn breakpoints_stop_at_a_gate_or_before_a_refusal_is_closed() {
        let breakpoints = Breakpoints::default();
        assert!(breakpoints.toggle(Breakpoint::Phase(Phase::Labels)));
        assert!(breakpoints.toggle(Breakpoint::parse(" replay_incomplete").unwrap()));
        let (keeper, story) = stepper(false, breakpoints.clone(), vec![Answer::Continue, Answer::Abort]);
        let gate = Gate::new();
        for phase in [Phase::Replay, Phase::Labels] {
            assert_eq!(keeper.passed(&view(phase), gate.as_ref()), Verdict::Go);
        }
        keeper.refused(&Refusal::new(ReasonCode::LabelScopeEmpty, Phase::Labels, "no"), gate.as_ref());
        keeper.refused(&Refusal::new(ReasonCode::ReplayIncomplete, Phase::Replay, "no"), gate.as_ref());
        assert_eq!(story.lock().unwrap().join(" "), "passed passed paused unpaused paused unpaused");
        assert!(!breakpoints.toggle(Breakpoint::Phase(Phase::Labels)));
        assert_eq!(breakpoints.all(), [Breakpoint::Code(ReasonCode::ReplayIncomplete)]);
    }

    #[test]
    fn a_pause_that_nobody_ends_is_handed_back() {
        let (tx, rx) = crossbeam_channel::unbounded();
        let gate = Gate::new();
        let clock = gate.clone();
        let tell: Tell = Box::new(move |event| {
            if let Told::Paused(paused) = event {
                assert_eq!((paused.since, paused.until), (Instant(0), Instant(1_000)));
                clock.clock.advance(1_000);
            }
        });
        let keeper = Stepper::new(true, Breakpoints::default(), rx, tell);
        assert_eq!(keeper.passed(&view(Phase::Pins), gate.as_ref()), Verdict::HandBack(PAUSE_LIMIT));
        assert_eq!(gate.story(), [true]);
        drop(tx);
        // And where nobody is left to answer at all.
        let (tx, rx) = crossbeam_channel::unbounded();
        drop(tx);
        let keeper = Stepper::new(true, Breakpoints::default(), rx, Box::new(|_| {}));
        assert_eq!(keeper.passed(&view(Phase::Pins), Gate::new().as_ref()), Verdict::HandBack("NOBODY_ASKED"));
    }

    #[test]
    fn what_was_answered_before_the_question_does_not_count() {
        let (tx, rx) = crossbeam_channel::unbounded();
        tx.send(Answer::Abort).unwrap();
        let late = tx.clone();
        let tell: Tell = Box::new(move |event| {
            if matches!(event, Told::Paused(_)) {
                late.send(Answer::Continue).unwrap();
            }
        });
        let keeper = Stepper::new(true, Breakpoints::default(), rx, tell);
        assert_eq!(keeper.passed(&view(Phase::Pins), Gate::new().as_ref()), Verdict::Go);
    }

    #[test]
    fn a_build_that_is_told_to_stop_waits_for_nobody() {
        let (_tx, rx) = crossbeam_channel::unbounded();
        let gate = Gate::new();
        let stop = gate.clone();
        let tell: Tell = Box::new(move |event| {
            if matches!(event, Told::Paused(_)) {
                stop.stop.store(true, Ordering::SeqCst);
            }
        });
        let keeper = Stepper::new(true, Breakpoints::default(), rx, tell);
        assert_eq!(keeper.passed(&view(Phase::Pins), gate.as_ref()), Verdict::Go);
        assert_eq!(gate.story(), [true]);
    }

    #[test]
    fn a_breakpoint_is_a_gate_or_a_reason_code() {
        assert_eq!(Breakpoint::parse("LABELS"), Ok(Breakpoint::Phase(Phase::Labels)));
        assert_eq!(Breakpoint::parse("REPLAY_INCOMPLETE").map(Breakpoint::name), Ok("REPLAY_INCOMPLETE"));
        assert!(Breakpoint::parse("lables").unwrap_err().contains("did you mean labels"));
        assert!(Breakpoint::parse("").is_err());
    }
}
