use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures::TryStreamExt;

use super::super::{Blob, Bytes, Config, Error, Kind, Progress, Registry};
use super::server::{Answer, Request, Server};
use super::{app_at, config, content, registry};
use crate::digest::Digest;

async fn collect(blob: Blob) -> Result<Vec<u8>, Error> {
    blob.into_stream()
        .try_fold(Vec::new(), async |all, chunk: Bytes| Ok([all, chunk.to_vec()].concat()))
        .await
}

async fn pull(server: &Server, digest: &Digest, size: usize) -> Result<Vec<u8>, Error> {
    collect(registry().blob(&app_at(server), digest, size as u64, None).await?).await
}

/// A server whose answer depends on how many requests came before.
async fn scripted(script: impl Fn(usize, &Request) -> Answer + Send + Sync + 'static) -> Server {
    let count = AtomicUsize::new(0);
    Server::start(move |request| script(count.fetch_add(1, Ordering::SeqCst), request)).await
}

#[tokio::test]
async fn a_blob_is_streamed_whole() {
    let (bytes, digest) = content(300_000);
    let sent = bytes.clone();
    let server = Server::start(move |_| Answer::ok(sent.clone())).await;
    assert_eq!(pull(&server, &digest, bytes.len()).await.unwrap(), bytes);
    assert_eq!(server.targets(), [format!("/v2/team/app/blobs/{digest}")]);
}

#[tokio::test]
async fn an_empty_blob_is_no_error() {
    let (_, digest) = content(0);
    let server = Server::start(|_| Answer::ok("")).await;
    assert_eq!(pull(&server, &digest, 0).await.unwrap(), b"");
}

#[tokio::test]
async fn a_broken_connection_is_resumed_at_the_next_byte() {
    let (bytes, digest) = content(100_000);
    let sent = bytes.clone();
    let server = scripted(move |count, request| match count {
        0 => Answer::range(&sent, request).cut_after(40_000),
        1 => Answer::range(&sent, request).cut_after(10_000),
        _ => Answer::range(&sent, request),
    })
    .await;
    assert_eq!(pull(&server, &digest, bytes.len()).await.unwrap(), bytes);
    let offsets: Vec<_> = server.seen().iter().map(Request::offset).collect();
    assert_eq!(offsets, [0, 40_000, 50_000]);
}

#[tokio::test]
async fn progress_starts_the_count_of_failures_anew() {
    let (bytes, digest) = content(10_000);
    let sent = bytes.clone();
    let server = Server::start(move |request| {
        let rest = sent.len() - request.offset();
        Answer::range(&sent, request).cut_after(rest.min(500))
    })
    .await;
    assert_eq!(pull(&server, &digest, bytes.len()).await.unwrap(), bytes);
}

#[tokio::test]
async fn a_host_without_ranges_is_read_again_from_the_start() {
    let (bytes, digest) = content(50_000);
    let sent = bytes.clone();
    let server = scripted(move |count, _| match count {
        0 => Answer::ok(sent.clone()).cut_after(20_000),
        _ => Answer::ok(sent.clone()),
    })
    .await;
    assert_eq!(pull(&server, &digest, bytes.len()).await.unwrap(), bytes);
}

#[tokio::test]
async fn a_host_that_always_breaks_at_the_same_byte_is_given_up() {
    let (bytes, digest) = content(50_000);
    let sent = bytes.clone();
    let server = Server::start(move |_| Answer::ok(sent.clone()).cut_after(20_000)).await;
    let error = pull(&server, &digest, bytes.len()).await.unwrap_err();
    assert!(matches!(error, Error::Truncated { received: 20_000, expected: 50_000, .. }), "{error}");
    assert_eq!(error.kind(), Kind::DataLoss);
    assert_eq!(server.seen().len(), 4);
}

#[tokio::test]
async fn a_silent_connection_counts_as_broken() {
    let (bytes, digest) = content(50_000);
    let sent = bytes.clone();
    let server = scripted(move |count, request| match count {
        0 => Answer::range(&sent, request).stall_after(20_000),
        _ => Answer::range(&sent, request),
    })
    .await;
    let impatient = Registry::new(Config { read_timeout: Duration::from_millis(200), ..config() }).unwrap();
    let blob = impatient.blob(&app_at(&server), &digest, bytes.len() as u64, None).await.unwrap();
    assert_eq!(collect(blob).await.unwrap(), bytes);
}

#[tokio::test]
async fn a_stated_length_other_than_promised_is_refused_at_once() {
    let (bytes, digest) = content(1000);
    let server = Server::start(move |_| Answer::ok(bytes.clone())).await;
    for promised in [999, 1001] {
        let error = pull(&server, &digest, promised).await.unwrap_err();
        assert!(matches!(error, Error::SizeMismatch { actual: 1000, .. }), "{error}");
    }
}

#[tokio::test]
async fn more_bytes_than_promised_are_refused() {
    let (bytes, digest) = content(1000);
    let server = Server::start(move |_| Answer::ok(bytes.clone()).of_unstated_length()).await;
    let mut blob = registry().blob(&app_at(&server), &digest, 900, None).await.unwrap();
    let error = loop {
        match blob.chunk().await {
            Ok(chunk) => assert!(chunk.is_some(), "the stream ended as if all were well"),
            Err(error) => break error,
        }
    };
    assert!(matches!(error, Error::TooLarge { limit: 900, .. }), "{error}");
    assert_eq!(blob.chunk().await.unwrap(), None);
}

#[tokio::test]
async fn fewer_bytes_than_promised_are_an_error_when_the_length_was_not_stated() {
    let (bytes, digest) = content(1000);
    let server = Server::start(move |_| Answer::ok(bytes.clone()).of_unstated_length()).await;
    let error = pull(&server, &digest, 1100).await.unwrap_err();
    assert!(matches!(error, Error::Truncated { received: 1000, expected: 1100, .. }), "{error}");
}

#[tokio::test]
async fn a_wrong_range_in_answer_to_a_resume_is_refused() {
    let (bytes, digest) = content(1000);
    let sent = bytes.clone();
    let server = scripted(move |count, _| match count {
        0 => Answer::ok(sent.clone()).cut_after(500),
        _ => Answer::status(206).header("Content-Range", "bytes 600-999/1000").body(sent[600..].to_vec()),
    })
    .await;
    let error = pull(&server, &digest, bytes.len()).await.unwrap_err();
    assert!(matches!(error, Error::BadResponse { .. }), "{error}");
    assert!(error.to_string().contains("from byte 600, asked for 500"), "{error}");
}

#[tokio::test]
async fn a_resume_that_begins_early_is_cut_to_what_is_missing() {
    let (bytes, digest) = content(1000);
    let sent = bytes.clone();
    let server = scripted(move |count, _| match count {
        0 => Answer::ok(sent.clone()).cut_after(500),
        _ => Answer::status(206).header("Content-Range", "bytes 400-999/1000").body(sent[400..].to_vec()),
    })
    .await;
    assert_eq!(pull(&server, &digest, bytes.len()).await.unwrap(), bytes);
}

#[tokio::test]
async fn a_server_failure_is_tried_again() {
    let (bytes, digest) = content(1000);
    let sent = bytes.clone();
    let server = scripted(move |count, _| match count {
        0 => Answer::status(503),
        1 => Answer::status(429).header("Retry-After", "0"),
        _ => Answer::ok(sent.clone()),
    })
    .await;
    assert_eq!(pull(&server, &digest, bytes.len()).await.unwrap(), bytes);
}

#[tokio::test]
async fn a_lasting_server_failure_is_told_with_its_status() {
    let (_, digest) = content(10);
    let server = Server::start(|_| Answer::status(503)).await;
    let error = pull(&server, &digest, 10).await.unwrap_err();
    assert!(matches!(error, Error::ServerFailure { status: 503, .. }), "{error}");
    assert_eq!(error.kind(), Kind::Unavailable);
    assert_eq!(server.seen().len(), 4);
}

#[tokio::test]
async fn a_registry_that_wants_a_long_pause_gets_it_from_the_caller() {
    let (_, digest) = content(10);
    let far = httpdate::fmt_http_date(std::time::SystemTime::now() + Duration::from_secs(600));
    for (status, kind) in [(429, Kind::ResourceExhausted), (503, Kind::Unavailable)] {
        for when in ["600".to_owned(), far.clone()] {
            let server = Server::start(move |_| Answer::status(status).header("Retry-After", &when)).await;
            let error = pull(&server, &digest, 10).await.unwrap_err();
            assert_eq!((error.kind(), server.seen().len()), (kind, 1), "{status}");
        }
    }
}

#[tokio::test]
async fn a_blob_that_trickles_is_taken_up_again_and_given_up_in_the_end() {
    let (bytes, digest) = content(500);
    let whole = bytes.clone();
    let server =
        Server::start(move |request| Answer::range(&whole, request).trickled(Duration::from_millis(5))).await;
    let progress = Progress { bytes: 1000, within: Duration::from_millis(100) };
    let registry = Registry::new(Config { progress, ..config() }).unwrap();
    let mut blob = registry.blob(&app_at(&server), &digest, 500, None).await.unwrap();
    let error = loop {
        match blob.chunk().await {
            Ok(chunk) => assert!(chunk.is_some(), "must not come to an end"),
            Err(error) => break error,
        }
    };
    assert!(matches!(error, Error::TooSlow { received: 1..500, .. }), "{error}");
    assert_eq!(server.seen().len(), 4, "as often as any failure without progress");
}

#[tokio::test]
async fn slowly_is_not_too_slowly_and_a_slow_consumer_is_nobodys_fault() {
    let (bytes, digest) = content(100);
    let whole = bytes.clone();
    let server =
        Server::start(move |request| Answer::range(&whole, request).trickled(Duration::from_millis(2))).await;
    let progress = Progress { bytes: 5, within: Duration::from_secs(20) };
    let registry = Registry::new(Config { progress, ..config() }).unwrap();
    let mut blob = registry.blob(&app_at(&server), &digest, 100, None).await.unwrap();
    let mut all = Vec::new();
    while let Some(chunk) = blob.chunk().await.unwrap() {
        all.extend_from_slice(&chunk);
    }
    assert_eq!((all, server.seen().len()), (bytes.clone(), 1));
    let server = Server::start(move |_| Answer::ok(bytes.clone())).await;
    let progress = Progress { bytes: 1000, within: Duration::from_millis(300) };
    let registry = Registry::new(Config { progress, ..config() }).unwrap();
    let mut blob = registry.blob(&app_at(&server), &digest, 100, None).await.unwrap();
    tokio::time::sleep(Duration::from_millis(400)).await;
    assert!(blob.chunk().await.unwrap().is_some());
    assert_eq!(server.seen().len(), 1);
}

#[tokio::test]
async fn an_unknown_blob_is_not_found() {
    let (_, digest) = content(10);
    let server = Server::start(|_| {
        Answer::status(404)
            .body(r#"{"errors":[{"code":"BLOB_UNKNOWN","message":"blob unknown\n to registry"}]}"#)
    })
    .await;
    let error = pull(&server, &digest, 10).await.unwrap_err();
    assert_eq!(error.kind(), Kind::NotFound);
    assert!(error.to_string().ends_with(": blob unknown  to registry"), "{error}");
}

#[tokio::test]
async fn small_blobs_are_verified() {
    let (bytes, digest) = content(1000);
    let sent = bytes.clone();
    let server = Server::start(move |_| Answer::ok(sent.clone())).await;
    let image = app_at(&server);
    assert_eq!(registry().blob_bytes(&image, &digest, 1000, None).await.unwrap(), bytes);

    let (_, other) = content(999);
    let error = registry().blob_bytes(&image, &other, 1000, None).await.unwrap_err();
    assert!(matches!(&error, Error::DigestMismatch { actual, .. } if *actual == digest), "{error}");
    assert_eq!(error.kind(), Kind::DataLoss);
}

#[tokio::test]
async fn small_blobs_are_limited_whether_or_not_their_length_is_stated() {
    let (bytes, digest) = content(1001);
    let sent = bytes.clone();
    let server = scripted(move |count, _| match count {
        0 => Answer::ok(sent.clone()),
        _ => Answer::ok(sent.clone()).of_unstated_length(),
    })
    .await;
    for _ in 0..2 {
        let error = registry().blob_bytes(&app_at(&server), &digest, 1000, None).await.unwrap_err();
        assert!(matches!(error, Error::TooLarge { limit: 1000, .. }), "{error}");
    }
}

#[tokio::test]
async fn a_cut_small_blob_is_fetched_again() {
    let (bytes, digest) = content(1000);
    let sent = bytes.clone();
    let server = scripted(move |count, _| match count {
        0 => Answer::ok(sent.clone()).cut_after(10),
        _ => Answer::ok(sent.clone()),
    })
    .await;
    assert_eq!(registry().blob_bytes(&app_at(&server), &digest, 1000, None).await.unwrap(), bytes);
}

#[tokio::test]
async fn a_blob_can_be_read_from_another_task() {
    let (bytes, digest) = content(1000);
    let sent = bytes.clone();
    let server = Server::start(move |_| Answer::ok(sent.clone())).await;
    let (registry, image) = (registry(), app_at(&server));
    let task = tokio::spawn(async move { collect(registry.blob(&image, &digest, 1000, None).await?).await });
    assert_eq!(task.await.unwrap().unwrap(), bytes);
}
