#![allow(clippy::unwrap_used, clippy::panic)]

use std::time::Duration;

use super::*;

async fn blocked(future: impl Future) -> bool {
    tokio::time::timeout(Duration::from_millis(10), future).await.is_err()
}

#[tokio::test]
async fn what_is_put_comes_out_and_then_the_end() {
    let (sender, mut inbox) = inbox(&BufferBudget::default());
    sender.put(Bytes::from_static(b"one ")).await;
    sender.put(Bytes::new()).await;
    sender.put(Bytes::from_static(b"two")).await;
    sender.end();
    let mut written = Vec::new();
    assert_eq!(inbox.copy(&mut written).await.unwrap(), Copied::All);
    assert_eq!(written, b"one two");
}

#[tokio::test(start_paused = true)]
async fn one_that_is_not_taken_stops_the_others_only_when_the_room_is_full() {
    let budget = BufferBudget::default();
    let (stalled, kept) = inbox(&budget);
    let (other, mut taken) = inbox(&budget);
    let block = Bytes::from(vec![0; 64 << 10]);
    for _ in 1..MAX_BUFFERED_BYTES / (block.len() + PIECE_OVERHEAD_BYTES) {
        stalled.put(block.clone()).await;
        other.put(Bytes::from_static(b"x")).await;
        assert!(matches!(taken.next().await, Next::Piece(_)));
    }
    stalled.put(block.clone()).await;
    assert!(blocked(stalled.put(block.clone())).await);
    drop(kept);
    stalled.put(block.clone()).await;
    other.put(block).await;
    assert!(matches!(taken.next().await, Next::Piece(_)));
}

#[tokio::test(start_paused = true)]
async fn waiting_for_room_ends_when_nobody_takes_the_stream_any_more() {
    let budget = BufferBudget::default();
    let (full, _kept) = inbox(&budget);
    full.put(Bytes::from(vec![0; MAX_BUFFERED_BYTES])).await;
    let (sender, dropped) = inbox(&budget);
    let put = sender.put(Bytes::from_static(b"x"));
    let leave = async {
        tokio::time::sleep(Duration::from_secs(1)).await;
        drop(dropped);
    };
    tokio::join!(put, leave);
    assert!(sender.is_closed());
}

#[tokio::test(start_paused = true)]
async fn a_reset_is_heeded_while_nothing_can_be_written() {
    let (sender, mut inbox) = inbox(&BufferBudget::default());
    sender.put(Bytes::from_static(b"more than fits")).await;
    let (mut full, _unread) = tokio::io::duplex(4);
    let reset = async {
        tokio::time::sleep(Duration::from_secs(1)).await;
        drop(sender);
    };
    let (copied, ()) = tokio::join!(inbox.copy(&mut full), reset);
    assert_eq!(copied.unwrap(), Copied::Reset);
}

#[tokio::test]
async fn a_short_piece_does_not_hold_on_to_a_block() {
    let (sender, mut inbox) = inbox(&BufferBudget::default());
    let block = Bytes::from(vec![7; 64 << 10]);
    sender.put(block.slice(..10)).await;
    sender.put(block.slice(..COPY_BELOW_BYTES)).await;
    let Next::Piece(short) = inbox.next().await else { panic!("no piece") };
    let Next::Piece(long) = inbox.next().await else { panic!("no piece") };
    assert_ne!(short.bytes.as_ptr(), block.as_ptr());
    assert_eq!(long.bytes.as_ptr(), block.as_ptr());
}
