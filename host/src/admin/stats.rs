//! Statistics of the host.

use axum::Json;
use axum::extract::State;
use serde::{Deserialize, Serialize};

use super::api::Api;
use super::mailboxes;
use crate::api_types::{
    ConversationStats, DeadLetterCount, DeliveryStats, FailureCount, HostMemory, MailboxStatus, MessageStats,
    ProcessStats, Quantiles,
};
use crate::conversation::ConversationFigures;
use crate::problem::Problem;
use crate::store::DeadFilter;

/// Statistics of the whole host. Every figure is measured; one that was not is null.
#[derive(Debug, Serialize, Deserialize, utoipa::ToSchema)]
pub(crate) struct HostStats {
    /// The time of the figures, in milliseconds since 1970.
    pub(crate) at: u64,
    /// Counts and rates.
    pub(crate) messages: MessageStats,
    /// The failed attempts and calls by code, the most frequent first.
    pub(crate) failures: Vec<FailureCount>,
    /// Durations of deliveries.
    pub(crate) delivery: DeliveryStats,
    /// The mailboxes.
    pub(crate) mailboxes: Vec<MailboxStatus>,
    /// Conversations.
    pub(crate) conversations: ConversationStats,
    /// The dead letters by agent and reason.
    pub(crate) dead_letters: Vec<DeadLetterCount>,
    /// The store.
    pub(crate) store: StoreFigures,
    /// The host's process.
    pub(crate) process: ProcessStats,
    /// The memory that the host holds for others.
    #[serde(default)]
    pub(crate) memory: HostMemory,
}

/// Figures of the store.
#[derive(Debug, Serialize, Deserialize, utoipa::ToSchema)]
pub(crate) struct StoreFigures {
    /// Bytes on disk, including the write-ahead log.
    pub(crate) bytes: u64,
    /// Durations of commits since the host started; null before the first one.
    pub(crate) commits: Option<Quantiles>,
}

impl From<ConversationFigures> for ConversationStats {
    fn from(figures: ConversationFigures) -> Self {
        let ConversationFigures { open, written, mean_messages, illegal } = figures;
        Self { open, written, mean_messages, illegal }
    }
}

/// Returns the statistics of the whole host: rates, times, depths, failures, dead letters, memory.
#[utoipa::path(get, path = "/v1/stats", tag = "host", responses((status = 200, body = HostStats)))]
pub(super) async fn show(State(api): State<Api>) -> Result<Json<HostStats>, Problem> {
    let figures = &api.context.host_stats;
    // From the store and not from counters, so that letters of removed agents are included.
    let dead_letters = api.read(|store| store.dead_letters().counts(&DeadFilter::default())).await?;
    Ok(Json(HostStats {
        at: crate::clock::now_ms(),
        messages: figures.messages(),
        failures: figures.failures(),
        delivery: figures.deliveries(),
        mailboxes: mailboxes::fullest(&api),
        conversations: api.context.conversations.figures().into(),
        dead_letters: dead_letters.into_iter().map(Into::into).collect(),
        store: StoreFigures {
            bytes: crate::telemetry::metrics::store_bytes(&api.data),
            commits: api.context.store.commits().counted().quantiles(),
        },
        process: figures.process(),
        memory: api.context.memory_status(),
    }))
}
