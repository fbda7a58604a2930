//! The tables of an agent that `[defaults]` has as well.

use std::time::Duration;

use super::error::{ConfigError, Location};
use super::findings::Findings;
use super::node::Source;
use super::schema;
use super::section::Section;
use super::strategies::{DeployTable, ReloadTable, ignore};
use crate::backoff::Backoff;
use crate::desired::{
    BreakerSpec, InstancesSpec, Limits, MailboxOrder, MailboxSpec, OnDead, ReloadOptions, Reuse, SnapshotSpec,
};
use crate::rollout::split::Sticky;
use crate::rollout::{DeploySpec, ReloadSpec, RollbackSpec, RolloutSpec};
use crate::rollout::{MemoryHandover, RollbackRules};
use crate::snapshot::SaveMode;
use crate::units::{print_bytes, print_duration};

/// The settings that an agent inherits from `[defaults]`.
#[derive(Debug)]
pub(super) struct Inheritable {
    pub(super) limits: Limits,
    pub(super) instances: InstancesSpec,
    pub(super) snapshot: SnapshotSpec,
    pub(super) mailbox: MailboxSpec,
    pub(super) breaker: BreakerSpec,
    pub(super) reload: ReloadOptions,
    pub(super) rollout: RolloutSpec,
    /// The places of `min` and `max` of the instances.
    instances_ends: Ends,
    /// The places of `first` and `max` of the backoff.
    backoff_ends: Ends,
}

/// The places of the lower and the upper end of a range.
type Ends = (Source, Source);

impl Inheritable {
    /// Reads the tables of `section`; missing values come from `base`, or else from the schema.
    pub(super) fn read(section: &Section<'_>, base: Option<&Self>, findings: &mut Findings) -> Self {
        let (instances, instances_ends) = instances(section, base, findings);
        let (mailbox, backoff_ends) = mailbox(section, base, findings);
        // Before the snapshot, whose size must not exceed the memory.
        let limits = limits(section, base.map(|b| &b.limits), findings);
        Self {
            instances,
            snapshot: snapshot(section, base.map(|b| &b.snapshot), &limits, findings),
            limits,
            mailbox,
            breaker: breaker(section, base.map(|b| &b.breaker), findings),
            reload: reload(section, base.map(|b| &b.reload), findings),
            rollout: RolloutSpec {
                deploy: deploy(section, base.map(|b| &b.rollout.deploy), findings),
                reload: reloaded(section, base.map(|b| &b.rollout.reload), findings),
                rollback: rollback(section, base.map(|b| &b.rollout.rollback), findings),
            },
            instances_ends,
            backoff_ends,
        }
    }

    /// Returns `true` if the values are those of `other`, wherever they were written.
    pub(super) fn has_values_of(&self, other: &Self) -> bool {
        let Self { limits, instances, snapshot, mailbox, breaker, reload, rollout, instances_ends: _, backoff_ends: _ } =
            self;
        (limits, instances, snapshot) == (&other.limits, &other.instances, &other.snapshot)
            && (mailbox, breaker, reload) == (&other.mailbox, &other.breaker, &other.reload)
            && *rollout == other.rollout
    }
}

/// Evaluates to the table of `name`, or returns `base` from the function if the table was not written.
macro_rules! written_or_base {
    ($section:expr, $name:literal, $base:expr, $findings:expr) => {
        match ($section.written($name, $findings), $base) {
            (Some(written), _) => written,
            (None, Some(base)) => return base.clone(),
            // A table of the wrong type was reported by `written`, and must not be again.
            (None, None) => $section.section($name, &mut Findings::default()),
        }
    };
}

fn limits(section: &Section<'_>, base: Option<&Limits>, findings: &mut Findings) -> Limits {
    let section = written_or_base!(section, "limits", base, findings);
    Limits {
        memory_bytes: section.get("memory", base.map(|b| b.memory_bytes), findings).unwrap_or_default(),
        cpu: section.get("cpu", base.map(|b| b.cpu), findings).unwrap_or_default(),
        fuel: section.get("fuel", base.and_then(|b| b.fuel), findings),
        time: section.get("time", base.map(|b| b.time), findings).unwrap_or_default(),
        message_bytes: section.get("message", base.map(|b| b.message_bytes), findings).unwrap_or_default(),
        sends: section.get("sends", base.map(|b| b.sends), findings).unwrap_or_default(),
        writes: section.get("writes", base.map(|b| b.writes), findings).unwrap_or_default(),
        effects_bytes: section.get("effects", base.map(|b| b.effects_bytes), findings).unwrap_or_default(),
        state_bytes: section.get("state", base.map(|b| b.state_bytes), findings).unwrap_or_default(),
        timers: section.get("timers", base.map(|b| b.timers), findings).unwrap_or_default(),
        hops: section.get("hops", base.map(|b| b.hops), findings).unwrap_or_default(),
        log_lines: section.get("log-lines", base.map(|b| b.log_lines), findings).unwrap_or_default(),
    }
}

impl Default for Limits {
    /// Returns the limits of an agent for which the file sets none.
    fn default() -> Self {
        let fields = &schema::root()["defaults"].fields;
        // From the schema, which is the only place that has defaults.
        limits(&Section::absent(fields, "defaults".to_owned()), None, &mut Findings::default())
    }
}

/// Reads the times and limits of snapshots. An agent's own limit must not exceed its memory, which every snapshot comes from; that
/// of `[defaults]` may, since agents differ in their memory.
fn snapshot(
    section: &Section<'_>,
    base: Option<&SnapshotSpec>,
    limits: &Limits,
    findings: &mut Findings,
) -> SnapshotSpec {
    let memory = section.nested_source("limits", "memory");
    let section = written_or_base!(section, "snapshot", base, findings);
    let max: Option<u64> = section.get("max", base.map(|b| b.max_bytes), findings);
    // Without a base this is `[defaults]`, whose values belong to no agent.
    let is_set = |name: &str| base.is_some() && section.entry(name).is_some();
    if let (true, Some(max)) = (is_set("max"), max)
        && max > limits.memory_bytes
    {
        let at = Location { key: section.key("max"), source: section.source_of("max") };
        let (low, high) = (
            format!("snapshot.max = {}", print_bytes(max)),
            format!("limits.memory = {}", print_bytes(limits.memory_bytes)),
        );
        findings.errors.push(ConfigError::MinAboveMax { at, low, high, other: memory });
    }
    SnapshotSpec {
        save: section.get("save", base.map(|b| b.save), findings).unwrap_or(SaveMode::Commit),
        commit_max_bytes: section.get("commit-max", base.map(|b| b.commit_max_bytes), findings).unwrap_or_default(),
        max_bytes: max.unwrap_or_default(),
        own: ["save", "commit-max", "max"].into_iter().any(is_set),
    }
}

fn breaker(section: &Section<'_>, base: Option<&BreakerSpec>, findings: &mut Findings) -> BreakerSpec {
    let section = written_or_base!(section, "breaker", base, findings);
    BreakerSpec {
        faults: section.get("faults", base.map(|b| b.faults), findings).unwrap_or_default(),
        reset: section.get("reset", base.map(|b| b.reset), findings).unwrap_or_default(),
    }
}

fn reload(section: &Section<'_>, base: Option<&ReloadOptions>, findings: &mut Findings) -> ReloadOptions {
    let section = written_or_base!(section, "reload", base, findings);
    ReloadOptions {
        watch: section.get("watch", base.map(|b| b.watch), findings).unwrap_or_default(),
        drain: section.get("drain", base.map(|b| b.drain), findings).unwrap_or_default(),
    }
}

/// Reads the strategy of `deploy`. Unimplemented keys have their defaults.
fn deploy(section: &Section<'_>, base: Option<&DeploySpec>, findings: &mut Findings) -> DeploySpec {
    let section = written_or_base!(section, "deploy", base, findings);
    let absent = DeploySpec::default();
    let base = base.unwrap_or(&absent);
    let strategy = section.get("strategy", None, findings);
    // Read without a base: a key that was written has to be told from one that is inherited.
    let own = DeployTable {
        strategy: strategy.unwrap_or(base.name()),
        batch: section.get("batch", None, findings),
        keep_warm: section.get("keep-warm", None, findings),
        steps: section.get("steps", None, findings),
    };
    let keys = [
        (own.batch.is_some(), "batch", "rolling"),
        (own.keep_warm.is_some(), "keep-warm", "blue-green"),
        (own.steps.is_some(), "steps", "canary"),
    ];
    of_its_strategy(&section, own.strategy, &keys, findings);
    DeploySpec {
        strategy: own.strategy(&base.strategy),
        timeout: section.get("timeout", Some(base.timeout), findings).unwrap_or(base.timeout),
    }
}

/// Reports written keys of another strategy than the one in force.
fn of_its_strategy(
    section: &Section<'_>,
    chosen: &'static str,
    keys: &[(bool, &'static str, &'static str)],
    findings: &mut Findings,
) {
    for (_, key, belongs) in keys.iter().filter(|(read, _, belongs)| *read && *belongs != chosen) {
        // An inherited or default value has no effect to report.
        let Some(entry) = section.entry(key) else { continue };
        let at = Location { key: section.key(key), source: entry.key.clone() };
        findings.errors.push(ConfigError::OtherStrategy { at, belongs, chosen });
    }
}

/// Reads the strategy of `reload`.
fn reloaded(section: &Section<'_>, base: Option<&ReloadSpec>, findings: &mut Findings) -> ReloadSpec {
    // Unknown keys were already reported when the in-place settings of `reload` were read.
    let mut again = Findings::default();
    let section = written_or_base!(section, "reload", base, &mut again);
    let absent = ReloadSpec::default();
    let base = base.unwrap_or(&absent);
    let at = Location { key: section.key("ignore"), source: section.source_of("ignore") };
    let paths: Option<Vec<String>> = section.get("ignore", None, findings);
    let own = ReloadTable {
        strategy: section.get("strategy", Some(base.name()), findings).unwrap_or(base.name()),
        hold: section.get("for", None, findings),
        min_messages: section.get("min-messages", None, findings),
        match_percent: section.get("match", None, findings),
        ignore: paths.map(|paths| ignore(&paths, at, findings)),
        steps: section.get("steps", None, findings),
        every: section.get("every", None, findings),
    };
    let keys = [
        (own.hold.is_some(), "for", "parallel"),
        (own.min_messages.is_some(), "min-messages", "parallel"),
        (own.match_percent.is_some(), "match", "parallel"),
        (own.ignore.is_some(), "ignore", "parallel"),
        (own.steps.is_some(), "steps", "traffic-splitting"),
        (own.every.is_some(), "every", "traffic-splitting"),
    ];
    of_its_strategy(&section, own.strategy, &keys, findings);
    ReloadSpec {
        strategy: own.strategy(&base.strategy),
        state: match section.get("state", None, findings) {
            Some("discard") => MemoryHandover::Discard,
            Some(_) => MemoryHandover::Migrate,
            None => base.state,
        },
        timeout: section.get("timeout", Some(base.timeout), findings).unwrap_or(base.timeout),
    }
}

fn rollback(section: &Section<'_>, base: Option<&RollbackSpec>, findings: &mut Findings) -> RollbackSpec {
    let section = written_or_base!(section, "rollback", base, findings);
    let absent = RollbackSpec::default();
    let RollbackSpec { rules, rehearse, sticky } = base.unwrap_or(&absent);
    RollbackSpec {
        rules: RollbackRules {
            automatic: section.get("automatic", Some(rules.automatic), findings).unwrap_or(rules.automatic),
            errors: section.get("errors", Some(rules.errors), findings).unwrap_or(rules.errors),
            errors_above: section.get("errors-above", rules.errors_above, findings),
            slower: section.get("slower", Some(rules.slower), findings).unwrap_or(rules.slower),
            slower_min: section.get("slower-min", Some(rules.slower_min), findings).unwrap_or(rules.slower_min),
            probes: section.get("probes", Some(rules.probes), findings).unwrap_or(rules.probes),
            memory_bytes: section.get("memory", rules.memory_bytes, findings),
            match_percent: section.get("match", rules.match_percent, findings),
            min_messages: section.get("min-messages", Some(rules.min_messages), findings).unwrap_or(rules.min_messages),
            keep: section.get("keep", Some(rules.keep), findings).unwrap_or(rules.keep),
        },
        rehearse: section.get("rehearse", Some(*rehearse), findings).unwrap_or(*rehearse),
        sticky: section.get("sticky", Some(sticky.as_str()), findings).and_then(Sticky::named).unwrap_or(*sticky),
    }
}

/// Reads the mailbox. Returns it with the places of the ends of its backoff.
fn mailbox(section: &Section<'_>, base: Option<&Inheritable>, findings: &mut Findings) -> (MailboxSpec, Ends) {
    let whole = base.map(|b| (b.mailbox.clone(), b.backoff_ends.clone()));
    let section = written_or_base!(section, "mailbox", &whole, findings);
    let base = whole.as_ref().map(|(mailbox, _)| mailbox);
    let inherited = base.map(|b| match b.order {
        MailboxOrder::Conversation => "conversation",
        MailboxOrder::Agent => "agent",
        MailboxOrder::None => "none",
    });
    let order = match section.get("order", inherited, findings) {
        Some("agent") => MailboxOrder::Agent,
        Some("none") => MailboxOrder::None,
        _ => MailboxOrder::Conversation,
    };
    let (backoff, ends) =
        backoff(&section, whole.as_ref().map(|(mailbox, ends)| (mailbox.backoff, ends.clone())), findings);
    let mailbox = MailboxSpec {
        order,
        depth: section.get("depth", base.map(|b| b.depth), findings).unwrap_or_default(),
        attempts: section.get("attempts", base.map(|b| b.attempts), findings).unwrap_or_default(),
        backoff,
        timeout: section.get("timeout", base.and_then(|b| b.timeout), findings),
        on_dead: match section.get("on-dead", base.map(|b| on_dead_name(b.on_dead)), findings) {
            Some("tell") => OnDead::Tell,
            _ => OnDead::Keep,
        },
    };
    (mailbox, ends)
}

fn on_dead_name(on_dead: OnDead) -> &'static str {
    match on_dead {
        OnDead::Keep => "keep",
        OnDead::Tell => "tell",
    }
}

/// Reads the backoff. Returns it with the places of its ends.
fn backoff(mailbox: &Section<'_>, base: Option<(Backoff, Ends)>, findings: &mut Findings) -> (Backoff, Ends) {
    let section = written_or_base!(mailbox, "backoff", &base, findings);
    let (inherited, ends) = base.unzip();
    let first: Option<Duration> = section.get("first", inherited.map(|b| b.first), findings);
    let max: Option<Duration> = section.get("max", inherited.map(|b| b.max), findings);
    let ends = check_ends(&section, ("first", first), ("max", max), print_duration, ends, findings);
    let backoff = Backoff {
        first: first.unwrap_or_default(),
        factor: section.get("factor", inherited.map(|b| b.factor), findings).unwrap_or_default(),
        max: max.unwrap_or_default(),
        jitter: section.get("jitter", inherited.map(|b| b.jitter), findings).unwrap_or_default(),
    };
    (backoff, ends)
}

/// Reads the instances. Returns them with the places of their ends.
fn instances(section: &Section<'_>, base: Option<&Inheritable>, findings: &mut Findings) -> (InstancesSpec, Ends) {
    // Only `[defaults]` is read without a base.
    let own: fn(u32) -> Reuse = if base.is_some() { Reuse::Own } else { Reuse::ForAll };
    let base = base.map(|b| (b.instances.clone(), b.instances_ends.clone()));
    let section = written_or_base!(section, "instances", &base, findings);
    let (inherited, ends) = base.unzip();
    let inherited = inherited.as_ref();
    let min: Option<u32> = section.get("min", inherited.map(|b| b.min), findings);
    let max: Option<u32> = section.get("max", inherited.map(|b| b.max), findings);
    let ends = check_ends(&section, ("min", min), ("max", max), |count| count.to_string(), ends, findings);
    let instances = InstancesSpec {
        min: min.unwrap_or_default(),
        max: max.unwrap_or_default(),
        reuse: match section.get("reuse", None, findings) {
            Some(times) => own(times),
            None => inherited.map(|b| b.reuse).unwrap_or_default(),
        },
        idle: section.get("idle", inherited.map(|b| b.idle), findings).unwrap_or_default(),
    };
    (instances, ends)
}

/// Reports a lower end above the upper one. Returns the places of both: this table's, or the inherited ones.
fn check_ends<T: PartialOrd>(
    section: &Section<'_>,
    (low_name, low): (&str, Option<T>),
    (high_name, high): (&str, Option<T>),
    print: fn(T) -> String,
    inherited: Option<Ends>,
    findings: &mut Findings,
) -> Ends {
    let own = (section.entry(low_name).is_some(), section.entry(high_name).is_some());
    // An error names the place where the other end was set, be that in `[defaults]`.
    let mut ends = inherited.unwrap_or((Source::Default, Source::Default));
    if own.0 {
        ends.0 = section.source_of(low_name);
    }
    if own.1 {
        ends.1 = section.source_of(high_name);
    }
    if let (Some(low), Some(high)) = (low, high)
        && low > high
        // If this table sets neither, the error was reported where they were set.
        && (own.0 || own.1)
    {
        let (name, source, other) = if own.0 { (low_name, &ends.0, &ends.1) } else { (high_name, &ends.1, &ends.0) };
        let at = Location { key: section.key(name), source: source.clone() };
        let (low, high) = (format!("{low_name} = {}", print(low)), format!("{high_name} = {}", print(high)));
        findings.errors.push(ConfigError::MinAboveMax { at, low, high, other: other.clone() });
    }
    ends
}
