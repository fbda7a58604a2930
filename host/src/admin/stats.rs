//! What is measured of the host as a whole.

use axum::Json;
use axum::extract::State;
use serde::{Deserialize, Serialize};

use super::Api;
use super::mailboxes;
use super::problem::Problem;
use crate::status::{DeliveryFigures, FailureCount, MailboxStatus, MessageFigures, ProcessFigures, Quantiles};
use crate::store::{ConversationFigures, DeadCount, DeadFilter};

/// Figures of the host as a whole. Each is measured; what was not is none.
#[derive(Debug, Serialize, Deserialize, utoipa::ToSchema)]
pub(crate) struct HostStats {
    /// When they were taken, in milliseconds since 1970.
    pub(crate) at: u64,
    /// Counts and rates.
    pub(crate) messages: MessageFigures,
    /// Attempts and calls that failed, by what went wrong, the most frequent first.
    pub(crate) failures: Vec<FailureCount>,
    /// How long deliveries took.
    pub(crate) delivery: DeliveryFigures,
    /// The mailboxes.
    pub(crate) mailboxes: Vec<MailboxStatus>,
    /// Conversations.
    pub(crate) conversations: ConversationFigures,
    /// Dead letters by agent and reason.
    pub(crate) dead_letters: Vec<DeadCount>,
    /// The store.
    pub(crate) store: StoreFigures,
    /// The host's process.
    pub(crate) process: ProcessFigures,
}

/// Figures of the store.
#[derive(Debug, Serialize, Deserialize, utoipa::ToSchema)]
pub(crate) struct StoreFigures {
    /// Bytes on disk, the log included.
    pub(crate) bytes: u64,
    /// How long commits took since the host started; none when there was none.
    pub(crate) commits: Option<Quantiles>,
}

/// What is measured of the host as a whole: rates, times, depths, failures, dead letters, memory.
#[utoipa::path(get, path = "/v1/stats", tag = "host", responses((status = 200, body = HostStats)))]
pub(super) async fn show(State(api): State<Api>) -> Result<Json<HostStats>, Problem> {
    let figures = &api.commons.figures;
    let dead_letters = api.read(|store| store.dead_counts(&DeadFilter::default())).await?;
    Ok(Json(HostStats {
        at: crate::clock::now_ms(),
        messages: figures.messages(),
        failures: figures.failures(),
        delivery: figures.deliveries(),
        mailboxes: mailboxes::all(&api),
        conversations: api.commons.store.conversations.figures(),
        dead_letters,
        store: StoreFigures {
            bytes: crate::metrics::store_bytes(&api.data),
            commits: api.commons.store.commits().counted().quantiles(),
        },
        process: figures.process(),
    }))
}
