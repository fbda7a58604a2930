//! TLS at the listeners: handshakes, protocols, replaced and broken certificates, client certificates.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::sync::Arc;

use caxton_tests::{Client, Host, PATIENCE, Setup};
use http::Request;
use http_body_util::{BodyExt, Empty};
use hyper::client::conn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use tokio_rustls::TlsConnector;

use crate::authority::{Authority, Issued};
use crate::{BINARY, agent, file};

/// The name that the certificates of the tests are for.
const NAME: &str = "agents.example.com";

/// A client's connection over TLS.
type Connection = StreamOwned<ClientConnection, TcpStream>;

/// Prepares a host with the files `cert.pem` and `key.pem`, and with more lines in `[http]` and
/// `[http.tls]`.
fn setup(issued: &Issued, http: &str, tls: &str) -> Setup {
    let web = agent("web", "web", "").replace("route = \"/web\"", "route = \"/{*path}\"");
    let toml = format!("[http]\n{http}\n[http.tls]\ncert = \"cert.pem\"\nkey = \"key.pem\"\n{tls}\n{web}");
    let setup = Setup::new(BINARY, &file(&toml));
    issued.write(setup.folder(), "cert.pem", "key.pem");
    setup
}

/// Returns the configuration of a client that trusts one issuer and offers these protocols.
fn client(authority: &Authority, protocols: &[&str], own: Option<&Issued>) -> ClientConfig {
    let mut roots = RootCertStore::empty();
    roots.add(authority.certificate()).expect("a certificate of an issuer");
    let builder = ClientConfig::builder().with_root_certificates(roots);
    let mut config = match own {
        None => builder.with_no_client_auth(),
        Some(issued) => {
            let key = PrivateKeyDer::from_pem_slice(issued.key.as_bytes()).expect("a key");
            let chain =
                CertificateDer::pem_slice_iter(issued.cert.as_bytes()).map(|found| found.expect("PEM")).collect();
            builder.with_client_auth_cert(chain, key).expect("a pair")
        }
    };
    config.alpn_protocols = protocols.iter().map(|protocol| protocol.as_bytes().to_vec()).collect();
    config
}

/// Connects to the listener for calls.
fn dial(host: &Host) -> TcpStream {
    let stream = TcpStream::connect(&host.http).expect("the host listens");
    stream.set_read_timeout(Some(PATIENCE)).expect("a TCP socket");
    stream
}

/// Connects, and completes the handshake.
fn connect(host: &Host, config: &ClientConfig) -> Result<Connection, String> {
    let name = ServerName::try_from(NAME).expect("a name");
    let mut tls = ClientConnection::new(Arc::new(config.clone()), name).map_err(|error| error.to_string())?;
    let mut tcp = dial(host);
    while tls.is_handshaking() {
        tls.complete_io(&mut tcp).map_err(|error| error.to_string())?;
    }
    Ok(StreamOwned::new(tls, tcp))
}

/// Sends a request of HTTP/1.1 on a connection that stays open. Returns the response as text.
fn get(connection: &mut Connection, path: &str) -> Result<String, String> {
    let request = format!("GET {path} HTTP/1.1\r\nhost: {NAME}\r\n\r\n");
    connection.write_all(request.as_bytes()).map_err(|error| error.to_string())?;
    let mut response = Vec::new();
    loop {
        let mut piece = [0; 4096];
        let count = connection.read(&mut piece).map_err(|error| error.to_string())?;
        if count == 0 {
            return Err(format!("the host closed the connection after {response:?}"));
        }
        response.extend_from_slice(&piece[..count]);
        let text = String::from_utf8_lossy(&response);
        let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
        let is_whole = match length {
            Some(length) => body.len() >= length.parse::<usize>().expect("a number"),
            // In chunks, as an agent's response is whose length is not known before.
            None => body.ends_with("0\r\n\r\n"),
        };
        if is_whole {
            return Ok(text.into_owned());
        }
    }
}

/// Returns the certificate that new connections get.
fn served(host: &Host, config: &ClientConfig) -> CertificateDer<'static> {
    let connection = connect(host, config).expect("a handshake");
    connection.conn.peer_certificates().expect("the host shows one")[0].clone().into_owned()
}

/// Sends a request of HTTP/2. Returns status and body.
fn get_http2(host: &Host, config: ClientConfig, path: &str) -> (u16, String) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let tcp = tokio::net::TcpStream::connect(&host.http).await.expect("the host listens");
        let name = ServerName::try_from(NAME).expect("a name");
        let tls = TlsConnector::from(Arc::new(config)).connect(name, tcp).await.expect("a handshake");
        assert_eq!(tls.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
        let (mut sender, connection) =
            conn::http2::handshake(TokioExecutor::new(), TokioIo::new(tls)).await.expect("HTTP/2");
        tokio::spawn(connection);
        let request =
            Request::get(format!("https://{NAME}{path}")).body(Empty::<bytes::Bytes>::new()).expect("a request");
        let response = sender.send_request(request).await.expect("a response");
        let status = response.status().as_u16();
        let body = response.into_body().collect().await.expect("a body").to_bytes();
        (status, String::from_utf8_lossy(&body).into_owned())
    })
}

#[test]
fn both_versions_of_http_are_chosen_by_alpn() {
    let authority = Authority::new("first");
    let host = setup(&authority.issue(&[NAME]), "", "").start();
    assert!(host.output().contains("calls: https://"), "{}", host.output());
    for protocols in [&["http/1.1"][..], &["http/1.1", "other"], &[]] {
        let mut connection = connect(&host, &client(&authority, protocols, None)).expect("a handshake");
        let chosen = (!protocols.is_empty()).then_some(&b"http/1.1"[..]);
        assert_eq!(connection.conn.alpn_protocol(), chosen);
        for _ in 0..2 {
            let response = get(&mut connection, "/headers").expect("a response");
            assert!(response.starts_with("HTTP/1.1 200 OK\r\n"), "{response}");
            assert!(response.contains("\"scheme\":\"https\""), "the agent knows of TLS: {response}");
        }
    }
    // The host prefers HTTP/2, whatever the order of the client.
    let config = client(&authority, &["http/1.1", "h2"], None);
    let (status, body) = get_http2(&host, config, "/headers");
    assert_eq!(status, 200);
    assert!(body.contains("\"scheme\":\"https\""), "{body}");
    let refused = connect(&host, &client(&authority, &["gopher"], None)).expect_err("no such protocol");
    assert!(refused.contains("NoApplicationProtocol"), "{refused}");
}

#[test]
fn the_scheme_is_not_the_clients_word() {
    let web = agent("web", "web", "").replace("route = \"/web\"", "route = \"/{*path}\"");
    let host = crate::host(&web);
    let mut tcp = dial(&host);
    tcp.write_all(
        b"GET https://agents.example.com/headers HTTP/1.1\r\nhost: agents.example.com\r\nconnection: close\r\n\r\n",
    )
    .expect("the host reads");
    let mut response = String::new();
    tcp.read_to_string(&mut response).expect("a response");
    assert!(response.contains("\"scheme\":\"http\""), "{response}");
}

#[test]
fn a_replaced_certificate_is_for_new_connections() {
    let authority = Authority::new("first");
    let (one, two) = (authority.issue(&[NAME]), authority.issue(&[NAME]));
    let mut host = setup(&one, "", "").start();
    let config = client(&authority, &["http/1.1"], None);
    let mut open = connect(&host, &config).expect("a handshake");
    get(&mut open, "/").expect("a response");
    assert_eq!(served(&host, &config), one.certificate());

    two.write(host.folder(), "cert.pem", "key.pem");
    host.until("the other certificate", |host| (served(host, &config) == two.certificate()).then_some(()));
    get(&mut open, "/").expect("the open connection goes on");
    let taken: Vec<_> = events(&host, "tls.taken");
    let last = taken.last().expect("an event");
    assert_eq!(last["data"]["table"], "http.tls", "{last}");

    // Under other names, by an edit of the declaration.
    one.write(host.folder(), "one.pem", "one-key.pem");
    let toml = fs::read_to_string(host.folder().join("caxton.toml")).expect("the file is there");
    host.edit(&toml.replace("\"cert.pem\"", "\"one.pem\"").replace("\"key.pem\"", "\"one-key.pem\""));
    host.until("the first certificate again", |host| (served(host, &config) == one.certificate()).then_some(()));
    get(&mut open, "/").expect("the open connection goes on");
    // Which are followed as well, through a folder that is exchanged.
    two.write(host.folder(), "one.pem", "one-key.pem");
    host.until("the other one once more", |host| (served(host, &config) == two.certificate()).then_some(()));
}

/// Returns the events of a kind, the oldest first.
fn events(host: &Host, kind: &str) -> Vec<serde_json::Value> {
    let (code, out, words) = host.caxton(&["events", "-o", "json"]);
    assert_eq!(code, 0, "{words}");
    let all = out.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).expect("JSON"));
    all.filter(|event| event["kind"] == kind).collect()
}

#[test]
fn a_broken_certificate_leaves_the_old_one_in_use() {
    let authority = Authority::new("first");
    let (one, two) = (authority.issue(&[NAME]), authority.issue(&[NAME]));
    let mut host = setup(&one, "", "").start();
    let config = client(&authority, &["http/1.1"], None);
    let check = |host: &Host, key: &str, line: &str, reason: &str| {
        host.until_output(reason);
        assert_eq!(served(host, &config), one.certificate(), "{reason}");
        let told = events(host, "tls.refused");
        let error = &told.last().unwrap_or_else(|| panic!("no event of {reason}"))["data"]["errors"][0];
        assert_eq!((error["key"].as_str(), error["place"].as_str()), (Some(key), Some(line)), "{error}");
        let (code, _, words) = host.caxton(&["check", "--no-components"]);
        assert_eq!(code, 2, "{words}");
        assert!(words.contains(key) && words.contains(reason) && words.contains(line), "{words}");
    };
    // The key of another certificate, as between the two steps of a renewal.
    replace(host.folder(), "key.pem", &two.key);
    check(&host, "http.tls.key", "caxton.toml:6:7", "is not the key of the certificate in `cert.pem`");
    replace(host.folder(), "cert.pem", &two.cert[..two.cert.len() / 2]);
    check(&host, "http.tls.cert", "caxton.toml:5:8", "`cert.pem` is not in PEM form");
    fs::remove_file(host.folder().join("cert.pem")).expect("it is there");
    check(&host, "http.tls.cert", "caxton.toml:5:8", "`cert.pem` is not there");
    // A host does not start with it either.
    let (_, again) = host.stop();
    let (code, words) = again.again().refused();
    assert_eq!(code, 2, "{words}");
    assert!(words.contains("--> caxton.toml:5:8") && words.contains("`cert.pem` is not there"), "{words}");
    // What is whole again is taken.
    one.write(again.folder(), "cert.pem", "key.pem");
    host = again.start();
    replace(host.folder(), "cert.pem", "nothing");
    check(&host, "http.tls.cert", "caxton.toml:5:8", "`cert.pem` has no certificate");
    two.write(host.folder(), "cert.pem", "key.pem");
    host.until("the new certificate", |host| (served(host, &config) == two.certificate()).then_some(()));
}

/// Replaces a file as a whole, as programs that renew certificates do.
fn replace(folder: &Path, name: &str, text: &str) {
    let temporary = folder.join(format!("{name}.new"));
    fs::write(&temporary, text).expect("the folder can be written to");
    fs::rename(temporary, folder.join(name)).expect("the folder can be written to");
}

#[test]
fn clients_need_a_certificate_where_their_issuer_is_named() {
    let (authority, clients, others) = (Authority::new("hosts"), Authority::new("clients"), Authority::new("others"));
    let setup = setup(&authority.issue(&[NAME]), "", "client-ca = \"clients.pem\"");
    fs::write(setup.folder().join("clients.pem"), clients.pem()).expect("the folder can be written to");
    let host = setup.start();
    let protocols = ["http/1.1"];
    let ask = |own: Option<&Issued>| {
        // In TLS 1.3 a client learns of the refusal with the first answer only.
        connect(&host, &client(&authority, &protocols, own)).and_then(|mut connection| get(&mut connection, "/"))
    };
    let response = ask(Some(&clients.issue(&["client"]))).expect("a response");
    assert!(response.starts_with("HTTP/1.1 200 OK"), "{response}");
    let refused = ask(None).expect_err("it has no certificate");
    assert!(refused.contains("CertificateRequired"), "{refused}");
    for own in [others.issue(&["client"]), clients.issue_expired(&["client"])] {
        let refused = ask(Some(&own)).expect_err("its certificate is not valid here");
        assert!(refused.contains("received fatal alert"), "{refused}");
    }
    ask(Some(&clients.issue(&["another"]))).expect("the refused ones disturb nobody");
}

#[test]
fn what_is_no_handshake_disturbs_nobody() {
    let authority = Authority::new("first");
    let mut host = setup(&authority.issue(&[NAME]), "head-timeout = \"500ms\"\nmax-connections = 4", "").start();
    let config = client(&authority, &["http/1.1"], None);
    let mut open = connect(&host, &config).expect("a handshake");
    get(&mut open, "/").expect("a response");
    let mut tcp = dial(&host);
    tcp.write_all(b"POST /echo HTTP/1.1\r\nhost: agents.example.com\r\ncontent-length: 4\r\n\r\nbody")
        .expect("the host reads");
    let mut response = String::new();
    tcp.read_to_string(&mut response).expect("the host answers and closes");
    assert!(response.starts_with("HTTP/1.1 400 Bad Request\r\n"), "{response}");
    assert!(response.ends_with("this port speaks TLS; use https://\n"), "{response}");
    for bytes in [&b"\x16\x03\x01\x00\x05hello"[..], b"\x00\x01\x02", b"\x16\x03\x01\xff\xff", b""] {
        let mut tcp = dial(&host);
        tcp.write_all(bytes).expect("the host reads");
        // Of an unfinished handshake the host waits for the rest, as long as for a head.
        let mut answer = Vec::new();
        let _ = tcp.read_to_end(&mut answer);
    }
    // More clients than connections, none of which begins a handshake: each is given up after its time.
    let silent: Vec<TcpStream> = (0..8).map(|_| dial(&host)).collect();
    for mut tcp in silent {
        let _ = tcp.read(&mut [0]);
    }
    get(&mut connect(&host, &config).expect("a handshake"), "/").expect("a response");
    host.until("the open connection is the only one", |_| get(&mut open, "/").ok());
}

#[test]
fn only_the_named_hosts_are_served() {
    let authority = Authority::new("first");
    let hosts = format!("hosts = [\"{NAME}\", \"*.apps.example\"]");
    let host = setup(&authority.issue(&[NAME]), &hosts, "").start();
    let config = client(&authority, &["h2"], None);
    assert_eq!(get_http2(&host, config, "/").0, 200);
    let config = client(&authority, &["http/1.1"], None);
    let ask = |name: &str, target: &str| {
        let mut connection = connect(&host, &config).expect("a handshake");
        let request = format!("GET {target} HTTP/1.1\r\nhost: {name}\r\nconnection: close\r\n\r\n");
        connection.write_all(request.as_bytes()).expect("the host reads");
        let mut response = String::new();
        connection.read_to_string(&mut response).expect("a response");
        response
    };
    for name in [NAME, "Agents.Example.Com:8443", "one.apps.example"] {
        assert!(ask(name, "/").starts_with("HTTP/1.1 200 OK\r\n"), "{name}");
    }
    let other = "https://evil.example/";
    for (name, target) in [("evil.example", "/"), ("apps.example", "/"), (NAME, other), ("evil.example", "/_caxton/x")]
    {
        let response = ask(name, target);
        assert!(response.starts_with("HTTP/1.1 421 Misdirected Request\r\n"), "{name} {target}: {response}");
        assert!(response.contains("\"code\":\"wrong-host\""), "{response}");
    }
}

#[test]
fn plain_http_beyond_this_machine_and_open_keys_are_warned_of() {
    let host = Setup::new(BINARY, &file(&agent("web", "web", ""))).argument("--listen").argument("0.0.0.0:0").start();
    host.until_output("http.listen: 0.0.0.0:0 is reached from other machines, and without `[http.tls]`");
    let authority = Authority::new("first");
    let setup = setup(&authority.issue(&[NAME]), "", "").argument("--listen").argument("0.0.0.0:0");
    let (code, _, words) = setup.caxton(&["check"]);
    assert!(code == 0 && !words.contains("warning"), "{words}");
    authority.issue(&[NAME]).write_open(setup.folder(), "cert.pem", "key.pem");
    let open = "http.tls.key: every user of this machine may read `key.pem`";
    let (code, _, words) = setup.caxton(&["check"]);
    assert!(code == 0 && words.contains(&format!("warning: {open}")), "{words}");
    let host = setup.start();
    host.until_output(open);
    assert!(!host.output().contains("is reached from other machines"), "{}", host.output());
}

#[test]
fn tls_begins_and_ends_with_a_restart() {
    let authority = Authority::new("first");
    let mut host = setup(&authority.issue(&[NAME]), "", "").start();
    let config = client(&authority, &["http/1.1"], None);
    let toml = file(&agent("web", "web", ""));
    host.edit(&toml);
    host.until("the edit is taken", |host| {
        let told = host.api().get("/v1/host").json();
        told["waiting"].to_string().contains("the host has to start again for http.tls.cert").then_some(())
    });
    connect(&host, &config).expect("the running host goes on with TLS");
    let (_, again) = host.stop();
    let host = again.start();
    assert_eq!(Client::new(&host.http, None).get("/web").status.as_u16(), 404, "the agent answers in plain text");
}
