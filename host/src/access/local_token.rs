//! The host's own token: created in the data folder at the first start, readable by its owner only.

use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// The name of the token's file in the data folder.
pub(crate) const TOKEN_FILE: &str = "token";
/// The least number of characters: a shorter token could be guessed.
const MIN_LENGTH: usize = 32;

/// The reason why the token cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TokenError {
    /// The file cannot be created or read.
    #[error("the token {} cannot be used: {source}", path.display())]
    File {
        /// The path of the file.
        path: PathBuf,
        /// The system's error.
        source: std::io::Error,
    },
    /// Users other than its owner may read it.
    #[error("{} can be read by others; `chmod 600` it if none of them did, else remove it and make new tokens", path.display())]
    Open {
        /// The path of the file.
        path: PathBuf,
    },
    /// The content is not a token.
    #[error(
        "the token {} is not one: it has fewer than {MIN_LENGTH} characters, or others than letters and digits; remove it, and the next start makes a new one",
        path.display()
    )]
    Broken {
        /// The path of the file.
        path: PathBuf,
    },
    /// The table of tokens cannot be read.
    #[error("the table of tokens {} is not one: {why}; put a copy in its place, or remove it and make the tokens again", path.display())]
    Table {
        /// The path of the file.
        path: PathBuf,
        /// The error, with its line.
        why: String,
    },
}

/// Reads the token from a file.
pub(crate) fn read_token(path: &Path) -> Result<String, TokenError> {
    let wrong = |source| TokenError::File { path: path.to_owned(), source };
    check_private(path)?;
    let text = fs::read_to_string(path).map_err(wrong)?;
    // An editor may have added a line feed.
    let token = text.trim();
    if token.len() < MIN_LENGTH || !token.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
        return Err(TokenError::Broken { path: path.to_owned() });
    }
    Ok(token.to_owned())
}

/// Refuses a file that others may read or write: they could control the host.
pub(super) fn check_private(path: &Path) -> Result<(), TokenError> {
    let metadata = fs::metadata(path).map_err(|source| TokenError::File { path: path.to_owned(), source })?;
    if metadata.permissions().mode() & 0o077 != 0 {
        return Err(TokenError::Open { path: path.to_owned() });
    }
    Ok(())
}

/// Reads the token of a data folder, and creates it if there is none. Returns it with the time it was made.
pub(super) fn load_or_make(data: &Path) -> Result<(String, u64), TokenError> {
    let path = data.join(TOKEN_FILE);
    let wrong = |source| TokenError::File { path: path.clone(), source };
    if !path.exists() {
        write_token(data, &new_token()).map_err(wrong)?;
    }
    let text = read_token(&path)?;
    let modified = fs::metadata(&path).and_then(|metadata| metadata.modified()).map_err(wrong)?;
    let made_at = modified.duration_since(std::time::UNIX_EPOCH).map_or(0, |since| since.as_millis());
    Ok((text, u64::try_from(made_at).unwrap_or(u64::MAX)))
}

/// Makes the text of a token: 256 bits, beyond any guess. As hex digits they fit into a header and a shell without
/// quotes.
pub(super) fn new_token() -> String {
    let bytes: [u8; 32] = rand::random();
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Writes the host's own token.
pub(super) fn write_token(data: &Path, text: &str) -> std::io::Result<()> {
    write_durably(&data.join(TOKEN_FILE), &format!("{text}\n"))
}

/// Replaces a file as a whole. It is readable by its owner only from the start, and durable on return.
pub(super) fn write_durably(path: &Path, text: &str) -> std::io::Result<()> {
    let folder = path.parent().unwrap_or(Path::new("."));
    // A temporary file of its own name: it follows no link, and has the mode 0600.
    let mut file = tempfile::NamedTempFile::new_in(folder)?;
    file.write_all(text.as_bytes())?;
    // A token that is lost in a power cut would lock out the clients that have read it.
    file.as_file().sync_all()?;
    file.persist(path)?;
    // A rename is durable only once its folder is synced.
    fs::File::open(folder)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_created_once_and_private() {
        let folder = tempfile::tempdir().unwrap();
        let (made, _) = load_or_make(folder.path()).unwrap();
        let path = folder.path().join(TOKEN_FILE);
        assert_eq!(made, read_token(&path).unwrap());
        assert_eq!(made.len(), 64);
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(load_or_make(folder.path()).unwrap().0, made);
        assert_ne!(new_token(), new_token());
    }

    #[test]
    fn unsafe_tokens_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(TOKEN_FILE);
        for (text, mode, expected) in [
            ("a".repeat(64), 0o640, "can be read by others"),
            ("short".to_owned(), 0o600, "is not one"),
            (String::new(), 0o600, "is not one"),
            ("a b".repeat(20), 0o600, "is not one"),
        ] {
            fs::write(&path, &text).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            let error = load_or_make(folder.path()).unwrap_err().to_string();
            assert!(error.contains(expected), "{text:?}: {error}");
        }
    }
}
