//! The words of a Rust file without its comments, literals and tests.

/// A word of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Token {
    /// An identifier or keyword.
    Name(String),
    /// The `::` between the segments of a path.
    Separator,
    /// A character that is neither of these.
    Mark(char),
}

impl Token {
    /// Returns the identifier, if this is one.
    pub(crate) fn name(&self) -> Option<&str> {
        match self {
            Self::Name(name) => Some(name),
            Self::Separator | Self::Mark(_) => None,
        }
    }

    /// Returns whether this is the identifier or keyword `word`.
    pub(crate) fn is(&self, word: &str) -> bool {
        self.name() == Some(word)
    }
}

/// Splits a file into its words, and leaves out each item under `#[cfg(test)]`.
pub(crate) fn tokens(text: &str) -> Vec<Token> {
    without_tests(&split(text))
}

fn is_name(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

fn split(text: &str) -> Vec<Token> {
    let mut found = Vec::new();
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        let length = if rest.starts_with("//") {
            rest.find('\n').unwrap_or(rest.len())
        } else if rest.starts_with("/*") {
            rest.find("*/").map_or(rest.len(), |end| end + 2)
        } else if let Some(length) = literal(rest) {
            length
        } else if let Some(raw) = rest.strip_prefix("r#") {
            raw.find(|c| !is_name(c)).map_or(rest.len(), |end| end + 2)
        } else if is_name(c) {
            let end = rest.find(|c| !is_name(c)).unwrap_or(rest.len());
            found.push(Token::Name(rest[..end].to_owned()));
            end
        } else if rest.starts_with("::") {
            found.push(Token::Separator);
            2
        } else {
            if !c.is_whitespace() {
                found.push(Token::Mark(c));
            }
            c.len_utf8()
        };
        rest = &rest[length..];
    }
    found
}

/// Returns the length of the string, character or lifetime with which a text begins.
fn literal(text: &str) -> Option<usize> {
    let opening = text.trim_start_matches(['b', 'c']);
    let prefix = text.len() - opening.len();
    if prefix > 1 {
        return None;
    }
    let raw = opening.strip_prefix('r').map(|rest| (rest, rest.len() - rest.trim_start_matches('#').len()));
    if let Some((rest, hashes)) = raw.filter(|(rest, hashes)| rest[*hashes..].starts_with('"')) {
        let closing = format!("\"{}", "#".repeat(hashes));
        let end = rest[hashes + 1..].find(&closing).map_or(rest.len(), |end| hashes + 1 + end + closing.len());
        return Some(prefix + 1 + end);
    }
    let quote = opening.chars().next().filter(|c| *c == '"' || *c == '\'')?;
    // A lifetime has no closing quote: `'a` in `&'a str`, as against `'a'`.
    let is_lifetime = quote == '\'' && !opening[1..].starts_with('\\') && opening.chars().nth(2) != Some('\'');
    if is_lifetime {
        return Some(prefix + 1 + opening[1..].find(|c| !is_name(c)).unwrap_or(opening.len() - 1));
    }
    let mut escaped = false;
    let end = opening.char_indices().skip(1).find(|(_, c)| {
        let ends = *c == quote && !escaped;
        escaped = *c == '\\' && !escaped;
        ends
    });
    Some(prefix + end.map_or(opening.len(), |(end, _)| end + 1))
}

fn without_tests(tokens: &[Token]) -> Vec<Token> {
    let gate = split("#[cfg(test)]");
    let mut kept = Vec::new();
    let mut at = 0;
    while at < tokens.len() {
        if tokens[at..].starts_with(&gate) {
            at = after_item(tokens, at + gate.len());
        } else {
            kept.push(tokens[at].clone());
            at += 1;
        }
    }
    kept
}

/// Returns the place after the item, field or arm that begins here, attributes included.
fn after_item(tokens: &[Token], mut at: usize) -> usize {
    const ITEMS: [&str; 15] = [
        "pub",
        "fn",
        "struct",
        "enum",
        "impl",
        "mod",
        "use",
        "const",
        "static",
        "type",
        "trait",
        "async",
        "unsafe",
        "let",
        "macro_rules",
    ];
    while tokens.get(at) == Some(&Token::Mark('#')) {
        at = after_group(tokens, at + 1);
    }
    // A comma ends a field or an arm, but not the parameters of a function.
    let is_item = tokens.get(at).and_then(Token::name).is_some_and(|word| ITEMS.contains(&word));
    while let Some(token) = tokens.get(at) {
        match token {
            Token::Mark(';') => return at + 1,
            Token::Mark(',') if !is_item => return at + 1,
            Token::Mark('{') => return after_group(tokens, at),
            Token::Mark('(' | '[') => at = after_group(tokens, at),
            Token::Mark('}') => return at,
            _ => at += 1,
        }
    }
    at
}

/// Returns the place after the bracket that closes the one that stands here.
pub(crate) fn after_group(tokens: &[Token], from: usize) -> usize {
    let mut depth = 0_usize;
    for (at, token) in tokens.iter().enumerate().skip(from) {
        match token {
            Token::Mark('(' | '[' | '{') => depth += 1,
            Token::Mark(')' | ']' | '}') => depth = depth.saturating_sub(1),
            _ => {}
        }
        if depth == 0 {
            return at + 1;
        }
    }
    tokens.len()
}
