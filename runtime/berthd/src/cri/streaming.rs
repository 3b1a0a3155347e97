//! Exec, Attach and PortForward. Each answers with the URL of a stream, after checking that the container or pod runs.

use berth_cri::v1::{
    AttachRequest, AttachResponse, ExecRequest, ExecResponse, PortForwardRequest, PortForwardResponse,
};
use tonic::{Request, Response, Status};

use super::{Cri, call::answer, request};
use crate::{
    error::{Error, Kind, Result},
    pod::PodState,
    streaming,
};

pub(super) async fn exec(cri: &Cri, call: Request<ExecRequest>) -> Result<Response<ExecResponse>, Status> {
    answer("Exec", call, async |call| {
        let url = command(cri, request::exec(call)?)?;
        Ok(ExecResponse { url })
    })
    .await
}

pub(super) async fn attach(
    cri: &Cri,
    call: Request<AttachRequest>,
) -> Result<Response<AttachResponse>, Status> {
    answer("Attach", call, async |call| {
        let url = command(cri, request::attach(call)?)?;
        Ok(AttachResponse { url })
    })
    .await
}

pub(super) async fn port_forward(
    cri: &Cri,
    call: Request<PortForwardRequest>,
) -> Result<Response<PortForwardResponse>, Status> {
    answer("PortForward", call, async |call| {
        let pod_id = request::port_forward(call)?;
        let pod = cri.runtime.pods.get(&pod_id)?;
        if pod.state != PodState::Ready {
            return Err(Error::new(Kind::FailedPrecondition, format!("pod {} is not ready", pod.id)));
        }
        let url = cri.tokens.issue(streaming::Request::Forward { pod: pod.id.clone() })?;
        Ok(PortForwardResponse { url })
    })
    .await
}

fn command(cri: &Cri, command: streaming::Command) -> Result<String> {
    cri.runtime.containers.check_exec(&command.container)?;
    cri.tokens.issue(streaming::Request::Command(command))
}
