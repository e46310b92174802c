//! The fields of a payload, wherever they lie: in the text of a record, or in typed columns of a sealed
//! segment. Both answer every question alike, so nothing that is computed depends on which served.

use std::borrow::Cow;

use arrow::array::{Array, BooleanArray, Int64Array, StringArray};
use serde_json::Value;

use crate::contract::decimal::{self, Token};
use crate::json::{Item, Kind};

/// A payload.
#[derive(Debug, Clone, Copy)]
pub enum Payload<'a> {
    /// The event has none, or one that is no object.
    None,
    /// An object of a record's text.
    Json(Item<'a>),
    /// A row of a sealed segment.
    Row(&'a [FieldColumn], usize),
}

/// One payload field of a sealed segment.
#[derive(Debug)]
pub struct FieldColumn {
    /// The field's name.
    pub name: String,
    /// Its values; a null is a field that is null or not there.
    pub values: FieldValues,
}

/// Values of one payload field. Each form gives back exactly the text that the record had.
#[derive(Debug)]
pub enum FieldValues {
    /// Booleans.
    Bool(BooleanArray),
    /// Numbers that are written as 64-bit integers are.
    Int(Int64Array),
    /// Other number tokens, as written.
    Number(StringArray),
    /// Strings without an escape.
    Text(StringArray),
    /// Any JSON, as written.
    Json(StringArray),
}

/// One field's value.
#[derive(Debug, Clone, Copy)]
pub enum Field<'a> {
    /// Of a record's text.
    Item(Item<'a>),
    /// A boolean.
    Bool(bool),
    /// A number that is written as a 64-bit integer is.
    Int(i64),
    /// Another number token.
    Number(&'a str),
    /// A string without an escape.
    Text(&'a str),
    /// Any JSON value's text.
    Json(&'a str),
}

impl<'a> Payload<'a> {
    /// The payload field of an envelope.
    pub fn of(envelope: Item<'a>) -> Self {
        Payload::in_field(envelope.get("payload"))
    }

    /// The same, where the field was looked up before.
    pub(super) fn in_field(field: Option<Item<'a>>) -> Self {
        field.filter(|p| p.kind() == Kind::Object).map_or(Payload::None, Payload::Json)
    }

    /// A field, where it is there. Of a segment's row a field that is null counts as not there, and nothing
    /// that asks tells the two apart.
    pub fn get(self, name: &str) -> Option<Field<'a>> {
        match self {
            Payload::None => None,
            Payload::Json(item) => item.get(name).map(Field::Item),
            Payload::Row(columns, row) => columns.iter().find(|c| c.name == name)?.values.get(row),
        }
    }

    /// The object, where the event came as text.
    pub fn item(self) -> Option<Item<'a>> {
        match self {
            Payload::Json(item) => Some(item),
            _ => None,
        }
    }
}

impl FieldValues {
    /// The value in a row; nothing for a null.
    pub fn get(&self, row: usize) -> Option<Field<'_>> {
        match self {
            FieldValues::Bool(a) => a.is_valid(row).then(|| Field::Bool(a.value(row))),
            FieldValues::Int(a) => a.is_valid(row).then(|| Field::Int(a.value(row))),
            FieldValues::Number(a) => a.is_valid(row).then(|| Field::Number(a.value(row))),
            FieldValues::Text(a) => a.is_valid(row).then(|| Field::Text(a.value(row))),
            FieldValues::Json(a) => a.is_valid(row).then(|| Field::Json(a.value(row))),
        }
    }
}

impl<'a> Field<'a> {
    /// Whether this is `null`.
    pub fn is_null(self) -> bool {
        match self {
            Field::Item(item) => item.is_null(),
            Field::Json(text) => text == "null",
            _ => false,
        }
    }

    /// The string, where this is one.
    pub fn str(self) -> Option<Cow<'a, str>> {
        match self {
            Field::Item(item) => item.str(),
            Field::Text(text) => Some(Cow::Borrowed(text)),
            Field::Json(text) => quoted(text).map(|inner| crate::json::unescape(inner.as_bytes())),
            _ => None,
        }
    }

    /// The number token as written, where this is a number.
    pub fn number(self) -> Option<Cow<'a, str>> {
        match self {
            Field::Item(item) => item.number().map(Cow::Borrowed),
            Field::Int(value) => Some(Cow::Owned(value.to_string())),
            Field::Number(token) => Some(Cow::Borrowed(token)),
            Field::Json(text) => text.starts_with(|c: char| c == '-' || c.is_ascii_digit()).then_some(Cow::Borrowed(text)),
            _ => None,
        }
    }

    /// The boolean, where this is one.
    pub fn bool(self) -> Option<bool> {
        match self {
            Field::Item(item) => item.bool(),
            Field::Bool(value) => Some(value),
            Field::Json("true") => Some(true),
            Field::Json("false") => Some(false),
            _ => None,
        }
    }

    /// A number that is integral and fits 64 bits.
    pub fn int64(self) -> Option<i64> {
        match self {
            Field::Int(value) => Some(value),
            other => other.number().and_then(|token| decimal::int64(&token)),
        }
    }

    /// A number as the nearest float64, where that is finite.
    pub fn float64(self) -> Option<f64> {
        if let Field::Int(value) = self {
            return Some(value as f64);
        }
        self.number().and_then(|token| token.parse::<f64>().ok()).filter(|value| value.is_finite())
    }

    /// A number, or the plain text of one, as `decimal(precision, scale)`.
    pub fn decimal(self, precision: u8, scale: u8) -> Option<i128> {
        match self.number() {
            Some(token) => decimal::decimal(&token, true, precision, scale),
            None => self.str().and_then(|text| decimal::decimal(&text, false, precision, scale)),
        }
    }

    /// The text of the value as written; for a string, what stands between its quotes.
    pub fn raw(self) -> Cow<'a, str> {
        match self {
            Field::Item(item) => Cow::Borrowed(item.raw()),
            Field::Bool(value) => Cow::Borrowed(if value { "true" } else { "false" }),
            Field::Int(value) => Cow::Owned(value.to_string()),
            Field::Number(text) | Field::Text(text) => Cow::Borrowed(text),
            Field::Json(text) => Cow::Borrowed(quoted(text).unwrap_or(text)),
        }
    }
}

fn quoted(text: &str) -> Option<&str> {
    text.strip_prefix('"')?.strip_suffix('"')
}

/// Whether a payload value equals a filter's or condition's scalar; a missing field equals null.
/// Numbers are equal by value, whatever their spelling.
pub fn equals(field: Option<Field<'_>>, wanted: &Value) -> bool {
    match (field, wanted) {
        (None, Value::Null) => true,
        (None, _) => false,
        (Some(field), Value::Null) => field.is_null(),
        (Some(field), Value::Bool(b)) => field.bool() == Some(*b),
        (Some(field), Value::String(s)) => field.str().is_some_and(|t| t == s.as_str()),
        (Some(field), Value::Number(n)) => match (field.number(), n.as_str()) {
            (Some(a), b) if a == b => true,
            (Some(a), b) => match (Token::parse(&a, true), Token::parse(b, true)) {
                (Some(a), Some(b)) => a.normal() == b.normal(),
                _ => false,
            },
            _ => false,
        },
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::json::Tape;

    #[test]
    fn a_column_answers_as_the_text_does() {
        let texts = ["null", "true", "false", "5", "-0", "5.0", "1e1", "9223372036854775808", "\"x\"", "\"\\u00e9\\n\"", "\"7.5\"", "[1]"];
        for text in texts {
            let mut tape = Tape::new();
            let item = Field::Item(tape.parse(text.as_bytes()).unwrap().root());
            let json = StringArray::from(vec![text]);
            let mut columns = vec![FieldValues::Json(json)];
            match text {
                "true" | "false" => columns.push(FieldValues::Bool(vec![text == "true"].into())),
                "5" => columns.push(FieldValues::Int(vec![5].into())),
                "-0" | "5.0" | "1e1" | "9223372036854775808" => columns.push(FieldValues::Number(StringArray::from(vec![text]))),
                "\"x\"" => columns.push(FieldValues::Text(StringArray::from(vec!["x"]))),
                _ => {}
            }
            for column in &columns {
                let field = column.get(0).unwrap();
                assert_eq!(field.is_null(), item.is_null(), "{text} {column:?}");
                assert_eq!((field.str(), field.number(), field.bool()), (item.str(), item.number(), item.bool()), "{text} {column:?}");
                assert_eq!((field.int64(), field.float64()), (item.int64(), item.float64()), "{text} {column:?}");
                assert_eq!((field.decimal(4, 1), field.raw()), (item.decimal(4, 1), item.raw()), "{text} {column:?}");
                for wanted in ["null", "true", "5", "10", "\"x\"", "\"é\\n\""] {
                    let wanted: Value = serde_json::from_str(wanted).unwrap();
                    assert_eq!(equals(Some(field), &wanted), equals(Some(item), &wanted), "{text} {wanted}");
                }
            }
        }
    }
}
