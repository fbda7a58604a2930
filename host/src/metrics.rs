//! stub
pub(crate) fn install() {}
