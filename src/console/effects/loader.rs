//! Reads what there is to know about a run. Only the latest wish counts: whoever scrolls past a hundred runs
//! waits for one.

use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use crossbeam_channel::Sender;

use super::World;
use crate::console::data::Source;
use crate::console::data::detail::Detail;
use crate::console::msg::Msg;
use crate::console::scrub::Stop;

/// How long the selection has to rest before its run is read.
const CALM: Duration = Duration::from_millis(120);

/// What is wished for. The present and the past are two wishes: news of a live run must not take the place of
/// a moment that a person went to.
#[derive(Debug, Default)]
struct Wishes {
    now: Option<String>,
    past: Option<(String, Stop)>,
}

#[derive(Debug, Default)]
struct Wish {
    made: Mutex<Wishes>,
    news: Condvar,
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
                let (run_key, stop) = mine.take(last.as_deref());
                let found = shelf.load(&run_key, stop.as_ref());
                last = Some(run_key.clone());
                let msg = if stop.is_some() { Msg::Past { run_key, found } } else { Msg::Detail { run_key, found } };
                if told.send(msg).is_err() {
                    return;
                }
            }
        };
        std::thread::Builder::new().name("loader".into()).spawn(work)?;
        Ok(Loader { wish })
    }

    /// Wishes for a run.
    pub(super) fn load(&self, run_key: String) {
        self.wish.make(|wishes| wishes.now = Some(run_key));
    }

    /// Wishes for a moment of a run's past.
    pub(super) fn load_at(&self, run_key: String, stop: Stop) {
        self.wish.make(|wishes| wishes.past = Some((run_key, stop)));
    }
}

impl Wish {
    fn make(&self, wish: impl FnOnce(&mut Wishes)) {
        wish(&mut self.made.lock().unwrap_or_else(PoisonError::into_inner));
        self.news.notify_one();
    }

    /// Waits for a wish that has stood for a moment; one for the run that was read last, or for the past, needs
    /// no such rest.
    fn take(&self, last: Option<&str>) -> (String, Option<Stop>) {
        let mut wishes = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            if let Some((run_key, stop)) = wishes.past.take() {
                return (run_key, Some(stop));
            }
            match wishes.now.take() {
                None => wishes = self.news.wait(wishes).unwrap_or_else(PoisonError::into_inner),
                Some(run_key) if last.is_none() || last == Some(&run_key) => return (run_key, None),
                Some(run_key) => {
                    let waited = self.news.wait_timeout(wishes, CALM).unwrap_or_else(PoisonError::into_inner);
                    wishes = waited.0;
                    if wishes.now.is_none() && wishes.past.is_none() {
                        return (run_key, None);
                    }
                    // A moment of the past comes first; the run that was wished for is not forgotten over it.
                    wishes.now.get_or_insert(run_key);
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
    fn load(&mut self, run_key: &str, stop: Option<&Stop>) -> Result<Arc<Detail>, String> {
        let source = match self.source.take() {
            Some(source) if !source.ledger.immutable() => source,
            _ => self.world.source()?,
        };
        let detail = Detail::read(&source, run_key, stop)?;
        self.source = Some(source);
        Ok(detail)
    }
}
