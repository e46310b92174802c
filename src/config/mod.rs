//! Configuration with origins: flag > environment > `ofs.toml` > default (`interface` 1).

mod settings;
mod truths;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
pub use settings::{Kind, SETTINGS, Setting};

use crate::text::nearest;

/// Where a value came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// The built-in default.
    Default,
    /// The workspace's `ofs.toml`.
    File,
    /// An environment variable, by name.
    Environment(String),
    /// A command-line flag.
    Flag,
}

impl std::fmt::Display for Origin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Origin::Default => f.write_str("default"),
            Origin::File => f.write_str("ofs.toml"),
            Origin::Environment(name) => write!(f, "environment {name}"),
            Origin::Flag => f.write_str("flag"),
        }
    }
}

/// Why a configuration cannot be used (exit code 2).
#[derive(Debug, Clone, thiserror::Error)]
#[error("{place}: {message}")]
pub struct ConfigError {
    /// The file or variable.
    pub place: String,
    /// What is wrong and what would be right.
    pub message: String,
}

/// A resolved configuration: every setting has a value and an origin.
#[derive(Debug, Clone)]
pub struct Config {
    /// The workspace directory.
    pub workspace: PathBuf,
    /// How the workspace was chosen.
    pub workspace_origin: Origin,
    values: BTreeMap<(&'static str, &'static str), (toml::Value, Origin)>,
}

/// Launcher policy: versioned, recorded in receipts (O135, O136).
#[derive(Debug, Clone)]
pub struct Launcher {
    /// Policy id.
    pub policy_id: String,
    /// Revision.
    pub revision: String,
    /// Publish-only retries that one run may use.
    pub max_publish_retry_attempts: u32,
    /// Seconds that a lease lives without a heartbeat.
    pub lease_seconds: u64,
    /// Seconds without progress after which a RUNNING run counts as stuck.
    pub stall_seconds: u64,
    /// Seconds that a paused run may keep its lease.
    pub max_pause_seconds: u64,
}

impl Config {
    /// Finds the workspace and resolves every setting. `environment` is passed in so that tests need
    /// not change the process's own.
    ///
    /// # Errors
    /// Unknown keys (naming the nearest known one), values of the wrong kind or out of range, a path to be written
    /// inside an input.
    pub fn load(flag: Option<&Path>, current: &Path, environment: &BTreeMap<String, String>) -> Result<Self, ConfigError> {
        let (workspace, workspace_origin) = find_workspace(flag, current, environment);
        let mut config = Config { workspace, workspace_origin, values: BTreeMap::new() };
        for setting in SETTINGS {
            let value = setting.default_value().map_err(|message| ConfigError { place: setting.path(), message })?;
            config.values.insert((setting.section, setting.key), (value, Origin::Default));
        }
        config.read_file()?;
        config.read_environment(environment)?;
        config.apart()?;
        Ok(config)
    }

    fn read_file(&mut self) -> Result<(), ConfigError> {
        let path = self.workspace.join("ofs.toml");
        let text = match std::fs::read_to_string(&path) {
            Ok(text) => text,
            Err(e) if matches!(e.kind(), std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory) => return Ok(()),
            Err(e) => return Err(ConfigError { place: path.display().to_string(), message: e.to_string() }),
        };
        let place = |message: String| ConfigError { place: "ofs.toml".into(), message };
        let table: toml::Table = text.parse().map_err(|e: toml::de::Error| place(e.to_string().trim_end().to_owned()))?;
        for (section, entries) in table {
            let known: Vec<&Setting> = SETTINGS.iter().filter(|s| s.section == section).collect();
            if known.is_empty() {
                return Err(place(match entries {
                    toml::Value::Table(_) => format!("unknown section [{section}]; {}", near_section(&section)),
                    _ => format!("unknown key `{section}` outside of any section; {}", near_key(&section, &[])),
                }));
            }
            let toml::Value::Table(entries) = entries else { return Err(place(format!("[{section}] must be a table"))) };
            for (key, value) in entries {
                let Some(setting) = known.iter().find(|s| s.key == key) else {
                    return Err(place(format!("unknown key `{key}` in [{section}]; {}", near_key(&key, &known))));
                };
                let value = setting.check(value).map_err(|m| place(format!("{}: {m}", setting.path())))?;
                self.values.insert((setting.section, setting.key), (value, Origin::File));
            }
        }
        Ok(())
    }

    fn read_environment(&mut self, environment: &BTreeMap<String, String>) -> Result<(), ConfigError> {
        for setting in SETTINGS {
            let name = setting.variable();
            let Some(text) = environment.get(&name) else { continue };
            let value = setting.parse(text).map_err(|message| ConfigError { place: name.clone(), message })?;
            self.values.insert((setting.section, setting.key), (value, Origin::Environment(name)));
        }
        // The colour convention of terminals is an environment setting like any other.
        Ok(())
    }

    /// Overrides one setting from a flag.
    ///
    /// # Errors
    /// An unknown setting or a value that does not fit.
    pub fn set_flag(&mut self, section: &str, key: &str, text: &str) -> Result<(), ConfigError> {
        let fail = |message: String| ConfigError { place: format!("{section}.{key}"), message };
        let setting = SETTINGS.iter().find(|s| s.section == section && s.key == key).ok_or_else(|| fail("unknown setting".into()))?;
        let value = setting.parse(text).map_err(fail)?;
        self.values.insert((setting.section, setting.key), (value, Origin::Flag));
        Ok(())
    }

    fn value(&self, section: &'static str, key: &'static str) -> Option<&toml::Value> {
        self.values.get(&(section, key)).map(|(value, _)| value)
    }

    /// A text setting.
    pub fn text(&self, section: &'static str, key: &'static str) -> &str {
        self.value(section, key).and_then(toml::Value::as_str).unwrap_or_default()
    }

    /// A whole-number setting.
    pub fn int(&self, section: &'static str, key: &'static str) -> u64 {
        self.value(section, key).and_then(toml::Value::as_integer).and_then(|n| u64::try_from(n).ok()).unwrap_or_default()
    }

    /// A seconds setting, which may be fractional.
    pub fn seconds(&self, section: &'static str, key: &'static str) -> f64 {
        let value = self.value(section, key);
        value.and_then(toml::Value::as_float).or_else(|| value.and_then(toml::Value::as_integer).map(|n| n as f64)).unwrap_or_default()
    }

    /// A yes-or-no setting.
    pub fn flag(&self, section: &'static str, key: &'static str) -> bool {
        self.value(section, key).and_then(toml::Value::as_bool).unwrap_or_default()
    }

    /// A list setting.
    pub fn list(&self, section: &'static str, key: &'static str) -> Vec<String> {
        self.value(section, key)
            .and_then(toml::Value::as_array)
            .map(|a| a.iter().filter_map(|v| v.as_str().map(str::to_owned)).collect())
            .unwrap_or_default()
    }

    /// A table setting: each name with its texts.
    pub fn table(&self, section: &'static str, key: &'static str) -> BTreeMap<String, Vec<String>> {
        let texts = |value: &toml::Value| match value {
            toml::Value::String(text) => vec![text.clone()],
            toml::Value::Array(list) => list.iter().filter_map(|v| v.as_str().map(str::to_owned)).collect(),
            _ => Vec::new(),
        };
        let table = self.value(section, key).and_then(toml::Value::as_table);
        table.into_iter().flatten().map(|(name, value)| (name.clone(), texts(value))).collect()
    }

    /// Whether nobody set it.
    pub fn is_default(&self, section: &'static str, key: &'static str) -> bool {
        self.values.get(&(section, key)).is_none_or(|(_, origin)| *origin == Origin::Default)
    }

    /// A path setting, resolved against the workspace.
    pub fn path(&self, key: &'static str) -> PathBuf {
        self.workspace.join(self.text("paths", key))
    }

    /// Where spilled data goes.
    pub fn scratch(&self) -> PathBuf {
        match self.text("paths", "scratch") {
            "" => std::env::temp_dir(),
            text => self.workspace.join(text),
        }
    }

    /// Memory that a build may use before it spills, in bytes.
    pub fn memory(&self) -> u64 {
        settings::bytes(self.text("limits", "memory")).unwrap_or(2 << 30)
    }

    /// What the memory of a build stays within, in bytes (decision 3): 1.15 times the limit, 64 MB, and
    /// 8 MB a thread.
    pub fn memory_bound(&self) -> u64 {
        let limit = self.memory();
        limit + limit * 15 / 100 + 64_000_000 + 8_000_000 * self.threads() as u64
    }

    /// Threads that work at once: those configured, as far as there are 16 MiB of the limit for each. What a thread holds
    /// beside the budgets would otherwise not fit under [`Config::memory_bound`] at the smallest limits.
    pub fn workers(&self) -> usize {
        self.threads().min(usize::try_from(self.memory() >> 24).unwrap_or(usize::MAX)).max(1)
    }

    /// Worker threads of a build, as configured.
    pub fn threads(&self) -> usize {
        match usize::try_from(self.int("limits", "threads")).unwrap_or(0) {
            0 => std::thread::available_parallelism().map_or(1, usize::from),
            n => n,
        }
    }

    /// The launcher policy.
    pub fn launcher(&self) -> Launcher {
        Launcher {
            policy_id: self.text("launcher", "policy_id").to_owned(),
            revision: self.text("launcher", "revision").to_owned(),
            max_publish_retry_attempts: u32::try_from(self.int("launcher", "max_publish_retry_attempts")).unwrap_or(u32::MAX),
            lease_seconds: self.int("launcher", "lease_seconds").max(1),
            stall_seconds: self.int("launcher", "stall_seconds"),
            max_pause_seconds: self.int("launcher", "max_pause_seconds"),
        }
    }

    /// The run-config digest: profile, launcher policy, access, replay policy, and the digests of the
    /// feature authority and the ownership file; not paths, limits, logs or console (`interface` 6).
    pub fn run_config_digest(&self, feature_authority: &str, ownership: &str) -> String {
        let section = |name: &str| -> Value {
            let entries: BTreeMap<&str, Value> =
                self.values.iter().filter(|((s, _), _)| *s == name).map(|((_, key), (value, _))| (*key, to_json(value))).collect();
            json!(entries)
        };
        let payload = json!({
            "profile": self.text("workspace", "profile"), "launcher": section("launcher"), "access": section("access"), "replay": section("replay"),
            "feature_authority": feature_authority, "ownership": ownership,
        });
        crate::digest::recipe_digest("ofs.run_config.v1", &payload)
    }

    /// Every setting in declared order with its value and origin.
    pub fn entries(&self) -> impl Iterator<Item = (&'static Setting, Value, &Origin)> {
        SETTINGS.iter().filter_map(|s| self.values.get(&(s.section, s.key)).map(|(value, origin)| (s, to_json(value), origin)))
    }
}

/// The section that may have been meant, or all of them.
fn near_section(name: &str) -> String {
    let mut sections: Vec<&str> = SETTINGS.iter().map(|s| s.section).collect();
    sections.dedup();
    match nearest(name, sections.iter().copied()) {
        Some(section) => format!("did you mean [{section}]?"),
        None => format!("known are {}", sections.iter().map(|s| format!("[{s}]")).collect::<Vec<_>>().join(", ")),
    }
}

/// The key that may have been meant: a like one of its section, one of this name elsewhere, a like one elsewhere;
/// else all keys of its section, or all sections where it stands in none.
fn near_key(name: &str, section: &[&Setting]) -> String {
    if let Some(key) = nearest(name, section.iter().map(|s| s.key)) {
        return format!("did you mean `{key}`?");
    }
    let elsewhere = nearest(name, SETTINGS.iter().map(|s| s.key));
    let elsewhere: Vec<String> = SETTINGS.iter().filter(|s| Some(s.key) == elsewhere).map(|s| format!("`{}`", s.path())).collect();
    match (elsewhere.is_empty(), section.is_empty()) {
        (false, _) => format!("did you mean {}?", elsewhere.join(" or ")),
        (true, false) => format!("known are {}", section.iter().map(|s| s.key).collect::<Vec<_>>().join(", ")),
        (true, true) => near_section(name),
    }
}

fn to_json(value: &toml::Value) -> Value {
    serde_json::to_value(value).unwrap_or(Value::Null)
}

fn find_workspace(flag: Option<&Path>, current: &Path, environment: &BTreeMap<String, String>) -> (PathBuf, Origin) {
    if let Some(dir) = flag {
        return (current.join(dir), Origin::Flag);
    }
    if let Some(dir) = environment.get("OFS_WORKSPACE").filter(|d| !d.is_empty()) {
        return (current.join(dir), Origin::Environment("OFS_WORKSPACE".into()));
    }
    match current.ancestors().find(|dir| dir.join("ofs.toml").is_file()) {
        Some(dir) => (dir.to_owned(), Origin::File),
        None => (current.to_owned(), Origin::Default),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(toml: &str, env: &[(&str, &str)]) -> Result<Config, ConfigError> {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("ofs.toml"), toml).unwrap();
        let env = env.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        Config::load(Some(dir.path()), Path::new("/"), &env)
    }

    #[test]
    fn no_more_threads_work_at_once_than_the_limit_feeds() {
        let workers = |memory: &str, threads: u32| {
            let config = load(&format!("[limits]\nmemory = \"{memory}\"\nthreads = {threads}\n"), &[]).unwrap();
            (config.threads(), config.workers())
        };
        assert_eq!(
            [("64MiB", 2), ("64MiB", 8), ("128MiB", 8), ("2GiB", 1024)].map(|(memory, n)| workers(memory, n)),
            [(2, 2), (8, 4), (8, 8), (1024, 128)]
        );
    }

    #[test]
    fn flags_beat_environment_beats_file_beats_default() {
        let mut config = load("[limits]\nmemory = \"256MiB\"\nthreads = 3\n", &[("OFS_LIMITS_THREADS", "5")]).unwrap();
        assert_eq!(config.memory(), 256 << 20);
        assert_eq!(config.threads(), 5);
        config.set_flag("limits", "threads", "7").unwrap();
        assert_eq!(config.threads(), 7);
        let origins: Vec<String> = config.entries().filter(|(s, ..)| s.section == "limits").map(|(.., o)| o.to_string()).collect();
        assert_eq!(origins, ["ofs.toml", "flag"]);
    }

    #[test]
    fn unknown_keys_name_the_nearest_known_one() {
        assert!(load("[limits]\nmemroy = \"1GiB\"\n", &[]).unwrap_err().message.contains("did you mean `memory`"));
        assert!(load("[limit]\nmemory = \"1GiB\"\n", &[]).unwrap_err().message.contains("did you mean [limits]"));
        for (toml, words) in [
            ("memory = \"1GiB\"\n", "unknown key `memory` outside of any section; did you mean `limits.memory`?"),
            ("memroy = \"1GiB\"\n", "did you mean `limits.memory`?"),
            ("revison = \"r1\"\n", "did you mean `launcher.revision`?"),
            ("limit = 1\n", "did you mean [limits]?"),
            ("zzzzzzzzzz = 1\n", "known are [workspace], [paths], [replay], [limits], [launcher], [observe], [console], [access]"),
            ("[zzzzzzzzzz]\n", "known are [workspace], [paths], [replay], [limits], [launcher], [observe], [console], [access]"),
            ("[limits]\nzzzzzzzzzz = 1\n", "unknown key `zzzzzzzzzz` in [limits]; known are memory, threads"),
            ("[limits]\nledger = \"x\"\n", "did you mean `paths.ledger`?"),
        ] {
            let message = load(toml, &[]).unwrap_err().message;
            assert!(message.contains(words), "{toml}: {message}");
        }
    }

    #[test]
    fn values_are_checked_by_kind_and_range() {
        for toml in [
            "[limits]\nmemory = \"63MiB\"\n",
            "[limits]\nmemory = 5\n",
            "[limits]\nthreads = -1\n",
            "[launcher]\nlease_seconds = 0\n",
            "[replay]\nverify_payload_hashes = \"yes\"\n",
            "[access]\nallowed_actors = [1]\n",
            "[",
        ] {
            assert!(load(toml, &[]).is_err(), "{toml}");
        }
        assert!(load("", &[("OFS_REPLAY_VERIFY_PAYLOAD_HASHES", "maybe")]).is_err());
        assert!(!load("[replay]\nverify_payload_hashes = false\n", &[]).unwrap().flag("replay", "verify_payload_hashes"));
    }

    #[test]
    fn the_config_digest_covers_policy_and_not_wiring() {
        let digest = |toml: &str| load(toml, &[]).unwrap().run_config_digest("f", "o");
        let plain = digest("");
        assert_eq!(digest("[limits]\nthreads = 2\n[paths]\nbus = \"b\"\n"), plain);
        assert_ne!(digest("[workspace]\nprofile = \"prod\"\n"), plain);
        assert_ne!(digest("[launcher]\nrevision = \"r2\"\n"), plain);
        assert_ne!(digest("[replay]\nverify_payload_hashes = false\n"), plain);
    }
}
