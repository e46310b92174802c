//! One file a pane: what it remembers between frames, which actions it obeys, and how it draws a view model.
//!
//! `draw` is pure, draws at every size, builds no more rows than it shows, escapes every text from outside,
//! and says each state in a word and a glyph besides its style.

pub mod answer;
pub mod evidence;
pub mod labels;
pub mod list;
pub mod log;
pub mod parts;
pub mod pins;
pub mod replay;
pub mod runs;
#[cfg(test)]
pub mod testing;
pub mod timeline;
pub mod triage;

use std::sync::LazyLock;

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;

use self::evidence::EvidencePane;
use self::labels::LabelsPane;
use self::list::Frame;
use self::log::LogPane;
use self::parts::{Canvas, Copyable, Heading};
use self::pins::PinsPane;
use self::replay::ReplayPane;
use self::runs::RunsPane;
use self::timeline::TimelinePane;
use self::triage::TriagePane;
use super::action::Action;
use super::data::detail::Detail;
use super::data::log::LogView;
use super::data::runs::Runs;
use super::filter::Filter;
use super::look::{Look, Role};
use super::model::{Slot, View};
use crate::time::Instant;

/// What all panes remember.
#[derive(Debug, Clone, Default)]
pub struct Panes {
    /// The list of runs.
    pub runs: RunsPane,
    /// Replay completeness.
    pub replay: ReplayPane,
    /// Labels as of the cut-off.
    pub labels: LabelsPane,
    /// Pinned versions.
    pub pins: PinsPane,
    /// A run's events.
    pub timeline: TimelinePane,
    /// Receipts and manifest.
    pub evidence: EvidencePane,
    /// The program's own log.
    pub log: LogPane,
    /// Why the selected run stands where it does.
    pub triage: TriagePane,
}

/// What panes may look at, and nothing more.
#[derive(Debug, Clone, Copy)]
pub struct Seen<'m> {
    /// All runs.
    pub runs: &'m Runs,
    /// What is known about the selected run.
    pub detail: Option<&'m Detail>,
    /// The program's own log.
    pub log: &'m LogView,
    /// The time, as far as the screen is concerned.
    pub now: Instant,
    /// How long what is shown may have been old, in micros; none where it is not.
    pub stale: Option<i64>,
}

static NONE: LazyLock<Filter> = LazyLock::new(Filter::default);

/// Data younger than this is not called old: a screen at rest stays as it is.
pub const YOUNG: i64 = 60_000_000;

impl Panes {
    /// The filter of a pane.
    pub fn filter(&self, view: View) -> &Filter {
        match view {
            View::Runs => self.runs.filter(),
            View::Replay => self.replay.filter(),
            View::Labels => self.labels.filter(),
            View::Pins => self.pins.filter(),
            View::Timeline => self.timeline.filter(),
            View::Evidence => self.evidence.filter(),
            View::Log => self.log.filter(),
            View::Dashboard | View::Triage => &NONE,
        }
    }

    /// Narrows the rows of a pane.
    pub fn set_filter(&mut self, view: View, filter: Filter, seen: &Seen<'_>, height: u16) {
        match (view, seen.detail) {
            (View::Runs, _) => self.runs.set_filter(filter, seen.runs, seen.now, height),
            (View::Log, _) => self.log.set_filter(&filter, seen.log),
            (View::Replay, Some(detail)) => self.replay.set_filter(&filter, &detail.replay),
            (View::Labels, Some(detail)) => self.labels.set_filter(&filter, &detail.labels),
            (View::Pins, Some(detail)) => self.pins.set_filter(&filter, &detail.pins),
            (View::Timeline, Some(detail)) => self.timeline.set_filter(&filter, &detail.timeline),
            (View::Evidence, Some(detail)) => self.evidence.set_filter(&filter, &detail.evidence),
            _ => {}
        }
    }

    /// Lets a pane obey. Says whether the action has a meaning there.
    pub fn act(&mut self, view: View, action: Action, seen: &Seen<'_>, height: u16) -> bool {
        match (view, seen.detail) {
            (View::Runs, _) => self.runs.act(action, seen.runs, seen.now, height),
            (View::Log, _) => self.log.act(action, seen.log, height),
            (View::Triage, Some(detail)) => self.triage.act(action, &detail.triage, height),
            (View::Replay, Some(detail)) => self.replay.act(action, &detail.replay, height),
            (View::Labels, Some(detail)) => self.labels.act(action, &detail.labels, height),
            (View::Pins, Some(detail)) => self.pins.act(action, &detail.pins, height),
            (View::Timeline, Some(detail)) => self.timeline.act(action, &detail.timeline, height),
            (View::Evidence, Some(detail)) => self.evidence.act(action, &detail.evidence, height),
            _ => false,
        }
    }

    /// What the selected row of a pane puts into the clipboard.
    pub fn copyable(&self, view: View, seen: &Seen<'_>) -> Option<Copyable> {
        match (view, seen.detail) {
            (View::Log, _) => self.log.selected(seen.log),
            (View::Replay, Some(detail)) => self.replay.selected(&detail.replay),
            (View::Labels, Some(detail)) => self.labels.selected(&detail.labels),
            (View::Pins, Some(detail)) => self.pins.selected(&detail.pins),
            (View::Timeline, Some(detail)) => self.timeline.selected(&detail.timeline),
            (View::Evidence, Some(detail)) => self.evidence.selected(&detail.evidence),
            _ => self.runs.copyable(),
        }
    }

    /// The rows of a pane as shown, the names of its columns first.
    pub fn table(&self, view: View, seen: &Seen<'_>) -> Vec<Vec<String>> {
        match (view, seen.detail) {
            (View::Runs | View::Dashboard, _) => self.runs.table(seen.runs, seen.now),
            (View::Log, _) => self.log.table(seen.log),
            (View::Triage, Some(detail)) => self.triage.table(&detail.triage),
            (View::Replay, Some(detail)) => self.replay.table(&detail.replay),
            (View::Labels, Some(detail)) => self.labels.table(&detail.labels),
            (View::Pins, Some(detail)) => self.pins.table(&detail.pins),
            (View::Timeline, Some(detail)) => self.timeline.table(&detail.timeline),
            (View::Evidence, Some(detail)) => self.evidence.table(&detail.evidence),
            _ => Vec::new(),
        }
    }

    /// Draws a pane.
    #[expect(clippy::too_many_arguments, reason = "what, where, of what and how")]
    pub fn draw(&self, view: View, buf: &mut Buffer, area: Rect, seen: &Seen<'_>, slot: &Slot, look: &Look, focused: bool) {
        let subject = subject(seen);
        let past = seen.detail.filter(|detail| detail.moment.is_some());
        let age = seen
            .detail
            .map(|detail| seen.now.0.saturating_sub(detail.as_of.0))
            .map(|age| if age < YOUNG || past.is_some() { -1 } else { age });
        let frame = Frame { look, focused, subject: &subject, age };
        match (view, seen.detail) {
            (View::Runs, _) => self.runs.draw(buf, area, seen, look, focused),
            (View::Log, _) => self.log.draw(buf, area, seen.log, &Frame { subject: "", age: Some(-1), ..frame }),
            (View::Triage, Some(detail)) => self.triage.draw(buf, area, &detail.triage, past.map_or(seen.now, |past| past.as_of), &frame),
            (View::Replay, Some(detail)) => self.replay.draw(buf, area, &detail.replay, &frame),
            (View::Labels, Some(detail)) => self.labels.draw(buf, area, &detail.labels, &frame),
            (View::Pins, Some(detail)) => self.pins.draw(buf, area, &detail.pins, &frame),
            (View::Timeline, Some(detail)) => self.timeline.draw(buf, area, &detail.timeline, &frame),
            (View::Evidence, Some(detail)) => self.evidence.draw(buf, area, &detail.evidence, &frame),
            _ => unread(view, buf, area, slot, seen, look, focused),
        }
    }
}

/// Whose data the panes show, and as of when where that is the past.
fn subject(seen: &Seen<'_>) -> String {
    let Some(detail) = seen.detail else { return String::new() };
    let run = detail.run_key.get(..8).unwrap_or(&detail.run_key);
    match (detail.past(), seen.stale) {
        (Some(stop), _) => format!("{run} {stop}"),
        (None, Some(age)) => format!("{run} {}", stale(age)),
        (None, None) => run.to_owned(),
    }
}

/// What is said of data that may be old.
pub fn stale(age: i64) -> String {
    format!("STALE {}", if age < YOUNG { "<1m".to_owned() } else { parts::ago(age) })
}

/// A pane about a run of which nothing is known yet.
fn unread(view: View, buf: &mut Buffer, area: Rect, slot: &Slot, seen: &Seen<'_>, look: &Look, focused: bool) {
    let heading = Heading { title: view.name(), age: Some(-1), ..Heading::default() };
    let mut canvas = Canvas::framed(buf, area, &heading, look, focused);
    let (text, role) = match slot {
        Slot::Failed { why, .. } => (format!("{} UNKNOWN: {why}", look.glyphs.unknown), Role::Unknown),
        _ if seen.runs.is_empty() => ("no run is selected".to_owned(), Role::Dim),
        _ => ("reading".to_owned(), Role::Dim),
    };
    canvas.text(1, 0, canvas.width().saturating_sub(1), &text, role);
}
