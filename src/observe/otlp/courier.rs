//! The way to the collector: plain HTTP, one request a signal, one limit of time for all of them. Nothing is tried
//! twice and no redirect is followed: the build's owner waits, and headers may hold a secret.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use opentelemetry_http::{Bytes, HttpClient, HttpError, Request, Response};
use prost::Message;
use serde_json::Value;
use ureq::http::Uri;

use super::{METRICS, TRACES};

/// How long a build waits at its end unless `OTEL_EXPORTER_OTLP_TIMEOUT` says otherwise.
const PATIENCE: Duration = Duration::from_secs(3);
/// How long it waits whatever that says.
const LIMIT: Duration = Duration::from_secs(10);
/// Largest answer that is read, in bytes.
const ANSWER_BYTES: u64 = 1 << 20;
/// Most characters of a collector's own words that are kept.
const WORDS: usize = 200;

/// Carries the signals of one piece of work.
#[derive(Debug)]
pub(super) struct Courier {
    agent: ureq::Agent,
    /// When nothing is waited for any longer.
    deadline: Instant,
    patience: Duration,
    /// What the latest request came to: where it went, or why not.
    latest: Mutex<Option<Result<String, String>>>,
}

/// `partial_success` of the answer to either signal: what the collector did not take.
#[derive(Clone, PartialEq, Message)]
struct Partial {
    #[prost(int64, tag = "1")]
    rejected: i64,
    #[prost(string, tag = "2")]
    message: String,
}

#[derive(Clone, PartialEq, Message)]
struct Answer {
    #[prost(message, optional, tag = "1")]
    partial: Option<Partial>,
}

fn milliseconds(text: &str) -> Option<Duration> {
    text.parse().ok().map(Duration::from_millis)
}

impl Courier {
    /// Begins to count the time; where the signals have limits of their own, the longer one holds for both.
    pub(super) fn start() -> Self {
        let asked = [TRACES, METRICS].iter().filter_map(|signal| signal.setting("TIMEOUT")).filter_map(|text| milliseconds(&text)).max();
        let patience = asked.unwrap_or(PATIENCE).min(LIMIT);
        let config = ureq::Agent::config_builder().http_status_as_error(false).max_redirects(0).max_idle_connections(0);
        Courier { agent: config.build().into(), deadline: Instant::now() + patience, patience, latest: Mutex::new(None) }
    }

    /// What the exporter's `result` comes to, in the words of whoever saw more of it.
    pub(super) fn outcome(&self, result: Result<(), String>) -> Result<String, String> {
        let latest = self.latest.lock().unwrap_or_else(PoisonError::into_inner).take();
        match (latest, result) {
            (Some(seen), Ok(())) => seen,
            (Some(Err(seen)), Err(_)) => Err(seen),
            (_, Err(error)) => Err(error),
            (None, Ok(())) => Err("nothing was sent".into()),
        }
    }

    fn carry(&self, request: Request<Bytes>) -> Result<(Response<Bytes>, String), String> {
        let to = place(request.uri())?;
        let left = self.deadline.saturating_duration_since(Instant::now());
        let late = || format!("{to}: no answer within {} ms", self.patience.as_millis());
        if left.is_zero() {
            return Err(late());
        }
        let request = self.agent.configure_request(request.map(|body| body.to_vec())).timeout_global(Some(left)).build();
        let told = |error: ureq::Error| match error {
            ureq::Error::Timeout(_) => late(),
            error => format!("{to}: {error}"),
        };
        let (parts, mut body) = self.agent.run(request).map_err(told)?.into_parts();
        let body = body.with_config().limit(ANSWER_BYTES).read_to_vec().map_err(told)?;
        let sent = if parts.status.is_success() { taken(&body).map(|()| to.clone()) } else { Err(format!("status {}", parts.status)) };
        let seen = sent.map_err(|why| format!("{to}: {why}"))?;
        Ok((Response::from_parts(parts, Bytes::from(body)), seen))
    }
}

/// Where a request goes, without what may be secret in it.
fn place(uri: &Uri) -> Result<String, String> {
    match (uri.scheme_str(), uri.host()) {
        (Some("http"), Some(host)) => {
            Ok(format!("http://{host}{}{}", uri.port().map(|port| format!(":{port}")).unwrap_or_default(), uri.path()))
        }
        (Some("https"), _) => {
            Err("the endpoint asks for https, and this program sends plain http only: name a collector on this host".into())
        }
        _ => Err("the endpoint is no http URL".into()),
    }
}

/// Whether the collector took everything. An answer that cannot be read, or none, says nothing else.
fn taken(body: &[u8]) -> Result<(), String> {
    let (rejected, message) = match serde_json::from_slice::<Value>(body) {
        Ok(answer) => {
            let partial = answer.get("partialSuccess");
            let of = |key: &str| partial.and_then(|p| p.get(key));
            // Numbers of 64 bits are text in this JSON.
            let count = |key: &str| of(key).and_then(|n| n.as_i64().or_else(|| n.as_str()?.parse().ok()));
            let message = of("errorMessage").and_then(Value::as_str).unwrap_or_default().to_owned();
            (count("rejectedSpans").or_else(|| count("rejectedDataPoints")).unwrap_or(0), message)
        }
        Err(_) => Answer::decode(body).ok().and_then(|answer| answer.partial).map_or((0, String::new()), |p| (p.rejected, p.message)),
    };
    let message: String = message.chars().take(WORDS).collect();
    if rejected == 0 { Ok(()) } else { Err(format!("the collector rejected {rejected} of what was sent: {message}")) }
}

#[async_trait::async_trait]
impl HttpClient for Courier {
    async fn send_bytes(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let carried = self.carry(request);
        let (answer, seen) = match carried {
            Ok((answer, to)) => (Ok(answer), Ok(to)),
            Err(error) => (Err(error.clone().into()), Err(error)),
        };
        *self.latest.lock().unwrap_or_else(PoisonError::into_inner) = Some(seen);
        answer
    }
}
