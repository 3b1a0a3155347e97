//! The image service.

use std::time::{SystemTime, UNIX_EPOCH};

use berth_cri::v1::{image_service_server::ImageService, *};
use tonic::{Request, Response, Status, codegen::BoxStream};

use super::{
    Cri,
    call::{answer, complete},
    chunks, info,
    list::in_one_message,
    reply, request,
};
use crate::error::of_image;

#[tonic::async_trait]
impl ImageService for Cri {
    async fn list_images(
        &self,
        request: Request<ListImagesRequest>,
    ) -> Result<Response<ListImagesResponse>, Status> {
        answer("ListImages", request, async |request| {
            let images = self.images(request.filter).collect();
            in_one_message(ListImagesResponse { images }, "StreamImages")
        })
        .await
    }

    async fn image_status(
        &self,
        request: Request<ImageStatusRequest>,
    ) -> Result<Response<ImageStatusResponse>, Status> {
        answer("ImageStatus", request, async |request| {
            let found = self.runtime.images.get(&request::image(request.image)?);
            let verbose = found.as_ref().filter(|_| request.verbose);
            Ok(ImageStatusResponse {
                info: verbose.map(|image| info::image(image)).unwrap_or_default(),
                image: found.map(|image| reply::image(&image)),
            })
        })
        .await
    }

    /// A pull whose caller leaves is given up; what it fetched is found by the next one.
    async fn pull_image(
        &self,
        request: Request<PullImageRequest>,
    ) -> Result<Response<PullImageResponse>, Status> {
        answer("PullImage", request, async |request| {
            let (image, credentials) = request::pull(request)?;
            let pulled = self.runtime.images.pull(&image, credentials).await;
            let pulled = pulled.map_err(|error| of_image(format!("pull {image}"), error))?;
            Ok(PullImageResponse { image_ref: pulled.id.to_string() })
        })
        .await
    }

    async fn remove_image(
        &self,
        request: Request<RemoveImageRequest>,
    ) -> Result<Response<RemoveImageResponse>, Status> {
        let images = self.runtime.images.clone();
        complete("RemoveImage", request, async move |request: RemoveImageRequest| {
            let name = request::image(request.image)?;
            images.remove(&name).await.map_err(|error| of_image(format!("remove image {name}"), error))?;
            Ok(RemoveImageResponse {})
        })
        .await
    }

    async fn image_fs_info(
        &self,
        request: Request<ImageFsInfoRequest>,
    ) -> Result<Response<ImageFsInfoResponse>, Status> {
        answer("ImageFsInfo", request, async |_| {
            let usage = self.runtime.images.usage();
            let mountpoint = self.daemon.config.image_root().display().to_string();
            let images = FilesystemUsage {
                timestamp: now(),
                fs_id: Some(FilesystemIdentifier { mountpoint }),
                used_bytes: Some(UInt64Value { value: usage.bytes }),
                inodes_used: Some(UInt64Value { value: usage.inodes }),
            };
            Ok(ImageFsInfoResponse { image_filesystems: vec![images], container_filesystems: Vec::new() })
        })
        .await
    }

    type StreamImagesStream = BoxStream<StreamImagesResponse>;

    async fn stream_images(
        &self,
        request: Request<StreamImagesRequest>,
    ) -> Result<Response<Self::StreamImagesStream>, Status> {
        chunks::stream_images(self, request).await
    }
}

fn now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_nanos()).unwrap_or(i64::MAX)
}
