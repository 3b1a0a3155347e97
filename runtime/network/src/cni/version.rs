//! Versions of the CNI specification and their features.

use serde::{Deserialize, Serialize};

/// A version of the specification that network configurations may be written for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(super) enum Version {
    #[serde(rename = "0.3.0")]
    V0_3_0,
    #[serde(rename = "0.3.1")]
    V0_3_1,
    #[serde(rename = "0.4.0")]
    V0_4_0,
    #[serde(rename = "1.0.0")]
    V1_0_0,
    #[serde(rename = "1.1.0")]
    V1_1_0,
}

impl Version {
    /// From the oldest to the newest.
    pub(super) const ALL: [Version; 5] =
        [Version::V0_3_0, Version::V0_3_1, Version::V0_4_0, Version::V1_0_0, Version::V1_1_0];

    /// Parses a version; none when Berth does not support it.
    pub(super) fn parse(text: &str) -> Option<Version> {
        Version::ALL.into_iter().find(|version| version.as_str() == text)
    }

    pub(super) fn as_str(self) -> &'static str {
        match self {
            Version::V0_3_0 => "0.3.0",
            Version::V0_3_1 => "0.3.1",
            Version::V0_4_0 => "0.4.0",
            Version::V1_0_0 => "1.0.0",
            Version::V1_1_0 => "1.1.0",
        }
    }

    /// Whether CHECK exists and DEL is given the result of ADD.
    pub(super) fn has_check(self) -> bool {
        self >= Version::V0_4_0
    }

    /// Whether STATUS and GC exist.
    pub(super) fn has_status_and_gc(self) -> bool {
        self >= Version::V1_1_0
    }

    /// Whether each address of a result says if it is IPv4 or IPv6.
    pub(super) fn addresses_carry_version(self) -> bool {
        self < Version::V1_0_0
    }
}
