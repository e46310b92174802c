//! What a scenario is: TOML under `fixtures/scenarios/`, carried inside the binary.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::fault::Fault;
use crate::contract::embedded;

/// Folder of the scenarios among the embedded files.
const FOLDER: &str = "fixtures/scenarios";

/// A scenario: a base workspace, and steps that change it or act on it.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Scenario {
    /// Stable name, as given to `ofs demo`; also the name of its file.
    pub name: String,
    /// One line.
    pub title: String,
    /// Why it matters, in a sentence or two.
    pub shows: String,
    /// The workspace it starts from, a folder of `fixtures/`.
    pub base: String,
    /// What happens, in order.
    #[serde(rename = "step")]
    pub steps: Vec<Step>,
}

/// One step.
#[derive(Debug, Clone, Deserialize)]
#[serde(try_from = "toml::Table")]
pub struct Step {
    /// A name by which later steps refer to what came of this one.
    pub name: Option<String>,
    /// What happens, in words, where the step's own words would not do.
    pub say: Option<String>,
    /// What is done.
    pub verb: Verb,
    /// For `run`: manifests that the build supersedes (placeholders allowed), and why.
    pub supersedes: Vec<String>,
    /// The reason of a supersession.
    pub reason: Option<String>,
    /// How the store misbehaves meanwhile.
    pub fault: Option<Fault>,
    /// What must come of it; every action has one, no mutation has.
    pub expect: Option<Expect>,
}

/// What a step does: everything before [`Verb::Run`] changes the workspace, the rest acts on it.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Verb {
    /// Removes a file.
    RemoveFile(String),
    /// Moves a file.
    MoveFile {
        /// From here.
        from: String,
        /// To there.
        to: String,
    },
    /// Writes a file, replacing what was there.
    WriteFile {
        /// The file.
        file: String,
        /// Its content.
        text: String,
    },
    /// Appends a line.
    AppendLine {
        /// The file.
        file: String,
        /// The line, without its line feed.
        text: String,
    },
    /// Removes `count` lines from line `first` (counted from 1) on.
    RemoveLines {
        /// The file.
        file: String,
        /// First line, from 1.
        first: usize,
        /// How many.
        count: usize,
    },
    /// Cuts a file to a length, or extends it with zeros.
    Resize {
        /// The file.
        file: String,
        /// The new length.
        bytes: u64,
    },
    /// Replaces text that must occur exactly `times` times (once when not said).
    ReplaceText {
        /// The file.
        file: String,
        /// What stands.
        from: String,
        /// What shall stand.
        to: String,
        /// How often it must occur.
        #[serde(default = "once")]
        times: usize,
    },
    /// Changes a JSON document: JSON pointer to new value.
    SetJson {
        /// The file.
        file: String,
        /// Pointer to value.
        set: BTreeMap<String, toml::Value>,
    },
    /// Changes one line (from 1) of a JSONL file, in place or as a copy at the end.
    EditLine {
        /// The file.
        file: String,
        /// The line.
        line: usize,
        /// Pointer to value.
        #[serde(default)]
        set: BTreeMap<String, toml::Value>,
        /// Leaves the line as it is and appends the changed one.
        #[serde(default)]
        append: bool,
    },
    /// Writes a variant of an intent.
    Intent {
        /// Name of the new one: `intents/<name>.json`.
        name: String,
        /// The one it is made from.
        #[serde(default = "train")]
        from: String,
        /// Pointer to value.
        #[serde(default)]
        set: BTreeMap<String, toml::Value>,
        /// Pointers to remove.
        #[serde(default)]
        remove: Vec<String>,
    },
    /// Takes a record, `<partition>/<offset>`, out of the archive.
    RemoveRecord(String),
    /// Cuts an archived record short, as a torn write would.
    TearRecord(String),
    /// Changes a record of the archive or the bus.
    EditRecord(EditRecord),
    /// Archives a copy of a record under another offset, as a redelivery would.
    CopyRecord {
        /// `<partition>/<offset>`.
        from: String,
        /// `<partition>/<offset>`.
        to: String,
    },
    /// Drops the first lines of a bus partition and moves `base_offset` with them.
    MoveRetention {
        /// The partition.
        partition: u32,
        /// How many lines.
        lines: u64,
    },
    /// Turns the JSONL labels into a SQLite timeline and points `[paths] labels` to it.
    ImportLabelsSqlite(String),
    /// Runs one statement on a SQLite file, which must change exactly one row.
    Sql {
        /// The file.
        file: String,
        /// The statement.
        statement: String,
    },
    /// Sets keys of `ofs.toml`, written `section.key`.
    SetConfig(BTreeMap<String, toml::Value>),
    /// Puts a link in place of whatever is there.
    Symlink {
        /// Where.
        at: String,
        /// Where to, relative to the folder of `at`, or absolute.
        to: String,
    },
    /// Runs an intent: `intents/<name>.json`.
    Run(String),
    /// Goes on with an intent's run.
    Resume(String),
    /// Retries the publication of an intent's run.
    Retry(String),
    /// Puts an intent into the queue of the workers.
    Submit(String),
    /// Puts a publish-only retry of an intent's run into the queue.
    SubmitRetry(String),
    /// A worker takes one look at the queue; observed is one request, by its intent or its id.
    Work(String),
    /// Several owners run one intent at once.
    Race {
        /// The intent.
        intent: String,
        /// How many owners.
        owners: usize,
    },
    /// Calls an intent's run off.
    Cancel(String),
    /// Gives an intent's run up.
    Fail(String),
    /// Verifies a data set: a manifest id or ref (placeholders allowed).
    Verify(String),
    /// Seals what is new in the archive.
    Seal {
        /// A file of attestations.
        attest: Option<String>,
    },
}

/// How a record is changed.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EditRecord {
    /// `<partition>/<offset>`.
    pub at: String,
    /// The bus's copy and not the archive's.
    #[serde(default)]
    pub bus: bool,
    /// Pointer to value.
    #[serde(default)]
    pub set: BTreeMap<String, toml::Value>,
    /// Pointer to a number of bytes: a text of that length is put there.
    #[serde(default)]
    pub fill: BTreeMap<String, usize>,
    /// Makes the copies beside the envelope and the payload hash anew, as a careful forger would.
    #[serde(default)]
    pub restate: bool,
}

/// What must come of an action. Whatever is not stated here must not be there.
#[derive(Debug, Clone, Deserialize, serde::Serialize)]
#[serde(deny_unknown_fields)]
pub struct Expect {
    /// Status of the run; `KILLED` for an owner that died, `NOT_RUN` where nothing could be recorded.
    pub status: String,
    /// Exit code of the command.
    pub exit: u8,
    /// NEW, ALREADY_PUBLISHED or DUPLICATE.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outcome: Option<String>,
    /// Reason code.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<String>,
    /// Gate that refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub phase: Option<String>,
    /// A text that message or evidence must contain.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub evidence: Option<String>,
    /// Rows of the data set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rows: Option<u64>,
    /// A named step whose run must have resolved to the same data set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub same_manifest_as: Option<String>,
    /// A named step whose run must have resolved to another data set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub different_manifest_from: Option<String>,
    /// An event that the run's ledger must hold.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub event: Option<String>,
    /// Ref type to how its latest resolution for the run was audited: GRANTED, or the code of the denial.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub refs: BTreeMap<String, String>,
    /// Whether a manifest may appear although the end is not DONE (an answer that was lost).
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub commits: bool,
    /// `<file>#<JSON pointer>` to the value that must stand there.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub json: BTreeMap<String, toml::Value>,
}

fn once() -> usize {
    1
}

fn train() -> String {
    "train".into()
}

impl Verb {
    /// Whether it acts on the workspace, and so has an end that is expected.
    pub fn acts(&self) -> bool {
        matches!(
            self,
            Verb::Run(_)
                | Verb::Resume(_)
                | Verb::Retry(_)
                | Verb::Submit(_)
                | Verb::SubmitRetry(_)
                | Verb::Work(_)
                | Verb::Race { .. }
                | Verb::Cancel(_)
                | Verb::Fail(_)
                | Verb::Verify(_)
                | Verb::Seal { .. }
        )
    }

    /// What it does, in a few words.
    pub fn words(&self) -> String {
        match self {
            Verb::RemoveFile(file) => format!("remove {file}"),
            Verb::MoveFile { from, to } => format!("move {from} to {to}"),
            Verb::WriteFile { file, .. } => format!("write {file}"),
            Verb::AppendLine { file, .. } => format!("append a line to {file}"),
            Verb::RemoveLines { file, first, count } => format!("remove {count} line(s) of {file} from line {first} on"),
            Verb::Resize { file, bytes } => format!("make {file} {bytes} bytes long"),
            Verb::ReplaceText { file, from, to, .. } => format!("replace `{from}` by `{to}` in {file}"),
            Verb::SetJson { file, set } => format!("change {} in {file}", keys(set)),
            Verb::EditLine { file, line, append: true, .. } => format!("append a changed copy of line {line} to {file}"),
            Verb::EditLine { file, line, set, .. } => format!("change {} in line {line} of {file}", keys(set)),
            Verb::Intent { name, from, set, remove } => {
                let changed: Vec<&str> = set.keys().chain(remove).map(String::as_str).collect();
                format!("write intent {name}: {from} with another {}", changed.join(", "))
            }
            Verb::RemoveRecord(at) => format!("take record {at} out of the archive"),
            Verb::TearRecord(at) => format!("tear record {at} of the archive"),
            Verb::EditRecord(edit) => {
                let changed: Vec<&str> = edit.set.keys().chain(edit.fill.keys()).map(String::as_str).collect();
                let (side, restated) = (if edit.bus { "bus" } else { "archive" }, if edit.restate { ", its hash made anew" } else { "" });
                format!("change {} of record {} in the {side}{restated}", changed.join(", "), edit.at)
            }
            Verb::CopyRecord { from, to } => format!("archive record {from} again as {to}"),
            Verb::MoveRetention { partition, lines } => format!("the bus forgets {lines} record(s) of partition {partition}"),
            Verb::ImportLabelsSqlite(file) => format!("keep the labels in a SQLite timeline, {file}"),
            Verb::Sql { statement, .. } => format!("sql: {statement}"),
            Verb::SetConfig(set) => format!("configure {}", keys(set)),
            Verb::Symlink { at, to } => format!("link {at} to {to}"),
            Verb::Run(intent) => format!("ofs run {intent}"),
            Verb::Resume(intent) => format!("ofs resume {intent}"),
            Verb::Retry(intent) => format!("ofs retry {intent}"),
            Verb::Submit(intent) => format!("ofs submit {intent}"),
            Verb::SubmitRetry(intent) => format!("ofs submit --publish-retry {intent}"),
            Verb::Work(request) => format!("ofs worker --once: request {request}"),
            Verb::Race { intent, owners } => format!("{owners} x ofs run {intent} at once"),
            Verb::Cancel(intent) => format!("ofs cancel {intent}"),
            Verb::Fail(intent) => format!("ofs fail {intent}"),
            Verb::Verify(manifest) => format!("ofs verify {manifest}"),
            Verb::Seal { attest: None } => "ofs archive seal".into(),
            Verb::Seal { attest: Some(file) } => format!("ofs archive seal --attest {file}"),
        }
    }
}

fn keys(set: &BTreeMap<String, toml::Value>) -> String {
    set.keys().map(String::as_str).collect::<Vec<_>>().join(", ")
}

impl TryFrom<toml::Table> for Step {
    type Error = String;

    /// A step is its verb, the one key that is none of the others.
    fn try_from(mut table: toml::Table) -> Result<Self, String> {
        fn take<T: serde::de::DeserializeOwned>(table: &mut toml::Table, key: &str) -> Result<Option<T>, String> {
            table.remove(key).map(|v| v.try_into::<T>().map_err(|e| format!("{key}: {e}"))).transpose()
        }
        let (name, say) = (take(&mut table, "name")?, take(&mut table, "say")?);
        let (supersedes, reason) = (take(&mut table, "supersedes")?.unwrap_or_default(), take(&mut table, "reason")?);
        let (fault, expect) = (take(&mut table, "fault")?, take::<Expect>(&mut table, "expect")?);
        let verbs: Vec<String> = table.keys().cloned().collect();
        if verbs.len() != 1 {
            return Err(format!("a step does one thing, this one: {}", verbs.join(", ")));
        }
        let verb: Verb = toml::Value::Table(table).try_into().map_err(|e| format!("{}: {e}", verbs.join(", ")))?;
        if verb.acts() != expect.is_some() {
            return Err(format!("{}: every action has an `expect`, and no mutation has", verb.words()));
        }
        Ok(Step { name, say, verb, supersedes, reason, fault, expect })
    }
}

/// Reads one scenario.
///
/// # Errors
/// What is wrong, in words.
pub fn parse(text: &str) -> Result<Scenario, String> {
    toml::from_str(text).map_err(|e| e.to_string())
}

/// Every embedded scenario: `clean` first, the others by name.
///
/// # Errors
/// The file that is no scenario, and why.
pub fn all() -> Result<Vec<Scenario>, String> {
    let mut list = embedded::below(FOLDER)
        .filter_map(|(file, bytes)| Some((file.strip_suffix(".toml")?, bytes)))
        .map(|(name, bytes)| {
            let text = std::str::from_utf8(bytes).map_err(|e| format!("{name}: {e}"))?;
            let scenario = parse(text).map_err(|e| format!("{name}: {e}"))?;
            if scenario.name == name { Ok(scenario) } else { Err(format!("{name}: calls itself {}", scenario.name)) }
        })
        .collect::<Result<Vec<_>, String>>()?;
    list.sort_by_key(|s| (s.name != "clean", s.name.clone()));
    Ok(list)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::contract::reason::REASONS;
    use std::collections::BTreeSet;

    #[test]
    fn every_scenario_parses_and_states_codes_that_exist() {
        for scenario in all().unwrap() {
            assert!(scenario.title.len() < 100 && !scenario.shows.is_empty(), "{}", scenario.name);
            assert!(scenario.steps.iter().any(|s| s.verb.acts()), "{}", scenario.name);
            for code in scenario.steps.iter().filter_map(|s| s.expect.as_ref()?.code.as_ref()) {
                assert!(crate::contract::ReasonCode::parse(code).is_some(), "{}: {code}", scenario.name);
            }
        }
    }

    #[test]
    fn every_reason_a_user_can_cause_has_a_scenario() {
        let shown: BTreeSet<String> = all().unwrap().into_iter().flat_map(|s| s.steps).filter_map(|s| s.expect?.code).collect();
        let owed: Vec<&str> = REASONS.iter().filter(|r| r.internal.is_empty() && !shown.contains(r.name)).map(|r| r.name).collect();
        assert_eq!(owed, [""; 0], "codes without a scenario");
        let unneeded: Vec<&str> = REASONS.iter().filter(|r| !r.internal.is_empty() && shown.contains(r.name)).map(|r| r.name).collect();
        assert_eq!(unneeded, [""; 0], "codes marked internal that a scenario causes");
    }

    #[test]
    fn steps_that_mean_nothing_are_refused() {
        let step = |text: &str| parse(&format!("name='a'\ntitle='t'\nshows='s'\nbase='b'\n[[step]]\n{text}")).map(|_| ());
        assert_eq!(step("remove_file = 'x'"), Ok(()));
        for bad in
            ["remove_file = 'x'\nrun = 'y'", "remove_fil = 'x'", "run = 'train'", "remove_file = 'x'\nexpect = {status='DONE', exit=0}"]
        {
            assert!(step(bad).is_err(), "{bad}");
        }
        assert!(step("run = 'train'\nexpect = {status='DONE', exit=0, cod='X'}").unwrap_err().contains("cod"));
    }
}
