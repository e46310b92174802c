//! Where the definition of a feature group is not of its form: which key of which definition, in words.

use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, SeqAccess, Visitor};

use crate::contract::{Problem, ReasonCode};
use crate::text::{clip, nearest};

/// Any YAML.
pub(super) enum Node {
    Null,
    Text(String),
    Fraction,
    /// A number or truth value.
    Other,
    List(Vec<Node>),
    Map(Vec<(String, Node)>),
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Any;
        impl<'de> Visitor<'de> for Any {
            type Value = Node;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("anything")
            }
            fn visit_bool<E>(self, _: bool) -> Result<Node, E> {
                Ok(Node::Other)
            }
            fn visit_i64<E>(self, _: i64) -> Result<Node, E> {
                Ok(Node::Other)
            }
            fn visit_u64<E>(self, _: u64) -> Result<Node, E> {
                Ok(Node::Other)
            }
            fn visit_i128<E>(self, _: i128) -> Result<Node, E> {
                Ok(Node::Other)
            }
            fn visit_u128<E>(self, _: u128) -> Result<Node, E> {
                Ok(Node::Other)
            }
            fn visit_f64<E>(self, _: f64) -> Result<Node, E> {
                Ok(Node::Fraction)
            }
            fn visit_str<E>(self, text: &str) -> Result<Node, E> {
                Ok(Node::Text(text.to_owned()))
            }
            fn visit_unit<E>(self) -> Result<Node, E> {
                Ok(Node::Null)
            }
            fn visit_none<E>(self) -> Result<Node, E> {
                Ok(Node::Null)
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Node, A::Error> {
                let mut list = Vec::new();
                while let Some(item) = items.next_element()? {
                    list.push(item);
                }
                Ok(Node::List(list))
            }
            fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Node, A::Error> {
                let mut map = Vec::new();
                while let Some(entry) = entries.next_entry()? {
                    map.push(entry);
                }
                Ok(Node::Map(map))
            }
        }
        deserializer.deserialize_any(Any)
    }
}

/// What a key may hold.
enum Holds {
    Text,
    Texts,
    Each(&'static Form),
    Conditions,
}

/// The form of a definition.
struct Form {
    /// What it is called.
    noun: &'static str,
    /// Its keys and whether each is needed; the first one names it.
    keys: &'static [(&'static str, bool, Holds)],
}

static GROUP: Form = Form {
    noun: "feature group",
    keys: &[
        ("name", true, Holds::Text),
        ("version", true, Holds::Text),
        ("key_type", false, Holds::Text),
        ("key_precedence", false, Holds::Texts),
        ("windows", false, Holds::Each(&WINDOW)),
        ("features", false, Holds::Each(&FEATURE)),
        ("availability", false, Holds::Text),
    ],
};

static WINDOW: Form =
    Form { noun: "window", keys: &[("window", true, Holds::Text), ("duration", true, Holds::Text), ("ttl", true, Holds::Text)] };

static FEATURE: Form = Form {
    noun: "feature",
    keys: &[
        ("name", true, Holds::Text),
        ("agg", true, Holds::Text),
        ("field", false, Holds::Text),
        ("type", false, Holds::Text),
        ("where", false, Holds::Conditions),
    ],
};

fn bad(at: String, message: String) -> Result<(), Problem> {
    Err(Problem::new(ReasonCode::FeatureDefinitionInvalid, at, message))
}

/// Holds the definitions of feature groups against their form.
///
/// # Errors
/// `FEATURE_DEFINITION_INVALID`, naming the first definition and the key that is missing, unknown or of another kind.
pub(super) fn check(groups: &[Node]) -> Result<(), Problem> {
    each(groups, "feature_groups", &GROUP)
}

fn each(list: &[Node], at: &str, form: &Form) -> Result<(), Problem> {
    list.iter().enumerate().try_for_each(|(i, node)| definition(node, format!("{at}[{i}]"), form))
}

fn definition(node: &Node, at: String, form: &Form) -> Result<(), Problem> {
    let Node::Map(entries) = node else { return bad(at, format!("a {} is a map of its keys", form.noun)) };
    let find = |name: &str| entries.iter().find(|(key, _)| key == name).map(|(_, node)| node);
    let called = match form.keys.first().and_then(|(name, ..)| find(name)) {
        Some(Node::Text(name)) => format!("{} `{}`", form.noun, clip(name, 80)),
        _ => format!("this {}", form.noun),
    };
    for (key, _) in entries {
        if !form.keys.iter().any(|(name, ..)| name == key) {
            let known = || form.keys.iter().map(|(name, ..)| *name);
            let hint = match nearest(key, known()) {
                Some(near) => format!("did you mean `{near}`?"),
                None => format!("known are {}", known().collect::<Vec<_>>().join(", ")),
            };
            return bad(at, format!("{called}: unknown key `{}`; {hint}", clip(key, 80)));
        }
    }
    for (name, needed, holds) in form.keys {
        let there = format!("{at}.{name}");
        match find(name) {
            None if *needed => return bad(there, format!("{called}: `{name}` is missing")),
            None => {}
            Some(Node::Null) if !needed => {}
            Some(node) => value(node, there, &format!("{called}: `{name}`"), holds)?,
        }
    }
    Ok(())
}

fn value(node: &Node, at: String, what: &str, holds: &Holds) -> Result<(), Problem> {
    let scalar = |node: &Node| !matches!(node, Node::Null | Node::List(_) | Node::Map(_));
    match (holds, node) {
        (Holds::Text, node) if !scalar(node) => bad(at, format!("{what} must be text")),
        (Holds::Text, _) => Ok(()),
        (Holds::Texts, Node::List(list)) if list.iter().all(scalar) => Ok(()),
        (Holds::Texts, _) => bad(at, format!("{what} must be a list of texts")),
        (Holds::Each(form), Node::List(list)) => each(list, &at, form),
        (Holds::Each(form), _) => bad(at, format!("{what} must be a list, each item a {}", form.noun)),
        (Holds::Conditions, Node::Map(entries)) => entries.iter().try_for_each(|(field, node)| {
            let why = match node {
                Node::Fraction => "a fraction cannot be compared exactly here; quote it and compare text",
                Node::List(_) | Node::Map(_) => "expected a text, a whole number, true, false or null",
                _ => return Ok(()),
            };
            bad(format!("{at}.{field}"), format!("{what} of `{}`: {why}", clip(field, 80)))
        }),
        (Holds::Conditions, _) => bad(at, format!("{what} must be a map of payload fields to values")),
    }
}
