//! Operations whose cost must not grow with the size of their surroundings: `cargo bench -p caxton-benches --bench
//! parts`

use std::collections::BTreeMap;
use std::sync::Arc;

use caxton_control::desired::MailboxOrder;
use caxton_control::mailbox::{Mailbox, Priority, TakenMessage};
use caxton_control::plan::{Actual, ActualAgent, ComponentFile, DesiredAgent, Revision, plan};
use caxton_control::rollout::{Ledger, ObservedRevision, StoredRevision};
use caxton_control::{AgentSpec, Digest, lifecycle::RevisionState};
use criterion::{BatchSize, BenchmarkId, Criterion, criterion_group, criterion_main};

/// Measures a message through a mailbox with a number of queued messages.
fn mailbox(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("a message through a mailbox");
    for waiting in [0u64, 10_000, 1_000_000] {
        let mut mailbox = Mailbox::<u64, u64>::new(MailboxOrder::Conversation, u32::MAX);
        for message in 0..waiting {
            mailbox.reserve().expect("there is room");
            mailbox.push(message, Priority::Normal, 0, message);
        }
        let mut next = waiting;
        group.bench_function(BenchmarkId::new("waiting", waiting), |b| {
            b.iter(|| {
                next += 1;
                mailbox.reserve().expect("there is room");
                mailbox.push(next, Priority::Normal, 0, next);
                let TakenMessage { lane, message, .. } = mailbox.take(0).expect("one is ready");
                mailbox.done(lane, None);
                message
            });
        });
    }
}

/// Measures finding the route of a path among a number of routes.
fn route(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("find a route");
    for routes in [10, 10_000] {
        let mut router = matchit::Router::new();
        for route in 0..routes {
            router.insert(format!("/agents/a{route:05}/{{id}}"), route).expect("no route clashes");
        }
        group.bench_function(BenchmarkId::new("routes", routes), |b| {
            b.iter(|| *router.at("/agents/a00007/some-id").expect("it is there").value);
        });
    }
}

/// Measures planning for agents that all are as declared.
fn planning(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("plan when nothing changed");
    for agents in [10u64, 10_000] {
        let (mut desired, mut actual, mut ledgers) = (BTreeMap::new(), Actual::default(), BTreeMap::new());
        for number in 0..agents {
            let spec = Arc::new(spec(number));
            let digest = Digest([7; 32]);
            let seen = ObservedRevision {
                state: RevisionState::Running,
                since: 0,
                busy: false,
                stateful: false,
                migrates: false,
                in_flight: 0,
                instances: 1,
                instance_limit: None,
                probes: None,
            };
            let revision = Revision { number: 1, spec: Arc::clone(&spec), digest, seen };
            let agent = ActualAgent {
                revisions: vec![revision],
                shares: vec![(1, 100)],
                ..ActualAgent::new(Arc::clone(&spec))
            };
            let mut ledger = Ledger::new(spec.name.clone());
            ledger.record_running(StoredRevision { number: 1, digest, settings: spec.revision_settings().to_owned() });
            ledgers.insert(spec.name.clone(), ledger);
            actual.agents.insert(spec.name.clone(), agent);
            desired.insert(spec.name.clone(), DesiredAgent { spec, component: ComponentFile::Found(digest) });
        }
        group.bench_function(BenchmarkId::new("agents", agents), |b| {
            b.iter_batched(|| (), |()| plan(&desired, &actual, &mut ledgers, 1_000), BatchSize::SmallInput);
        });
    }
}

fn spec(number: u64) -> AgentSpec {
    use caxton_control::config::{Entry, Node, Source, Table, Value, check};

    let node = |value| Node { value, source: Source::Default };
    let table = |fields: Vec<(String, Node)>| {
        let fields = fields.into_iter().map(|(key, node)| (key, Entry { key: Source::Default, node }));
        Node { value: Value::Table(Table::from_iter(fields)), source: Source::Default }
    };
    let component = node(Value::String("a.wasm".to_owned()));
    let name = format!("a{number:05}");
    let agent = table(vec![("component".to_owned(), component)]);
    let root =
        table(vec![("caxton".to_owned(), node(Value::Integer(1))), ("agents".to_owned(), table(vec![(name, agent)]))]);
    let desired = check(&root).expect("the declaration is right");
    let (_, spec) = desired.agents.into_iter().next().expect("there is one agent");
    Arc::unwrap_or_clone(spec)
}

criterion_group!(benches, mailbox, route, planning);
criterion_main!(benches);
