//! Platforms, and the choice of the image in an index that suits a machine.

use std::fmt;

use serde::Deserialize;

/// An operating system and processor, in the terms of Go (`linux`, `amd64`, `arm64`).
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Platform {
    /// Operating system.
    pub os: String,
    /// Processor architecture.
    pub architecture: String,
    /// Version of the architecture, such as `v7` for `arm`; empty if it has none.
    #[serde(default)]
    pub variant: String,
}

impl Platform {
    /// Makes a platform from its parts.
    pub fn new(os: &str, architecture: &str, variant: &str) -> Self {
        Platform { os: os.to_owned(), architecture: architecture.to_owned(), variant: variant.to_owned() }
    }

    /// Returns the platform this program was built for.
    pub fn host() -> Self {
        let (architecture, variant) = match std::env::consts::ARCH {
            "x86_64" => ("amd64", ""),
            "x86" => ("386", ""),
            "aarch64" => ("arm64", "v8"),
            "arm" => ("arm", "v7"),
            "powerpc64" => ("ppc64le", ""),
            "loongarch64" => ("loong64", ""),
            other => (other, ""),
        };
        Platform::new(std::env::consts::OS, architecture, variant)
    }

    /// Ranks how well a machine of this platform runs an image made for `image`: 0 is best, `None` is not at all. An
    /// empty operating system or architecture of the image matches any.
    pub(crate) fn suits(&self, image: &Platform) -> Option<usize> {
        if !image.os.is_empty() && image.os != self.os {
            return None;
        }
        if image.architecture.is_empty() {
            return Some(0);
        }
        let image = (image.architecture.as_str(), canonical(image));
        self.runs().iter().position(|candidate| *candidate == image)
    }

    /// Returns the architectures and variants this one runs, the best first.
    fn runs(&self) -> Vec<(&str, &str)> {
        const ARM: [(&str, &str); 4] = [("arm", "v8"), ("arm", "v7"), ("arm", "v6"), ("arm", "v5")];
        match (self.architecture.as_str(), canonical(self)) {
            ("amd64", _) => vec![("amd64", ""), ("386", "")],
            ("arm64", variant) => {
                let own = if variant.is_empty() { vec![] } else { vec![("arm64", variant)] };
                [own, vec![("arm64", "")], ARM.to_vec()].concat()
            }
            ("arm", variant) => {
                let known = ARM.iter().skip_while(|(_, known)| *known != variant);
                known.copied().collect()
            }
            own => vec![own],
        }
    }
}

/// Returns the variant in one spelling: empty for the default of an architecture (`v8` of arm64), `v7` if arm has none.
fn canonical(platform: &Platform) -> &str {
    match (platform.architecture.as_str(), platform.variant.as_str()) {
        ("amd64", "v1") | ("arm64", "v8" | "8") => "",
        ("arm", "" | "7") => "v7",
        ("arm", "6") => "v6",
        ("arm", "5") => "v5",
        ("arm", "8") => "v8",
        (_, variant) => variant,
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)?;
        if self.variant.is_empty() {
            return Ok(());
        }
        write!(f, "/{}", self.variant)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rank(host: (&str, &str), image: (&str, &str)) -> Option<usize> {
        Platform::new("linux", host.0, host.1).suits(&Platform::new("linux", image.0, image.1))
    }

    #[test]
    fn a_machine_runs_its_own_architecture_whether_or_not_the_default_variant_is_spelled() {
        assert_eq!(rank(("amd64", ""), ("amd64", "")), Some(0));
        assert_eq!(rank(("amd64", ""), ("amd64", "v1")), Some(0));
        assert_eq!(rank(("arm64", "v8"), ("arm64", "")), Some(0));
        assert_eq!(rank(("riscv64", ""), ("riscv64", "")), Some(0));
        assert_eq!(rank(("amd64", ""), ("arm64", "")), None);
        assert_eq!(rank(("amd64", ""), ("amd64", "v3")), None);
    }

    #[test]
    fn arm_prefers_the_nearest_variant_and_runs_no_newer_one() {
        let order = ["v7", "v6", "v5"].map(|variant| rank(("arm", "v7"), ("arm", variant)));
        assert_eq!(order, [Some(0), Some(1), Some(2)]);
        assert_eq!(rank(("arm", "v7"), ("arm", "v8")), None);
        assert_eq!(rank(("arm", "v6"), ("arm", "")), None);
        assert!(rank(("arm64", ""), ("arm", "v7")) > rank(("arm64", ""), ("arm64", "v8")));
    }

    #[test]
    fn another_operating_system_never_fits() {
        let image = Platform::new("windows", "amd64", "");
        assert_eq!(Platform::new("linux", "amd64", "").suits(&image), None);
    }
}
