//! The certificates of the listeners, taken again when their files or settings change.

use std::path::Path;
use std::sync::Arc;

use serde_json::json;

use crate::config::{Loaded, TlsTable};
use crate::events::Events;
use crate::net::{ListenerTls, TlsError, TlsFiles, TlsMaterial};

/// The certificate of one listener.
pub(crate) struct ListenerCertificate {
    table: TlsTable,
    tls: Arc<ListenerTls>,
    /// Gets the fingerprint of each certificate that is taken.
    taken: Box<dyn Fn(&str) + Send>,
    /// The errors that were reported last. The same ones are not reported again.
    refused: Vec<TlsError>,
}

impl ListenerCertificate {
    /// Adds the reload to the TLS of a listener. `taken` gets the fingerprint of each certificate that replaces another.
    pub(crate) fn new(table: TlsTable, tls: Arc<ListenerTls>, taken: impl Fn(&str) + Send + 'static) -> Self {
        Self { table, tls, taken: Box::new(taken), refused: Vec::new() }
    }

    /// Reads the files again. With any error, what is in force stays so.
    pub(super) fn reload(&mut self, declared: &Loaded, file: &Path, events: &Events) {
        // A listener whose table was removed goes on with what it has: plain HTTP begins with a restart.
        let Some(spec) = self.table.spec(&declared.desired) else { return };
        let read = TlsFiles::new(spec, &declared.dir).read();
        let is_same = read.as_ref().is_ok_and(|read| read.digest() == self.tls.current().digest);
        if is_same {
            if !std::mem::take(&mut self.refused).is_empty() {
                tracing::info!("{}: its files are again those in use", self.table.name());
            }
            return;
        }
        match read.and_then(TlsMaterial::into_config) {
            Ok(next) => {
                self.refused.clear();
                tracing::info!("{}: new connections get the certificate {}", self.table.name(), next.fingerprint);
                let data = json!({ "table": self.table.name(), "certificate": next.fingerprint });
                events.emit(None, "tls.taken", data);
                let fingerprint = next.fingerprint.clone();
                self.tls.replace(next);
                (self.taken)(&fingerprint);
            }
            Err(errors) => self.refuse(errors, declared, file, events),
        }
    }

    fn refuse(&mut self, errors: Vec<TlsError>, declared: &Loaded, file: &Path, events: &Events) {
        // Reported once, although a look follows every event of the file system.
        if errors == self.refused {
            return;
        }
        let mut told = Vec::new();
        for error in &errors {
            let key = self.table.key(error);
            let place = declared.places.get(&key).map_or_else(|| file.display().to_string(), |place| place.text(file));
            tracing::error!("{place}: {key}: {error}; {}. The certificate in use stays", error.help);
            told.push(json!({ "place": place, "key": key, "message": error.to_string(), "help": error.help }));
        }
        events.emit(None, "tls.refused", json!({ "table": self.table.name(), "errors": told }));
        self.refused = errors;
    }
}
