//! Routes that match the same requests.

use super::node::Source;

/// A pair of routes that clash.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Clash {
    /// The later route's pattern.
    pub route: String,
    /// The earlier route's pattern.
    pub other_route: String,
    /// The agent of the earlier route.
    pub other_agent: String,
    /// The place of the earlier route.
    pub other: Source,
    /// The requests that both match.
    pub overlap: Overlap,
}

/// The overlap of two clashing routes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Overlap {
    /// The same paths and this method, or all methods if `None`.
    Methods(Option<String>),
    /// A position where one has a parameter and the other a rest.
    ParamAndRest,
}
