//! Finds what a container runtime can leave on a host, without asking the runtime.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use rusqlite::{Connection, OpenFlags};

/// Where the daemon under test keeps things on the host.
#[derive(Clone, Debug)]
pub(crate) struct HostState {
    /// Directory of its root, state and everything else. The last component is also the name of its cgroup.
    pub(crate) directory: PathBuf,
    pub(crate) bridge: String,
}

/// Directories below the daemon's directory whose entries are reported.
const DIRECTORIES: [&str; 8] = [
    "netns",
    "root/containers",
    "root/images/layers",
    "root/images/staging",
    "root/images/trash",
    "run/containers",
    "run/sandboxes",
    "run/s",
];
/// Tables whose rows are reported: database, table, key column.
const TABLES: [(&str, &str, &str); 6] = [
    ("root/state.db", "pod", "id"),
    ("root/state.db", "container", "id"),
    ("root/images/index.db", "images", "id"),
    ("root/images/index.db", "names", "name"),
    ("root/images/index.db", "layers", "key"),
    ("root/images/index.db", "leases", "holder"),
];

impl HostState {
    /// Everything found, one line each.
    pub(crate) fn everything(&self) -> BTreeSet<String> {
        let mut found = BTreeSet::new();
        found.extend(self.processes().map(|(pid, line)| format!("process {pid} {line}")));
        found.extend(self.mounts());
        found.extend(self.cgroups());
        found.extend(self.network());
        for directory in DIRECTORIES.map(|name| self.directory.join(name)) {
            found.extend(entries(&directory).into_iter().map(|path| format!("file {}", path.display())));
        }
        for (file, table, key) in TABLES {
            found.extend(rows(&self.directory.join(file), table, key));
        }
        found
    }

    /// Pids of shims, their stages and their command-line calls: our directory and `-bundle` are among their arguments.
    pub(crate) fn shims(&self) -> BTreeSet<i32> {
        self.processes().map(|(pid, _)| pid).collect()
    }

    fn processes(&self) -> impl Iterator<Item = (i32, String)> {
        let ours = self.directory.display().to_string();
        processes().filter(move |(_, line)| line.contains(&ours) && line.contains("-bundle"))
    }

    fn mounts(&self) -> Vec<String> {
        let table = fs::read_to_string("/proc/self/mountinfo").unwrap();
        let points = table.lines().filter_map(|line| line.split(' ').nth(4));
        let ours = |point: &&str| Path::new(point).starts_with(&self.directory);
        points.filter(ours).map(|point| format!("mount {point}")).collect()
    }

    /// Cgroups in each hierarchy, with or without processes.
    fn cgroups(&self) -> Vec<String> {
        let name = self.directory.file_name().unwrap();
        let hierarchies =
            entries(Path::new("/sys/fs/cgroup")).into_iter().map(|hierarchy| hierarchy.join(name));
        let mut groups = Vec::new();
        for own in hierarchies.chain([Path::new("/sys/fs/cgroup").join(name)]) {
            descend(&own, &mut groups);
        }
        groups.into_iter().map(|group| format!("cgroup {}", group.display())).collect()
    }

    /// Interfaces on the bridge, leases and published ports.
    fn network(&self) -> Vec<String> {
        let leases = self.directory.join("root/network").join(&self.bridge);
        let interfaces = entries(&Path::new("/sys/class/net").join(&self.bridge).join("brif"));
        let held = entries(&leases).into_iter().chain(entries(&leases.join("leaving")));
        let held = held.filter(|path| path.extension().is_some_and(|kind| kind == "json"));
        let lines = interfaces.into_iter().chain(held).map(|path| format!("network {}", path.display()));
        let rules = Command::new("nft").args(["-s", "list", "ruleset"]).output().expect("run nft");
        let rules = String::from_utf8_lossy(&rules.stdout).into_owned();
        let ours = rules.split("\ntable ").find(|table| table.contains(&self.bridge)).unwrap_or_default();
        let ports = ours.lines().filter(|line| line.contains("elements") || line.contains(" : "));
        lines.chain(ports.map(|line| format!("rule {}", line.trim()))).collect()
    }
}

/// Every process with its command line.
pub(crate) fn processes() -> impl Iterator<Item = (i32, String)> {
    let pids =
        entries(Path::new("/proc")).into_iter().filter_map(|path| path.file_name()?.to_str()?.parse().ok());
    pids.filter_map(|pid: i32| {
        let line = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
        Some((pid, String::from_utf8_lossy(&line).replace('\0', " ")))
    })
}

fn entries(directory: &Path) -> Vec<PathBuf> {
    fs::read_dir(directory)
        .map_or_else(|_| Vec::new(), |all| all.flatten().map(|entry| entry.path()).collect())
}

fn descend(group: &Path, into: &mut Vec<PathBuf>) {
    for below in entries(group).into_iter().filter(|path| path.is_dir()) {
        descend(&below, into);
        into.push(below);
    }
}

fn rows(file: &Path, table: &str, key: &str) -> Vec<String> {
    let read = || -> rusqlite::Result<Vec<String>> {
        let database = Connection::open_with_flags(file, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
        database.busy_timeout(std::time::Duration::from_secs(5))?;
        let mut rows = database.prepare(&format!("SELECT {key} FROM {table}"))?;
        rows.query_map([], |row| row.get(0))?.collect()
    };
    match read() {
        Ok(rows) => rows.into_iter().map(|row| format!("row of {table} {row}")).collect(),
        Err(error) => vec![format!("{table} of {} cannot be read: {error}", file.display())],
    }
}
