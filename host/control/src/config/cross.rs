//! What is wrong only beside something else: routes that clash, grants for nobody.
//!
//! Each route and grant is looked up once, so that ten thousand agents take no longer than ten, each.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use super::error::{At, Clash, ConfigError, Overlap};
use super::node::Place;
use super::read::Findings;
use crate::desired::Route;
use crate::names::{AgentName, Capability, Receiver};

/// The grants and routes met so far, and what they may refer to.
#[derive(Default)]
pub(super) struct Cross {
    agents: BTreeSet<AgentName>,
    capabilities: BTreeSet<Capability>,
    grants: Vec<(Receiver, At)>,
    /// By shape.
    routes: HashMap<String, Taken>,
    /// By what stands before a parameter, and before a rest.
    params: HashMap<String, Arc<Owner>>,
    rests: HashMap<String, Arc<Owner>>,
}

/// Who answers the paths of one shape.
#[derive(Default)]
struct Taken {
    /// The first route of the shape, and the first that answers all methods.
    first: Option<Arc<Owner>>,
    all: Option<Arc<Owner>>,
    by_method: HashMap<String, Arc<Owner>>,
}

/// A route and whose it is.
struct Owner {
    agent: String,
    route: String,
    place: Place,
    method: Option<String>,
}

impl Taken {
    /// The earlier route that answers a method that `route` answers, and that method if it is not all.
    fn by(&self, route: &Route) -> Option<(&Arc<Owner>, Option<String>)> {
        let shared = |method: &String| Some((self.by_method.get(method)?, Some(method.clone())));
        match (route.methods.first(), &self.all) {
            // All methods clash with any.
            (None, _) => self.first.as_ref().map(|first| (first, first.method.clone())),
            (Some(method), Some(all)) => Some((all, Some(method.clone()))),
            (Some(_), None) => route.methods.iter().find_map(shared),
        }
    }

    /// Notes that `owner` answers the methods of `route`.
    fn take(&mut self, route: &Route, owner: &Arc<Owner>) {
        self.first.get_or_insert_with(|| Arc::clone(owner));
        if route.methods.is_empty() {
            self.all.get_or_insert_with(|| Arc::clone(owner));
        }
        for method in &route.methods {
            self.by_method.entry(method.clone()).or_insert_with(|| Arc::clone(owner));
        }
    }
}

impl Cross {
    /// Notes that there is such an agent.
    pub(super) fn agent(&mut self, name: AgentName) {
        self.agents.insert(name);
    }

    /// Notes that some agent has these capabilities.
    pub(super) fn capabilities(&mut self, names: &BTreeSet<Capability>) {
        self.capabilities.extend(names.iter().cloned());
    }

    /// Notes a grant, to be checked when all agents are known.
    pub(super) fn grant(&mut self, receiver: Receiver, at: At) {
        self.grants.push((receiver, at));
    }

    /// Notes a route, and reports an earlier one that it clashes with.
    pub(super) fn route(&mut self, agent: &str, route: &Route, at: At, findings: &mut Findings) {
        let pattern = &route.pattern;
        let owner = Arc::new(Owner {
            agent: agent.to_owned(),
            route: pattern.to_string(),
            place: at.place.clone(),
            method: route.methods.first().cloned(),
        });
        // A router cannot have a parameter and a rest at one place, whatever their methods are.
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
                other: earlier.place.clone(),
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
            let error = match &receiver {
                Receiver::Agent(name) if !self.agents.contains(name) => {
                    let known = self.agents.iter().map(AgentName::as_str);
                    let suggestion = findings.suggest.nearest(name.as_str(), known).map(str::to_owned);
                    ConfigError::UnknownAgent { at, name: name.to_string(), suggestion }
                }
                Receiver::Capability(name) if !self.capabilities.contains(name) => {
                    let known = self.capabilities.iter().map(Capability::as_str);
                    let suggestion = findings.suggest.nearest(name.as_str(), known).map(str::to_owned);
                    ConfigError::UnknownCapability { at, name: name.to_string(), suggestion }
                }
                Receiver::Agent(_) | Receiver::Capability(_) => continue,
            };
            findings.errors.push(error);
        }
    }
}
