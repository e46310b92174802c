//! A line that a person types into.

use crossterm::event::KeyCode;
use tui_input::{Input, InputRequest};

use crate::console::keys::Chord;

/// A line of text being typed, of bounded length.
#[derive(Debug, Clone, Default)]
pub struct Prompt {
    input: Input,
    limit: usize,
}

impl Prompt {
    /// An empty line that takes at most `limit` bytes.
    pub fn new(limit: usize) -> Self {
        Prompt { input: Input::default(), limit }
    }

    /// A line that says something already.
    pub fn with(text: &str, limit: usize) -> Self {
        Prompt { input: Input::new(text.to_owned()), limit }
    }

    /// What was typed.
    pub fn text(&self) -> &str {
        self.input.value()
    }

    /// Where the cursor is, in characters.
    pub fn cursor(&self) -> usize {
        self.input.cursor()
    }

    /// Replaces what was typed.
    pub fn set(&mut self, text: &str) {
        self.input = Input::new(text.to_owned());
    }

    /// Takes a key. Says whether it was one of a line's own.
    pub fn key(&mut self, chord: Chord) -> bool {
        let ctrl = chord.typed().is_none();
        let request = match chord.code() {
            KeyCode::Char(c) if !ctrl => {
                if self.text().len() + c.len_utf8() > self.limit {
                    return true;
                }
                InputRequest::InsertChar(c)
            }
            KeyCode::Char('a') => InputRequest::GoToStart,
            KeyCode::Char('e') => InputRequest::GoToEnd,
            KeyCode::Char('u') => InputRequest::DeleteLine,
            KeyCode::Char('k') => InputRequest::DeleteTillEnd,
            KeyCode::Char('w') => InputRequest::DeletePrevWord,
            KeyCode::Backspace | KeyCode::Char('h') => InputRequest::DeletePrevChar,
            KeyCode::Delete => InputRequest::DeleteNextChar,
            KeyCode::Left => InputRequest::GoToPrevChar,
            KeyCode::Right => InputRequest::GoToNextChar,
            KeyCode::Home => InputRequest::GoToStart,
            KeyCode::End => InputRequest::GoToEnd,
            _ => return false,
        };
        self.input.handle(request);
        true
    }

    /// Takes pasted text up to the limit; line feeds become spaces. Says how many bytes were left out.
    pub fn paste(&mut self, text: &str) -> usize {
        let mut taken = 0;
        for c in text.chars() {
            if self.text().len() + c.len_utf8() > self.limit {
                break;
            }
            taken += c.len_utf8();
            let c = if c == '\n' || c == '\t' { ' ' } else { c };
            // A control character can neither be seen nor meant.
            if !c.is_control() {
                self.input.handle(InputRequest::InsertChar(c));
            }
        }
        text.len() - taken
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_edited_and_never_grows_past_its_limit() {
        let mut prompt = Prompt::new(5);
        for key in ["a", "b", "space", "c", "home", "x", "y", "ctrl-w", "end", "backspace"] {
            assert!(prompt.key(Chord::parse(key).unwrap()), "{key}");
        }
        assert_eq!(prompt.text(), "ab ");
        assert_eq!(prompt.paste(&"é\n\u{1b}".repeat(1_000)), 3_998);
        assert!(prompt.text().len() <= 5);
        assert!(!prompt.key(Chord::parse("enter").unwrap()) && !prompt.key(Chord::parse("ctrl-x").unwrap()));
    }

    #[test]
    fn a_megabyte_is_pasted_in_no_time() {
        let mut prompt = Prompt::new(4_096);
        assert_eq!(prompt.paste(&"x".repeat(1 << 20)), (1 << 20) - 4_096);
    }
}
