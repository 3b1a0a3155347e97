//! Mount options as mount(8) and the OCI specification spell them, sorted by the kernel interface that takes them.

use super::{Error, Step};
use crate::sys::MountAttributes;
use rustix::mount::MountAttrFlags as Attr;

/// The options of one mount.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Options {
    /// Whether `bind` (false) or `rbind` (true, with all mounts below) was given.
    pub(super) bind: Option<bool>,
    /// Whether `idmap` (false) or `ridmap` (true, with all mounts below) was given.
    pub(super) idmap: Option<bool>,
    /// Attributes of the mount itself.
    pub(super) attributes: MountAttributes,
    /// Attributes of the mount and all mounts below it: the forms with a leading `r`, such as `rro`.
    pub(super) recursive: MountAttributes,
    /// `MS_*` propagation, and whether it applies to all mounts below.
    pub(super) propagation: Option<(u64, bool)>,
    /// Parameters of the file system: name, and value if there is one.
    pub(super) parameters: Vec<(String, Option<String>)>,
}

/// Name, attribute bits, and whether the bits are set or cleared.
const FLAGS: &[(&str, Attr, bool)] = &[
    ("ro", Attr::MOUNT_ATTR_RDONLY, true),
    ("rw", Attr::MOUNT_ATTR_RDONLY, false),
    ("nosuid", Attr::MOUNT_ATTR_NOSUID, true),
    ("suid", Attr::MOUNT_ATTR_NOSUID, false),
    ("nodev", Attr::MOUNT_ATTR_NODEV, true),
    ("dev", Attr::MOUNT_ATTR_NODEV, false),
    ("noexec", Attr::MOUNT_ATTR_NOEXEC, true),
    ("exec", Attr::MOUNT_ATTR_NOEXEC, false),
    ("nodiratime", Attr::MOUNT_ATTR_NODIRATIME, true),
    ("diratime", Attr::MOUNT_ATTR_NODIRATIME, false),
    ("nosymfollow", Attr::MOUNT_ATTR_NOSYMFOLLOW, true),
    ("symfollow", Attr::MOUNT_ATTR_NOSYMFOLLOW, false),
];

/// Access times share one field, which has one value at a time.
const ACCESS_TIMES: &[(&str, Attr)] = &[
    ("relatime", Attr::MOUNT_ATTR_RELATIME),
    ("norelatime", Attr::MOUNT_ATTR_STRICTATIME),
    ("atime", Attr::MOUNT_ATTR_RELATIME),
    ("noatime", Attr::MOUNT_ATTR_NOATIME),
    ("strictatime", Attr::MOUNT_ATTR_STRICTATIME),
    ("nostrictatime", Attr::MOUNT_ATTR_RELATIME),
];

const PROPAGATIONS: &[(&str, u64, bool)] = &[
    ("private", libc::MS_PRIVATE, false),
    ("rprivate", libc::MS_PRIVATE, true),
    ("slave", libc::MS_SLAVE, false),
    ("rslave", libc::MS_SLAVE, true),
    ("shared", libc::MS_SHARED, false),
    ("rshared", libc::MS_SHARED, true),
    ("unbindable", libc::MS_UNBINDABLE, false),
    ("runbindable", libc::MS_UNBINDABLE, true),
];

/// Options of mount(8) without a meaning for the kernel, or handled by the caller.
const IGNORED: &[&str] = &["", "defaults", "auto", "noauto", "nofail", "async", "user", "nouser", "_netdev"];

/// Extensions of single runtimes: an error is better than a mount that differs from what was asked.
const UNSUPPORTED: &[&str] = &["tmpcopyup", "copy-symlink"];

/// Every option that means the same for all file systems.
pub fn mount_options() -> Vec<String> {
    let attributes = FLAGS.iter().map(|(name, ..)| *name).chain(ACCESS_TIMES.iter().map(|(name, _)| *name));
    let below = attributes.clone().map(|name| format!("r{name}"));
    let others = PROPAGATIONS.iter().map(|(name, ..)| *name).chain(["bind", "rbind", "idmap", "ridmap"]);
    attributes.chain(others).map(str::to_owned).chain(below).collect()
}

impl Options {
    /// Sorts `options`. An unknown option becomes a parameter of the file system.
    pub(super) fn parse<S: AsRef<str>>(options: &[S]) -> Result<Self, Error> {
        let mut parsed = Self::default();
        for option in options {
            parsed.add(option.as_ref())?;
        }
        Ok(parsed)
    }

    fn add(&mut self, option: &str) -> Result<(), Error> {
        if let Some(found) = propagation(option) {
            self.propagation = Some(found);
        } else if let "bind" | "rbind" = option {
            self.bind = Some(option == "rbind");
        } else if let "idmap" | "ridmap" = option {
            self.idmap = Some(option == "ridmap");
        } else if UNSUPPORTED.contains(&option) {
            return Err(Error::Unsupported(format!("{}: mount option {option:?} is", Step::Mount)));
        } else if !self.attribute(option) && !IGNORED.contains(&option) {
            self.parameters.push(match option.split_once('=') {
                // An SELinux label may contain commas and is then quoted, as for mount(8).
                Some((name, value)) if name.ends_with("context") => {
                    (name.into(), Some(value.trim_matches('"').into()))
                }
                Some((name, value)) => (name.into(), Some(value.into())),
                None => (option.into(), None),
            });
        }
        Ok(())
    }

    /// Parses an attribute, with a leading `r` a recursive one. False when `option` is none.
    fn attribute(&mut self, option: &str) -> bool {
        set_attribute(&mut self.attributes, option)
            || option.strip_prefix('r').is_some_and(|option| set_attribute(&mut self.recursive, option))
    }

    /// The value of a parameter.
    pub(super) fn parameter(&self, name: &str) -> Option<&str> {
        let found = self.parameters.iter().rev().find(|(have, _)| have == name)?;
        found.1.as_deref()
    }
}

/// `MS_*` and recursion of a propagation's name.
pub(super) fn propagation(name: &str) -> Option<(u64, bool)> {
    let found = PROPAGATIONS.iter().find(|(have, ..)| *have == name)?;
    Some((found.1, found.2))
}

fn set_attribute(attributes: &mut MountAttributes, option: &str) -> bool {
    if let Some((_, bit, set)) = FLAGS.iter().find(|(name, ..)| *name == option) {
        let bit = u64::from(bit.bits());
        let (to, from) = if *set {
            (&mut attributes.set, &mut attributes.clear)
        } else {
            (&mut attributes.clear, &mut attributes.set)
        };
        *to |= bit;
        *from &= !bit;
        return true;
    }
    let Some((_, time)) = ACCESS_TIMES.iter().find(|(name, _)| *name == option) else {
        return false;
    };
    let field = u64::from(Attr::MOUNT_ATTR__ATIME.bits());
    attributes.clear |= field;
    attributes.set = (attributes.set & !field) | u64::from(time.bits());
    true
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn bits(attribute: Attr) -> u64 {
        u64::from(attribute.bits())
    }

    #[test]
    fn attributes_propagation_and_parameters_are_told_apart() {
        let options =
            Options::parse(&["rbind", "ro", "nosuid", "rslave", "size=64k", "newinstance", "defaults"])
                .unwrap();
        assert_eq!(options.bind, Some(true));
        assert_eq!(options.attributes.set, bits(Attr::MOUNT_ATTR_RDONLY | Attr::MOUNT_ATTR_NOSUID));
        assert_eq!(options.propagation, Some((libc::MS_SLAVE, true)));
        assert_eq!(options.parameter("size"), Some("64k"));
        assert_eq!(options.parameters[1], ("newinstance".to_owned(), None));
    }

    #[test]
    fn the_quotes_of_a_label_are_not_part_of_it() {
        let options = Options::parse(&["context=\"u:r:t:s0:c1,c2\"", "size=\"1\""]).unwrap();
        assert_eq!(options.parameter("context"), Some("u:r:t:s0:c1,c2"));
        assert_eq!(options.parameter("size"), Some("\"1\""));
    }

    #[test]
    fn the_later_of_two_opposite_options_counts() {
        let options = Options::parse(&["ro", "rw", "noatime", "relatime"]).unwrap();
        assert_eq!(options.attributes.set, 0);
        assert_eq!(options.attributes.clear, bits(Attr::MOUNT_ATTR_RDONLY | Attr::MOUNT_ATTR__ATIME));
    }

    #[test]
    fn a_leading_r_means_everything_below_too_but_not_in_rw_and_relatime() {
        let options = Options::parse(&["rro", "rnoexec", "rw", "relatime"]).unwrap();
        assert_eq!(options.recursive.set, bits(Attr::MOUNT_ATTR_RDONLY | Attr::MOUNT_ATTR_NOEXEC));
        assert_eq!(options.recursive.clear, 0);
        assert!(options.parameters.is_empty());
    }

    #[test]
    fn what_is_said_to_be_understood_is() {
        let all = mount_options();
        assert!(Options::parse(&all).unwrap().parameters.is_empty(), "{all:?}");
        assert!(["ro", "rro", "rslave", "ridmap"].iter().all(|option| all.iter().any(|have| have == option)));
    }

    #[test]
    fn options_that_are_not_built_are_refused() {
        for option in ["tmpcopyup", "copy-symlink"] {
            assert!(matches!(Options::parse(&[option]), Err(Error::Unsupported(_))), "{option}");
        }
    }
}
