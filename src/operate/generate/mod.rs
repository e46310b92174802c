//! `ofs generate`: a synthetic workspace of any size that behaves like a real one. A few keys make most of
//! the traffic, events tie, arrive late and are delivered twice, bus and archive overlap, labels come days
//! later, are corrected, contradict each other or come after the cut-off.
//!
//! Every partition is drawn from its own stream of random bytes, so the same arguments give the same bytes
//! on any number of threads. Nothing is held but one partition's key weights, and two segments where the
//! archive is sealed on the way.

mod columns;
mod event;
mod frame;
mod label;
mod lane;
mod stream;

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use self::lane::Written;
use crate::pipeline::gate::{Env, Refusal};
use crate::time::Instant;

/// Events of one archive file.
const FILE_EVENTS: u64 = 100_000;

/// First instant of the world: 2026-01-01.
const BEGIN: Instant = Instant(1_767_225_600_000_000);

/// How long the traffic runs, in micros: thirty days, whatever the number of events.
const SPAN: i64 = 30 * 86_400_000_000;

/// The cut-off of the training intent: a month after the traffic.
const TRAINED: Instant = Instant(BEGIN.0 + SPAN + 30 * 86_400_000_000);

/// What to generate.
#[derive(Debug, Clone)]
pub struct Spec {
    /// Deliveries in all; redelivered events count twice.
    pub events: u64,
    /// Partitions of the one topic.
    pub partitions: u32,
    /// Seed of everything random.
    pub seed: u64,
    /// Whether the archive holds everything and the bus nothing any more, as a world needs whose archive is sealed.
    pub archived: bool,
    /// Whether there are columns alone: no raw archive beside its segments, and labels as Parquet.
    pub columns: bool,
    /// The workspace, which must not exist or be empty.
    pub out: PathBuf,
}

/// What was generated.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Generated {
    /// Deliveries.
    pub events: u64,
    /// Label assertions.
    pub labels: u64,
    /// Records of the archive that were sealed.
    pub sealed: u64,
    /// The intents, which both build to DONE.
    pub intents: Vec<PathBuf>,
}

/// Why nothing whole was generated.
#[derive(Debug, thiserror::Error)]
pub enum GenerateError {
    /// The arguments make no world.
    #[error("{0}")]
    Unusable(String),
    /// A file could not be written.
    #[error("{}: {source}", path.display())]
    Io {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The archive could not be sealed.
    #[error("{}", .0.message)]
    Unsealed(Refusal),
}

impl From<Refusal> for GenerateError {
    fn from(refusal: Refusal) -> Self {
        GenerateError::Unsealed(refusal)
    }
}

fn at(path: &Path) -> impl FnOnce(std::io::Error) -> GenerateError + '_ {
    |source| GenerateError::Io { path: path.to_owned(), source }
}

/// A workspace that is about to be written, in a folder that held nothing.
#[derive(Debug)]
pub struct World {
    spec: Spec,
}

impl World {
    /// Holds the numbers and the folder against what can be, and makes the root of the object store, so that
    /// it can be opened.
    ///
    /// # Errors
    /// `Unusable` where the folder holds something or the numbers make no sense, before anything is written;
    /// `Io`, naming the folder.
    pub fn prepare(spec: Spec) -> Result<Self, GenerateError> {
        check(&spec)?;
        let root = spec.out.join("store");
        std::fs::create_dir_all(&root).map_err(at(&root))?;
        Ok(World { spec })
    }

    /// What is written.
    pub fn spec(&self) -> &Spec {
        &self.spec
    }

    /// Writes the workspace, and in the store of `sealing`, which is its own, the segments of its archive: the
    /// same as sealing it afterwards comes to. `written` counts events as they are written.
    ///
    /// # Errors
    /// `Unusable` for the store of another workspace; `Io`, naming the file; `Unsealed`.
    pub fn write(&self, sealing: Option<&Env>, written: &AtomicU64) -> Result<Generated, GenerateError> {
        let spec = &self.spec;
        if let Some(env) = sealing {
            let root = spec.out.join("store");
            let own = root.canonicalize().map_err(at(&root))?;
            if env.store_root.as_ref() != Some(&own) {
                return Err(GenerateError::Unusable(format!("{} is not the object store that is configured", root.display())));
            }
        }
        if spec.columns && sealing.is_none() {
            return Err(GenerateError::Unusable("without its raw records an archive must be sealed".into()));
        }
        let next = AtomicU32::new(0);
        let threads = std::thread::available_parallelism().map_or(1, usize::from).min(spec.partitions as usize);
        let work = || {
            let mut lanes = Vec::new();
            loop {
                let partition = next.fetch_add(1, Ordering::Relaxed);
                if partition >= spec.partitions {
                    return Ok(lanes);
                }
                lanes.push(lane::write(spec, sealing, partition, written)?);
            }
        };
        let results: Vec<Result<Vec<Written>, GenerateError>> = std::thread::scope(|scope| {
            let workers: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
            let gone = |_| Err(GenerateError::Unusable("a writer thread ended without an answer".into()));
            workers.into_iter().map(|worker| worker.join().unwrap_or_else(gone)).collect()
        });
        let mut lanes: Vec<Written> = Vec::new();
        for result in results {
            lanes.extend(result?);
        }
        lanes.sort_by_key(|lane| lane.partition);
        let intents = frame::write(spec, &lanes)?;
        let sum = |of: fn(&Written) -> u64| lanes.iter().map(of).sum();
        Ok(Generated { events: spec.events, labels: sum(|lane| lane.labels), sealed: sum(|lane| lane.sealed), intents })
    }
}

fn check(spec: &Spec) -> Result<(), GenerateError> {
    let unusable = |message: String| Err(GenerateError::Unusable(message));
    if spec.partitions == 0 || spec.partitions > 4_096 {
        return unusable(format!("{} partitions: give 1 to 4,096", spec.partitions));
    }
    if spec.events < u64::from(spec.partitions) || spec.events > 10_000_000_000 {
        return unusable(format!("{} events: give at least one a partition, and at most 10,000,000,000", spec.events));
    }
    match spec.out.read_dir() {
        Ok(mut entries) => match entries.next() {
            Some(_) => unusable(format!("{} is not empty; nothing was written", spec.out.display())),
            None => Ok(()),
        },
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Err(e) => Err(at(&spec.out)(e)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    fn spec(out: &Path, seed: u64) -> Spec {
        Spec { events: 2_000, partitions: 3, seed, archived: false, columns: false, out: out.join("w") }
    }

    fn bytes(root: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
        let mut files = BTreeMap::new();
        let mut open = vec![root.to_owned()];
        while let Some(folder) = open.pop() {
            for entry in folder.read_dir().unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    open.push(path);
                } else {
                    files.insert(path.strip_prefix(root).unwrap().to_owned(), std::fs::read(&path).unwrap());
                }
            }
        }
        files
    }

    #[test]
    fn one_seed_is_one_world_and_another_seed_another() {
        let (a, b, c) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        for (dir, seed) in [(&a, 7), (&b, 7), (&c, 8)] {
            let counted = AtomicU64::new(0);
            let done = World::prepare(spec(dir.path(), seed)).unwrap().write(None, &counted).unwrap();
            assert_eq!((done.events, counted.load(Ordering::Relaxed)), (2_000, 2_000));
            assert!((2_700..3_300).contains(&done.labels), "{}", done.labels);
        }
        let (a, b, c) = (bytes(a.path()), bytes(b.path()), bytes(c.path()));
        assert_eq!(a, b);
        assert_eq!(a.keys().collect::<Vec<_>>(), c.keys().collect::<Vec<_>>());
        assert_ne!(a, c);
    }

    /// What became known of the events of a world until the training intent's cut-off, read from its files: how many
    /// have a label and how many have several.
    fn known(labels: &BTreeMap<PathBuf, Vec<u8>>, asof: &str) -> (usize, usize) {
        let mut latest: BTreeMap<String, (String, Vec<String>)> = BTreeMap::new();
        for (path, text) in labels.iter().filter(|(path, _)| path.starts_with("labels")) {
            assert_eq!(path.extension().unwrap(), "jsonl");
            for line in std::str::from_utf8(text).unwrap().lines() {
                let line: serde_json::Value = serde_json::from_str(line).unwrap();
                let text = |at: &str| line.pointer(at).unwrap().as_str().unwrap().to_owned();
                let seen = text("/observed_time");
                // In the normal form the order of the texts is that of the instants.
                if seen.as_str() <= asof {
                    let (last, values) = latest.entry(text("/label_subject_key/event_id")).or_default();
                    if seen > *last {
                        (*last, *values) = (seen.clone(), Vec::new());
                    }
                    if seen == *last {
                        values.push(text("/label_value"));
                    }
                }
            }
        }
        let conflicts = latest.values().filter(|(_, values)| values.iter().any(|v| *v != values[0])).count();
        (latest.len() - conflicts, conflicts)
    }

    #[test]
    fn the_training_intent_asks_no_more_of_a_small_world_than_it_has() {
        let (mut lowered, mut usual) = (0, 0);
        for events in 1..=12 {
            for seed in 0..40 {
                let dir = tempfile::tempdir().unwrap();
                let spec =
                    Spec { events, partitions: events.min(4) as u32, seed, archived: false, columns: false, out: dir.path().join("w") };
                World::prepare(spec).unwrap().write(None, &AtomicU64::new(0)).unwrap();
                let files = bytes(&dir.path().join("w"));
                let train: serde_json::Value = serde_json::from_slice(&files[Path::new("intents/train.json")]).unwrap();
                let (resolved, conflicts) = known(&files, train["label_basis"]["label_asof_utc"].as_str().unwrap());
                let policy = &train["filters"]["label_coverage_policy"];
                let least = policy["min_coverage_by_label_type"][label::TYPE].as_f64().unwrap();
                let most = policy["max_conflict_ratio"].as_f64().unwrap();
                let share = |n: usize| n as f64 / events as f64;
                assert!(share(resolved) >= least && share(conflicts) <= most, "{events} events, seed {seed}: {resolved} and {conflicts}");
                assert!((least - 0.9).abs() < 1e-9 || share(resolved) < 0.9, "{events} events, seed {seed}: {least}");
                assert!((most - 0.05).abs() < 1e-9 || share(conflicts) > 0.05, "{events} events, seed {seed}: {most}");
                *(if least < 0.9 { &mut lowered } else { &mut usual }) += 1;
            }
        }
        assert!(lowered > 40 && usual > 200, "{lowered} {usual}");
    }

    #[test]
    fn what_makes_no_world_is_refused_before_anything_is_written() {
        let dir = tempfile::tempdir().unwrap();
        let refused = |change: &dyn Fn(&mut Spec)| {
            let mut spec = spec(dir.path(), 1);
            change(&mut spec);
            World::prepare(spec).unwrap_err().to_string()
        };
        assert!(refused(&|s| s.partitions = 0).contains("0 partitions"));
        assert!(refused(&|s| s.partitions = 5_000).contains("5000 partitions"));
        assert!(refused(&|s| s.events = 2).contains("at least one a partition"));
        assert!(!dir.path().join("w").exists());
        std::fs::create_dir(dir.path().join("w")).unwrap();
        std::fs::write(dir.path().join("w/mine"), b"").unwrap();
        assert!(refused(&|_| ()).contains("is not empty"));
    }
}
