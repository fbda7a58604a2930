//! The reading of a text: its words, their weights, the facts in it and its urgency.

use serde::{Deserialize, Serialize};

use crate::Ticket;

/// Words that say nothing about the matter, without apostrophes.
#[rustfmt::skip]
const STOP_WORDS: &[&str] = &[
    "a", "about", "after", "again", "all", "also", "am", "an", "and", "any", "anyone", "are", "aren", "as", "at",
    "be", "because", "been", "before", "but", "by", "can", "cannot", "cant", "could", "couldnt", "day", "days",
    "dear", "did", "didnt", "do", "does", "doesnt", "done", "dont", "each", "else", "even", "ever", "every", "few",
    "for", "from", "get", "gets", "getting", "go", "goes", "going", "got", "had", "has", "hasnt", "have", "havent",
    "he", "hello", "help", "her", "here", "hey", "hi", "him", "his", "how", "i", "if", "im", "in", "into", "is",
    "isnt", "it", "its", "ive", "just", "kind", "know", "let", "like", "lot", "made", "make", "many", "may", "me",
    "more", "most", "much", "must", "my", "need", "needs", "new", "next", "no", "not", "nothing", "now", "of", "off",
    "often", "ok", "okay", "on", "once", "one", "only", "or", "other", "our", "out", "over", "own", "please", "put",
    "re", "really", "regards", "said", "same", "say", "see", "seem", "seems", "she", "should", "since", "so", "some",
    "someone", "something", "soon", "still", "such", "sure", "take", "tell", "than", "thank", "thanks", "that", "the",
    "their", "them", "then", "there", "these", "they", "thing", "things", "this", "those", "though", "through",
    "time", "to", "today", "tomorrow", "too", "tried", "try", "trying", "two", "under", "until", "up", "us", "use",
    "used", "using", "very", "want", "wanted", "was", "wasnt", "way", "we", "week", "well", "went", "were", "what",
    "when", "where", "which", "while", "who", "why", "will", "with", "without", "wont", "work", "worked", "working",
    "works", "would", "wrong", "yesterday", "yet", "you", "your",
];

/// A word in the subject counts as often as this in the body.
const SUBJECT_WEIGHT: f64 = 3.0;
/// The number of keywords that are passed to other agents.
const MOST_KEYWORDS: usize = 24;
/// The number of words of a part that are read; a ticket has named its subject by then.
const MOST_WORDS: usize = 2_000;
/// The greatest length of a word, in letters; anything longer is not a word.
const LONGEST_WORD: usize = 40;

/// The findings in a text.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Reading {
    /// The words that carry the meaning, the weightiest first.
    pub keywords: Vec<Keyword>,
    /// The words without stop words, as stems in their order, for phrase search; `.` stands between sentences.
    pub words: Vec<String>,
    pub facts: Vec<Fact>,
    pub urgency: Urgency,
}

/// A word and its weight; the greatest weight in a text is 1.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Keyword {
    /// The word as it was first written, in lower case.
    pub word: String,
    /// The word without its endings.
    pub stem: String,
    pub weight: f64,
}

/// A part of the text whose form gives away its kind, such as an address or an amount.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Fact {
    /// `amount`, `email`, `address` (of the internet protocol), `link` or `reference` (such as INV-2041).
    pub kind: String,
    pub value: String,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Urgency {
    Low,
    #[default]
    Normal,
    High,
}

/// Reads a ticket.
pub fn read(ticket: &Ticket) -> Reading {
    let mut counted: Vec<(Keyword, usize)> = Vec::new();
    let mut words = Vec::new();
    for (part, weight) in [(&ticket.subject, SUBJECT_WEIGHT), (&ticket.body, 1.0)] {
        for word in split_words(part).take(MOST_WORDS) {
            let Word::Letters(word) = word else {
                words.push(String::from("."));
                continue;
            };
            let stem = stem(&word);
            words.push(stem.clone());
            let place = counted.len();
            match counted.iter_mut().find(|(keyword, _)| keyword.stem == stem) {
                Some((keyword, _)) => keyword.weight += weight,
                None => counted.push((Keyword { word, stem, weight }, place)),
            }
        }
        words.push(String::from("."));
    }
    let all = format!("{}\n{}", ticket.subject, ticket.body);
    Reading { keywords: weigh(counted), words, facts: find_facts(&all), urgency: judge_urgency(&all) }
}

/// Returns the stems of a phrase, without stop words, for a search in [`Reading::words`].
pub fn stems(phrase: &str) -> Vec<String> {
    split_words(phrase)
        .filter_map(|word| match word {
            Word::Letters(word) => Some(stem(&word)),
            Word::End => None,
        })
        .collect()
}

enum Word {
    /// A word in lower case.
    Letters(String),
    /// A sentence ends here.
    End,
}

/// Returns the words of a text without stop words and facts, and the ends of sentences.
fn split_words(text: &str) -> impl Iterator<Item = Word> {
    text.split_whitespace().flat_map(|token| {
        let mut words = Vec::new();
        if kind_of(strip_marks(token), "").is_none() {
            let letters = token.split(|c: char| !(c.is_alphanumeric() || matches!(c, '\'' | '’')));
            words.extend(letters.filter_map(read_word).map(Word::Letters));
        }
        if token.ends_with(['.', '!', '?']) {
            words.push(Word::End);
        }
        words
    })
}

/// A word in lower case without apostrophes; none when it says nothing about the matter.
fn read_word(written: &str) -> Option<String> {
    let word = written.trim_matches(['\'', '’']).to_lowercase();
    let word = word.strip_suffix("'s").or(word.strip_suffix("’s")).unwrap_or(&word).replace(['\'', '’'], "");
    let letters = word.chars().count();
    let says_something = (2..=LONGEST_WORD).contains(&letters)
        && !word.chars().all(|c| c.is_ascii_digit())
        && !STOP_WORDS.contains(&word.as_str());
    says_something.then_some(word)
}

/// A word without the endings of English that change no meaning: charge, charges, charged and charging are one.
fn stem(word: &str) -> String {
    if !word.is_ascii() || word.len() < 4 {
        return word.to_owned();
    }
    let mut stem = word.to_owned();
    if let Some(root) = stem.strip_suffix("ies").filter(|root| root.len() > 1) {
        stem = format!("{root}y");
    } else if stem.ends_with('s') && !stem.ends_with("ss") && !stem.ends_with("us") {
        stem.pop();
    }
    for ending in ["ing", "ed"] {
        if let Some(root) =
            stem.strip_suffix(ending).filter(|root| root.len() > 2 && root.contains(['a', 'e', 'i', 'o', 'u', 'y']))
        {
            stem = undouble(root).to_owned();
            break;
        }
    }
    if stem.len() > 3 && stem.ends_with('e') {
        stem.pop();
    }
    if stem.len() > 3 && stem.ends_with('y') {
        stem.replace_range(stem.len() - 1.., "i");
    }
    stem
}

/// `stopp` is `stop`, but `bill` is `bill`.
fn undouble(root: &str) -> &str {
    let bytes = root.as_bytes();
    match bytes {
        [.., a, b] if a == b && !matches!(b, b'l' | b's' | b'z' | b'e' | b'o') => &root[..root.len() - 1],
        _ => root,
    }
}

/// Makes weights of counts: often is more than once but not by as much, a long word says more than a short one.
fn weigh(mut counted: Vec<(Keyword, usize)>) -> Vec<Keyword> {
    for (keyword, _) in &mut counted {
        let length = keyword.stem.chars().count().min(12) as f64;
        keyword.weight = (1.0 + keyword.weight.ln()) * (1.0 + length / 12.0);
    }
    counted.sort_by(|(a, first), (b, second)| b.weight.total_cmp(&a.weight).then(first.cmp(second)));
    counted.truncate(MOST_KEYWORDS);
    let largest = counted.first().map_or(1.0, |(keyword, _)| keyword.weight);
    counted
        .into_iter()
        .map(|(keyword, _)| Keyword { weight: (keyword.weight / largest * 100.0).round() / 100.0, ..keyword })
        .collect()
}

fn find_facts(text: &str) -> Vec<Fact> {
    let mut facts: Vec<Fact> = Vec::new();
    let mut tokens = text.split_whitespace().map(strip_marks).peekable();
    while let Some(token) = tokens.next() {
        let unit = tokens.peek().copied().unwrap_or_default();
        let Some(kind) = kind_of(token, unit) else { continue };
        let value = if kind == "amount" && is_number(token) { format!("{token} {unit}") } else { token.to_owned() };
        if !facts.iter().any(|fact| fact.value == value) {
            facts.push(Fact { kind: kind.to_owned(), value });
        }
    }
    facts
}

fn strip_marks(token: &str) -> &str {
    token.trim_matches(['.', ',', ';', ':', '!', '?', '(', ')', '"', '\'', '<', '>'])
}

/// Returns the kind of fact that a token is, given the token after it.
fn kind_of(token: &str, next: &str) -> Option<&'static str> {
    if token.starts_with("http://") || token.starts_with("https://") {
        Some("link")
    } else if is_email(token) {
        Some("email")
    } else if is_address(token) {
        Some("address")
    } else if is_amount(token, next) {
        Some("amount")
    } else if is_reference(token) {
        Some("reference")
    } else {
        None
    }
}

fn is_email(token: &str) -> bool {
    token.split_once('@').is_some_and(|(name, host)| !name.is_empty() && host.contains('.') && !host.starts_with('.'))
}

fn is_address(token: &str) -> bool {
    token.parse::<std::net::Ipv4Addr>().is_ok() || (token.contains("::") && token.parse::<std::net::Ipv6Addr>().is_ok())
}

fn is_number(token: &str) -> bool {
    token.starts_with(|c: char| c.is_ascii_digit())
        && token.chars().all(|c| c.is_ascii_digit() || matches!(c, '.' | ','))
}

fn is_amount(token: &str, unit: &str) -> bool {
    const SIGNS: [char; 3] = ['$', '€', '£'];
    const UNITS: [&str; 9] = ["usd", "eur", "gbp", "dollar", "dollars", "euro", "euros", "pounds", "chf"];
    let bare = token.trim_start_matches(SIGNS).trim_end_matches(SIGNS);
    is_number(bare) && (bare.len() < token.len() || UNITS.contains(&unit.to_lowercase().as_str()))
}

/// Returns whether a token has capital letters, a hyphen or a number sign, and digits.
fn is_reference(token: &str) -> bool {
    let Some((letters, digits)) = token.split_once(['-', '#']) else { return false };
    letters.len() >= 2
        && letters.chars().all(|c| c.is_ascii_uppercase())
        && digits.len() >= 2
        && digits.chars().all(|c| c.is_ascii_digit() || c == '-')
}

fn judge_urgency(text: &str) -> Urgency {
    const PRESSING: [&str; 12] = [
        "urgent",
        "urgently",
        "asap",
        "immediately",
        "emergency",
        "critical",
        "outage",
        "deadline",
        "blocked",
        "down",
        "production",
        "everyone",
    ];
    const PATIENT: [&str; 5] = ["no rush", "no hurry", "not urgent", "whenever", "when you have time"];
    let lower = text.to_lowercase();
    if PATIENT.iter().any(|phrase| lower.contains(phrase)) {
        return Urgency::Low;
    }
    let mut signs = lower.split(|c: char| !c.is_alphanumeric()).filter(|word| PRESSING.contains(word)).count();
    let shouts = |word: &str| word.len() > 3 && word.chars().all(|c| c.is_ascii_uppercase());
    signs += usize::from(text.split_whitespace().filter(|word| shouts(word)).count() >= 3);
    signs += usize::from(text.matches('!').count() >= 2);
    if signs >= 2 || lower.contains("urgent") || lower.contains("asap") { Urgency::High } else { Urgency::Normal }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_of_one_meaning_have_one_stem() {
        let rows = [
            &["charge", "charges", "charged", "charging"][..],
            &["invoice", "invoices", "invoiced", "invoicing"],
            &["bill", "bills", "billed", "billing"],
            &["reply", "replies"],
            &["stop", "stops", "stopped", "stopping"],
            &["password", "passwords"],
            &["access"],
            &["vpn"],
        ];
        for row in rows {
            for word in row {
                assert_eq!(stem(word), stem(row[0]), "{word}");
            }
        }
        assert_ne!(stem("bill"), stem("ball"));
    }

    #[test]
    fn stop_words_are_written_as_they_are_looked_for() {
        assert!(STOP_WORDS.is_sorted());
        for word in STOP_WORDS {
            assert!(stems(word).is_empty(), "{word}");
        }
        assert_eq!(stems("I can't get my invoice's copy, don't you know?"), ["invoic", "copi"]);
    }

    #[test]
    fn facts_are_known_by_their_form() {
        let rows = [
            ("I paid $49.99 twice", "amount", "$49.99"),
            ("I paid 120 euros.", "amount", "120 euros"),
            ("write to ann@example.org, please", "email", "ann@example.org"),
            ("host 10.0.0.17 is gone", "address", "10.0.0.17"),
            ("see https://example.org/x.", "link", "https://example.org/x"),
            ("invoice INV-2041 is wrong", "reference", "INV-2041"),
        ];
        for (text, kind, value) in rows {
            assert_eq!(find_facts(text), [Fact { kind: kind.into(), value: value.into() }], "{text}");
        }
        assert!(find_facts("version 1.2 of 300 users, e-mail").is_empty());
    }

    #[test]
    fn urgency_follows_the_tone() {
        let rows = [
            ("the printer is slow", Urgency::Normal),
            ("URGENT: the printer", Urgency::High),
            ("production is down", Urgency::High),
            ("it is down", Urgency::Normal),
            ("help!! it is down", Urgency::High),
            ("no rush, but the printer is slow", Urgency::Low),
        ];
        for (text, urgency) in rows {
            assert_eq!(judge_urgency(text), urgency, "{text}");
        }
    }

    #[test]
    fn the_subject_weighs_more() {
        let ticket =
            Ticket { subject: "Refund".into(), body: "The printer and the refund of the printer".into(), from: None };
        let reading = read(&ticket);
        assert_eq!(reading.keywords[0].word, "refund");
        assert_eq!(reading.keywords.len(), 2);
        assert_eq!(reading.words, ["refund", ".", "printer", "refund", "printer", "."]);
    }
}
