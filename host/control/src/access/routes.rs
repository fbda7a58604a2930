//! The routes of the management API with the role that each needs: the single table of who may do what.

use super::role::Role;

/// A route of the management API.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AdminRoute {
    /// The method. HEAD is asked for like GET.
    pub method: &'static str,
    /// The path with its parameters, as in the OpenAPI document.
    pub path: &'static str,
    /// The least role that may ask for it.
    pub role: Role,
}

/// All routes below `/v1`. The probes and the metrics beside them need no token.
#[rustfmt::skip]
const ROUTES: &[AdminRoute] = &[
    // Names and figures: nothing in these answers was written by a caller or by an agent for a caller.
    route("GET", "/v1/host", Role::Read),
    route("GET", "/v1/agents", Role::Read),
    route("GET", "/v1/agents/{name}", Role::Read),
    route("GET", "/v1/agents/{name}/revisions", Role::Read),
    route("GET", "/v1/mailboxes", Role::Read),
    route("GET", "/v1/rollouts", Role::Read),
    route("GET", "/v1/rollouts/{agent}", Role::Read),
    route("GET", "/v1/rollouts/{agent}/events", Role::Read),
    route("GET", "/v1/stats", Role::Read),
    route("GET", "/v1/store", Role::Read),
    route("GET", "/v1/conversations", Role::Read),
    route("GET", "/v1/schedules", Role::Read),
    route("GET", "/v1/budgets", Role::Read),
    route("GET", "/v1/budgets/{id}", Role::Read),
    route("GET", "/v1/openapi.json", Role::Read),

    // Contents, and what changes them.
    route("POST", "/v1/agents/{name}/invoke", Role::Operate),
    route("POST", "/v1/agents/{name}/messages", Role::Operate),
    route("POST", "/v1/agents/{name}/rehearse", Role::Operate),
    route("GET", "/v1/agents/{name}/state", Role::Operate),
    route("GET", "/v1/agents/{name}/state/{key}", Role::Operate),
    route("PUT", "/v1/agents/{name}/state/{key}", Role::Operate),
    route("DELETE", "/v1/agents/{name}/state/{key}", Role::Operate),
    route("GET", "/v1/dead-letters", Role::Operate),
    route("DELETE", "/v1/dead-letters", Role::Operate),
    route("POST", "/v1/dead-letters/redeliver", Role::Operate),
    route("GET", "/v1/dead-letters/{number}", Role::Operate),
    route("DELETE", "/v1/dead-letters/{number}", Role::Operate),
    route("POST", "/v1/dead-letters/{number}/redeliver", Role::Operate),
    route("POST", "/v1/mailboxes/{agent}/pause", Role::Operate),
    route("POST", "/v1/mailboxes/{agent}/resume", Role::Operate),
    // Timers show senders, names and conversations of messages.
    route("GET", "/v1/mailboxes/{agent}/timers", Role::Operate),
    route("DELETE", "/v1/mailboxes/{agent}/timers/{timer}", Role::Operate),
    route("GET", "/v1/rollouts/{agent}/differences", Role::Operate),
    route("POST", "/v1/rollouts/{agent}/{command}", Role::Operate),
    route("GET", "/v1/store/check", Role::Operate),
    route("POST", "/v1/store/backup", Role::Operate),
    route("POST", "/v1/store/compact", Role::Operate),
    // A difference shows settings, and agents' `config` may hold what is not for everybody.
    route("GET", "/v1/config/diff", Role::Operate),
    route("GET", "/v1/conversations/{id}", Role::Operate),
    // Events and logs quote what agents said when they failed.
    route("GET", "/v1/events", Role::Operate),
    route("GET", "/v1/logs", Role::Operate),

    route("POST", "/v1/config/apply", Role::Admin),
    route("GET", "/v1/tokens", Role::Admin),
    route("POST", "/v1/tokens/{name}", Role::Admin),
    route("DELETE", "/v1/tokens/{name}", Role::Admin),
    route("POST", "/v1/tokens/{name}/rotate", Role::Admin),
];

const fn route(method: &'static str, path: &'static str, role: Role) -> AdminRoute {
    AdminRoute { method, path, role }
}

/// Returns all routes that need a token.
pub fn admin_routes() -> &'static [AdminRoute] {
    ROUTES
}

/// Returns the role that a route needs. `path` is the route's pattern and not the path of a request; `{*rest}` counts as
/// `{rest}`. A route that is not in the table needs the highest role, so that one that was forgotten is closed.
pub fn role_of(method: &str, path: &str) -> Role {
    let method = if method == "HEAD" { "GET" } else { method };
    let is_same = |route: &&AdminRoute| {
        route.method == method && (route.path == path || path.contains("{*") && route.path == path.replace("{*", "{"))
    };
    ROUTES.iter().find(is_same).map_or(Role::Admin, |route| route.role)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn routes_have_the_roles_that_are_promised() {
        for (method, path, role) in [
            ("GET", "/v1/agents", Role::Read),
            ("HEAD", "/v1/agents", Role::Read),
            ("GET", "/v1/agents/{name}/state/{*key}", Role::Operate),
            ("PUT", "/v1/agents/{name}/state/{*key}", Role::Operate),
            ("GET", "/v1/logs", Role::Operate),
            ("POST", "/v1/dead-letters/{number}/redeliver", Role::Operate),
            ("POST", "/v1/rollouts/{agent}/{command}", Role::Operate),
            ("POST", "/v1/config/apply", Role::Admin),
            ("GET", "/v1/tokens", Role::Admin),
            ("PATCH", "/v1/agents", Role::Admin),
            ("GET", "/v1/forgotten", Role::Admin),
        ] {
            assert_eq!(role_of(method, path), role, "{method} {path}");
        }
    }

    #[test]
    fn routes_are_listed_once() {
        for (at, route) in ROUTES.iter().enumerate() {
            let again = ROUTES[..at].iter().any(|other| (other.method, other.path) == (route.method, route.path));
            assert!(!again, "{} {}", route.method, route.path);
        }
    }
}
