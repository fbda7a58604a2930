//! The banks' books, read from a database that no host has open.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use rusqlite::Connection;
use serde_json::Value;

use crate::bank::PUT_IN;
use crate::load::{Response, Sent};

/// The data folder within that of a host's file.
const DATA: &str = ".caxton";
/// The files of a database; the third that SQLite makes is of no use without its process.
const FILES: [&str; 2] = ["caxton.db", "caxton.db-wal"];

/// A transfer or deposit that is kept as a message.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Note {
    /// `ID/transfer` or `ID/deposit-AT`; none for anything else.
    what: Option<String>,
    /// The money that is on its way with it.
    amount: i64,
}

impl Note {
    fn read(content: &[u8]) -> Self {
        let order: Value = serde_json::from_slice(content).unwrap_or_default();
        let id = order["id"].as_str().unwrap_or_default();
        match order["do"].as_str() {
            Some("transfer") => Self { what: Some(format!("{id}/transfer")), amount: 0 },
            Some("deposit") => Self {
                what: Some(format!("{id}/deposit-{}", order["at"])),
                amount: order["amount"].as_i64().unwrap_or_default(),
            },
            _ => Self { what: None, amount: 0 },
        }
    }
}

/// The content of a database.
#[derive(Debug, Default)]
pub(crate) struct Books {
    accounts: BTreeMap<String, i64>,
    seen: BTreeMap<String, i64>,
    disorder: i64,
    waiting: Vec<Note>,
    dead: Vec<Note>,
    /// Ids of messages that were taken from outside.
    taken: BTreeSet<String>,
    /// The number of dead letters whose message is recorded as given up.
    given_up: i64,
    /// The contradictions inside the database.
    wrong: Vec<String>,
}

/// Copies the database of a host that does not run, or stands still, into a folder.
pub(crate) fn copy(from: &Path, to: &Path) -> PathBuf {
    let data = to.join(DATA);
    fs::create_dir_all(&data).expect("the folder can be written to");
    for file in FILES {
        let from = from.join(DATA).join(file);
        if from.exists() {
            fs::copy(&from, data.join(file)).expect("the database can be copied");
        }
    }
    data.join(FILES[0])
}

/// The database of a host's folder.
pub(crate) fn database(folder: &Path) -> PathBuf {
    folder.join(DATA).join(FILES[0])
}

/// The log of a database.
pub(crate) fn log(database: &Path) -> PathBuf {
    database.with_file_name(FILES[1])
}

/// Returns the path of the shared-memory index of the write-ahead log.
pub(crate) fn index(folder: &Path) -> PathBuf {
    folder.join(DATA).join("caxton.db-shm")
}

impl Books {
    /// Reads the books of a host that does not run, from a copy, so that its next start finds the files as they were left.
    pub(crate) fn of(folder: &Path) -> Self {
        let copies = tempfile::tempdir().expect("a temporary folder");
        Self::read(&copy(folder, copies.path())).expect("the database can be read")
    }

    /// Reads a database that no other process has open.
    pub(crate) fn read(database: &Path) -> rusqlite::Result<Self> {
        let connection = Connection::open(database)?;
        let mut books = Self::default();
        books.read_state(&connection)?;
        books.read_messages(&connection)?;
        books.read_itself(&connection)?;
        Ok(books)
    }

    fn read_state(&mut self, connection: &Connection) -> rusqlite::Result<()> {
        let mut rows = connection.prepare("SELECT agent, key, value FROM state")?;
        let mut rows = rows.query([])?;
        while let Some(row) = rows.next()? {
            let (agent, key, value): (String, String, Vec<u8>) = (row.get(0)?, row.get(1)?, row.get(2)?);
            let number = || String::from_utf8_lossy(&value).parse::<i64>().expect("banks keep numbers");
            if let Some(account) = key.strip_prefix("account/") {
                self.accounts.insert(format!("{agent}/{account}"), number());
            } else if let Some(what) = key.strip_prefix("seen/") {
                *self.seen.entry(what.to_owned()).or_default() += number();
            } else if key == "disorder" {
                self.disorder += number();
            }
        }
        Ok(())
    }

    fn read_messages(&mut self, connection: &Connection) -> rusqlite::Result<()> {
        let waiting = "SELECT content, placed FROM message WHERE seq NOT IN (SELECT seq FROM ack)
                       UNION ALL SELECT content, placed FROM timer";
        let mut pieces = connection.prepare("SELECT data FROM content_piece WHERE content = ?1 ORDER BY number")?;
        for (sql, into) in [(waiting, &mut self.waiting), ("SELECT content, placed FROM dead", &mut self.dead)] {
            let mut rows = connection.prepare(sql)?;
            let mut rows = rows.query([])?;
            while let Some(row) = rows.next()? {
                let (mut content, placed): (Vec<u8>, Option<i64>) = (row.get(0)?, row.get(1)?);
                if placed.is_some() {
                    for piece in pieces.query_map([placed], |row| row.get::<_, Vec<u8>>(0))? {
                        content.extend(piece?);
                    }
                }
                into.push(Note::read(&content));
            }
        }
        let mut rows = connection.prepare("SELECT receipt FROM message WHERE receipt IS NOT NULL")?;
        self.taken = rows.query_map([], |row| row.get(0))?.collect::<rusqlite::Result<_>>()?;
        Ok(())
    }

    /// Compares the figures that the store keeps twice.
    fn read_itself(&mut self, connection: &Connection) -> rusqlite::Result<()> {
        let text = |sql: &str| connection.query_row(sql, [], |row| row.get::<_, String>(0));
        let count = |sql: &str| connection.query_row(sql, [], |row| row.get::<_, i64>(0));
        let integrity = text("PRAGMA integrity_check")?;
        if integrity != "ok" {
            self.wrong.push(format!("SQLite says: {integrity}"));
        }
        for (what, sql) in [
            ("messages are acknowledged that are not there", "SELECT count(*) FROM ack WHERE seq NOT IN (SELECT seq FROM message)"),
            (
                "agents have another size of state than is kept",
                "SELECT count(*) FROM state_size AS s WHERE bytes <> (SELECT coalesce(sum(length(CAST(key AS BLOB)) + length(value)), 0)
                 FROM state WHERE state.agent = s.agent)",
            ),
            ("states are newer than the newest", "SELECT count(*) FROM state WHERE version > (SELECT value FROM meta WHERE key = 'version')"),
            (
                "contents are of no row",
                "SELECT count(DISTINCT content) FROM content_piece WHERE content NOT IN (SELECT content FROM unplaced
                 UNION SELECT placed FROM message WHERE placed IS NOT NULL UNION SELECT placed FROM timer WHERE placed IS NOT NULL
                 UNION SELECT placed FROM dead WHERE placed IS NOT NULL)",
            ),
            (
                "contents of messages are not there",
                "SELECT count(*) FROM (SELECT placed FROM message UNION ALL SELECT placed FROM timer UNION ALL SELECT placed FROM dead)
                 WHERE placed IS NOT NULL AND placed NOT IN (SELECT content FROM content_piece)",
            ),
            ("messages are newer than the newest", "SELECT count(*) FROM message WHERE seq > (SELECT value FROM meta WHERE key = 'seq')"),
        ] {
            let found = count(sql)?;
            if found != 0 {
                self.wrong.push(format!("{found} {what}"));
            }
        }
        self.given_up = count("SELECT count(*) FROM ack WHERE revision = 0 AND seq IN (SELECT seq FROM dead)")?;
        Ok(())
    }

    /// Messages that wait.
    pub(crate) fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// Returns the number of dead letters.
    pub(crate) fn dead(&self) -> usize {
        self.dead.len()
    }

    /// Returns the number of effects.
    pub(crate) fn effects(&self) -> usize {
        self.seen.len()
    }

    /// Returns the sum of all accounts.
    pub(crate) fn in_accounts(&self) -> i64 {
        self.accounts.values().sum()
    }

    /// Returns all effect counts in order.
    pub(crate) fn seen(&self) -> Vec<(String, i64)> {
        self.seen.iter().map(|(what, count)| (what.clone(), *count)).collect()
    }

    /// Returns all money: in accounts, in messages on their way, and in dead letters.
    fn money(&self) -> i64 {
        let of = |notes: &[Note]| notes.iter().map(|note| note.amount).sum::<i64>();
        self.in_accounts() + of(&self.waiting) + of(&self.dead)
    }

    /// Returns the violations of the rules that hold at every moment.
    pub(crate) fn wrong(&self) -> Vec<String> {
        let mut wrong = self.wrong.clone();
        if self.money() != PUT_IN {
            wrong.push(format!("{PUT_IN} was put in, {} is there", self.money()));
        }
        if self.disorder != 0 {
            wrong.push(format!("{} messages came before an earlier one of their conversation", self.disorder));
        }
        wrong.extend(self.seen.iter().filter(|(_, n)| **n != 1).map(|(what, n)| format!("{what} happened {n} times")));
        let mut kept = BTreeMap::new();
        for note in self.waiting.iter().chain(&self.dead) {
            let Some(what) = &note.what else { continue };
            *kept.entry(what).or_insert(0) += 1;
            if self.seen.contains_key(what) {
                wrong.push(format!("{what} happened and is still kept"));
            }
        }
        wrong.extend(kept.iter().filter(|(_, n)| **n != 1).map(|(what, n)| format!("{what} is kept {n} times")));
        wrong
    }

    /// Returns the acknowledged transfers that are missing, in a store that keeps all handled messages.
    pub(crate) fn missing(&self, sent: &[Sent]) -> Vec<String> {
        let letters = self.dead.len() as i64;
        let other = (self.given_up != letters).then(|| format!("{letters} are dead, {} were given up", self.given_up));
        let missing = |sent: &Sent| match &sent.response {
            Response::Accepted(id) => (!self.taken.contains(id)).then(|| format!("{} was accepted", sent.transfer.id)),
            Response::Unknown | Response::Refused => None,
        };
        sent.iter().filter_map(missing).chain(other).collect()
    }

    /// Returns the violations at rest: each transfer has all its effects and its dead letter, or, if it was never
    /// acknowledged, none.
    pub(crate) fn unsettled(&self, sent: &[Sent]) -> Vec<String> {
        let mut wrong = Vec::new();
        if !self.waiting.is_empty() {
            wrong.push(format!("{} messages wait: {:?}", self.waiting.len(), self.waiting.first()));
        }
        let dead: BTreeSet<&str> = self.dead.iter().filter_map(|note| note.what.as_deref()).collect();
        let (mut effects, mut letters) = (0, 0);
        for Sent { transfer, response } in sent {
            let (seen, buried) = transfer.effects();
            let there = seen.iter().filter(|what| self.seen.contains_key(*what)).count();
            let buried_there = buried.as_deref().is_some_and(|what| dead.contains(what));
            let whole = there == seen.len() && buried_there == buried.is_some();
            let none = there == 0 && !buried_there;
            let right = match response {
                Response::Accepted(_) => whole,
                Response::Unknown => whole || none,
                Response::Refused => none,
            };
            if !right {
                wrong.push(format!("{response:?} {transfer:?}: {there} of {seen:?}, dead letter: {buried_there}"));
            }
            effects += there;
            letters += usize::from(buried_there);
        }
        if (effects, letters) != (self.seen.len(), self.dead.len()) {
            wrong.push(format!(
                "{} effects and {} dead letters are there; {effects} and {letters} have a transfer",
                self.seen.len(),
                self.dead.len()
            ));
        }
        wrong
    }
}
