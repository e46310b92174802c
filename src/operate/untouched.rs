//! What no command may change: everything in a workspace but `<run>/ofs`, ledger and scratch space, held
//! by digest before and after (O166).

use std::collections::BTreeMap;
use std::io;
use std::path::Path;

/// Files of a workspace with the digest of each: those that are inputs, and those by which somebody
/// could take a build for published.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Snapshot {
    /// Bus, archive, labels, authority, run facts, intents, settings.
    pub inputs: BTreeMap<String, String>,
    /// Manifests and publication receipts.
    pub published: BTreeMap<String, String>,
}

impl Snapshot {
    /// Reads a workspace of which `run` is the platform run.
    ///
    /// # Errors
    /// What cannot be read.
    pub fn of(workspace: &Path, run: &str) -> io::Result<Self> {
        let mut snapshot = Snapshot::default();
        let mut folders = vec![String::new()];
        let ofs = format!("store/{run}/ofs/");
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(workspace.join(&folder))? {
                let entry = entry?;
                let name = format!("{folder}{}", entry.file_name().to_string_lossy());
                let kind = entry.file_type()?;
                if kind.is_dir() {
                    if !["state", "scratch"].contains(&name.as_str()) {
                        folders.push(format!("{name}/"));
                    }
                    continue;
                }
                let digest = if kind.is_symlink() {
                    format!("link to {}", std::fs::read_link(entry.path())?.display())
                } else {
                    blake3::hash(&std::fs::read(entry.path())?).to_hex().to_string()
                };
                match name.strip_prefix(&ofs) {
                    None => drop(snapshot.inputs.insert(name, digest)),
                    Some(own) if ["manifests", "publication_receipts"].iter().any(|f| own.starts_with(f)) => {
                        snapshot.published.insert(name, digest);
                    }
                    Some(_) => {}
                }
            }
        }
        Ok(snapshot)
    }

    /// What is not as it was, one line each.
    pub fn changed(before: &BTreeMap<String, String>, after: &BTreeMap<String, String>) -> Vec<String> {
        let gone = before.keys().filter(|name| !after.contains_key(*name)).map(|name| format!("{name} is gone"));
        let other = after.iter().filter_map(|(name, digest)| match before.get(name) {
            None => Some(format!("{name} is new")),
            Some(earlier) if earlier != digest => Some(format!("{name} was changed")),
            Some(_) => None,
        });
        gone.chain(other).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn inputs_are_watched_and_own_files_are_not() {
        let dir = tempfile::tempdir().unwrap();
        let write = |name: &str| {
            let path = dir.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, name).unwrap();
        };
        write("bus/t/partition=0.jsonl");
        let before = Snapshot::of(dir.path(), "R").unwrap();
        for own in ["store/R/ofs/datasets/m/part.parquet", "state/ledger.db", "scratch/x/y", "store/R/ofs/manifests/m.json"] {
            write(own);
        }
        let after = Snapshot::of(dir.path(), "R").unwrap();
        assert_eq!(Snapshot::changed(&before.inputs, &after.inputs), [""; 0]);
        assert_eq!(after.published.len(), 1);
        write("store/S/ofs/manifests/m.json");
        let foreign = Snapshot::of(dir.path(), "R").unwrap();
        assert_eq!(Snapshot::changed(&after.inputs, &foreign.inputs), ["store/S/ofs/manifests/m.json is new"]);
        std::fs::remove_file(dir.path().join("bus/t/partition=0.jsonl")).unwrap();
        assert_eq!(Snapshot::changed(&before.inputs, &Snapshot::of(dir.path(), "R").unwrap().inputs).len(), 2);
    }
}
