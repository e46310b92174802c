//! A gate at which a build waits: the proof just made, and what can be looked at before it goes on.

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;

use super::popups::{boxed, typed};
use crate::console::look::Role;
use crate::console::model::Model;
use crate::console::model::popup::Gate;
use crate::console::panes::list::wrap;
use crate::console::panes::parts::{Canvas, Piece, columns, piece};
use crate::pipeline::peek::Peeked;
use crate::pipeline::run::step::{Paused, Why};
use crate::text::safe;

/// Widest column of what is looked at.
const WIDEST: u16 = 34;

/// Draws it.
pub(super) fn draw(model: &Model, buf: &mut Buffer, body: Rect, gate: &Gate) {
    let own = model.own.get(&gate.run_key);
    let Some(paused) = own.and_then(|own| own.paused.as_deref()) else { return };
    let short = gate.run_key.get(..8).unwrap_or(&gate.run_key);
    let title = format!("PAUSED {} of run {short}", paused.gate.phase.as_str());
    let mut canvas = boxed(model, buf, body, &title, body.width, body.height);
    let y = proof(&mut canvas, paused, model);
    let mut at = 1;
    for (index, look) in paused.looks.iter().enumerate() {
        let role = if index == gate.look { Role::Focus } else { Role::Dim };
        let name = if index == gate.look { format!("[{}] ", look.name()) } else { format!(" {}  ", look.name()) };
        at += canvas.text(at, y, canvas.width().saturating_sub(at), &name, role);
    }
    if gate.typing || !gate.find.text().is_empty() {
        typed(&mut canvas, at + 1, y, "/", &gate.find);
    }
    let mut below = canvas.below(y + 1);
    match own.and_then(|own| own.shown.as_ref()) {
        None => {
            below.text(1, 0, below.width(), "reading what was proved", Role::Dim);
        }
        Some(Err(refusal)) => {
            below.text(1, 0, below.width(), &refusal.message, Role::Bad);
        }
        Some(Ok(peeked)) => match gate.open.and_then(|line| peeked.rows.get(gate.row).map(|row| (line, row))) {
            Some((line, row)) => whole(&mut below, &peeked.columns, row, line),
            None => table(&mut below, peeked, gate),
        },
    }
}

/// What the gate proved; the row after it.
fn proof(canvas: &mut Canvas<'_>, paused: &Paused, model: &Model) -> u16 {
    let glyphs = model.look.glyphs;
    let (mark, word, role) = match &paused.why {
        Why::Refused(_) => (glyphs.bad, "REFUSED", Role::Bad),
        Why::Step | Why::Breakpoint => (glyphs.ok, "PASSED", Role::Good),
    };
    let why = if matches!(paused.why, Why::Breakpoint) { "  (breakpoint)" } else { "" };
    let until = paused.until.to_string();
    let pieces = [
        piece(format!("{mark} {} {word}", paused.gate.phase.as_str()), role),
        piece(why, Role::Warn),
        piece(format!("  handed back at {} unless answered", until.get(11..19).unwrap_or_default()), Role::Dim),
    ];
    canvas.line(1, 0, &pieces);
    let mut y = 1;
    let most = canvas.height() / 2;
    for (what, value) in paused.gate.facts.iter().take(usize::from(most.saturating_sub(2))) {
        let pieces: [Piece<'_>; 2] = [piece(format!("{what:>18}  "), Role::Dim), piece(value.as_str(), Role::Value)];
        canvas.line(1, y, &pieces);
        y += 1;
    }
    if !paused.gate.evidence.is_empty() {
        canvas.line(1, y, &[piece(format!("{:>18}  ", "evidence"), Role::Dim), piece(paused.gate.evidence.as_str(), Role::Value)]);
        y += 1;
    }
    y + 1
}

/// What was looked at, in columns as wide as their widest cell in sight, from the first one that is wanted.
fn table(canvas: &mut Canvas<'_>, peeked: &Peeked, gate: &Gate) {
    let mark = if peeked.whole { "" } else { " (more was not looked at)" };
    let note = peeked.note.as_deref().map(|note| format!("; {note}")).unwrap_or_default();
    let head = format!("{} of {} read match{mark}{note}", peeked.matched, peeked.scanned);
    canvas.text(1, 0, canvas.width(), &head, Role::Dim);
    let height = usize::from(canvas.height().saturating_sub(2));
    let row = gate.row.min(peeked.rows.len().saturating_sub(1));
    let top = (row + 1).saturating_sub(height);
    let shown: Vec<&Vec<String>> = peeked.rows.iter().skip(top).take(height).collect();
    let left = gate.left.min(peeked.columns.len().saturating_sub(1));
    let mut x = 1;
    for (index, name) in peeked.columns.iter().enumerate().skip(left) {
        let cells = shown.iter().filter_map(|row| row.get(index));
        let wide = cells.map(|cell| columns(&safe(cell))).max().unwrap_or(0).max(columns(name));
        // The last one may have all that is left.
        let width = if index + 1 == peeked.columns.len() { wide } else { wide.min(WIDEST) };
        if x >= canvas.width() {
            canvas.text(canvas.width().saturating_sub(1), 1, 1, ">", Role::Key);
            break;
        }
        canvas.text(x, 1, width, name, Role::Header);
        for (y, row) in (2u16..).zip(&shown) {
            canvas.text(x, y, width, row.get(index).map(String::as_str).unwrap_or_default(), Role::Value);
        }
        x = x.saturating_add(width + 1);
    }
    if left > 0 {
        canvas.text(0, 1, 1, "<", Role::Key);
    }
    if let (false, Ok(at)) = (shown.is_empty(), u16::try_from(row - top)) {
        canvas.select(at.saturating_add(2), true);
    }
}

/// One row whole: a field a line, long values folded.
fn whole(canvas: &mut Canvas<'_>, names: &[String], row: &[String], from: usize) {
    let widest = names.iter().map(|name| columns(name)).max().unwrap_or(0).min(WIDEST);
    let mut y = 0;
    for (name, value) in names.iter().zip(row).skip(from) {
        canvas.text(1, y, widest, name, Role::Header);
        let lines = wrap(value, canvas.width().saturating_sub(widest + 4), usize::from(canvas.height()).max(1));
        for (line, y) in lines.iter().zip(y..) {
            canvas.text(widest + 3, y, canvas.width(), line, Role::Value);
        }
        y = y.saturating_add(u16::try_from(lines.len()).unwrap_or(u16::MAX).max(1));
        if y >= canvas.height() {
            break;
        }
    }
}
