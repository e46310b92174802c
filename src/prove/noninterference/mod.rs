//! `ofs prove M --noninterference`: that no row depends on what it may not know. The data set is built again, in scratch
//! space, from worlds in which exactly that was changed at random: assertions observed after the cut-off, records
//! outside the basis, events after a row. The rows must come out the same. Then one label and one number are
//! changed, and exactly the rows that depend on them must change with them, as a reading of the rows alone says:
//! so that equal rows before are no proof of a builder that looks at nothing.
//!
//! Nothing of the user's is written. Worlds are made one after the other, follow from a seed, and go when they were
//! looked at.

mod draw;
mod judge;
mod sample;
mod scramble;
mod segments;
mod view;
mod world;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use serde_json::Value;

pub use view::{Certificate, Check, Verdict};

use self::sample::Sample;
use self::scramble::Fields;
use self::world::{Change, Known, Made};
use super::dataset::Opened;
use super::verify;
use super::{not_found, reprove};
use crate::contract::ReasonCode;
use crate::ledger::{Ledger, RunRow};
use crate::pipeline::feature::Drafted;
use crate::pipeline::gate::{Env, Phase, Refusal};
use crate::pipeline::run;
use crate::store::{Ref, Store};
use crate::time::Instant;

const PHASE: Phase = Phase::Operate;
/// Rows after which events are changed, unless told otherwise: each is a build.
pub const SAMPLES: u64 = 3;
/// Most of them.
pub const MAX_SAMPLES: u64 = 1_000;

/// What to draw from, and how much.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// All random choices follow from it.
    pub seed: u64,
    /// Rows that are drawn.
    pub samples: u64,
}

/// A world that was built.
struct Built {
    made: Made,
    /// The draft, or why a gate refused.
    draft: Result<Drafted, Refusal>,
    /// Where it lies; it goes with this.
    store: Arc<dyn Store>,
}

/// A data set with everything that is needed to build it again.
struct Subject<'s> {
    env: &'s Env,
    opened: &'s Opened,
    row: RunRow,
    known: Known<'s>,
}

/// Makes the certificate.
///
/// # Errors
/// `DATASET_NOT_FOUND`; `DATASET_UNVERIFIED` where it does not verify, or cannot be built again from the inputs as
/// they are: then nothing could be told from another world; the environment's. Interference is no error but an
/// answer: [`Certificate::holds`].
pub fn prove(env: &Env, ledger: Option<&Ledger>, manifest: &Ref, options: Options) -> Result<Certificate, Refusal> {
    let report = verify::reprove(env, ledger, manifest)?;
    if !report.ok() {
        let line = |p: &verify::Problem| format!("{} {}: expected {}, found {}", p.kind.as_str(), p.place, p.expected, p.found);
        let message = format!("{} does not come out of its inputs as they are now", report.manifest_id);
        return Err(Refusal::new(ReasonCode::DatasetUnverified, PHASE, message).with_evidence(report.problems.iter().map(line)));
    }
    let opened = Opened::open(env, manifest)?;
    let row = reprove::finished(ledger, &opened.manifest_id)?.ok_or_else(|| not_found("the ledger holds no finished run of it"))?;
    let samples = sample::draw(env, &opened, options.seed, options.samples.clamp(1, MAX_SAMPLES))?;
    let pinned = reprove::pins(env, &row, &opened)?;
    let known = Known {
        env,
        intent: &opened.intent,
        fields: Fields::of(&opened.intent, &opened.group),
        vocabulary: pinned.vocabulary().iter().cloned().collect::<BTreeMap<_, _>>(),
        samples: &samples,
        range: range(&opened.index),
        seed: options.seed,
    };
    let subject = Subject { env, opened: &opened, row, known };
    let mut checks = vec![subject.unmoved(&Change::LateAssertions)?, subject.unmoved(&Change::OutsideBasis)?];
    for sample in &samples {
        checks.push(subject.unmoved_before(sample)?);
    }
    checks.push(subject.label_moves(&samples)?);
    checks.push(subject.amount_moves(&samples)?);
    Ok(Certificate { manifest_id: opened.manifest_id.clone(), manifest_ref: manifest.clone(), seed: options.seed, checks })
}

/// First and last event time of a data set.
fn range(index: &Value) -> (Instant, Instant) {
    let files = index.get("files").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    let of = |key: &str| files.iter().filter_map(|f| Instant::parse(f.get(key)?.as_str()?).ok()).collect::<Vec<_>>();
    let first = of("min_ts_utc").into_iter().min().unwrap_or(Instant(0));
    (first, of("max_ts_utc").into_iter().max().unwrap_or(first))
}

impl Subject<'_> {
    /// Builds the data set in a world.
    fn build(&self, change: &Change) -> Result<Built, Refusal> {
        let of_labels = matches!(change, Change::LateAssertions | Change::Label { .. });
        let overlay = reprove::overlay(self.env, !of_labels)?;
        let beside = |name: &str| -> PathBuf { overlay.spill().with_file_name(name) };
        let (made, inputs) = if of_labels {
            let folder = beside("labels");
            (self.known.labels(change, &folder)?, vec![("labels", folder)])
        } else {
            let folder = beside("bus");
            (self.known.events(change, overlay.root(), &folder)?, vec![("bus", folder)])
        };
        let (env, store) = reprove::within(self.env, overlay, &inputs)?;
        let draft = reprove::pins(&env, &self.row, self.opened).and_then(|pinned| run::rebuild(pinned, &env));
        match draft {
            Err(refusal) if reprove::environment(refusal.code) => Err(refusal),
            draft => Ok(Built { made, draft, store }),
        }
    }

    /// All rows and proofs must come out as they were published.
    fn unmoved(&self, change: &Change) -> Result<Check, Refusal> {
        let (what, world) = match change {
            Change::LateAssertions => ("late labels", "assertions observed after the cut-off changed, removed and added"),
            _ => ("outside the basis", "records outside the offsets of the basis changed and added"),
        };
        let built = self.build(change)?;
        judge::unmoved(self, built, Check::new(what, world))
    }

    /// The rows up to a drawn one must come out as they were published.
    fn unmoved_before(&self, sample: &Sample) -> Result<Check, Refusal> {
        let built = self.build(&Change::EventsAfter(sample.place.ts))?;
        judge::unmoved_before(self, built, sample, Check::new("later events", "events after a row changed").about(&sample.event_id))
    }

    /// Another value of one assertion must change one row.
    fn label_moves(&self, samples: &[Sample]) -> Result<Check, Refusal> {
        let check = Check::new("one label", "the assertion that a label was taken from says something else");
        for sample in samples {
            for (label_type, value, assertion_id) in &sample.labels {
                let other = self.known.vocabulary.get(label_type).and_then(|values| values.iter().find(|v| *v != value));
                let Some(other) = other else { continue };
                let built = self.build(&Change::Label { assertion_id: assertion_id.clone(), value: other.clone() })?;
                // A gate may lawfully refuse the other value: then another row is asked.
                if built.draft.is_ok() {
                    return judge::label_moved(self, built, sample, label_type, check.about(&sample.event_id));
                }
            }
        }
        Ok(check.not_applicable("no drawn row has a label that could say something else and pass its gate; draw more with --samples"))
    }

    /// Another number in one event must change the rows that it counts for, and no other.
    fn amount_moves(&self, samples: &[Sample]) -> Result<Check, Refusal> {
        let check = Check::new("one amount", "one number of one event raised by seven");
        let mut refused = None;
        for sample in samples {
            for field in judge::amounts(self.opened) {
                let built = self.build(&Change::Amount { event_id: sample.event_id.clone(), field: field.clone() })?;
                match built.draft {
                    Ok(_) if built.made.changed > 0 => {
                        return judge::amount_moved(self, built, sample, &field, check.about(&sample.event_id));
                    }
                    Err(refusal) if built.made.changed > 0 => drop(refused.get_or_insert(refusal)),
                    _ => {}
                }
            }
        }
        // A gate may lawfully refuse another number, but a world that cannot be replayed is none.
        if let Some(refusal) = refused.filter(|r| r.phase == Phase::Replay) {
            return Ok(judge::refused(check, &refusal));
        }
        Ok(check.not_applicable("no feature reads a number that a drawn event has; draw more with --samples"))
    }
}
