//! Why what is declared does not run and will not by itself.

use serde::Serialize;

/// Why what an agent's declaration says does not run and will not, until a person mends something.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Obstacle {
    /// Its component is not there, or cannot be read.
    Missing,
    /// It did not come to take messages.
    Failed,
    /// It was taken back, or ended by hand, and is not tried again.
    Refused,
}

impl Obstacle {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Missing, Self::Failed, Self::Refused];

    /// The obstacle as text, such as `refused`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Missing => "missing",
            Self::Failed => "failed",
            Self::Refused => "refused",
        }
    }
}
