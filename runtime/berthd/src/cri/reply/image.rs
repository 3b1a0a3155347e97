//! Images.

use berth_cri::v1;
use berth_image::Image;

/// An image as kubelet and crictl see it.
pub(crate) fn image(image: &Image) -> v1::Image {
    let (uid, username) = user(&image.config.user);
    v1::Image {
        id: image.id.to_string(),
        repo_tags: image.tags.clone(),
        repo_digests: image.digests.clone(),
        size: image.size,
        uid,
        username,
        spec: None,
        pinned: image.pinned,
    }
}

/// Returns the user part of `user:group`, as number or as name: kubelet tells by it whether the image runs as root.
pub(super) fn user(user: &str) -> (Option<v1::Int64Value>, String) {
    let user = user.split(':').next().unwrap_or(user);
    match user.parse() {
        Ok(value) => (Some(v1::Int64Value { value }), String::new()),
        Err(_) => (None, user.to_owned()),
    }
}
