//! Makes the enum of reason codes from `contracts/reasons.toml`, so that an unknown code does not
//! compile, and embeds `fixtures/` and `contracts/`, so that the binary works in an empty directory.

#![allow(clippy::expect_used, reason = "a build that cannot be set up has to stop")]

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::{env, fs};

use serde::Deserialize;

#[derive(Deserialize)]
struct Reasons {
    reason: Vec<Reason>,
}

#[derive(Deserialize)]
struct Reason {
    code: String,
    phase: u8,
    kind: String,
    end_class: String,
    retry: bool,
    exit: u8,
    meaning: String,
    remedy: String,
    internal: String,
}

fn camel(code: &str) -> String {
    code.split('_')
        .map(|word| word.chars().enumerate().map(|(i, c)| if i == 0 { c } else { c.to_ascii_lowercase() }).collect::<String>())
        .collect()
}

fn reasons(root: &Path) -> String {
    let text = fs::read_to_string(root.join("contracts/reasons.toml")).expect("contracts/reasons.toml is readable");
    let reasons: Reasons = toml::from_str(&text).expect("contracts/reasons.toml parses");
    let mut out = String::from(
        "/// Every reason code (made from `contracts/reasons.toml`).\n#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]\npub enum ReasonCode {\n",
    );
    for r in &reasons.reason {
        let _ = writeln!(out, "    /// {}\n    {},", r.meaning.replace('[', "\\["), camel(&r.code));
    }
    out.push_str("}\n\n/// All reasons, in the order of the file.\npub static REASONS: &[Reason] = &[\n");
    for r in &reasons.reason {
        let _ = writeln!(
            out,
            "    Reason {{ code: ReasonCode::{}, name: {:?}, phase: {}, kind: {:?}, end_class: {:?}, retry: {}, exit: {}, meaning: {:?}, remedy: {:?}, internal: {:?} }},",
            camel(&r.code),
            r.code,
            r.phase,
            r.kind,
            r.end_class,
            r.retry,
            r.exit,
            r.meaning,
            r.remedy,
            r.internal
        );
    }
    out.push_str("];\n");
    out
}

fn walk(dir: &Path, into: &mut Vec<PathBuf>) {
    let mut entries: Vec<PathBuf> = fs::read_dir(dir).map(|d| d.flatten().map(|e| e.path()).collect()).unwrap_or_default();
    entries.sort();
    for path in entries {
        if path.is_dir() {
            walk(&path, into);
        } else {
            into.push(path);
        }
    }
}

fn embedded(root: &Path) -> String {
    let mut out =
        String::from("/// Every file below `contracts/` and `fixtures/`: (path, bytes).\npub static EMBEDDED: &[(&str, &[u8])] = &[\n");
    for top in ["contracts", "fixtures"] {
        let mut files = Vec::new();
        walk(&root.join(top), &mut files);
        for file in files {
            let name = file.strip_prefix(root).expect("below the root").to_string_lossy().replace('\\', "/");
            let _ = writeln!(out, "    ({name:?}, include_bytes!({:?})),", file.display().to_string());
        }
    }
    out.push_str("];\n");
    out
}

fn main() {
    let root = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").expect("cargo sets CARGO_MANIFEST_DIR"));
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets OUT_DIR"));
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=contracts");
    println!("cargo::rerun-if-changed=fixtures");
    fs::write(out.join("reasons.rs"), reasons(&root)).expect("OUT_DIR is writable");
    fs::write(out.join("embedded.rs"), embedded(&root)).expect("OUT_DIR is writable");
}
