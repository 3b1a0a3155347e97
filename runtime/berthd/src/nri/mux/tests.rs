#![allow(clippy::unwrap_used)]

use std::time::Duration;

use tokio::time::timeout;

use super::*;

/// Builds a ttrpc message with `length` bytes after its header.
fn message(length: usize) -> Vec<u8> {
    let mut message = u32::try_from(length).unwrap().to_be_bytes().to_vec();
    message.extend([0, 0, 0, 1, 1, 0]);
    message.extend((0..length).map(|at| at as u8));
    message
}

/// Reads `count` frames.
async fn frames(mut trunk: UnixStream, count: usize) -> Vec<(u32, Vec<u8>)> {
    let mut frames = Vec::new();
    for _ in 0..count {
        let connection = trunk.read_u32().await.unwrap();
        let mut payload = vec![0; trunk.read_u32().await.unwrap() as usize];
        trunk.read_exact(&mut payload).await.unwrap();
        frames.push((connection, payload));
    }
    frames
}

async fn ended(carrying: tokio::task::JoinHandle<Error>) -> Error {
    timeout(Duration::from_secs(10), carrying).await.unwrap().unwrap()
}

#[tokio::test]
async fn a_long_message_is_sent_as_two_frames_and_a_short_one_as_one() {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let (mut connections, carrying) = split_trunk(ours);
    let carrying = tokio::spawn(carrying);
    let (short, long) = (message(7), message(1 << 20));
    let reading = tokio::spawn(frames(theirs, 3));
    connections.plugin.write_all(&short).await.unwrap();
    connections.plugin.write_all(&long).await.unwrap();
    let sent = reading.await.unwrap();
    assert_eq!(sent[0], (PLUGIN_CONNECTION, short));
    assert_eq!((sent[1].0, sent[1].1.len()), (PLUGIN_CONNECTION, MAX_FIRST_FRAME_BYTES));
    assert_eq!([&sent[1].1[..], &sent[2].1[..]].concat(), long);
    drop(connections);
    ended(carrying).await;
}

#[tokio::test]
async fn frames_reach_their_connection_in_pieces_and_those_of_others_are_dropped() {
    let (ours, mut theirs) = UnixStream::pair().unwrap();
    let (mut connections, carrying) = split_trunk(ours);
    let carrying = tokio::spawn(carrying);
    for (connection, payload) in
        [(7, "lost"), (PLUGIN_CONNECTION, "to "), (RUNTIME_CONNECTION, "from"), (PLUGIN_CONNECTION, "it")]
    {
        write_frame(&mut theirs, connection, payload.as_bytes()).await.unwrap();
    }
    drop(theirs);
    assert_eq!(ended(carrying).await.kind(), ErrorKind::UnexpectedEof);
    let (mut plugin, mut runtime) = (String::new(), String::new());
    connections.plugin.read_to_string(&mut plugin).await.unwrap();
    connections.runtime.read_to_string(&mut runtime).await.unwrap();
    assert_eq!((plugin.as_str(), runtime.as_str()), ("to it", "from"));
}

#[tokio::test]
async fn a_frame_too_long_to_be_true_ends_the_trunk() {
    let (ours, mut theirs) = UnixStream::pair().unwrap();
    let (_connections, carrying) = split_trunk(ours);
    let carrying = tokio::spawn(carrying);
    theirs.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
    assert_eq!(ended(carrying).await.kind(), ErrorKind::InvalidData);
}

#[tokio::test]
async fn a_frame_cut_short_ends_the_trunk() {
    let (ours, mut theirs) = UnixStream::pair().unwrap();
    let (_connections, carrying) = split_trunk(ours);
    let carrying = tokio::spawn(carrying);
    theirs.write_all(&[0, 0, 0, 1, 0, 0, 0, 9, 1, 2]).await.unwrap();
    drop(theirs);
    assert_eq!(ended(carrying).await.kind(), ErrorKind::UnexpectedEof);
}
