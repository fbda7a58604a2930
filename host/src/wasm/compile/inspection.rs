//! The whole inspection of a component that cannot be used, and the proposals of WebAssembly that one uses.

use std::collections::BTreeSet;
use std::path::Path;

use caxton_control::Digest;
use caxton_control::inspection::Finding;
use caxton_control::policy::{ComponentFacts, Policy};

use crate::wasm::compile::child::{self, ChildTask};
use crate::wasm::compile::program::ProgramError;
use crate::wasm::compile::programs::write_new;
use crate::wasm::compile::runtime::Runtime;
use crate::wasm::inspect::{Summary, imports_and_exports, outline};

/// The most results that are kept: far more than a host has components.
const MAX_KNOWN: usize = 10_000;

impl Runtime {
    /// Returns the findings about the proposals that a component uses and a policy does not list.
    ///
    /// # Errors
    /// The component cannot be read, or could not be looked at.
    pub(crate) async fn features(
        &self,
        path: &Path,
        of: Digest,
        allowed: &BTreeSet<&'static str>,
    ) -> Result<Vec<Finding>, ProgramError> {
        let key = (of, allowed.clone());
        if let Some(known) = self.known_features.lock().get(&key) {
            return Ok(known.clone());
        }
        let bytes = tokio::fs::read(path).await.map_err(ProgramError::Read)?;
        let findings = self.validate(&bytes, Some(allowed)).await?;
        let mut known = self.known_features.lock();
        if known.len() >= MAX_KNOWN {
            known.clear();
        }
        known.insert(key, findings.clone());
        Ok(findings)
    }

    /// Returns what the stages find about the component in a file, but for the origin of its bytes and the limits of its
    /// agent; with its properties, if it makes an agent.
    pub(crate) async fn inspect(&self, path: &Path, policy: &Policy) -> (Vec<Finding>, Option<Summary>) {
        let Ok(bytes) = tokio::fs::read(path).await else { return (Vec::new(), None) };
        let policy_rules = policy.clone();
        // A large component takes longer than a worker of the runtime should be blocked.
        let outlined = tokio::task::spawn_blocking(move || {
            let (summary, mut findings) = match outline(&bytes) {
                Ok(summary) => (Some(summary), Vec::new()),
                Err(findings) => (None, findings),
            };
            let names = imports_and_exports(&bytes);
            if let Some((imports, exports)) = &names {
                let facts = ComponentFacts { imports, exports, size: bytes.len() as u64 };
                findings.extend(policy_rules.judge_component(facts));
            }
            (bytes, findings, names.is_some().then_some(summary))
        });
        let Ok((bytes, mut findings, readable)) = outlined.await else { return (Vec::new(), None) };
        if readable.is_some()
            && let Ok(others) = self.validate(&bytes, policy.features.as_ref()).await
        {
            findings.extend(others);
        }
        (findings, readable.flatten())
    }

    /// Validates a component in a process of its own.
    async fn validate(
        &self,
        bytes: &[u8],
        allowed: Option<&BTreeSet<&'static str>>,
    ) -> Result<Vec<Finding>, ProgramError> {
        // As for compilation: each process may take a core and much memory.
        let _turn = self.compiling.acquire().await.expect("the semaphore is never closed");
        let input = self.artefacts.temporary();
        let validated = async {
            write_new(&input, bytes).await.map_err(ProgramError::Read)?;
            child::run(&self.artefacts.compiler, &input, ChildTask::Inspect(allowed)).await
        }
        .await;
        let _ = tokio::fs::remove_file(&input).await;
        match validated {
            Ok(()) => Ok(Vec::new()),
            Err(ProgramError::Findings(findings)) => Ok(findings),
            Err(error) => Err(error),
        }
    }
}
