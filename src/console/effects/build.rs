//! The console's own builds: made on the first wish for one, so that a console that only looks opens nothing
//! for writing.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crossbeam_channel::Sender;

use super::World;
use super::orders::{Done, Problem, told};
use super::sampler::Sampler;
use crate::console::builds::{BuildEvent, BuildSpec, Builds, StartError, What};
use crate::console::msg::{Msg, Told};
use crate::ledger::{Ledger, LedgerError, Ordered, Owner};
use crate::observe::{self, facts::flush_quietly};
use crate::pipeline::admit::Supersession;
use crate::pipeline::run::step::{Answer, Breakpoint};
use crate::pipeline::run::{Host, Request, StopSignal};

/// Largest intent file, in bytes.
const MAX_INTENT: u64 = 4 << 20;

/// How long leaving waits for builds to reach a safe point.
const PATIENCE: Duration = Duration::from_secs(2);

/// The builds, once there are any.
#[derive(Debug, Clone)]
pub(super) struct Works {
    world: World,
    told: Sender<Msg>,
    builds: Arc<Mutex<Option<(Builds, Sampler)>>>,
}

impl Works {
    /// None yet.
    pub(super) fn new(world: World, told: Sender<Msg>) -> Self {
        Works { world, told, builds: Arc::default() }
    }

    /// Builds from an intent file; a relative name is taken from the workspace.
    pub(super) fn run(&self, path: &Path, step: bool) -> Told {
        let path = self.world.config.workspace.join(path);
        let intent = match read(&path) {
            Ok(intent) => intent,
            Err(why) => return Told::bad(format!("{}: {why}", path.display())),
        };
        let supersession = Supersession { manifests: Vec::new(), reason: None };
        told(self.start("build", What::Run(Request { intent, supersession }), step))
    }

    /// Starts one and says so.
    pub(super) fn start(&self, name: &str, what: What, step: bool) -> Done {
        let refused = |code: &str, text: String| Problem { code: code.to_owned(), text };
        let started = self.builds().map_err(Problem::plain).and_then(|(builds, sampler)| match builds.start(BuildSpec { what, step }) {
            Ok(run_key) => {
                sampler.wake();
                Ok(run_key)
            }
            Err(StartError::Refused(result)) => {
                let code = result.text("/reason/code");
                Err(refused(code, format!("{code}: {}; it is on record", result.text("/reason/message"))))
            }
            Err(StartError::Ledger(error)) => Err(refused(error.code().as_str(), format!("{}: {error}", error.code()))),
            Err(other) => Err(Problem::plain(other.to_string())),
        });
        match started {
            Ok(run_key) => Ok(format!("{name}: run {} is under way", run_key.get(..8).unwrap_or(&run_key))),
            Err(problem) => Err(Problem { text: format!("{name}: {}", problem.text), ..problem }),
        }
    }

    /// Answers a build that stands at a gate.
    pub(super) fn answer(&self, run_key: &str, answer: Answer) -> bool {
        self.known().is_some_and(|builds| builds.answer(run_key, answer))
    }

    /// Calls a build of this console off; nothing where the run is none of them.
    pub(super) fn cancel(&self, run_key: &str, reason: &str) -> Option<Result<Ordered, LedgerError>> {
        let builds = self.known()?;
        let own = builds.snapshot().iter().any(|build| build.run_key == run_key && build.alive());
        own.then(|| builds.cancel(run_key, reason))
    }

    /// Sets a breakpoint, or takes it away where it is set; `off` takes all away.
    pub(super) fn breakpoint(&self, word: &str) -> Told {
        let builds = match self.builds() {
            Ok((builds, _)) => builds,
            Err(why) => return Told::bad(why),
        };
        let breakpoints = builds.breakpoints();
        if word.eq_ignore_ascii_case("off") {
            for at in breakpoints.all() {
                breakpoints.toggle(at);
            }
        } else {
            match Breakpoint::parse(word) {
                Ok(at) => drop(breakpoints.toggle(at)),
                Err(why) => return Told::bad(why),
            }
        }
        let all: Vec<&str> = breakpoints.all().into_iter().map(Breakpoint::name).collect();
        Told::good(if all.is_empty() { "no breakpoints".to_owned() } else { format!("builds stop at {}", all.join(", ")) })
    }

    /// Hands every build back. The runs that did not come to a safe point in time.
    pub(super) fn hand_back(&self, signal: &'static str) -> Vec<String> {
        self.known().map(|builds| builds.hand_back(signal, PATIENCE)).unwrap_or_default()
    }

    fn known(&self) -> Option<Builds> {
        self.builds.lock().unwrap_or_else(PoisonError::into_inner).as_ref().map(|(builds, _)| builds.clone())
    }

    fn builds(&self) -> Result<(Builds, Sampler), String> {
        if !self.world.may_write {
            return Err("the console is read-only".into());
        }
        let mut slot = self.builds.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(builds) = &*slot {
            return Ok(builds.clone());
        }
        let World { clock, actor, .. } = &self.world;
        let env = self.world.env()?;
        let ledger = Ledger::open(&self.world.ledger_path(), clock.clone(), actor).map_err(|e| format!("{}: {e}", e.code()))?;
        let host = Host { ledger: Arc::new(ledger), clock: clock.clone(), owner: Owner::current(), signal: StopSignal::default() };
        let (told, ours) = (self.told.clone(), (env.clone(), host.clone()));
        // Called on a build's thread: it must not wait for a screen that has stopped listening.
        let hear = Arc::new(move |run_key: &str, event| {
            let ended = matches!(event, BuildEvent::Ended(_));
            let _ = told.send_timeout(Msg::Build { run_key: run_key.to_owned(), event }, PATIENCE);
            // As after a build of the command line; what cannot be sent now waits for the next flush.
            if ended {
                flush_quietly(&ours.0, &ours.1.ledger);
                if let Some(trouble) = observe::export(&ours.0, &ours.1, run_key) {
                    let _ = told.send_timeout(Msg::Told(Told::bad(trouble)), PATIENCE);
                }
            }
        });
        let builds = Builds::new(env, host, hear);
        let sampler = Sampler::start(builds.clone(), self.told.clone(), self.world.frame_rate).map_err(|e| format!("no thread: {e}"))?;
        Ok(slot.insert((builds, sampler)).clone())
    }
}

fn read(path: &Path) -> Result<Vec<u8>, String> {
    let size = std::fs::metadata(path).map_err(|e| e.to_string())?.len();
    if size > MAX_INTENT {
        return Err(format!("larger than the limit of {MAX_INTENT} bytes"));
    }
    std::fs::read(path).map_err(|e| e.to_string())
}
