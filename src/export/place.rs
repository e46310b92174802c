//! Where exports go, and how they point at the data from there.

use std::io::{ErrorKind, Write};
use std::path::{Component, Path, PathBuf};

use super::PHASE;
use super::subject::Subject;
use crate::contract::ReasonCode;
use crate::pipeline::gate::{Env, Refusal};
use crate::store::{Immutable, Ref, create_immutable};

/// A place for exports.
pub(super) enum Place {
    /// Beside the data set, in the store.
    Store(Ref),
    /// A folder, with the path from it to the store's root.
    Folder { path: PathBuf, root: String },
}

impl Place {
    /// The place for a data set; a folder that is named is made where it is missing.
    pub(super) fn of(env: &Env, subject: &Subject, folder: Option<PathBuf>) -> Result<Self, Refusal> {
        let Some(path) = folder else {
            return Ok(Place::Store(Ref::of(&[&subject.opened.run, "ofs", "exports", &subject.opened.manifest_id])));
        };
        let io = |e: std::io::Error| failed(&path, &e);
        std::fs::create_dir_all(&path).map_err(io)?;
        let path = path.canonicalize().map_err(io)?;
        let root = env.store_root.as_deref().and_then(|root| relative(&path, root)).unwrap_or_default();
        Ok(Place::Folder { path, root })
    }

    /// The way from here to something in the store.
    pub(super) fn link(&self, to: &Ref) -> String {
        match self {
            Place::Store(at) => {
                let (from, to): (Vec<&str>, Vec<&str>) = (at.as_str().split('/').collect(), to.as_str().split('/').collect());
                let shared = from.iter().zip(&to).take_while(|(a, b)| a == b).count();
                let up = vec![".."; from.len() - shared];
                up.into_iter().chain(to.into_iter().skip(shared)).collect::<Vec<_>>().join("/")
            }
            Place::Folder { root, .. } if root.is_empty() => to.to_string(),
            Place::Folder { root, .. } => format!("{root}/{to}"),
        }
    }

    /// Creates a file that is never changed again; where it lies, and whether this call made it.
    pub(super) fn put(&self, env: &Env, name: &str, bytes: &[u8]) -> Result<(String, bool), Refusal> {
        env.check(PHASE)?;
        match self {
            Place::Store(folder) => {
                let at = folder.join(name);
                match create_immutable(env.store.as_ref(), &at, bytes).map_err(|e| Refusal::of_store(PHASE, &e))? {
                    Immutable::New => Ok((at.to_string(), true)),
                    Immutable::Same => Ok((at.to_string(), false)),
                    Immutable::Different(found) => Err(different(at.as_str(), &found, bytes)),
                }
            }
            Place::Folder { path, .. } => {
                let at = path.join(name);
                let created = create(&at, bytes).map_err(|e| failed(&at, &e))?;
                if !created {
                    let found = std::fs::read(&at).map_err(|e| failed(&at, &e))?;
                    if found != bytes {
                        return Err(different(&at.display().to_string(), &blake3::hash(&found).to_hex(), bytes));
                    }
                }
                Ok((at.display().to_string(), created))
            }
        }
    }
}

/// Writes a whole file under a name that nothing has yet; false where something has it.
fn create(at: &Path, bytes: &[u8]) -> std::io::Result<bool> {
    let beside = at.with_extension(format!("unfinished-{}", std::process::id()));
    let mut file = std::fs::OpenOptions::new().write(true).create_new(true).open(&beside)?;
    // A link is made only where there is no such name, and never to half a file.
    let linked = file.write_all(bytes).and_then(|()| file.sync_all()).and_then(|()| std::fs::hard_link(&beside, at));
    std::fs::remove_file(&beside)?;
    match linked {
        Ok(()) => Ok(true),
        Err(e) if e.kind() == ErrorKind::AlreadyExists => Ok(false),
        Err(e) => Err(e),
    }
}

fn failed(at: &Path, error: &std::io::Error) -> Refusal {
    Refusal::new(ReasonCode::StoreIo, PHASE, format!("{}: {error}", at.display()))
}

fn different(at: &str, found: &str, bytes: &[u8]) -> Refusal {
    Refusal::new(ReasonCode::ExportImmutabilityViolation, PHASE, format!("{at} stands with other content"))
        .with_evidence([format!("stands {found}"), format!("made now {}", blake3::hash(bytes).to_hex())])
}

/// The way from one canonical folder to another; nothing where there is none or it is no text.
fn relative(from: &Path, to: &Path) -> Option<String> {
    let (from, to): (Vec<Component<'_>>, Vec<Component<'_>>) = (from.components().collect(), to.components().collect());
    let shared = from.iter().zip(&to).take_while(|(a, b)| a == b).count();
    let up = from.iter().skip(shared).map(|_| Some(".."));
    up.chain(to.iter().skip(shared).map(|c| c.as_os_str().to_str())).collect::<Option<Vec<_>>>().map(|parts| parts.join("/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_lead_from_the_exports_to_the_data() {
        let at = Place::Store(Ref::of(&["R", "ofs", "exports", "dm_1"]));
        assert_eq!(at.link(&Ref::of(&["R", "ofs", "datasets", "dm_1", "part-00000.parquet"])), "../../datasets/dm_1/part-00000.parquet");
        assert_eq!(at.link(&Ref::of(&["R", "ofs", "manifests", "dm_1.json"])), "../../manifests/dm_1.json");
        assert_eq!(relative(Path::new("/a/b/c"), Path::new("/a/store")).unwrap(), "../../store");
        assert_eq!(relative(Path::new("/a"), Path::new("/a/store")).unwrap(), "store");
    }

    #[test]
    fn a_file_elsewhere_is_created_once_and_whole() {
        let dir = tempfile::tempdir().unwrap();
        let at = dir.path().join("x.json");
        assert!(create(&at, b"one").unwrap());
        assert!(!create(&at, b"two").unwrap());
        assert_eq!(std::fs::read(&at).unwrap(), b"one");
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
    }
}
