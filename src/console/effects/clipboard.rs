//! The clipboard, by a sequence that also works over SSH. Whether the terminal obeyed cannot be known, so the
//! text is always shown as well.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

/// Most bytes that are copied: what the strictest common terminals take, once encoded.
pub const MAX_COPY: usize = 74_994;

/// How text is copied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Clipboard {
    /// With the terminal's own sequence.
    Terminal,
    /// The same, wrapped so that tmux passes it on.
    Tmux,
    /// The same, wrapped so that screen passes it on.
    Screen,
    /// Not at all: the text is only shown.
    Off,
}

impl Clipboard {
    /// What suits a setting and an environment.
    pub fn of(setting: &str, term: &str, tmux: bool) -> Self {
        match setting {
            "off" => Clipboard::Off,
            _ if tmux => Clipboard::Tmux,
            _ if term.starts_with("screen") => Clipboard::Screen,
            _ => Clipboard::Terminal,
        }
    }

    /// The bytes that copy `text`; nothing where it is too long or copying is off.
    pub fn sequence(self, text: &str) -> Option<Vec<u8>> {
        let plain = || format!("\x1b]52;c;{}\x07", STANDARD.encode(text));
        let encoded = text.len().div_ceil(3) * 4;
        match self {
            Clipboard::Off => None,
            _ if encoded > MAX_COPY => None,
            Clipboard::Terminal => Some(plain().into_bytes()),
            Clipboard::Tmux => Some(format!("\x1bPtmux;{}\x1b\\", plain().replace('\x1b', "\x1b\x1b")).into_bytes()),
            Clipboard::Screen => {
                // It takes only short pieces.
                let sequence = plain();
                let pieces: Vec<String> =
                    sequence.as_bytes().chunks(200).map(|c| format!("\x1bP{}\x1b\\", String::from_utf8_lossy(c))).collect();
                Some(pieces.concat().into_bytes())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sequence_fits_the_terminal_and_has_a_limit() {
        let text = |clipboard: Clipboard, what: &str| clipboard.sequence(what).map(|bytes| String::from_utf8(bytes).unwrap());
        assert_eq!(text(Clipboard::Terminal, "run").as_deref(), Some("\x1b]52;c;cnVu\x07"));
        assert_eq!(text(Clipboard::Tmux, "run").as_deref(), Some("\x1bPtmux;\x1b\x1b]52;c;cnVu\x07\x1b\\"));
        assert_eq!(text(Clipboard::Screen, "run").as_deref(), Some("\x1bP\x1b]52;c;cnVu\x07\x1b\\"));
        assert_eq!(text(Clipboard::Off, "run"), None);
        assert!(text(Clipboard::Terminal, &"x".repeat(56_244)).is_some());
        assert_eq!(text(Clipboard::Terminal, &"x".repeat(56_250)), None);
        assert_eq!(Clipboard::of("osc52", "screen-256color", true), Clipboard::Tmux);
        assert_eq!(Clipboard::of("osc52", "screen", false), Clipboard::Screen);
        assert_eq!(Clipboard::of("off", "xterm", true), Clipboard::Off);
    }
}
