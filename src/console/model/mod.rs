//! All that the console knows. One thread owns it; `update` changes it, `view` draws it.

pub mod form;
pub mod history;
pub mod inquiry;
pub mod past;
pub mod popup;
pub mod prompt;

use std::collections::BTreeMap;
use std::sync::Arc;

use self::history::History;
use self::past::Past;
use self::popup::Popup;
use super::action::{Action, Place};
use super::builds::{Ending, Sampled};
use super::data::detail::Detail;
use super::data::log::LogView;
use super::data::runs::{Runs, RunsUpdate};
use super::keys::Keymap;
use super::look::Look;
use super::msg::{Feed, Told};
use super::panes::{Panes, Seen};
use super::scrub::Stops;
use crate::ledger::{Limits, RunLine};
use crate::pipeline::gate::Refusal;
use crate::pipeline::peek::Peeked;
use crate::pipeline::run::step::Paused;
use crate::time::Instant;

/// A view: one pane, several, or what stands about one run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum View {
    /// The live panes at once, where there is room; else the one that has the keys.
    Dashboard,
    /// The run ledger.
    Runs,
    /// Replay completeness.
    Replay,
    /// Labels.
    Labels,
    /// Pins.
    Pins,
    /// A run's events.
    Timeline,
    /// Receipts and manifest.
    Evidence,
    /// The program's log.
    Log,
    /// Why a run stands where it does.
    Triage,
}

impl View {
    /// Those with a number, in its order from 1.
    pub const PANES: [View; 7] = [View::Runs, View::Replay, View::Labels, View::Pins, View::Timeline, View::Evidence, View::Log];

    /// Those of the dashboard.
    pub const LIVE: [View; 4] = [View::Runs, View::Replay, View::Labels, View::Pins];

    /// Its name, as in `--view`.
    pub fn name(self) -> &'static str {
        match self {
            View::Dashboard => "dashboard",
            View::Runs => "runs",
            View::Replay => "replay",
            View::Labels => "labels",
            View::Pins => "pins",
            View::Timeline => "timeline",
            View::Evidence => "evidence",
            View::Log => "log",
            View::Triage => "triage",
        }
    }

    /// The view of that name.
    pub fn named(name: &str) -> Option<Self> {
        let all = View::PANES.into_iter().chain([View::Dashboard, View::Triage]);
        all.into_iter().find(|view| view.name() == name)
    }

    /// The action that goes there.
    pub fn action(self) -> Action {
        match self {
            View::Dashboard => Action::Dashboard,
            View::Runs => Action::Runs,
            View::Replay => Action::Replay,
            View::Labels => Action::Labels,
            View::Pins => Action::Pins,
            View::Timeline => Action::Timeline,
            View::Evidence => Action::Evidence,
            View::Log => Action::Log,
            View::Triage => Action::Triage,
        }
    }

    /// The place whose keys hold there.
    pub fn place(self) -> Place {
        match self {
            View::Replay => Place::Replay,
            View::Labels => Place::Labels,
            View::Pins => Place::Pins,
            View::Timeline => Place::Timeline,
            View::Evidence => Place::Evidence,
            View::Log => Place::Log,
            View::Dashboard | View::Runs | View::Triage => Place::Runs,
        }
    }

    /// Whether it is about the selected run.
    pub fn of_run(self) -> bool {
        !matches!(self, View::Runs | View::Log)
    }
}

/// What is known about the selected run.
#[derive(Debug, Clone, Default)]
pub enum Slot {
    /// No run is selected, or nothing was asked yet.
    #[default]
    Empty,
    /// It was read.
    Ready(Arc<Detail>),
    /// It could not be read.
    Failed {
        /// The run.
        run_key: String,
        /// Why.
        why: String,
    },
}

impl Slot {
    /// What was read.
    pub fn detail(&self) -> Option<&Detail> {
        match self {
            Slot::Ready(detail) => Some(detail),
            Slot::Empty | Slot::Failed { .. } => None,
        }
    }
}

/// Why nothing can be changed from here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Mode {
    /// Everything that a run's state allows.
    Operate,
    /// Only looking, and why.
    ReadOnly(String),
}

/// A build of this console, as far as the screen is concerned.
#[derive(Debug, Clone, Default)]
pub struct Own {
    /// It stands at a gate and waits for an answer.
    pub paused: Option<Box<Paused>>,
    /// What was looked at there.
    pub shown: Option<Result<Peeked, Box<Refusal>>>,
    /// It has ended.
    pub ended: Option<Box<Ending>>,
    /// What it did when it was last looked at.
    pub sampled: Option<Sampled>,
}

/// What the console starts with.
#[derive(Debug, Clone)]
pub struct Start {
    /// The time.
    pub now: Instant,
    /// Columns and rows.
    pub size: (u16, u16),
    /// Theme and glyphs.
    pub look: Look,
    /// The keys.
    pub keys: Keymap,
    /// When a run counts as stuck.
    pub limits: Limits,
    /// What it may do.
    pub mode: Mode,
    /// The workspace's name.
    pub workspace: String,
    /// Whether the mouse is taken.
    pub mouse: bool,
}

/// All that the console knows.
#[derive(Debug)]
pub struct Model {
    /// The time, as far as the screen is concerned.
    pub now: Instant,
    /// Columns and rows.
    pub size: (u16, u16),
    /// Theme and glyphs.
    pub look: Look,
    /// The keys.
    pub keys: Keymap,
    /// What it may do.
    pub mode: Mode,
    /// The workspace's name.
    pub workspace: String,
    /// How the ledger can be read.
    pub feed: Feed,
    /// Since when what is shown may be old: the ledger cannot be read, or its reader is not heard of.
    pub(super) stale: Option<Instant>,
    /// All runs.
    pub runs: Runs,
    /// What is known about the selected run.
    pub slot: Slot,
    /// The run that [`Effect::Load`](super::msg::Effect::Load) was last sent for, and its newest event and sign then.
    pub(super) asked: Option<(String, u64, Instant)>,
    /// The past of the selected run, where that is looked at instead of the present.
    pub past: Option<Past>,
    /// How fast runs are played, in times of their own speed.
    pub speed: f64,
    /// Play the selected run at this speed as soon as it is read.
    pub to_play: Option<f64>,
    /// The intent that was written last, to be offered first.
    pub written: Option<String>,
    /// Builds of this console, by run.
    pub own: BTreeMap<String, Own>,
    /// The view.
    pub view: View,
    /// The pane of the dashboard that has the keys.
    pub focus: View,
    /// Views before this one.
    pub(super) trail: Vec<View>,
    /// The view that `-` goes to.
    pub(super) last: Option<View>,
    /// The way through views, runs and filters.
    pub(super) history: History,
    /// What was typed into the palette and confirmed, the latest last.
    pub(super) commands: Vec<String>,
    /// What the panes remember.
    pub panes: Panes,
    /// What lies over them.
    pub popups: Vec<Popup>,
    /// The latest word, and since when it stands.
    pub flash: Option<(Told, Instant)>,
    /// Since when the screen is held, and what came meanwhile.
    pub frozen: Option<Frozen>,
    /// The program's own log.
    pub log: LogView,
    /// Whether the mouse is taken.
    pub mouse: bool,
    /// Questions asked so far.
    pub(super) inquiries: u64,
    /// A run to select as soon as it is there.
    pub(super) wanted: Option<String>,
    /// When Ctrl-C was pressed last.
    pub(super) interrupted: Option<Instant>,
    /// The screen has to be drawn.
    pub dirty: bool,
    /// The real time, which goes on while the screen is frozen.
    pub clock: Instant,
}

/// What panes show of a run: of its past, where that was read.
pub fn seen_detail<'m>(past: Option<&'m Past>, slot: &'m Slot) -> Option<&'m Detail> {
    past.and_then(|past| past.shown.as_deref()).or_else(|| slot.detail())
}

/// A screen that is held.
#[derive(Debug, Clone)]
pub struct Frozen {
    /// Since when.
    pub since: Instant,
    /// What came meanwhile.
    pub pending: Vec<RunsUpdate>,
}

impl Model {
    /// A console that has seen nothing yet.
    pub fn new(start: Start) -> Self {
        Model {
            now: start.now,
            clock: start.now,
            size: start.size,
            look: start.look,
            keys: start.keys,
            mode: start.mode,
            workspace: start.workspace,
            feed: Feed::Live,
            stale: None,
            runs: Runs::new(start.limits),
            slot: Slot::Empty,
            asked: None,
            past: None,
            speed: 1.0,
            to_play: None,
            written: None,
            own: BTreeMap::new(),
            view: View::Dashboard,
            focus: View::Runs,
            trail: Vec::new(),
            last: None,
            history: History::default(),
            commands: Vec::new(),
            panes: Panes::default(),
            popups: Vec::new(),
            flash: None,
            frozen: None,
            log: LogView::default(),
            mouse: start.mouse,
            inquiries: 0,
            wanted: None,
            interrupted: None,
            dirty: true,
        }
    }

    /// The pane that has the keys.
    pub fn pane(&self) -> View {
        if self.view == View::Dashboard { self.focus } else { self.view }
    }

    /// The selected run.
    pub fn selected(&self) -> Option<&RunLine> {
        self.panes.runs.selected().and_then(|key| self.runs.get(key))
    }

    /// What is known about the selected run, where it was read; what was known then, where its past is looked at.
    pub fn detail(&self) -> Option<&Detail> {
        seen_detail(self.past.as_ref(), &self.slot)
    }

    /// The record of the selected run that can be travelled in, as far as it is known.
    pub(super) fn record(&self) -> Option<(String, Stops)> {
        let run_key = self.panes.runs.selected()?;
        let live = self.slot.detail().filter(|detail| detail.run_key == run_key).map(|detail| &detail.stops);
        let stops = live.or_else(|| self.past.as_ref().filter(|past| past.run_key == run_key).map(|past| &past.stops))?;
        (!stops.is_empty()).then(|| (run_key.to_owned(), stops.clone()))
    }

    /// What panes may look at.
    pub fn seen(&self) -> Seen<'_> {
        Seen { runs: &self.runs, detail: self.detail(), log: &self.log, now: self.now, stale: self.stale() }
    }

    /// How long what is shown may have been old, in micros; none where it is not, and for the past, which is
    /// what it is.
    pub fn stale(&self) -> Option<i64> {
        self.stale.map(|since| self.clock.0.saturating_sub(since.0).max(0))
    }

    /// Builds of this console that are running.
    pub fn own_builds(&self) -> usize {
        self.own.values().filter(|own| own.ended.is_none()).count()
    }

    /// The selected run, where it is a build of this console that stands at a gate.
    pub fn at_gate(&self) -> Option<(&str, &Own)> {
        let key = self.panes.runs.selected()?;
        let (key, own) = self.own.get_key_value(key)?;
        own.paused.is_some().then_some((key.as_str(), own))
    }

    /// The runs that are marked, where the list has the keys: actions are about them then.
    pub fn marked(&self) -> Vec<&RunLine> {
        let keys = self.panes.runs.marked().iter().filter(|_| self.pane() == View::Runs);
        keys.filter_map(|key| self.runs.get(key)).collect()
    }

    /// Where keys have a meaning now, the narrowest place first.
    pub fn places(&self) -> Vec<Place> {
        let step = self.at_gate().is_some() && !self.read_only();
        let here = [self.pane().place(), Place::Global];
        step.then_some(Place::Step).into_iter().chain(here).collect()
    }

    /// Whether nothing can be changed from here.
    pub fn read_only(&self) -> bool {
        matches!(self.mode, Mode::ReadOnly(_))
    }

    /// Whether there is too little room for anything but saying so.
    pub fn too_small(&self) -> bool {
        self.size.0 < 60 || self.size.1 < 16
    }

    /// Whether an action exists here: what changes something does not in read-only mode.
    pub fn offers(&self, action: Action) -> bool {
        !(self.read_only() && action.entry().writes)
    }
}
