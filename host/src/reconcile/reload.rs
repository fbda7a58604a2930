//! The reload of the declaration and of the components.

use std::sync::Arc;
use std::time::Instant;

use caxton_control::files::FileReadiness;
use serde_json::json;

use super::declaration_file::{DeferredRequest, file_errors};
use super::handle::Wake;
use super::reconciler::Reconciler;
use crate::access::log_unread_keys;
use crate::api_types::FileError;
use crate::config::{ConfigErrors, Loaded};
use crate::memory_budget::machine_budget;
use crate::wasm::digest;

impl Reconciler {
    /// Takes in a wake-up.
    pub(super) fn wake(&mut self, wake: Wake) {
        match wake {
            Wake::File => self.reload_if_changed(),
            // Not all: agents that do not watch their file keep the component they have.
            Wake::Components => self.scan_components(false),
            Wake::NamedFiles => {
                self.reload_certificates();
                self.configure_calls();
                self.reread_secrets();
                self.reload_policy(false);
                // The signature of a component may be there now.
                self.scan_components(false);
            }
            Wake::All => {
                self.reload_policy(true);
                if self.is_complete_or_defers(DeferredRequest::All) {
                    self.read_declaration();
                    // An operator who asks again may have fixed the cause outside of the file.
                    self.retry();
                    self.scan_components(true);
                }
            }
        }
    }

    /// Reads the certificates of the listeners again.
    fn reload_certificates(&mut self) {
        for certificate in &mut self.certificates {
            certificate.reload(&self.declared, &self.source.file, &self.context.events);
        }
    }

    /// Gives the client for calls of agents the settings in force, and the issuers in their files as these are now.
    fn configure_calls(&mut self) {
        let Loaded { desired, dir, .. } = &self.declared;
        self.context.budgets.configure(&desired.budgets);
        let errors = self.context.outgoing.configure(&desired.outgoing, dir, &self.secrets).err().unwrap_or_default();
        // Told once, although a look follows every event of the file system.
        if errors == self.refused_issuers {
            return;
        }
        for error in &errors {
            let key = format!("outgoing.ca[{}]", error.index);
            tracing::error!("{key}: {error}; the issuers that were taken before stay in use");
            self.context.events.emit(
                None,
                "tls.refused",
                json!({ "table": "outgoing", "errors": [{
                "key": key, "message": error.to_string(),
            }] }),
            );
        }
        self.refused_issuers = errors;
    }

    /// Reads the secrets of the declaration in force again, but for those that a command prints.
    fn reread_secrets(&mut self) {
        let declared = self.declared.clone();
        // None is missing: each has had a value.
        self.take_secrets(&declared, false);
    }

    /// Reads the declaration and adopts it, if it has no errors.
    fn read_declaration(&mut self) {
        let loaded = self.source.load(&self.policy.operator, Some(&self.declared));
        self.load_declaration(loaded, true);
    }

    /// Adopts a declaration that was read, or records its errors. `asked` says that an operator asks for it, and so for
    /// the commands that print secrets.
    pub(super) fn load_declaration(&mut self, loaded: Result<Loaded, ConfigErrors>, asked: bool) {
        let missing = match &loaded {
            Ok(loaded) => {
                let commands = asked || loaded.desired.secrets != self.declared.desired.secrets;
                // Before anything is adopted: an agent without its secret or its folder could not start.
                let mut missing = self.take_secrets(loaded, commands);
                missing.extend(unusable_folders(loaded));
                missing
            }
            Err(_) => Vec::new(),
        };
        // What was known of the file is out of date, whether it has errors or not.
        self.declaration.reset();
        match loaded {
            Ok(_) if !missing.is_empty() => {
                let text: Vec<String> = missing.iter().map(ToString::to_string).collect();
                self.refuse_declaration(missing, &text.join("\n"));
            }
            Ok(loaded) => {
                let recovered = !self.file_errors.is_empty();
                self.file_errors.clear();
                if recovered {
                    tracing::info!(file = %self.source.file.display(), "the file has no errors any more");
                }
                if loaded.desired != self.declared.desired {
                    self.context.events.emit(None, "config.taken", serde_json::json!({ "digest": loaded.text_digest }));
                    log_unread_keys(&loaded.desired, &loaded.dir);
                }
                self.declared = loaded;
                self.update_rules();
                self.compare_host_settings();
                // The listener reads it at each use, so that it applies without a restart.
                self.http.store(Arc::new(self.declared.desired.http.clone()));
                self.context.conversations.configure(self.declared.desired.conversations.clone());
                let memory = self.declared.desired.host.memory_bytes.unwrap_or_else(machine_budget);
                self.context.memory.set_limit(memory);
                self.context.store.retention.set(&self.declared.desired.store);
                self.reload_certificates();
                self.configure_calls();
                // Before the scan: a file that changes after it is read must cause an event.
                self.publish_watch_set();
                self.scan_components(false);
            }
            Err(errors) => self.refuse_declaration(file_errors(&errors), &errors.plain()),
        }
    }

    /// Records the errors of a declaration, which `text` has for people.
    fn refuse_declaration(&mut self, found: Vec<FileError>, text: &str) {
        // Reported once, although every write to the file is read.
        if found != self.file_errors {
            tracing::error!("{} has errors; what runs stays as it was:\n{text}", self.source.file.display());
            self.context.events.emit(None, "config.refused", serde_json::json!({ "errors": found }));
        }
        self.file_errors = found;
        // The errors are among the reasons of the readiness.
        self.mark_readiness_stale();
    }

    /// Returns the time of the next look at files that are being written.
    pub(super) fn unsettled_at(&self) -> Option<Instant> {
        [self.declaration.next_look, self.files.again(), self.policy.next_look].into_iter().flatten().min()
    }

    /// Looks again at files that were being written, if that is due, and carries out deferred requests.
    pub(super) fn recheck_unsettled_files(&mut self) {
        let is_due = |at: Option<Instant>| at.is_some_and(|at| at <= Instant::now());
        if is_due(self.declaration.next_look) {
            self.reload_if_changed();
        }
        // A wake-up may have caused a look meanwhile, so that none is due. A file that only lacks agents is complete,
        // so that requests do not wait for it.
        let is_waited_for = self.declaration.next_look.is_some_and(|at| at > Instant::now())
            && self.declaration.incomplete_since.is_none();
        if !self.declaration.deferred.is_empty() && !is_waited_for && self.is_complete() {
            for asked in std::mem::take(&mut self.declaration.deferred) {
                match asked {
                    DeferredRequest::All => self.wake(Wake::All),
                    DeferredRequest::Request(request) => self.handle_request(request),
                }
            }
        }
        if is_due(self.files.again()) {
            self.scan_components(false);
        }
        if is_due(self.policy.next_look) {
            self.reload_policy(false);
        }
    }

    /// Returns `true` if the declaration file is complete, for a request of an operator.
    pub(super) fn is_complete(&mut self) -> bool {
        self.declaration.probe(&self.source, self.files.writing(), true) == FileReadiness::Ready
    }

    /// Returns `true` if the declaration file is complete; otherwise defers the request.
    pub(super) fn is_complete_or_defers(&mut self, asked: DeferredRequest) -> bool {
        let whole = self.is_complete();
        if !whole {
            self.declaration.defer(asked);
        }
        whole
    }

    /// Loads the declaration if it has changed, is complete, and does not lack agents that it had a moment ago.
    pub(super) fn reload_if_changed(&mut self) {
        if self.declaration.probe(&self.source, self.files.writing(), false) != FileReadiness::Ready {
            return;
        }
        let text = std::fs::read(&self.source.at).ok();
        let content = text.as_ref().map(|text| digest(text));
        let same = match self.declaration.read {
            // The digest and not the stamp, because editors write files without changing them.
            Some(read) => read == content,
            None => self.file_errors.is_empty() && content == Some(self.declared.text_digest),
        };
        if same {
            (self.declaration.incomplete_since, self.declaration.next_look) = (None, None);
            self.declaration.text = text.unwrap_or_default();
            return;
        }
        let loaded = self.source.load(&self.policy.operator, Some(&self.declared));
        if let (Some(text), Ok(loaded)) = (&text, &loaded)
            && let Some(left) = self.declaration.removal_delay(text, &self.declared.desired, &loaded.desired)
        {
            self.declaration.next_look = Some(Instant::now() + left);
            // Forgotten, so that the next look takes the same file even if it does not change.
            self.declaration.settle.forget();
            return;
        }
        self.load_declaration(loaded, false);
        // After the load, which resets it.
        self.declaration.read = Some(content);
        self.declaration.text = text.unwrap_or_default();
    }
}

/// Returns the errors of folders that agents are granted and that cannot be used.
fn unusable_folders(loaded: &Loaded) -> Vec<FileError> {
    let all = loaded.file_errors.iter().flat_map(file_errors);
    // Other files have what was taken of them before.
    all.filter(|error| error.key.starts_with("agents.") && error.key.contains(".allow.files")).collect()
}
