//! The feature authority (`interface` 3): which features exist, at which version, and the digests that
//! pin them. A definition that changed under the same name has another digest, and the digest is part
//! of the data set's identity (pitfall 23).

mod shape;

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;
use serde::de::{Deserializer, Error as _, Visitor};
use serde_json::{Value, json};

use super::{Problem, ReasonCode};
use crate::json;

/// Largest authority file in bytes.
pub const MAX_BYTES: u64 = 4 * 1024 * 1024;
/// Widest decimal.
const MAX_PRECISION: u8 = 38;

/// An aggregate over a window.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Agg {
    /// Rows, or non-null values of a field.
    Count,
    /// Distinct non-null values.
    CountDistinct,
    /// Exact sum.
    Sum,
    /// Exact mean, rounded once.
    Mean,
    /// Smallest value.
    Min,
    /// Largest value.
    Max,
    /// Last non-null value in canonical order.
    Last,
    /// First non-null value in canonical order.
    First,
    /// Sample standard deviation.
    Stddev,
    /// Seconds since the previous event of the key.
    SecondsSincePrevious,
}

impl Agg {
    const ALL: [(Agg, &'static str); 10] = [
        (Agg::Count, "count"),
        (Agg::CountDistinct, "count_distinct"),
        (Agg::Sum, "sum"),
        (Agg::Mean, "mean"),
        (Agg::Min, "min"),
        (Agg::Max, "max"),
        (Agg::Last, "last"),
        (Agg::First, "first"),
        (Agg::Stddev, "stddev"),
        (Agg::SecondsSincePrevious, "seconds_since_previous"),
    ];

    /// The name in the authority file.
    pub fn as_str(self) -> &'static str {
        Self::ALL.iter().find(|(agg, _)| *agg == self).map_or("", |(_, name)| name)
    }

    fn parse(name: &str) -> Option<Self> {
        Self::ALL.iter().find(|(_, n)| *n == name).map(|(agg, _)| *agg)
    }
}

/// The declared type of a feature's field.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum FieldType {
    /// 64-bit integer.
    Int64,
    /// IEEE double.
    Float64,
    /// `decimal(precision, scale)`.
    Decimal(u8, u8),
    /// Text.
    Utf8,
    /// True or false.
    Bool,
}

impl std::fmt::Display for FieldType {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            FieldType::Int64 => f.write_str("int64"),
            FieldType::Float64 => f.write_str("float64"),
            FieldType::Decimal(p, s) => write!(f, "decimal({p},{s})"),
            FieldType::Utf8 => f.write_str("utf8"),
            FieldType::Bool => f.write_str("bool"),
        }
    }
}

impl FieldType {
    fn parse(text: &str) -> Option<Self> {
        match text {
            "int64" => return Some(FieldType::Int64),
            "float64" => return Some(FieldType::Float64),
            "utf8" => return Some(FieldType::Utf8),
            "bool" => return Some(FieldType::Bool),
            _ => {}
        }
        let (precision, scale) = text.strip_prefix("decimal(")?.strip_suffix(')')?.split_once(',')?;
        let (precision, scale): (u8, u8) = (precision.trim().parse().ok()?, scale.trim().parse().ok()?);
        ((1..=MAX_PRECISION).contains(&precision) && scale <= precision).then_some(FieldType::Decimal(precision, scale))
    }

    fn numeric(self) -> bool {
        matches!(self, FieldType::Int64 | FieldType::Float64 | FieldType::Decimal(..))
    }
}

/// One trailing window.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Window {
    /// Name, part of the column name.
    pub name: String,
    /// Length in microseconds.
    pub duration_us: i64,
    /// Time to live in microseconds, at least the length.
    pub ttl_us: i64,
}

/// One feature.
#[derive(Debug, Clone, PartialEq)]
pub struct Feature {
    /// Name, the stem of its columns.
    pub name: String,
    /// What is computed.
    pub agg: Agg,
    /// Payload field that is read, with its type.
    pub input: Option<(String, FieldType)>,
    /// Equality conditions on payload fields, by field.
    pub conditions: BTreeMap<String, Value>,
}

/// What a row may see of its own partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Availability {
    /// Every event of its window, whenever it arrived.
    #[default]
    EventTime,
    /// Only events whose offset is not above the row's.
    Arrival,
}

impl Availability {
    /// The name in the authority file and in the index.
    pub fn as_str(self) -> &'static str {
        match self {
            Availability::EventTime => "event_time",
            Availability::Arrival => "arrival",
        }
    }
}

/// A feature group at one version.
#[derive(Debug, Clone, PartialEq)]
pub struct Group {
    /// Feature set id.
    pub name: String,
    /// Feature set version.
    pub version: String,
    /// Payload fields that may hold the key; the first that is there counts.
    pub key_precedence: Vec<String>,
    /// Windows in declared order.
    pub windows: Vec<Window>,
    /// Features in declared order.
    pub features: Vec<Feature>,
    /// Whether late events count in the windows of rows that arrived before them.
    pub availability: Availability,
}

/// The whole authority file.
#[derive(Debug, Clone, PartialEq)]
pub struct Profile {
    /// Policy that owns the definitions.
    pub policy_id: String,
    /// Its revision.
    pub revision: String,
    /// Label types and their values.
    pub vocabulary: BTreeMap<String, Vec<String>>,
    /// Groups in file order.
    pub groups: Vec<Group>,
    /// The online plane's content digest as the file declares it, if it does.
    pub declared_content_digest: Option<String>,
    /// The online plane's content digest as its recipe gives it (O042).
    pub content_digest: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawProfile<Definition> {
    policy_id: String,
    revision: String,
    #[serde(default)]
    label_types: Option<BTreeMap<String, Vec<String>>>,
    feature_groups: Vec<Definition>,
    #[serde(default)]
    content_digest: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawGroup {
    name: String,
    version: String,
    #[serde(default)]
    key_type: Option<String>,
    #[serde(default)]
    key_precedence: Option<Vec<String>>,
    #[serde(default)]
    windows: Option<Vec<RawWindow>>,
    #[serde(default)]
    features: Option<Vec<RawFeature>>,
    #[serde(default)]
    availability: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawWindow {
    window: String,
    duration: String,
    ttl: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawFeature {
    name: String,
    agg: String,
    #[serde(default)]
    field: Option<String>,
    #[serde(default, rename = "type")]
    type_name: Option<String>,
    #[serde(default, rename = "where")]
    conditions: Option<BTreeMap<String, Scalar>>,
}

/// A YAML scalar as an exact JSON value; floats are refused because their text is gone by then.
struct Scalar(Value);

impl<'de> Deserialize<'de> for Scalar {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct ScalarVisitor;
        impl Visitor<'_> for ScalarVisitor {
            type Value = Scalar;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a string, a whole number, true, false or null")
            }
            fn visit_bool<E>(self, v: bool) -> Result<Scalar, E> {
                Ok(Scalar(Value::Bool(v)))
            }
            fn visit_i64<E>(self, v: i64) -> Result<Scalar, E> {
                Ok(Scalar(json!(v)))
            }
            fn visit_u64<E>(self, v: u64) -> Result<Scalar, E> {
                Ok(Scalar(json!(v)))
            }
            fn visit_f64<E: serde::de::Error>(self, _: f64) -> Result<Scalar, E> {
                Err(E::custom("a fraction cannot be compared exactly here; quote it and compare text"))
            }
            fn visit_str<E>(self, v: &str) -> Result<Scalar, E> {
                Ok(Scalar(Value::String(v.to_owned())))
            }
            fn visit_unit<E>(self) -> Result<Scalar, E> {
                Ok(Scalar(Value::Null))
            }
            fn visit_none<E>(self) -> Result<Scalar, E> {
                Ok(Scalar(Value::Null))
            }
        }
        deserializer.deserialize_any(ScalarVisitor).map_err(D::Error::custom)
    }
}

fn default_vocabulary() -> BTreeMap<String, Vec<String>> {
    let types: [(&str, &[&str]); 3] = [
        ("fraud_disposition", &["FRAUD_CONFIRMED", "FRAUD_SUSPECTED", "LEGIT_CONFIRMED"]),
        ("chargeback_status", &["CHARGEBACK", "NO_CHARGEBACK", "PENDING"]),
        ("account_takeover", &["ATO_CONFIRMED", "ATO_NOT_CONFIRMED", "ATO_SUSPECTED"]),
    ];
    types.into_iter().map(|(name, values)| (name.to_owned(), values.iter().map(|v| (*v).to_owned()).collect())).collect()
}

/// Reads the authority file.
///
/// # Errors
/// `FEATURE_PROFILE_UNRESOLVED` where it cannot be read as one, `FEATURE_DEFINITION_INVALID` where a
/// definition makes no sense, `AMBIGUOUS_INPUT` where one name and version stand twice (O167).
pub fn parse(text: &str) -> Result<Profile, Problem> {
    let unresolved = |message: String| Problem::new(ReasonCode::FeatureProfileUnresolved, "", message);
    let raw: RawProfile<RawGroup> = serde_saphyr::from_str(text).map_err(|e| {
        let why = e.to_string();
        // Whatever is not `true` or `false` is text here, so that a feature may be called `n` or `on`.
        let options = serde_saphyr::options! { strict_booleans: true };
        match serde_saphyr::from_str_with_options::<RawProfile<shape::Node>>(text, options) {
            Ok(outer) => shape::check(&outer.feature_groups)
                .err()
                .unwrap_or_else(|| Problem::new(ReasonCode::FeatureDefinitionInvalid, "feature_groups", first_line(&why))),
            Err(_) => unresolved(format!("not a feature authority: {}", first_line(&why))),
        }
    })?;
    for (field, value) in [("policy_id", &raw.policy_id), ("revision", &raw.revision)] {
        if value.trim().is_empty() {
            return Err(unresolved(format!("{field} is blank")));
        }
    }
    if raw.feature_groups.is_empty() {
        return Err(unresolved("feature_groups is empty".into()));
    }
    let mut seen = BTreeSet::new();
    let mut groups = Vec::new();
    for (i, group) in raw.feature_groups.into_iter().enumerate() {
        let path = format!("feature_groups[{i}]");
        if !seen.insert((group.name.clone(), group.version.clone())) {
            return Err(Problem::new(
                ReasonCode::AmbiguousInput,
                path,
                format!("{} {} is defined twice; nothing says which one is meant", group.name, group.version),
            ));
        }
        groups.push(read_group(group, &path)?);
    }
    let vocabulary = read_vocabulary(raw.label_types)?;
    let content_digest = online_digest(&raw.policy_id, &raw.revision, &groups);
    if raw.content_digest.as_deref().is_some_and(|declared| !declared.eq_ignore_ascii_case(&content_digest)) {
        return Err(unresolved(format!(
            "the file declares content_digest {}, but its groups have {content_digest}",
            raw.content_digest.unwrap_or_default()
        )));
    }
    Ok(Profile {
        policy_id: raw.policy_id,
        revision: raw.revision,
        vocabulary,
        groups,
        declared_content_digest: raw.content_digest,
        content_digest,
    })
}

fn first_line(text: &str) -> &str {
    text.lines().next().unwrap_or_default()
}

fn read_vocabulary(raw: Option<BTreeMap<String, Vec<String>>>) -> Result<BTreeMap<String, Vec<String>>, Problem> {
    let Some(raw) = raw else { return Ok(default_vocabulary()) };
    let mut vocabulary = BTreeMap::new();
    for (name, mut values) in raw {
        let path = format!("label_types.{name}");
        if name.is_empty() || !name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_') {
            return Err(Problem::new(
                ReasonCode::FeatureDefinitionInvalid,
                path,
                "a label type names columns: expected letters, digits and `_`",
            ));
        }
        let count = values.len();
        values.sort();
        values.dedup();
        if values.is_empty() || values.len() != count {
            return Err(Problem::new(ReasonCode::FeatureDefinitionInvalid, path, "expected distinct values, at least one"));
        }
        vocabulary.insert(name, values);
    }
    Ok(vocabulary)
}

/// `\d+[smhd]` in microseconds.
fn duration(token: &str) -> Option<i64> {
    let unit = match token.as_bytes().last()? {
        b's' => 1,
        b'm' => 60,
        b'h' => 3600,
        b'd' => 86_400,
        _ => return None,
    };
    let digits = token.get(..token.len() - 1)?;
    if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    digits.parse::<i64>().ok().filter(|n| *n > 0)?.checked_mul(unit)?.checked_mul(1_000_000)
}

fn read_group(raw: RawGroup, path: &str) -> Result<Group, Problem> {
    let bad = |at: String, message: String| Problem::new(ReasonCode::FeatureDefinitionInvalid, at, message);
    let key_precedence = match (raw.key_precedence, raw.key_type) {
        (Some(_), Some(_)) => return Err(bad(path.into(), "give key_type or key_precedence, not both".into())),
        (Some(list), None) => list,
        (None, key) => vec![key.unwrap_or_else(|| "flow_id".into())],
    };
    if key_precedence.is_empty() || key_precedence.iter().any(|k| k.is_empty()) {
        return Err(bad(format!("{path}.key_precedence"), "expected the names of payload fields".into()));
    }
    let defaults = || ["1h", "24h", "7d"].map(|w| RawWindow { window: w.into(), duration: w.into(), ttl: w.into() }).into();
    let mut windows: Vec<Window> = Vec::new();
    for (i, window) in raw.windows.unwrap_or_else(defaults).into_iter().enumerate() {
        let at = format!("{path}.windows[{i}]");
        let span = |field: &str, text: &str| {
            duration(text)
                .ok_or_else(|| bad(format!("{at}.{field}"), format!("expected a count of s, m, h or d, like 24h, found `{text}`")))
        };
        let (duration_us, ttl_us) = (span("duration", &window.duration)?, span("ttl", &window.ttl)?);
        if ttl_us < duration_us {
            return Err(bad(at, format!("ttl {} is shorter than duration {}", window.ttl, window.duration)));
        }
        if window.window.is_empty() || windows.iter().any(|w| w.name == window.window) {
            return Err(bad(at, format!("the window name `{}` is empty or stands twice", window.window)));
        }
        windows.push(Window { name: window.window, duration_us, ttl_us });
    }
    let features = read_features(raw.features, path)?;
    let availability = match raw.availability.as_deref() {
        None | Some("event_time") => Availability::EventTime,
        Some("arrival") => Availability::Arrival,
        Some(other) => return Err(bad(format!("{path}.availability"), format!("expected event_time or arrival, found `{other}`"))),
    };
    let group = Group { name: raw.name, version: raw.version, key_precedence, windows, features, availability };
    check_columns(&group, path)?;
    Ok(group)
}

fn read_features(raw: Option<Vec<RawFeature>>, path: &str) -> Result<Vec<Feature>, Problem> {
    let Some(raw) = raw else {
        return Ok(vec![
            Feature { name: "event_count".into(), agg: Agg::Count, input: None, conditions: BTreeMap::new() },
            Feature {
                name: "amount_sum".into(),
                agg: Agg::Sum,
                input: Some(("amount".into(), FieldType::Decimal(38, 6))),
                conditions: BTreeMap::new(),
            },
        ]);
    };
    raw.into_iter().enumerate().map(|(i, feature)| read_feature(feature, &format!("{path}.features[{i}]"))).collect()
}

fn read_feature(raw: RawFeature, path: &str) -> Result<Feature, Problem> {
    let bad = |message: String| Problem::new(ReasonCode::FeatureDefinitionInvalid, path, message);
    let agg = Agg::parse(&raw.agg).ok_or_else(|| {
        let hint =
            crate::text::nearest(&raw.agg, Agg::ALL.iter().map(|(_, n)| *n)).map(|n| format!("; did you mean `{n}`?")).unwrap_or_default();
        bad(format!("unknown agg `{}`{hint}", raw.agg))
    })?;
    let field_type = raw
        .type_name
        .as_deref()
        .map(|t| FieldType::parse(t).ok_or_else(|| bad(format!("unknown type `{t}`; known are int64, float64, decimal(p,s), utf8, bool"))))
        .transpose()?;
    let input = match (agg, raw.field, field_type) {
        (Agg::SecondsSincePrevious, None, None) | (Agg::Count, None, None) => None,
        (Agg::SecondsSincePrevious, ..) => return Err(bad("seconds_since_previous reads no field and has no type".into())),
        // Whether a field is null needs no type, but a value that is counted must still be one.
        (_, Some(field), Some(field_type)) if !field.is_empty() => Some((field, field_type)),
        (_, Some(_), None) => return Err(bad("type is missing".into())),
        (_, _, _) => return Err(bad(format!("{} needs a field and its type", agg.as_str()))),
    };
    let fits = match (agg, input.as_ref().map(|(_, t)| *t)) {
        (Agg::Sum | Agg::Mean, Some(t)) => t.numeric(),
        (Agg::Stddev, Some(t)) => t.numeric() && t != FieldType::Float64,
        (Agg::Min | Agg::Max, Some(t)) => t != FieldType::Bool,
        _ => true,
    };
    if !fits {
        let t = input.map(|(_, t)| t.to_string()).unwrap_or_default();
        return Err(bad(format!("{} is not offered for {t}", agg.as_str())));
    }
    let conditions = raw.conditions.unwrap_or_default().into_iter().map(|(field, scalar)| (field, scalar.0)).collect();
    Ok(Feature { name: raw.name, agg, input, conditions })
}

fn check_columns(group: &Group, path: &str) -> Result<(), Problem> {
    let bad = |message: String| Problem::new(ReasonCode::FeatureDefinitionInvalid, path, message);
    let named = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
    let mut columns = BTreeSet::new();
    for reserved in ["row_id", "event_id", "ts_utc", "topic", "partition", "offset", "offset_kind", "payload_hash", "key"] {
        columns.insert(reserved.to_owned());
    }
    for feature in &group.features {
        if !named(&feature.name) {
            return Err(bad(format!("feature name `{}`: expected letters, digits and `_`", feature.name)));
        }
        if feature.name.starts_with("label_") {
            return Err(bad(format!("feature name `{}`: the prefix label_ belongs to labels", feature.name)));
        }
        if group.windows.is_empty() && feature.agg != Agg::SecondsSincePrevious {
            return Err(bad(format!("feature `{}` needs a window", feature.name)));
        }
        for column in group.columns_of(feature) {
            if !columns.insert(column.clone()) {
                return Err(bad(format!("column `{column}` would stand twice")));
            }
        }
    }
    if group.features.is_empty() {
        return Err(bad("a group without features".into()));
    }
    Ok(())
}

impl Group {
    /// The columns of one feature, over its windows in declared order.
    pub fn columns_of(&self, feature: &Feature) -> Vec<String> {
        if feature.agg == Agg::SecondsSincePrevious {
            return vec![feature.name.clone()];
        }
        self.windows.iter().map(|w| format!("{}_{}", feature.name, w.name)).collect()
    }

    /// The definition in normal form: what its digest is taken of. The default availability is not
    /// written, so that definitions from before there was a choice keep their digests.
    pub fn to_json(&self) -> Value {
        let mut value = json!({
            "name": self.name, "version": self.version, "key_precedence": self.key_precedence,
            "windows": self.windows.iter().map(|w| json!({"window": w.name, "duration_us": w.duration_us, "ttl_us": w.ttl_us})).collect::<Vec<_>>(),
            "features": self.features.iter().map(|f| json!({
                "name": f.name, "agg": f.agg.as_str(), "field": f.input.as_ref().map(|(n, _)| n),
                "type": f.input.as_ref().map(|(_, t)| t.to_string()), "where": f.conditions,
            })).collect::<Vec<_>>(),
        });
        if let (Availability::Arrival, Some(map)) = (self.availability, value.as_object_mut()) {
            map.insert("availability".into(), json!(self.availability.as_str()));
        }
        value
    }

    /// The definition from its normal form, as the evidence of a data set holds it; nothing where it is none.
    pub fn from_json(value: &Value) -> Option<Self> {
        let text = |v: &Value, key: &str| v.get(key).and_then(Value::as_str).map(str::to_owned);
        let list = |key: &str| value.get(key).and_then(Value::as_array);
        let window = |w: &Value| {
            Some(Window { name: text(w, "window")?, duration_us: w.get("duration_us")?.as_i64()?, ttl_us: w.get("ttl_us")?.as_i64()? })
        };
        let feature = |f: &Value| {
            let input = match (text(f, "field"), text(f, "type")) {
                (Some(field), Some(name)) => Some((field, FieldType::parse(&name)?)),
                (None, None) => None,
                _ => return None,
            };
            let conditions = f.get("where")?.as_object()?.iter().map(|(k, v)| (k.clone(), v.clone())).collect();
            Some(Feature { name: text(f, "name")?, agg: Agg::parse(&text(f, "agg")?)?, input, conditions })
        };
        let group = Group {
            name: text(value, "name")?,
            version: text(value, "version")?,
            key_precedence: list("key_precedence")?.iter().map(|k| k.as_str().map(str::to_owned)).collect::<Option<_>>()?,
            windows: list("windows")?.iter().map(window).collect::<Option<_>>()?,
            features: list("features")?.iter().map(feature).collect::<Option<_>>()?,
            availability: match value.get("availability").and_then(Value::as_str) {
                Some(name) if name == Availability::Arrival.as_str() => Availability::Arrival,
                _ => Availability::EventTime,
            },
        };
        (group.to_json() == *value).then_some(group)
    }

    /// BLAKE3 of the normal form under its recipe.
    pub fn digest(&self) -> String {
        crate::digest::recipe_digest("ofs.feature_group.v1", &self.to_json())
    }

    /// The widest window in microseconds.
    pub fn widest_us(&self) -> i64 {
        self.windows.iter().map(|w| w.duration_us).max().unwrap_or(0)
    }
}

impl Profile {
    /// BLAKE3 over policy, revision, vocabulary and all groups in normal form.
    pub fn digest(&self) -> String {
        let groups: Vec<Value> = self.groups.iter().map(Group::to_json).collect();
        crate::digest::recipe_digest(
            "ofs.feature_profile.v1",
            &json!({"policy_id": self.policy_id, "revision": self.revision, "label_types": self.vocabulary, "feature_groups": groups}),
        )
    }

    /// Digest of the label vocabulary, part of the identity.
    pub fn vocabulary_digest(&self) -> String {
        crate::digest::recipe_digest("ofs.label_vocabulary.v1", &json!(self.vocabulary))
    }

    /// The group with exactly this name and version; never a near one (O041).
    ///
    /// # Errors
    /// `FEATURE_PROFILE_UNRESOLVED`, naming what the file holds.
    pub fn group(&self, name: &str, version: &str) -> Result<&Group, Problem> {
        self.groups.iter().find(|g| g.name == name && g.version == version).ok_or_else(|| {
            let held: Vec<String> = self.groups.iter().map(|g| format!("{}@{}", g.name, g.version)).collect();
            Problem::new(
                ReasonCode::FeatureProfileUnresolved,
                "feature_definition_set",
                format!("{name}@{version} is not in {}@{}, which holds {}", self.policy_id, self.revision, held.join(", ")),
            )
        })
    }
}

/// The online plane's own recipe: SHA-256 of canonical JSON with window lengths in seconds.
fn online_digest(policy_id: &str, revision: &str, groups: &[Group]) -> String {
    let groups: Vec<Value> = groups
        .iter()
        .map(|g| {
            let windows: Vec<Value> = g
                .windows
                .iter()
                .map(|w| json!({"window": w.name, "duration_seconds": w.duration_us / 1_000_000, "ttl_seconds": w.ttl_us / 1_000_000}))
                .collect();
            json!({"name": g.name, "version": g.version, "key_type": g.key_precedence.first(), "windows": windows})
        })
        .collect();
    let text = json!({"policy_id": policy_id, "revision": revision, "feature_groups": groups}).to_string();
    let mut tape = json::Tape::new();
    let mut scratch = Vec::new();
    match tape.parse(text.as_bytes()) {
        Ok(doc) => crate::digest::sha256_hex(doc.root().canonical(&mut scratch)),
        Err(_) => String::new(),
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) const FLIGHTS: &str = "policy_id: ofp.features.v0\nrevision: r1\nlabel_types:\n  arrival_status: [ON_TIME, LATE]\nfeature_groups:\n  - name: g\n    version: v1\n    key_type: flow_id\n    windows: [{window: 24h, duration: 24h, ttl: 24h}]\n    features:\n      - {name: n, agg: count}\n      - {name: s, agg: sum, field: amount, type: int64, where: {cancelled: false}}\n";

    fn code_of(from: &str, to: &str) -> ReasonCode {
        assert!(FLIGHTS.contains(from), "{from}");
        parse(&FLIGHTS.replace(from, to)).unwrap_err().code
    }

    #[test]
    fn a_profile_resolves_exactly_and_pins_by_digest() {
        let profile = parse(FLIGHTS).unwrap();
        let group = profile.group("g", "v1").unwrap();
        assert_eq!(group.features.iter().flat_map(|f| group.columns_of(f)).collect::<Vec<_>>(), ["n_24h", "s_24h"]);
        assert_eq!(profile.group("g", "v9").unwrap_err().code, ReasonCode::FeatureProfileUnresolved);
        let edited = parse(&FLIGHTS.replace("cancelled: false", "cancelled: true")).unwrap();
        assert_ne!(edited.group("g", "v1").unwrap().digest(), group.digest());
        let respelled = parse(&FLIGHTS.replace("duration: 24h", "duration: 1d")).unwrap();
        assert_eq!(respelled.group("g", "v1").unwrap().digest(), group.digest());
    }

    #[test]
    fn definitions_that_make_no_sense_are_refused() {
        use ReasonCode::FeatureDefinitionInvalid as Bad;
        assert_eq!(code_of("agg: count}", "agg: counts}"), Bad);
        assert_eq!(code_of("type: int64", "type: int32"), Bad);
        assert_eq!(code_of("type: int64", "type: \"decimal(39,0)\""), Bad);
        assert_eq!(code_of("ttl: 24h", "ttl: 1h"), Bad);
        assert_eq!(code_of("duration: 24h", "duration: 24x"), Bad);
        assert_eq!(code_of("name: s", "name: n"), Bad);
        assert_eq!(code_of("field: amount, ", ""), Bad);
        assert_eq!(code_of(", type: int64", ""), Bad);
        assert_eq!(code_of("agg: sum, field: amount, type: int64", "agg: stddev, field: amount, type: float64"), Bad);
        assert_eq!(code_of("agg: sum, field: amount, type: int64", "agg: sum, field: amount, type: utf8"), Bad);
        assert_eq!(code_of("key_type: flow_id", "key_type: flow_id\n    availability: later"), Bad);
        assert_eq!(code_of("cancelled: false", "cancelled: 0.5"), Bad);
        assert_eq!(code_of("revision: r1", "revision: r1\nextra: 1"), ReasonCode::FeatureProfileUnresolved);
        assert_eq!(code_of("feature_groups:", "content_digest: abc\nfeature_groups:"), ReasonCode::FeatureProfileUnresolved);
        assert_eq!(parse("x: [").unwrap_err().code, ReasonCode::FeatureProfileUnresolved);
    }

    #[test]
    fn a_definition_that_lacks_or_mistypes_a_key_is_told_by_name() {
        let told = |from: &str, to: &str| {
            assert!(FLIGHTS.contains(from), "{from}");
            let problem = parse(&FLIGHTS.replace(from, to)).unwrap_err();
            assert_eq!(problem.code, ReasonCode::FeatureDefinitionInvalid, "{to}: {problem:?}");
            (problem.path.clone(), problem.message.clone())
        };
        for (from, to, path, words) in [
            ("{name: n, agg: count}", "{name: n}", "feature_groups[0].features[0].agg", "feature `n`: `agg` is missing"),
            ("{name: n, agg: count}", "{agg: count}", "feature_groups[0].features[0].name", "this feature: `name` is missing"),
            (
                "agg: count}",
                "agg: count, aggs: 1}",
                "feature_groups[0].features[0]",
                "feature `n`: unknown key `aggs`; did you mean `agg`?",
            ),
            ("agg: count}", "agg: count, if: 1}", "feature_groups[0].features[0]", "known are name, agg, field, type, where"),
            ("agg: count}", "agg: [count]}", "feature_groups[0].features[0].agg", "feature `n`: `agg` must be text"),
            ("agg: count}", "agg: count, where: 5}", "feature_groups[0].features[0].where", "must be a map"),
            (", ttl: 24h", "", "feature_groups[0].windows[0].ttl", "window `24h`: `ttl` is missing"),
            (
                "windows: [{window: 24h, duration: 24h, ttl: 24h}]",
                "windows: 24h",
                "feature_groups[0].windows",
                "group `g`: `windows` must be a list",
            ),
            (
                "cancelled: false",
                "cancelled: [false]",
                "feature_groups[0].features[1].where.cancelled",
                "feature `s`: `where` of `cancelled`",
            ),
            ("cancelled: false", "cancelled: 0.5", "feature_groups[0].features[1].where.cancelled", "a fraction"),
            ("    version: v1\n", "", "feature_groups[0].version", "feature group `g`: `version` is missing"),
            ("    version: v1\n", "    version: v1\n    window: []\n", "feature_groups[0]", "did you mean `windows`?"),
            ("key_type: flow_id", "key_precedence: [[a]]", "feature_groups[0].key_precedence", "must be a list of texts"),
            ("- {name: n, agg: count}", "- n", "feature_groups[0].features[0]", "a feature is a map of its keys"),
        ] {
            let (found, message) = told(from, to);
            assert!(found == path && message.contains(words), "{to}: {found}: {message}");
        }
    }

    #[test]
    fn availability_is_part_of_the_digest_and_its_default_is_not() {
        let digest = |line: &str| {
            let text = FLIGHTS.replace("key_type: flow_id\n", &format!("key_type: flow_id\n{line}"));
            let profile = parse(&text).unwrap();
            (profile.groups[0].availability, profile.groups[0].digest(), profile.content_digest)
        };
        let (default, stated, arrival) = (digest(""), digest("    availability: event_time\n"), digest("    availability: arrival\n"));
        assert_eq!(default, stated);
        // The recipe from before there was a choice.
        let features = json!([
            {"name": "n", "agg": "count", "field": null, "type": null, "where": {}},
            {"name": "s", "agg": "sum", "field": "amount", "type": "int64", "where": {"cancelled": false}},
        ]);
        let windows = json!([{"window": "24h", "duration_us": 86_400_000_000_i64, "ttl_us": 86_400_000_000_i64}]);
        let plain = json!({"name": "g", "version": "v1", "key_precedence": ["flow_id"], "windows": windows, "features": features});
        assert_eq!(default.1, crate::digest::recipe_digest("ofs.feature_group.v1", &plain));
        assert_eq!((arrival.0, arrival.1 != default.1), (Availability::Arrival, true));
        // The online plane knows no windows, so its own digest does not know this either.
        assert_eq!(arrival.2, default.2);
    }

    #[test]
    fn one_name_and_version_twice_is_ambiguous() {
        let group = FLIGHTS.split_once("feature_groups:\n").unwrap().1;
        assert_eq!(parse(&format!("{FLIGHTS}{group}")).unwrap_err().code, ReasonCode::AmbiguousInput);
    }

    #[test]
    fn defaults_are_the_online_planes() {
        let profile = parse("policy_id: p\nrevision: r1\nfeature_groups:\n  - {name: core_features, version: v1}\n").unwrap();
        let group = profile.group("core_features", "v1").unwrap();
        assert_eq!(group.key_precedence, ["flow_id"]);
        assert_eq!(group.windows.len(), 3);
        assert_eq!(group.features.iter().flat_map(|f| group.columns_of(f)).count(), 6);
        assert!(profile.vocabulary.contains_key("fraud_disposition"));
        let declared = format!(
            "policy_id: p\nrevision: r1\ncontent_digest: {}\nfeature_groups:\n  - {{name: core_features, version: v1}}\n",
            profile.content_digest
        );
        assert!(parse(&declared).is_ok());
    }
}
