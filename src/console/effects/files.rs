//! Files that a person asked for.

use std::fs::OpenOptions;
use std::io::{ErrorKind, Write};
use std::path::Path;

use crate::config::Config;
use crate::console::msg::Told;
use crate::contract::ReasonCode;

/// Why a file may not be written where a person says (O125, O166).
pub(super) fn refused(config: &Config, path: &Path) -> Option<String> {
    let key = config.reads_only(path)?;
    Some(format!("{}: {} lies inside {key}; nothing was written", ReasonCode::OutputPathRefused, path.display()))
}

/// Writes a file that is not there yet; a relative name is taken from the workspace.
pub(super) fn write_new(config: &Config, what: &str, path: &Path, content: &str) -> Told {
    let path = config.workspace.join(path);
    if let Some(refused) = refused(config, &path) {
        return Told::bad(format!("{what}: {refused}"));
    }
    let written = OpenOptions::new().write(true).create_new(true).open(&path).and_then(|mut file| file.write_all(content.as_bytes()));
    match written {
        Ok(()) => Told::good(format!("{what}: {} bytes in {}", content.len(), path.display())),
        Err(error) if error.kind() == ErrorKind::AlreadyExists => Told::bad(format!("{} is there; nothing was written", path.display())),
        Err(error) => Told::bad(format!("{what}: {}: {error}", path.display())),
    }
}
