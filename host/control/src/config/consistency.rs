//! Errors that only the whole file shows: clashing routes, and grants without a receiver.
//!
//! Each route and grant takes one lookup, so that checking stays linear in the number of agents.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use super::error::{Clash, ConfigError, Location, Overlap};
use super::error_parts::UnknownReceiver;
use super::findings::Findings;
use super::node::Source;
use crate::desired::RouteSpec;
use crate::grant::Grantable;
use crate::names::{AgentName, Capability, Receiver};

/// The routes and grants so far, and the names that grants may refer to.
#[derive(Default)]
pub(super) struct Consistency {
    grantable: Grantable,
    grants: Vec<(Receiver, Location)>,
    /// Routes by shape.
    routes: HashMap<String, ShapeRoutes>,
    /// Routes by the part of the shape before a parameter, and before a rest.
    params: HashMap<String, Arc<DeclaredRoute>>,
    rests: HashMap<String, Arc<DeclaredRoute>>,
}

/// The routes of one shape, by method.
#[derive(Default)]
struct ShapeRoutes {
    /// The first route of the shape, and the first without methods, which answers all.
    first: Option<Arc<DeclaredRoute>>,
    all: Option<Arc<DeclaredRoute>>,
    by_method: HashMap<String, Arc<DeclaredRoute>>,
}

/// A route with its agent.
struct DeclaredRoute {
    agent: String,
    route: String,
    source: Source,
    method: Option<String>,
}

impl ShapeRoutes {
    /// Returns an earlier route that answers a method of `route`, and that method if it is not all.
    fn by(&self, route: &RouteSpec) -> Option<(&Arc<DeclaredRoute>, Option<String>)> {
        let shared = |method: &String| Some((self.by_method.get(method)?, Some(method.clone())));
        match (route.methods.first(), &self.all) {
            // A route for all methods clashes with any other.
            (None, _) => self.first.as_ref().map(|first| (first, first.method.clone())),
            (Some(method), Some(all)) => Some((all, Some(method.clone()))),
            (Some(_), None) => route.methods.iter().find_map(shared),
        }
    }

    /// Records `owner` as the route for the methods of `route`.
    fn take(&mut self, route: &RouteSpec, owner: &Arc<DeclaredRoute>) {
        // The earliest route is the one that errors name.
        self.first.get_or_insert_with(|| Arc::clone(owner));
        if route.methods.is_empty() {
            self.all.get_or_insert_with(|| Arc::clone(owner));
        }
        for method in &route.methods {
            self.by_method.entry(method.clone()).or_insert_with(|| Arc::clone(owner));
        }
    }
}

impl Consistency {
    /// Records an agent.
    pub(super) fn agent(&mut self, name: AgentName) {
        self.grantable.agents.insert(name);
    }

    /// Records capabilities of an agent.
    pub(super) fn capabilities(&mut self, names: &BTreeSet<Capability>) {
        self.grantable.capabilities.extend(names.iter().cloned());
    }

    /// Records a grant, to be checked once all agents are known.
    pub(super) fn grant(&mut self, receiver: Receiver, at: Location) {
        self.grants.push((receiver, at));
    }

    /// Records a route, and reports an earlier one that clashes with it.
    pub(super) fn route(&mut self, agent: &str, route: &RouteSpec, at: Location, findings: &mut Findings) {
        let pattern = &route.pattern;
        // Shared: a route is entered under its shape, its methods and its prefixes.
        let owner = Arc::new(DeclaredRoute {
            agent: agent.to_owned(),
            route: pattern.to_string(),
            source: at.source.clone(),
            method: route.methods.first().cloned(),
        });
        // A router cannot hold a parameter and a rest at the same position, even with different methods.
        let crossing = pattern
            .params_at()
            .find_map(|before| self.rests.get(before))
            .or_else(|| self.params.get(pattern.rest_at()?));
        let taken = self.routes.entry(pattern.shape().to_owned()).or_default();
        let earlier = match taken.by(route) {
            Some((earlier, method)) => Some((earlier, Overlap::Methods(method))),
            None => crossing.map(|earlier| (earlier, Overlap::ParamAndRest)),
        };
        if let Some((earlier, overlap)) = earlier {
            let clash = Clash {
                route: owner.route.clone(),
                other_route: earlier.route.clone(),
                other_agent: earlier.agent.clone(),
                other: earlier.source.clone(),
                overlap,
            };
            findings.errors.push(ConfigError::RouteClash { at, clash: Box::new(clash) });
        }
        taken.take(route, &owner);
        for before in pattern.params_at() {
            self.params.entry(before.to_owned()).or_insert_with(|| Arc::clone(&owner));
        }
        if let Some(before) = pattern.rest_at() {
            self.rests.entry(before.to_owned()).or_insert(owner);
        }
    }

    /// Reports grants for agents and capabilities that do not exist.
    pub(super) fn check(self, findings: &mut Findings) {
        for (receiver, at) in self.grants {
            if self.grantable.contains(&receiver) {
                continue;
            }
            let error = match &receiver {
                Receiver::Agent(name) => {
                    let known = self.grantable.agents.iter().map(AgentName::as_str);
                    let suggestion = findings.suggest.nearest(name.as_str(), known).map(str::to_owned);
                    ConfigError::UnknownAgent { at, receiver: UnknownReceiver { name: name.to_string(), suggestion } }
                }
                Receiver::Capability(name) => {
                    let known = self.grantable.capabilities.iter().map(Capability::as_str);
                    let suggestion = findings.suggest.nearest(name.as_str(), known).map(str::to_owned);
                    ConfigError::UnknownCapability {
                        at,
                        receiver: UnknownReceiver { name: name.to_string(), suggestion },
                    }
                }
            };
            findings.errors.push(error);
        }
    }
}
