//! When the declaration's file is read: not while it is being written, and not at once when it takes agents out.

use std::time::{Duration, Instant};

use caxton_control::files::{Settle, Verdict};
use caxton_control::{Desired, Digest};

use super::files::report_late;
use super::{Reconciler, Source};
use crate::reconcile::handle::Command;
use crate::reconcile::stamp::{Look, Stamp, Writing};
use crate::wasm::digest;

/// A file that lacks agents is looked at again after this before they are taken out: a program that writes it in more
/// than one go may have closed it between two.
const LACKS: Duration = Duration::from_secs(2);

/// The declaration's file, as far as it was looked at.
#[derive(Default)]
pub(super) struct Declaration {
    settle: Settle<Stamp>,
    began: Option<Instant>,
    /// What its bytes were when it was read last, if the watcher asked for that; an outer none before.
    read: Option<Option<Digest>>,
    /// Its bytes when it was taken up last, to tell a beginning of them.
    text: Vec<u8>,
    /// Since when it lacks agents that are declared.
    lacks: Option<Instant>,
    /// When to look again.
    again: Option<Instant>,
    /// What waits until it is whole.
    deferred: Vec<Asked>,
}

/// What somebody asked for that needs the whole file.
pub(super) enum Asked {
    /// To look at everything anew.
    All,
    /// This.
    Command(Command),
}

impl Declaration {
    /// Lets something wait until the file is whole.
    pub(super) fn defer(&mut self, asked: Asked) {
        self.deferred.push(asked);
    }

    /// Takes in that the file was taken up, as it is now.
    pub(super) fn took(&mut self) {
        (self.lacks, self.again, self.read) = (None, None, None);
        self.text.clear();
    }

    fn look(&mut self, source: &Source, writing: &Writing, asked: bool) -> Verdict {
        let began = *self.began.get_or_insert_with(Instant::now);
        let now = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
        let verdict = self.settle.look(Look::new(writing).at(&source.at, None), asked, now);
        if self.settle.is_late(now) {
            report_late(&source.file.display().to_string());
        }
        self.again = match verdict {
            // A file that lacks agents is whole, and is looked at again all the same.
            Verdict::Take => self.again.filter(|_| self.lacks.is_some()),
            Verdict::Wait(time) => Some(Instant::now() + time),
        };
        verdict
    }

    /// How long a file is left alone that lacks agents; none if it lacks none, or has lacked them for long enough.
    fn left_alone(&mut self, text: &[u8], before: &Desired, now: &Desired) -> Option<Duration> {
        let lacks = before.agents.keys().any(|name| !now.agents.contains_key(name));
        let is_beginning = text.len() < self.text.len() && self.text.starts_with(text);
        if !lacks && !is_beginning {
            self.lacks = None;
            return None;
        }
        let since = *self.lacks.get_or_insert_with(|| {
            let gone: Vec<&str> =
                before.agents.keys().filter(|name| !now.agents.contains_key(*name)).map(caxton_control::AgentName::as_str).collect();
            tracing::info!("the file lacks agents or what came last in it ({}); it is looked at again before anything is taken out", gone.join(", "));
            Instant::now()
        });
        Some(LACKS.saturating_sub(since.elapsed())).filter(|left| !left.is_zero())
    }
}

impl Source {
    /// Waits until nobody writes the file, as long as that is waited for.
    pub(crate) async fn until_whole(&self) {
        let (mut declaration, mut told) = (Declaration::default(), false);
        while let Verdict::Wait(time) = declaration.look(self, &Writing::default(), true) {
            if !std::mem::replace(&mut told, true) {
                tracing::info!("{} is being written; it is read when that is done", self.file.display());
            }
            tokio::time::sleep(time).await;
        }
    }
}

impl Reconciler {
    /// When files that are not whole are to be looked at again.
    pub(super) fn unsettled_at(&self) -> Option<Instant> {
        [self.declaration.again, self.files.again()].into_iter().flatten().min()
    }

    /// Looks again at files that were not whole, if it is time.
    pub(super) fn look_at_unsettled(&mut self) {
        let is_due = |at: Option<Instant>| at.is_some_and(|at| at <= Instant::now());
        if is_due(self.declaration.again) {
            self.follow_file();
        }
        // A hint may have had the file looked at meanwhile, so that none is due; and what lacks agents is whole.
        let is_waited_for =
            self.declaration.again.is_some_and(|at| at > Instant::now()) && self.declaration.lacks.is_none();
        if !self.declaration.deferred.is_empty() && !is_waited_for && self.is_whole() {
            for asked in std::mem::take(&mut self.declaration.deferred) {
                match asked {
                    Asked::All => self.wake(crate::reconcile::handle::Wake::All),
                    Asked::Command(command) => self.command(command),
                }
            }
        }
        if is_due(self.files.again()) {
            self.look_at_components(false);
        }
    }

    /// Whether nobody writes the file that somebody asks for.
    pub(super) fn is_whole(&mut self) -> bool {
        self.declaration.look(&self.source, self.files.writing(), true) == Verdict::Take
    }

    /// The same; otherwise what is asked for waits.
    pub(super) fn is_whole_or_defers(&mut self, asked: Asked) -> bool {
        let whole = self.is_whole();
        if !whole {
            self.declaration.defer(asked);
        }
        whole
    }

    /// Takes up the file if it changed, is whole, and does not lack agents that it had a moment ago.
    pub(super) fn follow_file(&mut self) {
        if self.declaration.look(&self.source, self.files.writing(), false) != Verdict::Take {
            return;
        }
        let text = std::fs::read(&self.source.at).ok();
        let held = text.as_ref().map(|text| digest(text));
        let same = match self.declaration.read {
            Some(read) => read == held,
            None => self.file_errors.is_empty() && held == Some(self.declared.text_digest),
        };
        if same {
            (self.declaration.lacks, self.declaration.again) = (None, None);
            self.declaration.text = text.unwrap_or_default();
            return;
        }
        let loaded = self.source.load();
        if let (Some(text), Ok(loaded)) = (&text, &loaded)
            && let Some(left) = self.declaration.left_alone(text, &self.declared.desired, &loaded.desired)
        {
            self.declaration.again = Some(Instant::now() + left);
            // It is not known yet, so that it is looked at whether it changes or not.
            self.declaration.settle.forget();
            return;
        }
        self.take_file(loaded);
        self.declaration.read = Some(held);
        self.declaration.text = text.unwrap_or_default();
    }
}
