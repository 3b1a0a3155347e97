//! The first process of a container.

use oci_spec::runtime::{Process, User};

use super::{
    Error, ImageDefaults, Inputs, apparmor, capabilities, environment, error::without_nul, resources,
    selinux, user::ResolvedUser,
};
use crate::container::config::ContainerConfig;

pub(crate) fn build(inputs: &Inputs<'_>) -> Result<Process, Error> {
    let container = inputs.container;
    let rlimits = &inputs.defaults.rlimits;
    let mut process = Process::default();
    process
        .set_terminal(Some(container.tty))
        .set_args(Some(args(container, inputs.image)?))
        .set_env(Some(environment::build(inputs, &inputs.user.home)?))
        .set_cwd(working_dir(container, inputs.image)?.into())
        .set_capabilities(Some(capabilities::build(&container.security, &inputs.host.capabilities)?))
        .set_apparmor_profile(apparmor::profile(&container.security, inputs.host)?)
        .set_selinux_label(selinux::process_label(container.security.selinux.as_ref(), inputs.host))
        .set_no_new_privileges(Some(container.security.no_new_privs))
        .set_oom_score_adj(resources::oom_score_adj(&container.resources, inputs.host)?)
        .set_rlimits((!rlimits.is_empty()).then(|| rlimits.clone()))
        .set_user(credentials(inputs.user));
    Ok(process)
}

fn credentials(resolved: &ResolvedUser) -> User {
    let mut user = User::default();
    user.set_uid(resolved.uid)
        .set_gid(resolved.gid)
        .set_additional_gids(Some(resolved.additional_gids.clone()));
    user
}

/// Returns the arguments. A command replaces the image's entrypoint and drops its arguments; arguments alone replace
/// the image's.
fn args(container: &ContainerConfig, image: &ImageDefaults) -> Result<Vec<String>, Error> {
    let words: Vec<String> = match (container.command.as_slice(), container.args.as_slice()) {
        ([], []) => [entrypoint(image), &image.cmd].concat(),
        ([], args) => [entrypoint(image), args].concat(),
        (command, args) => [command, args].concat(),
    };
    if words.first().is_none_or(String::is_empty) {
        return Err(Error::NoCommand);
    }
    words.iter().try_for_each(|word| without_nul("command", word))?;
    Ok(words)
}

/// A Dockerfile resets the entrypoint of its base image with `ENTRYPOINT [""]`.
fn entrypoint(image: &ImageDefaults) -> &[String] {
    match image.entrypoint.as_slice() {
        [only] if only.is_empty() => &[],
        words => words,
    }
}

fn working_dir(container: &ContainerConfig, image: &ImageDefaults) -> Result<String, Error> {
    let asked = [&container.working_dir, &image.working_dir].into_iter().find(|path| !path.is_empty());
    let path = asked.map_or("/", String::as_str);
    without_nul("working_dir", path)?;
    match path.starts_with('/') {
        true => Ok(path.to_owned()),
        false if container.working_dir.is_empty() => Ok(format!("/{path}")),
        false => Err(Error::invalid("working_dir", path, "is not an absolute path")),
    }
}

#[cfg(test)]
mod tests;
