//! The categories of tickets that a desk answers, from its configuration, and the score of a ticket in each.

use caxton_sdk::prelude::*;
use helpdesk::{Reading, stems};

/// The sum of matches at which a score is one half.
const HALF: f64 = 3.0;
/// A phrase says more than its words do one by one.
const PHRASE: f64 = 1.5;

/// A category of tickets.
pub(crate) struct Category {
    pub(crate) name: String,
    pub(crate) answer: String,
    phrases: Vec<Phrase>,
}

struct Phrase {
    /// The phrase as configured.
    text: String,
    form: Form,
    weight: f64,
}

enum Form {
    Stems(Vec<String>),
    /// A fact of this kind.
    Fact(String),
}

/// The match of a ticket with a category.
pub(crate) struct Match {
    /// A number from 0 to 1.
    pub(crate) score: f64,
    pub(crate) matched: Vec<String>,
}

/// Reads all categories of this desk, sorted by name.
pub(crate) fn read_categories() -> Result<Vec<Category>, Failure> {
    let settings = config::all()?;
    let mut categories = Vec::new();
    for (key, phrases) in &settings {
        let Some(category) = key.strip_prefix("about-") else { continue };
        let answer = format!("answer-{category}");
        let Some((_, answer)) = settings.iter().find(|(key, _)| *key == answer) else {
            return Err(Failure::fault(format!("config.{key} is there, but config.{answer} is not")));
        };
        let phrases: Result<Vec<_>, _> = phrases
            .split(',')
            .map(|phrase| read_phrase(phrase).map_err(|reason| Failure::fault(format!("config.{key}: {reason}"))))
            .collect();
        categories.push(Category { name: category.to_owned(), answer: answer.clone(), phrases: phrases? });
    }
    categories.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(categories)
}

/// `PHRASE = WEIGHT`; the weight is 1 when it is not there.
fn read_phrase(phrase: &str) -> Result<Phrase, String> {
    let (text, weight) = match phrase.split_once('=') {
        Some((text, weight)) => {
            let weight = weight.trim();
            (text.trim(), weight.parse().map_err(|_| format!("{weight:?} is not a weight"))?)
        }
        None => (phrase.trim(), 1.0),
    };
    let form = match text.strip_prefix('@') {
        Some(kind) => Form::Fact(kind.to_owned()),
        None => Form::Stems(stems(text)),
    };
    if matches!(&form, Form::Stems(stems) if stems.is_empty()) {
        return Err(format!("{phrase:?} has no word to look for"));
    }
    Ok(Phrase { text: text.to_owned(), form, weight })
}

impl Category {
    /// Scores a ticket in this category.
    pub(crate) fn score(&self, reading: &Reading) -> Match {
        let mut matches: Vec<(f64, &str)> = self
            .phrases
            .iter()
            .map(|phrase| (phrase.weight * phrase.strength(reading), phrase.text.as_str()))
            .filter(|(strength, _)| *strength > 0.0)
            .collect();
        matches.sort_by(|a, b| b.0.total_cmp(&a.0));
        let sum: f64 = matches.iter().map(|(strength, _)| strength).sum();
        // Facts alone, an amount for example, are of no category.
        let words =
            self.phrases.iter().any(|phrase| matches!(phrase.form, Form::Stems(_)) && phrase.strength(reading) > 0.0);
        let score = if words { (sum / (sum + HALF) * 100.0).round() / 100.0 } else { 0.0 };
        Match { score, matched: matches.into_iter().map(|(_, text)| text.to_owned()).collect() }
    }
}

impl Phrase {
    /// Returns how strongly the text matches this phrase: 0 for not at all, 1 for its weightiest word.
    fn strength(&self, reading: &Reading) -> f64 {
        match &self.form {
            Form::Fact(kind) => f64::from(u8::from(reading.facts.iter().any(|fact| fact.kind == *kind))),
            Form::Stems(stems) if !reading.words.windows(stems.len()).any(|words| words == stems.as_slice()) => 0.0,
            Form::Stems(stems) => {
                let weight = |stem: &String| {
                    reading.keywords.iter().find(|keyword| keyword.stem == *stem).map_or(0.1, |keyword| keyword.weight)
                };
                let mean = stems.iter().map(weight).sum::<f64>() / stems.len() as f64;
                if stems.len() > 1 { mean * PHRASE } else { mean }
            }
        }
    }
}
