//! The ledger's feed: looks for changes less than twice a second, and tells what changed and nothing else.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant as Moment, SystemTime};

use crossbeam_channel::{RecvTimeoutError, Sender, bounded};

use super::World;
use crate::console::data::runs::RunsUpdate;
use crate::console::msg::{Feed, Msg};
use crate::ledger::{Ledger, LedgerError, RunLine, Status};
use crate::time::Instant;

/// Pause between two looks: a change shows within two seconds, and an idle console wakes less than twice a second.
const LOOK: Duration = Duration::from_millis(750);

/// Runs told at first, so that the screen has its rows at once; the others follow in pages of this size.
const FIRST: u64 = 500;
const PAGE: u64 = 10_000;

/// The feed's thread.
#[derive(Debug, Clone)]
pub(super) struct Feeder {
    wake: Sender<()>,
    pulse: Arc<Mutex<Moment>>,
}

impl Feeder {
    /// Starts it.
    pub(super) fn start(world: World, told: Sender<Msg>) -> std::io::Result<Self> {
        let (wake, woken) = bounded(1);
        let pulse = Arc::new(Mutex::new(Moment::now()));
        let beat = pulse.clone();
        let work = move || {
            let mut feed =
                Watch { world, told, ledger: None, seen: None, state: None, running: Vec::new(), stamp: None, logged: 0, authority: None };
            loop {
                if feed.look().is_err() {
                    return;
                }
                // Also where the look failed: that is told, and no silence.
                touch(&beat);
                match woken.recv_timeout(LOOK) {
                    // What was known is told once more, and the file opened anew.
                    Ok(()) => feed.forget(),
                    Err(RecvTimeoutError::Timeout) => {}
                    Err(RecvTimeoutError::Disconnected) => return,
                }
            }
        };
        std::thread::Builder::new().name("feed".into()).spawn(work)?;
        Ok(Feeder { wake, pulse })
    }

    /// How long ago it last came to the end of a look.
    pub(super) fn silent(&self) -> Duration {
        self.pulse.lock().unwrap_or_else(PoisonError::into_inner).elapsed()
    }

    /// Silence counts from now.
    pub(super) fn awake(&self) {
        touch(&self.pulse);
    }

    /// Looks now. Where a look is due already, nothing more is needed.
    pub(super) fn refresh(&self) {
        let _ = self.wake.try_send(());
    }
}

fn touch(pulse: &Mutex<Moment>) {
    *pulse.lock().unwrap_or_else(PoisonError::into_inner) = Moment::now();
}

/// Nobody listens any more.
struct Deaf;

/// What a file looks like from outside, with the log that writers keep beside it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stamp {
    len: u64,
    modified: Option<SystemTime>,
    log: Option<(u64, Option<SystemTime>)>,
}

fn stamp(path: &Path) -> Option<Stamp> {
    let seen = |path: &Path| std::fs::metadata(path).ok().map(|data| (data.len(), data.modified().ok()));
    let mut wal = path.as_os_str().to_owned();
    wal.push("-wal");
    seen(path).map(|(len, modified)| Stamp { len, modified, log: seen(Path::new(&wal)) })
}

struct Watch {
    world: World,
    told: Sender<Msg>,
    ledger: Option<Arc<Ledger>>,
    /// The ledger's version and the newest event when it was last read.
    seen: Option<(i64, Instant, usize)>,
    state: Option<Feed>,
    /// Runs that move without events.
    running: Vec<RunLine>,
    /// What the file looked like when it was opened as an unchanging one.
    stamp: Option<Stamp>,
    /// Records of the log that were told.
    logged: u64,
    /// What the files looked like that pins are compared with.
    authority: Option<[Option<Stamp>; 2]>,
}

impl Watch {
    fn forget(&mut self) {
        if let Some((version, ..)) = &mut self.seen {
            *version = i64::MIN;
        }
    }

    fn look(&mut self) -> Result<(), Deaf> {
        let logged = self.world.log.seen();
        if logged != std::mem::replace(&mut self.logged, logged) {
            self.tell(Msg::Log(self.world.log.view()))?;
        }
        let authority = ["features", "ownership"].map(|name| stamp(&self.world.config.path(name)));
        if self.authority.replace(authority).is_some_and(|seen| seen != authority) {
            self.tell(Msg::Authority)?;
        }
        match self.read() {
            Ok(()) => Ok(()),
            Err(Outcome::Deaf) => Err(Deaf),
            Err(Outcome::Ledger(error)) => {
                self.ledger = None;
                self.state(Feed::Stale(error.to_string()))
            }
        }
    }

    fn state(&mut self, state: Feed) -> Result<(), Deaf> {
        if self.state.as_ref() == Some(&state) {
            return Ok(());
        }
        self.state = Some(state.clone());
        self.tell(Msg::Feed(state))
    }

    fn tell(&self, msg: Msg) -> Result<(), Deaf> {
        self.told.send(msg).map_err(|_| Deaf)
    }

    fn read(&mut self) -> Result<(), Outcome> {
        let path = self.world.ledger_path();
        let stamp = stamp(&path);
        let Some(stamp) = stamp.filter(|stamp| stamp.len > 0) else {
            self.ledger = None;
            if self.state.as_ref().is_some_and(|state| *state != Feed::Absent) {
                // What is on the screen was read from a file that is there no more.
                return Ok(self.state(Feed::Stale(format!("{} is gone", path.display())))?);
            }
            if self.state != Some(Feed::Absent) {
                self.tell(Msg::Runs(RunsUpdate { complete: true, ..RunsUpdate::default() }))?;
            }
            return Ok(self.state(Feed::Absent)?);
        };
        // An unchanging reader sees nothing new until the file is opened again.
        if self.stamp.is_some_and(|seen| seen != stamp) {
            self.ledger = None;
        }
        let ledger = match &self.ledger {
            Some(ledger) => ledger.clone(),
            None => {
                let ledger = Arc::new(self.open(&path)?);
                self.stamp = ledger.immutable().then_some(stamp);
                self.forget();
                self.ledger.insert(ledger).clone()
            }
        };
        // Where nobody has it open, that it is read as it stands is no limitation worth a banner: the next
        // writer's first commit shows all the same.
        let fixed = ledger.immutable() && self.world.may_write;
        self.state(if fixed { Feed::Static } else { Feed::Live })?;
        let version = ledger.data_version()?;
        let life = i64::try_from(self.world.config.launcher().lease_seconds.saturating_mul(1_000_000)).unwrap_or(i64::MAX);
        match self.seen {
            Some((seen, ..)) if seen == version => self.gone(&ledger, life),
            Some((_, newest, _)) => self.changed(&ledger, version, newest, life),
            None => self.all(&ledger, version, life),
        }
    }

    /// A ledger of an older program is brought up first, where that is allowed.
    fn open(&self, path: &Path) -> Result<Ledger, LedgerError> {
        let World { clock, actor, may_write, .. } = &self.world;
        if !may_write {
            return Ledger::open_untouched(path, clock.clone(), actor);
        }
        match Ledger::open_read_only(path, clock.clone(), actor) {
            Err(LedgerError::Io(_) | LedgerError::Unborn) if *may_write => {
                Ledger::open(path, clock.clone(), actor)?;
                Ledger::open_read_only(path, clock.clone(), actor)
            }
            opened => opened,
        }
    }

    /// Everything, the newest first.
    fn all(&mut self, ledger: &Ledger, version: i64, life: i64) -> Result<(), Outcome> {
        let workers = ledger.workers_alive(life)?;
        let mut lines = ledger.newest_lines(FIRST)?;
        let newest = lines.first().map_or(Instant(i64::MIN), |line| line.updated);
        self.running.clear();
        loop {
            let last = lines.last().map(|line| (line.updated, line.run_key.clone()));
            let complete = lines.len() < usize::try_from(FIRST).unwrap_or(0);
            self.remember(&lines);
            self.tell(Msg::Runs(RunsUpdate { lines, complete, workers }))?;
            let Some((updated, run_key)) = last.filter(|_| !complete) else { break };
            lines = ledger.lines_after(updated, &run_key, PAGE)?;
        }
        self.seen = Some((version, newest, workers));
        Ok(())
    }

    /// What changed since.
    fn changed(&mut self, ledger: &Ledger, version: i64, newest: Instant, life: i64) -> Result<(), Outcome> {
        let workers = ledger.workers_alive(life)?;
        let running: Vec<String> = self.running.iter().map(|line| line.run_key.clone()).collect();
        let lines = ledger.changed_lines(newest, &running)?;
        let newest = lines.iter().map(|line| line.updated).max().unwrap_or(newest).max(newest);
        self.remember(&lines);
        self.seen = Some((version, newest, workers));
        Ok(self.tell(Msg::Runs(RunsUpdate { lines, complete: true, workers }))?)
    }

    /// A process that was killed writes nothing: whether owners and workers live has to be asked.
    fn gone(&mut self, ledger: &Ledger, life: i64) -> Result<(), Outcome> {
        let mut lines = Vec::new();
        for line in &mut self.running {
            let gone = line.owner.as_ref().is_some_and(|owner| owner.alive_here() == Some(false));
            if gone != line.owner_gone {
                line.owner_gone = gone;
                lines.push(line.clone());
            }
        }
        let workers = ledger.workers_alive(life)?;
        if let Some((_, _, before)) = &mut self.seen
            && (*before != workers || !lines.is_empty())
        {
            *before = workers;
            self.tell(Msg::Runs(RunsUpdate { lines, complete: true, workers }))?;
        }
        Ok(())
    }

    fn remember(&mut self, lines: &[RunLine]) {
        for line in lines {
            self.running.retain(|known| known.run_key != line.run_key);
            if line.status == Status::Running {
                self.running.push(line.clone());
            }
        }
    }
}

/// Why a look came to nothing.
enum Outcome {
    Deaf,
    Ledger(LedgerError),
}

impl From<Deaf> for Outcome {
    fn from(_: Deaf) -> Self {
        Outcome::Deaf
    }
}

impl From<LedgerError> for Outcome {
    fn from(error: LedgerError) -> Self {
        Outcome::Ledger(error)
    }
}
