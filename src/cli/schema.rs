//! `ofs schema [NAME]`: the contracts that the binary carries.

use std::io::Write;

use serde_json::{Value, json};

use super::{Failure, Outcome, document, say};
use crate::contract::embedded;
use crate::text::nearest;

/// Arguments of `ofs schema`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Which contract; without a name all are listed.
    name: Option<String>,
}

/// Stem, file name and text of every contract.
fn contracts() -> Vec<(&'static str, &'static str, &'static [u8])> {
    embedded::below("contracts")
        .map(|(file, text)| {
            let stem = file.strip_suffix(".schema.json").or_else(|| file.rsplit_once('.').map(|(stem, _)| stem)).unwrap_or(file);
            (stem, file, text)
        })
        .collect()
}

fn title(text: &[u8]) -> String {
    let schema: Option<Value> = serde_json::from_slice(text).ok();
    schema.as_ref().and_then(|s| s.get("title")).and_then(Value::as_str).unwrap_or_default().to_owned()
}

/// Prints a contract, or the list of them.
pub(super) fn run(as_json: bool, args: &Args) -> Outcome {
    let all = contracts();
    let Some(name) = &args.name else {
        if as_json {
            let list: Vec<Value> = all.iter().map(|(stem, file, text)| json!({"name": stem, "file": file, "title": title(text)})).collect();
            document(&json!({"schema_version": "ofs.schemas.v1", "schemas": list}));
        } else {
            all.iter().for_each(|(stem, _, text)| say(format!("{stem:<28} {}", title(text)).trim_end()));
        }
        return Ok(0);
    };
    let Some((_, file, text)) = all.iter().find(|(stem, file, _)| stem == name || file == name) else {
        let hint = nearest(name, all.iter().map(|(stem, ..)| *stem)).map(|n| format!("did you mean {n}?"));
        return Err(Failure::usage(format!("no contract is named {name}")).hint(hint.unwrap_or_else(|| "`ofs schema` lists them".into())));
    };
    if as_json && !file.ends_with(".json") {
        document(&json!({"schema_version": "ofs.schema.v1", "name": name, "file": file, "text": String::from_utf8_lossy(text)}));
    } else {
        std::io::stdout().lock().write_all(text)?;
    }
    Ok(0)
}
