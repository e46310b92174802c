//! Batches that wait on disk: all of one kind in one file, each read back by its place.
//!
//! One file, however many batches: what is open at once, and what it costs to find a batch, does not grow with the
//! data. Bodies are read into one buffer that the arrays share.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::buffer::{Buffer, MutableBuffer};
use arrow::datatypes::SchemaRef;
use arrow::ipc::reader::read_record_batch;
use arrow::ipc::writer::{DictionaryTracker, IpcDataGenerator, IpcWriteContext, IpcWriteOptions};
use arrow::ipc::{MetadataVersion, root_as_message};

use super::EngineError;
use super::scratch::{Scratch, SpillFile};

/// Where a batch lies: its description, and right behind that its body. There are very many of them where little memory
/// meets much data, so they are small.
#[derive(Debug, Clone, Copy)]
pub struct Place {
    at: u64,
    head: u32,
    /// In units of [`ALIGNMENT`].
    body: u32,
    /// Half of the digest of both: what is read from a disk is proved like everything else.
    digest: [u8; 16],
}

/// What the arrays of a body are aligned to: no value is wider.
const ALIGNMENT: usize = 16;

/// A file of batches.
#[derive(Debug)]
pub struct Spill {
    schema: SchemaRef,
    file: SpillFile,
}

fn digest(head: &[u8], body: &[u8]) -> [u8; 16] {
    let mut digest = [0; 16];
    blake3::Hasher::new().update(head).update(body).finalize_xof().fill(&mut digest);
    digest
}

impl Spill {
    /// Nothing yet; `kind` begins the file's name.
    pub fn new(kind: &'static str, schema: SchemaRef, scratch: Arc<Scratch>) -> Self {
        Spill { schema, file: SpillFile::new(kind, scratch) }
    }

    /// The columns.
    pub fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    /// Writes a batch behind the others.
    ///
    /// # Errors
    /// Spill space that fails; a batch of more than 64 GiB.
    pub fn write(&self, batch: &RecordBatch) -> Result<Place, EngineError> {
        let (mut none, mut context) = (DictionaryTracker::new(false), IpcWriteContext::default());
        let options = IpcWriteOptions::try_new(ALIGNMENT, false, MetadataVersion::V5)?;
        let (_, encoded) = IpcDataGenerator::default().encode(batch, &mut none, &options, &mut context)?;
        let (head, body) = (encoded.ipc_message, encoded.arrow_data);
        let too_large = |_| EngineError::Memory("a batch is too large to be spilled".into());
        let at = self.file.reserve(head.len() + body.len());
        self.file.write(&head, at)?;
        self.file.write(&body, at + head.len() as u64)?;
        Ok(Place {
            at,
            head: u32::try_from(head.len()).map_err(too_large)?,
            body: u32::try_from(body.len() / ALIGNMENT).map_err(too_large)?,
            digest: digest(&head, &body),
        })
    }

    /// Reads a batch again.
    ///
    /// # Errors
    /// Spill space that fails, or does not hold what was written.
    pub fn read(&self, place: Place) -> Result<RecordBatch, EngineError> {
        let mut head = vec![0; place.head as usize];
        let mut body = MutableBuffer::from_len_zeroed(place.body as usize * ALIGNMENT);
        self.file.read(&mut head, place.at)?;
        self.file.read(&mut body, place.at + u64::from(place.head))?;
        let damaged = || self.file.damaged();
        // One changed bit would be another value in a row, and whoever reads by a wrong description reads beyond the body.
        if digest(&head, &body) != place.digest {
            return Err(damaged());
        }
        let message = root_as_message(&head).map_err(|_| damaged())?;
        let batch = message.header_as_record_batch().ok_or_else(damaged)?;
        read_record_batch(&Buffer::from(body), batch, self.schema.clone(), &HashMap::new(), None, &message.version()).map_err(|_| damaged())
    }

    /// Gives the space back; places are no longer valid.
    pub fn clear(&self) {
        self.file.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

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
        assert!(size_of::<Place>() <= 32);
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
        let path = fs::read_dir(dir.path().join("ofs-scratch-t-1")).unwrap().next().unwrap().unwrap().path();
        let whole = fs::read(&path).unwrap();
        let refused = |bytes: &[u8], what: &str| {
            fs::write(&path, bytes).unwrap();
            assert!(matches!(spill.read(place), Err(EngineError::Scratch { .. })), "{what}");
        };
        refused(&whole[..whole.len() - 1], "too short");
        refused(&[], "empty");
        for at in 0..whole.len() {
            let mut changed = whole.clone();
            changed[at] ^= 1 << (at % 8);
            refused(&changed, &format!("a bit of byte {at}"));
        }
        fs::write(&path, &whole).unwrap();
        assert_eq!(spill.read(place).unwrap(), batch(&schema, 1));
    }
}
