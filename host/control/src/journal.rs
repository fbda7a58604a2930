//! The journal of a message's calls over HTTP: which calls another attempt is answered from the record, and which are
//! made.
//!
//! A call is recorded when it begins and when it ends. One that began and has no recorded end may have reached its
//! server or not: the settings of its place say what is done about it, and else whether repeating it does harm.

use serde::{Deserialize, Serialize};

/// The step for a call whose outcome is not known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum UnknownOutcome {
    /// Make the call again.
    Repeat,
    /// Give the message up, for a person to settle.
    Fail,
}

impl UnknownOutcome {
    /// Parses the word in the file.
    pub fn parse(word: &str) -> Option<Self> {
        match word {
            "repeat" => Some(Self::Repeat),
            "fail" => Some(Self::Fail),
            _ => None,
        }
    }
}

/// The settings of a place for its calls in the journal.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct JournalRules {
    /// Set if calls are recorded with their message (`journal`).
    pub is_kept: bool,
    /// The step for a call whose outcome is not known (`unknown`); `None` leaves it to whether repeating does harm.
    pub unknown: Option<UnknownOutcome>,
    /// Set if the host adds an `Idempotency-Key` that is the same in each attempt (`idempotency`).
    pub adds_key: bool,
}

/// The SHA-256 of what a guest asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RequestHash(pub [u8; 32]);

/// The identity of a call among those of its message: the request, and which of the equal ones it is. Calls have no other
/// order, as a guest may have several under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct CallKey {
    /// The hash of the request.
    pub hash: RequestHash,
    /// The number among the calls of a run with that hash, from 0.
    pub nth: u32,
}

/// The recorded outcome of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CallOutcome {
    /// Nothing is known beyond its begin.
    Unknown,
    /// The server answered, and the response is recorded.
    Answered(u16),
    /// The server answered with more than the journal holds, and the guest got an error.
    TooLarge,
    /// The server answered, and the response went to the guest without being recorded.
    NotHeld,
    /// The guest got an error, and the server may have done what it was asked for.
    Failed,
}

/// A call in the record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct JournaledCall {
    /// The identity.
    pub key: CallKey,
    /// The outcome.
    pub outcome: CallOutcome,
    /// Set if it is recorded with the message, and not only for a handler that runs again after a conflict.
    pub is_kept: bool,
    /// Set if an earlier attempt made it. Otherwise it is of this attempt, maybe of a run before this one.
    pub is_earlier: bool,
    /// Set if this run has asked for it.
    pub is_asked: bool,
}

/// A call that a guest asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AskedCall {
    /// The identity.
    pub key: CallKey,
    /// Set if the method is [safe](is_safe).
    pub is_safe: bool,
    /// Set if the request goes out with an idempotency key.
    pub has_key: bool,
}

/// The decision on a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CallDecision {
    /// The call of this index in the record has the answer.
    Answer(usize),
    /// It is made.
    Call,
    /// It is made, although an earlier run asked for something that this one has not asked for: that is reported.
    CallOtherwise,
    /// The call of this index is made again.
    Repeat(usize),
    /// The outcome of the call of this index is not known, and it must not be made again.
    Unknown(usize),
    /// The call of this index must not be made again, and the response is not held.
    Refuse(usize),
}

/// Decides on a call, by the record of its message and the settings of its place.
pub fn decide(record: &[JournaledCall], asked: AskedCall, rules: JournalRules) -> CallDecision {
    let Some(index) = record.iter().position(|call| call.key == asked.key) else {
        let is_left = |call: &JournaledCall| call.is_kept && !call.is_asked;
        return if record.iter().any(is_left) { CallDecision::CallOtherwise } else { CallDecision::Call };
    };
    let does_no_harm = asked.is_safe || asked.has_key;
    let call = &record[index];
    match call.outcome {
        CallOutcome::Answered(status) if call.is_earlier && is_not_now(status) && does_no_harm => {
            CallDecision::Repeat(index)
        }
        CallOutcome::Answered(_) | CallOutcome::TooLarge => CallDecision::Answer(index),
        // Within one attempt the guest gets the same error again: it has seen it.
        CallOutcome::Failed if !call.is_earlier => CallDecision::Answer(index),
        CallOutcome::NotHeld if does_no_harm => CallDecision::Repeat(index),
        CallOutcome::NotHeld => CallDecision::Refuse(index),
        CallOutcome::Failed | CallOutcome::Unknown if !call.is_kept => CallDecision::Repeat(index),
        CallOutcome::Failed | CallOutcome::Unknown => match rules.unknown {
            Some(UnknownOutcome::Repeat) => CallDecision::Repeat(index),
            Some(UnknownOutcome::Fail) => CallDecision::Unknown(index),
            None if does_no_harm => CallDecision::Repeat(index),
            None => CallDecision::Unknown(index),
        },
    }
}

impl CallOutcome {
    /// Returns `true` if the server did what it was asked for and the record has what it said, so that nobody has a reason
    /// to ask again.
    pub fn is_success(self) -> bool {
        match self {
            Self::Answered(status) => status < 400,
            Self::Unknown | Self::TooLarge | Self::NotHeld | Self::Failed => false,
        }
    }

    /// Returns the text for a person.
    pub fn text(self) -> String {
        match self {
            Self::Answered(status) => status.to_string(),
            Self::TooLarge => "answered with more than the journal holds".to_owned(),
            Self::Unknown | Self::NotHeld | Self::Failed => "not known".to_owned(),
        }
    }
}

/// Returns `true` for a method by which nothing is asked to be done (RFC 9110, section 9.2.1).
pub fn is_safe(method: &str) -> bool {
    matches!(method, "GET" | "HEAD" | "OPTIONS")
}

/// Returns `true` for a status by which a server says to come again, or a gateway that it does not know: a record of it
/// would keep a message from ever succeeding.
fn is_not_now(status: u16) -> bool {
    matches!(status, 408 | 425 | 429 | 502 | 503 | 504)
}

#[cfg(test)]
mod tests {
    use super::*;

    type Row<'a> = (&'a [JournaledCall], (u8, u32), JournalRules, [CallDecision; 3]);

    fn key(request: u8, nth: u32) -> CallKey {
        CallKey { hash: RequestHash([request; 32]), nth }
    }

    /// A call of an earlier attempt that is recorded with its message.
    fn earlier(request: u8, nth: u32, outcome: CallOutcome) -> JournaledCall {
        JournaledCall { key: key(request, nth), outcome, is_kept: true, is_earlier: true, is_asked: false }
    }

    /// A call of an earlier run of this attempt, to a place without a journal.
    fn of_first_run(outcome: CallOutcome) -> JournaledCall {
        JournaledCall { is_kept: false, is_earlier: false, ..earlier(1, 0, outcome) }
    }

    #[test]
    fn calls_are_answered_made_or_given_up() {
        use CallDecision::{Answer, Call, CallOtherwise, Refuse, Repeat, Unknown};
        use CallOutcome::{Answered, Failed, NotHeld, TooLarge};
        let unknown = CallOutcome::Unknown;
        let asked = |call: JournaledCall| JournaledCall { is_asked: true, ..call };
        let kept = JournalRules { is_kept: true, ..JournalRules::default() };
        let repeat = JournalRules { unknown: Some(UnknownOutcome::Repeat), ..kept };
        let fail = JournalRules { unknown: Some(UnknownOutcome::Fail), ..kept };
        let none = JournalRules::default();
        // The record, the request with its number, the settings, and the decisions on a POST, a GET, and a POST with a key.
        let table: &[Row] = &[
            (&[], (1, 0), kept, [Call; 3]),
            (&[earlier(1, 0, Answered(200))], (1, 0), kept, [Answer(0); 3]),
            (&[earlier(1, 0, Answered(500))], (1, 0), kept, [Answer(0); 3]),
            (&[earlier(1, 0, Answered(503))], (1, 0), kept, [Answer(0), Repeat(0), Repeat(0)]),
            (&[earlier(1, 0, Answered(429))], (1, 0), fail, [Answer(0), Repeat(0), Repeat(0)]),
            (&[earlier(1, 0, TooLarge)], (1, 0), kept, [Answer(0); 3]),
            (&[earlier(1, 0, unknown)], (1, 0), kept, [Unknown(0), Repeat(0), Repeat(0)]),
            (&[earlier(1, 0, unknown)], (1, 0), repeat, [Repeat(0); 3]),
            (&[earlier(1, 0, unknown)], (1, 0), fail, [Unknown(0); 3]),
            (&[earlier(1, 0, Failed)], (1, 0), kept, [Unknown(0), Repeat(0), Repeat(0)]),
            // The second of two equal requests, of which one is recorded.
            (&[asked(earlier(1, 0, Answered(200)))], (1, 1), kept, [Call; 3]),
            (&[earlier(1, 0, Answered(200)), earlier(1, 1, unknown)], (1, 1), kept, [Unknown(1), Repeat(1), Repeat(1)]),
            // Another request, while what was recorded has not been asked for, and after it has.
            (&[earlier(1, 0, Answered(200))], (2, 0), kept, [CallOtherwise; 3]),
            (&[earlier(1, 0, unknown)], (2, 0), kept, [CallOtherwise; 3]),
            (&[asked(earlier(1, 0, Answered(200)))], (2, 0), kept, [Call; 3]),
            // In any order.
            (&[earlier(1, 0, Answered(200)), earlier(2, 0, Answered(200))], (2, 0), kept, [Answer(1); 3]),
            // A handler that runs again after a conflict, journal or not.
            (&[of_first_run(Answered(200))], (1, 0), none, [Answer(0); 3]),
            (&[of_first_run(Answered(503))], (1, 0), none, [Answer(0); 3]),
            (&[of_first_run(Failed)], (1, 0), none, [Answer(0); 3]),
            (&[of_first_run(NotHeld)], (1, 0), none, [Refuse(0), Repeat(0), Repeat(0)]),
            (&[of_first_run(unknown)], (1, 0), none, [Repeat(0); 3]),
            (&[of_first_run(Answered(200))], (2, 0), none, [Call; 3]),
        ];
        for (record, (request, nth), rules, expected) in table {
            for (case, (is_safe, has_key)) in [(false, false), (true, false), (false, true)].into_iter().enumerate() {
                let asked = AskedCall { key: key(*request, *nth), is_safe, has_key };
                assert_eq!(decide(record, asked, *rules), expected[case], "{record:?} {asked:?} {rules:?}");
            }
        }
        for (outcome, expected) in [(Answered(204), true), (Answered(400), false), (unknown, false), (TooLarge, false)]
        {
            assert_eq!(outcome.is_success(), expected, "{outcome:?}");
        }
        for (method, expected) in [("GET", true), ("HEAD", true), ("POST", false), ("PUT", false), ("get", false)] {
            assert_eq!(is_safe(method), expected, "{method}");
        }
    }
}
