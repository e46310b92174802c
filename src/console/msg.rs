//! What happens to the console, and what it wants done: messages in, effects out.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::builds::{BuildEvent, Sampled};
use super::data::detail::Detail;
use super::data::inquiry::{Answer as Inquired, Question};
use super::data::log::LogView;
use super::data::runs::RunsUpdate;
use super::keys::Chord;
use super::scrub::Stop;
use super::terminal::Signal;
use crate::operate::intent_new::Selectors;
use crate::pipeline::run::step::Answer;
pub use crate::text::quoted;
use crate::time::Instant;

/// Something that happened.
#[derive(Debug, Clone)]
pub enum Msg {
    /// The clock stands here now.
    Clock(Instant),
    /// A key was pressed.
    Key(Chord),
    /// Text was pasted.
    Paste(String),
    /// The mouse wheel was turned (down or up).
    Wheel {
        /// Towards the user.
        down: bool,
    },
    /// The terminal has another size.
    Resize(u16, u16),
    /// A signal came.
    Signal(Signal),
    /// The ledger changed.
    Runs(RunsUpdate),
    /// How the ledger can be read.
    Feed(Feed),
    /// What there is to know about one run.
    Detail {
        /// The run.
        run_key: String,
        /// What was found, or why nothing could be.
        found: Result<Arc<Detail>, String>,
    },
    /// What was known about a run at a moment of its past.
    Past {
        /// The run.
        run_key: String,
        /// What was found, or why nothing could be.
        found: Result<Arc<Detail>, String>,
    },
    /// Something happened to a build of this console.
    Build {
        /// The run.
        run_key: String,
        /// What.
        event: BuildEvent,
    },
    /// How far a build of this console is.
    Progress {
        /// The run.
        run_key: String,
        /// What it does.
        sampled: Sampled,
    },
    /// Nothing was heard of the ledger's reader for so long.
    Silent(Duration),
    /// A file that pins are compared with was edited.
    Authority,
    /// The intents that the workspace holds.
    Intents(Vec<IntentFile>),
    /// A new intent was written under this name, or why it was not.
    Formed(Result<String, String>),
    /// Something was heard of a question.
    Inquiry {
        /// Which.
        id: u64,
        /// What.
        heard: Heard,
    },
    /// What a data set has to choose from.
    Offered {
        /// The data set.
        manifest: String,
        /// Its first rows, or why there are none.
        rows: Result<Vec<(String, String)>, String>,
    },
    /// What came of an effect.
    Told(Told),
    /// A text to show, to be selected by hand or read.
    Text {
        /// What it is.
        title: String,
        /// Its lines.
        lines: Vec<String>,
    },
    /// The program's own log has grown.
    Log(LogView),
}

/// What is heard of a question.
#[derive(Debug, Clone, PartialEq)]
pub enum Heard {
    /// Units done and to do.
    Progress(u64, u64),
    /// Its answer.
    Answer(Box<Inquired>),
}

/// How the ledger can be read now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Feed {
    /// There is none yet.
    Absent,
    /// Changes show as they come.
    Live,
    /// The file is read as it stands and looked at again when it changes.
    Static,
    /// It cannot be read; what is on the screen is what was read last.
    Stale(String),
}

/// An intent in the workspace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IntentFile {
    /// The file.
    pub path: PathBuf,
    /// Its name in the workspace.
    pub name: String,
    /// What is in it, or what is wrong with it.
    pub about: Result<String, String>,
}

/// How something went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mood {
    /// As wished.
    Good,
    /// Worth knowing.
    Plain,
    /// Not as wished.
    Bad,
}

/// What came of something, in one line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Told {
    /// How it went.
    pub mood: Mood,
    /// In words.
    pub text: String,
}

impl Told {
    /// It went as wished.
    pub fn good(text: impl Into<String>) -> Self {
        Told { mood: Mood::Good, text: text.into() }
    }

    /// Something worth knowing.
    pub fn plain(text: impl Into<String>) -> Self {
        Told { mood: Mood::Plain, text: text.into() }
    }

    /// It did not go as wished.
    pub fn bad(text: impl Into<String>) -> Self {
        Told { mood: Mood::Bad, text: text.into() }
    }
}

/// What an operator does to a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Order {
    /// Go on with it.
    Resume,
    /// Retry its publication; with a reason the spent budget is renewed by one first.
    Retry {
        /// Why the budget is renewed, if it is.
        grant: Option<String>,
    },
    /// Call it off.
    Cancel {
        /// Why.
        reason: String,
    },
    /// Give it up.
    Fail {
        /// Why.
        reason: String,
    },
    /// Leave a note.
    Note {
        /// What it says.
        text: String,
    },
    /// Write everything about it into a file.
    Bundle {
        /// Which.
        file: PathBuf,
    },
}

impl Order {
    /// Its name, as [`crate::ledger::Standing::actions`] gives it.
    pub fn name(&self) -> &'static str {
        match self {
            Order::Resume => "resume",
            Order::Retry { .. } => "retry",
            Order::Cancel { .. } => "cancel",
            Order::Fail { .. } => "fail",
            Order::Note { .. } => "note",
            Order::Bundle { .. } => "bundle",
        }
    }

    /// The command line that does the same.
    pub fn command(&self, run_key: &str) -> String {
        match self {
            Order::Resume => format!("ofs resume {run_key}"),
            Order::Retry { grant: None } => format!("ofs retry {run_key}"),
            Order::Retry { grant: Some(reason) } => format!("ofs retry {run_key} --grant 1 --reason {}", quoted(reason)),
            Order::Cancel { reason } => format!("ofs cancel {run_key} --reason {}", quoted(reason)),
            Order::Fail { reason } => format!("ofs fail {run_key} --reason {}", quoted(reason)),
            Order::Note { text } => format!("ofs note {run_key} {}", quoted(text)),
            Order::Bundle { file } => format!("ofs bundle {run_key} -o {}", quoted(&file.display().to_string())),
        }
    }
}

/// Something to be done outside the model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// Read everything about a run, again if need be.
    Load(String),
    /// Read what was known of a run at a moment of its past.
    LoadAt {
        /// The run.
        run_key: String,
        /// The moment.
        stop: Stop,
    },
    /// Look at the ledger now.
    Refresh,
    /// Do this to a run, if its state still allows it.
    Operate {
        /// The run.
        run_key: String,
        /// What.
        order: Order,
    },
    /// Do this to each of these runs whose own state allows it.
    OperateAll {
        /// The runs.
        run_keys: Vec<String>,
        /// What.
        order: Order,
    },
    /// Look for intents in the workspace.
    FindIntents,
    /// Make an intent from what the workspace holds, and write it into a new file.
    NewIntent {
        /// The file; a relative name is taken from the workspace.
        path: PathBuf,
        /// What it is to say.
        selectors: Box<Selectors>,
    },
    /// Build from an intent file.
    Build {
        /// The intent file.
        path: PathBuf,
        /// Stop at each gate.
        step: bool,
    },
    /// Answer a question about what a run left behind.
    Inquire {
        /// Under which number its answer comes.
        id: u64,
        /// The question.
        question: Question,
    },
    /// Call such a question off.
    CallOff(u64),
    /// Look for the rows of a data set to choose from.
    Offer(String),
    /// Set a breakpoint, or take it away; `off` takes all away.
    Break(String),
    /// Answer a build that stands at a gate.
    Answer {
        /// The run.
        run_key: String,
        /// What is answered.
        answer: Answer,
    },
    /// Put a text into the clipboard.
    Copy {
        /// What it is, for the line that says so.
        what: String,
        /// The text.
        text: String,
    },
    /// Write a file that is not there yet.
    Write {
        /// What it is.
        what: String,
        /// Where.
        path: PathBuf,
        /// What goes into it.
        content: String,
    },
    /// Paint the screen anew.
    Repaint,
    /// Stop the process until it is told to go on.
    Suspend,
    /// Come back from a stop.
    Resumed,
    /// Take or release the mouse.
    Mouse(bool),
    /// Leave, with this exit code; own builds are handed back first.
    Leave(u8),
}
