use super::*;

fn patterns(texts: &[&str]) -> Vec<NamePattern> {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

fn codes(findings: &[Finding]) -> Vec<&'static str> {
    findings.iter().map(|finding| finding.code).collect()
}

#[test]
fn digests_are_of_all_agents_or_of_one() {
    let [one, two] = [Digest([1; 32]), Digest([2; 32])];
    let all = |digest| AllowedDigest { agent: None, digest };
    let of = |agent: &str, digest| AllowedDigest { agent: Some(agent.parse().unwrap()), digest };
    // lists, agent, digest, allowed
    for (lists, agent, digest, expected) in [
        (vec![], "triage", one, true),
        (vec![vec![all(one)]], "triage", one, true),
        (vec![vec![all(one)]], "triage", two, false),
        (vec![vec![all(one), of("triage", two)]], "triage", two, true),
        (vec![vec![all(one), of("triage", two)]], "triage", one, false),
        (vec![vec![all(one), of("triage", two)]], "desk", two, false),
        (vec![vec![of("triage", two)]], "desk", one, true),
        (vec![vec![all(one)], vec![all(two)]], "triage", one, false),
    ] {
        let policy = Policy { digests: lists.clone(), ..Policy::default() };
        assert_eq!(policy.allows_digest(&agent.parse().unwrap(), digest), expected, "{lists:?} {agent} {digest}");
    }
}

#[test]
fn digests_are_written_with_their_kind() {
    let digest = Digest([0xa5; 32]);
    for agent in [None, Some("triage".parse().unwrap())] {
        let allowed = AllowedDigest { agent, digest };
        assert_eq!(allowed.to_string().parse(), Ok(allowed));
    }
    for text in ["", "sha256:12", &digest.to_string(), &format!("-=sha256:{digest}"), &format!("=sha256:{digest}")] {
        assert_eq!(text.parse::<AllowedDigest>(), Err(AllowedDigestError), "{text}");
    }
}

#[test]
fn signatures_are_judged_if_they_are_required() {
    let [ours, theirs] = [TrustedKey([1; 32]), TrustedKey([2; 32])];
    let signed = |keys: &[TrustedKey]| SignatureCheck::Signed(keys.iter().copied().collect());
    // signatures, code where they are required
    for (found, expected) in [
        (SignatureCheck::Absent, Some("unsigned")),
        (SignatureCheck::Unreadable("it is a folder".to_owned()), Some("signature-mismatch")),
        (SignatureCheck::Mismatch, Some("signature-mismatch")),
        (signed(&[theirs]), Some("signature-untrusted")),
        (signed(&[ours]), None),
        (signed(&[ours, theirs]), None),
    ] {
        for required in [true, false] {
            let policy = Policy { signatures_required: required, keys: [ours].into(), ..Policy::default() };
            let findings = policy.judge_origin(&"triage".parse().unwrap(), "a.wasm", Digest([0; 32]), &found);
            assert_eq!(codes(&findings), Vec::from_iter(expected.filter(|_| required)), "{found:?}");
        }
    }
}

#[test]
fn components_are_judged_by_imports_exports_and_size() {
    let [imports, exports] = [
        ["wasi:io/poll@0.2.6", "wasi:clocks/wall-clock@0.2.6"].map(str::to_owned),
        ["caxton:agent/handler@0.1.0", "caxton:agent/health@0.1.0"].map(str::to_owned),
    ];
    let facts = ComponentFacts { imports: &imports, exports: &exports, size: 1_000 };
    let none = Policy::default;
    for (policy, expected) in [
        (none(), &[][..]),
        (Policy { imports: vec![patterns(&["wasi:*"])], ..none() }, &[]),
        (Policy { imports: vec![patterns(&["wasi:io/*"])], ..none() }, &["import-not-allowed"]),
        (
            Policy { imports: vec![patterns(&["wasi:io/*"]), patterns(&["wasi:clocks/*"])], ..none() },
            &["import-not-allowed", "import-not-allowed"],
        ),
        (Policy { forbidden_exports: patterns(&["*/health"]).into_iter().collect(), ..none() }, &["export-forbidden"]),
        (Policy { max_component_bytes: Some(1_000), ..none() }, &[]),
        (Policy { max_component_bytes: Some(999), ..none() }, &["over-size"]),
    ] {
        assert_eq!(codes(&policy.judge_component(facts)), expected, "{policy:?}");
    }
}

#[test]
fn of_two_policies_both_hold() {
    let [ours, theirs, third] = [1, 2, 3].map(|byte| TrustedKey([byte; 32]));
    let one = Policy {
        imports: vec![patterns(&["wasi:*"])],
        max_component_bytes: Some(5),
        keys: [ours, theirs].into(),
        features: Some(["simd", "tail-call"].into()),
        ..Policy::default()
    };
    let two = Policy {
        imports: vec![patterns(&["wasi:io/*"])],
        max_component_bytes: Some(7),
        signatures_required: true,
        keys: [theirs, third].into(),
        features: Some(["simd"].into()),
        ..Policy::default()
    };
    let both = one.stricter(&two);
    assert_eq!(both, Policy { imports: [&one.imports[..], &two.imports].concat(), ..two.stricter(&one) });
    assert_eq!((both.max_component_bytes, both.signatures_required), (Some(5), true));
    assert_eq!((both.keys, both.features), ([theirs].into(), Some(["simd"].into())));
    assert_eq!(one.stricter(&one), one);
    assert_eq!(one.stricter(&Policy::default()), one);
    assert_eq!(Policy::default().stricter(&one), one);
}
