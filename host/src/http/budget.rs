//! The budget that a caller names in its request, and the header that tells of one that had nothing left.

use caxton_control::access::CallerIdentity;
use caxton_control::names::BudgetName;
use http::{HeaderMap, HeaderName, HeaderValue};

use super::callers::RouteCaller;
use super::connection::ConnectionContext;
use crate::budgets::Tree;
use crate::problem::Problem;

/// The header of a request that names its budget.
const NAME: HeaderName = HeaderName::from_static("caxton-budget");
/// The header of a response that names a budget which had nothing left for some of the work.
const EXCEEDED: HeaderName = HeaderName::from_static("caxton-budget-exceeded");

/// Returns the budget of a request: the one that its caller names, or else that of the route.
///
/// # Errors
/// The caller may not name it. Whether there is such a budget is not told.
pub(super) fn named(
    connection: &ConnectionContext,
    headers: &HeaderMap,
    of_route: Option<BudgetName>,
    caller: Option<&CallerIdentity>,
) -> Result<Option<BudgetName>, Problem> {
    let Some(value) = headers.get(NAME) else { return Ok(of_route) };
    let name = value.to_str().ok().and_then(|name| name.parse::<BudgetName>().ok());
    let budgets = &connection.listener.directory.context.budgets;
    let may_name = |name: &BudgetName| {
        let spec = budgets.spec(name.as_str());
        caller.zip(spec).is_some_and(|(caller, spec)| spec.admits(caller.as_str()))
    };
    match name.filter(may_name) {
        Some(name) => Ok(Some(name)),
        None => Err(Problem::of_code("budget-not-allowed")),
    }
}

/// Finds the caller of a request by its whole body, and the budget that it names.
///
/// # Errors
/// The caller is turned away, or may not name the budget.
pub(super) fn identify(
    connection: &ConnectionContext,
    headers: &HeaderMap,
    (caller, of_route): (RouteCaller, Option<BudgetName>),
    body: &[u8],
) -> Result<(Option<CallerIdentity>, Option<BudgetName>), Problem> {
    let caller = caller.identify(connection, body)?;
    let budget = named(connection, headers, of_route, caller.as_ref())?;
    Ok((caller, budget))
}

/// Tells the caller that the budget of its request had nothing left for some of the work.
pub(super) fn tell(headers: &mut HeaderMap, tree: Option<&Tree>) {
    if let Some(tree) = tree.filter(|tree| tree.is_exceeded()) {
        let name = HeaderValue::from_str(tree.state().budget().as_str());
        headers.extend(name.ok().map(|name| (EXCEEDED, name)));
    }
}
