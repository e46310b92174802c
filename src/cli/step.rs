//! `ofs run --step`: the step mode of the pipeline, asked and answered line by line.

use std::io::{BufRead, Write};

use crossbeam_channel::{Sender, unbounded};

use super::Failure;
use crate::pipeline::peek::{Look, Peeked, Question};
use crate::pipeline::run::step::{Answer, Breakpoints, Paused, Stepper, Told, Why};
use crate::text::{grouped, safe};

/// Rows that an answer shows.
const ROWS: usize = 10;

const HELP: &str = "   Enter: go on   e: run to the end   a: abort   l [WHAT] [TEXT]: look";

/// A gatekeeper that tells on stderr and takes its answers from stdin.
pub(super) fn keeper() -> Result<Stepper, Failure> {
    let (answers, taken) = unbounded();
    // Reading a line cannot be called off, so it has a thread of its own: a signal or the end of the pause
    // is obeyed while nobody types.
    std::thread::Builder::new().name("answers".into()).spawn(move || read(&answers))?;
    Ok(Stepper::new(true, Breakpoints::default(), taken, Box::new(tell)))
}

/// Sends what is typed; the end of the input lets go of the channel, which hands the run back.
fn read(answers: &Sender<Answer>) {
    for line in std::io::stdin().lock().lines() {
        let Ok(line) = line else { return };
        match parse(&line) {
            Ok(answer) => {
                if answers.send(answer).is_err() {
                    return;
                }
            }
            Err(problem) => say(&[problem, HELP.to_owned()]),
        }
    }
}

fn parse(line: &str) -> Result<Answer, String> {
    let mut words = line.split_whitespace();
    match words.next() {
        None | Some("c") => Ok(Answer::Continue),
        Some("e") => Ok(Answer::RunToEnd),
        Some("a" | "q") => Ok(Answer::Abort),
        Some("l") => {
            let names = || Look::ALL.map(Look::name).join(", ");
            let word = words.next().unwrap_or_default();
            let look = Look::named(word).ok_or_else(|| format!("   look at what? one of {}", names()))?;
            let find = words.collect::<Vec<_>>().join(" ");
            if look == Look::Window && find.is_empty() {
                return Err("   whose window? l window EVENT_ID".into());
            }
            Ok(Answer::Look(Question { look, find, limit: ROWS }))
        }
        Some(other) => Err(format!("   {} means nothing here", safe(other))),
    }
}

fn say(lines: &[String]) {
    let mut err = std::io::stderr().lock();
    for line in lines {
        let _ = writeln!(err, "\r\u{1b}[K{line}");
    }
    let _ = err.flush();
}

fn tell(told: Told) {
    match told {
        // The pause that follows says it.
        Told::Passed(_) | Told::Unpaused => {}
        Told::Paused(paused) => say(&question(&paused)),
        Told::Shown(Ok(peeked)) => say(&table(&peeked)),
        Told::Shown(Err(refusal)) => say(&[format!("   cannot be shown: {}", safe(&refusal.message)), HELP.to_owned()]),
    }
}

fn question(paused: &Paused) -> Vec<String> {
    let gate = &paused.gate;
    let ending = if matches!(paused.why, Why::Refused(_)) { "REFUSED" } else { "PASSED" };
    let mut lines = vec![format!("{:>2} {:<12} {ending}", gate.phase.number(), gate.phase.as_str())];
    lines.extend(gate.facts.iter().map(|(what, value)| format!("     {what}: {}", safe(value))));
    if let Why::Refused(refusal) = &paused.why {
        lines.extend(refusal.evidence.iter().map(|line| format!("       - {}", safe(line))));
    } else {
        lines.push(format!("     evidence: {}", safe(&gate.evidence)));
    }
    let looks: Vec<&str> = paused.looks.iter().map(|l| l.name()).collect();
    lines.push(format!("     to look at: {}", looks.join(", ")));
    lines.push(format!("   PAUSED; handed back at {} unless answered", paused.until));
    lines.push(HELP.to_owned());
    lines
}

/// A table with one block a row: cells are too wide to stand beside each other.
fn table(peeked: &Peeked) -> Vec<String> {
    let mut lines = Vec::new();
    for row in &peeked.rows {
        let cells = peeked.columns.iter().zip(row).map(|(name, cell)| format!("{} {}", safe(name), safe(cell)));
        lines.push(format!("   | {}", cells.collect::<Vec<_>>().join(" | ")));
    }
    let whole = if peeked.whole { "" } else { ", not all there is" };
    lines.push(format!("   {} of {} that fit, {} read{whole}", peeked.rows.len(), grouped(peeked.matched), grouped(peeked.scanned)));
    lines.extend(peeked.note.iter().map(|note| format!("   {}", safe(note))));
    lines.push(HELP.to_owned());
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_answers() {
        assert_eq!(parse(""), Ok(Answer::Continue));
        assert_eq!(parse(" e "), Ok(Answer::RunToEnd));
        assert_eq!(parse("a"), Ok(Answer::Abort));
        let look = Question { look: Look::Events, find: "0/17".into(), limit: ROWS };
        assert_eq!(parse("l events 0/17"), Ok(Answer::Look(look)));
        assert!(parse("l everything").unwrap_err().contains("events"));
        assert!(parse("l window").unwrap_err().contains("EVENT_ID"));
        assert!(parse("x\u{1b}[2J").unwrap_err().contains("\\u{1b}"));
    }

    #[test]
    fn a_table_is_safe_and_says_what_it_left_out() {
        let question = Question { look: Look::Rows, find: String::new(), limit: 1 };
        let peeked = Peeked {
            question,
            columns: vec!["key".into()],
            rows: vec![vec!["\u{1b}]52;c;x\u{7}".into()]],
            scanned: 1_000,
            matched: 500,
            whole: false,
            note: Some("n".into()),
        };
        let text = table(&peeked).join("\n");
        assert!(!text.contains('\u{1b}') && text.contains("1 of 500 that fit, 1,000 read, not all there is\n   n"), "{text}");
    }
}
