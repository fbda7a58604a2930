//! `caxton token`: through the host on the data folder, or directly if none runs.

use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use caxton_control::access::{Role, TokenName, TokenTableError};
use clap::{Args, Subcommand};
use http::Method;
use serde_json::json;

use super::client::{Client, query};
use super::options::{Format, HostArgs};
use super::output::{Cell, CliError, Exit, Out, Style, Table, say};
use super::time::rfc3339;
use crate::access::{OfflineAccess, TokenChangeError};
use crate::admin::{NewToken, TokenStatus, life_ms};
use crate::store::StoreError;

#[derive(Debug, Args)]
#[command(after_help = "\
A token has a name, by which events and the audit log tell who acted, and a role: `read` sees names and figures, \
`operate` also contents, state, logs, dead letters and rollouts, which it may change, and `admin` may apply the file \
and make tokens. The text of a token is shown once; the host keeps its SHA-256. The token `local` in the data folder is that of the \
commands on this machine; it can be rotated, and not ended.

Without a host on the data folder these commands change its tokens directly.

Examples:
  caxton token make dashboard --role read
  caxton token make ci --role operate --expires 2160h --out ci.token
  caxton ps --token-file ci.token
  caxton token ls
  caxton token rotate ci --out ci.token
  caxton token end dashboard")]
pub(super) struct TokenArgs {
    #[command(subcommand)]
    pub(super) command: TokenCommand,
}

/// The subcommands of `caxton token`.
#[derive(Debug, Subcommand)]
pub(super) enum TokenCommand {
    /// List the tokens with their roles
    Ls {
        #[command(flatten)]
        host: HostArgs,
    },
    /// Make a token and print it
    Make {
        /// Its name: lower-case letters, digits and `-`
        name: TokenName,
        /// Its role: read, operate or admin
        #[arg(long, value_name = "ROLE")]
        role: Role,
        /// The time after which it is refused, such as 720h; never by default
        #[arg(long, value_name = "TIME")]
        expires: Option<String>,
        #[command(flatten)]
        out: TokenOut,
        #[command(flatten)]
        host: HostArgs,
    },
    /// Give a token another text and print it; the old one is refused from then on
    Rotate {
        /// The token
        name: TokenName,
        #[command(flatten)]
        out: TokenOut,
        #[command(flatten)]
        host: HostArgs,
    },
    /// End a token: it is refused from then on
    End {
        /// The token
        name: TokenName,
        #[command(flatten)]
        host: HostArgs,
    },
}

/// The destination of a token's text.
#[derive(Debug, Args)]
pub(super) struct TokenOut {
    /// Write the token to this file instead, readable by its owner only, for `--token-file`
    #[arg(long = "out", value_name = "FILE")]
    file: Option<PathBuf>,
}

/// The access to the tokens of a data folder.
enum TokenSource {
    /// Tokens of a running host.
    Host(Box<Client>),
    /// Tokens of a folder that no host runs on. Hosts cannot start on it meanwhile.
    Folder(OfflineAccess),
}

/// Runs a subcommand.
pub(super) async fn run(command: TokenCommand, out: &mut Out) -> Result<(), CliError> {
    match command {
        TokenCommand::Ls { host } => list(&host, out).await,
        TokenCommand::Make { name, role, expires, out: to, host } => {
            let life = expires.as_deref().map(life_ms).transpose();
            // Checked here too, so that no host has to be there for the answer.
            let life = life.map_err(|why| CliError::new(Exit::Usage, format!("--expires {why}")))?;
            let made = match place(&host, true)? {
                TokenSource::Host(client) => {
                    let query = query(&[("role", Some(role.as_str())), ("expires", expires.as_deref())]);
                    client.json(Method::POST, &format!("/v1/tokens/{name}{query}")).await?
                }
                TokenSource::Folder(mut access) => {
                    NewToken::of(&name, access.make(&name, role, life).map_err(|error| unchanged(&error))?)
                }
            };
            print(&made, to.file.as_deref(), out)
        }
        TokenCommand::Rotate { name, out: to, host } => {
            let made = match place(&host, false)? {
                TokenSource::Host(client) => client.json(Method::POST, &format!("/v1/tokens/{name}/rotate")).await?,
                TokenSource::Folder(mut access) => {
                    NewToken::of(&name, access.rotate(&name).map_err(|error| unchanged(&error))?)
                }
            };
            print(&made, to.file.as_deref(), out)
        }
        TokenCommand::End { name, host } => {
            match place(&host, false)? {
                TokenSource::Host(client) => {
                    client.send(Method::DELETE, &format!("/v1/tokens/{name}"), None, bytes::Bytes::new()).await?;
                }
                TokenSource::Folder(mut access) => access.end(&name).map_err(|error| unchanged(&error))?,
            }
            match out.format() {
                Format::Json => out.json(&json!({ "name": name.as_str(), "ended": true })),
                Format::Text => {
                    say(&format!("the token {name} has ended"));
                    Ok(())
                }
            }
        }
    }
}

fn place(args: &HostArgs, may_create: bool) -> Result<TokenSource, CliError> {
    // With an explicit address the host may be on another machine, and the data folder is not its own.
    if args.admin.is_some() {
        return Client::find(args).map(|client| TokenSource::Host(Box::new(client)));
    }
    // A mistyped folder must not be made by a look into it.
    if !may_create && !args.data.is_dir() {
        let message = format!("there is no data folder {}; say where it is with `--data DIR`", args.data.display());
        return Err(CliError::new(Exit::NotFound, message));
    }
    match OfflineAccess::open(&args.data) {
        Ok(access) => Ok(TokenSource::Folder(access)),
        // The lock tells for sure whether a host runs; its file may be left over from one that was killed.
        Err(error) if error.downcast_ref().is_some_and(|error| matches!(error, StoreError::InUse { .. })) => {
            Client::find(args).map(|client| TokenSource::Host(Box::new(client)))
        }
        Err(error) => Err(error.into()),
    }
}

async fn list(host: &HostArgs, out: &mut Out) -> Result<(), CliError> {
    let tokens: Vec<TokenStatus> = match place(host, false)? {
        TokenSource::Host(client) => client.get("/v1/tokens").await?,
        TokenSource::Folder(access) => TokenStatus::all(&access.table()),
    };
    match out.format() {
        Format::Json => out.json(&tokens),
        Format::Text => out.line(&table(&tokens).render(out.is_terminal())),
    }
}

fn table(tokens: &[TokenStatus]) -> Table {
    let mut table = Table::new(&["NAME", "ROLE", "MADE", "EXPIRES"]);
    for token in tokens {
        let expires = match token.expires_at {
            None => Cell::new("never"),
            Some(at) if token.expired => Cell::styled(format!("{}, expired", rfc3339(at)), Style::Bad),
            Some(at) => Cell::new(rfc3339(at)),
        };
        table.row(vec![Cell::new(&token.name), Cell::new(&token.role), Cell::new(rfc3339(token.made_at)), expires]);
    }
    table
}

/// Prints a new token, or writes it to a file.
fn print(made: &NewToken, file: Option<&Path>, out: &mut Out) -> Result<(), CliError> {
    let Some(file) = file else {
        return match out.format() {
            Format::Json => out.json(made),
            Format::Text => {
                say(&format!("the token {} ({}); it is shown only here", made.status.name, made.status.role));
                out.line(&made.token)
            }
        };
    };
    write(file, &made.token).map_err(|error| {
        // The token is in force, and its text would be lost with this error.
        let message = format!("writing {}: {error}; rotate {} for another text", file.display(), made.status.name);
        CliError::new(Exit::Failed, message)
    })?;
    match out.format() {
        Format::Json => out.json(&json!({ "name": made.status.name, "role": made.status.role, "file": file })),
        Format::Text => {
            say(&format!("{} has the token {} ({})", file.display(), made.status.name, made.status.role));
            Ok(())
        }
    }
}

fn write(file: &Path, token: &str) -> std::io::Result<()> {
    // Removed first: an existing file keeps its mode, and could be open to others.
    match std::fs::remove_file(file) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
        Ok(()) | Err(_) => {}
    }
    let mut file = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(file)?;
    writeln!(file, "{token}")?;
    file.sync_all()
}

/// Returns the error of a command that changed the tokens of a folder itself.
fn unchanged(error: &anyhow::Error) -> CliError {
    let exit = match error.downcast_ref() {
        Some(TokenChangeError::Table(TokenTableError::Missing(_))) => Exit::NotFound,
        Some(TokenChangeError::Table(_)) => Exit::Conflict,
        Some(TokenChangeError::File { .. }) | None => Exit::Failed,
    };
    CliError::new(exit, format!("{error:#}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_listed() {
        let token = |name: &str, role: &str, expires_at, expired| TokenStatus {
            name: name.to_owned(),
            role: role.to_owned(),
            made_at: 0,
            expires_at,
            expired,
        };
        let tokens = [token("ci", "operate", Some(1_000), true), token("local", "admin", None, false)];
        let expected = "\
NAME   ROLE     MADE                      EXPIRES
ci     operate  1970-01-01T00:00:00.000Z  1970-01-01T00:00:01.000Z, expired
local  admin    1970-01-01T00:00:00.000Z  never";
        assert_eq!(table(&tokens).render(false), expected);
    }
}
