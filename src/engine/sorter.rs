//! External sort of fixed-width records, compared as bytes: sorted runs in memory, spilled beyond the
//! budget, merged at the end. Used for what must be seen in offset order, however it arrived.

use std::cmp::Ordering;
use std::io::{BufReader, BufWriter, Read, Write};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use super::EngineError;
use super::scratch::{Budget, Scratch};
use super::tournament::Tournament;

/// Sorts records of `W` bytes.
#[derive(Debug)]
pub struct Sorter<const W: usize> {
    budget: Arc<Budget>,
    scratch: Arc<Scratch>,
    runs: Mutex<Runs<W>>,
}

#[derive(Debug, Default)]
struct Runs<const W: usize> {
    resident: Vec<Vec<[u8; W]>>,
    spilled: Vec<PathBuf>,
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
        Sorter { budget, scratch, runs: Mutex::new(Runs { resident: Vec::new(), spilled: Vec::new() }) }
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
            let freed = bytes_of(&resident);
            runs.spilled.push(self.spill(resident)?);
            self.budget.give(freed);
        }
        Ok(())
    }

    fn spill(&self, resident: Vec<Vec<[u8; W]>>) -> Result<PathBuf, EngineError> {
        let (path, file) = self.scratch.create("sorted")?;
        let failed = |e: std::io::Error| EngineError::Scratch { place: path.display().to_string(), message: e.to_string() };
        let mut out = BufWriter::with_capacity(1 << 18, file);
        for record in Merge::new(chained(resident))? {
            out.write_all(&record?).map_err(failed)?;
        }
        out.flush().map_err(failed)?;
        Ok(path)
    }

    /// All records in order.
    ///
    /// # Errors
    /// Spill space that fails.
    pub fn finish(&self) -> Result<Merge<W>, EngineError> {
        let mut runs = self.runs.lock().unwrap_or_else(PoisonError::into_inner);
        let runs = std::mem::take(&mut *runs);
        let freed = bytes_of(&runs.resident);
        let mut all: Vec<Run<W>> = chained(runs.resident);
        for path in &runs.spilled {
            all.push(Run::File(BufReader::with_capacity(1 << 16, self.scratch.open(path)?)));
        }
        let mut merge = Merge::new(all)?;
        merge.held = Some((self.budget.clone(), freed));
        Ok(merge)
    }
}

enum Run<const W: usize> {
    /// Lists that follow one another.
    Memory(std::iter::Flatten<std::vec::IntoIter<Vec<[u8; W]>>>),
    File(BufReader<std::fs::File>),
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
            Run::File(file) => {
                let mut record = [0u8; W];
                match file.read_exact(&mut record) {
                    Ok(()) => Ok(Some(record)),
                    Err(e) if e.kind() == std::io::ErrorKind::UnexpectedEof => Ok(None),
                    Err(e) => Err(EngineError::Scratch { place: "a sorted run".into(), message: e.to_string() }),
                }
            }
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
    held: Option<(Arc<Budget>, u64)>,
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

impl<const W: usize> Drop for Merge<W> {
    fn drop(&mut self) {
        if let Some((budget, bytes)) = self.held.take() {
            budget.give(bytes);
        }
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
}
