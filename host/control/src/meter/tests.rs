use super::*;

fn meter(units: &[(&str, &[(&str, u64)])]) -> UnitMeter {
    let terms = |terms: &[(&str, u64)]| terms.iter().map(|(text, factor)| ((*text).to_owned(), *factor)).collect();
    let units = units.iter().map(|(unit, own)| ((*unit).to_owned(), terms(own))).collect();
    UnitMeter::new(units, BTreeMap::new()).unwrap()
}

fn read(meter: &UnitMeter, is_stream: bool, text: &str) -> Vec<(String, u64)> {
    let mut whole = meter.read(is_stream);
    whole.feed(text.as_bytes());
    whole.end();
    let figures = meter.figures(&whole);
    // However it is cut on its way, it is the same.
    for size in [1, 2, 3, 7] {
        let mut parts = meter.read(is_stream);
        text.as_bytes().chunks(size).for_each(|part| parts.feed(part));
        parts.end();
        assert_eq!(meter.figures(&parts), figures, "in parts of {size}: {text}");
    }
    figures.into_iter().collect()
}

#[test]
fn numbers_are_found_by_their_pointer() {
    let meter = meter(&[("tokens", &[("/usage/total_tokens", 1)])]);
    for (text, expected) in [
        (r#"{"usage":{"total_tokens":12}}"#, Some(12)),
        (r#" { "id": "x", "usage" : { "prompt_tokens": 7, "total_tokens" : 12 } } "#, Some(12)),
        (r#"{"choices":[{"usage":{"total_tokens":3}}],"usage":{"total_tokens":12}}"#, Some(12)),
        (r#"{"usage":{"total_tokens":12},"data":[0.1,-2e5,{"usage":{"total_tokens":3}}]}"#, Some(12)),
        (r#"{"text":"\"usage\":{\"total_tokens\":3}","usage":{"total_tokens":12}}"#, Some(12)),
        (r#"{"text":"ends with \\","usage":{"total_tokens":12}}"#, Some(12)),
        (r#"{"us\u0061ge":{"total\u005ftokens":12}}"#, Some(12)),
        (r#"{"usage":{"total_tokens":18446744073709551615}}"#, Some(u64::MAX)),
        // No whole number from 0 on that fits.
        (r#"{"usage":{"total_tokens":18446744073709551616}}"#, None),
        (r#"{"usage":{"total_tokens":12.0}}"#, None),
        (r#"{"usage":{"total_tokens":1e3}}"#, None),
        (r#"{"usage":{"total_tokens":-1}}"#, None),
        (r#"{"usage":{"total_tokens":"12"}}"#, None),
        (r#"{"usage":{"total_tokens":null}}"#, None),
        (r#"{"usage":{"total_tokens":{"total_tokens":12}}}"#, None),
        (r#"{"usage":[{"total_tokens":12}]}"#, None),
        (r#"{"total_tokens":12}"#, None),
        // It breaks off behind the number, and in it.
        (r#"{"usage":{"total_tokens":12,"#, Some(12)),
        ("no JSON at all: }}]],,::\"", None),
        ("", None),
    ] {
        let expected: Vec<(String, u64)> = expected.map(|found| ("tokens".to_owned(), found)).into_iter().collect();
        assert_eq!(read(&meter, false, text), expected, "{text}");
    }
    let deep = format!("{}{}{}", "[".repeat(10_000), "]".repeat(10_000), r#"{"usage":{"total_tokens":12}}"#);
    assert_eq!(read(&meter, false, &deep), [("tokens".to_owned(), 12)]);
    let long = format!(r#"{{"{}":1,"usage":{{"total_tokens":12}}}}"#, "k".repeat(100_000));
    assert_eq!(read(&meter, false, &long), [("tokens".to_owned(), 12)]);
}

#[test]
fn pointers_name_elements_and_escaped_keys() {
    let meter = meter(&[
        ("a", &[("/list/1/n", 1)]),
        ("b", &[("/x~1y/~0z", 1)]),
        ("c", &[("/list/01/n", 1)]),
        ("d", &[("/", 1)]),
    ]);
    let text = r#"{"list":[{"n":1},{"n":2},{"n":3}],"x/y":{"~z":5},"":6}"#;
    assert_eq!(read(&meter, false, text), [("a".to_owned(), 2), ("b".to_owned(), 5), ("d".to_owned(), 6)]);
}

#[test]
fn units_are_sums_with_factors_of_numbers_that_are_all_there() {
    let meter = meter(&[
        ("microusd", &[("/usage/in", 2), ("/usage/out", 6)]),
        ("tokens", &[("/usage/in", 1), ("/usage/out", 1)]),
        ("more", &[("/usage/in", 1), ("/usage/missing", 1)]),
        ("huge", &[("/usage/in", u64::MAX), ("/usage/out", u64::MAX)]),
    ]);
    assert_eq!(
        read(&meter, false, r#"{"usage":{"in":10,"out":3}}"#),
        [("huge".to_owned(), u64::MAX), ("microusd".to_owned(), 38), ("tokens".to_owned(), 13)]
    );
}

#[test]
fn the_last_event_with_a_figure_decides() {
    let meter = meter(&[("tokens", &[("/usage/total_tokens", 1)]), ("in", &[("/message/usage/input", 1)])]);
    for (text, expected) in [
        ("data: {\"usage\":{\"total_tokens\":12}}\n\ndata: [DONE]\n\n", vec![("tokens", 12)]),
        (
            "data:{\"usage\":{\"total_tokens\":1}}\r\n\r\ndata:{\"usage\":{\"total_tokens\":12}}\r\n\r\n",
            vec![("tokens", 12)],
        ),
        ("data: {\"usage\":{\"total_tokens\":1}}\r\rdata: {\"x\":1}\r\r", vec![("tokens", 1)]),
        ("event: usage\nid: 7\ndata: {\"usage\":\ndata: {\"total_tokens\":12}}\n\n", vec![("tokens", 12)]),
        // The end of the stream ends the last event too.
        ("data: {\"usage\":{\"total_tokens\":12}}", vec![("tokens", 12)]),
        (": data: {\"usage\":{\"total_tokens\":12}}\n\n", vec![]),
        ("datax: {\"usage\":{\"total_tokens\":12}}\n\n", vec![]),
        ("retry: {\"usage\":{\"total_tokens\":12}}\n\n", vec![]),
        // An event that breaks off does not reach into the next.
        ("data: {\"usage\":{\n\ndata: \"total_tokens\":12}}\n\n", vec![]),
        (
            "data: {\"message\":{\"usage\":{\"input\":9}}}\n\ndata: {\"usage\":{\"total_tokens\":3}}\n\ndata: {\"usage\":{\"total_tokens\":4}}\n\n",
            vec![("in", 9), ("tokens", 4)],
        ),
    ] {
        let expected: Vec<(String, u64)> = expected.into_iter().map(|(unit, found)| (unit.to_owned(), found)).collect();
        assert_eq!(read(&meter, true, text), expected, "{text}");
    }
}

#[test]
fn what_is_no_meter_is_refused() {
    let terms =
        |text: &str, factor| BTreeMap::from([("tokens".to_owned(), BTreeMap::from([(text.to_owned(), factor)]))]);
    let most = |unit: &str| BTreeMap::from([(unit.to_owned(), 1)]);
    for (units, at_most, expected) in [
        (terms("/usage", 1), most("tokens"), None),
        (terms("/a~0~1/b", 1), BTreeMap::new(), None),
        (terms("usage", 1), BTreeMap::new(), Some(MeterError::Pointer("usage".to_owned()))),
        (terms("", 1), BTreeMap::new(), Some(MeterError::Pointer(String::new()))),
        (terms("/a~2", 1), BTreeMap::new(), Some(MeterError::Pointer("/a~2".to_owned()))),
        (terms("/a~", 1), BTreeMap::new(), Some(MeterError::Pointer("/a~".to_owned()))),
        (terms("/usage", 0), BTreeMap::new(), Some(MeterError::Factor("/usage".to_owned()))),
        (terms("/usage", 1), most("cents"), Some(MeterError::AtMost("cents".to_owned()))),
        (BTreeMap::from([("tokens".to_owned(), BTreeMap::new())]), BTreeMap::new(), Some(MeterError::Size)),
    ] {
        assert_eq!(UnitMeter::new(units.clone(), at_most).err(), expected, "{units:?}");
    }
}

#[test]
fn meters_are_stored_as_they_are_written() {
    let meter = UnitMeter::new(
        BTreeMap::from([("tokens".to_owned(), BTreeMap::from([("/usage".to_owned(), 2)]))]),
        BTreeMap::from([("tokens".to_owned(), 9)]),
    )
    .unwrap();
    let text = serde_json::to_string(&meter).unwrap();
    assert_eq!(serde_json::from_str::<UnitMeter>(&text).unwrap(), meter);
    assert_eq!(meter.reservation(), BTreeMap::from([("tokens".to_owned(), 9)]));
}
