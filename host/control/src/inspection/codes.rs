//! The codes of findings. They are served and documented: a constant may be renamed, its code may not.

use super::InspectionStage as Stage;

/// A code of findings.
#[derive(Debug, PartialEq, Eq)]
pub struct FindingCode {
    /// The code.
    pub name: &'static str,
    /// The stage that finds it.
    pub stage: Stage,
    /// The defect of a component that it is found in, for the documentation.
    pub meaning: &'static str,
}

/// Declares the codes, and the list of them all.
macro_rules! codes {
    ($($constant:ident, $stage:ident, $name:literal, $meaning:literal;)*) => {
        $(
            #[doc = concat!("The code `", $name, "`: ", $meaning, ".")]
            pub static $constant: FindingCode = FindingCode { name: $name, stage: Stage::$stage, meaning: $meaning };
        )*
        /// All codes, in the order of the stages.
        pub static CODES: &[&FindingCode] = &[$(&$constant,)*];
    };
}

codes! {
    EMPTY, Structure, "empty", "the file has no bytes";
    NOT_WASM, Structure, "not-wasm", "the file is not WebAssembly";
    CORE_MODULE, Structure, "core-module", "the file is a core module and no component";
    TRUNCATED, Structure, "truncated", "the file ends in the middle of a section";
    INVALID, Structure, "invalid", "the bytes do not follow the rules of WebAssembly";
    BAD_SECTION, Structure, "bad-section", "a custom section for the host says nothing that it understands";
    NEEDS_ASYNC, Features, "needs-async", "it has asynchronous functions of the component model, and does not export the handler of WASI 0.3";
    FEATURE_OFF, Features, "feature-off", "it uses a proposal of WebAssembly that no component may use";
    IMPORT_UNKNOWN, Imports, "import-unknown", "it imports what this host does not have";
    IMPORT_VERSION, Imports, "import-version", "it imports another version than this host has";
    CANDIDATE_DIFFERS, Imports, "candidate-differs", "it is built for the release candidate of WASI 0.3, and its types are not those of 0.3.0";
    NO_WORLD, Exports, "no-world", "its exports make no agent";
    TWO_WORLDS, Exports, "two-worlds", "its exports make two kinds of agents";
    OTHER_VERSION, Exports, "other-version", "it exports another version of the contract";
    TOO_LARGE, Resources, "too-large", "it has more than 100 MiB";
    TOO_COMPLEX, Resources, "too-complex", "it has more parts than a component may have";
    MEMORY_ABOVE_LIMIT, Resources, "memory-above-limit", "its memories and tables begin above `limits.memory`";
    FEATURE_NOT_ALLOWED, Policy, "feature-not-allowed", "it uses a proposal that `policy.features` does not list";
    IMPORT_NOT_ALLOWED, Policy, "import-not-allowed", "it imports what `policy.imports` does not list";
    EXPORT_FORBIDDEN, Policy, "export-forbidden", "it exports what `policy.forbidden-exports` lists";
    OVER_SIZE, Policy, "over-size", "it is larger than `policy.max-component`";
    DIGEST_NOT_ALLOWED, Policy, "digest-not-allowed", "its SHA-256 is not in `policy.digests`";
    UNSIGNED, Policy, "unsigned", "it has no signature, and `policy.signatures` requires one";
    SIGNATURE_MISMATCH, Policy, "signature-mismatch", "its signature is of other bytes, or is broken";
    SIGNATURE_UNTRUSTED, Policy, "signature-untrusted", "it is signed by a key that is not in `policy.keys`";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_unique_and_in_the_order_of_the_stages() {
        for (at, code) in CODES.iter().enumerate() {
            assert!(CODES[..at].iter().all(|other| other.name != code.name), "{} is there twice", code.name);
            assert!(CODES[..at].iter().all(|other| other.stage <= code.stage), "{} is out of order", code.name);
        }
    }
}
