//! The answer of `explain` in lines: the row and its record, each window with the events that it counts, every
//! assertion with what became of it, and what all rows of the data set rest on.

use std::collections::BTreeMap;

use serde_json::Value;

use super::{Contributor, Explanation, FeatureLine, LabelLine, Outcome};
use crate::answer::{Line, Tone};
use crate::pipeline::label::story::{Considered, Decided, Verdict};
use crate::pipeline::lineage::Place;
use crate::text::{clip, grouped};

impl Explanation {
    /// Everything that is known of the event.
    pub fn lines(&self) -> Vec<Line> {
        let tone = match self.outcome {
            Outcome::Row if self.holds() => Tone::Good,
            Outcome::NotInBasis => Tone::Unknown,
            _ => Tone::Warn,
        };
        let mut lines = vec![Line::new(tone, format!("{:<12} {}  in {}", self.outcome.as_str(), self.event_id, self.manifest_id))];
        if let Outcome::Dropped(why) = &self.outcome {
            lines.push(Line::new(Tone::Warn, format!("dropped      {why}")));
        }
        // What does not hold comes first where a screen is small; the command line has room for both.
        lines.extend(self.differences.iter().map(|difference| Line::new(Tone::Bad, format!("DIFFERS      {difference}"))));
        self.record(&mut lines);
        let mut windows: Vec<Vec<&FeatureLine>> = Vec::new();
        for line in &self.features {
            match windows.iter_mut().find(|lines| lines.first().is_some_and(|l| l.window == line.window)) {
                Some(lines) => lines.push(line),
                None => windows.push(vec![line]),
            }
        }
        windows.iter().for_each(|features| window(features, &mut lines));
        self.labels.iter().for_each(|told| label(told, &mut lines));
        lines.extend(self.other_assertions.iter().map(assertion));
        self.rests_on(&mut lines);
        lines.extend(self.notes.iter().map(|note| Line::new(Tone::Warn, format!("note         {note}"))));
        lines
    }

    /// The row, and the record that it was made of as it is served now.
    fn record(&self, lines: &mut Vec<Line>) {
        if let Some(row) = &self.row {
            lines.push(Line::plain(format!("row          {}  number {} of {}", row.row_id, row.number, row.file)));
            lines.push(Line::plain(format!("event        {}", place(&row.place))));
            lines.push(Line::plain(format!("content      {}", row.payload_hash)));
            lines.push(Line::plain(format!("key          {}", row.key)));
        }
        for served in &self.served {
            let dropped = served.dropped.as_ref().map(|why| format!("  no row: {why}")).unwrap_or_default();
            let (at, hash) = (place(&served.place), clip(&served.payload_hash, 12));
            lines.push(Line::plain(format!("served       {:<8} {at}  {hash}{dropped}", served.source)));
        }
    }

    fn rests_on(&self, lines: &mut Vec<Line>) {
        let of = |pointer: &str| self.rests_on.pointer(pointer).map(shown).unwrap_or_default();
        let set = "/feature_definition_set";
        lines.push(Line::new(
            Tone::Head,
            format!("policy       {}   config {}   code {}", of("/policy_revision"), of("/config_revision"), of("/ofs_code_release_id")),
        ));
        let group = [format!("{set}/feature_set_id"), format!("{set}/feature_set_version"), format!("{set}/group_digest")];
        let [id, version, digest] = group.map(|pointer| of(&pointer));
        lines.push(Line::plain(format!("definition   {id}@{version}  digest {digest}")));
        lines.push(Line::plain(format!("basis        {}", of("/basis_hash"))));
        let rule = of("/label_basis/resolution_rule");
        lines.push(Line::plain(format!("cut-off      {}  ({rule})", of("/label_basis/label_asof_utc"))));
        lines.push(Line::plain(format!("manifest     {}", self.manifest_ref)));
        for run in &self.runs {
            let text = |value: &Value, key: &str| value.get(key).map(shown).unwrap_or_default();
            let (profile, release) = (text(&run.profile, "resolved_revision"), text(&run.running, "release"));
            lines.push(Line::plain(format!(
                "run          {}  {}  {}  profile {profile}  by {release}",
                run.run_key, run.status, run.request_id
            )));
        }
    }
}

fn place(place: &Place) -> String {
    format!("{} offset {} at {}", place.lane, place.offset, place.ts)
}

fn shown(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

/// The features of one window, and below them every event that some of them counts, once.
fn window(features: &[&FeatureLine], lines: &mut Vec<Line>) {
    let Some(first) = features.first() else { return };
    lines.push(Line::new(
        Tone::Head,
        match &first.window {
            Some((from, to)) => format!("window       ({from}, {to}]"),
            None => "window       since the event before".to_owned(),
        },
    ));
    let mut events: BTreeMap<&Place, (&Contributor, Vec<String>)> = BTreeMap::new();
    for line in features {
        lines.push(feature(line));
        for c in &line.contributors {
            let (_, values) = events.entry(&c.past.place).or_insert_with(|| (c, Vec::new()));
            let value = line.field.as_ref().zip(c.value.as_ref()).map(|((field, _), value)| format!("{field} {}", shown(value)));
            values.extend(value.filter(|v| !values.contains(v)));
        }
    }
    let listed = features.iter().map(|l| l.contributors.len()).max().unwrap_or_default();
    let total = features.iter().map(|l| l.contributors_total).max().unwrap_or_default();
    if listed < total {
        let text = format!("  … older events, {} in all; --limit N lists more", grouped(total as u64));
        lines.push(Line::new(Tone::Dim, text));
    }
    for (at, (c, values)) in events {
        let late = if c.arrived_later { "  arrived later" } else { "" };
        let text = format!("  + {}  {}  {}{late}", place(at), c.past.event_id, values.join(", "));
        lines.push(Line::plain(text).about(&c.past.event_id, 0));
    }
}

fn feature(line: &FeatureLine) -> Line {
    let field = line.field.as_ref().map(|(name, kind)| format!(" of {name} ({kind})")).unwrap_or_default();
    let conditions =
        line.conditions.as_object().filter(|c| !c.is_empty()).map(|_| format!(" where {}", line.conditions)).unwrap_or_default();
    let total = grouped(line.contributors_total as u64);
    let (value, agg) = (shown(&line.value), line.agg.as_str());
    Line::plain(format!("feature      {} = {value}   {agg}{field}{conditions}, {total} event(s)", line.column))
}

fn decided(label: &Decided) -> String {
    let value = label.value.as_deref().map(|v| format!(" {v}")).unwrap_or_default();
    let observed = label.observed.map(|t| format!(", observed {t}")).unwrap_or_default();
    format!("{}{value}{observed}", label.status)
}

fn label(line: &LabelLine, lines: &mut Vec<Line>) {
    let published = line.published.as_ref().or(line.now.as_ref()).map(decided).unwrap_or_default();
    lines.push(Line::new(Tone::Head, format!("label        {} = {published}", line.label_type)));
    lines.extend(line.considered.iter().map(assertion));
}

fn assertion(c: &Considered) -> Line {
    let observed = c.observed.map_or_else(|| "no instant".to_owned(), |t| t.to_string());
    let value = c.value.as_deref().unwrap_or("(none)");
    let tone = match c.verdict {
        Verdict::Taken => Tone::Good,
        Verdict::Conflict | Verdict::Late => Tone::Warn,
        Verdict::Untrusted => Tone::Bad,
        Verdict::Superseded | Verdict::TieSameValue | Verdict::Repeated | Verdict::OtherType => Tone::Dim,
    };
    let (verdict, kind, id) = (c.verdict.as_str(), &c.label_type, &c.assertion_id);
    Line::new(tone, format!("             {verdict:<14} {kind} {value} observed {observed}, assertion {id}: {}", c.why))
}
