//! The corridor of proofs.
//!
//! A build walks admit → pin → replay → label → feature → publish. Each gate takes the proof that the
//! gate before it made and returns a stronger one, or a [`Refusal`]. Proof types have private fields and
//! live with their gate, so an unproven data set does not type-check.

pub mod admit;
pub mod feature;
pub mod forensic;
pub mod gate;
pub mod kept;
pub mod label;
pub mod lineage;
pub(crate) mod parallel;
pub mod parity;
pub mod peek;
pub mod pin;
pub mod progress;
pub mod projection;
pub mod publish;
pub mod replay;
mod report;
pub mod run;
pub mod totals;
mod window_columns;

pub use gate::{Phase, Refusal};
