//! `ofs explain M EVENT_ID`: where one row of a published data set comes from.

use std::collections::BTreeMap;

use serde_json::Value;

use super::{Context, Outcome, document, say};
use crate::pipeline::label::story::{Considered, Decided};
use crate::pipeline::lineage::Place;
use crate::prove::explain::{self, Contributor, Explanation, FeatureLine, LabelLine};
use crate::prove::find_manifest;
use crate::text::{clip, grouped, safe};

/// Arguments of `ofs explain`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Manifest ref, or the id of a data set (`dm_…`).
    #[arg(value_name = "M")]
    manifest: String,
    /// The event whose row is meant.
    #[arg(value_name = "EVENT_ID")]
    event_id: String,
    /// Contributing events that are listed for each feature, the newest; their number is exact.
    #[arg(long, value_name = "N", default_value_t = explain::LIMIT)]
    limit: usize,
}

pub(super) fn run(context: &Context, args: &Args) -> Outcome {
    let env = context.env()?;
    let ledger = context.witness();
    let manifest = find_manifest(&env, ledger.as_ref(), &args.manifest)?;
    let explanation = explain::explain(&env, ledger.as_ref(), &manifest, &args.event_id, args.limit)?;
    if context.json {
        document(&explanation.to_json());
    } else {
        print(&explanation);
    }
    Ok(match explanation.outcome {
        explain::Outcome::NotInBasis => {
            eprintln!("ofs: no record of the basis of {} has the event id {}", safe(&explanation.manifest_id), safe(&args.event_id));
            2
        }
        _ if explanation.holds() => 0,
        _ => 3,
    })
}

fn place(place: &Place) -> String {
    format!("{} offset {} at {}", place.lane, place.offset, place.ts)
}

fn shown(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), |text| safe(text).into_owned())
}

fn print(explanation: &Explanation) {
    say(format!("{:<12} {}  in {}", explanation.outcome.as_str(), safe(&explanation.event_id), safe(&explanation.manifest_id)));
    if let explain::Outcome::Dropped(why) = &explanation.outcome {
        say(format!("dropped      {}", safe(why)));
    }
    if let Some(row) = &explanation.row {
        say(format!("row          {}  number {} of {}", row.row_id, row.number, safe(row.file.as_str())));
        say(format!("event        {}", safe(&place(&row.place))));
        say(format!("content      {}", row.payload_hash));
        say(format!("key          {}", safe(&row.key)));
    }
    for served in &explanation.served {
        let dropped = served.dropped.as_ref().map(|why| format!("  no row: {why}")).unwrap_or_default();
        say(format!(
            "served       {:<8} {}  {}{}",
            served.source,
            safe(&place(&served.place)),
            clip(&served.payload_hash, 12),
            safe(&dropped)
        ));
    }
    let mut windows: Vec<Vec<&FeatureLine>> = Vec::new();
    for line in &explanation.features {
        match windows.iter_mut().find(|lines| lines.first().is_some_and(|l| l.window == line.window)) {
            Some(lines) => lines.push(line),
            None => windows.push(vec![line]),
        }
    }
    windows.iter().for_each(|lines| window(lines));
    explanation.labels.iter().for_each(label);
    for other in &explanation.other_assertions {
        assertion(other);
    }
    rests_on(explanation);
    for difference in &explanation.differences {
        say(format!("DIFFERS      {}", safe(difference)));
    }
    for note in &explanation.notes {
        say(format!("note         {}", safe(note)));
    }
}

/// The features of one window, and below them every event that some of them counts, once.
fn window(lines: &[&FeatureLine]) {
    let Some(first) = lines.first() else { return };
    say(match &first.window {
        Some((from, to)) => format!("window       ({from}, {to}]"),
        None => "window       since the event before".to_owned(),
    });
    let mut events: BTreeMap<&Place, (&Contributor, Vec<String>)> = BTreeMap::new();
    for line in lines {
        feature(line);
        for c in &line.contributors {
            let (_, values) = events.entry(&c.past.place).or_insert_with(|| (c, Vec::new()));
            let value = line.field.as_ref().zip(c.value.as_ref()).map(|((field, _), value)| format!("{field} {}", shown(value)));
            values.extend(value.filter(|v| !values.contains(v)));
        }
    }
    let listed = lines.iter().map(|l| l.contributors.len()).max().unwrap_or_default();
    let total = lines.iter().map(|l| l.contributors_total).max().unwrap_or_default();
    if listed < total {
        say(format!("  … older events, {} in all; --limit N lists more", grouped(total as u64)));
    }
    for (at, (c, values)) in events {
        let late = if c.arrived_later { "  arrived later" } else { "" };
        say(format!("  + {}  {}  {}{late}", safe(&place(at)), safe(&c.past.event_id), safe(&values.join(", "))));
    }
}

fn feature(line: &FeatureLine) {
    let field = line.field.as_ref().map(|(name, kind)| format!(" of {name} ({kind})")).unwrap_or_default();
    let conditions =
        line.conditions.as_object().filter(|c| !c.is_empty()).map(|_| format!(" where {}", line.conditions)).unwrap_or_default();
    let total = grouped(line.contributors_total as u64);
    say(format!(
        "feature      {} = {}   {}{}{}, {total} event(s)",
        safe(&line.column),
        shown(&line.value),
        line.agg.as_str(),
        safe(&field),
        safe(&conditions)
    ));
}

fn decided(label: &Decided) -> String {
    let value = label.value.as_deref().map(|v| format!(" {v}")).unwrap_or_default();
    let observed = label.observed.map(|t| format!(", observed {t}")).unwrap_or_default();
    format!("{}{value}{observed}", label.status)
}

fn label(line: &LabelLine) {
    let published = line.published.as_ref().or(line.now.as_ref()).map(decided).unwrap_or_default();
    say(format!("label        {} = {}", safe(&line.label_type), safe(&published)));
    line.considered.iter().for_each(assertion);
}

fn assertion(c: &Considered) {
    let observed = c.observed.map_or_else(|| "no instant".to_owned(), |t| t.to_string());
    let value = c.value.as_deref().unwrap_or("(none)");
    say(format!(
        "             {:<14} {} {} observed {observed}, assertion {}: {}",
        c.verdict.as_str(),
        safe(&c.label_type),
        safe(value),
        safe(&c.assertion_id),
        safe(&c.why)
    ));
}

fn rests_on(explanation: &Explanation) {
    let of = |pointer: &str| explanation.rests_on.pointer(pointer).map(shown).unwrap_or_default();
    let set = "/feature_definition_set";
    say(format!("policy       {}   config {}   code {}", of("/policy_revision"), of("/config_revision"), of("/ofs_code_release_id")));
    say(format!(
        "definition   {}@{}  digest {}",
        of(&format!("{set}/feature_set_id")),
        of(&format!("{set}/feature_set_version")),
        of(&format!("{set}/group_digest"))
    ));
    say(format!("basis        {}", of("/basis_hash")));
    say(format!("cut-off      {}  ({})", of("/label_basis/label_asof_utc"), of("/label_basis/resolution_rule")));
    say(format!("manifest     {}", safe(explanation.manifest_ref.as_str())));
    for run in &explanation.runs {
        let text = |value: &Value, key: &str| value.get(key).map(shown).unwrap_or_default();
        let profile = text(&run.profile, "resolved_revision");
        say(format!(
            "run          {}  {}  {}  profile {profile}  by {}",
            run.run_key,
            run.status,
            safe(&run.request_id),
            text(&run.running, "release")
        ));
    }
}
