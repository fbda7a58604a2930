//! The events of the host.

use std::sync::Arc;

use rusqlite::params;
use tokio::sync::broadcast;

use crate::store::Event;
use crate::store::handles::EventTable;
use crate::store::writer::job::Job;

/// A filter of events.
#[derive(Debug, Clone, Default)]
pub(crate) struct EventFilter {
    /// Selects only this agent's.
    pub(crate) agent: Option<String>,
    /// Selects only those after this id, the oldest first; 0 asks for the newest.
    pub(crate) after: i64,
    /// Limits their number.
    pub(crate) limit: u32,
}

impl EventTable<'_> {
    /// Events in order of their ids.
    pub(crate) fn list(self, filter: &EventFilter) -> Result<Vec<Event>, String> {
        let newest = filter.after == 0;
        let sql = if newest {
            "SELECT id, at, agent, kind, data FROM event
             WHERE id > ?1 AND (?2 IS NULL OR agent = ?2) ORDER BY id DESC LIMIT ?3"
        } else {
            "SELECT id, at, agent, kind, data FROM event
             WHERE id > ?1 AND (?2 IS NULL OR agent = ?2) ORDER BY id LIMIT ?3"
        };
        self.0.with_reader(|connection| {
            let mut statement = connection.prepare_cached(sql)?;
            let rows = statement.query_map(params![filter.after, filter.agent, filter.limit], |row| {
                let data: String = row.get(4)?;
                Ok(Event {
                    id: row.get(0)?,
                    at: row.get::<_, i64>(1)?.cast_unsigned(),
                    agent: row.get(2)?,
                    kind: row.get(3)?,
                    // One that is not JSON is shown as text: it must not hide the other events.
                    data: serde_json::from_str(&data).unwrap_or(serde_json::Value::String(data)),
                })
            })?;
            let mut events: Vec<Event> = rows.collect::<rusqlite::Result<_>>()?;
            if newest {
                events.reverse();
            }
            Ok(events)
        })
    }

    /// Keeps an event. Returns before it is written.
    pub(crate) fn keep(self, event: Event) {
        self.0.writer.send(Job::Event(event));
    }

    /// Subscribes to the events that are committed from now on, with their ids. A caller that subscribes before it
    /// reads misses none.
    pub(crate) fn follow(self) -> broadcast::Receiver<Arc<Event>> {
        self.0.writer.follow.subscribe()
    }
}
