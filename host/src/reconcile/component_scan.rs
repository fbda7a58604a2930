//! The scan of the declared agents' components.

use std::collections::BTreeMap;
use std::sync::Arc;

use caxton_control::plan::{ComponentFile, DesiredAgent};

use super::reconciler::Reconciler;
use super::watcher::WatchSet;

impl Reconciler {
    /// Publishes the files to follow, if they have changed.
    pub(super) fn publish_watch_set(&self) {
        let now =
            WatchSet::new(&self.source.at, &self.declared.dir, self.context.store.folder(), &self.declared.desired)
                .with_policy(self.source.policy.as_ref().map(|policy| policy.at.as_path()), &self.policy.rules);
        self.watch_set.send_if_modified(|before| {
            let changed = **before != now;
            if changed {
                *before = Arc::new(now);
            }
            changed
        });
    }

    /// Reads the components of agents that are new or watch theirs, or of `all` agents, and marks those that changed.
    pub(super) fn scan_components(&mut self, all: bool) {
        let mut wanted = BTreeMap::new();
        self.files.begin(all);
        // Set again by the files that are still being written.
        self.files.next_look = None;
        // A request that met files in writing is still open for them.
        let all = all || self.files.covers_unwatched;
        // An equal spec keeps its identity, so that later comparisons of ten thousand specs compare pointers.
        for (name, spec) in &self.declared.desired.agents {
            let before = self.wanted.get(name);
            let spec = match before {
                Some(before) if before.spec == *spec => Arc::clone(&before.spec),
                Some(_) | None => Arc::clone(spec),
            };
            let path = self.declared.dir.join(&spec.component);
            let component = match before {
                Some(before)
                    if !all
                        && !spec.reload.watch
                        && before.spec.component == spec.component
                        && matches!(before.component, ComponentFile::Found(_)) =>
                {
                    before.component.clone()
                }
                Some(_) | None => self.files.component_at(&path, &spec.component),
            };
            let component = self.policy.judge_file(&spec, &path, component);
            let now = DesiredAgent { spec, component };
            let same =
                |before: &DesiredAgent| Arc::ptr_eq(&before.spec, &now.spec) && before.component == now.component;
            if !before.is_some_and(same) {
                self.plans.mark(name);
            }
            wanted.insert(name.clone(), now);
        }
        self.files.covers_unwatched = all && self.files.next_look.is_some();
        let before = std::mem::replace(&mut self.wanted, wanted);
        // Both have the same agents in the same order. Otherwise each reload would keep a second copy of every spec.
        for (spec, wanted) in self.declared.desired.agents.values_mut().zip(self.wanted.values()) {
            *spec = Arc::clone(&wanted.spec);
        }
        // Agents that are not wanted any more have to be planned for once more, to be removed.
        let gone = before.keys().filter(|name| !self.wanted.contains_key(*name));
        gone.for_each(|name| self.plans.mark(name));
        self.report_refused_files();
    }
}
