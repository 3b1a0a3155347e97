//! Routing of calls to the two services of the CRI.

use std::{
    convert::Infallible,
    task::{Context, Poll},
};

use berth_cri::v1::{
    image_service_server::{ImageService, ImageServiceServer},
    runtime_service_server::{RuntimeService, RuntimeServiceServer},
};
use tonic::{
    body::Body,
    codegen::{BoxFuture, Service, http},
    server::NamedService,
};

use crate::cri::{Cri, MAX_MESSAGE_BYTES};

/// Both services of the CRI on one socket.
#[derive(Clone)]
pub struct Services<T = Cri> {
    runtime: RuntimeServiceServer<T>,
    image: ImageServiceServer<T>,
}

impl<T: RuntimeService + ImageService + Clone> Services<T> {
    /// Serves `cri` as both services.
    pub fn new(cri: T) -> Self {
        Self {
            runtime: RuntimeServiceServer::new(cri.clone())
                .max_decoding_message_size(MAX_MESSAGE_BYTES)
                .max_encoding_message_size(MAX_MESSAGE_BYTES),
            image: ImageServiceServer::new(cri)
                .max_decoding_message_size(MAX_MESSAGE_BYTES)
                .max_encoding_message_size(MAX_MESSAGE_BYTES),
        }
    }
}

impl<T: RuntimeService + ImageService> Service<http::Request<Body>> for Services<T> {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<Self::Response, Infallible>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    /// Calls for any other service go to the runtime service, which answers UNIMPLEMENTED.
    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let service = request.uri().path().split('/').nth(1);
        match service == Some(ImageServiceServer::<T>::NAME) {
            true => self.image.call(request),
            false => self.runtime.call(request),
        }
    }
}
