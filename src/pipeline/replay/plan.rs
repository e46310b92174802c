//! Whether a basis can be complete, said from offsets alone, without building anything (O069).

use std::ops::ControlFlow;
use std::sync::{Mutex, PoisonError};

use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use super::deliver::{Faults, Found, hand_over, place_fault};
use super::lane::{self, RECORD, proof_record};
use super::{Item, LaneInput, PHASE, Work, engine, plan_items, prove_lanes};
use crate::engine::EngineError;
use crate::pipeline::gate::{Env, Refusal};
use crate::pipeline::parallel;
use crate::pipeline::pin::Pinned;
use crate::source::{Decoder, Delivery, EventLog, Needs, ReadScope};

/// What planning found out about the basis.
#[derive(Debug)]
pub struct Feasibility {
    /// One document a partition, in the order of the basis: its outcome, what is missing, and the records that a
    /// build would refuse, of which the first are listed.
    pub partitions: Vec<Value>,
    /// Records of the archive that cannot be read and do not say which offset they are.
    pub unplaced: u64,
    /// The first of those, by place.
    pub unplaced_sample: Vec<Value>,
}

/// Says per partition whether the basis can be complete: every record is read, but payload hashes are not
/// recomputed and nothing is written (O069).
///
/// # Errors
/// What cannot be read.
pub fn feasibility(pinned: &Pinned, env: &Env) -> Result<Feasibility, Refusal> {
    let logs = crate::pipeline::run::event_logs(env, &pinned.intent().platform_run_id)?;
    let work = Work::new(env, &format!("plan-{}", pinned.admitted().run_key()))?;
    let (inputs, items) = plan_items(pinned, env, &logs, &work)?;
    let run = &pinned.intent().platform_run_id;
    let faults = Mutex::new(Faults::default());
    parallel::each(
        env,
        PHASE,
        items.len(),
        Reader::default,
        |reader, index| {
            let Some(item) = items.get(index) else { return Ok(()) };
            let (Some(input), Some(log)) = (inputs.get(item.lane), logs.get(item.log)) else { return Ok(()) };
            reader.read(log.as_ref(), item, input, run, &env.cancel)
        },
        |reader| {
            faults.lock().unwrap_or_else(PoisonError::into_inner).merge(reader.faults);
            Ok(())
        },
    )?;
    env.check(PHASE)?;
    let proofs = prove_lanes(env, &inputs)?;
    let faults = faults.into_inner().unwrap_or_else(PoisonError::into_inner);
    let partitions = inputs.iter().zip(&proofs).enumerate().map(|(at, (input, proof))| {
        let listed: Vec<Value> = faults.kept.iter().filter(|found| found.lane == at).map(told).collect();
        let mut partition = proof.feasible(&input.lane, &input.ranges, input.retained_from, faults.of_lane(at));
        if let Some(map) = partition.as_object_mut() {
            map.insert("faults".into(), Value::Array(listed));
        }
        partition
    });
    Ok(Feasibility {
        partitions: partitions.collect(),
        unplaced: faults.unplaced,
        unplaced_sample: faults.unplaced_sample.iter().map(|f| json!({"code": f.code, "place": f.place, "message": f.message})).collect(),
    })
}

fn told(Found { source, fault, .. }: &Found) -> Value {
    json!({"code": fault.code, "offset": fault.offset, "source": source.as_str(), "place": fault.place, "message": fault.message})
}

/// One thread's part of the reading.
#[derive(Default)]
struct Reader {
    decoder: Decoder,
    records: Vec<[u8; RECORD]>,
    faults: Faults,
}

impl Reader {
    fn read(
        &mut self,
        log: &dyn EventLog,
        item: &Item,
        input: &LaneInput,
        platform_run_id: &str,
        cancel: &CancellationToken,
    ) -> Result<(), Refusal> {
        let Reader { decoder, records, faults } = self;
        let scope = ReadScope { platform_run_id, lane: &input.lane, ranges: &input.ranges, verify: false, needs: Needs::Fields(&[]) };
        let source = log.source();
        let mut failed: Option<EngineError> = None;
        let read = log.read(&item.chunk, scope, decoder, &mut |delivery| {
            match delivery {
                Delivery::Event(event) => records.push(proof_record(event.offset, source, lane::Kind::Event, &[0; 32])),
                Delivery::Foreign(offset) => records.push(proof_record(offset, source, lane::Kind::Event, &[0; 32])),
                Delivery::Fault(fault) => place_fault(faults, records, Found { lane: item.lane, source, fault }, scope),
            }
            failed = hand_over(records, input).err();
            if failed.is_some() || cancel.is_cancelled() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        });
        read.map_err(|e| Refusal::of_source(PHASE, &e))?;
        if let Some(error) = failed {
            return Err(engine(error));
        }
        input.sorter.push(std::mem::take(records)).map_err(engine)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;
    use crate::contract::intent::{Lane, OffsetRange};
    use crate::contract::{Offset, OffsetKind};
    use crate::engine::scratch::{Budget, Scratch};
    use crate::engine::sorter::Sorter;
    use crate::pipeline::replay::deliver::GATHER;
    use crate::source::{Bounds, Chunk, Source, SourceError};

    /// One piece of very many records, which watches how many of them wait outside the budget.
    #[derive(Debug)]
    struct Long {
        records: u64,
        budget: Arc<Budget>,
        waiting: AtomicU64,
    }

    impl EventLog for Long {
        fn source(&self) -> Source {
            Source::Archive
        }

        fn bounds(&self, _: &Lane) -> Result<Bounds, SourceError> {
            Ok(Bounds::default())
        }

        fn chunks(&self, _: &Lane, _: &[OffsetRange]) -> Result<Vec<Chunk>, SourceError> {
            Ok(vec![Chunk { files: Vec::new() }])
        }

        fn read(&self, _: &Chunk, _: ReadScope<'_>, _: &mut Decoder, sink: &mut crate::source::Sink<'_>) -> Result<(), SourceError> {
            for at in 0..self.records {
                if sink(Delivery::Foreign(at.into())).is_break() {
                    break;
                }
                self.waiting.fetch_max(at + 1 - self.budget.used() / RECORD as u64, Ordering::Relaxed);
            }
            Ok(())
        }
    }

    #[test]
    fn a_long_piece_is_handed_over_as_it_is_read() {
        let dir = tempfile::tempdir().unwrap();
        let (budget, records) = (Arc::new(Budget::new(1 << 30)), 3 * GATHER as u64 + 5);
        let log = Long { records, budget: budget.clone(), waiting: AtomicU64::new(0) };
        let lane = Lane { topic: "t".into(), partition: 0, kind: OffsetKind::KafkaOffset };
        let input = LaneInput {
            lane,
            ranges: vec![OffsetRange { start: Offset::default(), end: records.into() }],
            sorter: Sorter::new(budget.clone(), Arc::new(Scratch::new(dir.path(), "t", "1").unwrap())),
            progress: Arc::default(),
            retained_from: None,
            attested: Vec::new(),
            ignored_files: 0,
        };
        let item = Item { lane: 0, log: 0, chunk: Chunk { files: Vec::new() } };
        Reader::default().read(&log, &item, &input, "run", &CancellationToken::new()).unwrap();
        assert!(log.waiting.load(Ordering::Relaxed) < GATHER as u64, "{log:?}");
        assert_eq!(budget.used(), records * RECORD as u64);
        assert_eq!(input.sorter.finish().unwrap().count() as u64, records);
    }
}
