//! What the gates wrote about a run, as a tree of JSON documents, each with its digest and what bears it out.

use std::sync::Arc;

use serde_json::Value;

use super::Source;
use super::document::{Gap, items, load, phase_of, receipt_ref, text};
use crate::answer::Tone;
use crate::ledger::{EventRow, RunRow};
use crate::pipeline::Phase;
use crate::store::{ErrorKind, Ref, digest};

/// Largest document that is opened in the tree, in bytes.
const MAX_DOCUMENT: u64 = 8 << 20;
/// Most that is read for the tree in all, in bytes.
const MAX_TOTAL: u64 = 32 << 20;
/// Most documents.
const MAX_DOCUMENTS: usize = 256;

/// What bears a document out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Check {
    /// Its BLAKE3 is the one that was recorded, and where that stands.
    Same(String),
    /// It has another one.
    Differs {
        /// What was recorded.
        recorded: String,
        /// What lies there.
        found: String,
    },
    /// Nothing records its digest.
    Unrecorded,
    /// Its bytes were not read yet; [`recheck`] does.
    Unchecked,
    /// It cannot be read: why.
    Unknown(String),
    /// It should be there and is not.
    Missing,
}

impl Check {
    /// The word that is shown.
    pub fn word(&self) -> &'static str {
        match self {
            Check::Same(_) => "VERIFIED",
            Check::Differs { .. } => "DIFFERS",
            Check::Unrecorded => "UNRECORDED",
            Check::Unchecked => "UNCHECKED",
            Check::Unknown(_) => "UNKNOWN",
            Check::Missing => "MISSING",
        }
    }
}

/// One document, or one file that is none.
#[derive(Debug, Clone, PartialEq)]
pub struct Document {
    /// What it is: plan, replay, refusal, manifest, part.
    pub role: String,
    /// Its ref.
    pub at: String,
    /// Its size, where it is known.
    pub bytes: Option<u64>,
    /// Its BLAKE3, once it was read.
    pub blake3: Option<String>,
    /// The digest that is recorded of it, and where.
    pub recorded: Option<(String, String)>,
    /// What bears it out.
    pub check: Check,
    /// Its content, where it is a document that was opened.
    pub content: Option<Arc<Value>>,
}

/// All documents about one run.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct EvidenceTree {
    /// In the order of the corridor.
    pub documents: Vec<Document>,
    /// Why there may be more that is not listed.
    pub unknown: Vec<String>,
    /// What came of digesting all of it again, where somebody asked for that.
    pub rechecked: Option<(Tone, String)>,
}

/// What is to be read: role, ref, recorded digest and where it stands, whether it must be there.
struct Wanted {
    role: String,
    at: Ref,
    recorded: Option<(String, String)>,
    due: bool,
    open: bool,
}

impl EvidenceTree {
    /// Reads it: documents of moderate size at once, data files only when they are rechecked.
    pub fn load(source: &Source, row: &RunRow, events: &[EventRow]) -> Self {
        let mut tree = EvidenceTree::default();
        let mut left = MAX_TOTAL;
        for wanted in receipts(row, events) {
            tree.push(source, wanted, &mut left);
        }
        for wanted in refusals(source, row, &mut tree.unknown) {
            tree.push(source, wanted, &mut left);
        }
        for wanted in dataset(row, &tree.documents) {
            tree.push(source, wanted, &mut left);
        }
        // The index names the files of the data set, so it comes before them.
        for wanted in files(row, &tree.documents) {
            tree.push(source, wanted, &mut left);
        }
        tree
    }

    fn push(&mut self, source: &Source, wanted: Wanted, left: &mut u64) {
        if self.documents.len() >= MAX_DOCUMENTS {
            if self.unknown.is_empty() {
                self.unknown.push(format!("more than {MAX_DOCUMENTS} documents; the rest is not listed"));
            }
            return;
        }
        let mut document = Document {
            role: wanted.role,
            at: wanted.at.to_string(),
            bytes: None,
            blake3: None,
            recorded: wanted.recorded,
            check: Check::Unchecked,
            content: None,
        };
        let size = source.store.as_ref().map_err(Clone::clone).and_then(|store| store.size(&wanted.at).map_err(|e| e.to_string()));
        match size {
            Err(why) => document.check = Check::Unknown(why),
            Ok(None) if wanted.due => document.check = Check::Missing,
            Ok(None) => return,
            Ok(Some(bytes)) => {
                document.bytes = Some(bytes);
                if wanted.open && bytes <= MAX_DOCUMENT.min(*left) {
                    *left -= bytes;
                    document.open(source, &wanted.at);
                }
            }
        }
        self.documents.push(document);
    }
}

impl Document {
    fn open(&mut self, source: &Source, at: &Ref) {
        match load(source, at, MAX_DOCUMENT) {
            Ok((value, found)) => {
                self.content = Some(Arc::new(value));
                self.judge(found);
            }
            Err(Gap::Absent) => self.check = Check::Missing,
            Err(Gap::Untrusted(why)) => self.check = Check::Unknown(why),
        }
    }

    fn judge(&mut self, found: String) {
        self.check = match &self.recorded {
            None => Check::Unrecorded,
            Some((recorded, place)) if *recorded == found => Check::Same(place.clone()),
            Some((recorded, _)) => Check::Differs { recorded: recorded.clone(), found: found.clone() },
        };
        self.blake3 = Some(found);
    }
}

/// Reads the bytes of the documents that `which` names again and digests them, data files too: what it found, in
/// the order of the tree. `next` is asked before each; it ends early when that says no.
pub fn recheck(source: &Source, tree: &EvidenceTree, which: &dyn Fn(&Document) -> bool, next: &dyn Fn() -> bool) -> EvidenceTree {
    let mut tree = tree.clone();
    for document in tree.documents.iter_mut().filter(|document| which(document)) {
        if !next() {
            break;
        }
        let store = match &source.store {
            Ok(store) => store,
            Err(why) => {
                document.check = Check::Unknown(why.clone());
                continue;
            }
        };
        match Ref::parse(&document.at).and_then(|at| digest(store.as_ref(), &at)) {
            Ok((found, bytes)) => {
                document.bytes = Some(bytes);
                document.judge(found);
            }
            Err(e) if e.kind == ErrorKind::NotFound => document.check = Check::Missing,
            Err(e) => document.check = Check::Unknown(e.to_string()),
        }
    }
    tree
}

impl EvidenceTree {
    /// Takes over what was found when `before` was rechecked, where it tells of the same files: whoever looks on
    /// does not lose the answer when the run's record is read again.
    pub fn carry(&mut self, before: &EvidenceTree) {
        let same = |a: &Document, b: &Document| (&a.at, &a.recorded, a.bytes) == (&b.at, &b.recorded, b.bytes);
        let alike = self.documents.len() == before.documents.len()
            && self.documents.iter().zip(&before.documents).all(|(a, b)| same(a, b) && (a.blake3.is_none() || a.blake3 == b.blake3));
        if before.rechecked.is_some() && alike {
            *self = before.clone();
        }
    }
}

/// The receipts of the gates, with the digests that the ledger recorded.
fn receipts(row: &RunRow, events: &[EventRow]) -> Vec<Wanted> {
    let mut wanted = Vec::new();
    for phase in Phase::RUN {
        let passed = events.iter().rev().find(|e| e.event_type == "GATE_PASSED" && phase_of(e) == Some(phase.as_str()));
        let recorded = passed.and_then(|e| Some((text(&e.detail, "/evidence/receipt_blake3")?.to_owned(), format!("event {}", e.seq))));
        if let Ok(at) = receipt_ref(row, phase) {
            let due = recorded.is_some();
            wanted.push(Wanted { role: format!("{} receipt", phase.as_str()), at, recorded, due, open: true });
        }
        if let (Phase::Replay, Some(run)) = (phase, row.platform_run_id.as_deref().filter(|run| crate::contract::path_safe(run))) {
            let at = Ref::of(&[run, "ofs", "replay_anomalies", &format!("{}.json", row.run_key)]);
            wanted.push(Wanted { role: "replay anomalies".into(), at, recorded: None, due: false, open: true });
        }
    }
    wanted
}

/// What refused gates found, attempt by attempt.
fn refusals(source: &Source, row: &RunRow, unknown: &mut Vec<String>) -> Vec<Wanted> {
    let (Ok(store), Some(run)) = (&source.store, row.platform_run_id.as_deref().filter(|run| crate::contract::path_safe(run))) else {
        return Vec::new();
    };
    match store.list(&Ref::of(&[run, "ofs", "refusals", &row.run_key])) {
        Ok(found) => {
            let role = |at: &Ref| {
                format!("refusal {}", at.as_str().rsplit('/').take(2).collect::<Vec<_>>().into_iter().rev().collect::<Vec<_>>().join("/"))
            };
            found
                .into_iter()
                .take(MAX_DOCUMENTS)
                .map(|(at, _)| Wanted { role: role(&at), at, recorded: None, due: true, open: true })
                .collect()
        }
        Err(error) => {
            unknown.push(format!("what refused gates found: {error}"));
            Vec::new()
        }
    }
}

/// Manifest and index, with the digests that the publication receipt holds.
fn dataset(row: &RunRow, documents: &[Document]) -> Vec<Wanted> {
    let Some(manifest) = row.manifest_ref.as_deref().and_then(|at| Ref::parse(at).ok()) else { return Vec::new() };
    let receipt = documents.iter().find(|d| d.role == "publication receipt").and_then(|d| d.content.as_deref());
    let recorded = |pointer: &str| receipt.and_then(|r| text(r, pointer)).map(|found| (found.to_owned(), "publication receipt".to_owned()));
    let id = row.manifest_id.as_deref().filter(|id| crate::contract::path_safe(id)).unwrap_or_default();
    let index = Ref::of(&[manifest.first(), "ofs", "datasets", id, "index.json"]);
    vec![
        Wanted { role: "manifest".into(), recorded: recorded("/manifest/blake3"), at: manifest, due: true, open: true },
        Wanted { role: "index".into(), recorded: recorded("/index/blake3"), at: index, due: true, open: true },
    ]
}

/// The evidence beside the data and the data files themselves, with the digests that the index names.
fn files(row: &RunRow, documents: &[Document]) -> Vec<Wanted> {
    let Some(index) = documents.iter().find(|d| d.role == "index") else { return Vec::new() };
    let (Some(content), Some((folder, _))) = (index.content.as_deref(), index.at.rsplit_once('/')) else { return Vec::new() };
    let mut wanted = Vec::new();
    for (name, file) in content.get("evidence").and_then(Value::as_object).into_iter().flatten() {
        let given = text(file, "/ref").unwrap_or_default();
        let at = Ref::parse(given).ok().filter(|at| Some(at.first()) == row.platform_run_id.as_deref());
        let at = at.or_else(|| Ref::parse(&format!("{folder}/{given}")).ok());
        let recorded = text(file, "/blake3").map(|d| (d.to_owned(), "index".to_owned()));
        wanted.extend(at.map(|at| Wanted { role: format!("{name} proof"), at, recorded, due: true, open: true }));
    }
    for file in items(content, "/files").take(MAX_DOCUMENTS) {
        let at =
            text(file, "/path").filter(|p| crate::contract::path_safe(p)).and_then(|path| Ref::parse(&format!("{folder}/{path}")).ok());
        let recorded = text(file, "/blake3").map(|d| (d.to_owned(), "index".to_owned()));
        wanted.extend(at.map(|at| Wanted { role: "data".into(), at, recorded, due: true, open: false }));
    }
    wanted
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::console::data::testing::World;

    fn tree(world: &World) -> (Source, EvidenceTree) {
        let (source, row, events) = world.newest();
        let tree = EvidenceTree::load(&source, &row, &events);
        (source, tree)
    }

    fn told(tree: &EvidenceTree) -> Vec<(&str, &str)> {
        tree.documents.iter().map(|d| (d.role.as_str(), d.check.word())).collect()
    }

    #[test]
    fn every_document_of_a_published_run_is_borne_out() {
        let world = World::play("clean");
        let (source, tree) = tree(&world);
        let told = told(&tree);
        for role in [
            "pins receipt",
            "replay receipt",
            "labels receipt",
            "features receipt",
            "publication receipt",
            "manifest",
            "index",
            "replay proof",
        ] {
            assert!(told.contains(&(role, "VERIFIED")), "{role}: {told:?}");
        }
        assert!(told.contains(&("data", "UNCHECKED")));
        let after = recheck(&source, &tree, &|_| true, &|| true);
        assert!(after.documents.iter().filter(|d| d.role == "data").all(|d| d.check == Check::Same("index".into())));
    }

    #[test]
    fn what_was_changed_differs_and_what_is_gone_is_missing() {
        let world = World::play("clean");
        world.damage("replay_completeness", Some("forged"));
        world.damage("label_resolution", None);
        let (_, tree) = tree(&world);
        let told = told(&tree);
        assert!(told.contains(&("replay receipt", "DIFFERS")) && told.contains(&("labels receipt", "MISSING")), "{told:?}");
    }

    #[test]
    fn a_refused_run_has_what_its_gate_found() {
        let (_, tree) = tree(&World::play("archive-gap"));
        let told = told(&tree);
        assert!(
            told.contains(&("refusal 1/replay.json", "UNRECORDED")) && told.contains(&("refusal 1/anomalies.json", "UNRECORDED")),
            "{told:?}"
        );
        assert!(!told.iter().any(|(role, _)| *role == "labels receipt"));
    }
}
