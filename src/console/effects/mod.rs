//! What is done outside the model, each on a thread of its own, so that the screen never waits: the ledger's
//! feed, a run's details, operator orders, files, the clipboard.

mod build;
mod clipboard;
mod feed;
mod files;
mod inquire;
mod intents;
mod loader;
mod orders;
mod sampler;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crossbeam_channel::Sender;
use tokio_util::sync::CancellationToken;

pub use clipboard::{Clipboard, MAX_COPY};

use self::build::Works;
use self::feed::Feeder;
use self::inquire::Inquirer;
use self::loader::Loader;
use super::builds::What;
use super::data::Source;
use super::data::log::Ring;
use super::msg::{Effect, Msg, Order, Told};
use crate::config::Config;
use crate::ledger::Ledger;
use crate::pipeline::gate::{Env, outside_of_runs};
use crate::pipeline::progress::Progress;
use crate::store::{Store, Unrecorded};
use crate::time::Clock;

/// What effects need of the world.
#[derive(Debug, Clone)]
pub struct World {
    /// The configuration.
    pub config: Arc<Config>,
    /// The clock.
    pub clock: Arc<dyn Clock>,
    /// Who acts.
    pub actor: String,
    /// Whether anything may be changed.
    pub may_write: bool,
    /// The newest records of the program's own log.
    pub log: Ring,
    /// Most frames a second, and so most looks a second at what is being built.
    pub frame_rate: u32,
}

impl World {
    /// What views are read from: nothing of it is ever written to.
    fn source(&self) -> Result<Source, String> {
        let World { config, clock, actor, .. } = self;
        let open = if self.may_write { Ledger::open_read_only } else { Ledger::open_untouched };
        let ledger = open(&self.ledger_path(), clock.clone(), actor).map_err(|e| e.to_string())?;
        let store = crate::operate::open::store(config).map(|store| Arc::new(store) as Arc<dyn Store>).map_err(|e| e.message);
        Ok(Source { ledger: Arc::new(ledger), store, config: config.clone(), clock: clock.clone(), then: None })
    }

    /// What the pipeline runs in, or is asked in.
    fn env(&self) -> Result<Env, String> {
        let store = crate::operate::open::store(&self.config).map_err(|e| format!("{}: {}", e.code, e.message))?;
        Ok(Env {
            store_root: Some(store.root().to_owned()),
            store: Arc::new(store),
            config: self.config.clone(),
            cancel: CancellationToken::new(),
            progress: Arc::new(Progress::default()),
            attempt: outside_of_runs(self.clock.now()),
            audit: Arc::new(Unrecorded),
        })
    }

    fn ledger_path(&self) -> PathBuf {
        self.config.path("ledger")
    }
}

/// Carries effects out.
#[derive(Debug)]
pub struct Effects {
    world: World,
    told: Sender<Msg>,
    feed: Feeder,
    loader: Loader,
    works: Works,
    inquirer: Inquirer,
}

impl Effects {
    /// Starts the feed and the loader; what they find goes to `told`.
    ///
    /// # Errors
    /// Where no thread can be had.
    pub fn start(world: World, told: Sender<Msg>) -> std::io::Result<Self> {
        let feed = Feeder::start(world.clone(), told.clone())?;
        let loader = Loader::start(world.clone(), told.clone())?;
        let works = Works::new(world.clone(), told.clone());
        let inquirer = Inquirer::new(world.clone(), told.clone());
        Ok(Effects { world, told, feed, loader, works, inquirer })
    }

    /// Carries one out. What concerns the terminal itself is the caller's and comes back.
    pub fn perform(&self, effect: Effect) -> Option<Effect> {
        match effect {
            Effect::Load(run_key) => self.loader.load(run_key),
            Effect::LoadAt { run_key, stop } => self.loader.load_at(run_key, stop),
            Effect::Refresh => self.feed.refresh(),
            Effect::Operate { run_key, order } => {
                let works = self.works.clone();
                self.apart(order.name(), move |world| orders::told(operate(world, &works, &run_key, &order, orders::PATIENCE)));
            }
            Effect::OperateAll { run_keys, order } => {
                let (world, works, told, feed) = (self.world.clone(), self.works.clone(), self.told.clone(), self.feed.clone());
                self.spawn(order.name(), move || operate_all(&world, &works, &run_keys, &order, &feed, &told));
            }
            Effect::Build { path, step } => {
                let works = self.works.clone();
                self.apart("build", move |_| works.run(&path, step));
            }
            Effect::Break(word) => {
                let works = self.works.clone();
                self.apart("break", move |_| works.breakpoint(&word));
            }
            Effect::Answer { run_key, answer } => {
                if !self.works.answer(&run_key, answer) {
                    let _ = self.told.try_send(Msg::Told(Told::bad("that build waits no longer")));
                }
            }
            Effect::Inquire { id, question } => {
                let inquirer = self.inquirer.clone();
                self.spawn("inquiry", move || inquirer.answer(id, &question));
            }
            Effect::CallOff(id) => self.inquirer.call_off(id),
            Effect::Offer(manifest) => {
                let inquirer = self.inquirer.clone();
                self.spawn("offer", move || inquirer.offer(manifest));
            }
            Effect::FindIntents => {
                let (told, root) = (self.told.clone(), self.world.config.workspace.clone());
                self.spawn("intents", move || drop(told.send(Msg::Intents(intents::find(&root)))));
            }
            Effect::NewIntent { path, selectors } => {
                let (told, world) = (self.told.clone(), self.world.clone());
                self.spawn("new intent", move || drop(told.send(Msg::Formed(intents::make(&world, &path, &selectors)))));
            }
            Effect::Write { what, path, content } => {
                let config = self.world.config.clone();
                self.apart("write", move |_| files::write_new(&config, &what, &path, &content));
            }
            other => return Some(other),
        }
        None
    }

    /// How long nothing was heard of the ledger's reader.
    pub fn silent(&self) -> Duration {
        self.feed.silent()
    }

    /// The process was stopped and goes on: what was silent meanwhile was stopped, too.
    pub fn awake(&self) {
        self.feed.awake();
    }

    /// Hands every build of this console back, under the name of a signal. Waits for at most two seconds; the
    /// runs that had not ended by then.
    pub fn hand_back(&self, signal: &'static str) -> Vec<String> {
        self.works.hand_back(signal)
    }

    /// Does something on a thread of its own and says what came of it.
    fn apart(&self, name: &str, work: impl FnOnce(&World) -> Told + Send + 'static) {
        let (world, told) = (self.world.clone(), self.told.clone());
        let feed = self.feed.clone();
        self.spawn(name, move || {
            let done = work(&world);
            feed.refresh();
            drop(told.send(Msg::Told(done)));
        });
    }

    fn spawn(&self, name: &str, work: impl FnOnce() + Send + 'static) {
        if let Err(error) = std::thread::Builder::new().name(name.into()).spawn(work) {
            let _ = self.told.try_send(Msg::Told(Told::bad(format!("{name}: no thread: {error}"))));
        }
    }
}

/// Carries an order out for each of several runs. No live owner is waited for: it was asked, and obeys.
fn operate_all(world: &World, works: &Works, run_keys: &[String], order: &Order, feed: &Feeder, told: &Sender<Msg>) {
    let done: Vec<orders::Done> = run_keys.iter().map(|run_key| operate(world, works, run_key, order, Duration::ZERO)).collect();
    let (word, refused) = orders::summary(order.name(), &done);
    feed.refresh();
    if !refused.is_empty() {
        let _ = told.send(Msg::Text { title: word.text.clone(), lines: refused });
    }
    let _ = told.send(Msg::Told(word));
}

/// Carries an operator's order out: what works on a run is a build of this console, all else is the ledger's.
fn operate(world: &World, works: &Works, run_key: &str, order: &Order, patience: Duration) -> orders::Done {
    match order {
        Order::Resume => works.start("resume", What::Resume(run_key.to_owned()), false),
        Order::Retry { grant } => {
            if let Some(reason) = grant {
                orders::grant(world, run_key, reason)?;
            }
            works.start("retry", What::Retry(run_key.to_owned()), false)
        }
        Order::Cancel { reason } => match works.cancel(run_key, reason) {
            Some(ordered) => orders::ordered("cancel", run_key, ordered),
            None => orders::carry_out(world, run_key, order, patience),
        },
        _ => orders::carry_out(world, run_key, order, patience),
    }
}
