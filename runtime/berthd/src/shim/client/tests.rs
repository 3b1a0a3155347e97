#![allow(clippy::unwrap_used)]
use rustix::net::{AddressFamily, SocketAddrUnix, SocketType, bind, listen, socket};
use tokio::time::timeout;

use super::*;

async fn kind(socket: &str) -> Kind {
    let connected = timeout(Duration::from_secs(10), Shim::connect(socket)).await;
    connected.unwrap().map(drop).unwrap_err().kind()
}

#[tokio::test]
async fn a_shim_is_dead_only_when_nobody_listens() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("shim.sock");
    let name = path.to_str().unwrap();
    assert_eq!(kind(name).await, Kind::Unavailable);
    let listener = socket(AddressFamily::UNIX, SocketType::STREAM, None).unwrap();
    bind(&listener, &SocketAddrUnix::new(&path).unwrap()).unwrap();
    assert_eq!(kind(name).await, Kind::Unavailable, "nobody listens yet");
    listen(&listener, 0).unwrap();
    let _waiting = Shim::connect(name).await.unwrap();
    assert_eq!(kind(name).await, Kind::ResourceExhausted, "its queue is full");
    drop(listener);
    assert_eq!(kind(name).await, Kind::Unavailable);
}
