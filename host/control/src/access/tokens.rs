//! The table of tokens: names, roles, digests and expiry. Texts of tokens are nowhere in it.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;

use super::role::Role;
pub use crate::names::TokenName;

/// The name of the token that each host makes for the commands on its own machine, in a file of the data folder.
pub const LOCAL_TOKEN: &str = "local";
/// The most tokens of a host: each request is compared with all of them.
pub const MAX_TOKENS: usize = 1_000;

/// The SHA-256 of a token. Tokens are random, so that a slow hash would protect them no better.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct TokenDigest([u8; 32]);

impl TokenDigest {
    /// The digest of nothing that exists.
    pub const ZERO: Self = Self([0; 32]);

    /// Returns a digest that was computed elsewhere.
    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// Returns the bytes of the digest.
    pub fn bytes(&self) -> [u8; 32] {
        self.0
    }

    /// Computes the digest of a token.
    pub fn of(text: &str) -> Self {
        Self(Sha256::digest(text.as_bytes()).into())
    }

    /// Parses 64 hexadecimal digits.
    pub fn parse(text: &str) -> Option<Self> {
        let mut bytes = [0; 32];
        // The length first: a pair of digits is looked up by its position.
        if text.len() != 64 || !text.is_ascii() {
            return None;
        }
        for (at, byte) in bytes.iter_mut().enumerate() {
            // A sign would be taken by the parser of numbers.
            let pair = text.get(2 * at..2 * at + 2).filter(|pair| !pair.starts_with('+'))?;
            *byte = u8::from_str_radix(pair, 16).ok()?;
        }
        Some(Self(bytes))
    }

    /// Compares two digests. The time it takes tells nothing about where they differ.
    pub fn is(&self, other: &Self) -> bool {
        self.0.ct_eq(&other.0).into()
    }
}

impl fmt::Display for TokenDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for TokenDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for TokenDigest {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for TokenDigest {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse(&text).ok_or_else(|| serde::de::Error::custom("a digest has 64 hexadecimal digits"))
    }
}

/// A token without its text.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TokenRecord {
    /// The permissions.
    pub role: Role,
    /// The digest of the text.
    pub sha256: TokenDigest,
    /// The time it was made, or rotated last, in milliseconds since 1970.
    pub made_at: u64,
    /// The time from which it is refused, in milliseconds since 1970; `None` for never.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<u64>,
}

impl TokenRecord {
    /// Returns `true` if the token has expired.
    pub fn is_expired(&self, now: u64) -> bool {
        self.expires_at.is_some_and(|at| at <= now)
    }
}

/// The tokens of a host by name.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct TokenTable {
    tokens: BTreeMap<TokenName, TokenRecord>,
}

/// The reason why a given token is refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TokenRefusal {
    /// No token has this text.
    Unknown,
    /// The token of this name has expired.
    Expired(TokenName),
}

/// The reason why the table cannot be changed so.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TokenTableError {
    /// Another token has the name.
    #[error("there is a token `{0}` already; rotate it, or end it first")]
    Exists(TokenName),
    /// No token has the name.
    #[error("there is no token `{0}`")]
    Missing(TokenName),
    /// The host's own token cannot be ended.
    #[error("the token `{LOCAL_TOKEN}` is that of the commands on this machine, and cannot be ended; rotate it")]
    Local,
    /// The table is full.
    #[error("there are {MAX_TOKENS} tokens already; end some of them first")]
    Full,
}

impl TokenTable {
    /// Returns the token with this digest.
    ///
    /// # Errors
    /// No token has it, or the one that has it is expired at `now`.
    pub fn find(&self, digest: &TokenDigest, now: u64) -> Result<(&TokenName, &TokenRecord), TokenRefusal> {
        let mut found = None;
        for token in &self.tokens {
            // All of them are compared, so that the time does not tell where in the list a token is.
            if token.1.sha256.is(digest) {
                found = Some(token);
            }
        }
        let (name, record) = found.ok_or(TokenRefusal::Unknown)?;
        if record.is_expired(now) { Err(TokenRefusal::Expired(name.clone())) } else { Ok((name, record)) }
    }

    /// Returns the token of a name.
    pub fn get(&self, name: &str) -> Option<&TokenRecord> {
        self.tokens.get(name)
    }

    /// Returns all tokens in order of name.
    pub fn all(&self) -> impl Iterator<Item = (&TokenName, &TokenRecord)> {
        self.tokens.iter()
    }

    /// Adds a token.
    ///
    /// # Errors
    /// The name is taken, or the table is full.
    pub fn add(&mut self, name: TokenName, record: TokenRecord) -> Result<(), TokenTableError> {
        if self.tokens.contains_key(&name) {
            return Err(TokenTableError::Exists(name));
        }
        if self.tokens.len() >= MAX_TOKENS {
            return Err(TokenTableError::Full);
        }
        self.tokens.insert(name, record);
        Ok(())
    }

    /// Gives a token another text at `now`. One that expires gets its whole time again.
    ///
    /// # Errors
    /// No token has the name.
    pub fn rotate(&mut self, name: &TokenName, sha256: TokenDigest, now: u64) -> Result<&TokenRecord, TokenTableError> {
        let record = self.tokens.get_mut(name).ok_or_else(|| TokenTableError::Missing(name.clone()))?;
        let lifetime = record.expires_at.map(|at| at.saturating_sub(record.made_at));
        record.sha256 = sha256;
        record.made_at = now;
        record.expires_at = lifetime.map(|lifetime| now.saturating_add(lifetime));
        Ok(record)
    }

    /// Removes a token.
    ///
    /// # Errors
    /// No token has the name, or it is that of the host itself.
    pub fn end(&mut self, name: &TokenName) -> Result<TokenRecord, TokenTableError> {
        if name.as_str() == LOCAL_TOKEN {
            return Err(TokenTableError::Local);
        }
        self.tokens.remove(name).ok_or_else(|| TokenTableError::Missing(name.clone()))
    }

    /// Returns the table without the host's own token, whose text is in a file of its own.
    #[must_use]
    pub fn without_local(&self) -> Self {
        let mut table = self.clone();
        table.tokens.remove(LOCAL_TOKEN);
        table
    }

    /// Sets the host's own token.
    pub fn set_local(&mut self, sha256: TokenDigest, made_at: u64) {
        let name = LOCAL_TOKEN.parse().expect("follows the rule for names");
        self.tokens.insert(name, TokenRecord { role: Role::Admin, sha256, made_at, expires_at: None });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> TokenName {
        text.parse().unwrap()
    }

    fn record(text: &str, expires_at: Option<u64>) -> TokenRecord {
        TokenRecord { role: Role::Read, sha256: TokenDigest::of(text), made_at: 100, expires_at }
    }

    #[test]
    fn tokens_are_found_by_their_text_until_they_expire() {
        let mut table = TokenTable::default();
        table.add(name("ci"), record("one", None)).unwrap();
        table.add(name("guest"), record("two", Some(200))).unwrap();
        table.set_local(TokenDigest::of("three"), 50);
        let find = |text: &str, now| {
            table.find(&TokenDigest::of(text), now).map(|(name, record)| (name.to_string(), record.role))
        };
        assert_eq!(find("one", 0), Ok(("ci".to_owned(), Role::Read)));
        assert_eq!(find("two", 199), Ok(("guest".to_owned(), Role::Read)));
        assert_eq!(find("two", 200), Err(TokenRefusal::Expired(name("guest"))));
        assert_eq!(find("three", 0), Ok(("local".to_owned(), Role::Admin)));
        assert_eq!(find("four", 0), Err(TokenRefusal::Unknown));
    }

    #[test]
    fn the_table_changes_by_its_rules() {
        let mut table = TokenTable::default();
        table.set_local(TokenDigest::of("local"), 0);
        table.add(name("ci"), record("one", Some(350))).unwrap();
        assert_eq!(table.add(name("ci"), record("x", None)), Err(TokenTableError::Exists(name("ci"))));
        assert_eq!(table.end(&name("local")), Err(TokenTableError::Local));
        assert_eq!(table.end(&name("other")), Err(TokenTableError::Missing(name("other"))));
        let rotated = table.rotate(&name("ci"), TokenDigest::of("two"), 1_000).unwrap().clone();
        assert_eq!((rotated.made_at, rotated.expires_at), (1_000, Some(1_250)), "its whole time again");
        assert_eq!(table.find(&TokenDigest::of("one"), 0), Err(TokenRefusal::Unknown));
        table.end(&name("ci")).unwrap();
        assert_eq!(table.all().count(), 1);
        for number in 1..MAX_TOKENS {
            table.add(name(&format!("t{number}")), record("x", None)).unwrap();
        }
        assert_eq!(table.add(name("one-more"), record("x", None)), Err(TokenTableError::Full));
    }

    #[test]
    fn the_file_has_digests_and_is_read_back() {
        let mut table = TokenTable::default();
        table.set_local(TokenDigest::of("local"), 0);
        table.add(name("ci"), record("one", Some(7))).unwrap();
        let text = serde_json::to_string(&table.without_local()).unwrap();
        assert_eq!(
            text,
            r#"{"ci":{"role":"read","sha256":"7692c3ad3540bb803c020b3aee66cd8887123234ea0c6e7143c0add73ff431ed","made_at":100,"expires_at":7}}"#
        );
        assert_eq!(serde_json::from_str::<TokenTable>(&text).unwrap(), table.without_local());
        for broken in ["7692", &"g".repeat(64), &"+".repeat(64), &"é".repeat(32)] {
            assert_eq!(TokenDigest::parse(broken), None, "{broken}");
        }
    }
}
