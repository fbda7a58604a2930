//! Conversion between words of the contract and those of the host.

use caxton_control::Performative;
use caxton_control::mailbox::Priority;

use super::wit;

/// Converts a priority of the contract.
pub(crate) fn rank(priority: wit::Priority) -> Priority {
    match priority {
        wit::Priority::Low => Priority::Low,
        wit::Priority::Normal => Priority::Normal,
        wit::Priority::High => Priority::High,
        wit::Priority::Critical => Priority::Critical,
    }
}

/// Converts a rank to a priority of the contract.
pub(crate) fn priority(rank: Priority) -> wit::Priority {
    match rank {
        Priority::Low => wit::Priority::Low,
        Priority::Normal => wit::Priority::Normal,
        Priority::High => wit::Priority::High,
        Priority::Critical => wit::Priority::Critical,
    }
}

/// Converts an act to one of the contract. Both have the same 22 in the same order.
pub(crate) fn performative(act: Performative) -> wit::Performative {
    WIT_ACTS[act as usize]
}

/// Converts an act of the contract.
pub(crate) fn act(performative: wit::Performative) -> Performative {
    Performative::ALL[performative as usize]
}

const WIT_ACTS: [wit::Performative; 22] = {
    use wit::Performative as P;
    [
        P::AcceptProposal,
        P::Agree,
        P::Cancel,
        P::Cfp,
        P::Confirm,
        P::Disconfirm,
        P::Failure,
        P::Inform,
        P::InformIf,
        P::InformRef,
        P::NotUnderstood,
        P::Propagate,
        P::Propose,
        P::Proxy,
        P::QueryIf,
        P::QueryRef,
        P::Refuse,
        P::RejectProposal,
        P::Request,
        P::RequestWhen,
        P::RequestWhenever,
        P::Subscribe,
    ]
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranks_and_priorities_match() {
        for of_host in Priority::ALL {
            assert_eq!(rank(priority(of_host)), of_host);
        }
    }

    #[test]
    fn acts_of_contract_and_host_match() {
        for act_of_host in Performative::ALL {
            let in_contract = performative(*act_of_host);
            assert_eq!(act(in_contract), *act_of_host);
            let names = [format!("{in_contract:?}"), act_of_host.to_string()];
            let [contract, host] = names.map(|name| name.to_lowercase().replace(['-', ':'], ""));
            assert!(contract.contains(&host), "{contract} is {host}");
        }
    }
}
