//! Connections into a pod's network.

use std::io;

use tokio::net::TcpStream;

use super::{Pod, PodState};
use crate::error::{Error, Kind, Result};

pub(super) async fn dial(pod: &Pod, port: u16) -> Result<TcpStream> {
    if pod.state != PodState::Ready {
        return Err(Error::new(Kind::FailedPrecondition, format!("pod {} is not ready", pod.id)));
    }
    if port == 0 {
        return Err(Error::new(Kind::InvalidArgument, "port 0 is none to connect to"));
    }
    let connected = berth_network::dial(pod.netns.clone(), port).await;
    connected.map_err(|error| {
        Error::caused(kind_of(&error), format!("connect to port {port} in pod {}", pod.id), error)
    })
}

fn kind_of(error: &io::Error) -> Kind {
    match error.kind() {
        io::ErrorKind::ConnectionRefused | io::ErrorKind::ConnectionReset => Kind::Unavailable,
        io::ErrorKind::TimedOut => Kind::DeadlineExceeded,
        _ => Kind::Internal,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::net::TcpListener;

    use super::*;
    use crate::pod::config::PodConfig;

    fn pod() -> Pod {
        Pod {
            id: "abc".into(),
            config: PodConfig::default(),
            created_at: 0,
            state: PodState::Ready,
            attachment: None,
            netns: None,
            shim: None,
            cgroup: String::new(),
        }
    }

    #[tokio::test]
    async fn a_port_that_nothing_listens_on_is_named() {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let refused = dial(&pod(), port).await.unwrap_err();
        assert_eq!(refused.kind(), Kind::Unavailable);
        let text = refused.to_string();
        assert!(
            text.starts_with(&format!("connect to port {port} in pod abc: Connection refused")),
            "{text}"
        );
    }

    #[tokio::test]
    async fn neither_a_stopped_pod_nor_port_0_is_tried() {
        let stopped = Pod { state: PodState::NotReady, ..pod() };
        assert_eq!(dial(&stopped, 80).await.unwrap_err().kind(), Kind::FailedPrecondition);
        assert_eq!(dial(&pod(), 0).await.unwrap_err().kind(), Kind::InvalidArgument);
    }
}
