//! The help: every action of the table with the keys that it has now.

use crate::console::action::{Entry, Place, TABLE};
use crate::console::keys::shown;
use crate::console::look::Role;
use crate::console::model::Model;
use crate::console::panes::parts::{Piece, piece};

/// Its lines: the keys of the pane in sight first, then those that hold everywhere, then the other panes'.
pub(super) fn lines(model: &Model) -> Vec<Vec<Piece<'static>>> {
    let here = model.pane().place();
    let mut places: Vec<Place> = vec![here, Place::Global];
    for entry in TABLE {
        if !places.contains(&entry.place) {
            places.push(entry.place);
        }
    }
    let mut lines = Vec::new();
    for place in places {
        let entries: Vec<&Entry> = TABLE.iter().filter(|e| e.place == place && model.offers(e.action)).collect();
        if entries.is_empty() {
            continue;
        }
        lines.push(vec![piece(format!("{} ", place.name()), Role::Header)]);
        lines.extend(entries.into_iter().map(|entry| line(model, entry)));
        lines.push(Vec::new());
    }
    lines.push(vec![piece("Ctrl-C calls off what is being typed or asked; twice within a second it leaves.", Role::Dim)]);
    lines.push(vec![piece("Filters: text  !text  key=value  key!=value  age>2h  age<10m, all must hold.", Role::Dim)]);
    lines
}

fn line(model: &Model, entry: &Entry) -> Vec<Piece<'static>> {
    let keys: Vec<String> = model.keys.keys(entry.action).iter().map(|chord| shown(*chord)).collect();
    let keys = if keys.is_empty() { format!(":{}", entry.name) } else { keys.join(" ") };
    let about = if entry.dangerous { format!("{} (cannot be undone)", entry.help) } else { entry.help.to_owned() };
    vec![
        piece(format!("{keys:>16}  "), if entry.dangerous { Role::Danger } else { Role::Key }),
        piece(format!("{:<16} ", entry.name), Role::Text),
        piece(about, Role::Dim),
    ]
}
