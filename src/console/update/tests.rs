//! Keys and modes, as tables: what a key does where.

use super::*;
use crate::answer::Line;
use crate::console::data::inquiry::{Answer, Question};
use crate::console::model::Mode;
use crate::console::model::popup::Popup;
use crate::console::msg::{Heard, Order};
use crate::console::testing::*;
use crate::ledger::RunLine;

fn model() -> Model {
    with(80, 24, one_of_each())
}

fn selected(model: &Model) -> String {
    model.selected().and_then(|line| line.request_id.clone()).unwrap_or_else(|| "-".into())
}

fn on(request: &str) -> Model {
    let mut model = model();
    while selected(&model) != request {
        press(&mut model, "j");
    }
    model
}

fn flash(model: &Model) -> &str {
    model.flash.as_ref().map(|(told, _)| told.text.as_str()).unwrap_or_default()
}

#[test]
fn every_key_of_the_table_goes_where_it_says() {
    for (keys, view, focus) in [
        ("1", View::Runs, View::Runs),
        ("2", View::Replay, View::Replay),
        ("3", View::Labels, View::Labels),
        ("4", View::Pins, View::Pins),
        ("5", View::Timeline, View::Runs),
        ("6", View::Evidence, View::Runs),
        ("7", View::Log, View::Runs),
        ("2 0", View::Dashboard, View::Runs),
        ("2 -", View::Dashboard, View::Replay),
        ("2 3 -", View::Replay, View::Replay),
        ("t", View::Triage, View::Runs),
        ("enter", View::Triage, View::Runs),
        ("l", View::Triage, View::Runs),
        ("enter esc", View::Dashboard, View::Runs),
        ("2 3 esc", View::Replay, View::Replay),
        ("2 3 esc esc", View::Dashboard, View::Replay),
        ("2 3 q", View::Replay, View::Replay),
        ("tab", View::Dashboard, View::Replay),
        ("tab tab tab tab", View::Dashboard, View::Runs),
        ("backtab", View::Dashboard, View::Pins),
        ("1 tab", View::Replay, View::Replay),
        ("z", View::Runs, View::Runs),
        ("z z", View::Dashboard, View::Runs),
        ("tab z", View::Replay, View::Replay),
        // Walking in circles leaves one way back.
        ("1 2 1 2 1 2 esc esc esc", View::Dashboard, View::Runs),
    ] {
        let mut model = model();
        press(&mut model, keys);
        assert_eq!((model.view, model.focus), (view, focus), "{keys}");
        assert!(model.popups.is_empty(), "{keys}");
    }
}

#[test]
fn the_selection_moves_and_follows_its_run() {
    let mut model = with(80, 24, (0..100).map(line).collect());
    for (keys, at) in [
        ("j", 1),
        ("k k", 0),
        ("G", 99),
        ("g", 0),
        ("down", 1),
        ("up", 0),
        ("end", 99),
        ("home", 0),
        ("pagedown", 18),
        ("ctrl-d", 27),
        ("ctrl-u", 18),
        ("pageup", 0),
    ] {
        press(&mut model, keys);
        assert_eq!(selected(&model), format!("train-{at}"), "{keys}");
    }
    press(&mut model, "j j j");
    // A new run comes in on top; the selected one is the same run, one row further down.
    update(&mut model, Msg::Runs(RunsUpdate { lines: vec![RunLine { updated: NOW, ..line(500) }], complete: true, workers: 1 }));
    assert_eq!(selected(&model), "train-3");
    press(&mut model, "s s o");
    assert_eq!(selected(&model), "train-3");
}

#[test]
fn a_selected_run_is_read_once_and_again_when_it_moves() {
    let mut model = empty(80, 24);
    let lines = one_of_each();
    let key = lines[5].run_key.clone();
    let load = || Effect::Load(key.clone());
    let all = |lines| Msg::Runs(RunsUpdate { lines, complete: true, workers: 1 });
    assert_eq!(update(&mut model, all(lines.clone())), [load()]);
    assert_eq!(update(&mut model, all(lines.clone())), []);
    // What it is compared with is another one now.
    assert_eq!(update(&mut model, Msg::Authority), [load()]);
    let moved = RunLine { last_seq: 10, ..lines[5].clone() };
    assert_eq!(update(&mut model, all(vec![moved])).len(), 1);
    assert_eq!(press(&mut model, "j").len(), 1);
    assert_eq!(press(&mut model, "r").len(), 2);
}

#[test]
fn a_filter_is_typed_live_kept_by_enter_and_given_up_by_escape() {
    let mut model = model();
    press(&mut model, "/");
    write(&mut model, "state=failed");
    assert_eq!((selected(&model).as_str(), model.panes.runs.rows().len()), ("train-3", 1));
    press(&mut model, "esc");
    assert_eq!(model.panes.runs.rows().len(), 9);
    press(&mut model, "/");
    write(&mut model, "age>x");
    press(&mut model, "enter");
    assert!(matches!(model.popups.last(), Some(Popup::Filter { problem: Some(_), .. })));
    press(&mut model, "ctrl-u");
    write(&mut model, "stuck=true");
    press(&mut model, "enter");
    assert_eq!((selected(&model).as_str(), model.popups.len()), ("stuck-2", 0));
    // Esc takes the filter away before it takes the view away.
    press(&mut model, "1 esc");
    assert_eq!((model.view, model.panes.runs.rows().len()), (View::Runs, 9));
}

#[test]
fn what_a_state_forbids_is_refused_with_the_reason() {
    for (request, key, why) in [
        ("train-6", "X", "the run is DONE; legal now: note, bundle"),
        ("train-6", "R", "the run is DONE"),
        ("train-0", "R", "the run is RUNNING; legal now: cancel, fail, note, bundle"),
        ("train-3", "P", "the run is FAILED"),
    ] {
        let mut model = on(request);
        assert_eq!(press(&mut model, key), [], "{request} {key}");
        assert!(flash(&model).contains(why) && model.popups.is_empty(), "{request} {key}: {}", flash(&model));
    }
}

#[test]
fn orders_ask_first_and_the_answer_is_no_unless_it_is_yes() {
    for (request, key, command) in [("stuck-2", "R", "ofs resume"), ("train-4", "P", "ofs retry")] {
        let mut model = on(request);
        for no in ["n", "enter", "esc", "q", "ctrl-c"] {
            press(&mut model, key);
            assert!(matches!(model.popups.last(), Some(Popup::Confirm(confirm)) if confirm.lines.iter().any(|l| l.contains(command))));
            assert_eq!(press(&mut model, no), [], "{key} {no}");
            assert!(model.popups.is_empty(), "{key} {no}");
            model.interrupted = None;
        }
        for yes in ["y", "tab enter", "right enter"] {
            press(&mut model, key);
            assert!(matches!(press(&mut model, yes)[..], [Effect::Operate { .. }]), "{key} {yes}");
        }
    }
}

#[test]
fn what_cannot_be_undone_wants_a_reason_and_the_run_key() {
    for (key, order) in
        [("X", Order::Cancel { reason: "no longer wanted".into() }), ("K", Order::Fail { reason: "no longer wanted".into() })]
    {
        let mut model = on("stuck-2");
        let run_key = model.selected().unwrap().run_key.clone();
        press(&mut model, key);
        assert_eq!(press(&mut model, "enter"), []);
        write(&mut model, "no longer wanted");
        assert_eq!(press(&mut model, "enter enter"), [], "the run key was not typed");
        write(&mut model, "deadbeef");
        assert_eq!(press(&mut model, "enter"), []);
        assert!(matches!(model.popups.last(), Some(Popup::Ask(ask)) if ask.problem.is_some()));
        press(&mut model, "ctrl-u");
        write(&mut model, &run_key[..8]);
        assert_eq!(press(&mut model, "enter"), [Effect::Operate { run_key, order }]);
        assert!(model.popups.is_empty());
    }
    let mut model = on("train-6");
    press(&mut model, "O");
    write(&mut model, "look here");
    assert!(matches!(press(&mut model, "enter")[..], [Effect::Operate { order: Order::Note { .. }, .. }]));
}

#[test]
fn a_spent_budget_is_renewed_with_a_reason() {
    let spent = RunLine { publish_retry_attempts: 3, ..one_of_each()[4].clone() };
    let mut model = with(80, 24, vec![spent]);
    press(&mut model, "P");
    write(&mut model, "store is back");
    let effects = press(&mut model, "enter");
    let [Effect::Operate { order, run_key }] = &effects[..] else { panic!("{effects:?}") };
    assert_eq!(order.command(run_key), format!("ofs retry {run_key} --grant 1 --reason 'store is back'"));
}

#[test]
fn read_only_has_no_writes_anywhere() {
    let mut model = model();
    model.mode = Mode::ReadOnly("--read-only".into());
    for key in ["R", "P", "X", "K", "O", "W", "b"] {
        assert_eq!(press(&mut model, key), [], "{key}");
        assert!(model.popups.is_empty() && flash(&model).contains("read-only"), "{key}");
    }
    press(&mut model, ":");
    write(&mut model, "run intents/train.json");
    assert_eq!(press(&mut model, "enter"), []);
    let text = crate::console::view::text(&model);
    assert!(text.contains("READ-ONLY"), "{text}");
    press(&mut model, "?");
    assert!(!crate::console::view::text(&model).contains("call the run off"));
}

#[test]
fn the_palette_finds_actions_and_runs_and_says_why_not() {
    let mut model = on("train-6");
    press(&mut model, ":");
    write(&mut model, "cancel");
    let Some(Popup::Palette(palette)) = model.popups.last() else { panic!() };
    assert_eq!((palette.hits[0].name.as_str(), palette.hits[0].enabled), ("cancel", false));
    assert!(palette.hits[0].about.contains("legal now"));
    press(&mut model, "ctrl-u");
    write(&mut model, "paused-1");
    press(&mut model, "enter");
    assert_eq!((selected(&model).as_str(), model.popups.len()), ("paused-1", 0));
    press(&mut model, ":");
    write(&mut model, "labels");
    press(&mut model, "enter");
    assert_eq!(model.view, View::Labels);
    press(&mut model, ":");
    write(&mut model, "export md out.md");
    let effects = press(&mut model, "enter");
    assert!(matches!(&effects[..], [Effect::Write { path, .. }] if path.ends_with("out.md")), "{effects:?}");
    for bad in ["export", "export xml x", "export csv ", "run ", "filter age>x"] {
        press(&mut model, ":");
        write(&mut model, bad);
        assert_eq!(press(&mut model, "enter").len(), 0, "{bad}");
        model.popups.clear();
    }
}

#[test]
fn export_holds_what_is_shown_in_its_order() {
    let mut model = model();
    press(&mut model, ":");
    write(&mut model, "filter state=done");
    press(&mut model, "enter :");
    write(&mut model, "export csv x.csv");
    let effects = press(&mut model, "enter");
    let [Effect::Write { content, what, .. }] = &effects[..] else { panic!("{effects:?}") };
    assert_eq!((content.lines().count(), what.as_str()), (2, "1 rows of runs"));
    assert!(content.contains("train-6") && content.starts_with("state,age,run_key"), "{content}");
}

#[test]
fn ctrl_c_calls_off_what_is_open_and_twice_within_a_second_leaves() {
    let mut model = model();
    press(&mut model, "X");
    model.popups.clear();
    press(&mut model, ":");
    assert_eq!(press(&mut model, "ctrl-c"), []);
    assert!(model.popups.is_empty());
    assert_eq!(press(&mut model, "ctrl-c"), [Effect::Leave(130)]);
    update(&mut model, Msg::Clock(NOW.plus_micros(1_000_001)));
    model.interrupted = Some(NOW);
    assert_eq!(press(&mut model, "ctrl-c"), []);
    assert!(flash(&model).contains("again"));
}

#[test]
fn quitting_is_one_step_at_a_time_and_escape_never_leaves() {
    let mut model = model();
    assert_eq!(press(&mut model, "2 q"), []);
    assert_eq!(press(&mut model, "esc esc esc"), []);
    assert_eq!(press(&mut model, "q"), [Effect::Leave(0)]);
    press(&mut model, "?");
    assert_eq!(press(&mut model, "q"), []);
    assert!(model.popups.is_empty());
}

#[test]
fn a_frozen_screen_stands_still_and_catches_up() {
    let mut model = model();
    press(&mut model, "F");
    let before = screen(&model);
    let newer = RunLine { updated: NOW, ..line(77) };
    update(&mut model, Msg::Runs(RunsUpdate { lines: vec![newer], complete: true, workers: 1 }));
    update(&mut model, Msg::Clock(NOW.plus_micros(30_000_000)));
    assert_eq!(screen(&model), before);
    assert!(crate::console::view::text(&model).contains("FROZEN"));
    press(&mut model, "F");
    assert_eq!((model.runs.len(), model.now), (10, NOW.plus_micros(30_000_000)));
}

#[test]
fn too_small_still_leaves() {
    let mut model = with(59, 15, one_of_each());
    assert_eq!(press(&mut model, "X j :"), []);
    assert!(model.popups.is_empty());
    assert_eq!(press(&mut model, "q"), [Effect::Leave(0)]);
}

#[test]
fn pasted_text_is_never_taken_for_keys() {
    let mut model = model();
    assert_eq!(update(&mut model, Msg::Paste("X\nq\ny".into())), []);
    assert!(flash(&model).contains("5 pasted bytes were left out") && model.popups.is_empty());
    press(&mut model, "/");
    update(&mut model, Msg::Paste("state=failed\n".into()));
    assert_eq!(model.panes.runs.rows().len(), 1);
    update(&mut model, Msg::Paste("x".repeat(1 << 20)));
    assert!(flash(&model).contains("left out"));
}

#[test]
fn a_deep_link_waits_for_its_run() {
    let mut model = empty(80, 24);
    open(&mut model, Some(View::Labels), Some("stuck-2".into()), Filter::parse("state=running").unwrap());
    let lines = one_of_each();
    update(&mut model, Msg::Runs(RunsUpdate { lines: lines[..1].to_vec(), complete: false, workers: 0 }));
    update(&mut model, Msg::Runs(RunsUpdate { lines, complete: true, workers: 0 }));
    assert_eq!((selected(&model).as_str(), model.view), ("stuck-2", View::Labels));
    assert_eq!(press(&mut model, "esc esc q"), [Effect::Leave(0)]);
    let mut lost = empty(80, 24);
    open(&mut lost, None, Some("nobody".into()), Filter::default());
    update(&mut lost, Msg::Runs(RunsUpdate { lines: one_of_each(), complete: true, workers: 0 }));
    assert!(flash(&lost).contains("no run is nobody"));
}

#[test]
fn the_clock_wakes_only_for_what_it_changes() {
    let idle = with(80, 24, vec![line(0)]);
    // The age of the one run is 65 seconds: it turns over at 120.
    assert_eq!(next_turn(&idle), Some(NOW.plus_micros(55_000_000)));
    let busy = with(80, 24, one_of_each());
    assert_eq!(next_turn(&busy), Some(NOW.plus_micros(1_000_000)));
    let mut elsewhere = with(80, 24, one_of_each());
    press(&mut elsewhere, "4");
    assert_eq!(next_turn(&elsewhere), None);
    assert_eq!(next_turn(&empty(80, 24)), None);
}

#[test]
fn ten_thousand_random_keys_break_nothing() {
    let names: Vec<String> = crate::console::action::TABLE.iter().flat_map(|e| e.keys.iter().map(|k| (*k).to_owned())).collect();
    let typed = ["a", "9", "=", "space", "backspace", "enter", "y", "n", "tab", "é", "漢"].map(str::to_owned);
    let keys: Vec<String> = names.into_iter().chain(typed).collect();
    let mut state = 0x9e37_79b9_u64;
    let mut model = model();
    for n in 0..10_000 {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let key = &keys[usize::try_from(state >> 33).unwrap() % keys.len()];
        press(&mut model, key);
        if n % 97 == 0 {
            let size = [(80, 24), (200, 50), (60, 16), (1, 1), (120, 40)][n % 5];
            update(&mut model, Msg::Resize(size.0, size.1));
        }
        if n % 11 == 0 {
            screen(&model);
        }
        assert!(model.popups.len() <= 2, "{:?}", model.popups);
    }
}

#[test]
fn a_form_becomes_an_intent_and_nothing_typed_is_lost_to_a_refusal() {
    let mut model = model();
    assert_eq!(press(&mut model, "b"), vec![Effect::FindIntents]);
    press(&mut model, "n");
    press(&mut model, "tab y e s");
    assert_eq!(press(&mut model, "enter"), Vec::new());
    let problem = |model: &Model| match model.popups.last() {
        Some(Popup::Form(form)) => form.problem.clone().unwrap_or_default(),
        other => panic!("{other:?}"),
    };
    assert!(problem(&model).starts_with("from: "), "{}", problem(&model));
    press(&mut model, "ctrl-u tab tab a @ v 1");
    let effects = press(&mut model, "enter");
    let [Effect::NewIntent { path, selectors }] = effects.as_slice() else { panic!("{effects:?}") };
    assert_eq!((path.to_str(), selectors.features.as_deref(), selectors.from), (Some("intents/new.json"), Some("a@v1"), None));
    // While the answer is out, another Enter hands nothing in.
    assert_eq!(press(&mut model, "enter"), Vec::new());
    update(&mut model, Msg::Formed(Err("FEATURE_PROFILE_UNRESOLVED: no a@v1".into())));
    assert!(problem(&model).contains("FEATURE_PROFILE_UNRESOLVED"));
    assert!(matches!(model.popups.last(), Some(Popup::Form(form)) if form.fields[3].prompt.text() == "a@v1"));
    update(&mut model, Msg::Formed(Ok("intents/new.json".into())));
    assert!(model.popups.is_empty() && flash(&model).contains("intents/new.json is written"), "{}", flash(&model));
}

fn published(n: usize) -> Model {
    with(80, 24, (0..n).map(line).collect())
}

#[test]
fn evidence_is_rechecked_called_off_and_answered_once() {
    let mut model = published(3);
    let (run_key, manifest) = (line(0).run_key, line(0).manifest_id);
    let question = Question::Recheck { run_key, manifest };
    assert_eq!(press(&mut model, "6 r"), [Effect::Inquire { id: 1, question: question.clone() }]);
    update(&mut model, Msg::Inquiry { id: 1, heard: Heard::Progress(3, 9) });
    let text = crate::console::view::text(&model);
    assert!(text.contains("RUNNING  3 of 9") && text.contains("ofs verify dm_"), "{text}");
    // Nothing but calling it off, or asking for its command line, while it goes on.
    assert_eq!(press(&mut model, "j enter X y"), []);
    assert!(matches!(&press(&mut model, "c")[..], [Effect::Copy { text, .. }] if text.starts_with("ofs verify dm_")));
    assert_eq!(press(&mut model, "esc"), [Effect::CallOff(1)]);
    assert!(model.popups.is_empty());
    let heard = |id| Msg::Inquiry { id, heard: Heard::Answer(Box::new(Answer::unknown("nobody asked"))) };
    update(&mut model, heard(1));
    assert!(model.popups.is_empty());
    // An answer under another number is not this question's.
    assert_eq!(press(&mut model, "r"), [Effect::Inquire { id: 2, question }]);
    update(&mut model, heard(1));
    assert!(crate::console::view::text(&model).contains("RUNNING"));
    update(&mut model, heard(2));
    assert!(crate::console::view::text(&model).contains("UNKNOWN  nobody asked"));
    assert_eq!(press(&mut model, "q"), []);
    assert!(model.popups.is_empty() && model.view == View::Evidence);
    // Elsewhere the same key reads again.
    assert!(press(&mut model, "1 r").contains(&Effect::Refresh));
}

#[test]
fn a_row_is_chosen_or_typed_and_explained() {
    let mut model = published(2);
    let manifest = line(0).manifest_id.unwrap();
    assert_eq!(press(&mut model, "e"), [Effect::Offer(manifest.clone())]);
    let rows = |names: &[&str]| Ok(names.iter().map(|name| ((*name).to_owned(), "key K".to_owned())).collect());
    update(&mut model, Msg::Offered { manifest: "dm_other".into(), rows: rows(&["wrong"]) });
    update(&mut model, Msg::Offered { manifest: manifest.clone(), rows: rows(&["one", "two", "three"]) });
    assert!(!crate::console::view::text(&model).contains("wrong"));
    let explain =
        |id, event: &str| Effect::Inquire { id, question: Question::Explain { manifest: manifest.clone(), event_id: event.into() } };
    assert_eq!(press(&mut model, "down enter"), [explain(1, "two")]);
    model.popups.clear();
    press(&mut model, "e");
    write(&mut model, "typed");
    assert_eq!(press(&mut model, "enter"), [explain(2, "typed")]);
    // From a contributing event one goes on to its own row.
    let lines = vec![Line::plain("feature"), Line::plain("  + before").about("before", 0)];
    update(&mut model, Msg::Inquiry { id: 2, heard: Heard::Answer(Box::new(Answer { lines, evidence: None })) });
    assert_eq!(press(&mut model, "enter"), []);
    assert_eq!(press(&mut model, "j enter"), [explain(3, "before")]);
    press(&mut model, "esc");
    assert!(matches!(model.popups.last(), Some(Popup::Inquiry(inquiry)) if inquiry.id == 2));
    press(&mut model, "esc");
    assert_eq!(press(&mut model, "e enter"), [Effect::Offer(manifest)]);
    assert!(matches!(model.popups.last(), Some(Popup::Choose(choose)) if choose.problem.is_some()));
    press(&mut model, "esc");
    let mut failed = on("train-3");
    assert_eq!(press(&mut failed, "e"), []);
    assert!(flash(&failed).contains("no data set"), "{}", flash(&failed));
    // A run that published nothing is compared by its pins.
    press(&mut failed, "d");
    write(&mut failed, "train-6");
    let (left, right) = (line(6).run_key, line(3).run_key);
    assert_eq!(press(&mut failed, "enter"), [Effect::Inquire { id: 1, question: Question::Pins { left, right } }]);
}

#[test]
fn data_sets_are_compared_with_a_marked_or_a_chosen_one() {
    let mut model = published(4);
    let id = |n| line(n).manifest_id.unwrap();
    let diff = |number, left: &str, right: &str| Effect::Inquire {
        id: number,
        question: Question::Diff { left: left.into(), right: right.into() },
    };
    press(&mut model, "d");
    let Some(Popup::Choose(choose)) = model.popups.last() else { panic!() };
    assert_eq!(choose.offers.as_ref().unwrap().iter().map(|o| o.0.clone()).collect::<Vec<_>>(), [id(1), id(2), id(3)]);
    write(&mut model, "train-2");
    assert_eq!(press(&mut model, "enter"), [diff(1, &id(2), &id(0))]);
    model.popups.clear();
    press(&mut model, "j j j space k k k");
    assert_eq!(press(&mut model, "d"), [diff(2, &id(3), &id(0))]);
    // A row that only the other one has is explained there.
    let lines = vec![Line::plain("- gone").about("gone", 0), Line::plain("+ new").about("new", 1)];
    update(&mut model, Msg::Inquiry { id: 2, heard: Heard::Answer(Box::new(Answer { lines, evidence: None })) });
    let explained = |effects: Vec<Effect>| match &effects[..] {
        [Effect::Inquire { question: Question::Explain { manifest, event_id }, .. }] => (manifest.clone(), event_id.clone()),
        other => panic!("{other:?}"),
    };
    assert_eq!(explained(press(&mut model, "enter")), (id(3), "gone".into()));
    press(&mut model, "esc");
    assert_eq!(explained(press(&mut model, "j enter")), (id(0), "new".into()));
}

#[test]
fn the_report_is_asked_for_the_runs_platform_run_from_key_and_palette() {
    let mut model = published(1);
    let report = |id, run_key| Effect::Inquire { id, question: Question::Report { run_key } };
    assert_eq!(press(&mut model, "m"), [report(1, Some(line(0).run_key))]);
    press(&mut model, "esc :");
    write(&mut model, "report");
    assert_eq!(press(&mut model, "enter"), [report(2, Some(line(0).run_key))]);
    // Views keep their numbers.
    assert_eq!(View::PANES.len(), 7);
    let mut nothing = empty(80, 24);
    assert_eq!(press(&mut nothing, "m"), [report(1, None)]);
    nothing.mode = Mode::ReadOnly("--read-only".into());
    assert!(why_not(&nothing, Action::Report).is_none());
}

#[test]
fn themes_and_columns_change_while_one_looks() {
    let mut model = model();
    let command = |model: &mut Model, text: &str| {
        press(model, ":");
        write(model, text);
        press(model, "enter")
    };
    assert_eq!(command(&mut model, "theme light"), [Effect::Repaint]);
    assert_eq!(model.look.theme.name, "light");
    assert_eq!(command(&mut model, "theme neon"), []);
    assert!(flash(&model).contains("ansi16, dark, light") && model.look.theme.name == "light", "{}", flash(&model));
    command(&mut model, "columns reason,state,request");
    let head = |model: &Model| crate::console::view::text(model).lines().nth(3).unwrap().split_whitespace().collect::<Vec<_>>().join(" ");
    assert_eq!(head(&model), "│ REASON STATE REQUEST │");
    let text = crate::console::view::text(&model);
    assert!(text.contains("REPLAY_BASIS_GAP") && text.contains("train-3"), "{text}");
    command(&mut model, "columns colour");
    assert!(flash(&model).contains("no column is called colour") && head(&model).contains("REASON STATE"), "{}", flash(&model));
    command(&mut model, "columns all");
    assert!(head(&model).contains("STATE AGE"), "{}", head(&model));
}

fn marked(keys: &str) -> Model {
    let mut model = model();
    press(&mut model, keys);
    model
}

#[test]
fn marks_stay_with_their_runs_are_counted_and_taken_away_by_escape() {
    let mut model = marked("space j space j j space");
    let keys = model.panes.runs.marked().clone();
    assert_eq!(keys.len(), 3);
    assert!(crate::console::view::text(&model).contains("3 marked"), "{}", crate::console::view::text(&model));
    update(&mut model, Msg::Runs(RunsUpdate { lines: vec![RunLine { updated: NOW, ..line(500) }], complete: true, workers: 1 }));
    press(&mut model, "s o");
    assert_eq!(model.panes.runs.marked(), &keys);
    // The same key takes a mark away; Esc takes the filter first, then the marks, then the view.
    press(&mut model, "space space 1 /");
    write(&mut model, "state=failed");
    press(&mut model, "enter");
    assert_eq!((model.marked().len(), model.panes.runs.hidden(&model.runs)), (3, 3));
    press(&mut model, "esc");
    assert_eq!((model.marked().len(), model.panes.runs.hidden(&model.runs)), (3, 0));
    press(&mut model, "esc");
    assert_eq!((model.marked().len(), model.view), (0, View::Runs));
    press(&mut model, "esc");
    assert_eq!(model.view, View::Dashboard);
}

#[test]
fn an_order_for_marked_runs_asks_once_with_their_number_and_first_keys() {
    // QUEUED, RUNNING, PAUSED, stuck, FAILED, pending, DONE, CANCELLED, REJECTED.
    let all = "space j space j space j space j space j space j space j space j space";
    for (key, words, expected, able) in [("X", true, Some("cancel 9"), 5), ("K", true, Some("fail 9"), 5), ("O", true, None, 9)] {
        let mut model = marked(all);
        press(&mut model, key);
        let Some(Popup::Ask(ask)) = model.popups.last() else { panic!("{key} asked nothing") };
        assert!(ask.whom().starts_with("9 marked runs: ") && ask.whom().ends_with(" and 5 more"), "{}", ask.whom());
        assert_eq!(ask.stood, format!("{able} allow it"), "{key}");
        if words {
            write(&mut model, "because");
        }
        let mut sent = press(&mut model, "enter");
        if let Some(expected) = expected {
            // One run's key does not stand for nine.
            assert_eq!(sent, []);
            write(&mut model, "00000000");
            assert_eq!(press(&mut model, "enter"), [], "{key}");
            press(&mut model, "ctrl-u");
            write(&mut model, expected);
            sent = press(&mut model, "enter");
        }
        assert!(matches!(&sent[..], [Effect::OperateAll { run_keys, .. }] if run_keys.len() == 9), "{key}: {sent:?}");
    }
    for (key, command) in [("R", "ofs resume KEY  for each"), ("P", "ofs retry KEY  for each")] {
        let mut model = marked(all);
        press(&mut model, key);
        assert!(matches!(model.popups.last(), Some(Popup::Confirm(confirm)) if confirm.lines.iter().any(|l| l == command)), "{key}");
        assert_eq!(press(&mut model, "enter"), [], "the answer is no unless it is yes");
        press(&mut model, key);
        assert!(matches!(&press(&mut model, "y")[..], [Effect::OperateAll { run_keys, .. }] if run_keys.len() == 9), "{key}");
    }
    let mut model = marked(all);
    assert_eq!(press(&mut model, "W"), []);
    assert!(flash(&model).contains("of one run"), "{}", flash(&model));
    assert!(matches!(&press(&mut model, "y")[..], [Effect::Copy { what, text }] if what == "9 run keys" && text.lines().count() == 9));
}

#[test]
fn marks_that_allow_nothing_are_refused_and_mean_nothing_outside_the_list() {
    let mut model = on("train-6");
    press(&mut model, "space");
    assert_eq!(press(&mut model, "X"), []);
    assert!(flash(&model).contains("none of the 1 marked runs allows it"), "{}", flash(&model));
    // In triage the run that is shown is meant, and no other.
    press(&mut model, "k t P");
    assert!(matches!(model.popups.last(), Some(Popup::Confirm(confirm)) if confirm.title == "Retry the publication?"));
}

#[test]
fn the_way_through_views_runs_and_filters_leads_back_and_forward() {
    let mut model = model();
    let place = |model: &Model| (model.view, selected(model), model.panes.runs.filter().to_string());
    let start = place(&model);
    assert_eq!(press(&mut model, "H"), []);
    assert!(flash(&model).contains("this is where it began"), "{}", flash(&model));
    // Moving along the rows is no step; a view, a filter and a run that is jumped to are.
    press(&mut model, "j j 1");
    let moved = (start.0, selected(&model), start.2.clone());
    press(&mut model, "/");
    write(&mut model, "state=failed");
    press(&mut model, "enter");
    let filtered = place(&model);
    press(&mut model, "t :");
    write(&mut model, "train-6");
    press(&mut model, "down down enter");
    let mut way = vec![place(&model)];
    while !model.history.back.is_empty() {
        press(&mut model, "H");
        way.push(place(&model));
    }
    assert_eq!(way.last(), Some(&moved));
    assert!(way.contains(&filtered), "{way:?}");
    press(&mut model, ":");
    write(&mut model, "history-on");
    assert!(crate::console::view::text(&model).contains("on to runs > "), "{}", crate::console::view::text(&model));
    press(&mut model, "esc");
    for expected in way.iter().rev().skip(1) {
        press(&mut model, "L");
        assert_eq!(&place(&model), expected);
    }
    assert_eq!(press(&mut model, "L"), []);
    assert!(flash(&model).contains("nothing was gone back from"));
    // A new step forgets what was gone back from.
    press(&mut model, "H 4");
    assert!(model.history.forward.is_empty());
}

#[test]
fn earlier_commands_are_taken_up_again() {
    let mut model = model();
    for command in ["filter age<2h", "pins"] {
        press(&mut model, ":");
        write(&mut model, command);
        press(&mut model, "enter");
    }
    press(&mut model, ":");
    let typed = |model: &Model| match model.popups.last() {
        Some(Popup::Palette(palette)) => palette.prompt.text().to_owned(),
        _ => "closed".into(),
    };
    for (key, text) in [("up", "pins"), ("up", "filter age<2h"), ("up", "filter age<2h"), ("down", "pins"), ("down", ""), ("down", "")] {
        press(&mut model, key);
        assert_eq!(typed(&model), text, "{key}");
    }
    // Further down it is the hits that are chosen from, and up leads back to them first.
    press(&mut model, "up");
    assert_eq!(typed(&model), "");
    press(&mut model, "up up enter");
    assert!(model.popups.is_empty(), "{:?}", model.popups.len());
}
