//! `caxton sign`: keys, and signatures of components.

use std::fs::{File, OpenOptions, Permissions};
use std::io::Write;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use caxton_control::policy::{ComponentSignature, TrustedKey, signed_text};
use clap::Args;
use ring::rand::SystemRandom;
use ring::signature::{Ed25519KeyPair, KeyPair};
use rustls::pki_types::PrivatePkcs8KeyDer;
use rustls::pki_types::pem::PemObject;
use serde_json::json;

use super::options::Format;
use super::output::{CliError, Exit, Out, say};
use crate::reconcile::signature_path;
use crate::wasm::{MAX_COMPONENT, digest};

/// The first bytes of every component: the magic number, the version of the format, and the layer that modules have not.
const COMPONENT_HEAD: &[u8] = b"\0asm\x0d\0\x01\0";
/// The largest file of a key, in bytes. A key has a hundred, and a file may have other things beside it.
const MAX_KEY: u64 = 64 << 10;

#[derive(Debug, Args)]
#[command(after_help = "\
A signature is for hosts whose policy has `signatures = \"required\"` and the public key in `keys`. It is a line in a \
file beside the component, with `.sig` behind its name, and signs the SHA-256 of its bytes: a component that is built again \
needs another one. Sign before the component is put where a host follows it, or right after: a host takes the new bytes once \
they are signed.

The key file is PEM with PKCS #8, as `openssl genpkey -algorithm ED25519` makes it too.

Examples:
  caxton sign --new-key release.key                make a key pair and print its public key
  caxton sign dist/triage.wasm --key release.key   write dist/triage.wasm.sig
  caxton sign dist/triage.wasm --key next.key --add   add a signature by a second key")]
pub(super) struct SignArgs {
    /// The component
    #[arg(value_name = "COMPONENT", required_unless_present = "new_key")]
    pub(super) component: Option<PathBuf>,
    /// The file of the private key
    #[arg(long, value_name = "FILE", required_unless_present = "new_key")]
    pub(super) key: Option<PathBuf>,
    /// Keep the signatures that it has by other keys
    #[arg(long)]
    pub(super) add: bool,
    /// Make a key pair, write the private key to this new file and print the public key
    #[arg(long, value_name = "FILE", conflicts_with_all = ["component", "key", "add"])]
    pub(super) new_key: Option<PathBuf>,
}

/// Makes a key or signs a component.
pub(super) fn run(sign: &SignArgs, out: &mut Out) -> Result<(), CliError> {
    match (&sign.new_key, &sign.component, &sign.key) {
        (Some(file), ..) => make_key(file, out),
        (None, Some(component), Some(key)) => sign_component(component, key, sign.add, out),
        // The arguments are required without `--new-key`.
        (None, ..) => Err(CliError::new(Exit::Usage, "name the component and the key")),
    }
}

fn failed(file: &Path, error: impl std::fmt::Display) -> CliError {
    CliError::new(Exit::Failed, format!("{}: {error}", file.display()))
}

fn public_key(pair: &Ed25519KeyPair) -> Result<TrustedKey, CliError> {
    let bytes = pair.public_key().as_ref().try_into();
    bytes.map(TrustedKey).map_err(|_| CliError::new(Exit::Failed, "the public key has not 32 bytes"))
}

/// Makes a key pair. An existing file is not replaced: what it has signed could not be signed again.
fn make_key(file: &Path, out: &mut Out) -> Result<(), CliError> {
    let document = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).map_err(|error| failed(file, error))?;
    let pair = Ed25519KeyPair::from_pkcs8(document.as_ref()).map_err(|error| failed(file, error))?;
    let mut text = "-----BEGIN PRIVATE KEY-----\n".to_owned();
    // Lines of 64 characters (RFC 7468).
    for line in STANDARD.encode(document.as_ref()).as_bytes().chunks(64) {
        text.push_str(&String::from_utf8_lossy(line));
        text.push('\n');
    }
    text.push_str("-----END PRIVATE KEY-----\n");
    let made = OpenOptions::new().write(true).create_new(true).mode(0o600).open(file);
    let written = made.and_then(|mut made| {
        made.write_all(text.as_bytes())?;
        made.sync_all()
    });
    written.map_err(|error| failed(file, error))?;
    let key = public_key(&pair)?;
    match out.format() {
        Format::Json => out.json(&json!({ "key": key, "file": file.display().to_string() })),
        Format::Text => {
            say(&format!("wrote the private key to {}; its public key, for `keys` of a policy:", file.display()));
            out.line(&key.to_string())
        }
    }
}

fn sign_component(component: &Path, key_file: &Path, adds: bool, out: &mut Out) -> Result<(), CliError> {
    let pair = read_key(key_file)?;
    let key = public_key(&pair)?;
    let bytes = read(component, MAX_COMPONENT)?;
    // A module or a text would be signed in vain: no policy ever looks at what is not a component.
    if !bytes.starts_with(COMPONENT_HEAD) {
        return Err(failed(
            component,
            "it is not a component: a file of WebAssembly that says so in its first 8 bytes",
        ));
    }
    let of = digest(&bytes);
    let signature = pair.sign(signed_text(of).as_bytes());
    let signature =
        signature.as_ref().try_into().map_err(|_| CliError::new(Exit::Failed, "the signature has not 64 bytes"))?;
    let path = signature_path(component);
    let mut signatures = if adds { others(&path, key)? } else { Vec::new() };
    signatures.push(ComponentSignature { key, signature });
    let lines: String = signatures.iter().map(|one| format!("{one}\n")).collect();
    write(&path, &lines).map_err(|error| failed(&path, error))?;
    match out.format() {
        Format::Json => out.json(&json!({
            "component": component.display().to_string(), "digest": of, "key": key, "file": path.display().to_string(),
        })),
        Format::Text => {
            say(&format!("signed {} (sha256:{}) by {key}", component.display(), of.short()));
            out.line(&path.display().to_string())
        }
    }
}

/// Reads a file of at most so many bytes. Others, such as a device that has no end, would be read for ever.
fn read(file: &Path, most: u64) -> Result<Vec<u8>, CliError> {
    let metadata = std::fs::metadata(file).map_err(|error| failed(file, error))?;
    if !metadata.is_file() {
        return Err(failed(file, "it is not a file"));
    }
    if metadata.len() > most {
        return Err(failed(file, format!("it has {} bytes, more than {most}", metadata.len())));
    }
    std::fs::read(file).map_err(|error| failed(file, error))
}

fn read_key(file: &Path) -> Result<Ed25519KeyPair, CliError> {
    let text = read(file, MAX_KEY)?;
    let key = PrivatePkcs8KeyDer::from_pem_slice(&text)
        .map_err(|error| failed(file, format!("it has no private key in PEM form with PKCS #8 ({error})")))?;
    // One of OpenSSL lacks the public key, which is then derived.
    Ed25519KeyPair::from_pkcs8_maybe_unchecked(key.secret_pkcs8_der())
        .map_err(|error| failed(file, format!("it has no key of Ed25519 ({error})")))
}

/// Returns the signatures in a file by other keys than this one.
fn others(path: &Path, key: TrustedKey) -> Result<Vec<ComponentSignature>, CliError> {
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(failed(path, error)),
    };
    let found = ComponentSignature::parse_file(&text);
    let found = found.ok_or_else(|| failed(path, "it has something else than signatures; leave out `--add`"))?;
    Ok(found.into_iter().filter(|one| one.key != key).collect())
}

/// Replaces a file in one step: a host that follows it never reads half of it.
fn write(path: &Path, text: &str) -> std::io::Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut file = tempfile::Builder::new().permissions(Permissions::from_mode(0o644)).tempfile_in(folder)?;
    file.write_all(text.as_bytes())?;
    file.as_file().sync_all()?;
    file.persist(path).map_err(|error| error.error)?;
    File::open(folder)?.sync_all()
}
