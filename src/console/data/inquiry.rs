//! Questions about what a run left behind: whether it still is what it was, where a row comes from, why two data
//! sets differ, how the platform run fares. They are asked of the same functions as on the command line, and
//! answered with the same lines. Answering takes as long as it takes: never on the thread of the screen.

use super::Source;
use super::detail::MAX_EVENTS;
use super::document::{Gap, receipt};
use super::evidence::{Check, Document, EvidenceTree, recheck};
use crate::answer::{Line, Tone};
use crate::observe;
use crate::pipeline::Phase;
use crate::pipeline::gate::{Env, Refusal};
use crate::prove::verify::{Kind, Problem, Report};
use crate::prove::{diff, explain, find_manifest, first_rows, verify};
use crate::store::Ref;
use crate::text::quoted;

/// Most lines of an answer; the command line has no such limit.
const MAX_LINES: usize = 5_000;
/// Rows of each kind that a comparison tells in detail.
const ROWS: usize = 200;
/// Rows of a data set that are offered to choose from.
pub const OFFERED: usize = 500;

/// A question.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Question {
    /// Whether everything that a run left is what it was; of a published data set all that `ofs verify` asks.
    Recheck {
        /// The run.
        run_key: String,
        /// Its data set, where it has one.
        manifest: Option<String>,
    },
    /// Where one row comes from.
    Explain {
        /// The data set.
        manifest: String,
        /// The event.
        event_id: String,
    },
    /// Why two data sets differ.
    Diff {
        /// What it is compared with.
        left: String,
        /// The data set.
        right: String,
    },
    /// In what the pins of two runs differ, published or not.
    Pins {
        /// The run that it is compared with.
        left: String,
        /// The run.
        right: String,
    },
    /// How the platform run of a run fares; of all of them where none is named.
    Report {
        /// The run.
        run_key: Option<String>,
    },
}

impl Question {
    /// What it asks, in a few words.
    pub fn title(&self) -> String {
        match self {
            Question::Recheck { run_key, .. } => format!("Recheck of run {}", head(run_key, 8)),
            Question::Explain { manifest, event_id } => format!("Row {event_id} of {}", head(manifest, 11)),
            Question::Diff { left, right } => format!("From - {} to + {}", head(left, 11), head(right, 11)),
            Question::Pins { left, right } => format!("Pins from - {} to + {}", head(left, 8), head(right, 8)),
            Question::Report { .. } => "Report".into(),
        }
    }

    /// The command line that asks the same.
    pub fn command(&self) -> String {
        match self {
            Question::Recheck { manifest: Some(manifest), .. } => format!("ofs verify {}", quoted(manifest)),
            Question::Recheck { run_key, manifest: None } => format!("ofs show {run_key}"),
            Question::Explain { manifest, event_id } => format!("ofs explain {} {}", quoted(manifest), quoted(event_id)),
            Question::Diff { left, right } => format!("ofs diff {} {}", quoted(left), quoted(right)),
            Question::Pins { right, .. } => format!("ofs show {right}"),
            Question::Report { .. } => "ofs report --look".into(),
        }
    }

    /// The data set of that place in the question, where it has one.
    pub fn manifest(&self, of: usize) -> Option<&str> {
        match self {
            Question::Recheck { manifest, .. } => manifest.as_deref(),
            Question::Explain { manifest, .. } => Some(manifest),
            Question::Diff { left, right } => Some(if of == 0 { left } else { right }),
            Question::Pins { .. } | Question::Report { .. } => None,
        }
    }
}

fn head(text: &str, chars: usize) -> String {
    text.chars().take(chars).collect()
}

/// An answer.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Answer {
    /// In lines.
    pub lines: Vec<Line>,
    /// The evidence as it was found, where it was rechecked.
    pub evidence: Option<Box<EvidenceTree>>,
}

impl Answer {
    fn of(lines: Vec<Line>) -> Self {
        Answer { lines, evidence: None }
    }

    /// That there is none, and why. What cannot be known never looks good.
    pub fn unknown(why: impl std::fmt::Display) -> Self {
        Answer::of(vec![Line::new(Tone::Unknown, format!("UNKNOWN  {why}"))])
    }

    fn refused(refusal: &Refusal) -> Self {
        let mut answer = Answer::unknown(format_args!("{}: {}", refusal.code, refusal.message));
        answer.lines.push(Line::new(Tone::Dim, format!("  {}", refusal.code.info().remedy)));
        answer
    }

    fn bounded(mut self, question: &Question) -> Self {
        let more = self.lines.len().saturating_sub(MAX_LINES);
        if more > 0 {
            self.lines.truncate(MAX_LINES);
            self.lines.push(Line::new(Tone::Dim, format!("… {more} more lines; {} tells all", question.command())));
        }
        self
    }
}

/// Answers. `env` carries what calls it off and where its progress stands.
pub fn answer(source: &Source, env: &Env, question: &Question) -> Answer {
    let answered = match question {
        Question::Recheck { run_key, .. } => checked(source, env, run_key),
        Question::Explain { manifest, event_id } => find(source, env, manifest)
            .and_then(|at| explain::explain(env, Some(&source.ledger), &at, event_id, explain::LIMIT))
            .map(|explanation| Answer::of(explanation.lines())),
        Question::Diff { left, right } => find(source, env, left)
            .and_then(|left| diff::diff(env, &left, &find(source, env, right)?, ROWS))
            .map(|diff| Answer::of(diff.lines())),
        Question::Pins { left, right } => pins(source, left, right),
        Question::Report { run_key } => Ok(reported(source, env, run_key.as_deref())),
    };
    answered.unwrap_or_else(|refusal| Answer::refused(&refusal)).bounded(question)
}

/// The first rows of a data set: the event, and what else tells it from the others.
///
/// # Errors
/// In words, why there are none.
pub fn offered(source: &Source, env: &Env, manifest: &str) -> Result<Vec<(String, String)>, String> {
    let rows = find(source, env, manifest).and_then(|at| first_rows(env, &at, OFFERED));
    let rows = rows.map_err(|refusal| format!("{}: {}", refusal.code, refusal.message))?;
    let about = |row: &diff::RowRef| format!("{}  key {}  {} offset {}", row.place.ts, row.key, row.place.lane, row.place.offset);
    Ok(rows.into_iter().map(|row| (row.event_id.clone(), about(&row))).collect())
}

fn find(source: &Source, env: &Env, given: &str) -> Result<Ref, Refusal> {
    find_manifest(env, Some(&source.ledger), given)
}

/// Compares the resolved plans of two runs. What names only the run and its attempt always differs and is left out.
fn pins(source: &Source, left: &str, right: &str) -> Result<Answer, Refusal> {
    let plan = |run_key: &str| {
        let row = source.ledger.run(run_key).map_err(|e| e.to_string())?.ok_or_else(|| format!("no run is {run_key}"))?;
        let events = source.ledger.events(run_key, row.last_seq.saturating_sub(MAX_EVENTS)).map_err(|e| e.to_string())?;
        receipt(source, &row, &events, Phase::Pins).map(|(_, plan)| plan).map_err(|gap| match gap {
            Gap::Absent => format!("run {} has pinned nothing", head(run_key, 8)),
            Gap::Untrusted(why) => why,
        })
    };
    let (left, right) = match (plan(left), plan(right)) {
        (Ok(left), Ok(right)) => (left, right),
        (Err(why), _) | (_, Err(why)) => return Ok(Answer::unknown(why)),
    };
    let own = ["run_key", "request_id", "plan_id"];
    let fields: Vec<_> =
        diff::fields(&left, &right).into_iter().filter(|f| !own.contains(&f.field.split('.').next().unwrap_or_default())).collect();
    let lines: Vec<Line> = fields.iter().flat_map(|field| field.lines("pin")).collect();
    Ok(Answer::of(if lines.is_empty() { vec![Line::new(Tone::Good, "same: every pin of the two runs is the same")] } else { lines }))
}

fn reported(source: &Source, env: &Env, run_key: Option<&str>) -> Answer {
    let row = match run_key.map(|key| source.ledger.run(key)).transpose() {
        Ok(row) => row.flatten(),
        Err(error) => return Answer::unknown(error),
    };
    let only = match (run_key, row) {
        (None, _) => None,
        (Some(_), Some(row)) if row.platform_run_id.is_some() => row.platform_run_id,
        (Some(key), _) => return Answer::unknown(format_args!("run {} names no platform run", head(key, 8))),
    };
    match observe::look_at(env, &source.ledger, source.clock.as_ref(), only.as_deref()) {
        Ok(report) => Answer::of(report.lines()),
        Err(error) => Answer::unknown(error),
    }
}

/// Digests everything that a run left. What a published data set consists of is asked of [`verify`], which does
/// more than digest it; the rest is digested here.
fn checked(source: &Source, env: &Env, run_key: &str) -> Result<Answer, Refusal> {
    let ledger = |e: crate::ledger::LedgerError| Refusal::new(e.code(), Phase::Ledger, e.to_string());
    let row = source.ledger.run(run_key).map_err(ledger)?;
    let Some(row) = row else { return Ok(Answer::unknown(format_args!("the ledger holds no run {run_key}"))) };
    let events = source.ledger.events(run_key, row.last_seq.saturating_sub(MAX_EVENTS)).map_err(ledger)?;
    let tree = EvidenceTree::load(source, &row, &events);
    let manifest = row.manifest_ref.as_deref().and_then(|at| Ref::parse(at).ok());
    let which = |document: &Document| manifest.is_none() || document.role != "data";
    env.progress.enter(Phase::Operate, tree.documents.iter().filter(|d| which(d)).count() as u64);
    let mut tree = recheck(source, &tree, &which, &|| {
        env.progress.advance(1);
        !env.cancel.is_cancelled()
    });
    let mut answer = match manifest.as_ref().map(|at| verify::verify(env, Some(&source.ledger), at)) {
        None => Answer::of(vec![summary(&tree)]),
        Some(Err(refusal)) => Answer::refused(&refusal),
        Some(Ok(report)) => {
            judge(&mut tree, &report);
            let tone = if report.ok() { Tone::Good } else { Tone::Bad };
            Answer::of(std::iter::once(Line::new(tone, report.verdict())).chain(report.lines()).collect())
        }
    };
    tree.rechecked = answer.lines.first().map(|line| (line.tone, line.text.clone()));
    answer.lines.extend(tree.documents.iter().filter(|d| !matches!(d.check, Check::Same(_))).map(doubtful));
    answer.evidence = Some(Box::new(tree));
    Ok(answer)
}

/// What verify found about the files of the data set, file by file.
fn judge(tree: &mut EvidenceTree, report: &Report) {
    let index = tree.documents.iter().any(|d| d.role == "index" && matches!(d.check, Check::Same(_)));
    for document in tree.documents.iter_mut().filter(|d| d.role == "data" && d.check == Check::Unchecked) {
        let problem: Option<&Problem> = report.problems.iter().find(|problem| problem.place == document.at);
        document.check = match problem {
            Some(problem) if problem.kind == Kind::Missing => Check::Missing,
            Some(problem) if problem.kind == Kind::Unreadable => Check::Unknown(problem.found.clone()),
            Some(problem) => Check::Differs { recorded: problem.expected.clone(), found: problem.found.clone() },
            // Without an index that holds nothing says what the file should be.
            None if !index => continue,
            None => {
                document.blake3 = document.recorded.as_ref().map(|(digest, _)| digest.clone());
                Check::Same("index".into())
            }
        };
    }
}

/// How many documents are in which state, for a run that has published nothing.
fn summary(tree: &EvidenceTree) -> Line {
    let count = |word: &str| tree.documents.iter().filter(|d| d.check.word() == word).count();
    let words = ["DIFFERS", "MISSING", "UNKNOWN", "UNCHECKED", "VERIFIED", "UNRECORDED"];
    let counts = words.map(count);
    let told: Vec<String> = words.iter().zip(counts).filter(|(_, n)| *n > 0).map(|(word, n)| format!("{n} {word}")).collect();
    let [differs, missing, unknown, unchecked, verified, _] = counts;
    let tone = match () {
        () if differs + missing > 0 => Tone::Bad,
        () if unknown + unchecked > 0 || verified == 0 => Tone::Unknown,
        () => Tone::Good,
    };
    let told = if told.is_empty() { "UNKNOWN: no gate has written anything".into() } else { told.join(", ") };
    Line::new(tone, format!("{told}; nothing is published"))
}

fn doubtful(document: &Document) -> Line {
    let tone = match &document.check {
        Check::Differs { .. } | Check::Missing => Tone::Bad,
        Check::Unrecorded => Tone::Dim,
        _ => Tone::Unknown,
    };
    Line::new(tone, format!("{:<10}  {}  {}", document.check.word(), document.role, document.at))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::console::data::testing::World;
    use crate::ledger::Status;

    fn ask(world: &World, question: impl Fn(&crate::ledger::RunRow) -> Question) -> Answer {
        let (source, row, _) = world.newest();
        answer(&source, &source.env().unwrap(), &question(&row))
    }

    fn rechecked(world: &World) -> Answer {
        ask(world, |row| Question::Recheck { run_key: row.run_key.clone(), manifest: row.manifest_id.clone() })
    }

    fn text(answer: &Answer) -> String {
        answer.lines.iter().map(|line| format!("{:?} {}\n", line.tone, line.text)).collect()
    }

    #[test]
    fn a_recheck_says_what_verify_says_and_every_file_is_judged() {
        let world = World::play("clean");
        let answer = rechecked(&world);
        assert!(text(&answer).starts_with("Good VERIFIED "), "{}", text(&answer));
        let (source, row, _) = world.newest();
        let at = Ref::parse(row.manifest_ref.as_deref().unwrap()).unwrap();
        let report = verify::verify(&source.env().unwrap(), Some(&source.ledger), &at).unwrap();
        assert!(answer.lines.iter().skip(1).map(|l| &l.text).take(report.lines().len()).eq(report.lines().iter().map(|l| &l.text)));
        let tree = answer.evidence.unwrap();
        assert!(tree.documents.iter().all(|d| matches!(d.check, Check::Same(_) | Check::Unrecorded)), "{:?}", tree.documents);
        assert_eq!(tree.rechecked, Some((Tone::Good, report.verdict())));
        // A tree that is read again later keeps what was found.
        let (source, row, events) = world.newest();
        let mut again = EvidenceTree::load(&source, &row, &events);
        again.carry(&tree);
        assert_eq!(again, *tree);
    }

    #[test]
    fn one_changed_byte_of_the_data_is_found() {
        let world = World::play("clean");
        let before = rechecked(&world).evidence.unwrap();
        let data = before.documents.iter().find(|d| d.role == "data").unwrap();
        let path = world.root().join("store").join(&data.at);
        let mut bytes = std::fs::read(&path).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        std::fs::remove_file(&path).unwrap();
        std::fs::write(&path, bytes).unwrap();
        let answer = rechecked(&world);
        assert!(text(&answer).starts_with("Bad NOT OK "), "{}", text(&answer));
        let after = answer.evidence.unwrap();
        let changed = after.documents.iter().find(|d| d.at == data.at).unwrap();
        assert_eq!(changed.check.word(), "DIFFERS");
        // The recheck of the changed world does not pass for that of the old one.
        let mut again = *after;
        again.documents[0].bytes = Some(1);
        let kept = again.clone();
        again.carry(&before);
        assert_eq!(again, kept);
    }

    #[test]
    fn without_the_ledgers_word_a_data_set_is_unanchored() {
        let world = World::play("clean");
        let (source, row, _) = world.newest();
        let at = Ref::parse(row.manifest_ref.as_deref().unwrap()).unwrap();
        let report = verify::verify(&source.env().unwrap(), None, &at).unwrap();
        assert!(report.verdict().starts_with("UNANCHORED "), "{}", report.verdict());
        assert!(report.lines().iter().any(|l| l.tone == Tone::Bad && l.text.starts_with("UNANCHORED")));
    }

    #[test]
    fn a_run_that_published_nothing_is_rechecked_and_never_green_for_nothing() {
        let answer = rechecked(&World::play("archive-gap"));
        assert!(text(&answer).contains("; nothing is published"), "{}", text(&answer));
        let none = summary(&EvidenceTree::default());
        assert_eq!(none.tone, Tone::Unknown);
        let world = World::play("archive-gap");
        world.damage("resolved_build_plan", Some("{}"));
        assert!(text(&rechecked(&world)).starts_with("Bad 1 DIFFERS"), "{}", text(&rechecked(&world)));
    }

    #[test]
    fn a_row_is_explained_with_window_labels_and_code_as_the_command_line_does() {
        let world = World::play("clean");
        let (source, row, _) = world.run(Status::Done);
        let manifest = row.manifest_id.unwrap();
        let offered = offered(&source, &source.env().unwrap(), &manifest).unwrap();
        let (event_id, about) = &offered[0];
        assert!(about.contains(" offset "), "{about}");
        let answer = answer(&source, &source.env().unwrap(), &Question::Explain { manifest: manifest.clone(), event_id: event_id.clone() });
        let text = text(&answer);
        for part in ["Good ROW", "served ", "window ", "feature ", "label ", "policy ", "code ", "cut-off "] {
            assert!(text.contains(part), "{part}\n{text}");
        }
        let nothing = Question::Explain { manifest, event_id: "no such event".into() };
        assert!(self::text(&super::answer(&source, &source.env().unwrap(), &nothing)).starts_with("Unknown NOT_IN_BASIS"));
    }

    #[test]
    fn a_data_set_compared_with_itself_is_the_same_and_an_unknown_one_is_unknown() {
        let world = World::play("clean");
        let diff = |left: &str| {
            ask(&world, |row| Question::Diff {
                left: if left.is_empty() { row.manifest_id.clone().unwrap() } else { left.to_owned() },
                right: row.manifest_id.clone().unwrap(),
            })
        };
        assert!(text(&diff("")).contains("Good same: "), "{}", text(&diff("")));
        assert!(text(&diff("dm_nothing")).starts_with("Unknown UNKNOWN  DATASET_NOT_FOUND"), "{}", text(&diff("dm_nothing")));
    }

    #[test]
    fn pins_of_two_runs_are_compared_and_those_of_none_are_unknown() {
        let world = World::play("profile-edited-same-version");
        let (source, row, _) = world.newest();
        let runs = source.ledger.runs(&crate::ledger::RunFilter::default()).unwrap();
        let other = runs.iter().find(|other| other.run_key != row.run_key).unwrap();
        let pins = |left: &str, right: &str| {
            let question = Question::Pins { left: left.into(), right: right.into() };
            text(&answer(&source, &source.env().unwrap(), &question))
        };
        let told = pins(&other.run_key, &row.run_key);
        assert!(told.contains("Head pin  feature_profile.") && !told.contains("run_key"), "{told}");
        assert!(pins(&row.run_key, &row.run_key).starts_with("Good same"));
        assert!(pins("none", &row.run_key).starts_with("Unknown UNKNOWN  no run is none"));
    }

    #[test]
    fn the_report_of_the_runs_platform_run_says_unknown_where_nothing_was_written() {
        let world = World::play("clean");
        let answer = ask(&world, |row| Question::Report { run_key: Some(row.run_key.clone()) });
        let text = text(&answer);
        for part in ["Good GREEN", "STUCK_RED", "speaks from", "builds ", "governance ", "reconciled ", "Unknown signal      metrics"] {
            assert!(text.contains(part), "{part}\n{text}");
        }
        assert!(self::text(&ask(&world, |_| Question::Report { run_key: Some("none".into()) })).starts_with("Unknown UNKNOWN"));
    }

    #[test]
    fn what_is_called_off_is_not_answered_and_what_is_long_is_cut() {
        let world = World::play("clean");
        let (source, row, _) = world.newest();
        let env = source.env().unwrap();
        env.cancel.cancel();
        let question = Question::Recheck { run_key: row.run_key, manifest: row.manifest_id };
        assert!(!text(&answer(&source, &env, &question)).contains("Good"));
        let long = Answer::of(vec![Line::plain("x"); MAX_LINES + 7]).bounded(&question);
        assert_eq!((long.lines.len(), long.lines.last().unwrap().tone), (MAX_LINES + 1, Tone::Dim));
        assert!(long.lines.last().unwrap().text.contains("7 more lines; ofs verify dm_"));
    }
}
