//! The agents by path, name and capability: an immutable snapshot that calls read without a lock.

#[cfg(test)]
use std::collections::BTreeMap;
use std::hash::Hasher;
use std::sync::Arc;

use ahash::AHashMap;
use caxton_control::access::{RouteAuth, RouteRate};
use caxton_control::desired::{ResponseMode, RouteSpec};
use caxton_control::names::BudgetName;
use caxton_control::route::RoutePattern;
use caxton_control::template::Template;
use caxton_control::{AgentName, AgentSpec, Capability};
use http::Method;

use crate::agent::Agent;

/// The snapshot.
#[derive(Default)]
pub(crate) struct Routes {
    agents: Arc<AHashMap<AgentName, Arc<Agent>>>,
    /// The agents that are no longer declared and continue their open conversations.
    retiring: AHashMap<AgentName, Arc<Agent>>,
    capabilities: AHashMap<Capability, Vec<Arc<Agent>>>,
    paths: Arc<Paths>,
}

/// The agents by path. Shared by the snapshots between two changes of a route, as to build it takes a part of a second
/// with a hundred thousand agents.
#[derive(Default)]
struct Paths {
    router: matchit::Router<Arc<[RouteTarget]>>,
    /// The agents that it was built of, in order of name, each with the declaration of its routes.
    of: Vec<(Arc<Agent>, Arc<AgentSpec>)>,
}

/// The guard of a route: what it asks of its callers.
pub(crate) struct RouteGuard {
    /// The agent and the route as declared, by which rates are kept.
    pub(crate) route: Arc<str>,
    pub(crate) auth: Option<RouteAuth>,
    pub(crate) rate: Option<RouteRate>,
}

/// The agent for some methods of a path.
pub(crate) struct RouteTarget {
    /// The methods; empty for all but TRACE.
    methods: Vec<Method>,
    pub(crate) mode: ResponseMode,
    /// Set if an HTTP agent gets a request before its body has come.
    pub(crate) stream: bool,
    /// The route's own `cors`, if it is set.
    cors: Option<bool>,
    /// The guard, where the route asks for a credential or has a rate.
    pub(crate) guard: Option<Arc<RouteGuard>>,
    /// The budget of a request, where the route names one.
    pub(crate) budget: Option<BudgetName>,
    /// The template that names the conversation of a request, where the route has one.
    pub(crate) conversation: Option<Arc<Template>>,
    pub(crate) agent: Arc<Agent>,
    /// The route as declared, for logs and metrics.
    pub(crate) pattern: RoutePattern,
}

/// The result of a look-up by path and method.
pub(crate) enum RouteMatch<'r, 'p> {
    /// An agent, with the path's parameters.
    Target(&'r RouteTarget, Vec<(&'r str, &'p str)>),
    /// The path is known, the method is not; these are.
    OtherMethods(String),
    /// An unknown path.
    Nothing,
}

/// The methods that a route without `methods` is said to take. It takes those that are not registered, too.
const COMMON_METHODS: [&str; 5] = ["GET", "POST", "PUT", "PATCH", "DELETE"];

impl RouteTarget {
    /// Returns `true` if it takes a method. TRACE has to be named: what answers with the request shows a page the headers
    /// that a browser keeps from it, and those that a proxy has added (RFC 9110, section 9.3.8).
    fn takes(&self, method: &Method) -> bool {
        if self.methods.is_empty() { *method != Method::TRACE } else { self.methods.contains(method) }
    }

    /// Returns the methods; empty for all.
    pub(crate) fn methods(&self) -> &[Method] {
        &self.methods
    }

    /// Returns `true` if `http.cors` applies. An HTTP agent answers such requests itself.
    pub(crate) fn is_shared(&self) -> bool {
        self.cors.unwrap_or_else(|| !self.agent.answers_http())
    }
}

/// Returns the guard of a route; `None` if it is open to all.
fn guard(agent: &AgentName, route: &RouteSpec) -> Option<Arc<RouteGuard>> {
    if route.auth.is_none() && route.rate.is_none() {
        return None;
    }
    // With its methods: routes of one path may differ in them alone.
    let methods: Vec<&str> = route.methods.iter().map(String::as_str).collect();
    let name = format!("{agent} {} {}", methods.join(","), route.pattern.as_str());
    Some(Arc::new(RouteGuard { route: name.into(), auth: route.auth.clone(), rate: route.rate }))
}

impl Paths {
    /// Builds the routes of these agents, in order of name.
    fn new<'a>(agents: impl Iterator<Item = (&'a AgentName, &'a Arc<Agent>)>) -> Self {
        let mut of = Vec::new();
        let mut paths: AHashMap<&str, Vec<(usize, usize)>> = AHashMap::new();
        of.extend(agents.map(|(_, agent)| (Arc::clone(agent), agent.spec())));
        for (at, (_, spec)) in of.iter().enumerate() {
            for (number, route) in spec.http.iter().enumerate() {
                paths.entry(route.pattern.shape()).or_default().push((at, number));
            }
        }
        let targets = |places: Vec<(usize, usize)>| -> Arc<[RouteTarget]> {
            places.into_iter().map(|(at, number)| target(&of[at].0, &of[at].1.http[number])).collect()
        };
        let mut paths: AHashMap<String, Arc<[RouteTarget]>> =
            paths.into_iter().map(|(shape, places)| (shape.to_owned(), targets(places))).collect();
        // The router knows no rest that is empty: the path before it leads there too, unless it is declared itself.
        let before = |targets: &Arc<[RouteTarget]>| {
            let before = targets.first()?.pattern.rest_at()?;
            Some((before.to_owned(), Arc::clone(targets)))
        };
        for (shape, targets) in paths.values().filter_map(before).collect::<Vec<_>>() {
            paths.entry(shape).or_insert(targets);
        }
        let mut router = matchit::Router::new();
        for (shape, targets) in paths {
            if let Err(error) = router.insert(&shape, targets) {
                // Checked with the file; a route that is lost all the same must not be lost silently.
                tracing::error!(route = shape, %error, "a route cannot be used");
            }
        }
        Self { router, of }
    }

    /// Returns `true` if these agents, in order of name, have the routes that it was built of.
    fn fits<'a>(&self, agents: impl Iterator<Item = (&'a AgentName, &'a Arc<Agent>)>) -> bool {
        let mut known = self.of.iter();
        for (_, agent) in agents {
            let Some((was, before)) = known.next() else { return false };
            if !Arc::ptr_eq(was, agent) {
                return false;
            }
            let now = agent.spec();
            // Most have not even been configured since.
            if !Arc::ptr_eq(&now, before) && now.http != before.http {
                return false;
            }
        }
        known.next().is_none()
    }
}

/// Returns the target of a route.
fn target(agent: &Arc<Agent>, route: &RouteSpec) -> RouteTarget {
    RouteTarget {
        methods: route.methods.iter().filter_map(|name| Method::from_bytes(name.as_bytes()).ok()).collect(),
        mode: route.mode,
        stream: route.stream,
        cors: route.cors,
        guard: guard(agent.name(), route),
        budget: route.budget.clone(),
        conversation: route.conversation.clone().map(Arc::new),
        agent: Arc::clone(agent),
        pattern: route.pattern.clone(),
    }
}

impl Routes {
    /// Creates the routes of these agents.
    #[cfg(test)]
    pub(crate) fn new(agents: &BTreeMap<AgentName, Arc<Agent>>) -> Self {
        Self::after(&Self::default(), agents.iter())
    }

    /// Creates the routes of these agents, in order of name. Shares with an earlier snapshot what has not changed.
    pub(crate) fn after<'a>(
        before: &Self,
        agents: impl Iterator<Item = (&'a AgentName, &'a Arc<Agent>)> + Clone,
    ) -> Self {
        let mut capabilities: AHashMap<Capability, Vec<Arc<Agent>>> = AHashMap::new();
        for (_, agent) in agents.clone() {
            let spec = agent.spec();
            // A capability is resolved only to agents that run; a name also to one whose messages have to wait.
            if !spec.capabilities.is_empty() && agent.current().is_some() {
                for capability in &spec.capabilities {
                    capabilities.entry(capability.clone()).or_default().push(Arc::clone(agent));
                }
            }
        }
        let (names, paths) = if before.paths.fits(agents.clone()) {
            (Arc::clone(&before.agents), Arc::clone(&before.paths))
        } else {
            let names = agents.clone().map(|(name, agent)| (name.clone(), Arc::clone(agent))).collect();
            (Arc::new(names), Arc::new(Paths::new(agents)))
        };
        Self { agents: names, retiring: AHashMap::new(), capabilities, paths }
    }

    /// Returns the declared agent of a name.
    pub(crate) fn agent(&self, name: &str) -> Option<&Arc<Agent>> {
        self.agents.get(name)
    }

    /// Adds agents that retire.
    pub(crate) fn with_retiring(self, retiring: AHashMap<AgentName, Arc<Agent>>) -> Self {
        Self { retiring, ..self }
    }

    /// Returns the agent of a name, declared or retiring.
    pub(crate) fn including_retiring(&self, name: &str) -> Option<&Arc<Agent>> {
        self.agents.get(name).or_else(|| self.retiring.get(name))
    }

    /// Returns the agent of a name for a message of a conversation; a retiring one accepts those of open ones.
    pub(crate) fn receiver(&self, name: &str, conversation: &str) -> Option<&Arc<Agent>> {
        let open = |agent: &&Arc<Agent>| agent.check_open(Some(conversation)).is_ok();
        self.agents.get(name).or_else(|| self.retiring.get(name).filter(open))
    }

    /// Returns all agents, retiring ones included.
    pub(crate) fn all(&self) -> impl Iterator<Item = &Arc<Agent>> {
        self.agents.values().chain(self.retiring.values())
    }

    /// Returns the declared agents.
    pub(crate) fn agents(&self) -> impl Iterator<Item = &Arc<Agent>> {
        self.agents.values()
    }

    /// Returns the running agents with a capability, in order of name.
    pub(crate) fn with_capability(&self, capability: &str) -> &[Arc<Agent>] {
        self.capabilities.get(capability).map_or(&[], Vec::as_slice)
    }

    /// Returns one of the running agents with a capability: the same one for a conversation while the agents are the
    /// same, and evenly many conversations for each.
    pub(crate) fn pick(&self, capability: &str, conversation: &str) -> Option<Arc<Agent>> {
        let agents = self.with_capability(capability);
        // The highest score wins (rendezvous hashing): when one leaves, only its conversations move.
        agents
            .iter()
            .max_by_key(|agent| {
                // Without a key: the same after a restart.
                let mut hasher = std::hash::DefaultHasher::new();
                hasher.write(agent.name().as_str().as_bytes());
                // Separates the two texts: no other pair of name and conversation gives the same bytes.
                hasher.write_u8(0);
                hasher.write(conversation.as_bytes());
                hasher.finish()
            })
            .cloned()
    }

    /// Returns the target of a path and a method. HEAD falls back to GET (RFC 9110, section 9.3.2).
    pub(crate) fn find_for<'r, 'p>(&'r self, path: &'p str, method: &Method) -> RouteMatch<'r, 'p> {
        match self.find(path, method) {
            RouteMatch::OtherMethods(_) if *method == Method::HEAD => self.find(path, &Method::GET),
            found => found,
        }
    }

    fn find<'r, 'p>(&'r self, path: &'p str, method: &Method) -> RouteMatch<'r, 'p> {
        let Ok(found) = self.paths.router.at(path) else { return RouteMatch::Nothing };
        let fits = |target: &&RouteTarget| target.takes(method);
        match found.value.iter().find(fits) {
            Some(target) => {
                // The router knows parameters by position; their names are the target's.
                // One that has none is a rest, and empty.
                let values = found.params.iter().map(|(_, value)| value).chain(std::iter::once(""));
                RouteMatch::Target(target, target.pattern.params().iter().map(String::as_str).zip(values).collect())
            }
            None => {
                let mut names: Vec<&str> =
                    found.value.iter().flat_map(|target| &target.methods).map(Method::as_str).collect();
                if found.value.iter().any(|target| target.methods.is_empty()) {
                    names.extend(COMMON_METHODS);
                }
                RouteMatch::OtherMethods(names.join(", "))
            }
        }
    }
}
