//! Builds in the background: the pipeline that every command runs, on threads of its own, under one budget
//! of threads and memory, stepped, stopped and handed back from the console.
//!
//! Nothing is queued towards the screen: what a build is doing stands in its [`Progress`], which the screen
//! samples, and in [`Builds::snapshot`]; the events that are told are a handful a build.

mod share;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crossbeam_channel::{Sender, bounded};
use tokio_util::sync::CancellationToken;

pub use self::share::{Pool, Share};
use crate::contract::ReasonCode;
use crate::ledger::{LedgerError, Order, Ordered, RunRow, Submitted};
use crate::pipeline::gate::{Env, Phase, Refusal};
use crate::pipeline::progress::Progress;
use crate::pipeline::run::step::{Answer, Breakpoints, Paused, Stepper, Told};
use crate::pipeline::run::{self, GateView, Gatekeeper, Host, Request, RunResult, StopSignal};

/// Builds that may wait for their share.
pub const MAX_WAITING: usize = 64;
/// Ended builds that are remembered.
const MAX_ENDED: usize = 64;
/// Answers that a build may have outstanding.
const ANSWERS: usize = 8;

/// What to build.
#[derive(Debug, Clone)]
pub enum What {
    /// A request, as `ofs run` does.
    Run(Request),
    /// A run that waits, was interrupted, is stuck or may be tried again, as `ofs resume` does.
    Resume(String),
    /// A run that waits for its publication, as `ofs retry` does.
    Retry(String),
}

/// A build to be started.
#[derive(Debug, Clone)]
pub struct BuildSpec {
    /// What.
    pub what: What,
    /// Whether it stops at each gate.
    pub step: bool,
}

/// Why a build does not start.
#[derive(Debug, Clone, thiserror::Error)]
pub enum StartError {
    /// The request was refused, which is on record where it can be.
    #[error("{}", .0.text("/reason/message"))]
    Refused(Box<RunResult>),
    /// This console builds that run already.
    #[error("run {0} is being built here already")]
    Here(String),
    /// Too many wait.
    #[error("{MAX_WAITING} builds wait already; let some end first")]
    Full,
    /// The console is being left.
    #[error("the console is being left; nothing starts any more")]
    Leaving,
    /// The ledger does not know the run, does not allow it, or cannot be written.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    /// No thread could be had.
    #[error("no thread for the build: {0}")]
    Thread(String),
}

/// Where a build stands.
#[derive(Debug, Clone)]
pub enum Stage {
    /// It waits for its share of threads and memory; in the ledger it is QUEUED.
    Waiting,
    /// It works.
    Working,
    /// It stands at a gate and waits for an answer.
    Paused(Box<Paused>),
    /// It has ended.
    Ended(Box<Ending>),
}

/// How a build ended.
#[derive(Debug, Clone)]
pub enum Ending {
    /// With a result, good or bad.
    Result(RunResult),
    /// The ledger could not be written, so nothing could go on.
    Ledger(LedgerError),
    /// It panicked where nobody could record it: the run can be resumed once its lease is over.
    Panicked(String),
}

/// One build as the screen shows it.
#[derive(Debug, Clone)]
pub struct BuildState {
    /// The run.
    pub run_key: String,
    /// Whether it was started in step mode.
    pub step: bool,
    /// What it was given.
    pub share: Option<Share>,
    /// Where it stands.
    pub stage: Stage,
    /// Gates that it has passed in this attempt, with what they proved.
    pub gates: Vec<GateView>,
    /// What it is doing now; sampled by whoever looks.
    pub progress: Arc<Progress>,
}

/// What a build was doing when it was looked at.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Sampled {
    /// The phase.
    pub phase: Option<Phase>,
    /// Units done and to do in it.
    pub units: (u64, u64),
    /// Partitions of the replay: name, offsets wanted, records read.
    pub lanes: Vec<(String, u64, u64)>,
}

impl BuildState {
    /// What it is doing now.
    pub fn sampled(&self) -> Sampled {
        Sampled { phase: self.progress.phase(), units: self.progress.units(), lanes: self.progress.lanes() }
    }

    /// Whether it is still to end.
    pub fn alive(&self) -> bool {
        !matches!(self.stage, Stage::Ended(_))
    }
}

/// What happened to a build.
#[derive(Debug, Clone)]
pub enum BuildEvent {
    /// It got its share and works.
    Started,
    /// Something at a gate.
    Gate(Told),
    /// It has ended.
    Ended(Box<Ending>),
}

/// Who hears of builds; called on their threads, so it must not wait.
pub type Hear = Arc<dyn Fn(&str, BuildEvent) + Send + Sync>;

/// Makes the gatekeeper of a build; replaced in tests by one that misbehaves.
type MakeKeeper = dyn Fn(Stepper) -> Box<dyn Gatekeeper> + Send + Sync;

/// A build and the means to reach it.
struct Build {
    state: BuildState,
    what: What,
    cancel: CancellationToken,
    signal: StopSignal,
    answers: Option<Sender<Answer>>,
}

struct Inner {
    env: Env,
    host: Host,
    hear: Hear,
    breakpoints: Breakpoints,
    make: Box<MakeKeeper>,
    table: Mutex<Table>,
    changed: Condvar,
}

struct Table {
    pool: Pool,
    builds: VecDeque<Build>,
    leaving: bool,
}

/// The builds of this console. Clones are the same builds.
#[derive(Clone)]
pub struct Builds(Arc<Inner>);

impl std::fmt::Debug for Builds {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.snapshot().iter().map(|b| &b.run_key)).finish()
    }
}

impl Builds {
    /// No builds yet. All of them together keep within the limits of `env`'s configuration.
    pub fn new(env: Env, host: Host, hear: Hear) -> Self {
        Self::with_keeper(env, host, hear, Box::new(|stepper| Box::new(stepper)))
    }

    fn with_keeper(env: Env, host: Host, hear: Hear, make: Box<MakeKeeper>) -> Self {
        let pool = Pool::new(Share::of(&env.config));
        let table = Mutex::new(Table { pool, builds: VecDeque::new(), leaving: false });
        Builds(Arc::new(Inner { env, host, hear, breakpoints: Breakpoints::default(), make, table, changed: Condvar::new() }))
    }

    /// Breakpoints of all builds, those that run included.
    pub fn breakpoints(&self) -> &Breakpoints {
        &self.0.breakpoints
    }

    /// Admits a build and starts it, or lets it wait for its share; the run stands in the ledger when this
    /// returns. Its key.
    ///
    /// # Errors
    /// See [`StartError`].
    pub fn start(&self, spec: BuildSpec) -> Result<String, StartError> {
        let inner = &self.0;
        let run_key = inner.submit(&spec.what)?;
        {
            let mut table = inner.lock();
            if table.leaving {
                return Err(StartError::Leaving);
            }
            if table.builds.iter().any(|b| b.state.run_key == run_key && b.state.alive()) {
                return Err(StartError::Here(run_key));
            }
            if table.builds.iter().filter(|b| matches!(b.state.stage, Stage::Waiting)).count() >= MAX_WAITING {
                return Err(StartError::Full);
            }
            table.builds.retain(|b| b.state.run_key != run_key);
            table.builds.push_back(Build::new(run_key.clone(), spec));
            while table.builds.iter().filter(|b| !b.state.alive()).count() > MAX_ENDED {
                if let Some(oldest) = table.builds.iter().position(|b| !b.state.alive()) {
                    table.builds.remove(oldest);
                }
            }
        }
        inner.launch()?;
        Ok(run_key)
    }

    /// Answers a build that stands at a gate. Says whether there is one to hear it.
    pub fn answer(&self, run_key: &str, answer: Answer) -> bool {
        let table = self.0.lock();
        let build = table.builds.iter().find(|b| b.state.run_key == run_key);
        let asked = build.filter(|b| matches!(b.state.stage, Stage::Paused(_))).and_then(|b| b.answers.as_ref());
        asked.is_some_and(|answers| answers.try_send(answer).is_ok())
    }

    /// Calls a run off, of this console or of any other process, with a reason, as `ofs cancel` does. A
    /// build of this console hears of it at once, another's owner with its next heartbeat.
    ///
    /// # Errors
    /// `INVALID_TRANSITION` where it is too late; what keeps the ledger from recording.
    pub fn cancel(&self, run_key: &str, reason: &str) -> Result<Ordered, LedgerError> {
        let ordered = self.0.host.ledger.order(Order::Cancel, run_key, reason)?;
        let mut table = self.0.lock();
        if let Some(build) = table.builds.iter_mut().find(|b| b.state.run_key == run_key && b.state.alive()) {
            build.cancel.cancel();
            if matches!(build.state.stage, Stage::Waiting) {
                table.builds.retain(|b| b.state.run_key != run_key);
            }
        }
        Ok(ordered)
    }

    /// All builds, the oldest first. Cheap: counters are shared, not copied.
    pub fn snapshot(&self) -> Vec<BuildState> {
        self.0.lock().builds.iter().map(|b| b.state.clone()).collect()
    }

    /// Whether a build of this console is still to end.
    pub fn busy(&self) -> bool {
        self.0.lock().builds.iter().any(|b| b.state.alive())
    }

    /// Stops every build at its next safe point and hands its run back as QUEUED under the name of a signal
    /// (`TERM`, or `QUIT` where the user leaves); nothing starts any more. Waits for at most `patience`;
    /// the runs that had not ended by then, whose leases run out by themselves.
    pub fn hand_back(&self, signal: &'static str, patience: Duration) -> Vec<String> {
        let mut table = self.0.lock();
        table.leaving = true;
        table.builds.retain(|b| !matches!(b.state.stage, Stage::Waiting));
        for build in table.builds.iter().filter(|b| b.state.alive()) {
            build.signal.set(signal);
            build.cancel.cancel();
            if let Some(answers) = &build.answers {
                // Wakes one that waits at a gate; the cancellation goes before the answer.
                let _ = answers.try_send(Answer::HandBack(signal));
            }
        }
        let alive = |table: &mut Table| table.builds.iter().any(|b| b.state.alive());
        let (table, _) = self.0.changed.wait_timeout_while(table, patience, alive).unwrap_or_else(PoisonError::into_inner);
        table.builds.iter().filter(|b| b.state.alive()).map(|b| b.state.run_key.clone()).collect()
    }
}

impl Build {
    fn new(run_key: String, spec: BuildSpec) -> Self {
        let state = BuildState {
            run_key,
            step: spec.step,
            share: None,
            stage: Stage::Waiting,
            gates: Vec::new(),
            progress: Arc::new(Progress::default()),
        };
        Build { state, what: spec.what, cancel: CancellationToken::new(), signal: StopSignal::default(), answers: None }
    }
}

/// What a thread needs to run a build.
struct Job {
    run_key: String,
    what: What,
    share: Share,
    env: Env,
    host: Host,
    keeper: Box<dyn Gatekeeper>,
}

impl Inner {
    fn lock(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts the request on record, so that a build that waits is seen by everybody. The run's key.
    fn submit(&self, what: &What) -> Result<String, StartError> {
        let request = match what {
            What::Resume(run_key) | What::Retry(run_key) => {
                let row = self.row(run_key)?;
                let action = if matches!(what, What::Resume(_)) { "resume" } else { "retry" };
                if row.actions().contains(&action) {
                    return Ok(row.run_key);
                }
                let (from, legal) = (row.status, row.actions());
                return Err(LedgerError::InvalidTransition { run_key: row.run_key, from, action: action.into(), legal }.into());
            }
            What::Run(request) => request,
        };
        let admitted = run::admit(request, &self.env, &self.host)?.map_err(StartError::Refused)?;
        match self.host.ledger.submit(&run::new_run(&admitted))? {
            Submitted::Mismatch(row) => Err(StartError::Refused(Box::new(run::taken(&admitted, &row)))),
            Submitted::New(row) | Submitted::Existing(row) => Ok(row.run_key),
        }
    }

    fn row(&self, run_key: &str) -> Result<RunRow, LedgerError> {
        self.host.ledger.run(run_key)?.ok_or_else(|| LedgerError::NotFound(run_key.to_owned()))
    }

    /// Starts every waiting build for which there is a share, in their order.
    fn launch(self: &Arc<Self>) -> Result<(), StartError> {
        while let Some(job) = self.next_job() {
            let (inner, run_key, share) = (self.clone(), job.run_key.clone(), job.share);
            (self.hear)(&run_key, BuildEvent::Started);
            let name = format!("build-{}", run_key.get(..8).unwrap_or(&run_key));
            if let Err(error) = std::thread::Builder::new().name(name).spawn(move || inner.work(job)) {
                let mut table = self.lock();
                table.pool.give(share);
                table.builds.retain(|b| b.state.run_key != run_key);
                return Err(StartError::Thread(error.to_string()));
            }
        }
        Ok(())
    }

    fn next_job(self: &Arc<Self>) -> Option<Job> {
        let mut guard = self.lock();
        let table = &mut *guard;
        if table.leaving {
            return None;
        }
        let build = table.builds.iter_mut().find(|b| matches!(b.state.stage, Stage::Waiting))?;
        let share = table.pool.take()?;
        // A share of valid limits is valid; were it not, the build would keep to the whole.
        let config = share.apply(&self.env.config).map_or_else(|_| self.env.config.clone(), Arc::new);
        let (answers, taken) = bounded(ANSWERS);
        let (inner, key) = (Arc::downgrade(self), build.state.run_key.clone());
        let tell = Box::new(move |told: Told| {
            if let Some(inner) = inner.upgrade() {
                inner.told(&key, told);
            }
        });
        let stepper = Stepper::new(build.state.step, self.breakpoints.clone(), taken, tell);
        (build.state.stage, build.state.share, build.answers) = (Stage::Working, Some(share), Some(answers));
        let (cancel, progress) = (build.cancel.clone(), build.state.progress.clone());
        Some(Job {
            run_key: build.state.run_key.clone(),
            what: build.what.clone(),
            share,
            env: Env { config, cancel, progress, ..self.env.clone() },
            host: Host { signal: build.signal.clone(), ..self.host.clone() },
            keeper: (self.make)(stepper),
        })
    }

    fn work(self: Arc<Self>, job: Job) {
        let ending = catch_unwind(AssertUnwindSafe(|| self.run(&job))).unwrap_or_else(|panic| {
            let words = panic.downcast_ref::<String>().map(String::as_str).or_else(|| panic.downcast_ref::<&str>().copied());
            Ending::Panicked(words.unwrap_or("without words").to_owned())
        });
        if let Ending::Panicked(words) = &ending {
            tracing::error!(run_key = job.run_key, "a build panicked: {words}");
        }
        {
            let mut table = self.lock();
            table.pool.give(job.share);
            if let Some(build) = table.builds.iter_mut().find(|b| b.state.run_key == job.run_key) {
                build.state.stage = Stage::Ended(Box::new(ending.clone()));
                build.answers = None;
            }
        }
        (self.hear)(&job.run_key, BuildEvent::Ended(Box::new(ending)));
        self.changed.notify_all();
        if let Err(error) = self.launch() {
            tracing::error!("a waiting build could not start: {error}");
        }
    }

    fn run(&self, job: &Job) -> Ending {
        let (env, host, keeper) = (&job.env, &job.host, job.keeper.as_ref());
        let result = match &job.what {
            What::Run(request) => run::run(request, env, host, keeper),
            What::Resume(key) => self.row(key).and_then(|row| run::resume(&row, env, host, keeper)),
            What::Retry(key) => self.row(key).and_then(|row| run::retry(&row, env, host, keeper)),
        };
        match result {
            Ok(result) => Ending::Result(result),
            Err(error) => Ending::Ledger(error),
        }
    }

    fn told(&self, run_key: &str, told: Told) {
        {
            let mut table = self.lock();
            if let Some(build) = table.builds.iter_mut().find(|b| b.state.run_key == run_key) {
                match &told {
                    Told::Passed(gate) => build.state.gates.push(gate.clone()),
                    Told::Paused(paused) => build.state.stage = Stage::Paused(paused.clone()),
                    Told::Unpaused => build.state.stage = Stage::Working,
                    Told::Shown(_) => {}
                }
            }
        }
        (self.hear)(run_key, BuildEvent::Gate(told));
    }
}

impl Ending {
    /// The refusal's code, where there is one.
    pub fn code(&self) -> Option<ReasonCode> {
        match self {
            Ending::Result(result) => result.code(),
            Ending::Ledger(error) => Some(error.code()),
            Ending::Panicked(_) => Some(ReasonCode::RunPanicked),
        }
    }

    /// What happened, in one line.
    pub fn words(&self) -> String {
        match self {
            Ending::Result(result) => match result.code() {
                Some(code) => format!("{} {code}: {}", result.text("/status"), result.text("/reason/message")),
                None => format!("{} ({})", result.text("/status"), result.text("/outcome")),
            },
            Ending::Ledger(error) => error.to_string(),
            Ending::Panicked(words) => {
                let refusal = Refusal::new(ReasonCode::RunPanicked, Phase::Operate, words.clone());
                format!("{}: {}", refusal.code, refusal.message)
            }
        }
    }
}
