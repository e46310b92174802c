//! Answers in lines: what the command line prints and the console draws is one and the same text.

/// What a line means, beside what it says. The command line prints the words alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Tone {
    /// Nothing in particular.
    #[default]
    Plain,
    /// Begins a part of the answer.
    Head,
    /// It holds.
    Good,
    /// It does not hold.
    Bad,
    /// Somebody should look.
    Warn,
    /// It cannot be known, or was never written.
    Unknown,
    /// Matters less.
    Dim,
}

/// A line of an answer, free of what could command a terminal.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Line {
    /// What it means.
    pub tone: Tone,
    /// What it says.
    pub text: String,
    /// The event that it tells of, where one can go on from it, and in which of the data sets asked about, from 0.
    pub event: Option<(String, usize)>,
}

impl Line {
    /// A line.
    pub fn new(tone: Tone, text: impl AsRef<str>) -> Self {
        Line { tone, text: crate::text::safe(text.as_ref()).into_owned(), event: None }
    }

    /// A line that means nothing in particular.
    pub fn plain(text: impl AsRef<str>) -> Self {
        Line::new(Tone::Plain, text)
    }

    /// The same line, telling of an event of one of the data sets asked about.
    #[must_use]
    pub fn about(self, event_id: &str, of: usize) -> Self {
        Line { event: Some((event_id.to_owned(), of)), ..self }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_commands_no_terminal() {
        assert_eq!(Line::new(Tone::Bad, "a\u{1b}[2J\nb").text, "a\\u{1b}[2J\\u{a}b");
        // What is asked for next is the event's own id, not how it is shown.
        assert_eq!(Line::plain("x").about("e\u{1b}", 1).event, Some(("e\u{1b}".into(), 1)));
    }
}
