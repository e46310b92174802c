//! `ofs init DIR --from WORKSPACE`: a new workspace with copies of another's inputs.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde_json::json;

use super::{Context, Failure, Outcome, document, say};
use crate::config::Config;

/// Arguments of `ofs init`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The new workspace; must not exist, or be empty.
    dir: PathBuf,
    /// The workspace whose inputs are copied.
    #[arg(long, value_name = "WORKSPACE")]
    from: PathBuf,
}

pub(super) fn run(context: &Context, args: &Args) -> Outcome {
    let source = Config::load(Some(&args.from), &std::env::current_dir()?, &BTreeMap::new())?;
    if !source.path("object_store").is_dir() {
        return Err(Failure::usage(format!("{} is no workspace: it has no object store", args.from.display())));
    }
    if args.dir.read_dir().is_ok_and(|mut d| d.next().is_some()) {
        return Err(Failure::usage(format!("{} is not empty; nothing was copied", args.dir.display())));
    }
    context.may_fill(&args.dir)?;
    super::context::may_fill(&source, &args.dir)?;
    let mut files = 0u64;
    std::fs::create_dir_all(&args.dir)?;
    let settings = source.workspace.join("ofs.toml");
    if settings.is_file() {
        std::fs::copy(&settings, args.dir.join("ofs.toml"))?;
        files += 1;
    }
    for key in ["object_store", "bus", "labels", "features", "ownership"] {
        let relative = Path::new(source.text("paths", key));
        if relative.is_relative() && !relative.components().any(|c| c == std::path::Component::ParentDir) {
            copy(&source.workspace.join(relative), &args.dir.join(relative), key == "object_store", &mut files)?;
        }
    }
    copy(&source.workspace.join("intents"), &args.dir.join("intents"), false, &mut files)?;
    if context.json {
        document(&json!({"schema_version": "ofs.init.v1", "workspace": args.dir.display().to_string(), "files": files}));
    } else {
        say(format!("{files} file(s) copied to {}", args.dir.display()));
        say(format!("next: ofs --workspace {} run {}", args.dir.display(), args.dir.join("intents/<intent>.json").display()));
    }
    Ok(0)
}

/// Copies inputs; what OFS itself wrote (`<run>/ofs`) is no input.
fn copy(from: &Path, to: &Path, store: bool, files: &mut u64) -> std::io::Result<()> {
    if from.is_file() {
        if let Some(parent) = to.parent() {
            std::fs::create_dir_all(parent)?;
        }
        std::fs::copy(from, to)?;
        *files += 1;
    } else if from.is_dir() {
        std::fs::create_dir_all(to)?;
        for entry in std::fs::read_dir(from)? {
            let name = entry?.file_name();
            if store && name == "ofs" && from.parent().is_some_and(|p| p.file_name().is_some()) {
                continue;
            }
            copy(&from.join(&name), &to.join(&name), store, files)?;
        }
    }
    Ok(())
}
