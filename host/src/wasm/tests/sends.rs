//! Tests of broadcasts: messages to all agents with a capability, or to none.

use std::sync::atomic::Ordering;
use std::time::Instant;

use super::guests::Guest;
use super::{Bench, LONG, message, work};

/// A guest's `messaging.broadcast` of an empty draft to the receiver at 900.
const BROADCAST: &str = r#"(import "caxton:agent/messaging@0.1.0" "broadcast" (func $broadcast (param i32 i32)))"#;

/// The result of a broadcast: the number of ids, or the error by its number in the contract.
type BroadcastResult = Result<u32, u8>;

/// Lets an agent `guest` with this grant broadcast to a receiver while these agents have the capability. Returns the
/// guest's result, the number of collected messages, and the places that stay reserved after they are dropped.
async fn broadcast(receiver: &str, grant: &str, agents: &[&str]) -> (BroadcastResult, usize, u32) {
    let bench = Bench::new();
    *bench.world.agents.lock() = agents.iter().map(|name| (*name).to_owned()).collect();
    let data = format!(
        r#"(data (i32.const 512) "\84\03\00\00\{:02x}\00\00\00") (data (i32.const 900) "{receiver}")"#,
        receiver.len()
    );
    let guest = Guest {
        imports: BROADCAST,
        more: &data,
        handle: "(call $broadcast (i32.const 512) (i32.const 768)) (call $reply (i32.const 768) (i32.const 24))",
        ..Guest::default()
    };
    let pool = bench
        .pool(&guest.build(), |spec| {
            spec.limits.sends = 2;
            spec.allow.send = [grant.parse().unwrap()].into();
        })
        .await;
    let mut lease = pool.lease(Instant::now() + LONG).await.unwrap();
    let reply = lease.instance().handle(&message(b""), work(), LONG).await.unwrap().unwrap().unwrap().content;
    let effects = lease.instance().take_effects();
    let sends = effects.sends.len();
    drop(effects);
    let told = match reply[0] {
        0 => Ok(u32::from_le_bytes(reply[12..16].try_into().unwrap())),
        _ => Err(reply[8]),
    };
    (told, sends, bench.world.places.load(Ordering::SeqCst))
}

#[tokio::test(flavor = "multi_thread")]
async fn broadcasts_reach_all_others_or_none() {
    const UNKNOWN_RECEIVER: u8 = 0;
    const NOT_ALLOWED: u8 = 1;
    const MAILBOX_FULL: u8 = 3;
    const TOO_MANY_SENDS: u8 = 4;
    const INVALID: u8 = 6;
    for (receiver, grant, agents, expected) in [
        ("cap:desk", "cap:desk", &["a", "b"][..], Ok(2)),
        ("cap:desk", "cap:desk", &["a", "guest", "z"], Ok(2)),
        ("cap:desk", "cap:desk", &["guest"], Err(UNKNOWN_RECEIVER)),
        ("cap:desk", "cap:desk", &[], Err(UNKNOWN_RECEIVER)),
        ("cap:desk", "cap:deck", &["a"], Err(NOT_ALLOWED)),
        ("cap:desk", "aa", &["aa"], Err(NOT_ALLOWED)),
        ("cap:desk", "cap:desk", &["a", "full"], Err(MAILBOX_FULL)),
        ("cap:desk", "cap:desk", &["a", "b", "c"], Err(TOO_MANY_SENDS)),
        ("desk", "cap:desk", &["a"], Err(INVALID)),
    ] {
        let (told, sends, places) = broadcast(receiver, grant, agents).await;
        let collected = usize::try_from(expected.unwrap_or(0)).unwrap();
        assert_eq!((told, sends, places), (expected, collected, 0), "{receiver} {grant} {agents:?}");
    }
}
