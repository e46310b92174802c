//! What killed processes left behind: staging folders, the store's unfinished files, segments that no sidecar vouches
//! for, scratch folders.
//!
//! Links are never followed, so nothing outside the store and the scratch folder can be listed or removed.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use serde_json::{Value, json};

use crate::config::Config;
use crate::engine::scratch::PREFIX;
use crate::ledger::{Ledger, LedgerError, RunFilter, Status};
use crate::store::temporary;
use crate::time::Instant;

/// Age beyond which a leftover may be swept.
pub const OLD_SECONDS: i64 = 86_400;

/// Something that a process left behind, or still uses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Leftover {
    /// `staging`, `temporary`, `segment` or `scratch`.
    pub kind: &'static str,
    /// Where it lies.
    pub path: PathBuf,
    /// Its size.
    pub bytes: u64,
    /// Seconds since anything in it changed.
    pub age_seconds: i64,
    /// Key and status of the run that may still need it: a draft that waits for its publication is no litter.
    pub needed_by: Option<(String, Status)>,
    /// Whether it was removed, or why it could not be.
    pub swept: Option<Result<(), String>>,
}

impl Leftover {
    fn of(kind: &'static str, path: PathBuf, now: Instant, live: &[(String, Status)]) -> Self {
        let (bytes, newest) = weigh(&path);
        let name = path.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
        let needed_by = live.iter().find(|(key, _)| name.contains(key.as_str())).cloned();
        let age_seconds = now.0.saturating_sub(newest) / 1_000_000;
        Leftover { kind, path, bytes, age_seconds, needed_by, swept: None }
    }

    /// Whether a sweep removes it.
    pub fn sweepable(&self) -> bool {
        self.needed_by.is_none() && self.age_seconds > OLD_SECONDS
    }

    /// As in `ofs.doctor.v1`.
    pub fn to_json(&self) -> Value {
        let (key, status) = self.needed_by.as_ref().map(|(key, status)| (key, status)).unzip();
        json!({
            "kind": self.kind, "path": self.path.display().to_string(), "bytes": self.bytes, "age_seconds": self.age_seconds, "needed_by": status, "run_key": key,
            "sweepable": self.sweepable(), "swept": matches!(self.swept, Some(Ok(()))), "error": self.swept.as_ref().and_then(|s| s.as_ref().err()),
        })
    }
}

/// Bytes and newest change (micros) of a file or of everything below a folder.
fn weigh(path: &Path) -> (u64, i64) {
    let Ok(data) = path.symlink_metadata() else { return (0, i64::MAX) };
    let changed = data.modified().ok().and_then(|t| t.duration_since(UNIX_EPOCH).ok()).and_then(|d| i64::try_from(d.as_micros()).ok());
    let mut sum = (if data.is_file() { data.len() } else { 0 }, changed.unwrap_or(i64::MAX));
    if data.is_dir() {
        for child in children(path) {
            let (bytes, newest) = weigh(&child);
            sum = (sum.0 + bytes, sum.1.max(newest));
        }
    }
    sum
}

fn children(folder: &Path) -> Vec<PathBuf> {
    let mut paths: Vec<PathBuf> = fs::read_dir(folder).map(|d| d.flatten().map(|e| e.path()).collect()).unwrap_or_default();
    paths.sort();
    paths
}

fn holds_a_file(path: &Path) -> bool {
    if real_folder(path) { children(path).iter().any(|child| holds_a_file(child)) } else { true }
}

/// A folder that is no link to one.
fn real_folder(path: &Path) -> bool {
    path.symlink_metadata().is_ok_and(|d| d.is_dir())
}

fn named(path: &Path, test: impl Fn(&str) -> bool) -> bool {
    path.file_name().and_then(|n| n.to_str()).is_some_and(test)
}

/// Everything below `*/ofs/staging/`, unfinished files of the store's back end below `*/ofs/`, segments below
/// `*/ofs/sealed/` whose sidecar was never written, which no build reads, and scratch folders. Runs that have not ended mark theirs as needed.
///
/// # Errors
/// A ledger that is there and cannot say which runs have ended.
pub fn leftovers(config: &Config, ledger: Option<&Ledger>, now: Instant) -> Result<Vec<Leftover>, LedgerError> {
    let runs = ledger.map_or(Ok(Vec::new()), |l| l.runs(&RunFilter::default()))?;
    let unended = |status| matches!(status, Status::Queued | Status::Running | Status::PublishPending);
    let live: Vec<(String, Status)> = runs.into_iter().filter(|r| unended(r.status)).map(|r| (r.run_key, r.status)).collect();
    let mut found = Vec::new();
    let root = config.path("object_store");
    if !config.text("paths", "object_store").contains("://") {
        for own in children(&root).into_iter().filter(|run| real_folder(run)).map(|run| run.join("ofs")).filter(|own| real_folder(own)) {
            let staging = own.join("staging");
            if real_folder(&staging) {
                // A folder without a file is nothing that a store holds.
                let held = children(&staging).into_iter().filter(|path| holds_a_file(path));
                found.extend(held.map(|path| Leftover::of("staging", path, now, &live)));
            }
            below(&own, &staging, &mut |path| {
                let kind = if named(&path, temporary) { "temporary" } else { "segment" };
                if kind == "temporary" || path.starts_with(own.join("sealed")) && orphan(&path) {
                    found.push(Leftover::of(kind, path, now, &live));
                }
            });
        }
    }
    let scratch = children(&config.scratch()).into_iter().filter(|p| real_folder(p) && named(p, |n| n.starts_with(PREFIX)));
    found.extend(scratch.map(|path| Leftover::of("scratch", path, now, &live)));
    Ok(found)
}

/// Hands on every file below a folder.
fn below(folder: &Path, except: &Path, take: &mut dyn FnMut(PathBuf)) {
    for path in children(folder).into_iter().filter(|p| p != except) {
        if real_folder(&path) { below(&path, except, take) } else { take(path) }
    }
}

/// A segment's file without its sidecar: whoever sealed it ended between the two.
fn orphan(path: &Path) -> bool {
    path.extension().is_some_and(|e| e == "parquet") && !path.with_extension("json").exists()
}

/// Removes what is old and needed by no run; each says how that went.
pub fn sweep(leftovers: &mut [Leftover]) {
    for leftover in leftovers.iter_mut().filter(|l| l.sweepable()) {
        let path = &leftover.path;
        let removed = if real_folder(path) { fs::remove_dir_all(path) } else { fs::remove_file(path) };
        leftover.swept = Some(removed.map_err(|e| e.to_string()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    fn config(root: &Path) -> Config {
        let mut config = Config::load(Some(root), Path::new("/"), &BTreeMap::new()).unwrap();
        config.set_flag("paths", "scratch", "scratch").unwrap();
        config
    }

    fn put(root: &Path, path: &str) {
        let path = root.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, b"12345").unwrap();
    }

    #[test]
    fn leftovers_are_listed_and_only_old_ones_that_no_run_needs_are_swept() {
        let dir = tempfile::tempdir().unwrap();
        for path in [
            "store/R/ofs/staging/aaaa/part",
            "store/R/ofs/staging/bbbb/part",
            "store/R/ofs/manifests/m.json#1",
            "store/R/ofs/manifests/m.json",
            "store/R/archive/x#1",
            "store/R/ofs/staging/dddd/part",
            "store/R/ofs/sealed/topic=t/segment-0-1.parquet",
            "store/R/ofs/sealed/topic=t/segment-0-1.json",
            "store/R/ofs/sealed/topic=t/segment-2-3.parquet",
            "store/R/ofs/datasets/dm_1/part-00000.parquet",
            "scratch/ofs-scratch-cccc/events-0",
            "scratch/other/x",
        ] {
            put(dir.path(), path);
        }
        fs::remove_file(dir.path().join("store/R/ofs/staging/dddd/part")).unwrap();
        let config = config(dir.path());
        let clock = std::sync::Arc::new(crate::time::SystemClock);
        let ledger = Ledger::open(&dir.path().join("state/ledger.db"), clock.clone(), "t").unwrap();
        let text = |t: &str| t.to_owned();
        let new = crate::ledger::NewRun {
            run_key: text("bbbb"),
            request_id: text("request.b"),
            request_hash: text("h"),
            platform_run_id: text("R"),
            intent_kind: text("dataset_build"),
            intent: json!({}),
            provenance: json!({}),
        };
        ledger.submit(&new).unwrap();
        let now = crate::time::Clock::now(clock.as_ref());
        let mut young = leftovers(&config, Some(&ledger), now).unwrap();
        let shown: Vec<_> = young.iter().map(|l| (l.kind, l.bytes, l.needed_by.clone())).collect();
        assert_eq!(
            shown,
            [
                ("staging", 5, None),
                ("staging", 5, Some((text("bbbb"), Status::Queued))),
                ("temporary", 5, None),
                ("segment", 5, None),
                ("scratch", 5, None)
            ],
            "{young:?}"
        );
        sweep(&mut young);
        assert!(young.iter().all(|l| l.swept.is_none() && l.path.exists()));
        let mut old = leftovers(&config, Some(&ledger), now.plus_micros(2 * OLD_SECONDS * 1_000_000)).unwrap();
        sweep(&mut old);
        let swept: Vec<bool> = old.iter().map(|l| l.swept == Some(Ok(())) && !l.path.exists()).collect();
        assert_eq!(swept, [true, false, true, true, true]);
        for path in ["store/R/ofs/manifests/m.json", "store/R/archive/x#1", "scratch/other/x", "store/R/ofs/staging/bbbb/part"] {
            assert!(dir.path().join(path).exists(), "{path}");
        }
    }

    #[cfg(unix)]
    #[test]
    fn links_are_never_followed() {
        let dir = tempfile::tempdir().unwrap();
        put(dir.path(), "outside/staging/x/part");
        put(dir.path(), "outside/n#1");
        fs::create_dir_all(dir.path().join("store/R")).unwrap();
        std::os::unix::fs::symlink(dir.path().join("outside"), dir.path().join("store/R/ofs")).unwrap();
        fs::create_dir_all(dir.path().join("scratch")).unwrap();
        std::os::unix::fs::symlink(dir.path().join("outside"), dir.path().join("scratch/ofs-scratch-x")).unwrap();
        assert_eq!(leftovers(&config(dir.path()), None, Instant(i64::MAX)).unwrap(), []);
    }
}
