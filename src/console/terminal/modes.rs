//! The table of terminal modes.

use std::io::{self, Write};

/// A mode that the console switches on, and what switches it off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mode {
    /// What it is.
    pub name: &'static str,
    /// Switches it on; empty for what the console only ever ends.
    pub on: &'static str,
    /// Switches it off.
    pub off: &'static str,
    /// Whether it is only on when the user wants the mouse.
    pub mouse: bool,
}

const fn mode(name: &'static str, on: &'static str, off: &'static str) -> Mode {
    Mode { name, on, off, mouse: false }
}

/// Every mode, in the order in which they are entered; they are left in the reverse order.
pub const MODES: &[Mode] = &[
    mode("alternate screen", "\x1b[?1049h", "\x1b[?1049l"),
    mode("hidden cursor", "\x1b[?25l", "\x1b[?25h"),
    mode("style", "", "\x1b[0m"),
    mode("bracketed paste", "\x1b[?2004h", "\x1b[?2004l"),
    // Never switched on; whoever ran before may have left it.
    mode("focus reports", "", "\x1b[?1004l"),
    Mode { name: "mouse", on: "\x1b[?1000h\x1b[?1006h", off: "\x1b[?1006l\x1b[?1000l", mouse: true },
    mode("synchronised output", "", "\x1b[?2026l"),
];

/// Begins and ends the mouse alone.
pub(super) fn mouse(on: bool) -> &'static str {
    let mode = MODES.iter().find(|m| m.mouse);
    mode.map(|m| if on { m.on } else { m.off }).unwrap_or_default()
}

/// Switches the modes on.
///
/// # Errors
/// What the terminal answers.
pub(super) fn enter(out: &mut dyn Write, mouse: bool) -> io::Result<()> {
    let text: String = MODES.iter().filter(|m| mouse || !m.mouse).map(|m| m.on).collect();
    out.write_all(text.as_bytes())?;
    out.flush()
}

/// Switches every mode off, those included that may not be on.
///
/// # Errors
/// What the terminal answers.
pub(super) fn leave(out: &mut dyn Write) -> io::Result<()> {
    let text: String = MODES.iter().rev().map(|m| m.off).collect();
    out.write_all(text.as_bytes())?;
    out.flush()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn leaving_undoes_everything_in_reverse_order() {
        let (mut on, mut off) = (Vec::new(), Vec::new());
        enter(&mut on, false).unwrap();
        leave(&mut off).unwrap();
        let (on, off) = (String::from_utf8(on).unwrap(), String::from_utf8(off).unwrap());
        assert!(on.contains("?1049h") && on.contains("?25l") && on.contains("?2004h") && !on.contains("?1000h"), "{on:?}");
        let places: Vec<usize> = ["?2026l", "?1006l", "?1000l", "?1004l", "?2004l", "[0m", "?25h", "?1049l"]
            .iter()
            .map(|part| off.find(part).unwrap_or_else(|| panic!("{part} is missing in {off:?}")))
            .collect();
        assert!(places.is_sorted(), "{off:?}");
        let mut with_mouse = Vec::new();
        enter(&mut with_mouse, true).unwrap();
        assert!(String::from_utf8(with_mouse).unwrap().contains(mouse(true)));
        assert!(off.contains(mouse(false)));
    }
}
