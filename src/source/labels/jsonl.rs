//! Label assertions as JSON lines.

use std::fs::File;
use std::io::{Seek, SeekFrom};
use std::ops::ControlFlow;
use std::path::PathBuf;

use super::{Assertion, LabelError, LabelQuery, LabelSink, LabelTimeline, Part, Stamp};
use crate::json::{Item, Tape};
use crate::source::lines::{Line, Lines, blank};

/// Bytes of one piece.
const PART_BYTES: u64 = 16 << 20;

/// A timeline of JSONL files.
#[derive(Debug)]
pub struct JsonlLabels {
    files: Vec<PathBuf>,
}

impl JsonlLabels {
    pub(super) fn new(files: Vec<PathBuf>) -> Self {
        JsonlLabels { files }
    }
}

impl LabelTimeline for JsonlLabels {
    fn describe(&self) -> &'static str {
        "jsonl"
    }

    fn parts(&self) -> Result<Vec<Part>, LabelError> {
        let mut parts = Vec::new();
        for (file, path) in self.files.iter().enumerate() {
            let size = path.metadata().map_err(|e| LabelError::unavailable(path.display().to_string(), e))?.len();
            let mut from = 0;
            while from < size {
                parts.push(Part { file, from, to: size.min(from + PART_BYTES) });
                from += PART_BYTES;
            }
        }
        Ok(parts)
    }

    /// A piece owns the lines that *begin* inside it.
    fn scan(&self, part: &Part, query: LabelQuery<'_>, sink: &mut LabelSink<'_>) -> Result<(), LabelError> {
        let Some(path) = self.files.get(part.file) else { return Ok(()) };
        let name = path.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
        let unavailable = |e: std::io::Error| LabelError::unavailable(&name, e);
        // A piece ends within the file as it was when it was cut.
        let shrunk = |at: u64| LabelError::unavailable(&name, format!("became shorter while it was read, at byte {at}; run again"));
        let mut file = File::open(path).map_err(unavailable)?;
        let mut at = part.from.saturating_sub(1);
        file.seek(SeekFrom::Start(at)).map_err(unavailable)?;
        let mut lines = Lines::new(file);
        if part.from > 0 {
            // The line that begins before the piece belongs to the piece before.
            at += match lines.next().map_err(unavailable)? {
                Some(Line::Text(text, ended)) => text.len() as u64 + u64::from(ended),
                Some(Line::TooLong(_)) => {
                    return Err(LabelError::inconsistent(&name, format!("a line longer than the limit before byte {}", part.from)));
                }
                None => return Err(shrunk(at)),
            };
        }
        let mut tape = Tape::new();
        while at < part.to {
            let place = || format!("{name} at byte {at}");
            let (text, ended) = match lines.next().map_err(unavailable)? {
                None => return Err(shrunk(at)),
                Some(Line::TooLong(_)) => return Err(LabelError::inconsistent(place(), "a line longer than the limit of 16 MiB")),
                Some(Line::Text(text, ended)) => (text, ended),
            };
            if !blank(text) && deliver(&mut tape, text, query, &place, sink)?.is_break() {
                break;
            }
            at += text.len() as u64 + u64::from(ended);
        }
        Ok(())
    }
}

fn deliver<'t>(
    tape: &'t mut Tape,
    text: &'t [u8],
    query: LabelQuery<'_>,
    place: &dyn Fn() -> String,
    sink: &mut LabelSink<'_>,
) -> Result<ControlFlow<()>, LabelError> {
    let doc = tape.parse(text).map_err(|e| LabelError::inconsistent(place(), e))?;
    if let Some(key) = doc.duplicate_key() {
        return Err(LabelError::inconsistent(place(), format!("the key `{key}` stands twice in one object")));
    }
    // In the order in which they are mostly written.
    let [effective, id, subject, label_type, value, observed, payload_hash] = doc.root().pick([
        "effective_time",
        "label_assertion_id",
        "label_subject_key",
        "label_type",
        "label_value",
        "observed_time",
        "payload_hash",
    ]);
    let text = |item: Option<Item<'t>>| item.and_then(Item::str);
    let [event_id, run] = subject.map(|subject| subject.pick(["event_id", "platform_run_id"])).unwrap_or_default();
    let (Some(id), Some(run), Some(event_id), Some(label_type)) = (text(id), text(run), text(event_id), text(label_type)) else {
        return Err(LabelError::inconsistent(
            place(),
            "not a label assertion: label_assertion_id, label_subject_key {platform_run_id, event_id} and label_type are needed",
        ));
    };
    if run != query.platform_run_id || !query.types.contains(label_type.as_ref()) {
        return Ok(ControlFlow::Continue(()));
    }
    let (value, effective, observed, payload_hash) = (text(value), text(effective), text(observed), text(payload_hash));
    Ok(sink(Assertion {
        id: &id,
        event_id: &event_id,
        label_type: &label_type,
        value: value.as_deref(),
        effective: effective.as_deref().map(Stamp::Text),
        observed: observed.as_deref().map(Stamp::Text),
        embedded_observed: None,
        fault: None,
        unread: false,
        payload_hash: payload_hash.as_deref(),
    }))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::contract::ReasonCode;

    #[test]
    fn a_file_that_became_shorter_is_said_to_be_that() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("labels.jsonl");
        std::fs::write(&path, "\n".repeat(20)).unwrap();
        let (labels, types) = (JsonlLabels::new(vec![path]), BTreeSet::new());
        let scan = |from, to| {
            let query = LabelQuery { platform_run_id: "run", types: &types };
            labels.scan(&Part { file: 0, from, to }, query, &mut |_| ControlFlow::Continue(()))
        };
        for (from, to) in [(0, 20), (19, 20)] {
            scan(from, to).unwrap();
        }
        // It ends within the piece, and before it.
        for (from, to) in [(0, 21), (20, 21), (40, 50)] {
            let error = scan(from, to).unwrap_err();
            assert_eq!(error.code, ReasonCode::LabelStoreUnavailable);
            assert!(error.message.contains("became shorter"), "{error}");
        }
    }
}
