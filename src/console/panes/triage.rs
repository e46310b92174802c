//! Why a run stands where it does, the reason first: which gate refused, the evidence that matters, what would
//! clear it, and what may be done, each with the command line that does the same.

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;

use super::parts::{Canvas, Copyable, Heading, Piece, ago, columns, piece};
use crate::console::action::Action;
use crate::console::data::triage::Triage;
use crate::console::keys::Keymap;
use crate::console::look::{Glyphs, Look, Role};
use crate::ledger::Status;
use crate::observe::gates::Standing;
use crate::text::safe;
use crate::time::Instant;

/// What the pane remembers: the selected action, and how far the text is scrolled by hand.
#[derive(Debug, Clone, Copy, Default)]
pub struct TriagePane {
    at: usize,
    top: usize,
}

/// A line of the pane, and which action it is, if it is one.
type Line<'t> = (Vec<Piece<'t>>, Option<usize>);

impl TriagePane {
    /// Obeys an action that has a meaning here. Says whether it did.
    pub fn act(&mut self, action: Action, triage: &Triage, height: u16) -> bool {
        let page = usize::from(height.saturating_sub(2)).max(1);
        let last = triage.actions.len().saturating_sub(1);
        match action {
            Action::Down => self.at = (self.at + 1).min(last),
            Action::Up => self.at = self.at.saturating_sub(1),
            Action::HalfDown => self.top += page / 2,
            Action::PageDown => self.top += page,
            Action::HalfUp => self.top = self.top.saturating_sub(page / 2),
            Action::PageUp => self.top = self.top.saturating_sub(page),
            Action::First => (self.at, self.top) = (0, 0),
            Action::Last => self.at = last,
            _ => return false,
        }
        true
    }

    /// The action that Enter stands for.
    pub fn chosen(&self, triage: &Triage) -> Option<Action> {
        triage.actions.get(self.at).and_then(|legal| Action::named(legal.name))
    }

    /// The command line of the selected action.
    pub fn command(&self, triage: &Triage) -> Option<String> {
        triage.actions.get(self.at).map(|legal| legal.command.clone())
    }

    /// What it puts into the clipboard.
    pub fn copyable(&self, triage: &Triage) -> Option<Copyable> {
        Some(Copyable { id: format!("run {}", triage.run_key.get(..8)?), text: triage.run_key.clone() })
    }

    /// Its lines for a file.
    pub fn table(&self, triage: &Triage) -> Vec<Vec<String>> {
        let row = |what: &str, text: &str| vec![what.to_owned(), text.to_owned()];
        let mut table = vec![row("what", "text"), row("status", &triage.headline())];
        if let Some(reason) = &triage.reason {
            table.extend([row("reason", &reason.code), row("gate", &reason.phase), row("message", &reason.message)]);
            table.extend(reason.evidence.iter().map(|line| row("evidence", line)));
            table.push(row("clears", &reason.remedy));
        }
        table.extend(triage.gates.iter().map(|gate| row(gate.phase.as_str(), gate.standing.as_str())));
        table.extend(triage.actions.iter().map(|legal| row(legal.name, &legal.command)));
        table
    }

    /// Draws it. `only_look`: actions that change something are told, but not offered.
    #[expect(clippy::too_many_arguments, reason = "where, what, when and how")]
    pub fn draw(
        &self,
        buf: &mut Buffer,
        area: Rect,
        triage: &Triage,
        now: Instant,
        look: &Look,
        keys: &Keymap,
        only_look: bool,
        focused: bool,
    ) {
        let heading = Heading { title: "Triage", subject: triage.request_id.as_str().into(), age: Some(-1), ..Heading::default() };
        let mut canvas = Canvas::framed(buf, area, &heading, look, focused);
        let lines = lines(triage, canvas.width().saturating_sub(2), now, look.glyphs, keys, only_look);
        let height = usize::from(canvas.height());
        // The text stands still while the selected action is in sight; it is on top of everything at first.
        let chosen = lines.iter().position(|(_, action)| *action == Some(self.at)).unwrap_or(0);
        let most = lines.len().saturating_sub(height);
        let mut top = self.top.min(most);
        if self.top == 0 && self.at > 0 && chosen >= top + height {
            top = (chosen + 1).saturating_sub(height);
        }
        for (y, (pieces, action)) in (0u16..).zip(lines.iter().skip(top).take(height)) {
            canvas.line(1, y, pieces);
            if action.is_some_and(|at| at == self.at) {
                canvas.select(y, focused);
            }
        }
    }
}

fn lines<'t>(triage: &'t Triage, width: u16, now: Instant, glyphs: &'static Glyphs, keys: &Keymap, only_look: bool) -> Vec<Line<'t>> {
    let mut lines: Vec<Line<'t>> = Vec::new();
    let mut say = |pieces: Vec<Piece<'t>>| lines.push((pieces, None));
    let (mark, role) = mark(triage, glyphs);
    let age = ago(now.0.saturating_sub(triage.updated.0));
    say(vec![piece(format!("{mark} {}", triage.headline()), role)]);
    say(vec![piece(format!("run {}  attempt {}  {age} ago", triage.run_key, triage.attempts), Role::Dim)]);
    if let Some(reason) = &triage.reason {
        for line in wrapped(&reason.message, width) {
            say(vec![piece(line, Role::Text)]);
        }
        for line in &reason.evidence {
            for (index, part) in wrapped(line, width.saturating_sub(2)).into_iter().enumerate() {
                say(vec![piece(if index == 0 { "- " } else { "  " }, Role::Dim), piece(part, Role::Value)]);
            }
        }
        for (index, part) in wrapped(&reason.remedy, width.saturating_sub(8)).into_iter().enumerate() {
            say(vec![piece(if index == 0 { "clears  " } else { "        " }, Role::Header), piece(part, Role::Text)]);
        }
    }
    if let Some(asked) = &triage.asked {
        say(vec![piece("asked   ", Role::Header), piece(format!("to be {asked}"), Role::Warn)]);
    }
    if let Some(owner) = &triage.owner {
        say(vec![piece("owner   ", Role::Header), piece(owner.as_str(), Role::Text)]);
    }
    if let Some(manifest) = &triage.manifest {
        say(vec![piece("result  ", Role::Header), piece(manifest.as_str(), Role::Good)]);
    }
    for unknown in &triage.unknown {
        say(vec![piece(format!("{} UNKNOWN ", glyphs.unknown), Role::Unknown), piece(unknown.as_str(), Role::Text)]);
    }
    say(Vec::new());
    let gates = triage.gates.iter().flat_map(|gate| {
        let (mark, role) = match gate.standing {
            Standing::Passed => (glyphs.ok, Role::Good),
            Standing::Refused => (glyphs.bad, Role::Bad),
            Standing::Running => (glyphs.running, Role::Running),
            Standing::NotReached => (glyphs.waiting, Role::Dim),
        };
        [piece(format!("{mark} {}", gate.phase.as_str()), role), piece("  ", Role::Text)]
    });
    say(std::iter::once(piece("gates   ", Role::Header)).chain(gates).collect());
    let name = if only_look {
        "actions (read-only here; the commands work elsewhere)"
    } else {
        "actions (Enter does the marked one, c copies its command)"
    };
    say(vec![piece(name, Role::Header)]);
    for (index, legal) in triage.actions.iter().enumerate() {
        let key = Action::named(legal.name).and_then(|action| keys.first(action)).filter(|_| !only_look).unwrap_or_default();
        let role = if legal.dangerous { Role::Danger } else { Role::Key };
        let pieces = vec![
            piece(format!(" {key:>2} "), role),
            piece(format!("{:<7}", legal.name), Role::Text),
            piece(format!(" {}", legal.command), Role::Value),
            piece(format!("  {}", legal.help), Role::Dim),
        ];
        lines.push((pieces, Some(index)));
    }
    if !triage.deeds.is_empty() {
        lines.push((vec![piece("done so far", Role::Header)], None));
    }
    for deed in triage.deeds.iter().rev() {
        let age = ago(now.0.saturating_sub(deed.at.0));
        let pieces =
            vec![piece(format!("  {age:>4} ago  {} by {}  ", deed.action, deed.actor), Role::Text), piece(deed.detail.as_str(), Role::Dim)];
        lines.push((pieces, None));
    }
    lines
}

fn mark(triage: &Triage, glyphs: &Glyphs) -> (&'static str, Role) {
    match triage.status {
        _ if triage.stuck.is_some() => (glyphs.stuck, Role::Warn),
        Status::Running if triage.paused_since.is_some() => (glyphs.paused, Role::Warn),
        Status::Running => (glyphs.running, Role::Running),
        Status::Queued => (glyphs.waiting, Role::Waiting),
        Status::PublishPending => (glyphs.waiting, Role::Warn),
        Status::Done => (glyphs.ok, Role::Good),
        Status::Failed | Status::Rejected => (glyphs.bad, Role::Bad),
        Status::Cancelled => (glyphs.cancelled, Role::Dim),
    }
}

/// Most lines that one text is broken into.
const MAX_LINES: usize = 12;

/// A text broken at spaces into lines of that width, escaped; a word longer than a line is cut by it.
fn wrapped(text: &str, width: u16) -> Vec<String> {
    let width = width.max(8);
    let clipped = crate::text::clip(text, usize::from(width) * MAX_LINES);
    let text = safe(&clipped);
    let mut lines = vec![String::new()];
    for word in text.split_whitespace() {
        let Some(line) = lines.last_mut() else { break };
        if line.is_empty() {
            line.push_str(word);
        } else if columns(line) + 1 + columns(word) <= width {
            line.push(' ');
            line.push_str(word);
        } else {
            lines.push(word.to_owned());
        }
    }
    lines.truncate(MAX_LINES);
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_texts_break_at_spaces_and_are_bounded() {
        assert_eq!(wrapped("one two three four", 9), ["one two", "three", "four"]);
        assert_eq!(wrapped("", 9), [""]);
        assert!(wrapped(&"word ".repeat(10_000), 40).len() <= MAX_LINES);
        assert_eq!(wrapped("a\u{1b}b", 20), ["a\\u{1b}b"]);
    }
}
