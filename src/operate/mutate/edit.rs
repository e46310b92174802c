//! JSON documents by pointer.

use std::path::Path;

use serde_json::{Map, Value};

use super::{Broken, broken};

pub(super) fn read_json(path: &Path) -> Result<Value, Broken> {
    let text = std::fs::read(path).map_err(|e| Broken(format!("{}: {e}", path.display())))?;
    serde_json::from_slice(&text).map_err(|e| Broken(format!("{}: {e}", path.display())))
}

pub(super) fn write_json(path: &Path, value: &Value) -> Result<(), Broken> {
    Ok(std::fs::write(path, format!("{}\n", crate::json::canonical(value)))?)
}

/// A TOML value as JSON.
pub fn to_json(value: &toml::Value) -> Value {
    serde_json::to_value(value).unwrap_or(Value::Null)
}

/// What stands at a pointer of a JSON file; nothing where the file or the place is not there.
pub fn at(path: &Path, pointer: &str) -> Option<Value> {
    read_json(path).ok()?.pointer(pointer).cloned()
}

/// Sets or removes what a pointer names. Objects on the way are made, elements of lists are not; a last
/// `-` appends to a list.
pub(super) fn apply(value: &mut Value, pointer: &str, to: Option<Value>) -> Result<(), Broken> {
    let lost = || Broken(format!("{pointer} leads nowhere"));
    let (parent, last) = pointer.rsplit_once('/').ok_or_else(lost)?;
    let mut here = value;
    for key in parent.split('/').skip(1) {
        here = match here {
            Value::Object(map) => map.entry(key).or_insert_with(|| Value::Object(Map::new())),
            Value::Array(list) => key.parse::<usize>().ok().and_then(|at| list.get_mut(at)).ok_or_else(lost)?,
            _ => return Err(lost()),
        };
    }
    match (here, to) {
        (Value::Object(map), Some(to)) => drop(map.insert(last.to_owned(), to)),
        (Value::Object(map), None) => drop(map.remove(last).ok_or_else(lost)?),
        (Value::Array(list), Some(to)) if last == "-" => list.push(to),
        (Value::Array(list), Some(to)) => {
            *last.parse::<usize>().ok().and_then(|at| list.get_mut(at)).ok_or_else(lost)? = to;
        }
        (Value::Array(list), None) => match last.parse::<usize>() {
            Ok(at) if at < list.len() => drop(list.remove(at)),
            _ => return Err(lost()),
        },
        _ => return broken(format!("{pointer}: nothing can be put there")),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn pointers_set_append_and_remove() {
        let mut value = json!({"a": [{"b": 1}]});
        apply(&mut value, "/a/0/b", Some(json!(2))).unwrap();
        apply(&mut value, "/a/-", Some(json!(3))).unwrap();
        apply(&mut value, "/x/y", Some(json!(4))).unwrap();
        apply(&mut value, "/a/0", None).unwrap();
        assert_eq!(value, json!({"a": [3], "x": {"y": 4}}));
        for bad in ["a", "/a/9", "/a/0/b", "/x/z"] {
            assert!(apply(&mut value, bad, None).is_err(), "{bad}");
        }
    }
}
