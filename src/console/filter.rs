//! What narrows the rows of a pane: one language for `--filter`, `/` and every pane.

use std::borrow::Cow;
use std::fmt;
use std::time::Duration;

/// A row that can be looked through.
pub trait Filterable {
    /// The value of a column, by its name in lower case; nothing where the row has no such column.
    fn field(&self, key: &str) -> Option<Cow<'_, str>>;

    /// How long ago it last changed, where that is known.
    fn age(&self) -> Option<Duration>;

    /// Everything that a substring is looked for in.
    fn text(&self) -> Cow<'_, str>;

    /// [`Filterable::text`] in lower case; rows that come by the thousand keep it ready.
    fn folded(&self) -> Cow<'_, str> {
        Cow::Owned(self.text().to_lowercase())
    }
}

/// One condition.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Term {
    /// A column has this value, case aside; a value that ends in `*` stands for all that begin so.
    Is { key: String, value: String, not: bool },
    /// The row changed longer ago than this, or less long.
    Age { older: bool, than: Duration },
    /// The row holds this text, case aside.
    Holds { text: String, not: bool },
}

/// Terms that must all hold. The empty filter lets everything pass.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Filter {
    source: String,
    terms: Vec<Term>,
}

/// Longest filter, in bytes.
pub const MAX_FILTER: usize = 512;

/// Why a text is no filter.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FilterError {
    /// A span of time that cannot be read.
    #[error("{0}: expected a whole number and one of s, m, h, d, like age>2h")]
    Age(String),
    /// A condition without a column or a value.
    #[error("{0}: expected key=value or key!=value")]
    Lopsided(String),
    /// Longer than [`MAX_FILTER`].
    #[error("the filter is longer than the limit of {MAX_FILTER} bytes")]
    TooLong,
}

impl Filter {
    /// Reads a filter: terms parted by spaces, all must hold; `key=value`, `key!=value`, `age>2h`, `age<10m`,
    /// else a substring of the row (`!text`: not a substring).
    ///
    /// # Errors
    /// What is wrong with which term.
    pub fn parse(text: &str) -> Result<Self, FilterError> {
        if text.len() > MAX_FILTER {
            return Err(FilterError::TooLong);
        }
        let terms = text.split_whitespace().map(term).collect::<Result<Vec<_>, _>>()?;
        Ok(Filter { source: text.trim().to_owned(), terms })
    }

    /// Whether it lets everything pass.
    pub fn is_empty(&self) -> bool {
        self.terms.is_empty()
    }

    /// Whether all terms hold for the row.
    pub fn matches(&self, row: &(impl Filterable + ?Sized)) -> bool {
        self.terms.iter().all(|term| holds(term, row))
    }

    /// Whether every row that passes this filter also passes `earlier`, so that only those need be looked at.
    pub fn narrows(&self, earlier: &Filter) -> bool {
        let Some((last, rest)) = earlier.terms.split_last() else { return true };
        self.terms.len() >= earlier.terms.len()
            && self.terms.iter().zip(rest).all(|(a, b)| a == b)
            && self.terms.get(rest.len()).is_some_and(|now| match (now, last) {
                (Term::Holds { text, not: false }, Term::Holds { text: before, not: false }) => text.contains(before.as_str()),
                _ => now == last,
            })
    }
}

impl fmt::Display for Filter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.source)
    }
}

fn term(text: &str) -> Result<Term, FilterError> {
    let folded = text.to_lowercase();
    for (sign, older) in [('>', true), ('<', false)] {
        if let Some(("age", span)) = folded.split_once(sign) {
            let than = span_of(span).ok_or_else(|| FilterError::Age(text.to_owned()))?;
            return Ok(Term::Age { older, than });
        }
    }
    if let Some((key, value)) = folded.split_once('=') {
        let (key, not) = key.strip_suffix('!').map_or((key, false), |key| (key, true));
        if key.is_empty() || value.is_empty() {
            return Err(FilterError::Lopsided(text.to_owned()));
        }
        return Ok(Term::Is { key: key.to_owned(), value: value.to_owned(), not });
    }
    Ok(match folded.strip_prefix('!') {
        Some(rest) if !rest.is_empty() => Term::Holds { text: rest.to_owned(), not: true },
        _ => Term::Holds { text: folded, not: false },
    })
}

/// A span like `90s`, `10m`, `2h` or `3d`.
fn span_of(text: &str) -> Option<Duration> {
    let unit = match text.chars().last()? {
        's' => 1,
        'm' => 60,
        'h' => 3_600,
        'd' => 86_400,
        _ => return None,
    };
    let number: u64 = text.get(..text.len() - 1)?.parse().ok()?;
    Some(Duration::from_secs(number.checked_mul(unit)?))
}

fn holds(term: &Term, row: &(impl Filterable + ?Sized)) -> bool {
    match term {
        Term::Is { key, value, not } => {
            let found = row.field(key).is_some_and(|field| match value.strip_suffix('*') {
                Some(start) => field.to_lowercase().starts_with(start),
                None => field.to_lowercase() == *value,
            });
            found != *not
        }
        // What has no known age is neither old nor young.
        Term::Age { older, than } => row.age().is_some_and(|age| if *older { age > *than } else { age < *than }),
        Term::Holds { text, not } => row.folded().contains(text.as_str()) != *not,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Row {
        state: &'static str,
        seconds: Option<u64>,
    }

    impl Filterable for Row {
        fn field(&self, key: &str) -> Option<Cow<'_, str>> {
            (key == "state").then_some(Cow::Borrowed(self.state))
        }

        fn age(&self) -> Option<Duration> {
            self.seconds.map(Duration::from_secs)
        }

        fn text(&self) -> Cow<'_, str> {
            Cow::Owned(format!("{} Flights-Day", self.state))
        }
    }

    fn passes(filter: &str, state: &'static str, seconds: Option<u64>) -> bool {
        Filter::parse(filter).unwrap().matches(&Row { state, seconds })
    }

    #[test]
    fn all_terms_must_hold() {
        for (filter, state, seconds, expected) in [
            ("", "FAILED", None, true),
            ("state=failed", "FAILED", None, true),
            ("state=fail", "FAILED", None, false),
            ("state=fail*", "FAILED", None, true),
            ("state!=failed", "FAILED", None, false),
            ("state!=failed", "DONE", None, true),
            ("other=x", "DONE", None, false),
            ("other!=x", "DONE", None, true),
            ("flights", "DONE", None, true),
            ("FLIGHTS-d", "DONE", None, true),
            ("!flights", "DONE", None, false),
            ("age>2h", "DONE", Some(7_201), true),
            ("age>2h", "DONE", Some(7_200), false),
            ("age<10m", "DONE", Some(599), true),
            ("age<10m", "DONE", None, false),
            ("state=done  age<1d day", "DONE", Some(60), true),
            ("state=done age<1d nothing", "DONE", Some(60), false),
        ] {
            assert_eq!(passes(filter, state, seconds), expected, "{filter} on {state} {seconds:?}");
        }
    }

    #[test]
    fn what_cannot_be_read_is_named() {
        for text in ["age>2", "age<h", "age>2w", "age>-1h", "age>99999999999999999999d", "age>é"] {
            assert_eq!(Filter::parse(text), Err(FilterError::Age(text.into())));
        }
        for text in ["=x", "key=", "!=x"] {
            assert_eq!(Filter::parse(text), Err(FilterError::Lopsided(text.into())));
        }
        assert_eq!(Filter::parse(&"x".repeat(MAX_FILTER + 1)), Err(FilterError::TooLong));
        assert_eq!(Filter::parse(" a  b ").unwrap().to_string(), "a  b");
    }

    #[test]
    fn a_longer_word_only_narrows() {
        let narrows = |now: &str, before: &str| Filter::parse(now).unwrap().narrows(&Filter::parse(before).unwrap());
        assert!(narrows("a", "") && narrows("ab", "a") && narrows("x ab", "x a") && narrows("a b", "a") && narrows("a", "a"));
        assert!(!narrows("a", "ab") && !narrows("", "a") && !narrows("!ab", "!a") && !narrows("state=ab", "state=a"));
        assert!(narrows("state=a b", "state=a"));
    }

    proptest::proptest! {
        #[test]
        fn any_text_is_handled(text in ".{0,60}") {
            if let Ok(filter) = Filter::parse(&text) {
                filter.matches(&Row { state: "DONE", seconds: Some(1) });
            }
        }
    }
}
