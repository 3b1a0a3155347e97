//! Exec, Attach and PortForward: each answers with the address of a stream.

use berth_cri::v1::{
    AttachRequest, AttachResponse, ExecRequest, ExecResponse, PortForwardRequest, PortForwardResponse,
};
use tonic::{Request, Response, Status};

use super::{Cri, call::not_built};

pub(super) async fn exec(_: &Cri, _: Request<ExecRequest>) -> Result<Response<ExecResponse>, Status> {
    not_built("Exec")
}

pub(super) async fn attach(_: &Cri, _: Request<AttachRequest>) -> Result<Response<AttachResponse>, Status> {
    not_built("Attach")
}

pub(super) async fn port_forward(
    _: &Cri,
    _: Request<PortForwardRequest>,
) -> Result<Response<PortForwardResponse>, Status> {
    not_built("PortForward")
}
