//! How tests look at a screen: its text, and below each row the runs of style that are not plain.

use std::fmt::Write;

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::{Color, Modifier, Style};

use crate::console::look::{Glyphs, Look, Theme};

/// The default theme with these glyphs.
pub fn look(glyphs: &'static Glyphs) -> Look {
    Look { theme: Theme::named("ansi16").unwrap(), glyphs }
}

/// The text of a screen between bars, and under each row that has styles their runs as
/// `first-last: foreground on background attributes`.
pub fn dump(buf: &Buffer) -> String {
    let mut out = String::new();
    for y in buf.area.top()..buf.area.bottom() {
        let (mut text, mut runs): (String, Vec<(u16, u16, String)>) = (String::new(), Vec::new());
        let mut covered = 0;
        for x in buf.area.left()..buf.area.right() {
            let cell = &buf[(x, y)];
            // The cell behind a wide character is not text of its own.
            if covered == 0 {
                text.push_str(cell.symbol());
                covered = unicode_width::UnicodeWidthStr::width(cell.symbol()).max(1);
            }
            covered -= 1;
            let style = name(cell.style());
            match runs.last_mut() {
                Some((_, last, same)) if *same == style && *last + 1 == x => *last = x,
                _ => runs.push((x, x, style)),
            }
        }
        let _ = writeln!(out, "|{text}|");
        let told: Vec<String> =
            runs.iter().filter(|(_, _, style)| !style.is_empty()).map(|(a, b, style)| format!("{a}-{b}: {style}")).collect();
        if !told.is_empty() {
            let _ = writeln!(out, "    {}", told.join("; "));
        }
    }
    out
}

/// The text of a screen alone, without spaces at the end of its rows.
pub fn plain(buf: &Buffer) -> String {
    let rows = (buf.area.top()..buf.area.bottom()).map(|y| {
        let row: String = (buf.area.left()..buf.area.right()).map(|x| buf[(x, y)].symbol()).collect();
        format!("{}\n", row.trim_end())
    });
    rows.collect()
}

/// Draws at a size into a fresh buffer.
pub fn drawn(width: u16, height: u16, draw: impl FnOnce(&mut Buffer, Rect)) -> Buffer {
    let area = Rect::new(0, 0, width, height);
    let mut buf = Buffer::empty(area);
    draw(&mut buf, area);
    buf
}

/// Draws at many sizes, all the small ones and some large: whoever panics, panics here. The cell outside the
/// area must stay as it was.
pub fn at_every_size(mut draw: impl FnMut(&mut Buffer, Rect)) {
    let whole = Rect::new(0, 0, 210, 62);
    let widths = (0..=24).chain([40, 59, 60, 79, 80, 81, 120, 199, 200]);
    for width in widths {
        for height in (0..=12).chain([16, 23, 24, 25, 40, 49, 50, 60]) {
            let area = Rect::new(1, 1, width, height);
            let mut buf = Buffer::filled(whole, ratatui::buffer::Cell::new("#"));
            draw(&mut buf, area);
            for at in whole.positions().filter(|p| !area.contains(*p)).step_by(7) {
                assert_eq!(buf[at].symbol(), "#", "drawn outside {width}x{height} at {at}");
            }
        }
    }
}

fn name(style: Style) -> String {
    let mut words = Vec::new();
    if let Some(fg) = style.fg.filter(|c| *c != Color::Reset) {
        words.push(fg.to_string());
    }
    if let Some(bg) = style.bg.filter(|c| *c != Color::Reset) {
        words.push(format!("on {bg}"));
    }
    for (modifier, word) in [
        (Modifier::BOLD, "bold"),
        (Modifier::DIM, "dim"),
        (Modifier::ITALIC, "italic"),
        (Modifier::UNDERLINED, "underlined"),
        (Modifier::REVERSED, "reversed"),
    ] {
        if style.add_modifier.contains(modifier) {
            words.push(word.to_owned());
        }
    }
    words.join(" ")
}
