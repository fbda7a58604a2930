//! A parser of URL queries in the format of browsers and forms (`application/x-www-form-urlencoded`).

/// Returns the decoded names and values of a query in order: `a=1&b=x%20y`. A name without `=` has an empty value.
pub(crate) fn pairs(query: &str) -> impl Iterator<Item = (String, String)> + '_ {
    query.split('&').filter(|pair| !pair.is_empty()).map(|pair| {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        (decoded(name), decoded(value))
    })
}

/// Returns the first value of a name, decoded.
pub(crate) fn value(query: &str, name: &str) -> Option<String> {
    pairs(query).find(|(given, _)| given == name).map(|(_, value)| value)
}

/// Decodes `+` and `%XX`. An invalid encoding is kept as it is, and invalid UTF-8 is replaced.
fn decoded(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [byte, tail @ ..] = rest {
        // A stray `%` is kept, as browsers do, since a query is never refused here.
        let digit = |at: usize| tail.get(at).and_then(|byte| char::from(*byte).to_digit(16));
        (rest, _) = match (byte, digit(0), digit(1)) {
            (b'%', Some(high), Some(low)) => (&tail[2..], bytes.push((high * 16 + low) as u8)),
            (b'+', ..) => (tail, bytes.push(b' ')),
            _ => (tail, bytes.push(*byte)),
        };
    }
    // Without a copy in the usual case of valid UTF-8.
    String::from_utf8(bytes).unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queries_are_parsed_as_forms_write_them() {
        let rows: [(&str, &[(&str, &str)]); 7] = [
            ("", &[]),
            ("a=1&b=2", &[("a", "1"), ("b", "2")]),
            ("a&b=&=c&&", &[("a", ""), ("b", ""), ("", "c")]),
            ("q=x+y%20z%2B", &[("q", "x y z+")]),
            ("t%C3%BCr=%C3%BC", &[("t\u{fc}r", "\u{fc}")]),
            ("a=100%&b=%zz&c=%4", &[("a", "100%"), ("b", "%zz"), ("c", "%4")]),
            ("a=%FF", &[("a", "\u{fffd}")]),
        ];
        for (query, expected) in rows {
            let found: Vec<(String, String)> = pairs(query).collect();
            let found: Vec<(&str, &str)> = found.iter().map(|(name, value)| (&**name, &**value)).collect();
            assert_eq!(found, expected, "{query}");
        }
        assert_eq!(value("a=1&b=2&a=3", "a").as_deref(), Some("1"));
        assert_eq!(value("a=1", "b"), None);
    }
}
