//! The labels pane: the cut-off as a line in time with assertions around it, counts by type, the gate with
//! its thresholds, and every late or violating assertion with its distance to the cut-off.

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;

use super::list::{Frame, Rows, list, verdict, wrap};
use super::parts::{Canvas, Column, Copyable, Piece, distance, layout, piece, short, terse, thousands};
use crate::console::action::Action;
use crate::console::data::Verdict;
use crate::console::data::labels::{Assertion, Fate, LabelsView, TypeView};
use crate::console::filter::Filter;
use crate::console::look::{Glyphs, Role};

const ORDERS: [&str; 4] = ["", "distance", "type", "event"];

const TYPES: &[Column] = &[
    Column::rest("TYPE", 10, 0),
    Column::number("ROWS", 7, 4),
    Column::number("RESOLVED", 8, 0),
    Column::number("COVERAGE", 8, 5),
    Column::number("MIN", 6, 5),
    Column::number("NOT_FOUND", 9, 0),
    Column::number("CONFLICT", 8, 0),
    Column::number("IMMATURE", 8, 3),
    Column::number("LATE", 6, 0),
    Column::number("VIOLATION", 9, 0),
];

const LISTED: &[Column] = &[
    Column::left("FATE", 11, 0),
    Column::number("TO CUT-OFF", 10, 0),
    Column { min: 10, ..Column::left("TYPE", 16, 4) },
    Column { min: 12, ..Column::left("ASSERTION", 32, 2) },
    Column { min: 12, ..Column::left("EVENT", 32, 3) },
    Column::left("OBSERVED", 27, 5),
    Column::rest("WHY", 22, 1),
];

/// What the labels pane remembers.
#[derive(Debug, Clone, Default)]
pub struct LabelsPane {
    rows: Rows,
}

impl LabelsPane {
    fn shown(&self, data: &LabelsView) -> Vec<usize> {
        let near = |a: &Assertion| a.delta_us.map_or(u64::MAX, i64::unsigned_abs);
        self.rows.shown(&data.listed, |a, b| match self.rows.order {
            1 => near(a).cmp(&near(b)),
            2 => a.label_type.cmp(&b.label_type),
            _ => a.event_id.cmp(&b.event_id),
        })
    }

    /// Obeys an action that has a meaning here. Says whether it did.
    pub fn act(&mut self, action: Action, data: &LabelsView, height: u16) -> bool {
        let shown = self.shown(data).len();
        self.rows.act(action, shown, usize::from(height.saturating_sub(12)).max(1), ORDERS.len())
    }

    /// Narrows the rows.
    pub fn set_filter(&mut self, filter: &Filter, _: &LabelsView) {
        self.rows.narrow(filter);
    }

    /// The filter.
    pub fn filter(&self) -> &Filter {
        &self.rows.filter
    }

    /// The selected assertion.
    pub fn selected(&self, data: &LabelsView) -> Option<Copyable> {
        let found = data.listed.get(self.rows.selected(&self.shown(data))?)?;
        Some(Copyable { id: format!("assertion {}", found.id), text: found.id.clone() })
    }

    /// Counts by type, then the assertions as shown; the names of the columns first.
    pub fn table(&self, data: &LabelsView) -> Vec<Vec<String>> {
        let names = [
            "state",
            "type",
            "rows",
            "resolved",
            "not_found",
            "conflict",
            "immature",
            "eligible",
            "late",
            "violations",
            "event",
            "assertion",
            "observed_utc",
            "delta_us",
            "why",
        ];
        let mut table = vec![names.map(str::to_owned).to_vec()];
        let told = |n: Option<u64>| n.map_or_else(|| "UNKNOWN".to_owned(), |n| n.to_string());
        for t in &data.types {
            let counts = [t.rows, t.resolved, t.not_found, t.conflict, t.immature, t.eligible, t.late, t.violations];
            let mut row = vec![data.verdict.word().to_owned(), t.name.clone()];
            row.extend(counts.into_iter().map(told));
            row.resize(names.len(), String::new());
            table.push(row);
        }
        for found in self.shown(data).into_iter().filter_map(|at| data.listed.get(at)) {
            let mut row = vec![found.fate.word().to_owned(), found.label_type.clone()];
            row.resize(10, String::new());
            let delta = found.delta_us.map(|d| d.to_string()).unwrap_or_default();
            row.extend([found.event_id.clone(), found.id.clone(), found.observed.clone(), delta, found.why.clone()]);
            table.push(row);
        }
        table
    }

    /// Draws it.
    pub fn draw(&self, buf: &mut Buffer, area: Rect, data: &LabelsView, frame: &Frame<'_>) {
        let shown = self.shown(data);
        let order = ORDERS.get(self.rows.order).copied().unwrap_or_default();
        let listed = data.late_total.unwrap_or(0) + data.violation_total.unwrap_or(0);
        let all = usize::try_from(listed).unwrap_or(usize::MAX).max(data.listed.len());
        let heading = self.rows.heading("Labels", frame, shown.len(), all, order);
        let mut canvas = Canvas::framed(buf, area, &heading, frame.look, frame.focused);
        let mut at = gate(&mut canvas, data);
        at += types(&mut canvas.below(at), data);
        at += around(&mut canvas.below(at), data);
        let mut rest = canvas.below(at);
        if data.listed.is_empty() && rest.height() > 0 {
            let text = match data.verdict {
                Verdict::Proved | Verdict::Refused => "no assertion was late, none was refused",
                _ => "late and refused assertions are known when the gate has looked",
            };
            rest.text(1, 0, rest.width().saturating_sub(1), text, Role::Dim);
            return;
        }
        let cut = data.listed.len() < all && rest.height() > 3;
        if cut {
            let (kept, all) = (thousands(data.listed.len() as u64), thousands(all as u64));
            let text = format!("{kept} of {all} listed: those nearest to the cut-off and those farthest from it");
            rest.text(1, 0, rest.width().saturating_sub(1), &text, Role::Dim);
        }
        let mut rest = rest.below(cut.into());
        list(&mut rest, LISTED, &self.rows, shown.len(), frame.focused, |row| {
            let found = shown.get(row).and_then(|at| data.listed.get(*at));
            found.map(|found| cells(found, frame.look.glyphs)).unwrap_or_default()
        });
    }
}

/// LATE is lawful, VIOLATION is refused: another word, another glyph, another role.
fn fate(fate: Fate, glyphs: &Glyphs) -> (&'static str, Role) {
    match fate {
        Fate::Late => (glyphs.late, Role::Late),
        Fate::Violation => (glyphs.violation, Role::Bad),
    }
}

fn cells<'c>(found: &Assertion, glyphs: &Glyphs) -> Vec<Piece<'c>> {
    let (glyph, role) = fate(found.fate, glyphs);
    let why = if found.code.is_empty() { found.why.clone() } else { format!("{} {}", found.code, found.why) };
    vec![
        piece(format!("{glyph} {}", found.fate.word()), role),
        piece(found.delta_us.map_or_else(|| "no instant".to_owned(), distance), role),
        piece(found.label_type.clone(), Role::Text),
        piece(found.id.clone(), Role::Value),
        piece(found.event_id.clone(), Role::Value),
        piece(found.observed.clone(), Role::Value),
        piece(why, Role::Dim),
    ]
}

/// The verdict of the gate with why, the cut-off and the thresholds.
fn gate(canvas: &mut Canvas<'_>, data: &LabelsView) -> u16 {
    let (mut glyph, mut role) = verdict(data.verdict, canvas.glyphs());
    let word = match (data.verdict, data.ready) {
        (Verdict::Proved, Some(true)) => "READY_FOR_TRAINING",
        (Verdict::Proved, _) => {
            // Passed, since it is not for training; that is no success of the coverage policy.
            (glyph, role) = (canvas.glyphs().waiting, Role::Warn);
            "NOT_READY_FOR_TRAINING (gate passed: non-training build)"
        }
        (Verdict::Refused, _) => "REFUSED",
        (other, _) => other.word(),
    };
    let width = canvas.width().saturating_sub(2);
    let total = |name: &str, n: Option<u64>| format!("  {name} {}", n.map_or_else(|| "?".to_owned(), thousands));
    let mut pieces = vec![piece(format!("{glyph} {word}"), role)];
    let (late, late_role) = fate(Fate::Late, canvas.glyphs());
    let (bad, bad_role) = fate(Fate::Violation, canvas.glyphs());
    let loud = |n: Option<u64>, role: Role| if n.unwrap_or(0) > 0 { role } else { Role::Dim };
    pieces.push(piece(total(&format!("{bad} VIOLATION"), data.violation_total), loud(data.violation_total, bad_role)));
    pieces.push(piece(total(&format!("{late} LATE"), data.late_total), loud(data.late_total, late_role)));
    canvas.line(1, 0, &pieces);
    let mut at = 1;
    let why = match data.origin.unknown() {
        Some(why) => Some((format!("UNKNOWN: {why}"), Role::Unknown)),
        None => data.findings.first().or(data.reasons.first()).map(|first| {
            let more = data.findings.len().max(data.reasons.len()) - 1;
            let role = if data.verdict == Verdict::Refused { Role::Bad } else { Role::Warn };
            (if more > 0 { format!("{first} (and {more} more)") } else { first.clone() }, role)
        }),
    };
    if let Some((why, role)) = why {
        let most = if canvas.height() > 14 { 3 } else { 1 };
        for line in wrap(&why, width, most) {
            canvas.text(1, at, width, &line, role);
            at += 1;
        }
    }
    let days = data.maturity_days.map_or_else(|| "no maturity".to_owned(), |d| format!("mature after {d}d"));
    let mature = data.min_mature.as_deref().map(|min| format!(", at least {min} mature")).unwrap_or_default();
    let policy = format!("  conflicts at most {}  {days}{mature}", data.max_conflict);
    canvas.line(1, at, &[piece(format!("cut-off {}", data.cutoff), Role::Cutoff), piece(policy, Role::Dim)]);
    at + 1
}

/// Counts by type; where there are many, those that do not fit are named by number.
fn types(canvas: &mut Canvas<'_>, data: &LabelsView) -> u16 {
    let room = (canvas.height() / 3).max(1);
    let widths = layout(canvas.width().saturating_sub(1), TYPES);
    if canvas.height() < 2 {
        return 0;
    }
    canvas.heads(0, TYPES, &widths, None);
    let fits = usize::from(room).min(data.types.len());
    for (y, kind) in (1u16..).zip(data.types.iter().take(fits)) {
        let cells = type_cells(kind, data.verdict);
        canvas.row(y, TYPES, &widths, &cells);
    }
    let used = u16::try_from(fits).unwrap_or(room) + 1;
    if data.types.len() > fits {
        canvas.text(
            1,
            used,
            canvas.width(),
            &format!("and {} more type(s); export the table to see all", data.types.len() - fits),
            Role::Warn,
        );
        return used + 1;
    }
    used
}

fn type_cells<'c>(kind: &TypeView, verdict: Verdict) -> Vec<Piece<'c>> {
    let known = |n: Option<u64>, loud: Role| match n {
        None if matches!(verdict, Verdict::NotReached | Verdict::Running) => piece("-", Role::Dim),
        None => piece("?", Role::Unknown),
        Some(0) => piece("0", Role::Dim),
        Some(n) => piece(thousands(n), loud),
    };
    let mut violations = known(kind.violations, Role::Bad);
    if kind.violations_at_least {
        violations.text = format!(">={}", violations.text).into();
    }
    let below = kind.coverage.parse::<f64>().ok().zip(kind.min_coverage.parse::<f64>().ok()).is_some_and(|(is, min)| is < min);
    let ratio = |text: &str| if text == "UNKNOWN" { "?".to_owned() } else { text.to_owned() };
    vec![
        piece(kind.name.clone(), Role::Text),
        known(kind.rows, Role::Value),
        known(kind.resolved, Role::Value),
        piece(ratio(&kind.coverage), if below { Role::Bad } else { Role::Value }),
        piece(kind.min_coverage.clone(), Role::Dim),
        known(kind.not_found, Role::Warn),
        known(kind.conflict, Role::Bad),
        known(kind.immature, Role::Warn),
        known(kind.late, Role::Late),
        violations,
    ]
}

/// The cut-off as a line in time: how many assertions were observed how far before and after it.
fn around(canvas: &mut Canvas<'_>, data: &LabelsView) -> u16 {
    let Some((before, after)) = data.around() else { return 0 };
    let buckets = before.len();
    let cell = (canvas.width().saturating_sub(3) / u16::try_from(2 * buckets).unwrap_or(1)).min(9);
    if canvas.height() < 8 || cell < 4 {
        return 0;
    }
    let glyphs = canvas.glyphs();
    let greatest = before.iter().chain(&after).copied().max().unwrap_or(0).max(1);
    let bound = |at: usize| data.bounds_us.get(at).map(|us| distance(*us).trim_start_matches('+').replace(".0", ""));
    let mut x = 1;
    let middle = 1 + cell * u16::try_from(buckets).unwrap_or(0);
    let sides =
        before.iter().enumerate().rev().map(|(i, n)| (i, *n, Role::Good)).chain(after.iter().enumerate().map(|(i, n)| (i, *n, Role::Late)));
    for (index, (bucket, n, role)) in sides.enumerate() {
        if index == buckets {
            x = middle + 1;
        }
        let level = if n == 0 { " " } else { glyphs.levels.get(usize::try_from(n * 7 / greatest).unwrap_or(7)).copied().unwrap_or(" ") };
        let bar: String = level.repeat(usize::from(cell - 1));
        canvas.text(x, 0, cell - 1, &bar, role);
        let count = if cell > 5 { short(n) } else { terse(n) };
        canvas.right(x, 1, cell - 1, if n == 0 { glyphs.waiting } else { &count }, role);
        let name = bound(bucket).map_or_else(
            || if cell > 4 { "more" } else { "far" }.to_owned(),
            |b| format!("{}{b}", if canvas.width() > 90 { "<=" } else { "" }),
        );
        canvas.right(x, 2, cell - 1, &name, Role::Dim);
        x += cell;
    }
    for y in 0..3 {
        canvas.text(middle, y, 1, glyphs.cutoff, Role::Cutoff);
    }
    3
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::console::data::testing::World;
    use crate::console::panes::testing::{at_every_size, drawn, dump, look, plain};

    fn view(scenario: &str) -> LabelsView {
        let world = World::play(scenario);
        let (source, row, events) = world.newest();
        LabelsView::load(&source, &row, &events)
    }

    fn text(data: &LabelsView, width: u16, height: u16) -> String {
        let look = look(Glyphs::UNICODE);
        let frame = Frame { look: &look, focused: true, subject: "k", age: Some(0) };
        plain(&drawn(width, height, |buf, area| LabelsPane::default().draw(buf, area, data, &frame)))
    }

    #[test]
    fn late_and_violation_differ_in_word_glyph_and_count() {
        let data = view("backdated-label-column");
        for (glyphs, name) in [(Glyphs::UNICODE, "unicode"), (Glyphs::ASCII, "ascii")] {
            let look = look(glyphs);
            let frame = Frame { look: &look, focused: true, subject: "d3f94c45", age: Some(3_000_000) };
            for (width, height) in [(80, 22), (200, 48), (60, 18)] {
                let buf = drawn(width, height, |buf, area| LabelsPane::default().draw(buf, area, &data, &frame));
                insta::assert_snapshot!(format!("violation_{name}_{width}x{height}"), dump(&buf));
            }
        }
        let text = text(&data, 80, 22);
        assert!(text.contains("‼ VIOLATION 1") && text.contains("◷ LATE 395"), "{text}");
    }

    #[test]
    fn the_gate_says_why_with_its_threshold() {
        let coverage = text(&view("coverage-below-minimum"), 80, 22);
        assert!(coverage.contains("COVERAGE_BELOW_MIN:arrival_status:0.953682<0.99") && coverage.contains("REFUSED"), "{coverage}");
        let clean = text(&view("clean"), 80, 22);
        assert!(clean.contains("READY_FOR_TRAINING") && clean.contains("no assertion was late"), "{clean}");
        let before = text(&view("archive-gap"), 80, 22);
        assert!(before.contains("NOT_REACHED") && !before.contains('✓'), "{before}");
    }

    #[test]
    fn the_table_agrees_with_the_receipt_and_the_filter() {
        let data = view("backdated-label-column");
        let mut pane = LabelsPane::default();
        let table = pane.table(&data);
        assert_eq!((table.len(), table[1][8].as_str(), table[1][9].as_str()), (1 + 1 + 396, "395", "1"));
        pane.set_filter(&Filter::parse("fate=violation").unwrap(), &data);
        assert_eq!(pane.table(&data).len(), 3);
        assert_eq!(pane.selected(&data).unwrap().text, "8b70e7b58df5b3adbdfbdbcd06f768cb");
        pane.act(Action::Sort, &data, 22);
        assert!(pane.act(Action::Down, &data, 22) && !pane.act(Action::Quit, &data, 22));
    }

    #[test]
    fn it_draws_at_every_size_and_hostile_text_stays_text() {
        let mut data = view("backdated-label-column");
        data.listed[0].id = "\u{1b}]0;x\u{7}\u{202e}".into();
        data.listed[0].why = "a\nb\u{9b}".into();
        data.types[0].name = "\u{1b}[2J日本".into();
        let look = look(Glyphs::ASCII);
        let frame = Frame { look: &look, focused: true, subject: "k", age: None };
        at_every_size(|buf, area| {
            LabelsPane::default().draw(buf, area, &data, &frame);
            assert!(buf.content().iter().all(|c| !c.symbol().contains(['\u{1b}', '\u{9b}', '\u{202e}', '\n'])));
        });
    }
}
