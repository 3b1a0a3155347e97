//! The user of a container's processes: resolves names to ids with the image's /etc/passwd and /etc/group.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::{Error, accounts::Accounts};
use crate::container::config::{Security, UserName};

/// Highest valid id: the one above means "no change" to the kernel.
const MAX_ID: i64 = u32::MAX as i64 - 1;

/// A user with numeric ids, and its home directory.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResolvedUser {
    /// User id.
    pub uid: u32,
    /// Primary group id.
    pub gid: u32,
    /// Ids of all groups, the primary one included, in ascending order.
    pub additional_gids: Vec<u32>,
    /// Home directory from /etc/passwd, or `/`.
    pub home: String,
}

/// Resolves the user that `security` asks for, else the image's, else root.
///
/// An unknown name is an error. An unknown number is not: it gets group 0 and no further groups, as in other runtimes.
/// The primary group is also among the additional ones, so that a file's permissions for "others" never apply to it.
pub fn resolve(security: &Security, image_user: &str, accounts: &Accounts) -> Result<ResolvedUser, Error> {
    let asked = RequestedUser::from(security, image_user)?;
    let (uid, account) = match asked.user {
        Id::Number(uid) => (uid, accounts.user_by_id(uid)),
        Id::Name(name) => {
            let account = accounts.user_by_name(&name).ok_or(Error::UnknownUser(name))?;
            (account.uid, Some(account))
        }
    };
    let gid = match asked.group {
        Some(Id::Number(gid)) => gid,
        Some(Id::Name(name)) => accounts.group_by_name(&name).ok_or(Error::UnknownGroup(name))?,
        None => account.map_or(0, |account| account.gid),
    };
    let home = account.map(|account| account.home.as_str()).filter(|home| home.starts_with('/'));
    let mut groups: BTreeSet<u32> = security.supplemental_groups.iter().copied().chain([gid]).collect();
    if let Some(account) = account.filter(|_| !security.strict_groups) {
        groups.extend(accounts.groups_of(&account.name));
    }
    let additional_gids = groups.into_iter().collect();
    Ok(ResolvedUser { uid, gid, additional_gids, home: home.unwrap_or("/").to_owned() })
}

/// A user or group as written: digits are an id, anything else is a name.
enum Id {
    Number(u32),
    Name(String),
}

impl Id {
    fn parse(text: &str, whole: &str) -> Result<Self, Error> {
        match text.parse::<i64>() {
            Ok(number @ 0..=MAX_ID) => Ok(Self::Number(number as u32)),
            Err(_) if !text.bytes().all(|byte| byte.is_ascii_digit()) => Ok(Self::Name(text.to_owned())),
            _ => Err(Error::invalid("user", whole, format!("{text} is out of range"))),
        }
    }
}

struct RequestedUser {
    user: Id,
    group: Option<Id>,
}

impl RequestedUser {
    fn from(security: &Security, image_user: &str) -> Result<Self, Error> {
        let user = match (&security.user, security.group) {
            (None, Some(group)) => return Err(Error::GroupWithoutUser(group)),
            (None, None) => return Self::parse(image_user),
            (Some(UserName::Id(uid)), _) => uid.to_string(),
            (Some(UserName::Name(name)), _) => name.clone(),
        };
        match security.group {
            Some(group) => Self::parse(&format!("{user}:{group}")),
            None => Self::parse(&user),
        }
    }

    /// Parses `user`, `user:group`, `:group` (user root) or an empty text (root).
    fn parse(text: &str) -> Result<Self, Error> {
        let (user, group) = text.split_once(':').unwrap_or((text, ""));
        if group.contains(':') {
            return Err(Error::invalid("user", text, "is not of the form user:group"));
        }
        let user = if user.is_empty() { Id::Number(0) } else { Id::parse(user, text)? };
        let group = (!group.is_empty()).then(|| Id::parse(group, text)).transpose()?;
        Ok(Self { user, group })
    }
}

#[cfg(test)]
mod tests;
