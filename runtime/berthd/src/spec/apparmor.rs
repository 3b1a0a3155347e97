//! The AppArmor profile of a container's processes, apparmor(7).

use std::{fs, path::Path};

use super::{Error, Host};
use crate::container::config::{Apparmor, Security};

/// The kernel's list of loaded profiles, one `NAME (MODE)` per line. Absent where securityfs is not mounted.
const PROFILES_FILE: &str = "sys/kernel/security/apparmor/profiles";

/// AppArmor on this host.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Confinement {
    /// The kernel has no AppArmor, or it is disabled.
    #[default]
    Absent,
    /// AppArmor is enabled.
    Enabled {
        /// Name of Berth's own profile.
        own: &'static str,
        /// Why the profile could not be loaded at the daemon's start; `None` when it was loaded.
        lacking: Option<String>,
    },
}

/// Returns the profile's name. With `None` the processes run under the daemon's own profile, mostly unconfined.
pub(crate) fn profile(security: &Security, host: &Host) -> Result<Option<String>, Error> {
    match (&security.apparmor, &host.apparmor) {
        (Apparmor::Localhost(name), Confinement::Absent) => Err(Error::Unsupported {
            field: "apparmor profile",
            value: name.clone(),
            reason: "this host has no AppArmor".to_owned(),
        }),
        (Apparmor::Localhost(name), _) => Ok(Some(name.clone())),
        (Apparmor::RuntimeDefault, Confinement::Enabled { own, .. }) if !security.privileged => {
            Ok(Some((*own).to_owned()))
        }
        _ => Ok(None),
    }
}

/// Fails for a profile that is missing from the kernel's list under `root` (`/` except in tests), if there is a list.
/// Where AppArmor is enabled, no container runs without its profile. If Berth's own could not be loaded at the start,
/// it may have been loaded since, so the list is read again.
pub fn check(security: &Security, host: &Host, root: &Path) -> Result<(), Error> {
    let loaded = || fs::read_to_string(root.join(PROFILES_FILE)).ok();
    match (&security.apparmor, &host.apparmor) {
        (Apparmor::Localhost(name), _) => match loaded() {
            Some(loaded) if !lists(&loaded, name) => {
                Err(Error::invalid("apparmor profile", name, "is not loaded on this host"))
            }
            _ => Ok(()),
        },
        (Apparmor::RuntimeDefault, Confinement::Enabled { own, lacking: Some(why) })
            if !security.privileged && !loaded().is_some_and(|loaded| lists(&loaded, own)) =>
        {
            Err(Error::Unsupported {
                field: "apparmor profile",
                value: (*own).to_owned(),
                reason: format!("is not loaded, and could not be when the daemon started: {why}"),
            })
        }
        _ => Ok(()),
    }
}

fn lists(loaded: &str, name: &str) -> bool {
    loaded.lines().any(|line| line.rsplit_once(" (").is_some_and(|(known, _)| known == name))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn asking(apparmor: Apparmor, privileged: bool) -> Security {
        Security { apparmor, privileged, ..Default::default() }
    }

    fn enabled(lacking: Option<&str>) -> Confinement {
        Confinement::Enabled { own: "berth-default", lacking: lacking.map(str::to_owned) }
    }

    fn host(apparmor: Confinement) -> Host {
        Host { apparmor, ..Default::default() }
    }

    #[test]
    fn the_profile_follows_from_what_is_asked_and_what_the_host_has() {
        use Apparmor::{Localhost, RuntimeDefault, Unconfined};
        let own = || enabled(None);
        let mine = || Localhost("mine".to_owned());
        for (apparmor, privileged, confinement, expected) in [
            (RuntimeDefault, false, Confinement::Absent, None),
            (Unconfined, false, Confinement::Absent, None),
            (RuntimeDefault, false, own(), Some("berth-default")),
            (RuntimeDefault, false, enabled(Some("no parser")), Some("berth-default")),
            (RuntimeDefault, true, own(), None),
            (Unconfined, false, own(), None),
            (mine(), false, own(), Some("mine")),
            (mine(), true, enabled(Some("no parser")), Some("mine")),
        ] {
            let found = profile(&asking(apparmor.clone(), privileged), &host(confinement.clone()));
            assert_eq!(found, Ok(expected.map(str::to_owned)), "{apparmor:?} {privileged} {confinement:?}");
        }
    }

    #[test]
    fn a_named_profile_without_apparmor_is_an_error_of_the_host() {
        let named = asking(Apparmor::Localhost("mine".to_owned()), false);
        let error = profile(&named, &host(Confinement::Absent)).unwrap_err();
        assert!(error.is_unsupported());
        assert_eq!(error.to_string(), r#"apparmor profile "mine": this host has no AppArmor"#);
    }

    #[test]
    fn a_profile_must_be_loaded_where_that_can_be_seen() {
        let root = tempfile::tempdir().unwrap();
        let check = |apparmor| check(&asking(apparmor, false), &host(enabled(None)), root.path());
        let named = |name: &str| Apparmor::Localhost(name.to_owned());
        assert_eq!(check(named("anything")), Ok(()));
        let file = root.path().join(PROFILES_FILE);
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(file, "docker-default (enforce)\nmine (complain)\n/usr/bin/man (enforce)\n").unwrap();
        for name in ["mine", "/usr/bin/man"] {
            assert_eq!(check(named(name)), Ok(()));
        }
        for name in ["min", "mine (complain)", "other"] {
            let expected = Error::invalid("apparmor profile", name, "is not loaded on this host");
            assert_eq!(check(named(name)), Err(expected));
        }
        assert_eq!(check(Apparmor::Unconfined), Ok(()));
    }

    #[test]
    fn nobody_runs_without_the_default_profile_where_apparmor_is_in_force() {
        let root = tempfile::tempdir().unwrap();
        let lacking = host(enabled(Some("apparmor_parser: not found")));
        let check = |apparmor, privileged| check(&asking(apparmor, privileged), &lacking, root.path());
        let error = check(Apparmor::RuntimeDefault, false).unwrap_err();
        assert!(error.is_unsupported());
        assert!(error.to_string().ends_with("apparmor_parser: not found"), "{error}");
        for (apparmor, privileged) in [(Apparmor::Unconfined, false), (Apparmor::RuntimeDefault, true)] {
            assert_eq!(check(apparmor, privileged), Ok(()));
        }
        let file = root.path().join(PROFILES_FILE);
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(&file, "berth-default-2 (enforce)\n").unwrap();
        assert!(check(Apparmor::RuntimeDefault, false).is_err());
        fs::write(&file, "berth-default (enforce)\n").unwrap();
        assert_eq!(check(Apparmor::RuntimeDefault, false), Ok(()), "it was loaded since");
    }
}
