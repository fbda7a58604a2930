//! The table `policy`, and the operator's own file.

use std::collections::{BTreeMap, BTreeSet};

use super::ceilings::Ceilings;
use super::error::{ConfigError, Location};
use super::findings::Findings;
use super::host_rules::HostRules;
use super::kinds::Kind;
use super::node::{Entry, Node, Source, Value};
use super::policy_error::PolicyError;
use super::schema::{self, Field};
use super::section::Section;
use super::values::{Element, example, read, wrong_type};
use crate::policy::{AllowedDigest, FilesRule, NamePattern, Policy, TcpRule, TrustedKey};
use crate::units::print_bytes;

/// The meaning of the operator's own file, which `caxton.toml` cannot override.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Operator {
    pub(super) ceilings: Ceilings,
    pub(super) policy: Policy,
    /// The places of the keys of `policy`.
    places: BTreeMap<&'static str, Source>,
}

impl Operator {
    /// Returns the rules for components.
    pub fn policy(&self) -> &Policy {
        &self.policy
    }

    /// Returns it with other places, for errors of a file that is not the operator's.
    #[must_use]
    pub fn located(mut self, place: &dyn Fn(&Source) -> Source) -> Self {
        self.ceilings.locate(place);
        self.places.values_mut().for_each(|at| *at = place(at));
        self
    }
}

/// Checks the tree of the operator's own file and returns its meaning, or all errors in the order of the file.
pub fn check_operator(root: &Node) -> Result<Operator, Vec<ConfigError>> {
    let mut findings = Findings::default();
    let Value::Table(table) = &root.value else {
        let at = Location { key: String::new(), source: root.source.clone() };
        let found = root.value.describe();
        let example = "caxton = 1".to_owned();
        return Err(vec![ConfigError::WrongType { at, expected: "a table".to_owned(), found, example }]);
    };
    let root = Section::open(schema::operator(), table, String::new(), root.source.clone(), &mut findings);
    root.get::<u64>("caxton", None, &mut findings);
    let ceilings = read_ceilings(&root, &Ceilings::default(), &mut findings);
    let (policy, places) = read_policy(&root, &Operator::default(), &mut findings);
    let mut errors = findings.errors;
    errors.sort_by(|one, other| one.at().source.cmp(&other.at().source));
    if errors.is_empty() { Ok(Operator { ceilings, policy, places }) } else { Err(errors) }
}

/// Reads the table `ceilings` of the root. One that is above that of `operator` is an error, and one that is left out is that of
/// the operator.
pub(super) fn read_ceilings(root: &Section<'_>, operator: &Ceilings, findings: &mut Findings) -> Ceilings {
    let mut table = CeilingsTable { read: operator.clone(), operator };
    if let Some(entry) = root.entry("ceilings") {
        table.read(root.field("ceilings"), entry, "ceilings".to_owned(), findings);
    }
    table.read
}

/// The ceilings read so far, and those that they are compared with.
struct CeilingsTable<'a> {
    read: Ceilings,
    operator: &'a Ceilings,
}

impl CeilingsTable<'_> {
    /// Reads the key or the table of keys of an entry.
    fn read(&mut self, field: &'static Field, entry: &Entry, path: String, findings: &mut Findings) {
        let (key, node) = (field.key, &entry.node);
        match &node.value {
            _ if key.kind != Kind::Table => {
                let Some(value) = read(key, field.name, node, &path, findings) else { return };
                let Some(amount) = value.amount() else { return };
                if let Some(excess) = self.operator.excess(key, amount) {
                    let at = Location { key: path, source: node.source.clone() };
                    let (given, allowed, other) = (excess.given, excess.most, excess.at);
                    let reason = Box::new(PolicyError::Looser { given, allowed, other });
                    findings.errors.push(ConfigError::Policy { at, reason });
                }
                self.read.set(key, amount, node.source.clone());
            }
            Value::Table(table) => {
                // Opened for the errors of unknown keys.
                Section::open(&field.fields, table, path.clone(), entry.key.clone(), findings);
                for (name, entry) in table {
                    if let Some(below) = field.fields.get(name.as_str()) {
                        self.read(below, entry, format!("{path}.{name}"), findings);
                    }
                }
            }
            _ => findings.errors.push(wrong_type(key, field.name, node, &path)),
        }
    }
}

/// Reads the table `policy` of the root. What is looser than the rules of the operator is an error. Returns the rules that
/// both files ask for, with the places of its own.
pub(super) fn read_policy(
    root: &Section<'_>,
    operator: &Operator,
    findings: &mut Findings,
) -> (Policy, BTreeMap<&'static str, Source>) {
    let section = root.section("policy", findings);
    let table = Rules { section: &section, operator };
    let imports = table.list(
        "imports",
        Element::pattern,
        |pattern: &NamePattern| {
            operator.policy.imports.iter().all(|list| list.iter().any(|outer| outer.covers(pattern)))
        },
        findings,
    );
    let exports = table.list("forbidden-exports", Element::pattern, |_| true, findings);
    let digests = table.list("digests", Element::digest, |digest: &AllowedDigest| operator.is_listed(digest), findings);
    let keys = table.list(
        "keys",
        Element::key,
        |key: &TrustedKey| operator.policy.keys.is_empty() || operator.policy.keys.contains(key),
        findings,
    );
    let features = table.list(
        "features",
        Element::feature,
        |feature: &&'static str| operator.policy.features.as_ref().is_none_or(|known| known.contains(feature)),
        findings,
    );
    let own = Policy {
        imports: imports.into_iter().collect(),
        forbidden_exports: exports.into_iter().flatten().collect(),
        max_component_bytes: table.max_component(findings),
        digests: digests.into_iter().collect(),
        signatures_required: table.signatures(findings),
        keys: keys.into_iter().flatten().collect(),
        features: features.map(|features| features.into_iter().collect::<BTreeSet<_>>()),
        files: table.word("files", FilesRule::of_word, operator.policy.files, findings),
        tcp: table.word("tcp", TcpRule::of_word, operator.policy.tcp, findings),
    };
    let policy = operator.policy.stricter(&own);
    // Nothing could ever be signed by a key that is trusted.
    if policy.signatures_required && policy.keys.is_empty() && section.entry("keys").is_none() {
        findings.errors.push(section.missing(section.schema("keys"), "keys", None));
    }
    (policy, table.places())
}

/// Returns the rules for folders and connections with their places: those of the file that has the stricter one.
pub(super) fn host_rules(policy: &Policy, places: &BTreeMap<&'static str, Source>, operator: &Operator) -> HostRules {
    let place = |name: &str, is_operators: bool| {
        // The operator's place, if both say the same: the file cannot change it.
        let found = if is_operators { operator.places.get(name) } else { places.get(name) };
        found.cloned().unwrap_or(Source::Default)
    };
    HostRules {
        files: (policy.files, place("files", policy.files == operator.policy.files)),
        tcp: (policy.tcp, place("tcp", policy.tcp == operator.policy.tcp)),
    }
}

impl Operator {
    /// Returns `true` if a digest that another file lists is allowed by each list of this one.
    fn is_listed(&self, digest: &AllowedDigest) -> bool {
        match &digest.agent {
            Some(agent) => self.policy.allows_digest(agent, digest.digest),
            None => self.policy.digests.iter().all(|list| {
                list.iter().all(|listed| listed.agent.is_some())
                    || list.iter().any(|listed| listed.digest == digest.digest)
            }),
        }
    }
}

/// The table with the rules of the operator that it is compared with.
struct Rules<'a> {
    section: &'a Section<'a>,
    operator: &'a Operator,
}

/// The keys of the table.
const KEYS: [&str; 9] =
    ["imports", "forbidden-exports", "max-component", "digests", "signatures", "keys", "features", "files", "tcp"];

impl Rules<'_> {
    /// Reads a list, and reports each element that is not within what the operator allows. Returns `None` without one.
    fn list<T: ToString>(
        &self,
        name: &'static str,
        of: impl Fn(Element) -> Option<T>,
        is_within: impl Fn(&T) -> bool,
        findings: &mut Findings,
    ) -> Option<Vec<T>> {
        let entry = self.section.entry(name)?;
        let elements: Vec<(Element, Source)> = self.section.get(name, None, findings)?;
        if entry.node.elements().is_empty() {
            // Read as no rule it would allow everything, and as a rule nothing at all.
            let at = Location { key: self.section.key(name), source: entry.node.source.clone() };
            findings.errors.push(ConfigError::Empty { at, example: example(self.section.schema(name), name) });
        }
        let mut list = Vec::with_capacity(elements.len());
        let mut at = 0;
        for (element, source) in elements {
            // Elements that cannot be read are missing, so that the place is looked up.
            at += entry.node.elements().iter().skip(at).take_while(|node| node.source != source).count();
            let Some(element) = of(element) else { continue };
            if !is_within(&element) {
                let key = format!("{name}[{at}]");
                self.looser((name, &key), source, format!("`{}`", element.to_string()), findings);
            }
            list.push(element);
            at += 1;
        }
        Some(list)
    }

    fn max_component(&self, findings: &mut Findings) -> Option<u64> {
        let given: u64 = self.section.get("max-component", None, findings)?;
        if self.operator.policy.max_component_bytes.is_some_and(|most| given > most) {
            self.looser(
                ("max-component", "max-component"),
                self.section.source_of("max-component"),
                print_bytes(given),
                findings,
            );
        }
        Some(given)
    }

    fn signatures(&self, findings: &mut Findings) -> bool {
        let is_required = self.section.get("signatures", None, findings) == Some("required");
        // Left out it is no word of this file.
        if self.operator.policy.signatures_required && !is_required && self.section.entry("signatures").is_some() {
            self.looser(
                ("signatures", "signatures"),
                self.section.source_of("signatures"),
                "`off`".to_owned(),
                findings,
            );
        }
        is_required
    }

    /// Reads the rule of a word. One that is written and looser than that of the operator is an error.
    fn word<T: Copy + Default + Ord + ToString>(
        &self,
        name: &'static str,
        of: impl Fn(&str) -> Option<T>,
        least: T,
        findings: &mut Findings,
    ) -> T {
        let given = self.section.get(name, None, findings).and_then(of).unwrap_or_default();
        if given < least && self.section.entry(name).is_some() {
            self.looser((name, name), self.section.source_of(name), format!("`{}`", given.to_string()), findings);
        }
        given
    }

    /// Reports a value of a key, or of an element of its list, that is looser than the rule of the operator.
    fn looser(&self, (name, written): (&'static str, &str), source: Source, given: String, findings: &mut Findings) {
        let policy = &self.operator.policy;
        let allowed = match name {
            "max-component" => policy.max_component_bytes.map(print_bytes).unwrap_or_default(),
            "signatures" => "`required`".to_owned(),
            "files" => format!("`{}`", policy.files),
            "tcp" => format!("`{}`", policy.tcp),
            _ => "a list without it".to_owned(),
        };
        let at = Location { key: self.section.key(written), source };
        let other = self.operator.places.get(name).cloned().unwrap_or(Source::Default);
        let reason = Box::new(PolicyError::Looser { given, allowed, other });
        findings.errors.push(ConfigError::Policy { at, reason });
    }

    /// Returns the places of the keys that are written.
    fn places(&self) -> BTreeMap<&'static str, Source> {
        let place = |name: &&'static str| Some((*name, self.section.entry(name)?.key.clone()));
        KEYS.iter().filter_map(place).collect()
    }
}
