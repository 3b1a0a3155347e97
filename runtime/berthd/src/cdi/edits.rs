//! Changes to a container's OCI specification.

use std::path::Path;

use oci_spec::runtime::{
    Hook, Hooks, Linux, LinuxDevice, LinuxDeviceCgroup, LinuxDeviceType, LinuxNamespaceType, Mount, Process,
    Spec,
};

use super::file;

/// The changes of all requested devices, with nothing left to look up.
#[derive(Debug, Default)]
pub struct Edits {
    pub(super) env: Vec<String>,
    pub(super) nodes: Vec<Node>,
    pub(super) mounts: Vec<file::Mount>,
    pub(super) hooks: Vec<file::Hook>,
    pub(super) additional_gids: Vec<u32>,
}

/// A device node to create, and the access to it: some of `r`, `w` and `m`.
#[derive(Debug)]
pub(super) struct Node {
    pub(super) node: LinuxDevice,
    pub(super) access: String,
}

impl Edits {
    /// Applies the changes. An added variable, node or mount replaces one of the same name or path.
    pub fn apply(self, spec: &mut Spec) {
        let (mut process, mut linux) =
            (spec.process().clone().unwrap_or_default(), spec.linux().clone().unwrap_or_default());
        let mut mounts = spec.mounts().clone().unwrap_or_default();
        let maps_users = maps_users(&linux);
        for node in self.nodes {
            add_node(node, &process, &mut linux);
        }
        add_variables(self.env, &mut process);
        add_groups(&self.additional_gids, &mut process);
        for mount in self.mounts {
            mounts.retain(|one| one.destination() != Path::new(&mount.container_path));
            mounts.push(mount.into_oci(maps_users));
        }
        // Outer destinations before inner ones, so that no mount hides another.
        mounts.sort_by_key(|mount| mount.destination().components().count());
        spec.set_process(Some(process)).set_linux(Some(linux)).set_mounts(Some(mounts));
        if !self.hooks.is_empty() {
            let mut hooks = spec.hooks().clone().unwrap_or_default();
            self.hooks.into_iter().for_each(|hook| add_hook(hook, &mut hooks));
            spec.set_hooks(Some(hooks));
        }
    }
}

fn maps_users(linux: &Linux) -> bool {
    let namespaces = linux.namespaces().iter().flatten();
    namespaces.into_iter().any(|namespace| namespace.typ() == LinuxNamespaceType::User)
}

/// Adds a node, with a rule that allows its use. Without an owner it belongs to the container's user.
fn add_node(Node { mut node, access }: Node, process: &Process, linux: &mut Linux) {
    let user = process.user();
    let (uid, gid) = (Some(user.uid()), Some(user.gid()));
    node.set_uid(node.uid().or(uid.filter(|uid| *uid != 0)));
    node.set_gid(node.gid().or(gid.filter(|gid| *gid != 0)));
    // A rule without access would allow all access.
    if matches!(node.typ(), LinuxDeviceType::B | LinuxDeviceType::C) && !access.is_empty() {
        let mut rule = LinuxDeviceCgroup::default();
        rule.set_allow(true)
            .set_typ(Some(node.typ()))
            .set_major(Some(node.major()))
            .set_minor(Some(node.minor()))
            .set_access(Some(access));
        let mut resources = linux.resources().clone().unwrap_or_default();
        let rules = resources.devices().iter().flatten().cloned().chain([rule]).collect();
        resources.set_devices(Some(rules));
        linux.set_resources(Some(resources));
    }
    let mut nodes = linux.devices().clone().unwrap_or_default();
    nodes.retain(|one| one.path() != node.path());
    nodes.push(node);
    linux.set_devices(Some(nodes));
}

fn add_variables(variables: Vec<String>, process: &mut Process) {
    let mut env = process.env().clone().unwrap_or_default();
    let name = |variable: &str| variable.split('=').next().unwrap_or_default().to_owned();
    for variable in variables {
        env.retain(|one| name(one) != name(&variable));
        env.push(variable);
    }
    process.set_env(Some(env));
}

/// Adds supplementary groups, except 0: membership in root's group is for the container itself to ask for.
fn add_groups(gids: &[u32], process: &mut Process) {
    let mut user = process.user().clone();
    let mut groups = user.additional_gids().clone().unwrap_or_default();
    for gid in gids.iter().filter(|gid| **gid != 0) {
        if !groups.contains(gid) {
            groups.push(*gid);
        }
    }
    user.set_additional_gids(Some(groups));
    process.set_user(user);
}

impl file::Mount {
    pub(super) fn is_bind(&self) -> bool {
        matches!(self.kind.as_str(), "" | "bind")
            || self.options.iter().any(|one| one == "bind" || one == "rbind")
    }

    fn into_oci(self, maps_users: bool) -> Mount {
        let bind = self.is_bind();
        let mut options = self.options;
        if bind && maps_users && !options.iter().any(|one| one == "idmap" || one == "ridmap") {
            options.push("idmap".to_owned());
        }
        let mut mount = Mount::default();
        mount
            .set_typ(Some(if self.kind.is_empty() { "bind".to_owned() } else { self.kind }))
            .set_source(Some(self.host_path.into()))
            .set_destination(self.container_path.into())
            .set_options(Some(options));
        mount
    }
}

#[allow(deprecated)] // prestart, which vendors still write
fn add_hook(described: file::Hook, hooks: &mut Hooks) {
    let mut hook = Hook::default();
    hook.set_path(described.path.into())
        .set_args((!described.args.is_empty()).then_some(described.args))
        .set_env((!described.env.is_empty()).then_some(described.env))
        .set_timeout(described.timeout);
    let list = match described.hook_name.as_str() {
        "prestart" => hooks.prestart_mut(),
        "createRuntime" => hooks.create_runtime_mut(),
        "createContainer" => hooks.create_container_mut(),
        "startContainer" => hooks.start_container_mut(),
        "poststart" => hooks.poststart_mut(),
        _ => hooks.poststop_mut(),
    };
    list.get_or_insert_default().push(hook);
}

#[cfg(test)]
#[path = "edits_tests.rs"]
mod tests;
