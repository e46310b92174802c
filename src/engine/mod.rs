//! Arrow kernels and what they need: no domain policy here, and no I/O but spilling.

pub mod cell;
pub mod dataset_file;
pub mod digest;
pub mod exact;
pub mod float_sum;
pub mod interval;
pub mod merge;
pub mod offsets;
pub mod order;
pub mod scratch;
pub mod shard;
pub mod sorter;
pub mod spill;
pub mod spool;
pub mod tournament;
pub mod window;

/// What can go wrong in a kernel, by what the caller can do.
#[derive(Debug, Clone, thiserror::Error)]
pub enum EngineError {
    /// Spill space failed (no space, I/O): retryable.
    #[error("spill space {place}: {message}")]
    Scratch {
        /// File or folder.
        place: String,
        /// What happened.
        message: String,
    },
    /// One unit of work does not fit the memory limit.
    #[error("{0}")]
    Memory(String),
    /// A defect: arrays that do not fit together.
    #[error("internal: {0}")]
    Internal(String),
}

impl From<arrow::error::ArrowError> for EngineError {
    fn from(error: arrow::error::ArrowError) -> Self {
        match error {
            arrow::error::ArrowError::IoError(message, _) => EngineError::Scratch { place: "arrow file".into(), message },
            arrow::error::ArrowError::OffsetOverflowError(_) => {
                EngineError::Memory("the texts of one unit of work are longer than two gigabytes together".into())
            }
            other => EngineError::Internal(other.to_string()),
        }
    }
}
