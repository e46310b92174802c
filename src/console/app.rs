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
use super::msg::{Effect, Msg, Told};
use super::terminal::{Screen, Terminal, listen, suspend};
use super::update::{next_turn, update};
use super::view::view;
use crate::time::Clock;

/// Most messages taken in before a frame.
const DRAIN: usize = 256;

/// How long a size has to stand before the screen takes it on.
const SETTLE: Duration = Duration::from_millis(50);

/// The exit code of a console whose terminal went away.
const HUNG_UP: u8 = 129;

/// How often it is asked whether somebody still sits there.
const HEARTBEAT: Duration = Duration::from_secs(5);

/// Longest time that a person who goes on pressing keys waits for a frame, however few are drawn of what happens by
/// itself: beyond 50 ms a screen is felt to lag.
const ANSWER: Duration = Duration::from_millis(40);

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
    /// the one before, and a person's gap is never felt.
    pub fn due(&self, now: Moment, person: bool) -> Moment {
        let (before, gap) = if person { (self.answered, self.gap.min(ANSWER)) } else { (self.last, self.gap) };
        before.map_or(now, |at| (at + gap).max(now))
    }

    /// A frame was drawn.
    pub fn drawn(&mut self, now: Moment, person: bool) {
        self.last = Some(now);
        if person {
            self.answered = Some(now);
        }
    }
}

/// What is outside of the loop: the terminal's modes, threads, files. Replaced in tests and in recordings.
pub trait Outside<W: Write> {
    /// Carries an effect out.
    ///
    /// # Errors
    /// What the terminal answers.
    fn perform(&mut self, effect: Effect, screen: &mut Screen<W>) -> io::Result<Vec<Reply>>;

    /// Whether somebody still sits at the terminal.
    fn alive(&self) -> bool;

    /// How large the terminal is now; none where nobody can say.
    fn size(&self) -> Option<(u16, u16)>;

    /// How long nothing was heard of the ledger's reader.
    fn silent(&self) -> Duration;
}

/// What an effect comes to at once.
#[derive(Debug, Clone)]
pub enum Reply {
    /// The console is left with this exit code.
    Leave(u8),
    /// Something happened.
    Msg(Box<Msg>),
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
    /// Whether the last screen is left behind as text.
    pub print_on_exit: bool,
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
    let outside = Real { effects, terminal, clipboard: setup.clipboard };
    let mut console = Console::new(model, screen, outside, setup.clock, setup.frame_rate);
    // A terminal that is gone cannot be told anything: the end of the line is a hang-up.
    let exit = console.turn(inbox).unwrap_or(HUNG_UP);
    Terminal::give_back();
    if setup.print_on_exit && exit != HUNG_UP {
        // What the panes said, without the last line, which is about keys.
        let text = super::view::text(&console.model);
        let _ = io::stdout()
            .write_all(text.trim_end().rsplit_once('\n').map_or("", |(panes, _)| panes).as_bytes())
            .and_then(|()| io::stdout().write_all(b"\n"));
    }
    if exit == HUNG_UP {
        console.outside.effects.hand_back(word(exit));
    }
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

/// The loop, with all that it turns.
#[derive(Debug)]
pub struct Console<W: Write, O: Outside<W>> {
    /// What is known.
    pub model: Model,
    /// What is shown.
    pub screen: Screen<W>,
    /// What is outside.
    pub outside: O,
    clock: Arc<dyn Clock>,
    pace: Pace,
    /// A person waits for the next frame.
    person: bool,
    /// A size that has not stood long enough.
    size: Option<((u16, u16), Moment)>,
    /// When it was last asked whether somebody sits there.
    asked: Moment,
}

impl<W: Write, O: Outside<W>> Console<W, O> {
    /// A loop that has not turned yet.
    pub fn new(model: Model, screen: Screen<W>, outside: O, clock: Arc<dyn Clock>, frame_rate: u32) -> Self {
        Console { model, screen, outside, clock, pace: Pace::new(frame_rate), person: true, size: None, asked: Moment::now() }
    }

    /// Turns until somebody leaves. The exit code.
    ///
    /// # Errors
    /// What the terminal answers: it is gone then.
    pub fn turn(&mut self, inbox: &Receiver<Msg>) -> io::Result<u8> {
        loop {
            let now = Moment::now();
            if now.duration_since(self.asked) >= HEARTBEAT {
                self.asked = now;
                if !self.outside.alive() {
                    return Ok(HUNG_UP);
                }
                let silent = self.outside.silent();
                if let Some(exit) = self.take_in(Msg::Silent(silent))? {
                    return Ok(exit);
                }
            }
            if let Some((size, _)) = self.size.take_if(|(_, since)| now.duration_since(*since) >= SETTLE)
                && let Some(exit) = self.resize(size)?
            {
                return Ok(exit);
            }
            self.draw(now)?;
            let first = match inbox.recv_deadline(self.wake(now)) {
                Ok(msg) => Some(msg),
                Err(RecvTimeoutError::Timeout) => None,
                Err(RecvTimeoutError::Disconnected) => return Ok(1),
            };
            if let Some(exit) = self.batch(first, inbox)? {
                return Ok(exit);
            }
        }
    }

    /// Takes in a message and all that have come since; without one, what time alone has changed.
    fn batch(&mut self, first: Option<Msg>, inbox: &Receiver<Msg>) -> io::Result<Option<u8>> {
        let now = self.clock.now();
        // Time alone is no reason to draw, unless something on the screen says so.
        if first.is_some() || next_turn(&self.model).is_some_and(|turn| turn <= now) {
            self.take_in(Msg::Clock(now))?;
        }
        for msg in first.into_iter().chain(inbox.try_iter().take(DRAIN)) {
            match msg {
                Msg::Resize(width, height) => self.size = Some(((width, height), Moment::now())),
                msg => {
                    let person = matches!(msg, Msg::Key(_) | Msg::Paste(_) | Msg::Wheel { .. } | Msg::Signal(_));
                    self.person |= person;
                    // Whoever presses a key means the screen that is there, however short its size has stood.
                    if let Some((told, _)) = self.size.take_if(|_| person) {
                        let size = self.outside.size().unwrap_or(told);
                        if let Some(exit) = self.resize(size)? {
                            return Ok(Some(exit));
                        }
                    }
                    if let Some(exit) = self.take_in(msg)? {
                        return Ok(Some(exit));
                    }
                }
            }
        }
        Ok(None)
    }

    /// Takes a size on.
    fn resize(&mut self, (width, height): (u16, u16)) -> io::Result<Option<u8>> {
        self.screen.resize(width, height);
        self.take_in(Msg::Resize(width, height))
    }

    /// Draws a frame where one is due.
    fn draw(&mut self, now: Moment) -> io::Result<()> {
        if self.model.dirty && self.pace.due(now, self.person) <= now {
            self.model.dirty = false;
            let model = &self.model;
            self.screen.draw(|buf| view(model, buf))?;
            self.pace.drawn(now, self.person);
            self.person = false;
        }
        Ok(())
    }

    /// When to wake if no message comes.
    fn wake(&self, now: Moment) -> Moment {
        let mut wake = self.asked + HEARTBEAT;
        if self.model.dirty {
            wake = wake.min(self.pace.due(now, self.person));
        }
        if let Some((_, since)) = self.size {
            wake = wake.min(since + SETTLE);
        }
        if let Some(turn) = next_turn(&self.model) {
            let left = u64::try_from(turn.0.saturating_sub(self.clock.now().0)).unwrap_or(0);
            wake = wake.min(now + Duration::from_micros(left));
        }
        wake
    }

    /// Takes in one message with all that follows from it.
    fn take_in(&mut self, msg: Msg) -> io::Result<Option<u8>> {
        let mut waiting = std::collections::VecDeque::from([msg]);
        while let Some(msg) = waiting.pop_front() {
            for effect in update(&mut self.model, msg) {
                for reply in self.outside.perform(effect, &mut self.screen)? {
                    match reply {
                        Reply::Leave(exit) => return Ok(Some(exit)),
                        Reply::Msg(msg) => waiting.push_back(*msg),
                    }
                }
            }
        }
        Ok(None)
    }
}

/// The terminal that a person sits at, and the threads behind it.
#[derive(Debug)]
struct Real {
    effects: Effects,
    terminal: Terminal,
    clipboard: Clipboard,
}

impl<W: Write> Outside<W> for Real {
    fn perform(&mut self, effect: Effect, screen: &mut Screen<W>) -> io::Result<Vec<Reply>> {
        let told = |told: Told| Reply::Msg(Box::new(Msg::Told(told)));
        Ok(match self.effects.perform(effect) {
            None => Vec::new(),
            Some(Effect::Leave(exit)) => {
                let left = self.effects.hand_back(word(exit));
                if !left.is_empty() {
                    tracing::warn!("not handed back in time, their leases run out: {}", left.join(", "));
                }
                vec![Reply::Leave(exit)]
            }
            Some(Effect::Repaint) => {
                screen.repaint();
                Vec::new()
            }
            Some(Effect::Mouse(on)) => {
                self.terminal.set_mouse(on)?;
                Vec::new()
            }
            Some(Effect::Copy { what, text }) => copy(self.clipboard, screen, what, &text)?,
            Some(Effect::Suspend) => {
                Terminal::give_back();
                suspend();
                self.come_back(screen)?
            }
            Some(Effect::Resumed) => self.come_back(screen)?,
            Some(other) => vec![told(Told::bad(format!("{other:?} cannot be done here")))],
        })
    }

    fn alive(&self) -> bool {
        Terminal::alive()
    }

    fn size(&self) -> Option<(u16, u16)> {
        crossterm::terminal::size().ok()
    }

    fn silent(&self) -> Duration {
        self.effects.silent()
    }
}

impl Real {
    /// Takes the terminal again after a stop, at the size that it has now.
    fn come_back<W: Write>(&mut self, screen: &mut Screen<W>) -> io::Result<Vec<Reply>> {
        self.terminal.enter()?;
        self.effects.awake();
        let (width, height) = crossterm::terminal::size()?;
        screen.resize(width, height);
        Ok(vec![Reply::Msg(Box::new(Msg::Resize(width, height)))])
    }
}

/// Under which word builds are handed back by a console that is left so.
fn word(exit: u8) -> &'static str {
    match exit {
        129 => "HUP",
        130 => "INT",
        143 => "TERM",
        _ => "QUIT",
    }
}

/// Copies a text. A short one stands in the line that says so; any other is there to be selected by hand,
/// since nobody can know whether the terminal obeyed.
fn copy<W: Write>(clipboard: Clipboard, screen: &mut Screen<W>, what: String, text: &str) -> io::Result<Vec<Reply>> {
    let sequence = clipboard.sequence(text);
    let told = match &sequence {
        Some(bytes) => {
            screen.send(bytes)?;
            Told::good(format!("copied: {what}{}", if text.contains('\n') || what == text { String::new() } else { format!(" {text}") }))
        }
        None => Told::plain("too long for the clipboard, or that is off; select it here, or :export it"),
    };
    let mut replies = vec![Reply::Msg(Box::new(Msg::Told(told)))];
    if text.contains('\n') || sequence.is_none() {
        let lines = text.lines().map(str::to_owned).collect();
        replies.push(Reply::Msg(Box::new(Msg::Text { title: what, lines })));
    }
    Ok(replies)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::console::data::runs::RunsUpdate;
    use crate::console::testing::{NOW, Wire, line, one_of_each, with};
    use crate::ledger::RunLine;
    use crate::time::FixedClock;

    /// A world in which nothing happens.
    #[derive(Debug)]
    struct Nowhere(Duration);

    impl<W: Write> Outside<W> for Nowhere {
        fn perform(&mut self, effect: Effect, _: &mut Screen<W>) -> io::Result<Vec<Reply>> {
            Ok(if let Effect::Leave(exit) = effect { vec![Reply::Leave(exit)] } else { Vec::new() })
        }

        fn alive(&self) -> bool {
            true
        }

        fn size(&self) -> Option<(u16, u16)> {
            None
        }

        fn silent(&self) -> Duration {
            self.0
        }
    }

    fn console(rate: u32, lines: Vec<RunLine>) -> (Console<Wire, Nowhere>, Wire) {
        let model = with(80, 24, lines);
        let wire = Wire::default();
        let screen = Screen::new(wire.clone(), 80, 24, true);
        (Console::new(model, screen, Nowhere(Duration::ZERO), Arc::new(FixedClock::new(NOW)), rate), wire)
    }

    fn key(name: &str) -> Msg {
        Msg::Key(Chord::parse(name).unwrap())
    }

    #[test]
    fn p5_two_hundred_held_keys_make_at_most_five_frames() {
        let (mut console, wire) = console(30, (0..1_000).map(line).collect());
        let (outbox, inbox) = channel();
        let hand = std::thread::spawn(move || {
            (0..200).for_each(|_| outbox.send(key("j")).unwrap());
            outbox.send(key("q")).unwrap();
        });
        assert_eq!(console.turn(&inbox).unwrap(), 0);
        hand.join().unwrap();
        let frames = wire.take().len();
        println!("200 keys in one burst: {frames} frames");
        assert!(frames <= 5, "{frames} frames");
        assert_eq!(console.model.selected().unwrap().request_id.as_deref(), Some("train-200"));
    }

    #[test]
    fn p6_thousands_of_events_a_second_make_ten_frames() {
        let (mut console, _wire) = console(10, one_of_each());
        let (outbox, inbox) = channel();
        let began = Moment::now();
        let flood = std::thread::spawn(move || {
            let running = one_of_each().remove(0);
            for n in 0..10_000u64 {
                let line = RunLine { progress: Some((n % 1_000, 1_000)), ..running.clone() };
                outbox.send(Msg::Runs(RunsUpdate { lines: vec![line], complete: true, workers: 1 })).unwrap();
                // 5,000 a second: no faster than the clock says.
                while began.elapsed() < Duration::from_micros(200 * n) {
                    std::thread::yield_now();
                }
            }
            outbox.send(key("q")).unwrap();
        });
        assert_eq!(console.turn(&inbox).unwrap(), 0);
        let took = began.elapsed().as_secs_f64();
        flood.join().unwrap();
        let rate = console.screen.traffic().frames as f64 / took;
        println!("5,000 events/s: {rate:.1} frames/s, {:.0} B/s", console.screen.traffic().bytes as f64 / took);
        assert!(rate <= 11.0, "{rate} frames/s");
    }

    #[test]
    fn a_person_is_answered_at_once_and_the_rest_waits_its_turn() {
        let start = Moment::now();
        let after = |ms| start + Duration::from_millis(ms);
        let mut pace = Pace::new(10);
        assert_eq!(pace.due(start, false), start);
        pace.drawn(start, false);
        assert_eq!(pace.due(after(10), false), after(100));
        assert_eq!(pace.due(after(10), true), after(10));
        pace.drawn(after(10), true);
        assert_eq!(pace.due(after(20), true), after(50));
        assert_eq!(pace.due(after(20), false), after(110));
        assert_eq!(pace.due(after(500), true), after(500));
    }

    #[test]
    fn the_last_of_many_sizes_wins_and_a_dead_line_ends_the_loop() {
        struct Dead;
        impl Write for Dead {
            fn write(&mut self, _: &[u8]) -> io::Result<usize> {
                Err(io::Error::other("gone"))
            }

            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let (mut console, wire) = console(30, one_of_each());
        let (outbox, inbox) = channel();
        for n in 0..100 {
            outbox.send(Msg::Resize(60 + n, 20)).unwrap();
        }
        // Something was drawn before the key comes.
        let drawn = wire.0.clone();
        let hand = std::thread::spawn(move || {
            while drawn.lock().unwrap().is_empty() {
                std::thread::yield_now();
            }
            outbox.send(key("q")).unwrap();
        });
        console.turn(&inbox).unwrap();
        hand.join().unwrap();
        assert_eq!((console.model.size, console.screen.area().width), ((159, 20), 159));
        assert!(wire.take().len() <= 3);
        let screen = Screen::new(Dead, 80, 24, true);
        let mut dead = Console::new(with(80, 24, one_of_each()), screen, Nowhere(Duration::ZERO), Arc::new(FixedClock::new(NOW)), 30);
        assert!(dead.turn(&channel().1).is_err());
    }

    #[test]
    fn a_key_is_judged_by_the_size_that_is_there() {
        let (mut console, _wire) = console(30, one_of_each());
        console.model.size = (40, 10);
        let (outbox, inbox) = channel();
        // Too small for anything but leaving; made larger, the very next key counts.
        outbox.send(Msg::Resize(80, 24)).unwrap();
        outbox.send(key("2")).unwrap();
        outbox.send(key("q")).unwrap();
        outbox.send(key("q")).unwrap();
        assert_eq!(console.turn(&inbox).unwrap(), 0);
        assert_eq!((console.model.size, console.model.last), ((80, 24), Some(crate::console::model::View::Replay)));
        // And the other way round: on a screen that has become too small it is not obeyed.
        let (mut console, _wire) = self::console(30, one_of_each());
        outbox.send(Msg::Resize(40, 10)).unwrap();
        outbox.send(key("2")).unwrap();
        outbox.send(key("q")).unwrap();
        assert_eq!(console.turn(&inbox).unwrap(), 0);
        assert_eq!(console.model.view, crate::console::model::View::Dashboard);
    }

    #[test]
    fn a_reader_that_hangs_is_said_and_its_return_too() {
        let (mut console, wire) = console(30, one_of_each());
        let (outbox, inbox) = channel();
        let look = |silent: Duration, console: &mut Console<Wire, Nowhere>| {
            console.outside.0 = silent;
            console.asked -= HEARTBEAT;
            outbox.send(key("q")).unwrap();
            assert_eq!(console.turn(&inbox).unwrap(), 0);
            (console.model.stale().is_some(), console.model.dirty)
        };
        assert!(!look(Duration::from_secs(9), &mut console).0);
        assert!(look(Duration::from_secs(10), &mut console).0);
        assert!(!look(Duration::ZERO, &mut console).0);
        drop(wire);
    }

    #[test]
    fn what_is_copied_is_also_shown() {
        let wire = Wire::default();
        let mut screen = Screen::new(wire.clone(), 80, 24, true);
        let replies = copy(Clipboard::Terminal, &mut screen, "run 1".into(), "deadbeef").unwrap();
        assert!(matches!(&replies[..], [Reply::Msg(msg)] if matches!(&**msg, Msg::Told(told) if told.text == "copied: run 1 deadbeef")));
        assert!(String::from_utf8(wire.take().concat()).unwrap().starts_with("\u{1b}]52;c;"));
        let long = copy(Clipboard::Terminal, &mut screen, "summary".into(), &"line\n".repeat(20_000)).unwrap();
        assert!(long.iter().any(|reply| matches!(reply, Reply::Msg(msg) if matches!(&**msg, Msg::Text { .. }))));
        assert!(wire.take().is_empty());
    }
}
