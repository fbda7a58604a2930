//! The obstacles that keep a declaration from running.

use serde::Serialize;

/// The reason why the declared revision does not run, and will not until a person acts. Ordered from the most basic.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Obstacle {
    /// The component is missing or cannot be read.
    Missing,
    /// A failure before it received messages, or for good.
    Failed,
    /// A refusal: it was taken back or aborted, and is not tried again.
    Refused,
}

impl Obstacle {
    /// The list of all obstacles.
    pub const ALL: [Self; 3] = [Self::Missing, Self::Failed, Self::Refused];

    /// Returns the obstacle as text, such as `refused`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Missing => "missing",
            Self::Failed => "failed",
            Self::Refused => "refused",
        }
    }
}
