//! Where in a run's past the console stands, and how fast it moves there.

use std::sync::Arc;

use crate::console::data::detail::Detail;
use crate::console::scrub::{Stop, Stops};
use crate::time::Instant;

/// A run's past that is being looked at. What is live goes on meanwhile and shows when the past is left.
#[derive(Debug, Clone)]
pub struct Past {
    /// The run.
    pub run_key: String,
    /// The moments that there are, as known when it was last moved.
    pub stops: Stops,
    /// The place among them that is wanted.
    pub at: usize,
    /// What was known at the moment that was read last; none until the first is read.
    pub shown: Option<Arc<Detail>>,
    /// How it moves by itself; none where it stands.
    pub play: Option<Play>,
}

/// A run being played.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Play {
    /// When the next moment is due.
    pub due: Instant,
}

impl Past {
    /// The moment that is wanted.
    pub fn stop(&self) -> Option<Stop> {
        self.stops.get(self.at)
    }
}

/// Slowest and fastest that a run is played, in times of its own speed.
pub const SPEEDS: (f64, f64) = (0.05, 1_000.0);

/// Reads a speed, like `2` or `0.5`.
///
/// # Errors
/// What is expected.
pub fn speed(text: &str) -> Result<f64, String> {
    let speed: f64 = text.parse().map_err(|_| "expected a number, like 2 or 0.5".to_owned())?;
    if (SPEEDS.0..=SPEEDS.1).contains(&speed) { Ok(speed) } else { Err(format!("expected a number from {} to {}", SPEEDS.0, SPEEDS.1)) }
}
