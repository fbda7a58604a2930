//! The tokens of the API: kept as digests in a file of the data folder, and in memory while the host runs.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arc_swap::ArcSwap;
use caxton_control::access::{
    LOCAL_TOKEN, Role, TokenDigest, TokenName, TokenRecord, TokenRefusal, TokenTable, TokenTableError,
};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use super::identity::Identity;
use super::local_token::{TokenError, check_private, load_or_make, new_token, write_durably, write_token};
use crate::clock;

/// The name of the table's file in the data folder.
const TABLE_FILE: &str = "tokens.json";
/// The format of the table's file.
const FORMAT: u32 = 1;

/// The content of the table's file.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct TokensFile {
    format: u32,
    tokens: TokenTable,
}

/// The reason why a token was not made, rotated or ended.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TokenChangeError {
    /// The rules of the table.
    #[error(transparent)]
    Table(#[from] TokenTableError),
    /// The file cannot be written.
    #[error("the tokens in {} cannot be written: {source}", folder.display())]
    File {
        /// The data folder.
        folder: PathBuf,
        /// The system's error.
        source: std::io::Error,
    },
}

/// A token with its text, which is shown once and kept nowhere.
#[derive(Debug)]
pub(crate) struct MadeToken {
    pub(crate) text: String,
    pub(crate) record: TokenRecord,
}

/// The tokens of a data folder. Only the holder of the folder's lock may open them, so that the file has one writer.
pub(crate) struct Tokens {
    folder: PathBuf,
    /// Read by each request without a lock.
    table: ArcSwap<TokenTable>,
    // Held over the write of the file: two changes at once would lose one.
    changing: Mutex<()>,
}

impl Tokens {
    /// Reads the tokens of a data folder. Makes the host's own if there is none.
    pub(super) fn open(folder: &Path) -> Result<Self, TokenError> {
        let mut table = read_table(&folder.join(TABLE_FILE))?;
        let (text, made_at) = load_or_make(folder)?;
        table.set_local(TokenDigest::of(&text), made_at);
        Ok(Self { folder: folder.to_owned(), table: ArcSwap::from_pointee(table), changing: Mutex::default() })
    }

    /// Finds the token with this text.
    pub(super) fn find(&self, text: &str, now: u64) -> Result<Identity, TokenRefusal> {
        let table = self.table.load();
        let (name, record) = table.find(&TokenDigest::of(text), now)?;
        Ok(Identity { name: name.clone(), role: record.role })
    }

    /// Returns the tokens.
    pub(crate) fn table(&self) -> Arc<TokenTable> {
        self.table.load_full()
    }

    /// Makes a token that expires after this many milliseconds. Blocks until it is on the disk.
    pub(crate) fn make(
        &self,
        name: &TokenName,
        role: Role,
        life_ms: Option<u64>,
    ) -> Result<MadeToken, TokenChangeError> {
        let text = new_token();
        let made_at = clock::now_ms();
        let expires_at = life_ms.map(|life| made_at.saturating_add(life));
        let record = TokenRecord { role, sha256: TokenDigest::of(&text), made_at, expires_at };
        self.change(|table| table.add(name.clone(), record.clone()))?;
        Ok(MadeToken { text, record })
    }

    /// Gives a token another text. The old one is refused from then on. Blocks until the new one is on the disk.
    pub(crate) fn rotate(&self, name: &TokenName) -> Result<MadeToken, TokenChangeError> {
        let text = new_token();
        let digest = TokenDigest::of(&text);
        let is_local = name.as_str() == LOCAL_TOKEN;
        let record = self.change(|table| {
            let record = table.rotate(name, digest, clock::now_ms())?.clone();
            // Its text is in a file, where the commands on this machine find it.
            if is_local {
                write_token(&self.folder, &text).map_err(|source| self.unwritten(source))?;
            }
            Ok::<_, TokenChangeError>(record)
        })?;
        Ok(MadeToken { text, record })
    }

    /// Ends a token. Blocks until that is on the disk.
    pub(crate) fn end(&self, name: &TokenName) -> Result<TokenRecord, TokenChangeError> {
        self.change(|table| table.end(name))
    }

    fn change<T, E>(&self, change: impl FnOnce(&mut TokenTable) -> Result<T, E>) -> Result<T, TokenChangeError>
    where
        TokenChangeError: From<E>,
    {
        let _changing = self.changing.lock();
        let mut table = TokenTable::clone(&self.table.load());
        let changed = change(&mut table)?;
        let file = TokensFile { format: FORMAT, tokens: table.without_local() };
        let text = serde_json::to_string_pretty(&file).expect("names and numbers can be written") + "\n";
        // Before it is in force: a token that was ended must not come back with the next start.
        write_durably(&self.folder.join(TABLE_FILE), &text).map_err(|source| self.unwritten(source))?;
        self.table.store(Arc::new(table));
        Ok(changed)
    }

    fn unwritten(&self, source: std::io::Error) -> TokenChangeError {
        TokenChangeError::File { folder: self.folder.clone(), source }
    }
}

/// Reads the table; an empty one if there is no file.
fn read_table(path: &Path) -> Result<TokenTable, TokenError> {
    let text = match fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(TokenTable::default()),
        Err(source) => return Err(TokenError::File { path: path.to_owned(), source }),
    };
    check_private(path)?;
    let wrong = |why: String| TokenError::Table { path: path.to_owned(), why };
    let file: TokensFile = serde_json::from_str(&text).map_err(|error| wrong(error.to_string()))?;
    match file.format {
        FORMAT => Ok(file.tokens),
        other => Err(wrong(format!("it has format {other}, and this version of Caxton reads format {FORMAT}"))),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn name(text: &str) -> TokenName {
        text.parse().unwrap()
    }

    #[test]
    fn tokens_outlive_the_host_and_their_texts_are_kept_nowhere() {
        let folder = tempfile::tempdir().unwrap();
        let tokens = Tokens::open(folder.path()).unwrap();
        let made = tokens.make(&name("ci"), Role::Operate, None).unwrap();
        let gone = tokens.make(&name("gone"), Role::Read, None).unwrap();
        tokens.end(&name("gone")).unwrap();
        let again = Tokens::open(folder.path()).unwrap();
        let found = again.find(&made.text, 0).unwrap();
        assert_eq!((found.name.as_str(), found.role), ("ci", Role::Operate));
        assert_eq!(again.find(&gone.text, 0), Err(TokenRefusal::Unknown));
        let path = folder.path().join(TABLE_FILE);
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let text = fs::read_to_string(&path).unwrap();
        assert!(!text.contains(&made.text) && !text.contains("local"), "{text}");
    }

    #[test]
    fn rotated_tokens_replace_the_old_ones() {
        let folder = tempfile::tempdir().unwrap();
        let tokens = Tokens::open(folder.path()).unwrap();
        let old = fs::read_to_string(folder.path().join("token")).unwrap();
        let made = tokens.rotate(&name("local")).unwrap();
        assert_eq!(tokens.find(old.trim(), 0), Err(TokenRefusal::Unknown));
        assert_eq!(tokens.find(&made.text, 0).unwrap().role, Role::Admin);
        assert_eq!(fs::read_to_string(folder.path().join("token")).unwrap().trim(), made.text);
        assert!(matches!(tokens.rotate(&name("nobody")), Err(TokenChangeError::Table(TokenTableError::Missing(_)))));
    }

    #[test]
    fn broken_tables_are_refused_with_their_line() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(TABLE_FILE);
        for (text, mode, expected) in [
            ("{", 0o600, "line 1"),
            ("{\"format\":2,\"tokens\":{}}", 0o600, "this version of Caxton reads format 1"),
            ("{\"format\":1,\"tokens\":{\"ci\":{\"role\":\"root\"}}}", 0o600, "unknown variant `root`"),
            ("{\"format\":1,\"tokens\":{}}", 0o644, "can be read by others"),
        ] {
            fs::write(&path, text).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            let error = Tokens::open(folder.path()).err().unwrap().to_string();
            assert!(error.contains(expected), "{text}: {error}");
        }
    }
}
