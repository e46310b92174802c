//! The timeline pane: the run's events in time with who and why, a strip of its states, and the progress
//! between them. The selected event is the point in time that is scrubbed to.

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;

use super::list::{Frame, Rows, list, wrap};
use super::parts::{Canvas, Column, Copyable, Piece, distance, piece, sparkline};
use super::triage::status;
use crate::console::action::Action;
use crate::console::data::timeline::{Event, TimelineView};
use crate::console::filter::Filter;
use crate::console::look::{Glyphs, Role};

const READOUT: u16 = 3;

const COLUMNS: &[Column] = &[
    Column::number("SEQ", 4, 3),
    Column::left("TIME", 12, 0),
    Column::number("AFTER", 8, 4),
    Column { min: 18, ..Column::left("EVENT", 23, 0) },
    Column { min: 13, ..Column::left("STATUS", 17, 0) },
    Column { min: 8, ..Column::left("PHASE", 11, 1) },
    Column { min: 10, ..Column::left("ACTOR", 20, 2) },
    Column::rest("REASON", 14, 0),
];

/// What the timeline pane remembers.
#[derive(Debug, Clone, Default)]
pub struct TimelinePane {
    rows: Rows,
    /// The event that is scrubbed to; none where the newest is followed.
    scrubbed: Option<u64>,
}

impl TimelinePane {
    fn shown(&self, data: &TimelineView) -> Vec<usize> {
        self.rows.shown(&data.events, |a, b| a.seq.cmp(&b.seq))
    }

    /// The number of the event whose moment is shown, where time was scrubbed back.
    pub fn scrubbed(&self) -> Option<u64> {
        self.scrubbed
    }

    /// Puts the cursor on an event by its number; on the newest one where there is none.
    pub fn scrub_to(&mut self, seq: Option<u64>) {
        self.scrubbed = seq;
    }

    /// Obeys an action that has a meaning here. Says whether it did.
    pub fn act(&mut self, action: Action, data: &TimelineView, height: u16) -> bool {
        let shown = self.shown(data);
        let height = list_height(height);
        let at = self.place(data, &shown);
        self.rows.cursor.at = at;
        match action {
            // Another order shows the same moment.
            Action::Sort | Action::Reverse => return self.rows.act(action, shown.len(), height, 1),
            Action::Follow => self.rows.cursor.go(usize::MAX, shown.len(), height),
            _ if self.rows.act(action, shown.len(), height, 1) => {}
            _ => return false,
        }
        let selected = self.rows.selected(&self.shown(data));
        // At the newest event time goes on; anywhere else it stands still.
        self.scrubbed = selected.filter(|at| at + 1 < data.events.len()).and_then(|at| data.events.get(at)).map(|e| e.seq);
        true
    }

    /// The row that is selected: the event scrubbed to, else the newest.
    fn place(&self, data: &TimelineView, shown: &[usize]) -> usize {
        let newest = if self.rows.reversed { 0 } else { shown.len().saturating_sub(1) };
        let Some(seq) = self.scrubbed else { return newest };
        shown.iter().position(|at| data.events.get(*at).is_some_and(|e| e.seq == seq)).unwrap_or(newest)
    }

    /// Narrows the rows.
    pub fn set_filter(&mut self, filter: &Filter, _: &TimelineView) {
        self.rows.narrow(filter);
    }

    /// The filter.
    pub fn filter(&self) -> &Filter {
        &self.rows.filter
    }

    fn event<'d>(&self, data: &'d TimelineView) -> Option<&'d Event> {
        let shown = self.shown(data);
        data.events.get(*shown.get(self.place(data, &shown))?)
    }

    /// The selected event.
    pub fn selected(&self, data: &TimelineView) -> Option<Copyable> {
        let event = self.event(data)?;
        let reason = event.reason.as_deref().unwrap_or_default();
        let text = format!("{} {} {} {} {reason} {}", event.seq, event.at, event.name, event.actor, event.detail);
        Some(Copyable { id: format!("event {}", event.seq), text })
    }

    /// All rows as shown, the names of the columns first.
    pub fn table(&self, data: &TimelineView) -> Vec<Vec<String>> {
        let mut table =
            vec![["seq", "at_utc", "event_type", "status", "phase", "actor", "reason_code", "detail"].map(str::to_owned).to_vec()];
        for e in self.shown(data).into_iter().filter_map(|at| data.events.get(at)) {
            table.push(vec![
                e.seq.to_string(),
                e.at.to_string(),
                e.name.clone(),
                e.status.to_string(),
                e.phase.clone().unwrap_or_default(),
                e.actor.clone(),
                e.reason.clone().unwrap_or_default(),
                e.detail.clone(),
            ]);
        }
        table
    }

    /// Draws it.
    pub fn draw(&self, buf: &mut Buffer, area: Rect, data: &TimelineView, frame: &Frame<'_>) {
        let shown = self.shown(data);
        let all = usize::try_from(data.total).unwrap_or(usize::MAX);
        let heading = self.rows.heading("Timeline", frame, shown.len(), all, "");
        let mut canvas = Canvas::framed(buf, area, &heading, frame.look, frame.focused);
        let event = self.event(data);
        let head = self.head(&mut canvas, data, event);
        let readout = if canvas.height() > head + READOUT + 4 { READOUT } else { 0 };
        let (width, body) = (canvas.width(), canvas.height().saturating_sub(head + readout));
        let mut rows = self.rows.clone();
        rows.cursor.at = self.place(data, &shown);
        list(&mut canvas.part(0, head, width, body), COLUMNS, &rows, shown.len(), frame.focused, |row| {
            let event = shown.get(row).and_then(|at| data.events.get(*at));
            event.map(|event| cells(event, frame.look.glyphs)).unwrap_or_default()
        });
        if let Some(event) = event.filter(|_| readout > 0) {
            let mut foot = canvas.part(0, head + body, width, readout);
            for (y, line) in (0u16..).zip(wrap(&event.detail, width.saturating_sub(2), usize::from(READOUT))) {
                foot.text(1, y, width.saturating_sub(2), &line, Role::Dim);
            }
        }
    }

    /// The states of the run as a strip with the scrub cursor, the progress, and whether the chain holds.
    fn head(&self, canvas: &mut Canvas<'_>, data: &TimelineView, event: Option<&Event>) -> u16 {
        let width = canvas.width().saturating_sub(2);
        let glyphs = canvas.glyphs();
        let mut strip = Vec::new();
        for (at, (_, state)) in data.states().into_iter().enumerate() {
            let (glyph, role) = status(state, glyphs);
            if at > 0 {
                strip.push(piece(format!(" {} ", glyphs.arrow), Role::Dim));
            }
            strip.push(piece(format!("{glyph} {state}"), role));
        }
        canvas.line(1, 0, &strip);
        let until = event.filter(|_| self.scrubbed.is_some()).map(|e| e.at);
        let progress = data.progress(until);
        // Of a gate, and as old as the sample: a run that ended was not seen at its end.
        let told = progress.last().map_or_else(|| "no sample".to_owned(), |(gate, share)| format!(" {share}% of {gate} when last sampled"));
        let values: Vec<u64> = progress.into_iter().map(|(_, share)| share).collect();
        let mut line =
            vec![piece("progress ", Role::Header), piece(sparkline(&values, width.saturating_sub(48).clamp(8, 60), glyphs), Role::Running)];
        line.push(piece(told, Role::Value));
        if let (Some(_), Some(event)) = (self.scrubbed, event) {
            line.push(piece(format!("  {} as of event {} of {}", glyphs.cursor, event.seq, data.total), Role::Banner));
        }
        canvas.line(1, 1, &line);
        let (text, role) = match (&data.chain, &data.unknown) {
            (Ok(problems), None) if problems.is_empty() => return 2,
            (Ok(problems), None) => (format!("{} the chain of events is broken: {}", glyphs.bad, problems.join("; ")), Role::Bad),
            (Err(why), _) | (_, Some(why)) => (format!("{} UNKNOWN: {why}", glyphs.unknown), Role::Unknown),
        };
        canvas.text(1, 2, width, &text, role);
        3
    }
}

fn list_height(height: u16) -> usize {
    usize::from(height.saturating_sub(READOUT + 5)).max(1)
}

fn cells<'c>(event: &Event, glyphs: &Glyphs) -> Vec<Piece<'c>> {
    let (glyph, role) = status(event.status, glyphs);
    let time = event.at.to_string();
    vec![
        piece(event.seq.to_string(), Role::Dim),
        // The date stands in the read-out; within a run it is the time of day that one reads.
        piece(time.get(11..23).unwrap_or(&time).to_owned(), Role::Value),
        piece(distance(event.since_first), Role::Dim),
        piece(event.name.clone(), Role::Text),
        piece(format!("{glyph} {}", event.status), role),
        piece(event.phase.clone().unwrap_or_default(), Role::Text),
        piece(event.actor.clone(), Role::Dim),
        piece(event.reason.clone().unwrap_or_default(), if event.reason.is_some() { Role::Bad } else { Role::Dim }),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::console::data::testing::World;
    use crate::console::panes::testing::{at_every_size, drawn, dump, look, plain};
    use crate::time::Instant;

    /// A story with its clock stopped, so that a screen of it is the same every time.
    fn view(scenario: &str) -> TimelineView {
        let world = World::play(scenario);
        let (source, row, events) = world.newest();
        let mut data = TimelineView::load(&source, &row, &events);
        let base = Instant::parse("2026-02-10T10:00:00Z").unwrap();
        for (index, event) in data.events.iter_mut().enumerate() {
            event.since_first = index as i64 * 1_500_000;
            event.at = base.plus_micros(event.since_first);
            event.detail = format!("{{\"phase\":{:?}}}", event.phase);
        }
        for (index, sample) in data.samples.iter_mut().enumerate() {
            (sample.at, sample.done, sample.total) = (base.plus_micros(index as i64 * 4_000_000), index as u64 * 10, 100);
        }
        data
    }

    #[test]
    fn the_story_of_a_retried_publication_is_read_at_a_glance() {
        let data = view("commit-refused");
        for (glyphs, name) in [(Glyphs::UNICODE, "unicode"), (Glyphs::ASCII, "ascii")] {
            let look = look(glyphs);
            let frame = Frame { look: &look, focused: true, subject: "run", age: Some(0) };
            for (width, height) in [(80, 22), (200, 48), (60, 18)] {
                let buf = drawn(width, height, |buf, area| TimelinePane::default().draw(buf, area, &data, &frame));
                assert!(plain(&buf).contains("PUBLISH_PENDING"));
                insta::assert_snapshot!(format!("timeline_{name}_{width}x{height}"), dump(&buf));
            }
        }
    }

    #[test]
    fn scrubbing_back_stands_still_and_the_end_follows_again() {
        let mut data = view("commit-refused");
        let mut pane = TimelinePane::default();
        let last = data.events.last().unwrap().seq;
        let at = |seq: u64| format!("event {seq}");
        assert_eq!((pane.scrubbed(), pane.selected(&data).unwrap().id), (None, at(last)));
        pane.act(Action::Up, &data, 22);
        pane.act(Action::Up, &data, 22);
        assert_eq!(pane.scrubbed(), Some(last - 2));
        let more = Event { seq: last + 1, ..data.events.last().unwrap().clone() };
        data.events.push(more);
        assert_eq!(pane.selected(&data).unwrap().id, at(last - 2));
        pane.act(Action::Last, &data, 22);
        assert_eq!((pane.scrubbed(), pane.selected(&data).unwrap().id), (None, at(last + 1)));
        assert!(!pane.act(Action::Quit, &data, 22));
    }

    #[test]
    fn a_broken_chain_is_said_and_hostile_text_stays_text() {
        let mut data = view("clean");
        data.chain = Ok(vec!["event 3 is missing\u{1b}".into()]);
        data.events[0].actor = "\u{1b}]0;x\u{7}\u{202e}日本".into();
        data.events[0].detail = "\u{9b}\n".into();
        let look = look(Glyphs::ASCII);
        let frame = Frame { look: &look, focused: true, subject: "k", age: None };
        let mut pane = TimelinePane::default();
        pane.act(Action::First, &data, 22);
        at_every_size(|buf, area| {
            pane.draw(buf, area, &data, &frame);
            assert!(buf.content().iter().all(|c| !c.symbol().contains(['\u{1b}', '\u{9b}', '\u{202e}', '\n'])));
        });
        let text = plain(&drawn(80, 22, |buf, area| pane.draw(buf, area, &data, &frame)));
        assert!(text.contains("chain of events is broken: event 3 is missing"), "{text}");
    }
}
