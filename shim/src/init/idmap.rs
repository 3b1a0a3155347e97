//! Id mappings: host ids that stand for those inside a user namespace, or in an idmapped mount.

use super::{Error, Step};
use crate::spec::{IdMapping, User};

/// Mappings of a user namespace, or of an idmapped mount.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct IdMappings {
    /// Of users.
    pub uids: Vec<IdMapping>,
    /// Of groups.
    pub gids: Vec<IdMapping>,
}

impl IdMappings {
    /// Whether nothing is mapped.
    pub fn is_empty(&self) -> bool {
        self.uids.is_empty() && self.gids.is_empty()
    }

    /// Parses `uidmap=` and `gidmap=` as containerd writes them: `inside:host:length`, comma-separated.
    pub(super) fn parse(uids: &str, gids: &str) -> Result<Self, Error> {
        Ok(Self { uids: parse(uids)?, gids: parse(gids)? })
    }

    /// The host uid that `uid` is mapped to.
    pub(super) fn host_uid(&self, uid: u32) -> Result<u32, Error> {
        find(&self.uids, uid).ok_or_else(|| unmapped("uid", uid))
    }

    /// The host gid that `gid` is mapped to.
    pub(super) fn host_gid(&self, gid: u32) -> Result<u32, Error> {
        find(&self.gids, gid).ok_or_else(|| unmapped("gid", gid))
    }

    /// Fails if the user or one of its groups is not mapped.
    pub(super) fn check(&self, user: &User) -> Result<(), Error> {
        self.host_uid(user.uid)?;
        [user.gid].iter().chain(&user.additional_gids).try_for_each(|gid| self.host_gid(*gid).map(drop))
    }
}

fn unmapped(kind: &str, id: u32) -> Error {
    Error::invalid(Step::User, format!("{kind} {id} is not mapped into the user namespace"))
}

fn find(ranges: &[IdMapping], id: u32) -> Option<u32> {
    ranges.iter().find_map(|range| {
        let offset = id.checked_sub(range.container_id).filter(|offset| *offset < range.size)?;
        range.host_id.checked_add(offset)
    })
}

fn parse(ranges: &str) -> Result<Vec<IdMapping>, Error> {
    let one = |range: &str| {
        let numbers: Vec<u32> = range.split(':').map_while(|number| number.parse().ok()).collect();
        match *numbers {
            [container_id, host_id, size] if range.split(':').count() == 3 => {
                Ok(IdMapping { container_id, host_id, size })
            }
            _ => Err(Error::invalid(Step::Rootfs, format!("mapping {range:?} is not INSIDE:HOST:LENGTH"))),
        }
    };
    ranges.split(',').map(one).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn ids_are_found_in_whichever_range_holds_them() {
        let mappings = IdMappings::parse("0:1000:10,20:5000:1", "0:7:1").unwrap();
        assert_eq!(mappings.host_uid(0).unwrap(), 1000);
        assert_eq!(mappings.host_uid(9).unwrap(), 1009);
        assert_eq!(mappings.host_uid(20).unwrap(), 5000);
        for uid in [10, 19, 21, u32::MAX] {
            let error = mappings.host_uid(uid).unwrap_err().to_string();
            assert_eq!(error, format!("user: uid {uid} is not mapped into the user namespace"));
        }
    }

    #[test]
    fn a_user_needs_all_of_his_ids() {
        let mappings = IdMappings::parse("0:1000:10", "0:1000:10").unwrap();
        let user = |uid, gid, more| User { uid, gid, umask: None, additional_gids: vec![more] };
        assert!(mappings.check(&user(9, 9, 9)).is_ok());
        for wrong in [user(10, 9, 9), user(9, 10, 9), user(9, 9, 10)] {
            assert!(mappings.check(&wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn what_is_not_three_numbers_is_refused() {
        for text in ["", "0", "0:1", "0:1:2:3", "0:1:x", "0:-1:2", "0:1:2,", "0:1:4294967296"] {
            assert!(IdMappings::parse(text, "0:0:1").is_err(), "{text}");
        }
    }
}
