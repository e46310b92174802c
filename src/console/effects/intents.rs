//! The intents that a workspace holds.

use std::path::Path;

use serde_json::Value;

use crate::console::msg::IntentFile;
use crate::json::Tape;

/// Most files that are looked at, and the largest, in bytes.
const MAX_FILES: usize = 1_000;
const MAX_BYTES: u64 = 4 << 20;

/// The files `intents/*.json`, by name.
pub(super) fn find(root: &Path) -> Vec<IntentFile> {
    let Ok(entries) = std::fs::read_dir(root.join("intents")) else { return Vec::new() };
    let mut found: Vec<IntentFile> = entries
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| path.extension().is_some_and(|end| end == "json"))
        .take(MAX_FILES)
        .map(|path| IntentFile { name: path.file_name().unwrap_or_default().to_string_lossy().into_owned(), about: about(&path), path })
        .collect();
    found.sort_by(|a, b| a.name.cmp(&b.name));
    found
}

/// What is in one, in a line.
fn about(path: &Path) -> Result<String, String> {
    let size = std::fs::metadata(path).map_err(|e| e.to_string())?.len();
    if size > MAX_BYTES {
        return Err(format!("larger than the limit of {MAX_BYTES} bytes"));
    }
    let bytes = std::fs::read(path).map_err(|e| e.to_string())?;
    let mut tape = Tape::new();
    let intent: Value = tape.parse(&bytes).map_err(|e| e.to_string())?.root().to_value();
    let text = |key: &str| intent.get(key).and_then(Value::as_str).unwrap_or("-").to_owned();
    Ok(format!("{}  request {}", text("intent_kind"), text("request_id")))
}
