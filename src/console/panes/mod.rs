//! One file a pane: what it remembers between frames, which actions it obeys, and how it draws a view model.
//!
//! `draw` is pure, draws at every size, builds no more rows than it shows, escapes every text from outside,
//! and says each state in a word and a glyph besides its style.

pub mod parts;
pub mod runs;
#[cfg(test)]
pub mod testing;
pub mod triage;

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;

use self::parts::{Canvas, Copyable, Heading};
use self::runs::RunsPane;
use self::triage::TriagePane;
use super::action::Action;
use super::data::detail::Detail;
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
    /// Why the selected run stands where it does.
    pub triage: TriagePane,
}

static NONE: std::sync::LazyLock<Filter> = std::sync::LazyLock::new(Filter::default);

impl Panes {
    /// The filter of a pane.
    pub fn filter(&self, view: View) -> &Filter {
        match view {
            View::Runs => self.runs.filter(),
            _ => &NONE,
        }
    }

    /// Narrows the rows of a pane.
    pub fn set_filter(&mut self, view: View, filter: Filter, runs: &Runs, detail: Option<&Detail>, now: Instant, height: u16) {
        let _ = detail;
        if view == View::Runs {
            self.runs.set_filter(filter, runs, now, height);
        }
    }

    /// Lets a pane obey. Says whether the action has a meaning there.
    #[expect(clippy::too_many_arguments, reason = "what a pane may look at, and nothing more")]
    pub fn act(
        &mut self,
        view: View,
        action: Action,
        runs: &Runs,
        detail: Option<&Detail>,
        log: &[String],
        now: Instant,
        height: u16,
    ) -> bool {
        let _ = log;
        match view {
            View::Runs => self.runs.act(action, runs, now, height),
            View::Triage => detail.is_some_and(|detail| self.triage.act(action, &detail.triage, height)),
            _ => false,
        }
    }

    /// What the selected row of a pane puts into the clipboard.
    pub fn copyable(&self, view: View, runs: &Runs, detail: Option<&Detail>) -> Option<Copyable> {
        let _ = runs;
        match view {
            View::Triage => detail.and_then(|detail| self.triage.copyable(&detail.triage)),
            _ => self.runs.copyable(),
        }
    }

    /// The rows of a pane as shown, the names of its columns first.
    pub fn table(&self, view: View, runs: &Runs, detail: Option<&Detail>, log: &[String], now: Instant) -> Vec<Vec<String>> {
        let _ = log;
        match (view, detail) {
            (View::Triage, Some(detail)) => self.triage.table(&detail.triage),
            _ => self.runs.table(runs, now),
        }
    }

    /// Draws a pane that shows something about one run.
    pub fn draw(&self, view: View, buf: &mut Buffer, area: Rect, slot: &Slot, look: &Look, focused: bool) {
        let heading = Heading { title: view.name(), ..Heading::default() };
        let mut canvas = Canvas::framed(buf, area, &heading, look, focused);
        let text = match slot {
            Slot::Empty => "no run is selected".to_owned(),
            Slot::Failed { why, .. } => format!("UNKNOWN: {why}"),
            Slot::Ready(detail) => detail.run_key.clone(),
        };
        canvas.text(1, 0, canvas.width(), &text, Role::Dim);
    }
}
