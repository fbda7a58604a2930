//! The distribution of messages over all agents with a capability.

use std::collections::BTreeSet;

use serde_json::json;

use crate::{agent, host};

const NAMES: [&str; 3] = ["one", "two", "three"];

#[test]
fn only_messages_that_start_a_conversation_are_distributed() {
    let work = "capabilities = [\"scan\"]\nmailbox = { depth = 1_000 }";
    let workers = NAMES.map(|name| agent(name, "rogue", work)).concat();
    let mut host = host(&(agent("boss", "rogue", "allow = { send = [\"cap:scan\"] }") + &workers));
    let fan_out = |host: &caxton_tests::Host, with: &serde_json::Value| {
        let action = json!({ "do": "send", "to": "cap:scan", "content": { "do": "none" }, "count": 300, "with": with });
        let told = host.client().post("/boss", action.to_string()).json();
        assert_eq!(told["errors"], json!([]), "{told}");
        told["sent"]
            .as_array()
            .expect("ids")
            .iter()
            .map(|id| id.as_str().expect("an id").to_owned())
            .collect::<Vec<_>>()
    };
    let accepted = |host: &caxton_tests::Host| NAMES.map(|name| host.agent(name)["accepted"].as_u64().unwrap_or(0));
    fan_out(&host, &json!({ "performative": "inform" }));
    host.until("one has all", |host| (accepted(host).iter().sum::<u64>() == 300).then_some(()));
    assert_eq!(accepted(&host).into_iter().filter(|count| *count > 0).count(), 1, "{:?}", accepted(&host));
    // And whoever looks is told why.
    let (code, _, hint) = host.caxton(&["ps"]);
    assert!(code == 0 && hint.contains("300 of 300 messages to the 3 agents with cap:scan went to"), "{hint}");
    assert!(hint.contains("Draft::new_conversation"), "{hint}");
    let before = accepted(&host);
    let ids = fan_out(&host, &json!({ "performative": "inform", "conversation": "" }));
    host.until("all have some", |host| (accepted(host).iter().sum::<u64>() == 600).then_some(()));
    for (now, before) in accepted(&host).into_iter().zip(before) {
        // A hundred each on average; less than fifty would be a miracle.
        assert!(now - before >= 50, "{:?}", accepted(&host));
    }
    assert!(host.caxton(&["ps"]).2.is_empty(), "they are spread now");
    // Each has a conversation with its own id.
    let shown = host.api().get(&format!("/v1/conversations/{}", ids[0])).json();
    assert_eq!(shown["messages"][0]["sender"], "boss", "{shown}");
    assert_eq!(ids.iter().collect::<BTreeSet<_>>().len(), 300);
}
