//! `caxton doctor`.

use std::path::PathBuf;
use std::process::ExitCode;

use caxton_control::Desired;
use serde_json::json;

use super::args::DoctorArgs;
use super::client::host_file;
use super::machine::{self, Level, MachineFinding};
use super::options::Format;
use super::output::{CliError, Exit, Out, Style, count};
use super::up::absolute;
use crate::config;

/// Checks this machine and prints the findings. Fails if a host would not run.
pub(super) fn run(doctor: &DoctorArgs, out: &mut Out) -> Result<ExitCode, CliError> {
    let mut findings = Vec::new();
    let desired = file(doctor, &mut findings)?;
    let data = match (&doctor.data, &desired) {
        (Some(data), _) => absolute(data)?,
        (None, Some((desired, folder))) => folder.join(&desired.store.path),
        // The default of `store.path`.
        (None, None) => PathBuf::from(".caxton"),
    };
    findings.push(machine::folder(&data));
    // The file remains after a kill, so that the address is tried as well.
    let running = host_file(&data).ok().flatten();
    match (running, &desired) {
        // The ports of a running host are in use, as they should be.
        (Some(host), _) if answers(&host.admin) => {
            findings.push(MachineFinding::ok("host", format!("runs here (process {}, {})", host.pid, host.admin)));
        }
        (_, Some((desired, _))) => {
            findings.push(machine::port("http.listen", "--listen", desired.http.listen));
            findings.push(machine::port("admin.listen", "--admin", desired.admin.listen));
            findings.extend(desired.probes.listen.map(|address| machine::port("probes.listen", "--probes", address)));
        }
        (_, None) => {}
    }
    findings.extend([
        machine::mappings(),
        machine::address_space(),
        machine::memory(desired.as_ref().and_then(|(desired, _)| desired.host.memory_bytes)),
        machine::open_files(),
        machine::asynchronous_interfaces(),
        machine::rust(),
        machine::javascript(),
        machine::python(),
    ]);
    let failed = findings.iter().filter(|finding| finding.level == Level::Fail).count();
    match out.format() {
        Format::Json => out.json(&json!({ "ok": failed == 0, "findings": findings }))?,
        Format::Text => print(&findings, out)?,
    }
    if failed == 0 { Ok(ExitCode::SUCCESS) } else { Err(CliError::quiet(Exit::Failed)) }
}

/// Loads the declaration, if it exists and has no errors.
fn file(doctor: &DoctorArgs, findings: &mut Vec<MachineFinding>) -> Result<Option<(Desired, PathBuf)>, CliError> {
    let shown = doctor.file.file.display();
    if !doctor.file.file.exists() {
        // A warning: a machine may be checked before there is a declaration.
        findings.push(MachineFinding::warn(
            "file",
            format!("{shown} does not exist"),
            "name it with `-f FILE`, or write one",
        ));
        return Ok(None);
    }
    // As in `caxton up`, where the flag overrides the file.
    let flags = match &doctor.data {
        Some(data) => vec![("store.path", absolute(data)?.to_string_lossy().into_owned())],
        None => Vec::new(),
    };
    let loaded = doctor
        .file
        .operator()
        .and_then(|operator| config::load_within(&doctor.file.file, std::env::vars_os(), &flags, &operator));
    Ok(match loaded {
        Ok(loaded) => {
            findings.push(MachineFinding::ok(
                "file",
                format!("{shown} is valid: {}", count(loaded.desired.agents.len(), "agent")),
            ));
            let odd = |warning| MachineFinding::warn("environment", warning, "harmless");
            findings.extend(loaded.warnings.into_iter().map(odd));
            Some((loaded.desired, loaded.dir))
        }
        Err(errors) => {
            let found = format!("{shown} has {}", count(errors.errors().len(), "error"));
            findings.push(MachineFinding::fail("file", found, "`caxton check` says which"));
            None
        }
    })
}

/// Returns `true` if the address accepts connections.
fn answers(address: &str) -> bool {
    let address = address.parse().ok();
    address.is_some_and(|address| {
        // On the same machine a connection takes no time; a second is for one under heavy load.
        std::net::TcpStream::connect_timeout(&address, std::time::Duration::from_secs(1)).is_ok()
    })
}

fn print(findings: &[MachineFinding], out: &mut Out) -> Result<(), CliError> {
    let width = findings.iter().map(|finding| finding.what.len()).max().unwrap_or(0);
    for finding in findings {
        let level = match finding.level {
            Level::Ok => out.paint("ok  ", Style::Good),
            Level::Warn => out.paint("warn", Style::Warn),
            Level::Fail => out.paint("fail", Style::Bad),
        };
        out.line(&format!("{level}  {:<width$}  {}", finding.what, finding.found))?;
        if let Some(help) = &finding.help {
            out.line(&format!("      {:<width$}  -> {help}", ""))?;
        }
    }
    Ok(())
}
