//! The quickstart of the README: its calls, of the demo's own file, are answered as it says.

use caxton_tests::Host;

use crate::demo;
use crate::pages::{pages, words};

/// A command of the quickstart, and the output shown under it.
struct Shown {
    command: String,
    answer: String,
}

/// The commands of the README's first console.
fn quickstart() -> Vec<Shown> {
    let pages = pages();
    let readme = pages.iter().find(|page| page.path == "README.md").expect("README.md");
    let blocks = readme.blocks();
    let console = blocks.iter().find(|block| block.language == "console").expect("the quickstart");
    let mut shown: Vec<Shown> = Vec::new();
    for line in &console.lines {
        match (line.strip_prefix("$ "), shown.last_mut()) {
            (Some(command), _) => shown.push(Shown { command: command.to_owned(), answer: String::new() }),
            (None, Some(last)) => last.answer.push_str(&format!("{line}\n")),
            (None, None) => panic!("an answer before any command: {line}"),
        }
    }
    shown
}

/// Returns true if a text is as it is shown, where `…` stands for anything.
fn is_as_shown(text: &str, shown: &str) -> bool {
    let parts: Vec<&str> = shown.split('…').collect();
    let [first, middle @ .., last] = &parts[..] else { return text == shown };
    let Some(rest) = text.strip_prefix(first).and_then(|rest| rest.strip_suffix(last)) else { return false };
    let mut at = 0;
    middle.iter().all(|part| {
        let found = rest[at..].find(part);
        at += found.unwrap_or(0) + part.len();
        found.is_some()
    })
}

/// Runs a command of the README: `curl` with a path and perhaps a body, or the program itself.
fn run_command(host: &Host, command: &str) -> String {
    let words = words(command).remove(0);
    if words[0] != "curl" {
        let arguments: Vec<&str> = words[1..].iter().map(String::as_str).collect();
        let (code, stdout, stderr) = host.caxton(&arguments);
        assert_eq!(code, 0, "{command}: {stderr}");
        return stdout;
    }
    let path = words.iter().find_map(|word| word.strip_prefix("localhost:8080")).expect("the demo's address");
    let reply = match words.iter().position(|word| word == "-d") {
        Some(at) => host.client().post(path, words[at + 1].clone()),
        None => host.client().get(path),
    };
    assert!(reply.status.is_success(), "{command}: {}", reply.text());
    reply.text()
}

#[test]
fn the_quickstart_answers_as_it_says() {
    let mut host = demo::start();
    let shown = quickstart();
    assert!(shown.len() > 4, "the quickstart has {} commands, or they are not found", shown.len());
    for Shown { command, answer: expected } in shown {
        let is_look = command.contains("ps") || command.contains("/ledger");
        let mut last = run_command(&host, &command);
        // The ledger is told of tickets after they are answered, and `/counter/later` is handled later.
        if is_look {
            host.until(&command, |host| {
                last = run_command(host, &command);
                is_as_shown(last.trim_end(), expected.trim_end()).then_some(())
            });
        }
        assert!(is_as_shown(last.trim_end(), expected.trim_end()), "{command} answers\n{last}\nand not\n{expected}");
    }
}
