//! The preparations of revisions that wait for their turn.

use std::collections::VecDeque;

/// The most preparations that are under way at once. Each takes some kilobytes, and with all agents of a large
/// declaration at once they would take more than the agents themselves.
const MAX_UNDER_WAY: usize = 1_024;

/// Preparations, each as the function that begins it. They end by [`ended`](Self::ended).
#[derive(Default)]
pub(super) struct PreparationQueue {
    /// Those that wait, the oldest first.
    waiting: VecDeque<Box<dyn FnOnce() + Send>>,
    under_way: usize,
}

impl PreparationQueue {
    /// Begins a preparation, now or when it is its turn.
    pub(super) fn push(&mut self, begin: impl FnOnce() + Send + 'static) {
        self.waiting.push_back(Box::new(begin));
        self.fill();
    }

    /// Counts the end of a preparation, and begins the next.
    pub(super) fn ended(&mut self) {
        self.under_way = self.under_way.saturating_sub(1);
        self.fill();
    }

    fn fill(&mut self) {
        while self.under_way < MAX_UNDER_WAY
            && let Some(begin) = self.waiting.pop_front()
        {
            self.under_way += 1;
            begin();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[test]
    fn as_many_begin_as_may_and_the_others_as_those_end() {
        let (begun, mut queue) = (Arc::<AtomicUsize>::default(), PreparationQueue::default());
        for _ in 0..MAX_UNDER_WAY + 2 {
            let begun = Arc::clone(&begun);
            queue.push(move || _ = begun.fetch_add(1, Ordering::Relaxed));
        }
        assert_eq!(begun.load(Ordering::Relaxed), MAX_UNDER_WAY);
        (0..2).for_each(|_| queue.ended());
        assert_eq!(begun.load(Ordering::Relaxed), MAX_UNDER_WAY + 2);
        queue.ended();
    }
}
