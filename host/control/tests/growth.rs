//! The cost of plans as the number of agents grows: ten times the agents take about ten times as long, and not a hundred
//! times.

#![allow(clippy::unwrap_used, reason = "a test may panic")]
#![allow(dead_code, reason = "of the model only the settings are used")]

mod model;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use caxton_control::plan::{Actual, ComponentFile, DesiredAgent, plan};
use caxton_control::{AgentName, Digest};

/// Returns a declaration with so many agents.
fn declaration(agents: usize) -> BTreeMap<AgentName, DesiredAgent> {
    let agent = |number: usize| {
        let name: AgentName = format!("a{number:06}").parse().unwrap();
        let component = ComponentFile::Found(Digest([7; 32]));
        (name.clone(), DesiredAgent { spec: Arc::new(model::spec(&name)), component })
    };
    (0..agents).map(agent).collect()
}

/// Returns the time of the first plan for so many agents, the least of some runs: others may use the cores meanwhile.
fn time(agents: usize) -> Duration {
    let declared = declaration(agents);
    let once = |_| {
        let began = Instant::now();
        let plan = plan(&declared, &Actual::default(), &mut BTreeMap::new(), 0);
        let took = began.elapsed();
        assert_eq!(plan.actions.len(), agents, "each is created");
        took
    };
    (0..5).map(once).min().unwrap()
}

#[test]
fn a_plan_for_ten_times_the_agents_takes_ten_times_as_long() {
    let (few, many) = (time(2_000), time(20_000));
    // Three times the expected ratio leaves room for caches; a plan that compared each action with all others would be at
    // a hundred.
    assert!(many < few * 33, "{few:?} for 2,000 agents, {many:?} for 20,000");
}
