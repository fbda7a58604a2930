//! Folders of the host that an agent sees (`allow.files`).

use std::fmt;

use serde::{Deserialize, Serialize};

/// The longest name of a folder in bytes, as most systems have it for a path.
const MAX_NAME: usize = 4_096;

/// A folder that an agent sees. Stored with the settings of a revision, in the form in which it is written.
// By name first, which is unique in an agent.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "WrittenFolder", into = "WrittenFolder")]
pub struct FolderGrant {
    name: String,
    folder: String,
    write: bool,
}

/// The form of a folder in which it is stored.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct WrittenFolder {
    folder: String,
    name: String,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    write: bool,
}

/// The reason why a folder cannot be granted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FolderError {
    /// A path that no file can have.
    #[error("it is no path")]
    Path,
    /// A path without a last part that could name the folder to the agent.
    #[error("its path ends with no name for the agent to see")]
    NoName,
    /// A name that is no absolute path without `.` and `..`.
    #[error("the agent cannot see it as `{0}`")]
    Name(String),
}

impl FolderGrant {
    /// Creates a grant of a folder, which the agent sees as `name`; without one, as `/` and the last part of its path.
    ///
    /// # Errors
    /// A path or a name that no folder can have.
    pub fn new(folder: String, name: Option<String>, write: bool) -> Result<Self, FolderError> {
        // The system would cut the path there, and open another folder.
        if folder.is_empty() || folder.contains('\0') {
            return Err(FolderError::Path);
        }
        let name = match name {
            Some(name) => name,
            None => match folder.trim_end_matches('/').rsplit('/').next() {
                None | Some("" | "." | "..") => return Err(FolderError::NoName),
                Some(last) => format!("/{last}"),
            },
        };
        let normal = name.strip_prefix('/').map(|rest| rest.strip_suffix('/').unwrap_or(rest));
        // Runtimes resolve such parts by themselves, each in its way: none may stand for the folder.
        let is_part = |part: &str| !matches!(part, "" | "." | "..") && !part.contains('\0');
        match normal {
            Some(rest) if name.len() <= MAX_NAME && (rest.is_empty() || rest.split('/').all(is_part)) => {
                Ok(Self { name: format!("/{rest}"), folder, write })
            }
            Some(_) | None => Err(FolderError::Name(name)),
        }
    }

    /// Returns the path by which the agent sees the folder.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Returns the path of the folder, relative to the folder of the declaration.
    pub fn folder(&self) -> &str {
        &self.folder
    }

    /// Returns `true` if the agent may change what is in it.
    pub fn is_writable(&self) -> bool {
        self.write
    }
}

/// Writes the name, and says so if it is writable.
impl fmt::Display for FolderGrant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let write = if self.write { " (write)" } else { "" };
        write!(f, "{}{write}", self.name)
    }
}

impl TryFrom<WrittenFolder> for FolderGrant {
    type Error = FolderError;

    fn try_from(written: WrittenFolder) -> Result<Self, FolderError> {
        Self::new(written.folder, Some(written.name), written.write)
    }
}

impl From<FolderGrant> for WrittenFolder {
    fn from(grant: FolderGrant) -> Self {
        let FolderGrant { name, folder, write } = grant;
        Self { folder, name, write }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_are_seen_by_a_name() {
        for (folder, name, expected) in [
            ("data", None, Ok("/data")),
            ("./shared/data/", None, Ok("/data")),
            ("/srv/data", None, Ok("/data")),
            ("data", Some("/in/here"), Ok("/in/here")),
            ("data", Some("/in/"), Ok("/in")),
            ("data", Some("/"), Ok("/")),
            ("..", None, Err(FolderError::NoName)),
            ("/", None, Err(FolderError::NoName)),
            ("", None, Err(FolderError::Path)),
            ("a\0b", None, Err(FolderError::Path)),
            ("data", Some("in"), Err(FolderError::Name("in".to_owned()))),
            ("data", Some(""), Err(FolderError::Name(String::new()))),
            ("data", Some("/a/../b"), Err(FolderError::Name("/a/../b".to_owned()))),
            ("data", Some("//b"), Err(FolderError::Name("//b".to_owned()))),
        ] {
            let made = FolderGrant::new(folder.to_owned(), name.map(str::to_owned), true);
            assert_eq!(made.as_ref().map(FolderGrant::name).map_err(Clone::clone), expected, "{folder} {name:?}");
            if let Ok(grant) = made {
                let text = serde_json::to_string(&grant).unwrap();
                assert_eq!(serde_json::from_str::<FolderGrant>(&text).unwrap(), grant, "{text}");
            }
        }
    }
}
