//! Files that a person asked for.

use std::fs::OpenOptions;
use std::io::{ErrorKind, Write};
use std::path::Path;

use crate::console::msg::Told;

/// Writes a file that is not there yet; a relative name is taken from the workspace.
pub(super) fn write_new(root: &Path, what: &str, path: &Path, content: &str) -> Told {
    let path = root.join(path);
    let written = OpenOptions::new().write(true).create_new(true).open(&path).and_then(|mut file| file.write_all(content.as_bytes()));
    match written {
        Ok(()) => Told::good(format!("{what}: {} bytes in {}", content.len(), path.display())),
        Err(error) if error.kind() == ErrorKind::AlreadyExists => Told::bad(format!("{} is there; nothing was written", path.display())),
        Err(error) => Told::bad(format!("{what}: {}: {error}", path.display())),
    }
}
