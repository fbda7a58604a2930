//! The memory of this machine and of the process's control group.

use caxton_control::memory::{cgroup_bound, cgroup_files, default_budget, machine_memory};
use caxton_control::units::print_bytes;

/// Returns the bounds that the kernel has for this process's memory, in bytes.
fn bounds() -> impl Iterator<Item = u64> {
    let read = |path: &str| std::fs::read_to_string(path).ok();
    let groups = read("/proc/self/cgroup").map_or_else(Vec::new, |groups| cgroup_files(&groups));
    let of_groups = groups.into_iter().filter_map(move |file| cgroup_bound(&read(&file)?));
    of_groups.chain(std::fs::read_to_string("/proc/meminfo").ok().and_then(|text| machine_memory(&text)))
}

/// Returns the budget of a host without `host.memory`.
pub(crate) fn machine_budget() -> u64 {
    default_budget(bounds())
}

/// Describes the memory that this process may use, and the budget that follows; `None` if neither is known.
pub(crate) fn describe_bound(asked: Option<u64>) -> Option<(bool, String)> {
    let bound = bounds().min()?;
    let budget = asked.unwrap_or_else(|| default_budget([bound]));
    let (bytes, part) = (print_bytes(bound), print_bytes(budget));
    Some((budget <= bound / 10 * 9, format!("{bytes}, of which the host holds {part} for others (host.memory)")))
}
