//! Taking the terminal and giving it back, once, however the program ends.

use std::fs::File;
use std::io::{self, IsTerminal, Write};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::ThreadId;

use crossterm::terminal::{disable_raw_mode, enable_raw_mode};

use super::modes;

/// Whether the terminal is ours now. One process has one terminal, and a panic hook has no other way to know.
static TAKEN: AtomicBool = AtomicBool::new(false);

/// The terminal while the console has it. Dropping it gives it back.
#[derive(Debug)]
pub struct Terminal {
    mouse: bool,
}

impl Terminal {
    /// Takes the terminal: raw mode, alternate screen, bracketed paste, and the mouse if wanted.
    ///
    /// # Errors
    /// What the terminal answers; it is given back then.
    pub fn take(mouse: bool) -> io::Result<Self> {
        let terminal = Terminal { mouse };
        terminal.enter()?;
        Ok(terminal)
    }

    /// Takes it again after [`Terminal::give_back`] (a suspend that was ended).
    ///
    /// # Errors
    /// What the terminal answers.
    pub fn enter(&self) -> io::Result<()> {
        TAKEN.store(true, Ordering::SeqCst);
        enable_raw_mode()?;
        modes::enter(&mut output()?, self.mouse)
    }

    /// Takes or releases the mouse.
    ///
    /// # Errors
    /// What the terminal answers.
    pub fn set_mouse(&mut self, on: bool) -> io::Result<()> {
        self.mouse = on;
        let mut out = output()?;
        out.write_all(modes::mouse(on).as_bytes())?;
        out.flush()
    }

    /// Gives the terminal back; a second call does nothing. A terminal that is gone is no error: there is
    /// nobody left to tell.
    pub fn give_back() {
        if TAKEN.swap(false, Ordering::SeqCst) {
            if let Ok(mut out) = output() {
                let _ = modes::leave(&mut out);
            }
            let _ = disable_raw_mode();
        }
    }

    /// Whether somebody still sits at the other end.
    pub fn alive() -> bool {
        io::stdin().is_terminal() && io::stdout().is_terminal()
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        Self::give_back();
    }
}

/// The terminal's own file: what is written to it arrives in one piece, where the standard library's
/// stdout would cut it into lines.
///
/// # Errors
/// Where stdout cannot be had a second time.
pub fn output() -> io::Result<File> {
    #[cfg(unix)]
    {
        use std::os::fd::AsFd;
        Ok(File::from(io::stdout().as_fd().try_clone_to_owned()?))
    }
    #[cfg(windows)]
    {
        use std::os::windows::io::AsHandle;
        Ok(File::from(io::stdout().as_handle().try_clone_to_owned()?))
    }
}

/// Makes a panic of the thread `ui` give the terminal back before it is reported. A panic of any other
/// thread (a build) goes to the log alone: whoever started the thread turns it into a failed run, and the
/// screen stays.
pub fn install_panic_hook(ui: ThreadId) {
    let previous = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        if std::thread::current().id() == ui {
            Terminal::give_back();
            previous(panic);
        } else if TAKEN.load(Ordering::SeqCst) {
            tracing::error!("a background thread panicked: {panic}");
        } else {
            previous(panic);
        }
    }));
}
