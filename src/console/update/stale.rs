//! Whether what is shown can be trusted to be the present: the ledger's reader fails, or is not heard of.

use std::time::Duration;

use super::say;
use crate::console::model::Model;
use crate::console::msg::{Feed, Told};
use crate::time::Instant;

/// How long nothing may be heard of the ledger's reader, which looks more than once a second.
pub const SILENCE: Duration = Duration::from_secs(10);

/// How the ledger can be read now.
pub(super) fn told(model: &mut Model, feed: &Feed) {
    match feed {
        Feed::Stale(_) => drop(model.stale.get_or_insert(model.clock)),
        Feed::Absent | Feed::Live | Feed::Static => model.stale = None,
    }
}

/// Something came from the reader.
pub(super) fn heard(model: &mut Model) {
    if !matches!(model.feed, Feed::Stale(_)) {
        model.stale = None;
    }
}

/// Nothing was heard of the reader for so long. Asked every few seconds: it is drawn only where it matters.
pub(super) fn silent(model: &mut Model, silent: Duration) {
    let micros = i64::try_from(silent.as_micros()).unwrap_or(i64::MAX);
    if silent < SILENCE {
        model.dirty |= model.stale.is_some();
        heard(model);
    } else if model.stale.is_none() {
        model.dirty = true;
        model.stale = Some(Instant(model.clock.0.saturating_sub(micros)));
        say(model, Told::bad(format!("nothing was heard of the ledger's reader for {} s: what is shown may be old", silent.as_secs())));
    }
}

/// When the age that is shown turns over.
pub(super) fn next_turn(model: &Model) -> Option<Instant> {
    model.stale().map(|age| model.clock.plus_micros(60_000_000 - age % 60_000_000))
}
