//! The contract is read by the generators of several languages: no name in it may be a keyword in any of them, in any
//! form that the generator writes.

use std::path::Path;

use wit_parser::{Resolve, TypeDefKind};

/// A language: the forms in which its generators write a name, and its keywords (reserved words and literals).
struct Language {
    name: &'static str,
    forms: &'static [fn(&str) -> String],
    keywords: &'static str,
}

const LANGUAGES: [Language; 5] = [
    Language {
        name: "Rust",
        forms: &[snake, upper_camel],
        keywords: "as break const continue crate else enum extern false fn for if impl in let loop match mod move mut \
                   pub ref return self Self static struct super trait true type unsafe use where while async await \
                   dyn abstract become box do final macro override priv typeof unsized virtual yield try gen",
    },
    Language {
        name: "JavaScript",
        forms: &[lower_camel, upper_camel],
        keywords: "break case catch class const continue debugger default delete do else enum export extends false \
                   finally for function if implements import in instanceof interface let new null package private \
                   protected public return static super switch this throw true try typeof var void while with yield \
                   await async arguments eval undefined",
    },
    Language {
        name: "Python",
        forms: &[snake, upper_camel, shouty],
        keywords: "False None True and as assert async await break class continue def del elif else except finally \
                   for from global if import in is lambda nonlocal not or pass raise return try while with yield \
                   match case type",
    },
    Language {
        name: "Go",
        forms: &[lower_camel, upper_camel, run_together],
        keywords: "break case chan const continue default defer else fallthrough for func go goto if import interface \
                   map package range return select struct switch type var nil true false iota",
    },
    Language {
        name: "C",
        forms: &[snake, shouty],
        keywords: "alignas alignof auto bool break case char const constexpr continue default do double else enum \
                   extern false float for goto if inline int long nullptr register restrict return short signed \
                   sizeof static static_assert struct switch thread_local true typedef typeof typeof_unqual union \
                   unsigned void volatile while asm NULL EOF",
    },
];

#[test]
fn no_name_of_the_contract_is_a_keyword() {
    let names = names();
    assert!(names.len() > 80, "the contract has more names than these: {names:?}");
    let mut found = Vec::new();
    for name in &names {
        for language in &LANGUAGES {
            for form in language.forms {
                let written = form(name);
                if language.keywords.split_whitespace().any(|keyword| keyword == written) {
                    found.push(format!("{name} is {written} in {}", language.name));
                }
            }
        }
    }
    assert!(found.is_empty(), "{found:#?}");
}

#[test]
fn forms_match_those_of_the_generators() {
    let rows = [("list-keys", ["list_keys", "listKeys", "ListKeys", "LIST_KEYS", "listkeys"])];
    for (name, expected) in rows {
        assert_eq!([snake(name), lower_camel(name), upper_camel(name), shouty(name), run_together(name)], expected);
    }
}

/// Returns every name that the package `caxton:agent` defines, as written there.
fn names() -> Vec<String> {
    let mut resolve = Resolve::default();
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../wit");
    let (package, _) = resolve.push_dir(&folder).expect("the contract is a package");
    let package = &resolve.packages[package];

    let mut names = vec![package.name.namespace.clone(), package.name.name.clone()];
    names.extend(package.worlds.keys().cloned());
    for (interface_name, id) in &package.interfaces {
        names.push(interface_name.clone());
        let interface = &resolve.interfaces[*id];
        for (function_name, function) in &interface.functions {
            names.push(function_name.clone());
            names.extend(function.params.iter().map(|param| param.name.clone()));
        }
        for (type_name, id) in &interface.types {
            names.push(type_name.clone());
            match &resolve.types[*id].kind {
                TypeDefKind::Record(record) => names.extend(record.fields.iter().map(|field| field.name.clone())),
                TypeDefKind::Variant(variant) => names.extend(variant.cases.iter().map(|case| case.name.clone())),
                TypeDefKind::Enum(cases) => names.extend(cases.cases.iter().map(|case| case.name.clone())),
                TypeDefKind::Flags(flags) => names.extend(flags.flags.iter().map(|flag| flag.name.clone())),
                _ => {}
            }
        }
    }
    names.sort();
    names.dedup();
    names
}

fn snake(name: &str) -> String {
    name.replace('-', "_")
}

fn shouty(name: &str) -> String {
    snake(name).to_uppercase()
}

fn run_together(name: &str) -> String {
    name.replace('-', "")
}

fn upper_camel(name: &str) -> String {
    let capital = |word: &str| word[..1].to_uppercase() + &word[1..];
    name.split('-').map(capital).collect()
}

fn lower_camel(name: &str) -> String {
    let camel = upper_camel(name);
    camel[..1].to_lowercase() + &camel[1..]
}
