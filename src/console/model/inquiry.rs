//! Questions that are being answered, and what one chooses from to ask them.

use super::prompt::Prompt;
use crate::answer::Line;
use crate::console::data::inquiry::Question;
use crate::console::panes::parts::Cursor;

/// Most offers that are shown of those that fit.
const MAX_HITS: usize = 1_000;

/// A question with its answer, once it is there.
#[derive(Debug, Clone)]
pub struct Inquiry {
    /// Which of all that were asked: an answer to another one is not taken for this one's.
    pub id: u64,
    /// What is asked.
    pub question: Question,
    /// How far it is.
    pub state: State,
    /// The selected line, and the first in sight.
    pub cursor: Cursor,
}

/// How far a question is.
#[derive(Debug, Clone, PartialEq)]
pub enum State {
    /// It is being answered: units done and to do, where that is known.
    Asking(u64, u64),
    /// It was answered.
    Answered(Vec<Line>),
}

impl Inquiry {
    /// The lines of the answer; none while it is still to come.
    pub fn lines(&self) -> &[Line] {
        match &self.state {
            State::Asking(..) => &[],
            State::Answered(lines) => lines,
        }
    }
}

/// What is chosen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Choosing {
    /// A row of this data set, to be explained.
    Row(String),
    /// A data set that this one is compared with.
    DataSet(String),
    /// A run with whose pins those of this one are compared.
    Run(String),
}

/// Something to choose: what it is called, and what else is known of it.
pub type Offer = (String, String);

/// A choice, by moving or by typing.
#[derive(Debug, Clone)]
pub struct Choose {
    /// What is chosen.
    pub what: Choosing,
    /// What was typed: it narrows the offers, and where none fits it is the choice itself.
    pub prompt: Prompt,
    /// What there is to choose from; none while it is being looked for.
    pub offers: Option<Vec<Offer>>,
    /// The offers that fit, by place.
    pub hits: Vec<usize>,
    /// The selected one.
    pub at: usize,
    /// Why there are no offers, or what is wrong.
    pub problem: Option<String>,
}

impl Choose {
    /// A choice from these offers, with something typed already.
    pub fn new(what: Choosing, offers: Option<Vec<Offer>>, prompt: Prompt) -> Self {
        let mut choose = Choose { what, prompt, offers, hits: Vec::new(), at: 0, problem: None };
        choose.narrow();
        choose
    }

    /// Finds the offers that fit what was typed.
    pub fn narrow(&mut self) {
        let typed = self.prompt.text().trim().to_lowercase();
        let fits = |(name, about): &Offer| name.to_lowercase().contains(&typed) || about.to_lowercase().contains(&typed);
        let offers = self.offers.iter().flatten().enumerate();
        self.hits = offers.filter(|(_, offer)| typed.is_empty() || fits(offer)).map(|(at, _)| at).take(MAX_HITS).collect();
        self.at = 0;
    }

    /// What is chosen now: the selected offer, or what was typed where none fits.
    pub fn chosen(&self) -> Option<String> {
        let offer = self.hits.get(self.at).and_then(|at| self.offers.as_ref()?.get(*at));
        let typed = self.prompt.text().trim();
        offer.map(|(name, _)| name.clone()).or_else(|| (!typed.is_empty()).then(|| typed.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn offers_are_narrowed_and_what_fits_none_is_the_choice() {
        let offers = vec![("e1".to_owned(), "key A".to_owned()), ("e2".to_owned(), "key B".to_owned())];
        let mut choose = Choose::new(Choosing::Row("dm".into()), Some(offers), Prompt::new(64));
        assert_eq!((choose.hits.len(), choose.chosen().as_deref()), (2, Some("e1")));
        for (typed, chosen) in [("b", "e2"), ("E1", "e1"), ("e9", "e9")] {
            choose.prompt.set(typed);
            choose.narrow();
            assert_eq!(choose.chosen().as_deref(), Some(chosen));
        }
        assert_eq!(Choose::new(Choosing::Row("dm".into()), None, Prompt::new(64)).chosen(), None);
    }
}
