//! Keys of an agent's state that are reserved for handlers which run again after a conflict.
//!
//! ```text
//! a run ends in a conflict -> in line for all keys that it touched -> first in each line, and nobody has them: called
//!   -> begins: has the keys -> its commit is given to the store: the next in line is called
//! a commit of another run that writes a reserved key waits beside the line, until nobody has the key
//! ```
//! A run takes all its keys at once, and a run that has keys never waits for others: two runs that touch keys in opposite
//! orders do not wait for each other. Whoever was called and has not begun holds up no commit, so that a mailbox whose
//! messages an operator lets wait holds up nobody.
//!
//! A run may wait for an answer whose handler needs the same keys. Such a handler is *within* the run: keys that the run
//! has are free for it, and it is the first in every line.

use std::collections::{BTreeSet, HashMap, VecDeque};

/// Names a run among all runs of a host.
pub type Ticket = u64;

/// The keys of one agent that are reserved, and who waits for them. `P` is what goes on when it is its turn.
#[derive(Debug)]
pub struct Reservations<P> {
    keys: HashMap<String, Key>,
    runs: HashMap<Ticket, Run<P>>,
    /// Commits that wait, in their order.
    commits: VecDeque<Delayed<P>>,
    /// Keys that somebody has left or come for since the last call of [`due`](Self::due).
    changed: Vec<String>,
}

/// A key that somebody has or waits for.
#[derive(Debug, Default)]
struct Key {
    /// More than one only where each is within the one before.
    holders: Vec<Ticket>,
    line: VecDeque<Ticket>,
}

#[derive(Debug)]
struct Run<P> {
    keys: BTreeSet<String>,
    within: Vec<Ticket>,
    state: State<P>,
}

#[derive(Debug)]
enum State<P> {
    /// It is in line.
    Waits(P),
    /// It is in line and was told to begin.
    Called,
    /// It has its keys.
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
    /// Returns how many keys somebody has or waits for.
    pub fn len(&self) -> usize {
        self.keys.len()
    }

    /// Returns whether nobody has or waits for any key.
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// Returns whether a run that has reserved nothing is better ended when it depends on `key`: another is to change it
    /// first. Not if it runs within one that has keys, which waits for it.
    pub fn is_reserved(&self, key: &str, within: &[Ticket]) -> bool {
        let Some(key) = self.keys.get(key) else { return false };
        if within.iter().any(|ticket| self.holds(*ticket)) { !is_free(key, within) } else { true }
    }

    /// Returns whether a commit of a run within these may write the keys now.
    pub fn admits<'k>(&self, mut keys: impl Iterator<Item = &'k String>, within: &[Ticket]) -> bool {
        keys.all(|key| self.keys.get(key).is_none_or(|key| is_free(key, within)))
    }

    /// Lets a commit wait until nobody has the keys that it writes.
    pub fn delay(&mut self, keys: Vec<String>, within: Vec<Ticket>, payload: P) {
        self.commits.push_back(Delayed { keys, within, payload });
    }

    /// Puts a run in line for keys; what it had before it leaves. `first` puts it in front of those that were never called:
    /// it has waited before.
    pub fn wait(&mut self, ticket: Ticket, keys: BTreeSet<String>, within: Vec<Ticket>, first: bool, payload: P) {
        self.leave(ticket);
        let first = first || within.iter().any(|ticket| self.holds(*ticket));
        for name in &keys {
            let key = self.keys.entry(name.clone()).or_default();
            if first {
                key.line.push_front(ticket);
            } else {
                key.line.push_back(ticket);
            }
            self.changed.push(name.clone());
        }
        self.runs.insert(ticket, Run { keys, within, state: State::Waits(payload) });
    }

    /// Gives a run that was called its keys. False if another has one of them: it is to [wait again](Self::wait_again).
    pub fn begin(&mut self, ticket: Ticket) -> bool {
        let Some(run) = self.runs.get_mut(&ticket) else { return true };
        let free = |name: &String| self.keys.get(name).is_none_or(|key| is_free(key, &run.within));
        if !run.keys.iter().all(free) {
            return false;
        }
        run.state = State::Holds;
        for name in &run.keys {
            if let Some(key) = self.keys.get_mut(name) {
                key.line.retain(|other| *other != ticket);
                key.holders.push(ticket);
            }
        }
        true
    }

    /// Lets a run wait that was called and could not begin. It keeps its place.
    pub fn wait_again(&mut self, ticket: Ticket, payload: P) {
        if let Some(run) = self.runs.get_mut(&ticket) {
            run.state = State::Waits(payload);
            self.changed.extend(run.keys.iter().cloned());
        }
    }

    /// Takes a run out: what it has is free, and it waits for nothing.
    pub fn leave(&mut self, ticket: Ticket) {
        let Some(run) = self.runs.remove(&ticket) else { return };
        for name in run.keys {
            if let Some(key) = self.keys.get_mut(&name) {
                key.line.retain(|other| *other != ticket);
                key.holders.retain(|other| *other != ticket);
                if key.line.is_empty() && key.holders.is_empty() {
                    self.keys.remove(&name);
                }
            }
            self.changed.push(name);
        }
    }

    /// Returns whose turn it is: first the commits that may be made, in their order, then the runs that may begin.
    pub fn due(&mut self) -> Vec<P> {
        let mut due = Vec::new();
        let changed = std::mem::take(&mut self.changed);
        if changed.is_empty() {
            return due;
        }
        for _ in 0..self.commits.len() {
            let Some(commit) = self.commits.pop_front() else { break };
            if self.admits(commit.keys.iter(), &commit.within) {
                due.push(commit.payload);
            } else {
                self.commits.push_back(commit);
            }
        }
        for name in changed {
            let Some(ticket) = self.keys.get(&name).and_then(|key| key.line.front()).copied() else { continue };
            if self.is_next(ticket)
                && let Some(run) = self.runs.get_mut(&ticket)
                && matches!(run.state, State::Waits(_))
                && let State::Waits(payload) = std::mem::replace(&mut run.state, State::Called)
            {
                due.push(payload);
            }
        }
        due
    }

    /// Returns whether a run is the first in all its lines, and nobody else has one of its keys.
    fn is_next(&self, ticket: Ticket) -> bool {
        self.runs.get(&ticket).is_some_and(|run| {
            let mut keys = run.keys.iter().filter_map(|name| self.keys.get(name));
            keys.all(|key| key.line.front() == Some(&ticket) && is_free(key, &run.within))
        })
    }

    fn holds(&self, ticket: Ticket) -> bool {
        self.runs.get(&ticket).is_some_and(|run| matches!(run.state, State::Holds))
    }
}

/// Returns whether nobody has the key but those within which a run is.
fn is_free(key: &Key, within: &[Ticket]) -> bool {
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

    /// Lets a run go through the line until it has its keys.
    fn hold(table: &mut Reservations<String>, ticket: Ticket, wanted: &str, within: &[Ticket]) {
        wait(table, ticket, wanted, within);
        assert_eq!(table.due(), [ticket.to_string()]);
        assert!(table.begin(ticket));
    }

    #[test]
    fn runs_have_a_key_one_after_the_other_in_the_order_of_their_conflicts() {
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
    fn runs_that_touch_keys_in_opposite_orders_do_not_wait_for_each_other() {
        let mut table = Reservations::default();
        hold(&mut table, 1, "a", &[]);
        hold(&mut table, 2, "b", &[]);
        wait(&mut table, 3, "a b", &[]);
        wait(&mut table, 4, "b a", &[]);
        // What a run has, it leaves when it comes for more.
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
    fn a_run_for_other_keys_waits_for_nobody() {
        let mut table = Reservations::default();
        hold(&mut table, 1, "a", &[]);
        wait(&mut table, 2, "a b", &[]);
        wait(&mut table, 3, "c", &[]);
        assert_eq!(table.due(), ["3"]);
        // Behind the one for both.
        wait(&mut table, 4, "b", &[]);
        assert_eq!(table.due(), [""; 0]);
    }

    #[test]
    fn commits_wait_for_those_who_have_a_key_and_not_for_those_who_were_called() {
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
    fn one_that_could_not_begin_keeps_its_place() {
        let mut table = Reservations::default();
        wait(&mut table, 1, "a b", &[]);
        assert_eq!(table.due(), ["1"]);
        // One that has waited before came first, and began before it.
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
    fn what_runs_within_a_run_that_waits_for_it_goes_first() {
        let mut table = Reservations::default();
        hold(&mut table, 1, "a", &[]);
        wait(&mut table, 2, "a b", &[]);
        assert!(!table.is_reserved("a", &[1]) && table.is_reserved("a", &[9]));
        // Two at once that 1 asks for: one after the other.
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

    /// Whatever comes and goes, everybody's turn comes, and nobody has a key that another has.
    #[test]
    fn everybody_has_a_turn() {
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
