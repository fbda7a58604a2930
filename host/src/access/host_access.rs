//! The access of a running host: its tokens, the rate of wrong ones, and the audit log.

use std::net::IpAddr;
use std::path::Path;
use std::time::{Duration, Instant};

use caxton_control::access::rate::{Rate, RateTable, peer_network};
use caxton_control::access::{AuditEntry, AuditRequest, TokenName, TokenRefusal};
use parking_lot::Mutex;

use super::audit_file::{AuditError, AuditFile};
use super::audit_log::AuditLog;
use super::identity::{AccessRefusal, Identity};
use super::key_files::KeyFiles;
use super::local_token::TokenError;
use super::tokens::Tokens;
use crate::clock;

/// Wrong credentials of one peer: ten at once, then one in six seconds. A person who mistypes never gets there.
const WRONG_CREDENTIALS: Rate = Rate::new(10, Duration::from_secs(60));
/// Peers whose wrong credentials are remembered at the least.
const MAX_PEERS: usize = 4_096;

/// Refused requests of one peer that are recorded: ten at once, then one in six seconds.
const REFUSED_BY_PEER: Rate = Rate::new(10, Duration::from_secs(60));
/// Refused requests of all peers together that are recorded: with many addresses nobody fills the audit log either.
const REFUSED: Rate = Rate::new(100, Duration::from_secs(60));

/// The reason why the access to a data folder cannot be opened.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AccessError {
    /// The tokens.
    #[error(transparent)]
    Token(#[from] TokenError),
    /// The audit log.
    #[error(transparent)]
    Audit(#[from] AuditError),
    /// The thread that writes the audit log.
    #[error("starting the thread of the audit log: {0}")]
    Thread(#[from] std::io::Error),
}

/// The bound of what is recorded of refused requests.
struct RefusedRecords {
    peers: RateTable<Option<IpAddr>>,
    all: RateTable<()>,
    left_out: u64,
}

impl RefusedRecords {
    /// Returns the number of refused requests that were left out before, if this one is to be recorded.
    fn admit(&mut self, peer: Option<IpAddr>, now: Duration) -> Option<u64> {
        // The peer's own rate first: one that comes all the time must not use up that of the others.
        if self.peers.take(peer.map(peer_network), now).is_err() || self.all.take((), now).is_err() {
            self.left_out += 1;
            return None;
        }
        Some(std::mem::take(&mut self.left_out))
    }
}

/// The tokens of the host, the rate of wrong ones, and the audit log.
pub(crate) struct Access {
    pub(crate) tokens: Tokens,
    pub(crate) audit: AuditLog,
    /// The keys of agents' routes.
    pub(super) keys: KeyFiles,
    // Locked for two look-ups, and only by refused requests.
    refused: Mutex<RefusedRecords>,
    // Locked for a look-up, and only by requests with a wrong credential.
    wrong: Mutex<RateTable<IpAddr>>,
    /// The moment from which the times of rates count.
    origin: Instant,
}

impl Access {
    /// Reads the tokens of a data folder and opens its audit log, which may have `audit_max_bytes`. Makes the host's own
    /// token at the first start. The files of keys are found from `declaration`, the folder of the file.
    pub(crate) fn open(data: &Path, declaration: &Path, audit_max_bytes: u64) -> Result<Self, AccessError> {
        Ok(Self {
            tokens: Tokens::open(data)?,
            keys: KeyFiles::new(declaration),
            audit: AuditLog::start(AuditFile::open(data, audit_max_bytes)?)?,
            refused: Mutex::new(RefusedRecords {
                peers: RateTable::new(REFUSED_BY_PEER, MAX_PEERS),
                all: RateTable::new(REFUSED, 1),
                left_out: 0,
            }),
            wrong: Mutex::new(RateTable::new(WRONG_CREDENTIALS, MAX_PEERS)),
            origin: Instant::now(),
        })
    }

    /// Finds the caller of a token. A right token is never held back for the wrong ones of its peer: other programs of
    /// the machine, or others behind a proxy, could lock the operator out.
    pub(crate) fn identify(&self, given: Option<&str>, peer: Option<IpAddr>) -> Result<Identity, AccessRefusal> {
        let given = given.ok_or(AccessRefusal::Missing)?;
        self.tokens.find(given, clock::now_ms()).map_err(|refusal| {
            self.count_wrong(peer).err().unwrap_or(match refusal {
                TokenRefusal::Unknown => AccessRefusal::Wrong,
                TokenRefusal::Expired(name) => AccessRefusal::Expired(name),
            })
        })
    }

    /// Counts a wrong credential of a peer.
    ///
    /// # Errors
    /// The peer has given too many.
    pub(super) fn count_wrong(&self, peer: Option<IpAddr>) -> Result<(), AccessRefusal> {
        let Some(peer) = peer else { return Ok(()) };
        let taken = self.wrong.lock().take(peer_network(peer), self.now());
        taken.map_err(AccessRefusal::TooMany)
    }

    /// Records a refused request, as far as the rate of such records goes.
    pub(crate) async fn record_refused(
        &self,
        by: Option<TokenName>,
        status: u16,
        peer: Option<IpAddr>,
        request: AuditRequest,
    ) {
        let admitted = self.refused.lock().admit(peer, self.now());
        if let Some(left_out) = admitted {
            // Refused all the same if it cannot be written, which `note` logs.
            self.audit.note(AuditEntry::Refused { by, status, left_out, request }).await;
        }
    }

    /// Returns the time since this was opened, for rates.
    pub(crate) fn now(&self) -> Duration {
        self.origin.elapsed()
    }
}

#[cfg(test)]
mod tests {
    use caxton_control::access::Role;

    use super::super::audit_file::audit_path;
    use super::super::local_token::{TOKEN_FILE, read_token};
    use super::*;

    #[tokio::test(flavor = "multi_thread")]
    async fn refused_requests_are_recorded_within_a_rate() {
        let folder = tempfile::tempdir().unwrap();
        let access = Access::open(folder.path(), folder.path(), 1 << 20).unwrap();
        let request = || AuditRequest {
            from: "-".to_owned(),
            method: "POST".to_owned(),
            route: "-".to_owned(),
            target: "/v1/config/apply".to_owned(),
            trace: "-".to_owned(),
        };
        for peer in 0..40_u8 {
            let peer = Some(IpAddr::from([192, 0, 2, peer]));
            for _ in 0..20 {
                access.record_refused(None, 401, peer, request()).await;
            }
        }
        let text = std::fs::read_to_string(audit_path(folder.path()).unwrap()).unwrap();
        assert_eq!(text.lines().count(), 100);
        // The first peer had ten, and the next one's first record tells of the ten that were left out.
        assert!(text.lines().nth(10).unwrap().contains("\"left_out\":10,"), "{text}");
    }

    #[test]
    fn wrong_tokens_are_limited_by_peer_and_right_ones_are_not() {
        let folder = tempfile::tempdir().unwrap();
        let access = Access::open(folder.path(), folder.path(), 1 << 20).unwrap();
        let right = read_token(&folder.path().join(TOKEN_FILE)).unwrap();
        let [here, there] = ["192.0.2.1", "192.0.2.2"].map(|peer| Some(peer.parse::<IpAddr>().unwrap()));
        for _ in 0..10 {
            assert_eq!(access.identify(Some("wrong"), here), Err(AccessRefusal::Wrong));
        }
        let refused = access.identify(Some("wrong"), here).unwrap_err();
        assert!(matches!(refused, AccessRefusal::TooMany(wait) if wait <= Duration::from_secs(6)), "{refused:?}");
        assert_eq!(access.identify(Some("wrong"), there), Err(AccessRefusal::Wrong));
        assert_eq!(access.identify(None, here), Err(AccessRefusal::Missing));
        assert_eq!(access.identify(Some(&right), here).unwrap().role, Role::Admin);
    }
}
