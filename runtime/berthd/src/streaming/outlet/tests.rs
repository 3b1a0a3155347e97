#![allow(clippy::unwrap_used)]

use super::*;

fn outlet(framing: Framing) -> (Outlet, Senders, Queue) {
    let (senders, queue) = queue();
    (Outlet::new(framing, senders.frames.clone()), senders, queue)
}

async fn all(mut queue: Queue) -> Vec<Bytes> {
    let mut all = Vec::new();
    while let Some(due) = queue.next().await {
        all.extend(match due {
            QueueItem::Bytes(bytes) => Some(bytes),
            QueueItem::Heartbeat => None,
        });
    }
    all
}

#[tokio::test]
async fn bytes_are_framed_as_the_transport_wants() {
    for (framing, hello, end) in [
        (Framing::Spdy(3), &b"\0\0\0\x03\0\0\0\x05hello"[..], &[&b"\0\0\0\x03\x01\0\0\0"[..]][..]),
        (Framing::Binary(1), b"\x01hello", &[]),
        (Framing::Base64(2), b"2aGVsbG8=", &[]),
    ] {
        let (outlet, senders, queue) = outlet(framing);
        drop(senders);
        outlet.send(b"hello").await.unwrap();
        outlet.pump(&mut &b"hello"[..]).await.unwrap();
        outlet.finish().await.unwrap();
        drop(outlet);
        let expected: Vec<&[u8]> = [hello, hello].iter().chain(end).copied().collect();
        assert_eq!(all(queue).await, expected, "{framing:?}");
    }
}

#[tokio::test]
async fn much_is_sent_in_pieces_and_arrives_whole() {
    let (outlet, senders, queue) = outlet(Framing::Binary(1));
    drop(senders);
    let sent: Vec<u8> = (0..1_000_000u32).map(|n| n as u8).collect();
    let pump = async {
        outlet.pump(&mut &sent[..]).await.unwrap();
        drop(outlet);
    };
    let (pieces, ()) = tokio::join!(all(queue), pump);
    assert!(pieces.iter().all(|piece| piece[0] == 1 && piece.len() <= 1 + 2 * MAX_CHUNK_BYTES));
    assert_eq!(pieces.iter().flat_map(|piece| &piece[1..]).copied().collect::<Vec<_>>(), sent);
}

#[tokio::test]
async fn answers_go_before_what_was_sent_after_them_and_what_waits() {
    let (outlet, senders, queue) = outlet(Framing::Binary(1));
    outlet.send(b"waits").await.unwrap();
    senders.answers.try_send(Bytes::from_static(b"answer")).unwrap();
    drop((outlet, senders));
    assert_eq!(all(queue).await, [&b"answer"[..], b"\x01waits"]);
}

#[tokio::test]
async fn the_queue_ends_with_the_senders_of_frames_though_someone_could_still_answer() {
    let (outlet, Senders { frames, answers }, queue) = outlet(Framing::Binary(1));
    drop((outlet, frames));
    assert!(all(queue).await.is_empty());
    drop(answers);
}

#[tokio::test(start_paused = true)]
async fn a_client_to_which_nothing_is_said_is_asked_whether_it_is_there() {
    let (_outlet, _senders, mut queue) = outlet(Framing::Spdy(1));
    let begun = Instant::now();
    for beat in 1..=3 {
        assert_eq!(queue.next().await, Some(QueueItem::Heartbeat));
        assert_eq!(begun.elapsed(), HEARTBEAT_INTERVAL * beat);
    }
}

#[tokio::test]
async fn a_client_that_is_gone_ends_the_pump() {
    let (outlet, _senders, queue) = outlet(Framing::Spdy(1));
    drop(queue);
    let ended = outlet.pump(&mut tokio::io::repeat(1)).await;
    assert_eq!(ended.unwrap_err().kind(), io::ErrorKind::BrokenPipe);
}
