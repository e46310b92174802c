//! What lies over the panes: one at a time, the latest on top.

use super::form::Form;
use super::inquiry::{Choose, Inquiry};
use super::prompt::Prompt;
use crate::console::action::Action;
use crate::console::filter::Filter;
use crate::console::msg::{IntentFile, Order};

/// Something over the panes.
#[derive(Debug, Clone)]
pub enum Popup {
    /// Every key.
    Help {
        /// First line in sight.
        top: usize,
    },
    /// Actions, views and runs by name.
    Palette(Palette),
    /// A filter being typed.
    Filter {
        /// The line.
        prompt: Prompt,
        /// What was there before.
        before: Filter,
        /// What is wrong with it.
        problem: Option<String>,
    },
    /// A question whose answer is no unless it is said otherwise.
    Confirm(Confirm),
    /// An order that needs words, and maybe the run key typed.
    Ask(Ask),
    /// A text to read, or to select by hand.
    Text {
        /// What it is.
        title: String,
        /// Its lines.
        lines: Vec<String>,
        /// First line in sight.
        top: usize,
    },
    /// Intents to build from.
    Picker(Picker),
    /// A form for a new intent.
    Form(Form),
    /// A gate at which a build waits.
    Gate(Gate),
    /// A question about what a run left behind, and its answer.
    Inquiry(Inquiry),
    /// Something to choose before a question can be asked.
    Choose(Choose),
}

/// The palette.
#[derive(Debug, Clone)]
pub struct Palette {
    /// The line.
    pub prompt: Prompt,
    /// What fits it, best first.
    pub hits: Vec<Hit>,
    /// The selected one.
    pub at: usize,
    /// The earlier command that was taken up, counted from the oldest.
    pub recall: Option<usize>,
}

/// Something that the palette found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hit {
    /// What choosing it does.
    pub target: Target,
    /// Its name.
    pub name: String,
    /// What it does, or why it cannot be done now.
    pub about: String,
    /// Its key.
    pub key: String,
    /// Whether it can be chosen.
    pub enabled: bool,
}

/// What choosing a hit does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// Does this.
    Act(Action),
    /// Goes to that run.
    Run(String),
}

/// A question.
#[derive(Debug, Clone)]
pub struct Confirm {
    /// What it is about.
    pub title: String,
    /// What would happen.
    pub lines: Vec<String>,
    /// The choices: a key, what it does, and what follows. The first is the safe one, the default.
    pub choices: Vec<Choice>,
    /// The selected choice.
    pub at: usize,
}

/// An answer.
#[derive(Debug, Clone)]
pub struct Choice {
    /// Its key.
    pub key: char,
    /// What it says.
    pub label: &'static str,
    /// What follows.
    pub answer: Answer,
}

/// What follows from an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// Nothing.
    No,
    /// The order goes out.
    Operate {
        /// The run.
        run_key: String,
        /// What.
        order: Order,
    },
    /// The order goes out to each of these runs.
    OperateAll {
        /// The runs.
        run_keys: Vec<String>,
        /// What.
        order: Order,
    },
    /// A build starts.
    Build {
        /// The intent file.
        path: std::path::PathBuf,
        /// Stop at each gate.
        step: bool,
    },
    /// A build that waits at a gate is called off.
    Abort(String),
    /// The console is left; own builds are handed back.
    Leave,
}

/// Which words an order needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AskKind {
    /// A reason to call the run off, and its key.
    Cancel,
    /// A reason to give the run up, and its key.
    Fail,
    /// A note.
    Note,
    /// A reason to renew a spent retry budget.
    Grant,
    /// The file of a bundle.
    Bundle,
}

impl AskKind {
    /// What it asks for.
    pub fn question(self) -> &'static str {
        match self {
            AskKind::Cancel => "Why is the run called off?",
            AskKind::Fail => "Why is the run given up?",
            AskKind::Note => "What should the next one on duty know?",
            AskKind::Grant => "The retry budget is spent. Why should it be renewed by one?",
            AskKind::Bundle => "Which new file?",
        }
    }

    /// Whether it cannot be undone, so that the run key has to be typed.
    pub fn irreversible(self) -> bool {
        matches!(self, AskKind::Cancel | AskKind::Fail)
    }

    /// The order with its words.
    pub fn order(self, words: &str) -> Order {
        let words = words.trim().to_owned();
        match self {
            AskKind::Cancel => Order::Cancel { reason: words },
            AskKind::Fail => Order::Fail { reason: words },
            AskKind::Note => Order::Note { text: words },
            AskKind::Grant => Order::Retry { grant: Some(words) },
            AskKind::Bundle => Order::Bundle { file: words.into() },
        }
    }
}

/// How much of a run key has to be typed.
pub const TYPED: usize = 8;

/// An order being put into words.
#[derive(Debug, Clone)]
pub struct Ask {
    /// Which.
    pub kind: AskKind,
    /// The run; of several, the first.
    pub run_key: String,
    /// All of them, where the order is for several.
    pub all: Vec<String>,
    /// How it stood when the question was asked.
    pub stood: String,
    /// The words.
    pub words: Prompt,
    /// The beginning of the run key, once the words are there.
    pub typed: Option<Prompt>,
    /// What is wrong so far.
    pub problem: Option<String>,
}

impl Ask {
    /// What has to be typed: the beginning of the run key; for several runs the order and their number, which
    /// nobody types without having read it.
    pub fn expected(&self) -> String {
        match self.all.len() {
            0 => self.run_key.get(..TYPED).unwrap_or(&self.run_key).to_owned(),
            n => format!("{} {n}", self.kind.order("").name()),
        }
    }

    /// Whom it is for.
    pub fn whom(&self) -> String {
        if self.all.is_empty() { format!("run {}", self.run_key) } else { several(&self.all) }
    }
}

/// Several runs in a line: how many, and the first keys.
pub fn several(run_keys: &[String]) -> String {
    const FIRST: usize = 4;
    let first: Vec<&str> = run_keys.iter().take(FIRST).map(|key| key.get(..TYPED).unwrap_or(key)).collect();
    let more = run_keys.len().saturating_sub(FIRST);
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    format!("{} marked runs: {}{more}", run_keys.len(), first.join(" "))
}

/// Intents to choose from.
#[derive(Debug, Clone, Default)]
pub struct Picker {
    /// What the workspace holds; none while it is being looked for.
    pub intents: Option<Vec<IntentFile>>,
    /// The selected one.
    pub at: usize,
    /// Whether the build stops at each gate.
    pub step: bool,
}

/// A gate at which a build waits for an answer.
#[derive(Debug, Clone, Default)]
pub struct Gate {
    /// The run.
    pub run_key: String,
    /// Which of the things that can be looked at is chosen.
    pub look: usize,
    /// What is looked for in it.
    pub find: Prompt,
    /// Whether that is being typed.
    pub typing: bool,
    /// The selected row of what was looked at.
    pub row: usize,
    /// The first column in sight.
    pub left: usize,
    /// The selected row is shown whole, from this line on.
    pub open: Option<usize>,
}
