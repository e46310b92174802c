//! Replay completeness, partition by partition: what was asked for, who served it, what is missing and what
//! contradicts.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::Value;

use super::document::{Gap, count, items, receipt, refusal, text};
use super::{Origin, Source, Verdict};
use crate::console::filter::Filterable;
use crate::contract::intent::OffsetRange;
use crate::contract::{Offset, OffsetKind};
use crate::ledger::{EventRow, RunRow, Status};
use crate::pipeline::Phase;

/// Most partitions that are shown; further ones are counted.
pub const MAX_LANES: usize = 4_096;
/// Most segments of one partition; what does not fit is said to be unknown.
const MAX_SEGMENTS: usize = 4_096;

/// Who stands behind a stretch of offsets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Served {
    /// Asked for, not yet delivered.
    Wanted,
    /// The bus.
    Bus,
    /// The archive.
    Archive,
    /// A sealed segment of the archive.
    Sealed,
    /// Nobody says.
    Unknown,
    /// Nobody: it is not there.
    Missing,
    /// Two contents, or one that cannot be used.
    Mismatch,
}

impl Served {
    /// The word that is shown.
    pub fn word(self) -> &'static str {
        match self {
            Served::Wanted => "WANTED",
            Served::Bus => "BUS",
            Served::Archive => "ARCHIVE",
            Served::Sealed => "SEALED",
            Served::Unknown => "UNKNOWN",
            Served::Missing => "MISSING",
            Served::Mismatch => "MISMATCH",
        }
    }

    /// Whether it keeps the replay from being complete.
    pub fn problem(self) -> bool {
        matches!(self, Served::Missing | Served::Mismatch | Served::Unknown)
    }

    fn named(source: &str) -> Self {
        match source {
            "ARCHIVE" => Served::Archive,
            "EB" => Served::Bus,
            "SEALED" => Served::Sealed,
            _ => Served::Unknown,
        }
    }
}

/// A stretch of offsets of one partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Segment {
    /// First and last offset.
    pub range: OffsetRange,
    /// Who served it.
    pub served: Served,
    /// Why, where that is not plain.
    pub why: String,
}

/// One partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LaneView {
    /// As everywhere: `topic/partition`.
    pub name: String,
    /// Its topic.
    pub topic: String,
    /// Its number.
    pub partition: i64,
    /// How it numbers its records.
    pub kind: String,
    /// How it stands.
    pub verdict: Verdict,
    /// Offsets asked for.
    pub requested: Offset,
    /// Events delivered; while it runs, records read.
    pub delivered: u64,
    /// Offsets proved to be covered.
    pub covered: Offset,
    /// Offsets that nothing served.
    pub missing: Offset,
    /// Offsets with contradicting or unusable content.
    pub mismatch: u64,
    /// Records of other runs: covered, not delivered.
    pub foreign: u64,
    /// Offsets that each side served.
    pub archive: u64,
    /// Offsets that the bus alone served.
    pub bus: u64,
    /// Offsets that both had and that were compared.
    pub compared: u64,
    /// How the sides took turns, and where the bus took over.
    pub cutover: String,
    /// The first offset that the bus still had.
    pub retained_from: Option<String>,
    /// The asked ranges, in order, cut by who served them. Empty while the partition runs.
    pub segments: Vec<Segment>,
}

impl LaneView {
    /// Whether something keeps it from being complete.
    pub fn problem(&self) -> bool {
        matches!(self.verdict, Verdict::Contradicted | Verdict::Refused | Verdict::Unknown)
    }
}

impl Filterable for LaneView {
    fn field(&self, key: &str) -> Option<Cow<'_, str>> {
        Some(match key {
            "state" | "status" => Cow::Borrowed(self.verdict.word()),
            "topic" => Cow::Borrowed(self.topic.as_str()),
            "partition" => Cow::Owned(self.partition.to_string()),
            "missing" => Cow::Owned(self.missing.to_string()),
            "mismatch" => Cow::Owned(self.mismatch.to_string()),
            "foreign" => Cow::Owned(self.foreign.to_string()),
            "cutover" => Cow::Borrowed(self.cutover.as_str()),
            _ => return None,
        })
    }

    fn age(&self) -> Option<Duration> {
        None
    }

    fn text(&self) -> Cow<'_, str> {
        Cow::Owned(format!("{} {} {} {}", self.verdict.word(), self.name, self.kind, self.cutover))
    }
}

/// The replay of one run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReplayView {
    /// How it stands.
    pub verdict: Verdict,
    /// Where this was read from.
    pub origin: Origin,
    /// What the gate found, most telling first; empty where it passed.
    pub findings: Vec<String>,
    /// Whether every payload hash was recomputed; none where it is not known.
    pub verified: Option<bool>,
    /// The partitions in the order of the basis.
    pub lanes: Vec<LaneView>,
    /// Partitions that there are, shown or not.
    pub lanes_total: usize,
    /// Records that could not be used, and those whose offset is not even known.
    pub unusable: u64,
    /// Lines of the archive whose offset cannot be known.
    pub unplaced: u64,
}

impl ReplayView {
    /// The sums over all partitions.
    pub fn totals(&self) -> Totals {
        let mut totals = Totals::default();
        for lane in &self.lanes {
            totals.requested = totals.requested.plus(lane.requested);
            totals.covered = totals.covered.plus(lane.covered);
            totals.missing = totals.missing.plus(lane.missing);
            totals.delivered += lane.delivered;
            totals.mismatch += lane.mismatch;
            totals.foreign += lane.foreign;
            totals.problems += usize::from(lane.problem());
        }
        totals
    }

    /// Reads it.
    pub fn load(source: &Source, row: &RunRow, events: &[EventRow]) -> Self {
        let plan = receipt(source, row, events, Phase::Pins).ok().map(|(_, plan)| plan);
        let verified = plan.as_ref().and_then(|p| p.pointer("/running/verify_payload_hashes")).and_then(Value::as_bool);
        let mut view = match refusal(source, row, Phase::Replay) {
            Ok((at, found)) => Self::refused(source, row, &at, &found),
            Err(Gap::Untrusted(why)) => Self::unknown(row, why),
            Err(Gap::Absent) => match receipt(source, row, events, Phase::Replay) {
                Ok((at, found)) => Self::passed(row, &at, &found),
                Err(Gap::Untrusted(why)) => Self::unknown(row, why),
                Err(Gap::Absent) => Self::running(row),
            },
        };
        view.verified = verified;
        view
    }

    fn refused(source: &Source, row: &RunRow, at: &crate::store::Ref, found: &Value) -> Self {
        let findings = items(found, "/evidence").filter_map(Value::as_str).map(str::to_owned).collect();
        let Some(observed) = found.pointer("/findings/replay").filter(|o| o.is_object()) else {
            // The gate stopped before it had looked at everything: an unreadable source, no space.
            let mut view = Self::asked(row, Verdict::Unknown, Origin::Refusal(at.to_string()));
            view.verdict = Verdict::Refused;
            view.findings = findings;
            return view;
        };
        let anomalies = anomalies_beside(source, at);
        let mut view = Self::observed(observed, anomalies.as_ref(), Verdict::Refused, Origin::Refusal(at.to_string()));
        view.findings = findings;
        view
    }

    fn passed(row: &RunRow, at: &crate::store::Ref, found: &Value) -> Self {
        let status = text(found, "/status");
        let Some(observed) = found.get("observation").filter(|_| status == Some("COMPLETE")) else {
            return Self::unknown(row, format!("{at} is not a receipt of a complete replay"));
        };
        let mut view = Self::observed(observed, None, Verdict::Proved, Origin::Receipt(at.to_string()));
        // What the proof says and what the observation says must be one story.
        let proved = count(found, "/proof/events");
        let delivered: u64 = view.lanes.iter().map(|lane| lane.delivered).sum();
        if view.lanes.len() == view.lanes_total && proved != Some(delivered) {
            view.verdict = Verdict::Unknown;
            view.origin = Origin::Unknown(format!("{at} proves {} events and observes {delivered}", proved.unwrap_or(0)));
        }
        view
    }

    fn observed(observed: &Value, anomalies: Option<&Value>, verdict: Verdict, origin: Origin) -> Self {
        let contradictions = contradictions(anomalies);
        let all = observed.pointer("/partitions").and_then(Value::as_array).map_or(0, Vec::len);
        let lanes: Vec<LaneView> = items(observed, "/partitions").take(MAX_LANES).map(|lane| lane_of(lane, &contradictions)).collect();
        let complete = text(observed, "/status") == Some("COMPLETE") && lanes.iter().all(|lane| lane.verdict == Verdict::Proved);
        let verdict = match verdict {
            Verdict::Proved if !complete => Verdict::Unknown,
            verdict => verdict,
        };
        ReplayView {
            verdict,
            origin,
            findings: Vec::new(),
            verified: None,
            lanes,
            lanes_total: all,
            unusable: count(observed, "/unusable_records").unwrap_or(0),
            unplaced: count(observed, "/undecodable_unplaced").unwrap_or(0),
        }
    }

    fn unknown(row: &RunRow, why: String) -> Self {
        let mut view = Self::asked(row, Verdict::Unknown, Origin::Unknown(why));
        view.verdict = Verdict::Unknown;
        view
    }

    /// A run that has not come to the end of its replay: what its owner says of its progress, else its plan.
    fn running(row: &RunRow) -> Self {
        let live = row.status == Status::Running && row.progress.as_ref().is_some_and(|p| items(p, "/lanes").next().is_some());
        let mut view = Self::asked(row, Verdict::NotReached, Origin::Plan);
        let Some(progress) = row.progress.as_ref().filter(|_| live) else { return view };
        view.progress(
            items(progress, "/lanes")
                .filter_map(|lane| Some((lane.pointer("/0")?.as_str()?, lane.pointer("/1")?.as_u64()?, lane.pointer("/2")?.as_u64()?))),
        );
        view
    }

    /// The view of a replay that is going on in this process or another: name, offsets wanted, records read.
    pub fn progress<'n>(&mut self, lanes: impl Iterator<Item = (&'n str, u64, u64)>) {
        (self.verdict, self.origin) = (Verdict::Running, Origin::Progress);
        let places: BTreeMap<String, usize> = self.lanes.iter().enumerate().map(|(i, lane)| (lane.name.clone(), i)).collect();
        for (name, wanted, delivered) in lanes.take(MAX_LANES) {
            let at = places.get(name).copied();
            if let Some(lane) = at.and_then(|at| self.lanes.get_mut(at)) {
                lane.verdict = Verdict::Running;
                lane.requested = Offset::from(wanted);
                lane.delivered = delivered;
                lane.segments.clear();
            }
        }
    }

    /// What the intent asks for, delivered by nobody.
    fn asked(row: &RunRow, verdict: Verdict, origin: Origin) -> Self {
        let mut lanes: BTreeMap<(String, i64), LaneView> = BTreeMap::new();
        let basis = row.intent.as_ref().map(|i| items(i, "/replay_basis")).into_iter().flatten();
        for slice in basis {
            let Some(range) = range_of(slice) else { continue };
            let (topic, partition) =
                (text(slice, "/topic").unwrap_or_default(), slice.get("partition").and_then(Value::as_i64).unwrap_or(-1));
            let lane = lanes.entry((topic.to_owned(), partition)).or_insert_with(|| blank(topic, partition, slice, verdict));
            lane.requested = lane.requested.plus(range.span());
            let served = if verdict == Verdict::Unknown { Served::Unknown } else { Served::Wanted };
            lane.segments.push(Segment { range, served, why: String::new() });
        }
        let lanes_total = lanes.len();
        ReplayView {
            verdict,
            origin,
            findings: Vec::new(),
            verified: None,
            lanes: lanes.into_values().take(MAX_LANES).collect(),
            lanes_total,
            unusable: 0,
            unplaced: 0,
        }
    }
}

/// Sums over partitions.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Totals {
    /// Offsets asked for.
    pub requested: Offset,
    /// Offsets covered.
    pub covered: Offset,
    /// Offsets that nothing served.
    pub missing: Offset,
    /// Events delivered.
    pub delivered: u64,
    /// Offsets that contradict.
    pub mismatch: u64,
    /// Records of other runs.
    pub foreign: u64,
    /// Partitions with a problem.
    pub problems: usize,
}

fn blank(topic: &str, partition: i64, lane: &Value, verdict: Verdict) -> LaneView {
    LaneView {
        name: format!("{topic}/{partition}"),
        topic: topic.to_owned(),
        partition,
        kind: text(lane, "/offset_kind").unwrap_or("UNKNOWN").to_owned(),
        verdict,
        requested: Offset::default(),
        delivered: 0,
        covered: Offset::default(),
        missing: Offset::default(),
        mismatch: 0,
        foreign: 0,
        archive: 0,
        bus: 0,
        compared: 0,
        cutover: String::new(),
        retained_from: None,
        segments: Vec::new(),
    }
}

/// An exact number of any length, written as a number or as a text.
fn offset_of(value: Option<&Value>) -> Option<Offset> {
    match value? {
        Value::String(digits) => Offset::parse(digits),
        Value::Number(number) => Offset::parse(&number.to_string()),
        _ => None,
    }
}

fn range_of(value: &Value) -> Option<OffsetRange> {
    let range = OffsetRange { start: offset_of(value.get("start_offset"))?, end: offset_of(value.get("end_offset"))? };
    (range.start <= range.end).then_some(range)
}

/// The anomalies that lie beside the findings of a refused gate.
fn anomalies_beside(source: &Source, at: &crate::store::Ref) -> Option<Value> {
    let (folder, _) = at.as_str().rsplit_once('/')?;
    let at = crate::store::Ref::parse(&format!("{folder}/anomalies.json")).ok()?;
    super::document::load(source, &at, super::document::MAX_RECEIPT).ok().map(|(value, _)| value)
}

/// Offsets whose content contradicts or cannot be used, by partition, with what was found.
fn contradictions(anomalies: Option<&Value>) -> BTreeMap<String, Vec<(Offset, String)>> {
    let mut found: BTreeMap<String, Vec<(Offset, String)>> = BTreeMap::new();
    for anomaly in anomalies.map(|a| items(a, "/anomalies")).into_iter().flatten() {
        let (Some(lane), Some(offset)) = (text(anomaly, "/lane"), offset_of(anomaly.get("offset"))) else { continue };
        // What the bus cannot read the archive may have; where it has not, a missing range says so.
        if text(anomaly, "/code") == Some("DECODE_ERROR") && text(anomaly, "/source") == Some("EB") {
            continue;
        }
        let why = format!("{} {}", text(anomaly, "/code").unwrap_or_default(), text(anomaly, "/message").unwrap_or_default());
        found.entry(lane.to_owned()).or_default().push((offset, why));
    }
    for offsets in found.values_mut() {
        offsets.sort();
        offsets.dedup_by(|a, b| a.0 == b.0);
    }
    found
}

fn lane_of(lane: &Value, contradictions: &BTreeMap<String, Vec<(Offset, String)>>) -> LaneView {
    let partition = lane.get("partition").and_then(Value::as_i64).unwrap_or(-1);
    let mut view = blank(text(lane, "/topic").unwrap_or_default(), partition, lane, Verdict::Proved);
    let number = |key: &str| lane.get(key).and_then(Value::as_u64);
    view.requested = offset_of(lane.get("required_offsets")).unwrap_or_default();
    view.covered = offset_of(lane.get("covered_offsets")).unwrap_or_default();
    view.missing = offset_of(lane.get("missing_offsets")).unwrap_or_default();
    view.delivered = number("delivered_events").unwrap_or(0);
    view.foreign = number("foreign_records").unwrap_or(0);
    view.archive = number("served_by_archive").unwrap_or(0);
    view.bus = number("served_by_bus").unwrap_or(0);
    view.compared = number("compared_on_both").unwrap_or(0);
    view.cutover = match (text(lane, "/cutover/mode"), offset_of(lane.pointer("/cutover/cutover_offset"))) {
        (Some(mode), Some(at)) => format!("{mode}@{at}"),
        (Some(mode), None) => mode.to_owned(),
        _ => "UNKNOWN".to_owned(),
    };
    view.retained_from = offset_of(lane.pointer("/cutover/bus_retained_from")).map(|o| o.to_string());
    let points = contradictions.get(&view.name).map(Vec::as_slice).unwrap_or_default();
    view.mismatch = number("mismatch_count").unwrap_or(0).max(points.len() as u64);
    view.segments = segments(lane, points);
    // Sums that do not add up prove nothing, whatever the receipt calls itself.
    let adds_up = ["required_offsets", "covered_offsets", "missing_offsets"].iter().all(|key| offset_of(lane.get(*key)).is_some())
        && view.covered.plus(view.missing) == view.requested;
    view.verdict = if view.mismatch > 0 {
        Verdict::Contradicted
    } else if view.missing > Offset::default() {
        Verdict::Refused
    } else if !adds_up {
        Verdict::Unknown
    } else {
        Verdict::Proved
    };
    view
}

/// The asked ranges of a partition, cut by who served them: served and missing stretches, single offsets
/// that contradict, and what nobody speaks of.
fn segments(lane: &Value, points: &[(Offset, String)]) -> Vec<Segment> {
    let mut told: Vec<Segment> = Vec::new();
    for served in items(lane, "/selected_ranges").take(MAX_SEGMENTS) {
        if let Some(range) = range_of(served) {
            let by = Served::named(text(served, "/source").unwrap_or_default());
            told.push(Segment { range, served: by, why: String::new() });
        }
    }
    for gap in items(lane, "/missing_ranges").take(MAX_SEGMENTS) {
        if let Some(range) = range_of(gap) {
            let cause = text(gap, "/cause").unwrap_or("UNKNOWN");
            told.push(Segment { range, served: Served::Missing, why: cause.to_owned() });
        }
    }
    told.sort_by_key(|s| (s.range, s.served));
    let shortened = |list: &str, total: &str| {
        let listed = lane.get(list).and_then(Value::as_array).map_or(0, Vec::len) as u64;
        lane.get(total).and_then(Value::as_u64).is_some_and(|total| total > listed)
    };
    let cut = shortened("selected_ranges", "selected_ranges_total") || shortened("missing_ranges", "missing_ranges_total");
    let silent = if cut { "the receipt lists no further ranges" } else { "the receipt says nothing of it" };
    let mut out = Vec::new();
    for range in items(lane, "/requested_ranges").filter_map(range_of) {
        let mut at = range.start;
        for segment in told.iter().filter(|s| s.range.end >= range.start && s.range.start <= range.end) {
            let (start, end) = (segment.range.start.max(at), segment.range.end.min(range.end));
            if start > end {
                continue;
            }
            if start > at {
                out.push(Segment { range: OffsetRange { start: at, end: start.previous() }, served: Served::Unknown, why: silent.into() });
            }
            punch(&mut out, segment, OffsetRange { start, end }, points);
            at = end.next();
        }
        if at <= range.end {
            out.push(Segment { range: OffsetRange { start: at, end: range.end }, served: Served::Unknown, why: silent.into() });
        }
        if out.len() > MAX_SEGMENTS {
            break;
        }
    }
    out.truncate(MAX_SEGMENTS);
    out
}

/// Puts a stretch, and the contradictions that lie inside it.
fn punch(out: &mut Vec<Segment>, segment: &Segment, range: OffsetRange, points: &[(Offset, String)]) {
    let mut at = range.start;
    for (offset, why) in points.iter().filter(|(offset, _)| range.contains(*offset)) {
        if *offset > at {
            out.push(Segment { range: OffsetRange { start: at, end: offset.previous() }, ..segment.clone() });
        }
        out.push(Segment { range: OffsetRange { start: *offset, end: *offset }, served: Served::Mismatch, why: why.clone() });
        at = offset.next();
    }
    if at <= range.end {
        out.push(Segment { range: OffsetRange { start: at, end: range.end }, ..segment.clone() });
    }
}

/// Whether a kind of offsets promises that every number of a range is a record.
pub fn dense(kind: &str) -> bool {
    OffsetKind::parse(kind).is_some_and(OffsetKind::dense)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::console::data::testing::World;
    use serde_json::json;

    fn view(world: &World) -> ReplayView {
        let (source, row, events) = world.newest();
        ReplayView::load(&source, &row, &events)
    }

    #[test]
    fn a_complete_replay_is_proved_by_its_receipt_and_adds_up() {
        let world = World::play("clean");
        let view = view(&world);
        assert_eq!((view.verdict, view.lanes.len(), view.verified), (Verdict::Proved, 4, Some(true)));
        let totals = view.totals();
        assert_eq!((totals.delivered, totals.missing, totals.mismatch, totals.problems), (842, Offset::default(), 0, 0));
        for lane in &view.lanes {
            let spans = lane.segments.iter().fold(Offset::default(), |sum, s| sum.plus(s.range.span()));
            assert_eq!(spans, lane.requested, "{}", lane.name);
            assert!(lane.segments.iter().all(|s| matches!(s.served, Served::Archive | Served::Bus)), "{lane:?}");
        }
    }

    #[test]
    fn a_gap_is_found_with_its_cause() {
        let view = view(&World::play("archive-gap"));
        assert_eq!((view.verdict, view.totals().problems), (Verdict::Refused, 1));
        let lane = view.lanes.iter().find(|l| l.problem()).unwrap();
        let missing: Vec<_> = lane.segments.iter().filter(|s| s.served == Served::Missing).collect();
        assert_eq!(
            (lane.verdict, missing[0].range.to_string(), missing[0].why.as_str()),
            (Verdict::Refused, "17".into(), "BELOW_RETENTION")
        );
        assert!(view.findings[0].contains("below the bus's retention"));
    }

    #[test]
    fn a_contradiction_is_found_at_its_offset() {
        let view = view(&World::play("bus-archive-mismatch"));
        let lane = view.lanes.iter().find(|l| l.verdict == Verdict::Contradicted).unwrap();
        let segment = lane.segments.iter().find(|s| s.served == Served::Mismatch).unwrap();
        assert_eq!((segment.range.to_string().as_str(), view.totals().mismatch), ("170", 1));
        assert!(segment.why.starts_with("REPLAY_BASIS_MISMATCH the archive has"));
    }

    #[test]
    fn what_cannot_be_believed_is_unknown_with_the_cause() {
        for (damage, cause) in [
            (None, "is gone, though the ledger says"),
            (Some("{"), "is not a JSON document"),
            (Some("{}"), "is of another run"),
            (Some("forged"), "not the one that the ledger recorded"),
            (Some("proof"), "has not the digest it states"),
        ] {
            let world = World::play("clean");
            world.damage("replay_completeness", damage);
            let view = view(&world);
            assert_eq!(view.verdict, Verdict::Unknown, "{damage:?}");
            let why = view.origin.unknown().unwrap_or_default().to_owned();
            assert!(why.contains(cause), "{damage:?}: {why}");
            // The partitions are still listed, and none of them looks served.
            assert_eq!(view.lanes.len(), 4);
            assert!(view.lanes.iter().all(|l| l.verdict == Verdict::Unknown && l.segments.iter().all(|s| s.served == Served::Unknown)));
        }
    }

    #[test]
    fn sums_that_do_not_add_up_prove_nothing() {
        let lane = json!({"topic": "t", "partition": 0, "offset_kind": "kafka_offset", "requested_ranges": [{"start_offset": "0", "end_offset": "9"}],
            "required_offsets": 10, "covered_offsets": 9, "missing_offsets": 0, "delivered_events": 9, "selected_ranges": [{"start_offset": "0", "end_offset": "8", "source": "ARCHIVE"}],
            "selected_ranges_total": 1, "missing_ranges": []});
        let view = lane_of(&lane, &BTreeMap::new());
        assert_eq!(view.verdict, Verdict::Unknown);
        assert_eq!(view.segments.last().map(|s| (s.served, s.range.to_string())), Some((Served::Unknown, "9".into())));
        // A number of 56 digits is still exact.
        let long = "9".repeat(50);
        let sparse = json!({"requested_ranges": [{"start_offset": "1", "end_offset": long}], "selected_ranges": [{"start_offset": "1", "end_offset": long, "source": "NEW"}]});
        assert_eq!(lane_of(&sparse, &BTreeMap::new()).segments.len(), 1);
        assert_eq!(lane_of(&sparse, &BTreeMap::new()).segments[0].served, Served::Unknown);
    }

    #[test]
    fn gaps_that_are_not_listed_are_said_to_be_so_and_stay_counted() {
        let lane = json!({"topic": "t", "partition": 0, "offset_kind": "kafka_offset", "requested_ranges": [{"start_offset": "0", "end_offset": "9"}],
            "required_offsets": 10, "covered_offsets": 0, "missing_offsets": 10, "selected_ranges": [], "selected_ranges_total": 0,
            "missing_ranges": [{"start_offset": "0", "end_offset": "4", "cause": "BELOW_RETENTION"}], "missing_ranges_total": 2});
        let view = lane_of(&lane, &BTreeMap::new());
        assert_eq!((view.verdict, view.missing), (Verdict::Refused, Offset::from(10)));
        let last = view.segments.last().map(|s| (s.served, s.range.to_string(), s.why.as_str()));
        assert_eq!(last, Some((Served::Unknown, "5-9".into(), "the receipt lists no further ranges")));
    }

    #[test]
    fn thousands_of_partitions_are_bounded_and_counted() {
        let lanes: Vec<Value> = (0..5_000).map(|p| json!({"topic": "t", "partition": p})).collect();
        let view = ReplayView::observed(&json!({"status": "COMPLETE", "partitions": lanes}), None, Verdict::Proved, Origin::Progress);
        assert_eq!((view.lanes.len(), view.lanes_total, view.verdict), (MAX_LANES, 5_000, Verdict::Unknown));
    }

    #[test]
    fn a_running_replay_moves_with_the_progress_of_its_owner() {
        let world = World::play("clean");
        let (_, mut row, _) = world.newest();
        row.status = Status::Running;
        let name = "fp.bus.traffic.flights.v1/1";
        row.progress = Some(json!({"phase": "replay", "lanes": [[name, 202, 100], ["nobody/9", 1, 1]]}));
        let view = ReplayView::running(&row);
        assert_eq!((view.verdict, view.lanes.len()), (Verdict::Running, 4));
        let lane = view.lanes.iter().find(|l| l.name == name).unwrap();
        assert_eq!((lane.verdict, lane.delivered, lane.requested), (Verdict::Running, 100, Offset::from(202)));
        assert_eq!(view.lanes.iter().filter(|l| l.verdict == Verdict::NotReached).count(), 3);
    }
}
