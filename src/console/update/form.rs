//! Filling in the form for a new intent.

use super::popups::{Step, keep, step};
use super::say;
use crate::console::keys::Chord;
use crate::console::model::Model;
use crate::console::model::form::Form;
use crate::console::model::popup::Popup;
use crate::console::msg::{Effect, Told};

/// A key. The form stays until its intent is written, so that nothing typed is lost to a refusal.
pub(super) fn key(model: &mut Model, chord: Chord, mut form: Form) -> Vec<Effect> {
    match step(chord) {
        Step::No => return Vec::new(),
        Step::Yes if form.waiting => {}
        Step::Yes => match form.read() {
            Ok((path, selectors)) => {
                (form.problem, form.waiting) = (None, true);
                keep(model, Popup::Form(form));
                return vec![Effect::NewIntent { path, selectors: Box::new(selectors) }];
            }
            Err(problem) => form.problem = Some(problem),
        },
        Step::Move(by) => form.at = form.at.saturating_add_signed(by).min(form.fields.len().saturating_sub(1)),
        Step::Other => {
            form.problem = None;
            if let Some(field) = form.fields.get_mut(form.at) {
                field.prompt.key(chord);
            }
        }
    }
    keep(model, Popup::Form(form))
}

/// The answer to a form that was handed in.
pub(super) fn answered(model: &mut Model, written: Result<String, String>) -> Vec<Effect> {
    let open = model.popups.iter().rposition(|popup| matches!(popup, Popup::Form(_)));
    match (written, open) {
        (Ok(name), open) => {
            if let Some(at) = open {
                model.popups.remove(at);
            }
            say(model, Told::good(format!("{name} is written; b builds from it")));
            model.written = Some(name);
        }
        (Err(problem), Some(at)) => {
            if let Some(Popup::Form(form)) = model.popups.get_mut(at) {
                (form.problem, form.waiting) = (Some(problem), false);
            }
        }
        (Err(problem), None) => say(model, Told::bad(problem)),
    }
    Vec::new()
}
