//! Changes to a scratch workspace. Each does exactly what it says or fails: a mutation that missed its
//! mark would make a scenario prove nothing.

mod edit;
mod record;
mod timeline;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde_json::Value;

use self::edit::{apply, read_json, write_json};
pub use self::edit::{at, to_json};
use super::scenario::Verb;
use crate::contract::embedded;

/// A scenario that cannot be played as written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Broken(pub String);

pub(super) fn broken<T>(message: impl Into<String>) -> Result<T, Broken> {
    Err(Broken(message.into()))
}

impl From<std::io::Error> for Broken {
    fn from(error: std::io::Error) -> Self {
        Broken(error.to_string())
    }
}

/// A scratch workspace, with the names that stand for parts of it.
#[derive(Debug)]
pub struct Scratchpad {
    root: PathBuf,
    names: BTreeMap<String, String>,
}

impl Scratchpad {
    /// Unpacks an embedded workspace into a folder that must be empty or absent.
    ///
    /// # Errors
    /// An unknown base, a folder that is in use, the environment's.
    pub fn unpack(base: &str, into: &Path) -> Result<Self, Broken> {
        if into.read_dir().is_ok_and(|mut d| d.next().is_some()) {
            return broken(format!("{} is not empty; nothing was written", into.display()));
        }
        std::fs::create_dir_all(into)?;
        let into = &into.canonicalize()?;
        let mut files = 0;
        for (name, bytes) in embedded::below(&format!("fixtures/{base}")) {
            let path = into.join(name);
            make_room(&path)?;
            std::fs::write(&path, bytes)?;
            files += 1;
        }
        if files == 0 {
            return broken(format!("there is no base workspace {base}"));
        }
        let intent = read_json(&into.join("intents/train.json"))?;
        let text = |pointer: &str| intent.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned();
        let (run, topic) = (text("/platform_run_id"), text("/replay_basis/0/topic"));
        let names = [
            ("archive", format!("store/{run}/archive/events/topic={topic}")),
            ("bus", format!("bus/{topic}")),
            ("facts", format!("store/{}", text("/run_facts_ref"))),
            ("ofs", format!("store/{run}/ofs")),
            ("kind", text("/replay_basis/0/offset_kind")),
            ("topic", topic),
            ("run", run),
        ];
        let names = names.into_iter().map(|(name, text)| (name.to_owned(), text)).collect();
        Ok(Scratchpad { root: into.to_owned(), names })
    }

    /// The folder.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// What `{name}` stands for; nothing where it is unknown.
    pub fn name(&self, name: &str) -> &str {
        self.names.get(name).map(String::as_str).unwrap_or_default()
    }

    /// Gives a meaning to `{name}`.
    pub fn set_name(&mut self, name: String, text: String) {
        self.names.insert(name, text);
    }

    /// Puts the meaning of every `{name}` into a text. Braces around anything that is no name stay, since
    /// JSON and YAML have them too.
    pub fn fill(&self, text: &str) -> String {
        self.names.iter().fold(text.to_owned(), |text, (name, meaning)| text.replace(&format!("{{{name}}}"), meaning))
    }

    /// A file of the workspace.
    pub fn path(&self, file: &str) -> PathBuf {
        self.root.join(self.fill(file))
    }

    fn read(&self, file: &str) -> Result<String, Broken> {
        let path = self.path(file);
        std::fs::read_to_string(&path).map_err(|e| Broken(format!("{}: {e}", path.display())))
    }

    fn write(&self, file: &str, text: &str) -> Result<(), Broken> {
        let path = self.path(file);
        make_room(&path)?;
        Ok(std::fs::write(path, text)?)
    }

    /// Sets values of a JSON value, after filling in names.
    fn set(&self, value: &mut Value, set: &BTreeMap<String, toml::Value>) -> Result<(), Broken> {
        set.iter().try_for_each(|(pointer, to)| {
            let to = match to_json(to) {
                Value::String(text) => Value::String(self.fill(&text)),
                other => other,
            };
            apply(value, pointer, Some(to))
        })
    }

    /// Changes the workspace. Actions are not its business and change nothing.
    ///
    /// # Errors
    /// A change that cannot be made exactly as written.
    pub fn change(&self, verb: &Verb) -> Result<(), Broken> {
        match verb {
            Verb::RemoveFile(file) => Ok(std::fs::remove_file(self.path(file))?),
            Verb::MoveFile { from, to } => {
                make_room(&self.path(to))?;
                Ok(std::fs::rename(self.path(from), self.path(to))?)
            }
            Verb::WriteFile { file, text } => self.write(file, &self.fill(text)),
            Verb::AppendLine { file, text } => self.write(file, &format!("{}{}\n", self.read(file)?, self.fill(text))),
            Verb::RemoveLines { file, first, count } => self.remove_lines(file, *first, *count),
            Verb::Resize { file, bytes } => {
                Ok(std::fs::OpenOptions::new().write(true).open(self.path(file)).and_then(|f| f.set_len(*bytes))?)
            }
            Verb::ReplaceText { file, from, to, times } => {
                let text = self.read(file)?;
                match text.matches(from.as_str()).count() {
                    n if n == *times => self.write(file, &text.replace(from.as_str(), to)),
                    n => broken(format!("{file} has `{from}` {n} times, not {times}")),
                }
            }
            Verb::SetJson { file, set } => {
                let mut value = read_json(&self.path(file))?;
                self.set(&mut value, set)?;
                write_json(&self.path(file), &value)
            }
            Verb::EditLine { file, line, set, append } => self.edit_line(file, *line, *append, set),
            Verb::Intent { name, from, set, remove } => {
                let mut value = read_json(&self.path(&format!("intents/{from}.json")))?;
                self.set(&mut value, set)?;
                remove.iter().try_for_each(|pointer| apply(&mut value, pointer, None))?;
                write_json(&self.path(&format!("intents/{name}.json")), &value)
            }
            Verb::RemoveRecord(at) => record::find(self, at, false)?.replace(None),
            Verb::TearRecord(at) => record::find(self, at, false)?.tear(),
            Verb::EditRecord(edit) => record::edit(self, edit),
            Verb::CopyRecord { from, to } => record::copy(self, from, to),
            Verb::MoveRetention { partition, lines } => record::move_retention(self, *partition, *lines),
            Verb::ImportLabelsSqlite(file) => {
                timeline::import(&self.path("labels/assertions.jsonl"), &self.path(file))?;
                self.configure(&BTreeMap::from([("paths.labels".to_owned(), toml::Value::String(self.fill(file)))]))
            }
            Verb::Sql { file, statement } => timeline::execute(&self.path(file), statement),
            Verb::SetConfig(set) => self.configure(set),
            Verb::Symlink { at, to } => link(&self.path(at), Path::new(&self.fill(to))),
            Verb::Run(_)
            | Verb::Resume(_)
            | Verb::Retry(_)
            | Verb::Submit(_)
            | Verb::SubmitRetry(_)
            | Verb::Work(_)
            | Verb::Race { .. }
            | Verb::Cancel(_)
            | Verb::Fail(_)
            | Verb::Verify(_)
            | Verb::Seal { .. } => Ok(()),
        }
    }

    fn remove_lines(&self, file: &str, first: usize, count: usize) -> Result<(), Broken> {
        let text = self.read(file)?;
        let kept: Vec<&str> =
            text.lines().enumerate().filter(|(i, _)| !(first..first + count).contains(&(i + 1))).map(|(_, line)| line).collect();
        if kept.len() + count != text.lines().count() {
            return broken(format!("{file} has no {count} line(s) from {first} on"));
        }
        self.write(file, &kept.iter().map(|line| format!("{line}\n")).collect::<String>())
    }

    fn edit_line(&self, file: &str, line: usize, append: bool, set: &BTreeMap<String, toml::Value>) -> Result<(), Broken> {
        let text = self.read(file)?;
        let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
        let Some(slot) = line.checked_sub(1).and_then(|at| lines.get_mut(at)) else { return broken(format!("{file} has no line {line}")) };
        let mut value: Value = serde_json::from_str(slot).map_err(|e| Broken(format!("{file}:{line}: {e}")))?;
        self.set(&mut value, set)?;
        let changed = crate::json::canonical(&value);
        if append {
            lines.push(changed);
        } else {
            *slot = changed;
        }
        self.write(file, &lines.iter().map(|line| format!("{line}\n")).collect::<String>())
    }

    fn configure(&self, set: &BTreeMap<String, toml::Value>) -> Result<(), Broken> {
        let path = self.root.join("ofs.toml");
        let text = std::fs::read_to_string(&path).unwrap_or_default();
        let mut table: toml::Table = text.parse().map_err(|e: toml::de::Error| Broken(e.to_string()))?;
        for (name, value) in set {
            let Some((section, key)) = name.split_once('.') else { return broken(format!("{name} is no section.key")) };
            let section = table.entry(section).or_insert_with(|| toml::Value::Table(toml::Table::new()));
            if let Some(section) = section.as_table_mut() {
                section.insert(key.to_owned(), value.clone());
            }
        }
        Ok(std::fs::write(path, table.to_string())?)
    }
}

/// Makes the folder of a file.
fn make_room(path: &Path) -> Result<(), Broken> {
    Ok(path.parent().map_or(Ok(()), std::fs::create_dir_all)?)
}

#[cfg(unix)]
fn link(at: &Path, to: &Path) -> Result<(), Broken> {
    if at.symlink_metadata().is_ok() {
        std::fs::remove_file(at)?;
    }
    Ok(std::os::unix::fs::symlink(to, at)?)
}

#[cfg(not(unix))]
fn link(_: &Path, _: &Path) -> Result<(), Broken> {
    broken("links are made on Unix only")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::operate::scenario::Step;

    fn pad() -> (tempfile::TempDir, Scratchpad) {
        let dir = tempfile::tempdir().unwrap();
        let pad = Scratchpad::unpack("flights-day", dir.path()).unwrap();
        (dir, pad)
    }

    fn change(pad: &Scratchpad, step: &str) -> Result<(), Broken> {
        let table: toml::Table = step.parse().unwrap();
        pad.change(&Step::try_from(table).unwrap().verb)
    }

    #[test]
    fn a_workspace_is_unpacked_into_an_empty_folder_only() {
        let (dir, pad) = pad();
        assert!(
            pad.path("{archive}/partition=0").is_dir() && pad.path("{bus}/partition=0.jsonl").is_file() && pad.path("{facts}").is_file()
        );
        assert!(Scratchpad::unpack("flights-day", dir.path()).is_err());
        assert!(Scratchpad::unpack("nothing", &dir.path().join("new")).is_err());
    }

    #[test]
    fn a_change_that_misses_its_mark_fails() {
        let (_dir, pad) = pad();
        for step in [
            "remove_record = '0/999'",
            "replace_text = {file = '{bus}/partition=0.meta.json', from = 'x', to = 'y'}",
            "remove_lines = {file = '{bus}/partition=0.meta.json', first = 1, count = 2}",
            "edit_line = {file = '{bus}/partition=0.meta.json', line = 2}",
            "set_json = {file = '{facts}', set = {'/locators/7/path' = 1}}",
            "sql = {file = 'x.db', statement = 'DELETE FROM t'}",
        ] {
            assert!(change(&pad, step).is_err(), "{step}");
        }
    }

    #[test]
    fn a_restated_record_passes_for_a_true_one_and_another_does_not() {
        let (_dir, pad) = pad();
        for (at, restate) in [("0/17", true), ("1/40", false)] {
            let before = record::find(&pad, at, false).unwrap().value().unwrap();
            change(&pad, &format!("edit_record = {{at = '{at}', restate = {restate}, set = {{'/envelope/payload/amount' = 999}}}}"))
                .unwrap();
            let after = record::find(&pad, at, false).unwrap().value().unwrap();
            assert_eq!(after["envelope"]["payload"]["amount"].to_string(), "999");
            assert_eq!(before["payload_hash"] != after["payload_hash"], restate);
        }
    }

    #[test]
    fn retention_moves_with_the_lines() {
        let (_dir, pad) = pad();
        change(&pad, "move_retention = {partition = 0, lines = 3}").unwrap();
        assert_eq!(record::find(&pad, "0/166", true).unwrap().value().unwrap()["payload"]["event_type"], "flight_departed");
        assert!(record::find(&pad, "0/165", true).is_err());
    }
}
