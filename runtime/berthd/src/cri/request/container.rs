//! CreateContainer.

use berth_cri::v1::{self, MountPropagation};

use super::{
    cdi,
    field::{
        absolute, absolute_or_empty, argument, check, each, image_name, invalid, known, name, required, text,
        unsupported,
    },
    namespace, resources, security,
};
use crate::{
    container::config::{ContainerConfig, ContainerMetadata, Device, ImageMount, Mount, Propagation},
    error::Result,
    pod::config::{PodConfig, Users},
};

/// Converts the request to the configuration of a container in `pod`.
pub(crate) fn create_container(
    request: v1::CreateContainerRequest,
    pod: &PodConfig,
) -> Result<ContainerConfig> {
    let config = required("config", request.config)?;
    if let Some(windows) = config.windows {
        return Err(unsupported("config.windows", windows));
    }
    let linux = config.linux.unwrap_or_default();
    let context = linux.security_context.unwrap_or_default();
    let image = required("config.image", config.image)?;
    let (mounts, image_mounts) = mounts(config.mounts)?;
    Ok(ContainerConfig {
        metadata: metadata(required("config.metadata", config.metadata)?)?,
        image: image_name("config.image.image", image.image)?,
        user_specified_image: text("config.image.user_specified_image", image.user_specified_image, 4096)?,
        command: each("config.command", config.command, argument)?,
        args: each("config.args", config.args, argument)?,
        working_dir: absolute_or_empty("config.working_dir", config.working_dir)?,
        env: each("config.envs", config.envs, variable)?,
        mounts,
        image_mounts,
        devices: each("config.devices", config.devices, device)?,
        cdi_devices: cdi::devices(config.cdi_devices, &config.annotations)?,
        labels: config.labels.into_iter().collect(),
        annotations: config.annotations.into_iter().collect(),
        log_path: log_path(config.log_path)?,
        stdin: config.stdin,
        stdin_once: config.stdin_once,
        tty: config.tty,
        stop_signal: stop_signal(config.stop_signal)?,
        resources: resources::of_new("config.linux.resources", linux.resources)?,
        security: security::security("config.linux.security_context", context, pod)?,
    })
}

fn metadata(metadata: v1::ContainerMetadata) -> Result<ContainerMetadata> {
    let name = name("config.metadata.name", metadata.name)?;
    Ok(ContainerMetadata { name, attempt: metadata.attempt })
}

fn variable(field: &str, variable: v1::KeyValue) -> Result<(String, Vec<u8>)> {
    let named = !variable.key.is_empty() && !variable.key.contains(['=', '\0']);
    let key = check(named, &format!("{field}.key"), variable.key, "must not be empty or hold = or NUL")?;
    if variable.value.contains(&0) {
        return Err(invalid(&format!("{field}.value"), key, "the value of this variable holds a NUL byte"));
    }
    Ok((key, variable.value))
}

/// Splits mounts into those of host paths and those of images.
fn mounts(asked: Vec<v1::Mount>) -> Result<(Vec<Mount>, Vec<ImageMount>)> {
    let (mut mounts, mut image_mounts) = (Vec::new(), Vec::new());
    for (index, mut asked) in asked.into_iter().enumerate() {
        let field = format!("config.mounts[{index}]");
        match asked.image.take().filter(|image| !image.image.is_empty()) {
            Some(image) => image_mounts.push(image_mount(&field, asked, image)?),
            None => mounts.push(mount(&field, asked)?),
        }
    }
    Ok((mounts, image_mounts))
}

fn mount(field: &str, mount: v1::Mount) -> Result<Mount> {
    let propagation = propagation(&format!("{field}.propagation"), mount.propagation)?;
    let recursive = mount.recursive_read_only;
    check_recursive(&format!("{field}.recursive_read_only"), recursive, mount.readonly, propagation)?;
    let options = each(&format!("{field}.mount_options"), mount.mount_options, mount_option)?;
    let has = |option: &str| options.iter().any(|given| given == option);
    Ok(Mount {
        container_path: absolute(&format!("{field}.container_path"), mount.container_path)?,
        host_path: absolute(&format!("{field}.host_path"), mount.host_path)?,
        readonly: mount.readonly,
        recursive_readonly: recursive,
        propagation,
        noexec: has("noexec"),
        nodev: has("nodev"),
        nosuid: has("nosuid"),
        owners: owners(field, mount.uid_mappings, mount.gid_mappings)?,
        selinux_relabel: mount.selinux_relabel,
    })
}

fn owners(field: &str, uids: Vec<v1::IdMapping>, gids: Vec<v1::IdMapping>) -> Result<Option<Users>> {
    if uids.is_empty() && gids.is_empty() {
        return Ok(None);
    }
    Ok(Some(Users {
        uids: namespace::range(&format!("{field}.uidMappings"), uids)?,
        gids: namespace::range(&format!("{field}.gidMappings"), gids)?,
    }))
}

fn image_mount(field: &str, mount: v1::Mount, image: v1::ImageSpec) -> Result<ImageMount> {
    check(mount.readonly, &format!("{field}.readonly"), mount.readonly, "must be set: images are read-only")?;
    let alone = mount.host_path.is_empty();
    check(alone, &format!("{field}.host_path"), mount.host_path, "must be empty beside an image")?;
    let options = each(&format!("{field}.mount_options"), mount.mount_options, mount_option)?;
    let user_specified = format!("{field}.image.user_specified_image");
    Ok(ImageMount {
        container_path: absolute(&format!("{field}.container_path"), mount.container_path)?,
        image: image_name(&format!("{field}.image.image"), image.image)?,
        user_specified_image: text(&user_specified, image.user_specified_image, 4096)?,
        image_id: String::new(),
        sub_path: sub_path(&format!("{field}.image_sub_path"), mount.image_sub_path)?,
        noexec: options.iter().any(|option| option == "noexec"),
    })
}

/// A path within the image.
fn sub_path(field: &str, path: String) -> Result<String> {
    let path = text(field, path, 4095)?;
    let inside = !path.starts_with('/') && !path.split('/').any(|part| part == "..");
    check(inside, field, path, "must be relative to the image's root, without ..")
}

fn propagation(field: &str, propagation: i32) -> Result<Propagation> {
    Ok(match known(field, propagation)? {
        MountPropagation::PropagationPrivate => Propagation::Private,
        MountPropagation::PropagationHostToContainer => Propagation::HostToContainer,
        MountPropagation::PropagationBidirectional => Propagation::Bidirectional,
    })
}

/// Recursive read-only needs a private mount: with propagation, mounts made later on the host would appear below it
/// writable.
fn check_recursive(field: &str, recursive: bool, readonly: bool, propagation: Propagation) -> Result<()> {
    check(!recursive || readonly, field, recursive, "needs readonly")?;
    let private = propagation == Propagation::Private;
    check(!recursive || private, field, recursive, "needs propagation PROPAGATION_PRIVATE").map(|_| ())
}

fn mount_option(field: &str, option: String) -> Result<String> {
    let known = ["noexec", "nodev", "nosuid"].contains(&option.as_str());
    check(known, field, option, "must be noexec, nodev or nosuid")
}

fn device(field: &str, device: v1::Device) -> Result<Device> {
    let permissions = device.permissions;
    let valid = !permissions.is_empty() && permissions.chars().all(|c| "rwm".contains(c));
    Ok(Device {
        container_path: absolute(&format!("{field}.container_path"), device.container_path)?,
        host_path: absolute(&format!("{field}.host_path"), device.host_path)?.into(),
        permissions: check(
            valid,
            &format!("{field}.permissions"),
            permissions,
            "must be some of r, w and m",
        )?,
    })
}

/// A path relative to the pod's log directory.
fn log_path(path: String) -> Result<String> {
    const FIELD: &str = "config.log_path";
    let path = text(FIELD, path, 4095)?;
    let inside = !path.starts_with('/') && !path.split('/').any(|part| part == "..");
    check(inside, FIELD, path, "must be relative to the pod's log directory, without ..")
}

/// Returns a name such as `SIGTERM` or `SIGRTMINPLUS3`; `None` leaves the signal to the image.
fn stop_signal(signal: i32) -> Result<Option<String>> {
    let signal: v1::Signal = known("config.stop_signal", signal)?;
    let name = signal.as_str_name().strip_prefix("SIGNAL_").unwrap_or_default();
    Ok((signal != v1::Signal::RuntimeDefault).then(|| name.to_owned()))
}
