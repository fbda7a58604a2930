//! The use of budgets, by tree and by agent.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use caxton_control::budget::Usage;
use http::StatusCode;
use serde::Deserialize;

use super::api::Api;
use super::extract::{Named, Params, page_size};
use super::page::keep_first;
use super::problem;
use crate::api_types::{AgentUse, BudgetLimits, BudgetUse};
use crate::budgets::TreeRecord;
use crate::context::HostContext;
use crate::problem::Problem;

/// The number of trees returned by default.
const PAGE: u32 = 50;
/// The most trees that are shown with a conversation.
const OF_CONVERSATION: u32 = 100;

/// The query of the list of trees.
#[derive(Debug, Default, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct BudgetListParams {
    /// Selects those of this budget.
    budget: Option<String>,
    /// The most to return: 50 by default, 1000 at most.
    limit: Option<u32>,
}

/// Lists what has followed from messages and calls with a budget, those that began last first.
#[utoipa::path(
    get, path = "/v1/budgets", tag = "budgets", params(BudgetListParams),
    responses((status = 200, body = [BudgetUse])),
)]
pub(super) async fn list(
    State(api): State<Api>,
    Params(params): Params<BudgetListParams>,
) -> Result<Json<Vec<BudgetUse>>, Problem> {
    let limit = page_size(params.limit, PAGE)?;
    let mut found = read(&api, move |context| {
        let stored = context.store.trees().list(params.budget.as_deref(), limit)?;
        let stored = stored.into_iter().map(|found| (found.record, Some(found.last))).collect();
        Ok(with_those_in_memory(context, stored, |tree| {
            params.budget.as_deref().is_none_or(|budget| tree.budget.as_str() == budget)
        }))
    })
    .await?;
    found.truncate(limit as usize);
    keep_first(&mut found);
    Ok(Json(found))
}

/// Returns what has followed from one message or call, with its use by agent.
#[utoipa::path(
    get, path = "/v1/budgets/{id}", tag = "budgets",
    params(("id" = String, Path, description = "The id of the message or call that it began with")),
    responses((status = 200, body = BudgetUse)),
)]
pub(super) async fn show(State(api): State<Api>, Named(id): Named<String>) -> Result<Json<BudgetUse>, Problem> {
    let asked = id.clone();
    let found = read(&api, move |context| {
        if let Some(tree) = context.budgets.find(&asked) {
            let last = context.store.trees().get(&asked)?.map(|found| found.last);
            return Ok(vec![(tree.state().record(), last)]);
        }
        let found = context.store.trees().get(&asked)?;
        Ok(found.map(|found| (found.record, Some(found.last))).into_iter().collect())
    })
    .await?;
    found.into_iter().next().map(Json).ok_or_else(|| {
        let id = id.escape_debug();
        let detail = format!("nothing with a budget began with `{id}`; `caxton budget ls` lists what is known");
        Problem::new(StatusCode::NOT_FOUND, "no-budget-use", detail)
    })
}

/// Returns the use of the trees that began in a conversation.
pub(super) fn in_conversation(context: &HostContext, conversation: &str) -> Result<Vec<BudgetUse>, String> {
    let stored = context.store.trees().in_conversation(conversation, OF_CONVERSATION)?;
    let stored = stored.into_iter().map(|found| (found.record, Some(found.last))).collect();
    let mut found = with_those_in_memory(context, stored, |tree| tree.root.conversation == conversation);
    // In the order of the messages.
    found.reverse();
    Ok(found.into_iter().map(|(record, last)| shown(context, &record, last)).collect())
}

/// Trees with the times at which their rows were written.
type Trees = Vec<(TreeRecord, Option<u64>)>;

async fn read(
    api: &Api,
    read: impl FnOnce(&HostContext) -> Result<Trees, String> + Send + 'static,
) -> Result<Vec<BudgetUse>, Problem> {
    let context = Arc::clone(&api.context);
    let found = tokio::task::spawn_blocking(move || {
        let found = read(&context)?;
        Ok(found.into_iter().map(|(record, last)| shown(&context, &record, last)).collect())
    });
    let found: Result<_, String> = found.await.map_err(|error| problem::host_error(error.to_string()))?;
    found.map_err(problem::host_error)
}

/// Adds the trees in memory, each in place of its row, which may be older. Those that began last come first.
fn with_those_in_memory(context: &HostContext, stored: Trees, is_asked_for: impl Fn(&TreeRecord) -> bool) -> Trees {
    let mut trees: BTreeMap<Arc<str>, (TreeRecord, Option<u64>)> =
        stored.into_iter().map(|found| (Arc::clone(&found.0.id), found)).collect();
    for tree in context.budgets.in_memory().into_iter().filter(is_asked_for) {
        let last = trees.get(&tree.id).and_then(|(_, last)| *last);
        trees.insert(Arc::clone(&tree.id), (tree, last));
    }
    let mut trees: Trees = trees.into_values().collect();
    trees.sort_by_key(|(tree, _)| std::cmp::Reverse(tree.root.began_at));
    trees
}

fn shown(context: &HostContext, tree: &TreeRecord, last_at: Option<u64>) -> BudgetUse {
    let micros = |time: Duration| u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
    // As they are in force, or else as they were last.
    let spec = context.budgets.spec(tree.budget.as_str()).unwrap_or_else(|| Arc::clone(&tree.spec));
    let ledger = &tree.ledger;
    BudgetUse {
        id: tree.id.to_string(),
        budget: tree.budget.to_string(),
        conversation: tree.root.conversation.clone(),
        began_at: tree.root.began_at,
        last_at,
        exceeded: ledger.is_told(),
        limits: BudgetLimits {
            messages: spec.messages,
            calls: spec.calls,
            bytes: spec.bytes,
            cpu_us: spec.cpu.map(micros),
            time_us: spec.time.map(micros),
            units: spec.units.clone(),
        },
        used: used(ledger.total()),
        reserved: ledger.reserved(),
        agents: ledger.agents().iter().map(|(agent, usage)| (agent.to_string(), used(usage))).collect(),
    }
}

fn used(usage: &Usage) -> AgentUse {
    let Usage { messages, calls, bytes, cpu_us, units } = usage.clone();
    AgentUse { messages, calls, bytes, cpu_us, units }
}
