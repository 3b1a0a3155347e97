//! The image service.

use berth_cri::v1::{image_service_server::ImageService, *};
use tonic::{Request, Response, Status, codegen::BoxStream};

use super::{
    Cri,
    call::{answer, complete},
    chunks, info,
    list::in_one_message,
    reply, request,
};
use crate::{clock, error::of_image, stats::DiskUsage};

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

    /// A pull is cancelled when its caller disconnects; the next pull reuses what was fetched.
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
            let images = self.runtime.images.usage();
            let images = DiskUsage { at: clock::now(), bytes: images.bytes, inodes: images.inodes };
            let image_root = self.daemon.config.image_root().display().to_string();
            let containers = self.runtime.stats.writable_layers().await;
            Ok(ImageFsInfoResponse {
                image_filesystems: vec![reply::filesystem(images, &image_root)],
                container_filesystems: vec![reply::filesystem(containers, &self.container_fs())],
            })
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
