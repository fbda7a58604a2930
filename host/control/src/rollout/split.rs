//! Who is answered by which revision while traffic is split.
//!
//! Each conversation has a place from 0 to 99.99 that follows from its name alone, so that nobody keeps a list of them. It
//! is the candidate's if its place was below the weight at a time, and the rollout remembers its few weights
//! ([`super::Rollout::weights`]). Which time that is, is declared ([`Sticky`]):
//!
//! - [`Sticky::Idle`]: when the message came that found the conversation idle. Nothing of it waited then or was in hand,
//!   and no answer was owed; until all of that is so again it goes on where it is ([`Split::choose`]). However long it
//!   lasts, it keeps no rollout waiting.
//! - [`Sticky::Conversation`]: when it began ([`crate::conversation::Conversation::first`]). One that began before the
//!   rollout stays on stable until it ends, or all traffic moves.
//! - [`Sticky::None`]: conversations count for nothing, and each message is dealt out.
//! - One that is the candidate's stays there: weights only rise.
//! - With the weight at 100 or at 0 there is no split, and everybody goes where all go: the switch, and the way back.
//! - What belongs to no conversation, such as a plain HTTP call, is dealt out in turn ([`Split::deal`]), exactly.
//! - A call that the candidate cannot take, since its instances failed, is answered by stable, also in a conversation
//!   that began on the candidate ([`Untaken`]): who waits for an answer had rather this one than none.

use serde::{Deserialize, Serialize};

/// What conversations stay on while traffic is split (`rollback.sticky`).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Sticky {
    /// The revision that they began with.
    Conversation,
    /// The revision that has something of theirs open; the next message of one that is idle may go to the other.
    #[default]
    Idle,
    /// None: each message is dealt out.
    None,
}

impl Sticky {
    /// As it is declared.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Conversation => "conversation",
            Self::Idle => "idle",
            Self::None => "none",
        }
    }

    /// The one that is declared so.
    pub fn named(name: &str) -> Option<Self> {
        [Self::Conversation, Self::Idle, Self::None].into_iter().find(|sticky| sticky.as_str() == name)
    }

    /// What lets conversations go over that hold a rollout up, for a person to read.
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

/// What decides who handles a message, beside the weight.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Talk<'a> {
    /// The message's conversation; none if it stands alone.
    pub conversation: Option<&'a str>,
    /// The revision with which the conversation goes on, since something of it is open there.
    pub goes_on: Option<u64>,
    /// When the conversation began, or was idle last, in milliseconds since 1970.
    pub since: u64,
}

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

    /// Who handles a message. `candidate` is the candidate's number, `nth` counts what is dealt out.
    pub fn choose(&self, sticky: Sticky, talk: Talk<'_>, candidate: u64, nth: impl FnOnce() -> u64) -> Pick {
        match (self.weight(), sticky, talk) {
            (0, ..) => Pick::Stable,
            (100.., ..) => Pick::Candidate,
            (_, Sticky::None, _) => self.deal(nth()),
            // A revision that is neither of the two ran before both.
            (_, _, Talk { goes_on: Some(number), .. }) if number == candidate => Pick::Candidate,
            (_, _, Talk { goes_on: Some(_), .. }) => Pick::Stable,
            (_, _, Talk { conversation: Some(name), since, .. }) => self.pick(name, since),
            (_, _, Talk { conversation: None, .. }) => self.deal(nth()),
        }
    }

    /// Whether a conversation that is stable's would be the candidate's if nothing kept it: such ones hold a rollout up.
    pub fn is_held(&self, conversation: &str) -> bool {
        (1..100).contains(&self.weight())
            && self.below(place(conversation, self.salt), self.weight()) == Pick::Candidate
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
    fn who_handles_a_message_follows_from_what_is_open_and_when_it_was_idle() {
        let split = Split::new(7, &[(1_000, 20), (2_000, 60)]);
        let place = |name: &str| super::place(name, mixed(7));
        let named =
            |range: std::ops::Range<u64>| (0..).map(|n| format!("c{n}")).find(|c| range.contains(&place(c))).unwrap();
        let (first, second, last) = (named(0..2_000), named(2_000..6_000), named(6_000..10_000));
        let (stable, candidate) = (Pick::Stable, Pick::Candidate);
        // sticky, conversation, goes on, since, pick
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
            let talk = Talk { conversation: name.map(String::as_str), goes_on, since };
            assert_eq!(split.choose(sticky, talk, 5, || 0), expected, "{sticky:?} {talk:?}");
        }
        let open = Talk { conversation: Some(&first), goes_on: Some(4), since: 0 };
        let dealt = (0..100).filter(|nth| split.choose(Sticky::None, open, 5, || *nth) == candidate).count();
        assert_eq!(dealt, 60, "nothing holds");
        for (weights, expected) in [(&[(0, 0)][..], stable), (&[(0, 100)], candidate)] {
            let all = Split::new(7, weights);
            assert_eq!(all.choose(Sticky::Idle, open, 5, || 0), expected, "with no split nothing is held");
            assert!(!all.is_held(&first));
        }
        assert!(split.is_held(&first) && split.is_held(&second) && !split.is_held(&last));
    }

    #[test]
    fn a_word_is_read_as_it_is_written() {
        for sticky in [Sticky::Conversation, Sticky::Idle, Sticky::None] {
            assert_eq!(Sticky::named(sticky.as_str()), Some(sticky));
            assert_eq!(serde_json::to_value(sticky).unwrap(), sticky.as_str());
        }
        assert_eq!(Sticky::named("no"), None);
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
