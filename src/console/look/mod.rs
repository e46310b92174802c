//! How things look: roles that a theme gives styles to, and the glyphs that are drawn. A pane never names a
//! colour; a state is always a word and a glyph besides its colour.

mod glyphs;
mod theme;

pub use glyphs::Glyphs;
pub use theme::{Role, Theme, ThemeError};

use ratatui::style::Style;

/// Theme and glyphs together: all that a pane needs to draw.
#[derive(Debug, Clone)]
pub struct Look {
    /// Styles by role.
    pub theme: Theme,
    /// Characters by meaning.
    pub glyphs: &'static Glyphs,
}

impl Look {
    /// The same look for what may be old: nothing in it looks good or alive.
    #[must_use]
    pub fn doubtful(&self) -> Self {
        Look { theme: self.theme.clone().doubtful(), glyphs: self.glyphs }
    }

    /// The style of a role.
    pub fn style(&self, role: Role) -> Style {
        self.theme.style(role)
    }
}
