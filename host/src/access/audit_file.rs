//! The file of the audit log: opened and repaired, appended to, and shortened.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use caxton_control::access::AuditEntry;
use caxton_control::access::chain::{ChainHead, Verified, Verifier, head_of, is_intact};

use crate::clock;
use crate::store::lacks_room;

/// The name of the file in the data folder.
pub(crate) const AUDIT_FILE: &str = "audit.jsonl";
/// The most bytes of a line: far more than the bounds of its fields come to.
const MAX_LINE: u64 = 64 << 10;

/// The reason why the audit log cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AuditError {
    /// The file cannot be read or written.
    #[error("the audit log {} cannot be used: {source}", path.display())]
    File {
        /// The path of the file.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// The file has another content.
    #[error(
        "{} is not an audit log: its last line is none; `caxton events verify` tells more. Move it away, and the next start begins a new one",
        path.display()
    )]
    Foreign {
        /// The path of the file.
        path: PathBuf,
    },
}

/// The file of the audit log. It has one writer: the holder of the data folder.
pub(crate) struct AuditFile {
    path: PathBuf,
    file: File,
    /// The bytes of whole lines. What is behind them was written in vain.
    length: u64,
    /// Set while there may be a part of a line behind the whole ones.
    dirty: bool,
    head: ChainHead,
    /// The length above which old lines are removed.
    max_bytes: u64,
}

impl AuditFile {
    /// Opens the log of a data folder, and makes it if there is none. A torn last line, which a crash leaves, is taken
    /// out, and an entry says so.
    pub(super) fn open(folder: &Path, max_bytes: u64) -> Result<Self, AuditError> {
        let path = folder.join(AUDIT_FILE);
        let wrong = |source| AuditError::File { path: path.clone(), source };
        let mut file =
            OpenOptions::new().read(true).append(true).create(true).mode(0o600).open(&path).map_err(wrong)?;
        let (length, last) = last_line(&mut file).map_err(wrong)?;
        let torn = file.metadata().map_err(wrong)?.len() - length;
        let head = match last {
            None => ChainHead::START,
            Some(line) => {
                if !is_intact(&line) {
                    // The chain goes on all the same: a host must not be kept from starting by a changed record.
                    tracing::error!(
                        "the last line of {} was changed; `caxton events verify` tells more",
                        path.display()
                    );
                }
                head_of(&line).ok_or_else(|| AuditError::Foreign { path: path.clone() })?
            }
        };
        let mut log = Self { path: path.clone(), file, length, dirty: torn > 0, head, max_bytes };
        if torn > 0 {
            match log.append(&[AuditEntry::Repaired { bytes: torn }], true) {
                // The torn line is taken out before the next one is written: a host starts on a full disk as well.
                Err(error) if lacks_room(&error) => {}
                repaired => drop(repaired.map_err(wrong)?),
            }
            tracing::warn!("{}: the last line was torn, {torn} bytes of it were taken out", path.display());
        }
        Ok(log)
    }

    /// Returns the head of the chain.
    pub(super) fn head(&self) -> ChainHead {
        self.head
    }

    /// Appends entries, all or none, and returns the number of the first. With `sync` they are on the disk on return.
    pub(super) fn append(&mut self, entries: &[AuditEntry], sync: bool) -> io::Result<u64> {
        if self.dirty {
            // A part of a line before a whole one would break the chain.
            self.file.set_len(self.length)?;
        }
        let (first, now) = (self.head.number + 1, clock::now_ms());
        let (mut head, mut text) = (self.head, String::new());
        for entry in entries {
            let (line, next) = head.append(now, entry);
            text.push_str(&line);
            text.push('\n');
            head = next;
        }
        self.dirty = true;
        self.file.write_all(text.as_bytes())?;
        if sync {
            self.file.sync_data()?;
        }
        self.dirty = false;
        (self.head, self.length) = (head, self.length + text.len() as u64);
        if self.length > self.max_bytes
            && let Err(error) = self.shorten()
        {
            // The entries are in the log: what they record may go on.
            tracing::error!(%error, "the old lines of the audit log could not be removed");
        }
        Ok(first)
    }

    /// Removes the oldest lines, so that three quarters of the bound are left, and records the removal. The head of what
    /// is removed stays, as the first line.
    fn shorten(&mut self) -> io::Result<()> {
        let keep = self.max_bytes / 4 * 3;
        let mut reader = BufReader::new(File::open(&self.path)?);
        let (mut line, mut passed, mut lines, mut until) = (Vec::new(), 0, 0, ChainHead::START);
        while self.length - passed > keep {
            line.clear();
            let bytes = reader.by_ref().take(MAX_LINE).read_until(b'\n', &mut line)? as u64;
            // The newest line always stays: it is what the next one follows.
            if bytes == 0 || passed + bytes >= self.length {
                break;
            }
            until = head_of(String::from_utf8_lossy(&line).trim_end()).unwrap_or(until);
            passed += bytes;
            lines += 1;
        }
        if lines == 0 {
            return Ok(());
        }
        let (removal, head) = self.head.append(clock::now_ms(), &AuditEntry::Removed { lines, until });
        let folder = self.path.parent().unwrap_or(Path::new("."));
        // Beside the log and renamed: at any moment the name leads to a whole chain.
        let mut fresh = tempfile::NamedTempFile::new_in(folder)?;
        writeln!(fresh, "{}", until.anchor())?;
        reader.seek(SeekFrom::Start(passed))?;
        io::copy(&mut reader.take(self.length - passed), &mut fresh)?;
        writeln!(fresh, "{removal}")?;
        fresh.as_file().sync_all()?;
        fresh.persist(&self.path)?;
        File::open(folder)?.sync_all()?;
        self.file = OpenOptions::new().read(true).append(true).open(&self.path)?;
        (self.length, self.head) = (self.file.metadata()?.len(), head);
        tracing::info!("{lines} old lines of the audit log were removed (admin.audit-max), up to {until}");
        Ok(())
    }
}

/// Returns the length of the whole lines of a file, and the last of them.
fn last_line(file: &mut File) -> io::Result<(u64, Option<String>)> {
    let end = file.metadata()?.len();
    // Two lines at the most: a torn one and the whole one before it.
    let start = end.saturating_sub(2 * MAX_LINE);
    file.seek(SeekFrom::Start(start))?;
    let mut bytes = Vec::new();
    file.take(end - start).read_to_end(&mut bytes)?;
    let Some(last) = bytes.iter().rposition(|byte| *byte == b'\n') else { return Ok((start, None)) };
    let first = bytes[..last].iter().rposition(|byte| *byte == b'\n').map_or(0, |before| before + 1);
    let line = String::from_utf8_lossy(&bytes[first..last]).into_owned();
    Ok((start + last as u64 + 1, Some(line)))
}

/// The result of a check of a file.
#[derive(Debug)]
pub(crate) struct CheckedAudit {
    pub(crate) verified: Verified,
    /// The bytes of a last line that is not finished: a host is writing it, or a crash has torn it.
    pub(crate) torn: u64,
}

/// Checks a log, also beside a host that writes to it.
pub(crate) fn verify_file(path: &Path, sought: Option<ChainHead>) -> io::Result<CheckedAudit> {
    let mut reader = BufReader::new(File::open(path)?);
    let (mut verifier, mut line) = (Verifier::new(sought), Vec::new());
    loop {
        line.clear();
        let bytes = reader.by_ref().take(MAX_LINE).read_until(b'\n', &mut line)?;
        let is_whole = line.pop_if(|byte| *byte == b'\n').is_some();
        // A piece of a line that is too long is one that cannot be read.
        if bytes == 0 || !is_whole && (bytes as u64) < MAX_LINE {
            return Ok(CheckedAudit { verified: verifier.finish(), torn: bytes as u64 });
        }
        verifier.push(&String::from_utf8_lossy(&line));
    }
}

/// Returns the path of the log of a data folder, if there is one.
pub(crate) fn audit_path(folder: &Path) -> Option<PathBuf> {
    let path = folder.join(AUDIT_FILE);
    fs::metadata(&path).is_ok_and(|metadata| metadata.is_file()).then_some(path)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn entry(bytes: u64) -> AuditEntry {
        AuditEntry::Repaired { bytes }
    }

    fn verified(folder: &Path, sought: Option<ChainHead>) -> Verified {
        let checked = verify_file(&folder.join(AUDIT_FILE), sought).unwrap();
        assert_eq!(checked.torn, 0);
        checked.verified
    }

    #[test]
    fn logs_go_on_after_each_start() {
        let folder = tempfile::tempdir().unwrap();
        for start in 0..3 {
            let mut log = AuditFile::open(folder.path(), 1 << 20).unwrap();
            assert_eq!(log.append(&[entry(1), entry(2)], true).unwrap(), 2 * start + 1);
        }
        let result = verified(folder.path(), None);
        assert!(result.ok && result.entries == 6, "{result:?}");
        let mode = fs::metadata(folder.path().join(AUDIT_FILE)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn torn_lines_are_taken_out_and_said() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(AUDIT_FILE);
        AuditFile::open(folder.path(), 1 << 20).unwrap().append(&[entry(1), entry(2)], true).unwrap();
        let whole = fs::read(&path).unwrap();
        let second = whole.iter().position(|byte| *byte == b'\n').unwrap() + 1;
        for end in second..whole.len() {
            fs::write(&path, &whole[..end]).unwrap();
            let torn = (end - second) as u64;
            assert_eq!(verify_file(&path, None).unwrap().torn, torn);
            let mut log = AuditFile::open(folder.path(), 1 << 20).unwrap();
            log.append(&[entry(3)], true).unwrap();
            let result = verified(folder.path(), None);
            assert!(result.ok, "{end}: {result:?}");
            assert_eq!(result.entries, if torn == 0 { 2 } else { 3 }, "{end}");
            let said = fs::read_to_string(&path).unwrap().contains(&format!("\"bytes\":{torn}"));
            assert!(said || torn == 0, "{end}");
        }
        fs::write(&path, "something else\n").unwrap();
        assert!(matches!(AuditFile::open(folder.path(), 1 << 20), Err(AuditError::Foreign { .. })));
    }

    #[test]
    fn old_lines_leave_and_the_rest_verifies() {
        let folder = tempfile::tempdir().unwrap();
        let max_bytes = 8 << 10;
        let mut log = AuditFile::open(folder.path(), max_bytes).unwrap();
        let (mut heads, mut removals) = (Vec::new(), 0);
        for number in 0..500 {
            let before = log.length;
            log.append(&[entry(number)], false).unwrap();
            heads.push(log.head());
            removals += u32::from(log.length < before);
            assert!(log.length <= max_bytes, "{}", log.length);
        }
        assert!(removals > 5, "{removals}");
        let result = verified(folder.path(), Some(log.head()));
        assert!(result.ok && result.removed.is_some(), "{result:?}");
        assert!(!verified(folder.path(), Some(heads[0])).ok);
        drop(log);
        // What follows after another start goes on from there.
        AuditFile::open(folder.path(), max_bytes).unwrap().append(&[entry(0)], true).unwrap();
        assert!(verified(folder.path(), heads.last().copied()).ok);
    }
}
