//! The table of settings: the loader, `ofs config`, and the environment names all come from it.

/// What kind of value a setting takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Text.
    Text,
    /// Text that names one of a set.
    Choice(&'static [&'static str]),
    /// True or false.
    Flag,
    /// A whole number within a range, both ends included.
    Int(u64, u64),
    /// Seconds, whole or fractional, at least a tenth.
    Seconds,
    /// A size like `2GiB`, at least 64 MiB.
    Memory,
    /// A list of texts.
    List,
    /// A table of texts (key bindings).
    Table,
}

/// One setting.
#[derive(Debug)]
pub struct Setting {
    /// Section of `ofs.toml`.
    pub section: &'static str,
    /// Key within it.
    pub key: &'static str,
    /// Kind of its value.
    pub kind: Kind,
    /// Default, written as TOML.
    pub default: &'static str,
    /// One line of help.
    pub help: &'static str,
}

const fn setting(section: &'static str, key: &'static str, kind: Kind, default: &'static str, help: &'static str) -> Setting {
    Setting { section, key, kind, default, help }
}

/// Every setting, in the order in which it is shown.
pub static SETTINGS: &[Setting] = &[
    setting("workspace", "profile", Kind::Text, "\"local\"", "environment profile, recorded in every plan and receipt"),
    setting("workspace", "platform_run_id", Kind::Text, "\"\"", "the active run; when set, anything of another run is refused"),
    setting("paths", "object_store", Kind::Text, "\"store\"", "object store root"),
    setting("paths", "bus", Kind::Text, "\"bus\"", "file bus root"),
    setting("paths", "labels", Kind::Text, "\"labels\"", "label assertions: a directory, a file, or a SQLite timeline"),
    setting("paths", "features", Kind::Text, "\"authority/features_v0.yaml\"", "feature authority"),
    setting("paths", "ownership", Kind::Text, "\"authority/ownership_boundaries_v0.yaml\"", "ownership boundary, checked when it exists"),
    setting("paths", "ledger", Kind::Text, "\"state/ledger.db\"", "run ledger"),
    setting("paths", "logs", Kind::Text, "\"state/logs\"", "log directory"),
    setting("paths", "scratch", Kind::Text, "\"\"", "spill space; empty means the system's temporary directory"),
    setting("replay", "verify_payload_hashes", Kind::Flag, "true", "verify declared payload hashes; a training build always does"),
    setting("limits", "memory", Kind::Memory, "\"2GiB\"", "memory of a build before it spills, at least 64MiB"),
    setting("limits", "threads", Kind::Int(0, 1024), "0", "worker threads, 0 = all cores; at most one for each 16 MiB of memory"),
    setting("launcher", "policy_id", Kind::Text, "\"ofs.launcher.v0\"", "launcher policy id"),
    setting("launcher", "revision", Kind::Text, "\"r1\"", "launcher policy revision"),
    setting("launcher", "max_publish_retry_attempts", Kind::Int(1, 1000), "3", "publish-only retries of one run"),
    setting("launcher", "request_poll_seconds", Kind::Seconds, "2.0", "pause between two looks at the request queue"),
    setting("launcher", "request_batch_limit", Kind::Int(1, 100_000), "20", "requests taken at one look"),
    setting("launcher", "lease_seconds", Kind::Int(1, 86_400), "15", "life of a lease without a heartbeat"),
    setting("launcher", "stall_seconds", Kind::Int(1, 86_400), "120", "RUNNING without progress this long counts as stuck"),
    setting("launcher", "reuse_superseded", Kind::Flag, "true", "whether a superseded data set may answer another request"),
    setting("launcher", "max_pause_seconds", Kind::Int(1, 604_800), "3600", "longest pause at a gate before the run is handed back"),
    setting("observe", "metrics", Kind::Flag, "true", "keep metrics; false: recorded as skipped"),
    setting("observe", "health", Kind::Flag, "true", "keep the health verdict; false: recorded as skipped"),
    setting("observe", "governance", Kind::Flag, "true", "send governance facts; false: recorded as skipped"),
    setting("observe", "reconciliation", Kind::Flag, "true", "keep reconciliation files; false: recorded as skipped"),
    setting("observe", "window_hours", Kind::Int(1, 8_760), "24", "how far back a failure or anomaly counts for health"),
    setting("observe", "failed_red", Kind::Int(1, 1_000_000), "1", "unresolved failed runs that make health RED"),
    setting("observe", "stuck_red", Kind::Int(1, 1_000_000), "1", "stuck runs that make health RED"),
    setting("observe", "anomalies_amber", Kind::Int(1, 1_000_000), "1", "unresolved anomalies that make health AMBER"),
    setting("observe", "anomalies_red", Kind::Int(1, 1_000_000), "10", "unresolved anomalies that make health RED"),
    setting("observe", "pending_amber", Kind::Int(1, 1_000_000), "1", "pending publications that make health AMBER"),
    setting("observe", "unsent_amber", Kind::Int(1, 1_000_000), "1", "facts whose sending failed that make health AMBER"),
    setting("console", "theme", Kind::Text, "\"ansi16\"", "colour theme"),
    setting("console", "columns", Kind::List, "[]", "columns of the list of runs, in order; empty for all"),
    setting("console", "keys", Kind::Table, "{}", "key bindings that replace the defaults"),
    setting("console", "ascii", Kind::Flag, "false", "draw with ASCII only"),
    setting("console", "mouse", Kind::Flag, "false", "take mouse events"),
    setting("console", "clipboard", Kind::Choice(&["osc52", "off"]), "\"osc52\"", "how text is copied"),
    setting("console", "frame_rate", Kind::Int(1, 60), "10", "most frames a second"),
    setting("console", "sync_output", Kind::Choice(&["auto", "on", "off"]), "\"auto\"", "synchronised output"),
    setting("access", "actor", Kind::Text, "\"SYSTEM::ofs_worker\"", "who reads protected refs"),
    setting("access", "allowed_actors", Kind::List, "[\"SYSTEM::ofs_worker\"]", "who may read protected refs"),
];

impl Setting {
    /// `section.key`.
    pub fn path(&self) -> String {
        format!("{}.{}", self.section, self.key)
    }

    /// The environment variable that sets it.
    pub fn variable(&self) -> String {
        format!("OFS_{}_{}", self.section, self.key).to_ascii_uppercase()
    }

    pub(super) fn default_value(&self) -> Result<toml::Value, String> {
        let table: toml::Table = format!("v = {}", self.default).parse().map_err(|e: toml::de::Error| e.to_string())?;
        table.get("v").cloned().ok_or_else(|| "no default".to_owned())
    }

    /// Checks a value from the file.
    pub(super) fn check(&self, value: toml::Value) -> Result<toml::Value, String> {
        let fits = match (self.kind, &value) {
            (Kind::Text, toml::Value::String(_)) | (Kind::Flag, toml::Value::Boolean(_)) => true,
            (Kind::Table, toml::Value::Table(table)) => table.values().all(|v| v.is_str() || v.is_array()),
            (Kind::Choice(names), toml::Value::String(s)) if !names.contains(&s.as_str()) => {
                return Err(format!("expected one of {}, found `{s}`", names.join(", ")));
            }
            (Kind::Choice(_), toml::Value::String(_)) => true,
            (Kind::Int(low, high), toml::Value::Integer(n)) => {
                if !u64::try_from(*n).is_ok_and(|n| (low..=high).contains(&n)) {
                    return Err(format!("expected a whole number from {low} to {high}, found {n}"));
                }
                true
            }
            (Kind::Seconds, toml::Value::Float(n)) => n.is_finite() && *n >= 0.1,
            (Kind::Seconds, toml::Value::Integer(n)) => *n >= 1,
            (Kind::Memory, toml::Value::String(text)) => match bytes(text) {
                Some(n) if n >= 64 << 20 => true,
                Some(_) => return Err("the smallest limit is 64MiB".into()),
                None => return Err(format!("expected a size like 256MiB or 2GiB, found `{text}`")),
            },
            (Kind::List, toml::Value::Array(list)) => list.iter().all(toml::Value::is_str),
            _ => false,
        };
        if fits { Ok(value) } else { Err(format!("expected {}, found {value}", self.expected())) }
    }

    /// Reads a value from text (environment, flag).
    pub(super) fn parse(&self, text: &str) -> Result<toml::Value, String> {
        let value = match self.kind {
            Kind::Text | Kind::Choice(_) | Kind::Memory => toml::Value::String(text.to_owned()),
            Kind::Flag => match text {
                "true" | "1" => toml::Value::Boolean(true),
                "false" | "0" => toml::Value::Boolean(false),
                _ => return Err(format!("expected true or false, found `{text}`")),
            },
            Kind::Int(..) => toml::Value::Integer(text.parse().map_err(|_| format!("expected a whole number, found `{text}`"))?),
            Kind::Seconds => toml::Value::Float(text.parse().map_err(|_| format!("expected seconds, found `{text}`"))?),
            Kind::List => toml::Value::Array(text.split(',').map(|s| toml::Value::String(s.trim().to_owned())).collect()),
            Kind::Table => return Err("can only be set in ofs.toml".into()),
        };
        self.check(value)
    }

    fn expected(&self) -> &'static str {
        match self.kind {
            Kind::Text | Kind::Choice(_) => "text",
            Kind::Flag => "true or false",
            Kind::Int(..) => "a whole number",
            Kind::Seconds => "seconds, at least 0.1",
            Kind::Memory => "a size in quotes, like \"2GiB\"",
            Kind::List => "a list of texts",
            Kind::Table => "a table of texts",
        }
    }
}

/// A size in bytes: a number with B, KB, KiB, MB, MiB, GB or GiB.
pub(super) fn bytes(text: &str) -> Option<u64> {
    let split = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (digits, unit) = text.split_at(split);
    let factor: u64 = match unit.trim() {
        "" | "B" => 1,
        "KB" => 1_000,
        "KiB" => 1 << 10,
        "MB" => 1_000_000,
        "MiB" => 1 << 20,
        "GB" => 1_000_000_000,
        "GiB" => 1 << 30,
        _ => return None,
    };
    digits.parse::<u64>().ok()?.checked_mul(factor)
}
