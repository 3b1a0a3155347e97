#![allow(clippy::unwrap_used)]

use std::time::Duration;

use tokio::io::{AsyncReadExt, DuplexStream, duplex, split};

use super::*;
use crate::streaming::{
    idle::Idle,
    spdy::connection,
    testing::{Client, Reply},
};

/// Returns a client, the far end of what would be the pod's connection, and the task that joins them.
async fn joined() -> (Client<DuplexStream>, u32, u32, DuplexStream, tokio::task::JoinHandle<io::Result<()>>) {
    let (near, far) = duplex(1 << 10);
    let (input, output) = split(far);
    let idle = Idle::new(Duration::from_secs(3600));
    let (reader, mut acceptor, queue) = connection(input, idle.clone());
    tokio::spawn(async move { tokio::join!(reader.run(), queue.write_to(output, idle)) });
    let mut client = Client::new(near);
    let mut streams = Vec::new();
    for kind in ["error", "data"] {
        let id = client.open(&[("streamtype", kind), ("port", "80"), ("requestid", "0")], false).await;
        let incoming = acceptor.next().await.unwrap();
        streams.push((id, acceptor.accept(incoming)));
        assert_eq!(client.reply().await, Some(Reply::Taken(id)));
    }
    let (data_id, data) = streams.pop().unwrap();
    let (error_id, error) = streams.pop().unwrap();
    let (pod, connection) = duplex(1 << 10);
    let (from, to) = split(connection);
    let task = tokio::spawn(async move {
        let _acceptor = acceptor;
        copy_both_ways(from, to, data, &error.outlet).await
    });
    (client, data_id, error_id, pod, task)
}

#[tokio::test]
async fn each_direction_ends_by_itself() {
    let (mut client, data, error, mut pod, task) = joined().await;
    client.data(data, true, b"question").await;
    let mut question = String::new();
    pod.read_to_string(&mut question).await.unwrap();
    assert_eq!(question, "question");
    pod.write_all(b"answer").await.unwrap();
    pod.shutdown().await.unwrap();
    assert_eq!(client.read(data).await, b"answer");
    assert_eq!(client.read(error).await, b"");
    task.await.unwrap().unwrap();
}

#[tokio::test]
async fn a_client_that_wants_no_more_closes_the_connection_to_the_pod() {
    let (mut client, data, _, mut pod, task) = joined().await;
    client.reset(data).await;
    assert_eq!(task.await.unwrap().unwrap_err().kind(), io::ErrorKind::ConnectionReset);
    assert_eq!(pod.read(&mut [0; 1]).await.unwrap(), 0);
}

#[tokio::test]
async fn a_pod_that_has_said_all_lets_the_client_go() {
    let (mut client, data, error, pod, _task) = joined().await;
    drop(pod);
    assert_eq!(client.read(data).await, b"");
    assert_eq!(client.read(error).await, b"");
}

fn asked(request: &str, kind: StreamKind) -> StreamPurpose {
    StreamPurpose { request: request.into(), kind, port: 80 }
}

#[tokio::test]
async fn streams_are_paired_by_their_request_in_any_order() {
    let (near, far) = duplex(64 << 10);
    let (reader, mut acceptor, _queue) = connection(far, Idle::new(Duration::from_secs(3600)));
    tokio::spawn(reader.run());
    let mut client = Client::new(near);
    let mut unpaired = UnpairedStreams::default();
    let mut paired = Vec::new();
    for (request, kind) in [
        ("a", StreamKind::Data),
        ("b", StreamKind::Error),
        ("b", StreamKind::Data),
        ("a", StreamKind::Error),
        ("a", StreamKind::Error),
    ] {
        client.open(&[], false).await;
        let incoming = acceptor.next().await.unwrap();
        let purpose = asked(request, kind);
        assert!(unpaired.accepts(&purpose));
        paired.extend(unpaired.add(purpose, acceptor.accept(incoming)).map(|_| request));
    }
    assert_eq!(paired, ["b", "a"]);
    assert!(!unpaired.accepts(&asked("a", StreamKind::Error)), "one of this kind is there");
    assert!(unpaired.accepts(&asked("a", StreamKind::Data)));
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_stays_alone_is_forgotten() {
    let (near, far) = duplex(1 << 10);
    let (reader, mut acceptor, _queue) = connection(far, Idle::new(Duration::from_secs(3600)));
    tokio::spawn(reader.run());
    let mut client = Client::new(near);
    client.open(&[], false).await;
    let incoming = acceptor.next().await.unwrap();
    let mut unpaired = UnpairedStreams::default();
    unpaired.add(asked("a", StreamKind::Data), acceptor.accept(incoming));
    unpaired.drop_expired();
    assert_eq!(unpaired.0.len(), 1);
    tokio::time::advance(PAIR_TIMEOUT).await;
    unpaired.drop_expired();
    assert!(unpaired.0.is_empty());
}

#[tokio::test]
async fn what_a_stream_is_for_is_read_from_its_header_fields() {
    let (near, far) = duplex(64 << 10);
    let (reader, mut acceptor, _queue) = connection(far, Idle::new(Duration::from_secs(3600)));
    tokio::spawn(reader.run());
    let mut client = Client::new(near);
    for (fields, expected) in [
        (
            &[("streamtype", "data"), ("port", "80"), ("requestid", "a")][..],
            Some(asked("a", StreamKind::Data)),
        ),
        (&[("streamtype", "error"), ("port", "80")], Some(asked("3", StreamKind::Error))),
        (&[("streamtype", "data"), ("port", "80")], Some(asked("3", StreamKind::Data))),
        (&[("streamtype", "data"), ("port", "0")], None),
        (&[("streamtype", "data"), ("port", "65536")], None),
        (&[("streamtype", "data"), ("port", "-1")], None),
        (&[("streamtype", "stdin"), ("port", "80")], None),
        (&[("streamtype", "data")], None),
        (&[("port", "80")], None),
    ] {
        client.open(fields, false).await;
        assert_eq!(StreamPurpose::read(&acceptor.next().await.unwrap()), expected, "{fields:?}");
    }
}
