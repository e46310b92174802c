//! A gate at which a build waits: the proof just made, and what can be looked at before it goes on.

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;

use super::popups::{boxed, typed};
use crate::console::look::Role;
use crate::console::model::Model;
use crate::console::model::popup::Gate;
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
            below.text(1, 0, below.width(), "Tab looks at what was proved; / looks for an event, an offset, a key", Role::Dim);
        }
        Some(Err(refusal)) => {
            below.text(1, 0, below.width(), &refusal.message, Role::Bad);
        }
        Some(Ok(peeked)) => table(&mut below, peeked, gate.top),
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

/// What was looked at, in columns as wide as their widest cell in sight.
fn table(canvas: &mut Canvas<'_>, peeked: &Peeked, top: usize) {
    let mark = if peeked.whole { "" } else { " (more was not looked at)" };
    let note = peeked.note.as_deref().map(|note| format!("; {note}")).unwrap_or_default();
    let head = format!("{} of {} read match{mark}{note}", peeked.matched, peeked.scanned);
    canvas.text(1, 0, canvas.width(), &head, Role::Dim);
    let rows = usize::from(canvas.height().saturating_sub(2));
    let shown: Vec<&Vec<String>> = peeked.rows.iter().skip(top).take(rows).collect();
    let mut x = 1;
    for (index, name) in peeked.columns.iter().enumerate() {
        let cells = shown.iter().filter_map(|row| row.get(index));
        let width = cells.map(|cell| columns(&safe(cell))).max().unwrap_or(0).max(columns(name)).min(WIDEST);
        if x >= canvas.width() {
            break;
        }
        canvas.text(x, 1, width, name, Role::Header);
        for (y, row) in (2u16..).zip(&shown) {
            canvas.text(x, y, width, row.get(index).map(String::as_str).unwrap_or_default(), Role::Value);
        }
        x = x.saturating_add(width + 1);
    }
}
