//! Builds in the background on the committed fixture, with a gatekeeper that misbehaves where a test says so.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Instant as Wall;

use crossbeam_channel::{Receiver, unbounded};
use tempfile::TempDir;

use super::*;
use crate::config::Config;
use crate::ledger::{Ledger, Owner, Status};
use crate::operate::mutate::Scratchpad;
use crate::operate::open;
use crate::operate::scenario::Verb;
use crate::pipeline::admit::Supersession;
use crate::pipeline::peek::{Look, Peeked, Question};
use crate::pipeline::run::step::{Breakpoint, PAUSE_LIMIT, Why};
use crate::pipeline::run::{Halt, Verdict};
use crate::time::SystemClock;

const PATIENCE: Duration = Duration::from_secs(60);

/// A workspace with builds in it.
struct Bench {
    pad: Scratchpad,
    ledger: Arc<Ledger>,
    builds: Builds,
    heard: Receiver<(String, BuildEvent)>,
    _dir: TempDir,
}

impl Bench {
    fn new(settings: &[(&str, &str)]) -> Self {
        Self::with(settings, Box::new(|stepper| Box::new(stepper)))
    }

    fn with(settings: &[(&str, &str)], make: Box<MakeKeeper>) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let pad = Scratchpad::unpack("flights-day", &dir.path().join("w")).unwrap();
        let mut environment: BTreeMap<String, String> = settings.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        environment.insert("OFS_PATHS_SCRATCH".into(), "scratch".into());
        let config = Arc::new(Config::load(Some(pad.root()), pad.root(), &environment).unwrap());
        let store = open::store(&config).unwrap();
        let clock = Arc::new(SystemClock);
        let ledger = Arc::new(Ledger::open(&config.path("ledger"), clock.clone(), "HUMAN::tester").unwrap());
        let env = Env {
            store_root: Some(store.root().to_owned()),
            store: Arc::new(store),
            config,
            cancel: CancellationToken::new(),
            progress: Arc::default(),
            attempt: "p1".into(),
            audit: Arc::new(crate::store::Unrecorded),
        };
        let host = Host { ledger: ledger.clone(), clock, owner: Owner::current(), signal: StopSignal::default() };
        let (told, heard) = unbounded();
        let hear: Hear = Arc::new(move |key, event| drop(told.send((key.to_owned(), event))));
        Bench { pad, ledger, builds: Builds::with_keeper(env, host, hear, make), heard, _dir: dir }
    }

    fn spec(&self, intent: &str, step: bool) -> BuildSpec {
        let intent = std::fs::read(self.pad.path(&format!("intents/{intent}.json"))).unwrap();
        BuildSpec { what: What::Run(Request { intent, supersession: Supersession::default() }), step }
    }

    fn start(&self, intent: &str, step: bool) -> String {
        self.builds.start(self.spec(intent, step)).unwrap()
    }

    /// The next event for which `pick` has something.
    fn hear<T>(&self, key: &str, mut pick: impl FnMut(BuildEvent) -> Option<T>) -> T {
        let until = Wall::now() + PATIENCE;
        loop {
            let (of, event) = self.heard.recv_deadline(until).expect("nothing was heard any more");
            if of == key
                && let Some(found) = pick(event)
            {
                return found;
            }
        }
    }

    fn paused(&self, key: &str) -> Paused {
        self.hear(key, |event| if let BuildEvent::Gate(Told::Paused(paused)) = event { Some(*paused) } else { None })
    }

    fn ended(&self, key: &str) -> Ending {
        self.hear(key, |event| if let BuildEvent::Ended(ending) = event { Some(*ending) } else { None })
    }

    fn look(&self, key: &str, look: Look, find: &str) -> Peeked {
        assert!(self.builds.answer(key, Answer::Look(Question { look, find: find.into(), limit: 3 })));
        self.hear(key, |event| if let BuildEvent::Gate(Told::Shown(shown)) = event { Some(shown.unwrap()) } else { None })
    }

    fn status(&self, key: &str) -> (Status, Option<String>) {
        let row = self.ledger.run(key).unwrap().unwrap();
        (row.status, row.reason_code)
    }

    fn events(&self, key: &str) -> Vec<String> {
        self.ledger.events(key, 0).unwrap().into_iter().map(|e| e.event_type).collect()
    }
}

/// A gatekeeper that panics at one gate.
struct Careless(Phase, Stepper);

impl Gatekeeper for Careless {
    fn passed(&self, gate: &GateView, halt: &dyn Halt) -> Verdict {
        assert!(gate.phase != self.0, "an injected fault at {}", gate.phase.as_str());
        self.1.passed(gate, halt)
    }
}

fn published(root: &Path) -> BTreeMap<String, Vec<u8>> {
    let (mut found, mut folders) = (BTreeMap::new(), vec![root.join("store/platform_20130101T000000Z/ofs/datasets")]);
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else {
                found.insert(path.strip_prefix(root).unwrap().display().to_string(), std::fs::read(path).unwrap());
            }
        }
    }
    found
}

#[test]
fn builds_of_any_share_publish_the_same_bytes() {
    let bytes =
        [[("OFS_LIMITS_THREADS", "1"), ("OFS_LIMITS_MEMORY", "64MiB")], [("OFS_LIMITS_THREADS", "5"), ("OFS_LIMITS_MEMORY", "1GiB")]].map(
            |limits| {
                let bench = Bench::new(&limits);
                let keys = [bench.start("train", false), bench.start("audit", false)];
                for key in &keys {
                    while bench.builds.snapshot().iter().any(|b| b.run_key == *key && b.alive()) {
                        let _ = bench.heard.recv_timeout(PATIENCE).unwrap();
                    }
                    assert_eq!(bench.status(key).0, Status::Done);
                }
                let state = bench.builds.snapshot().remove(0);
                assert_eq!(state.gates.iter().map(|g| g.phase).collect::<Vec<_>>(), Phase::RUN);
                assert!(!bench.builds.busy());
                published(bench.pad.root())
            },
        );
    assert!(bytes[0].len() > 8 && bytes[0] == bytes[1], "{:?}", bytes[0].keys());
}

#[test]
fn a_stepped_build_shows_what_each_gate_proved() {
    let bench = Bench::new(&[]);
    let key = bench.start("train", true);
    let mut event_id = String::new();
    for phase in Phase::RUN {
        let paused = bench.paused(&key);
        assert_eq!((paused.gate.phase, &paused.why), (phase, &Why::Step));
        assert!(bench.ledger.run(&key).unwrap().unwrap().paused_since.is_some());
        assert!(matches!(bench.builds.snapshot()[0].stage, Stage::Paused(_)));
        for look in paused.looks {
            let find = if *look == Look::Window { event_id.as_str() } else { "" };
            let peeked = bench.look(&key, *look, find);
            assert!(peeked.rows.len() <= 3 && (!peeked.rows.is_empty() || *look == Look::Late), "{phase:?} {look:?}");
            assert!(peeked.rows.iter().flatten().all(|cell| !cell.contains("rror")), "{phase:?} {look:?}: {:?}", peeked.rows);
            assert!(peeked.rows.iter().all(|row| row.len() == peeked.columns.len()), "{phase:?} {look:?}");
            if *look == Look::Events {
                assert!(peeked.rows.is_sorted() && peeked.matched == 842 && peeked.whole, "{peeked:?}");
                event_id = peeked.rows[2][3].clone();
                let one = bench.look(&key, Look::Events, &event_id);
                assert_eq!((one.matched, &one.rows), (1, &vec![peeked.rows[2].clone()]));
                let place = format!("{}/{}", one.rows[0][1].rsplit('/').next().unwrap(), one.rows[0][2]);
                assert_eq!(bench.look(&key, Look::Events, &place).rows, one.rows);
            }
            if *look == Look::Window {
                let at = peeked.columns.iter().position(|c| c == "event_id").unwrap();
                assert_eq!(peeked.rows[0][at], event_id, "the event itself is the newest of its window");
                assert!(peeked.rows.iter().all(|row| !row[0].is_empty()));
            }
        }
        assert!(bench.builds.answer(&key, Answer::Continue));
    }
    assert!(matches!(bench.ended(&key), Ending::Result(result) if result.exit == 0));
    let story = bench.events(&key);
    assert_eq!(story.iter().filter(|e| *e == "RUN_PAUSED").count(), 5);
    assert_eq!(story.iter().filter(|e| *e == "RUN_UNPAUSED").count(), 5);
    assert!(!bench.builds.answer(&key, Answer::Continue), "nobody asks any more");
}

#[test]
fn what_has_no_share_waits_and_starts_when_there_is_one() {
    let bench = Bench::new(&[("OFS_LIMITS_THREADS", "1")]);
    let first = bench.start("train", true);
    bench.paused(&first);
    let second = bench.start("audit", false);
    assert!(matches!(bench.builds.start(bench.spec("train", false)), Err(StartError::Here(key)) if key == first));
    assert_eq!(bench.status(&second).0, Status::Queued);
    assert!(matches!(bench.builds.snapshot()[1].stage, Stage::Waiting));
    assert!(bench.builds.answer(&first, Answer::Abort));
    assert_eq!(bench.ended(&first).code(), Some(ReasonCode::CancelledByOperator));
    assert!(matches!(bench.ended(&second), Ending::Result(result) if result.exit == 0));
    assert_eq!(bench.status(&first).0, Status::Cancelled);
}

#[test]
fn cancelling_reaches_a_build_at_once_and_is_audited() {
    let bench = Bench::new(&[("OFS_LIMITS_THREADS", "1")]);
    let (first, second) = (bench.start("train", true), bench.start("audit", false));
    bench.paused(&first);
    assert!(matches!(bench.builds.cancel(&second, "not needed"), Ok(Ordered::Ended { .. })));
    assert!(matches!(bench.builds.cancel(&first, "wrong day"), Ok(Ordered::Asked { .. })));
    assert_eq!(bench.ended(&first).code(), Some(ReasonCode::CancelledByOperator));
    assert_eq!((bench.status(&first).0, bench.status(&second).0), (Status::Cancelled, Status::Cancelled));
    assert!(bench.events(&first).contains(&"OPERATOR_CANCEL_REQUESTED".to_owned()));
    // It waited behind a gate that it had passed.
    let (row, events) = (bench.ledger.run(&first).unwrap().unwrap(), bench.ledger.events(&first, 0).unwrap());
    let standings: Vec<&str> = crate::observe::gates::gates(&events, &row).iter().map(|g| g.standing.as_str()).collect();
    assert_eq!(standings, ["PASSED", "NOT_REACHED", "NOT_REACHED", "NOT_REACHED", "NOT_REACHED"]);
    assert!(bench.builds.cancel(&first, "again").is_err());
}

#[test]
fn leaving_hands_every_build_back_and_another_goes_on() {
    let bench = Bench::new(&[("OFS_LIMITS_THREADS", "2")]);
    let keys = [bench.start("train", true), bench.start("audit", true)];
    for _ in 0..2 {
        let until = Wall::now() + PATIENCE;
        while !matches!(bench.heard.recv_deadline(until).unwrap().1, BuildEvent::Gate(Told::Paused(_))) {}
    }
    assert_eq!(bench.builds.hand_back("HUP", PATIENCE), [""; 0]);
    assert!(matches!(bench.builds.start(bench.spec("train", false)), Err(StartError::Leaving)));
    for key in &keys {
        assert_eq!(bench.status(key), (Status::Queued, Some("INTERRUPTED".into())));
        let last = bench.ledger.events(key, 0).unwrap().pop().unwrap();
        assert_eq!((last.event_type.as_str(), &last.detail["signal"]), ("RUN_INTERRUPTED", &serde_json::json!("HUP")));
    }
    let later = Builds::new(bench.builds.0.env.clone(), bench.builds.0.host.clone(), bench.builds.0.hear.clone());
    assert_eq!(later.start(BuildSpec { what: What::Resume(keys[0].clone()), step: false }).unwrap(), keys[0]);
    let code = loop {
        if let BuildEvent::Ended(ending) = bench.heard.recv_timeout(PATIENCE).unwrap().1
            && !later.busy()
        {
            break ending.code();
        }
    };
    assert_eq!((code, bench.status(&keys[0]).0), (None, Status::Done));
    assert!(later.start(BuildSpec { what: What::Retry(keys[0].clone()), step: false }).is_err());
}

#[test]
fn a_build_that_panics_is_a_failed_run_and_the_others_live() {
    let bench = Bench::with(&[], Box::new(|stepper| Box::new(Careless(Phase::Labels, stepper))));
    let key = bench.start("train", false);
    assert_eq!(bench.ended(&key).code(), Some(ReasonCode::RunPanicked));
    assert_eq!(bench.status(&key), (Status::Failed, Some("RUN_PANICKED".into())));
    let told = bench.ledger.run(&key).unwrap().unwrap().reason.unwrap();
    assert!(told["message"].as_str().unwrap().contains("an injected fault at labels"), "{told}");
    // Its share is free again, and the next one is started as if nothing had happened.
    let other = bench.start("audit", false);
    assert_eq!(bench.ended(&other).code(), Some(ReasonCode::RunPanicked));
    assert!(!bench.builds.busy());
}

#[test]
fn a_breakpoint_on_a_reason_stops_before_the_run_is_closed() {
    let bench = Bench::new(&[]);
    bench.pad.change(&Verb::RemoveRecord("0/17".into())).unwrap();
    assert!(bench.builds.breakpoints().toggle(Breakpoint::parse("REPLAY_INCOMPLETE").unwrap()));
    let key = bench.start("train", false);
    let paused = bench.paused(&key);
    assert!(matches!(&paused.why, Why::Refused(refusal) if refusal.code == ReasonCode::ReplayIncomplete));
    assert_eq!(bench.status(&key).0, Status::Running);
    let found = bench.look(&key, Look::Findings, "REPLAY_BASIS_GAP");
    assert_eq!(found.rows.len(), 1, "{found:?}");
    assert!(bench.builds.answer(&key, Answer::Continue));
    assert_eq!(bench.ended(&key).code(), Some(ReasonCode::ReplayIncomplete));
    assert_eq!(bench.status(&key).0, Status::Failed);
}

#[test]
fn a_pause_that_nobody_ends_gives_the_run_back() {
    let bench = Bench::new(&[("OFS_LAUNCHER_MAX_PAUSE_SECONDS", "1")]);
    let key = bench.start("train", true);
    assert_eq!(bench.ended(&key).code(), Some(ReasonCode::Interrupted));
    assert_eq!(bench.status(&key).0, Status::Queued);
    let last = bench.ledger.events(&key, 0).unwrap().pop().unwrap();
    assert_eq!((last.event_type.as_str(), &last.detail["signal"]), ("RUN_INTERRUPTED", &serde_json::json!(PAUSE_LIMIT)));
}

#[test]
fn a_refused_request_never_becomes_a_build() {
    let bench = Bench::new(&[]);
    let request = Request { intent: b"{}".to_vec(), supersession: Supersession::default() };
    let refused = bench.builds.start(BuildSpec { what: What::Run(request), step: false });
    assert!(matches!(refused, Err(StartError::Refused(result)) if result.text("/status") == "REJECTED"));
    assert!(bench.builds.snapshot().is_empty());
}
