//! Every scenario of `ofs demo`, played to its end: each fails closed with its code, or is lawful and
//! says so, and leaves its inputs byte-identical.

use std::path::Path;
use std::sync::Mutex;

use ofs::operate::play;
use ofs::operate::scenario::{self, Scenario};

/// Plays one scenario in its own workspace; what did not hold, in words.
fn problems(scenario: &Scenario) -> Vec<String> {
    let dir = tempfile::tempdir().unwrap();
    match play::play(scenario, dir.path(), &mut |_| {}) {
        Err(broken) => vec![broken.to_string()],
        Ok(played) => {
            let of_step = |s: &play::StepReport| s.problems.iter().map(|p| format!("{}, step {}: {p}", played.name, s.number)).collect();
            played.steps.iter().flat_map::<Vec<String>, _>(of_step).collect()
        }
    }
}

#[test]
fn every_scenario_ends_as_it_says() {
    let scenarios = scenario::all().unwrap();
    assert!(scenarios.len() >= 60, "{}", scenarios.len());
    let (waiting, found) = (Mutex::new(scenarios.iter()), Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                loop {
                    let Some(scenario) = waiting.lock().unwrap().next() else { return };
                    let problems = problems(scenario);
                    found.lock().unwrap().extend(problems);
                }
            });
        }
    });
    let found = found.into_inner().unwrap();
    assert!(found.is_empty(), "{} problem(s):\n{}", found.len(), found.join("\n"));
}

/// Takes or gives back the right to write, everywhere below a folder.
#[cfg(unix)]
fn protect(path: &Path, locked: bool) {
    use std::os::unix::fs::PermissionsExt;
    let mode = |folder: bool| match (folder, locked) {
        (true, true) => 0o555,
        (true, false) => 0o755,
        (false, true) => 0o444,
        (false, false) => 0o644,
    };
    if path.is_dir() {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).unwrap();
        for entry in std::fs::read_dir(path).unwrap() {
            protect(&entry.unwrap().path(), locked);
        }
    }
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode(path.is_dir()))).unwrap();
}

#[cfg(unix)]
#[test]
fn inputs_that_cannot_be_written_are_enough() {
    const INPUTS: [&str; 5] = ["bus", "labels", "authority", "intents", "store"];
    let scenarios = scenario::all().unwrap();
    for name in ["clean", "late-label"] {
        let scenario = scenarios.iter().find(|s| s.name == name).unwrap();
        let dir = tempfile::tempdir().unwrap();
        let mut player = play::Player::new(scenario, dir.path()).unwrap();
        // Everything but the one folder that is the program's own.
        std::fs::create_dir_all(dir.path().join("store/platform_20130101T000000Z/ofs")).unwrap();
        INPUTS.iter().for_each(|input| protect(&dir.path().join(input), true));
        protect(&dir.path().join("store/platform_20130101T000000Z/ofs"), false);
        while let Some(report) = player.step().unwrap() {
            assert_eq!(report.problems, [""; 0], "{name}, step {}", report.number);
        }
        INPUTS.iter().for_each(|input| protect(&dir.path().join(input), false));
    }
}
