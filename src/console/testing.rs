//! What the console's tests share: a model with runs in every state, keys by name, and a wire that notes what
//! passes.

use std::io::{self, Write};
use std::sync::{Arc, Mutex};

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;

use super::data::detail::Detail;
use super::data::runs::RunsUpdate;
use super::data::testing::World;
use super::keys::{Chord, Keymap};
use super::look::{Glyphs, Look, Theme};
use super::model::{Mode, Model, Start};
use super::msg::{Effect, Msg};
use super::update::update;
use super::view::view;
use crate::ledger::{Limits, Owner, RunLine, Status};
use crate::time::Instant;

/// The time of every test.
pub(crate) const NOW: Instant = Instant(1_770_717_600_000_000);

/// A model of that size that has seen nothing.
pub(crate) fn empty(width: u16, height: u16) -> Model {
    Model::new(start(width, height))
}

/// What such a model starts with.
pub(crate) fn start(width: u16, height: u16) -> Start {
    Start {
        now: NOW,
        size: (width, height),
        look: Look { theme: Theme::named("ansi16").unwrap(), glyphs: Glyphs::UNICODE },
        keys: Keymap::default(),
        limits: Limits { stall_us: 120_000_000, max_pause_us: 3_600_000_000, max_retries: 3 },
        mode: Mode::Operate,
        workspace: "week".into(),
        mouse: false,
    }
}

/// A run that is DONE.
pub(crate) fn line(n: usize) -> RunLine {
    RunLine {
        run_key: format!("{n:08x}{:024x}", n * 7),
        request_id: Some(format!("train-{n}")),
        intent_kind: Some("dataset_build".into()),
        status: Status::Done,
        phase: Some("publication".into()),
        reason_code: None,
        manifest_id: Some(format!("dm_{n:032x}")),
        full_run_attempts: 1,
        publish_retry_attempts: 0,
        retries_granted: 0,
        commit_started: false,
        owner: None,
        owner_gone: false,
        lease_expires: None,
        progress: None,
        last_progress: None,
        paused_since: None,
        asked: false,
        updated: NOW.plus_micros(-(i64::try_from(n).unwrap() + 1) * 60_000_000 - 5_000_000),
        last_seq: 9,
    }
}

/// One run in every state that the list tells apart, the newest first.
pub(crate) fn one_of_each() -> Vec<RunLine> {
    let owner = || Some(Owner { host: "node-1".into(), pid: 4242, started: "1".into() });
    let held = Some(NOW.plus_micros(10_000_000));
    let running = RunLine {
        status: Status::Running,
        phase: Some("replay".into()),
        owner: owner(),
        lease_expires: held,
        manifest_id: None,
        ..line(0)
    };
    vec![
        RunLine { progress: Some((730, 1_000)), last_progress: Some(NOW.plus_micros(-2_000_000)), ..running.clone() },
        RunLine {
            run_key: line(1).run_key,
            request_id: Some("paused-1".into()),
            paused_since: Some(NOW.plus_micros(-1_000_000)),
            ..running.clone()
        },
        RunLine {
            lease_expires: Some(NOW),
            updated: line(2).updated,
            request_id: Some("stuck-2".into()),
            run_key: line(2).run_key,
            ..running
        },
        RunLine {
            status: Status::Failed,
            reason_code: Some("REPLAY_BASIS_GAP".into()),
            phase: Some("replay".into()),
            manifest_id: None,
            ..line(3)
        },
        RunLine { status: Status::PublishPending, reason_code: Some("COMMIT_FAILED".into()), ..line(4) },
        RunLine { status: Status::Queued, phase: None, full_run_attempts: 0, manifest_id: None, updated: NOW, ..line(5) },
        line(6),
        RunLine { status: Status::Cancelled, reason_code: Some("CANCELLED_BY_OPERATOR".into()), ..line(7) },
        RunLine { status: Status::Rejected, reason_code: Some("SCHEMA_INVALID".into()), request_id: None, phase: None, ..line(8) },
    ]
}

/// A model of that size with these runs.
pub(crate) fn with(width: u16, height: u16, lines: Vec<RunLine>) -> Model {
    let mut model = empty(width, height);
    update(&mut model, Msg::Runs(RunsUpdate { lines, complete: true, workers: 1 }));
    model
}

/// Presses keys, given by name and parted by spaces; the effects.
pub(crate) fn press(model: &mut Model, keys: &str) -> Vec<Effect> {
    let chords = keys.split_whitespace().map(|key| Chord::parse(key).unwrap_or_else(|| panic!("no key {key}")));
    chords.flat_map(|chord| update(model, Msg::Key(chord))).collect()
}

/// Types a text, a key a character.
pub(crate) fn write(model: &mut Model, text: &str) -> Vec<Effect> {
    let key = |c: char| Chord::parse(&if c == ' ' { "space".to_owned() } else { c.to_string() }).unwrap();
    text.chars().flat_map(|c| update(model, Msg::Key(key(c)))).collect()
}

/// What is known of the newest run that a scenario left behind, with every clock in it stopped, so that a screen
/// of it is the same every time.
pub(crate) fn detail(scenario: &str, run_key: &str) -> Arc<Detail> {
    let world = World::play(scenario);
    let (source, row, _) = world.newest();
    let mut detail = Detail::load(&source, &row.run_key).unwrap();
    (detail.run_key, detail.as_of) = (run_key.to_owned(), NOW);
    detail.triage.deeds.clear();
    detail.triage.updated = NOW.plus_micros(-300_000_000);
    for (index, event) in (0..).zip(&mut detail.timeline.events) {
        event.since_first = index * 1_500_000;
        event.at = NOW.plus_micros(event.since_first - 400_000_000);
        event.detail = format!("{{\"phase\":{:?}}}", event.phase);
    }
    for (index, sample) in (0u32..).zip(&mut detail.timeline.samples) {
        (sample.at, sample.done, sample.total) = (NOW.plus_micros(i64::from(index) * 4_000_000 - 400_000_000), u64::from(index) * 10, 100);
    }
    // Documents hold instants, so their sizes and digests are their own.
    for (index, document) in (0u64..).zip(&mut detail.evidence.documents) {
        document.bytes = Some(1_000 + index * 111);
    }
    Arc::new(detail)
}

/// A model of that size in which the failed run of [`one_of_each`] is selected, with what is known of it.
pub(crate) fn failed(width: u16, height: u16, detail: &Arc<Detail>) -> Model {
    // At a size at which keys are obeyed; the size that is wanted comes then.
    let mut model = with(200, 50, one_of_each());
    while model.selected().map(|line| line.run_key.as_str()) != Some(&detail.run_key) {
        press(&mut model, "j");
    }
    update(&mut model, Msg::Detail { run_key: detail.run_key.clone(), found: Ok(detail.clone()) });
    update(&mut model, Msg::Resize(width, height));
    model
}

/// The screen.
pub(crate) fn screen(model: &Model) -> Buffer {
    let mut buf = Buffer::empty(Rect::new(0, 0, model.size.0, model.size.1));
    view(model, &mut buf);
    buf
}

/// A wire that notes each write.
#[derive(Debug, Clone, Default)]
pub(crate) struct Wire(pub(crate) Arc<Mutex<Vec<Vec<u8>>>>);

impl Wire {
    /// What was written since it was last asked.
    pub(crate) fn take(&self) -> Vec<Vec<u8>> {
        std::mem::take(&mut self.0.lock().unwrap())
    }
}

impl Write for Wire {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().push(bytes.to_vec());
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
