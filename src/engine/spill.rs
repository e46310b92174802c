//! Batches that wait on disk: all of one kind in one file, each read back by its place.
//!
//! One file, however many batches: what is open at once, and what it costs to find a batch, does not grow with the
//! data. Bodies are read into one buffer that the arrays share.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use arrow::array::RecordBatch;
use arrow::buffer::{Buffer, MutableBuffer};
use arrow::datatypes::SchemaRef;
use arrow::ipc::reader::read_record_batch;
use arrow::ipc::root_as_message;
use arrow::ipc::writer::{DictionaryTracker, IpcDataGenerator, IpcWriteContext, IpcWriteOptions};

use super::EngineError;
use super::scratch::Scratch;

/// Where a batch lies: its description, and right behind that its body.
#[derive(Debug, Clone, Copy)]
pub struct Place {
    at: u64,
    head: usize,
    body: usize,
}

/// A file of batches, made when the first one comes and removed with its owner.
#[derive(Debug)]
pub struct Spill {
    kind: &'static str,
    schema: SchemaRef,
    scratch: Arc<Scratch>,
    file: Mutex<Option<(PathBuf, Arc<File>)>>,
    end: AtomicU64,
}

fn failed(place: &Path, error: &io::Error) -> EngineError {
    EngineError::Scratch { place: place.display().to_string(), message: error.to_string() }
}

impl Spill {
    /// Nothing yet; `kind` begins the file's name.
    pub fn new(kind: &'static str, schema: SchemaRef, scratch: Arc<Scratch>) -> Self {
        Spill { kind, schema, scratch, file: Mutex::new(None), end: AtomicU64::new(0) }
    }

    /// The columns.
    pub fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    fn file(&self) -> Result<(PathBuf, Arc<File>), EngineError> {
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(file) = file.as_ref() {
            return Ok(file.clone());
        }
        let (path, created) = self.scratch.create(self.kind)?;
        Ok(file.insert((path, Arc::new(created))).clone())
    }

    /// Writes a batch behind the others.
    ///
    /// # Errors
    /// Spill space that fails.
    pub fn write(&self, batch: &RecordBatch) -> Result<Place, EngineError> {
        let (mut none, mut context) = (DictionaryTracker::new(false), IpcWriteContext::default());
        let (_, encoded) = IpcDataGenerator::default().encode(batch, &mut none, &IpcWriteOptions::default(), &mut context)?;
        let (head, body) = (encoded.ipc_message, encoded.arrow_data);
        let at = self.end.fetch_add((head.len() + body.len()) as u64, Ordering::Relaxed);
        let (path, file) = self.file()?;
        let written = file.write_all_at(&head, at).and_then(|()| file.write_all_at(&body, at + head.len() as u64));
        written.map_err(|e| failed(&path, &e))?;
        Ok(Place { at, head: head.len(), body: body.len() })
    }

    /// About how many bytes a batch takes in memory.
    pub fn bytes(place: Place) -> u64 {
        place.body as u64
    }

    /// Reads a batch again.
    ///
    /// # Errors
    /// Spill space that fails, or does not hold what was written.
    pub fn read(&self, place: Place) -> Result<RecordBatch, EngineError> {
        let (path, file) = self.file()?;
        let mut head = vec![0; place.head];
        let mut body = MutableBuffer::from_len_zeroed(place.body);
        let read = file.read_exact_at(&mut head, place.at).and_then(|()| file.read_exact_at(&mut body, place.at + place.head as u64));
        read.map_err(|e| failed(&path, &e))?;
        let damaged = || failed(&path, &io::Error::other("what was spilled is damaged"));
        let message = root_as_message(&head).map_err(|_| damaged())?;
        let batch = message.header_as_record_batch().ok_or_else(damaged)?;
        Ok(read_record_batch(&Buffer::from(body), batch, self.schema.clone(), &HashMap::new(), None, &message.version())?)
    }

    /// Gives the space back; places are no longer valid.
    pub fn clear(&self) {
        let file = self.file.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some((path, _)) = file {
            // Where this fails, the folder of the attempt is removed all the same.
            let _ = fs::remove_file(path);
        }
    }
}

impl Drop for Spill {
    fn drop(&mut self) {
        self.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::{FixedSizeBinaryArray, Int64Array, StringArray};
    use arrow::datatypes::{DataType, Field, Schema};

    fn batch(schema: &SchemaRef, from: i64) -> RecordBatch {
        let numbers = Int64Array::from_iter_values(from..from + 10);
        let texts: StringArray = (from..from + 10).map(|n| (n % 3 != 0).then(|| format!("text {n}"))).collect();
        let hashes = FixedSizeBinaryArray::try_from_iter((0..10u8).map(|n| [n; 32])).unwrap();
        RecordBatch::try_new(schema.clone(), vec![Arc::new(numbers), Arc::new(texts), Arc::new(hashes)]).unwrap()
    }

    #[test]
    fn batches_come_back_by_their_places_and_the_space_is_given_back() {
        let dir = tempfile::tempdir().unwrap();
        let schema = Arc::new(Schema::new(vec![
            Field::new("n", DataType::Int64, false),
            Field::new("s", DataType::Utf8, true),
            Field::new("h", DataType::FixedSizeBinary(32), false),
        ]));
        let scratch = Arc::new(Scratch::new(dir.path(), "t", "1").unwrap());
        let spill = Spill::new("rows", schema.clone(), scratch);
        let files = || fs::read_dir(dir.path().join("ofs-scratch-t-1")).unwrap().count();
        assert_eq!(files(), 0);
        let places: Vec<Place> = (0..5).map(|n| spill.write(&batch(&schema, n)).unwrap()).collect();
        let slice = spill.write(&batch(&schema, 7).slice(3, 4)).unwrap();
        assert_eq!(files(), 1);
        for n in [4, 0, 3, 1, 2] {
            assert_eq!(spill.read(places[n]).unwrap(), batch(&schema, n as i64));
        }
        assert_eq!(spill.read(slice).unwrap(), batch(&schema, 7).slice(3, 4));
        spill.clear();
        assert_eq!(files(), 0);
    }

    #[test]
    fn damaged_spill_space_is_an_error_of_the_environment() {
        let dir = tempfile::tempdir().unwrap();
        let schema = Arc::new(Schema::new(vec![
            Field::new("n", DataType::Int64, false),
            Field::new("s", DataType::Utf8, true),
            Field::new("h", DataType::FixedSizeBinary(32), false),
        ]));
        let spill = Spill::new("rows", schema.clone(), Arc::new(Scratch::new(dir.path(), "t", "1").unwrap()));
        let place = spill.write(&batch(&schema, 1)).unwrap();
        let path = spill.file().unwrap().0;
        let whole = fs::metadata(&path).unwrap().len();
        for (name, damage) in [("short", whole - 1), ("gone", 0)] {
            fs::OpenOptions::new().write(true).open(&path).unwrap().set_len(damage).unwrap();
            assert!(matches!(spill.read(place), Err(EngineError::Scratch { .. })), "{name}");
        }
    }
}
