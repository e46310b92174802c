//! The operations console: live panes over the run ledger and a run's evidence, background builds, step
//! mode, triage and demos, in a terminal.
//!
//! Elm shape: one task owns the model; `update` and `view` are pure and tested without a terminal; whatever
//! reads files, builds or writes to the terminal is an effect. One [`action::TABLE`] is the vocabulary that
//! key map, hint line, help, palette, deep links, documentation and demo scripts are generated from.

pub mod action;
pub mod app;
pub mod builds;
pub mod cast;
pub mod data;
pub mod demo;
pub mod driver;
pub mod effects;
pub mod filter;
pub mod keys;
pub mod look;
pub mod model;
pub mod msg;
pub mod panes;
pub mod playback;
pub mod scrub;
pub mod terminal;
#[cfg(test)]
pub(crate) mod testing;
pub mod update;
pub mod view;
