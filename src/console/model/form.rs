//! The form that makes an intent: what `ofs intent new` takes, a line each.

use std::path::PathBuf;

use super::prompt::Prompt;
use crate::operate::intent_new::Selectors;
use crate::time::Instant;

/// Longest line of the form, in bytes.
const LINE: usize = 256;

/// A line of the form.
#[derive(Debug, Clone)]
pub struct Field {
    /// What it is called.
    pub name: &'static str,
    /// What holds where it is left empty.
    pub empty: &'static str,
    /// What was typed.
    pub prompt: Prompt,
}

/// A form being filled in.
#[derive(Debug, Clone)]
pub struct Form {
    /// Its lines, in the order in which they are filled in.
    pub fields: Vec<Field>,
    /// The line that has the keys.
    pub at: usize,
    /// What is wrong with it.
    pub problem: Option<String>,
    /// It was handed in, and the answer is still to come.
    pub waiting: bool,
}

const NAMES: [(&str, &str); 7] = [
    ("file", "intents/new.json"),
    ("from", "the first event; an instant like 2013-01-31T06:00:00Z"),
    ("to", "the last event; itself excluded where given"),
    ("features", "the only set of the authority"),
    ("as of", "the latest observed label"),
    ("coverage", "1: every row needs a label"),
    ("request id", "a digest of everything else"),
];

impl Default for Form {
    fn default() -> Self {
        let fields = NAMES.map(|(name, empty)| Field { name, empty, prompt: Prompt::new(LINE) });
        Form { fields: fields.into(), at: 0, problem: None, waiting: false }
    }
}

impl Form {
    fn text(&self, name: &str) -> Option<&str> {
        let field = self.fields.iter().find(|field| field.name == name)?;
        Some(field.prompt.text().trim()).filter(|text| !text.is_empty())
    }

    fn instant(&self, name: &str) -> Result<Option<Instant>, String> {
        self.text(name).map(Instant::parse).transpose().map_err(|e| format!("{name}: {e}"))
    }

    /// Where the intent is to be written, relative to the workspace, and what it is to say.
    ///
    /// # Errors
    /// Which line cannot be understood, and why.
    pub fn read(&self) -> Result<(PathBuf, Selectors), String> {
        let owned = |name: &str| self.text(name).map(str::to_owned);
        let selectors = Selectors {
            from: self.instant("from")?,
            to: self.instant("to")?,
            features: owned("features"),
            asof: self.instant("as of")?,
            min_coverage: owned("coverage"),
            request_id: owned("request id"),
            ..Selectors::default()
        };
        Ok((self.file().into(), selectors))
    }

    /// Where it is written. A plain name is one of the workspace's intents, so that it is found among them.
    fn file(&self) -> String {
        match self.text("file") {
            None => "intents/new.json".into(),
            Some(path) if path.contains('/') => path.into(),
            Some(name) => format!("intents/{}.json", name.strip_suffix(".json").unwrap_or(name)),
        }
    }

    /// The command line that does the same.
    pub fn command(&self) -> String {
        let flags = [("from", "--from"), ("to", "--to"), ("features", "--features"), ("as of", "--asof"), ("coverage", "--min-coverage")];
        let mut line = "ofs intent new".to_owned();
        for (name, flag) in flags.into_iter().chain([("request id", "--request-id")]) {
            if let Some(text) = self.text(name) {
                line.push_str(&format!(" {flag} {}", crate::console::msg::quoted(text)));
            }
        }
        format!("{line} -o {}", crate::console::msg::quoted(&self.file()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_become_selectors_and_a_bad_one_is_named() {
        let mut form = Form::default();
        assert_eq!(form.read().unwrap(), ("intents/new.json".into(), Selectors::default()));
        assert_eq!(form.command(), "ofs intent new -o intents/new.json");
        form.fields[1].prompt.set("2026-01-01T00:00:00Z");
        form.fields[3].prompt.set(" a@v1 ");
        let (_, selectors) = form.read().unwrap();
        assert_eq!((selectors.from, selectors.features), (Some(Instant::parse("2026-01-01T00:00:00Z").unwrap()), Some("a@v1".into())));
        assert_eq!(form.command(), "ofs intent new --from 2026-01-01T00:00:00Z --features a@v1 -o intents/new.json");
        for (typed, file) in [("night", "intents/night.json"), ("night.json", "intents/night.json"), ("a/b", "a/b")] {
            form.fields[0].prompt.set(typed);
            assert_eq!(form.read().unwrap().0, PathBuf::from(file));
            assert!(form.command().ends_with(&format!(" -o {file}")));
        }
        form.fields[4].prompt.set("yesterday");
        assert!(form.read().unwrap_err().starts_with("as of: "));
    }
}
