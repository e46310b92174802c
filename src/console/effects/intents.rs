//! The intents that a workspace holds.

use std::path::Path;

use serde_json::Value;

use super::World;
use crate::console::msg::IntentFile;
use crate::json::Tape;
use crate::operate::intent_new::{self, Selectors};

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
        // How a new intent was resolved lies beside it.
        .filter(|path| !path.to_string_lossy().ends_with(".mapping.json"))
        .take(MAX_FILES)
        .map(|path| IntentFile { name: path.file_name().unwrap_or_default().to_string_lossy().into_owned(), about: about(&path), path })
        .collect();
    found.sort_by(|a, b| a.name.cmp(&b.name));
    found
}

/// Makes an intent from what the workspace holds and writes it, with how it was resolved beside it. The name that
/// it was written under.
pub(super) fn make(world: &World, path: &Path, selectors: &Selectors) -> Result<String, String> {
    if !world.may_write {
        return Err("the console is read-only".into());
    }
    let whole = world.config.workspace.join(path);
    if let Some(refused) = super::files::refused(&world.config, &whole) {
        return Err(refused);
    }
    let made = intent_new::resolve(&world.env()?, selectors).map_err(|refusal| format!("{}: {}", refusal.code, refusal.message))?;
    intent_new::write(&made, &whole).map_err(|(at, e)| format!("{}: {e}; name a file that does not exist", at.display()))?;
    Ok(path.display().to_string())
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
