//! Croissant 1.1: every part as a file with its SHA-256, every column as a field with its type and meaning. Where a
//! data set has several parts each is a record set of its own, since a loader can read columns out of files and
//! not out of lists of files; their fields are the same, and their rows follow each other.

use serde_json::{Map, Value, json};

use super::place::Place;
use super::pretty;
use super::subject::{Column, File, LaneFacts, Subject};

/// The specification that the document conforms to.
const CONFORMS_TO: &str = "http://mlcommons.org/croissant/1.1";
const PARQUET: &str = "application/x-parquet";

/// The words of the format, as its specification gives them, and those of PROV.
fn context() -> Value {
    let mut words = Map::new();
    for (word, meaning) in [("@language", "en"), ("@vocab", "https://schema.org/"), ("cr", "http://mlcommons.org/croissant/")] {
        words.insert(word.into(), json!(meaning));
    }
    for (word, meaning) in [
        ("conformsTo", "dct:conformsTo"),
        ("dct", "http://purl.org/dc/terms/"),
        ("prov", "http://www.w3.org/ns/prov#"),
        ("rai", "http://mlcommons.org/croissant/RAI/"),
        ("sc", "https://schema.org/"),
    ] {
        words.insert(word.into(), json!(meaning));
    }
    for word in [
        "arrayShape",
        "citeAs",
        "column",
        "containedIn",
        "equivalentProperty",
        "extract",
        "field",
        "fileObject",
        "fileProperty",
        "fileSet",
        "format",
        "includes",
        "isArray",
        "isLiveDataset",
        "jsonPath",
        "key",
        "md5",
        "parentField",
        "path",
        "recordSet",
        "references",
        "regex",
        "repeated",
        "replace",
        "samplingRate",
        "separator",
        "source",
        "subField",
        "transform",
    ] {
        words.insert(word.into(), json!(format!("cr:{word}")));
    }
    for word in ["data", "examples"] {
        words.insert(word.into(), json!({"@id": format!("cr:{word}"), "@type": "@json"}));
    }
    words.insert("dataType".into(), json!({"@id": "cr:dataType", "@type": "@vocab"}));
    for word in ["description", "name"] {
        words.insert(word.into(), json!({"@container": "@language"}));
    }
    Value::Object(words)
}

/// The document.
pub(super) fn render(subject: &Subject, place: &Place) -> String {
    let id = &subject.opened.manifest_id;
    let run = &subject.opened.run;
    let parts: Vec<&File> = subject.parts().collect();
    let urn = format!("urn:ofs:{run}:{id}");
    pretty(&json!({
        "@context": context(), "@type": "sc:Dataset", "conformsTo": CONFORMS_TO, "name": id, "url": urn, "version": "1.0.0",
        "identifier": subject.text("/fingerprint"), "citeAs": format!("{id}, fingerprint {}, rows_digest {}", subject.text("/fingerprint"), subject.text("/rows_digest")),
        "description": description(subject), "keywords": keywords(subject),
        // No licence is known of events and labels, and none is made up.
        "license": "NOASSERTION",
        "creator": {"@type": "sc:Organization", "name": run, "url": format!("urn:ofs:{run}")},
        "dateCreated": subject.as_of(), "datePublished": subject.as_of(), "isLiveDataset": false,
        "rai:dataUseCases": super::datasheet::use_of(subject), "rai:dataLimitations": super::datasheet::limits(subject),
        "prov:wasDerivedFrom": derived_from(subject),
        "prov:wasGeneratedBy": {"@type": "prov:Activity", "prov:label": format!("offline feature build {}", subject.text("/plan_id"))},
        "distribution": parts.iter().map(|part| file(part, place)).collect::<Vec<_>>(),
        "recordSet": parts.iter().map(|part| records(subject, part, parts.len() == 1)).collect::<Vec<_>>(),
    }))
}

fn description(subject: &Subject) -> String {
    let posture = if subject.opened.intent.training() { "training data" } else { "not training data" };
    format!(
        "{} rows, one for each event of the replay basis that no stated rule drops, with features {} and the labels {} as they were known at {} ({posture}). \
         Rows are in canonical order across the files. The dates are those of the data's own evidence: the newest instant that it knows of.",
        subject.number("/rows"),
        subject.feature_set(),
        subject.opened.intent.label_types.join(", "),
        subject.opened.intent.labels.asof,
    )
}

fn keywords(subject: &Subject) -> Vec<String> {
    let mut words = vec!["point-in-time features".to_owned(), subject.opened.intent.feature_set_id.clone()];
    words.extend(subject.opened.intent.label_types.iter().cloned());
    words
}

fn derived_from(subject: &Subject) -> Vec<Value> {
    let entity = |lane: LaneFacts<'_>| {
        json!({
            "@type": "prov:Entity", "prov:label": format!("{} of {}", lane.name(), subject.opened.run),
            "prov:value": format!("{} events, sequence digest {}", lane.events(), lane.text("sequence_digest")),
        })
    };
    subject.lanes().map(entity).collect()
}

fn file(part: &File, place: &Place) -> Value {
    json!({
        "@type": "cr:FileObject", "@id": part.name, "name": part.name, "contentUrl": place.link(&part.at),
        "contentSize": format!("{} B", part.bytes), "encodingFormat": PARQUET, "sha256": part.sha256,
    })
}

fn records(subject: &Subject, part: &File, alone: bool) -> Value {
    let stem = part.name.strip_suffix(".parquet").unwrap_or(&part.name);
    let id = if alone { "rows".to_owned() } else { format!("rows-{stem}") };
    let rows = subject.rows_of(part);
    json!({
        "@type": "cr:RecordSet", "@id": id, "name": id, "description": format!("{rows} rows in canonical order."), "key": {"@id": format!("{id}/row_id")},
        "field": subject.columns.iter().map(|column| field(&id, column, part)).collect::<Vec<_>>(),
    })
}

fn field(records: &str, column: &Column, part: &File) -> Value {
    let null = if column.nullable { " May be null." } else { "" };
    let exact = if column.kind.starts_with("decimal") { format!(" Stored as {}.", column.kind) } else { String::new() };
    json!({
        "@type": "cr:Field", "@id": format!("{records}/{}", column.name), "name": column.name, "dataType": data_type(&column.kind),
        "description": format!("{}{exact}{null}", column.meaning), "source": {"fileObject": {"@id": part.name}, "extract": {"column": column.name}},
    })
}

/// The nearest type that loaders know. There is none for exact decimals, which stand in the file as they are.
fn data_type(kind: &str) -> &'static str {
    match kind {
        "int64" => "cr:Int64",
        "int32" => "cr:Int32",
        "float64" => "cr:Float64",
        "bool" => "sc:Boolean",
        "timestamp_us_utc" => "sc:DateTime",
        "utf8" => "sc:Text",
        _ => "sc:Float",
    }
}
