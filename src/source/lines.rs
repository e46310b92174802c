//! Lines of a file with their numbers, a limit on their length, and one reused buffer.

use std::io::{self, BufRead, BufReader, Read};

use crate::json::MAX_TEXT;

/// One line.
#[derive(Debug)]
pub(crate) enum Line<'b> {
    /// The text without its line feed; whether the line feed was there.
    Text(&'b [u8], bool),
    /// A line over the limit, passed over; whether its line feed was there.
    TooLong(bool),
}

/// Reads lines without holding more than one.
#[derive(Debug)]
pub(crate) struct Lines<R> {
    reader: BufReader<R>,
    /// Bytes of the reader's buffer that were handed out as the last line.
    lent: usize,
    /// A line that does not lie in the reader's buffer as a whole.
    buffer: Vec<u8>,
}

impl<R: Read> Lines<R> {
    pub(crate) fn new(reader: R) -> Self {
        Lines { reader: BufReader::with_capacity(1 << 18, reader), lent: 0, buffer: Vec::new() }
    }

    /// The next line, or nothing at the end.
    pub(crate) fn next(&mut self) -> io::Result<Option<Line<'_>>> {
        self.reader.consume(std::mem::take(&mut self.lent));
        if let Some(end) = memchr::memchr(b'\n', self.reader.fill_buf()?) {
            self.lent = end + 1;
            return Ok(Some(Line::Text(self.reader.buffer().get(..end).unwrap_or_default(), true)));
        }
        self.buffer.clear();
        let limit = MAX_TEXT as u64 + 1;
        let read = (&mut self.reader).take(limit).read_until(b'\n', &mut self.buffer)?;
        if read == 0 {
            return Ok(None);
        }
        let ended = self.buffer.last() == Some(&b'\n');
        if !ended && read as u64 == limit {
            return Ok(Some(Line::TooLong(self.skip_rest()?)));
        }
        if ended {
            self.buffer.pop();
        }
        Ok(Some(Line::Text(&self.buffer, ended)))
    }

    /// Passes over the rest of a line; whether it has an end.
    fn skip_rest(&mut self) -> io::Result<bool> {
        loop {
            let available = self.reader.fill_buf()?;
            if available.is_empty() {
                return Ok(false);
            }
            let (used, done) = match memchr::memchr(b'\n', available) {
                Some(at) => (at + 1, true),
                None => (available.len(), false),
            };
            self.reader.consume(used);
            if done {
                return Ok(true);
            }
        }
    }
}

/// Whether a line holds nothing but blanks.
pub(crate) fn blank(text: &[u8]) -> bool {
    text.iter().all(u8::is_ascii_whitespace)
}
