//! Hides words on the screen: who presents a demo need not show whose machine it is.

use ratatui::buffer::Buffer;

/// Shortest word that is hidden: a shorter one stands in too many others.
const LEAST: usize = 3;

/// Words that are not shown.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Mask(Vec<String>);

impl Mask {
    /// Hides these words, wherever they stand.
    pub fn new(words: impl IntoIterator<Item = String>) -> Self {
        let mut words: Vec<String> = words.into_iter().filter(|word| word.chars().count() >= LEAST).collect();
        // A word within another one must not break it up.
        words.sort_by_key(|word| std::cmp::Reverse(word.len()));
        words.dedup();
        Mask(words)
    }

    /// The text with stars for the words.
    pub fn text(&self, text: &str) -> String {
        self.0.iter().fold(text.to_owned(), |text, word| text.replace(word.as_str(), &"*".repeat(word.chars().count())))
    }

    /// Puts stars over the words in a frame, also over the beginning of one that is cut off by the edge of
    /// its column.
    pub fn hide(&self, buf: &mut Buffer) {
        if self.0.is_empty() {
            return;
        }
        let area = buf.area;
        for y in area.top()..area.bottom() {
            let row: Vec<String> =
                (area.left()..area.right()).filter_map(|x| buf.cell((x, y))).map(|cell| cell.symbol().to_owned()).collect();
            for word in &self.0 {
                let letters: Vec<String> = word.chars().map(String::from).collect();
                for at in 0..row.len() {
                    let same = row.iter().skip(at).zip(&letters).take_while(|(cell, letter)| cell == letter).count();
                    let cut = row.get(at + same).is_none_or(|next| next == "…" || next == "~" || next == ">");
                    if same == letters.len() || (same >= LEAST && cut) {
                        (at..at + same).for_each(|x| star(buf, area.left() + u16::try_from(x).unwrap_or(0), y));
                    }
                }
            }
        }
    }
}

fn star(buf: &mut Buffer, x: u16, y: u16) {
    if let Some(cell) = buf.cell_mut((x, y)) {
        cell.set_symbol("*");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ratatui::style::Style;

    #[test]
    fn words_and_their_cut_off_beginnings_are_starred() {
        let mask = Mask::new(["node-17".to_owned(), "no".to_owned(), "node-17.example".to_owned()]);
        let mut buf = Buffer::with_lines(["on node-17.example now", "at node-17, nod only", "of node-1…", "the node-"]);
        buf.set_style(buf.area, Style::new());
        mask.hide(&mut buf);
        let expected = Buffer::with_lines(["on *************** now", "at *******, nod only", "of ******…", "the node-             "]);
        for y in 0..3 {
            for x in 0..buf.area.width {
                assert_eq!(buf[(x, y)].symbol(), expected[(x, y)].symbol(), "{x} {y}");
            }
        }
        assert_eq!(mask.text("node-17 no"), "******* no");
    }
}
