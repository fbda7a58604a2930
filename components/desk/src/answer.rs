//! The text of an answer, from a template and the facts of a ticket.

use helpdesk::Call;

/// Replaces `{NAME|OTHERWISE}` by a part of the ticket: `subject`, `from`, `id`, or a fact of the kind NAME.
pub(crate) fn fill(template: &str, call: &Call) -> String {
    let mut text = String::new();
    let mut rest = template;
    while let Some((before, after)) = rest.split_once('{') {
        text += before;
        let Some((place, after)) = after.split_once('}') else {
            // A brace that is never closed stands for itself.
            text.push('{');
            rest = after;
            break;
        };
        let (name, otherwise) = place.split_once('|').unwrap_or((place, ""));
        text += value(name, call).unwrap_or(otherwise);
        rest = after;
    }
    text + rest
}

fn value<'a>(name: &str, call: &'a Call) -> Option<&'a str> {
    match name {
        "subject" => Some(&call.ticket.subject),
        "from" => call.ticket.from.as_deref(),
        "id" => Some(&call.id),
        kind => call.reading.facts.iter().find(|fact| fact.kind == kind).map(|fact| fact.value.as_str()),
    }
}
