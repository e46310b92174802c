//! A stored run played to its end on a driver: what `--play` does in the console, without a terminal, into a
//! recording. Time is the driver's own, so that nothing waits and the same record makes the same recording.

use std::io::Write;
use std::time::Duration;

use super::data::runs::RunsUpdate;
use super::demo::{Pace, ShowError};
use super::driver::{Caption, Driver};
use super::filter::Filter;
use super::model::View;
use super::msg::{Feed, Msg};
use super::update::{self, past};
use crate::ledger::RunLine;

/// How long the last moment stays.
const END: Duration = Duration::from_secs(3);

/// Plays a run from its first moment to its last, `speed` times as fast as it went. How many moments it has;
/// none where nothing is on record that could be played.
///
/// # Errors
/// What the terminal or the recording answers; whoever watches left.
pub fn play<W: Write>(
    driver: &mut Driver<W>,
    pace: &mut dyn Pace<W>,
    line: RunLine,
    view: Option<View>,
    speed: f64,
) -> Result<usize, ShowError> {
    driver.feed(Msg::Feed(Feed::Live));
    update::open(driver.model_mut(), view, Some(line.run_key.clone()), Filter::default());
    driver.model_mut().to_play = Some(speed);
    let run = line.run_key.get(..8).unwrap_or(&line.run_key).to_owned();
    driver.feed(Msg::Runs(RunsUpdate { lines: vec![line], complete: true, workers: 0 }));
    let Some(moments) = driver.model().past.as_ref().map(|past| past.stops.len()) else { return Ok(0) };
    loop {
        driver.say(caption(driver, &run));
        let Some(play) = driver.model().past.as_ref().and_then(|past| past.play) else { break };
        let wait = play.due.0.saturating_sub(driver.model().clock.0);
        pace.hold(driver, Duration::from_micros(u64::try_from(wait).unwrap_or(0)))?;
        driver.feed(Msg::Clock(play.due));
    }
    pace.hold(driver, END)?;
    Ok(moments)
}

/// What happened at the moment that is shown.
fn caption<W: Write>(driver: &Driver<W>, run: &str) -> Caption {
    let model = driver.model();
    let Some(past) = &model.past else { return Caption::default() };
    let moment = past.shown.as_ref().and_then(|detail| detail.moment.as_ref());
    let text = moment.map(|moment| match (&moment.event, moment.units) {
        (Some(event), _) => {
            [Some(event.as_str()), moment.phase.as_deref(), moment.reason.as_deref()].into_iter().flatten().collect::<Vec<_>>().join("  ")
        }
        (None, (done, total)) => format!("{}  {done} of {total}", moment.phase.as_deref().unwrap_or("progress")),
    });
    Caption {
        title: format!("run {run}  {}/{}", past.at + 1, past.stops.len()),
        text: text.unwrap_or_default(),
        hint: format!("played from the ledger's record at {}; nothing is built", past::rate(model.speed)),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::console::cast::Cast;
    use crate::console::data::detail::Detail;
    use crate::console::data::testing::World;
    use crate::console::demo::Recorded;
    use crate::console::driver::Mask;
    use crate::console::testing::start;

    fn recorded(world: &World, speed: f64) -> (usize, Cast) {
        let source = world.source();
        let line = source.ledger.newest_lines(1).unwrap().remove(0);
        let cast = Cast::new(120, 44, "a run");
        let load = Box::new(move |run_key: &str, stop: Option<&_>| -> Result<Arc<Detail>, String> { Detail::read(&source, run_key, stop) });
        let start = crate::console::model::Start { now: line.updated, ..start(120, 44) };
        let mut driver = Driver::new(start, cast.clone(), false, Mask::default(), load);
        let moments = play(&mut driver, &mut Recorded::new(cast.clone(), 1.0), line, None, speed).unwrap();
        (moments, cast)
    }

    #[test]
    fn a_stored_run_is_played_into_the_same_recording_every_time_and_faster_is_shorter() {
        let world = World::play("archive-gap");
        let (moments, cast) = recorded(&world, 1.0);
        assert!(moments > 5);
        let text = cast.text();
        let mut vt = vt100::Parser::new(44.try_into().unwrap(), 120.try_into().unwrap(), 0);
        let screens: Vec<String> = text
            .lines()
            .skip(1)
            .map(|line| {
                let event: serde_json::Value = serde_json::from_str(line).unwrap();
                vt.process(event[2].as_str().unwrap().as_bytes());
                vt.screen().contents()
            })
            .collect();
        for shown in ["QUEUED", "RUNNING", "REPLAY_INCOMPLETE", "AS OF #1 ", "PLAYING 1x", "RUN_FAILED"] {
            assert!(screens.iter().any(|screen| screen.contains(shown)), "{shown}");
        }
        assert_eq!(recorded(&world, 1.0).1.text(), text);
        let (run, fast) = (cast.micros() - 3_000_000, recorded(&world, 10.0).1.micros() - 3_000_000);
        assert!((fast * 10).abs_diff(run) < 1_000, "{fast} {run}");
    }
}
