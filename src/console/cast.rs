//! Recordings: what was written to a terminal and when, as an asciinema cast of version 2: a header line,
//! then `[seconds, "o", text]` a write. Time comes from the caller, so that a recording under a virtual clock
//! is the same bytes every time.

use std::io::{self, Write};
use std::sync::{Arc, Mutex, PoisonError};

use serde_json::json;

/// A recording that grows. Clones are the same recording.
#[derive(Debug, Clone)]
pub struct Cast(Arc<Mutex<Tape>>);

#[derive(Debug)]
struct Tape {
    text: String,
    micros: u64,
    /// The beginning of a character whose end has not been written yet.
    rest: Vec<u8>,
}

impl Cast {
    /// An empty recording of a terminal of that size.
    pub fn new(width: u16, height: u16, title: &str) -> Self {
        let header = json!({"version": 2, "width": width, "height": height, "title": title, "env": {"TERM": "xterm-256color"}});
        Cast(Arc::new(Mutex::new(Tape { text: format!("{header}\n"), micros: 0, rest: Vec::new() })))
    }

    /// Moves the time of what is written from now on.
    pub fn advance(&self, micros: u64) {
        self.tape(|tape| tape.micros = tape.micros.saturating_add(micros));
    }

    /// Microseconds since the beginning.
    pub fn micros(&self) -> u64 {
        self.tape(|tape| tape.micros)
    }

    /// The recording so far.
    pub fn text(&self) -> String {
        self.tape(|tape| tape.text.clone())
    }

    fn tape<T>(&self, with: impl FnOnce(&mut Tape) -> T) -> T {
        with(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Tape {
    fn write(&mut self, bytes: &[u8]) {
        self.rest.extend_from_slice(bytes);
        // A write may end within a character; what is no text at all is kept as a replacement character.
        let whole = match std::str::from_utf8(&self.rest) {
            Ok(text) => text.len(),
            Err(error) if error.error_len().is_none() => error.valid_up_to(),
            Err(_) => self.rest.len(),
        };
        let tail = self.rest.split_off(whole);
        let text = String::from_utf8_lossy(&std::mem::replace(&mut self.rest, tail)).into_owned();
        if !text.is_empty() {
            let (seconds, micros) = (self.micros / 1_000_000, self.micros % 1_000_000);
            self.text.push_str(&format!("[{seconds}.{micros:06}, \"o\", {}]\n", json!(text)));
        }
    }
}

impl Write for Cast {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.tape(|tape| tape.write(bytes));
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Writes to two places; the first one counts.
#[derive(Debug)]
pub struct Tee<A, B>(pub A, pub Option<B>);

impl<A: Write, B: Write> Write for Tee<A, B> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let n = self.0.write(bytes)?;
        if let (Some(second), Some(written)) = (&mut self.1, bytes.get(..n)) {
            second.write_all(written)?;
        }
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;

    #[test]
    fn a_cast_is_a_header_and_timed_writes() {
        let mut cast = Cast::new(80, 24, "a \"demo\"");
        cast.write_all(b"\x1b[2Jhello").unwrap();
        cast.advance(1_500_000);
        cast.clone().write_all("né\n".as_bytes()).unwrap();
        let text = cast.text();
        let mut lines = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
        let header = lines.next().unwrap();
        assert_eq!((&header["version"], &header["width"], &header["height"]), (&json!(2), &json!(80), &json!(24)));
        assert_eq!(lines.next().unwrap().to_string(), json!([crate::json::number("0.000000"), "o", "\u{1b}[2Jhello"]).to_string());
        assert_eq!(lines.next().unwrap().to_string(), json!([crate::json::number("1.500000"), "o", "né\n"]).to_string());
    }

    #[test]
    fn a_character_that_two_writes_share_is_whole() {
        let mut cast = Cast::new(1, 1, "");
        for byte in "é─".as_bytes() {
            cast.write_all(&[*byte]).unwrap();
        }
        cast.write_all(b"\xff!").unwrap();
        let shown: String =
            cast.text().lines().skip(1).map(|l| serde_json::from_str::<Value>(l).unwrap()[2].as_str().unwrap().to_owned()).collect();
        assert_eq!(shown, "é─\u{fffd}!");
    }

    #[test]
    fn a_tee_writes_what_the_first_took() {
        let (mut first, cast) = (Vec::new(), Cast::new(1, 1, ""));
        Tee(&mut first, Some(cast.clone())).write_all(b"ab").unwrap();
        assert!(first == b"ab" && cast.text().contains("\"ab\""));
    }
}
