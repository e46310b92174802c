//! Demos before people: real time that Space stops, keys that reach the console meanwhile, and the menu.

use std::io::Write;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant as Moment};

use crossbeam_channel::{Receiver, unbounded};
use crossterm::event::{Event, KeyCode, read};

use super::{HINT, Menu, Pace, ShowError};
use crate::console::action::Action;
use crate::console::cast::Cast;
use crate::console::driver::{Caption, Driver};
use crate::console::keys::{Chord, Keymap};
use crate::console::look::Look;
use crate::console::msg::Msg;
use crate::console::terminal::{Screen, Signal, Stop, Terminal, listen};

/// How often it is asked whether a signal came or the terminal is gone.
const SLICE: Duration = Duration::from_millis(250);

const STOPPED: &str = "PAUSED: look around  Space go on  Enter next  q leave";

/// Real time, and what people do meanwhile.
#[derive(Debug, Clone)]
pub struct Live {
    speed: f64,
    paused: bool,
    cast: Option<Cast>,
    stop: Arc<Mutex<Option<Stop>>>,
    events: Receiver<Event>,
}

impl Live {
    /// Time that passes `speed` times as fast as people read, also in the recording where there is one.
    ///
    /// # Errors
    /// Where signals or keys cannot be heard.
    pub fn new(speed: f64) -> std::io::Result<Self> {
        let stop = Arc::new(Mutex::new(None));
        let heard = stop.clone();
        listen(move |signal| {
            if let Signal::Stop(stop) = signal {
                heard.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(stop);
            }
            true
        })?;
        Ok(Live { speed, paused: false, cast: None, stop, events: read_events()? })
    }

    /// The same time, also in a recording.
    #[must_use]
    pub fn with(&self, cast: Option<Cast>) -> Self {
        Live { cast, ..self.clone() }
    }

    /// Draws, with the keys that mean something now.
    fn paint<W: Write>(&self, driver: &mut Driver<W>) -> std::io::Result<bool> {
        let hint = if self.paused { STOPPED } else { HINT };
        driver.say(Caption { hint: hint.into(), ..driver.caption().clone() });
        driver.paint()
    }

    /// Waits for an event for at most `time`.
    fn wait(&self, time: Duration) -> Result<Option<Event>, ShowError> {
        if let Some(stop) = *self.stop.lock().unwrap_or_else(PoisonError::into_inner) {
            return Err(ShowError::Left(stop.exit()));
        }
        if !Terminal::alive() {
            return Err(ShowError::Left(129));
        }
        let began = Moment::now();
        let event = self.events.recv_timeout(time.min(SLICE)).ok();
        if let Some(cast) = &self.cast {
            cast.advance(u64::try_from(began.elapsed().as_micros()).unwrap_or(0));
        }
        Ok(event)
    }
}

/// Reads the terminal on a thread of its own: on one that is gone the library waits for ever, and nobody who has
/// to notice that may wait with it.
fn read_events() -> std::io::Result<Receiver<Event>> {
    let (told, events) = unbounded();
    let work = move || {
        while let Ok(event) = read() {
            if told.send(event).is_err() {
                return;
            }
        }
    };
    std::thread::Builder::new().name("keys".into()).spawn(work)?;
    Ok(events)
}

impl<W: Write> Pace<W> for Live {
    fn hold(&mut self, driver: &mut Driver<W>, time: Duration) -> Result<(), ShowError> {
        let mut left = time.div_f64(self.speed);
        self.paint(driver)?;
        while self.paused || !left.is_zero() {
            let began = Moment::now();
            let event = self.wait(if self.paused { SLICE } else { left })?;
            if !self.paused {
                left = left.saturating_sub(began.elapsed());
            }
            match event {
                None => continue,
                Some(Event::Resize(width, height)) => driver.resize(width, height),
                Some(Event::Key(key)) => {
                    let Some(chord) = Chord::of(&key) else { continue };
                    let covered = !driver.model().popups.is_empty();
                    match chord.code() {
                        _ if chord == Chord::INTERRUPT => return Err(ShowError::Left(130)),
                        KeyCode::Char('q') if !covered => return Err(ShowError::Left(0)),
                        KeyCode::Enter if !covered => return Ok(()),
                        KeyCode::Char(' ') if !covered => self.paused = !self.paused,
                        _ => drop(driver.feed(Msg::Key(chord))),
                    }
                }
                Some(_) => continue,
            }
            self.paint(driver)?;
        }
        Ok(())
    }
}

/// Lets a person choose from the menu. Nothing where they leave.
///
/// # Errors
/// A terminal that is gone; a signal.
pub fn choose<W: Write>(menu: &mut Menu, live: &Live, look: &Look, keys: &Keymap, out: W) -> Result<Option<String>, ShowError> {
    let (width, height) = crossterm::terminal::size()?;
    let mut screen = Screen::new(out, width, height, true);
    loop {
        screen.draw(|buf| menu.draw(buf, look))?;
        match live.wait(SLICE)? {
            Some(Event::Resize(width, height)) => screen.resize(width, height),
            Some(Event::Key(key)) => {
                let Some(chord) = Chord::of(&key) else { continue };
                match keys.action(&[crate::console::action::Place::Global], chord) {
                    _ if chord == Chord::INTERRUPT => return Err(ShowError::Left(130)),
                    Some(Action::Open) => return Ok(menu.selected().map(str::to_owned)),
                    Some(Action::Quit | Action::Back) => return Ok(None),
                    Some(action) => {
                        menu.act(action, screen.area().height);
                    }
                    None => {}
                }
            }
            _ => {}
        }
    }
}
