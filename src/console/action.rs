//! What a person can do in the console. The table is the only place that says so: key map, hint line, help,
//! palette, deep links, `ofs keys` and demo scripts are made from it.

/// Where an action has a meaning. The narrower place wins where two bind one key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Place {
    /// Everywhere.
    Global,
    /// In the list of runs.
    Runs,
    /// In the replay pane.
    Replay,
    /// In the labels pane.
    Labels,
    /// In the pins pane.
    Pins,
    /// In the timeline.
    Timeline,
    /// In the tree of evidence.
    Evidence,
    /// In the log.
    Log,
    /// At a gate of a run in step mode.
    Step,
}

impl Place {
    /// Its name, as `ofs keys` prints it.
    pub fn name(self) -> &'static str {
        match self {
            Place::Global => "everywhere",
            Place::Runs => "runs",
            Place::Replay => "replay",
            Place::Labels => "labels",
            Place::Pins => "pins",
            Place::Timeline => "timeline",
            Place::Evidence => "evidence",
            Place::Log => "log",
            Place::Step => "step",
        }
    }
}

/// A row of the table.
#[derive(Debug, Clone, Copy)]
pub struct Entry {
    /// The action.
    pub action: Action,
    /// Its stable name, as in `[console.keys]` and the palette.
    pub name: &'static str,
    /// Keys that it is bound to unless the user says otherwise.
    pub keys: &'static [&'static str],
    /// Where.
    pub place: Place,
    /// Whether it changes a run or writes a file: gone in read-only mode.
    pub writes: bool,
    /// Whether it asks first, because it cannot be undone.
    pub dangerous: bool,
    /// Whether the hint line offers it, and in what order (0: never).
    pub hint: u8,
    /// What it does, in a few words.
    pub help: &'static str,
}

macro_rules! actions {
    ($($action:ident $name:literal [$($key:literal),*] $place:ident $kind:ident $hint:literal $help:literal;)*) => {
        /// Something a person can do.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Action { $(#[doc = $help] $action,)* }

        /// All actions, in the order of the help.
        pub const TABLE: &[Entry] = &[$(Entry {
            action: Action::$action, name: $name, keys: &[$($key),*], place: Place::$place,
            writes: !matches!(Kind::$kind, Kind::Look), dangerous: matches!(Kind::$kind, Kind::Danger), hint: $hint, help: $help,
        },)*];
    };
}

/// What an action does to the world.
enum Kind {
    /// Nothing.
    Look,
    /// Changes a run or writes a file.
    Write,
    /// The same, and cannot be undone.
    Danger,
}

actions! {
    // Moving about.
    Down "down" ["j", "down"] Global Look 0 "next row";
    Up "up" ["k", "up"] Global Look 0 "previous row";
    Left "left" ["h", "left"] Global Look 0 "left, or out";
    Right "right" ["l", "right"] Global Look 0 "right, or in";
    HalfDown "half-page-down" ["ctrl-d"] Global Look 0 "half a page down";
    HalfUp "half-page-up" ["ctrl-u"] Global Look 0 "half a page up";
    PageDown "page-down" ["pagedown", "ctrl-f"] Global Look 0 "a page down";
    PageUp "page-up" ["pageup"] Global Look 0 "a page up";
    First "first" ["g", "home"] Global Look 0 "first row";
    Last "last" ["G", "end"] Global Look 0 "last row";
    Open "open" ["enter"] Global Look 1 "open, drill in";
    Back "back" ["esc"] Global Look 9 "one step back, never out";
    NextPane "next-pane" ["tab"] Global Look 0 "next pane";
    PreviousPane "previous-pane" ["backtab"] Global Look 0 "previous pane";
    LastView "last-view" ["-"] Global Look 0 "the view before this one";
    HistoryBack "history-back" ["H"] Global Look 0 "back to the view, run and filter before";
    HistoryOn "history-on" ["L"] Global Look 0 "forward again, after going back";
    Dashboard "dashboard" ["0"] Global Look 0 "all live panes at once";
    Runs "runs" ["1"] Global Look 0 "the run ledger";
    Replay "replay" ["2"] Global Look 0 "replay completeness per partition";
    Labels "labels" ["3"] Global Look 0 "labels as of the cut-off";
    Pins "pins" ["4"] Global Look 0 "pinned versions and their drift";
    Timeline "timeline" ["5"] Global Look 0 "events of the run, scrubbed in time";
    Evidence "evidence" ["6"] Global Look 0 "receipts and manifest as a tree";
    Log "log" ["7"] Global Look 0 "the program's own log";
    Triage "triage" ["t"] Global Look 2 "why this run stands where it does";
    // Looking.
    Filter "filter" ["/"] Global Look 4 "narrow the rows";
    NextMatch "next-match" ["n"] Global Look 0 "next row that matches";
    PreviousMatch "previous-match" ["N"] Global Look 0 "previous row that matches";
    Sort "sort" ["s"] Global Look 0 "sort by the next column";
    Reverse "reverse" ["o"] Global Look 0 "turn the order round";
    Zoom "zoom" ["z"] Global Look 0 "this pane alone";
    Freeze "freeze" ["F"] Global Look 0 "hold the screen still";
    Follow "follow" ["f"] Global Look 0 "follow the newest";
    Mark "mark" ["space"] Global Look 0 "mark a row; pause what is played";
    Refresh "refresh" ["r"] Global Look 0 "read again now";
    // The past of a run.
    ScrubBack "scrub-back" ["["] Global Look 0 "one event or sample back in time";
    ScrubOn "scrub-on" ["]"] Global Look 0 "one event or sample on in time";
    ScrubEventBack "event-back" ["{"] Global Look 0 "to the event before";
    ScrubEventOn "event-on" ["}"] Global Look 0 "to the event after";
    ScrubStart "scrub-start" ["("] Global Look 0 "to the run's first event";
    ScrubNow "scrub-now" [")"] Global Look 0 "out of the past, back to now";
    Play "play" ["p"] Global Look 0 "play the run, or pause: :play SPEED";
    Faster "faster" [">"] Global Look 0 "play twice as fast";
    Slower "slower" ["<"] Global Look 0 "play half as fast";
    Recheck "recheck" ["r"] Evidence Look 1 "digest all evidence of the run again, as verify does";
    Explain "explain" ["e"] Global Look 0 "the facts behind one row of the run's data set";
    Diff "diff" ["d"] Global Look 0 "why the run's data set differs from another one";
    Report "report" ["m"] Global Look 0 "metrics, health and facts of the platform run";
    Copy "copy" ["y"] Global Look 0 "copy the selected row's id";
    CopyCommand "copy-command" ["c"] Global Look 0 "copy the action as a command line";
    CopySummary "copy-summary" ["i"] Global Look 5 "copy an incident summary";
    Export "export" [] Global Look 0 "write the rows as shown: :export json|csv|md PATH";
    Snapshot "snapshot" [] Global Look 0 "write the screen as text: :snapshot PATH";
    // Building.
    Build "build" ["b"] Global Write 3 "start a build from an intent";
    Run "run" [] Global Write 0 "build this intent: :run PATH";
    NewIntent "new-intent" [] Global Write 0 "fill in a form and write an intent";
    Break "break" [] Global Write 0 "stop builds at a gate or reason: :break PHASE|CODE";
    Continue "continue" ["C"] Step Write 1 "let the paused run pass this gate";
    RunToEnd "run-to-end" ["E"] Step Write 2 "let the paused run go to its end";
    Abort "abort" ["A"] Step Danger 3 "call the paused run off";
    // Operating.
    Resume "resume" ["R"] Global Write 0 "go on with a stuck or interrupted run";
    Retry "retry" ["P"] Global Write 0 "retry the publication alone";
    Cancel "cancel" ["X"] Global Danger 0 "call the run off before its commit";
    Fail "fail" ["K"] Global Danger 0 "give the run up before its commit";
    Note "note" ["O"] Global Write 0 "leave a note for whoever comes next";
    Bundle "bundle" ["W"] Global Write 0 "write everything about the run to a file";
    // The console itself.
    Palette "palette" [":"] Global Look 6 "all actions and runs by name";
    Help "help" ["?", "f1"] Global Look 8 "every key";
    Theme "theme" [] Global Look 0 "another theme: :theme NAME";
    Columns "columns" [] Global Look 0 "columns of the runs, in order: :columns NAME,NAME or all";
    Mouse "mouse" ["M"] Global Look 0 "take or release the mouse";
    Repaint "repaint" ["ctrl-l"] Global Look 0 "paint the screen anew";
    Suspend "suspend" ["ctrl-z"] Global Look 0 "stop the console; fg brings it back";
    Quit "quit" ["q"] Global Look 10 "close; at the top: leave";
}

impl Action {
    /// Its row of the table.
    #[expect(clippy::indexing_slicing, reason = "the enum and the table are made from one list")]
    pub fn entry(self) -> &'static Entry {
        // The enum is made from the table, in its order.
        &TABLE[self as usize]
    }

    /// The action of that name.
    pub fn named(name: &str) -> Option<Self> {
        TABLE.iter().find(|entry| entry.name == name).map(|entry| entry.action)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_the_enum_in_order_and_names_are_unique() {
        for (index, entry) in TABLE.iter().enumerate() {
            assert_eq!(entry.action as usize, index);
            assert_eq!(Action::named(entry.name), Some(entry.action), "{} is not unique", entry.name);
        }
    }

    #[test]
    fn what_writes_needs_an_upper_case_key_or_the_palette() {
        for entry in TABLE.iter().filter(|e| e.writes && e.action != Action::Build) {
            assert!(entry.keys.iter().all(|key| key.len() == 1 && key.chars().all(char::is_uppercase)), "{}", entry.name);
        }
    }
}
