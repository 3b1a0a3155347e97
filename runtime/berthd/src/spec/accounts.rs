//! The users and groups of an image, from its /etc/passwd and /etc/group.

/// An entry of /etc/passwd.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct User {
    pub(crate) name: String,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) home: String,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Group {
    name: String,
    gid: u32,
    members: Vec<String>,
}

/// The users and groups of an image. Of duplicate entries the first counts, as in the C library.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Accounts {
    users: Vec<User>,
    groups: Vec<Group>,
}

impl Accounts {
    /// Parses both files; a missing file is empty. Malformed lines are skipped, never guessed at: a truncated line must
    /// not turn into root.
    pub fn parse(passwd: &[u8], group: &[u8]) -> Self {
        Self { users: entries(passwd, User::parse), groups: entries(group, Group::parse) }
    }

    pub(crate) fn user_by_name(&self, name: &str) -> Option<&User> {
        self.users.iter().find(|user| user.name == name)
    }

    pub(crate) fn user_by_id(&self, uid: u32) -> Option<&User> {
        self.users.iter().find(|user| user.uid == uid)
    }

    pub(crate) fn group_by_name(&self, name: &str) -> Option<u32> {
        self.groups.iter().find(|group| group.name == name).map(|group| group.gid)
    }

    /// Returns the groups that list `user` as a member.
    pub(crate) fn groups_of<'a>(&'a self, user: &'a str) -> impl Iterator<Item = u32> + 'a {
        let lists = move |group: &&Group| group.members.iter().any(|member| member == user);
        self.groups.iter().filter(lists).map(|group| group.gid)
    }
}

fn entries<T>(file: &[u8], parse: impl Fn(&[&str]) -> Option<T>) -> Vec<T> {
    let text = String::from_utf8_lossy(file);
    let fields = |line: &str| parse(&line.trim().split(':').collect::<Vec<_>>());
    text.lines().filter(|line| !line.trim_start().starts_with('#')).filter_map(fields).collect()
}

impl User {
    fn parse(fields: &[&str]) -> Option<Self> {
        let [name, _password, uid, gid, rest @ ..] = fields else { return None };
        let home = rest.get(1).copied().unwrap_or_default();
        (!name.is_empty()).then_some(())?;
        Some(Self {
            name: (*name).to_owned(),
            uid: uid.parse().ok()?,
            gid: gid.parse().ok()?,
            home: home.to_owned(),
        })
    }
}

impl Group {
    fn parse(fields: &[&str]) -> Option<Self> {
        let [name, _password, gid, rest @ ..] = fields else { return None };
        let members = rest.first().copied().unwrap_or_default();
        (!name.is_empty()).then_some(())?;
        let members = members.split(',').filter(|member| !member.is_empty()).map(str::to_owned).collect();
        Some(Self { name: (*name).to_owned(), gid: gid.parse().ok()?, members })
    }
}
