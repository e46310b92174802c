//! Operator actions: what is legal now, what has to be asked first, and the command line that does the same.
//! What is legal is decided once more, in the ledger's own transaction, when the order is carried out.

use super::act::LINE;
use super::say;
use crate::console::action::Action;
use crate::console::model::Model;
use crate::console::model::popup::{Answer, Ask, AskKind, Choice, Confirm, Popup, several};
use crate::console::model::prompt::Prompt;
use crate::console::msg::{Order, Told};
use crate::console::panes::runs::word;
use crate::ledger::{MAX_TEXT, RunLine};

/// The name of an action in the ledger.
fn name(action: Action) -> &'static str {
    match action {
        Action::Resume => "resume",
        Action::Retry => "retry",
        Action::Cancel => "cancel",
        Action::Fail => "fail",
        Action::Note => "note",
        _ => "bundle",
    }
}

/// Why the selected run does not allow it.
pub(super) fn why_not(model: &Model, action: Action) -> Option<String> {
    let marked = model.marked();
    if !marked.is_empty() {
        return match (action, able(model, action)) {
            (Action::Bundle, _) => Some("a bundle is of one run; Esc clears the marks".into()),
            (_, 0) => Some(format!("none of the {} marked runs allows it; Esc clears the marks", marked.len())),
            _ => None,
        };
    }
    let Some(line) = model.selected() else { return Some("no run is selected".into()) };
    let legal = line.standing().actions(model.clock);
    let unsettled = if line.commit_started { " with an unsettled commit" } else { "" };
    (!legal.contains(&name(action))).then(|| format!("the run is {}{unsettled}; legal now: {}", word(line), legal.join(", ")))
}

/// How many of the marked runs allow it now.
fn able(model: &Model, action: Action) -> usize {
    model.marked().iter().filter(|line| line.standing().actions(model.clock).contains(&name(action))).count()
}

/// Asks once for all marked runs. Each is judged by its own state when its turn comes.
fn ask_all(model: &mut Model, action: Action) {
    let run_keys: Vec<String> = model.marked().iter().map(|line| line.run_key.clone()).collect();
    let hidden = match model.panes.runs.hidden(&model.runs) {
        0 => String::new(),
        n => format!(", {n} hidden by the filter"),
    };
    let stood = format!("{} allow it{hidden}", able(model, action));
    let kind = match action {
        Action::Cancel => AskKind::Cancel,
        Action::Fail => AskKind::Fail,
        Action::Note => AskKind::Note,
        _ => {
            let order = if action == Action::Resume { Order::Resume } else { Order::Retry { grant: None } };
            let title =
                format!("{} {} runs?", if action == Action::Resume { "Resume" } else { "Retry the publication of" }, run_keys.len());
            let lines = vec![
                several(&run_keys),
                format!("{stood}; the others are refused, each by its own state."),
                String::new(),
                order.command("KEY") + "  for each",
            ];
            return question(model, title, lines, Answer::OperateAll { run_keys, order });
        }
    };
    let run_key = run_keys.first().cloned().unwrap_or_default();
    let ask = Ask { kind, run_key, all: run_keys, stood, words: Prompt::new(MAX_TEXT), typed: None, problem: None };
    model.popups.push(Popup::Ask(ask));
}

/// A question whose answer is no unless it is said otherwise.
fn question(model: &mut Model, title: String, lines: Vec<String>, yes: Answer) {
    let choices = vec![Choice { key: 'n', label: "no", answer: Answer::No }, Choice { key: 'y', label: "yes", answer: yes }];
    model.popups.push(Popup::Confirm(Confirm { title, lines, choices, at: 0 }));
}

/// Asks what has to be asked before the order goes out.
pub(super) fn ask(model: &mut Model, action: Action) {
    if !model.marked().is_empty() {
        return ask_all(model, action);
    }
    let Some(line) = model.selected().cloned() else { return };
    let spent = model.runs.stuck(&line, model.now) == Some("RETRY_EXHAUSTED");
    match action {
        Action::Resume => confirm(
            model,
            &line,
            "Resume the run?",
            "It goes on here, in the background, from its first gate without a proof.",
            Order::Resume,
        ),
        Action::Retry if spent => words(model, &line, AskKind::Grant),
        Action::Retry => confirm(
            model,
            &line,
            "Retry the publication?",
            "Only the publication, with the draft that is there.",
            Order::Retry { grant: None },
        ),
        Action::Cancel => words(model, &line, AskKind::Cancel),
        Action::Fail => words(model, &line, AskKind::Fail),
        Action::Note => words(model, &line, AskKind::Note),
        Action::Bundle => words(model, &line, AskKind::Bundle),
        _ => say(model, Told::bad("that is no operator action")),
    }
}

fn confirm(model: &mut Model, line: &RunLine, title: &str, what: &str, order: Order) {
    let lines = vec![
        format!("run {} {} ({})", short(&line.run_key), line.request_id.as_deref().unwrap_or("-"), word(line)),
        what.into(),
        String::new(),
        order.command(&line.run_key),
    ];
    question(model, title.into(), lines, Answer::Operate { run_key: line.run_key.clone(), order });
}

fn words(model: &mut Model, line: &RunLine, kind: AskKind) {
    let words = match kind {
        AskKind::Bundle => Prompt::with(&format!("ofs-{}.bundle.json", short(&line.run_key)), LINE),
        _ => Prompt::new(MAX_TEXT),
    };
    let stood = format!("{} {}", word(line), line.reason_code.as_deref().unwrap_or_default());
    model.popups.push(Popup::Ask(Ask { kind, run_key: line.run_key.clone(), all: Vec::new(), stood, words, typed: None, problem: None }));
}

/// The command line of what helps the selected run most.
pub(super) fn command(model: &Model) -> Option<String> {
    let line = model.selected()?;
    let key = &line.run_key;
    let legal = line.standing().actions(model.clock);
    let spent = model.runs.stuck(line, model.now) == Some("RETRY_EXHAUSTED");
    Some(match legal.first() {
        Some(&"retry") if spent => format!("ofs retry {key} --grant 1 --reason TEXT"),
        Some(&"resume") => Order::Resume.command(key),
        Some(&"retry") => Order::Retry { grant: None }.command(key),
        Some(&"cancel") => format!("ofs cancel {key} --reason TEXT"),
        _ => format!("ofs show {key}"),
    })
}

/// The beginning of a run key, as the list shows it.
fn short(run_key: &str) -> &str {
    run_key.get(..8).unwrap_or(run_key)
}
