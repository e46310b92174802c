//! Answers questions about what a run left behind, each on a thread of its own that can be called off.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crossbeam_channel::{RecvTimeoutError, Sender, bounded};
use tokio_util::sync::CancellationToken;

use super::World;
use crate::console::data::inquiry::{self, Answer, Question};
use crate::console::msg::{Heard, Msg};
use crate::pipeline::gate::Env;
use crate::pipeline::progress::Progress;

/// Questions that may be answered at once: whoever calls one off has it ended soon.
const MAX_ASKED: usize = 4;
/// Pause between two looks at how far an answer is.
const SAMPLE: Duration = Duration::from_millis(300);

/// The questions that are being answered.
#[derive(Debug, Clone)]
pub(super) struct Inquirer {
    world: World,
    told: Sender<Msg>,
    asked: Arc<Mutex<BTreeMap<u64, CancellationToken>>>,
}

impl Inquirer {
    /// None yet.
    pub(super) fn new(world: World, told: Sender<Msg>) -> Self {
        Inquirer { world, told, asked: Arc::default() }
    }

    fn asked(&self) -> MutexGuard<'_, BTreeMap<u64, CancellationToken>> {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Calls a question off; its thread ends at its next safe point.
    pub(super) fn call_off(&self, id: u64) {
        if let Some(token) = self.asked().get(&id) {
            token.cancel();
        }
    }

    /// Answers a question, on the thread of the caller.
    pub(super) fn answer(&self, id: u64, question: &Question) {
        let token = CancellationToken::new();
        {
            let mut asked = self.asked();
            if asked.len() >= MAX_ASKED {
                drop(asked);
                let answer = Answer::unknown(format_args!("{MAX_ASKED} questions are being answered; let one end first"));
                let _ = self.told.send(Msg::Inquiry { id, heard: Heard::Answer(Box::new(answer)) });
                return;
            }
            asked.insert(id, token.clone());
        }
        let progress = Arc::new(Progress::default());
        let (done, ended) = bounded::<()>(0);
        std::thread::scope(|scope| {
            let sampled = progress.clone();
            scope.spawn(move || {
                let mut last = (0, 0);
                while ended.recv_timeout(SAMPLE) == Err(RecvTimeoutError::Timeout) {
                    let now = sampled.units();
                    // Sampled, never queued: a screen that is busy misses one.
                    if now != last && self.told.try_send(Msg::Inquiry { id, heard: Heard::Progress(now.0, now.1) }).is_ok() {
                        last = now;
                    }
                }
            });
            let answered = catch_unwind(AssertUnwindSafe(|| self.work(&token, &progress, question)));
            drop(done);
            let answer = answered.unwrap_or_else(|_| Answer::unknown("the answer panicked; the log says where"));
            self.asked().remove(&id);
            let _ = self.told.send(Msg::Inquiry { id, heard: Heard::Answer(Box::new(answer)) });
        });
    }

    fn work(&self, token: &CancellationToken, progress: &Arc<Progress>, question: &Question) -> Answer {
        let (source, env) = match self.world.source().and_then(|source| Ok((source, self.world.env()?))) {
            Ok(both) => both,
            Err(why) => return Answer::unknown(why),
        };
        inquiry::answer(&source, &Env { cancel: token.clone(), progress: progress.clone(), ..env }, question)
    }

    /// Looks for what a data set has to choose from.
    pub(super) fn offer(&self, manifest: String) {
        let rows = self.world.source().and_then(|source| inquiry::offered(&source, &self.world.env()?, &manifest));
        let _ = self.told.send(Msg::Offered { manifest, rows });
    }
}
