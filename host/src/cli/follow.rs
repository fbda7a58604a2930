//! `caxton logs` and `caxton events`.

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::args::{EventsArgs, LogsArgs};
use super::client::{Client, query};
use super::options::Format;
use super::output::{CliError, Out, Style, printable, say};
use super::rollout_text::{pairs, sentence};
use super::time::rfc3339;
use crate::api_types::{EventEntry, LogEntry};

/// Prints lines of agents' logs.
pub(super) async fn logs(logs: &LogsArgs, out: &mut Out) -> Result<(), CliError> {
    let client = Client::find(&logs.host)?;
    let query = query(&[
        ("agent", logs.agent.as_deref()),
        ("tail", Some(&logs.tail.to_string())),
        ("follow", logs.follow.then_some("true")),
    ]);
    show(&client, &format!("/v1/logs{query}"), logs.follow, "lines", log_line, out).await
}

/// Prints events of the host.
pub(super) async fn events(events: &EventsArgs, out: &mut Out) -> Result<(), CliError> {
    let client = Client::find(&events.host)?;
    let query = query(&[
        ("agent", events.agent.as_deref()),
        ("after", events.after.map(|id| id.to_string()).as_deref()),
        ("limit", Some(&events.limit.to_string())),
        ("follow", events.follow.then_some("true")),
    ]);
    show(&client, &format!("/v1/events{query}"), events.follow, "events", event_line, out).await
}

/// Prints the latest items, and with `follow` also those that come.
async fn show<T: DeserializeOwned + Serialize>(
    client: &Client,
    path: &str,
    follow: bool,
    what: &str,
    line: fn(&T, &Out) -> String,
    out: &mut Out,
) -> Result<(), CliError> {
    if follow {
        out.follow();
    }
    let mut print = |one: &T| match out.format() {
        Format::Json => out.json_line(one),
        Format::Text => {
            let text = line(one, out);
            out.line(&text)
        }
    };
    if !follow {
        let all: Vec<T> = client.get(path).await?;
        return all.iter().try_for_each(print);
    }
    client
        .follow(path, |frame| {
            // Said on stderr, so that the output has lines of one form only.
            if frame.event == "missed" {
                let missed = serde_json::from_str::<Value>(&frame.data).ok();
                let missed = missed.and_then(|data| data["missed"].as_u64()).unwrap_or_default();
                say(&format!("{missed} {what} came too fast and are not shown here"));
                return Ok(());
            }
            print(&serde_json::from_str(&frame.data).map_err(anyhow::Error::from)?)
        })
        .await?;
    // A stream ends with its host, never by itself.
    say("the host ended");
    Ok(())
}

fn log_line(line: &LogEntry, out: &Out) -> String {
    let style = match line.level.as_str() {
        "error" | "critical" => Style::Bad,
        "warn" => Style::Warn,
        _ => Style::Dim,
    };
    let level = out.paint(&format!("{:<5}", line.level), style);
    // Further lines of one entry are indented, so that each line that starts at the left margin is an entry.
    let text = printable(line.text.trim_end()).replace('\n', "\n    ");
    let (agent, context) = (printable(&line.agent), printable(&line.context));
    format!("{} {level} {agent}@{} {context}: {text}", out.paint(&rfc3339(line.at), Style::Dim), line.revision)
}

fn event_line(event: &EventEntry, out: &Out) -> String {
    let whose = event.agent.as_deref().unwrap_or("-");
    let data = sentence(event).unwrap_or_else(|| pairs(&event.data));
    let line = format!("{} {:>6} {whose} {} {data}", out.paint(&rfc3339(event.at), Style::Dim), event.id, event.kind);
    line.trim_end().to_owned()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn lines_are_rendered() {
        let out = Out::new(Format::Text);
        let line = LogEntry {
            at: 0,
            agent: "echo".to_owned(),
            revision: 3,
            level: "warn".to_owned(),
            context: "stdout".to_owned(),
            text: "one\ntwo\x07\n".to_owned(),
        };
        assert_eq!(log_line(&line, &out), "1970-01-01T00:00:00.000Z warn  echo@3 stdout: one\n    two\\u{7}");
        let event = EventEntry {
            id: 7,
            at: 1,
            agent: Some("echo".to_owned()),
            kind: "revision.state".to_owned(),
            data: json!({ "revision": 3, "to": "failed", "reason": "no\nway", "from": null }),
        };
        assert_eq!(
            event_line(&event, &out),
            "1970-01-01T00:00:00.001Z      7 echo revision.state revision=3 to=failed reason=no way"
        );
    }
}
