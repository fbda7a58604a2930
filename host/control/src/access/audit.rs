//! The entries of the audit log.

use serde::{Deserialize, Serialize};

use super::chain::ChainHead;
use super::role::Role;
use super::tokens::TokenName;

/// The longest target of a request that is kept, in bytes.
pub const MAX_TARGET: usize = 2_048;

/// An entry of the audit log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum AuditEntry {
    /// A request that may change something, before it acts.
    Asked {
        /// The name of the token.
        by: TokenName,
        /// The role of the token.
        role: Role,
        /// The request.
        #[serde(flatten)]
        request: AuditRequest,
    },
    /// The result of a request.
    Answered {
        /// The number of its entry.
        of: u64,
        /// The status of the response.
        status: u16,
    },
    /// A request whose client was gone before its response. What it asked for may have been done.
    Unanswered {
        /// The number of its entry.
        of: u64,
    },
    /// A request that was refused.
    Refused {
        /// The name of the token; `None` if the request had none that is known.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        by: Option<TokenName>,
        /// The status of the response.
        status: u16,
        /// Refused requests since the last entry of this kind that had no room in the rate.
        #[serde(default, skip_serializing_if = "is_zero")]
        left_out: u64,
        /// The request.
        #[serde(flatten)]
        request: AuditRequest,
    },
    /// A command on the data folder while no host ran on it.
    Offline {
        /// The user's number on the machine.
        uid: u32,
        /// The command.
        command: String,
    },
    /// A torn last line that was taken out.
    Repaired {
        /// The bytes of the line.
        bytes: u64,
    },
    /// Old lines that were removed by `admin.audit-max`.
    Removed {
        /// The number of removed lines.
        lines: u64,
        /// The head of what was removed.
        until: ChainHead,
    },
}

/// A request in the audit log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditRequest {
    /// The address of the client.
    pub from: String,
    /// The method.
    pub method: String,
    /// The route, as in the description of the API.
    pub route: String,
    /// The path and the query that were asked for, cut to [`MAX_TARGET`] bytes.
    pub target: String,
    /// The id of the trace.
    pub trace: String,
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// Cuts a target to its bound, at a character.
pub fn cut_target(target: &str) -> String {
    if target.len() <= MAX_TARGET {
        return target.to_owned();
    }
    let mark = "…";
    let end = target.floor_char_boundary(MAX_TARGET - mark.len());
    format!("{}{mark}", &target[..end])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_are_plain_objects() {
        let request = AuditRequest {
            from: "127.0.0.1".to_owned(),
            method: "POST".to_owned(),
            route: "/v1/mailboxes/{agent}/pause".to_owned(),
            target: "/v1/mailboxes/triage/pause".to_owned(),
            trace: "t".to_owned(),
        };
        let entry = AuditEntry::Asked { by: "ci".parse().unwrap(), role: Role::Operate, request: request.clone() };
        let text = serde_json::to_string(&entry).unwrap();
        assert_eq!(
            text,
            r#"{"kind":"asked","by":"ci","role":"operate","from":"127.0.0.1","method":"POST","route":"/v1/mailboxes/{agent}/pause","target":"/v1/mailboxes/triage/pause","trace":"t"}"#
        );
        assert_eq!(serde_json::from_str::<AuditEntry>(&text).unwrap(), entry);
        let refused = AuditEntry::Refused { by: None, status: 401, left_out: 0, request };
        let text = serde_json::to_string(&refused).unwrap();
        assert!(text.starts_with(r#"{"kind":"refused","status":401,"from""#), "{text}");
    }

    #[test]
    fn targets_are_cut_at_a_character() {
        assert_eq!(cut_target("/v1"), "/v1");
        for length in MAX_TARGET - 2..MAX_TARGET + 4 {
            let cut = cut_target(&"é".repeat(length));
            assert!(cut.len() <= MAX_TARGET && cut.ends_with('…'));
        }
    }
}
