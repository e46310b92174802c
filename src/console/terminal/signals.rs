//! Signals, turned into messages.

/// A signal that ends the console.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stop {
    /// The line was hung up.
    Hup,
    /// Asked to stop from outside.
    Int,
    /// Asked to end.
    Term,
}

impl Stop {
    /// Its name, as the ledger records it.
    pub fn name(self) -> &'static str {
        match self {
            Stop::Hup => "HUP",
            Stop::Int => "INT",
            Stop::Term => "TERM",
        }
    }

    /// The exit code that says so.
    pub fn exit(self) -> u8 {
        match self {
            Stop::Hup => 129,
            Stop::Int => 130,
            Stop::Term => 143,
        }
    }
}

/// What a signal asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Signal {
    /// To end.
    Stop(Stop),
    /// To stop for a while.
    Suspend,
    /// To go on after a stop.
    Continue,
}

/// Tells every signal to `told`, from a thread of its own, until that says no.
///
/// # Errors
/// Where no thread or no handler can be had.
#[cfg(unix)]
pub fn listen(mut told: impl FnMut(Signal) -> bool + Send + 'static) -> std::io::Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
    let kind = |signal: rustix::process::Signal| SignalKind::from_raw(signal.as_raw());
    let entered = runtime.enter();
    let (mut hup, mut int, mut term) = (signal(SignalKind::hangup())?, signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    let mut quit = signal(SignalKind::quit())?;
    let (mut tstp, mut cont) = (signal(kind(rustix::process::Signal::TSTP))?, signal(kind(rustix::process::Signal::CONT))?);
    drop(entered);
    let wait = move || {
        runtime.block_on(async move {
            loop {
                let signal = tokio::select! {
                    _ = hup.recv() => Signal::Stop(Stop::Hup),
                    _ = int.recv() => Signal::Stop(Stop::Int),
                    _ = term.recv() => Signal::Stop(Stop::Term),
                    _ = quit.recv() => Signal::Stop(Stop::Term),
                    _ = tstp.recv() => Signal::Suspend,
                    _ = cont.recv() => Signal::Continue,
                };
                if !told(signal) {
                    return;
                }
            }
        });
    };
    std::thread::Builder::new().name("signals".into()).spawn(wait).map(drop)
}

/// Tells an interrupt to `told`.
///
/// # Errors
/// Where no thread can be had.
#[cfg(not(unix))]
pub fn listen(mut told: impl FnMut(Signal) -> bool + Send + 'static) -> std::io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
    let wait = move || {
        runtime.block_on(async move { while tokio::signal::ctrl_c().await.is_ok() && told(Signal::Stop(Stop::Int)) {} });
    };
    std::thread::Builder::new().name("signals".into()).spawn(wait).map(drop)
}

/// Stops this process until it is told to go on. The terminal must have been given back. Not with the
/// catchable stop signal: that one is thrown away where no shell waits for us.
#[cfg(unix)]
pub fn suspend() {
    let _ = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::STOP);
}

/// There is no stopping here.
#[cfg(not(unix))]
pub fn suspend() {}
