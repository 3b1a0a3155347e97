#![allow(clippy::unwrap_used)]

use std::future::pending;

use berth_cri::v1::{StopContainerRequest, StopContainerResponse, VersionRequest, VersionResponse};
use tokio::sync::oneshot;
use tonic::Code;

use super::*;

fn waiting<Q>(message: Q, timeout: &'static str) -> Request<Q> {
    let mut request = Request::new(message);
    request.metadata_mut().insert("grpc-timeout", timeout.parse().unwrap());
    request
}

#[test]
fn timeouts_are_read_as_grpc_writes_them() {
    for (text, expected) in [
        ("2H", Some(Duration::from_secs(7200))),
        ("3M", Some(Duration::from_secs(180))),
        ("5S", Some(Duration::from_secs(5))),
        ("1m", Some(Duration::from_millis(1))),
        ("99999999u", Some(Duration::from_micros(99_999_999))),
        ("7n", Some(Duration::from_nanos(7))),
        ("", None),
        ("S", None),
        ("5", None),
        ("5s", None),
        ("-5S", None),
        ("999999999S", None),
        ("5é", None),
    ] {
        assert_eq!(parse_timeout(text), expected, "{text}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_call_that_looks_is_given_up_at_its_deadline() {
    let request = waiting(VersionRequest::default(), "10S");
    let error = answer("Version", request, |_| pending::<Result<VersionResponse>>()).await.unwrap_err();
    assert_eq!(error.code(), Code::DeadlineExceeded);
    assert!(error.message().starts_with("Version is not done after 9.5s"), "{}", error.message());
}

#[tokio::test(start_paused = true)]
async fn a_call_that_changes_goes_on_after_its_deadline() {
    let (go, gone) = oneshot::channel::<()>();
    let (finish, finished) = oneshot::channel::<()>();
    let request = waiting(StopContainerRequest::default(), "1S");
    let error = complete("StopContainer", request, |_| async move {
        gone.await.unwrap();
        finish.send(()).unwrap();
        Ok(StopContainerResponse {})
    })
    .await
    .unwrap_err();
    assert_eq!(error.code(), Code::DeadlineExceeded);
    assert!(error.message().contains("it goes on"), "{}", error.message());
    go.send(()).unwrap();
    finished.await.unwrap();
}

#[tokio::test]
async fn a_call_that_changes_goes_on_when_its_caller_leaves() {
    let (go, gone) = oneshot::channel::<()>();
    let (finish, finished) = oneshot::channel::<()>();
    let call = complete("StopContainer", Request::new(StopContainerRequest::default()), |_| async move {
        gone.await.unwrap();
        finish.send(()).unwrap();
        Ok(StopContainerResponse {})
    });
    let mut call = Box::pin(call);
    assert!(futures::poll!(&mut call).is_pending());
    drop(call);
    go.send(()).unwrap();
    finished.await.unwrap();
}

#[tokio::test]
async fn a_call_that_panics_fails_alone() {
    #[allow(clippy::panic)]
    let error = complete("StopContainer", Request::new(StopContainerRequest::default()), |_| async {
        if true {
            panic!("a fault of ours");
        }
        Ok(StopContainerResponse {})
    })
    .await
    .unwrap_err();
    assert_eq!(error.code(), Code::Internal);
}

#[tokio::test(start_paused = true)]
async fn a_stream_ends_at_its_deadline_after_what_came_before() {
    let request = waiting(VersionRequest::default(), "10S");
    let messages = stream::iter([Ok(1)]).chain(stream::pending());
    let told = answer_stream("Version", request, async |_| Ok(messages)).await.unwrap();
    let told: Vec<_> = told.into_inner().collect().await;
    assert_eq!(told[0].as_ref().unwrap(), &1);
    let error = told[1].as_ref().unwrap_err();
    assert_eq!((told.len(), error.code()), (2, Code::DeadlineExceeded));
}

#[tokio::test]
async fn nothing_of_a_stream_comes_after_its_error() {
    let wrong = Error::new(Kind::NotFound, "gone");
    let messages = stream::iter([Ok(1), Err(wrong), Ok(2)]);
    let request = Request::new(VersionRequest::default());
    let told = answer_stream("Version", request, async |_| Ok(messages)).await.unwrap();
    let told: Vec<_> = told.into_inner().map(|message| message.map_err(|error| error.code())).collect().await;
    assert_eq!(told, [Ok(1), Err(Code::NotFound)]);
}
