//! The terminal itself: what is switched on and off again, how frames are written, what signals and panics do.
//! One table of modes serves start, exit, panic, signal, suspend and resume, so none can forget one.

mod guard;
mod modes;
mod screen;
mod signals;

pub use guard::{Terminal, install_panic_hook, output};
pub use modes::{MODES, Mode};
pub use screen::{Screen, Traffic};
pub use signals::{Signal, Stop, listen, suspend};
