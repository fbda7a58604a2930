//! Who is answered by which revision while traffic is split.
//!
//! A conversation stays on the revision that it began with, also while weights rise, and nobody keeps a list of
//! conversations for that. Each conversation has a place from 0 to 99.99 that follows from its name alone. It began
//! on the candidate if its place was below the weight of that time; when it began is known of every open
//! conversation ([`crate::conversation::Conversation::first`]), and the rollout remembers its few weights
//! ([`super::Rollout::weights`]).
//!
//! - One that began before the rollout stays on stable until it ends, or all traffic moves.
//! - One that began on the candidate stays there: weights only rise.
//! - With the weight at 100 or at 0 there is no split, and everybody goes where all go: the switch, and the way back.
//! - What belongs to no conversation, such as a plain HTTP call, is dealt out in turn ([`Split::deal`]), exactly.
//! - A call that the candidate cannot take, since its instances failed, is answered by stable, also in a conversation
//!   that began on the candidate ([`Untaken`]): who waits for an answer had rather this one than none.

/// Which of the two.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pick {
    /// The one that ran before.
    Stable,
    /// The new one.
    Candidate,
}

/// Why a candidate did not take a call of its share.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Untaken {
    /// Its instances failed, and none is started again before this time.
    Pausing {
        /// When one may be, in milliseconds since 1970.
        until: u64,
        /// When the call has to be answered, likewise.
        by: u64,
    },
    /// An instance was to be started for the call, and was not.
    NotStarted {
        /// Whether that was the candidate's own doing.
        its_fault: bool,
    },
}

impl Untaken {
    /// Whether a call that stable answers for it is one that the candidate failed at (SPEC §4): without stable it would
    /// have had no answer, and not for want of the host. One that it could still have answered in time is nobody's
    /// failure, only answered sooner.
    pub fn counts(self) -> bool {
        match self {
            Self::Pausing { until, by } => until >= by,
            Self::NotStarted { its_fault } => its_fault,
        }
    }
}

/// How traffic is split. Made from a rollout, and cheap to clone into what callers read.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Split {
    /// Tells rollouts apart, so that not always the same conversations go first.
    salt: u64,
    /// When, in milliseconds since 1970, the weight became what; the latest last.
    weights: Vec<(u64, u8)>,
}

/// Places in a hundredth of a percent.
const PLACES: u64 = 10_000;

impl Split {
    /// The split of a rollout: its id, and what its weight was when.
    pub fn new(rollout: u64, weights: &[(u64, u8)]) -> Self {
        Self { salt: mixed(rollout), weights: weights.to_vec() }
    }

    /// What the weight is now, of a hundred.
    pub fn weight(&self) -> u8 {
        self.weights.last().map_or(0, |(_, weight)| *weight)
    }

    /// Who answers a message of this conversation, which began at `first` (for one that begins, now).
    pub fn pick(&self, conversation: &str, first: u64) -> Pick {
        match self.weight() {
            0 => Pick::Stable,
            100.. => Pick::Candidate,
            now => {
                let then = self.weights.iter().rev().find(|(at, _)| *at <= first).map_or(0, |(_, weight)| *weight);
                // A weight that was lowered moves those above it back.
                self.below(place(conversation, self.salt), then.min(now))
            }
        }
    }

    /// Who answers the `nth` call that belongs to no conversation, counted from any number: of any hundred in a row
    /// exactly as many as the weight go to the candidate, and they are spread evenly.
    pub fn deal(&self, nth: u64) -> Pick {
        let weight = u64::from(self.weight());
        if nth % 100 * weight % 100 < weight { Pick::Candidate } else { Pick::Stable }
    }

    fn below(&self, place: u64, weight: u8) -> Pick {
        if place < u64::from(weight) * PLACES / 100 { Pick::Candidate } else { Pick::Stable }
    }
}

/// The place of a conversation: the same on every host and after every restart.
fn place(conversation: &str, salt: u64) -> u64 {
    // FNV-1a, and a finaliser because its lower bits are weak. Nobody gains by choosing a place, so it need not
    // withstand an attack.
    let mut hash = 0xcbf2_9ce4_8422_2325 ^ salt;
    for byte in conversation.bytes() {
        hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    }
    mixed(hash) % PLACES
}

/// The finaliser of SplitMix64.
fn mixed(mut hash: u64) -> u64 {
    hash = (hash ^ (hash >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    hash = (hash ^ (hash >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    hash ^ (hash >> 31)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const RISING: [(u64, u8); 4] = [(1_000, 5), (2_000, 25), (3_000, 50), (4_000, 75)];

    #[test]
    fn as_many_go_as_the_weight_says() {
        for weight in [0, 1, 5, 10, 25, 50, 75, 99, 100] {
            let split = Split::new(7, &[(0, weight)]);
            let on_candidate = (0..100_000).filter(|n| split.pick(&format!("talk-{n}"), 1) == Pick::Candidate).count();
            // Four standard deviations of a fair coin at most.
            assert!(on_candidate.abs_diff(usize::from(weight) * 1_000) <= 640, "{weight}%: {on_candidate}");
        }
    }

    #[test]
    fn a_call_counts_against_a_candidate_that_could_not_have_answered_it() {
        for (untaken, counts) in [
            (Untaken::Pausing { until: 1_000, by: 1_001 }, false),
            (Untaken::Pausing { until: 1_000, by: 1_000 }, true),
            (Untaken::Pausing { until: 5_000, by: 1_000 }, true),
            (Untaken::NotStarted { its_fault: true }, true),
            (Untaken::NotStarted { its_fault: false }, false),
        ] {
            assert_eq!(untaken.counts(), counts, "{untaken:?}");
        }
    }

    #[test]
    fn what_belongs_to_no_conversation_is_dealt_out_exactly() {
        for weight in 0..=100 {
            let split = Split::new(7, &[(0, weight)]);
            for from in [0, 1, 37, 99, 12_345] {
                let hundred = (from..from + 100).filter(|n| split.deal(*n) == Pick::Candidate).count();
                assert_eq!(hundred, usize::from(weight), "{weight}% from {from}");
            }
            if weight > 0 {
                let gap = 100_u64.div_ceil(u64::from(weight));
                assert!((0..gap).any(|n| split.deal(n) == Pick::Candidate), "{weight}% is spread");
            }
        }
    }

    #[test]
    fn with_no_split_everybody_goes_where_all_go() {
        for (weights, pick) in [
            (&[][..], Pick::Stable),
            (&[(1_000, 5), (2_000, 0)], Pick::Stable),
            (&[(1_000, 5), (2_000, 100)], Pick::Candidate),
            (&[(1_000, 5), (2_000, 100), (3_000, 0)], Pick::Stable),
        ] {
            let split = Split::new(7, weights);
            assert!((0..1_000).all(|n| split.pick(&n.to_string(), n * 4) == pick), "{weights:?}");
            assert!((0..1_000).all(|n| split.deal(n) == pick), "{weights:?}");
        }
    }

    #[test]
    fn rollouts_do_not_always_begin_with_the_same() {
        let first = |rollout| {
            let split = Split::new(rollout, &[(0, 5)]);
            (0..1_000).filter(|n| split.pick(&n.to_string(), 1) == Pick::Candidate).collect::<Vec<u64>>()
        };
        assert_ne!(first(1), first(2));
    }

    proptest! {
        #[test]
        fn a_conversation_stays_where_it_began(name in "[a-z0-9-]{1,40}", first in 0..5_000_u64, rollout: u64) {
            let mut before = None;
            for weights in 1..=RISING.len() {
                let now = RISING[weights - 1].0;
                if now < first && weights < RISING.len() && RISING[weights].0 <= first {
                    // It has not begun.
                    continue;
                }
                let pick = Split::new(rollout, &RISING[..weights]).pick(&name, first);
                prop_assert_eq!(*before.get_or_insert(pick), pick);
                if first < RISING[0].0 {
                    prop_assert_eq!(pick, Pick::Stable, "it began before the rollout");
                }
            }
        }
    }
}
