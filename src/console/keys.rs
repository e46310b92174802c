//! Keys: how they are written, which action each stands for, and what a person may change about that.

use std::collections::{BTreeMap, HashMap};
use std::fmt;

use crossterm::event::{KeyCode, KeyEvent, KeyEventKind, KeyModifiers};

use super::action::{Action, Place, TABLE};
use crate::text::{nearest, safe};

/// A key with or without Ctrl. No chord needs more than what every terminal sends: Alt splits over slow lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Chord {
    code: KeyCode,
    ctrl: bool,
}

const NAMES: &[(&str, KeyCode)] = &[
    ("enter", KeyCode::Enter),
    ("esc", KeyCode::Esc),
    ("tab", KeyCode::Tab),
    ("backtab", KeyCode::BackTab),
    ("space", KeyCode::Char(' ')),
    ("backspace", KeyCode::Backspace),
    ("delete", KeyCode::Delete),
    ("insert", KeyCode::Insert),
    ("up", KeyCode::Up),
    ("down", KeyCode::Down),
    ("left", KeyCode::Left),
    ("right", KeyCode::Right),
    ("home", KeyCode::Home),
    ("end", KeyCode::End),
    ("pageup", KeyCode::PageUp),
    ("pagedown", KeyCode::PageDown),
];

impl Chord {
    /// Ctrl-C, which always means "stop this" and cannot be bound.
    pub const INTERRUPT: Chord = Chord { code: KeyCode::Char('c'), ctrl: true };

    /// A key without Ctrl.
    pub fn plain(code: KeyCode) -> Self {
        Chord { code, ctrl: false }
    }

    /// Reads `j`, `G`, `ctrl-d`, `pagedown`, `f1` and the like.
    pub fn parse(text: &str) -> Option<Self> {
        let (ctrl, name) = text.strip_prefix("ctrl-").map_or((false, text), |rest| (true, rest));
        let mut chars = name.chars();
        let code = match (chars.next(), chars.next()) {
            (Some(c), None) if !c.is_control() && c != ' ' => KeyCode::Char(c),
            _ => match NAMES.iter().find(|(known, _)| *known == name) {
                Some((_, code)) => *code,
                None => KeyCode::F(name.strip_prefix('f')?.parse().ok().filter(|n| (1..=12).contains(n))?),
            },
        };
        Some(Chord { code, ctrl })
    }

    /// What a terminal's key event stands for; nothing for a release, and for Alt and its kin.
    pub fn of(event: &KeyEvent) -> Option<Self> {
        let others = KeyModifiers::ALT | KeyModifiers::SUPER | KeyModifiers::HYPER | KeyModifiers::META;
        if event.kind == KeyEventKind::Release || event.modifiers.intersects(others) {
            return None;
        }
        let ctrl = event.modifiers.contains(KeyModifiers::CONTROL);
        let code = match event.code {
            // Whether an upper-case letter comes with SHIFT differs between terminals.
            KeyCode::Char(c) if event.modifiers.contains(KeyModifiers::SHIFT) && !ctrl => {
                KeyCode::Char(c.to_uppercase().next().unwrap_or(c))
            }
            KeyCode::Tab if event.modifiers.contains(KeyModifiers::SHIFT) => KeyCode::BackTab,
            code => code,
        };
        Some(Chord { code, ctrl })
    }

    /// The same as a terminal's event, for prompts.
    pub fn event(self) -> KeyEvent {
        KeyEvent::new(self.code, if self.ctrl { KeyModifiers::CONTROL } else { KeyModifiers::NONE })
    }

    /// The key.
    pub fn code(self) -> KeyCode {
        self.code
    }

    /// The character that it types, if it types one.
    pub fn typed(self) -> Option<char> {
        match self.code {
            KeyCode::Char(c) if !self.ctrl => Some(c),
            _ => None,
        }
    }
}

impl fmt::Display for Chord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = NAMES.iter().find(|(_, code)| *code == self.code).map(|(name, _)| *name);
        let ctrl = if self.ctrl { "ctrl-" } else { "" };
        match (name, self.code) {
            (Some(name), _) => write!(f, "{ctrl}{name}"),
            (None, KeyCode::Char(c)) => write!(f, "{ctrl}{c}"),
            (None, KeyCode::F(n)) => write!(f, "{ctrl}f{n}"),
            (None, other) => write!(f, "{ctrl}{other}"),
        }
    }
}

/// What is wrong with `[console.keys]`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeysError {
    /// No action has this name.
    #[error("[console.keys]: no action is called {}{}; `ofs keys` lists them", safe(name), near.map(|n| format!("; did you mean {n}?")).unwrap_or_default())]
    UnknownAction {
        /// What was written.
        name: String,
        /// What may have been meant.
        near: Option<&'static str>,
    },
    /// No key is written so.
    #[error("[console.keys] {action}: {} is no key; keys are written like j, G, ctrl-d, pagedown, f1", safe(text))]
    UnknownKey {
        /// The action.
        action: &'static str,
        /// What was written.
        text: String,
    },
    /// The key is the console's own.
    #[error("[console.keys] {action}: {chord} cannot be bound: {why}")]
    Reserved {
        /// The action.
        action: &'static str,
        /// The key.
        chord: String,
        /// Whose it is.
        why: &'static str,
    },
    /// Two actions want one key in one place.
    #[error("[console.keys]: {chord} ({place}) would be both {first} and {second}; give one another key, or \"\" for none")]
    Conflict {
        /// The key.
        chord: String,
        /// Where.
        place: &'static str,
        /// One action.
        first: &'static str,
        /// The other.
        second: &'static str,
    },
}

/// Which key means what.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Keymap {
    bindings: HashMap<(Place, Chord), Action>,
    keys: BTreeMap<Action, Vec<Chord>>,
}

impl Default for Keymap {
    fn default() -> Self {
        // That the table's own keys fit together is a test of this file.
        Self::new(&BTreeMap::new()).unwrap_or(Keymap { bindings: HashMap::new(), keys: BTreeMap::new() })
    }
}

impl Keymap {
    /// The table's keys with those of `[console.keys]` in their place: action name to keys, `""` for none.
    ///
    /// # Errors
    /// An unknown action or key, a key that is the console's own, two actions on one key in one place.
    pub fn new(overrides: &BTreeMap<String, Vec<String>>) -> Result<Self, KeysError> {
        if let Some(name) = overrides.keys().find(|name| Action::named(name).is_none()) {
            let near = nearest(name, TABLE.iter().map(|e| e.name)).and_then(Action::named).map(|a| a.entry().name);
            return Err(KeysError::UnknownAction { name: name.clone(), near });
        }
        let mut map = Keymap { bindings: HashMap::new(), keys: BTreeMap::new() };
        for entry in TABLE {
            let texts: Vec<&str> = match overrides.get(entry.name) {
                Some(keys) => keys.iter().map(String::as_str).filter(|k| !k.is_empty()).collect(),
                None => entry.keys.to_vec(),
            };
            for text in texts {
                let chord = readable(entry.name, text)?;
                if let Some(first) = map.bindings.insert((entry.place, chord), entry.action) {
                    return Err(KeysError::Conflict {
                        chord: chord.to_string(),
                        place: entry.place.name(),
                        first: first.entry().name,
                        second: entry.name,
                    });
                }
                map.keys.entry(entry.action).or_default().push(chord);
            }
        }
        Ok(map)
    }

    /// What a key means in these places, the narrowest first.
    pub fn action(&self, places: &[Place], chord: Chord) -> Option<Action> {
        places.iter().find_map(|place| self.bindings.get(&(*place, chord)).copied())
    }

    /// The keys of an action.
    pub fn keys(&self, action: Action) -> &[Chord] {
        self.keys.get(&action).map(Vec::as_slice).unwrap_or_default()
    }

    /// The first key of an action, as people read it; nothing where it has none.
    pub fn first(&self, action: Action) -> Option<String> {
        self.keys(action).first().map(|chord| shown(*chord))
    }
}

/// A key as people read it on a keyboard.
pub fn shown(chord: Chord) -> String {
    match chord.to_string().as_str() {
        "enter" => "Enter".into(),
        "esc" => "Esc".into(),
        "space" => "Space".into(),
        "tab" => "Tab".into(),
        "backtab" => "Shift-Tab".into(),
        "pagedown" => "PgDn".into(),
        "pageup" => "PgUp".into(),
        other => match other.strip_prefix("ctrl-") {
            Some(rest) => format!("Ctrl-{}", rest.to_uppercase()),
            None => other.to_owned(),
        },
    }
}

fn readable(action: &'static str, text: &str) -> Result<Chord, KeysError> {
    let chord = Chord::parse(text).ok_or_else(|| KeysError::UnknownKey { action, text: text.to_owned() })?;
    let why = match text {
        "ctrl-c" => "it always stops what is going on, and twice leaves",
        "ctrl-s" | "ctrl-q" => "terminals hold their output with it",
        "ctrl-h" | "ctrl-i" | "ctrl-j" | "ctrl-m" => "terminals send it for Backspace, Tab and Enter",
        _ => return Ok(chord),
    };
    Err(KeysError::Reserved { action, chord: text.to_owned(), why })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keymap(pairs: &[(&str, &str)]) -> Result<Keymap, KeysError> {
        Keymap::new(&pairs.iter().map(|(name, key)| ((*name).to_owned(), vec![(*key).to_owned()])).collect())
    }

    #[test]
    fn the_tables_own_keys_fit_together_and_are_written_as_they_are_read() {
        let map = keymap(&[]).unwrap();
        for entry in TABLE {
            assert_eq!(map.keys(entry.action).iter().map(Chord::to_string).collect::<Vec<_>>(), entry.keys, "{}", entry.name);
            for chord in map.keys(entry.action) {
                assert_eq!(map.action(&[entry.place, Place::Global], *chord), Some(entry.action));
                assert_eq!(Chord::of(&chord.event()), Some(*chord));
            }
        }
        assert_eq!(map, Keymap::default());
    }

    #[test]
    fn a_key_can_be_moved_taken_away_and_given_on() {
        let map = keymap(&[("quit", "Q"), ("down", "")]).unwrap();
        let chord = |text| Chord::parse(text).unwrap();
        assert_eq!(map.action(&[Place::Global], chord("Q")), Some(Action::Quit));
        assert_eq!(map.action(&[Place::Global], chord("q")), None);
        assert_eq!((map.keys(Action::Down), map.first(Action::Quit).as_deref()), (&[][..], Some("Q")));
        // What one lost another may have.
        assert_eq!(keymap(&[("quit", "Q"), ("help", "q")]).unwrap().action(&[Place::Global], chord("q")), Some(Action::Help));
    }

    #[test]
    fn mistakes_are_named() {
        let error = |name, key| keymap(&[(name, key)]).unwrap_err().to_string();
        let conflict = error("help", "q");
        assert!(conflict.contains("help") && conflict.contains("quit") && conflict.contains("q (everywhere)"), "{conflict}");
        assert!(error("qiut", "x").contains("did you mean quit?"));
        for key in ["hyper-x", "ctrl-", "f13", "jj", " ", "\u{1b}"] {
            assert!(error("quit", key).contains("is no key"), "{key:?}");
        }
        for key in ["ctrl-c", "ctrl-s", "ctrl-m"] {
            assert!(error("quit", key).contains("cannot be bound"), "{key}");
        }
        // The narrow place wins, so the same key in two places is no conflict.
        let map = keymap(&[("continue", "q")]).unwrap();
        let q = Chord::parse("q").unwrap();
        assert_eq!(map.action(&[Place::Step, Place::Global], q), Some(Action::Continue));
        assert_eq!(map.action(&[Place::Runs, Place::Global], q), Some(Action::Quit));
    }

    #[test]
    fn terminals_differ_and_mean_the_same() {
        let event = |code, modifiers| Chord::of(&KeyEvent::new(code, modifiers)).map(|c| c.to_string());
        assert_eq!(event(KeyCode::Char('G'), KeyModifiers::NONE).as_deref(), Some("G"));
        assert_eq!(event(KeyCode::Char('g'), KeyModifiers::SHIFT).as_deref(), Some("G"));
        assert_eq!(event(KeyCode::Tab, KeyModifiers::SHIFT).as_deref(), Some("backtab"));
        assert_eq!(event(KeyCode::Char('x'), KeyModifiers::ALT), None);
        let release = KeyEvent::new_with_kind(KeyCode::Char('x'), KeyModifiers::NONE, KeyEventKind::Release);
        assert_eq!(Chord::of(&release), None);
        let repeat = KeyEvent::new_with_kind(KeyCode::Char('x'), KeyModifiers::NONE, KeyEventKind::Repeat);
        assert_eq!(Chord::of(&repeat).map(|c| c.to_string()).as_deref(), Some("x"));
    }
}
