use super::*;

fn agent(name: &str) -> AgentName {
    name.parse().unwrap()
}

fn units(pairs: &[(&str, u64)]) -> BTreeMap<String, u64> {
    pairs.iter().map(|(unit, amount)| ((*unit).to_owned(), *amount)).collect()
}

fn spec() -> BudgetSpec {
    BudgetSpec {
        messages: Some(2),
        calls: Some(3),
        bytes: Some(100),
        cpu: Some(Duration::from_millis(5)),
        time: Some(Duration::from_secs(60)),
        units: units(&[("tokens", 10)]),
        callers: BTreeSet::new(),
    }
}

#[test]
fn what_would_pass_a_limit_is_refused_and_counts_for_nothing() {
    let (spec, one) = (spec(), agent("one"));
    let mut ledger = BudgetLedger::default();
    ledger.hold(&spec).unwrap();
    ledger.hold(&spec).unwrap();
    let refused = ledger.hold(&spec).unwrap_err();
    assert_eq!(refused.to_string(), "messages: 0 of 2 used, 2 reserved");
    ledger.release();
    ledger.keep(&one);
    ledger.hold(&spec).unwrap();
    ledger.keep(&one);
    assert_eq!(ledger.hold(&spec).unwrap_err().to_string(), "messages: 2 of 2 used");
    ledger.take_back(&one);
    ledger.release();
    assert_eq!((ledger.hold(&spec), ledger.total().messages), (Ok(()), 1));

    let first = ledger.begin_call(&one, &spec, &units(&[("tokens", 6)])).unwrap();
    let refused = ledger.begin_call(&one, &spec, &units(&[("tokens", 5)])).unwrap_err();
    assert_eq!(refused.to_string(), "tokens: 0 of 10 used, 6 reserved");
    assert_eq!(ledger.total().calls, 1, "a refused call is no call");
    ledger.settle(first, &units(&[("tokens", 3)]));
    let second = ledger.begin_call(&one, &spec, &units(&[("tokens", 7)])).unwrap();
    ledger.settle(second, &BTreeMap::new());
    ledger.settle(second, &units(&[("tokens", 99)]));
    assert_eq!(ledger.total().units, units(&[("tokens", 10)]), "without a figure as it was reserved, and once");
    assert_eq!(ledger.begin_call(&one, &spec, &units(&[("tokens", 0)])).unwrap_err().used, 10);
    ledger.begin_call(&one, &spec, &BTreeMap::new()).unwrap();
    assert_eq!(ledger.begin_call(&one, &spec, &BTreeMap::new()).unwrap_err().measure, Measure::Calls);

    ledger.add_bytes(&one, &spec, 60).unwrap();
    assert_eq!(ledger.add_bytes(&one, &spec, 41).unwrap_err().to_string(), "bytes: 60B of 100B used");
    ledger.add_bytes(&one, &spec, 40).unwrap();
    assert_eq!(ledger.total().bytes, 100);

    ledger.check_handler(&spec, Duration::from_secs(59)).unwrap();
    let late = ledger.check_handler(&spec, Duration::from_secs(60)).unwrap_err();
    assert_eq!(late.to_string(), "time: 1m of 1m used");
    ledger.add_cpu(&one, Duration::from_millis(4));
    assert_eq!(ledger.cpu_left(&spec), Some(Duration::from_millis(1)));
    ledger.add_cpu(&one, Duration::from_millis(4));
    assert_eq!(ledger.cpu_left(&spec), Some(Duration::ZERO));
    let spent = ledger.check_handler(&spec, Duration::ZERO).unwrap_err();
    assert_eq!(spent.to_string(), "cpu: 8ms of 5ms used");
}

#[test]
fn sums_that_do_not_fit_stay_beyond_every_limit() {
    let (spec, one) = (BudgetSpec { units: units(&[("tokens", u64::MAX - 1)]), ..BudgetSpec::default() }, agent("one"));
    let mut ledger = BudgetLedger::default();
    let call = ledger.begin_call(&one, &spec, &units(&[("tokens", 1)])).unwrap();
    ledger.settle(call, &units(&[("tokens", u64::MAX)]));
    assert_eq!(ledger.total().units, units(&[("tokens", u64::MAX)]));
    assert!(ledger.begin_call(&one, &spec, &units(&[("tokens", u64::MAX)])).is_err());
    ledger.add_bytes(&one, &spec, u64::MAX).unwrap();
    ledger.add_bytes(&one, &spec, u64::MAX).unwrap();
    assert_eq!(ledger.total().bytes, u64::MAX);
}

#[test]
fn the_root_is_told_once() {
    let mut ledger = BudgetLedger::default();
    assert_eq!((ledger.is_told(), ledger.tell(), ledger.tell(), ledger.is_told()), (false, true, false, true));
}

#[test]
fn callers_are_named_or_all_that_are_known() {
    for (callers, caller, expected) in [
        (&[][..], "token:shop", false),
        (&["token:shop"], "token:shop", true),
        (&["token:shop"], "hmac:shop", false),
        (&["*"], "jwt:x", true),
    ] {
        let callers = callers.iter().map(|caller| (*caller).to_owned()).collect();
        let spec = BudgetSpec { callers, ..BudgetSpec::default() };
        assert_eq!(spec.admits(caller), expected, "{spec:?} {caller}");
    }
}

/// A small generator, so that a failure is repeated by its seed.
struct LedgerChance(u64);

impl LedgerChance {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % bound
    }
}

/// Any order of messages, calls, failed commits and kills: no count passes its limit, and no unit does as long as no
/// response has more than was reserved for it.
#[test]
fn no_limit_is_ever_passed() {
    for seed in 1..2_000 {
        let mut chance = LedgerChance(seed);
        let spec = BudgetSpec {
            messages: Some(chance.below(20)),
            calls: Some(chance.below(20)),
            bytes: Some(chance.below(500)),
            units: units(&[("tokens", chance.below(200))]),
            ..BudgetSpec::default()
        };
        let (mut ledger, mut held, mut calls) = (BudgetLedger::default(), 0_u32, Vec::new());
        for _ in 0..chance.below(120) {
            let one = agent(["one", "two", "three"][usize::try_from(chance.below(3)).unwrap()]);
            match chance.below(9) {
                0 | 1 => held += u32::from(ledger.hold(&spec).is_ok()),
                2 if held > 0 => {
                    ledger.keep(&one);
                    held -= 1;
                    if chance.below(4) == 0 {
                        // Its transaction was not written.
                        ledger.take_back(&one);
                        held += 1;
                    }
                }
                3 if held > 0 => {
                    ledger.release();
                    held -= 1;
                }
                4 | 5 => {
                    let most = chance.below(60) + 1;
                    let begun = ledger.begin_call(&one, &spec, &units(&[("tokens", most)]));
                    calls.extend(begun.ok().map(|call| (call, most)));
                }
                6 if !calls.is_empty() => {
                    let at = usize::try_from(chance.below(calls.len() as u64)).unwrap();
                    let (call, most) = calls.swap_remove(at);
                    let figures = if chance.below(3) == 0 {
                        BTreeMap::new()
                    } else {
                        units(&[("tokens", chance.below(most + 1))])
                    };
                    ledger.settle(call, &figures);
                }
                7 => drop(ledger.add_bytes(&one, &spec, chance.below(90))),
                8 if chance.below(6) == 0 => {
                    let before: u64 =
                        ledger.total().units.values().sum::<u64>() + ledger.reserved().values().sum::<u64>();
                    let stored = serde_json::to_string(&ledger).unwrap();
                    ledger = serde_json::from_str::<BudgetLedger>(&stored).unwrap().recovered();
                    assert_eq!(ledger.total().units.values().sum::<u64>(), before, "seed {seed}");
                    (held, calls) = (0, Vec::new());
                }
                _ => {}
            }
            let (total, reserved) = (ledger.total(), ledger.reserved());
            assert!(total.messages + u64::from(held) <= spec.messages.unwrap(), "seed {seed}: {ledger:?}");
            assert!(total.calls <= spec.calls.unwrap(), "seed {seed}: {ledger:?}");
            assert!(total.bytes <= spec.bytes.unwrap(), "seed {seed}: {ledger:?}");
            let tokens = |units: &BTreeMap<String, u64>| units.get("tokens").copied().unwrap_or(0);
            assert!(tokens(&total.units) + tokens(&reserved) <= spec.units["tokens"], "seed {seed}: {ledger:?}");
            let summed: u64 = ledger.agents().values().map(|own| own.messages).sum();
            assert_eq!(summed, total.messages, "seed {seed}");
        }
    }
}
