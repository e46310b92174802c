//! Themes: a style for every role, from TOML.

use std::collections::BTreeMap;

use ratatui::style::{Color, Modifier, Style};

macro_rules! roles {
    ($($(#[doc = $doc:literal])* $role:ident = $name:literal,)*) => {
        /// What a piece of the screen means. A theme gives each role a style.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Role { $($(#[doc = $doc])* $role,)* }

        impl Role {
            /// All of them, in the order of their names in a theme file.
            pub const ALL: &'static [Role] = &[$(Role::$role,)*];

            /// Its name in a theme file.
            pub fn name(self) -> &'static str {
                match self { $(Role::$role => $name,)* }
            }
        }
    };
}

roles! {
    /// Plain text.
    Text = "text",
    /// What matters less.
    Dim = "dim",
    /// Title of a pane.
    Title = "title",
    /// Column heads.
    Header = "header",
    /// Frame of a pane.
    Border = "border",
    /// Frame of the pane that has the keys.
    Focus = "focus",
    /// The selected row.
    Selection = "selection",
    /// Proved, done.
    Good = "good",
    /// Refused, failed.
    Bad = "bad",
    /// Needs a look.
    Warn = "warn",
    /// At work.
    Running = "running",
    /// Waits.
    Waiting = "waiting",
    /// Late and lawfully excluded.
    Late = "late",
    /// Unknown or stale.
    Unknown = "unknown",
    /// A key that can be pressed.
    Key = "key",
    /// An action that cannot be undone.
    Danger = "danger",
    /// Numbers, digests, times.
    Value = "value",
    /// A range that the bus served.
    Bus = "bus",
    /// A range that the archive served.
    Archive = "archive",
    /// A range that a sealed segment proved.
    Sealed = "sealed",
    /// A range that nothing served.
    Missing = "missing",
    /// A range in which sources contradict each other.
    Mismatch = "mismatch",
    /// The cut-off of the labels.
    Cutoff = "cutoff",
    /// A banner: read-only, frozen, static, masked.
    Banner = "banner",
}

/// What is wrong with a theme.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ThemeError {
    /// No theme has this name.
    #[error("no theme is called {name}; there are {}", known.join(", "))]
    Unknown {
        /// What was asked for.
        name: String,
        /// What there is.
        known: Vec<&'static str>,
    },
    /// The file is no theme.
    #[error("theme {name}: {problem}")]
    Invalid {
        /// Which.
        name: String,
        /// What is wrong, with the role.
        problem: String,
    },
}

/// A style for every role.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Theme {
    /// Its name.
    pub name: String,
    styles: BTreeMap<Role, Style>,
    /// Its colours were taken away.
    colourless: bool,
}

macro_rules! embedded {
    ($($name:literal),*) => { &[$(($name, include_str!(concat!("../../../themes/", $name, ".toml")))),*] };
}

const EMBEDDED: &[(&str, &str)] = embedded!("ansi16", "dark", "light", "high-contrast", "colour-blind", "mono");

impl Theme {
    /// Names of the themes that the program carries.
    pub fn names() -> Vec<&'static str> {
        EMBEDDED.iter().map(|(name, _)| *name).collect()
    }

    /// The theme of that name.
    ///
    /// # Errors
    /// `Unknown`, naming those there are.
    pub fn named(name: &str) -> Result<Self, ThemeError> {
        let found = EMBEDDED.iter().find(|(known, _)| *known == name);
        let (_, text) = found.ok_or_else(|| ThemeError::Unknown { name: name.to_owned(), known: Self::names() })?;
        Self::parse(name, text)
    }

    /// Reads a theme: one table `[roles]`, a style for every role, like `"red bold"` or `"black on cyan"`.
    ///
    /// # Errors
    /// `Invalid`, naming the role that is missing, unknown or unreadable.
    pub fn parse(name: &str, text: &str) -> Result<Self, ThemeError> {
        let invalid = |problem: String| ThemeError::Invalid { name: name.to_owned(), problem };
        let table: BTreeMap<String, BTreeMap<String, String>> = toml::from_str(text).map_err(|e| invalid(e.message().to_owned()))?;
        if let Some(other) = table.keys().find(|key| *key != "roles") {
            return Err(invalid(format!("unknown table {other}; a theme has one table, roles")));
        }
        let roles = table.get("roles").ok_or_else(|| invalid("the table roles is missing".into()))?;
        if let Some(other) = roles.keys().find(|key| Role::ALL.iter().all(|r| r.name() != key.as_str())) {
            return Err(invalid(format!("unknown role {other}")));
        }
        let styles = Role::ALL.iter().map(|role| {
            let text = roles.get(role.name()).ok_or_else(|| invalid(format!("role {} is missing", role.name())))?;
            let style = parse_style(text).ok_or_else(|| invalid(format!("role {}: {text:?} is no style", role.name())))?;
            Ok((*role, style))
        });
        Ok(Theme { name: name.to_owned(), styles: styles.collect::<Result<_, _>>()?, colourless: false })
    }

    /// Another theme in this one's place: without colour where this one is.
    ///
    /// # Errors
    /// As of [`Theme::named`].
    pub fn another(&self, name: &str) -> Result<Self, ThemeError> {
        let theme = Self::named(name)?;
        Ok(if self.colourless { theme.without_colour() } else { theme })
    }

    /// The style of a role.
    pub fn style(&self, role: Role) -> Style {
        self.styles.get(&role).copied().unwrap_or_default()
    }

    /// The theme for what may be old: what would look good or alive looks unknown.
    #[must_use]
    pub fn doubtful(mut self) -> Self {
        let unknown = self.style(Role::Unknown);
        for role in [Role::Good, Role::Running] {
            self.styles.insert(role, unknown);
        }
        self
    }

    /// The theme without its colours: attributes stay, so that the selected row and every state can still be
    /// told (NO_COLOR).
    #[must_use]
    pub fn without_colour(mut self) -> Self {
        self.colourless = true;
        for style in self.styles.values_mut() {
            let painted = style.bg.is_some_and(|c| c != Color::Reset);
            *style = Style { fg: None, bg: None, underline_color: None, ..*style };
            if painted {
                *style = style.add_modifier(Modifier::REVERSED);
            }
        }
        self
    }
}

/// Reads `fg`, `on bg` and attributes, in any order, parted by spaces.
fn parse_style(text: &str) -> Option<Style> {
    let mut style = Style::new();
    let mut words = text.split_whitespace();
    while let Some(word) = words.next() {
        style = match word {
            "on" => style.bg(words.next()?.parse().ok()?),
            "bold" => style.add_modifier(Modifier::BOLD),
            "dim" => style.add_modifier(Modifier::DIM),
            "italic" => style.add_modifier(Modifier::ITALIC),
            "underlined" => style.add_modifier(Modifier::UNDERLINED),
            "reversed" => style.add_modifier(Modifier::REVERSED),
            colour => style.fg(colour.parse().ok()?),
        };
    }
    Some(style)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_theme_of_the_program_is_whole() {
        for name in Theme::names() {
            let theme = Theme::named(name).unwrap();
            let selection = theme.style(Role::Selection);
            assert!(
                selection.bg.is_some() || selection.add_modifier.contains(Modifier::REVERSED),
                "{name}: the selected row cannot be seen"
            );
        }
    }

    #[test]
    fn without_colour_the_selection_is_still_marked() {
        for name in Theme::names() {
            let theme = Theme::named(name).unwrap().without_colour();
            for role in Role::ALL {
                let style = theme.style(*role);
                assert_eq!((style.fg, style.bg), (None, None), "{name} {}", role.name());
            }
            assert!(theme.style(Role::Selection).add_modifier.contains(Modifier::REVERSED), "{name}");
        }
    }

    #[test]
    fn another_theme_brings_no_colour_back_that_was_taken_away() {
        let (plain, mono) = (Theme::named("dark").unwrap(), Theme::named("dark").unwrap().without_colour());
        assert_eq!(plain.another("light").unwrap(), Theme::named("light").unwrap());
        assert_eq!(mono.another("light").unwrap(), Theme::named("light").unwrap().without_colour());
        assert!(mono.another("neon").is_err());
    }

    #[test]
    fn a_broken_theme_names_what_is_wrong() {
        let whole: String = Role::ALL.iter().map(|r| format!("{} = \"red\"\n", r.name())).collect();
        let error = |text: &str| Theme::parse("mine", text).unwrap_err().to_string();
        assert!(error(&format!("[roles]\n{}", whole.replace("dim = \"red\"\n", ""))).contains("role dim is missing"));
        assert!(error(&format!("[roles]\n{whole}blink = \"red\"")).contains("unknown role blink"));
        assert!(error(&format!("[roles]\n{}", whole.replace("dim = \"red\"", "dim = \"rot\""))).contains("role dim: \"rot\" is no style"));
        assert!(error("[other]").contains("unknown table other"));
        assert!(Theme::named("neon").unwrap_err().to_string().contains("ansi16, dark, light"));
    }
}
