//! The tokens of a data folder that no host runs on, as commands change them themselves.

use std::path::Path;
use std::sync::Arc;

use caxton_control::access::{AuditEntry, Role, TokenName, TokenTable};

use super::audit_file::AuditFile;
use super::tokens::{MadeToken, Tokens};
use crate::store::FolderLock;

/// The tokens of a data folder, which is held against hosts.
pub(crate) struct OfflineAccess {
    tokens: Tokens,
    audit: AuditFile,
    /// Locks the folder until this is dropped.
    _lock: FolderLock,
}

impl OfflineAccess {
    /// Takes a data folder, and makes it if there is none.
    ///
    /// # Errors
    /// A [`StoreError`](crate::store::StoreError) if a host has the folder, else a
    /// [`TokenError`](super::local_token::TokenError) or an [`AuditError`](super::audit_file::AuditError).
    pub(crate) fn open(folder: &Path) -> anyhow::Result<Self> {
        let lock = FolderLock::take(folder)?;
        // The bound is a setting of the host, which shortens the log when it runs again.
        Ok(Self { tokens: Tokens::open(folder)?, audit: AuditFile::open(folder, u64::MAX)?, _lock: lock })
    }

    /// Returns the tokens.
    pub(crate) fn table(&self) -> Arc<TokenTable> {
        self.tokens.table()
    }

    /// Makes a token that expires after this many milliseconds.
    pub(crate) fn make(&mut self, name: &TokenName, role: Role, life_ms: Option<u64>) -> anyhow::Result<MadeToken> {
        self.record(format!("token make {name} --role {role}"))?;
        Ok(self.tokens.make(name, role, life_ms)?)
    }

    /// Gives a token another text.
    pub(crate) fn rotate(&mut self, name: &TokenName) -> anyhow::Result<MadeToken> {
        self.record(format!("token rotate {name}"))?;
        Ok(self.tokens.rotate(name)?)
    }

    /// Ends a token.
    pub(crate) fn end(&mut self, name: &TokenName) -> anyhow::Result<()> {
        self.record(format!("token end {name}"))?;
        Ok(self.tokens.end(name).map(drop)?)
    }

    /// Records a command before it acts.
    fn record(&mut self, command: String) -> anyhow::Result<()> {
        let uid = rustix::process::getuid().as_raw();
        self.audit.append(&[AuditEntry::Offline { uid, command }], true)?;
        Ok(())
    }
}
