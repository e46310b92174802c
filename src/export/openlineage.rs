//! OpenLineage run events: START and COMPLETE of the build, one document a line, with the partitions of the basis,
//! the labels and the feature authority as inputs and the data set as output. Both carry the newest instant that
//! the data set knows of, since when some machine built it is no part of the data set. Offsets and label posture have
//! no place in the standard facets and stand in facets of our own.

use serde_json::{Map, Value, json};

use super::intoto::urn_safe;
use super::subject::Subject;

/// Who makes the events.
const PRODUCER: &str = "urn:ofs:export:1";
const SPEC: &str = "https://openlineage.io/spec";

/// A facet of the standard, by the path of its schema and the name in it.
fn facet(schema: &str, name: &str, mut fields: Value) -> Value {
    if let Some(map) = fields.as_object_mut() {
        map.insert("_producer".into(), json!(PRODUCER));
        map.insert("_schemaURL".into(), json!(format!("{SPEC}/facets/{schema}/{name}.json#/$defs/{name}")));
    }
    fields
}

/// A facet of our own.
fn own(name: &str, mut fields: Value) -> Value {
    if let Some(map) = fields.as_object_mut() {
        map.insert("_producer".into(), json!(PRODUCER));
        map.insert("_schemaURL".into(), json!(format!("urn:ofs:facet:{name}:1")));
    }
    fields
}

/// The events, one a line.
pub(super) fn render(subject: &Subject) -> String {
    let (inputs, outputs) = (inputs(subject), vec![output(subject)]);
    let event = |kind: &str, outputs: &[Value]| {
        json!({
            "eventType": kind, "eventTime": subject.as_of(), "producer": PRODUCER, "schemaURL": format!("{SPEC}/2-0-2/OpenLineage.json#/$defs/RunEvent"),
            "run": run(subject), "job": job(subject), "inputs": inputs, "outputs": outputs,
        })
    };
    [event("START", &[]), event("COMPLETE", &outputs)]
        .iter()
        .map(|e| format!("{}\n", crate::text::safe_json(&crate::json::canonical(e))))
        .collect()
}

/// A run id that follows from the identity: a version 8 UUID made of its fingerprint.
fn run_id(fingerprint: &str) -> String {
    let digit = |at: usize| fingerprint.chars().nth(at).unwrap_or('0');
    let digits = |from: usize, to: usize| (from..to).map(digit).collect::<String>();
    // The two bits of the variant.
    let variant = match digit(16).to_digit(16).unwrap_or(0) % 4 {
        0 => '8',
        1 => '9',
        2 => 'a',
        _ => 'b',
    };
    format!("{}-{}-8{}-{variant}{}-{}", digits(0, 8), digits(8, 12), digits(13, 16), digits(17, 20), digits(20, 32))
}

fn run(subject: &Subject) -> Value {
    let mut facets = Map::new();
    if let Some((first, last)) = subject.range() {
        let fields = json!({"nominalStartTime": first, "nominalEndTime": last});
        facets.insert("nominalTime".into(), facet("1-0-1", "NominalTimeRunFacet", fields));
    }
    let fields = json!({"name": "ofs", "version": subject.opened.intent.code_release});
    facets.insert("processing_engine".into(), facet("1-1-1", "ProcessingEngineRunFacet", fields));
    facets.insert(
        "ofs_identity".into(),
        own(
            "identity",
            json!({
                "manifestId": subject.opened.manifest_id, "fingerprint": subject.text("/fingerprint"), "planId": subject.text("/plan_id"),
                "basisHash": subject.text("/basis_hash"), "policyRevision": subject.opened.intent.policy_revision,
                "configRevision": subject.opened.intent.config_revision,
            }),
        ),
    );
    json!({"runId": run_id(subject.text("/fingerprint")), "facets": facets})
}

fn job(subject: &Subject) -> Value {
    let fields = json!({"processingType": "BATCH", "integration": "OFS", "jobType": "DATASET_BUILD"});
    json!({
        "namespace": namespace(subject), "name": format!("offline_features.{}", subject.opened.intent.feature_set_id),
        "facets": {"jobType": facet("2-0-4", "JobTypeJobFacet", fields)},
    })
}

fn namespace(subject: &Subject) -> String {
    format!("urn:ofs:{}", subject.opened.run)
}

fn version(of: &str) -> Value {
    facet("1-0-1", "DatasetVersionDatasetFacet", json!({"datasetVersion": of}))
}

fn dataset(subject: &Subject, name: String, facets: Value) -> Value {
    json!({"namespace": namespace(subject), "name": name, "facets": facets})
}

/// How many rows an input gave.
fn with_rows(mut input: Value, rows: u64) -> Value {
    if let Some(map) = input.as_object_mut() {
        let fields = facet("1-0-0", "InputStatisticsInputDatasetFacet", json!({"rowCount": rows}));
        map.insert("inputFacets".into(), json!({"inputStatistics": fields}));
    }
    input
}

/// Partitions in the order of the basis, labels by type, and the authority.
fn inputs(subject: &Subject) -> Vec<Value> {
    let mut all = Vec::new();
    for lane in subject.lanes() {
        let slices: Vec<Value> = lane.slices().into_iter().map(|(start, end)| json!({"startOffset": start, "endOffset": end})).collect();
        let basis = own("replay_basis", json!({"offsetKind": lane.text("offset_kind"), "interval": "closed", "slices": slices}));
        let facets = json!({"version": version(&lane.text("sequence_digest")), "ofs_replay_basis": basis});
        all.push(with_rows(dataset(subject, format!("events/{}", lane.name()), facets), lane.events()));
    }
    let selection = subject.labels.get("selection_digest").and_then(Value::as_str).unwrap_or_default();
    for label in subject.list("/label_coverage") {
        let name = label.get("label_type").and_then(Value::as_str).unwrap_or_default();
        let basis = json!({
            "labelAsOf": subject.opened.intent.labels.asof, "maturityDays": subject.opened.intent.labels.maturity_days, "posture": subject.text("/label_posture"),
        });
        let facets = json!({"version": version(selection), "ofs_label_basis": own("label_basis", basis)});
        let resolved = label.get("resolved").and_then(Value::as_u64).unwrap_or_default();
        all.push(with_rows(dataset(subject, format!("labels/{name}"), facets), resolved));
    }
    let definition = subject.opened.identity.pointer("/feature_definition_set/group_digest").and_then(Value::as_str).unwrap_or_default();
    all.push(dataset(subject, format!("feature_authority/{}", subject.feature_set()), json!({"version": version(definition)})));
    all
}

fn output(subject: &Subject) -> Value {
    let fields: Vec<Value> = subject.columns.iter().map(|c| json!({"name": c.name, "type": c.kind, "description": c.meaning})).collect();
    let id = &subject.opened.manifest_id;
    let mut dataset = dataset(
        subject,
        format!("datasets/{id}"),
        json!({
            "version": version(subject.text("/fingerprint")), "schema": facet("1-2-0", "SchemaDatasetFacet", json!({"fields": fields})),
            "dataSource": facet("1-0-1", "DatasourceDatasetFacet", json!({"name": subject.opened.run, "uri": format!("urn:ofs:{}:{id}", urn_safe(&subject.opened.run))})),
            "columnLineage": facet("1-2-0", "ColumnLineageDatasetFacet", json!({"fields": lineage(subject), "dataset": grouping(subject)})),
        }),
    );
    let size: u64 = subject.parts().map(|p| p.bytes).sum();
    let statistics = json!({"rowCount": subject.number("/rows"), "size": size, "fileCount": subject.parts().count()});
    if let Some(map) = dataset.as_object_mut() {
        let statistics = facet("1-0-2", "OutputStatisticsOutputDatasetFacet", statistics);
        map.insert("outputFacets".into(), json!({"outputStatistics": statistics}));
    }
    dataset
}

/// One field of one input, and what was done with it.
fn from(subject: &Subject, name: &str, field: &str, (kind, subtype): (&str, &str)) -> Value {
    json!({
        "namespace": namespace(subject), "name": name, "field": field,
        "transformations": [{"type": kind, "subtype": subtype, "description": "", "masking": false}],
    })
}

/// Fields of the payload in every partition: features of one key meet events of all of them.
fn payload(subject: &Subject, fields: &[String], how: (&str, &str)) -> Vec<Value> {
    let lanes: Vec<String> = subject.lanes().map(|lane| format!("events/{}", lane.name())).collect();
    let pairs = lanes.iter().flat_map(|lane| fields.iter().map(move |field| (lane, field)));
    pairs.map(|(lane, field)| from(subject, lane, &format!("payload.{field}"), how)).collect()
}

/// Which inputs each feature and each label is made of.
fn lineage(subject: &Subject) -> Map<String, Value> {
    let mut all = Map::new();
    for column in subject.columns.iter().filter(|c| !c.reads.is_empty()) {
        all.insert(column.name.clone(), json!({"inputFields": payload(subject, &column.reads, ("DIRECT", "AGGREGATION"))}));
    }
    for label in &subject.opened.intent.label_types {
        let fields = vec![from(subject, &format!("labels/{label}"), "label_value", ("DIRECT", "IDENTITY"))];
        all.insert(format!("label_{label}"), json!({"inputFields": fields}));
    }
    all
}

/// What all features depend on: the key that they are grouped by.
fn grouping(subject: &Subject) -> Vec<Value> {
    payload(subject, &subject.opened.group.key_precedence, ("INDIRECT", "GROUP_BY"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_id_follows_from_the_identity() {
        let fingerprint = "5baad103bfb7ea995ec280c7dee95fbd79793ffb7142d8b601b391548c4e5a8c";
        assert_eq!(run_id(fingerprint), "5baad103-bfb7-8a99-9ec2-80c7dee95fbd");
        let id = run_id(&"f".repeat(64));
        assert_eq!((id.len(), &id[14..15], &id[19..20]), (36, "8", "b"));
    }
}
