//! Image volumes: directories or files of an image, mounted read-only into a container.

use std::{fs, path::Path, sync::Arc};

use berth_image::{Image, Part};

use super::{
    config::{ContainerConfig, ImageMount},
    create::find_image,
};
use crate::{
    blocking,
    error::{During, Error, Kind, Result, of_image},
    runtime::Shared,
    spec::ImageVolume,
};
use berth_work::progress;

/// Sets in each image mount the id of the image that its name stands for now.
///
/// # Errors
///
/// `NotFound` when the image is not present.
pub(super) fn resolve(shared: &Shared, config: &mut ContainerConfig) -> Result<()> {
    for mount in &mut config.image_mounts {
        mount.image_id = find_image(shared, &mount.image)?.id.to_string();
    }
    Ok(())
}

/// Leases the images of the container's volumes, and looks up the part of each that is mounted.
///
/// # Errors
///
/// `InvalidArgument` when an image does not have the requested path.
pub(super) async fn hold(
    shared: &Shared,
    container: &str,
    mounts: &[ImageMount],
) -> Result<Vec<ImageVolume>> {
    let mut volumes = Vec::new();
    for (index, mount) in mounts.iter().enumerate() {
        progress::at("hold the image of a volume");
        let image = find_image(shared, &mount.image_id)?;
        let part = hold_one(shared, &holder(container, index), &image, mount).await?;
        let part = with_two_layers(part, &shared.layout.writable(container).join("empty"))?;
        volumes.push(ImageVolume { mount: mount.clone(), part });
    }
    Ok(volumes)
}

async fn hold_one(shared: &Shared, holder: &str, image: &Arc<Image>, mount: &ImageMount) -> Result<Part> {
    let leased = shared.images.lease(&image.id, holder).await;
    let layers = leased.map_err(|error| of_image("hold the layers of an image volume", error))?;
    let path = mount.sub_path.clone();
    let looked_up = blocking::run("look a volume up in its image", move || layers.part(&path)).await?;
    let step = || format!("look {:?} up in image {}", mount.sub_path, mount.image);
    let part = looked_up.map_err(|error| Error::caused(Kind::Internal, step(), error))?;
    part.ok_or_else(|| {
        let text =
            format!("image {} has no {:?} to mount at {}", mount.image, mount.sub_path, mount.container_path);
        Error::new(Kind::InvalidArgument, text)
    })
}

/// An overlay without an upper layer needs two lower ones: adds an empty one to a single layer.
fn with_two_layers(part: Part, empty: &Path) -> Result<Part> {
    match part {
        Part::Directory(mut layers) if layers.len() < 2 => {
            fs::create_dir_all(empty).during(|| format!("create {}", empty.display()))?;
            layers.push(empty.to_owned());
            Ok(Part::Directory(layers))
        }
        other => Ok(other),
    }
}

/// Releases the images of the container's volumes, including leases that an earlier daemon left.
pub(super) async fn release(shared: &Shared, container: &str) -> Result<()> {
    for holder in volumes_of(shared.images.leases(), container) {
        let released = shared.images.release(&holder).await;
        released.map_err(|error| of_image(format!("release an image volume of {container}"), error))?;
    }
    Ok(())
}

/// Returns the holders that are volumes of the container.
fn volumes_of(mut holders: Vec<String>, container: &str) -> Vec<String> {
    holders.retain(|holder| holder != container && container_of(holder) == container);
    holders
}

/// Returns the name of the lease of a volume; [`container_of`] is the inverse.
fn holder(container: &str, index: usize) -> String {
    format!("{container}.{index}")
}

/// Returns the container that a lease belongs to, be it for its root file system or for a volume.
pub(crate) fn container_of(holder: &str) -> &str {
    holder.split_once('.').map_or(holder, |(container, _)| container)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_container_has_the_volumes_that_are_held_for_it_also_when_the_first_is_not_any_more() {
        let holders =
            [holder("c", 1), holder("c", 10), "c".into(), "d".into(), holder("d", 0), holder("cc", 0)];
        assert_eq!(volumes_of(holders.into(), "c"), [holder("c", 1), holder("c", 10)]);
        assert!(volumes_of(vec!["c".into()], "c").is_empty());
    }
}
