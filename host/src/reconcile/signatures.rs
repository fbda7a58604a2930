//! The signatures of components: read from the files beside them, and checked.

use std::collections::{BTreeSet, HashMap};
use std::ffi::OsString;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::Duration;

use caxton_control::Digest;
use caxton_control::policy::{ComponentSignature, MAX_SIGNATURE_FILE, SIGNATURE_ENDING, SignatureCheck, signed_text};
use ring::signature::{ED25519, UnparsedPublicKey};

use super::file_stamp::FileStamp;

/// The age from which a file with the same stamp has the same content: the coarsest timestamps of common file systems.
const TIMESTAMP_GRANULARITY: Duration = Duration::from_millis(2_500);

/// Returns the path of the signatures of a component.
pub(crate) fn signature_path(component: &Path) -> PathBuf {
    // Appended and not exchanged for the ending: `agent.wasm.sig`.
    let mut path = OsString::from(component);
    path.push(SIGNATURE_ENDING);
    path.into()
}

/// Reads the file with the signatures of a component, and checks which are of these bytes.
pub(crate) fn check_signatures(file: &Path, of: Digest) -> SignatureCheck {
    let text = match read(file) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return SignatureCheck::Absent,
        Err(error) => return SignatureCheck::Unreadable(error.to_string()),
    };
    let Some(signatures) = ComponentSignature::parse_file(&text) else {
        return SignatureCheck::Unreadable("it has something else than signatures".to_owned());
    };
    let signed = signed_text(of);
    let is_valid = |one: &&ComponentSignature| {
        UnparsedPublicKey::new(&ED25519, one.key.0).verify(signed.as_bytes(), &one.signature).is_ok()
    };
    let keys: BTreeSet<_> = signatures.iter().filter(is_valid).map(|one| one.key).collect();
    match (keys.is_empty(), signatures.is_empty()) {
        (false, _) => SignatureCheck::Signed(keys),
        (true, true) => SignatureCheck::Absent,
        (true, false) => SignatureCheck::Mismatch,
    }
}

/// Reads a text that is not larger than a file of signatures may be.
fn read(file: &Path) -> std::io::Result<String> {
    let mut text = String::new();
    // One byte more than allowed tells that there is more; a file of any size would go into memory.
    File::open(file)?.take(MAX_SIGNATURE_FILE + 1).read_to_string(&mut text)?;
    if text.len() as u64 > MAX_SIGNATURE_FILE {
        return Err(std::io::Error::other(format!("it has more than {MAX_SIGNATURE_FILE} bytes")));
    }
    Ok(text)
}

/// The signatures of components as they were read last.
#[derive(Debug, Default)]
pub(super) struct SignatureFiles(HashMap<PathBuf, (FileStamp, Digest, SignatureCheck)>);

impl SignatureFiles {
    /// Returns the signatures in a file, which is read again only if it may have changed.
    pub(super) fn check(&mut self, file: &Path, of: Digest) -> SignatureCheck {
        let Some(stamp) = FileStamp::now(file) else {
            self.0.remove(file);
            return check_signatures(file, of);
        };
        if let Some((known, digest, check)) = self.0.get(file)
            && (*known, *digest) == (stamp, of)
        {
            return check.clone();
        }
        let check = check_signatures(file, of);
        // A younger file may be written again without another stamp.
        if stamp.age().is_some_and(|age| age >= TIMESTAMP_GRANULARITY) {
            self.0.insert(file.to_owned(), (stamp, of, check.clone()));
        }
        check
    }

    /// Returns the signatures of these bytes in any of the files.
    pub(super) fn check_any(&mut self, files: &[&Path], of: Digest) -> SignatureCheck {
        files.iter().map(|file| self.check(file, of)).fold(SignatureCheck::Absent, better)
    }
}

/// Returns the signatures of these bytes in any of the files, without a memory of what was read.
pub(super) fn check_any(files: &[&Path], of: Digest) -> SignatureCheck {
    files.iter().map(|file| check_signatures(file, of)).fold(SignatureCheck::Absent, better)
}

/// Returns what speaks more for a component, or says more about why it is refused.
fn better(one: SignatureCheck, two: SignatureCheck) -> SignatureCheck {
    match (one, two) {
        (SignatureCheck::Signed(one), SignatureCheck::Signed(two)) => SignatureCheck::Signed(&one | &two),
        (signed @ SignatureCheck::Signed(_), _) | (_, signed @ SignatureCheck::Signed(_)) => signed,
        (SignatureCheck::Absent, other) => other,
        (other, _) => other,
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use caxton_control::policy::TrustedKey;
    use ring::signature::{Ed25519KeyPair, KeyPair};

    use super::*;
    use crate::wasm::digest;

    fn pair(seed: u8) -> (Ed25519KeyPair, TrustedKey) {
        let pair = Ed25519KeyPair::from_seed_unchecked(&[seed; 32]).unwrap();
        let key = TrustedKey(pair.public_key().as_ref().try_into().unwrap());
        (pair, key)
    }

    fn line((pair, key): &(Ed25519KeyPair, TrustedKey), of: Digest) -> String {
        let signature = pair.sign(signed_text(of).as_bytes());
        ComponentSignature { key: *key, signature: signature.as_ref().try_into().unwrap() }.to_string()
    }

    #[test]
    fn signatures_are_of_bytes_and_keys() {
        let folder = tempfile::tempdir().unwrap();
        let file = signature_path(&folder.path().join("agent.wasm"));
        assert!(file.ends_with("agent.wasm.sig"));
        let [one, two] = [digest(b"one"), digest(b"two")];
        let [ours, theirs] = [pair(1), pair(2)];
        let mut files = SignatureFiles::default();
        assert_eq!(files.check(&file, one), SignatureCheck::Absent);
        for (text, of, expected) in [
            (line(&ours, one), one, SignatureCheck::Signed([ours.1].into())),
            (line(&ours, one), two, SignatureCheck::Mismatch),
            (
                format!("{}\n{}", line(&ours, one), line(&theirs, one)),
                one,
                SignatureCheck::Signed([ours.1, theirs.1].into()),
            ),
            // Of two versions, in the middle of a change.
            (format!("{}\n{}", line(&ours, one), line(&theirs, two)), two, SignatureCheck::Signed([theirs.1].into())),
            // A key in the place of another.
            (line(&ours, one).replace(&ours.1.to_string(), &theirs.1.to_string()), one, SignatureCheck::Mismatch),
            ("# none\n".to_owned(), one, SignatureCheck::Absent),
        ] {
            fs::write(&file, &text).unwrap();
            assert_eq!(files.check(&file, of), expected, "{text}");
        }
        for text in ["something".to_owned(), "#".repeat(70_000)] {
            fs::write(&file, text).unwrap();
            assert!(matches!(files.check(&file, one), SignatureCheck::Unreadable(_)));
        }
    }

    #[test]
    fn one_of_several_files_is_enough() {
        let folder = tempfile::tempdir().unwrap();
        let [kept, beside] = ["kept.sig", "beside.sig"].map(|name| folder.path().join(name));
        let (ours, of) = (pair(1), digest(b"one"));
        fs::write(&kept, line(&ours, of)).unwrap();
        fs::write(&beside, "of something else").unwrap();
        let signed = SignatureCheck::Signed([ours.1].into());
        assert_eq!(check_any(&[&kept, &beside], of), signed);
        assert_eq!(check_any(&[&beside, &kept], of), signed);
        assert!(matches!(check_any(&[&beside], of), SignatureCheck::Unreadable(_)));
    }
}
