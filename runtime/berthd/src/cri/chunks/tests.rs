#![allow(clippy::unwrap_used)]
use berth_cri::v1::{Container, StreamContainersResponse};
use futures::{StreamExt, TryStreamExt};

use super::*;

fn container(id: usize, bytes: usize) -> Container {
    let note = ("note".to_owned(), "x".repeat(bytes));
    Container { id: id.to_string(), annotations: [note].into(), ..Default::default() }
}

fn streamed(items: Vec<Container>) -> impl Stream<Item = Result<StreamContainersResponse>> {
    parts(items.into_iter(), |containers| StreamContainersResponse { containers })
}

#[tokio::test]
async fn every_item_comes_once_in_order_and_no_part_is_empty_or_much_over_the_limit() {
    for bytes in [0, 1000, MIN_PART_BYTES / 3, MIN_PART_BYTES, 2 * MIN_PART_BYTES] {
        let items: Vec<_> = (0..50).map(|id| container(id, bytes)).collect();
        let parts: Vec<_> = streamed(items.clone()).try_collect().await.unwrap();
        assert!(parts.iter().all(|part| !part.containers.is_empty()));
        assert!(parts.iter().all(|part| part.encoded_len() < MIN_PART_BYTES + bytes + 4096));
        assert_eq!(parts.into_iter().flat_map(|part| part.containers).collect::<Vec<_>>(), items);
    }
}

#[tokio::test]
async fn an_empty_list_is_the_end_at_once() {
    assert!(streamed(Vec::new()).next().await.is_none());
}

#[tokio::test]
async fn items_are_made_when_their_part_is_taken() {
    let made = std::cell::Cell::new(0);
    let items = (0..10).map(|id| {
        made.set(made.get() + 1);
        container(id, MIN_PART_BYTES)
    });
    let mut parts = Box::pin(parts(items, |containers| StreamContainersResponse { containers }));
    assert_eq!(parts.next().await.unwrap().unwrap().containers.len(), 1);
    assert_eq!(made.get(), 1);
}
