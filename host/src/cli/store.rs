//! `caxton store`: through the host on the data folder, or directly if none runs.

use std::io::Write;
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use http::Method;
use serde_json::json;

use super::client::Client;
use super::options::{Format, HostArgs};
use super::output::{Cell, CliError, Exit, Out, Style, Table, count, printable, say};
use super::stats::times;
use super::time::size;
use crate::api_types::{Compaction, StoreCheck, StoreStatus};
use crate::store::{CopyError, OfflineStore, StoreError, restore};

#[derive(Debug, Args)]
#[command(after_help = "\
A backup has the state of one moment; a running host goes on meanwhile. It needs as much free space as the store \
in the data folder while it is made. Without a host on the data folder these commands open the store \
directly. Restore only works so, and compact too, unless the host can commit nothing for want of room on its disk.

Examples:
  caxton store show
  caxton store backup backups/monday.db
  caxton store check                            exit code 1 if it has defects
  caxton store restore backups/monday.db --force
  caxton store compact")]
pub(super) struct StoreArgs {
    #[command(subcommand)]
    pub(super) command: StoreCommand,
}

/// The subcommands of `caxton store`.
#[derive(Debug, Subcommand)]
pub(super) enum StoreCommand {
    /// Show the size of the store and of its parts
    Show {
        #[command(flatten)]
        host: HostArgs,
    },
    /// Copy the whole store into a file
    Backup {
        /// The file to write
        #[arg(value_name = "FILE")]
        file: PathBuf,
        /// Replace an existing file
        #[arg(long)]
        force: bool,
        #[command(flatten)]
        host: HostArgs,
    },
    /// Replace the store by a backup; no host may run on the data folder
    Restore {
        /// The backup
        #[arg(value_name = "FILE")]
        file: PathBuf,
        /// Keep an existing store as caxton.db.old, in place of an earlier one
        #[arg(long)]
        force: bool,
        /// The data folder
        #[arg(long, env = "CAXTON_DATA", hide_env_values = true, default_value = ".caxton", value_name = "DIR")]
        data: PathBuf,
    },
    /// Check the whole store for damage and inconsistencies
    Check {
        #[command(flatten)]
        host: HostArgs,
    },
    /// Return unused space of the store to the system; a host on the data folder has to be stopped, unless its disk is
    /// full
    Compact {
        #[command(flatten)]
        host: HostArgs,
    },
}

/// The access to a store.
enum StoreSource {
    /// A store that is reached through a running host.
    Host(Box<Client>),
    /// A store that is opened directly. Hosts cannot start on it meanwhile.
    Store(OfflineStore),
}

/// Runs a subcommand.
pub(super) async fn run(command: StoreCommand, out: &mut Out) -> Result<(), CliError> {
    match command {
        StoreCommand::Show { host } => {
            let status = match find_source(&host)? {
                StoreSource::Host(client) => client.get("/v1/store").await?,
                StoreSource::Store(store) => store.size()?,
            };
            match out.format() {
                Format::Json => out.json(&status),
                Format::Text => out.line(&show(&status, out.is_terminal())),
            }
        }
        StoreCommand::Backup { file, force, host } => backup(&file, force, &host, out).await,
        StoreCommand::Restore { file, force, data } => put_back(&file, force, &data, out),
        StoreCommand::Check { host } => check(&host, out).await,
        StoreCommand::Compact { host } => compact(&host, out).await,
    }
}

fn find_source(args: &HostArgs) -> Result<StoreSource, CliError> {
    // With an explicit address the host may be on another machine, and the data folder is not its own.
    if args.admin.is_some() {
        return Client::find(args).map(|client| StoreSource::Host(Box::new(client)));
    }
    match OfflineStore::open(&args.data) {
        Ok(store) => Ok(StoreSource::Store(store)),
        // The lock tells for sure whether a host runs; its file may be left over from one that was killed.
        Err(StoreError::InUse { .. }) => Client::find(args).map(|client| StoreSource::Host(Box::new(client))),
        Err(error) => Err(error.into()),
    }
}

fn show(status: &StoreStatus, colours: bool) -> String {
    let lines = [
        ("store", printable(&status.path)),
        ("format", status.format.to_string()),
        ("size", format!("{}, of which {} are free", size(status.bytes), size(status.free_bytes))),
        ("log", size(status.log_bytes)),
        ("waiting", status.queued.to_string()),
        ("handled", format!("{} are kept, of {}", status.handled, size(status.handled_bytes))),
        ("dead letters", format!("{}, of {}", status.dead, size(status.dead_bytes))),
        ("commits", times(status.commits.as_ref())),
    ];
    let mut text: String = lines.iter().map(|(name, value)| format!("{name:<13} {value}\n")).collect();
    let mut table = Table::new(&["AGENT", ">WAITING", ">HANDLED", ">DEAD", ">STATE", ">COPIES", ">MEMORY SAVED"]);
    for kept in &status.agents {
        table.row(vec![
            Cell::new(printable(&kept.agent)),
            Cell::new(kept.queued.to_string()),
            Cell::new(kept.handled.to_string()),
            Cell::new(kept.dead.to_string()),
            Cell::new(size(kept.state_bytes)),
            Cell::new(size(kept.state_copy_bytes)),
            Cell::new(size(kept.snapshot_bytes)),
        ]);
    }
    text.push('\n');
    text.push_str(&table.render(colours));
    text
}

async fn backup(file: &Path, force: bool, host: &HostArgs, out: &mut Out) -> Result<(), CliError> {
    if file.exists() && !force {
        let message = format!("{} exists already; name another file, or use --force", file.display());
        return Err(CliError::new(Exit::Conflict, message));
    }
    let wrong = |error: std::io::Error| CliError::new(Exit::Failed, format!("writing {}: {error}", file.display()));
    // A bare file name has an empty parent, which is no folder to create a file in.
    let folder = file.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    // Written beside the target and renamed, so that the file is complete or absent.
    let mut temporary = tempfile::Builder::new().prefix(".caxton-backup-").tempfile_in(folder).map_err(wrong)?;
    match find_source(host)? {
        StoreSource::Host(client) => {
            let write = |chunk: &[u8]| temporary.write_all(chunk).map_err(wrong);
            client.download(Method::POST, "/v1/store/backup", write).await?;
        }
        StoreSource::Store(store) => {
            // A store that is damaged or of another version must not become a backup that looks sound.
            store.known()?;
            store.copy_to(temporary.path())?;
        }
    }
    // Durable before the rename: a backup that is visible is complete.
    temporary.as_file().sync_all().map_err(wrong)?;
    let bytes = temporary.as_file().metadata().map_err(wrong)?.len();
    temporary.persist(file).map_err(|error| wrong(error.error))?;
    match out.format() {
        Format::Json => out.json(&json!({ "file": file.to_string_lossy(), "bytes": bytes })),
        Format::Text => {
            say(&format!("{} has the whole store ({})", file.display(), size(bytes)));
            Ok(())
        }
    }
}

fn put_back(file: &Path, force: bool, data: &Path, out: &mut Out) -> Result<(), CliError> {
    let old = restore(data, file, force)?;
    match (out.format(), old) {
        (Format::Json, old) => out.json(&json!({ "data": data, "old": old })),
        (Format::Text, None) => {
            say(&format!("{} has what was in the backup", data.display()));
            Ok(())
        }
        (Format::Text, Some(old)) => {
            say(&format!("{} has what was in the backup; what was there is {}", data.display(), old.display()));
            Ok(())
        }
    }
}

async fn check(host: &HostArgs, out: &mut Out) -> Result<(), CliError> {
    let checked: StoreCheck = match find_source(host)? {
        StoreSource::Host(client) => client.get("/v1/store/check").await?,
        StoreSource::Store(store) => {
            store_is_current(&store)?;
            store.check()
        }
    };
    match out.format() {
        Format::Json => out.json(&checked)?,
        Format::Text => {
            for defect in &checked.defects {
                let code = out.paint(&defect.code, Style::Bad);
                out.line(&format!("{code}: {} ({})", printable(&defect.what), defect.count))?;
            }
            match checked.defects.len() {
                0 => say("the store has no defects"),
                defects => say(&format!(
                    "the store has {}; `caxton store restore FILE` puts a backup in its place",
                    count(defects, "defect")
                )),
            }
        }
    }
    // Quiet, since the defects were printed already.
    if checked.ok { Ok(()) } else { Err(CliError::quiet(Exit::Failed)) }
}

/// Refuses a store of another version. A damaged one is left to the check.
fn store_is_current(store: &OfflineStore) -> Result<(), CliError> {
    match store.current() {
        // Its tables are others, so that the check would find defects where there are none.
        Err(error @ (StoreError::Newer { .. } | StoreError::Older { .. })) => Err(error.into()),
        Ok(()) | Err(_) => Ok(()),
    }
}

async fn compact(host: &HostArgs, out: &mut Out) -> Result<(), CliError> {
    let compacted: Compaction = match find_source(host)? {
        StoreSource::Host(client) => client.json(Method::POST, "/v1/store/compact").await?,
        StoreSource::Store(store) => store.compact()?,
    };
    match out.format() {
        Format::Json => out.json(&compacted),
        Format::Text => {
            let Compaction { before, after, needed } = compacted;
            say(&format!("{} before, {} now", size(before), size(after)));
            if let Some(needed) = needed {
                say(&format!(
                    "only the log was emptied: with {} free on the disk, what is free in the store is given back too",
                    size(needed)
                ));
            }
            Ok(())
        }
    }
}

impl From<StoreError> for CliError {
    fn from(error: StoreError) -> Self {
        let exit = match error {
            StoreError::Missing { .. } => Exit::NotFound,
            StoreError::InUse { .. }
            | StoreError::PathInUse { .. }
            | StoreError::Exists { .. }
            | StoreError::Newer { .. }
            | StoreError::Older { .. } => Exit::Conflict,
            StoreError::Folder { .. }
            | StoreError::NoStore { .. }
            | StoreError::Foreign { .. }
            | StoreError::Damaged { .. }
            | StoreError::ReadOnly { .. }
            | StoreError::Full { .. }
            | StoreError::NoRoom { .. }
            | StoreError::Copy(_)
            | StoreError::Database { .. } => Exit::Failed,
        };
        Self::new(exit, error.to_string())
    }
}

impl From<CopyError> for CliError {
    fn from(error: CopyError) -> Self {
        Self::new(Exit::Failed, error.to_string())
    }
}
