//! Why a run stands where it does, the reason first: the gate that refused, the evidence that matters, what
//! would clear it, and the legal actions with their equivalent commands.

use std::fmt::Write;

use serde_json::Value;

use super::Source;
use crate::console::scrub::Stop;
use crate::contract::ReasonCode;
use crate::ledger::{EventRow, RunRow, Status};
use crate::observe::gates::{Gate, gates};
use crate::text::{clip, safe};
use crate::time::{Instant, span};

/// Most things that people did that are listed, the newest.
const MAX_DEEDS: usize = 50;
/// Longest line of a summary, in characters.
const MAX_LINE: usize = 400;

/// Why a run ended, or waits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reason {
    /// The code, never paraphrased.
    pub code: String,
    /// The gate.
    pub phase: String,
    /// What was found, in a sentence.
    pub message: String,
    /// The lines that matter, most telling first.
    pub evidence: Vec<String>,
    /// What would clear it.
    pub remedy: String,
    /// What the code means in general; empty where this program does not know it.
    pub meaning: String,
    /// Whether a new attempt of the same request can help; none where the code is not known.
    pub retry: Option<bool>,
}

/// Something that may lawfully be done now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Legal {
    /// Its name, as in the ledger.
    pub name: &'static str,
    /// The command that does the same.
    pub command: String,
    /// What it does.
    pub help: &'static str,
    /// Whether it cannot be undone.
    pub dangerous: bool,
}

/// Something that somebody did to the run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Deed {
    /// When.
    pub at: Instant,
    /// Who.
    pub actor: String,
    /// What.
    pub action: String,
    /// Its particulars in one line.
    pub detail: String,
}

/// Where a run stands and why.
#[derive(Debug, Clone, PartialEq)]
pub struct Triage {
    /// Its key.
    pub run_key: String,
    /// The request it serves.
    pub request_id: String,
    /// Its status.
    pub status: Status,
    /// The gate it entered last.
    pub phase: String,
    /// Attempts so far.
    pub attempts: u32,
    /// When its latest event happened.
    pub updated: Instant,
    /// Who holds its lease, and until when.
    pub owner: Option<String>,
    /// Why it stands where it does.
    pub reason: Option<Reason>,
    /// End class of a run that ended badly.
    pub end_class: String,
    /// Why it does not move.
    pub stuck: Option<&'static str>,
    /// Since when it waits at a gate for a person.
    pub paused_since: Option<Instant>,
    /// An end that was asked for and is not yet obeyed.
    pub asked: Option<String>,
    /// Its manifest, once read back.
    pub manifest: Option<String>,
    /// How each gate stands.
    pub gates: Vec<Gate>,
    /// What may be done now.
    pub actions: Vec<Legal>,
    /// What was done by people and programs in their name, oldest first.
    pub deeds: Vec<Deed>,
    /// What could not be read, and so is UNKNOWN.
    pub unknown: Vec<String>,
    /// The moment of the past that this is of; none for the present.
    pub past: Option<Stop>,
}

impl Triage {
    /// Reads it.
    pub fn load(source: &Source, row: &RunRow, events: &[EventRow]) -> Self {
        let mut unknown = Vec::new();
        let launcher = source.config.launcher();
        let micros = |seconds: u64| i64::try_from(seconds.saturating_mul(1_000_000)).unwrap_or(i64::MAX);
        let workers = source.ledger.workers_alive(micros(launcher.lease_seconds)).unwrap_or_else(|e| {
            unknown.push(format!("which workers are alive: {e}"));
            0
        });
        let (stall, pause) = (micros(launcher.stall_seconds), micros(launcher.max_pause_seconds));
        let stuck = row.stuck_reason(source.clock.now(), stall, pause, workers > 0, launcher.max_publish_retry_attempts);
        let deeds = source.ledger.audit_rows(Some(&row.run_key)).unwrap_or_else(|e| {
            unknown.push(format!("what was done to it: {e}"));
            Vec::new()
        });
        if let Err(why) = &source.store {
            unknown.push(format!("its evidence: {why}"));
        }
        let deeds = deeds.into_iter().map(|a| Deed { at: a.at, actor: a.actor, action: a.action, detail: a.detail.to_string() });
        let mut deeds: Vec<Deed> = deeds.collect();
        deeds.drain(..deeds.len().saturating_sub(MAX_DEEDS));
        Triage {
            run_key: row.run_key.clone(),
            request_id: row.request_id.clone().unwrap_or_else(|| "-".into()),
            status: row.status,
            phase: row.phase.clone().unwrap_or_else(|| "-".into()),
            attempts: row.attempt(),
            updated: row.updated,
            owner: row.owner.as_ref().map(|o| match row.lease_expires {
                Some(until) => format!("{o}, lease until {until}"),
                None => o.to_string(),
            }),
            reason: row.reason.as_ref().map(|document| reason(row, document)),
            end_class: row.end_class.clone().unwrap_or_default(),
            stuck,
            paused_since: row.paused_since,
            asked: row.operator_request.as_ref().map(ToString::to_string),
            manifest: row.manifest_ref.clone(),
            gates: gates(events, row),
            actions: row.actions().into_iter().map(|name| legal(name, &row.run_key, stuck)).collect(),
            deeds,
            unknown,
            past: None,
        }
    }

    /// What the reader should know first, in one line.
    pub fn headline(&self) -> String {
        let stands = match (&self.reason, self.stuck) {
            (_, Some(stuck)) => format!("{} and stuck: {stuck}", self.status),
            (Some(reason), _) => format!("{} {} at the {} gate", self.status, reason.code, reason.phase),
            (None, _) => self.status.to_string(),
        };
        self.past.map_or(stands.clone(), |stop| format!("{stop}: {stands}"))
    }

    /// The incident as Markdown, for a ticket or a chat: reason, evidence, what to do, what was done.
    pub fn summary(&self, now: Instant) -> String {
        let mut out = String::new();
        let _ = writeln!(out, "## {} {}\n", code(&self.run_key), plain(&self.headline()));
        let age = span(now.0.saturating_sub(self.updated.0));
        let _ = writeln!(out, "- request {}, attempt {}, last event {age} ago ({})", code(&self.request_id), self.attempts, self.updated);
        if let Some(owner) = &self.owner {
            let _ = writeln!(out, "- owner {}", code(owner));
        }
        if let Some(reason) = &self.reason {
            let _ = writeln!(out, "- {}: {}", code(&reason.code), plain(&reason.message));
            let _ = writeln!(out, "- clears: {}", plain(&reason.remedy));
            let _ = writeln!(out, "\n### Evidence\n");
            for line in &reason.evidence {
                let _ = writeln!(out, "- {}", plain(line));
            }
        }
        for gate in &self.gates {
            let evidence = gate.evidence.as_deref().map(|at| format!(" {}", code(at))).unwrap_or_default();
            let _ = writeln!(out, "- gate {}: {}{evidence}", gate.phase.as_str(), gate.standing.as_str());
        }
        let _ = writeln!(out, "\n### What may be done\n");
        for action in &self.actions {
            let _ = writeln!(out, "- {}: {}", code(&action.command), action.help);
        }
        let _ = writeln!(out, "\n### What was done\n");
        if self.deeds.is_empty() {
            let _ = writeln!(out, "- nothing");
        }
        for deed in &self.deeds {
            let _ = writeln!(out, "- {} {} {} {}", deed.at, plain(&deed.actor), plain(&deed.action), code(&deed.detail));
        }
        for unknown in &self.unknown {
            let _ = writeln!(out, "- UNKNOWN {}", plain(unknown));
        }
        out
    }
}

/// Text from outside inside Markdown: escaped, clipped, and without what would make it more than text.
fn plain(text: &str) -> String {
    let mut out = String::new();
    for c in safe(&clip(text, MAX_LINE)).chars() {
        if "`*_[]<>|#".contains(c) {
            out.push('\\');
        }
        out.push(c);
    }
    out
}

/// The same as a code span.
fn code(text: &str) -> String {
    format!("`{}`", safe(&clip(text, MAX_LINE)).replace('`', "'"))
}

fn reason(row: &RunRow, document: &Value) -> Reason {
    let words = |key: &str| document.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
    let name = row.reason_code.clone().unwrap_or_else(|| words("code"));
    let info = ReasonCode::parse(&name).map(ReasonCode::info);
    let lines = document.get("evidence").and_then(Value::as_array).into_iter().flatten();
    Reason {
        phase: words("phase"),
        message: words("message"),
        evidence: lines.filter_map(Value::as_str).take(100).map(str::to_owned).collect(),
        remedy: words("remedy"),
        meaning: info.map(|i| i.meaning.to_owned()).unwrap_or_default(),
        retry: info.map(|i| i.retry),
        code: name,
    }
}

fn legal(name: &'static str, key: &str, stuck: Option<&str>) -> Legal {
    let (command, help, dangerous) = match name {
        "resume" => (format!("ofs resume {key}"), "go on from the gates it has passed", false),
        "retry" if stuck == Some("RETRY_EXHAUSTED") => {
            (format!("ofs retry {key} --grant 1 --reason TEXT"), "renew the budget, then retry the publication alone", false)
        }
        "retry" => (format!("ofs retry {key}"), "retry the publication alone", false),
        "cancel" => (format!("ofs cancel {key} --reason TEXT"), "call it off before its commit", true),
        "fail" => (format!("ofs fail {key} --reason TEXT"), "give it up before its commit", true),
        "note" => (format!("ofs note {key} TEXT"), "leave a note for whoever comes next", false),
        _ => (format!("ofs bundle {key} -o FILE"), "write everything about it to a file", false),
    };
    Legal { name, command, help, dangerous }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::console::data::testing::World;

    fn triage(world: &World) -> Triage {
        let (source, row, events) = world.newest();
        Triage::load(&source, &row, &events)
    }

    #[test]
    fn the_reason_comes_first_with_evidence_remedy_and_commands() {
        let triage = triage(&World::play("archive-gap"));
        assert_eq!(triage.headline(), "FAILED REPLAY_INCOMPLETE at the replay gate");
        let reason = triage.reason.clone().unwrap();
        assert_eq!((reason.retry, reason.evidence.len(), reason.meaning.is_empty()), (Some(true), 1, false));
        let commands: Vec<&str> = triage.actions.iter().map(|a| a.command.as_str()).collect();
        assert_eq!(commands[0], format!("ofs resume {}", triage.run_key));
        assert!(triage.actions.iter().all(|a| !a.dangerous || ["cancel", "fail"].contains(&a.name)));
        let summary = triage.summary(triage.updated);
        for told in ["REPLAY_INCOMPLETE", "below the bus's retention", "### What was done", &triage.run_key, "ofs resume"] {
            assert!(summary.contains(told), "{told} is not in\n{summary}");
        }
    }

    fn standings(world: &World) -> Vec<&'static str> {
        triage(world).gates.iter().map(|g| g.standing.as_str()).collect()
    }

    #[test]
    fn the_gate_that_refused_is_named_and_those_after_it_were_not_reached() {
        assert_eq!(standings(&World::play("archive-gap")), ["PASSED", "REFUSED", "NOT_REACHED", "NOT_REACHED", "NOT_REACHED"]);
        // A publish-only attempt takes nothing from the gates that were passed before it.
        assert_eq!(standings(&World::play("commit-refused")), ["PASSED"; 5]);
    }

    #[test]
    fn a_pending_publication_offers_its_retry() {
        let triage = triage(&World::play_until("commit-refused", 1));
        assert_eq!(triage.status, Status::PublishPending);
        assert_eq!(triage.actions.first().map(|a| a.name), Some("retry"));
    }

    #[test]
    fn hostile_text_cannot_leave_its_line_in_a_summary() {
        let mut triage = triage(&World::play("archive-gap"));
        triage.request_id = "`x`\u{1b}[31m\n# owned".into();
        triage.reason.as_mut().unwrap().message = "\u{202e}[click](http://x) \n## more".into();
        let summary = triage.summary(triage.updated);
        assert!(
            !summary.contains('\u{1b}')
                && !summary.contains('\u{202e}')
                && !summary.contains("\n# owned")
                && !summary.contains("\n## more")
        );
        assert!(summary.contains("\\[click\\]"));
    }
}
