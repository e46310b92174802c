//! Spill space and the memory budget that decides when it is used (decision 3).

use std::fs::{self, File, TryLockError};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use arrow::array::{Array, RecordBatch};
use arrow::datatypes::DataType;

use super::EngineError;

/// A folder for spilled runs, removed when dropped.
#[derive(Debug)]
pub struct Scratch {
    folder: PathBuf,
    next: AtomicU64,
    /// Locked as long as the owner lives, where no number of its attempt says whether it was superseded.
    _alive: Option<File>,
}

/// Prefix of every scratch folder, so that leftovers can be recognised.
pub const PREFIX: &str = "ofs-scratch-";
/// The file that an owner without a number keeps locked.
const ALIVE: &str = "alive";
/// How many names such an owner tries.
const TRIES: u32 = 64;

/// The right to remove what an earlier attempt left.
struct LeftBehind {
    /// The file by which its owner would live, locked: whoever has just made it does not get the lock while the folder is
    /// removed, and finds it gone afterwards.
    _alive: Option<File>,
}

/// Whether what an earlier attempt left may be removed: attempts of a run are numbered, and a later one supersedes
/// it. Of others, the system knows whether their owner lives.
fn left_behind(folder: &Path, earlier: &str, attempt: &str) -> Option<LeftBehind> {
    match (earlier.parse::<u64>(), attempt.parse::<u64>()) {
        (Ok(earlier), Ok(attempt)) => (earlier <= attempt).then_some(LeftBehind { _alive: None }),
        (Err(_), Err(_)) => {
            let alive = File::open(folder.join(ALIVE)).ok()?;
            alive.try_lock().ok()?;
            Some(LeftBehind { _alive: Some(alive) })
        }
        _ => None,
    }
}

fn failed(place: &Path, error: &io::Error) -> EngineError {
    EngineError::Scratch { place: place.display().to_string(), message: error.to_string() }
}

/// Makes a folder that nobody has, and locks the file in it that says that its owner lives; nothing where somebody has
/// it, or took it for left behind before it was locked.
fn live(folder: &Path) -> io::Result<Option<File>> {
    let taken = |e: &io::Error| matches!(e.kind(), io::ErrorKind::AlreadyExists | io::ErrorKind::NotFound);
    let path = folder.join(ALIVE);
    match fs::create_dir(folder).and_then(|()| File::create_new(&path)) {
        Err(e) if taken(&e) => Ok(None),
        alive => held(alive?, &path),
    }
}

/// Locks the file by which an owner lives; nothing where somebody removes its folder, or has.
fn held(alive: File, path: &Path) -> io::Result<Option<File>> {
    match alive.try_lock() {
        Ok(()) => Ok(path.exists().then_some(alive)),
        Err(TryLockError::WouldBlock) => Ok(None),
        // Where there are no locks, nobody can find this one free.
        Err(TryLockError::Error(_)) => Ok(Some(alive)),
    }
}

impl Scratch {
    /// Makes the folder `<root>/ofs-scratch-<owner>-<attempt>`, after removing what earlier attempts of the same owner
    /// left: of numbered ones, whoever still writes there was superseded, and finds no folder for another file, while
    /// later ones are left alone, for this one may itself be superseded without knowing. Others stay as long as their
    /// process lives.
    ///
    /// # Errors
    /// The environment's.
    pub fn new(root: &Path, owner: &str, attempt: &str) -> Result<Self, EngineError> {
        let prefix = format!("{PREFIX}{owner}-");
        fs::create_dir_all(root).map_err(|e| failed(root, &e))?;
        for entry in fs::read_dir(root).map_err(|e| failed(root, &e))?.flatten() {
            let name = entry.file_name();
            let right = name.to_string_lossy().strip_prefix(&prefix).and_then(|earlier| left_behind(&entry.path(), earlier, attempt));
            if let Some(_held) = right {
                let _ = fs::remove_dir_all(entry.path());
            }
        }
        let folder = root.join(format!("{prefix}{attempt}"));
        if attempt.parse::<u64>().is_ok() {
            fs::create_dir_all(&folder).map_err(|e| failed(&folder, &e))?;
            return Ok(Scratch { folder, next: AtomicU64::new(0), _alive: None });
        }
        for name in std::iter::once(folder.clone()).chain((1..TRIES).map(|n| root.join(format!("{prefix}{attempt}.{n}")))) {
            if let Some(alive) = live(&name).map_err(|e| failed(&name, &e))? {
                return Ok(Scratch { folder: name, next: AtomicU64::new(0), _alive: Some(alive) });
            }
        }
        Err(failed(&folder, &io::ErrorKind::AlreadyExists.into()))
    }

    /// Creates a new file.
    ///
    /// # Errors
    /// The environment's.
    pub fn create(&self, kind: &str) -> Result<(PathBuf, fs::File), EngineError> {
        let path = self.folder.join(format!("{kind}-{}", self.next.fetch_add(1, Ordering::Relaxed)));
        let file = fs::File::create_new(&path).map_err(|e| failed(&path, &e))?;
        Ok((path, file))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // Nothing can be done here where this fails; `ofs doctor --sweep` finds what stays.
        let _ = fs::remove_dir_all(&self.folder);
    }
}

/// A file of spill space: made when it is first written to, removed with its owner, read by position. What is open
/// at once does not grow with the data.
#[derive(Debug)]
pub struct SpillFile {
    kind: &'static str,
    scratch: Arc<Scratch>,
    file: Mutex<Option<(PathBuf, Arc<File>)>>,
    end: AtomicU64,
}

impl SpillFile {
    /// Nothing yet; `kind` begins the file's name.
    pub fn new(kind: &'static str, scratch: Arc<Scratch>) -> Self {
        SpillFile { kind, scratch, file: Mutex::new(None), end: AtomicU64::new(0) }
    }

    fn file(&self) -> Result<(PathBuf, Arc<File>), EngineError> {
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(file) = file.as_ref() {
            return Ok(file.clone());
        }
        let (path, created) = self.scratch.create(self.kind)?;
        Ok(file.insert((path, Arc::new(created))).clone())
    }

    /// A place of `length` bytes behind all others.
    pub fn reserve(&self, length: usize) -> u64 {
        self.end.fetch_add(length as u64, Ordering::Relaxed)
    }

    /// Writes into a place that was reserved.
    ///
    /// # Errors
    /// The environment's.
    pub fn write(&self, bytes: &[u8], at: u64) -> Result<(), EngineError> {
        let (path, file) = self.file()?;
        file.write_all_at(bytes, at).map_err(|e| failed(&path, &e))
    }

    /// Reads what was written; less than that is an error.
    ///
    /// # Errors
    /// The environment's.
    pub fn read(&self, bytes: &mut [u8], at: u64) -> Result<(), EngineError> {
        let (path, file) = self.file()?;
        file.read_exact_at(bytes, at).map_err(|e| failed(&path, &e))
    }

    /// What to answer where the file holds something else than was written.
    pub fn damaged(&self) -> EngineError {
        EngineError::Scratch { place: self.kind.into(), message: "what was spilled is damaged".into() }
    }

    /// Gives the space back; places are no longer valid.
    pub fn clear(&self) {
        if let Some((path, _)) = self.file.lock().unwrap_or_else(PoisonError::into_inner).take() {
            // Where this fails, the folder of the attempt is removed all the same.
            let _ = fs::remove_file(path);
        }
    }
}

impl Drop for SpillFile {
    fn drop(&mut self) {
        self.clear();
    }
}

/// Bytes that buffered runs may hold together.
#[derive(Debug)]
pub struct Budget {
    limit: u64,
    used: AtomicU64,
}

impl Budget {
    /// A budget of `limit` bytes.
    pub fn new(limit: u64) -> Self {
        Budget { limit, used: AtomicU64::new(0) }
    }

    /// Takes bytes; `false` says that the limit is passed and something should spill.
    pub fn take(&self, bytes: u64) -> bool {
        self.used.fetch_add(bytes, Ordering::Relaxed) + bytes <= self.limit
    }

    /// Gives bytes back.
    pub fn give(&self, bytes: u64) {
        self.used.fetch_sub(bytes, Ordering::Relaxed);
    }

    /// The limit in bytes.
    pub fn limit(&self) -> u64 {
        self.limit
    }

    /// Bytes held now.
    pub fn used(&self) -> u64 {
        self.used.load(Ordering::Relaxed)
    }
}

/// Bytes taken from a budget, given back when dropped.
#[derive(Debug)]
pub struct Held {
    budget: Arc<Budget>,
    bytes: u64,
}

impl Held {
    /// Of bytes that were taken.
    pub fn new(budget: Arc<Budget>, bytes: u64) -> Self {
        Held { budget, bytes }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.budget.give(self.bytes);
    }
}

/// Bytes of the rows of a batch. Its buffers may hold more: those of a slice hold the whole, and what was spilled
/// comes back with all columns in one buffer.
///
/// # Errors
/// Arrays that do not fit together.
pub fn bytes_of(batch: &RecordBatch) -> Result<u64, EngineError> {
    let bytes = batch.columns().iter().map(|column| column.to_data().get_slice_memory_size());
    Ok(bytes.sum::<Result<usize, _>>()? as u64)
}

/// About how many bytes a value of a column takes; a text is taken for an id.
pub fn width(data_type: &DataType) -> u64 {
    const TEXT: u64 = 40;
    match data_type {
        DataType::Boolean => 1,
        other => other.primitive_width().map_or(TEXT, |bytes| bytes as u64),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_attempt_takes_the_place_of_earlier_ones_and_never_of_a_later_one() {
        let dir = tempfile::tempdir().unwrap();
        let first = Scratch::new(dir.path(), "run", "9").unwrap();
        let second = Scratch::new(dir.path(), "run", "10").unwrap();
        assert!(first.create("rows").is_err());
        let (path, _file) = second.create("rows").unwrap();
        // The first one wakes and begins anew.
        Scratch::new(dir.path(), "run", "9").unwrap();
        assert!(path.exists());
    }

    #[test]
    fn work_outside_of_runs_goes_on_beside_its_like_and_what_the_dead_left_is_removed() {
        let dir = tempfile::tempdir().unwrap();
        let first = Scratch::new(dir.path(), "plan", "p7-1-0").unwrap();
        let (path, _file) = first.create("spool").unwrap();
        // What a dead process left: its lock is free.
        let dead = dir.path().join("ofs-scratch-plan-p6-1-0");
        fs::create_dir(&dead).unwrap();
        fs::write(dead.join(ALIVE), b"").unwrap();
        // Another owner's and a numbered one's are nobody else's business.
        let others = ["ofs-scratch-seal-p6-1-0", "ofs-scratch-plan-12"].map(|name| dir.path().join(name));
        others.iter().for_each(|other| fs::create_dir(other).unwrap());
        let second = Scratch::new(dir.path(), "plan", "p8-1-0").unwrap();
        assert!(path.exists() && !dead.exists() && others.iter().all(|other| other.exists()));
        assert!(first.create("spool").is_ok() && second.create("spool").is_ok());
        let folders = [&first, &second].map(|scratch| scratch.folder.clone());
        drop((first, second));
        assert!(folders.iter().all(|folder| !folder.exists()));
    }

    #[test]
    fn who_has_made_its_folder_does_not_get_it_while_another_removes_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(ALIVE);
        let made = || File::create_new(&path).unwrap();
        // Made, and taken for left behind before it was locked.
        let alive = made();
        let right = left_behind(dir.path(), "p6-1-0", "p7-1-0").unwrap();
        assert!(held(alive, &path).unwrap().is_none());
        drop(right);
        fs::remove_file(&path).unwrap();
        // Removed in between.
        let alive = made();
        fs::remove_file(&path).unwrap();
        assert!(held(alive, &path).unwrap().is_none());
        // Locked in time.
        let alive = held(made(), &path).unwrap();
        assert!(alive.is_some() && left_behind(dir.path(), "p6-1-0", "p7-1-0").is_none());
    }

    #[test]
    fn of_many_that_begin_at_once_none_takes_another_ones_folder() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path();
        std::thread::scope(|scope| {
            for thread in 0..8 {
                scope.spawn(move || {
                    for round in 0..40 {
                        let scratch = Scratch::new(dir, "plan", &format!("p{thread}-{round}-0")).unwrap();
                        let (path, _file) = scratch.create("spool").unwrap();
                        assert!(path.exists(), "{}", path.display());
                    }
                });
            }
        });
        assert_eq!(fs::read_dir(dir).unwrap().count(), 0);
    }
}
