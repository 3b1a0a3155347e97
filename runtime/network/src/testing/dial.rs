//! Connections into pods' network namespaces.

use futures::future::join_all;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::*;
use crate::dial;

/// Echoes on every connection. Returns the port.
fn echo(listener: TcpListener) -> u16 {
    listener.set_nonblocking(true).unwrap();
    let listener = tokio::net::TcpListener::from_std(listener).unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let (mut from, mut to) = stream.split();
                tokio::io::copy(&mut from, &mut to).await.unwrap();
            });
        }
    });
    port
}

async fn echoed(netns: Option<&PodNetns>, port: u16) -> String {
    let mut stream = dial(netns.map(|netns| netns.path().into()), port).await.unwrap();
    stream.write_all(b"hello").await.unwrap();
    stream.shutdown().await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

#[test]
fn root_a_port_is_the_pods_own() {
    on_test_host(|host| async move {
        let netns = host.netns("pod");
        let inside = echo(netns.inside(|| TcpListener::bind("127.0.0.1:0")));
        let outside = echo(TcpListener::bind("127.0.0.1:0").unwrap());
        assert_eq!(echoed(Some(&netns), inside).await, "hello");
        assert_eq!(echoed(None, outside).await, "hello");
        let refused = dial(Some(netns.path().into()), outside).await.unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused, "{refused}");
    });
}

#[test]
fn root_what_listens_on_ipv6_alone_is_reached_too() {
    on_test_host(|host| async move {
        let netns = host.netns("pod");
        let port = echo(netns.inside(|| TcpListener::bind("[::1]:0")));
        assert_eq!(echoed(Some(&netns), port).await, "hello");
    });
}

#[test]
fn root_many_connections_at_once_are_each_their_own() {
    on_test_host(|host| async move {
        let netns = host.netns("pod");
        let port = echo(netns.inside(|| TcpListener::bind("127.0.0.1:0")));
        let answers = join_all((0..50).map(|_| echoed(Some(&netns), port))).await;
        assert_eq!(answers, vec!["hello"; 50]);
    });
}
