//! Traces and metrics of builds for an OpenTelemetry collector (cargo feature `otlp`). Both are told after the work, from
//! the ledger's events and from what the observers measure anyway: no gate knows of it, and the spans of a run that
//! was resumed begin and end when the record says.
//!
//! Asked for by `OTEL_EXPORTER_OTLP_ENDPOINT`, or for one signal by `OTEL_EXPORTER_OTLP_{TRACES,METRICS}_ENDPOINT`. What
//! became of each signal is noted beside the others (O153, O154); it never changes a data set or an exit code, and
//! it takes a bounded time, see [`courier::Courier`].

mod courier;
mod measured;
mod story;

use std::sync::Arc;

use opentelemetry::{Key, KeyValue, Value as Attribute};
use opentelemetry_otlp::Protocol;
use opentelemetry_sdk::Resource;
use serde_json::Value;

use self::courier::Courier;
use super::world::World;
use crate::contract::path_safe;
use crate::ledger::{Delivery, LedgerError, RunRow};
use crate::pipeline::gate::Env;
use crate::pipeline::pin::RELEASE;
use crate::pipeline::run::Host;

/// One of the two things that are sent.
struct Signal {
    /// Its name on record.
    name: &'static str,
    /// What it is called in names of environment variables.
    stem: &'static str,
}

const TRACES: Signal = Signal { name: "otlp-traces", stem: "TRACES" };
const METRICS: Signal = Signal { name: "otlp-metrics", stem: "METRICS" };

/// A variable of the environment that says something.
fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().map(|value| value.trim().to_owned()).filter(|value| !value.is_empty())
}

impl Signal {
    /// A setting of the exporter's: the signal's own, else that of both.
    fn setting(&self, what: &str) -> Option<String> {
        variable(&format!("OTEL_EXPORTER_OTLP_{}_{what}", self.stem)).or_else(|| variable(&format!("OTEL_EXPORTER_OTLP_{what}")))
    }

    fn wanted(&self) -> bool {
        self.setting("ENDPOINT").is_some()
    }

    /// Why a policy keeps it back.
    fn kept_back(&self, env: &Env) -> Option<String> {
        let exporter = format!("OTEL_{}_EXPORTER", self.stem);
        if variable("OTEL_SDK_DISABLED").is_some_and(|value| value.eq_ignore_ascii_case("true")) {
            Some("OTEL_SDK_DISABLED is true".into())
        } else if variable(&exporter).is_some_and(|value| value.eq_ignore_ascii_case("none")) {
            Some(format!("{exporter} is none"))
        } else if self.stem == METRICS.stem && !env.config.flag("observe", "metrics") {
            Some("observe.metrics is off".into())
        } else {
            None
        }
    }

    /// The exporter could not be made. What it says of that could repeat a secret of the endpoint's.
    fn unusable(&self) -> String {
        format!("OTEL_EXPORTER_OTLP_ENDPOINT (or that of {}) is no URL that can be used", self.stem)
    }

    /// How it is written: binary unless JSON is asked for, as the protocol recommends.
    fn protocol(&self) -> Result<Protocol, String> {
        match self.setting("PROTOCOL").as_deref() {
            None | Some("http/protobuf") => Ok(Protocol::HttpBinary),
            Some("http/json") => Ok(Protocol::HttpJson),
            Some(_) => Err(format!("OTEL_EXPORTER_OTLP_PROTOCOL (or that of {}) is neither http/protobuf nor http/json", self.stem)),
        }
    }
}

/// Tells a collector what this process has just done on a run. What a person should hear of it, if anything.
pub(super) fn export(env: &Env, host: &Host, run_key: &str) -> Option<String> {
    if ![TRACES, METRICS].iter().any(Signal::wanted) {
        return None;
    }
    let trouble = match tell(env, host, run_key) {
        Ok(trouble) => trouble?,
        Err(error) => format!("what became of it cannot be recorded: {error}"),
    };
    tracing::warn!(run_key, "telemetry could not be sent: {trouble}");
    Some(format!("telemetry could not be sent, the run and its data set stand as they are: {trouble}"))
}

fn tell(env: &Env, host: &Host, run_key: &str) -> Result<Option<String>, LedgerError> {
    let Some(row) = host.ledger.run(run_key)? else { return Ok(None) };
    // A record without its platform run is not valid (O152), and what was never admitted only claims one (O148).
    let Some(platform_run_id) = row.platform_run_id.as_deref().filter(|run| path_safe(run)) else { return Ok(None) };
    let events = host.ledger.events(run_key, 0)?;
    let story = story::Story::of(&events, &row, &host.owner);
    if story.is_empty() {
        return Ok(None);
    }
    let world =
        World { env, platform_run_id, now: host.clock.now(), workers_alive: 0, runs: vec![&row], facts: Vec::new(), reasons: Vec::new() };
    let (courier, resource) = (Arc::new(Courier::start()), resource(host));
    let mut trouble: Option<String> = None;
    for signal in [TRACES, METRICS].into_iter().filter(Signal::wanted) {
        let (delivery, note) = match signal.kept_back(env) {
            Some(why) => (Delivery::Skipped, why),
            None => match signal.stem {
                "TRACES" => story.send(&signal, &courier, &resource),
                _ => measured::send(&world, &story, &signal, &courier, &resource),
            }
            .map_or_else(|error| (Delivery::Failed, error), |sent| (Delivery::Sent, sent)),
        };
        if delivery == Delivery::Failed {
            trouble.get_or_insert(format!("{}: {note}", signal.name));
        }
        host.ledger.signal_left(platform_run_id, signal.name, delivery, &note)?;
    }
    Ok(trouble)
}

/// The keys of O150, on every span and on every number. What the run has not come to yet is left out.
fn keys(row: &RunRow) -> Vec<KeyValue> {
    let Value::Object(keys) = row.correlation() else { return Vec::new() };
    keys.into_iter().filter_map(|(key, value)| Some(KeyValue::new(format!("ofs.{key}"), attribute(value)?))).collect()
}

fn attribute(value: Value) -> Option<Attribute> {
    let text = |value: Value| if let Value::String(text) = value { text } else { value.to_string() };
    match value {
        Value::Null => None,
        Value::Array(list) => {
            Some(Attribute::Array(list.into_iter().map(|v| text(v).into()).collect::<Vec<opentelemetry::StringValue>>().into()))
        }
        value => Some(text(value).into()),
    }
}

/// Who tells: what `OTEL_SERVICE_NAME` and `OTEL_RESOURCE_ATTRIBUTES` say, else this program.
fn resource(host: &Host) -> Resource {
    let name = Key::from_static_str("service.name");
    let version = [KeyValue::new("service.version", RELEASE), KeyValue::new("host.name", host.owner.host.clone())];
    let found = Resource::builder().build();
    let own = found.get(&name).is_none_or(|name| name.as_str().starts_with("unknown_service"));
    let told = variable("OTEL_SERVICE_NAME").or_else(|| own.then(|| "ofs".to_owned()));
    let builder = Resource::builder().with_attributes(version.into_iter().filter(|kv| found.get(&kv.key).is_none()));
    match told {
        Some(name) => builder.with_service_name(name),
        None => builder,
    }
    .build()
}
