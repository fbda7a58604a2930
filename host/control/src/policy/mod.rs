//! The rules of the operator for components, and their judgement.
//!
//! ```text
//! caxton.toml [policy] --.
//!                         stricter --> Policy --judge--> findings of the last stage of the inspection
//! operator's file -------'
//! ```
//!
//! Reading files and checking signatures is up to the host, which passes what it found.

mod host_rules;
mod pattern;
mod signature;

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use serde::{Serialize, Serializer};

pub use host_rules::{FilesRule, TcpRule};
pub use pattern::{NamePattern, NamePatternError};
pub use signature::{
    ComponentSignature, MAX_SIGNATURE_FILE, SIGNATURE_ENDING, TrustedKey, TrustedKeyError, signed_text,
};

use crate::inspection::{self, Finding};
use crate::names::{AgentName, Digest};
use crate::units::print_bytes;

/// The proposals of WebAssembly that a component may use, by the names that `policy.features` has for them.
pub const FEATURES: &[&str] = &[
    "bulk-memory",
    "component-model-async",
    "extended-const",
    "multi-value",
    "mutable-global",
    "reference-types",
    "saturating-float-to-int",
    "sign-extension",
    "simd",
    "tail-call",
];

/// The table `policy`: the rules that a component has to follow. Those of several files are joined, and all hold.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Policy {
    /// The lists of interfaces that may be imported; an import has to be in each of them.
    pub imports: Vec<Vec<NamePattern>>,
    /// The interfaces that may not be exported.
    pub forbidden_exports: BTreeSet<NamePattern>,
    /// The largest component in bytes.
    pub max_component_bytes: Option<u64>,
    /// The lists of digests; a component has to be allowed by each of them.
    pub digests: Vec<Vec<AllowedDigest>>,
    /// Set if a component needs a signature by one of `keys`.
    pub signatures_required: bool,
    /// The keys that may sign.
    pub keys: BTreeSet<TrustedKey>,
    /// The proposals that a component may use; `None` allows all that the host takes.
    pub features: Option<BTreeSet<&'static str>>,
    /// The folders that may be granted.
    pub files: FilesRule,
    /// The connections that may be granted.
    pub tcp: TcpRule,
}

/// A digest that is allowed, written `sha256:HEX` for all agents and `AGENT=sha256:HEX` for one.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct AllowedDigest {
    /// The agent; `None` for all that are not named in the list.
    pub agent: Option<AgentName>,
    /// The digest.
    pub digest: Digest,
}

/// The error for a text that is no allowed digest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a digest is `sha256:` and 64 hexadecimal digits, with the name of an agent and `=` before it or not")]
pub struct AllowedDigestError;

impl FromStr for AllowedDigest {
    type Err = AllowedDigestError;

    fn from_str(text: &str) -> Result<Self, AllowedDigestError> {
        let (agent, digest) = match text.split_once('=') {
            Some((agent, digest)) => (Some(agent.parse().map_err(|_| AllowedDigestError)?), digest),
            None => (None, text),
        };
        let digits = digest.strip_prefix("sha256:").ok_or(AllowedDigestError)?;
        Ok(Self { agent, digest: digits.parse().map_err(|_| AllowedDigestError)? })
    }
}

impl fmt::Display for AllowedDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.agent {
            Some(agent) => write!(f, "{agent}=sha256:{}", self.digest),
            None => write!(f, "sha256:{}", self.digest),
        }
    }
}

impl Serialize for AllowedDigest {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// The result of reading and checking the signatures of a component.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum SignatureCheck {
    /// There are none.
    #[default]
    Absent,
    /// The file cannot be read, or has something else: the reason.
    Unreadable(String),
    /// The keys that have signed these bytes.
    Signed(BTreeSet<TrustedKey>),
    /// None of the signatures is of these bytes.
    Mismatch,
}

/// The parts of a component that rules are about.
#[derive(Debug, Clone, Copy)]
pub struct ComponentFacts<'a> {
    /// The imports.
    pub imports: &'a [String],
    /// The exports.
    pub exports: &'a [String],
    /// The size in bytes.
    pub size: u64,
}

impl Policy {
    /// Returns `true` if it has no rule.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Returns the policy that asks for what both ask for.
    #[must_use]
    pub fn stricter(&self, other: &Self) -> Self {
        let join = |one: &BTreeSet<NamePattern>, two: &BTreeSet<NamePattern>| one | two;
        Self {
            imports: joined(&self.imports, &other.imports),
            forbidden_exports: join(&self.forbidden_exports, &other.forbidden_exports),
            max_component_bytes: least(self.max_component_bytes, other.max_component_bytes),
            digests: joined(&self.digests, &other.digests),
            signatures_required: self.signatures_required || other.signatures_required,
            keys: match (self.keys.is_empty(), other.keys.is_empty()) {
                (false, false) => &self.keys & &other.keys,
                // Who names no key leaves them to the other.
                _ => &self.keys | &other.keys,
            },
            features: match (&self.features, &other.features) {
                (Some(one), Some(two)) => Some(one & two),
                (one, two) => one.clone().or_else(|| two.clone()),
            },
            files: self.files.max(other.files),
            tcp: self.tcp.max(other.tcp),
        }
    }

    /// Returns `true` if a digest is allowed for an agent.
    pub fn allows_digest(&self, agent: &AgentName, digest: Digest) -> bool {
        self.digests.iter().all(|list| {
            let named = |allowed: &&AllowedDigest| allowed.agent.as_ref() == Some(agent);
            let is_named = list.iter().any(|allowed| named(&allowed));
            let mut own = list.iter().filter(|allowed| if is_named { named(allowed) } else { allowed.agent.is_none() });
            // A list with other agents alone says nothing of this one.
            let says = is_named || list.iter().any(|allowed| allowed.agent.is_none());
            !says || own.any(|allowed| allowed.digest == digest)
        })
    }

    /// Judges the origin of a component: its digest and signatures, which are known before it is read as a component.
    /// `shown` is its path, for messages.
    pub fn judge_origin(
        &self,
        agent: &AgentName,
        shown: &str,
        digest: Digest,
        signed: &SignatureCheck,
    ) -> Vec<Finding> {
        let mut findings = Vec::new();
        if !self.allows_digest(agent, digest) {
            findings.push(Finding::new(
                &inspection::DIGEST_NOT_ALLOWED,
                shown,
                format!("its digest is sha256:{digest}, which `policy.digests` does not list for {agent}"),
                "use the component that is listed, or have the operator list this one",
            ));
        }
        findings.extend(self.judge_signature(shown, signed));
        findings
    }

    fn judge_signature(&self, shown: &str, signed: &SignatureCheck) -> Option<Finding> {
        if !self.signatures_required {
            return None;
        }
        let at = format!("{shown}{SIGNATURE_ENDING}");
        let sign =
            format!("sign it (`caxton sign {shown} --key FILE`) with a key whose public part is in `policy.keys`");
        match signed {
            SignatureCheck::Absent => {
                Some(Finding::new(&inspection::UNSIGNED, &at, format!("it has no signature: there is no {at}"), sign))
            }
            SignatureCheck::Unreadable(why) => Some(Finding::new(
                &inspection::SIGNATURE_MISMATCH,
                &at,
                format!("its signatures cannot be read: {why}"),
                sign,
            )),
            SignatureCheck::Mismatch => Some(Finding::new(
                &inspection::SIGNATURE_MISMATCH,
                &at,
                "none of its signatures is of these bytes: it was changed since, or they are of another component",
                sign,
            )),
            SignatureCheck::Signed(keys) if keys.is_disjoint(&self.keys) => {
                let keys: Vec<String> = keys.iter().map(ToString::to_string).collect();
                let message = format!("it is signed by {}, which `policy.keys` does not list", keys.join(" and "));
                Some(Finding::new(&inspection::SIGNATURE_UNTRUSTED, &at, message, sign))
            }
            SignatureCheck::Signed(_) => None,
        }
    }

    /// Judges what a component is: its size, imports and exports.
    pub fn judge_component(&self, component: ComponentFacts<'_>) -> Vec<Finding> {
        let mut findings = Vec::new();
        if let Some(most) = self.max_component_bytes.filter(|most| component.size > *most) {
            findings.push(Finding::new(
                &inspection::OVER_SIZE,
                "the component",
                format!("it has {} bytes, more than policy.max-component ({})", component.size, print_bytes(most)),
                "leave out debug information (`wasm-tools strip`), or have the operator raise it",
            ));
        }
        for import in component.imports {
            let is_allowed = |list: &Vec<NamePattern>| list.iter().any(|pattern| pattern.matches(import));
            if !self.imports.iter().all(is_allowed) {
                findings.push(Finding::new(
                    &inspection::IMPORT_NOT_ALLOWED,
                    format!("import {import}"),
                    format!("it imports {import}, which `policy.imports` does not list"),
                    "leave that import out, or have the operator list it",
                ));
            }
        }
        for export in component.exports {
            if let Some(pattern) = self.forbidden_exports.iter().find(|pattern| pattern.matches(export)) {
                findings.push(Finding::new(
                    &inspection::EXPORT_FORBIDDEN,
                    format!("export {export}"),
                    format!("it exports {export}, which `policy.forbidden-exports` forbids (`{pattern}`)"),
                    "leave that export out, or have the operator take the pattern out",
                ));
            }
        }
        findings
    }
}

/// Returns both lists of lists, each list once.
fn joined<T: Clone + PartialEq>(one: &[Vec<T>], two: &[Vec<T>]) -> Vec<Vec<T>> {
    let mut all = one.to_vec();
    all.extend(two.iter().filter(|list| !one.contains(list)).cloned());
    all
}

/// Returns the smaller of two bounds; no bound is more than any.
fn least(one: Option<u64>, two: Option<u64>) -> Option<u64> {
    one.into_iter().chain(two).min()
}

#[cfg(test)]
mod tests;
