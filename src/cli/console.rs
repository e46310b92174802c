//! `ofs`, `ofs console`: the terminal console.

use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::{Context, Failure, Outcome};
use crate::config::Config;
use crate::console::app::{self, Setup};
use crate::console::cast::Cast;
use crate::console::data::Source;
use crate::console::data::detail::Detail;
use crate::console::data::log::Ring;
use crate::console::demo::Recorded;
use crate::console::driver::{Driver, Mask, STRIP};
use crate::console::effects::{Clipboard, Effects, World};
use crate::console::filter::Filter;
use crate::console::keys::{Keymap, KeysError};
use crate::console::look::{Glyphs, Look, Theme};
use crate::console::model::past::speed;
use crate::console::model::{Mode, Model, Start, View};
use crate::console::msg::{Msg, Told};
use crate::console::panes::runs::RunsPane;
use crate::console::playback::play;
use crate::console::terminal::install_panic_hook;
use crate::console::update::open;
use crate::ledger::{LedgerError, Limits};
use crate::store::Store;
use crate::time::{FixedClock, Instant};

/// Arguments of `ofs console`.
#[derive(Debug, Default, clap::Args)]
pub(super) struct Args {
    /// Only look: actions that change something do not exist.
    #[arg(long)]
    read_only: bool,
    /// Select this run: key, a unique beginning of it, or the request id.
    #[arg(long, value_name = "K")]
    run: Option<String>,
    /// Start with this view: dashboard, runs, replay, labels, pins, timeline, evidence, log, triage.
    #[arg(long, value_name = "NAME")]
    view: Option<String>,
    /// Narrow the rows: terms parted by spaces, like `state=FAILED age<2h`.
    #[arg(long, value_name = "EXPR")]
    filter: Option<String>,
    /// Leave the last screen behind as text when the console is left.
    #[arg(long)]
    print_on_exit: bool,
    /// Play the run's past from the ledger's record, this many times as fast as it went, like 4 or 0.5: `p` or
    /// Space pauses, `>` and `<` change the speed, `[` and `]` step, Esc goes back to now.
    #[arg(long, value_name = "SPEED", requires = "run", value_parser = speed)]
    play: Option<f64>,
    /// Write what is played as a recording (asciinema v2) into this new file, without a terminal; stretches in
    /// which nothing happened last three seconds at most.
    #[arg(long, value_name = "FILE", requires = "play")]
    record: Option<PathBuf>,
    /// Hide the names of host and user in the recording.
    #[arg(long, requires = "record")]
    mask: bool,
}

impl From<KeysError> for Failure {
    fn from(error: KeysError) -> Self {
        ill_set(error.to_string()).hint("`ofs keys` lists every action with its keys")
    }
}

/// A setting that the console cannot use.
fn ill_set(message: String) -> Failure {
    Failure { code: Some(crate::contract::ReasonCode::ConfigInvalid), ..Failure::usage(message) }
}

/// The keys as configured.
pub(super) fn keymap(config: &Config) -> Result<Keymap, Failure> {
    Ok(Keymap::new(&config.table("console", "keys"))?)
}

/// The colour theme as configured.
pub(super) fn theme(config: &Config) -> Result<Theme, Failure> {
    Theme::named(config.text("console", "theme")).map_err(|e| ill_set(e.to_string()))
}

/// The list of runs with its columns as configured.
pub(super) fn runs_pane(config: &Config) -> Result<RunsPane, Failure> {
    let mut pane = RunsPane::default();
    let names = config.list("console", "columns");
    pane.choose(&names.iter().map(String::as_str).collect::<Vec<_>>()).map_err(|e| ill_set(format!("console.columns: {e}")))?;
    Ok(pane)
}

pub(super) fn run(context: &Context, args: &Args) -> Outcome {
    if context.json {
        return Err(Failure::usage("the console has no --json").hint("`ofs runs --json` prints the ledger"));
    }
    let view = args.view.as_deref().map(named).transpose()?;
    if let (Some(run), Some(speed), Some(file)) = (&args.run, args.play, &args.record) {
        return record(context, run, view, speed, file, args.mask);
    }
    let environment = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    let term = environment("TERM").unwrap_or_default();
    if !std::io::stdin().is_terminal() || !std::io::stdout().is_terminal() || term == "dumb" {
        let why = if term == "dumb" { "TERM is dumb" } else { "stdin and stdout have to be terminals" };
        return Err(Failure::usage(format!("the console needs a terminal: {why}"))
            .hint("`ofs runs` lists the ledger, `ofs show K` explains a run, `ofs events K --follow` follows one"));
    }
    let filter = Filter::parse(args.filter.as_deref().unwrap_or_default()).map_err(|e| Failure::usage(e.to_string()))?;
    let config = &context.config;
    let keys = keymap(config)?;
    let look = look(config, &term, &environment)?;
    let mode = mode(config, args.read_only);
    let ring = Ring::new(context.clock.clone());
    let (outbox, inbox) = app::channel();
    let (_log, notice) = log(config, &mode, &environment, &ring, &outbox);

    let may_write = mode == Mode::Operate;
    let mouse = config.flag("console", "mouse");
    let start =
        Start { now: context.clock.now(), size: (80, 24), look, keys, limits: limits(config), mode, workspace: workspace(config), mouse };
    let mut model = Model::new(start);
    model.panes.runs = runs_pane(config)?;
    open(&mut model, view, args.run.clone(), filter);
    model.to_play = args.play;
    model.flash = notice.map(|told| (told, context.clock.now()));

    // Colours are the theme's own business: the library's switch would take weight and reverse away, too.
    crossterm::style::force_color_output(true);
    install_panic_hook(std::thread::current().id());
    let ssh = environment("SSH_CONNECTION").is_some() || environment("SSH_TTY").is_some();
    let frame_rate = frame_rate(config, ssh);
    let world = World { config: config.clone(), clock: context.clock.clone(), actor: context.actor(), may_write, log: ring, frame_rate };
    let effects = Effects::start(world, outbox.clone())?;
    let setup = Setup {
        clock: context.clock.clone(),
        frame_rate,
        clipboard: Clipboard::of(config.text("console", "clipboard"), &term, environment("TMUX").is_some()),
        sync: config.text("console", "sync_output") != "off",
        print_on_exit: args.print_on_exit,
    };
    Ok(app::run(model, effects, &inbox, &outbox, setup)?)
}

/// Columns and rows of a recording: the four panes of the dashboard and the caption.
const RECORDED: (u16, u16) = (120, 40 + STRIP);

/// Plays a stored run on a screen that only the recording sees. Everything in it is of the record, the time too.
fn record(context: &Context, run: &str, view: Option<View>, speed: f64, file: &Path, masked: bool) -> Outcome {
    context.may_write(file)?;
    if file.symlink_metadata().is_ok() {
        return Err(Failure::usage(format!("{} is there; nothing was written", file.display())).hint("name a new file"));
    }
    let ledger = context.reader()?.ok_or_else(|| LedgerError::NotFound(run.to_owned()))?;
    let row = context.find_run(&ledger, run)?;
    let line = ledger.changed_lines(Instant(i64::MAX), std::slice::from_ref(&row.run_key))?.pop();
    let line = line.ok_or_else(|| LedgerError::NotFound(row.run_key.clone()))?;
    let store = crate::operate::open::store(&context.config).map(|store| Arc::new(store) as Arc<dyn Store>).map_err(|e| e.message);
    let clock = Arc::new(FixedClock::new(row.updated));
    let source = Source { ledger: Arc::new(ledger), store, config: context.config.clone(), clock, then: None };
    let cast = Cast::new(RECORDED.0, RECORDED.1, &format!("run {}", row.run_key));
    let start = Start {
        now: row.updated,
        size: RECORDED,
        look: Look { theme: Theme::named("ansi16").map_err(|e| Failure::usage(e.to_string()))?, glyphs: Glyphs::UNICODE },
        keys: Keymap::default(),
        limits: limits(&context.config),
        mode: Mode::ReadOnly("a recording".into()),
        workspace: workspace(&context.config),
        mouse: false,
    };
    let mask = if masked { super::demo::mask() } else { Mask::default() };
    // The recording is the same whatever theme the environment asks for.
    crossterm::style::force_color_output(true);
    let load = Box::new(move |run_key: &str, stop: Option<&_>| Detail::read(&source, run_key, stop));
    let mut driver = Driver::new(start, cast.clone(), false, mask, load);
    let moments = play(&mut driver, &mut Recorded::new(cast.clone(), 1.0), line, view, speed)?;
    if moments == 0 {
        return Err(Failure::usage(format!("nothing of run {} can be played", row.run_key)).hint("`ofs events K` shows its record"));
    }
    super::demo::write_new(file, &cast)?;
    super::say(format!("recording  {}  {moments} moments", file.display()));
    Ok(0)
}

fn workspace(config: &Config) -> String {
    config.workspace.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

fn named(name: &str) -> Result<View, Failure> {
    View::named(name).ok_or_else(|| {
        let known: Vec<&str> = [View::Dashboard].into_iter().chain(View::PANES).chain([View::Triage]).map(View::name).collect();
        Failure::usage(format!("no view is called {name}")).hint(format!("one of {}", known.join(", ")))
    })
}

/// Frames a second: ten over SSH, thirty else, unless the setting says otherwise.
fn frame_rate(config: &Config, ssh: bool) -> u32 {
    let set = u32::try_from(config.int("console", "frame_rate")).unwrap_or(10);
    if config.is_default("console", "frame_rate") && !ssh { 30 } else { set }
}

pub(super) fn limits(config: &Config) -> Limits {
    let launcher = config.launcher();
    let micros = |seconds: u64| i64::try_from(seconds.saturating_mul(1_000_000)).unwrap_or(i64::MAX);
    Limits {
        stall_us: micros(launcher.stall_seconds),
        max_pause_us: micros(launcher.max_pause_seconds),
        max_retries: launcher.max_publish_retry_attempts,
    }
}

/// Theme and glyphs. NO_COLOR (not empty) takes every colour away and leaves weight and reverse.
pub(super) fn look(config: &Config, term: &str, environment: &dyn Fn(&str) -> Option<String>) -> Result<Look, Failure> {
    let theme = theme(config)?;
    let colour = environment("NO_COLOR").is_none() && environment("CLICOLOR").as_deref() != Some("0");
    let locale =
        environment("LC_ALL").or_else(|| environment("LC_CTYPE")).or_else(|| environment("LANG")).unwrap_or_default().to_lowercase();
    let utf8 = locale.contains("utf-8") || locale.contains("utf8");
    let ascii = config.flag("console", "ascii") || term == "linux" || !utf8;
    Ok(Look { theme: if colour { theme } else { theme.without_colour() }, glyphs: if ascii { Glyphs::ASCII } else { Glyphs::UNICODE } })
}

/// Only looking, where the user wants that or the ledger cannot be written.
fn mode(config: &Config, wanted: bool) -> Mode {
    let ledger = config.path("ledger");
    if wanted {
        return Mode::ReadOnly("--read-only".into());
    }
    // The nearest thing that is there: the file, or the folder that it would be made in.
    let there = ledger.ancestors().find(|path| path.exists());
    match there {
        Some(path) if !writable(path) => Mode::ReadOnly(format!("{} cannot be written", path.display())),
        _ => Mode::Operate,
    }
}

#[cfg(unix)]
fn writable(path: &std::path::Path) -> bool {
    rustix::fs::access(path, rustix::fs::Access::WRITE_OK).is_ok()
}

#[cfg(not(unix))]
fn writable(path: &std::path::Path) -> bool {
    std::fs::metadata(path).is_ok_and(|data| !data.permissions().readonly())
}

/// Starts the log: in the workspace, else in the user's state folder, else not at all, with a word about it.
fn log(
    config: &Config,
    mode: &Mode,
    environment: &dyn Fn(&str) -> Option<String>,
    ring: &Ring,
    outbox: &crossbeam_channel::Sender<Msg>,
) -> (Option<tracing_appender::non_blocking::WorkerGuard>, Option<Told>) {
    let filter = environment("OFS_LOG");
    let own = environment("XDG_STATE_HOME")
        .map(PathBuf::from)
        .or_else(|| environment("HOME").map(|home| PathBuf::from(home).join(".local/state")))
        .map(|folder| folder.join("ofs"));
    let folders = std::iter::once(config.path("logs")).filter(|_| *mode == Mode::Operate || config.path("logs").is_dir()).chain(own);
    let mut why = "no folder for it".to_owned();
    for folder in folders {
        let told = outbox.clone();
        // On the log's own thread: a screen that has no room for it now is told nothing.
        let fault = move |error: &std::io::Error| {
            // Into the log pane, which needs no file.
            tracing::error!("the log cannot be written, the work goes on: {error}");
            let _ = told.try_send(Msg::Told(Told::bad(format!("the log cannot be written, the work goes on: {error}"))));
        };
        match crate::observe::start_logging_with(&folder, filter.as_deref(), ring.layer(), fault) {
            Ok(guard) => return (Some(guard), None),
            Err(error) => why = error,
        }
    }
    (None, Some(Told::bad(format!("no log is written: {why}"))))
}
