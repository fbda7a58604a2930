//! Reservations of state keys for handlers that run again after a conflict.
//!
//! ```text
//! a run ends in a conflict -> queues for all keys that it touched -> first in each queue, and no key held: called
//!   -> begins: holds the keys -> hands its commit to the store: the next in each queue is called
//! a commit of another run that writes a held key waits beside the queue until the key is free
//! ```
//! A run takes all its keys at once, and a run that holds keys never waits for others, so two runs that touch keys in
//! opposite orders cannot deadlock. A run that was called and has not begun holds up no commit: a mailbox that an
//! operator has paused would otherwise block every other one.
//!
//! A run may wait for an answer whose handler needs the same keys. Such a handler runs *within* the first run: the keys
//! that the outer run holds are free for it, and it goes to the front of every queue. Otherwise each would wait for the
//! other.

use std::collections::{BTreeSet, HashMap, VecDeque};

/// The id of a run, unique among all runs of a host.
pub type Ticket = u64;

/// The reserved keys of one agent, with the runs and commits that wait for them. `P` is the payload that resumes a run
/// or a commit when its turn comes. Nothing blocks: a caller polls [`due`](Self::due) after each change.
#[derive(Debug)]
pub struct Reservations<P> {
    keys: HashMap<String, StateKeyRef>,
    runs: HashMap<Ticket, Run<P>>,
    /// The delayed commits, in the order in which they came.
    commits: VecDeque<Delayed<P>>,
    /// Keys that were released or requested since the last call of [`due`](Self::due): only their queues can have
    /// moved.
    changed: Vec<String>,
}

/// A key that is held or waited for. Removed as soon as it is neither.
#[derive(Debug, Default)]
struct StateKeyRef {
    /// The runs that hold it; more than one only if each runs within the one before.
    holders: Vec<Ticket>,
    queue: VecDeque<Ticket>,
}

#[derive(Debug)]
struct Run<P> {
    keys: BTreeSet<String>,
    within: Vec<Ticket>,
    state: ReservationState<P>,
}

#[derive(Debug)]
enum ReservationState<P> {
    /// Waits in the queues of its keys.
    Waits(P),
    /// Waits in the queues, with its payload handed out to begin.
    Called,
    /// Holds its keys.
    Holds,
}

#[derive(Debug)]
struct Delayed<P> {
    keys: Vec<String>,
    within: Vec<Ticket>,
    payload: P,
}

impl<P> Default for Reservations<P> {
    fn default() -> Self {
        Self { keys: HashMap::new(), runs: HashMap::new(), commits: VecDeque::new(), changed: Vec::new() }
    }
}

impl<P> Reservations<P> {
    /// Returns the number of keys that are held or waited for.
    pub fn len(&self) -> usize {
        self.keys.len()
    }

    /// Returns `true` if no key is held or waited for.
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// Returns `true` if a run without reservations is better ended when it depends on `key`: another run is to change
    /// the key first, so this one would end in a conflict. Not so for a run within one that holds keys, since that one
    /// waits for it.
    pub fn is_reserved(&self, key: &str, within: &[Ticket]) -> bool {
        let Some(key) = self.keys.get(key) else { return false };
        if within.iter().any(|ticket| self.holds(*ticket)) { !is_free(key, within) } else { true }
    }

    /// Returns `true` if a commit of a run within `within` may write the keys now.
    pub fn admits<'k>(&self, mut keys: impl Iterator<Item = &'k String>, within: &[Ticket]) -> bool {
        keys.all(|key| self.keys.get(key).is_none_or(|key| is_free(key, within)))
    }

    /// Delays a commit until the keys that it writes are free. Delayed commits keep their order.
    pub fn delay(&mut self, keys: Vec<String>, within: Vec<Ticket>, payload: P) {
        self.commits.push_back(Delayed { keys, within, payload });
    }

    /// Queues a run for keys; it releases all keys that it held before, so that no run waits while it holds one.
    /// `first` puts it in front of the runs that were never called, for a run that has waited before.
    pub fn wait(&mut self, ticket: Ticket, keys: BTreeSet<String>, within: Vec<Ticket>, first: bool, payload: P) {
        // First, so that a run never waits for some keys while it holds others.
        self.leave(ticket);
        // A run within one that holds keys must not queue behind runs that wait for that one.
        let first = first || within.iter().any(|ticket| self.holds(*ticket));
        for name in &keys {
            let key = self.keys.entry(name.clone()).or_default();
            if first {
                key.queue.push_front(ticket);
            } else {
                key.queue.push_back(ticket);
            }
            self.changed.push(name.clone());
        }
        self.runs.insert(ticket, Run { keys, within, state: ReservationState::Waits(payload) });
    }

    /// Gives a called run its keys. Returns `false` if one of them is held: the run then has to [wait
    /// again](Self::wait_again).
    pub fn begin(&mut self, ticket: Ticket) -> bool {
        // A run without an entry reserved nothing, so nothing is in its way.
        let Some(run) = self.runs.get_mut(&ticket) else { return true };
        let free = |name: &String| self.keys.get(name).is_none_or(|key| is_free(key, &run.within));
        // All before the first is taken: a run must not wait while it holds a part of its keys.
        if !run.keys.iter().all(free) {
            return false;
        }
        run.state = ReservationState::Holds;
        for name in &run.keys {
            if let Some(key) = self.keys.get_mut(name) {
                key.queue.retain(|other| *other != ticket);
                key.holders.push(ticket);
            }
        }
        true
    }

    /// Returns a run that was called and could not begin to the waiting state. It keeps its position.
    pub fn wait_again(&mut self, ticket: Ticket, payload: P) {
        if let Some(run) = self.runs.get_mut(&ticket) {
            run.state = ReservationState::Waits(payload);
            self.changed.extend(run.keys.iter().cloned());
        }
    }

    /// Removes a run: its keys are released, and it waits for nothing.
    pub fn leave(&mut self, ticket: Ticket) {
        let Some(run) = self.runs.remove(&ticket) else { return };
        // An entry that no run holds or waits for is removed, since guests choose the keys and could add any number.
        for name in run.keys {
            if let Some(key) = self.keys.get_mut(&name) {
                key.queue.retain(|other| *other != ticket);
                key.holders.retain(|other| *other != ticket);
                if key.queue.is_empty() && key.holders.is_empty() {
                    self.keys.remove(&name);
                }
            }
            self.changed.push(name);
        }
    }

    /// Returns the payloads whose turn it is: first the commits that may be made, in their order, then the runs that
    /// may begin. Takes time in proportion to the keys that changed and the delayed commits.
    pub fn due(&mut self) -> Vec<P> {
        let mut due = Vec::new();
        // Without a changed key nothing can have become free, which is the usual case.
        let changed = std::mem::take(&mut self.changed);
        if changed.is_empty() {
            return due;
        }
        // One rotation through the queue keeps the order of the commits that stay.
        for _ in 0..self.commits.len() {
            let Some(commit) = self.commits.pop_front() else { break };
            if self.admits(commit.keys.iter(), &commit.within) {
                due.push(commit.payload);
            } else {
                self.commits.push_back(commit);
            }
        }
        // Only the front of a changed queue can have become the next.
        for name in changed {
            let Some(ticket) = self.keys.get(&name).and_then(|key| key.queue.front()).copied() else { continue };
            // The state is tested before it is replaced, which would take the keys from a run that holds them.
            if self.is_next(ticket)
                && let Some(run) = self.runs.get_mut(&ticket)
                && matches!(run.state, ReservationState::Waits(_))
                && let ReservationState::Waits(payload) = std::mem::replace(&mut run.state, ReservationState::Called)
            {
                due.push(payload);
            }
        }
        due
    }

    /// Returns `true` if a run is the first in all its queues and none of its keys is held by another.
    fn is_next(&self, ticket: Ticket) -> bool {
        self.runs.get(&ticket).is_some_and(|run| {
            let mut keys = run.keys.iter().filter_map(|name| self.keys.get(name));
            keys.all(|key| key.queue.front() == Some(&ticket) && is_free(key, &run.within))
        })
    }

    fn holds(&self, ticket: Ticket) -> bool {
        self.runs.get(&ticket).is_some_and(|run| matches!(run.state, ReservationState::Holds))
    }
}

/// Returns `true` if a key is held by no run other than those in `within`.
fn is_free(key: &StateKeyRef, within: &[Ticket]) -> bool {
    key.holders.iter().all(|holder| within.contains(holder))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(text: &str) -> BTreeSet<String> {
        text.split_whitespace().map(str::to_owned).collect()
    }

    fn wait(table: &mut Reservations<String>, ticket: Ticket, wanted: &str, within: &[Ticket]) {
        table.wait(ticket, keys(wanted), within.to_vec(), false, ticket.to_string());
    }

    /// Takes a run through the queue until it holds its keys.
    fn hold(table: &mut Reservations<String>, ticket: Ticket, wanted: &str, within: &[Ticket]) {
        wait(table, ticket, wanted, within);
        assert_eq!(table.due(), [ticket.to_string()]);
        assert!(table.begin(ticket));
    }

    #[test]
    fn a_key_is_held_by_one_run_at_a_time_in_order_of_conflict() {
        let mut table = Reservations::default();
        hold(&mut table, 1, "a", &[]);
        for ticket in 2..=4 {
            wait(&mut table, ticket, "a", &[]);
        }
        assert_eq!(table.due(), [""; 0]);
        for ticket in 1..=3 {
            table.leave(ticket);
            assert_eq!(table.due(), [(ticket + 1).to_string()]);
            assert!(table.is_reserved("a", &[]), "also before it begins");
            assert!(table.begin(ticket + 1));
        }
        table.leave(4);
        assert!(table.is_empty() && table.due().is_empty());
        assert!(!table.is_reserved("a", &[]));
    }

    #[test]
    fn runs_that_touch_keys_in_opposite_orders_do_not_deadlock() {
        let mut table = Reservations::default();
        hold(&mut table, 1, "a", &[]);
        hold(&mut table, 2, "b", &[]);
        wait(&mut table, 3, "a b", &[]);
        wait(&mut table, 4, "b a", &[]);
        // A run releases its keys when it asks for more.
        wait(&mut table, 1, "a b", &[]);
        assert_eq!(table.due(), [""; 0]);
        wait(&mut table, 2, "a b", &[]);
        for ticket in [3, 4, 1, 2] {
            assert_eq!(table.due(), [ticket.to_string()]);
            assert!(table.begin(ticket));
            table.leave(ticket);
        }
        assert!(table.is_empty());
    }

    #[test]
    fn a_run_for_other_keys_does_not_wait() {
        let mut table = Reservations::default();
        hold(&mut table, 1, "a", &[]);
        wait(&mut table, 2, "a b", &[]);
        wait(&mut table, 3, "c", &[]);
        assert_eq!(table.due(), ["3"]);
        // Queued behind the run that waits for both keys.
        wait(&mut table, 4, "b", &[]);
        assert_eq!(table.due(), [""; 0]);
    }

    #[test]
    fn commits_wait_for_holders_and_not_for_called_runs() {
        let mut table = Reservations::default();
        hold(&mut table, 1, "a", &[]);
        wait(&mut table, 2, "a", &[]);
        let (a, b) = (vec!["a".to_owned()], vec!["b".to_owned()]);
        assert!(!table.admits(a.iter(), &[]) && table.admits(b.iter(), &[]));
        assert!(table.admits(a.iter(), &[1]), "its own");
        table.delay(a.clone(), Vec::new(), "commit".to_owned());
        assert_eq!(table.due(), [""; 0]);
        table.leave(1);
        assert_eq!(table.due(), ["commit", "2"]);
        assert!(table.admits(a.iter(), &[]), "2 has not begun");
        assert!(table.begin(2));
        assert!(!table.admits(a.iter(), &[]));
    }

    #[test]
    fn a_run_that_could_not_begin_keeps_its_position() {
        let mut table = Reservations::default();
        wait(&mut table, 1, "a b", &[]);
        assert_eq!(table.due(), ["1"]);
        // A run that has waited before is queued in front, and begins first.
        table.wait(2, keys("b"), Vec::new(), true, "2".to_owned());
        assert_eq!(table.due(), ["2"]);
        assert!(table.begin(2));
        assert!(!table.begin(1));
        table.wait_again(1, "1".to_owned());
        wait(&mut table, 3, "a", &[]);
        assert_eq!(table.due(), [""; 0]);
        table.leave(2);
        assert_eq!(table.due(), ["1"]);
    }

    #[test]
    fn a_nested_run_goes_first() {
        let mut table = Reservations::default();
        hold(&mut table, 1, "a", &[]);
        wait(&mut table, 2, "a b", &[]);
        assert!(!table.is_reserved("a", &[1]) && table.is_reserved("a", &[9]));
        // Two requests of run 1 at once: one after the other.
        hold(&mut table, 5, "a b", &[1]);
        wait(&mut table, 6, "a", &[1]);
        assert_eq!(table.due(), [""; 0]);
        assert!(table.is_reserved("a", &[1]) && !table.is_reserved("a", &[1, 5]));
        table.leave(5);
        assert_eq!(table.due(), ["6"]);
        assert!(table.begin(6));
        table.leave(6);
        assert_eq!(table.due(), [""; 0]);
        table.leave(1);
        assert_eq!(table.due(), ["2"]);
    }

    /// Checks that with any interleaving every run gets its turn, and no key has two holders.
    #[test]
    fn no_run_starves_in_random_interleavings() {
        for seed in 0..500_u64 {
            let mut random = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
            let mut next = |below: u64| {
                random ^= random << 13;
                random ^= random >> 7;
                random ^= random << 17;
                random % below
            };
            let mut table: Reservations<Ticket> = Reservations::default();
            let (mut holding, mut done, mut called): (Vec<Ticket>, _, Vec<Ticket>) = (Vec::new(), 0, Vec::new());
            let mut came = 0;
            while done < 40 {
                if came < 40 && next(2) == 0 {
                    came += 1;
                    let wanted: BTreeSet<String> = (0..=next(3)).map(|_| next(4).to_string()).collect();
                    table.wait(came, wanted, Vec::new(), next(4) == 0, came);
                } else if let Some(ticket) = called.pop() {
                    if table.begin(ticket) { holding.push(ticket) } else { table.wait_again(ticket, ticket) }
                } else if !holding.is_empty() {
                    let at = usize::try_from(next(holding.len() as u64)).unwrap();
                    table.leave(holding.swap_remove(at));
                    done += 1;
                } else {
                    assert!(came < 40, "seed {seed}: {table:?}");
                }
                called.extend(table.due());
                for key in table.keys.values() {
                    assert!(key.holders.len() <= 1, "seed {seed}: {table:?}");
                }
            }
            assert!(table.is_empty() && table.runs.is_empty(), "seed {seed}");
        }
    }
}
