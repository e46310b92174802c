//! The replay pane: partitions with a problem first on demand, each with its range as a strip of segments; a
//! cursor along the strip of the selected one reads out offsets, source and reason.

use super::list::{Frame, Rows, list, verdict, wrap};
use super::parts::{Canvas, Column, Copyable, Piece, columns, gauge, piece, thousands};
use crate::console::action::Action;
use crate::console::data::Verdict;
use crate::console::data::replay::{LaneView, ReplayView, Segment, Served};
use crate::console::filter::Filter;
use crate::console::look::{Glyphs, Role};
use crate::contract::Offset;
use ratatui::buffer::Buffer;
use ratatui::layout::Rect;

/// Names of the orders: of the basis, problems first, by what is missing.
const ORDERS: [&str; 3] = ["", "problem", "missing"];
/// Rows of the read-out below the list.
const READOUT: u16 = 4;

/// What the replay pane remembers.
#[derive(Debug, Clone, Default)]
pub struct ReplayPane {
    rows: Rows,
    /// The segment that the cursor was moved to.
    segment: Option<usize>,
}

impl ReplayPane {
    fn shown(&self, data: &ReplayView) -> Vec<usize> {
        self.rows.shown(&data.lanes, |a, b| match self.rows.order {
            1 => (a.verdict, std::cmp::Reverse(a.missing)).cmp(&(b.verdict, std::cmp::Reverse(b.missing))),
            _ => b.missing.cmp(&a.missing).then(b.mismatch.cmp(&a.mismatch)),
        })
    }

    fn lane<'d>(&self, data: &'d ReplayView) -> Option<&'d LaneView> {
        data.lanes.get(self.rows.selected(&self.shown(data))?)
    }

    /// Obeys an action that has a meaning here. Says whether it did.
    pub fn act(&mut self, action: Action, data: &ReplayView, height: u16) -> bool {
        let shown = self.shown(data);
        let place = self.lane(data).map(|lane| (self.place(lane), lane.segments.len().saturating_sub(1)));
        match action {
            Action::Left => self.segment = place.map(|(at, _)| at.saturating_sub(1)),
            Action::Right => self.segment = place.map(|(at, last)| (at + 1).min(last)),
            Action::NextMatch | Action::PreviousMatch => self.seek(data, &shown, action == Action::NextMatch, height),
            _ => {
                let before = self.rows.selected(&shown);
                if !self.rows.act(action, shown.len(), list_height(height), ORDERS.len()) {
                    return false;
                }
                if self.rows.selected(&self.shown(data)) != before {
                    self.segment = None;
                }
            }
        }
        true
    }

    /// Goes to the next or previous partition with a problem.
    fn seek(&mut self, data: &ReplayView, shown: &[usize], on: bool, height: u16) {
        let problem = |at: &usize| shown.get(*at).and_then(|i| data.lanes.get(*i)).is_some_and(LaneView::problem);
        let at = self.rows.cursor.at.min(shown.len());
        let found =
            if on { (at + 1..shown.len()).chain(0..=at).find(problem) } else { (0..at).rev().chain((at..shown.len()).rev()).find(problem) };
        if let Some(found) = found {
            self.rows.cursor.go(found, shown.len(), list_height(height));
            self.segment = None;
        }
    }

    /// Narrows the rows.
    pub fn set_filter(&mut self, filter: &Filter, _: &ReplayView) {
        self.rows.narrow(filter);
        self.segment = None;
    }

    /// The filter.
    pub fn filter(&self) -> &Filter {
        &self.rows.filter
    }

    /// The selected partition, with the stretch under the cursor.
    pub fn selected(&self, data: &ReplayView) -> Option<Copyable> {
        let lane = self.lane(data)?;
        let text = match self.segment_of(lane) {
            Some(segment) => format!("{} {} {} {}", lane.name, segment.range, segment.served.word(), segment.why),
            None => lane.name.clone(),
        };
        Some(Copyable { id: format!("partition {}", lane.name), text: text.trim_end().to_owned() })
    }

    fn segment_of<'d>(&self, lane: &'d LaneView) -> Option<&'d Segment> {
        lane.segments.get(self.place(lane))
    }

    /// Where the cursor stands along a partition's strip: where it was moved to, else at the first problem,
    /// which is what one looks for.
    fn place(&self, lane: &LaneView) -> usize {
        let first = || lane.segments.iter().position(|s| s.served.problem()).unwrap_or(0);
        self.segment.unwrap_or_else(first).min(lane.segments.len().saturating_sub(1))
    }

    /// All rows as shown, the names of the columns first.
    pub fn table(&self, data: &ReplayView) -> Vec<Vec<String>> {
        let names = [
            "state",
            "partition",
            "offset_kind",
            "requested",
            "delivered",
            "covered",
            "missing",
            "mismatch",
            "foreign",
            "archive",
            "bus",
            "compared",
            "cutover",
            "hash_verified",
        ];
        let mut table = vec![names.map(str::to_owned).to_vec()];
        for lane in self.shown(data).into_iter().filter_map(|at| data.lanes.get(at)) {
            table.push(vec![
                lane.verdict.word().into(),
                lane.name.clone(),
                lane.kind.clone(),
                lane.requested.to_string(),
                lane.delivered.to_string(),
                lane.covered.to_string(),
                lane.missing.to_string(),
                lane.mismatch.to_string(),
                lane.foreign.to_string(),
                lane.archive.to_string(),
                lane.bus.to_string(),
                lane.compared.to_string(),
                lane.cutover.clone(),
                verified(data).into(),
            ]);
        }
        table
    }

    /// Draws it.
    pub fn draw(&self, buf: &mut Buffer, area: Rect, data: &ReplayView, frame: &Frame<'_>) {
        let shown = self.shown(data);
        let order = ORDERS.get(self.rows.order).copied().unwrap_or_default();
        let heading = self.rows.heading("Replay", frame, shown.len(), data.lanes_total, order);
        let mut canvas = Canvas::framed(buf, area, &heading, frame.look, frame.focused);
        let head = summary(&mut canvas, data);
        let readout = if canvas.height() > head + READOUT + 3 { READOUT } else { 0 };
        let body = canvas.height().saturating_sub(head + readout);
        let width = canvas.width();
        let wanted = table_columns(data);
        list(&mut canvas.part(0, head, width, body), &wanted, &self.rows, shown.len(), frame.focused, |row| {
            let lane = shown.get(row).and_then(|at| data.lanes.get(*at));
            lane.map(|lane| cells(lane, data, frame.look.glyphs)).unwrap_or_default()
        });
        if let Some(lane) = self.rows.selected(&shown).and_then(|at| data.lanes.get(at)).filter(|_| readout > 0) {
            self.readout(&mut canvas.part(0, head + body, width, readout), lane);
        }
    }

    /// The selected partition's strip over the whole width, the cursor below it, and what stands under it.
    fn readout(&self, canvas: &mut Canvas<'_>, lane: &LaneView) {
        let width = canvas.width().saturating_sub(2);
        if lane.segments.is_empty() {
            let bar = gauge(width, lane.delivered, lane.requested.to_u64().unwrap_or(0), canvas.glyphs());
            canvas.text(1, 0, width, &bar, Role::Running);
            let text = format!(
                "{} records read of {} offsets asked for; what served them is known when the gate has passed",
                thousands(lane.delivered),
                thousands(lane.requested)
            );
            canvas.text(1, 2, width, &text, Role::Dim);
            return;
        }
        let strip = strip(lane, width);
        for (x, (served, _)) in (1u16..).zip(&strip) {
            let (glyph, role) = look_of(*served, canvas.glyphs());
            canvas.text(x, 0, 1, glyph, role);
        }
        let Some(segment) = self.segment_of(lane) else { return };
        let place = self.place(lane);
        // A segment thinner than a cell may have no cell of its own: then the one that hides it is marked.
        let own: Vec<u16> = (0u16..).zip(&strip).filter(|(_, (_, at))| *at == place).map(|(x, _)| x).collect();
        let middle = own.get(own.len() / 2).copied().unwrap_or_else(|| position(lane, segment.range.start, width));
        canvas.text(1 + middle, 1, 1, canvas.glyphs().cursor, Role::Key);
        let (glyph, role) = look_of(segment.served, canvas.glyphs());
        let count = thousands(segment.range.span());
        let at = format!("{glyph} {} {}", segment.served.word(), segment.range);
        let told = [
            piece(at, role),
            piece(format!("  {count} offset(s)  {}/{} segments  {}", place + 1, lane.segments.len(), lane.name), Role::Dim),
        ];
        canvas.line(1, 2, &told);
        let cause = cause_words(&segment.why);
        if cause.is_empty() {
            let retained = lane.retained_from.as_deref().map(|at| format!(", bus retained from {at}")).unwrap_or_default();
            let text = format!(
                "cut-over {}, archive {}, bus {}, compared on both {}{retained}",
                lane.cutover,
                thousands(lane.archive),
                thousands(lane.bus),
                thousands(lane.compared)
            );
            canvas.text(1, 3, width, &text, Role::Dim);
        } else {
            canvas.text(1, 3, width, &cause, role);
        }
    }
}

fn list_height(height: u16) -> usize {
    usize::from(height.saturating_sub(READOUT + 6)).max(1)
}

fn verified(data: &ReplayView) -> &'static str {
    match data.verified {
        Some(true) if data.verdict == Verdict::Proved => "yes",
        Some(true) => "on",
        Some(false) => "OFF",
        None => "UNKNOWN",
    }
}

/// What a cause of the receipt means, with its name.
fn cause_words(cause: &str) -> String {
    let words = match cause {
        "BELOW_RETENTION" => "below the bus's retention and absent from the archive",
        "ABSENT_FROM_ARCHIVE" => "neither the archive nor the bus has it",
        "BEYOND_END" => "beyond the last record that any side has",
        "UNREADABLE_RECORD" => "the bus has it, but it cannot be read, and the archive has it not",
        "SPARSE_UNATTESTED" => "a sparse range that no sealed index attests",
        _ => return cause.to_owned(),
    };
    format!("{cause}: {words}")
}

/// The lines above the list: the verdict with its sums, and what the gate found or why nothing is known.
fn summary(canvas: &mut Canvas<'_>, data: &ReplayView) -> u16 {
    let totals = data.totals();
    let (glyph, role) = verdict(data.verdict, canvas.glyphs());
    let word = match data.verdict {
        Verdict::Proved => "COMPLETE",
        Verdict::Refused | Verdict::Contradicted => "INCOMPLETE",
        other => other.word(),
    };
    let problem = |n: &Offset, role: Role| if *n > Offset::default() { role } else { Role::Value };
    let mut pieces = vec![piece(format!("{glyph} {word}"), role)];
    let told = !matches!(data.verdict, Verdict::NotReached | Verdict::Unknown | Verdict::Running);
    if told {
        pieces.push(piece(format!("  missing {}", thousands(totals.missing)), problem(&totals.missing, Role::Missing)));
        pieces.push(piece(format!("  mismatch {}", thousands(totals.mismatch)), problem(&Offset::from(totals.mismatch), Role::Mismatch)));
    }
    if told || data.verdict == Verdict::Running {
        pieces.push(piece(format!("  delivered {} of {}", thousands(totals.delivered), thousands(totals.requested)), Role::Value));
        let role = if data.verified == Some(false) { Role::Warn } else { Role::Dim };
        pieces.push(piece(format!("  hashes {}", verified(data)), role));
    } else {
        pieces.push(piece(format!("  asked for {} offset(s)", thousands(totals.requested)), Role::Dim));
    }
    for (name, n) in [("foreign", totals.foreign), ("unusable", data.unusable), ("unplaced", data.unplaced)] {
        if n > 0 {
            pieces.push(piece(format!("  {name} {}", thousands(n)), Role::Warn));
        }
    }
    canvas.line(1, 0, &pieces);
    let (text, role) = match (data.origin.unknown(), data.findings.first()) {
        (Some(why), _) => (format!("UNKNOWN: {why}"), Role::Unknown),
        (None, Some(first)) if data.findings.len() > 1 => (format!("{first} (and {} more)", data.findings.len() - 1), Role::Bad),
        (None, Some(first)) => (first.clone(), Role::Bad),
        (None, None) => return 1,
    };
    let most = if canvas.height() > 14 { 2 } else { 1 };
    let width = canvas.width().saturating_sub(2);
    let lines = wrap(&text, width, most);
    for (y, line) in (1u16..).zip(&lines) {
        canvas.text(1, y, width, line, role);
    }
    u16::try_from(lines.len()).unwrap_or(1) + 1
}

/// The topic stands in every row only where there are several.
fn one_topic(data: &ReplayView) -> bool {
    data.lanes.first().is_some_and(|first| data.lanes.iter().all(|lane| lane.topic == first.topic))
}

fn table_columns(data: &ReplayView) -> Vec<Column> {
    let name = if one_topic(data) { 5 } else { data.lanes.iter().take(64).map(|l| columns(&l.name)).max().unwrap_or(9).clamp(9, 34) };
    let digits = |n: Offset| columns(&thousands(n)).clamp(7, 20);
    let requested = data.lanes.iter().map(|l| l.requested).max().map_or(7, digits);
    let missing = data.lanes.iter().map(|l| l.missing).max().map_or(7, digits);
    vec![
        Column::left("STATE", 13, 0),
        Column { right: one_topic(data), min: 4, ..Column::left("PART", name, 0) },
        Column::rest("RANGE", 12, 3),
        Column::number("ASKED", requested, 4),
        Column::number("DELIVERED", requested.max(9), 1),
        Column::number("MISSING", missing, 0),
        Column::number("MISMATCH", 8, 0),
        Column::left("CUT-OVER", 19, 6),
        Column::number("FOREIGN", 7, 7),
    ]
}

fn cells<'c>(lane: &LaneView, data: &ReplayView, glyphs: &Glyphs) -> Vec<Piece<'c>> {
    let (glyph, role) = verdict(lane.verdict, glyphs);
    let word = match lane.verdict {
        Verdict::Proved => "COMPLETE",
        Verdict::Refused => "MISSING",
        other => other.word(),
    };
    let name = if one_topic(data) { lane.partition.to_string() } else { lane.name.clone() };
    let told = !matches!(lane.verdict, Verdict::NotReached | Verdict::Unknown | Verdict::Running);
    let number = |n: String| if told { n } else { "?".to_owned() };
    let range: String = if lane.segments.is_empty() {
        gauge(12, lane.delivered, lane.requested.to_u64().unwrap_or(0), glyphs)
    } else {
        strip(lane, 12).into_iter().map(|(served, _)| look_of(served, glyphs).0).collect()
    };
    let missing = if lane.missing > Offset::default() { Role::Missing } else { Role::Value };
    let mismatch = if lane.mismatch > 0 { Role::Mismatch } else { Role::Value };
    let delivered = if lane.verdict == Verdict::Unknown { "?".to_owned() } else { thousands(lane.delivered) };
    vec![
        piece(format!("{glyph} {word}"), role),
        piece(name, Role::Text),
        piece(range, if lane.problem() { role } else { Role::Bus }),
        piece(thousands(lane.requested), Role::Value),
        piece(delivered, Role::Value),
        piece(number(thousands(lane.missing)), missing),
        piece(number(thousands(lane.mismatch)), mismatch),
        piece(lane.cutover.clone(), Role::Dim),
        piece(number(thousands(lane.foreign)), if lane.foreign > 0 { Role::Warn } else { Role::Dim }),
    ]
}

/// A segment's glyph and role.
fn look_of(served: Served, glyphs: &Glyphs) -> (&'static str, Role) {
    match served {
        Served::Wanted => (glyphs.wanted, Role::Waiting),
        Served::Bus => (glyphs.bus, Role::Bus),
        Served::Archive => (glyphs.archive, Role::Archive),
        Served::Sealed => (glyphs.sealed, Role::Sealed),
        Served::Unknown => (glyphs.unknown, Role::Unknown),
        Served::Missing => (glyphs.missing, Role::Missing),
        Served::Mismatch => (glyphs.mismatch, Role::Mismatch),
    }
}

/// A partition's asked ranges as cells: in each the worst of what falls into it, so that one missing offset
/// of a million is seen, and the segment that it comes from.
fn strip(lane: &LaneView, width: u16) -> Vec<(Served, usize)> {
    let width = usize::from(width);
    let total: f64 = lane.segments.iter().map(|s| size(s.range.span())).sum();
    let Some(first) = lane.segments.first().filter(|_| width > 0 && total > 0.0) else { return Vec::new() };
    let mut cells: Vec<Option<(Served, usize)>> = vec![None; width];
    let mut before = 0.0;
    for (index, segment) in lane.segments.iter().enumerate() {
        let after = before + size(segment.range.span());
        let cell = |at: f64| ((at / total * width as f64) as usize).min(width - 1);
        // A stretch ends in the cell of its last offset, not in the one after it.
        let end = cell((after - total / width as f64 * 1e-9).max(before));
        for slot in cells.iter_mut().take(end + 1).skip(cell(before)) {
            let problem = |served: Served| (served.problem(), served);
            if slot.is_none_or(|(worst, _)| problem(segment.served) > problem(worst)) {
                *slot = Some((segment.served, index));
            }
        }
        before = after;
    }
    cells.into_iter().map(|cell| cell.unwrap_or((first.served, 0))).collect()
}

/// The cell of a strip in which an offset falls.
fn position(lane: &LaneView, offset: Offset, width: u16) -> u16 {
    let total: f64 = lane.segments.iter().map(|s| size(s.range.span())).sum();
    let before: f64 = lane.segments.iter().take_while(|s| s.range.end < offset).map(|s| size(s.range.span())).sum();
    ((before / total.max(1.0) * f64::from(width)) as u16).min(width.saturating_sub(1))
}

/// A span as a share of the screen: exact enough to place a cell, never shown as a number.
fn size(span: Offset) -> f64 {
    span.to_string().parse().unwrap_or(1.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::console::data::Origin;
    use crate::console::data::testing::World;
    use crate::console::panes::testing::{at_every_size, drawn, dump, look, plain};
    use crate::contract::intent::OffsetRange;

    fn view(scenario: &str) -> ReplayView {
        let world = World::play(scenario);
        let (source, row, events) = world.newest();
        ReplayView::load(&source, &row, &events)
    }

    fn frame(look: &crate::console::look::Look) -> Frame<'_> {
        Frame { look, focused: true, subject: "76f8e9c5", age: Some(3_000_000) }
    }

    fn many(n: usize) -> ReplayView {
        let mut data = view("archive-gap");
        let lane = data.lanes[3].clone();
        data.lanes = (0..n).map(|p| LaneView { partition: p as i64, name: format!("t/{p}"), ..lane.clone() }).collect();
        data.lanes_total = n;
        data.lanes[n - 2].verdict = Verdict::Refused;
        data.lanes[n - 2].missing = Offset::from(7);
        data
    }

    #[test]
    fn a_gap_is_on_the_screen_at_every_size_of_terminal() {
        let data = view("archive-gap");
        for (glyphs, name) in [(Glyphs::UNICODE, "unicode"), (Glyphs::ASCII, "ascii")] {
            let look = look(glyphs);
            for (width, height) in [(80, 22), (200, 48), (60, 18)] {
                let buf = drawn(width, height, |buf, area| ReplayPane::default().draw(buf, area, &data, &frame(&look)));
                insta::assert_snapshot!(format!("gap_{name}_{width}x{height}"), dump(&buf));
            }
        }
    }

    #[test]
    fn a_mismatch_and_an_unknown_receipt_never_look_good() {
        let look = look(Glyphs::UNICODE);
        let shown = |data: &ReplayView| plain(&drawn(80, 22, |buf, area| ReplayPane::default().draw(buf, area, data, &frame(&look))));
        let text = shown(&view("bus-archive-mismatch"));
        assert!(text.contains("MISMATCH 170") || text.contains("MISMATCH"), "{text}");
        let world = World::play("clean");
        world.damage("replay_completeness", None);
        let (source, row, events) = world.newest();
        let text = shown(&ReplayView::load(&source, &row, &events));
        assert!(text.contains("UNKNOWN") && text.contains("is gone") && !text.contains("COMPLETE ") && !text.contains('✓'), "{text}");
    }

    #[test]
    fn it_draws_at_every_size_and_windows_its_rows() {
        let data = many(4_096);
        let look = look(Glyphs::UNICODE);
        let mut pane = ReplayPane::default();
        pane.act(Action::Last, &data, 22);
        at_every_size(|buf, area| pane.draw(buf, area, &data, &frame(&look)));
        let text = plain(&drawn(80, 22, |buf, area| pane.draw(buf, area, &data, &frame(&look))));
        assert!(text.contains("4095") && text.contains("Replay 4096"), "{text}");
    }

    #[test]
    fn the_partition_with_a_problem_is_one_key_away() {
        let data = many(4_096);
        let mut pane = ReplayPane::default();
        assert!(pane.act(Action::NextMatch, &data, 22));
        assert_eq!(pane.selected(&data).unwrap().id, "partition t/4094");
        let mut pane = ReplayPane::default();
        pane.act(Action::Sort, &data, 22);
        assert_eq!(pane.selected(&data).unwrap().id, "partition t/4094");
        pane.set_filter(&Filter::parse("state=refused").unwrap(), &data);
        assert_eq!(pane.table(&data).len(), 2);
    }

    #[test]
    fn the_cursor_reads_out_every_segment() {
        let data = view("archive-gap");
        let mut pane = ReplayPane::default();
        assert!(pane.selected(&data).unwrap().text.contains(" 17 MISSING BELOW_RETENTION"));
        pane.act(Action::NextMatch, &data, 22);
        pane.act(Action::Right, &data, 22);
        assert!(pane.selected(&data).unwrap().text.contains("18-182 ARCHIVE"), "{:?}", pane.selected(&data));
        assert!(!pane.act(Action::Quit, &data, 22));
    }

    #[test]
    fn the_table_agrees_with_the_receipt() {
        let data = view("clean");
        let table = ReplayPane::default().table(&data);
        let delivered: u64 = table[1..].iter().map(|row| row[4].parse::<u64>().unwrap()).sum();
        assert_eq!((table.len(), delivered), (5, 842));
        assert!(table[1..].iter().all(|row| row[6] == "0" && row[7] == "0" && row[13] == "yes"));
    }

    #[test]
    fn one_offset_of_a_million_is_seen_and_hostile_names_stay_text() {
        let range = |a: u64, b: u64| OffsetRange { start: a.into(), end: b.into() };
        let mut lane = view("clean").lanes[0].clone();
        let of = |range: OffsetRange, served: Served| Segment { range, served, why: String::new() };
        lane.segments = vec![
            of(range(0, 499_999), Served::Archive),
            of(range(500_000, 500_000), Served::Missing),
            of(range(500_001, 999_999), Served::Bus),
        ];
        let cells = strip(&lane, 10);
        assert_eq!(cells.iter().filter(|(s, _)| *s == Served::Missing).count(), 1);
        assert_eq!((cells[0].0, cells[9].0, cells.len()), (Served::Archive, Served::Bus, 10));
        lane.topic = "\u{1b}]52;c;x\u{7}\u{202e}日本".into();
        lane.name = format!("{}/0", lane.topic);
        let data = ReplayView {
            lanes: vec![lane],
            findings: vec!["\u{1b}[2J\n".into()],
            origin: Origin::Unknown("\u{9b}1m".into()),
            ..view("clean")
        };
        let look = look(Glyphs::UNICODE);
        at_every_size(|buf, area| {
            ReplayPane::default().draw(buf, area, &data, &frame(&look));
            assert!(buf.content().iter().all(|c| !c.symbol().contains(['\u{1b}', '\u{9b}', '\u{202e}', '\n'])));
        });
    }
}
