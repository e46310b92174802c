//! Records that only sealed segments hold: a world has them as raw records, since a changed record is in no segment.

use std::collections::BTreeMap;
use std::io::Write;
use std::ops::ControlFlow;
use std::path::Path;

use super::PHASE;
use super::world::{At, Change, Known, Pass, create, failed, folder_of, line_of, recorded};
use crate::contract::intent::{Lane, OffsetRange};
use crate::engine::interval::RangeSet;
use crate::pipeline::gate::Refusal;
use crate::source::sealed::merged;
use crate::source::{Decoder, Delivery, EventLog, Needs, ReadScope, Sealed, SourceError};

/// The name of the file that a lane's sealed records get in a world.
const UNSEALED: &str = "unsealed.jsonl";

fn of_source(error: SourceError) -> Refusal {
    Refusal::new(error.code, PHASE, error.to_string())
}

impl Known<'_> {
    fn sealed(&self) -> Sealed {
        Sealed::new(self.env.store.clone(), &self.intent.platform_run_id)
    }

    /// The lanes of the basis that have segments.
    pub(super) fn sealed_lanes(&self) -> Result<BTreeMap<Lane, Vec<OffsetRange>>, Refusal> {
        let (index, mut lanes) = (self.sealed().index(), BTreeMap::new());
        for slice in &self.intent.basis {
            if !index.lane(&slice.lane).map_err(of_source)?.is_empty() {
                lanes.insert(slice.lane.clone(), Vec::new());
            }
        }
        Ok(lanes)
    }

    /// Writes what of the basis the raw archive does not hold and segments do. What a segment only *attests*, the
    /// absence of a record, no raw archive can say: of such a basis there is no world.
    pub(super) fn segments(&self, change: &Change, root: &Path, pass: &mut Pass) -> Result<(), Refusal> {
        for (lane, raw) in std::mem::take(&mut pass.raw) {
            let wanted = merged(self.intent.basis.iter().filter(|slice| slice.lane == lane).map(|slice| slice.range).collect());
            let missing = RangeSet::of(&merged(raw)).missing_from(&wanted);
            if !missing.is_empty() {
                self.unseal(change, &lane, &missing, root, pass)?;
            }
        }
        Ok(())
    }

    fn unseal(&self, change: &Change, lane: &Lane, missing: &[OffsetRange], root: &Path, pass: &mut Pass) -> Result<(), Refusal> {
        let (sealed, run) = (self.sealed(), &self.intent.platform_run_id);
        let scope = ReadScope { platform_run_id: run, lane, ranges: missing, verify: true, needs: Needs::Envelope };
        let chunks = sealed.chunks(lane, missing).map_err(of_source)?;
        if chunks.is_empty() {
            return Ok(());
        }
        let path = root.join(folder_of(run, lane)).join(UNSEALED);
        let (mut out, mut decoder, mut broken, mut last) = (create(&path)?, Decoder::new(), None, None);
        for chunk in &chunks {
            self.env.check(PHASE)?;
            let read = sealed.read(chunk, scope, &mut decoder, &mut |delivery| {
                let Delivery::Event(event) = delivery else { return ControlFlow::Continue(()) };
                // Segments may overlap where they agree, and come by their first offset.
                let (Some(envelope), true) = (event.envelope, last.is_none_or(|last| last < event.offset)) else {
                    return ControlFlow::Continue(());
                };
                last = Some(event.offset);
                let at = At { lane, offset: event.offset };
                let record = recorded(envelope.to_value(), run, &at);
                let line = self.record(change, &at, record.clone(), "envelope", pass).unwrap_or_else(|| line_of(&record));
                broken = out.write_all(&line).err();
                if broken.is_some() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
            });
            read.map_err(of_source)?;
            if broken.is_some() {
                break;
            }
        }
        broken.map_or_else(|| out.flush(), Err).map_err(|e| failed(&path, &e))
    }
}
