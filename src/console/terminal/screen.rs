//! Frames on the wire: the difference to the last one, in one write, inside synchronised output; nothing at
//! all where nothing changed.

use std::io::{self, BufWriter, Write};

use ratatui::backend::{Backend, CrosstermBackend};
use ratatui::buffer::Buffer;
use ratatui::layout::Rect;

const SYNC: [&[u8]; 2] = [b"\x1b[?2026h", b"\x1b[?2026l"];

/// What one frame fits into.
const BUFFER: usize = 64 << 10;

/// What was written so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Frames that had a difference.
    pub frames: u64,
    /// Their bytes.
    pub bytes: u64,
}

/// Counts what passes.
#[derive(Debug)]
struct Counter<W> {
    inner: W,
    bytes: u64,
}

impl<W: Write> Write for Counter<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let n = self.inner.write(bytes)?;
        self.bytes += n as u64;
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

/// A screen: what it shows, and where its bytes go.
#[derive(Debug)]
pub struct Screen<W: Write> {
    out: BufWriter<Counter<W>>,
    shown: Buffer,
    next: Buffer,
    sync: bool,
    /// The next frame is painted whole, over a cleared screen.
    fresh: bool,
    frames: u64,
}

impl<W: Write> Screen<W> {
    /// A screen of that size over `out`.
    pub fn new(out: W, width: u16, height: u16, sync: bool) -> Self {
        let area = Rect::new(0, 0, width, height);
        let out = BufWriter::with_capacity(BUFFER, Counter { inner: out, bytes: 0 });
        let (shown, next) = (Buffer::empty(area), Buffer::empty(area));
        Screen { out, shown, next, sync, fresh: true, frames: 0 }
    }

    /// Its area.
    pub fn area(&self) -> Rect {
        self.next.area
    }

    /// What it shows.
    pub fn shown(&self) -> &Buffer {
        &self.shown
    }

    /// Has another size from now on; the next frame is painted whole.
    pub fn resize(&mut self, width: u16, height: u16) {
        let area = Rect::new(0, 0, width, height);
        (self.shown, self.next) = (Buffer::empty(area), Buffer::empty(area));
        self.fresh = true;
    }

    /// Paints the next frame whole: something else may have written to the terminal.
    pub fn repaint(&mut self) {
        self.shown.reset();
        self.fresh = true;
    }

    /// Draws a frame. Writes nothing where it looks like the one before; says whether it wrote.
    ///
    /// # Errors
    /// What the terminal answers; the caller takes it for the end of the terminal.
    pub fn draw(&mut self, paint: impl FnOnce(&mut Buffer)) -> io::Result<bool> {
        self.next.reset();
        paint(&mut self.next);
        let changes = self.shown.diff(&self.next);
        if changes.is_empty() && !self.fresh {
            return Ok(false);
        }
        if self.sync {
            self.out.write_all(SYNC[0])?;
        }
        if self.fresh {
            self.out.write_all(b"\x1b[0m\x1b[2J")?;
        }
        CrosstermBackend::new(&mut self.out).draw(changes.into_iter())?;
        if self.sync {
            self.out.write_all(SYNC[1])?;
        }
        self.out.flush()?;
        std::mem::swap(&mut self.shown, &mut self.next);
        self.fresh = false;
        self.frames += 1;
        Ok(true)
    }

    /// Sends bytes that are no frame (a clipboard sequence), in one write.
    ///
    /// # Errors
    /// As of [`Screen::draw`].
    pub fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.out.write_all(bytes)?;
        self.out.flush()
    }

    /// Frames and bytes so far.
    pub fn traffic(&self) -> Traffic {
        Traffic { frames: self.frames, bytes: self.out.get_ref().bytes }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ratatui::style::{Modifier, Style};

    /// A wire that notes each write.
    #[derive(Default)]
    struct Wire(Vec<Vec<u8>>);

    impl Write for &mut Wire {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.push(bytes.to_vec());
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_frame_is_one_write_within_a_synchronised_block_and_no_change_is_none() {
        let mut wire = Wire::default();
        let mut screen = Screen::new(&mut wire, 200, 50, true);
        let full = |buf: &mut Buffer| {
            for y in 0..50 {
                buf.set_string(0, y, "x".repeat(200), Style::new().add_modifier(Modifier::BOLD));
            }
        };
        assert!(screen.draw(full).unwrap());
        assert!(!screen.draw(full).unwrap());
        assert_eq!(screen.traffic().frames, 1);
        screen.repaint();
        assert!(screen.draw(full).unwrap());
        assert_eq!(screen.shown()[(199, 49)].symbol(), "x");
        drop(screen);
        assert_eq!(wire.0.len(), 2);
        for frame in &wire.0 {
            assert!(frame.starts_with(b"\x1b[?2026h\x1b[0m\x1b[2J") && frame.ends_with(b"\x1b[?2026l"));
        }
    }

    #[test]
    fn a_terminal_that_is_gone_is_an_error() {
        struct Gone;
        impl Write for Gone {
            fn write(&mut self, _: &[u8]) -> io::Result<usize> {
                Err(io::Error::other("gone"))
            }

            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let mut screen = Screen::new(Gone, 10, 2, false);
        assert!(screen.draw(|buf| buf.set_string(0, 0, "x", Style::new())).is_err());
    }
}
