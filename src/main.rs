//! The `ofs` program.

fn main() {}
