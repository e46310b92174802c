//! The triage pane: why a run stands where it does. The reason first, then what clears it, the gates and the
//! legal actions with their commands.

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;

use super::list::{Frame, wrap};
use super::parts::{Canvas, Copyable, Cursor, Heading, Piece, ago, columns, piece};
use crate::console::action::Action;
use crate::console::data::triage::{Legal, Reason, Triage};
use crate::console::look::{Glyphs, Role};
use crate::ledger::Status;
use crate::observe::gates::Standing;
use crate::time::Instant;

/// What the triage pane remembers: the selected action.
#[derive(Debug, Clone, Default)]
pub struct TriagePane {
    cursor: Cursor,
    /// The run that it was moved for; with any other one the first action is selected.
    of: String,
}

/// Lines of a text that is told whole.
const WHOLE: usize = 40;

/// A line of the pane, and the action that stands on it.
struct Line<'t> {
    pieces: Vec<Piece<'t>>,
    action: Option<usize>,
}

impl TriagePane {
    /// Obeys an action that has a meaning here. Says whether it did.
    pub fn act(&mut self, action: Action, data: &Triage, _: u16) -> bool {
        (self.cursor, self.of) = (self.at(data), data.run_key.clone());
        self.cursor.act(action, data.actions.len(), data.actions.len())
    }

    fn at(&self, data: &Triage) -> Cursor {
        if self.of == data.run_key { self.cursor } else { Cursor::default() }
    }

    /// The legal action that is selected.
    pub fn action<'d>(&self, data: &'d Triage) -> Option<&'d Legal> {
        data.actions.get(self.at(data).selected(data.actions.len())?)
    }

    /// The selected action as a command line.
    pub fn selected(&self, data: &Triage) -> Option<Copyable> {
        self.action(data).map(|action| Copyable { id: format!("command {}", action.name), text: action.command.clone() })
    }

    /// Gates and actions, the names of the columns first.
    pub fn table(&self, data: &Triage) -> Vec<Vec<String>> {
        let mut table = vec![["what", "name", "state", "text"].map(str::to_owned).to_vec()];
        let mut row =
            |what: &str, name: &str, state: &str, text: &str| table.push(vec![what.into(), name.into(), state.into(), text.into()]);
        if let Some(reason) = &data.reason {
            row("reason", &reason.code, &reason.phase, &reason.message);
            reason.evidence.iter().for_each(|line| row("evidence", "", "", line));
            row("clears", "", "", &reason.remedy);
        }
        data.gates.iter().for_each(|g| row("gate", g.phase.as_str(), g.standing.as_str(), g.evidence.as_deref().unwrap_or_default()));
        data.actions.iter().for_each(|a| row("action", a.name, if a.dangerous { "asks first" } else { "" }, &a.command));
        table
    }

    /// Draws it.
    pub fn draw(&self, buf: &mut Buffer, area: Rect, data: &Triage, now: Instant, frame: &Frame<'_>) {
        let heading = Heading { title: "Triage", subject: frame.subject.into(), age: frame.age, ..Heading::default() };
        let mut canvas = Canvas::framed(buf, area, &heading, frame.look, frame.focused);
        let (width, height) = (canvas.width().saturating_sub(2), canvas.height());
        let whole = lines(data, Some(now.0), width, None, canvas.glyphs());
        let lines = if whole.len() <= height.into() { whole } else { lines(data, Some(now.0), width, Some(height), canvas.glyphs()) };
        let selected = self.at(data).selected(data.actions.len());
        for (y, line) in (0u16..canvas.height()).zip(&lines) {
            canvas.line(1, y, &line.pieces);
            if line.action.is_some() && line.action == selected {
                canvas.select(y, frame.focused);
            }
        }
    }
}

/// A run's status as a glyph and a role.
pub fn status(status: Status, glyphs: &Glyphs) -> (&'static str, Role) {
    match status {
        Status::Queued => (glyphs.waiting, Role::Waiting),
        Status::Running => (glyphs.running, Role::Running),
        Status::Done => (glyphs.ok, Role::Good),
        Status::Failed | Status::Rejected => (glyphs.bad, Role::Bad),
        Status::PublishPending => (glyphs.waiting, Role::Warn),
        Status::Cancelled => (glyphs.cancelled, Role::Dim),
    }
}

/// How a gate stands, as a glyph and a role.
pub fn standing(standing: Standing, glyphs: &Glyphs) -> (&'static str, Role) {
    match standing {
        Standing::Passed => (glyphs.ok, Role::Good),
        Standing::Refused => (glyphs.bad, Role::Bad),
        Standing::Running => (glyphs.running, Role::Running),
        Standing::NotReached => (glyphs.waiting, Role::Waiting),
    }
}

fn plain(pieces: Vec<Piece<'_>>) -> Line<'_> {
    Line { pieces, action: None }
}

fn label(name: &'static str) -> Piece<'static> {
    piece(format!("{name:<9}"), Role::Header)
}

/// How texts are broken into lines.
#[derive(Clone, Copy)]
struct Fold {
    width: u16,
    /// Whether there is so little room that texts have to be short.
    tight: bool,
}

impl Fold {
    /// A text behind a name; at most `short` lines of it where there is little room.
    fn text<'t>(self, name: &'static str, text: &str, role: Role, short: usize) -> Vec<Line<'t>> {
        let lines = wrap(text, self.width.saturating_sub(9), if self.tight { short } else { WHOLE });
        let lead = |at: usize| label(if at == 0 { name } else { "" });
        lines.into_iter().enumerate().map(|(at, line)| plain(vec![lead(at), piece(line, role)])).collect()
    }
}

/// All lines in the order of what matters: whole, or so short that they fit a height. Evidence gives way first, so
/// that remedy and actions stay.
fn lines<'t>(data: &'t Triage, now: Option<i64>, width: u16, height: Option<u16>, glyphs: &Glyphs) -> Vec<Line<'t>> {
    let fold = Fold { width, tight: height.is_some() };
    let (glyph, role) = match (data.stuck, data.paused_since) {
        (Some(_), _) => (glyphs.stuck, Role::Warn),
        (None, Some(_)) => (glyphs.paused, Role::Warn),
        _ => status(data.status, glyphs),
    };
    let mut top = vec![plain(vec![piece(format!("{glyph} {}", data.headline()), role)])];
    let (mut evidence, mut bottom) = (Vec::new(), Vec::new());
    if let Some(reason) = &data.reason {
        top.extend(fold.text("found", &reason.message, Role::Text, 3));
        evidence.extend(reason.evidence.iter().flat_map(|line| fold.text("evidence", line, Role::Value, 2)));
        bottom.extend(clears(reason, fold));
    }
    bottom.extend(about(data, now, fold));
    bottom.extend(gates(data, width, glyphs).into_iter().map(plain));
    bottom.extend(actions(data));
    for deed in data.deeds.iter().rev() {
        bottom.extend(fold.text("done", &format!("{} {} {} {}", deed.at, deed.actor, deed.action, deed.detail), Role::Dim, 1));
    }
    let room = height.map_or(usize::MAX, |height| {
        let needed = data.actions.len() + bottom.len().min(12).saturating_sub(data.actions.len());
        usize::from(height).saturating_sub(top.len() + needed).max(1)
    });
    if evidence.len() > room {
        let more = evidence.len() - room + 1;
        evidence.truncate(room.saturating_sub(1));
        evidence.push(plain(vec![label("evidence"), piece(format!("and {more} more line(s); 6 shows all"), Role::Dim)]));
    }
    top.extend(evidence);
    top.extend(bottom);
    top
}

/// What would clear a refusal, and whether the same request can.
fn clears<'t>(reason: &Reason, fold: Fold) -> Vec<Line<'t>> {
    let mut lines = fold.text("clears", &reason.remedy, Role::Good, 3);
    let retry = match reason.retry {
        Some(true) => "a new attempt of this request can help, once what is missing is there",
        Some(false) => "the same request cannot succeed: it needs a new one, or a person",
        None => "UNKNOWN: this program does not know the code",
    };
    lines.extend(fold.text("retry", retry, if reason.retry.is_none() { Role::Unknown } else { Role::Dim }, 1));
    lines
}

/// Whose run it is, since when, and what is not known about it.
fn about<'t>(data: &Triage, now: Option<i64>, fold: Fold) -> Vec<Line<'t>> {
    let mut lines = Vec::new();
    if let Some(asked) = &data.asked {
        lines.extend(fold.text("asked", asked, Role::Warn, 1));
    }
    let age = now.map_or_else(|| "UNKNOWN".to_owned(), |now| ago(now.saturating_sub(data.updated.0)));
    let mut request = format!("{}  attempts {}  last event {age} ago", data.request_id, data.attempts);
    if let Some(owner) = &data.owner {
        request.push_str(&format!("  owner {owner}"));
    }
    lines.extend(fold.text("request", &request, Role::Dim, 1));
    if let Some(manifest) = &data.manifest {
        lines.extend(fold.text("manifest", manifest, Role::Value, 1));
    }
    if data.past.is_some() {
        lines.extend(fold.text("actions", "none in the past; Esc goes back to now", Role::Warn, 1));
    }
    lines.extend(data.unknown.iter().flat_map(|why| fold.text("UNKNOWN", why, Role::Unknown, 1)));
    lines
}

/// What may be done now, each as a command line.
fn actions(data: &Triage) -> Vec<Line<'_>> {
    let line = |(at, action): (usize, &'_ Legal)| {
        let role = if action.dangerous { Role::Danger } else { Role::Key };
        let asks = if action.dangerous { " (asks first)" } else { "" };
        let lead = label(if at == 0 { "actions" } else { "" });
        let pieces = vec![lead, piece(action.command.clone(), role), piece(format!("  {}{asks}", action.help), Role::Dim)];
        Line { pieces, action: Some(at) }
    };
    data.actions.iter().enumerate().map(line).collect()
}

/// How the gates stand, on as many lines as they need.
fn gates<'t>(data: &Triage, width: u16, glyphs: &Glyphs) -> Vec<Vec<Piece<'t>>> {
    let (mut rows, mut used) = (vec![vec![label("gates")]], 9);
    for gate in &data.gates {
        let (glyph, role) = standing(gate.standing, glyphs);
        let text = format!("{glyph} {} {}  ", gate.phase.as_str(), short(gate.standing));
        let wide = columns(text.trim_end());
        if used + wide > width && used > 9 {
            rows.push(vec![label("")]);
            used = 9;
        }
        used += columns(&text);
        if let Some(row) = rows.last_mut() {
            row.push(piece(text, role));
        }
    }
    rows
}

fn short(standing: Standing) -> &'static str {
    match standing {
        Standing::NotReached => "-",
        other => other.as_str(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::console::data::testing::World;
    use crate::console::panes::testing::{at_every_size, drawn, dump, look, plain};

    fn data(scenario: &str) -> Triage {
        let (source, row, events) = World::play(scenario).newest();
        let mut triage = Triage::load(&source, &row, &events);
        triage.deeds.clear();
        triage
    }

    #[test]
    fn the_reason_the_remedy_and_the_actions_fit_the_smallest_screen() {
        for (glyphs, name) in [(Glyphs::UNICODE, "unicode"), (Glyphs::ASCII, "ascii")] {
            let (look, data) = (look(glyphs), data("archive-gap"));
            let frame = Frame { look: &look, focused: true, subject: "76f8e9c5", age: Some(60_000_000) };
            for (width, height) in [(80, 22), (200, 48)] {
                let buf = drawn(width, height, |buf, area| TriagePane::default().draw(buf, area, &data, data.updated, &frame));
                let text = plain(&buf);
                for told in ["REPLAY_INCOMPLETE", "below the bus's retention", "clears", "ofs resume", "ofs bundle"] {
                    assert!(text.contains(told), "{told}:\n{text}");
                }
                insta::assert_snapshot!(format!("triage_{name}_{width}x{height}"), dump(&buf));
            }
        }
    }

    #[test]
    fn much_evidence_gives_way_to_the_actions() {
        let (look, mut data) = (look(Glyphs::UNICODE), data("archive-gap"));
        let reason = data.reason.as_mut().unwrap();
        reason.evidence = (0..100).map(|n| format!("line {n} {}", "x".repeat(100))).collect();
        let frame = Frame { look: &look, focused: true, subject: "k", age: None };
        let text = plain(&drawn(80, 22, |buf, area| TriagePane::default().draw(buf, area, &data, data.updated, &frame)));
        assert!(text.contains("ofs resume") && text.contains("ofs bundle") && text.contains("more line(s)"), "{text}");
    }

    #[test]
    fn it_draws_at_every_size_and_hostile_text_stays_text() {
        let (look, mut data) = (look(Glyphs::ASCII), data("commit-refused"));
        data.request_id = "\u{1b}[31m\u{202e}".into();
        data.unknown.push("\u{9b}2J\r\n".into());
        let frame = Frame { look: &look, focused: false, subject: "\u{1b}k", age: Some(0) };
        at_every_size(|buf, area| {
            TriagePane::default().draw(buf, area, &data, data.updated, &frame);
            assert!(buf.content().iter().all(|c| !c.symbol().contains(['\u{1b}', '\u{9b}', '\u{202e}', '\n'])));
        });
    }

    #[test]
    fn the_selected_action_is_copied_as_its_command() {
        let data = data("archive-gap");
        let mut pane = TriagePane::default();
        assert_eq!(pane.selected(&data).unwrap().text, format!("ofs resume {}", data.run_key));
        pane.act(Action::Last, &data, 20);
        assert!(pane.selected(&data).unwrap().text.starts_with("ofs bundle"));
        // What was selected for one run says nothing about another one.
        let other = Triage { run_key: "another".into(), ..data.clone() };
        assert_eq!(pane.selected(&other).unwrap().id, pane.selected(&data).map(|_| format!("command {}", data.actions[0].name)).unwrap());
        assert_eq!(pane.table(&data)[1][1], "REPLAY_INCOMPLETE");
    }
}
