//! The run ledger: what every run is, how long nothing was heard of it, and why it stands where it does.

use std::borrow::Cow;
use std::collections::BTreeSet;

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;

use super::parts::{Canvas, Column, Copyable, Cursor, Heading, Piece, ago, layout, piece};
use super::{Seen, stale};
use crate::console::action::Action;
use crate::console::data::detail::Detail;
use crate::console::data::runs::{Order, Runs};
use crate::console::filter::Filter;
use crate::console::look::{Glyphs, Look, Role};
use crate::ledger::{RunLine, Status};
use crate::time::Instant;

/// What the pane remembers between frames. The selection is a run, not a place: it follows its run.
#[derive(Debug, Clone, Default)]
pub struct RunsPane {
    cursor: Cursor,
    selected: Option<String>,
    filter: Filter,
    order: Order,
    rows: Vec<u32>,
    marked: BTreeSet<String>,
    /// The columns that were chosen, by place in [`COLUMNS`]; none for all of them.
    columns: Vec<usize>,
}

const COLUMNS: &[Column] = &[
    Column { min: 11, ..Column::left("STATE", 17, 0) },
    Column::number("AGE", 4, 0),
    Column::left("RUN", 8, 1),
    Column { width: 24, ..Column::rest("REQUEST", 12, 3) },
    Column { min: 11, ..Column::left("PHASE", 16, 5) },
    Column { width: 32, ..Column::rest("REASON", 17, 2) },
    Column::number("ATT", 3, 6),
    Column { min: 16, ..Column::left("OWNER", 24, 8) },
    Column::left("LEASE", 5, 9),
    Column::left("MANIFEST", 11, 7),
];

/// The columns of the request ids and of the reasons.
const REQUEST: usize = 3;
const REASON: usize = 5;

/// Rows of a frame that hold no runs: the frame itself and the heads of the columns.
const FRAME: u16 = 3;

impl RunsPane {
    /// Names of the columns that there are.
    pub fn columns() -> Vec<&'static str> {
        COLUMNS.iter().map(|column| column.name).collect()
    }

    /// Shows these columns, in this order; all of them where none is named.
    ///
    /// # Errors
    /// Which name is none, and those there are.
    pub fn choose(&mut self, names: &[&str]) -> Result<(), String> {
        let place = |name: &&str| {
            let found = COLUMNS.iter().position(|column| column.name.eq_ignore_ascii_case(name));
            found.ok_or_else(|| format!("no column is called {name}; there are {}", Self::columns().join(", ").to_lowercase()))
        };
        self.columns = names.iter().map(place).collect::<Result<_, _>>()?;
        Ok(())
    }

    /// The columns that are shown, as places in [`COLUMNS`].
    fn shown(&self) -> Vec<usize> {
        if self.columns.is_empty() { (0..COLUMNS.len()).collect() } else { self.columns.clone() }
    }

    /// Runs in sight in a pane of that height.
    pub fn visible(height: u16) -> usize {
        usize::from(height.saturating_sub(FRAME)).max(1)
    }

    /// The selected run.
    pub fn selected(&self) -> Option<&str> {
        self.selected.as_deref()
    }

    /// The filter.
    pub fn filter(&self) -> &Filter {
        &self.filter
    }

    /// The rows that are shown of the list.
    pub fn rows(&self) -> &[u32] {
        &self.rows
    }

    /// The runs in sight.
    pub fn in_sight<'r>(&'r self, runs: &'r Runs, height: u16) -> impl Iterator<Item = &'r RunLine> {
        let window = self.cursor.window(self.rows.len(), Self::visible(height));
        self.rows.get(window).unwrap_or_default().iter().filter_map(|at| runs.at(*at))
    }

    /// Runs that were marked.
    pub fn marked(&self) -> &BTreeSet<String> {
        &self.marked
    }

    /// Takes every mark away.
    pub fn unmark(&mut self) {
        self.marked.clear();
    }

    /// How many marked runs the filter hides.
    pub fn hidden(&self, runs: &Runs) -> usize {
        let shown = self.rows.iter().filter(|at| runs.at(**at).is_some_and(|line| self.marked.contains(&line.run_key))).count();
        self.marked.len().saturating_sub(shown)
    }

    /// Takes in a changed list. The selection stays with its run; where that is gone, with its place.
    pub fn refresh(&mut self, runs: &Runs, now: Instant, height: u16) {
        self.rebuild(runs, None, now, height);
    }

    fn rebuild(&mut self, runs: &Runs, within: Option<&[u32]>, now: Instant, height: u16) {
        self.rows = runs.rows(&self.filter, within, self.order, now);
        let found = self.selected.as_deref().and_then(|key| self.place(runs, key));
        self.cursor.go(found.unwrap_or(self.cursor.at), self.rows.len(), Self::visible(height));
        self.follow(runs);
    }

    fn place(&self, runs: &Runs, run_key: &str) -> Option<usize> {
        self.rows.iter().position(|at| runs.at(*at).is_some_and(|line| line.run_key == run_key))
    }

    fn follow(&mut self, runs: &Runs) {
        let at = self.cursor.selected(self.rows.len()).and_then(|row| self.rows.get(row));
        self.selected = at.and_then(|at| runs.at(*at)).map(|line| line.run_key.clone());
    }

    /// Selects a run, where the filter lets it pass. Says whether it did.
    pub fn select(&mut self, runs: &Runs, run_key: &str, height: u16) -> bool {
        let Some(row) = self.place(runs, run_key) else { return false };
        self.cursor.go(row, self.rows.len(), Self::visible(height));
        self.follow(runs);
        true
    }

    /// Narrows the rows.
    pub fn set_filter(&mut self, filter: Filter, runs: &Runs, now: Instant, height: u16) {
        // A longer word is looked for only where the shorter one was found.
        let within = filter.narrows(&self.filter).then(|| std::mem::take(&mut self.rows));
        self.filter = filter;
        self.rebuild(runs, within.as_deref(), now, height);
    }

    /// Obeys an action that has a meaning here. Says whether it did.
    pub fn act(&mut self, action: Action, runs: &Runs, now: Instant, height: u16) -> bool {
        match action {
            Action::Sort => self.order = Order { by: self.order.by.next(), reverse: false },
            Action::Reverse => self.order.reverse = !self.order.reverse,
            Action::Mark => {
                if let Some(key) = self.selected.clone().filter(|key| !self.marked.remove(key)) {
                    self.marked.insert(key);
                }
                return true;
            }
            _ if self.cursor.act(action, self.rows.len(), Self::visible(height)) => {
                self.follow(runs);
                return true;
            }
            _ => return false,
        }
        self.refresh(runs, now, height);
        true
    }

    /// What the selected row puts into the clipboard.
    pub fn copyable(&self) -> Option<Copyable> {
        self.selected.clone().map(|key| Copyable { id: format!("run {}", key.get(..8).unwrap_or(&key)), text: key })
    }

    /// All rows as shown, with the names of the columns first.
    pub fn table(&self, runs: &Runs, now: Instant) -> Vec<Vec<String>> {
        let names = ["state", "age", "run_key", "request_id", "phase", "done", "reason", "attempts", "owner", "lease", "manifest_id"];
        let mut table = vec![names.map(str::to_owned).to_vec()];
        table.extend(self.rows.iter().filter_map(|at| runs.at(*at)).map(|line| {
            let text = |text: &Option<String>| text.clone().unwrap_or_default();
            let (reason, lease) = (reason(line, runs.stuck(line, now)), lease(line, now));
            vec![
                word(line).to_owned(),
                age(line, now),
                line.run_key.clone(),
                text(&line.request_id),
                text(&line.phase),
                percent(line),
                reason.text.into_owned(),
                line.attempts().to_string(),
                line.owner.as_ref().map(ToString::to_string).unwrap_or_default(),
                lease.text.into_owned(),
                text(&line.manifest_id),
            ]
        }));
        table
    }

    /// Draws it.
    ///
    /// Where a run's past is looked at, its row says what was known then, and that it does.
    pub fn draw(&self, buf: &mut Buffer, area: Rect, seen: &Seen<'_>, look: &Look, focused: bool) {
        let (runs, now) = (seen.runs, seen.now);
        let past = seen.detail.filter(|detail| detail.moment.is_some());
        let order = format!("by {}{}", self.order.by.name().to_lowercase(), if self.order.reverse { " reversed" } else { "" });
        let heading = Heading {
            title: "Runs",
            count: Some((self.rows.len(), runs.len())),
            filter: Cow::Owned(self.filter.to_string()),
            sort: if self.order == Order::default() { Cow::Borrowed("") } else { Cow::Owned(order) },
            subject: Cow::Owned(self.subject(runs, past, seen.stale)),
            age: Some(-1),
        };
        let mut canvas = Canvas::framed(buf, area, &heading, look, focused);
        let shown = self.shown();
        let height = usize::from(canvas.height().saturating_sub(1)).max(1);
        let window = self.cursor.window(self.rows.len(), height);
        let in_sight: Vec<&RunLine> = window.clone().filter_map(|row| self.rows.get(row).and_then(|at| runs.at(*at))).collect();
        let mut columns: Vec<Column> = shown.iter().filter_map(|at| COLUMNS.get(*at).copied()).collect();
        if past.is_none() {
            // Mostly there are none, and then the names have the room.
            let longest = in_sight.iter().map(|line| reason(line, runs.stuck(line, now)).text.len()).max();
            yield_to_names(&mut columns, longest.unwrap_or(0));
        }
        let series = in_common(in_sight.iter().filter_map(|line| line.request_id.as_deref()));
        let widths = layout(canvas.width().saturating_sub(1), &columns);
        let sorted = columns.iter().position(|c| c.name == self.order.by.name()).map(|at| (at, self.order.reverse));
        canvas.heads(0, &columns, &widths, sorted);
        let mut body = canvas.below(1);
        if self.rows.is_empty() {
            body.text(1, 0, body.width(), self.empty(runs), Role::Dim);
            return;
        }
        let selected = self.cursor.selected(self.rows.len());
        for (y, row) in (0u16..).zip(window) {
            let Some(line) = self.rows.get(row).and_then(|at| runs.at(*at)) else { continue };
            let wide = |column: usize| shown.iter().zip(&widths).find(|(at, _)| **at == column).and_then(|(_, width)| *width);
            let state = wide(0).unwrap_or(0);
            let mut all = match past.filter(|past| past.run_key == line.run_key) {
                Some(past) => then(line, past, state, look.glyphs),
                None => cells(line, runs.stuck(line, now), now, state, look.glyphs),
            };
            if let (Some(request), Some(width)) = (all.get_mut(REQUEST), wide(REQUEST)) {
                request.text = told_apart(&request.text, series, width, look.glyphs.ellipsis).into();
            }
            let mut cells: Vec<Piece<'_>> = shown.iter().filter_map(|at| all.get(*at).cloned()).collect();
            // The selected row has one style: told apart from afar, and cheap to move.
            if selected == Some(row) && focused {
                cells.iter_mut().for_each(|cell| cell.role = Role::Text);
            }
            body.row(y, &columns, &widths, &cells);
            if self.marked.contains(&line.run_key) {
                body.text(0, y, 1, look.glyphs.marked, Role::Key);
            }
            if selected == Some(row) {
                body.select(y, focused);
            }
        }
    }

    /// What is unusual about the rows.
    fn subject(&self, runs: &Runs, past: Option<&Detail>, old: Option<i64>) -> String {
        let reading = (!runs.complete()).then(|| "reading".to_owned());
        let marked = (!self.marked.is_empty()).then(|| format!("{} marked", self.marked.len()));
        let then = past.and_then(|past| Some(format!("{} {}", past.run_key.get(..8)?, past.past()?)));
        [reading, old.map(stale), marked, then].into_iter().flatten().collect::<Vec<_>>().join(" ")
    }

    fn empty(&self, runs: &Runs) -> &'static str {
        match (runs.is_empty(), runs.complete()) {
            (true, false) => "reading the ledger",
            (true, true) => "no runs yet; b starts a build, `ofs run INTENT` too",
            _ => "no run passes the filter; Esc clears it",
        }
    }
}

/// The state in one word.
pub fn word(line: &RunLine) -> &'static str {
    match line.status {
        Status::Running if line.paused_since.is_some() => "PAUSED",
        status => status.as_str(),
    }
}

/// The state as a glyph and a role, so that neither colour nor word alone has to say it.
pub fn state(line: &RunLine, stuck: bool, glyphs: &Glyphs) -> (&'static str, Role) {
    match line.status {
        _ if stuck => (glyphs.stuck, Role::Warn),
        Status::Running if line.paused_since.is_some() => (glyphs.paused, Role::Warn),
        Status::Running => (glyphs.running, Role::Running),
        Status::Queued => (glyphs.waiting, Role::Waiting),
        Status::PublishPending => (glyphs.waiting, Role::Warn),
        Status::Done => (glyphs.ok, Role::Good),
        Status::Failed | Status::Rejected => (glyphs.bad, Role::Bad),
        Status::Cancelled => (glyphs.cancelled, Role::Dim),
    }
}

/// The age of a run's newest sign of life. Seconds only while it runs: a screen at rest stays as it is.
pub fn age(line: &RunLine, now: Instant) -> String {
    let micros = now.0.saturating_sub(line.sign().0);
    if micros < 60_000_000 && line.status != Status::Running { "<1m".into() } else { ago(micros) }
}

/// How far it is in its phase, in hundredths.
pub fn percent(line: &RunLine) -> String {
    match line.progress {
        Some((done, total)) if total > 0 && line.status == Status::Running => {
            format!("{}%", u128::from(done.min(total)) * 100 / u128::from(total))
        }
        _ => String::new(),
    }
}

/// The row of a run as of a moment of its past.
fn then(line: &RunLine, past: &Detail, state_width: u16, glyphs: &'static Glyphs) -> Vec<Piece<'static>> {
    let row = &past.row;
    let units = past.moment.as_ref().map(|moment| moment.units).filter(|(_, total)| *total > 0);
    let line = RunLine {
        status: row.status,
        phase: row.phase.clone(),
        reason_code: None,
        manifest_id: row.manifest_id.clone(),
        full_run_attempts: row.full_run_attempts,
        publish_retry_attempts: 0,
        owner: row.owner.clone(),
        lease_expires: None,
        progress: units,
        last_progress: None,
        paused_since: row.paused_since,
        asked: false,
        updated: row.updated,
        ..line.clone()
    };
    let mut cells: Vec<Piece<'static>> = cells(&line, None, row.updated, state_width, glyphs)
        .into_iter()
        .map(|cell| Piece { text: Cow::Owned(cell.text.into_owned()), role: cell.role })
        .collect();
    let told = past.past().map(|stop| stop.to_string()).unwrap_or_default();
    for (at, text, role) in [
        (1, "then".to_owned(), Role::Dim),
        (5, format!("{} {told}", row.reason_code.as_deref().unwrap_or_default()), Role::Banner),
        (8, String::new(), Role::Dim),
    ] {
        if let Some(cell) = cells.get_mut(at) {
            (cell.text, cell.role) = (Cow::Owned(text.trim().to_owned()), role);
        }
    }
    cells
}

/// Gives what the column of reasons can spare, where the longest in sight has so many letters, to that of the names.
fn yield_to_names(columns: &mut [Column], longest: usize) {
    let mut spared = 0;
    for column in columns.iter_mut().rev() {
        let is = |at: usize| COLUMNS.get(at).is_some_and(|c| c.name == column.name);
        if is(REASON) {
            column.width = u16::try_from(longest).unwrap_or(u16::MAX).clamp(column.name.len() as u16, column.width);
            spared = column.min.saturating_sub(column.width);
            column.min = column.min.min(column.width);
        } else if is(REQUEST) {
            column.min += spared;
        }
    }
}

/// Bytes with which all the names begin, up to the end of a word; none where there is only one.
fn in_common<'n>(mut names: impl Iterator<Item = &'n str>) -> usize {
    let Some(first) = names.next() else { return 0 };
    let same = |name: &str| first.bytes().zip(name.bytes()).take_while(|(a, b)| a == b).count();
    let Some(common) = names.map(same).min() else { return 0 };
    let words = first.char_indices().filter(|(_, c)| !c.is_alphanumeric()).map(|(at, c)| at + c.len_utf8());
    words.take_while(|end| *end <= common).last().unwrap_or(0)
}

/// A name that is too long without what all the names in sight begin with, and without its middle.
fn told_apart(name: &str, series: usize, width: u16, ellipsis: &str) -> String {
    match name.get(series..) {
        Some(own) if series > 1 && name.chars().count() > usize::from(width) => {
            format!("{ellipsis}{}", both_ends(own, width.saturating_sub(1), ellipsis))
        }
        _ => both_ends(name, width, ellipsis),
    }
}

/// A name that is too long without its middle: those of one series begin alike and differ at their ends.
fn both_ends(name: &str, width: u16, ellipsis: &str) -> String {
    let name = crate::text::safe(name);
    let (letters, width) = (name.chars().count(), usize::from(width));
    if letters <= width || width < 5 {
        return name.into_owned();
    }
    let head = (width - 1) / 3;
    let tail = letters - (width - 1 - head);
    name.chars().take(head).chain(ellipsis.chars()).chain(name.chars().skip(tail)).collect()
}

fn cells<'l>(line: &'l RunLine, stuck: Option<&'static str>, now: Instant, state_width: u16, glyphs: &'static Glyphs) -> Vec<Piece<'l>> {
    let (mark, role) = state(line, stuck.is_some(), glyphs);
    let name = match word(line) {
        "PUBLISH_PENDING" if state_width < 17 => "PENDING",
        name => name,
    };
    // How far it is stands beside its phase; where both do not fit, the phase is the one to be guessed.
    let phase = match (line.phase.as_deref().unwrap_or(""), percent(line)) {
        (phase, done) if done.is_empty() => Cow::Borrowed(phase),
        (phase, done) => Cow::Owned(format!("{} {done}", phase.get(..6).unwrap_or(phase))),
    };
    let manifest = line.manifest_id.as_deref().and_then(|id| id.get(..11)).unwrap_or_default();
    vec![
        piece(format!("{mark} {name}"), role),
        piece(age(line, now), Role::Value),
        piece(line.run_key.get(..8).unwrap_or(&line.run_key), Role::Value),
        piece(line.request_id.as_deref().unwrap_or("-"), Role::Text),
        Piece { text: phase, role: Role::Text },
        reason(line, stuck),
        piece(if line.attempts() == 0 { String::new() } else { line.attempts().to_string() }, Role::Dim),
        piece(line.owner.as_ref().map(ToString::to_string).unwrap_or_default(), Role::Dim),
        lease(line, now),
        piece(manifest, Role::Dim),
    ]
}

/// Why it stands where it does.
fn reason<'l>(line: &'l RunLine, stuck: Option<&'static str>) -> Piece<'l> {
    match (stuck, line.asked, line.reason_code.as_deref()) {
        (Some(stuck), ..) => piece(format!("STUCK {stuck}"), Role::Warn),
        (None, true, _) => piece("asked to end", Role::Warn),
        (None, false, code) => piece(code.unwrap_or_default(), Role::Text),
    }
}

/// How its lease stands.
fn lease(line: &RunLine, now: Instant) -> Piece<'static> {
    match (line.status, line.standing().takeover_legal(now)) {
        (Status::Running, true) if line.owner_gone => piece("gone", Role::Warn),
        (Status::Running, true) => piece("over", Role::Warn),
        (Status::Running, false) => piece("held", Role::Dim),
        _ => piece("", Role::Text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_one_series_are_told_apart_in_few_columns() {
        let short = |name, width| both_ends(name, width, "~");
        assert_eq!(short("nycflights13.audit.2013-01-08", 12), "nyc~13-01-08");
        assert_eq!([short("train-5", 12), short("train-5", 3)], ["train-5", "train-5"]);
        let names = ["nycflights13.train.2013-01-01", "nycflights13.try.2013-01-01", "nycflights13.audit.2013-01-01"];
        let series = in_common(names.into_iter());
        assert_eq!(names.map(|name| told_apart(name, series, 12, "~")), ["~tra~3-01-01", "~try~3-01-01", "~aud~3-01-01"]);
        assert_eq!(names.map(|name| told_apart(name, series, 17, "~")), ["~train.2013-01-01", "~try.2013-01-01", "~audit.2013-01-01"]);
        assert_eq!([in_common(["one.a"].into_iter()), in_common(["a.b", "c.d"].into_iter()), in_common([].into_iter())], [0, 0, 0]);
        assert_eq!(in_common(["ä.b.1", "ä.b.2"].into_iter()), "ä.b.".len());
        // Where no run has a reason, the names have its room, at eighty columns, too.
        let names = |longest| {
            let mut columns = COLUMNS.to_vec();
            yield_to_names(&mut columns, longest);
            layout(77, &columns).get(REQUEST).copied().flatten()
        };
        assert_eq!([names(0), names(40)], [Some(23), Some(12)]);
        // A whole name has no more room than its column.
        assert_eq!(told_apart("nycflights13.train", 13, 20, "~"), "nycflights13.train");
    }
}
