//! Everything there is to know about one run, as one snapshot.

use std::sync::Arc;

use super::evidence::EvidenceTree;
use super::labels::LabelsView;
use super::pins::PinsView;
use super::replay::ReplayView;
use super::timeline::{TimelineView, samples};
use super::triage::Triage;
use super::{Source, past};
use crate::console::scrub::{Moment, Stop, Stops, Story};
use crate::ledger::{EventRow, LedgerError, RunRow};
use crate::time::Instant;

/// Newest events of a run that are looked at.
pub const MAX_EVENTS: u64 = 2_000;

/// One run, as it was known at one moment.
#[derive(Debug, Clone)]
pub struct Detail {
    /// The run.
    pub run_key: String,
    /// Its record.
    pub row: RunRow,
    /// When this was read.
    pub as_of: Instant,
    /// Why it stands where it does.
    pub triage: Triage,
    /// Completeness by partition.
    pub replay: ReplayView,
    /// Labels as of the cut-off.
    pub labels: LabelsView,
    /// Pinned versions and their drift.
    pub pins: PinsView,
    /// What happened when.
    pub timeline: TimelineView,
    /// What the gates wrote.
    pub evidence: EvidenceTree,
    /// The moments that can be travelled to.
    pub stops: Stops,
    /// The moment of the past that all of this is of, the timeline excepted; none for the present.
    pub moment: Option<Moment>,
}

impl Detail {
    /// Reads everything about a run. What cannot be read or believed is UNKNOWN in its place.
    ///
    /// # Errors
    /// Only where the ledger cannot be read, or holds no such run.
    pub fn load(source: &Source, run_key: &str) -> Result<Self, LedgerError> {
        let (row, events) = record(source, run_key)?;
        let (samples, unknown) = samples(source, &row);
        Ok(Detail {
            run_key: row.run_key.clone(),
            as_of: source.clock.now(),
            triage: Triage::load(source, &row, &events),
            replay: ReplayView::load(source, &row, &events),
            labels: LabelsView::load(source, &row, &events),
            pins: PinsView::load(source, &row, &events),
            timeline: TimelineView::of(source, &row, &events, &samples, unknown),
            evidence: EvidenceTree::load(source, &row, &events),
            stops: Story::new(events, samples).stops(),
            moment: None,
            row,
        })
    }

    /// Reads what was known of a run at a moment of its past. What came later is not reached, and what the
    /// record does not keep is UNKNOWN; the timeline alone is the whole one, to be travelled in.
    ///
    /// # Errors
    /// As of [`Detail::load`]; where the record holds no such moment any more, `NotFound`.
    pub fn load_at(source: &Source, run_key: &str, stop: &Stop) -> Result<Self, LedgerError> {
        let (now, events) = record(source, run_key)?;
        let (samples, unknown) = samples(source, &now);
        let timeline = TimelineView::of(source, &now, &events, &samples, unknown);
        let story = Story::new(events.clone(), samples);
        let stops = story.stops();
        let moment = stops.place(stop).and_then(|at| story.at(at));
        let moment = moment.ok_or_else(|| LedgerError::NotFound(format!("{run_key} {stop}")))?;
        let (row, events, source) = (past::row(&now, &moment), past::events(&events, &moment.stop), past::source(source, &moment.stop));
        let mut evidence = EvidenceTree::load(&source, &row, events);
        // What no event of that time bears out came later.
        evidence.documents.retain(|document| document.recorded.is_some());
        Ok(Detail {
            run_key: row.run_key.clone(),
            as_of: moment.stop.at,
            triage: past::triage(Triage::load(&source, &row, events), &moment.stop),
            replay: ReplayView::load(&source, &row, events),
            labels: LabelsView::load(&source, &row, events),
            pins: past::pins(PinsView::load(&source, &row, events)),
            timeline,
            evidence,
            stops,
            moment: Some(moment),
            row,
        })
    }

    /// Reads the present, or a moment of the past, as a driver or a loader wants it.
    ///
    /// # Errors
    /// Why nothing could be read, in words.
    pub fn read(source: &Source, run_key: &str, stop: Option<&Stop>) -> Result<Arc<Self>, String> {
        let found = stop.map_or_else(|| Self::load(source, run_key), |stop| Self::load_at(source, run_key, stop));
        found.map(Arc::new).map_err(|e| e.to_string())
    }

    /// What panes of the past are titled with; nothing for the present.
    pub fn past(&self) -> Option<Stop> {
        self.moment.as_ref().map(|moment| moment.stop)
    }

    /// The incident as Markdown; of the past where this is.
    pub fn summary(&self, now: Instant) -> String {
        self.triage.summary(now)
    }
}

/// A run with its newest events.
fn record(source: &Source, run_key: &str) -> Result<(RunRow, Vec<EventRow>), LedgerError> {
    let row = source.ledger.run(run_key)?.ok_or_else(|| LedgerError::NotFound(run_key.to_owned()))?;
    let events = source.ledger.events(run_key, row.last_seq.saturating_sub(MAX_EVENTS))?;
    Ok((row, events))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::console::data::testing::World;
    use crate::console::data::{Origin, Verdict};
    use crate::ledger::Status;
    use crate::observe::gates::Standing;

    /// The run as of each of its moments, with the verdicts of plan, replay and labels.
    fn told(world: &World) -> Vec<(String, Detail)> {
        let (source, row, _) = world.newest();
        let now = Detail::load(&source, &row.run_key).unwrap();
        let at = |at: usize| {
            let stop = now.stops.get(at).unwrap();
            let detail = Detail::load_at(&source, &row.run_key, &stop).unwrap();
            assert_eq!((detail.past(), detail.timeline.events.len()), (Some(stop), now.timeline.events.len()));
            let event = detail.moment.as_ref().unwrap().event.clone().unwrap_or_else(|| "sample".into());
            (event, detail)
        };
        (0..now.stops.len()).map(at).collect()
    }

    #[test]
    fn what_was_not_known_then_is_not_reached_and_nothing_may_be_done() {
        let told = told(&World::play("clean"));
        let (mut seen, mut replayed, mut labelled) = (Vec::new(), false, false);
        for (event, detail) in &told {
            let passed = |phase: &str| detail.triage.gates.iter().any(|g| g.phase.as_str() == phase && g.standing == Standing::Passed);
            replayed |= event == "GATE_PASSED" && passed("replay");
            labelled |= event == "GATE_PASSED" && passed("labels");
            assert_eq!(detail.replay.verdict == Verdict::Proved, replayed, "{event}: {:?}", detail.replay.origin);
            assert_eq!(detail.labels.verdict == Verdict::Proved, labelled, "{event}: {:?}", detail.labels.origin);
            assert_eq!(detail.pins.verdict == Verdict::Proved, passed("pins"), "{event}");
            assert!(detail.triage.actions.is_empty() && detail.triage.headline().starts_with("AS OF #"));
            assert!(detail.pins.rows.iter().filter(|r| r.against != "intent").all(|r| r.drift.word() == "UNKNOWN"));
            assert_eq!(detail.row.manifest_ref.is_some(), detail.triage.status == Status::Done, "{event}");
            assert!(detail.summary(detail.as_of).contains("AS OF"));
            seen.push(detail.triage.status);
        }
        seen.dedup();
        assert_eq!(seen, [Status::Queued, Status::Running, Status::Done]);
        assert_eq!(told[0].1.evidence.documents, [], "nothing was written before the first gate");
        assert!(told.iter().any(|(event, _)| event == "sample"));
    }

    #[test]
    fn a_refusal_is_known_from_its_event_on_and_still_after_the_next_attempt_began() {
        let told = told(&World::play("commit-refused"));
        let pending: Vec<&Detail> = told.iter().map(|(_, d)| d).filter(|d| d.triage.status == Status::PublishPending).collect();
        assert!(!pending.is_empty());
        assert!(pending.iter().all(|d| d.triage.reason.as_ref().is_some_and(|r| r.code == "COMMIT_FAILED")));
        let before = told.iter().map(|(_, d)| d).take_while(|d| d.triage.status != Status::PublishPending);
        assert!(before.into_iter().all(|d| d.triage.reason.is_none()));
        let gap = self::told(&World::play("archive-gap"));
        let (_, failed) = gap.last().unwrap();
        assert_eq!((failed.replay.verdict, failed.triage.gates[1].standing), (Verdict::Refused, Standing::Refused));
        assert!(matches!(failed.replay.origin, Origin::Refusal(_)) && !failed.replay.findings.is_empty());
        let (_, before) = &gap[gap.len() - 2];
        assert!(matches!(before.replay.verdict, Verdict::NotReached | Verdict::Running), "{:?}", before.replay.verdict);
    }

    #[test]
    fn while_it_replayed_the_partitions_stand_where_the_sample_says() {
        let world = World::play("clean");
        let (source, row, events) = world.newest();
        let at = events.iter().find(|e| e.event_type == "PHASE_ENTERED" && e.detail["phase"] == "replay").unwrap();
        let name = ReplayView::load(&source, &row, &events).lanes[0].name.clone();
        let sample = serde_json::json!({"phase": "replay", "done": 5, "total": 9, "lanes": [[name, 9, 5]]});
        let known = events.iter().take_while(|e| e.seq <= at.seq).cloned().collect();
        let story = Story::new(known, vec![crate::ledger::SampleRow { attempt: 1, at: at.at, sample }]);
        let moment = story.at(story.stops().len() - 1).unwrap();
        let (then, source) = (past::row(&row, &moment), past::source(&source, &moment.stop));
        let view = ReplayView::load(&source, &then, past::events(&events, &moment.stop));
        assert_eq!((view.verdict, view.lanes[0].delivered), (Verdict::Running, 5));
    }
}
