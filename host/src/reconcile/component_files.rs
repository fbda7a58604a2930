//! The files of components. Each state of a file is read once, and none while it is being written.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use caxton_control::files::{FileReadiness, StabilityCheck};
use caxton_control::plan::ComponentFile;

use super::file_stamp::{FileProbe, FileStamp, OpenWrites, log_late_write};
use crate::wasm::{MAX_COMPONENT, ProgramError, digest, is_cut, outline};

/// The time for which a truncated component is read again and again: on a file system that several machines share, the
/// writer cannot be seen from here.
const TRUNCATED_TIMEOUT: Duration = Duration::from_secs(3);
/// The pause before another look at a truncated component, or at one that changed while it was read.
const RECHECK_INTERVAL: Duration = Duration::from_millis(300);
/// The coarsest timestamps of common file systems (FAT: two seconds). A younger file may be written again with the same
/// timestamp.
const TIMESTAMP_GRANULARITY: Duration = Duration::from_millis(2_500);

/// The state of a file at the last look.
#[derive(Debug, Default)]
struct KnownFile {
    settle: StabilityCheck<FileStamp>,
    /// The result of reading it; `None` until it was first complete.
    component: Option<ComponentFile>,
    /// The state in which it was read.
    stamp: Option<FileStamp>,
    /// Set if any later write has to change the stamp.
    is_certain: bool,
    /// The time since which it is truncated.
    truncated_since: Option<Instant>,
}

/// The files of all components.
#[derive(Debug)]
pub(crate) struct ComponentFiles {
    writing: OpenWrites,
    known: HashMap<PathBuf, KnownFile>,
    /// The files looked at since [`begin`](Self::begin): many agents may share one.
    examined: HashSet<PathBuf>,
    probe: FileProbe,
    /// Set if an operator asked for the look.
    is_requested: bool,
    /// The time of the next look at files that are being written.
    pub(super) next_look: Option<Instant>,
    /// Set if the next look covers the files of all agents, also of those that do not watch theirs.
    pub(super) covers_unwatched: bool,
    origin: Instant,
}

impl ComponentFiles {
    /// Creates an empty collection. `writing` has the files that are being written.
    pub(super) fn new(writing: OpenWrites) -> Self {
        Self {
            probe: FileProbe::new(&writing),
            writing,
            known: HashMap::new(),
            examined: HashSet::new(),
            is_requested: false,
            next_look: None,
            covers_unwatched: false,
            origin: Instant::now(),
        }
    }

    /// Starts a new look, in which each file is examined once. `asked` is set for a request of an operator.
    pub(crate) fn begin(&mut self, is_requested: bool) {
        self.examined.clear();
        self.probe = FileProbe::new(&self.writing);
        self.is_requested = is_requested;
    }

    /// Returns the time of the next look at files that are being written.
    pub(super) fn again(&self) -> Option<Instant> {
        self.next_look
    }

    /// Returns the files that are being written.
    pub(super) fn writing(&self) -> &OpenWrites {
        &self.writing
    }

    /// Returns the component in a file. `shown` is the path in the declaration, for messages. While the file is being
    /// written, this is the component that it held before.
    pub(crate) fn component_at(&mut self, path: &Path, shown: &str) -> ComponentFile {
        if self.examined.insert(path.to_owned()) {
            let mut known = self.known.remove(path).unwrap_or_default();
            if let Some(wait) = self.examine(path, shown, &mut known) {
                let at = Instant::now() + wait;
                // The earliest of all files: one look serves those that are due later.
                self.next_look = Some(self.next_look.map_or(at, |soonest| soonest.min(at)));
            }
            self.known.insert(path.to_owned(), known);
        }
        let known = self.known.get(path).and_then(|known| known.component.clone());
        known.unwrap_or_else(|| ComponentFile::Unusable(format!("the component {shown} is being written")))
    }

    /// Reads a file if it has changed and is complete. Returns the pause before another look if it is not.
    fn examine(&mut self, path: &Path, shown: &str, known: &mut KnownFile) -> Option<Duration> {
        let found = self.probe.at(path, known.stamp.as_ref());
        let stamp = found.as_ref().map(|found| found.stamp);
        let age = found.as_ref().and_then(|found| found.age);
        let now = u64::try_from(self.origin.elapsed().as_millis()).unwrap_or(u64::MAX);
        let verdict = known.settle.check(found, self.is_requested, now);
        if known.settle.is_late(now) {
            log_late_write(shown);
        }
        // What the file held before stays in force meanwhile.
        if let FileReadiness::Wait(time) = verdict {
            return Some(time);
        }
        // Reading and digesting every component at each scan would cost seconds with thousands of agents.
        if known.component.is_some() && stamp == known.stamp && known.is_certain {
            return None;
        }
        let component = match read(path, shown) {
            FileContent::Complete(component) => component,
            // An old file that stays truncated is a defect and no write in progress.
            FileContent::Truncated(why) => match known.truncated_since.get_or_insert_with(Instant::now).elapsed() {
                since if since < TRUNCATED_TIMEOUT && age.is_none_or(|age| age < TRUNCATED_TIMEOUT) => {
                    known.settle.forget();
                    return Some(RECHECK_INTERVAL);
                }
                _ => ComponentFile::Unusable(why),
            },
        };
        // It changed while it was read: the bytes may be of both states.
        if FileStamp::now(path) != stamp {
            known.settle.forget();
            return Some(RECHECK_INTERVAL);
        }
        // A missing file is certain, since creating it gives it a stamp.
        let certain = age.is_some_and(|age| age >= TIMESTAMP_GRANULARITY) || stamp.is_none();
        (known.component, known.stamp, known.is_certain, known.truncated_since) =
            (Some(component), stamp, certain, None);
        None
    }
}

/// The result of reading a file.
enum FileContent {
    /// A complete component, or the reason why there is none.
    Complete(ComponentFile),
    /// The beginning of a component, with the error it would be.
    Truncated(String),
}

fn read(path: &Path, shown: &str) -> FileContent {
    let unusable = |why: String| FileContent::Complete(ComponentFile::Unusable(why));
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
    // Checked before it is read: a file of any size would go into memory.
    if metadata.len() > MAX_COMPONENT {
        return unusable(format!("the component {shown} has {} bytes, more than {MAX_COMPONENT}", metadata.len()));
    }
    match std::fs::read(path) {
        // Some complete components look truncated: only one that also cannot be read counts as such.
        Ok(bytes) if is_cut(&bytes) => match outline(&bytes) {
            Err(findings) => FileContent::Truncated(format!("{shown}: {}", ProgramError::Findings(findings))),
            Ok(_) => FileContent::Complete(ComponentFile::Found(digest(&bytes))),
        },
        Ok(bytes) => FileContent::Complete(ComponentFile::Found(digest(&bytes))),
        Err(error) => unusable(format!("the component {shown} cannot be read: {error}")),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::Write;

    use super::*;

    const HEAD: &[u8] = b"\0asm\x0d\0\x01\0";

    fn look(files: &mut ComponentFiles, path: &Path, asked: bool) -> ComponentFile {
        files.begin(asked);
        files.component_at(path, "a.wasm")
    }

    #[test]
    fn a_file_is_what_it_holds_now() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.wasm");
        let mut files = ComponentFiles::new(OpenWrites::default());
        let missing = "the component a.wasm is not there; build it (`caxton up --build`) or mend the path";
        assert_eq!(look(&mut files, &path, true), ComponentFile::Unusable(missing.to_owned()));
        fs::write(&path, "one").unwrap();
        assert_eq!(look(&mut files, &path, true), ComponentFile::Found(digest(b"one")));
        // Also within what the file system's clock tells apart.
        fs::write(&path, "two").unwrap();
        assert_eq!(look(&mut files, &path, true), ComponentFile::Found(digest(b"two")));
        fs::remove_file(&path).unwrap();
        assert!(matches!(look(&mut files, &path, true), ComponentFile::Unusable(_)));
        fs::create_dir(&path).unwrap();
        assert_eq!(
            look(&mut files, &path, true),
            ComponentFile::Unusable("the component a.wasm is not a file".to_owned())
        );
        assert_eq!(files.again(), None);
    }

    #[test]
    fn a_file_that_is_being_written_is_what_it_was() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.wasm");
        let mut files = ComponentFiles::new(OpenWrites::default());
        let mut file = fs::File::create(&path).unwrap();
        file.write_all(b"one").unwrap();
        for asked in [true, false] {
            let written = ComponentFile::Unusable("the component a.wasm is being written".to_owned());
            assert_eq!(look(&mut files, &path, asked), written, "nothing is known yet");
            assert!(files.again().is_some());
        }
        drop(file);
        assert_eq!(look(&mut files, &path, true), ComponentFile::Found(digest(b"one")));
        let mut file = fs::File::create(&path).unwrap();
        for part in ["t", "w"] {
            file.write_all(part.as_bytes()).unwrap();
            for asked in [true, false] {
                assert_eq!(look(&mut files, &path, asked), ComponentFile::Found(digest(b"one")));
                assert!(files.again().is_some());
            }
        }
        file.write_all(b"o").unwrap();
        drop(file);
        assert_eq!(look(&mut files, &path, true), ComponentFile::Found(digest(b"two")));
    }

    #[test]
    fn the_beginning_of_a_component_is_none() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.wasm");
        let mut files = ComponentFiles::new(OpenWrites::default());
        fs::write(&path, "whole").unwrap();
        let whole = ComponentFile::Found(digest(b"whole"));
        assert_eq!(look(&mut files, &path, true), whole);
        // A section of 100 bytes that are not there, and nothing at all.
        for cut in [[HEAD, &[0, 100, 1, 2]].concat(), Vec::new()] {
            fs::write(&path, &cut).unwrap();
            assert_eq!(look(&mut files, &path, true), whole);
            assert!(files.again().is_some());
        }
    }
}
