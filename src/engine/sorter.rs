//! External sort of fixed-width records, compared as bytes: sorted runs in memory, spilled beyond the
//! budget, merged at the end. Used for what must be seen in offset order, however it arrived.

use std::cmp::Ordering;
use std::sync::{Arc, Mutex, PoisonError};

use super::EngineError;
use super::scratch::{Budget, Held, Scratch, SpillFile};
use super::tournament::Tournament;

/// Sorts records of `W` bytes.
#[derive(Debug)]
pub struct Sorter<const W: usize> {
    budget: Arc<Budget>,
    file: Arc<SpillFile>,
    runs: Mutex<Runs<W>>,
}

/// Bytes of a spilled run that are written at once, and most that are read at once.
const WRITE: usize = 1 << 18;
const READ: u64 = 1 << 16;

#[derive(Debug, Default)]
struct Runs<const W: usize> {
    resident: Vec<Vec<[u8; W]>>,
    spilled: Vec<Spilled>,
}

/// A spilled run: where it begins, how many bytes it has, and their digest.
#[derive(Debug)]
struct Spilled {
    at: u64,
    bytes: u64,
    digest: blake3::Hash,
}

/// The order of bytes. Where the first eight decide, as they do for digests, nothing else is looked at.
fn compare<const W: usize>(a: &[u8; W], b: &[u8; W]) -> Ordering {
    let front = |record: &[u8; W]| record.first_chunk().map(|bytes| u64::from_be_bytes(*bytes));
    front(a).cmp(&front(b)).then_with(|| a.cmp(b))
}

fn bytes_of<const W: usize>(runs: &[Vec<[u8; W]>]) -> u64 {
    runs.iter().map(|r| (r.len() * W) as u64).sum()
}

impl<const W: usize> Sorter<W> {
    /// An empty sorter.
    pub fn new(budget: Arc<Budget>, scratch: Arc<Scratch>) -> Self {
        let file = Arc::new(SpillFile::new("sorted", scratch));
        Sorter { budget, file, runs: Mutex::new(Runs { resident: Vec::new(), spilled: Vec::new() }) }
    }

    /// Adds records in any order.
    ///
    /// # Errors
    /// Spill space that fails.
    pub fn push(&self, mut records: Vec<[u8; W]>) -> Result<(), EngineError> {
        if records.is_empty() {
            return Ok(());
        }
        // Logs are nearly always in order already, which this sort notices in one pass.
        records.sort_unstable_by(compare);
        records.shrink_to_fit();
        let within = self.budget.take((records.len() * W) as u64);
        let mut runs = self.runs.lock().unwrap_or_else(PoisonError::into_inner);
        runs.resident.push(records);
        if !within {
            let resident = std::mem::take(&mut runs.resident);
            let bytes = bytes_of(&resident);
            let spilled = self.spill(resident, bytes);
            self.budget.give(bytes);
            runs.spilled.push(spilled?);
        }
        Ok(())
    }

    fn spill(&self, resident: Vec<Vec<[u8; W]>>, bytes: u64) -> Result<Spilled, EngineError> {
        let begin = self.file.reserve(usize::try_from(bytes).map_err(|e| EngineError::Internal(e.to_string()))?);
        let (mut at, mut out, mut hasher) = (begin, Vec::with_capacity(WRITE + W), blake3::Hasher::new());
        for record in Merge::new(chained(resident))? {
            out.extend_from_slice(&record?);
            if out.len() >= WRITE {
                hasher.update(&out);
                self.file.write(&out, at)?;
                at += out.len() as u64;
                out.clear();
            }
        }
        hasher.update(&out);
        self.file.write(&out, at)?;
        Ok(Spilled { at: begin, bytes, digest: hasher.finalize() })
    }

    /// All records in order.
    ///
    /// # Errors
    /// Spill space that fails.
    pub fn finish(&self) -> Result<Merge<W>, EngineError> {
        let mut runs = self.runs.lock().unwrap_or_else(PoisonError::into_inner);
        let runs = std::mem::take(&mut *runs);
        let held = Held::new(self.budget.clone(), bytes_of(&runs.resident));
        let mut all: Vec<Run<W>> = chained(runs.resident);
        let records = (self.budget.limit() / runs.spilled.len().max(1) as u64).min(READ) / W as u64;
        for Spilled { at, bytes, digest } in runs.spilled {
            let (buffer, hasher) = (Vec::with_capacity(records.max(1) as usize * W), blake3::Hasher::new());
            all.push(Run::Disk(Box::new(OnDisk { file: self.file.clone(), at, end: at + bytes, buffer, next: 0, hasher, digest })));
        }
        let mut merge = Merge::new(all)?;
        merge.held = Some(held);
        Ok(merge)
    }
}

impl<const W: usize> Drop for Sorter<W> {
    fn drop(&mut self) {
        self.budget.give(bytes_of(&self.runs.lock().unwrap_or_else(PoisonError::into_inner).resident));
    }
}

enum Run<const W: usize> {
    /// Lists that follow one another.
    Memory(std::iter::Flatten<std::vec::IntoIter<Vec<[u8; W]>>>),
    Disk(Box<OnDisk>),
}

/// The rest of a spilled run, and the part of it that was read last.
struct OnDisk {
    file: Arc<SpillFile>,
    at: u64,
    end: u64,
    buffer: Vec<u8>,
    next: usize,
    hasher: blake3::Hasher,
    digest: blake3::Hash,
}

impl OnDisk {
    /// The next record. A run that is shorter than it was written, or another, is an error and no end.
    fn next<const W: usize>(&mut self) -> Result<Option<[u8; W]>, EngineError> {
        if self.next == self.buffer.len() {
            let whole = self.buffer.capacity() / W * W;
            let length = usize::try_from(self.end - self.at).map_or(whole, |rest| rest.min(whole));
            self.buffer.resize(length, 0);
            self.file.read(&mut self.buffer, self.at)?;
            self.hasher.update(&self.buffer);
            self.at += length as u64;
            self.next = 0;
            if self.at == self.end && self.hasher.finalize() != self.digest {
                return Err(self.file.damaged());
            }
        }
        let record = self.buffer.get(self.next..).and_then(|rest| rest.first_chunk::<W>()).copied();
        self.next += record.map_or(0, |record| record.len());
        Ok(record)
    }
}

/// Lists as runs. Those of which one begins where another has ended make one run, so that a merge has less to
/// compare: of a log that is read in pieces, that holds for nearly all.
fn chained<const W: usize>(mut lists: Vec<Vec<[u8; W]>>) -> Vec<Run<W>> {
    lists.sort_unstable_by(|a, b| a.first().cmp(&b.first()));
    let mut chains: Vec<Vec<Vec<[u8; W]>>> = Vec::new();
    for list in lists {
        let follows = |chain: &&mut Vec<Vec<[u8; W]>>| chain.last().is_none_or(|before| before.last() <= list.first());
        match chains.iter_mut().find(follows) {
            Some(chain) => chain.push(list),
            None => chains.push(vec![list]),
        }
    }
    chains.into_iter().map(|chain| Run::Memory(chain.into_iter().flatten())).collect()
}

impl<const W: usize> Run<W> {
    fn next(&mut self) -> Result<Option<[u8; W]>, EngineError> {
        match self {
            Run::Memory(records) => Ok(records.next()),
            Run::Disk(run) => run.next(),
        }
    }
}

/// A record in the order of its bytes.
#[derive(PartialEq, Eq)]
struct Bytes<const W: usize>([u8; W]);

impl<const W: usize> Ord for Bytes<W> {
    fn cmp(&self, other: &Self) -> Ordering {
        compare(&self.0, &other.0)
    }
}

impl<const W: usize> PartialOrd for Bytes<W> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// Records of several sorted runs in one order.
pub struct Merge<const W: usize> {
    runs: Vec<Run<W>>,
    heads: Tournament<Bytes<W>>,
    held: Option<Held>,
}

impl<const W: usize> Merge<W> {
    fn new(mut runs: Vec<Run<W>>) -> Result<Self, EngineError> {
        let heads = runs.iter_mut().map(|run| Ok(run.next()?.map(Bytes))).collect::<Result<_, EngineError>>()?;
        Ok(Merge { runs, heads: Tournament::new(heads), held: None })
    }

    fn step(&mut self) -> Result<Option<[u8; W]>, EngineError> {
        let Some(run) = self.heads.first().and_then(|run| self.runs.get_mut(run)) else { return Ok(None) };
        let next = run.next()?;
        Ok(self.heads.next(next.map(Bytes)).map(|record| record.0))
    }
}

impl<const W: usize> Iterator for Merge<W> {
    type Item = Result<[u8; W], EngineError>;

    fn next(&mut self) -> Option<Self::Item> {
        self.step().transpose()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn records_come_back_sorted_whether_spilled_or_not(batches in proptest::collection::vec(proptest::collection::vec(any::<[u8; 3]>(), 0..50), 0..12), limit in 0u64..400) {
            let dir = tempfile::tempdir().unwrap();
            let budget = Arc::new(Budget::new(limit));
            let sorter = Sorter::<3>::new(budget.clone(), Arc::new(Scratch::new(dir.path(), "t", "1").unwrap()));
            let mut all: Vec<[u8; 3]> = batches.concat();
            for batch in batches {
                sorter.push(batch).unwrap();
            }
            let merged: Vec<[u8; 3]> = sorter.finish().unwrap().map(|r| r.unwrap()).collect();
            all.sort();
            prop_assert_eq!(merged, all);
            prop_assert_eq!(budget.used(), 0);
        }
    }

    #[test]
    fn a_run_that_lost_its_end_or_a_bit_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let folder = || std::fs::read_dir(dir.path().join("ofs-scratch-t-1")).unwrap();
        let scratch = Arc::new(Scratch::new(dir.path(), "t", "1").unwrap());
        let shorter = |left: usize| move |bytes: &mut Vec<u8>| bytes.truncate(left);
        let changed = |at: usize| move |bytes: &mut Vec<u8>| bytes[at] ^= 4;
        type Damage = Box<dyn Fn(&mut Vec<u8>)>;
        let damages: [Damage; 7] = [
            Box::new(shorter(0)),
            Box::new(shorter(3)),
            Box::new(shorter(3 * 20_000)),
            Box::new(changed(0)),
            Box::new(changed(77_777)),
            Box::new(changed(6 * 30_000 - 1)),
            Box::new(|bytes: &mut Vec<u8>| bytes[1_000..5_000].fill(0)),
        ];
        for (number, damage) in damages.iter().enumerate() {
            let sorter = Sorter::<3>::new(Arc::new(Budget::new(0)), scratch.clone());
            let records = |from: u32| (0..30_000).map(|n: u32| (from + 2 * n).to_be_bytes()[1..].try_into().unwrap()).collect();
            sorter.push(records(0)).unwrap();
            sorter.push(records(1)).unwrap();
            assert_eq!(folder().count(), 1, "two runs are one file");
            let path = folder().next().unwrap().unwrap().path();
            let mut bytes = std::fs::read(&path).unwrap();
            damage(&mut bytes);
            std::fs::write(&path, bytes).unwrap();
            let read = sorter.finish().and_then(|merge| merge.collect::<Result<Vec<_>, _>>());
            assert!(matches!(read, Err(EngineError::Scratch { .. })), "damage {number}");
        }
    }
}
