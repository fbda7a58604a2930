//! What to do next, given what is declared and what runs.
//!
//! A plan lists only what is safe at this moment. There is no stored workflow: after each action the host
//! observes again and asks again, so an action that failed needs no path of its own.
//!
//! ```text
//! a new revision:   Create -> Prepare -> (stateful: Pause, Handoff) | Switch -> old drains -> Stop
//! an agent leaves:  Retire -> its revisions drain -> Stop -> Forget
//! ```

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;

use crate::desired::AgentSpec;
use crate::lifecycle::State;
use crate::names::{AgentName, Digest, RevisionId};

/// What is declared of one agent, with what its component's file holds now.
#[derive(Debug, Clone, PartialEq)]
pub struct Wanted {
    /// The declaration.
    pub spec: Arc<AgentSpec>,
    /// The component's file.
    pub component: Component,
}

/// A component's file, as it was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Component {
    /// Bytes with this digest.
    Found(Digest),
    /// No usable bytes, and why.
    Unusable(String),
}

/// What runs.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Actual {
    /// The agents of the host, also those that leave.
    pub agents: BTreeMap<AgentName, ActualAgent>,
}

/// What runs of one agent.
#[derive(Debug, Clone, PartialEq)]
pub struct ActualAgent {
    /// The declaration whose in-place settings (routes, mailbox, instances, reload) are in force.
    pub applied: Arc<AgentSpec>,
    /// Whether its mailbox is held for a handoff.
    pub paused: bool,
    /// Whether it takes no new messages because it leaves.
    pub retired: bool,
    /// Its revisions that are not ended, and the newest even if it is, in order of number.
    pub revisions: Vec<Revision>,
}

/// A revision, as observed.
#[derive(Debug, Clone, PartialEq)]
pub struct Revision {
    /// Counts the agent's revisions.
    pub number: u64,
    /// The settings it was made with.
    pub spec: Arc<AgentSpec>,
    /// The bytes it was made with.
    pub digest: Digest,
    /// Where it is in its life.
    pub state: State,
    /// When it came to that state, on the clock that `now` is read from.
    pub since: Duration,
    /// Whether the host is working on it already.
    pub busy: bool,
    /// Whether it keeps state in its memory (it exports `snapshot`); known once it is loaded.
    pub stateful: bool,
    /// Messages and calls that it has in hand.
    pub in_flight: u32,
}

/// What is safe to do now, and what is not done yet.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Plan {
    /// In any order: none depends on another.
    pub actions: Vec<Action>,
    /// What is not as declared and why nothing is done about it now.
    pub waiting: Vec<Waiting>,
    /// When to look again although nothing happened.
    #[serde(skip)]
    pub look_again_in: Option<Duration>,
}

/// One thing to do.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "action", rename_all = "kebab-case")]
pub enum Action {
    /// Make a new revision of these bytes and settings; a first one brings the agent into being.
    Create {
        /// Whose.
        agent: AgentName,
        /// With these bytes.
        digest: Digest,
        /// With these settings.
        #[serde(skip)]
        spec: Arc<AgentSpec>,
    },
    /// Apply changed settings that need no new revision.
    Configure {
        /// Whose.
        agent: AgentName,
        /// The settings.
        #[serde(skip)]
        spec: Arc<AgentSpec>,
    },
    /// Take a revision from unloaded to ready: validate, compile, start instances, probe.
    Prepare {
        /// Which.
        revision: RevisionId,
    },
    /// Send all new messages to a ready revision; the one that ran drains.
    Switch {
        /// To which.
        revision: RevisionId,
    },
    /// Hold the mailbox, so that the running revision comes to rest.
    Pause {
        /// Whose.
        agent: AgentName,
    },
    /// Save the running revision's memory, restore it in the ready one, check, and switch.
    Handoff {
        /// To which.
        revision: RevisionId,
    },
    /// Let the mailbox go on.
    Resume {
        /// Whose.
        agent: AgentName,
    },
    /// End a revision. What it still has in hand is interrupted and goes back to the mailbox.
    Stop {
        /// Which.
        revision: RevisionId,
    },
    /// Take an agent that is no longer declared out of the routes and drain it.
    Retire {
        /// Whose.
        agent: AgentName,
    },
    /// Remove the last trace of a retired agent.
    Forget {
        /// Whose.
        agent: AgentName,
    },
}

/// Something that is not as declared yet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Waiting {
    /// Whose.
    pub agent: AgentName,
    /// For what, for a person to read.
    pub why: String,
}

/// Compares what is declared with what runs. `now` is on the clock that [`Revision::since`] is on.
pub fn plan(desired: &BTreeMap<AgentName, Wanted>, actual: &Actual, now: Duration) -> Plan {
    let mut plan = Plan::default();
    for (name, wanted) in desired {
        match actual.agents.get(name) {
            None => plan.create(name, wanted),
            // An agent that was declared again while it leaves: first it leaves.
            Some(agent) if agent.retired => plan.leave(name, agent, now),
            Some(agent) => plan.follow(name, wanted, agent, now),
        }
    }
    for (name, agent) in &actual.agents {
        if !desired.contains_key(name) {
            plan.leave(name, agent, now);
        }
    }
    plan
}

impl Plan {
    /// Whether all is as declared.
    pub fn is_empty(&self) -> bool {
        self.actions.is_empty() && self.waiting.is_empty()
    }

    fn wait(&mut self, agent: &AgentName, why: impl Into<String>) {
        self.waiting.push(Waiting { agent: agent.clone(), why: why.into() });
    }

    fn look_again(&mut self, after: Duration) {
        self.look_again_in = Some(self.look_again_in.map_or(after, |soonest| soonest.min(after)));
    }

    fn create(&mut self, name: &AgentName, wanted: &Wanted) {
        match &wanted.component {
            Component::Found(digest) => self.actions.push(Action::Create {
                agent: name.clone(),
                digest: *digest,
                spec: Arc::clone(&wanted.spec),
            }),
            Component::Unusable(why) => self.wait(name, why),
        }
    }

    /// Brings an agent that is declared and present to what is declared.
    fn follow(&mut self, name: &AgentName, wanted: &Wanted, agent: &ActualAgent, now: Duration) {
        if !Arc::ptr_eq(&agent.applied, &wanted.spec) && agent.applied != wanted.spec {
            self.actions.push(Action::Configure { agent: name.clone(), spec: Arc::clone(&wanted.spec) });
        }
        let running = agent.revisions.iter().find(|r| r.state == State::Running);
        for old in agent.revisions.iter().filter(|r| r.state == State::Draining) {
            self.drain(name, old, agent.applied.reload.drain, now);
        }
        let Some(newest) = agent.revisions.last() else {
            return self.create(name, wanted);
        };
        if let Component::Unusable(why) = &wanted.component {
            self.wait(name, why);
        }
        let current = running.is_some_and(|running| is_as_declared(running, wanted));
        if let (true, Some(running)) = (current, running) {
            // What came after the running revision is not wanted any more.
            let candidate = agent.revisions.iter().find(|r| r.number > running.number && !r.state.is_terminal());
            match candidate {
                Some(candidate) => self.give_up(name, candidate),
                None => self.resume(name, agent),
            }
        } else if is_as_declared(newest, wanted) {
            self.advance(name, agent, newest, running);
        } else {
            self.supersede(name, wanted, agent, newest);
        }
    }

    /// Takes the newest revision, which is as declared, one step on.
    fn advance(&mut self, name: &AgentName, agent: &ActualAgent, newest: &Revision, running: Option<&Revision>) {
        let revision = RevisionId { agent: name.clone(), number: newest.number };
        match &newest.state {
            State::Unloaded if !newest.busy => self.actions.push(Action::Prepare { revision }),
            State::Unloaded | State::Loaded => self.wait(name, format!("{revision} is {}", preparing(&newest.state))),
            State::Ready => match running {
                Some(old) if old.stateful && newest.stateful => {
                    if !agent.paused {
                        self.actions.push(Action::Pause { agent: name.clone() });
                    } else if old.in_flight > 0 {
                        self.wait(name, format!("the handoff to {revision} waits for {} in flight", old.in_flight));
                    } else if newest.busy {
                        self.wait(name, format!("{revision} is taking over the state"));
                    } else {
                        self.actions.push(Action::Handoff { revision });
                    }
                }
                _ => self.actions.push(Action::Switch { revision }),
            },
            State::Running => self.resume(name, agent),
            State::Failed { reason } => {
                self.resume(name, agent);
                self.wait(name, format!("{revision} failed: {reason}"));
            }
            // Only an operator ends the newest revision; it is his to begin again.
            State::Draining | State::Stopped => self.resume(name, agent),
        }
    }

    /// The newest revision is not as declared: end it if it never ran, and make another.
    fn supersede(&mut self, name: &AgentName, wanted: &Wanted, agent: &ActualAgent, newest: &Revision) {
        match newest.state {
            State::Unloaded | State::Loaded | State::Ready => self.give_up(name, newest),
            State::Running | State::Draining | State::Stopped | State::Failed { .. } => {
                self.resume(name, agent);
                if let Component::Found(_) = wanted.component {
                    self.create(name, wanted);
                }
            }
        }
    }

    /// Ends a candidate that is not wanted any more.
    fn give_up(&mut self, name: &AgentName, candidate: &Revision) {
        let revision = RevisionId { agent: name.clone(), number: candidate.number };
        if candidate.busy {
            self.wait(name, format!("{revision} is superseded; it ends when its present step does"));
        } else {
            self.actions.push(Action::Stop { revision });
        }
    }

    fn resume(&mut self, name: &AgentName, agent: &ActualAgent) {
        if agent.paused {
            self.actions.push(Action::Resume { agent: name.clone() });
        }
    }

    /// Ends a draining revision once it is at rest or its time is over.
    fn drain(&mut self, name: &AgentName, old: &Revision, limit: Duration, now: Duration) {
        let revision = RevisionId { agent: name.clone(), number: old.number };
        let deadline = old.since + limit;
        if old.busy {
            self.wait(name, format!("{revision} is stopping"));
        } else if old.in_flight == 0 || now >= deadline {
            self.actions.push(Action::Stop { revision });
        } else {
            self.look_again(deadline - now);
            self.wait(name, format!("{revision} drains: {} in flight", old.in_flight));
        }
    }

    /// Takes an agent that is not declared one step towards its end.
    fn leave(&mut self, name: &AgentName, agent: &ActualAgent, now: Duration) {
        if !agent.retired {
            self.actions.push(Action::Retire { agent: name.clone() });
            return;
        }
        let mut open = false;
        for revision in agent.revisions.iter().filter(|r| !r.state.is_terminal()) {
            open = true;
            self.drain(name, revision, agent.applied.reload.drain, now);
        }
        if !open {
            self.actions.push(Action::Forget { agent: name.clone() });
        }
    }
}

/// Whether a revision is what is declared. Bytes that cannot be read are taken for those that run.
fn is_as_declared(revision: &Revision, wanted: &Wanted) -> bool {
    // Settings are compared by content only where they are not the very same.
    let settings = Arc::ptr_eq(&revision.spec, &wanted.spec) || revision.spec.same_revision(&wanted.spec);
    settings
        && match &wanted.component {
            Component::Found(digest) => revision.digest == *digest,
            Component::Unusable(_) => true,
        }
}

fn preparing(state: &State) -> &'static str {
    match state {
        State::Unloaded => "being validated and compiled",
        State::Loaded => "starting its instances",
        State::Ready | State::Running | State::Draining | State::Stopped | State::Failed { .. } => "ready",
    }
}
