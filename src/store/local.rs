//! The store on a local directory: `object_store`'s local back end for writes (conditional create,
//! fsync), plain files for reads, both behind the same containment check.

use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use bytes::BytesMut;
use futures_executor::block_on;
use object_store::local::LocalFileSystem;
use object_store::path::Path as ObjectPath;
use object_store::{CopyMode, CopyOptions, MultipartUpload, ObjectStore, ObjectStoreExt, PutMode, PutOptions, PutPayload};

use super::{Created, ErrorKind, Ref, StagedFile, Store, StoreError};

/// Bytes gathered before a part of a staged file is handed on.
const PART: usize = 256 << 10;

/// A store below one directory.
#[derive(Debug)]
pub struct LocalStore {
    root: PathBuf,
    files: LocalFileSystem,
}

impl LocalStore {
    /// Opens the store. The directory must exist: a store is an input, never made up.
    ///
    /// # Errors
    /// `NotFound` or `Io` for the directory itself.
    pub fn open(root: &Path) -> Result<Self, StoreError> {
        let fail = |kind, message: String| StoreError::new(kind, root.display().to_string(), message);
        let root = root.canonicalize().map_err(|e| match e.kind() {
            io::ErrorKind::NotFound => fail(ErrorKind::NotFound, "the object store root does not exist".into()),
            _ => fail(ErrorKind::Io, e.to_string()),
        })?;
        let files = LocalFileSystem::new_with_prefix(&root).map_err(|e| fail(ErrorKind::Io, e.to_string()))?.with_fsync(true);
        Ok(LocalStore { root, files })
    }

    /// The canonical root.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The file of a ref after resolving links, if it is there; a link out of the root is denied.
    fn resolve(&self, at: &Ref) -> Result<Option<PathBuf>, StoreError> {
        contained(&self.root, &self.root.join(at.as_str())).map_err(|e| at_ref(at, e))
    }

    fn location(at: &Ref) -> Result<ObjectPath, StoreError> {
        ObjectPath::parse(at.as_str()).map_err(|e| StoreError::new(ErrorKind::Invalid, at.as_str(), e.to_string()))
    }

    /// Writing must not follow a link out of the root either: the nearest folder that exists decides.
    fn writable(&self, at: &Ref) -> Result<ObjectPath, StoreError> {
        if !at.writable() {
            return Err(StoreError::new(ErrorKind::Denied, at.as_str(), "only <run>/ofs/ may be written"));
        }
        let full = self.root.join(at.as_str());
        for folder in full.ancestors().skip(1) {
            if folder.symlink_metadata().is_ok() {
                contained(&self.root, folder).map_err(|e| at_ref(at, e))?;
                break;
            }
        }
        Self::location(at)
    }

    fn staging(&self, at: &Ref) -> Result<ObjectPath, StoreError> {
        if at.staging() {
            self.writable(at)
        } else {
            Err(StoreError::new(ErrorKind::Denied, at.as_str(), "only staging may be replaced or removed"))
        }
    }
}

/// The canonical path, if it exists and lies below the canonical root.
///
/// # Errors
/// `PermissionDenied` for a link that leaves the root, and whatever the file system says.
pub(crate) fn contained(root: &Path, path: &Path) -> io::Result<Option<PathBuf>> {
    match path.canonicalize() {
        Ok(real) if real.starts_with(root) => Ok(Some(real)),
        Ok(_) => Err(io::Error::new(io::ErrorKind::PermissionDenied, "a link that leaves the root")),
        Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => Ok(None),
        Err(e) => Err(e),
    }
}

fn at_ref(at: &Ref, error: io::Error) -> StoreError {
    let kind = match error.kind() {
        io::ErrorKind::NotFound => ErrorKind::NotFound,
        io::ErrorKind::PermissionDenied if error.get_ref().is_some() => ErrorKind::Denied,
        _ => ErrorKind::Io,
    };
    StoreError::new(kind, at.as_str(), error.to_string())
}

fn of_object(at: &Ref, error: object_store::Error) -> StoreError {
    let kind = if matches!(error, object_store::Error::NotFound { .. }) { ErrorKind::NotFound } else { ErrorKind::Io };
    // The chain holds the operating system's own words, such as "No space left on device".
    let mut message = error.to_string();
    let mut source = std::error::Error::source(&error);
    while let Some(cause) = source {
        let text = cause.to_string();
        if !message.contains(&text) {
            message = format!("{message}: {text}");
        }
        source = cause.source();
    }
    StoreError::new(kind, at.as_str(), message)
}

fn created(at: &Ref, result: object_store::Result<()>) -> Result<Created, StoreError> {
    match result {
        Ok(()) => Ok(Created::New),
        Err(object_store::Error::AlreadyExists { .. }) => Ok(Created::Exists),
        Err(e) => Err(of_object(at, e)),
    }
}

impl Store for LocalStore {
    fn open(&self, at: &Ref) -> Result<Box<dyn Read + Send>, StoreError> {
        let path = self.resolve(at)?.ok_or_else(|| StoreError::new(ErrorKind::NotFound, at.as_str(), "nothing is there"))?;
        if path.is_dir() {
            return Err(StoreError::new(ErrorKind::NotFound, at.as_str(), "a folder, not an object"));
        }
        Ok(Box::new(std::fs::File::open(path).map_err(|e| at_ref(at, e))?))
    }

    fn size(&self, at: &Ref) -> Result<Option<u64>, StoreError> {
        let Some(path) = self.resolve(at)? else { return Ok(None) };
        let data = path.metadata().map_err(|e| at_ref(at, e))?;
        Ok(data.is_file().then_some(data.len()))
    }

    fn real(&self, at: &Ref) -> Result<Option<Ref>, StoreError> {
        let Some(path) = self.resolve(at)?.filter(|path| path.is_file()) else { return Ok(None) };
        let relative = path.strip_prefix(&self.root).ok().and_then(Path::to_str);
        relative.map(Ref::parse).transpose()
    }

    fn list(&self, below: &Ref) -> Result<Vec<(Ref, u64)>, StoreError> {
        let mut found = Vec::new();
        let mut folders = vec![below.clone()];
        while let Some(folder) = folders.pop() {
            let Some(path) = self.resolve(&folder)? else { continue };
            if !path.is_dir() {
                continue;
            }
            for entry in std::fs::read_dir(&path).map_err(|e| at_ref(&folder, e))? {
                let entry = entry.map_err(|e| at_ref(&folder, e))?;
                let name = entry.file_name();
                let Some(name) = name.to_str() else {
                    return Err(StoreError::new(ErrorKind::Denied, folder.as_str(), "a file name that is not UTF-8"));
                };
                let at = folder.join(name);
                let Some(real) = self.resolve(&at)? else {
                    // A name that leads nowhere would be an object lost unseen.
                    if entry.path().symlink_metadata().is_ok() {
                        return Err(StoreError::new(ErrorKind::Io, at.as_str(), "a link to nothing"));
                    }
                    continue;
                };
                let data = real.metadata().map_err(|e| at_ref(&at, e))?;
                if data.is_dir() {
                    folders.push(at);
                } else if data.is_file() && !temporary(name) {
                    found.push((at, data.len()));
                }
            }
        }
        found.sort();
        Ok(found)
    }

    fn create(&self, at: &Ref, bytes: &[u8]) -> Result<Created, StoreError> {
        let location = self.writable(at)?;
        let options = PutOptions { mode: PutMode::Create, ..PutOptions::default() };
        created(at, block_on(self.files.put_opts(&location, PutPayload::from(bytes.to_vec()), options)).map(|_| ()))
    }

    fn stage(&self, at: &Ref) -> Result<Box<dyn StagedFile>, StoreError> {
        let location = if at.replaceable() { self.writable(at)? } else { self.staging(at)? };
        let upload = block_on(self.files.put_multipart(&location)).map_err(|e| of_object(at, e))?;
        Ok(Box::new(LocalStaged { at: at.clone(), upload, buffer: BytesMut::with_capacity(PART) }))
    }

    fn promote(&self, staged: &Ref, to: &Ref) -> Result<Created, StoreError> {
        let (from, location) = (self.staging(staged)?, self.writable(to)?);
        let options = CopyOptions::new().with_mode(CopyMode::Create);
        created(to, block_on(self.files.copy_opts(&from, &location, options)))
    }

    fn unstage(&self, at: &Ref) -> Result<(), StoreError> {
        let location = self.staging(at)?;
        match block_on(self.files.delete(&location)) {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => {
                // A folder of staging that is empty goes with its last file; one that is not, stays.
                let parent = at.as_str().rsplit_once('/').and_then(|(parent, _)| Ref::parse(parent).ok());
                if let Some(parent) = parent.filter(Ref::staging).filter(|p| p.as_str().split('/').count() > 3) {
                    let _ = std::fs::remove_dir(self.root.join(parent.as_str()));
                }
                Ok(())
            }
            Err(e) => Err(of_object(at, e)),
        }
    }
}

/// Whether a name is one of the back end's own unfinished files (`name#<digits>`).
pub(crate) fn temporary(name: &str) -> bool {
    name.rsplit_once('#').is_some_and(|(_, digits)| !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit()))
}

struct LocalStaged {
    at: Ref,
    upload: Box<dyn MultipartUpload>,
    /// What waits for the next part; the same memory for all of them.
    buffer: BytesMut,
}

impl LocalStaged {
    fn put(&mut self) -> Result<(), object_store::Error> {
        if self.buffer.is_empty() {
            return Ok(());
        }
        let part = self.buffer.split().freeze();
        block_on(self.upload.put_part(PutPayload::from_bytes(part.clone())))?;
        self.buffer = part.try_into_mut().unwrap_or_else(|_| BytesMut::with_capacity(PART));
        self.buffer.clear();
        Ok(())
    }
}

impl Write for LocalStaged {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let taken = bytes.get(..PART.saturating_sub(self.buffer.len())).unwrap_or(bytes);
        self.buffer.extend_from_slice(taken);
        if self.buffer.len() >= PART {
            self.put().map_err(|e| io::Error::other(of_object(&self.at, e)))?;
        }
        Ok(taken.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl StagedFile for LocalStaged {
    fn finish(mut self: Box<Self>) -> Result<(), StoreError> {
        self.put().map_err(|e| of_object(&self.at, e))?;
        block_on(self.upload.complete()).map(|_| ()).map_err(|e| of_object(&self.at, e))
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Immutable, create_immutable, digest, read, self_test, sha256};
    use super::*;

    fn store() -> (tempfile::TempDir, LocalStore) {
        let dir = tempfile::tempdir().unwrap();
        let store = LocalStore::open(dir.path()).unwrap();
        (dir, store)
    }

    #[test]
    fn immutable_objects_are_written_once() {
        let (_dir, store) = store();
        let at = Ref::of(&["R", "ofs", "manifests", "m.json"]);
        assert_eq!(create_immutable(&store, &at, b"one").unwrap(), Immutable::New);
        assert_eq!(create_immutable(&store, &at, b"one").unwrap(), Immutable::Same);
        assert!(matches!(create_immutable(&store, &at, b"two").unwrap(), Immutable::Different(_)));
        assert_eq!(read(&store, &at, 10).unwrap(), b"one");
        assert_eq!(read(&store, &at, 2).unwrap_err().kind, ErrorKind::TooLarge);
        assert!(self_test(&store, "R", "k", "1").unwrap());
    }

    #[test]
    fn an_object_is_compared_and_digested_whatever_its_size() {
        let (dir, store) = store();
        let at = Ref::of(&["R", "ofs", "manifests", "m.json"]);
        std::fs::create_dir_all(dir.path().join("R/ofs/manifests")).unwrap();
        let file = std::fs::File::create(dir.path().join(at.as_str())).unwrap();
        file.set_len((64 << 20) + 6).unwrap();
        let (blake3, size) = digest(&store, &at).unwrap();
        assert_eq!(create_immutable(&store, &at, b"small").unwrap(), Immutable::Different(blake3));
        let bytes = read(&store, &at, u64::MAX).unwrap();
        assert_eq!((bytes.len() as u64, sha256(&store, &at).unwrap()), (size, crate::digest::sha256_hex(&bytes)));
        // Larger by one byte, smaller by one, and other bytes of the same size; the last of them may be the only other one.
        assert_eq!(create_immutable(&store, &at, &bytes).unwrap(), Immutable::Same);
        let mut other = bytes.clone();
        if let Some(last) = other.last_mut() {
            *last = 1;
        }
        for other in [&bytes[1..], &[&bytes[..], b"\0"].concat(), &other] {
            assert!(matches!(create_immutable(&store, &at, other).unwrap(), Immutable::Different(_)));
        }
    }

    #[test]
    fn staged_files_are_promoted_once_and_leave_nothing_when_dropped() {
        let (dir, store) = store();
        let staged = Ref::of(&["R", "ofs", "staging", "k", "part"]);
        let mut file = store.stage(&staged).unwrap();
        file.write_all(&vec![7; PART + 5]).unwrap();
        file.finish().unwrap();
        let to = Ref::of(&["R", "ofs", "datasets", "m", "part"]);
        assert_eq!(store.promote(&staged, &to).unwrap(), Created::New);
        assert_eq!(store.promote(&staged, &to).unwrap(), Created::Exists);
        store.unstage(&staged).unwrap();
        store.unstage(&staged).unwrap();
        assert!(!dir.path().join("R/ofs/staging/k").exists() && dir.path().join("R/ofs/staging").is_dir());
        assert_eq!(digest(&store, &to).unwrap().1, PART as u64 + 5);
        drop(store.stage(&staged).unwrap());
        assert_eq!(store.list(&Ref::of(&["R"])).unwrap(), [(to, PART as u64 + 5)]);
        assert!(store.unstage(&Ref::of(&["R", "ofs", "manifests", "m"])).is_err());
        drop(dir);
    }

    #[cfg(unix)]
    #[test]
    fn links_that_leave_the_root_are_denied_for_reading_and_writing() {
        let outside = tempfile::tempdir().unwrap();
        std::fs::write(outside.path().join("secret"), b"x").unwrap();
        let (dir, store) = store();
        std::fs::create_dir_all(dir.path().join("R")).unwrap();
        std::os::unix::fs::symlink(outside.path().join("secret"), dir.path().join("R/link")).unwrap();
        std::os::unix::fs::symlink(outside.path(), dir.path().join("R/ofs")).unwrap();
        assert_eq!(store.open(&Ref::of(&["R", "link"])).err().unwrap().kind, ErrorKind::Denied);
        assert_eq!(store.list(&Ref::of(&["R"])).unwrap_err().kind, ErrorKind::Denied);
        assert_eq!(store.create(&Ref::of(&["R", "ofs", "a", "b"]), b"x").unwrap_err().kind, ErrorKind::Denied);
        assert!(!outside.path().join("a").exists());
    }

    #[test]
    fn truths_are_never_written() {
        let (_dir, store) = store();
        for text in ["R/archive/events/x.json", "R/sr/facts.json"] {
            assert_eq!(store.create(&Ref::parse(text).unwrap(), b"x").unwrap_err().kind, ErrorKind::Denied);
        }
    }
}
