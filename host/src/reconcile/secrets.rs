//! The secrets in force, taken again when their files change and at a reload.

use std::sync::Arc;

use serde_json::json;
use tokio::runtime::Handle;

use super::reconciler::Reconciler;
use crate::api_types::FileError;
use crate::config::Loaded;
use crate::secrets::{self, SecretError};
use crate::wasm::Kind;

impl Reconciler {
    /// Reads the secrets of a declaration, and replaces the instances that were given one that has changed. A secret that
    /// cannot be read keeps its value. Returns the errors of those that have none.
    pub(super) fn take_secrets(&mut self, loaded: &Loaded, runs_commands: bool) -> Vec<FileError> {
        let mut read = secrets::read(&loaded.desired, &loaded.dir);
        if runs_commands {
            // In place, because what follows needs the values. The commands have a time limit, and most files name none.
            tokio::task::block_in_place(|| {
                Handle::current().block_on(secrets::run_commands(&loaded.desired.secrets, &loaded.dir, &mut read));
            });
        }
        let (mut missing, mut refused) = (Vec::new(), Vec::new());
        for error in read.errors {
            // A folder that is gone is no loss for those that were read from it.
            let is_known = if error.name.is_empty() {
                loaded.desired.secrets.folder == self.declared.desired.secrets.folder
            } else {
                self.secrets.has(&error.name)
            };
            if is_known { refused.push(error) } else { missing.push(self.secret_error(&error, loaded)) }
        }
        if !missing.is_empty() {
            return missing;
        }
        let changed = self.secrets.take(read.values);
        self.report_secrets(&changed, refused, loaded);
        self.renew_instances(&changed);
        Vec::new()
    }

    /// Reports the secrets that have changed, by name, and once those that cannot be read.
    fn report_secrets(&mut self, changed: &[String], refused: Vec<SecretError>, loaded: &Loaded) {
        if !changed.is_empty() {
            tracing::info!("secrets with a new value, from the next call on: {}", changed.join(", "));
            self.context.events.emit(None, "secret.taken", json!({ "names": changed }));
        }
        if !refused.is_empty() && refused != self.refused_secrets {
            let told: Vec<FileError> = refused.iter().map(|error| self.secret_error(error, loaded)).collect();
            for error in &told {
                tracing::error!("{error}; its value stays as it was");
            }
            self.context.events.emit(None, "secret.refused", json!({ "errors": told }));
        }
        self.refused_secrets = refused;
    }

    /// Ends or saves the instances that were given one of these secrets.
    fn renew_instances(&self, changed: &[String]) {
        if changed.is_empty() {
            return;
        }
        for managed in self.managed.values() {
            for revision in managed.revisions.iter().filter_map(|record| record.live.clone()) {
                if !revision.pool.refers_to(changed) {
                    continue;
                }
                revision.pool.end_outdated();
                if revision.kind() == Kind::Stateful {
                    let agent = Arc::clone(&managed.agent);
                    // In a task: it waits for the message in hand. The next message starts an instance with what is saved.
                    tokio::spawn(async move {
                        if let Err(why) = agent.save_last(&revision).await {
                            tracing::error!(agent = %agent.name(), "{why}; its instance goes on with what it has of an old secret");
                        }
                    });
                }
            }
        }
    }

    fn secret_error(&self, error: &SecretError, loaded: &Loaded) -> FileError {
        let (key, file) = (error.path.join("."), &self.source.file);
        let place = loaded.places.get(&key).map_or_else(|| file.display().to_string(), |place| place.text(file));
        let message = if error.name.is_empty() {
            format!("the folder `{}` {}", loaded.desired.secrets.folder.as_deref().unwrap_or_default(), error.reason)
        } else {
            format!("the secret `{}` has no value: {}", error.name, error.reason)
        };
        FileError { code: "unusable-secret".to_owned(), place, key, message, help: Some(error.help.to_owned()) }
    }
}
