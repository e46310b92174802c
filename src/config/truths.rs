//! What a workspace only reads (O166): no path that the program writes to, whether set or typed, may lie inside it.

use std::path::{Component, Path, PathBuf};

use super::{Config, ConfigError, Origin};

/// Folders of a platform run in the object store: its archive, its run facts, and what the program's own gates put there.
const OF_A_RUN: [&str; 3] = ["archive", "sr", "ofs"];
/// Most links that are followed where they lead to nothing that is there.
const MAX_LINKS: usize = 40;

impl Config {
    /// The key of the input that a path to be written lies inside, if it does. Links are followed, and a path
    /// that is not there yet lies where its nearest folder does.
    pub fn reads_only(&self, path: &Path) -> Option<&'static str> {
        let path = real(path);
        self.truth_of(&path).or_else(|| self.in_store(&path, true).then_some("paths.object_store"))
    }

    /// Refuses settings by which the program would write into what it only reads.
    pub(super) fn apart(&self) -> Result<(), ConfigError> {
        for key in ["ledger", "logs", "scratch"] {
            if self.text("paths", key).is_empty() {
                continue;
            }
            let path = real(&self.path(key));
            let inside = self.truth_of(&path).or_else(|| self.in_store(&path, false).then_some("paths.object_store"));
            if let Some(truth) = inside {
                let place = match self.values.get(&("paths", key)) {
                    Some((_, Origin::Environment(name))) => name.clone(),
                    Some((_, origin)) => origin.to_string(),
                    None => String::new(),
                };
                let message = format!("paths.{key} lies inside {truth}, which is only ever read; choose a folder of its own for it");
                return Err(ConfigError { place, message });
            }
        }
        Ok(())
    }

    /// The input outside the object store that a resolved path lies inside.
    fn truth_of(&self, path: &Path) -> Option<&'static str> {
        let workspace = real(&self.workspace);
        let folder = |key: &'static str| {
            let root = real(&self.path(key));
            // A folder that holds the workspace itself is an input only as far as its own files go.
            if workspace.starts_with(&root) { path == root || path.parent() == Some(&root) } else { path.starts_with(root) }
        };
        let file = |key: &'static str| {
            let at = self.path(key);
            // An authority is a folder of files; where the file lies in the workspace itself, it is the file alone.
            let home = at.parent().map(real).filter(|home| home.starts_with(&workspace) && *home != workspace);
            path == real(&at) || home.is_some_and(|home| path.starts_with(home))
        };
        let set = |key: &'static str| !self.text("paths", key).is_empty();
        if set("bus") && folder("bus") {
            return Some("paths.bus");
        }
        if set("labels") && folder("labels") {
            return Some("paths.labels");
        }
        if set("features") && file("features") {
            return Some("paths.features");
        }
        (set("ownership") && file("ownership")).then_some("paths.ownership")
    }

    /// Whether a resolved path lies in the object store: anywhere where `whole`, unless the store holds the
    /// workspace itself; else in what a platform run has there.
    fn in_store(&self, path: &Path, whole: bool) -> bool {
        let store = self.text("paths", "object_store");
        if store.is_empty() || store.contains("://") {
            return false;
        }
        let root = real(&self.workspace.join(store));
        let Ok(below) = path.strip_prefix(&root) else { return false };
        if whole && !real(&self.workspace).starts_with(&root) {
            return true;
        }
        let names: Vec<&str> = below.components().take(2).filter_map(|c| c.as_os_str().to_str()).collect();
        match names.as_slice() {
            [run, part] => OF_A_RUN.contains(part) || (whole && OF_A_RUN.iter().any(|part| root.join(run).join(part).is_dir())),
            _ => false,
        }
    }
}

/// Where a path leads once links are followed, as far as it is there; what is not there yet lies below.
fn real(path: &Path) -> PathBuf {
    let mut path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    for _ in 0..MAX_LINKS {
        let Some((base, rest)) = path.ancestors().find_map(|a| Some((a.canonicalize().ok()?, path.strip_prefix(a).ok()?))) else { break };
        let mut parts = rest.components();
        // A link to nothing is still a link: what is written through it appears where it points.
        let link = parts.next().and_then(|first| base.join(first).read_link().ok());
        let next = match link {
            Some(target) => base.join(target).join(parts.as_path()),
            None => climbed(&base, rest),
        };
        if next == path || !rest.components().any(|c| c == Component::ParentDir) && link_free(&base, rest) {
            return next;
        }
        path = next;
    }
    path
}

/// Whether the first step that is missing is no link.
fn link_free(base: &Path, rest: &Path) -> bool {
    rest.components().next().is_none_or(|first| base.join(first).read_link().is_err())
}

/// A path below one that is there, its parent steps taken: what is not there holds no links.
fn climbed(base: &Path, rest: &Path) -> PathBuf {
    rest.components().fold(base.to_owned(), |mut at, part| {
        match part {
            Component::ParentDir => drop(at.pop()),
            part => at.push(part),
        }
        at
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::fs;

    use super::*;

    /// A workspace with a store of one run and the usual inputs.
    fn workspace(toml: &str) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for folder in ["store/R/archive/events", "store/R/sr", "store/R/ofs/manifests", "bus/t", "labels", "authority", "state", "out"] {
            fs::create_dir_all(dir.path().join(folder)).unwrap();
        }
        fs::write(dir.path().join("ofs.toml"), toml).unwrap();
        dir
    }

    fn load(dir: &Path, variables: &[(&str, &str)]) -> Result<Config, ConfigError> {
        let variables: BTreeMap<String, String> = variables.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        Config::load(Some(dir), dir, &variables)
    }

    #[test]
    fn a_path_inside_an_input_is_found_however_it_is_written() {
        let dir = workspace("");
        let config = load(dir.path(), &[]).unwrap();
        let of = |path: &str| config.reads_only(&dir.path().join(path));
        for (path, key) in [
            ("labels/b.jsonl", "paths.labels"),
            ("labels", "paths.labels"),
            ("out/../labels/deep/not/there", "paths.labels"),
            ("out/not/there/../../../labels/x", "paths.labels"),
            ("bus/t/partition=9.jsonl", "paths.bus"),
            ("authority/other.yaml", "paths.features"),
            ("store/R/archive", "paths.object_store"),
            ("store/R/sr/x.json", "paths.object_store"),
            ("store/R/ofs/manifests/dm_a.json", "paths.object_store"),
            ("store/NEW/archive/x", "paths.object_store"),
            ("store", "paths.object_store"),
        ] {
            assert_eq!(of(path), Some(key), "{path}");
        }
        for path in ["b.json", "out/b.json", "labels.db", "labels2/x", "state/b.json", "stored", "labels/../b.json", "new/labels/x"] {
            assert_eq!(of(path), None, "{path}");
        }
    }

    #[cfg(unix)]
    #[test]
    fn links_lead_into_inputs_and_out_of_them() {
        use std::os::unix::fs::symlink;
        let (dir, elsewhere) = (workspace(""), tempfile::tempdir().unwrap());
        let at = |path: &str| dir.path().join(path);
        symlink(at("labels"), at("out/harmless")).unwrap();
        symlink("../store/R/archive/new.json", at("out/dangling")).unwrap();
        symlink(elsewhere.path(), at("bus/away")).unwrap();
        fs::remove_dir(at("authority")).unwrap();
        symlink(elsewhere.path().join("shared"), at("authority")).unwrap();
        symlink("loop", at("out/loop")).unwrap();
        let config = load(dir.path(), &[]).unwrap();
        let of = |path: PathBuf| config.reads_only(&path);
        assert_eq!(of(at("out/harmless/x.json")), Some("paths.labels"));
        assert_eq!(of(at("out/dangling")), Some("paths.object_store"));
        assert_eq!(of(at("bus/away/x")), None);
        assert_eq!(of(at("out/loop")), None);
        // Where an input is a link, what it leads to is the input.
        assert_eq!(of(elsewhere.path().join("shared/features_v0.yaml")), Some("paths.features"));
    }

    #[test]
    fn an_input_that_holds_the_workspace_is_its_own_files() {
        let dir = workspace("[paths]\nlabels = \".\"\n");
        let config = load(dir.path(), &[]).unwrap();
        let of = |path: &str| config.reads_only(&dir.path().join(path));
        assert_eq!((of("b.jsonl"), of("out/b.jsonl")), (Some("paths.labels"), None));
        // An authority that is no file at all is the pins gate's to refuse.
        load(dir.path(), &[("OFS_PATHS_FEATURES", "/"), ("OFS_PATHS_LABELS", "labels")]).unwrap();
    }

    #[test]
    fn a_store_that_holds_the_workspace_keeps_its_runs_to_itself() {
        let dir = workspace("[paths]\nobject_store = \".\"\n");
        fs::create_dir_all(dir.path().join("R/archive")).unwrap();
        let config = load(dir.path(), &[]).unwrap();
        let of = |path: &str| config.reads_only(&dir.path().join(path));
        for path in ["R/archive/x", "R/x", "new/ofs/x"] {
            assert_eq!(of(path), Some("paths.object_store"), "{path}");
        }
        assert_eq!((of("b.json"), of("out/b.json")), (None, None));
    }

    #[test]
    fn settings_that_would_write_into_inputs_are_refused_by_both_keys() {
        let dir = workspace("");
        for (variable, value, keys) in [
            ("OFS_PATHS_LOGS", "labels", ["paths.logs", "paths.labels"]),
            ("OFS_PATHS_LEDGER", "bus/t/ledger.db", ["paths.ledger", "paths.bus"]),
            ("OFS_PATHS_SCRATCH", "authority/new", ["paths.scratch", "paths.features"]),
            ("OFS_PATHS_LOGS", "store/R/archive/logs", ["paths.logs", "paths.object_store"]),
            ("OFS_PATHS_LEDGER", "out/../store/R/sr/l.db", ["paths.ledger", "paths.object_store"]),
            ("OFS_PATHS_LABELS", "state", ["paths.ledger", "paths.labels"]),
        ] {
            let error = load(dir.path(), &[(variable, value)]).unwrap_err();
            assert!(keys.iter().all(|key| error.message.contains(key)), "{variable}={value}: {error}");
        }
        assert_eq!(load(dir.path(), &[("OFS_PATHS_LOGS", "labels")]).unwrap_err().place, "OFS_PATHS_LOGS");
        for (variable, value) in [("OFS_PATHS_LOGS", "labels2"), ("OFS_PATHS_SCRATCH", ""), ("OFS_PATHS_SCRATCH", "store/tmp")] {
            load(dir.path(), &[(variable, value)]).unwrap();
        }
    }
}
