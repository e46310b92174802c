//! `ofs keys`: every action of the console with the keys that it has now.

use serde_json::{Value, json};

use super::{Context, Outcome, document, say};
use crate::console::action::TABLE;

pub(super) fn run(context: &Context) -> Outcome {
    let keymap = super::console::keymap(&context.config)?;
    let keys = |action| keymap.keys(action).iter().map(ToString::to_string).collect::<Vec<_>>();
    if context.json {
        let keys: Vec<Value> = TABLE
            .iter()
            .map(|e| json!({"action": e.name, "keys": keys(e.action), "where": e.place.name(), "writes": e.writes, "dangerous": e.dangerous, "help": e.help}))
            .collect();
        document(&json!({"schema_version": "ofs.keys.v1", "keys": keys}));
        return Ok(0);
    }
    for entry in TABLE {
        let keys = keys(entry.action);
        let keys = if keys.is_empty() { format!(":{}", entry.name) } else { keys.join(" ") };
        let warn = if entry.dangerous { " (cannot be undone)" } else { "" };
        say(format!("{keys:<18} {:<16} {:<11} {}{warn}", entry.name, entry.place.name(), entry.help));
    }
    Ok(0)
}
