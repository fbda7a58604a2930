//! A queue that serves its owners in turn, by the cost of their items.
//!
//! An owner with much to do delays another by no more than a quantum for each owner that waits. The items of one owner
//! stay in order. A barrier keeps its place among the items of all owners.

use std::collections::{HashMap, VecDeque};
use std::hash::Hash;

/// A queue that serves its owners in turn (deficit round robin).
#[derive(Debug)]
pub struct FairQueue<K, T> {
    /// The cost that an owner may take in one turn.
    quantum: u64,
    /// Items between barriers, the oldest first. Never empty.
    sections: VecDeque<Section<K, T>>,
    len: usize,
}

/// The cost of an item.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ItemCost {
    /// The cost of the item alone.
    pub own: u64,
    /// The cost that the items of an owner that are taken together have once: each replaces what the one before wrote.
    pub shared: u64,
}

impl ItemCost {
    /// Returns the cost that counts, where `is_paid` is `true` if the shared one was counted for its owner before.
    pub fn counted(self, is_paid: bool) -> u64 {
        if is_paid { self.own } else { self.own + self.shared }
    }
}

impl From<u64> for ItemCost {
    fn from(own: u64) -> Self {
        Self { own, shared: 0 }
    }
}

/// Items of all owners, up to a barrier.
#[derive(Debug)]
struct Section<K, T> {
    lanes: HashMap<K, Lane<T>>,
    /// The owners that have items, in the order of their turns.
    turns: VecDeque<K>,
    /// The item that ends the section.
    barrier: Option<T>,
}

/// The items of one owner with their costs, and the cost that is left of its turn.
#[derive(Debug)]
struct Lane<T> {
    items: VecDeque<(ItemCost, T)>,
    credit: u64,
}

impl<K, T> Default for Section<K, T> {
    fn default() -> Self {
        Self { lanes: HashMap::new(), turns: VecDeque::new(), barrier: None }
    }
}

impl<K: Hash + Eq + Clone, T> FairQueue<K, T> {
    /// Creates an empty queue whose owners take `quantum` in a turn.
    pub fn new(quantum: u64) -> Self {
        // A quantum of nothing would never serve an item that costs something.
        Self { quantum: quantum.max(1), sections: VecDeque::from([Section::default()]), len: 0 }
    }

    /// Returns `true` if nothing waits.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Returns the number of items that wait.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Returns the number of owners that have items before the first barrier.
    pub fn owners(&self) -> usize {
        self.sections.front().map_or(0, |section| section.lanes.len())
    }

    /// Returns `true` if an item of the owner would pass none that it has to come after: nothing of the owner waits, and no
    /// barrier.
    pub fn is_free(&self, owner: &K) -> bool {
        self.sections.len() == 1 && self.sections.front().is_none_or(|section| !section.lanes.contains_key(owner))
    }

    /// Adds an item of an owner.
    pub fn push(&mut self, owner: K, cost: impl Into<ItemCost>, item: T) {
        let section = self.sections.back_mut().expect("there is always one");
        let lane = section.lanes.entry(owner.clone()).or_insert_with(|| {
            // An owner with nothing to do has no turn and keeps no credit.
            section.turns.push_back(owner);
            Lane { items: VecDeque::new(), credit: 0 }
        });
        lane.items.push_back((cost.into(), item));
        self.len += 1;
    }

    /// Adds an item that comes after all that were added before it, and before all that are added later.
    pub fn push_barrier(&mut self, item: T) {
        self.sections.back_mut().expect("there is always one").barrier = Some(item);
        self.sections.push_back(Section::default());
        self.len += 1;
    }

    /// Takes the next item, with the cost that counted: 0 for a barrier. `has_paid` returns `true` for the owners whose
    /// shared cost was counted before.
    pub fn pop(&mut self, has_paid: impl Fn(&K) -> bool) -> Option<(u64, T)> {
        let section = self.sections.front_mut()?;
        if let Some(next) = section.pop(self.quantum, has_paid) {
            self.len -= 1;
            return Some(next);
        }
        // The last section has no barrier, and stays.
        let barrier = section.barrier.take()?;
        self.sections.pop_front();
        self.len -= 1;
        Some((0, barrier))
    }

    /// Takes the next item of an owner out of turn, if it shares a cost that was counted before and its own is at most
    /// `most`. Returns it with that.
    pub fn pop_sharing(&mut self, owner: &K, most: u64) -> Option<(u64, T)> {
        let section = self.sections.front_mut()?;
        let lane = section.lanes.get_mut(owner)?;
        let (ItemCost { own, .. }, item) = lane.items.pop_front_if(|(cost, _)| cost.shared > 0 && cost.own <= most)?;
        // As with items in turn: an owner without any has no turn.
        if lane.items.is_empty() {
            section.lanes.remove(owner);
            section.turns.retain(|turn| turn != owner);
        }
        self.len -= 1;
        Some((own, item))
    }
}

impl<K: Hash + Eq + Clone, T> Section<K, T> {
    fn pop(&mut self, quantum: u64, has_paid: impl Fn(&K) -> bool) -> Option<(u64, T)> {
        loop {
            let owner = self.turns.front()?;
            let lane = self.lanes.get_mut(owner).expect("an owner with a turn has a lane");
            let cost = lane.items.front().map(|(cost, _)| *cost).expect("a lane with a turn has items");
            let cost = cost.counted(has_paid(owner));
            if cost <= lane.credit {
                lane.credit -= cost;
                let next = lane.items.pop_front().map(|(_, item)| (cost, item));
                if lane.items.is_empty() {
                    let owner = self.turns.pop_front().expect("its owner has the turn");
                    self.lanes.remove(&owner);
                }
                return next;
            }
            // One turn for each quantum that the item costs: the others go on meanwhile.
            lane.credit += quantum;
            if lane.credit < cost || self.turns.len() > 1 {
                let owner = self.turns.pop_front().expect("its owner has the turn");
                self.turns.push_back(owner);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drain(queue: &mut FairQueue<&'static str, u64>) -> Vec<u64> {
        std::iter::from_fn(|| queue.pop(|_| false).map(|(_, item)| item)).collect()
    }

    #[test]
    fn an_owner_with_much_to_do_delays_another_by_a_quantum() {
        let mut queue = FairQueue::new(100);
        for item in 0..50 {
            queue.push("hog", 60, item);
        }
        queue.push("other", 60, 100);
        queue.push("other", 60, 101);
        assert_eq!((queue.len(), queue.owners()), (52, 2));
        assert!(!queue.is_free(&"hog") && queue.is_free(&"third"));
        let order = drain(&mut queue);
        let at = |item| order.iter().position(|other| *other == item).unwrap();
        assert!(at(100) <= 2 && at(101) <= 5, "{order:?}");
        let hog: Vec<u64> = order.iter().copied().filter(|item| *item < 100).collect();
        assert_eq!(hog, (0..50).collect::<Vec<_>>(), "the items of one owner stay in order");
        assert!(queue.is_empty() && queue.pop(|_| false).is_none());
    }

    #[test]
    fn an_item_that_costs_more_than_a_turn_is_served_all_the_same() {
        let mut queue = FairQueue::new(10);
        queue.push("hog", 1_000, 1);
        queue.push("hog", 0, 2);
        for item in 10..15 {
            queue.push("other", 10, item);
        }
        assert_eq!(drain(&mut queue), [10, 11, 12, 13, 14, 1, 2], "small ones do not wait for it");
    }

    #[test]
    fn a_shared_cost_counts_once() {
        let mut queue = FairQueue::new(100);
        for item in 0..3 {
            queue.push("memory", ItemCost { own: 1, shared: 100 }, item);
        }
        queue.push("other", 100, 10);
        let mut paid: Vec<&str> = Vec::new();
        let mut taken = Vec::new();
        while let Some((cost, item)) = queue.pop(|owner| paid.contains(owner)) {
            if item < 10 {
                paid.push("memory");
            }
            taken.push((cost, item));
        }
        assert_eq!(taken, [(100, 10), (101, 0), (1, 1), (1, 2)]);
        for (item, own) in [(3, 1), (4, 50)] {
            queue.push("memory", ItemCost { own, shared: 100 }, item);
        }
        queue.push("other", 1, 11);
        assert_eq!(queue.pop_sharing(&"other", 10), None, "it shares nothing");
        assert_eq!(queue.pop_sharing(&"memory", 10), Some((1, 3)), "out of turn");
        assert_eq!(queue.pop_sharing(&"memory", 10), None, "the next costs more");
        assert_eq!(queue.pop_sharing(&"memory", 50), Some((50, 4)));
        assert_eq!((queue.len(), queue.owners(), queue.pop(|_| false)), (1, 1, Some((1, 11))));
    }

    #[test]
    fn a_barrier_keeps_its_place() {
        let mut queue = FairQueue::new(10);
        queue.push("a", 100, 1);
        queue.push("b", 1, 2);
        queue.push_barrier(3);
        assert_eq!((queue.owners(), queue.is_free(&"c")), (2, false), "behind the barrier it would pass it");
        queue.push("c", 1, 4);
        queue.push_barrier(5);
        queue.push_barrier(6);
        queue.push("a", 1, 7);
        assert_eq!(drain(&mut queue), [2, 1, 3, 4, 5, 6, 7]);
    }

    #[test]
    fn costs_are_shared_evenly_between_owners_that_always_have_items() {
        // Sizes that differ by a factor of thirty, with the same share of the whole.
        let mut queue = FairQueue::new(64);
        let (mut small, mut large) = (0_u64, 0_u64);
        for _ in 0..3_000 {
            queue.push("small", 8, 8);
        }
        for _ in 0..100 {
            queue.push("large", 240, 240);
        }
        while small + large < 20_000 {
            match queue.pop(|_| false).unwrap() {
                (8, _) => small += 8,
                (cost, _) => large += cost,
            }
        }
        assert!(small.abs_diff(large) <= 2 * 240, "{small} {large}");
    }
}
