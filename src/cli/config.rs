//! `ofs config show` and `ofs config check`: every setting, its value, and where it comes from.

use serde_json::{Value, json};

use super::{Context, Failure, Outcome, document, say};
use crate::config::{Config, Origin};
use crate::contract::ReasonCode;

/// What can be asked of the configuration.
#[derive(Debug, clap::Subcommand)]
pub(super) enum Args {
    /// Every setting with its value.
    Show {
        /// Where each value comes from, and the variable that would override it.
        #[arg(long)]
        origin: bool,
    },
    /// Check the configuration; the first thing that is wrong is named.
    Check,
}

pub(super) fn run(context: &Context, args: &Args) -> Outcome {
    match args {
        Args::Show { origin } => show(context, *origin),
        Args::Check => check(context),
    }
}

/// Every setting as `ofs.config.v1` shows it.
fn settings(config: &Config) -> Vec<Value> {
    config
        .entries()
        .map(|(s, value, origin)| {
            json!({"key": s.path(), "value": value, "origin": kind(origin), "origin_detail": origin.to_string(), "variable": s.variable(), "default": s.default, "help": s.help})
        })
        .collect()
}

fn kind(origin: &Origin) -> &'static str {
    match origin {
        Origin::Default => "default",
        Origin::File => "file",
        Origin::Environment(_) => "environment",
        Origin::Flag => "flag",
    }
}

/// `ofs.config.v1`.
fn config_json(config: &Config) -> Value {
    json!({
        "schema_version": "ofs.config.v1", "workspace": config.workspace.display().to_string(),
        "workspace_origin": config.workspace_origin.to_string(), "settings": settings(config),
    })
}

fn show(context: &Context, origins: bool) -> Outcome {
    let config = &context.config;
    if context.json {
        document(&config_json(config));
        return Ok(0);
    }
    let note = |origin: &Origin, variable: &str| if origins { format!("   # {origin}; {variable}") } else { String::new() };
    say(format!("# workspace {}{}", config.workspace.display(), note(&config.workspace_origin, "OFS_WORKSPACE")));
    let mut section = "";
    for (setting, value, origin) in config.entries() {
        if setting.section != section {
            section = setting.section;
            say(format!("\n[{section}]"));
        }
        // Values came from TOML, and all but tables are written alike in both.
        let text = if value.as_object().is_some_and(serde_json::Map::is_empty) { "{}".to_owned() } else { value.to_string() };
        say(format!("{} = {text}{}", setting.key, note(origin, &setting.variable())));
    }
    Ok(0)
}

/// What loads is checked by kind and range already; this adds what only the whole can say.
fn check(context: &Context) -> Outcome {
    let config = &context.config;
    let store = config.text("paths", "object_store");
    if store.contains("://") {
        let code = ReasonCode::StoreUnsupported;
        return Err(Failure {
            exit: code.info().exit,
            code: Some(code),
            message: format!("paths.object_store: {store} has no back end in this version"),
            hint: Some(code.info().remedy.into()),
        });
    }
    let actor = config.text("access", "actor");
    if !config.list("access", "allowed_actors").iter().any(|a| a == actor) {
        return Err(Failure {
            exit: 2,
            code: Some(ReasonCode::ConfigInvalid),
            message: format!("access.actor: {actor} is not among access.allowed_actors, so every protected ref would be denied"),
            hint: Some("add the actor to allowed_actors, or choose one of them".into()),
        });
    }
    // What the console would refuse to start with.
    super::console::keymap(config)?;
    super::console::theme(config)?;
    super::console::runs_pane(config)?;
    let set = config.entries().filter(|(.., origin)| **origin != Origin::Default).count();
    if context.json {
        document(
            &json!({"schema_version": "ofs.config_check.v1", "ok": true, "workspace": config.workspace.display().to_string(), "settings_set": set}),
        );
    } else {
        say(format!("ok: {}; {set} setting(s) are set, all others have their defaults", config.workspace.display()));
    }
    Ok(0)
}
