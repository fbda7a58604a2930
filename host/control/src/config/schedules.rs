//! The schedules of an agent.

use std::collections::BTreeMap;

use super::budgets::budget;
use super::error::{ConfigError, Location};
use super::findings::Findings;
use super::node::Source;
use super::section::Section;
use crate::limits::Limits;
use crate::schedule::{Missed, Schedule};
use crate::units::print_bytes;

/// Reads the schedules. No schedule may occur twice, or send a message that the agent cannot take.
pub(super) fn schedules(section: &Section<'_>, limits: &Limits, findings: &mut Findings) -> Vec<Schedule> {
    let mut schedules = Vec::new();
    let mut seen: BTreeMap<String, Source> = BTreeMap::new();
    for section in section.sections("schedule", findings) {
        let cron = section.get("cron", None, findings);
        let timezone = section.get("timezone", None, findings);
        let content: Option<String> = section.get("content", None, findings);
        let content_type = section.get("content-type", None, findings);
        let missed = match section.get("missed", None, findings) {
            Some("skip") => Missed::Skip,
            Some("all") => Missed::All,
            _ => Missed::Latest,
        };
        // Checked here, since a schedule has no sender that could get the error.
        let bytes = content.as_ref().map_or(0, |content| content.len() as u64);
        if bytes > limits.message_bytes {
            let at = Location { key: section.key("content"), source: section.source_of("content") };
            let [given, least, most] = [bytes, 0, limits.message_bytes].map(print_bytes);
            findings.errors.push(ConfigError::OutOfBounds { at, given, least, most });
        }
        let (Some(cron), Some(timezone), Some(content), Some(content_type)) = (cron, timezone, content, content_type)
        else {
            continue;
        };
        let budget = budget(&section, findings);
        let schedule = Schedule { cron, timezone, content, content_type, missed, budget };
        let source = section.source_of("cron");
        // By the key of the store, where two schedules with one key would share their last time.
        if let Some(first) = seen.insert(schedule.key(), source.clone()) {
            let at = Location { key: section.key("cron"), source };
            findings.errors.push(ConfigError::Repeated { at, given: schedule.cron.to_string(), first });
        }
        schedules.push(schedule);
    }
    schedules
}
