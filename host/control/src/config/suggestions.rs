//! Suggests the known name that is nearest to a wrong one.

/// The most comparisons of one check. A file with thousands of wrong names gets its first errors explained and all of
/// them reported, in bounded time.
const MAX_COMPARED: usize = 200_000;

/// A search for near names with a limited budget.
#[derive(Debug)]
pub(super) struct Suggestions {
    /// Comparisons that may still be made.
    left: usize,
}

impl Default for Suggestions {
    fn default() -> Self {
        Self { left: MAX_COMPARED }
    }
}

impl Suggestions {
    /// Returns the name in `known` that is nearest to `given`, if it is near enough to have been meant; the first of
    /// several equally near.
    pub(super) fn nearest<'a>(&mut self, given: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
        let given = normal(given);
        // A third of the letters: with more changes it is another word.
        let most = (given.chars().count() / 3).max(1);
        let mut best: Option<(usize, &str)> = None;
        for name in known {
            if self.left == 0 {
                break;
            }
            self.left -= 1;
            // The distance is at least the difference of the lengths, which is far cheaper.
            if name.len().abs_diff(given.len()) > most {
                continue;
            }
            let distance = strsim::osa_distance(&given, &normal(name));
            if distance <= most && best.is_none_or(|(nearest, _)| distance < nearest) {
                best = Some((distance, name));
            }
        }
        best.map(|(_, name)| name)
    }
}

/// Normalizes a name, since case and the kind of hyphen should not count as differences.
fn normal(name: &str) -> String {
    name.to_lowercase().replace('_', "-")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn near_names_are_found() {
        let known = ["limits", "instances", "max-head", "max-body", "GET"];
        for (given, expected) in [
            ("limts", Some("limits")),
            ("Limits", Some("limits")),
            ("max_head", Some("max-head")),
            ("maxBody", Some("max-body")),
            ("isntances", Some("instances")),
            ("get", Some("GET")),
            ("memory", None),
            ("x", None),
            ("", None),
        ] {
            assert_eq!(Suggestions::default().nearest(given, known), expected, "{given}");
        }
    }

    #[test]
    fn the_budget_ends() {
        let mut suggest = Suggestions { left: 1 };
        assert_eq!(suggest.nearest("limts", ["limits"]), Some("limits"));
        assert_eq!(suggest.nearest("limts", ["limits"]), None);
    }
}
