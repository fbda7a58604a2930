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
        ("rant", "agent-fault"),
        ("huge", ""),
    ];
    let agents: String =
        WAYS.iter().map(|(way, _)| attacker(&format!("save-{way}"), &format!("save = \"{way}\""))).collect();
    let mut street = Street::start(&agents);
    let mut wrong = Vec::new();
    for (way, code) in WAYS {
        let agent = format!("save-{way}");
        for _ in 0..3 {
            let (status, told) = street.post(&format!("/{agent}"), "x");
            // One that cannot be saved with a commit is saved by the clock from then on, and calls go on.
            let is_right = (status == 500 && told == code) || (status == 200 && told.parse::<u8>().is_ok());
            if !is_right {
                wrong.push(format!("{agent}: {status} {told}"));
            }
        }
    }
    assert_eq!(wrong, [""; 0]);
    let events = street.host.api().get("/v1/events?limit=1000").text();
    assert!(!events.contains(&"rant".repeat(300)), "a reason of a million characters is cut");
    // An instance whose memory is too large to be saved is kept, since nothing else has it.
    street.before.instances += 1;
    street.until_at_rest();
}

#[test]
fn a_restore_that_attacks_ends_as_the_attackers_own() {
    // One that loops has 30 s; the engine's tests have shorter ones.
    const WAYS: [(&str, &str); 4] =
        [("grow", "trap"), ("hoard", "handles-exceeded"), ("trap", "trap"), ("rant", "restore-failed")];
    let agents: String =
        WAYS.iter().map(|(way, _)| attacker(&format!("restore-{way}"), &format!("restore = \"{way}\""))).collect();
    let mut street = Street::start(&agents);
    for (way, _) in WAYS {
        assert_eq!(street.post(&format!("/restore-{way}"), "x"), (200, "1".to_owned()), "{way}");
    }
    // All have saved, and their instances have left.
    street.until_at_rest();
    for (way, code) in WAYS {
        for _ in 0..2 {
            assert_eq!(street.post(&format!("/restore-{way}"), "x"), (500, code.to_owned()), "{way}");
        }
    }
    street.until_at_rest();
}
