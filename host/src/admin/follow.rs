//! Events and logs: the latest ones as JSON, or a stream of server-sent events.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::response::sse::{Event as Frame, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures::Stream;
use http::HeaderMap;
use http::header::{ACCEPT, HeaderName};
use serde::Deserialize;
use tokio::sync::broadcast;
use tokio::sync::broadcast::error::RecvError;
use tokio_util::sync::CancellationToken;

use super::api::Api;
use super::extract::{Params, page_size};
use super::page::{keep_first, keep_last};
use super::problem;
use crate::api_types::{EventEntry, LogEntry};
use crate::logs::Line;
use crate::problem::Problem;
use crate::store::{Event, EventFilter};

/// The number of events returned by default.
const EVENTS: u32 = 100;
/// The number of lines returned by default.
const LINES: u32 = 100;

/// The query of the list of events.
#[derive(Debug, Default, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct EventParams {
    /// Selects events of this agent.
    agent: Option<String>,
    /// Selects events after this id, the oldest first. Without it, the newest are returned.
    #[serde(default)]
    after: i64,
    /// The most to return: 100 by default, 1000 at most.
    limit: Option<u32>,
    /// Set to go on with new events as server-sent events, like `Accept: text/event-stream`.
    #[serde(default)]
    follow: bool,
}

/// The query of the list of log lines.
#[derive(Debug, Default, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct LogParams {
    /// Selects lines of this agent.
    agent: Option<String>,
    /// The number of newest lines to return: 100 by default, 0 to 1000.
    tail: Option<u32>,
    /// Set to go on with new lines as server-sent events, like `Accept: text/event-stream`.
    #[serde(default)]
    follow: bool,
}

/// Returns events of the host.
///
/// Server-sent events carry their id, so that a client that reconnects with `Last-Event-ID` misses none. A client that
/// is too slow gets `event: missed` with the number of events it missed.
#[utoipa::path(
    get, path = "/v1/events", tag = "events",
    params(EventParams),
    responses((status = 200, description = "The events; or a stream of them", content(
        ([EventEntry] = "application/json"),
        (String = "text/event-stream"),
    ))),
)]
pub(super) async fn events(
    State(api): State<Api>,
    Params(params): Params<EventParams>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let mut filter = EventFilter { agent: params.agent, after: params.after, limit: page_size(params.limit, EVENTS)? };
    if !params.follow && !wants_stream(&headers) {
        let events = api.context.store.events().list(&filter).map_err(problem::host_error)?;
        let mut events: Vec<EventEntry> = events.iter().map(entry).collect();
        // Without a start the newest are asked for; with one, the next request goes on after the last.
        let _ = if filter.after == 0 { keep_last(&mut events) } else { keep_first(&mut events) };
        return Ok(Json(events).into_response());
    }
    // Takes precedence over `after`: a client that reconnects repeats the query of its first request.
    if let Some(last) = headers.get(HeaderName::from_static("last-event-id")) {
        let last = last.to_str().ok().and_then(|last| last.parse().ok());
        filter.after =
            last.ok_or_else(|| Problem::bad_request("the header last-event-id is not the id of an event"))?;
    }
    // Subscribed before the backlog is read: an event in between occurs in both, and is dropped from the live ones by
    // its id.
    let live = api.context.events.follow();
    let backlog = catch_up(&api, &mut filter)?;
    let seen = filter.after;
    let agent = filter.agent;
    let wanted = move |event: &Arc<Event>| {
        event.id > seen && agent.as_deref().is_none_or(|agent| event.agent.as_deref() == Some(agent))
    };
    let follow = Follow { backlog, live, wanted, stop: api.stopped().clone() };
    Ok(stream(follow, |event| Frame::default().id(event.id.to_string()).json_data(entry(&event))))
}

/// Reads the events before the live ones. Leaves the id of the last one in the filter.
fn catch_up(api: &Api, filter: &mut EventFilter) -> Result<VecDeque<Arc<Event>>, Problem> {
    // Without a start, only the newest page is shown before the live events.
    let newest_only = filter.after == 0;
    let mut backlog = VecDeque::new();
    loop {
        let events = api.context.store.events().list(filter).map_err(problem::host_error)?;
        let full = u32::try_from(events.len()).is_ok_and(|count| count == filter.limit);
        filter.after = events.last().map_or(filter.after, |event| event.id);
        backlog.extend(events.into_iter().map(Arc::new));
        if newest_only || !full {
            return Ok(backlog);
        }
    }
}

fn entry(event: &(impl std::borrow::Borrow<Event> + ?Sized)) -> EventEntry {
    let Event { id, at, agent, kind, data } = event.borrow().clone();
    EventEntry { id, at, agent, kind, data }
}

/// Returns lines of agents' logs.
///
/// A client that is too slow gets `event: missed` with the number of lines it missed.
#[utoipa::path(
    get, path = "/v1/logs", tag = "events",
    params(LogParams),
    responses((status = 200, description = "The lines; or a stream of them", content(
        ([LogEntry] = "application/json"),
        (String = "text/event-stream"),
    ))),
)]
pub(super) async fn logs(
    State(api): State<Api>,
    Params(params): Params<LogParams>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    // A misspelt name would otherwise give an empty stream.
    if let Some(agent) = &params.agent {
        api.agent(agent).await?;
    }
    // `page_size` refuses 0, which is useful here: only new lines.
    let count = match params.tail {
        Some(0) => 0,
        tail => page_size(tail, LINES)? as usize,
    };
    // Subscribed before the newest lines are read, so that none is missed in between.
    let live = api.context.logs.follow();
    let newest = api.context.logs.newest(params.agent.as_deref(), count);
    if !params.follow && !wants_stream(&headers) {
        let mut lines: Vec<LogEntry> = newest.iter().map(|line| log_entry(line)).collect();
        keep_last(&mut lines);
        return Ok(Json(lines).into_response());
    }
    // A line in between occurs in both, as the same allocation.
    let seen = newest.clone();
    let wanted = move |line: &Arc<Line>| {
        params.agent.as_deref().is_none_or(|agent| agent == &*line.agent)
            && !seen.iter().any(|seen| Arc::ptr_eq(seen, line))
    };
    let follow = Follow { backlog: newest.into(), live, wanted, stop: api.stopped().clone() };
    Ok(stream(follow, |line| Frame::default().json_data(log_entry(&line))))
}

fn log_entry(line: &Line) -> LogEntry {
    LogEntry {
        at: line.at,
        agent: line.agent.to_string(),
        revision: line.revision,
        level: line.level.to_owned(),
        context: line.context.clone(),
        text: line.text.clone(),
    }
}

fn wants_stream(headers: &HeaderMap) -> bool {
    let accept = headers.get(ACCEPT).and_then(|accept| accept.to_str().ok()).unwrap_or("");
    accept.split(',').any(|kind| kind.trim().starts_with("text/event-stream"))
}

/// A backlog followed by live items.
struct Follow<T, W> {
    backlog: VecDeque<T>,
    live: broadcast::Receiver<T>,
    /// Returns `true` for a live item that the follower asked for.
    wanted: W,
    stop: CancellationToken,
}

/// An item of a stream.
#[derive(Debug, PartialEq)]
enum StreamItem<T> {
    This(T),
    /// The number of items that this follower was too slow for, and has missed.
    Missed(u64),
}

impl<T: Clone, W: FnMut(&T) -> bool> Follow<T, W> {
    async fn next(&mut self) -> Option<StreamItem<T>> {
        if let Some(first) = self.backlog.pop_front() {
            return Some(StreamItem::This(first));
        }
        loop {
            let received = tokio::select! {
                // Biased: a busy stream must not delay the stop.
                biased;
                () = self.stop.cancelled() => return None,
                received = self.live.recv() => received,
            };
            match received {
                Ok(one) if (self.wanted)(&one) => return Some(StreamItem::This(one)),
                Ok(_) => {}
                // Reported instead of ended: the rest is still of use, and the client knows of the gap.
                Err(RecvError::Lagged(missed)) => return Some(StreamItem::Missed(missed)),
                Err(RecvError::Closed) => return None,
            }
        }
    }
}

fn stream<T, W>(follow: Follow<T, W>, frame: fn(T) -> Result<Frame, axum::Error>) -> Response
where
    T: Clone + Send + 'static,
    W: FnMut(&T) -> bool + Send + 'static,
{
    // Keep-alive comments let both sides notice a broken connection.
    Sse::new(frames(follow, frame)).keep_alive(KeepAlive::default()).into_response()
}

fn frames<T, W>(
    follow: Follow<T, W>,
    frame: fn(T) -> Result<Frame, axum::Error>,
) -> impl Stream<Item = Result<Frame, Infallible>>
where
    T: Clone,
    W: FnMut(&T) -> bool,
{
    futures::stream::unfold(follow, move |mut follow| async move {
        let item = follow.next().await?;
        let frame = match item {
            StreamItem::This(one) => frame(one),
            StreamItem::Missed(missed) => {
                Frame::default().event("missed").json_data(serde_json::json!({ "missed": missed }))
            }
        };
        // Only a map with keys that are not text cannot be written as JSON, and there is none.
        Some((Ok(frame.unwrap_or_default()), follow))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn slow_followers_get_the_number_of_missed_items() {
        let (sender, live) = broadcast::channel(2);
        let stop = CancellationToken::new();
        let backlog = VecDeque::from([0]);
        let mut follow = Follow { backlog, live, wanted: |number: &u32| number.is_multiple_of(2), stop: stop.clone() };
        for number in 1..=6 {
            sender.send(number).unwrap();
        }
        assert_eq!(follow.next().await, Some(StreamItem::This(0)));
        assert_eq!(follow.next().await, Some(StreamItem::Missed(4)));
        assert_eq!(follow.next().await, Some(StreamItem::This(6)));
        stop.cancel();
        assert_eq!(follow.next().await, None, "it ends with the host");
    }
}
