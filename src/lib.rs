//! The Offline Feature Plane: rebuilds training data sets so that every row can be proved, and refuses
//! whatever it cannot prove. `CONTRIBUTING.md` has the map of the rooms; arrows point down only.
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing))]

pub mod answer;
pub mod cli;
pub mod config;
pub mod console;
pub mod contract;
pub mod digest;
pub mod engine;
pub mod export;
pub mod identity;
pub mod json;
pub mod ledger;
pub mod observe;
pub mod operate;
pub mod pipeline;
pub mod prove;
pub mod source;
pub mod store;
pub mod text;
pub mod time;
