//! Which profile of AppArmor confines a container's processes, apparmor(7).

use std::{fs, path::Path};

use super::{Error, Host};
use crate::container::config::{Apparmor, Security};

/// The kernel's list of profiles, `NAME (MODE)` in each line. Absent where securityfs is not mounted.
const LOADED: &str = "sys/kernel/security/apparmor/profiles";

/// AppArmor on this host.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Confinement {
    /// The kernel has none, or it is switched off.
    #[default]
    Absent,
    /// With the name of Berth's own profile where it could be loaded.
    Enabled(Option<&'static str>),
}

/// The profile's name; `None` leaves the processes as confined as the daemon is, which mostly is not at all.
pub(crate) fn profile(security: &Security, host: &Host) -> Result<Option<String>, Error> {
    match (&security.apparmor, &host.apparmor) {
        (Apparmor::Localhost(name), Confinement::Absent) => Err(Error::Unsupported {
            field: "apparmor profile",
            value: name.clone(),
            reason: "this host has no AppArmor".to_owned(),
        }),
        (Apparmor::Localhost(name), _) => Ok(Some(name.clone())),
        (Apparmor::RuntimeDefault, Confinement::Enabled(own)) if !security.privileged => {
            Ok(own.map(str::to_owned))
        }
        _ => Ok(None),
    }
}

/// Refuses a profile that the kernel under `root`, which is `/` but in tests, does not know.
pub fn check(security: &Security, root: &Path) -> Result<(), Error> {
    let Apparmor::Localhost(name) = &security.apparmor else { return Ok(()) };
    let Ok(loaded) = fs::read_to_string(root.join(LOADED)) else { return Ok(()) };
    let known = loaded.lines().any(|line| line.rsplit_once(" (").is_some_and(|(known, _)| known == name));
    match known {
        true => Ok(()),
        false => Err(Error::invalid("apparmor profile", name, "is not loaded on this host")),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn asking(apparmor: Apparmor, privileged: bool) -> Security {
        Security { apparmor, privileged, ..Default::default() }
    }

    fn host(apparmor: Confinement) -> Host {
        Host { apparmor, ..Default::default() }
    }

    #[test]
    fn the_profile_follows_from_what_is_asked_and_what_the_host_has() {
        use Apparmor::{Localhost, RuntimeDefault, Unconfined};
        let own = || Confinement::Enabled(Some("berth-default"));
        let mine = || Localhost("mine".to_owned());
        for (apparmor, privileged, confinement, expected) in [
            (RuntimeDefault, false, Confinement::Absent, None),
            (Unconfined, false, Confinement::Absent, None),
            (RuntimeDefault, false, own(), Some("berth-default")),
            (RuntimeDefault, false, Confinement::Enabled(None), None),
            (RuntimeDefault, true, own(), None),
            (Unconfined, false, own(), None),
            (mine(), false, own(), Some("mine")),
            (mine(), true, Confinement::Enabled(None), Some("mine")),
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
        let named = |name: &str| asking(Apparmor::Localhost(name.to_owned()), false);
        assert_eq!(check(&named("anything"), root.path()), Ok(()));
        let file = root.path().join(LOADED);
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(file, "docker-default (enforce)\nmine (complain)\n/usr/bin/man (enforce)\n").unwrap();
        for name in ["mine", "/usr/bin/man"] {
            assert_eq!(check(&named(name), root.path()), Ok(()));
        }
        for name in ["min", "mine (complain)", "other"] {
            let expected = Error::invalid("apparmor profile", name, "is not loaded on this host");
            assert_eq!(check(&named(name), root.path()), Err(expected));
        }
        assert_eq!(check(&asking(Apparmor::Unconfined, false), root.path()), Ok(()));
    }
}
