//! Attacks by the functions with which a stateful agent saves and restores its memory.

use super::{ATTACKER, Street};
use crate::agent;

fn attacker(name: &str, config: &str) -> String {
    let limits = "limits = { cpu = \"300ms\", time = \"60s\" }\nsnapshot = { max = \"1MiB\" }\n";
    agent(name, "zoo-memory", &format!("{}{limits}config = {{ {config} }}\n", ATTACKER.replace("max = 2", "max = 1")))
}

#[test]
fn memories_that_attack_harm_their_own_agent_only() {
    const WAYS: [(&str, &str); 6] = [
        ("loop", "cpu-exceeded"),
        ("grow", "trap"),
        ("hoard", "handles-exceeded"),
        ("trap", "trap"),
        ("rant", "rant"),
        ("huge", ""),
    ];
    let agents: String =
        WAYS.iter().map(|(way, _)| attacker(&format!("save-{way}"), &format!("save = \"{way}\""))).collect();
    let mut street = Street::start(&agents);
    for (way, code) in WAYS {
        let agent = format!("save-{way}");
        for _ in 0..3 {
            let (status, told) = street.post(&format!("/{agent}"), "x");
            println!("{agent}: {status} {told}");
            assert!(status == 500 && told == code || way == "huge" || way == "rant", "{agent}: {status} {told}");
        }
    }
    street.until_at_rest();
}
