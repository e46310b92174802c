//! The project's own contracts and fixtures, carried inside the binary.

include!(concat!(env!("OUT_DIR"), "/embedded.rs"));

/// The bytes of one embedded file, by its path in the project (`contracts/…` or `fixtures/…`).
pub fn file(path: &str) -> Option<&'static [u8]> {
    EMBEDDED.iter().find(|(name, _)| *name == path).map(|(_, bytes)| *bytes)
}

/// All embedded files below a folder: (path below it, bytes), sorted.
pub fn below(folder: &str) -> impl Iterator<Item = (&'static str, &'static [u8])> {
    let prefix = format!("{folder}/");
    EMBEDDED.iter().filter_map(move |(name, bytes)| name.strip_prefix(prefix.as_str()).map(|rest| (rest, *bytes)))
}
