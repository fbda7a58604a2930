//! The configuration of an instance: that of its agent, with the values of secrets.

use std::borrow::Cow;
use std::sync::Arc;

use crate::bounds;
use crate::secrets::{AgentSecrets, AgentTexts};

/// The configuration of an instance whose agent has secrets; empty for all others.
#[derive(Default)]
pub(in crate::wasm) struct GuestConfig {
    secrets: Option<Arc<AgentSecrets>>,
    /// The texts at the start of the instance, which the guest may have kept.
    first: Option<Arc<AgentTexts>>,
    /// The texts of the current call.
    texts: Option<Arc<AgentTexts>>,
}

impl GuestConfig {
    /// Creates the configuration of a new instance.
    pub(in crate::wasm) fn new(secrets: Option<&Arc<AgentSecrets>>) -> Self {
        let texts = secrets.and_then(|secrets| secrets.texts().ok());
        Self { secrets: secrets.cloned(), first: texts.clone(), texts }
    }

    /// Takes the values in force for the call that begins.
    pub(in crate::wasm) fn begin(&mut self) {
        // A secret that is gone leaves the texts as they were.
        if let Some(texts) = self.secrets.as_ref().and_then(|secrets| secrets.texts().ok()) {
            self.texts = Some(texts);
        }
    }

    /// Returns the texts that the guest may read, which are those of the declaration where that refers to no secret.
    pub(in crate::wasm) fn texts<'t>(&'t self, declared: &'t AgentTexts) -> &'t AgentTexts {
        self.texts.as_deref().unwrap_or(declared)
    }

    /// Returns a guest's reason for a failure with secrets masked, and cut.
    pub(in crate::wasm) fn shortened(&self, reason: &str) -> String {
        // Masked first: of a secret that is cut in two, the rest would not be known for one.
        bounds::cut(self.mask(reason).into_owned(), bounds::REASON)
    }

    /// Replaces the values of secrets in a text by their names.
    pub(in crate::wasm) fn mask<'t>(&self, text: &'t str) -> Cow<'t, str> {
        self.secrets.as_ref().map_or(Cow::Borrowed(text), |secrets| secrets.mask(text))
    }

    /// Returns `true` if other values are in force than at the start of the instance, which may have kept those.
    pub(in crate::wasm) fn is_outdated(&self) -> bool {
        let now = self.secrets.as_ref().and_then(|secrets| secrets.texts().ok());
        // By the pointer, which changes only with a value of this agent.
        now.zip(self.first.as_ref()).is_some_and(|(now, first)| !Arc::ptr_eq(&now, first))
    }
}
