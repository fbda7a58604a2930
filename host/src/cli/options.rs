//! Options that several commands share.

use std::path::PathBuf;

use caxton_control::config::Operator;
use clap::{Args, ValueEnum};

use crate::config::ConfigErrors;
use crate::reconcile::OperatorSource;

/// The format of results.
#[derive(Debug, Clone, Copy, Args)]
pub(super) struct OutputArgs {
    /// The output format: text for people, JSON for programs
    #[arg(short = 'o', long = "output", value_enum, default_value = "text", global = true, value_name = "FORMAT")]
    pub(super) format: Format,
}

/// The output formats.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Format {
    // For people.
    Text,
    // For programs.
    Json,
}

/// The declaration file.
#[derive(Debug, Clone, Args)]
pub(super) struct FileArgs {
    /// The file that declares the agents
    #[arg(
        short = 'f',
        long = "file",
        env = "CAXTON_FILE",
        hide_env_values = true,
        default_value = "caxton.toml",
        value_name = "FILE"
    )]
    pub(super) file: PathBuf,
    /// The operator's own file, with ceilings and rules that the declaration cannot override
    #[arg(long, env = "CAXTON_POLICY", hide_env_values = true, value_name = "FILE")]
    pub(super) policy: Option<PathBuf>,
}

impl FileArgs {
    /// Reads the operator's own file, if one is named.
    pub(super) fn operator(&self) -> Result<Operator, ConfigErrors> {
        let loaded = self.policy.as_deref().map(|file| OperatorSource::new(file).load()).transpose()?;
        Ok(loaded.map(|loaded| loaded.operator).unwrap_or_default())
    }
}

/// The host to talk to.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Which host")]
pub(super) struct HostArgs {
    /// The data folder of a host on this machine
    #[arg(long, env = "CAXTON_DATA", hide_env_values = true, default_value = ".caxton", value_name = "DIR")]
    pub(super) data: PathBuf,
    /// The management API, such as https://203.0.113.20:8081, in place of the address in the data folder
    #[arg(long, env = "CAXTON_ADMIN", hide_env_values = true, value_name = "URL")]
    pub(super) admin: Option<String>,
    /// The token's file, in place of the one in the data folder
    #[arg(long, env = "CAXTON_TOKEN_FILE", hide_env_values = true, value_name = "FILE")]
    // A file and not the token itself: arguments are visible to all users of a machine.
    pub(super) token_file: Option<PathBuf>,
    /// Certificates in PEM form that are trusted to vouch for the host, in place of those of the system
    #[arg(long, env = "CAXTON_CA", hide_env_values = true, value_name = "FILE")]
    pub(super) ca: Option<PathBuf>,
    /// A client certificate in PEM form, for a host with `admin.tls.client-ca`; needs --client-key
    #[arg(long, env = "CAXTON_CLIENT_CERT", hide_env_values = true, value_name = "FILE", requires = "client_key")]
    pub(super) client_cert: Option<PathBuf>,
    /// The private key of the client certificate
    #[arg(long, env = "CAXTON_CLIENT_KEY", hide_env_values = true, value_name = "FILE", requires = "client_cert")]
    pub(super) client_key: Option<PathBuf>,
}

/// An agent at a host.
#[derive(Debug, Args)]
pub(super) struct AgentArgs {
    /// The agent
    pub(super) agent: String,
    #[command(flatten)]
    pub(super) host: HostArgs,
}
