//! Reads what there is to know about a run. Only the latest wish counts: whoever scrolls past a hundred runs
//! waits for one.

use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use crossbeam_channel::Sender;

use super::World;
use crate::console::data::Source;
use crate::console::data::detail::Detail;
use crate::console::msg::Msg;

/// How long the selection has to rest before its run is read.
const CALM: Duration = Duration::from_millis(120);

#[derive(Debug, Default)]
struct Wish {
    run_key: Mutex<Option<String>>,
    made: Condvar,
}

/// The loader's thread.
#[derive(Debug)]
pub(super) struct Loader {
    wish: Arc<Wish>,
}

impl Loader {
    /// Starts it.
    pub(super) fn start(world: World, told: Sender<Msg>) -> std::io::Result<Self> {
        let wish = Arc::new(Wish::default());
        let mine = wish.clone();
        let work = move || {
            let mut shelf = Shelf { world, source: None };
            let mut last = None;
            loop {
                let run_key = mine.take(last.as_deref());
                let found = shelf.load(&run_key).map(Arc::new);
                last = Some(run_key.clone());
                if told.send(Msg::Detail { run_key, found }).is_err() {
                    return;
                }
            }
        };
        std::thread::Builder::new().name("loader".into()).spawn(work)?;
        Ok(Loader { wish })
    }

    /// Wishes for a run.
    pub(super) fn load(&self, run_key: String) {
        *self.wish.run_key.lock().unwrap_or_else(PoisonError::into_inner) = Some(run_key);
        self.wish.made.notify_one();
    }
}

impl Wish {
    /// Waits for a wish that has stood for a moment; one for the run that was read last needs no such rest.
    fn take(&self, last: Option<&str>) -> String {
        let mut wish = self.run_key.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            match wish.take() {
                None => wish = self.made.wait(wish).unwrap_or_else(PoisonError::into_inner),
                Some(run_key) if last.is_none() || last == Some(&run_key) => return run_key,
                Some(run_key) => {
                    let waited = self.made.wait_timeout(wish, CALM).unwrap_or_else(PoisonError::into_inner);
                    wish = waited.0;
                    if wish.is_none() {
                        return run_key;
                    }
                }
            }
        }
    }
}

/// What details are read from: opened once, and anew where it failed or cannot see changes.
struct Shelf {
    world: World,
    source: Option<Source>,
}

impl Shelf {
    fn load(&mut self, run_key: &str) -> Result<Detail, String> {
        let source = match self.source.take() {
            Some(source) if !source.ledger.immutable() => source,
            _ => self.world.source()?,
        };
        let detail = Detail::load(&source, run_key).map_err(|e| e.to_string())?;
        self.source = Some(source);
        Ok(detail)
    }
}
