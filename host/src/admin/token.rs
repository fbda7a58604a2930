//! The token of the API: created in the data folder at the first start, readable by its owner only.

use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

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
    #[error("the token {} can be read by others; remove it, and the next start makes a new one", path.display())]
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
}

/// The digest of the token. The text itself is not kept in memory.
#[derive(Debug)]
pub(super) struct Token {
    digest: [u8; 32],
    fingerprint: String,
}

impl Token {
    fn new(text: &str) -> Self {
        let digest: [u8; 32] = Sha256::digest(text.as_bytes()).into();
        let fingerprint = digest[..4].iter().map(|byte| format!("{byte:02x}")).collect();
        Self { digest, fingerprint }
    }

    /// Compares with a text. The time it takes reveals nothing about the token: digests are compared, and always all of
    /// their bytes.
    pub(super) fn is(&self, text: &str) -> bool {
        let given: [u8; 32] = Sha256::digest(text.as_bytes()).into();
        let different = self.digest.iter().zip(given).fold(0, |different, (ours, theirs)| different | (ours ^ theirs));
        // Keeps the compiler from ending the loop at the first difference.
        std::hint::black_box(different) == 0
    }

    /// Returns eight digits that identify the token in the event log without revealing it.
    pub(super) fn fingerprint(&self) -> &str {
        &self.fingerprint
    }
}

/// Reads the token from a file.
pub(crate) fn read_token(path: &Path) -> Result<String, TokenError> {
    let wrong = |source| TokenError::File { path: path.to_owned(), source };
    let mode = fs::metadata(path).map_err(wrong)?.permissions().mode();
    // A token that others can read is refused rather than used: they could control the host.
    if mode & 0o077 != 0 {
        return Err(TokenError::Open { path: path.to_owned() });
    }
    let text = fs::read_to_string(path).map_err(wrong)?;
    // An editor may have added a line feed.
    let token = text.trim();
    if token.len() < MIN_LENGTH || !token.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
        return Err(TokenError::Broken { path: path.to_owned() });
    }
    Ok(token.to_owned())
}

/// Reads the token of a data folder, and creates it if there is none.
pub(super) fn load_or_make(data: &Path) -> Result<Token, TokenError> {
    let path = data.join(TOKEN_FILE);
    if !path.exists() {
        make(data, &path).map_err(|source| TokenError::File { path: path.clone(), source })?;
    }
    read_token(&path).map(|text| Token::new(&text))
}

fn make(data: &Path, path: &Path) -> std::io::Result<()> {
    // 256 bits, beyond any guess. As hex digits they fit into a header and a shell without quotes.
    let bytes: [u8; 32] = rand::random();
    let text: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    // Replaced as a whole, and from the start readable by its owner only.
    let mut file = tempfile::NamedTempFile::new_in(data)?;
    writeln!(file, "{text}")?;
    // A token that is lost in a power cut would lock out the clients that have read it.
    file.as_file().sync_all()?;
    file.persist(path)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_created_once_and_private() {
        let folder = tempfile::tempdir().unwrap();
        let made = load_or_make(folder.path()).unwrap();
        let path = folder.path().join(TOKEN_FILE);
        let text = read_token(&path).unwrap();
        assert_eq!(text.len(), 64);
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert!(made.is(&text) && load_or_make(folder.path()).unwrap().is(&text));
        assert!(!made.is("") && !made.is(&text[1..]) && !made.is(&text.to_uppercase()));
        assert_eq!(made.fingerprint().len(), 8);
        assert!(!text.contains(made.fingerprint()), "the fingerprint gives nothing away");
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
