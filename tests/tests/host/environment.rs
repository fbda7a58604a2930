//! The environment is not the host's own.

use caxton_tests::Setup;

use crate::{BINARY, agent, file};

fn echo() -> Setup {
    Setup::new(BINARY, &file(&agent("echo", "echo", "")))
}

#[test]
fn service_variables_of_a_cluster_do_not_stop_the_start() {
    let host = echo()
        .variable("CAXTON_SERVICE_HOST", "10.43.0.7")
        .variable("CAXTON_SERVICE_PORT", "8080")
        .variable("CAXTON_PORT", "tcp://10.43.0.7:8080")
        .variable("CAXTON_PORT_8080_TCP", "tcp://10.43.0.7:8080")
        .variable("CAXTON_PORT_8080_TCP_ADDR", "10.43.0.7")
        .variable("CAXTON_HTTP__LISTEN_SERVICE_HOST", "10.43.0.8")
        .variable("CAXTON_DTAA", "x")
        .start();
    assert_eq!(host.client().post("/echo", "x").text(), "x");
    host.until_output("are of a service of the cluster");
    host.until_output("CAXTON_DTAA sets nothing; did you mean `CAXTON_DATA`?");
    // Reported once, and not with each scan of the file.
    host.edit(&file(&agent("echo", "echo", "config = { n = \"2\" }")));
    let mut host = host;
    host.until_agent("echo", "the edit is followed", |status| status["revision"] == "echo@2");
    assert_eq!(host.output().matches("CAXTON_DTAA").count(), 1);
    let (code, said) = echo().variable("CAXTON_HTTP__LISTN", "x").refused();
    assert!(code == 2 && said.contains("did you mean `listen`?"), "{code} {said}");
}

#[test]
fn names_values_and_folders_need_not_be_utf_8() {
    let within = "N=$(printf 'caf\\351') && export OLD=$N && mkdir -p $N && cp caxton.toml $N && cd $N";
    let host = echo().within(&format!("{within} && set -- \"$@\" --data $N --ports-file ../ports.json")).start();
    assert_eq!(host.client().post("/echo", "x").text(), "x");
    let (code, setup) = host.stop();
    assert_eq!(code, 0);
    // Also where the file is named by such a path, and what is empty is not set.
    let host = setup
        .within("N=$(printf 'caf\\351') && set -- \"$@\" -f $N/caxton.toml")
        .variable("CAXTON_LOG", "")
        .variable("CAXTON_DATA", "")
        .variable("CAXTON_HTTP__LISTEN", "")
        .start();
    assert_eq!(host.client().post("/echo", "x").text(), "x");
    host.until_output("CAXTON_HTTP__LISTEN is empty and sets nothing");
}
