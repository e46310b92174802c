//! Black-box tests of the `ofs` binary: one test binary, a module for each subject.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod cli;
mod console;
mod contracts;
mod demos;
mod determinism;
mod faults;
mod ledger_story;
mod operators;
mod oracle;
mod scenarios;
mod support;
mod workers;
