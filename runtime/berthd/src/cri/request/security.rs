//! Security context of a container.

use std::path::PathBuf;

use berth_cri::v1::{self, SupplementalGroupsPolicy, security_profile::ProfileType};

use super::{
    field::{absolute, check, each, id, invalid, known, name},
    namespace,
};
use crate::{
    container::config::{Apparmor, Seccomp, Security, Selinux, UserName},
    error::Result,
    pod::config::PodConfig,
};

/// Converts the security context of a container in `pod`.
pub(super) fn security(
    at: &str,
    context: v1::LinuxContainerSecurityContext,
    pod: &PodConfig,
) -> Result<Security> {
    let (user, group) = process(at, &context)?;
    #[allow(deprecated)]
    let (seccomp_path, apparmor_profile) = (context.seccomp_profile_path, context.apparmor_profile);
    let capabilities = context.capabilities.unwrap_or_default();
    let policy: SupplementalGroupsPolicy =
        known(&format!("{at}.supplemental_groups_policy"), context.supplemental_groups_policy)?;
    let capability_set = |which: &str, names| each(&format!("{at}.capabilities.{which}"), names, capability);
    Ok(Security {
        privileged: context.privileged,
        pid: namespace::of_container(
            &format!("{at}.namespace_options"),
            context.namespace_options,
            &pod.namespaces,
        )?,
        add_capabilities: capability_set("add_capabilities", capabilities.add_capabilities)?,
        drop_capabilities: capability_set("drop_capabilities", capabilities.drop_capabilities)?,
        add_ambient_capabilities: capability_set(
            "add_ambient_capabilities",
            capabilities.add_ambient_capabilities,
        )?,
        user,
        group,
        supplemental_groups: each(&format!("{at}.supplemental_groups"), context.supplemental_groups, id)?,
        strict_groups: policy == SupplementalGroupsPolicy::Strict,
        readonly_rootfs: context.readonly_rootfs,
        no_new_privs: context.no_new_privs,
        masked_paths: each(&format!("{at}.masked_paths"), context.masked_paths, absolute)?,
        readonly_paths: each(&format!("{at}.readonly_paths"), context.readonly_paths, absolute)?,
        seccomp: seccomp(at, context.seccomp, seccomp_path)?,
        apparmor: apparmor(at, context.apparmor, apparmor_profile)?,
        selinux: selinux(at, context.selinux_options)?,
    })
}

/// Returns the user, by number or name, and the group, which is valid only with a user.
fn process(at: &str, context: &v1::LinuxContainerSecurityContext) -> Result<(Option<UserName>, Option<u32>)> {
    let by_name = &context.run_as_username;
    let user = match context.run_as_user {
        Some(_) if !by_name.is_empty() => {
            return Err(invalid(&format!("{at}.run_as_username"), by_name, "run_as_user is set too"));
        }
        Some(user) => Some(UserName::Id(id(&format!("{at}.run_as_user"), user.value)?)),
        None if by_name.is_empty() => None,
        None => Some(UserName::Name(name(&format!("{at}.run_as_username"), by_name.clone())?)),
    };
    let field = format!("{at}.run_as_group");
    let group = context.run_as_group.map(|group| id(&field, group.value)).transpose()?;
    check(
        group.is_none() || user.is_some(),
        &field,
        group.unwrap_or_default(),
        "needs run_as_user or run_as_username",
    )?;
    Ok((user, group))
}

/// Returns a capability's name in upper case, without `CAP_`.
fn capability(field: &str, capability: String) -> Result<String> {
    let upper = capability.to_ascii_uppercase();
    let bare = upper.strip_prefix("CAP_").unwrap_or(&upper);
    let plausible = !bare.is_empty() && bare.bytes().all(|byte| byte.is_ascii_uppercase() || byte == b'_');
    check(plausible, field, &capability, "is no name of a capability")?;
    Ok(bare.to_owned())
}

/// Returns the profile: from `profile`, or from `path`, the deprecated field.
pub(super) fn seccomp(at: &str, profile: Option<v1::SecurityProfile>, path: String) -> Result<Seccomp> {
    let Some(profile) = profile else { return former_seccomp(&format!("{at}.seccomp_profile_path"), path) };
    let field = format!("{at}.seccomp");
    match known(&format!("{field}.profile_type"), profile.profile_type)? {
        ProfileType::RuntimeDefault => Ok(Seccomp::RuntimeDefault),
        ProfileType::Unconfined => Ok(Seccomp::Unconfined),
        ProfileType::Localhost => {
            let path = absolute(&format!("{field}.localhost_ref"), profile.localhost_ref)?;
            Ok(Seccomp::Localhost(PathBuf::from(path)))
        }
    }
}

fn former_seccomp(field: &str, path: String) -> Result<Seccomp> {
    match path.as_str() {
        "" | "unconfined" => Ok(Seccomp::Unconfined),
        "runtime/default" | "docker/default" => Ok(Seccomp::RuntimeDefault),
        _ => match path.strip_prefix("localhost/") {
            Some(profile) => Ok(Seccomp::Localhost(absolute(field, profile.to_owned())?.into())),
            None => Err(invalid(field, path, "must be runtime/default, unconfined or localhost/<path>")),
        },
    }
}

/// Returns the profile: from `profile`, or from `former`, the deprecated field.
pub(super) fn apparmor(at: &str, profile: Option<v1::SecurityProfile>, former: String) -> Result<Apparmor> {
    let Some(profile) = profile else { return former_apparmor(&format!("{at}.apparmor_profile"), former) };
    let field = format!("{at}.apparmor");
    match known(&format!("{field}.profile_type"), profile.profile_type)? {
        ProfileType::RuntimeDefault => Ok(Apparmor::RuntimeDefault),
        ProfileType::Unconfined => Ok(Apparmor::Unconfined),
        ProfileType::Localhost => {
            let profile = profile.localhost_ref;
            let bare = profile.strip_prefix("localhost/").map(str::to_owned).unwrap_or(profile);
            Ok(Apparmor::Localhost(name(&format!("{field}.localhost_ref"), bare)?))
        }
    }
}

fn former_apparmor(field: &str, profile: String) -> Result<Apparmor> {
    match profile.as_str() {
        "" | "runtime/default" => Ok(Apparmor::RuntimeDefault),
        "unconfined" => Ok(Apparmor::Unconfined),
        _ => match profile.strip_prefix("localhost/") {
            Some(bare) => Ok(Apparmor::Localhost(name(field, bare.to_owned())?)),
            None => Err(invalid(field, profile, "must be runtime/default, unconfined or localhost/<name>")),
        },
    }
}

/// Returns the label; parts that are left out get the usual values for containers.
fn selinux(at: &str, options: Option<v1::SeLinuxOption>) -> Result<Option<Selinux>> {
    let Some(options) = options else { return Ok(None) };
    let part = |which: &str, given: String, usual: &str, also: &str| {
        let field = format!("{at}.selinux_options.{which}");
        let given = if given.is_empty() { usual.to_owned() } else { given };
        let plausible =
            given.bytes().all(|byte| byte.is_ascii_alphanumeric() || also.as_bytes().contains(&byte));
        check(plausible, &field, given, "holds what is in no label")
    };
    Ok(Some(Selinux {
        user: part("user", options.user, "system_u", "_.-")?,
        role: part("role", options.role, "system_r", "_.-")?,
        kind: part("type", options.r#type, "container_t", "_.-")?,
        level: part("level", options.level, "s0", ":,.-")?,
    }))
}
