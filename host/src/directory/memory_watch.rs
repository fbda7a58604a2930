//! Reports to operators when the host is short of memory, and when it is not any more.

use std::sync::Arc;
use std::time::Duration;

use caxton_control::memory::MemoryPriority;
use caxton_control::units::print_bytes;
use serde_json::json;
use tokio_util::sync::CancellationToken;

use super::HostDirectory;
use crate::api_types::HostMemory;
use crate::context::HostContext;
use crate::memory_budget::MemoryBudget;

/// The time without a refusal after which a shortage is over, which bounds how often one is reported.
const QUIET: Duration = Duration::from_secs(10);

/// Reports shortages of memory until `stop`.
pub(crate) async fn run(directory: Arc<HostDirectory>, stop: CancellationToken) {
    let context = &directory.context;
    let watch = async {
        loop {
            context.memory.until_short().await;
            let before = refusals(&context.memory);
            report(context);
            let mut seen = before;
            loop {
                tokio::time::sleep(QUIET).await;
                let now = refusals(&context.memory);
                if now == seen && !context.memory.has_waiters() {
                    break;
                }
                seen = now;
            }
            // Before the report: a request that is refused from now on begins another shortage.
            context.memory.end_shortage();
            report_end(context, seen - before);
        }
    };
    tokio::select! {
        () = stop.cancelled() => {}
        () = watch => {}
    }
}

/// Returns the number of requests that were refused so far.
fn refusals(memory: &MemoryBudget) -> u64 {
    MemoryPriority::ALL.into_iter().map(|priority| memory.refused(priority)).sum()
}

fn report(context: &HostContext) {
    let HostMemory { limit_bytes: limit, used_bytes: used, by_kind, .. } = context.memory_status();
    let most = by_kind.iter().max_by_key(|(_, bytes)| **bytes).map_or("", |(kind, _)| kind.as_str());
    tracing::warn!(
        "the host holds {} of {} for others, most of it for {most}: requests wait and are then refused; a larger \
         `host.memory`, or smaller `limits.memory` and `instances.max` of agents, give them room",
        print_bytes(used),
        print_bytes(limit)
    );
    let data = json!({ "used": used, "limit": limit, "by_kind": by_kind, "setting": "host.memory" });
    context.events.emit(None, "host.memory-short", data);
}

fn report_end(context: &HostContext, refused: u64) {
    tracing::info!("the host has memory again; {refused} requests were refused for want of it");
    let data = json!({ "used": context.memory.used(), "limit": context.memory.limit(), "refused": refused });
    context.events.emit(None, "host.memory-freed", data);
}
