//! Run facts: the scenario runner's statement of what a run produced and which gates it passed.
//! OFS relies on the pins, the locators and the receipts, and reads them through the ref that the
//! intent names (O036); nothing is ever discovered.

use super::{Problem, ReasonCode};
use crate::json::{Item, Kind, Tape};

/// Largest run-facts file in bytes.
pub const MAX_BYTES: u64 = 16 * 1024 * 1024;

/// Where one output of the run lies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Locator {
    /// Output id.
    pub output_id: String,
    /// Ref of the output.
    pub path: String,
    /// Manifest that the output belongs to.
    pub manifest_fingerprint: Option<String>,
    /// Digest of the output, where stated: (algorithm, hex).
    pub content_digest: Option<(String, String)>,
    /// Scenario run that made it, where stated.
    pub scenario_run_id: Option<String>,
}

/// A gate's verdict over everything of one manifest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GateReceipt {
    /// Gate id.
    pub gate_id: String,
    /// Whether it says PASS.
    pub pass: bool,
    /// Manifest that it speaks of.
    pub manifest_fingerprint: Option<String>,
}

/// A verdict over one output; outranks a gate (O037).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InstanceReceipt {
    /// Output id.
    pub output_id: String,
    /// Whether it says PASS.
    pub pass: bool,
    /// Ref of the instance that was checked.
    pub path: Option<String>,
    /// Digest of the instance that was checked.
    pub target_digest: Option<(String, String)>,
}

/// The parts of the run facts that a build rests on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunFacts {
    /// The platform run.
    pub platform_run_id: String,
    /// The scenario run.
    pub scenario_run_id: Option<String>,
    /// Manifest fingerprint of the pins.
    pub manifest_fingerprint: Option<String>,
    /// Outputs.
    pub locators: Vec<Locator>,
    /// Gate verdicts.
    pub gates: Vec<GateReceipt>,
    /// Output verdicts.
    pub instances: Vec<InstanceReceipt>,
}

const CODE: ReasonCode = ReasonCode::RunFactsUnavailable;

fn text(item: Item<'_>, key: &str) -> Option<String> {
    item.get(key).and_then(Item::str).map(|s| s.into_owned()).filter(|s| !s.is_empty())
}

fn digest(item: Option<Item<'_>>, path: &str) -> Result<Option<(String, String)>, Problem> {
    let Some(item) = item.filter(|i| !i.is_null()) else { return Ok(None) };
    match item.kind() {
        Kind::Object => match (text(item, "algo"), text(item, "hex")) {
            (Some(algo), Some(hex)) => Ok(Some((algo.to_ascii_lowercase(), hex.to_ascii_lowercase()))),
            _ => Err(Problem::new(CODE, path, "expected {algo, hex}")),
        },
        Kind::String => {
            let value = item.str().unwrap_or_default();
            let (algo, hex) = value.split_once(':').unwrap_or(("sha256", &value));
            Ok(Some((algo.to_ascii_lowercase(), hex.to_ascii_lowercase())))
        }
        other => Err(Problem::new(CODE, path, format!("expected a digest, found {other}"))),
    }
}

fn status(item: Item<'_>, path: &str) -> Result<bool, Problem> {
    match text(item, "status").as_deref() {
        Some("PASS") => Ok(true),
        Some("FAIL") => Ok(false),
        _ => Err(Problem::new(CODE, format!("{path}.status"), "expected PASS or FAIL")),
    }
}

fn array<'t>(root: Item<'t>, key: &str) -> Result<Vec<Item<'t>>, Problem> {
    match root.get(key) {
        None => Ok(Vec::new()),
        Some(item) if item.kind() == Kind::Array => Ok(item.elements().collect()),
        Some(item) => Err(Problem::new(CODE, key, format!("expected an array, found {}", item.kind()))),
    }
}

/// Reads run facts.
///
/// # Errors
/// `RUN_FACTS_UNAVAILABLE` with the path of what is missing or of the wrong kind; `RUN_SCOPE_INVALID`
/// where the file contradicts itself about its run.
pub fn parse(bytes: &[u8]) -> Result<RunFacts, Problem> {
    let mut tape = Tape::new();
    let doc = tape.parse(bytes).map_err(|e| Problem::new(CODE, "", format!("not a JSON document: {e}")))?;
    if let Some(key) = doc.duplicate_key() {
        return Err(Problem::new(CODE, key, "the key stands twice in one object"));
    }
    let root = doc.root();
    if root.kind() != Kind::Object {
        return Err(Problem::new(CODE, "", format!("expected a JSON object, found {}", root.kind())));
    }
    let pins = root.get("pins").filter(|p| p.kind() == Kind::Object).ok_or_else(|| Problem::new(CODE, "pins", "expected an object"))?;
    let agreed = |key: &str| -> Result<Option<String>, Problem> {
        match (text(root, key), text(pins, key)) {
            (Some(a), Some(b)) if a != b => {
                Err(Problem::new(ReasonCode::RunScopeInvalid, key, format!("the run facts say {a}, their pins {b}")))
            }
            (a, b) => Ok(a.or(b)),
        }
    };
    let platform_run_id = agreed("platform_run_id")?.ok_or_else(|| Problem::new(CODE, "platform_run_id", "required, but missing"))?;
    let scenario_run_id = agreed("scenario_run_id")?;
    let mut locators = Vec::new();
    for (i, item) in array(root, "locators")?.into_iter().enumerate() {
        let path = format!("locators[{i}]");
        let need = |key: &str| {
            text(item, key).ok_or_else(|| Problem::new(ReasonCode::NoPassNoRead, format!("{path}.{key}"), "required, but missing"))
        };
        locators.push(Locator {
            output_id: need("output_id")?,
            path: need("path")?,
            manifest_fingerprint: text(item, "manifest_fingerprint"),
            content_digest: digest(item.get("content_digest"), &format!("{path}.content_digest"))?,
            scenario_run_id: text(item, "scenario_run_id"),
        });
    }
    let mut gates = Vec::new();
    for (i, item) in array(root, "gate_receipts")?.into_iter().enumerate() {
        let path = format!("gate_receipts[{i}]");
        gates.push(GateReceipt {
            gate_id: text(item, "gate_id").unwrap_or_default(),
            pass: status(item, &path)?,
            manifest_fingerprint: item.get("scope").and_then(|s| text(s, "manifest_fingerprint")),
        });
    }
    let mut instances = Vec::new();
    for (i, item) in array(root, "instance_receipts")?.into_iter().enumerate() {
        let path = format!("instance_receipts[{i}]");
        let output_id = text(item, "output_id").ok_or_else(|| Problem::new(CODE, format!("{path}.output_id"), "required, but missing"))?;
        let target_digest = digest(item.get("target_digest"), &format!("{path}.target_digest"))?;
        instances.push(InstanceReceipt {
            output_id,
            pass: status(item, &path)?,
            path: item.get("target_ref").and_then(|t| text(t, "path")),
            target_digest,
        });
    }
    Ok(RunFacts { platform_run_id, scenario_run_id, manifest_fingerprint: text(pins, "manifest_fingerprint"), locators, gates, instances })
}

impl RunFacts {
    /// Decides whether an output may be read: an instance receipt for it outranks every gate; without
    /// one, a gate over the output's manifest must say PASS (O037, O038, O039).
    ///
    /// # Errors
    /// `NO_PASS_NO_READ`, `AMBIGUOUS_INPUT` for an output with two different locators, or
    /// `OUTPUT_DIGEST_MISMATCH` where the receipt checked other bytes than the locator names.
    pub fn passed(&self, output_id: &str) -> Result<&Locator, Problem> {
        let refuse = |code, message: String| Problem::new(code, format!("locators.{output_id}"), message);
        let mut found = self.locators.iter().filter(|l| l.output_id == output_id);
        let locator =
            found.next().ok_or_else(|| refuse(ReasonCode::NoPassNoRead, "the run facts have no locator for this output".into()))?;
        if found.any(|other| other != locator) {
            return Err(refuse(ReasonCode::AmbiguousInput, "two different locators; nothing says which one is meant".into()));
        }
        let receipts: Vec<&InstanceReceipt> = self.instances.iter().filter(|r| r.output_id == output_id).collect();
        if receipts.is_empty() {
            let manifest = locator.manifest_fingerprint.as_ref().or(self.manifest_fingerprint.as_ref());
            let mut gates = self.gates.iter().filter(|g| manifest.is_some() && g.manifest_fingerprint.as_ref() == manifest).peekable();
            if gates.peek().is_none() {
                return Err(refuse(ReasonCode::NoPassNoRead, "no receipt speaks of this output or its manifest".into()));
            }
            return match gates.find(|g| !g.pass) {
                Some(gate) => Err(refuse(ReasonCode::NoPassNoRead, format!("gate {} says FAIL", gate.gate_id))),
                None => Ok(locator),
            };
        }
        let of_this: Vec<_> = receipts.into_iter().filter(|r| r.path.as_ref().is_none_or(|p| *p == locator.path)).collect();
        if of_this.is_empty() {
            return Err(refuse(ReasonCode::NoPassNoRead, "the instance receipts speak of another path".into()));
        }
        if of_this.iter().any(|r| !r.pass) {
            return Err(refuse(ReasonCode::NoPassNoRead, "an instance receipt says FAIL".into()));
        }
        for receipt in of_this {
            if let (Some(checked), Some(named)) = (&receipt.target_digest, &locator.content_digest)
                && checked != named
            {
                return Err(refuse(
                    ReasonCode::OutputDigestMismatch,
                    format!("the receipt checked {}:{}, the locator names {}:{}", checked.0, checked.1, named.0, named.1),
                ));
            }
        }
        Ok(locator)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn sample() -> Value {
        json!({"platform_run_id": "R", "scenario_run_id": "S", "pins": {"platform_run_id": "R", "scenario_run_id": "S", "manifest_fingerprint": "f"},
            "locators": [{"output_id": "o", "path": "R/o.json", "manifest_fingerprint": "f", "content_digest": {"algo": "sha256", "hex": "aa"}}],
            "gate_receipts": [{"gate_id": "g", "status": "PASS", "scope": {"manifest_fingerprint": "f"}}],
            "instance_receipts": [{"output_id": "o", "status": "PASS", "target_ref": {"output_id": "o", "path": "R/o.json"}, "target_digest": {"algo": "sha256", "hex": "aa"}}]})
    }

    fn verdict(change: impl FnOnce(&mut Value)) -> Result<String, ReasonCode> {
        let mut value = sample();
        change(&mut value);
        let facts = parse(value.to_string().as_bytes()).map_err(|p| p.code)?;
        facts.passed("o").map(|l| l.path.clone()).map_err(|p| p.code)
    }

    #[test]
    fn an_instance_receipt_outranks_a_gate() {
        assert_eq!(verdict(|_| ()), Ok("R/o.json".into()));
        assert_eq!(verdict(|v| v["instance_receipts"][0]["status"] = json!("FAIL")), Err(ReasonCode::NoPassNoRead));
        assert_eq!(
            verdict(|v| {
                v["instance_receipts"] = json!([]);
                v["gate_receipts"][0]["status"] = json!("FAIL")
            }),
            Err(ReasonCode::NoPassNoRead)
        );
        assert_eq!(verdict(|v| v["instance_receipts"] = json!([])), Ok("R/o.json".into()));
        assert_eq!(verdict(|v| v["gate_receipts"][0]["status"] = json!("FAIL")), Ok("R/o.json".into()));
        assert_eq!(verdict(|v| v["instance_receipts"][0]["target_ref"]["path"] = json!("R/other.json")), Err(ReasonCode::NoPassNoRead));
        assert_eq!(
            verdict(|v| {
                v["instance_receipts"] = json!([]);
                v["gate_receipts"] = json!([])
            }),
            Err(ReasonCode::NoPassNoRead)
        );
    }

    #[test]
    fn locators_must_be_there_once_and_with_the_checked_digest() {
        assert_eq!(verdict(|v| v["locators"] = json!([])), Err(ReasonCode::NoPassNoRead));
        assert_eq!(
            verdict(|v| {
                let mut twin = v["locators"][0].clone();
                twin["path"] = json!("R/p.json");
                v["locators"].as_array_mut().unwrap().push(twin)
            }),
            Err(ReasonCode::AmbiguousInput)
        );
        assert_eq!(verdict(|v| v["locators"][0]["content_digest"]["hex"] = json!("bb")), Err(ReasonCode::OutputDigestMismatch));
        assert_eq!(verdict(|v| v["pins"]["platform_run_id"] = json!("Q")), Err(ReasonCode::RunScopeInvalid));
        assert_eq!(verdict(|v| v["pins"] = json!(5)), Err(ReasonCode::RunFactsUnavailable));
        assert_eq!(verdict(|v| v["instance_receipts"][0]["status"] = json!("MAYBE")), Err(ReasonCode::RunFactsUnavailable));
    }
}
