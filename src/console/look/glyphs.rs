//! The characters that carry meaning, in two sets: Unicode that every console font has, and ASCII.

use ratatui::symbols::border;

/// A set of characters. Every mark is one column wide, except where its length says otherwise.
#[derive(Debug)]
pub struct Glyphs {
    /// Frame of a pane.
    pub border: border::Set<'static>,
    /// Mark of the selected row.
    pub selected: &'static str,
    /// A marked row.
    pub marked: &'static str,
    /// Ended well.
    pub ok: &'static str,
    /// Refused or failed.
    pub bad: &'static str,
    /// At work.
    pub running: &'static str,
    /// Waits.
    pub waiting: &'static str,
    /// Waits for a person.
    pub paused: &'static str,
    /// Called off.
    pub cancelled: &'static str,
    /// Does not move.
    pub stuck: &'static str,
    /// Excluded lawfully because it was observed after the cut-off.
    pub late: &'static str,
    /// A leak that was refused.
    pub violation: &'static str,
    /// Cannot be known now.
    pub unknown: &'static str,
    /// Differs from what was pinned.
    pub drift: &'static str,
    /// Sorted upwards, downwards.
    pub sort: [&'static str; 2],
    /// A closed and an open branch of a tree.
    pub tree: [&'static str; 2],
    /// A range served by the bus.
    pub bus: &'static str,
    /// A range served by the archive.
    pub archive: &'static str,
    /// A range proved by a sealed segment.
    pub sealed: &'static str,
    /// A range that nothing serves.
    pub missing: &'static str,
    /// A range in which bus and archive contradict each other.
    pub mismatch: &'static str,
    /// A range that is asked for and not yet delivered.
    pub wanted: &'static str,
    /// Done and open part of a gauge.
    pub gauge: [&'static str; 2],
    /// Eight levels of a sparkline, lowest first.
    pub levels: [&'static str; 8],
    /// The cut-off on a line of time.
    pub cutoff: &'static str,
    /// A cursor below a strip.
    pub cursor: &'static str,
    /// Where text was cut.
    pub ellipsis: &'static str,
    /// Between two parts of a line.
    pub separator: &'static str,
    /// From this to that.
    pub arrow: &'static str,
}

impl Glyphs {
    /// For terminals that show UTF-8.
    pub const UNICODE: &'static Glyphs = &Glyphs {
        border: border::PLAIN,
        selected: ">",
        marked: "*",
        ok: "✓",
        bad: "✗",
        running: "▶",
        waiting: "·",
        paused: "‖",
        cancelled: "⊘",
        stuck: "!",
        late: "◷",
        violation: "‼",
        unknown: "?",
        drift: "≠",
        sort: ["▲", "▼"],
        tree: ["▸", "▾"],
        bus: "█",
        archive: "▓",
        sealed: "▒",
        missing: "·",
        mismatch: "╳",
        wanted: "░",
        gauge: ["█", "░"],
        levels: ["▁", "▂", "▃", "▄", "▅", "▆", "▇", "█"],
        cutoff: "│",
        cursor: "▲",
        ellipsis: "…",
        separator: "·",
        arrow: "→",
    };

    /// For everything else.
    pub const ASCII: &'static Glyphs = &Glyphs {
        border: border::Set {
            top_left: "+",
            top_right: "+",
            bottom_left: "+",
            bottom_right: "+",
            vertical_left: "|",
            vertical_right: "|",
            horizontal_top: "-",
            horizontal_bottom: "-",
        },
        selected: ">",
        marked: "*",
        ok: "+",
        bad: "x",
        running: "~",
        waiting: ".",
        paused: "=",
        cancelled: "o",
        stuck: "!",
        late: "L",
        violation: "V",
        unknown: "?",
        drift: "#",
        sort: ["^", "v"],
        tree: ["+", "-"],
        bus: "B",
        archive: "A",
        sealed: "S",
        missing: "_",
        mismatch: "X",
        wanted: ":",
        gauge: ["#", "."],
        levels: ["_", ".", "-", "~", "=", "+", "*", "#"],
        cutoff: "|",
        cursor: "^",
        ellipsis: "~",
        separator: "-",
        arrow: "->",
    };
}

#[cfg(test)]
mod tests {
    use super::*;
    use unicode_width::UnicodeWidthStr;

    #[test]
    fn ascii_is_ascii_and_marks_are_one_column_wide() {
        for set in [Glyphs::UNICODE, Glyphs::ASCII] {
            let single = [
                set.selected,
                set.marked,
                set.ok,
                set.bad,
                set.running,
                set.waiting,
                set.paused,
                set.cancelled,
                set.stuck,
                set.late,
                set.violation,
                set.unknown,
                set.drift,
                set.bus,
                set.archive,
                set.sealed,
                set.missing,
                set.mismatch,
                set.wanted,
                set.cutoff,
                set.cursor,
                set.ellipsis,
                set.separator,
            ];
            assert!(single.iter().chain(&set.sort).chain(&set.tree).chain(&set.gauge).chain(&set.levels).all(|g| g.width() == 1));
            // What a strip is made of can be told apart without colour.
            let strip = [set.bus, set.archive, set.sealed, set.missing, set.mismatch, set.wanted];
            assert_eq!(strip.iter().collect::<std::collections::BTreeSet<_>>().len(), strip.len());
        }
        let debug = format!("{:?}", Glyphs::ASCII);
        assert!(debug.is_ascii(), "{debug}");
    }
}
