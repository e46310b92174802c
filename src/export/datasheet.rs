//! `DATASHEET.md`: what a person must know before using the data set, in one page.

use std::fmt::Write as _;

use serde_json::Value;

use super::subject::{Role, Subject};
use crate::contract::profile::Availability;
use crate::text::{grouped, safe};

/// Nothing in a cell may end it, or command a terminal.
fn cell(text: &str) -> String {
    safe(text).replace('\\', "\\\\").replace('|', "\\|").replace('`', "\\`").replace('<', "&lt;")
}

/// A text as code: nothing in it is read as Markdown.
fn code(text: &str) -> String {
    format!("`{}`", safe(text).replace('`', "'").replace('|', "\\|"))
}

/// The page.
pub(super) fn render(subject: &Subject) -> String {
    let mut page = String::new();
    head(subject, &mut page);
    basis(subject, &mut page);
    labels(subject, &mut page);
    drops(subject, &mut page);
    columns(subject, &mut page);
    uses(subject, &mut page);
    files(subject, &mut page);
    page
}

fn head(subject: &Subject, page: &mut String) {
    let intent = &subject.opened.intent;
    let _ = writeln!(page, "# Data set {}\n", cell(&subject.opened.manifest_id));
    let kind = if intent.training() { "**Training data.**" } else { "**Not training data**: nothing may be trained on it." };
    let rows = grouped(subject.number("/rows"));
    let range = subject.range().map(|(first, last)| format!(", events of {first} to {last}")).unwrap_or_default();
    let _ = writeln!(page, "{kind} {rows} rows{range}.\n");
    let facts = [
        ("platform run", subject.opened.run.clone()),
        ("scenario runs", intent.scenario_run_ids.join(", ")),
        ("feature set", subject.feature_set()),
        ("fingerprint (identity)", subject.text("/fingerprint").to_owned()),
        ("rows digest", subject.text("/rows_digest").to_owned()),
        ("plan", subject.text("/plan_id").to_owned()),
        ("policy, configuration, code", format!("{}, {}, {}", intent.policy_revision, intent.config_revision, intent.code_release)),
        ("supersedes", subject.list("/supersedes").iter().filter_map(Value::as_str).collect::<Vec<_>>().join(", ")),
    ];
    table(page, &["what", "value"]);
    for (what, value) in facts.iter().filter(|(_, value)| !value.is_empty()) {
        let _ = writeln!(page, "| {what} | {} |", code(value));
    }
}

fn table(page: &mut String, heads: &[&str]) {
    let _ = writeln!(page, "| {} |\n|{}", heads.join(" | "), "---|".repeat(heads.len()));
}

fn basis(subject: &Subject, page: &mut String) {
    let _ = writeln!(
        page,
        "\n## Basis\n\nEvery offset below was delivered exactly once, with the payload that its hash names; both ends count.\n"
    );
    table(page, &["partition", "offsets", "kind", "events"]);
    for lane in subject.lanes() {
        let slices: Vec<String> = lane.slices().into_iter().map(|(start, end)| format!("{start} to {end}")).collect();
        let _ = writeln!(
            page,
            "| {} | {} | {} | {} |",
            code(&lane.name()),
            cell(&slices.join(", ")),
            cell(&lane.text("offset_kind")),
            grouped(lane.events())
        );
    }
    let _ = writeln!(page, "\nBasis hash {}.", code(subject.text("/basis_hash")));
}

fn labels(subject: &Subject, page: &mut String) {
    let labels = &subject.opened.intent.labels;
    let maturity = labels.maturity_days.map(|days| format!(" Labels count as mature {days} day(s) after their event.")).unwrap_or_default();
    let _ = writeln!(
        page,
        "\n## Labels\n\nPosture {}: each label is the one that was known at {}; nothing observed later is in any row.{maturity}\n",
        code(subject.text("/label_posture")),
        labels.asof
    );
    table(page, &["label", "rows", "resolved", "coverage", "conflicts", "not found", "mature rows", "values"]);
    for label in subject.list("/label_coverage") {
        let number = |key: &str| grouped(label.get(key).and_then(Value::as_u64).unwrap_or_default());
        let text = |key: &str| cell(label.get(key).and_then(Value::as_str).unwrap_or_default());
        let values = label.get("values").and_then(Value::as_object).into_iter().flatten();
        let values: Vec<String> = values.map(|(value, n)| format!("{} {}", cell(value), grouped(n.as_u64().unwrap_or_default()))).collect();
        let _ = writeln!(
            page,
            "| {} | {} | {} | {} | {} | {} | {} | {} |",
            text("label_type"),
            number("targets"),
            number("resolved"),
            text("coverage_ratio"),
            number("conflict"),
            number("not_found"),
            number("mature_rows"),
            values.join(", ")
        );
    }
    let ready = subject.opened.index.pointer("/label_gate/ready") == Some(&Value::Bool(true));
    let _ = writeln!(
        page,
        "\nThe label gate {}.",
        if ready { "was passed" } else { "was not passed: the coverage that training asks for is not there" }
    );
}

fn drops(subject: &Subject, page: &mut String) {
    let (delivered, rows, again) = (subject.number("/delivered_events"), subject.number("/rows"), subject.number("/redelivered_events"));
    let _ = writeln!(
        page,
        "\n## Drops\n\n{} event(s) were delivered and {} became rows; {} redelivery(ies) of an event counted once. No sampling.\n",
        grouped(delivered),
        grouped(rows),
        grouped(again)
    );
    let dropped = subject.opened.index.get("dropped").and_then(Value::as_object);
    match dropped.filter(|d| !d.is_empty()) {
        None => drop(writeln!(page, "No event was dropped.")),
        Some(dropped) => {
            table(page, &["dropped because", "events"]);
            for (why, n) in dropped {
                let _ = writeln!(page, "| {} | {} |", cell(why), grouped(n.as_u64().unwrap_or_default()));
            }
        }
    }
}

fn columns(subject: &Subject, page: &mut String) {
    let _ = writeln!(page, "\n## Columns\n");
    table(page, &["column", "type", "null", "meaning"]);
    for column in &subject.columns {
        let null = if column.nullable { "may be" } else { "never" };
        let _ = writeln!(page, "| {} | {} | {null} | {} |", code(&column.name), cell(&column.kind), cell(&column.meaning));
    }
}

/// What the data set is fit for, as the gates have it.
pub(super) fn use_of(subject: &Subject) -> String {
    if subject.opened.intent.training() {
        "Training and evaluating models that predict the labels from features known at the time of the event.".into()
    } else {
        "Audit and analysis. It did not pass the gates of training data, so nothing may be trained on it.".into()
    }
}

/// What it must not be taken for.
pub(super) fn limits(subject: &Subject) -> Vec<String> {
    let mut all = vec![
        format!("Labels are those known at {}; what was observed later is not in it.", subject.opened.intent.labels.asof),
        "Events outside the stated offsets are not in it, and do not count in any window: rows near the beginning of the basis see shorter histories than their windows allow.".into(),
    ];
    all.push(match subject.opened.group.availability {
        Availability::Arrival => "A row sees, of its own partition, only events at offsets not above its own; of other partitions it sees all events of its windows.".into(),
        Availability::EventTime => format!(
            "Windows are by event time: a late event counts in the windows of rows that had arrived before it, which concerns {} row(s).",
            grouped(subject.number("/rows_using_later_arrivals"))
        ),
    });
    for label in subject.list("/label_coverage") {
        let count = |key: &str| label.get(key).and_then(Value::as_u64).unwrap_or_default();
        if count("not_found") + count("conflict") > 0 {
            let name = label.get("label_type").and_then(Value::as_str).unwrap_or_default();
            all.push(format!(
                "Label {name} is null in {} row(s): {} without an assertion, {} with contradicting ones.",
                grouped(count("not_found") + count("conflict")),
                grouped(count("not_found")),
                grouped(count("conflict"))
            ));
        }
    }
    all
}

fn uses(subject: &Subject, page: &mut String) {
    let _ = writeln!(page, "\n## Intended use and limits\n\n{}\n", cell(&use_of(subject)));
    for limit in limits(subject) {
        let _ = writeln!(page, "- {}", cell(&limit));
    }
}

fn files(subject: &Subject, page: &mut String) {
    let _ = writeln!(page, "\n## Files\n");
    table(page, &["file", "bytes", "SHA-256"]);
    for file in subject.files.iter().filter(|f| f.role != Role::Evidence) {
        let _ = writeln!(page, "| {} | {} | {} |", code(file.at.as_str()), grouped(file.bytes), code(&file.sha256));
    }
    let _ = writeln!(
        page,
        "\n`ofs verify {id}` checks all of it against the ledger, `ofs explain {id} EVENT_ID` traces one row.",
        id = safe(&subject.opened.manifest_id)
    );
}
