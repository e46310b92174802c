//! Several processes at once: one intent, one meaning, workers and operators mixed; owners that are killed or
//! stopped anywhere and wake when another one has taken over.

use std::collections::BTreeMap;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::{FLIGHTS_RUN, Kills, Output, Workspace, outcome, signal, small, thorough, wait_for};

const TRAIN: &str = "nycflights13.train.2013-01-01.2013-01-02";

/// What an undisturbed build of [`small`] publishes.
fn wanted() -> BTreeMap<String, Vec<u8>> {
    let w = small();
    w.build("train");
    w.published(FLIGHTS_RUN)
}

fn start(w: &Workspace, args: &[&str], fault: Option<&str>) -> Child {
    let mut command = w.command(args);
    if let Some(fault) = fault {
        command.env("OFS_FAULT", fault);
    }
    command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

fn run_args(w: &Workspace, intent: &str) -> Vec<String> {
    vec!["run".into(), w.path(&format!("intents/{intent}.json")).to_str().unwrap().into(), "--json".into()]
}

fn start_run(w: &Workspace, intent: &str, fault: Option<&str>) -> Child {
    let args = run_args(w, intent);
    start(w, &args.iter().map(String::as_str).collect::<Vec<_>>(), fault)
}

/// How a command answered, in one word: its outcome, else its status, else its code.
fn answer(output: &Output) -> String {
    let document = output.json();
    let text = |pointer: &str| document.pointer(pointer).and_then(Value::as_str).map(str::to_owned);
    let word = text("/outcome").or_else(|| text("/reason/code")).or_else(|| text("/code")).or_else(|| text("/status"));
    word.unwrap_or_else(|| panic!("{document}"))
}

fn tally(outputs: &[Output]) -> BTreeMap<String, usize> {
    let mut tally = BTreeMap::new();
    for output in outputs {
        *tally.entry(answer(output)).or_default() += 1;
    }
    tally
}

/// No run failed, every chain holds, and what is published is what an undisturbed build publishes.
fn settled(w: &Workspace, wanted: &BTreeMap<String, Vec<u8>>) {
    for run in w.ofs(&["runs", "--json"]).expect(0).json()["runs"].as_array().unwrap() {
        assert_eq!(run["status"], "DONE", "{run}");
        w.events(run["request_id"].as_str().unwrap());
    }
    assert_eq!(&w.published(FLIGHTS_RUN), wanted);
    assert!(w.tree(&format!("store/{FLIGHTS_RUN}/ofs/staging")).is_empty());
}

#[test]
fn of_sixteen_processes_with_one_intent_one_publishes() {
    let (w, wanted) = (small(), wanted());
    let children: Vec<Child> = (0..16).map(|_| start_run(&w, "train", None)).collect();
    let outputs: Vec<Output> = children.into_iter().map(outcome).collect();
    let tally = tally(&outputs);
    println!("{tally:?}");
    assert_eq!(tally.get("NEW"), Some(&1), "{tally:?}");
    for output in &outputs {
        let lawful = match answer(output).as_str() {
            "NEW" | "DUPLICATE" | "ALREADY_PUBLISHED" => output.code == 0,
            "RUN_BUSY" => output.code == 5,
            _ => false,
        };
        assert!(lawful, "{} {} {}", output.code, output.out, output.err);
    }
    settled(&w, &wanted);
}

#[test]
fn of_sixteen_requests_of_one_meaning_one_publishes() {
    let (w, wanted) = (small(), wanted());
    for i in 0..16 {
        w.intent(&format!("same{i}"), "train", |intent| intent["request_id"] = json!(format!("same.meaning.{i:02}")));
    }
    let children: Vec<Child> = (0..16).map(|i| start_run(&w, &format!("same{i}"), None)).collect();
    let outputs: Vec<Output> = children.into_iter().map(|child| outcome(child).expect(0)).collect();
    let tally = tally(&outputs);
    println!("{tally:?}");
    assert_eq!((tally.get("NEW"), tally.get("ALREADY_PUBLISHED")), (Some(&1), Some(&15)), "{tally:?}");
    settled(&w, &wanted);
}

#[test]
fn workers_runs_and_retries_that_race_publish_once() {
    let (w, wanted) = (small(), wanted());
    let mut children = Vec::new();
    for i in 0..6 {
        w.intent(&format!("same{i}"), "train", |intent| intent["request_id"] = json!(format!("same.meaning.{i:02}")));
    }
    for i in 0..6 {
        w.ofs(&["submit", w.path(&format!("intents/same{i}.json")).to_str().unwrap(), "--json"]).expect(0);
    }
    for i in 0..6 {
        children.push(("worker", start(&w, &["worker", "--once", "--json"], None)));
        children.push(("run", start_run(&w, &format!("same{i}"), None)));
        children.push(("run", start_run(&w, "train", None)));
        children.push(("retry", start(&w, &["retry", &format!("same.meaning.{i:02}"), "--json"], None)));
        children.push(("resume", start(&w, &["resume", &format!("same.meaning.{i:02}"), "--json"], None)));
    }
    let mut tally: BTreeMap<String, usize> = BTreeMap::new();
    for (what, child) in children {
        let output = outcome(child);
        if what == "worker" {
            for one in output.clone().expect(0).json()["processed"].as_array().unwrap() {
                assert!(matches!(one["status"].as_str(), Some("DONE" | "ALREADY_DONE")), "{one}");
            }
            continue;
        }
        let word = answer(&output);
        let lawful = match (what, word.as_str()) {
            (_, "NEW" | "DUPLICATE" | "ALREADY_PUBLISHED") => output.code == 0,
            (_, "RUN_BUSY") => output.code == 5,
            // Nothing was pending, or nothing was left to go on with.
            ("retry", "RETRY_NOT_PENDING") | ("resume", "INVALID_TRANSITION") => output.code == 3,
            _ => false,
        };
        assert!(lawful, "{what}: {} {} {}", output.code, output.out, output.err);
        *tally.entry(word).or_default() += 1;
    }
    println!("{tally:?}");
    // Whoever found a run busy finds it done now; one pass of a worker leaves nothing to do.
    w.ofs(&["worker", "--once", "--json"]).expect(0);
    w.run("train").expect(0);
    let outcomes: Vec<Value> = w.ofs(&["runs", "--json"]).expect(0).json()["runs"].as_array().unwrap().clone();
    assert_eq!(outcomes.len(), 7);
    let news = outcomes.iter().filter(|run| {
        let done = w.events(run["request_id"].as_str().unwrap()).into_iter().rfind(|e| e["event_type"] == "RUN_DONE").unwrap();
        done["detail"]["outcome"] == "NEW"
    });
    assert_eq!(news.count(), 1);
    settled(&w, &wanted);
}

/// Everything that the ledger says of a run, and all that lies in the store but for unfinished work.
fn world(w: &Workspace) -> (Vec<Value>, Value, BTreeMap<String, Vec<u8>>) {
    let mut store = w.tree(&format!("store/{FLIGHTS_RUN}/ofs"));
    store.retain(|name, _| !name.starts_with("staging/"));
    let mut row = w.row(TRAIN);
    row.as_object_mut().unwrap().remove("as_of_utc");
    (w.events(TRAIN), row, store)
}

/// The state of a process as the system shows it, like `T` for a stopped one.
fn state(child: &Child) -> Option<char> {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", child.id())).ok()?;
    stat.rsplit_once(')')?.1.trim_start().chars().next()
}

/// Stops an owner at an operation, lets another one take over and finish, and wakes the first: whether there
/// was such an operation.
fn stopped_at(fault: &str, wanted: &BTreeMap<String, Vec<u8>>) -> bool {
    let w = small();
    w.write("ofs.toml", "[launcher]\nlease_seconds = 1\n");
    let mut owner = start_run(&w, "train", Some(fault));
    let mut ended = false;
    wait_for("the owner to stop", Duration::from_secs(60), || {
        ended = owner.try_wait().unwrap().is_some();
        ended || state(&owner) == Some('T')
    });
    if ended {
        assert_eq!(outcome(owner).expect(0).json()["status"], "DONE");
        return false;
    }
    // Nothing on record: the owner stopped before it had begun, and the other one is simply first.
    let mut taken = w.run("train");
    wait_for("the lease to end", Duration::from_secs(60), || {
        if taken.code == 5 {
            taken = w.run("train");
        }
        taken.code != 5
    });
    if taken.code == 1 && taken.err.contains("kept it locked") {
        // Its heartbeat was stopped amid a transaction: nobody can take over, and it goes on as if nothing was.
        signal(&owner, "CONT");
        let done = outcome(owner);
        assert!(done.code == 0 && &w.published(FLIGHTS_RUN) == wanted, "{fault}: {} {}", done.out, done.err);
        return true;
    }
    assert_eq!(taken.expect(0).json()["status"], "DONE", "{fault}");
    assert_eq!(&w.published(FLIGHTS_RUN), wanted, "{fault}");
    let before = world(&w);
    signal(&owner, "CONT");
    let woken = outcome(owner);
    assert!(matches!(woken.code, 0 | 5), "{fault}: {} {} {}", woken.code, woken.out, woken.err);
    assert_eq!(world(&w), before, "{fault}: the woken owner changed something: {} {}", woken.out, woken.err);
    true
}

/// Every `step`-th operation of a kind, from `first` on.
fn every_stop(site: &str, first: usize, step: usize) -> usize {
    let wanted = wanted();
    let points = (0..).map(|i| first + i * step);
    points.take_while(|at| stopped_at(&format!("stop@{site}:{at}"), &wanted)).count()
}

#[test]
fn an_owner_stopped_at_any_ledger_write_changes_nothing_when_it_wakes() {
    println!("{} stops at ledger writes", every_stop("ledger.write", 1, 1));
}

#[test]
fn an_owner_stopped_at_store_operations_changes_nothing_when_it_wakes() {
    println!("{} stops at store operations", every_stop("store", 1, if thorough() { 1 } else { 4 }));
}

/// Lets a killed run come to its end with a documented command, by turns; never anything wrong on the way.
fn complete(w: &Workspace, turn: usize, wanted: &BTreeMap<String, Vec<u8>>, case: &str) {
    let seen = w.published(FLIGHTS_RUN);
    let manifest = seen.keys().any(|name| name.starts_with("manifests"));
    assert!(seen.iter().all(|(name, bytes)| wanted.get(name) == Some(bytes)), "{case}: {:?}", seen.keys());
    assert!(!manifest || &seen == wanted, "{case}: a manifest whose data is not all there");
    let known = w.path("state/ledger.db").exists() && w.ofs(&["show", TRAIN, "--json"]).code == 0;
    let row = known.then(|| w.row(TRAIN));
    let done = row.as_ref().is_some_and(|row| row["status"] == "DONE");
    if let Some(row) = row.filter(|row| row["status"] == "RUNNING") {
        assert_eq!((&row["stuck"], &row["stuck_reason"]), (&json!(true), &json!("LEASE_EXPIRED")), "{case}: a dead owner is seen at once");
    }
    let output = if known && !done && turn.is_multiple_of(2) { w.ofs(&["resume", TRAIN, "--json"]) } else { w.run("train") };
    assert_eq!(output.expect(0).json()["status"], "DONE", "{case}");
    assert_eq!(&w.published(FLIGHTS_RUN), wanted, "{case}");
    w.events(TRAIN);
}

#[test]
fn the_program_killed_at_named_points_is_recovered() {
    let wanted = wanted();
    let mut points = 0;
    for (site, step) in [("kill@ledger.write", 1), ("kill-after@ledger.write", 1), ("kill@store", 5), ("kill-after@store", 7)] {
        for at in (1..).step_by(if thorough() { 1 } else { step }) {
            let w = small();
            let fault = format!("{site}:{at}");
            let killed = outcome(start_run(&w, "train", Some(&fault)));
            if killed.code == 0 {
                break;
            }
            // No exit code: a signal ended it.
            assert_eq!(killed.code, -1, "{fault}: {}", killed.err);
            complete(&w, at, &wanted, &fault);
            points += 1;
        }
    }
    println!("{points} named points");
}

#[test]
fn the_program_killed_at_random_instants_is_recovered() {
    let wanted = wanted();
    let kills = if thorough() { 200 } else { 40 };
    let timed = small();
    let began = Instant::now();
    timed.build("train");
    let mut random = Kills::new(20_130_101, began.elapsed());
    for turn in 1.. {
        if random.met() == kills {
            println!("{kills} of {turn} random kills met a living process");
            break;
        }
        let w = small();
        random.kill(start_run(&w, "train", None));
        complete(&w, turn, &wanted, &format!("kill {turn}"));
    }
}

#[test]
fn a_worker_killed_mid_build_is_stuck_at_once_and_the_next_one_completes_it() {
    let (w, wanted) = (small(), wanted());
    w.ofs(&["submit", w.path("intents/train.json").to_str().unwrap(), "--json"]).expect(0);
    // Dies with the replay passed and the labels begun.
    let killed = outcome(start(&w, &["worker", "--json"], Some("kill@ledger.write:19")));
    assert_eq!(killed.code, -1);
    let stuck = w.ofs(&["runs", "--stuck", "--json"]).expect(0).json();
    assert_eq!((&stuck["runs"][0]["stuck_reason"], &stuck["workers_alive"]), (&json!("LEASE_EXPIRED"), &json!(0)));
    let doctor = w.ofs(&["doctor"]).expect(0).out;
    let next = format!("RUNNING and stuck; next: ofs resume {}", stuck["runs"][0]["run_key"].as_str().unwrap());
    assert!(doctor.lines().any(|line| line.contains("staging") && line.contains(&next)), "{doctor}");
    let processed = w.ofs(&["worker", "--once", "--json"]).expect(0).json();
    assert_eq!(processed["processed"][0]["status"], "DONE", "{processed}");
    settled(&w, &wanted);
}
