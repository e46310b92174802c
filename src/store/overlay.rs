//! A store of two layers: the real one below, only read, and one in scratch space that takes every write.
//! What a rebuild leaves is in the upper layer alone and goes with it; and what the program itself had
//! written before is hidden, so that the rebuild rests on the inputs and on nothing else (O166).

use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::{Created, ErrorKind, LocalStore, Ref, StagedFile, Store, StoreError};

/// Folders of `<run>/ofs/` that a build may read: derived from the inputs, and held against them.
const SHOWN: [&str; 1] = ["sealed"];

/// The two layers.
#[derive(Debug)]
pub struct Overlay {
    lower: Arc<dyn Store>,
    upper: LocalStore,
    folder: PathBuf,
    own_events: bool,
}

impl Overlay {
    /// An empty layer in `folder`, which nobody else uses, over `lower`; dropping it removes the folder.
    ///
    /// # Errors
    /// The environment's.
    pub fn new(lower: Arc<dyn Store>, folder: PathBuf) -> Result<Self, StoreError> {
        let root = folder.join("store");
        fs::create_dir_all(&root).map_err(|e| StoreError::new(ErrorKind::Io, root.display().to_string(), e.to_string()))?;
        Ok(Overlay { lower, upper: LocalStore::open(&root)?, folder, own_events: false })
    }

    /// As [`Overlay::new`], with events of its own: neither the archive below nor what was derived from it is
    /// seen. They are put below [`Overlay::root`] by whoever makes the layer, since no command writes an archive.
    ///
    /// # Errors
    /// The environment's.
    pub fn with_own_events(lower: Arc<dyn Store>, folder: PathBuf) -> Result<Self, StoreError> {
        let mut overlay = Self::new(lower, folder)?;
        overlay.own_events = true;
        Ok(overlay)
    }

    /// The folder that the layer stores in.
    pub fn root(&self) -> &Path {
        self.upper.root()
    }

    /// A folder beside the layer for spilled rows; it goes with the layer.
    pub fn spill(&self) -> PathBuf {
        self.folder.join("spill")
    }

    /// Whether the lower layer may be seen at a ref.
    fn shown(&self, at: &Ref) -> bool {
        let mut segments = at.as_str().split('/').skip(1);
        match (segments.next(), segments.next()) {
            (Some("ofs"), Some(folder)) => SHOWN.contains(&folder) && !self.own_events,
            (Some("archive"), _) => !self.own_events,
            _ => true,
        }
    }
}

impl Store for Overlay {
    fn open(&self, at: &Ref) -> Result<Box<dyn Read + Send>, StoreError> {
        match self.upper.open(at) {
            Err(e) if e.kind == ErrorKind::NotFound && self.shown(at) => self.lower.open(at),
            other => other,
        }
    }

    fn size(&self, at: &Ref) -> Result<Option<u64>, StoreError> {
        match self.upper.size(at)? {
            None if self.shown(at) => self.lower.size(at),
            size => Ok(size),
        }
    }

    fn list(&self, below: &Ref) -> Result<Vec<(Ref, u64)>, StoreError> {
        let mut found = self.upper.list(below)?;
        found.extend(self.lower.list(below)?.into_iter().filter(|(at, _)| self.shown(at)));
        found.sort();
        found.dedup_by(|b, a| a.0 == b.0);
        Ok(found)
    }

    fn create(&self, at: &Ref, bytes: &[u8]) -> Result<Created, StoreError> {
        self.upper.create(at, bytes)
    }

    fn stage(&self, at: &Ref) -> Result<Box<dyn StagedFile>, StoreError> {
        self.upper.stage(at)
    }

    fn promote(&self, staged: &Ref, to: &Ref) -> Result<Created, StoreError> {
        self.upper.promote(staged, to)
    }

    fn unstage(&self, at: &Ref) -> Result<(), StoreError> {
        self.upper.unstage(at)
    }
}

impl Drop for Overlay {
    fn drop(&mut self) {
        // Nothing can be done here where this fails; `ofs doctor --sweep` finds what stays.
        let _ = fs::remove_dir_all(&self.folder);
    }
}

#[cfg(test)]
mod tests {
    use super::super::read;
    use super::*;

    #[test]
    fn inputs_show_through_and_writes_stay_above() {
        let (below, scratch) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        for (path, text) in [("R/sr/f.json", "facts"), ("R/ofs/plan/k.json", "old"), ("R/ofs/sealed/s.json", "sealed")] {
            let path = below.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        let overlay = Overlay::new(Arc::new(LocalStore::open(below.path()).unwrap()), scratch.path().join("o")).unwrap();
        let at = |text: &str| Ref::parse(text).unwrap();
        assert_eq!(read(&overlay, &at("R/sr/f.json"), 10).unwrap(), b"facts");
        assert_eq!(read(&overlay, &at("R/ofs/sealed/s.json"), 10).unwrap(), b"sealed");
        assert_eq!(overlay.size(&at("R/ofs/plan/k.json")).unwrap(), None);
        assert_eq!(overlay.create(&at("R/ofs/plan/k.json"), b"new").unwrap(), Created::New);
        assert_eq!(read(&overlay, &at("R/ofs/plan/k.json"), 10).unwrap(), b"new");
        assert_eq!(overlay.create(&at("R/sr/f.json"), b"x").unwrap_err().kind, ErrorKind::Denied);
        let listed: Vec<String> = overlay.list(&at("R")).unwrap().into_iter().map(|(at, _)| at.to_string()).collect();
        assert_eq!(listed, ["R/ofs/plan/k.json", "R/ofs/sealed/s.json", "R/sr/f.json"]);
        assert_eq!(fs::read(below.path().join("R/ofs/plan/k.json")).unwrap(), b"old");
        drop(overlay);
        assert_eq!(fs::read_dir(scratch.path()).unwrap().count(), 0);
        // With events of its own nothing of those below is seen, nor what was derived from them.
        let archived = below.path().join("R/archive/events/e.json");
        fs::create_dir_all(archived.parent().unwrap()).unwrap();
        fs::write(archived, "below").unwrap();
        let overlay = Overlay::with_own_events(Arc::new(LocalStore::open(below.path()).unwrap()), scratch.path().join("o")).unwrap();
        assert_eq!(overlay.size(&at("R/archive/events/e.json")).unwrap(), None);
        assert_eq!(overlay.size(&at("R/ofs/sealed/s.json")).unwrap(), None);
        fs::create_dir_all(overlay.root().join("R/archive/events")).unwrap();
        fs::write(overlay.root().join("R/archive/events/e.json"), "above").unwrap();
        assert_eq!(read(&overlay, &at("R/archive/events/e.json"), 10).unwrap(), b"above");
        assert_eq!(overlay.list(&at("R/archive")).unwrap().len(), 1);
    }
}
