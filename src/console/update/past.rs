//! Time travel: from moment to moment of the selected run's record, by hand or played. What is live is
//! neither shown nor disturbed meanwhile.

use std::sync::Arc;

use super::say;
use crate::console::action::Action;
use crate::console::data::detail::Detail;
use crate::console::model::past::{Past, Play, SPEEDS};
use crate::console::model::{Model, View};
use crate::console::msg::{Effect, Told};
use crate::console::scrub::Stop;
use crate::time::Instant;

/// Longest that a played run stands at one moment, in micros of whoever watches: a night between two attempts
/// is not waited for.
const LONGEST: f64 = 3_000_000.0;

/// Whether the action has a meaning for the present alone.
pub(super) fn presents(action: Action) -> bool {
    use Action::{Abort, Bundle, Cancel, Continue, CopyCommand, Fail, Note, Resume, Retry, RunToEnd};
    matches!(action, Resume | Retry | Cancel | Fail | Note | Bundle | Continue | RunToEnd | Abort | CopyCommand)
}

/// Moves through the record.
pub(super) fn scrub(model: &mut Model, action: Action) -> Vec<Effect> {
    let Some((run_key, stops)) = model.record() else {
        say(model, Told::bad("nothing of the run's past is read yet"));
        return Vec::new();
    };
    // The newest moment is as good as now: from now the first step back leads before it.
    let last = stops.len().saturating_sub(1);
    let from = model.past.as_ref().map_or(last, |past| past.stop().and_then(|stop| stops.place(&stop)).unwrap_or(last));
    let to = match action {
        Action::ScrubBack => from.checked_sub(1),
        Action::ScrubOn => Some(from + 1),
        Action::ScrubEventBack => stops.event(from, false),
        Action::ScrubEventOn => Some(stops.event(from, true).unwrap_or(last + 1)),
        _ => Some(0),
    };
    match to {
        None => {
            say(model, Told::plain("that is the first moment on record"));
            Vec::new()
        }
        Some(to) if to > last => now(model),
        Some(to) => {
            let shown = model.past.take().filter(|past| past.run_key == run_key).and_then(|past| past.shown);
            go(model, Past { run_key, stops, at: to, shown, play: None })
        }
    }
}

/// Goes to an event, by its number.
pub(super) fn event(model: &mut Model, seq: u64) -> Vec<Effect> {
    let Some((run_key, stops)) = model.record() else { return Vec::new() };
    let Some(at) = stops.of_event(seq) else { return Vec::new() };
    let shown = model.past.take().and_then(|past| past.shown);
    go(model, Past { run_key, stops, at, shown, play: None })
}

/// Wants a moment to be read.
fn go(model: &mut Model, past: Past) -> Vec<Effect> {
    let wanted = past.stop().map(|stop| Effect::LoadAt { run_key: past.run_key.clone(), stop });
    model.panes.timeline.scrub_to(past.stop().map(|stop| stop.seq));
    model.past = Some(past);
    wanted.into_iter().collect()
}

/// Back to the present.
pub(super) fn now(model: &mut Model) -> Vec<Effect> {
    if model.past.take().is_some() {
        say(model, Told::plain("back to now"));
    }
    model.panes.timeline.scrub_to(None);
    Vec::new()
}

/// Whoever selects another run is in the present again.
pub(super) fn settle(model: &mut Model) {
    if model.past.as_ref().is_some_and(|past| model.panes.runs.selected() != Some(&past.run_key)) {
        now(model);
        say(model, Told::plain("back to now: another run is selected"));
    }
}

/// A moment was read.
pub(super) fn heard(model: &mut Model, run_key: &str, found: Result<Arc<Detail>, String>) {
    match (&mut model.past, found) {
        (Some(past), Ok(detail)) if past.run_key == run_key => past.shown = Some(detail),
        (Some(past), Err(why)) if past.run_key == run_key => {
            now(model);
            say(model, Told::bad(format!("back to now: that moment cannot be read: {why}")));
        }
        // An answer about a past that was left is dropped.
        _ => {}
    }
}

/// Plays the run from where it stands, or from its beginning; stops it where it plays.
pub(super) fn play(model: &mut Model, speed: Option<f64>) -> Vec<Effect> {
    if let (Some(Past { play: play @ Some(_), .. }), None) = (&mut model.past, speed) {
        *play = None;
        return Vec::new();
    }
    let Some((run_key, stops)) = model.record() else {
        say(model, Told::bad("nothing of the run's past is read yet"));
        return Vec::new();
    };
    model.speed = speed.unwrap_or(model.speed);
    let past = model.past.take();
    let standing = past.as_ref().and_then(|past| stops.place(&past.stop()?));
    let at = standing.filter(|at| at + 1 < stops.len()).unwrap_or(0);
    let due = due(model.clock, stops.gap(at), model.speed);
    let shown = past.and_then(|past| past.shown);
    go(model, Past { run_key, stops, at, shown, play: due.map(|due| Play { due }) })
}

/// When the next moment is due.
fn due(now: Instant, gap: Option<i64>, speed: f64) -> Option<Instant> {
    #[expect(clippy::cast_possible_truncation, clippy::cast_precision_loss, reason = "at most three seconds, in micros")]
    gap.map(|gap| now.plus_micros((gap as f64 / speed).min(LONGEST) as i64))
}

/// Twice as fast, or half.
pub(super) fn pace(model: &mut Model, faster: bool) {
    let before = model.speed;
    model.speed = if faster { before * 2.0 } else { before / 2.0 }.clamp(SPEEDS.0, SPEEDS.1);
    let (now, speed) = (model.clock, model.speed);
    if let Some(past) = &mut model.past
        && let Some(play) = &mut past.play
    {
        let gap = past.stops.gap(past.at);
        play.due = due(now, gap, speed).map_or(play.due, |soon| soon.min(play.due.max(now)));
    }
    say(model, Told::plain(format!("a run is played at {}", rate(model.speed))));
}

/// A speed as people read it.
pub fn rate(speed: f64) -> String {
    format!("{}x", (speed * 1_000.0).round() / 1_000.0)
}

/// Moves on by all moments that are due; one that is passed over at once is not read.
pub(super) fn tick(model: &mut Model) -> Vec<Effect> {
    let (now, speed) = (model.clock, model.speed);
    let Some(mut past) = model.past.take() else { return Vec::new() };
    let before = past.at;
    while let Some(play) = past.play.filter(|play| play.due <= now && past.at + 1 < past.stops.len()) {
        past.at += 1;
        past.play = due(play.due, past.stops.gap(past.at), speed).map(|due| Play { due });
    }
    if past.at == before {
        model.past = Some(past);
        return Vec::new();
    }
    go(model, past)
}

/// Starts what was to be played as soon as it is read.
pub(super) fn begin(model: &mut Model) -> Vec<Effect> {
    if model.slot.detail().is_none_or(|detail| detail.stops.is_empty()) {
        return Vec::new();
    }
    match model.to_play.take() {
        Some(speed) => play(model, Some(speed)),
        None => Vec::new(),
    }
}

/// What the timeline's cursor was moved to is the moment that is shown.
pub(super) fn follow_cursor(model: &mut Model, before: Option<u64>) -> Vec<Effect> {
    let after = model.panes.timeline.scrubbed();
    if model.pane() != View::Timeline || after == before {
        return Vec::new();
    }
    match after {
        Some(seq) => event(model, seq),
        None => now(model),
    }
}

/// The moment that a title should tell, where the past is looked at.
pub fn banner(model: &Model) -> Option<String> {
    let past = model.past.as_ref()?;
    let stop: Stop = past.shown.as_ref().and_then(|detail| detail.past()).or_else(|| past.stop())?;
    let playing = past.play.map(|_| format!(" PLAYING {}", rate(model.speed))).unwrap_or_default();
    Some(format!("{stop}{playing}"))
}
