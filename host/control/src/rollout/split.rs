//! The choice of a revision for each message while traffic is split.
//!
//! Each conversation has a place from 0 to 99.99 that follows from its name alone, so no list is needed. It belongs to
//! the candidate if its place was below the weight at a certain time, and the rollout remembers its few weights
//! ([`super::Rollout::weight_history`]). The time depends on the declared binding ([`Sticky`]):
//!
//! - [`Sticky::Idle`]: the arrival of the message that found the conversation idle. Nothing of it was queued or in
//!   flight then, and no answer was owed; until that is so again, it stays where it is ([`Split::choose`]). So even a
//!   long conversation keeps no rollout waiting.
//! - [`Sticky::Conversation`]: its beginning ([`crate::conversation::Conversation::first`]). One that began before the
//!   rollout stays on stable until it ends, or all traffic moves.
//! - [`Sticky::None`]: conversations are ignored, and messages are dealt out one by one.
//! - A conversation of the candidate stays there: weights only rise.
//! - With the weight at 100 or 0 there is no split, and all messages go to one revision: after the switch, and on the
//!   way back.
//! - A message without a conversation, such as a plain HTTP call, is dealt out in turn ([`Split::round_robin`]),
//!   exactly.
//! - A call that the candidate cannot take because its instances failed is answered by stable, also in a conversation
//!   of the candidate ([`CandidateUnavailable`]): an answer is better than none.

use serde::{Deserialize, Serialize};

/// The binding of conversations while traffic is split (`rollback.sticky`).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Sticky {
    /// Binds them to the revision with which they began.
    Conversation,
    /// Binds them to the revision that has something of theirs open; the next message of an idle one may go to the
    /// other.
    #[default]
    Idle,
    /// Binds none: messages are dealt out one by one.
    None,
}

impl Sticky {
    /// Returns the word in the file.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Conversation => "conversation",
            Self::Idle => "idle",
            Self::None => "none",
        }
    }

    /// Returns the binding of a word in the file.
    pub fn named(name: &str) -> Option<Self> {
        [Self::Conversation, Self::Idle, Self::None].into_iter().find(|sticky| sticky.as_str() == name)
    }

    /// Returns the way to release conversations that hold a rollout up, for people to read.
    pub fn way_out(self, agent: &str) -> String {
        match self {
            Self::Conversation => format!(
                "`rollback.sticky = \"idle\"` lets each go over when it is idle, `caxton rollout promote {agent}` goes on \
                 without them"
            ),
            Self::Idle | Self::None => format!(
                "`rollback.sticky = \"none\"` lets their next messages go over, `caxton rollout promote {agent}` goes on \
                 without them"
            ),
        }
    }
}

/// The facts that decide on the revision for a message, beside the weight.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SplitInput<'a> {
    /// The message's conversation; `None` if it has none.
    pub conversation: Option<&'a str>,
    /// The revision to which the conversation is bound, since something of it is open there.
    pub bound_to: Option<u64>,
    /// The time at which the conversation began, or was last idle, in milliseconds since 1970.
    pub since: u64,
}

/// A revision of a rollout.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SplitTarget {
    /// The revision that ran before.
    Stable,
    /// The new revision.
    Candidate,
}

/// The reason why a candidate did not take a call of its share.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CandidateUnavailable {
    /// The instances failed, and no start is allowed before a certain time.
    BackingOff {
        /// The time of the next start, in milliseconds since 1970.
        until: u64,
        /// The deadline of the call, likewise.
        deadline: u64,
    },
    /// The failed start of an instance for the call.
    NotStarted {
        /// Set if that was the candidate's fault.
        its_fault: bool,
    },
}

impl CandidateUnavailable {
    /// Returns `true` if a call answered by stable counts as a failure of the candidate (SPEC §4): without stable it
    /// would have had no answer, and the host was not the reason. A call that the candidate could still have answered
    /// in time does not count; stable only answered sooner.
    pub fn is_candidate_fault(self) -> bool {
        match self {
            Self::BackingOff { until, deadline } => until >= deadline,
            Self::NotStarted { its_fault } => its_fault,
        }
    }
}

/// The split of a rollout's traffic. Cheap to clone into snapshots for callers.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Split {
    /// Differs between rollouts, so that not always the same conversations move first.
    salt: u64,
    /// The time of each change of weight in milliseconds since 1970, and the weight since then; the latest last.
    weights: Vec<(u64, u8)>,
}

/// The number of places: hundredths of a percent.
const BUCKETS: u64 = 10_000;

impl Split {
    /// Creates the split of a rollout from its id and the history of its weight.
    pub fn new(rollout: u64, weights: &[(u64, u8)]) -> Self {
        // Ids are small and consecutive, and differ in few bits.
        Self { salt: mixed(rollout), weights: weights.to_vec() }
    }

    /// Returns the present weight, in percent.
    pub fn weight(&self) -> u8 {
        self.weights.last().map_or(0, |(_, weight)| *weight)
    }

    /// Returns the revision for a message of this conversation, which began at `first` (now, if it just begins).
    pub fn pick(&self, conversation: &str, first: u64) -> SplitTarget {
        match self.weight() {
            0 => SplitTarget::Stable,
            100.. => SplitTarget::Candidate,
            now => {
                // Before the first change of weight the candidate had no traffic at all.
                let then = self.weights.iter().rev().find(|(at, _)| *at <= first).map_or(0, |(_, weight)| *weight);
                // After a lowered weight, conversations above it move back.
                self.target_at(bucket(conversation, self.salt), then.min(now))
            }
        }
    }

    /// Returns the revision for the `nth` message without a conversation, counted from any number: of any hundred in a
    /// row, exactly the weight goes to the candidate, evenly spread.
    pub fn round_robin(&self, nth: u64) -> SplitTarget {
        let weight = u64::from(self.weight());
        // As in Bresenham's algorithm: multiples of the weight modulo 100 are evenly spread.
        if nth % 100 * weight % 100 < weight { SplitTarget::Candidate } else { SplitTarget::Stable }
    }

    /// Returns the revision for a message. `candidate` is the candidate's number; `nth` counts the messages that are
    /// dealt out.
    pub fn choose(
        &self,
        sticky: Sticky,
        talk: SplitInput<'_>,
        candidate: u64,
        nth: impl FnOnce() -> u64,
    ) -> SplitTarget {
        match (self.weight(), sticky, talk) {
            // Before any binding: without a split a bound conversation moves as well.
            (0, ..) => SplitTarget::Stable,
            (100.., ..) => SplitTarget::Candidate,
            (_, Sticky::None, _) => self.round_robin(nth()),
            // A revision other than these two ran before both, and its conversations belong to stable.
            (_, _, SplitInput { bound_to: Some(number), .. }) if number == candidate => SplitTarget::Candidate,
            (_, _, SplitInput { bound_to: Some(_), .. }) => SplitTarget::Stable,
            (_, _, SplitInput { conversation: Some(name), since, .. }) => self.pick(name, since),
            (_, _, SplitInput { conversation: None, .. }) => self.round_robin(nth()),
        }
    }

    /// Returns `true` if a conversation of stable would belong to the candidate by its place: only a binding keeps it,
    /// and holds the rollout up.
    pub fn is_held_back(&self, conversation: &str) -> bool {
        (1..100).contains(&self.weight())
            && self.target_at(bucket(conversation, self.salt), self.weight()) == SplitTarget::Candidate
    }

    fn target_at(&self, bucket: u64, weight: u8) -> SplitTarget {
        if bucket < u64::from(weight) * BUCKETS / 100 { SplitTarget::Candidate } else { SplitTarget::Stable }
    }
}

/// Returns the place of a conversation: the same on every host and after every restart.
fn bucket(conversation: &str, salt: u64) -> u64 {
    // FNV-1a, with a finalizer because its lower bits are weak. Choosing a place has no benefit, so the hash need not
    // withstand attacks.
    let mut hash = 0xcbf2_9ce4_8422_2325 ^ salt;
    for byte in conversation.bytes() {
        hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    }
    mixed(hash) % BUCKETS
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
    fn the_weight_is_the_share_of_conversations() {
        for weight in [0, 1, 5, 10, 25, 50, 75, 99, 100] {
            let split = Split::new(7, &[(0, weight)]);
            let on_candidate =
                (0..100_000).filter(|n| split.pick(&format!("talk-{n}"), 1) == SplitTarget::Candidate).count();
            // At most four standard deviations of a fair coin.
            assert!(on_candidate.abs_diff(usize::from(weight) * 1_000) <= 640, "{weight}%: {on_candidate}");
        }
    }

    #[test]
    fn an_untaken_call_counts_if_the_candidate_could_not_have_answered() {
        for (untaken, counts) in [
            (CandidateUnavailable::BackingOff { until: 1_000, deadline: 1_001 }, false),
            (CandidateUnavailable::BackingOff { until: 1_000, deadline: 1_000 }, true),
            (CandidateUnavailable::BackingOff { until: 5_000, deadline: 1_000 }, true),
            (CandidateUnavailable::NotStarted { its_fault: true }, true),
            (CandidateUnavailable::NotStarted { its_fault: false }, false),
        ] {
            assert_eq!(untaken.is_candidate_fault(), counts, "{untaken:?}");
        }
    }

    #[test]
    fn messages_without_conversation_are_dealt_out_exactly() {
        for weight in 0..=100 {
            let split = Split::new(7, &[(0, weight)]);
            for from in [0, 1, 37, 99, 12_345] {
                let hundred = (from..from + 100).filter(|n| split.round_robin(*n) == SplitTarget::Candidate).count();
                assert_eq!(hundred, usize::from(weight), "{weight}% from {from}");
            }
            if weight > 0 {
                let gap = 100_u64.div_ceil(u64::from(weight));
                assert!((0..gap).any(|n| split.round_robin(n) == SplitTarget::Candidate), "{weight}% is spread");
            }
        }
    }

    #[test]
    fn without_a_split_all_messages_go_to_one_revision() {
        for (weights, pick) in [
            (&[][..], SplitTarget::Stable),
            (&[(1_000, 5), (2_000, 0)], SplitTarget::Stable),
            (&[(1_000, 5), (2_000, 100)], SplitTarget::Candidate),
            (&[(1_000, 5), (2_000, 100), (3_000, 0)], SplitTarget::Stable),
        ] {
            let split = Split::new(7, weights);
            assert!((0..1_000).all(|n| split.pick(&n.to_string(), n * 4) == pick), "{weights:?}");
            assert!((0..1_000).all(|n| split.round_robin(n) == pick), "{weights:?}");
        }
    }

    #[test]
    fn the_choice_follows_the_binding_and_the_idle_time() {
        let split = Split::new(7, &[(1_000, 20), (2_000, 60)]);
        let place = |name: &str| super::bucket(name, mixed(7));
        let named =
            |range: std::ops::Range<u64>| (0..).map(|n| format!("c{n}")).find(|c| range.contains(&place(c))).unwrap();
        let (first, second, last) = (named(0..2_000), named(2_000..6_000), named(6_000..10_000));
        let (stable, candidate) = (SplitTarget::Stable, SplitTarget::Candidate);
        // sticky, conversation, bound to, since, choice
        for (sticky, name, goes_on, since, expected) in [
            (Sticky::Idle, Some(&first), None, 999, stable),
            (Sticky::Idle, Some(&first), None, 1_000, candidate),
            (Sticky::Idle, Some(&second), None, 1_999, stable),
            (Sticky::Idle, Some(&second), None, 2_000, candidate),
            (Sticky::Idle, Some(&last), None, 9_999, stable),
            (Sticky::Idle, Some(&first), Some(4), 9_999, stable),
            (Sticky::Idle, Some(&last), Some(5), 0, candidate),
            (Sticky::Idle, Some(&last), Some(2), 9_999, stable),
            (Sticky::Idle, None, Some(5), 9_999, candidate),
            (Sticky::Conversation, Some(&first), None, 999, stable),
            (Sticky::Conversation, Some(&second), None, 2_000, candidate),
            (Sticky::Conversation, Some(&last), Some(5), 9_999, candidate),
        ] {
            let talk = SplitInput { conversation: name.map(String::as_str), bound_to: goes_on, since };
            assert_eq!(split.choose(sticky, talk, 5, || 0), expected, "{sticky:?} {talk:?}");
        }
        let open = SplitInput { conversation: Some(&first), bound_to: Some(4), since: 0 };
        let dealt = (0..100).filter(|nth| split.choose(Sticky::None, open, 5, || *nth) == candidate).count();
        assert_eq!(dealt, 60, "no binding");
        for (weights, expected) in [(&[(0, 0)][..], stable), (&[(0, 100)], candidate)] {
            let all = Split::new(7, weights);
            assert_eq!(all.choose(Sticky::Idle, open, 5, || 0), expected, "no binding without a split");
            assert!(!all.is_held_back(&first));
        }
        assert!(split.is_held_back(&first) && split.is_held_back(&second) && !split.is_held_back(&last));
    }

    #[test]
    fn words_of_the_file_round_trip() {
        for sticky in [Sticky::Conversation, Sticky::Idle, Sticky::None] {
            assert_eq!(Sticky::named(sticky.as_str()), Some(sticky));
            assert_eq!(serde_json::to_value(sticky).unwrap(), sticky.as_str());
        }
        assert_eq!(Sticky::named("no"), None);
    }

    #[test]
    fn rollouts_move_different_conversations_first() {
        let first = |rollout| {
            let split = Split::new(rollout, &[(0, 5)]);
            (0..1_000).filter(|n| split.pick(&n.to_string(), 1) == SplitTarget::Candidate).collect::<Vec<u64>>()
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
                    // The conversation has not begun.
                    continue;
                }
                let pick = Split::new(rollout, &RISING[..weights]).pick(&name, first);
                prop_assert_eq!(*before.get_or_insert(pick), pick);
                if first < RISING[0].0 {
                    prop_assert_eq!(pick, SplitTarget::Stable, "it began before the rollout");
                }
            }
        }
    }
}
