//! What is done outside the model, each on a thread of its own, so that the screen never waits: the ledger's
//! feed, a run's details, operator orders, files, the clipboard.

mod clipboard;
mod feed;
mod files;
mod intents;
mod loader;
mod orders;

use std::path::PathBuf;
use std::sync::Arc;

use crossbeam_channel::Sender;

pub use clipboard::{Clipboard, MAX_COPY};

use self::feed::Feeder;
use self::loader::Loader;
use super::msg::{Effect, Msg, Order, Told};
use crate::config::Config;
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
}

impl World {
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
}

impl Effects {
    /// Starts the feed and the loader; what they find goes to `told`.
    ///
    /// # Errors
    /// Where no thread can be had.
    pub fn start(world: World, told: Sender<Msg>) -> std::io::Result<Self> {
        let feed = Feeder::start(world.clone(), told.clone())?;
        let loader = Loader::start(world.clone(), told.clone())?;
        Ok(Effects { world, told, feed, loader })
    }

    /// Carries one out. What concerns the terminal itself is the caller's and comes back.
    pub fn perform(&self, effect: Effect) -> Option<Effect> {
        match effect {
            Effect::Load(run_key) => self.loader.load(run_key),
            Effect::Refresh => self.feed.refresh(),
            Effect::Operate { run_key, order: Order::Resume } => self.apart("resume", move |_| Told::bad(format!("resume {run_key}: builds are not wired yet"))),
            Effect::Operate { run_key, order } => {
                let feed = self.feed.clone();
                self.apart(order.name(), move |world| {
                    let told = orders::carry_out(world, &run_key, &order);
                    feed.refresh();
                    told
                });
            }
            Effect::FindIntents => {
                let (told, root) = (self.told.clone(), self.world.config.workspace.clone());
                self.spawn("intents", move || drop(told.send(Msg::Intents(intents::find(&root)))));
            }
            Effect::Write { what, path, content } => {
                let root = self.world.config.workspace.clone();
                self.apart("write", move |_| files::write_new(&root, &what, &path, &content));
            }
            other => return Some(other),
        }
        None
    }

    /// Does something on a thread of its own and says what came of it.
    fn apart(&self, name: &str, work: impl FnOnce(&World) -> Told + Send + 'static) {
        let (world, told) = (self.world.clone(), self.told.clone());
        self.spawn(name, move || drop(told.send(Msg::Told(work(&world)))));
    }

    fn spawn(&self, name: &str, work: impl FnOnce() + Send + 'static) {
        if let Err(error) = std::thread::Builder::new().name(name.into()).spawn(work) {
            let _ = self.told.try_send(Msg::Told(Told::bad(format!("{name}: no thread: {error}"))));
        }
    }
}
