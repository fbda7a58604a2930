use caxton_control::AgentName;
use caxton_control::meter::UnitMeter;

use super::*;

fn budgets(spec: BudgetSpec) -> (Budgets, Arc<Mutex<Vec<TreeRecord>>>) {
    let budgets = Budgets::default();
    let saved = Arc::<Mutex<Vec<TreeRecord>>>::default();
    let rows = Arc::clone(&saved);
    budgets.save_with(Box::new(move |state| {
        rows.lock().push(state.record());
        Box::pin(std::future::ready(Ok(())))
    }));
    budgets.configure(&BTreeMap::from([(name(), Arc::new(spec))]));
    (budgets, saved)
}

fn name() -> BudgetName {
    "demo".parse().unwrap()
}

fn agent() -> AgentName {
    "desk".parse().unwrap()
}

#[test]
fn a_tree_is_in_memory_while_it_has_a_handle_and_its_row_goes_on() {
    let (budgets, saved) = budgets(BudgetSpec { messages: Some(2), ..BudgetSpec::default() });
    let tree = budgets.begin(&name(), "m-1", TreeRoot::outside("c-1")).unwrap();
    drop(tree.admit_message(&agent(), std::time::Duration::ZERO).unwrap());
    drop(tree);
    assert!(saved.lock().is_empty() && budgets.find("m-1").is_none(), "nothing was used");

    let tree = budgets.begin(&name(), "m-2", TreeRoot::outside("c-1")).unwrap();
    tree.admit_message(&agent(), std::time::Duration::ZERO).unwrap().keep();
    let other = budgets.find("m-2").unwrap();
    drop(tree);
    assert!(saved.lock().is_empty(), "it has a handle");
    drop(other);
    assert!(budgets.find("m-2").is_none(), "its row is written");
    let row = saved.lock().pop().unwrap();
    let text = row.to_text();
    let again = budgets.restore(TreeRecord::parse("m-2", &text).unwrap());
    again.admit_message(&agent(), std::time::Duration::ZERO).unwrap().keep();
    let refused = again.admit_message(&agent(), std::time::Duration::ZERO).unwrap_err();
    assert_eq!(refused.to_string(), "budget-exceeded: budget `demo`, messages: 2 of 2 used");
    budgets.configure(&BTreeMap::from([(name(), Arc::new(BudgetSpec { messages: Some(3), ..BudgetSpec::default() }))]));
    assert!(again.admit_message(&agent(), std::time::Duration::ZERO).is_ok(), "a raised limit holds at once");
}

#[test]
fn the_first_refusal_is_reported_once() {
    let (budgets, _) = budgets(BudgetSpec { calls: Some(1), ..BudgetSpec::default() });
    let reports = Arc::<Mutex<Vec<String>>>::default();
    let heard = Arc::clone(&reports);
    budgets.report_to(Box::new(move |tree, over| heard.lock().push(format!("{:?} {over}", tree.state()))));
    let tree = budgets.begin(&name(), "m-1", TreeRoot::outside("c-1")).unwrap();
    let begin = |ledger: &mut caxton_control::budget::BudgetLedger, spec: &BudgetSpec| {
        ledger.begin_call(&agent(), spec, &BTreeMap::new())
    };
    tree.decide(begin).unwrap();
    assert!(tree.decide(begin).is_err() && tree.decide(begin).is_err());
    assert_eq!(*reports.lock(), ["Tree(m-1 of demo) budget-exceeded: budget `demo`, calls: 1 of 1 used"]);
}

#[tokio::test]
async fn a_call_is_settled_by_its_response_and_else_by_its_reservation() {
    let limits = BTreeMap::from([("tokens".to_owned(), 100)]);
    let (budgets, saved) = budgets(BudgetSpec { units: limits, bytes: Some(50), ..BudgetSpec::default() });
    let terms = BTreeMap::from([("tokens".to_owned(), BTreeMap::from([("/usage".to_owned(), 1)]))]);
    let meter = UnitMeter::new(terms, BTreeMap::from([("tokens".to_owned(), 40)])).unwrap();
    let tree = budgets.begin(&name(), "m-1", TreeRoot::outside("c-1")).unwrap();
    let used = || {
        let record = tree.state().record();
        (record.ledger.total().units.get("tokens").copied(), record.ledger.reserved().get("tokens").copied())
    };
    let call = tree.begin_call(&agent(), &meter).await.unwrap();
    assert_eq!(saved.lock().last().unwrap().ledger.reserved().get("tokens"), Some(&40), "before the call");
    call.begin_response(false);
    call.read(b"{\"usage\":");
    call.read(b"7}");
    drop(call);
    assert_eq!(used(), (Some(7), None));
    drop(tree.begin_call(&agent(), &meter).await.unwrap());
    assert_eq!(used(), (Some(47), None), "no answer");
    let failed = tree.begin_call(&agent(), &meter).await.unwrap();
    failed.never_left();
    drop(failed);
    assert_eq!(used(), (Some(47), None), "nothing was sent");
    let call = tree.begin_call(&agent(), &meter).await.unwrap();
    let refused = tree.begin_call(&agent(), &meter).await.err().unwrap();
    assert_eq!(refused.to_string(), "budget-exceeded: budget `demo`, tokens: 47 of 100 used, 40 reserved");
    call.add_bytes(50).unwrap();
    assert!(call.add_bytes(1).is_err());
}
