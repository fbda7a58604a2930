//! The host's budget of memory: its default, and what is refused first when little of it is left.

/// The smallest budget: a host with less could not start one large guest.
pub const MIN_BUDGET: u64 = 64 << 20;

/// The budget where neither a control group nor the machine tells its size.
const UNKNOWN_MACHINE: u64 = 1 << 30;

/// A purpose for which memory is asked. What comes first is refused first when memory is short.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum MemoryPriority {
    /// Copies of messages and rehearsals: nobody waits for their answers.
    Copies,
    /// Connections that were just accepted: nothing was promised to their clients.
    Connections,
    /// Calls and messages from outside.
    Calls,
    /// Instances that start, for calls and messages that were accepted.
    Instances,
    /// The growth of what is under way. Once it ends, its memory is free again.
    Work,
}

impl MemoryPriority {
    /// All priorities, the first to be refused first.
    pub const ALL: [Self; 5] = [Self::Copies, Self::Connections, Self::Calls, Self::Instances, Self::Work];

    /// Returns the name for metrics and texts.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Copies => "copies",
            Self::Connections => "connections",
            Self::Calls => "calls",
            Self::Instances => "instances",
            Self::Work => "work",
        }
    }

    /// Returns the share of the budget, in percent, up to which memory is given for this.
    pub const fn percent(self) -> u64 {
        // In steps of a few percent: each has to leave room for what it lets in, and all of it together is the reserve of
        // what is under way.
        match self {
            Self::Copies => 75,
            Self::Connections => 85,
            Self::Calls => 90,
            Self::Instances => 95,
            Self::Work => 100,
        }
    }

    /// Returns the bytes of a budget up to which memory is given for this.
    pub const fn ceiling(self, budget: u64) -> u64 {
        // Divided first, so that no budget overflows; the remainder is less than a hundred bytes.
        if self.percent() == 100 { budget } else { budget / 100 * self.percent() }
    }
}

/// Returns the budget of a host without `host.memory`: three quarters of the smallest bound that is known. The rest is
/// for what is not counted: the program, its caches of the store, and what the allocator keeps.
pub fn default_budget(bounds: impl IntoIterator<Item = u64>) -> u64 {
    let least = bounds.into_iter().min().unwrap_or(UNKNOWN_MACHINE);
    (least / 4).saturating_mul(3).max(MIN_BUDGET)
}

/// Returns the bound in a file of a control group, such as `memory.max`; `None` if there is none.
pub fn cgroup_bound(text: &str) -> Option<u64> {
    // Version 1 writes a number near the largest one for "no bound".
    const NO_BOUND: u64 = 1 << 60;
    // Version 2 writes `max`, which is no number.
    text.trim().parse().ok().filter(|bound| *bound < NO_BOUND)
}

/// Returns the machine's memory of `/proc/meminfo`, in bytes.
pub fn machine_memory(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kib.checked_mul(1024)
}

/// Returns the files that may hold a bound of memory, given `/proc/self/cgroup`: those of the process's group and of all
/// groups around it, since the smallest counts.
pub fn cgroup_files(groups: &str) -> Vec<String> {
    let mut files = Vec::new();
    for line in groups.lines() {
        let mut parts = line.splitn(3, ':').skip(1);
        let (Some(controllers), Some(path)) = (parts.next(), parts.next()) else { continue };
        let (root, file) = match controllers {
            // The one line of version 2.
            "" => ("/sys/fs/cgroup", "memory.max"),
            _ if controllers.split(',').any(|name| name == "memory") => {
                ("/sys/fs/cgroup/memory", "memory.limit_in_bytes")
            }
            _ => continue,
        };
        // In a container the path may be that of the machine, while its own group is mounted as the root.
        let mut at = path.trim_end_matches('/');
        loop {
            files.push(format!("{root}{at}/{file}"));
            match at.rfind('/') {
                Some(parent) => at = &at[..parent],
                None => break,
            }
        }
    }
    files
}

#[cfg(test)]
mod tests {
    use super::*;

    const GIB: u64 = 1 << 30;

    #[test]
    fn the_budget_is_three_quarters_of_the_smallest_bound() {
        for (bounds, expected) in [
            (vec![16 * GIB, 8 * GIB], 6 * GIB),
            (vec![700 << 20, 24 * GIB], 525 << 20),
            (vec![], 768 << 20),
            (vec![1 << 20], MIN_BUDGET),
            (vec![u64::MAX], u64::MAX / 4 * 3),
        ] {
            assert_eq!(default_budget(bounds.clone()), expected, "{bounds:?}");
        }
    }

    #[test]
    fn bounds_are_read_from_texts_of_the_kernel() {
        for (text, expected) in [
            ("max\n", None),
            ("734003200\n", Some(734_003_200)),
            ("9223372036854771712\n", None),
            ("", None),
            ("-1", None),
        ] {
            assert_eq!(cgroup_bound(text), expected, "{text}");
        }
        for (text, expected) in [
            ("MemTotal:       24684036 kB\nMemFree: 1 kB\n", Some(24_684_036 * 1024)),
            ("MemFree: 1 kB\n", None),
            ("MemTotal: x kB\n", None),
            ("MemTotal: 18446744073709551615 kB\n", None),
        ] {
            assert_eq!(machine_memory(text), expected, "{text}");
        }
        for (groups, expected) in [
            ("0::/\n", vec!["/sys/fs/cgroup/memory.max"]),
            (
                "0::/system.slice/caxton.service\n",
                vec![
                    "/sys/fs/cgroup/system.slice/caxton.service/memory.max",
                    "/sys/fs/cgroup/system.slice/memory.max",
                    "/sys/fs/cgroup/memory.max",
                ],
            ),
            (
                "4:cpu:/a\n3:memory,other:/a\n",
                vec!["/sys/fs/cgroup/memory/a/memory.limit_in_bytes", "/sys/fs/cgroup/memory/memory.limit_in_bytes"],
            ),
            ("nonsense", vec![]),
        ] {
            assert_eq!(cgroup_files(groups), expected, "{groups}");
        }
    }

    #[test]
    fn what_is_refused_first_gets_the_smaller_share() {
        for (at, priority) in MemoryPriority::ALL.into_iter().enumerate() {
            for budget in [MIN_BUDGET, 200 << 20, u64::MAX] {
                let ceiling = priority.ceiling(budget);
                assert!(ceiling <= budget, "{priority:?} of {budget}");
                if let Some(next) = MemoryPriority::ALL.get(at + 1) {
                    assert!(ceiling < next.ceiling(budget) && priority < *next, "{priority:?} and {next:?}");
                }
            }
        }
        assert_eq!(MemoryPriority::Work.ceiling(12_345), 12_345);
    }
}
