//! Black-box tests of the `ofs` binary: one test binary, a module for each subject.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod certificates;
mod cli;
mod closure;
mod console;
mod contracts;
mod demos;
mod determinism;
mod diff;
mod explain;
mod exports;
mod faults;
mod generate;
mod intent_new;
mod labels_import;
mod ledger_story;
mod operators;
mod oracle;
#[cfg(feature = "otlp")]
mod otlp;
mod parity;
mod races;
mod report;
mod resume;
mod scenarios;
mod sealed;
mod support;
mod workers;
