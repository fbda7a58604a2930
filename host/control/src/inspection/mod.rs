//! The inspection of a component before anything of it runs (SPEC §6): its stages, the codes of what it may find, and
//! the comparison of imports with grants.
//!
//! The host reads the bytes and makes the findings; here is what each code means, and in which order they are shown.

mod codes;
mod imports;

use std::fmt;

use serde::Serialize;

pub use codes::*;
pub use imports::{ImportReport, ImportUse, import_report};

/// A stage of the inspection. Findings are shown in the order of the stages.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum InspectionStage {
    /// The form of the bytes, which have to be a component.
    Structure,
    /// The proposals of WebAssembly that it uses.
    Features,
    /// The imports, against what the host offers.
    Imports,
    /// The exports: one of the worlds.
    Exports,
    /// The size, the memories and tables, and the counts of its parts.
    Resources,
    /// The rules of the operator: `[policy]`.
    Policy,
}

impl InspectionStage {
    /// All stages, in order.
    pub const ALL: [Self; 6] =
        [Self::Structure, Self::Features, Self::Imports, Self::Exports, Self::Resources, Self::Policy];

    /// Returns the name of the stage, such as `structure`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Structure => "structure",
            Self::Features => "features",
            Self::Imports => "imports",
            Self::Exports => "exports",
            Self::Resources => "resources",
            Self::Policy => "policy",
        }
    }

    /// Returns the number of the stage, from 1.
    pub fn number(self) -> u8 {
        self as u8 + 1
    }
}

/// A reason why a component cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// A stable code for programs.
    pub code: &'static str,
    /// The stage that found it.
    pub stage: InspectionStage,
    /// The place in the component, such as `import wasi:nn/graph@0.2.0` or `byte 0x1f`.
    pub at: String,
    /// The problem, for a person.
    pub message: String,
    /// A suggestion.
    pub help: String,
}

impl Finding {
    /// Creates the finding of a [code](CODES).
    pub fn new(
        code: &'static FindingCode,
        at: impl Into<String>,
        message: impl Into<String>,
        help: impl Into<String>,
    ) -> Self {
        let (at, message, help) = (at.into(), message.into(), help.into());
        Self { code: code.name, stage: code.stage, at, message, help }
    }

    /// Returns the text by which a process that inspects reports a finding to the host.
    pub fn to_line(&self) -> String {
        // Texts alone are always written.
        serde_json::to_string(self).unwrap_or_default()
    }

    /// Parses such a text; `None` for any other one, and for a code that is not known.
    pub fn of_line(line: &str) -> Option<Self> {
        let parsed: serde_json::Value = serde_json::from_str(line).ok()?;
        let text = |key: &str| parsed.get(key).and_then(serde_json::Value::as_str);
        let code = CODES.iter().find(|code| text("code") == Some(code.name))?;
        Some(Self::new(code, text("at")?, text("message")?, text("help")?))
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({}); {}", self.message, self.code, self.help)
    }
}

/// The most findings that are shown: a component may have a hundred thousand imports.
const MAX_FINDINGS: usize = 100;

/// Sorts findings by stage, removes repeated ones, and leaves the first 100.
pub fn in_order(mut findings: Vec<Finding>) -> Vec<Finding> {
    // Stable, so that those of a stage stay in the order of the component.
    findings.sort_by_key(|finding| finding.stage);
    let mut shown: Vec<Finding> = Vec::new();
    for finding in findings {
        if shown.len() < MAX_FINDINGS && !shown.contains(&finding) {
            shown.push(finding);
        }
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_finding_is_read_from_its_line() {
        let finding = Finding::new(&codes::UNSIGNED, "agent.wasm.sig", "it has no signature", "sign it");
        assert_eq!(Finding::of_line(&finding.to_line()), Some(finding));
        for line in ["", "thread 'main' panicked", "{}", r#"{"code":"other","at":"","message":"","help":""}"#] {
            assert_eq!(Finding::of_line(line), None, "{line}");
        }
    }

    #[test]
    fn findings_are_in_the_order_of_the_stages() {
        let of = |code: &'static FindingCode, at: &str| Finding::new(code, at, "", "");
        let found = in_order(vec![
            of(&codes::UNSIGNED, ""),
            of(&codes::NO_WORLD, ""),
            of(&codes::IMPORT_UNKNOWN, "b"),
            of(&codes::IMPORT_UNKNOWN, "a"),
            of(&codes::INVALID, ""),
            of(&codes::INVALID, ""),
        ]);
        let shown: Vec<_> = found.iter().map(|finding| (finding.code, finding.at.as_str())).collect();
        let expected =
            [("invalid", ""), ("import-unknown", "b"), ("import-unknown", "a"), ("no-world", ""), ("unsigned", "")];
        assert_eq!(shown, expected);
    }

    #[test]
    fn stages_are_numbered_in_order() {
        let numbers: Vec<u8> = InspectionStage::ALL.iter().map(|stage| stage.number()).collect();
        assert_eq!(numbers, [1, 2, 3, 4, 5, 6]);
    }
}
