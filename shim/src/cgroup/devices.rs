//! Device rules of a cgroup.

use crate::spec::DeviceRule;

/// Devices that every container needs: kind, numbers (`None` is all), access.
const NEEDED: &[(&str, Option<i64>, Option<i64>, &str)] = &[
    ("c", Some(1), Some(3), "rwm"),
    ("c", Some(1), Some(5), "rwm"),
    ("c", Some(1), Some(7), "rwm"),
    ("c", Some(1), Some(8), "rwm"),
    ("c", Some(1), Some(9), "rwm"),
    ("c", Some(5), Some(0), "rwm"),
    ("c", Some(5), Some(1), "rwm"),
    ("c", Some(5), Some(2), "rwm"),
    ("c", Some(136), None, "rwm"),
    ("c", None, None, "m"),
    ("b", None, None, "m"),
];

/// Appends the rules for needed devices to `rules`, if any of those denies something.
pub(super) fn complete(rules: &[DeviceRule]) -> Vec<DeviceRule> {
    let needed = NEEDED.iter().filter(|_| rules.iter().any(|rule| !rule.allow));
    let needed = needed.map(|(kind, major, minor, access)| DeviceRule {
        allow: true,
        kind: (*kind).into(),
        major: *major,
        minor: *minor,
        access: (*access).into(),
    });
    rules.iter().cloned().chain(needed).collect()
}
