//! The evidence pane: every document about a run as a tree that opens where one looks, with the digest that
//! bears it out. However large a document is, only the rows in sight are made.

use std::collections::BTreeMap;

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use serde_json::Value;

use super::answer::tone_of;
use super::list::Frame;
use super::parts::{Canvas, Copyable, Cursor, Heading, Piece, piece, thousands};
use crate::console::action::Action;
use crate::console::data::evidence::{Check, Document, EvidenceTree};
use crate::console::filter::Filter;
use crate::console::look::{Glyphs, Role};

/// Longest value that is written out in a row, in characters.
const MAX_VALUE: usize = 400;

/// Which children of a node are open, by their place.
#[derive(Debug, Clone, Default)]
struct Open {
    children: BTreeMap<usize, Open>,
}

/// What the evidence pane remembers.
#[derive(Debug, Clone, Default)]
pub struct EvidencePane {
    cursor: Cursor,
    filter: Filter,
    /// Open documents by ref, so that a fresh snapshot keeps them open.
    open: BTreeMap<String, Open>,
}

/// A row of the tree: the document and the way down into it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Path {
    document: usize,
    steps: Vec<usize>,
}

impl EvidencePane {
    /// The documents that pass the filter, by their role, ref, state or any text that they hold at the top.
    fn shown(&self, data: &EvidenceTree) -> Vec<usize> {
        let passes = |d: &Document| self.filter.is_empty() || self.filter.matches(&Row(d));
        data.documents.iter().enumerate().filter(|(_, d)| passes(d)).map(|(at, _)| at).collect()
    }

    fn rows_of(&self, document: &Document) -> usize {
        let (Some(open), Some(content)) = (self.open.get(&document.at), document.content.as_deref()) else { return 1 };
        1 + inner(content, open)
    }

    fn len(&self, data: &EvidenceTree, shown: &[usize]) -> usize {
        shown.iter().filter_map(|at| data.documents.get(*at)).map(|d| self.rows_of(d)).sum()
    }

    /// The row at a place of the whole tree, found without making those before it.
    fn path(&self, data: &EvidenceTree, shown: &[usize], mut row: usize) -> Option<Path> {
        for at in shown {
            let document = data.documents.get(*at)?;
            let rows = self.rows_of(document);
            if row >= rows {
                row -= rows;
                continue;
            }
            let mut path = Path { document: *at, steps: Vec::new() };
            if row > 0 {
                descend(document.content.as_deref()?, self.open.get(&document.at)?, row - 1, &mut path.steps);
            }
            return Some(path);
        }
        None
    }

    fn node<'d>(data: &'d EvidenceTree, path: &Path) -> Option<(String, &'d Value)> {
        let mut value = data.documents.get(path.document)?.content.as_deref()?;
        let mut name = String::new();
        for step in &path.steps {
            (name, value) = child(value, *step)?;
        }
        Some((name, value))
    }

    fn is_open(&self, data: &EvidenceTree, path: &Path) -> bool {
        let Some(mut open) = data.documents.get(path.document).and_then(|d| self.open.get(&d.at)) else { return false };
        for step in &path.steps {
            match open.children.get(step) {
                Some(inner) => open = inner,
                None => return false,
            }
        }
        true
    }

    fn set_open(&mut self, data: &EvidenceTree, path: &Path, wanted: bool) {
        let Some(document) = data.documents.get(path.document).filter(|d| d.content.is_some()) else { return };
        match path.steps.split_last() {
            None if wanted => drop(self.open.entry(document.at.clone()).or_default()),
            None => drop(self.open.remove(&document.at)),
            Some((last, before)) => {
                let mut open = self.open.entry(document.at.clone()).or_default();
                for step in before {
                    open = open.children.entry(*step).or_default();
                }
                if wanted {
                    open.children.entry(*last).or_default();
                } else {
                    open.children.remove(last);
                }
            }
        }
    }

    /// Obeys an action that has a meaning here: right and open go in, left goes out. Says whether it did.
    pub fn act(&mut self, action: Action, data: &EvidenceTree, height: u16) -> bool {
        let shown = self.shown(data);
        let (len, height) = (self.len(data, &shown), usize::from(height.saturating_sub(3)).max(1));
        let at = self.cursor.selected(len);
        let path = at.and_then(|at| self.path(data, &shown, at));
        match (action, at, path) {
            (Action::Right | Action::Open, Some(_), Some(path)) => {
                let holds = Self::node(data, &path).is_some_and(|(_, value)| size(value) > 0);
                let open = self.is_open(data, &path);
                if holds && !(open && action == Action::Right) {
                    self.set_open(data, &path, !open);
                }
            }
            (Action::Left, Some(at), Some(mut path)) => {
                if self.is_open(data, &path) {
                    self.set_open(data, &path, false);
                } else if path.steps.pop().is_some() {
                    let parent = (0..at).rev().find(|row| self.path(data, &shown, *row).as_ref() == Some(&path));
                    self.cursor.go(parent.unwrap_or(at), len, height);
                }
            }
            _ => return self.cursor.act(action, len, height),
        }
        true
    }

    /// Narrows the documents.
    pub fn set_filter(&mut self, filter: &Filter, _: &EvidenceTree) {
        self.filter = filter.clone();
        self.cursor = Cursor::default();
    }

    /// The filter.
    pub fn filter(&self) -> &Filter {
        &self.filter
    }

    /// The selected document's ref, or the selected value.
    pub fn selected(&self, data: &EvidenceTree) -> Option<Copyable> {
        let shown = self.shown(data);
        let path = self.path(data, &shown, self.cursor.selected(self.len(data, &shown))?)?;
        let document = data.documents.get(path.document)?;
        if path.steps.is_empty() {
            return Some(Copyable { id: document.role.clone(), text: document.at.clone() });
        }
        let (name, value) = Self::node(data, &path)?;
        let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        Some(Copyable { id: format!("{} {name}", document.role), text })
    }

    /// The documents as shown, the names of the columns first.
    pub fn table(&self, data: &EvidenceTree) -> Vec<Vec<String>> {
        let mut table = vec![["state", "role", "ref", "bytes", "blake3", "recorded", "recorded_in"].map(str::to_owned).to_vec()];
        for d in self.shown(data).into_iter().filter_map(|at| data.documents.get(at)) {
            let (recorded, place) = d.recorded.clone().unwrap_or_default();
            let bytes = d.bytes.map(|b| b.to_string()).unwrap_or_default();
            table.push(vec![
                d.check.word().into(),
                d.role.clone(),
                d.at.clone(),
                bytes,
                d.blake3.clone().unwrap_or_default(),
                recorded,
                place,
            ]);
        }
        table
    }

    /// Draws it.
    pub fn draw(&self, buf: &mut Buffer, area: Rect, data: &EvidenceTree, frame: &Frame<'_>) {
        let shown = self.shown(data);
        let heading = Heading {
            title: "Evidence",
            subject: frame.subject.into(),
            count: Some((shown.len(), data.documents.len())),
            filter: self.filter.to_string().into(),
            age: frame.age,
            ..Heading::default()
        };
        let mut canvas = Canvas::framed(buf, area, &heading, frame.look, frame.focused);
        let len = self.len(data, &shown);
        if let Some(why) = data.unknown.first() {
            canvas.line(1, 0, &[piece(format!("{} UNKNOWN: {why}", canvas.glyphs().unknown), Role::Unknown)]);
        }
        let mut above = u16::from(!data.unknown.is_empty());
        if let Some((tone, verdict)) = &data.rechecked {
            let (glyph, role) = tone_of(*tone, frame.look.glyphs);
            canvas.line(1, above, &[piece(format!("{glyph} {verdict}"), role)]);
            above += 1;
        }
        let mut body = canvas.below(above);
        if len == 0 && body.height() > 0 {
            body.text(1, 0, body.width(), "no gate has written anything", Role::Dim);
        }
        for (y, row) in (0..body.height()).zip(self.cursor.window(len, usize::from(body.height()))) {
            let Some(path) = self.path(data, &shown, row) else { break };
            let mut pieces = self.pieces(data, &path, frame.look.glyphs);
            let selected = self.cursor.selected(len) == Some(row);
            if selected && frame.focused {
                pieces.iter_mut().for_each(|p| p.role = Role::Text);
            }
            body.line(1, y, &pieces);
            if selected {
                body.select(y, frame.focused);
            }
        }
    }

    fn pieces<'c>(&self, data: &EvidenceTree, path: &Path, glyphs: &Glyphs) -> Vec<Piece<'c>> {
        let Some(document) = data.documents.get(path.document) else { return Vec::new() };
        let mark = |value: Option<&Value>| match value {
            Some(value) if size(value) > 0 => {
                let [closed, open] = glyphs.tree;
                if self.is_open(data, path) { open } else { closed }
            }
            _ => " ",
        };
        if path.steps.is_empty() {
            let (glyph, role) = look_of(&document.check, glyphs);
            let bytes = document.bytes.map(|b| format!("  {} bytes", thousands(b))).unwrap_or_default();
            return vec![
                piece(format!("{} ", mark(document.content.as_deref())), Role::Dim),
                piece(format!("{glyph} {:<10} ", document.check.word()), role),
                piece(format!("{:<24}", document.role), Role::Text),
                piece(format!("{}{bytes}", cause(document)), if matches!(document.check, Check::Same(_)) { Role::Dim } else { role }),
            ];
        }
        let Some((name, value)) = Self::node(data, path) else { return Vec::new() };
        let indent = "  ".repeat(path.steps.len().min(20));
        let told = match value {
            Value::Object(map) => format!("{{{}}}", map.len()),
            Value::Array(list) => format!("[{}]", list.len()),
            Value::String(text) => crate::text::clip(text, MAX_VALUE).into_owned(),
            other => other.to_string(),
        };
        vec![piece(format!("{indent}{} ", mark(Some(value))), Role::Dim), piece(format!("{name} "), Role::Header), piece(told, Role::Value)]
    }
}

/// What stands behind a document's state.
fn cause(document: &Document) -> String {
    match &document.check {
        Check::Same(place) => format!("as {place} says"),
        Check::Differs { recorded, found } => format!("recorded {}, found {}", head(recorded), head(found)),
        Check::Unrecorded => "nothing records its digest".into(),
        Check::Unchecked => "not digested yet".into(),
        Check::Unknown(why) => why.clone(),
        Check::Missing => document.at.clone(),
    }
}

fn head(digest: &str) -> &str {
    digest.get(..12).unwrap_or(digest)
}

fn look_of(check: &Check, glyphs: &Glyphs) -> (&'static str, Role) {
    match check {
        Check::Same(_) => (glyphs.ok, Role::Good),
        Check::Differs { .. } => (glyphs.drift, Role::Bad),
        Check::Missing => (glyphs.bad, Role::Bad),
        Check::Unknown(_) => (glyphs.unknown, Role::Unknown),
        Check::Unrecorded | Check::Unchecked => (glyphs.waiting, Role::Waiting),
    }
}

/// A document as a row that is filtered.
struct Row<'d>(&'d Document);

impl crate::console::filter::Filterable for Row<'_> {
    fn field(&self, key: &str) -> Option<std::borrow::Cow<'_, str>> {
        Some(match key {
            "state" => self.0.check.word().into(),
            "role" => self.0.role.as_str().into(),
            "ref" => self.0.at.as_str().into(),
            _ => return None,
        })
    }

    fn age(&self) -> Option<std::time::Duration> {
        None
    }

    fn text(&self) -> std::borrow::Cow<'_, str> {
        format!("{} {} {}", self.0.check.word(), self.0.role, self.0.at).into()
    }
}

/// How many children a value has.
fn size(value: &Value) -> usize {
    match value {
        Value::Object(map) => map.len(),
        Value::Array(list) => list.len(),
        _ => 0,
    }
}

/// A child by its place, with its name.
fn child(value: &Value, at: usize) -> Option<(String, &Value)> {
    match value {
        Value::Object(map) => map.iter().nth(at).map(|(name, value)| (name.clone(), value)),
        Value::Array(list) => list.get(at).map(|value| (format!("[{at}]"), value)),
        _ => None,
    }
}

/// Rows below an open value: its children, and what is open of them. Costs what is open, not what is there.
fn inner(value: &Value, open: &Open) -> usize {
    let below = open.children.iter().filter_map(|(at, open)| Some(inner(child(value, *at)?.1, open)));
    size(value) + below.sum::<usize>()
}

/// Finds the way to row `row` below an open value.
fn descend(value: &Value, open: &Open, row: usize, steps: &mut Vec<usize>) {
    // Rows before the first open child are its children in order; an open child shifts those after it.
    let mut shift = 0;
    for (at, opened) in &open.children {
        let Some((_, held)) = child(value, *at) else { continue };
        if row <= at + shift {
            break;
        }
        let rows = inner(held, opened);
        if row <= at + shift + rows {
            steps.push(*at);
            descend(held, opened, row - at - shift - 1, steps);
            return;
        }
        shift += rows;
    }
    steps.push(row - shift);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::console::data::testing::World;
    use crate::console::panes::testing::{at_every_size, drawn, look, plain};
    use serde_json::json;
    use std::sync::Arc;

    fn tree(content: Value) -> EvidenceTree {
        let document = |role: &str| Document {
            role: role.into(),
            at: format!("run/{role}.json"),
            bytes: Some(9),
            blake3: None,
            recorded: None,
            check: Check::Unrecorded,
            content: Some(Arc::new(content.clone())),
        };
        EvidenceTree { documents: vec![document("one"), document("two")], ..EvidenceTree::default() }
    }

    fn text(pane: &EvidencePane, data: &EvidenceTree, width: u16, height: u16) -> String {
        let look = look(Glyphs::ASCII);
        let frame = Frame { look: &look, focused: true, subject: "k", age: None };
        plain(&drawn(width, height, |buf, area| pane.draw(buf, area, data, &frame)))
    }

    #[test]
    fn the_tree_opens_and_closes_and_rows_are_found_without_making_all() {
        let data = tree(json!({"a": {"x": [1, 2]}, "b": 3}));
        let mut pane = EvidencePane::default();
        let mut go = |actions: &[Action]| {
            actions.iter().for_each(|a| assert!(pane.act(*a, &data, 20)));
            pane.selected(&data).unwrap()
        };
        assert_eq!(go(&[Action::Right, Action::Down]).id, "one a");
        assert_eq!(go(&[Action::Right, Action::Down, Action::Right, Action::Down, Action::Down]).text, "2");
        assert_eq!(go(&[Action::Down]).id, "one b");
        assert_eq!(go(&[Action::Down]).text, "run/two.json");
        assert_eq!(go(&[Action::First, Action::Left, Action::Down]).text, "run/two.json");
        assert_eq!(go(&[Action::First, Action::Open, Action::Down, Action::Right, Action::Down, Action::Left]).id, "one a");
        assert!(!pane.act(Action::Quit, &data, 20));
    }

    #[test]
    fn a_document_of_a_million_values_is_windowed() {
        let data = tree(json!({"list": (0..1_000_000).collect::<Vec<u32>>(), "z": 1}));
        let mut pane = EvidencePane::default();
        for action in [Action::Right, Action::Down, Action::Right, Action::Last, Action::Up, Action::Up] {
            pane.act(action, &data, 20);
        }
        assert_eq!(pane.selected(&data).unwrap().text, "999999");
        assert!(text(&pane, &data, 60, 20).contains("[999999] 999999"));
    }

    #[test]
    fn real_evidence_says_what_bears_it_out() {
        let world = World::play("clean");
        world.damage("replay_completeness", Some("forged"));
        let (source, row, events) = world.newest();
        let data = EvidenceTree::load(&source, &row, &events);
        let text = text(&EvidencePane::default(), &data, 80, 22);
        assert!(text.contains("# DIFFERS    replay receipt") && text.contains("+ VERIFIED   manifest"), "{text}");
        let mut pane = EvidencePane::default();
        pane.set_filter(&Filter::parse("state=differs").unwrap(), &data);
        assert_eq!(pane.table(&data).len(), 2);
    }

    #[test]
    fn it_draws_at_every_size_and_hostile_text_stays_text() {
        let data = tree(json!({"\u{1b}[2J": "\u{202e}\u{9b}\n", "日本": ["\u{7}"]}));
        let look = look(Glyphs::UNICODE);
        let frame = Frame { look: &look, focused: true, subject: "\u{1b}", age: Some(0) };
        let mut pane = EvidencePane::default();
        pane.act(Action::Right, &data, 20);
        at_every_size(|buf, area| {
            pane.draw(buf, area, &data, &frame);
            assert!(buf.content().iter().all(|c| !c.symbol().contains(['\u{1b}', '\u{9b}', '\u{202e}', '\n', '\u{7}'])));
        });
    }
}
