//! What the panes show, as plain data: how it is read from the ledger and the store, without a word about
//! how it is drawn.

pub mod detail;
pub mod runs;
