//! What an owner did on a run, as spans: one for the run from the lease to its end, one below it for each gate. Every
//! time is the ledger's. Ids follow from the ledger's chain of events, so all attempts of a run meet in one trace,
//! whichever process tells of them, and each links to the one before it.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use opentelemetry::trace::{Event, Link, SpanContext, SpanId, SpanKind, Status as SpanStatus, TraceFlags, TraceId, TraceState};
use opentelemetry::{InstrumentationScope, KeyValue};
use opentelemetry_otlp::{RetryPolicy, SpanExporter, WithExportConfig, WithHttpConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::{SpanData, SpanEvents, SpanExporter as _, SpanLinks};
use serde_json::Value;

use super::courier::Courier;
use super::{Signal, keys};
use crate::ledger::{EventRow, Owner, RunRow};
use crate::pipeline::pin::RELEASE;
use crate::time::Instant;

/// The work of one owner on a run under one lease.
struct Stint<'e> {
    begin: &'e EventRow,
    /// What happened under the lease, its end included.
    events: &'e [EventRow],
    /// How its owner ended it; nothing where the owner was killed, or somebody else ended the run.
    end: Option<&'e EventRow>,
    attempt: u64,
    /// The beginning of the stint before.
    before: Option<&'e EventRow>,
}

/// What one process has to tell of a run.
pub(super) struct Story<'e> {
    stints: Vec<Stint<'e>>,
    trace: TraceId,
    keys: Vec<KeyValue>,
}

fn begins(event: &EventRow) -> bool {
    matches!(event.event_type.as_str(), "RUN_STARTED" | "LEASE_TAKEN_OVER")
}

fn ends(event: &EventRow) -> bool {
    done(event) || matches!(event.event_type.as_str(), "RUN_FAILED" | "RUN_CANCELLED" | "PUBLISH_PENDING" | "RUN_INTERRUPTED")
}

fn done(end: &EventRow) -> bool {
    matches!(end.event_type.as_str(), "RUN_DONE" | "RUN_DONE_LATE")
}

fn text<'v>(value: &'v Value, key: &str) -> Option<&'v str> {
    value.get(key).and_then(Value::as_str)
}

fn time(at: Instant) -> SystemTime {
    UNIX_EPOCH + Duration::from_micros(u64::try_from(at.0).unwrap_or(0))
}

/// All stints of a run, in order.
fn stints(events: &[EventRow]) -> Vec<Stint<'_>> {
    let from: Vec<usize> = events.iter().enumerate().filter(|(_, e)| begins(e)).map(|(i, _)| i).collect();
    let to = from.iter().skip(1).copied().chain([events.len()]);
    let (mut all, mut attempt, mut before) = (Vec::new(), 0, None);
    for (from, to) in from.iter().zip(to) {
        let under = events.get(*from..to).unwrap_or_default();
        let Some(begin) = under.first() else { continue };
        attempt = begin.detail.get("attempt").and_then(Value::as_u64).unwrap_or(attempt);
        let end = under.iter().position(ends);
        let under = end.and_then(|at| under.get(..=at)).unwrap_or(under);
        all.push(Stint { begin, events: under, end: end.and_then(|_| under.last()), attempt, before });
        before = Some(begin);
    }
    all
}

impl Stint<'_> {
    fn owner(&self) -> Option<Owner> {
        let owner = self.begin.detail.get("to").or_else(|| self.begin.detail.get("owner"))?;
        serde_json::from_value(owner.clone()).ok()
    }
}

impl<'e> Story<'e> {
    /// What `owner` ended last on a run, and before it the stints of owners that were killed: they told nothing.
    pub(super) fn of(events: &'e [EventRow], row: &RunRow, owner: &Owner) -> Self {
        let mut stints = stints(events);
        let mine = stints.last().is_some_and(|last| last.end.is_some() && last.owner().as_ref() == Some(owner));
        let earlier = stints.len().saturating_sub(1);
        let untold = stints.iter().take(earlier).rev().take_while(|stint| stint.end.is_none()).count();
        let stints = if mine { stints.split_off(earlier - untold) } else { Vec::new() };
        let trace = events.first().and_then(|e| TraceId::from_hex(e.hash.get(..32)?).ok()).unwrap_or(TraceId::INVALID);
        Story { stints, trace, keys: keys(row) }
    }

    /// Whether there is nothing to tell.
    pub(super) fn is_empty(&self) -> bool {
        self.stints.is_empty()
    }

    /// The phases that were walked and not only proved again: their numbers are new.
    pub(super) fn walked(&self) -> BTreeSet<&str> {
        let events = || self.stints.iter().flat_map(|stint| stint.events);
        let of = |name: &'static str| events().filter(move |e| e.event_type == name).filter_map(|e| text(&e.detail, "phase"));
        let again: BTreeSet<&str> = of("GATE_REPROVED").collect();
        of("PHASE_ENTERED").filter(|phase| !again.contains(phase) || of("GATE_PASSED").any(|passed| passed == *phase)).collect()
    }

    /// Sends the spans. Where they went.
    pub(super) fn send(&self, signal: &Signal, courier: &Arc<Courier>, resource: &Resource) -> Result<String, String> {
        let exporter = SpanExporter::builder()
            .with_http()
            .with_protocol(signal.protocol()?)
            .with_shared_http_client(courier.clone())
            .with_retry_policy(RetryPolicy::disabled())
            .build();
        let mut exporter = exporter.map_err(|_| signal.unusable())?;
        exporter.set_resource(resource);
        let spans = self.spans();
        let told = format!("{} span(s) to ", spans.len());
        let result = futures_executor::block_on(exporter.export(spans)).map_err(|e| e.to_string());
        courier.outcome(result).map(|to| told + &to)
    }

    fn spans(&self) -> Vec<SpanData> {
        self.stints.iter().flat_map(|stint| self.of_stint(stint)).collect()
    }

    fn context(&self, event: &EventRow) -> SpanContext {
        let id = event.hash.get(..16).and_then(|hex| SpanId::from_hex(hex).ok()).unwrap_or(SpanId::INVALID);
        SpanContext::new(self.trace, id, TraceFlags::SAMPLED, false, TraceState::default())
    }

    /// A span between two events, with the keys that every record bears.
    fn span(&self, name: Cow<'static, str>, begin: &EventRow, end: &EventRow, own: Vec<KeyValue>) -> SpanData {
        SpanData {
            span_context: self.context(begin),
            parent_span_id: SpanId::INVALID,
            parent_span_is_remote: false,
            span_kind: SpanKind::Internal,
            name,
            start_time: time(begin.at),
            // A clock that was set back makes no span of negative length.
            end_time: time(end.at.max(begin.at)),
            attributes: self.keys.iter().cloned().chain(own).collect(),
            dropped_attributes_count: 0,
            events: SpanEvents::default(),
            links: SpanLinks::default(),
            status: SpanStatus::Unset,
            instrumentation_scope: InstrumentationScope::builder("ofs").with_version(RELEASE).build(),
        }
    }

    fn of_stint(&self, stint: &Stint<'_>) -> Vec<SpanData> {
        let last = stint.events.last().unwrap_or(stint.begin);
        let mut own = vec![
            KeyValue::new("ofs.attempt", i64::try_from(stint.attempt).unwrap_or(i64::MAX)),
            KeyValue::new("ofs.owner", stint.owner().map(|owner| owner.to_string()).unwrap_or_default()),
            KeyValue::new("ofs.status", stint.end.map_or("ABANDONED", |end| end.status.as_str())),
        ];
        own.extend(["mode", "outcome"].into_iter().filter_map(|key| {
            let value = text(&last.detail, key).or_else(|| text(&stint.begin.detail, key))?;
            Some(KeyValue::new(format!("ofs.{key}"), value.to_owned()))
        }));
        own.extend(reason(stint.end));
        let mut run = self.span("ofs.run".into(), stint.begin, last, own);
        run.status = status(stint.end);
        run.links.links.extend(stint.before.map(|begin| Link::with_context(self.context(begin))));
        let (gates, rest) = self.gates(stint, run.span_context.span_id());
        run.events.events =
            rest.into_iter().map(|e| Event::new(e.event_type.clone(), time(e.at), reason(Some(e)).into_iter().collect(), 0)).collect();
        std::iter::once(run).chain(gates).collect()
    }

    /// The gates of a stint, and the events that are none of theirs.
    fn gates<'s>(&self, stint: &Stint<'s>, parent: SpanId) -> (Vec<SpanData>, Vec<&'s EventRow>) {
        let (mut spans, mut rest, mut open) = (Vec::new(), Vec::new(), None);
        let mut close = |begin: &EventRow, end: &EventRow, result: &'static str, refused: Option<&EventRow>| {
            let phase = text(&begin.detail, "phase").unwrap_or("unknown").to_owned();
            let mut own = vec![KeyValue::new("ofs.phase", phase.clone()), KeyValue::new("ofs.gate_result", result)];
            own.extend(reason(refused));
            let receipt = end.detail.pointer("/evidence/receipt_ref").and_then(Value::as_str);
            own.extend(receipt.map(|at| KeyValue::new("ofs.receipt_ref", at.to_owned())));
            let mut span = self.span(format!("ofs.gate.{phase}").into(), begin, end, own);
            span.parent_span_id = parent;
            if !matches!(result, "PASSED" | "PROVED_AGAIN") {
                span.status = refused.map_or(SpanStatus::error("its owner was lost"), |end| status(Some(end)));
            }
            spans.push(span);
        };
        for event in stint.events.iter().skip(1) {
            open = match (event.event_type.as_str(), open) {
                ("PHASE_ENTERED", _) => Some(event),
                ("GATE_PASSED", Some(begin)) => {
                    close(begin, event, "PASSED", None);
                    None
                }
                ("GATE_REPROVED", Some(begin)) => {
                    close(begin, event, "PROVED_AGAIN", None);
                    None
                }
                (_, Some(begin)) if ends(event) => {
                    let refused = Some(event).filter(|end| !done(end));
                    close(begin, event, refused.map_or("PASSED", left), refused);
                    None
                }
                (_, open) => {
                    rest.extend(Some(event).filter(|event| !ends(event)));
                    open
                }
            };
        }
        // The owner was lost inside a gate.
        if let (Some(begin), Some(last)) = (open, stint.events.last()) {
            close(begin, last, "ABANDONED", None);
        }
        (spans, rest)
    }
}

/// How a gate stands that the run ended in.
fn left(end: &EventRow) -> &'static str {
    match end.event_type.as_str() {
        "RUN_CANCELLED" => "CANCELLED",
        "RUN_INTERRUPTED" => "INTERRUPTED",
        _ => "REFUSED",
    }
}

fn reason(event: Option<&EventRow>) -> Option<KeyValue> {
    event?.reason_code.clone().map(|code| KeyValue::new("ofs.reason_code", code))
}

/// An error is whatever ended without what was asked for; a signal or an operator is no error.
fn status(end: Option<&EventRow>) -> SpanStatus {
    let Some(end) = end else { return SpanStatus::error("its owner was lost") };
    match end.event_type.as_str() {
        _ if done(end) => SpanStatus::Ok,
        "RUN_CANCELLED" | "RUN_INTERRUPTED" => SpanStatus::Unset,
        _ => SpanStatus::error(end.reason_code.clone().unwrap_or_default()),
    }
}
