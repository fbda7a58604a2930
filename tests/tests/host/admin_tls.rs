//! TLS at the management API, and the commands that speak it.

use std::fs;
use std::path::Path;

use caxton_tests::{Host, Setup};

use crate::authority::{Authority, Issued};
use crate::{BINARY, agent, file};

/// Prepares a host whose management API speaks TLS with these files.
fn setup(issued: &Issued, more: &str) -> Setup {
    let tls = format!("[admin.tls]\ncert = \"cert.pem\"\nkey = \"key.pem\"\n{more}\n");
    let setup = Setup::new(BINARY, &file(&format!("{tls}{}", agent("echo", "echo", ""))));
    issued.write(setup.folder(), "cert.pem", "key.pem");
    setup
}

/// Returns the port of the management API.
fn port(host: &Host) -> &str {
    host.admin.rsplit_once(':').expect("address and port").1
}

/// Runs `ps` against an address. Returns exit code and stderr.
fn ps(host: &Host, url: &str, more: &[&str]) -> (i32, String) {
    let (code, _, words) = host.caxton(&[&["ps", "--admin", url], more].concat());
    (code, words)
}

#[test]
fn an_api_beyond_this_machine_needs_tls() {
    let toml = file(&agent("echo", "echo", ""));
    for setup in [
        Setup::new(BINARY, &toml).argument("--admin").argument("0.0.0.0:0"),
        Setup::new(BINARY, &toml).argument("--admin").argument("[::]:0"),
    ] {
        let (code, words) = setup.refused();
        assert_eq!(code, 2, "{words}");
        assert!(words.contains("error[not-loopback]: admin.listen"), "{words}");
        assert!(words.contains("add `[admin.tls]`"), "the way out: {words}");
    }
}

#[test]
fn commands_speak_tls() {
    let authority = Authority::new("first");
    let host =
        setup(&authority.issue(&["localhost", "127.0.0.1"]), "").argument("--admin").argument("0.0.0.0:0").start();
    // On this machine without any flag, although no issuer is trusted and the certificate has other names.
    let (code, out, words) = host.caxton(&["ps"]);
    assert!(code == 0 && out.contains("echo"), "{words}");
    let (code, out, words) = host.caxton(&["invoke", "echo", "hello"]);
    assert!(code == 0 && out.contains("hello"), "{words}");
    // From elsewhere by name and issuer.
    fs::write(host.folder().join("ca.pem"), authority.pem()).expect("the folder can be written to");
    for name in ["localhost", "127.0.0.1"] {
        let (code, words) = ps(&host, &format!("https://{name}:{}", port(&host)), &["--ca", "ca.pem"]);
        assert_eq!(code, 0, "{words}");
    }
    // Or with those that the system trusts, here another file.
    let url = format!("https://localhost:{}", port(&host));
    let mut command = host.command(&["ps", "--admin", &url]);
    let output = command.env("SSL_CERT_FILE", host.folder().join("ca.pem")).output().expect("the program starts");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(host.caxton(&["ps", "--ca", "ca.pem"]).0 == 0, "with an issuer, also on this machine");
}

#[test]
fn commands_say_why_a_certificate_is_not_trusted() {
    let (authority, others) = (Authority::new("first"), Authority::new("others"));
    let mut host = setup(&authority.issue(&["host.example.com"]), "").start();
    let write =
        |name: &str, text: &str| fs::write(host.folder().join(name), text).expect("the folder can be written to");
    write("ca.pem", authority.pem());
    write("others.pem", others.pem());
    write("empty.pem", "");
    let url = format!("https://localhost:{}", port(&host));
    for (url, ca, told) in [
        (url.as_str(), "others.pem", "was issued by nobody who is trusted here; `--ca FILE`"),
        (url.as_str(), "ca.pem", "is for host.example.com, and not for localhost"),
        (url.as_str(), "empty.pem", "empty.pem cannot be used: it has no certificate in PEM form"),
        (url.as_str(), "none.pem", "none.pem cannot be used"),
        (&url.replace("https", "http"), "ca.pem", "this port speaks TLS; use https://"),
        (&format!("https://{}", host.http), "ca.pem", "speaks no TLS; is it http:// ?"),
    ] {
        let (code, words) = ps(&host, url, &["--ca", ca]);
        assert!([1, 2].contains(&code) && words.contains(told), "{ca} {url}: {words}");
    }
    authority.issue_expired(&["localhost"]).write(host.folder(), "cert.pem", "key.pem");
    host.until("the expired certificate", |host| {
        let (_, words) = ps(host, &url, &["--ca", "ca.pem"]);
        words.contains("its certificate has expired, ").then_some(())
    });
    // The host has noted the one that it shows now.
    let (code, _, words) = host.caxton(&["ps"]);
    assert_eq!(code, 0, "{words}");
    // Another program that has taken the port shows another.
    let path = host.folder().join(".caxton/host.json");
    let noted: serde_json::Value = serde_json::from_str(&read(&path)).expect("JSON");
    let fingerprint = noted["admin_certificate"].as_str().expect("the fingerprint is noted");
    fs::write(&path, read(&path).replace(fingerprint, &"0".repeat(64))).expect("it is ours");
    let (code, _, words) = host.caxton(&["ps"]);
    assert!(
        code == 1 && words.contains("shows another certificate than the host of this data folder has noted"),
        "{words}"
    );
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).expect("it is there")
}

#[test]
fn commands_show_a_client_certificate() {
    let (authority, operators, others) =
        (Authority::new("hosts"), Authority::new("operators"), Authority::new("others"));
    let setup = setup(&authority.issue(&["localhost"]), "client-ca = \"operators.pem\"");
    fs::write(setup.folder().join("operators.pem"), operators.pem()).expect("the folder can be written to");
    operators.issue(&["ada"]).write(setup.folder(), "ada.pem", "ada-key.pem");
    others.issue(&["eve"]).write(setup.folder(), "eve.pem", "eve-key.pem");
    let host = setup.start();
    let own = |name: &str| {
        ["--client-cert".to_owned(), format!("{name}.pem"), "--client-key".to_owned(), format!("{name}-key.pem")]
    };
    let ps = |more: &[String]| {
        let arguments: Vec<&str> = ["ps"].into_iter().chain(more.iter().map(String::as_str)).collect();
        let (code, _, words) = host.caxton(&arguments);
        (code, words)
    };
    assert_eq!(ps(&own("ada")).0, 0);
    let (code, words) = ps(&[]);
    assert!(code == 1 && words.contains("it asks for a client certificate; `--client-cert FILE`"), "{words}");
    let (code, words) = ps(&own("eve"));
    assert!(code == 1 && words.contains("it does not trust the issuer of the client certificate"), "{words}");
    let mut mixed = own("ada");
    mixed[3] = "eve-key.pem".to_owned();
    let (code, words) = ps(&mixed);
    assert!(code == 2 && words.contains("eve-key.pem is not the key of the certificate in ada.pem"), "{words}");
    let (code, words) = ps(&own("ada")[..2]);
    assert!(code == 2 && words.contains("--client-key"), "{words}");
}
