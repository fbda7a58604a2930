//! Parts that errors of a configuration share.

use crate::units::UnitError;

/// A text that is not in the unit of its setting.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BadUnit {
    /// The text.
    pub given: String,
    /// The reason.
    pub reason: UnitError,
}

/// A receiver of a grant that is not there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnknownReceiver {
    /// The name.
    pub name: String,
    /// The one that was probably meant.
    pub suggestion: Option<String>,
}
