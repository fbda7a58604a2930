//! Settings that apply in place, and that the component of what runs can do nothing with.

use caxton_control::plan::Component;

use super::Reconciler;
use crate::config::Loaded;
use crate::status::FileError;

impl Reconciler {
    /// Returns what `caxton check` says of settings that cannot act on the components that run, as errors of the file.
    /// With another component they are judged when its revision is prepared.
    pub(super) fn misfits(&mut self, loaded: &Loaded) -> Vec<FileError> {
        self.files.begin(true);
        let mut misfits = Vec::new();
        for (name, spec) in &loaded.desired.agents {
            let Some(current) = self.entries.get(name).and_then(|entry| entry.agent.current()) else { continue };
            let Err(message) = super::judge(spec, &current.pool.program.summary) else { continue };
            let found = self.files.look(&loaded.dir.join(&spec.component), &spec.component);
            if found == Component::Found(current.digest) {
                misfits.push(FileError {
                    code: "settings".to_owned(),
                    place: self.source.file.display().to_string(),
                    key: format!("agents.{name}"),
                    message,
                    help: Some("change the setting, or the component".to_owned()),
                });
            }
        }
        misfits
    }
}
