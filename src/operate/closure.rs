//! The closure gate: everything that the product owes, shown in one run in a scratch workspace (O155 to
//! O159). The positive path, the negative matrix and the rebuild guarantee are executed here and now; what
//! else is owed stands in `contracts/obligations.toml` with the tests that prove it, and is counted.

mod bench;
mod matrix;
mod observed;
mod operated;
mod positive;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use serde::Deserialize;
use serde_json::{Value, json};

use super::mutate::Broken;
use crate::contract::embedded;
use crate::pipeline::pin::RELEASE;
use crate::time::{Clock, Instant};

/// Schema version of the evidence.
pub const SCHEMA: &str = "ofs.closure.v1";

/// Obligations that this version decided against, in words; each is held by what is refused or stated instead.
pub const DECIDED_AGAINST: [(&str, &str); 3] =
    [("O018", "several platform runs in one data set"), ("O079", "the KNOW_NOW posture"), ("O110", "sampling")];

/// The phases, in order.
const PHASES: [(u8, &str); 10] = [
    (1, "intent and identity"),
    (2, "run ledger"),
    (3, "pins"),
    (4, "replay"),
    (5, "labels"),
    (6, "features and draft"),
    (7, "publication"),
    (8, "run and operate"),
    (9, "observability and governance"),
    (10, "closure"),
];

/// The gates of the platform that rest on this one, with the rows that each needs.
const GATES: [(&str, &str, &[u8]); 3] =
    [("6.2", "OFS", &[1, 2, 3, 4, 5, 6, 7, 10]), ("6.6", "run/operate", &[8]), ("6.7", "obs/gov", &[9])];

/// What is owed, and by which tests and scenarios it is proved.
#[derive(Debug, Clone, Deserialize)]
pub struct Obligation {
    /// Its id, like `O155`.
    pub id: String,
    /// 1 to 10, or 0 for a rail, which holds in every phase.
    pub phase: u8,
    /// What is owed, in a sentence.
    pub owes: String,
    /// Tests and `scenario:<name>`.
    pub proof: Vec<String>,
}

/// Every obligation, as the embedded list has it.
///
/// # Errors
/// A list that cannot be read.
pub fn obligations() -> Result<Vec<Obligation>, Broken> {
    #[derive(Deserialize)]
    struct List {
        obligation: Vec<Obligation>,
    }
    let bytes = embedded::file("contracts/obligations.toml").unwrap_or_default();
    let list: List = toml::from_str(&String::from_utf8_lossy(bytes)).map_err(|e| Broken(format!("obligations: {e}")))?;
    Ok(list.obligation)
}

/// A check that ran.
#[derive(Debug, Clone)]
pub struct Check {
    /// The rows that it counts for; 0 is the rails'.
    pub phases: Vec<u8>,
    /// What was shown.
    pub name: String,
    /// What did not hold; empty when it passed.
    pub problems: Vec<String>,
}

/// How a row stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// Its checks ran here and passed, and everything that it owes is proved.
    Passed,
    /// A check failed, or something that it owes has no proof.
    Failed,
    /// Nothing of it was checked or is proved.
    NotOnboarded,
}

impl Standing {
    /// The stable name.
    pub fn as_str(self) -> &'static str {
        match self {
            Standing::Passed => "PASSED",
            Standing::Failed => "FAILED",
            Standing::NotOnboarded => "NOT_ONBOARDED",
        }
    }
}

/// A phase.
#[derive(Debug, Clone)]
pub struct Row {
    /// Its number.
    pub phase: u8,
    /// Its name.
    pub name: &'static str,
    /// How it stands.
    pub standing: Standing,
    /// Checks that ran.
    pub checks: usize,
    /// What did not hold, by check.
    pub problems: Vec<String>,
    /// Ids of what it owes and has proved.
    pub proved: Vec<String>,
    /// Ids of what it owes and has not.
    pub unproved: Vec<String>,
}

/// What the gate came to.
#[derive(Debug, Clone)]
pub struct Closure {
    /// When it began and ended.
    pub span: (Instant, Instant),
    /// A row a phase, then the rails as phase 0.
    pub rows: Vec<Row>,
    /// Every check.
    pub checks: Vec<Check>,
    /// What the positive path published, for the evidence.
    pub published: Value,
}

impl Closure {
    /// CLOSED only where all ten rows passed and the rails hold, on which every row rests.
    pub fn closed(&self) -> bool {
        self.rows.iter().all(|r| r.standing == Standing::Passed)
    }

    /// The verdict by name.
    pub fn verdict(&self) -> &'static str {
        if self.closed() { "CLOSED" } else { "OPEN" }
    }

    /// Obligations proved, and all.
    pub fn proved(&self) -> (usize, usize) {
        let proved: usize = self.rows.iter().map(|r| r.proved.len()).sum();
        (proved, proved + self.rows.iter().map(|r| r.unproved.len()).sum::<usize>())
    }

    /// The platform's gates: number, name, whether every row that it needs has passed.
    pub fn gates(&self) -> impl Iterator<Item = (&'static str, &'static str, bool)> {
        GATES.iter().map(|(number, name, needs)| {
            let passed = |phase: &u8| self.rows.iter().any(|r| r.phase == *phase && r.standing == Standing::Passed);
            (*number, *name, needs.iter().all(passed))
        })
    }

    /// The evidence, `ofs.closure.v1`.
    pub fn to_json(&self) -> Value {
        let (proved, total) = self.proved();
        let serves =
            |phase: u8| GATES.iter().filter(|(_, _, needs)| needs.contains(&phase)).map(|(number, ..)| *number).collect::<Vec<_>>();
        let row = |r: &Row| {
            let decided: Vec<&str> =
                DECIDED_AGAINST.iter().map(|(id, _)| *id).filter(|id| r.proved.iter().chain(&r.unproved).any(|o| o == id)).collect();
            json!({
                "phase": r.phase, "name": r.name, "status": r.standing.as_str(), "gates": serves(r.phase), "checks": r.checks, "problems": r.problems,
                "obligations": {"proved": r.proved, "unproved": r.unproved, "decided_against": decided},
            })
        };
        let (rails, rows): (Vec<&Row>, Vec<&Row>) = self.rows.iter().partition(|r| r.phase == 0);
        json!({
            "schema_version": SCHEMA, "release": RELEASE, "verdict": self.verdict(), "started_utc": self.span.0, "completed_utc": self.span.1,
            "gates": self.gates().map(|(number, name, passed)| json!({"gate": number, "name": name, "passed": passed})).collect::<Vec<_>>(),
            "rows": rows.into_iter().map(row).collect::<Vec<_>>(), "rails": rails.into_iter().map(row).collect::<Vec<_>>(),
            "obligations": {"proved": proved, "total": total}, "published": self.published,
            "decided_against": DECIDED_AGAINST.iter().map(|(id, what)| json!({"id": id, "what": what})).collect::<Vec<_>>(),
            "checks": self.checks.iter().map(|c| json!({"phases": c.phases, "name": c.name, "ok": c.problems.is_empty(), "problems": c.problems})).collect::<Vec<_>>(),
        })
    }
}

/// Collects checks from several threads and tells each as it ends.
struct Checks<'c> {
    told: &'c (dyn Fn(&Check) + Sync),
    all: Mutex<Vec<Check>>,
}

impl Checks<'_> {
    fn add(&self, phases: &[u8], name: impl Into<String>, problems: Vec<String>) {
        let check = Check { phases: phases.to_vec(), name: name.into(), problems };
        (self.told)(&check);
        self.all.lock().unwrap_or_else(PoisonError::into_inner).push(check);
    }

    /// A check that ends at the first thing that does not hold.
    fn hold(&self, phase: u8, name: &str, result: Result<(), Broken>) {
        self.add(&[phase], name, result.err().map(|e| e.0).into_iter().collect());
    }
}

/// Refuses with words unless something holds.
fn ensure(holds: bool, otherwise: impl FnOnce() -> String) -> Result<(), Broken> {
    if holds { Ok(()) } else { Err(Broken(otherwise())) }
}

fn row(phase: u8, name: &'static str, checks: &[Check], owed: &[Obligation]) -> Row {
    let (proved, unproved): (Vec<&Obligation>, Vec<&Obligation>) =
        owed.iter().filter(|o| o.phase == phase).partition(|o| !o.proof.is_empty());
    let mine: Vec<&Check> = checks.iter().filter(|c| c.phases.contains(&phase)).collect();
    let mut problems: Vec<String> = mine.iter().flat_map(|c| c.problems.iter().map(|p| format!("{}: {p}", c.name))).collect();
    let open: Vec<&str> =
        unproved.iter().map(|o| o.id.as_str()).filter(|id| !DECIDED_AGAINST.iter().any(|(decided, _)| decided == id)).collect();
    if !open.is_empty() {
        problems.push(format!("without a proof: {}", open.join(", ")));
    }
    let standing = match (mine.is_empty() || proved.is_empty(), problems.is_empty()) {
        (true, _) => Standing::NotOnboarded,
        (false, true) => Standing::Passed,
        (false, false) => Standing::Failed,
    };
    let ids = |list: Vec<&Obligation>| list.into_iter().map(|o| o.id.clone()).collect();
    Row { phase, name, standing, checks: mine.len(), problems, proved: ids(proved), unproved: ids(unproved) }
}

/// Runs the gate in an empty folder, which it leaves as the last state of its workspaces. `told` hears of
/// every check as it ends, from several threads.
///
/// # Errors
/// Only what keeps the gate from running at all; whatever does not hold is in the rows.
pub fn run(scratch: &Path, clock: &dyn Clock, told: &(dyn Fn(&Check) + Sync)) -> Result<Closure, Broken> {
    let began = clock.now();
    let owed = obligations()?;
    let checks = Checks { told, all: Mutex::new(Vec::new()) };
    let published = positive::walk(scratch, &checks);
    operated::walk(scratch, &checks, clock);
    matrix::play(scratch, &owed, &checks)?;
    let mut checks = checks.all.into_inner().unwrap_or_else(PoisonError::into_inner);
    checks.sort_by(|a, b| (a.phases.first(), &a.name).cmp(&(b.phases.first(), &b.name)));
    let mut rows: Vec<Row> = PHASES.iter().map(|(phase, name)| row(*phase, name, &checks, &owed)).collect();
    rows.push(row(0, "rails", &checks, &owed));
    Ok(Closure { span: (began, clock.now()), rows, checks, published })
}

/// The phases for which a scenario counts: those whose obligations name it; else those of the codes that
/// it expects; else the closure itself.
fn phases_of(scenario: &super::scenario::Scenario, owed: &[Obligation]) -> Vec<u8> {
    let name = format!("scenario:{}", scenario.name);
    let mut phases: Vec<u8> = owed.iter().filter(|o| o.proof.contains(&name)).map(|o| o.phase).collect();
    if phases.is_empty() {
        let codes = scenario.steps.iter().filter_map(|s| s.expect.as_ref()?.code.as_deref());
        phases = codes.filter_map(crate::contract::ReasonCode::parse).map(|code| code.info().phase).collect();
    }
    if phases.is_empty() {
        phases.push(10);
    }
    phases.sort_unstable();
    phases.dedup();
    phases
}

/// Every file below a folder with its bytes, by its path below it.
fn tree(folder: &Path) -> Result<BTreeMap<String, Vec<u8>>, Broken> {
    let (mut found, mut folders) = (BTreeMap::new(), vec![String::new()]);
    while let Some(below) = folders.pop() {
        for entry in std::fs::read_dir(folder.join(&below))? {
            let entry = entry?;
            let name = format!("{below}{}", entry.file_name().to_string_lossy());
            if entry.file_type()?.is_dir() {
                folders.push(format!("{name}/"));
            } else {
                found.insert(name, std::fs::read(entry.path())?);
            }
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn owed(phase: u8, id: &str, proof: &[&str]) -> Obligation {
        Obligation { id: id.into(), phase, owes: String::new(), proof: proof.iter().map(|p| (*p).to_owned()).collect() }
    }

    fn check(phase: u8, problems: &[&str]) -> Check {
        Check { phases: vec![phase], name: "n".into(), problems: problems.iter().map(|p| (*p).to_owned()).collect() }
    }

    #[test]
    fn a_row_passes_only_with_checks_that_passed_and_nothing_unproved() {
        let standing = |checks: &[Check], owed: &[Obligation]| row(1, "x", checks, owed).standing;
        let proved = owed(1, "O001", &["a"]);
        assert_eq!(standing(&[check(1, &[])], std::slice::from_ref(&proved)), Standing::Passed);
        assert_eq!(standing(&[check(1, &[]), check(1, &["no"])], std::slice::from_ref(&proved)), Standing::Failed);
        assert_eq!(standing(&[check(1, &[])], &[proved.clone(), owed(1, "O002", &[])]), Standing::Failed);
        assert_eq!(standing(&[check(1, &[])], &[proved.clone(), owed(2, "O002", &[])]), Standing::Passed);
        assert_eq!(standing(&[check(1, &[])], &[proved.clone(), owed(1, "O018", &[])]), Standing::Passed);
        assert_eq!(standing(&[check(2, &[])], &[proved]), Standing::NotOnboarded);
        assert_eq!(standing(&[check(1, &[])], &[owed(1, "O002", &[])]), Standing::NotOnboarded);
    }

    #[test]
    fn the_path_from_intent_to_reconciliation_holds_here() {
        let dir = tempfile::tempdir().unwrap();
        let checks = Checks { told: &|_| {}, all: Mutex::new(Vec::new()) };
        let published = positive::walk(dir.path(), &checks);
        operated::walk(dir.path(), &checks, &crate::time::SystemClock);
        let all = checks.all.into_inner().unwrap();
        let problems: Vec<String> = all.iter().flat_map(|c| c.problems.iter().map(|p| format!("{}: {p}", c.name))).collect();
        assert_eq!(problems, [""; 0]);
        for (phase, name) in PHASES {
            assert!(all.iter().any(|c| c.phases.contains(&phase)), "{name}");
        }
        assert_eq!(published.as_array().unwrap().len(), 2);
    }

    #[test]
    fn a_gate_that_cannot_build_anything_fails_its_rows() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("positive")).unwrap();
        std::fs::write(dir.path().join("positive/in-use"), "x").unwrap();
        let checks = Checks { told: &|_| {}, all: Mutex::new(Vec::new()) };
        positive::walk(dir.path(), &checks);
        let all = checks.all.into_inner().unwrap();
        let owed = obligations().unwrap();
        for phase in [1, 4, 7, 10] {
            assert_eq!(row(phase, "x", &all, &owed).standing, Standing::Failed, "{phase}");
        }
    }

    #[test]
    fn the_verdict_needs_all_ten_and_the_rails() {
        let all = |phase: u8, standing: Standing| Closure {
            span: (Instant(0), Instant(1)),
            rows: (0..=10)
                .map(|number| Row {
                    phase: number,
                    name: "x",
                    standing: if number == phase { standing } else { Standing::Passed },
                    checks: 1,
                    problems: Vec::new(),
                    proved: vec![format!("P{number}")],
                    unproved: if number == 7 { vec!["O110".into()] } else { Vec::new() },
                })
                .collect(),
            checks: Vec::new(),
            published: Value::Null,
        };
        let closed = all(9, Standing::Passed);
        assert_eq!((closed.verdict(), closed.proved()), ("CLOSED", (11, 12)));
        for standing in [Standing::Failed, Standing::NotOnboarded] {
            let adrift = all(0, standing);
            assert!(!adrift.closed() && adrift.gates().all(|(_, _, passed)| passed), "the rails");
            let open = all(9, standing);
            assert_eq!(open.verdict(), "OPEN");
            let gates: Vec<(&str, bool)> = open.gates().map(|(n, _, passed)| (n, passed)).collect();
            assert_eq!(gates, [("6.2", true), ("6.6", true), ("6.7", false)]);
        }
    }

    #[test]
    fn the_list_has_every_obligation_and_every_phase_a_share() {
        let owed = obligations().unwrap();
        assert_eq!(owed.len(), 167);
        for (phase, name) in PHASES {
            assert!(owed.iter().any(|o| o.phase == phase), "{name}");
        }
        for scenario in super::super::scenario::all().unwrap() {
            assert!(!phases_of(&scenario, &owed).is_empty(), "{}", scenario.name);
        }
        for (id, _) in DECIDED_AGAINST {
            assert!(owed.iter().any(|o| o.id == id));
        }
    }
}
