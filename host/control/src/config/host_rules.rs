//! The rules of the policy that grants are compared with.

use super::node::Source;
use crate::policy::{FilesRule, TcpRule};

/// The rules of the policy for folders and connections, with their places.
#[derive(Debug, Clone)]
pub(super) struct HostRules {
    pub(super) files: (FilesRule, Source),
    pub(super) tcp: (TcpRule, Source),
}

impl Default for HostRules {
    fn default() -> Self {
        Self { files: (FilesRule::default(), Source::Default), tcp: (TcpRule::default(), Source::Default) }
    }
}
