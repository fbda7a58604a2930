//! Budgets: what all that follows from one message may use, and the ledger of one such tree.
//!
//! ```text
//! message:  hold --> keep, with the commit that sends it
//!              '--> release, where nothing is sent
//! call:     begin_call: one call, and the units that it may use --> settle, with the figures of its response
//! ```
//! Whole numbers throughout. A sum that would not fit stays at the largest number, which is beyond every limit.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::names::AgentName;
use crate::units::{print_bytes, print_duration};

/// The table `[budgets.NAME]`: what all that follows from one message may use.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BudgetSpec {
    /// The most messages that follow.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub messages: Option<u64>,
    /// The most calls over HTTP.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub calls: Option<u64>,
    /// The most bytes of the bodies of those calls, in both directions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes: Option<u64>,
    /// The most time of handlers on a core.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "crate::units::serde_duration::option")]
    pub cpu: Option<Duration>,
    /// The longest time since the first message.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "crate::units::serde_duration::option")]
    pub time: Option<Duration>,
    /// The most units that places count, by name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub units: BTreeMap<String, u64>,
    /// The callers that may name the budget in a request, such as `token:shop`; `*` stands for every caller with a
    /// credential.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub callers: BTreeSet<String>,
}

impl BudgetSpec {
    /// Returns `true` if it limits nothing.
    pub fn is_unlimited(&self) -> bool {
        let Self { messages, calls, bytes, cpu, time, units, callers: _ } = self;
        [messages, calls, bytes].iter().all(|limit| limit.is_none())
            && cpu.is_none()
            && time.is_none()
            && units.is_empty()
    }

    /// Returns `true` if a caller may name it. `caller` is its identity, such as `token:shop`.
    pub fn admits(&self, caller: &str) -> bool {
        // No name of a caller is a star, so that none can take its meaning.
        self.callers.contains("*") || self.callers.contains(caller)
    }
}

/// A quantity that a budget limits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Measure {
    /// Messages that follow.
    Messages,
    /// Calls over HTTP.
    Calls,
    /// Bytes of the bodies of calls.
    Bytes,
    /// Time of handlers on a core, in microseconds.
    Cpu,
    /// Time since the first message, in microseconds.
    Time,
    /// Units that a place counts.
    Unit(String),
}

impl Measure {
    /// Returns the name, by which events and metrics tell the measures apart.
    pub fn name(&self) -> &str {
        match self {
            Self::Messages => "messages",
            Self::Calls => "calls",
            Self::Bytes => "bytes",
            Self::Cpu => "cpu",
            Self::Time => "time",
            Self::Unit(unit) => unit,
        }
    }

    fn print(&self, amount: u64) -> String {
        match self {
            Self::Messages | Self::Calls | Self::Unit(_) => amount.to_string(),
            Self::Bytes => print_bytes(amount),
            Self::Cpu | Self::Time => print_micros(amount),
        }
    }
}

fn print_micros(micros: u64) -> String {
    // Durations of the file are whole milliseconds.
    print_duration(Duration::from_millis(micros / 1_000))
}

/// A limit that something would pass.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BudgetShortage {
    /// The quantity.
    pub measure: Measure,
    /// The limit.
    pub limit: u64,
    /// The part that is used.
    pub used: u64,
    /// The part that is reserved for what is under way.
    pub reserved: u64,
}

impl fmt::Display for BudgetShortage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { measure, limit, used, reserved } = self;
        write!(f, "{}: {} of {} used", measure.name(), measure.print(*used), measure.print(*limit))?;
        match reserved {
            0 => Ok(()),
            reserved => write!(f, ", {} reserved", measure.print(*reserved)),
        }
    }
}

/// The use of one agent, or of all.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Usage {
    /// Messages sent.
    pub messages: u64,
    /// Calls over HTTP.
    pub calls: u64,
    /// Bytes of the bodies of calls, in both directions.
    pub bytes: u64,
    /// Time of handlers on a core, in microseconds.
    pub cpu_us: u64,
    /// Units that places counted.
    pub units: BTreeMap<String, u64>,
}

impl Usage {
    fn add_units(&mut self, units: &BTreeMap<String, u64>) {
        for (unit, amount) in units {
            match self.units.get_mut(unit) {
                Some(sum) => *sum = sum.saturating_add(*amount),
                None => drop(self.units.insert(unit.clone(), *amount)),
            }
        }
    }
}

/// The units that are reserved for a call under way.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct ReservedUnits {
    agent: AgentName,
    units: BTreeMap<String, u64>,
}

/// A call that has begun.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct CallNumber(u64);

/// The ledger of a tree: what its agents have used, and what is reserved. Stored with the tree.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct BudgetLedger {
    /// The use by agent.
    agents: BTreeMap<AgentName, Usage>,
    /// The units of calls under way.
    reserved: BTreeMap<u64, ReservedUnits>,
    /// Set once something was refused, and the one who began the tree was told.
    is_told: bool,
    /// The sum over the agents, so that a check adds up nothing. Not stored, as it follows.
    #[serde(skip)]
    total: Usage,
    /// The messages that are admitted and not committed. Not stored: a host that is killed has sent none of them.
    #[serde(skip)]
    held: u64,
    #[serde(skip)]
    last_call: u64,
}

impl BudgetLedger {
    /// Returns a stored ledger as it goes on after the host has ended: what was reserved counts as used.
    #[must_use]
    pub fn recovered(mut self) -> Self {
        // The calls may have used all of it, which nobody can tell any more.
        for ReservedUnits { agent, units } in std::mem::take(&mut self.reserved).into_values() {
            self.agents.entry(agent).or_default().add_units(&units);
        }
        let (mut total, agents) = (Usage::default(), self.agents.values());
        for Usage { messages, calls, bytes, cpu_us, units } in agents {
            total.messages = total.messages.saturating_add(*messages);
            total.calls = total.calls.saturating_add(*calls);
            total.bytes = total.bytes.saturating_add(*bytes);
            total.cpu_us = total.cpu_us.saturating_add(*cpu_us);
            total.add_units(units);
        }
        Self { total, held: 0, ..self }
    }

    /// Returns the use by agent.
    pub fn agents(&self) -> &BTreeMap<AgentName, Usage> {
        &self.agents
    }

    /// Returns the use of all agents.
    pub fn total(&self) -> &Usage {
        &self.total
    }

    /// Returns the units that are reserved.
    pub fn reserved(&self) -> BTreeMap<String, u64> {
        let mut sum = Usage::default();
        self.reserved.values().for_each(|call| sum.add_units(&call.units));
        sum.units
    }

    /// Returns `true` once something was refused.
    pub fn is_told(&self) -> bool {
        self.is_told
    }

    /// Notes that something was refused. Returns `true` the first time.
    pub fn tell(&mut self) -> bool {
        !std::mem::replace(&mut self.is_told, true)
    }

    /// Holds a message.
    ///
    /// # Errors
    /// The limit that it would pass.
    pub fn hold(&mut self, spec: &BudgetSpec) -> Result<(), BudgetShortage> {
        // Those that are held count too: handlers that run at once would pass the limit together.
        let (used, reserved) = (self.total.messages, self.held);
        check(&Measure::Messages, spec.messages, (used, reserved), 1)?;
        self.held += 1;
        Ok(())
    }

    /// Gives up a message that was held.
    pub fn release(&mut self) {
        self.held = self.held.saturating_sub(1);
    }

    /// Counts a message that was held and is sent now.
    pub fn keep(&mut self, agent: &AgentName) {
        self.held = self.held.saturating_sub(1);
        let own = self.agents.entry(agent.clone()).or_default();
        own.messages = own.messages.saturating_add(1);
        self.total.messages = self.total.messages.saturating_add(1);
    }

    /// Holds a message again whose commit was not made.
    pub fn take_back(&mut self, agent: &AgentName) {
        // The agent has an entry, since the message was counted for it before.
        let own = self.agents.entry(agent.clone()).or_default();
        own.messages = own.messages.saturating_sub(1);
        self.total.messages = self.total.messages.saturating_sub(1);
        self.held += 1;
    }

    /// Counts a call, and reserves the units that it may use: 0 of a unit of which that is not known.
    ///
    /// # Errors
    /// The limit that it would pass. Nothing is counted then.
    pub fn begin_call(
        &mut self,
        agent: &AgentName,
        spec: &BudgetSpec,
        at_most: &BTreeMap<String, u64>,
    ) -> Result<CallNumber, BudgetShortage> {
        check(&Measure::Calls, spec.calls, (self.total.calls, 0), 1)?;
        // One more byte at least: a call that may move none is refused before it begins.
        check(&Measure::Bytes, spec.bytes, (self.total.bytes, 0), 1)?;
        let reserved = self.reserved();
        for (unit, most) in at_most {
            let known = |units: &BTreeMap<String, u64>| units.get(unit).copied().unwrap_or(0);
            let measure = Measure::Unit(unit.clone());
            // Without a bound of its own a call may begin while there is a unit left.
            check(
                &measure,
                spec.units.get(unit).copied(),
                (known(&self.total.units), known(&reserved)),
                (*most).max(1),
            )?;
        }
        let own = self.agents.entry(agent.clone()).or_default();
        own.calls = own.calls.saturating_add(1);
        self.total.calls = self.total.calls.saturating_add(1);
        // Above those that were stored, whose calls ended with the host before.
        self.last_call = self.last_call.max(self.reserved.last_key_value().map_or(0, |(last, _)| *last)) + 1;
        if !at_most.is_empty() {
            self.reserved.insert(self.last_call, ReservedUnits { agent: agent.clone(), units: at_most.clone() });
        }
        Ok(CallNumber(self.last_call))
    }

    /// Counts what a call has used in place of what was reserved for it. A unit without a figure counts as it was
    /// reserved.
    pub fn settle(&mut self, call: CallNumber, figures: &BTreeMap<String, u64>) {
        // A call that was settled before has nothing reserved, and must not count twice.
        let Some(ReservedUnits { agent, mut units }) = self.reserved.remove(&call.0) else { return };
        for (unit, amount) in &mut units {
            *amount = figures.get(unit).copied().unwrap_or(*amount);
        }
        self.agents.entry(agent).or_default().add_units(&units);
        self.total.add_units(&units);
    }

    /// Counts bytes of a body that are about to be passed on.
    ///
    /// # Errors
    /// The limit that they would pass. They are not counted then.
    pub fn add_bytes(&mut self, agent: &AgentName, spec: &BudgetSpec, bytes: u64) -> Result<(), BudgetShortage> {
        // Before they are passed on: what is refused was not moved.
        check(&Measure::Bytes, spec.bytes, (self.total.bytes, 0), bytes)?;
        let own = self.agents.entry(agent.clone()).or_default();
        own.bytes = own.bytes.saturating_add(bytes);
        self.total.bytes = self.total.bytes.saturating_add(bytes);
        Ok(())
    }

    /// Counts the time that a handler was on a core, whether it ended well or not.
    pub fn add_cpu(&mut self, agent: &AgentName, time: Duration) {
        let micros = micros(time);
        let own = self.agents.entry(agent.clone()).or_default();
        own.cpu_us = own.cpu_us.saturating_add(micros);
        self.total.cpu_us = self.total.cpu_us.saturating_add(micros);
    }

    /// Checks that a handler may begin.
    ///
    /// # Errors
    /// The limit of time that is reached.
    pub fn check_handler(&self, spec: &BudgetSpec, since_root: Duration) -> Result<(), BudgetShortage> {
        check(&Measure::Cpu, spec.cpu.map(micros), (self.total.cpu_us, 0), 1)?;
        check_time(spec, since_root)
    }

    /// Returns the time that handlers may still be on a core; `None` for no limit.
    pub fn cpu_left(&self, spec: &BudgetSpec) -> Option<Duration> {
        let limit = micros(spec.cpu?);
        Some(Duration::from_micros(limit.saturating_sub(self.total.cpu_us)))
    }
}

/// Checks that something may happen so long after the first message.
///
/// # Errors
/// The limit that is reached.
pub fn check_time(spec: &BudgetSpec, since_root: Duration) -> Result<(), BudgetShortage> {
    check(&Measure::Time, spec.time.map(micros), (micros(since_root), 0), 1)
}

fn check(measure: &Measure, limit: Option<u64>, (used, reserved): (u64, u64), more: u64) -> Result<(), BudgetShortage> {
    match limit {
        Some(limit) if used.saturating_add(reserved).saturating_add(more) > limit => {
            Err(BudgetShortage { measure: measure.clone(), limit, used, reserved })
        }
        Some(_) | None => Ok(()),
    }
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
