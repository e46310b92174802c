//! Drives the console without its event loop: messages in, frames out, in the order and at the time that a
//! script says. Demos, recordings and tests share it; it uses the same `update`, `view` and screen.

mod mask;

use std::io::{self, Write};
use std::sync::Arc;

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;

pub use self::mask::Mask;
use super::data::detail::Detail;
use super::keys::Chord;
use super::look::Role;
use super::model::{Model, Start};
use super::msg::{Effect, Msg};
use super::panes::parts::Canvas;
use super::scrub::Stop;
use super::terminal::Screen;
use super::update::update;
use super::view::view;
use crate::text::safe;

/// Rows of the caption strip.
pub const STRIP: u16 = 4;

/// What is said below the console.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Caption {
    /// What this is part of.
    pub title: String,
    /// What is happening, in a sentence or two.
    pub text: String,
    /// What can be pressed.
    pub hint: String,
}

/// Reads what there is to know about a run, or what was known at a moment of its past.
pub type Load = Box<dyn Fn(&str, Option<&Stop>) -> Result<Arc<Detail>, String>>;

/// A console that is driven.
pub struct Driver<W: Write> {
    model: Model,
    screen: Screen<W>,
    caption: Caption,
    mask: Mask,
    load: Load,
}

impl<W: Write> std::fmt::Debug for Driver<W> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Driver").field("caption", &self.caption).finish_non_exhaustive()
    }
}

/// A model that leaves room for the strip.
fn model(mut start: Start) -> Model {
    start.size.1 = start.size.1.saturating_sub(STRIP);
    Model::new(start)
}

impl<W: Write> Driver<W> {
    /// A console of `start.size`, the caption strip included, that has seen nothing yet.
    pub fn new(start: Start, out: W, sync: bool, mask: Mask, load: Load) -> Self {
        let screen = Screen::new(out, start.size.0, start.size.1, sync);
        Driver { model: model(start), screen, caption: Caption::default(), mask, load }
    }

    /// Starts anew on the same screen, as for another workspace.
    pub fn renew(&mut self, start: Start, load: Load) {
        let area = self.screen.area();
        (self.model, self.load) = (model(Start { size: (area.width, area.height), ..start }), load);
    }

    /// What the console knows.
    pub fn model(&self) -> &Model {
        &self.model
    }

    /// What the console knows, to be set up.
    pub fn model_mut(&mut self) -> &mut Model {
        &mut self.model
    }

    /// What the screen shows.
    pub fn shown(&self) -> &Buffer {
        self.screen.shown()
    }

    /// Gives the console a message. A run that it wants to know about is read at once; what else it wants
    /// done comes back.
    pub fn feed(&mut self, msg: Msg) -> Vec<Effect> {
        let mut left = Vec::new();
        let mut wanted = update(&mut self.model, msg);
        while let Some(effect) = wanted.pop() {
            match effect {
                Effect::LoadAt { run_key, stop } => {
                    let found = (self.load)(&run_key, Some(&stop));
                    wanted.extend(update(&mut self.model, Msg::Past { run_key, found }));
                }
                Effect::Load(run_key) => {
                    let found = (self.load)(&run_key, None);
                    wanted.extend(update(&mut self.model, Msg::Detail { run_key, found }));
                }
                Effect::Repaint => self.screen.repaint(),
                other => left.push(other),
            }
        }
        left
    }

    /// Presses keys, named and parted by spaces. What is no key is no press.
    pub fn press(&mut self, keys: &str) -> Vec<Effect> {
        let chords: Vec<Chord> = keys.split_whitespace().filter_map(Chord::parse).collect();
        chords.into_iter().flat_map(|chord| self.feed(Msg::Key(chord))).collect()
    }

    /// Has another size from now on, the strip included.
    pub fn resize(&mut self, width: u16, height: u16) {
        self.screen.resize(width, height);
        self.feed(Msg::Resize(width, height.saturating_sub(STRIP)));
    }

    /// Says something below the console.
    pub fn say(&mut self, caption: Caption) {
        self.caption = caption;
    }

    /// What is said.
    pub fn caption(&self) -> &Caption {
        &self.caption
    }

    /// Draws a frame; nothing is written where nothing changed. Says whether it wrote.
    ///
    /// # Errors
    /// What the terminal answers.
    pub fn paint(&mut self) -> io::Result<bool> {
        let Driver { model, screen, caption, mask, .. } = self;
        screen.draw(|buf| {
            let whole = buf.area;
            let above = whole.height.saturating_sub(STRIP);
            let mut console = Buffer::empty(Rect::new(0, 0, whole.width, above));
            view(model, &mut console);
            buf.merge(&console);
            strip(model, caption, buf, Rect::new(0, above, whole.width, whole.height - above));
            mask.hide(buf);
        })
    }
}

/// Draws the caption: title, two lines of text, keys.
fn strip(model: &Model, caption: &Caption, buf: &mut Buffer, area: Rect) {
    let mut canvas = Canvas::new(buf, area, &model.look);
    canvas.clear();
    let width = canvas.width();
    canvas.text(0, 0, width, &format!(" {} ", safe(&caption.title)), Role::Banner);
    let [first, second] = wrapped(&safe(&caption.text), usize::from(width.saturating_sub(2)));
    canvas.text(1, 1, width.saturating_sub(2), &first, Role::Title);
    canvas.text(1, 2, width.saturating_sub(2), &second, Role::Title);
    canvas.text(1, 3, width.saturating_sub(2), &safe(&caption.hint), Role::Dim);
}

/// A text in two lines, broken between words; what does not fit is clipped by the canvas.
fn wrapped(text: &str, width: usize) -> [String; 2] {
    let mut lines = [String::new(), String::new()];
    let mut words = text.split_whitespace().peekable();
    while let Some(word) = words.next_if(|word| lines[0].is_empty() || lines[0].chars().count() + 1 + word.chars().count() <= width) {
        if !lines[0].is_empty() {
            lines[0].push(' ');
        }
        lines[0].push_str(word);
    }
    lines[1] = words.collect::<Vec<_>>().join(" ");
    lines
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::console::cast::Cast;
    use crate::console::data::runs::RunsUpdate;
    use crate::console::keys::Keymap;
    use crate::console::look::{Glyphs, Look, Theme};
    use crate::console::model::Mode;
    use crate::ledger::Limits;
    use crate::time::Instant;

    fn start() -> Start {
        Start {
            now: Instant(0),
            size: (80, 24),
            look: Look { theme: Theme::named("ansi16").unwrap(), glyphs: Glyphs::UNICODE },
            keys: Keymap::default(),
            limits: Limits { stall_us: 1, max_pause_us: 1, max_retries: 1 },
            mode: Mode::ReadOnly("a demo".into()),
            workspace: "secret-host".into(),
            mouse: false,
        }
    }

    fn driver(cast: &Cast, mask: Mask) -> Driver<Cast> {
        Driver::new(start(), cast.clone(), false, mask, Box::new(|_, _| Err("nothing here".into())))
    }

    fn recorded(mask: Mask) -> (String, String) {
        let cast = Cast::new(80, 24, "t");
        let mut driver = driver(&cast, mask);
        driver.feed(Msg::Runs(RunsUpdate { complete: true, ..RunsUpdate::default() }));
        driver.say(Caption { title: "demo".into(), text: "on secret-host, \u{1b}[2J".into(), hint: "Space".into() });
        driver.paint().unwrap();
        cast.advance(1_000_000);
        driver.press("? esc");
        assert!(!driver.paint().unwrap(), "help and back looks as before");
        let mut vt = vt100::Parser::new(24.try_into().unwrap(), 80.try_into().unwrap(), 0);
        for line in cast.text().lines().skip(1) {
            let event: serde_json::Value = serde_json::from_str(line).unwrap();
            vt.process(event[2].as_str().unwrap().as_bytes());
        }
        (vt.screen().contents(), cast.text())
    }

    #[test]
    fn a_recording_shows_the_console_and_its_caption_and_is_the_same_each_time() {
        let (screen, cast) = recorded(Mask::default());
        assert!(screen.contains("secret-host") && screen.contains("demo") && screen.contains("\\u{1b}[2J"), "{screen}");
        assert_eq!(recorded(Mask::default()).1, cast);
    }

    #[test]
    fn a_mask_hides_its_words_everywhere() {
        let (screen, cast) = recorded(Mask::new(["secret-host".to_owned()]));
        assert!(!cast.contains("secret") && screen.contains("***********"), "{screen}");
    }

    #[test]
    fn a_caption_is_drawn_at_every_size() {
        let cast = Cast::new(1, 1, "");
        let mut driver = driver(&cast, Mask::default());
        for (width, height) in [(0, 0), (1, 1), (3, 200), (200, 2), (60, 20), (200, 50)] {
            driver.resize(width, height);
            driver.paint().unwrap();
        }
    }

    #[test]
    fn texts_are_wrapped_between_words() {
        assert_eq!(wrapped("a bc def", 4), ["a bc", "def"]);
        assert_eq!(wrapped("abcdef", 3), ["abcdef", ""]);
        assert_eq!(wrapped("", 3), ["", ""]);
    }
}
