//! The event loop. It waits for one message, takes in all that are there, and draws at most one frame, only
//! if something changed. It wakes by time only while something on the screen changes by time.

use std::io::{self, Write};
use std::sync::Arc;
use std::time::{Duration, Instant as Moment};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded};
use crossterm::event::{Event, MouseEventKind};

use super::effects::{Clipboard, Effects};
use super::keys::Chord;
use super::model::Model;
use super::model::popup::Popup;
use super::msg::{Effect, Msg, Told};
use super::terminal::{Screen, Terminal, listen, suspend};
use super::update::{next_turn, update};
use super::view::view;
use crate::time::Clock;

/// Most messages taken in before a frame.
const DRAIN: usize = 256;

/// How long a size has to stand before the screen takes it on.
const SETTLE: Duration = Duration::from_millis(50);

/// How often it is asked whether somebody still sits there.
const HEARTBEAT: Duration = Duration::from_secs(5);

/// When frames may be drawn.
#[derive(Debug, Clone, Copy)]
pub struct Pace {
    /// Least time between two frames.
    gap: Duration,
    /// When the latest frame was drawn, and the latest one that answered a person.
    last: Option<Moment>,
    answered: Option<Moment>,
}

impl Pace {
    /// At most `rate` frames a second.
    pub fn new(rate: u32) -> Self {
        Pace { gap: Duration::from_secs(1) / rate.max(1), last: None, answered: None }
    }

    /// When the next frame may be drawn: at once where a person pressed a key after a rest, else a gap after
    /// the one before.
    pub fn due(&self, now: Moment, person: bool) -> Moment {
        let before = if person { self.answered } else { self.last };
        before.map_or(now, |at| (at + self.gap).max(now))
    }

    /// A frame was drawn.
    pub fn drawn(&mut self, now: Moment, person: bool) {
        self.last = Some(now);
        if person {
            self.answered = Some(now);
        }
    }
}

/// What the loop is started with.
#[derive(Debug)]
pub struct Setup {
    /// The clock.
    pub clock: Arc<dyn Clock>,
    /// Most frames a second.
    pub frame_rate: u32,
    /// How text is copied.
    pub clipboard: Clipboard,
    /// Whether frames are wrapped in synchronised output.
    pub sync: bool,
}

/// The channel that everything comes through. It is bounded: whoever has too much to say waits.
pub fn channel() -> (Sender<Msg>, Receiver<Msg>) {
    bounded(DRAIN)
}

/// Runs the console until it is left. Returns the exit code.
///
/// # Errors
/// What the terminal answers while it is taken.
pub fn run(mut model: Model, effects: Effects, inbox: &Receiver<Msg>, outbox: &Sender<Msg>, setup: Setup) -> io::Result<u8> {
    let signals = outbox.clone();
    listen(move |signal| signals.send(Msg::Signal(signal)).is_ok())?;
    let terminal = Terminal::take(model.mouse)?;
    read_keys(outbox.clone())?;
    let (width, height) = crossterm::terminal::size()?;
    model.size = (width, height);
    let screen = Screen::new(super::terminal::output()?, width, height, setup.sync);
    let mut console = Console { model, screen, effects, setup: setup.clock, clipboard: setup.clipboard, terminal, pace: Pace::new(setup.frame_rate) };
    // A terminal that is gone cannot be told anything: the end of the line is a hang-up.
    let exit = console.turn(inbox).unwrap_or(129);
    Terminal::give_back();
    Ok(exit)
}

/// Reads the terminal on a thread of its own.
fn read_keys(outbox: Sender<Msg>) -> io::Result<()> {
    let work = move || {
        loop {
            let msg = match crossterm::event::read() {
                Ok(Event::Key(key)) => Chord::of(&key).map(Msg::Key),
                Ok(Event::Paste(text)) => Some(Msg::Paste(text)),
                Ok(Event::Resize(width, height)) => Some(Msg::Resize(width, height)),
                Ok(Event::Mouse(mouse)) => match mouse.kind {
                    MouseEventKind::ScrollDown => Some(Msg::Wheel { down: true }),
                    MouseEventKind::ScrollUp => Some(Msg::Wheel { down: false }),
                    _ => None,
                },
                Ok(Event::FocusGained | Event::FocusLost) => None,
                Err(_) => return,
            };
            if msg.is_some_and(|msg| outbox.send(msg).is_err()) {
                return;
            }
        }
    };
    std::thread::Builder::new().name("keys".into()).spawn(work).map(drop)
}

struct Console<W: Write> {
    model: Model,
    screen: Screen<W>,
    effects: Effects,
    setup: Arc<dyn Clock>,
    clipboard: Clipboard,
    terminal: Terminal,
    pace: Pace,
}

impl<W: Write> Console<W> {
    /// Turns until somebody leaves.
    fn turn(&mut self, inbox: &Receiver<Msg>) -> io::Result<u8> {
        let mut asked = Moment::now();
        let mut person = true;
        let mut size: Option<((u16, u16), Moment)> = None;
        loop {
            let now = Moment::now();
            if now.duration_since(asked) >= HEARTBEAT {
                asked = now;
                if !Terminal::alive() {
                    return Ok(129);
                }
            }
            if let Some(((width, height), _)) = size.take_if(|(_, since)| now.duration_since(*since) >= SETTLE) {
                self.screen.resize(width, height);
                self.take_in(Msg::Resize(width, height));
            }
            let due = self.pace.due(now, person);
            if self.model.dirty && due <= now {
                self.model.dirty = false;
                let model = &self.model;
                self.screen.draw(|buf| view(model, buf))?;
                self.pace.drawn(now, person);
                person = false;
            }
            let wake = self.wake(now, asked, size.map(|(_, since)| since), person);
            let first = match inbox.recv_deadline(wake) {
                Ok(msg) => msg,
                Err(RecvTimeoutError::Timeout) => {
                    if self.time_passed() {
                        self.model.dirty = true;
                    }
                    continue;
                }
                Err(RecvTimeoutError::Disconnected) => return Ok(1),
            };
            self.take_in(Msg::Clock(self.setup.now()));
            for msg in std::iter::once(first).chain(inbox.try_iter().take(DRAIN)) {
                match msg {
                    Msg::Resize(width, height) => size = Some(((width, height), Moment::now())),
                    msg => {
                        person |= matches!(msg, Msg::Key(_) | Msg::Paste(_) | Msg::Wheel { .. } | Msg::Signal(_));
                        for effect in update(&mut self.model, msg) {
                            if let Some(exit) = self.perform(effect)? {
                                return Ok(exit);
                            }
                        }
                    }
                }
            }
        }
    }

    /// When to wake if no message comes.
    fn wake(&self, now: Moment, asked: Moment, resized: Option<Moment>, person: bool) -> Moment {
        let mut wake = asked + HEARTBEAT;
        if self.model.dirty {
            wake = wake.min(self.pace.due(now, person));
        }
        if let Some(since) = resized {
            wake = wake.min(since + SETTLE);
        }
        if let Some(turn) = next_turn(&self.model) {
            let left = u64::try_from(turn.0.saturating_sub(self.setup.now().0)).unwrap_or(0);
            wake = wake.min(now + Duration::from_micros(left));
        }
        wake
    }

    /// Lets the clock of the screen follow where something on it changes by time alone. Says whether it did.
    fn time_passed(&mut self) -> bool {
        let now = self.setup.now();
        let turned = next_turn(&self.model).is_some_and(|turn| turn <= now);
        if turned {
            self.take_in(Msg::Clock(now));
        }
        turned
    }

    fn take_in(&mut self, msg: Msg) {
        for effect in update(&mut self.model, msg) {
            self.effects.perform(effect);
        }
    }

    /// Carries an effect out. Says with which exit code to leave, if it is to leave.
    fn perform(&mut self, effect: Effect) -> io::Result<Option<u8>> {
        match self.effects.perform(effect) {
            Some(Effect::Leave(exit)) => return Ok(Some(exit)),
            Some(Effect::Repaint) => self.screen.repaint(),
            Some(Effect::Mouse(on)) => self.terminal.set_mouse(on)?,
            Some(Effect::Copy { what, text }) => self.copy(&what, &text)?,
            Some(Effect::Suspend) => {
                Terminal::give_back();
                suspend();
                self.come_back()?;
            }
            Some(Effect::Resumed) => self.come_back()?,
            Some(other) => self.take_in(Msg::Told(Told::bad(format!("{other:?} cannot be done here")))),
            None => {}
        }
        Ok(None)
    }

    /// Takes the terminal again after a stop, at the size that it has now.
    fn come_back(&mut self) -> io::Result<()> {
        self.terminal.enter()?;
        let (width, height) = crossterm::terminal::size()?;
        self.screen.resize(width, height);
        self.take_in(Msg::Resize(width, height));
        Ok(())
    }

    fn copy(&mut self, what: &str, text: &str) -> io::Result<()> {
        let sequence = self.clipboard.sequence(text);
        let told = match &sequence {
            Some(bytes) => {
                self.screen.send(bytes)?;
                Told::good(format!("copied: {what}"))
            }
            None => Told::plain(format!("{what}: too long for the clipboard, or that is off; select it here")),
        };
        // A short text is in the line that says so; a longer one is there to be selected by hand.
        if text.contains('\n') || sequence.is_none() {
            let lines = text.lines().map(str::to_owned).collect();
            self.model.popups.push(Popup::Text { title: what.to_owned(), lines, top: 0 });
        }
        self.take_in(Msg::Told(told));
        Ok(())
    }
}
