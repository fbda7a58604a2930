//! The encoded form stays as it is: records of earlier versions are read.

use std::path::PathBuf;

use super::super::{
    ContentRow, ConversationRow, DeadRow, JournalRow, MemoryRow, OtherRow, QueueRow, RecentRow, Record, RolloutRow,
    StateCopyRow, StateRow, TimerRow, TreeRow,
};
use super::{RecordError, VERSION, decode, encode};

/// A record with every kind of row that version 1 had first.
pub(crate) fn sample() -> Record<'static> {
    let mut record = Record::default();
    record.push(StateRow::Set {
        agent: "agent-1",
        key: "key-2",
        value: b"value-3",
        version: 4000,
        expires_at: Some(5),
    });
    record.push(StateRow::Removed { agent: "agent-6", key: "key-7" });
    record.push(StateRow::Size { agent: "agent-8", bytes: -9 });
    let head = record.push_head(|heads| heads.extend_from_slice(b"head of queue"));
    record.push(QueueRow::Message {
        seq: 10000,
        agent: "agent-11",
        conversation: "conversation-12",
        rank: 2,
        due: Some(14),
        receipt: Some("receipt-15"),
        head,
        content: b"content-16",
        revived: true,
    });
    record.push(QueueRow::Handled { seq: 18000, at: 19000, revision: 20000, runs: 21 });
    record.push(QueueRow::Attempt { seq: 22000, number: 23, again_at: 24000, attempt: "attempt-25".into() });
    record.push(QueueRow::AttemptsRemoved { seq: 26000 });
    record.push(QueueRow::ReceiptRemoved { receipt: "receipt-27" });
    record.push(QueueRow::HandledRemoved { up_to: 28000 });
    let head = record.push_head(|heads| heads.extend_from_slice(b"head of timer"));
    record.push(TimerRow::Set {
        seq: 29000,
        agent: "agent-30",
        due: 31000,
        at: 32000,
        dated: true,
        conversation: "conversation-34",
        rank: 2,
        id: "id-36",
        sender: "sender-37",
        name: Some("name-38"),
        head,
        content: b"content-39",
    });
    record.push(TimerRow::Removed { seq: 40000 });
    record.push(TimerRow::Redated { after: 41000, last: 42000, ahead: -43, now: 44000 });
    let head = record.push_head(|heads| heads.extend_from_slice(b"head of dead"));
    record.push(DeadRow::Set {
        seq: 45000,
        agent: "agent-46",
        conversation: "conversation-47",
        rank: 2,
        head,
        content: b"content-49",
        at: 50000,
        reason: "reason-51",
        error: "error-52".into(),
        attempts: "attempts-53".into(),
        receipt: Some("receipt-54"),
    });
    record.push(DeadRow::Removed { seq: 55000 });
    record.push(ConversationRow::Set {
        id: 56000,
        name: "name-57".into(),
        first: 58000,
        last: 59000,
        messages: 60000,
        record: "record-61".into(),
        first_seq: 62000,
    });
    record.push(ConversationRow::Activity { id: 63000, last: 64000, messages: 65000 });
    record.push(ConversationRow::Ended {
        id: 66000,
        name: "name-67",
        first: 68000,
        last: 69000,
        messages: 70000,
        record: "record-71".into(),
        ended: 72000,
        first_seq: 73000,
    });
    record.push(ConversationRow::ActivityRemoved { id: 74000 });
    record.push(ConversationRow::EndedRemoved { before: -75 });
    record.push(OtherRow::Counters { seq: 76000, version: 77000 });
    record.push(OtherRow::Key {
        agent: "agent-78",
        key: "key-79",
        fingerprint: b"fingerprint-80",
        id: "id-81",
        conversation: "conversation-82",
        at: 83000,
    });
    record.push(OtherRow::KeysRemoved { before: -84 });
    record.push(OtherRow::Fired { agent: "agent-85", schedule: "schedule-86", at: 87000 });
    record.push(OtherRow::Event {
        id: -88,
        at: 89000,
        agent: Some("agent-90"),
        kind: "kind-91",
        data: "data-92".into(),
    });
    record.push(OtherRow::EventsRemoved { up_to: -93 });
    record.push(OtherRow::Revision {
        agent: "agent-94",
        number: 95000,
        digest: "digest-96",
        settings: "settings-97",
        created_at: 98000,
    });
    record.push(OtherRow::RevisionsRemoved { agent: "agent-99", before: 100000 });
    record
}

/// A record with every kind of row that was added to version 1 at the end, so that the bytes of those before stay.
pub(crate) fn added() -> Record<'static> {
    let mut record = Record::default();
    let agent = "agent-1";
    record.push(QueueRow::MailboxPaused { agent });
    record.push(QueueRow::MailboxResumed { agent });
    record.push(ConversationRow::Beginning { agent, conversation: "conversation-2", first: 3000, last: 4000 });
    record.push(ConversationRow::BeginningsRemoved { before: -5 });
    record.push(MemoryRow::Saved { agent, revision: 6, saved_at: 7000, data: b"data-8" });
    record.push(MemoryRow::SavedInPieces { agent, revision: 9, saved_at: 10000, pieces: 11, bytes: 12000 });
    record.push(MemoryRow::Piece { memory: 13, number: 14, data: b"data-15" });
    record.push(MemoryRow::PiecesRemoved { memory: 16, up_to: 17 });
    record.push(MemoryRow::Removed { agent });
    let (saved_at, data) = (19000, b"data-20");
    record.push(MemoryRow::HandedOver { agent, revision: 18, saved_at, data, pieces: Some(21), bytes: 22000 });
    record.push(MemoryRow::HandoffTaken { agent, revision: 23, saved_at: 24000 });
    record.push(MemoryRow::SavedHandedOver { agent, revision: 25 });
    record.push(MemoryRow::HandoffsRemoved { agent, revision: Some(26) });
    record.push(MemoryRow::HandoffsRemoved { agent, revision: None });
    record.push(StateCopyRow::Made {
        id: 27,
        agent,
        revision: 28,
        holds: "[29]".into(),
        at: 30000,
        keys: 31,
        bytes: 32000,
        mark: 33000,
        unfinished: true,
        migrated: false,
        rollout: 34,
    });
    record.push(StateCopyRow::Removed { agent, revision: Some(35) });
    record.push(StateCopyRow::Finished { agent, revision: 36, mark: 37000, migrated: true });
    record.push(StateCopyRow::RolloutRemoved { agent, revision: 38 });
    record.push(StateCopyRow::Restored { id: 39, agent, version: 40000, now: 41000 });
    record.push(RolloutRow::Ledger { agent, record: "record-42" });
    record.push(RolloutRow::LedgerRemoved { agent });
    record.push(RolloutRow::Difference { agent, rollout: 43, number: 44, record: "record-45" });
    record.push(RolloutRow::DifferencesRemoved { agent, up_to: -46 });
    let head = record.push_head(|heads| heads.extend_from_slice(b"head of recent"));
    record.push(RecentRow::Set {
        agent,
        seq: 47000,
        conversation: "conversation-48",
        rank: 1,
        head,
        content: b"content-49",
        answer: Some(b"answer-50"),
    });
    record.push(RecentRow::Removed { agent, before: -51 });
    record.push(ContentRow::Piece { content: 52, number: 53, data: b"data-54" });
    record.push(ContentRow::OfMessage { seq: 55000, content: 56 });
    record.push(ContentRow::OfTimer { seq: 57000, content: 58 });
    record.push(ContentRow::OfDead { seq: 59000, content: 60 });
    record.push(ContentRow::OfKey { agent, key: "key-61", content: 62 });
    record.push(ContentRow::PiecesRemoved { content: 63, up_to: 64 });
    record.push(ContentRow::Forgotten { content: 65 });
    record
}

/// A record with the rows of journals, which were added to version 1 after those of [`added`].
pub(crate) fn journal() -> Record<'static> {
    let mut record = Record::default();
    let hash = [1; 32];
    record.push(JournalRow::Begun { seq: 2000, hash, nth: 3, line: "line-4", at: 5000 });
    record.push(JournalRow::Ended { seq: 6000, hash, nth: 7, outcome: 200, response: b"response-8" });
    record.push(JournalRow::CallRemoved { seq: 9000, hash, nth: 10 });
    record.push(JournalRow::Removed { seq: 11000 });
    record.push(JournalRow::Moved { from: 12000, to: 13000 });
    record.push(RecentRow::Calls { agent: "agent-14", seq: 15000, calls: b"calls-16" });
    record
}

/// A record with the rows of trees, which were added to version 1 after those of [`journal`].
pub(crate) fn trees() -> Record<'static> {
    let mut record = Record::default();
    record.push(TreeRow::Set {
        id: "id-66",
        budget: "budget-67",
        conversation: "conversation-68",
        last: 69000,
        record: "record-70".into(),
    });
    record.push(TreeRow::Message { tree: "tree-71", seq: 72000 });
    record.push(TreeRow::Unlinked { up_to: 73000 });
    record.push(TreeRow::Removed { before: 74000, keep: 75 });
    record
}

fn golden(version: u8) -> PathBuf {
    testdata(&format!("record-{version}.hex"))
}

fn testdata(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("src/store/testdata").join(name)
}

/// Formats bytes as text, 32 a line, so that a change of the file can be reviewed.
fn to_hex(bytes: &[u8]) -> String {
    let line = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>() + "\n";
    bytes.chunks(32).map(line).collect()
}

fn from_hex(text: &str) -> Vec<u8> {
    let digits: String = text.split_whitespace().collect();
    (0..digits.len()).step_by(2).map(|at| u8::from_str_radix(&digits[at..at + 2], 16).unwrap()).collect()
}

#[test]
fn the_golden_bytes_of_every_version_are_read() {
    if std::env::var_os("UPDATE_GOLDEN").is_some() && !golden(VERSION).exists() {
        std::fs::write(golden(VERSION), to_hex(&encode(&sample()))).unwrap();
    }
    for version in 1..=VERSION {
        let bytes = from_hex(&std::fs::read_to_string(golden(version)).unwrap());
        assert_eq!(bytes[0], version);
        assert_eq!(decode(&bytes).unwrap(), sample(), "version {version}");
    }
    let now = to_hex(&encode(&sample()));
    assert_eq!(now, std::fs::read_to_string(golden(VERSION)).unwrap(), "a change of the format is another version");
}

#[test]
fn the_golden_bytes_of_added_rows_are_read() {
    let kept = [("added", added()), ("journal", journal()), ("trees", trees())];
    for (name, rows) in kept.map(|(name, rows)| (format!("record-1-{name}.hex"), rows)) {
        let path = testdata(&name);
        if std::env::var_os("UPDATE_GOLDEN").is_some() && !path.exists() {
            std::fs::write(&path, to_hex(&encode(&rows))).unwrap();
        }
        let golden = std::fs::read_to_string(&path).unwrap();
        assert_eq!(decode(&from_hex(&golden)).unwrap(), rows);
        assert_eq!(to_hex(&encode(&rows)), golden, "{name}: a change of the format is another version");
    }
}

#[test]
fn what_is_no_record_is_refused() {
    assert_eq!(decode(&[]).unwrap_err(), RecordError::Empty);
    assert_eq!(decode(&[VERSION + 1, 0]).unwrap_err(), RecordError::Version(VERSION + 1));
    let bytes = encode(&sample());
    for length in 1..bytes.len() {
        assert!(matches!(decode(&bytes[..length]), Err(RecordError::Malformed(_))), "{length} bytes");
    }
}
