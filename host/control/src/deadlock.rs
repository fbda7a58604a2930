//! Agents that wait for each other's answers, so that none would ever come.
//!
//! A handler that waits for an answer keeps two things from others until it is there: one of its agent's turns (an agent
//! has as many as instances), and its lane (the conversation, or the whole agent, as `mailbox.order` says). A question is
//! stuck when it can only be handled after handlers whose own questions are stuck. It does not matter whether the
//! questions came of one another or from different sides: only who holds what.

use std::collections::{BTreeMap, BTreeSet};

use crate::desired::Order;

/// A question that a handler waits for the answer to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Asks<N> {
    /// Tells it from all others that its agent's handlers ever ask.
    pub id: u64,
    /// Tells the handler from the others of its agent. One that asks several at once waits for all the answers.
    pub handler: u64,
    /// The conversation of the message that the handler has in hand.
    pub within: u64,
    /// Who was asked.
    pub to: N,
    /// In which conversation.
    pub conversation: u64,
}

/// What there is to know of an agent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Standing<N> {
    /// How many messages it can have in hand at once.
    pub turns: u32,
    /// Which of them are handled one at a time.
    pub order: Order,
    /// What its handlers wait for.
    pub asks: Vec<Asks<N>>,
}

impl<N> Standing<N> {
    /// Whether a message of this conversation has to wait until the answers are there that its handlers wait for.
    pub fn keeps_waiting(&self, conversation: u64) -> bool {
        let has_lane = |asks: &Asks<N>| match self.order {
            Order::Agent => true,
            Order::Conversation => asks.within == conversation,
            Order::None => false,
        };
        if self.asks.iter().any(has_lane) {
            return true;
        }
        // No more handlers than questions.
        if self.asks.is_empty() || self.asks.len() < self.turns as usize {
            return false;
        }
        let handlers: BTreeSet<u64> = self.asks.iter().map(|asks| asks.handler).collect();
        handlers.len() >= self.turns as usize
    }
}

/// The questions that are stuck.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stuck<N> {
    agents: BTreeMap<N, Standing<N>>,
}

impl<N: Ord + Clone> Stuck<N> {
    /// Those that keep one from being handled which is for `to` in a conversation. `look` tells how an agent stands, and
    /// nothing if there is none of this name.
    ///
    /// Agents may be looked at one after the other while they go on: what two looks both find stood at one moment.
    pub fn find(to: &N, conversation: u64, look: impl FnMut(&N) -> Option<Standing<N>>) -> Self {
        let mut stuck = Self { agents: reach(to, conversation, look) };
        while stuck.let_go() {}
        stuck
    }

    /// Takes out the handlers whose questions can all be handled; others may be able to go on after them. False if there
    /// are none.
    fn let_go(&mut self) -> bool {
        let mut free = Vec::new();
        for (name, standing) in &self.agents {
            let waits = |asks: &&Asks<N>| self.keep_waiting(&asks.to, asks.conversation);
            let stuck: BTreeSet<u64> = standing.asks.iter().filter(waits).map(|asks| asks.handler).collect();
            if standing.asks.iter().any(|asks| !stuck.contains(&asks.handler)) {
                free.push((name.clone(), stuck));
            }
        }
        for (name, stuck) in &free {
            if let Some(standing) = self.agents.get_mut(name) {
                standing.asks.retain(|asks| stuck.contains(&asks.handler));
            }
        }
        self.agents.retain(|_, standing| !standing.asks.is_empty());
        !free.is_empty()
    }

    /// Whether what is for `to` in a conversation would never be handled.
    pub fn keep_waiting(&self, to: &N, conversation: u64) -> bool {
        self.agents.get(to).is_some_and(|standing| standing.keeps_waiting(conversation))
    }

    /// Who waits for whom: from `to`, which `from` asked, to `from`, and `to` again. Where `from` is not among those who
    /// are waited for, `to` alone, twice.
    pub fn cycle(&self, from: &N, to: &N) -> Vec<N> {
        let mut path = vec![to.clone()];
        self.walk(from, to, &mut BTreeSet::from([to]), &mut path);
        path.push(to.clone());
        path
    }

    /// Follows who waits for whom from `at` on, until `wanted` is there. False, and the path as it was, if it is not to be
    /// found.
    fn walk<'a>(&'a self, wanted: &N, at: &N, seen: &mut BTreeSet<&'a N>, path: &mut Vec<N>) -> bool
    where
        N: 'a,
    {
        if at == wanted {
            return true;
        }
        let Some(standing) = self.agents.get(at) else { return false };
        for asks in &standing.asks {
            if self.keep_waiting(&asks.to, asks.conversation) && seen.insert(&asks.to) {
                path.push(asks.to.clone());
                if self.walk(wanted, &asks.to, seen, path) {
                    return true;
                }
                path.pop();
            }
        }
        false
    }
}

/// The agents that keep `to` waiting in a conversation, those that keep these waiting, and so on.
fn reach<N: Ord + Clone>(
    to: &N,
    conversation: u64,
    mut look: impl FnMut(&N) -> Option<Standing<N>>,
) -> BTreeMap<N, Standing<N>> {
    let mut agents = BTreeMap::new();
    let mut left = vec![(to.clone(), conversation)];
    let mut seen: BTreeSet<(N, u64)> = left.iter().cloned().collect();
    while let Some((name, conversation)) = left.pop() {
        if !agents.contains_key(&name) {
            let Some(standing) = look(&name) else { continue };
            agents.insert(name.clone(), standing);
        }
        let standing: &Standing<N> = &agents[&name];
        if standing.keeps_waiting(conversation) {
            let beyond = standing.asks.iter().map(|asks| (asks.to.clone(), asks.conversation));
            left.extend(beyond.filter(|next| seen.insert(next.clone())));
        }
    }
    agents
}
