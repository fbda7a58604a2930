//! The content of a message or a value, given as an argument.

use std::io::Read;

use super::output::{CliError, Exit};

/// Returns the bytes that an argument stands for: text, `@FILE`, or `-` for standard input.
pub(super) fn read_content(body: Option<&str>) -> Result<Vec<u8>, CliError> {
    let wrong = |what: &str, error: std::io::Error| CliError::new(Exit::Usage, format!("reading {what}: {error}"));
    match body {
        None => Ok(Vec::new()),
        Some("-") => {
            let mut bytes = Vec::new();
            std::io::stdin().lock().read_to_end(&mut bytes).map_err(|error| wrong("standard input", error))?;
            Ok(bytes)
        }
        Some(text) => match text.strip_prefix('@') {
            Some(file) => std::fs::read(file).map_err(|error| wrong(file, error)),
            None => Ok(text.as_bytes().to_vec()),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_are_text_or_files() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("body");
        std::fs::write(&path, b"\x00\x01").unwrap();
        assert_eq!(read_content(None).unwrap(), b"");
        assert_eq!(read_content(Some("hello")).unwrap(), b"hello");
        assert_eq!(read_content(Some(&format!("@{}", path.display()))).unwrap(), b"\x00\x01");
        let error = read_content(Some("@/nowhere")).unwrap_err();
        assert_eq!(error.exit, Exit::Usage);
        assert!(error.message.unwrap().starts_with("reading /nowhere: "));
    }
}
