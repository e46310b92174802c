//! The metrics of one run (O149), each number with the keys that tie it to everything else (O150). They are what
//! [`metrics::measure`] finds of this run alone, as far as this piece of work was what brought it about.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use opentelemetry::metrics::{Meter, MeterProvider};
use opentelemetry::{InstrumentationScope, KeyValue};
use opentelemetry_otlp::{MetricExporter, RetryPolicy, WithExportConfig, WithHttpConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::metrics::data::ResourceMetrics;
use opentelemetry_sdk::metrics::exporter::PushMetricExporter;
use opentelemetry_sdk::metrics::{PeriodicReader, SdkMeterProvider, Temporality};

use super::courier::Courier;
use super::story::Story;
use super::{Signal, keys};
use crate::ledger::{RunRow, Status};
use crate::observe::metrics::{self, Metrics};
use crate::observe::world::World;
use crate::pipeline::Phase;
use crate::pipeline::pin::RELEASE;

/// An interval that no process lives to see: numbers leave when they are told to.
const NEVER: Duration = Duration::from_secs(365 * 24 * 3600);

/// Exports once and keeps what came of it; the provider's own farewell sends nothing a second time.
#[derive(Clone)]
struct Once {
    exporter: Arc<MetricExporter>,
    result: Arc<Mutex<Option<Result<(), String>>>>,
}

impl PushMetricExporter for Once {
    async fn export(&self, metrics: &ResourceMetrics) -> OTelSdkResult {
        if self.result.lock().unwrap_or_else(PoisonError::into_inner).is_some() {
            return Ok(());
        }
        let result = self.exporter.export(metrics).await;
        *self.result.lock().unwrap_or_else(PoisonError::into_inner) = Some(result.as_ref().map_err(ToString::to_string).copied());
        result
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.exporter.force_flush()
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.exporter.shutdown_with_timeout(timeout)
    }

    fn temporality(&self) -> Temporality {
        self.exporter.temporality()
    }
}

/// Measures the one run of `world` and sends the numbers. Where they went.
pub(super) fn send(
    world: &World<'_>,
    story: &Story<'_>,
    signal: &Signal,
    courier: &Arc<Courier>,
    resource: &Resource,
) -> Result<String, String> {
    let Some(row) = world.runs.first() else { return Err("there is no run".into()) };
    let exporter = MetricExporter::builder()
        .with_http()
        .with_protocol(signal.protocol()?)
        .with_shared_http_client(courier.clone())
        .with_retry_policy(RetryPolicy::disabled())
        .build();
    let once = Once { exporter: Arc::new(exporter.map_err(|_| signal.unusable())?), result: Arc::default() };
    let reader = PeriodicReader::builder(once.clone()).with_interval(NEVER).build();
    let provider = SdkMeterProvider::builder().with_resource(resource.clone()).with_reader(reader).build();
    let meter = provider.meter_with_scope(InstrumentationScope::builder("ofs").with_version(RELEASE).build());
    Numbers { meter, keys: keys(row) }.tell(row, &metrics::measure(world), story);
    let flushed = provider.force_flush();
    let result = once.result.lock().unwrap_or_else(PoisonError::into_inner).clone();
    courier.outcome(result.unwrap_or(flushed.map_err(|e| e.to_string()))).map(|to| format!("metrics to {to}"))
}

struct Numbers {
    meter: Meter,
    keys: Vec<KeyValue>,
}

impl Numbers {
    fn with(&self, own: &[(&'static str, String)]) -> Vec<KeyValue> {
        self.keys.iter().cloned().chain(own.iter().map(|(key, value)| KeyValue::new(*key, value.clone()))).collect()
    }

    fn count(&self, name: &'static str, unit: &'static str, what: &'static str, value: u64, own: &[(&'static str, String)]) {
        self.meter.u64_counter(name).with_unit(unit).with_description(what).build().add(value, &self.with(own));
    }

    fn level(&self, name: &'static str, unit: &'static str, what: &'static str, value: f64, own: &[(&'static str, String)]) {
        self.meter.f64_gauge(name).with_unit(unit).with_description(what).build().record(value, &self.with(own));
    }

    fn tell(&self, row: &RunRow, metrics: &Metrics, story: &Story<'_>) {
        self.ended(row, metrics);
        let walked = story.walked();
        if walked.contains(Phase::Replay.as_str()) {
            self.replayed(metrics);
        }
        if walked.contains(Phase::Labels.as_str()) {
            self.labelled(metrics);
        }
    }

    /// How the run ended and how long it took.
    fn ended(&self, row: &RunRow, metrics: &Metrics) {
        let mut how = vec![("ofs.status", row.status.as_str().to_owned())];
        how.extend(row.reason_code.clone().map(|code| ("ofs.reason_code", code)));
        self.count("ofs.builds", "{build}", "Builds by how they ended", 1, &how);
        for took in metrics.builds.iter().filter_map(|build| build.took_ms) {
            let seconds = self.meter.f64_histogram("ofs.build.duration").with_unit("s").with_description("How long builds took, by kind");
            seconds.build().record(Duration::from_millis(took).as_secs_f64(), &self.with(&how));
        }
        let failed = row.status == Status::Failed && row.phase.as_deref() == Some(Phase::Publication.as_str());
        let outcomes = metrics.publications.iter().filter(|(outcome, n)| **outcome != "RETRIED" && **n > 0).map(|(outcome, _)| *outcome);
        for outcome in outcomes.chain(failed.then_some("FAILED")) {
            self.count("ofs.publications", "{publication}", "Publications by outcome", 1, &[("ofs.outcome", outcome.to_owned())]);
        }
        for (outcome, n) in &metrics.parity {
            self.count(
                "ofs.parity",
                "{comparison}",
                "Comparisons with the online plane by outcome",
                *n,
                &[("ofs.outcome", outcome.clone())],
            );
        }
    }

    fn replayed(&self, metrics: &Metrics) {
        for ((topic, partition, offset_kind), p) in &metrics.partitions {
            let lane = [("ofs.topic", topic.clone()), ("ofs.partition", partition.to_string()), ("ofs.offset_kind", offset_kind.clone())];
            let served = |by: &str| [lane.as_slice(), &[("ofs.source", by.to_owned())]].concat();
            self.count("ofs.replay.events", "{event}", "Events replayed", p.events, &lane);
            self.count("ofs.replay.basis_span", "{offset}", "Offsets that the basis spans", p.span, &lane);
            self.count("ofs.replay.served", "{offset}", "Offsets by who served them", p.archive, &served("archive"));
            self.count("ofs.replay.served", "{offset}", "Offsets by who served them", p.bus, &served("bus"));
            self.count("ofs.replay.missing", "{offset}", "Offsets that nothing delivered", p.missing, &lane);
            self.count("ofs.replay.mismatched", "{offset}", "Offsets on which the sources disagreed", p.mismatched, &lane);
            let flag = |on: bool| if on { 1.0 } else { 0.0 };
            self.level("ofs.replay.archive_used", "1", "1 where the archive served anything", flag(p.archive > 0), &lane);
            self.level("ofs.replay.gaps", "1", "1 where the basis has gaps", flag(p.missing > 0), &lane);
        }
    }

    fn labelled(&self, metrics: &Metrics) {
        for (label_type, c) in &metrics.labels {
            let of = |state: &str| [("ofs.label_type", label_type.clone()), ("ofs.label_state", state.to_owned())];
            for (state, n) in [("RESOLVED", c.resolved), ("CONFLICT", c.conflict), ("NOT_FOUND", c.not_found)] {
                self.count("ofs.labels.rows", "{row}", "Rows that wanted a label, by what they got", n, &of(state));
            }
            let own = [("ofs.label_type", label_type.clone())];
            self.count("ofs.labels.late", "{assertion}", "Assertions after the cut-off, lawfully left out", c.late, &own);
            if let Some(millionths) = c.ratio_millionths() {
                let ratio = f64::from(u32::try_from(millionths).unwrap_or(u32::MAX)) / 1e6;
                self.level("ofs.labels.coverage", "1", "Rows with a label among those that wanted one", ratio, &own);
            }
        }
    }
}
