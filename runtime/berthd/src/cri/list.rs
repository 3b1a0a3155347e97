//! The items of lists, for answers in one message or in several. Each item is made when it is taken.

use std::{cmp::Reverse, sync::Arc};

use berth_cri::v1::{self, ContainerFilter, ImageFilter, PodSandboxFilter};
use prost::Message;

use super::{Cri, filter, reply};
use crate::{
    container::Container,
    error::{Error, Kind, Result},
};

/// Largest message that kubelet and crictl send and accept, in bytes; a list of many containers exceeds gRPC's default
/// of 4 MiB.
pub(crate) const MAX_MESSAGE_BYTES: usize = 16 << 20;

impl Cri {
    /// Returns the pods that match, the newest first.
    pub(super) fn pods(
        &self,
        wanted: Option<PodSandboxFilter>,
    ) -> Result<impl Iterator<Item = v1::PodSandbox> + Send + use<>> {
        let filter = filter::PodFilter::new(wanted)?;
        let pods = self.runtime.pods.list().into_iter();
        Ok(pods.filter(move |pod| filter.wants(pod)).map(|pod| reply::pod_sandbox(&pod)))
    }

    /// Returns the containers that match, the newest first.
    pub(super) fn containers(
        &self,
        wanted: Option<ContainerFilter>,
    ) -> Result<impl Iterator<Item = v1::Container> + Send + use<>> {
        let filter = filter::ContainerFilter::new(wanted)?;
        let containers = self.runtime.containers.list().into_iter();
        Ok(containers.filter(move |one| filter.wants(one)).map(|one| reply::container(&one)))
    }

    /// Returns the statuses of these containers, the newest first.
    pub(super) fn statuses(&self, containers: &[Arc<Container>]) -> Vec<v1::ContainerStatus> {
        let status = |one: &Arc<Container>| {
            let image = self.runtime.images.get(&one.image_id);
            reply::container_status(one, image.as_deref(), &self.runtime.containers.bundle(&one.id))
        };
        let mut statuses: Vec<_> = containers.iter().map(status).collect();
        statuses.sort_by_key(|status| Reverse(status.created_at));
        statuses
    }

    /// Returns all images, or the one that the filter names.
    pub(super) fn images(
        &self,
        wanted: Option<ImageFilter>,
    ) -> impl Iterator<Item = v1::Image> + Send + use<> {
        let name = wanted.and_then(|filter| filter.image).map(|image| image.image);
        let images = match name.filter(|name| !name.is_empty()) {
            Some(name) => self.runtime.images.get(&name).into_iter().collect(),
            None => self.runtime.images.list(),
        };
        images.into_iter().map(|image| reply::image(&image))
    }
}

/// Returns `list` unless it exceeds [`MAX_MESSAGE_BYTES`].
///
/// # Errors
///
/// `ResourceExhausted`, naming the call that answers as a stream.
pub(super) fn in_one_message<M: Message>(list: M, in_parts: &str) -> Result<M> {
    let size = list.encoded_len();
    if size <= MAX_MESSAGE_BYTES {
        return Ok(list);
    }
    let text = format!(
        "the list takes {size} bytes and a message {MAX_MESSAGE_BYTES} at most: filter it, or use {in_parts}"
    );
    Err(Error::new(Kind::ResourceExhausted, text))
}
