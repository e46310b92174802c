//! Whether everything that a build needs is usable here, and what killed processes left behind.
//!
//! Looking writes nothing but probes that it removes again: one object in staging (the store's promise
//! about conditional creates cannot be read off it), and one file in the folders for logs and scratch.

mod leftover;

use std::path::Path;
use std::sync::Arc;

pub use leftover::{Leftover, OLD_SECONDS, leftovers, sweep};
use serde_json::{Value, json};

use crate::config::Config;
use crate::contract::{ownership, path_safe, profile};
use crate::ledger::{Ledger, RunFilter};
use crate::source::labels;
use crate::store::{LocalStore, Ref, self_test};
use crate::time::Clock;

/// How many of the newest runs have their chain of events checked.
const CHAINS: u64 = 20;

/// How a resource is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// It can be used.
    Ok,
    /// It is not there, which is lawful.
    Absent,
    /// It is needed and cannot be used.
    Broken,
}

impl State {
    /// The stable name.
    pub fn as_str(self) -> &'static str {
        match self {
            State::Ok => "OK",
            State::Absent => "ABSENT",
            State::Broken => "BROKEN",
        }
    }
}

/// One thing that a build needs.
#[derive(Debug, Clone)]
pub struct Resource {
    /// What it is.
    pub name: &'static str,
    /// What the configuration says.
    pub configured: String,
    /// The back end that this means.
    pub backend: String,
    /// Whether this version has that back end.
    pub supported: bool,
    /// How it is.
    pub state: State,
    /// What was found.
    pub detail: String,
}

impl Resource {
    fn of(name: &'static str, configured: impl Into<String>, backend: impl Into<String>, found: Result<String, String>) -> Self {
        let (state, detail) = found.map_or_else(|broken| (State::Broken, broken), |detail| (State::Ok, detail));
        Resource { name, configured: configured.into(), backend: backend.into(), supported: true, state, detail }
    }

    fn absent(mut self, detail: impl Into<String>) -> Self {
        (self.state, self.detail) = (State::Absent, detail.into());
        self
    }

    /// As in `ofs.doctor.v1`.
    pub fn to_json(&self) -> Value {
        json!({"resource": self.name, "configured": self.configured, "backend": self.backend, "supported": self.supported, "state": self.state.as_str(), "detail": self.detail})
    }
}

/// Looks at every resource.
pub fn examine(config: &Config, clock: &Arc<dyn Clock>) -> Vec<Resource> {
    vec![
        store(config),
        bus(config),
        timeline(config),
        features(config),
        ownership_file(config),
        ledger(config, clock),
        logs(config),
        scratch(config),
        threads(config),
        memory(config),
        telemetry(),
    ]
}

fn setting(config: &Config, key: &'static str) -> String {
    config.text("paths", key).to_owned()
}

fn store(config: &Config) -> Resource {
    let root = setting(config, "object_store");
    if let Some((scheme, _)) = root.split_once("://") {
        let missing = Err("STORE_UNSUPPORTED: this version supports a local directory only".into());
        return Resource { supported: false, ..Resource::of("store", &root, scheme, missing) };
    }
    let found = LocalStore::open(&config.path("object_store")).map_err(|e| e.to_string()).and_then(|store| store_state(config, &store));
    Resource::of("store", root, "local directory", found)
}

fn store_state(config: &Config, store: &LocalStore) -> Result<String, String> {
    let runs = folders(store.root())?;
    let active = config.text("workspace", "platform_run_id");
    if !active.is_empty() && (!path_safe(active) || !runs.iter().any(|run| run == active)) {
        return Err(format!("the active run {active} is not in the store; it holds {} run(s)", runs.len()));
    }
    // Without an active run, one in which this program has written before will do.
    let written = || runs.iter().find(|run| path_safe(run) && store.root().join(run).join("ofs").is_dir()).map(String::as_str);
    let Some(run) = Some(active).filter(|run| !run.is_empty()).or_else(written) else {
        return Ok(format!("readable, {} run(s); writing not tested, as no active run is configured", runs.len()));
    };
    let kept = self_test(store, run, "doctor", &format!("p{}", std::process::id()))
        .map_err(|e| format!("readable, but cannot be written: {e}"))?;
    // Removed only where it is empty: another doctor may be at work in it.
    let _ = std::fs::remove_dir(store.root().join(Ref::of(&[run, "ofs", "staging", "doctor"]).as_str()));
    if kept {
        Ok(format!("readable, writable, a second create is refused; {} run(s)", runs.len()))
    } else {
        Err("STORE_NO_CONDITIONAL_CREATE: a second create of one name was not refused".into())
    }
}

fn folders(path: &Path) -> Result<Vec<String>, String> {
    let entries = std::fs::read_dir(path).map_err(|e| format!("{}: {e}", path.display()))?;
    let mut names: Vec<String> = entries.flatten().filter(|e| e.path().is_dir()).filter_map(|e| e.file_name().into_string().ok()).collect();
    names.sort();
    Ok(names)
}

fn bus(config: &Config) -> Resource {
    let path = config.path("bus");
    let resource = |found| Resource::of("bus", setting(config, "bus"), "file bus", found);
    match path.try_exists() {
        Ok(false) => resource(Ok(String::new())).absent("serves nothing; the archive alone must prove every offset"),
        _ => resource(folders(&path).map(|topics| format!("{} topic(s)", topics.len()))),
    }
}

fn timeline(config: &Config) -> Resource {
    let opened = labels::open(&config.path("labels")).map_err(|e| format!("{}: {e}", e.code));
    let backend = opened.as_ref().map_or("unknown", |t| t.describe()).to_owned();
    let found =
        opened.and_then(|t| t.parts().map_err(|e| format!("{}: {e}", e.code))).map(|parts| format!("readable, {} piece(s)", parts.len()));
    Resource::of("labels", setting(config, "labels"), backend, found)
}

fn features(config: &Config) -> Resource {
    let path = config.path("features");
    let found = std::fs::metadata(&path)
        .map_err(|e| e.to_string())
        .and_then(|data| if data.len() > profile::MAX_BYTES { Err("larger than its limit".to_owned()) } else { Ok(()) })
        .and_then(|()| std::fs::read_to_string(&path).map_err(|e| e.to_string()))
        .and_then(|text| profile::parse(&text).map_err(|p| format!("{}: {p}", p.code)))
        .map(|p| format!("{}@{}, {} group(s), {} label type(s)", p.policy_id, p.revision, p.groups.len(), p.vocabulary.len()));
    Resource::of("features", setting(config, "features"), "YAML file", found)
}

fn ownership_file(config: &Config) -> Resource {
    let resource = |found| Resource::of("ownership", setting(config, "ownership"), "YAML file", found);
    match std::fs::read_to_string(config.path("ownership")) {
        Ok(text) => resource(ownership::check(&text).map(|()| "grants the manifest".to_owned()).map_err(|p| format!("{}: {p}", p.code))),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => resource(Ok(String::new())).absent("the built-in boundary holds"),
        Err(e) => resource(Err(e.to_string())),
    }
}

fn ledger(config: &Config, clock: &Arc<dyn Clock>) -> Resource {
    let path = config.path("ledger");
    let resource = |found| Resource::of("ledger", setting(config, "ledger"), "SQLite", found);
    if matches!(path.try_exists(), Ok(false)) {
        return resource(Ok(String::new())).absent("made by the first run");
    }
    let found = Ledger::open_read_only(&path, clock.clone(), "doctor").map_err(|e| format!("{}: {e}", e.code())).and_then(|ledger| {
        let failed = |e: crate::ledger::LedgerError| format!("{}: {e}", e.code());
        let version = ledger.schema_version().map_err(failed)?;
        let runs = ledger.runs(&RunFilter { limit: Some(CHAINS), ..RunFilter::default() }).map_err(failed)?;
        for run in &runs {
            if let Some(broken) = ledger.verify_chain(&run.run_key).map_err(failed)?.into_iter().next() {
                return Err(format!("run {}: {broken}", run.run_key));
            }
        }
        let writable = if ledger.immutable() { ", cannot be written" } else { "" };
        Ok(format!("schema version {version}, chains of the newest {} run(s) unbroken{writable}", runs.len()))
    });
    resource(found)
}

/// Whether a file can be made in a folder; it is removed again.
fn probe(folder: &Path) -> Result<(), String> {
    let file = folder.join(format!(".ofs-doctor-{}", std::process::id()));
    std::fs::File::create_new(&file).and_then(|_| std::fs::remove_file(&file)).map_err(|e| format!("cannot be written: {e}"))
}

fn logs(config: &Config) -> Resource {
    let path = config.path("logs");
    let resource = |found| Resource::of("logs", setting(config, "logs"), "daily files", found);
    if path.is_dir() {
        resource(probe(&path).map(|()| "writable".into()))
    } else {
        resource(Ok(String::new())).absent("made when first needed")
    }
}

fn scratch(config: &Config) -> Resource {
    let path = config.scratch();
    let configured = match config.text("paths", "scratch") {
        "" => format!("{} (the system's)", path.display()),
        text => text.to_owned(),
    };
    let resource = |found| Resource::of("scratch", configured.clone(), "local directory", found);
    if matches!(path.try_exists(), Ok(false)) {
        return resource(Ok(String::new())).absent("made when first needed");
    }
    resource(
        probe(&path)
            .map(|()| free(&path).map_or("writable".to_owned(), |n| format!("writable, {} MiB free", crate::text::grouped(n >> 20)))),
    )
}

/// Bytes that this user may still write in a folder.
#[cfg(unix)]
fn free(path: &Path) -> Option<u64> {
    let stat = rustix::fs::statvfs(path).ok()?;
    stat.f_bavail.checked_mul(stat.f_frsize)
}

#[cfg(not(unix))]
fn free(_: &Path) -> Option<u64> {
    None
}

fn threads(config: &Config) -> Resource {
    let here = std::thread::available_parallelism().map_or(1, usize::from);
    Resource::of(
        "threads",
        config.int("limits", "threads").to_string(),
        "this process",
        Ok(format!("{} used, {here} available", config.workers())),
    )
}

fn memory(config: &Config) -> Resource {
    let detail = format!("spills beyond {} MiB; stays within {} MiB", config.memory() >> 20, config.memory_bound() >> 20);
    Resource::of("memory", config.text("limits", "memory"), "this process", Ok(detail))
}

/// Whether this program can tell a collector of its builds, and whether it is asked to. No build needs it.
fn telemetry() -> Resource {
    const NAMES: [&str; 3] = ["OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT"];
    let set = NAMES.into_iter().find(|name| std::env::var_os(name).is_some_and(|value| !value.is_empty()));
    let resource = |found| Resource::of("telemetry", set.unwrap_or_default(), "OTLP over HTTP", found);
    let idle = |why: &str| resource(Ok(String::new())).absent(why);
    match set {
        _ if !cfg!(feature = "otlp") => idle("nothing is sent: this program was built without the feature `otlp`"),
        None => idle("nothing is sent: no endpoint is set"),
        Some(_) => resource(Ok("leaves after each build; `ofs report` says what became of it".into())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::SystemClock;
    use std::collections::BTreeMap;

    fn states(config: &Config) -> BTreeMap<&'static str, (State, bool)> {
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        examine(config, &clock).into_iter().map(|r| (r.name, (r.state, r.supported))).collect()
    }

    #[test]
    fn each_resource_says_whether_it_can_be_used() {
        let dir = tempfile::tempdir().unwrap();
        for (path, bytes) in crate::contract::embedded::below("fixtures/flights-day") {
            let path = dir.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, bytes).unwrap();
        }
        let mut config = Config::load(Some(dir.path()), Path::new("/"), &BTreeMap::new()).unwrap();
        let fresh = states(&config);
        for (name, (state, supported)) in &fresh {
            let absent = matches!(*name, "ledger" | "logs" | "ownership" | "telemetry");
            assert_eq!((*state, *supported), (if absent { State::Absent } else { State::Ok }, true), "{name}");
        }
        config.set_flag("workspace", "platform_run_id", "platform_20130101T000000Z").unwrap();
        assert_eq!(states(&config)["store"].0, State::Ok);
        // The probe of the store is gone again.
        assert!(!dir.path().join("store/platform_20130101T000000Z/ofs/staging/doctor").exists());
        for (section, key, value, broken) in [
            ("workspace", "platform_run_id", "another_run", "store"),
            ("paths", "object_store", "s3://bucket/prefix", "store"),
            ("paths", "labels", "nowhere", "labels"),
            ("paths", "features", "labels/assertions.jsonl", "features"),
            ("paths", "ownership", "authority/features_v0.yaml", "ownership"),
            ("paths", "ledger", "authority/features_v0.yaml", "ledger"),
            ("paths", "scratch", "authority/features_v0.yaml", "scratch"),
        ] {
            let mut config = config.clone();
            config.set_flag(section, key, value).unwrap();
            let after = states(&config);
            assert_eq!(after[broken], (State::Broken, !value.contains("://")), "{key} = {value}");
            assert_eq!(after.values().filter(|(s, _)| *s == State::Broken).count(), 1, "{key} = {value}");
        }
    }
}
