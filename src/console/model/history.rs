//! Where the console was.

use std::fmt;

use super::View;
use crate::console::filter::Filter;

/// A place: a view, the selected run, and what narrowed the list.
#[derive(Debug, Clone)]
pub struct Spot {
    /// The view.
    pub view: View,
    /// The pane of the dashboard that had the keys.
    pub focus: View,
    /// What narrowed the list of runs.
    pub filter: Filter,
    /// The selected run.
    pub run: Option<String>,
}

impl fmt::Display for Spot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.view.name())?;
        if let Some(run) = &self.run {
            write!(f, " > {}", run.get(..8).unwrap_or(run))?;
        }
        if !self.filter.is_empty() {
            write!(f, "  /{}", self.filter)?;
        }
        Ok(())
    }
}

/// The way so far.
#[derive(Debug, Clone)]
pub struct History {
    /// Where it stands, as of the last step.
    pub here: Spot,
    /// Places before it, the latest last.
    pub back: Vec<Spot>,
    /// Places that were gone back from, the latest last.
    pub forward: Vec<Spot>,
    /// The run was jumped to, not walked to.
    pub jumped: bool,
}

impl Default for History {
    fn default() -> Self {
        let here = Spot { view: View::Dashboard, focus: View::Runs, filter: Filter::default(), run: None };
        History { here, back: Vec::new(), forward: Vec::new(), jumped: false }
    }
}
