use std::time::Duration;

use super::super::{Config, Error, Kind, Progress, Registry};
use super::server::{Answer, Server};
use super::{app_at, config, registry};
use crate::digest::{Algorithm, Digest};
use crate::reference::Reference;

const INDEX: &str = "application/vnd.oci.image.index.v1+json";
const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";

#[tokio::test]
async fn a_tag_gives_the_document_its_type_and_the_computed_digest() {
    let server = Server::start(|_| {
        Answer::ok("{}")
            .header("Content-Type", &format!("{INDEX}; charset=utf-8"))
            .header("Docker-Content-Digest", &Digest::sha256(b"a lie").to_string())
    })
    .await;
    let manifest = registry().manifest(&app_at(&server), None, None).await.unwrap();
    assert_eq!((manifest.bytes.as_slice(), manifest.content_type.as_str()), (b"{}".as_slice(), INDEX));
    assert_eq!(manifest.digest, Digest::sha256(b"{}"));
    assert_eq!(server.targets(), ["/v2/team/app/manifests/v1"]);
    let accept = server.seen()[0].header("accept").unwrap().to_owned();
    assert!(accept.contains(INDEX) && accept.contains(MANIFEST), "{accept}");
}

#[tokio::test]
async fn a_digest_alone_is_asked_for_by_head() {
    let digest = Digest::sha256(b"what the registry says");
    let stated = digest.to_string();
    let server = Server::start(move |request| match request.method.as_str() {
        "HEAD" => Answer::status(200).header("Docker-Content-Digest", &stated),
        _ => Answer::status(500),
    })
    .await;
    assert_eq!(registry().digest(&app_at(&server), None).await.unwrap(), digest);
    let pinned: Reference = format!("{}@{}", app_at(&server), Digest::sha256(b"{}")).parse().unwrap();
    assert_eq!(registry().digest(&pinned, None).await.unwrap(), Digest::sha256(b"{}"));
    let silent = Server::start(|_| Answer::status(200)).await;
    let error = registry().digest(&app_at(&silent), None).await.unwrap_err();
    assert!(error.to_string().ends_with("it does not say the digest"), "{error}");
}

#[tokio::test]
async fn a_document_that_trickles_is_given_up() {
    let server = Server::start(|_| Answer::ok(vec![b' '; 100]).trickled(Duration::from_millis(5))).await;
    let progress = Progress { bytes: 1000, within: Duration::from_millis(50) };
    let registry = Registry::new(Config { progress, ..config() }).unwrap();
    let error = registry.manifest(&app_at(&server), None, None).await.unwrap_err();
    assert!(matches!(error, Error::TooSlow { .. }), "{error}");
    assert_eq!(error.kind(), Kind::Unavailable);
}

#[tokio::test]
async fn a_digest_is_asked_for_and_verified() {
    for algorithm in [Algorithm::Sha256, Algorithm::Sha512] {
        let server = Server::start(|_| Answer::ok("{}")).await;
        let digest = Digest::of(algorithm, b"{}");
        let image = app_at(&server);
        let pinned: Reference = format!("{image}@{digest}").parse().unwrap();
        let by_reference = registry().manifest(&pinned, None, None).await.unwrap();
        let by_argument = registry().manifest(&image, Some(&digest), None).await.unwrap();
        assert_eq!((&by_reference.digest, &by_argument.digest), (&digest, &digest));
        assert!(server.targets().iter().all(|target| *target == format!("/v2/team/app/manifests/{digest}")));

        let other = Digest::of(algorithm, b"else");
        let error = registry().manifest(&image, Some(&other), None).await.unwrap_err();
        assert!(matches!(error, Error::DigestMismatch { .. }), "{error}");
    }
}

#[tokio::test]
async fn a_manifest_beyond_the_limit_is_refused() {
    let server = Server::start(|_| Answer::ok(vec![b' '; (4 << 20) + 1])).await;
    let error = registry().manifest(&app_at(&server), None, None).await.unwrap_err();
    assert!(matches!(error, Error::TooLarge { .. }), "{error}");
}

#[tokio::test]
async fn an_unknown_image_is_not_found_and_named() {
    let server = Server::start(|_| {
        Answer::status(404).body(r#"{"errors":[{"code":"MANIFEST_UNKNOWN","message":"manifest unknown"}]}"#)
    })
    .await;
    let error = registry().manifest(&app_at(&server), None, None).await.unwrap_err();
    assert_eq!(error.kind(), Kind::NotFound);
    let expected = format!("manifest {} not found at {}: manifest unknown", app_at(&server), server.url());
    assert_eq!(error.to_string(), expected);
}

#[tokio::test]
async fn statuses_become_kinds() {
    let cases = [
        (401, Kind::Unauthenticated),
        (403, Kind::PermissionDenied),
        (404, Kind::NotFound),
        (429, Kind::ResourceExhausted),
        (500, Kind::Unavailable),
        (502, Kind::Unavailable),
        (400, Kind::Internal),
        (406, Kind::Internal),
        (304, Kind::Internal),
    ];
    for (status, kind) in cases {
        let server = Server::start(move |_| Answer::status(status).body("<html>no</html>")).await;
        let error = registry().manifest(&app_at(&server), None, None).await.unwrap_err();
        assert_eq!(error.kind(), kind, "{status}: {error}");
    }
}

#[tokio::test]
async fn a_registry_that_is_not_there_is_unavailable_and_named() {
    let server = Server::start(|_| Answer::status(500)).await;
    let image = app_at(&server);
    let authority = server.authority();
    drop(server);
    let error = registry().manifest(&image, None, None).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Unavailable);
    assert!(error.to_string().contains(&authority), "{error}");
}

#[tokio::test]
async fn a_redirect_is_followed_but_not_for_ever() {
    let server = Server::start(|request| match request.target.as_str() {
        "/v2/team/app/manifests/v1" => Answer::redirect("/elsewhere"),
        "/elsewhere" => Answer::ok("{}"),
        _ => Answer::redirect("/v2/team/app/manifests/round"),
    })
    .await;
    registry().manifest(&app_at(&server), None, None).await.unwrap();
    let round = app_at(&server).with_tag("round").unwrap();
    let error = registry().manifest(&round, None, None).await.unwrap_err();
    assert!(error.to_string().contains("redirects without end"), "{error}");
}

#[tokio::test]
async fn a_redirect_to_something_else_than_the_web_is_refused() {
    let server = Server::start(|_| Answer::redirect("file:///etc/passwd")).await;
    let error = registry().manifest(&app_at(&server), None, None).await.unwrap_err();
    assert!(error.to_string().contains("no web address"), "{error}");
}
