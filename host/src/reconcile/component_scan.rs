//! The scan of the declared agents' components.

use std::collections::HashMap;
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
        self.files.begin(all);
        // Set again by the files that are still being written.
        self.files.next_look = None;
        // A request that met files in writing is still open for them.
        let all = all || self.files.covers_unwatched;
        // Many agents share a component, and a path is slow to look up.
        let mut examined: HashMap<&str, ComponentFile> = HashMap::new();
        let mut earlier = std::mem::take(&mut self.wanted).into_iter().peekable();
        let mut wanted = Vec::with_capacity(self.declared.desired.agents.len());
        // Both are in the order of names, so that one pass along them finds what belongs together.
        for (name, spec) in &self.declared.desired.agents {
            while let Some((gone, _)) = earlier.next_if(|(other, _)| other < name) {
                // It has to be planned for once more, to be removed.
                self.plans.mark(&gone);
            }
            let before = earlier.next_if(|(other, _)| other == name).map(|(_, before)| before);
            // An equal spec keeps its identity, so that later comparisons of many specs compare pointers.
            let kept = before.as_ref().filter(|before| before.spec == *spec);
            let now = Arc::clone(kept.map_or(spec, |before| &before.spec));
            let path = self.declared.dir.join(&now.component);
            let component = match &before {
                Some(DesiredAgent { spec: before, component: found @ ComponentFile::Found(_) })
                    if !all && !now.reload.watch && before.component == now.component =>
                {
                    found.clone()
                }
                Some(_) | None => {
                    let found = examined.entry(spec.component.as_str());
                    found.or_insert_with(|| self.files.component_at(&path, &spec.component)).clone()
                }
            };
            let component = self.policy.judge_file(&now, &path, component);
            let now = DesiredAgent { spec: now, component };
            let is_same =
                |before: &DesiredAgent| Arc::ptr_eq(&before.spec, &now.spec) && before.component == now.component;
            if !before.as_ref().is_some_and(is_same) {
                self.plans.mark(name);
                self.summary.has_new_agents |= before.is_none();
            }
            wanted.push((name.clone(), now));
        }
        earlier.for_each(|(gone, _)| self.plans.mark(&gone));
        self.wanted = wanted.into_iter().collect();
        self.files.covers_unwatched = all && self.files.next_look.is_some();
        // Both have the same agents in the same order. Otherwise each reload would keep a second copy of every spec.
        for (spec, wanted) in self.declared.desired.agents.values_mut().zip(self.wanted.values()) {
            if !Arc::ptr_eq(spec, &wanted.spec) {
                *spec = Arc::clone(&wanted.spec);
            }
        }
        self.report_refused_files();
    }
}
