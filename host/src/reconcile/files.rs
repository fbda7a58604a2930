//! What the declaration's and the components' files hold, without reading one twice, and none that is being written.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use caxton_control::files::{Settle, Verdict};
use caxton_control::plan::{Component, Wanted};

use super::Reconciler;
use crate::reconcile::stamp::{Look, Stamp, Writing};
use crate::reconcile::watcher::Followed;
use crate::wasm::{MAX_COMPONENT, ProgramError, digest, is_cut, summarise};

/// A component that ends in the middle is looked at again for this long: its writer may not be seen from here, as on a
/// file system that several machines share.
const CUT: Duration = Duration::from_secs(3);
/// How soon such a one is looked at again, and what changed while it was read.
const AGAIN: Duration = Duration::from_millis(300);
/// Times of a file system may be this coarse: bytes that were read sooner after a write may have been written again
/// without a trace.
const COARSE: Duration = Duration::from_millis(2_500);

/// A component's file, as far as it was looked at.
#[derive(Debug, Default)]
struct Known {
    settle: Settle<Stamp>,
    /// What was made of its last state; none until it was whole for the first time.
    component: Option<Component>,
    /// The state that it was made of.
    stamp: Option<Stamp>,
    /// Whether any write after that makes another state.
    certain: bool,
    /// Since when it ends in the middle.
    cut: Option<Instant>,
}

/// The components' files.
#[derive(Debug)]
pub(crate) struct Files {
    writing: Writing,
    known: HashMap<PathBuf, Known>,
    /// Those looked at since `begin`: many agents may share one.
    fresh: HashSet<PathBuf>,
    look: Look,
    /// Whether an operator asked for the look.
    asked: bool,
    /// When to look again at files that are not whole.
    again: Option<Instant>,
    /// Whether those of all agents are to be looked at then.
    all: bool,
    origin: Instant,
}

impl Files {
    /// No files yet; `writing` has those that the kernel says are being written.
    pub(super) fn new(writing: Writing) -> Self {
        Self {
            look: Look::new(&writing),
            writing,
            known: HashMap::new(),
            fresh: HashSet::new(),
            asked: false,
            again: None,
            all: false,
            origin: Instant::now(),
        }
    }

    /// From now on, each file is looked at once more. With `asked` somebody asks for them as they are now.
    pub(crate) fn begin(&mut self, asked: bool) {
        self.fresh.clear();
        self.look = Look::new(&self.writing);
        self.asked = asked;
    }

    /// When files that are not whole are to be looked at again.
    pub(super) fn again(&self) -> Option<Instant> {
        self.again
    }

    /// The files that the kernel says are being written.
    pub(super) fn writing(&self) -> &Writing {
        &self.writing
    }

    /// What a component's file holds. `shown` is the path as the declaration has it, for messages. While it is being
    /// written it is what it was before.
    pub(crate) fn look(&mut self, path: &Path, shown: &str) -> Component {
        if self.fresh.insert(path.to_owned()) {
            let mut known = self.known.remove(path).unwrap_or_default();
            if let Some(wait) = self.look_at(path, shown, &mut known) {
                let at = Instant::now() + wait;
                self.again = Some(self.again.map_or(at, |soonest| soonest.min(at)));
            }
            self.known.insert(path.to_owned(), known);
        }
        let known = self.known.get(path).and_then(|known| known.component.clone());
        known.unwrap_or_else(|| Component::Unusable(format!("the component {shown} is being written")))
    }

    /// Takes in a file as it is, if it is whole; otherwise says when to look again.
    fn look_at(&mut self, path: &Path, shown: &str, known: &mut Known) -> Option<Duration> {
        let found = self.look.at(path, known.stamp.as_ref());
        let stamp = found.as_ref().map(|found| found.stamp);
        let age = found.as_ref().and_then(|found| found.age);
        let now = u64::try_from(self.origin.elapsed().as_millis()).unwrap_or(u64::MAX);
        let verdict = known.settle.look(found, self.asked, now);
        if known.settle.is_late(now) {
            report_late(shown);
        }
        if let Verdict::Wait(time) = verdict {
            return Some(time);
        }
        if known.component.is_some() && stamp == known.stamp && known.certain {
            return None;
        }
        let component = match read(path, shown) {
            Read::Whole(component) => component,
            // Unless it stays like that.
            Read::Cut(why) => match known.cut.get_or_insert_with(Instant::now).elapsed() {
                since if since < CUT && age.is_none_or(|age| age < CUT) => {
                    known.settle.forget();
                    return Some(AGAIN);
                }
                _ => Component::Unusable(why),
            },
        };
        if Stamp::now(path) != stamp {
            known.settle.forget();
            return Some(AGAIN);
        }
        let certain = age.is_some_and(|age| age >= COARSE) || stamp.is_none();
        (known.component, known.stamp, known.certain, known.cut) = (Some(component), stamp, certain, None);
        None
    }
}

/// Says why a change of a file takes no effect yet, and what would free it.
pub(super) fn report_late(file: &str) {
    tracing::info!(
        "{file} has changed and is open for writing in another program; it is taken up when that program closes it, \
         or 10 s after its last write"
    );
}

/// What was read of a file.
enum Read {
    /// All of it, or why there is nothing.
    Whole(Component),
    /// The beginning of a component, and how that is told.
    Cut(String),
}

fn read(path: &Path, shown: &str) -> Read {
    let unusable = |why: String| Read::Whole(Component::Unusable(why));
    let metadata = match std::fs::metadata(path) {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            return unusable(format!(
                "the component {shown} is not there; build it (`caxton up --build`) or mend the path"
            ));
        }
        Err(error) => return unusable(format!("the component {shown} cannot be read: {error}")),
    };
    if !metadata.is_file() {
        return unusable(format!("the component {shown} is not a file"));
    }
    if metadata.len() > MAX_COMPONENT {
        return unusable(format!("the component {shown} has {} bytes, more than {MAX_COMPONENT}", metadata.len()));
    }
    match std::fs::read(path) {
        Ok(bytes) if is_cut(&bytes) => match summarise(&bytes) {
            Err(findings) => Read::Cut(format!("{shown}: {}", ProgramError::Findings(findings))),
            Ok(_) => Read::Whole(Component::Found(digest(&bytes))),
        },
        Ok(bytes) => Read::Whole(Component::Found(digest(&bytes))),
        Err(error) => unusable(format!("the component {shown} cannot be read: {error}")),
    }
}

impl Reconciler {
    /// Tells which files matter now.
    pub(super) fn follow(&self) {
        let now =
            Followed::new(&self.source.at, &self.declared.dir, self.context.store.folder(), &self.declared.desired);
        self.followed.send_if_modified(|before| {
            let changed = **before != now;
            if changed {
                *before = Arc::new(now);
            }
            changed
        });
    }

    /// Looks at the components' files: of agents that are new or that watch theirs, or of `all` as they are now.
    pub(super) fn look_at_components(&mut self, all: bool) {
        let mut wanted = BTreeMap::new();
        self.files.begin(all);
        self.files.again = None;
        // Those that were not whole when they were asked for are still asked for.
        let all = all || self.files.all;
        // Specs that did not change keep their identity, so that comparing ten thousand costs nothing.
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
                        && matches!(before.component, Component::Found(_)) =>
                {
                    before.component.clone()
                }
                Some(_) | None => self.files.look(&path, &spec.component),
            };
            let now = Wanted { spec, component };
            let same = |before: &Wanted| Arc::ptr_eq(&before.spec, &now.spec) && before.component == now.component;
            if !before.is_some_and(same) {
                self.standing.mark(name);
            }
            wanted.insert(name.clone(), now);
        }
        self.files.all = all && self.files.again.is_some();
        let before = std::mem::replace(&mut self.wanted, wanted);
        let gone = before.keys().filter(|name| !self.wanted.contains_key(*name));
        gone.for_each(|name| self.standing.mark(name));
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::Write;

    use super::*;

    const HEAD: &[u8] = b"\0asm\x0d\0\x01\0";

    fn look(files: &mut Files, path: &Path, asked: bool) -> Component {
        files.begin(asked);
        files.look(path, "a.wasm")
    }

    #[test]
    fn a_file_is_what_it_holds_now() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.wasm");
        let mut files = Files::new(Writing::default());
        let missing = "the component a.wasm is not there; build it (`caxton up --build`) or mend the path";
        assert_eq!(look(&mut files, &path, true), Component::Unusable(missing.to_owned()));
        fs::write(&path, "one").unwrap();
        assert_eq!(look(&mut files, &path, true), Component::Found(digest(b"one")));
        // Also within what the file system's clock tells apart.
        fs::write(&path, "two").unwrap();
        assert_eq!(look(&mut files, &path, true), Component::Found(digest(b"two")));
        fs::remove_file(&path).unwrap();
        assert!(matches!(look(&mut files, &path, true), Component::Unusable(_)));
        fs::create_dir(&path).unwrap();
        assert_eq!(look(&mut files, &path, true), Component::Unusable("the component a.wasm is not a file".to_owned()));
        assert_eq!(files.again(), None);
    }

    #[test]
    fn a_file_that_is_being_written_is_what_it_was() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.wasm");
        let mut files = Files::new(Writing::default());
        let mut file = fs::File::create(&path).unwrap();
        file.write_all(b"one").unwrap();
        for asked in [true, false] {
            let written = Component::Unusable("the component a.wasm is being written".to_owned());
            assert_eq!(look(&mut files, &path, asked), written, "nothing is known yet");
            assert!(files.again().is_some());
        }
        drop(file);
        assert_eq!(look(&mut files, &path, true), Component::Found(digest(b"one")));
        let mut file = fs::File::create(&path).unwrap();
        for part in ["t", "w"] {
            file.write_all(part.as_bytes()).unwrap();
            for asked in [true, false] {
                assert_eq!(look(&mut files, &path, asked), Component::Found(digest(b"one")));
                assert!(files.again().is_some());
            }
        }
        file.write_all(b"o").unwrap();
        drop(file);
        assert_eq!(look(&mut files, &path, true), Component::Found(digest(b"two")));
    }

    #[test]
    fn the_beginning_of_a_component_is_none() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.wasm");
        let mut files = Files::new(Writing::default());
        fs::write(&path, "whole").unwrap();
        let whole = Component::Found(digest(b"whole"));
        assert_eq!(look(&mut files, &path, true), whole);
        // A section of 100 bytes that are not there, and nothing at all.
        for cut in [[HEAD, &[0, 100, 1, 2]].concat(), Vec::new()] {
            fs::write(&path, &cut).unwrap();
            assert_eq!(look(&mut files, &path, true), whole);
            assert!(files.again().is_some());
        }
    }
}
