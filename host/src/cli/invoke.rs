//! `caxton invoke` and `caxton send`.

use std::process::ExitCode;

use bytes::Bytes;
use http::{HeaderMap, Method, Response};
use serde_json::{Value, json};

use super::args::{InvokeArgs, MessageArgs, SendArgs};
use super::client::{Client, encode, query};
use super::content::read_content;
use super::options::Format;
use super::output::{CliError, Exit, Out, say};
use crate::api_types::AcceptedMessage;

/// The acts by which an agent refuses or reports a failure.
const UNHAPPY: [&str; 3] = ["failure", "refuse", "not-understood"];

/// Sends a message, waits for the reply and prints it.
pub(super) async fn invoke(invoke: &InvokeArgs, out: &mut Out) -> Result<ExitCode, CliError> {
    let client = Client::find(&invoke.host)?;
    let response = post(&client, &invoke.message, "invoke", Some(&invoke.timeout)).await?;
    // Without a performative the agent has given no reply, as opposed to an empty one.
    let act = header(response.headers(), "caxton-performative").map(str::to_owned);
    match out.format() {
        Format::Json => out.json(&reply(&response))?,
        Format::Text => {
            out.bytes(response.body())?;
            // On a terminal the next prompt starts on a new line. A pipe gets exactly the agent's bytes.
            if out.is_terminal() && !response.body().is_empty() && !response.body().ends_with(b"\n") {
                out.bytes(b"\n")?;
            }
        }
    }
    match act {
        // The reply was printed above; the exit code tells a script that the agent did not do it.
        Some(act) if UNHAPPY.contains(&act.as_str()) => {
            say(&format!("{} answered with `{act}`", invoke.message.agent));
            Err(CliError::quiet(Exit::Failed))
        }
        Some(_) => Ok(ExitCode::SUCCESS),
        None => {
            // JSON tells it already: `performative` is null.
            if out.format() == Format::Text {
                say(&format!("{} handled the message without an answer", invoke.message.agent));
            }
            Ok(ExitCode::SUCCESS)
        }
    }
}

/// Sends a message and prints its id.
pub(super) async fn send(send: &SendArgs, out: &mut Out) -> Result<(), CliError> {
    let client = Client::find(&send.host)?;
    let response = post(&client, &send.message, "messages", None).await?;
    let sent: AcceptedMessage = serde_json::from_slice(response.body()).map_err(anyhow::Error::from)?;
    match out.format() {
        Format::Json => out.json(&sent),
        Format::Text => out.line(&sent.id),
    }
}

async fn post(
    client: &Client,
    message: &MessageArgs,
    way: &str,
    timeout: Option<&str>,
) -> Result<Response<Bytes>, CliError> {
    let body = read_content(message.body.as_deref())?;
    let content_type = message.content_type.as_deref().unwrap_or_else(|| detect(&body));
    let query = query(&[
        ("performative", Some(&message.performative)),
        ("conversation", message.conversation.as_deref()),
        ("protocol", message.protocol.as_deref()),
        ("ontology", message.ontology.as_deref()),
        ("timeout", timeout),
    ]);
    let path = format!("/v1/agents/{}/{way}{query}", encode(&message.agent));
    client.send(Method::POST, &path, Some(content_type), body.into()).await
}

/// Guesses the content type: JSON for an object or an array, else text, else bytes. A bare number or word would also
/// parse as JSON, and is more likely text.
fn detect(body: &[u8]) -> &'static str {
    let first = body.iter().find(|byte| !byte.is_ascii_whitespace());
    // Parsed as a whole: text may begin with a bracket.
    let json = matches!(first, Some(b'{' | b'[')) && serde_json::from_slice::<serde::de::IgnoredAny>(body).is_ok();
    match (json, std::str::from_utf8(body)) {
        (true, _) => "application/json",
        (false, Ok(_)) => "text/plain; charset=utf-8",
        (false, Err(_)) => "application/octet-stream",
    }
}

fn header<'h>(headers: &'h HeaderMap, name: &str) -> Option<&'h str> {
    headers.get(name).and_then(|value| value.to_str().ok())
}

/// Renders a reply for programs: JSON content as JSON, text as text, and other bytes in hexadecimal.
fn reply(response: &Response<Bytes>) -> Value {
    let headers = response.headers();
    let text = |name| header(headers, name).map_or(Value::Null, Value::from);
    let mut rendered = json!({
        "id": text("caxton-message-id"),
        "conversation": text("caxton-conversation"),
        "revision": text("caxton-revision"),
        "performative": text("caxton-performative"),
        "content_type": text("content-type"),
    });
    let body = response.body();
    let is_json = header(headers, "content-type").is_some_and(|kind| {
        let kind = kind.split(';').next().unwrap_or(kind).trim();
        kind == "application/json" || kind.ends_with("+json")
    });
    match (is_json.then(|| serde_json::from_slice::<Value>(body)), std::str::from_utf8(body)) {
        // No reply at all, as opposed to an empty one.
        _ if header(headers, "caxton-performative").is_none() => rendered["content"] = Value::Null,
        (Some(Ok(value)), _) => rendered["content"] = value,
        // Also for JSON that does not parse, so that nothing of the reply is lost.
        (_, Ok(text)) => rendered["content"] = text.into(),
        (_, Err(_)) => {
            rendered["content_hex"] = body.iter().map(|byte| format!("{byte:02x}")).collect::<String>().into();
        }
    }
    rendered
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn content_types_are_detected() {
        for (body, expected) in [
            (&b"{\"a\": 1}"[..], "application/json"),
            (b" [1]\n", "application/json"),
            (b"{not json", "text/plain; charset=utf-8"),
            (b"7", "text/plain; charset=utf-8"),
            (b"", "text/plain; charset=utf-8"),
            (b"\xff\xfe", "application/octet-stream"),
        ] {
            assert_eq!(detect(body), expected, "{body:?}");
        }
    }

    #[test]
    fn replies_are_rendered_by_content_type() {
        for (kind, body, field, expected) in [
            ("application/json", &b"{\"a\":1}"[..], "content", json!({"a": 1})),
            ("application/problem+json; charset=utf-8", b"[]", "content", json!([])),
            ("application/json", b"{cut", "content", json!("{cut")),
            ("text/plain", b"hi", "content", json!("hi")),
            ("image/png", b"\x89P", "content_hex", json!("8950")),
        ] {
            let response = Response::builder()
                .header("content-type", kind)
                .header("caxton-performative", "inform")
                .body(Bytes::copy_from_slice(body))
                .unwrap();
            assert_eq!(reply(&response)[field], expected, "{kind}");
        }
        assert_eq!(reply(&Response::new(Bytes::new()))["content"], Value::Null);
    }
}
