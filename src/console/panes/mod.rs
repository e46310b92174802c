//! One file a pane: what it remembers between frames, which actions it obeys, and how it draws a view model.
//!
//! `draw` is pure, draws at every size, builds no more rows than it shows, escapes every text from outside,
//! and says each state in a word and a glyph besides its style.

pub mod parts;
pub mod runs;
#[cfg(test)]
pub mod testing;
