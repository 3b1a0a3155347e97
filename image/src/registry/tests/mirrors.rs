use std::fs;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};

use tempfile::TempDir;

use super::super::{Config, Credentials, Error, Kind, Registry};
use super::server::{Answer, Server};
use super::{basic, config, content};
use crate::digest::Digest;
use crate::reference::Reference;

/// Configuration that sends pulls of one registry to the hosts in a hosts.toml.
struct Hosts(TempDir);

impl Hosts {
    fn new(registry: &str, text: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join(registry)).unwrap();
        fs::write(dir.path().join(registry).join("hosts.toml"), text).unwrap();
        Self(dir)
    }

    /// Configures `mirrors` in order, then `server`, for images of upstream.example.
    fn mirrored(mirrors: &[&Server], server: &Server) -> Self {
        let mut text = format!("server = {:?}\n", server.url());
        for mirror in mirrors {
            text += &format!("[host.{:?}]\n", mirror.url());
        }
        Self::new("upstream.example", &text)
    }

    fn dirs(&self) -> Vec<PathBuf> {
        vec![self.0.path().to_owned()]
    }

    fn registry(&self) -> Registry {
        Registry::new(Config { hosts_dirs: self.dirs(), ..config() }).unwrap()
    }
}

fn app() -> Reference {
    "upstream.example/team/app:v1".parse().unwrap()
}

#[tokio::test]
async fn a_mirror_is_asked_first_and_told_the_namespace() {
    let mirror = Server::start(|_| Answer::ok("{}")).await;
    let upstream = Server::start(|_| Answer::ok("{}")).await;
    let hosts = Hosts::mirrored(&[&mirror], &upstream);
    hosts.registry().manifest(&app(), None, None).await.unwrap();
    assert_eq!(mirror.targets(), ["/v2/team/app/manifests/v1?ns=upstream.example"]);
    assert!(upstream.seen().is_empty());
}

#[tokio::test]
async fn any_failure_of_a_mirror_leads_to_the_next_host() {
    for status in [400, 401, 403, 404, 429, 500, 503] {
        let mirror = Server::start(move |_| Answer::status(status)).await;
        let second = Server::start(|_| Answer::ok("{}")).await;
        let upstream = Server::start(|_| Answer::status(500)).await;
        let hosts = Hosts::mirrored(&[&mirror, &second], &upstream);
        hosts.registry().manifest(&app(), None, None).await.unwrap();
        assert_eq!((mirror.seen().len(), second.seen().len(), upstream.seen().len()), (1, 1, 0), "{status}");
    }
}

#[tokio::test]
async fn a_mirror_that_is_not_there_is_passed_over() {
    let gone = Server::start(|_| Answer::status(500)).await;
    let upstream = Server::start(|_| Answer::ok("{}")).await;
    let hosts = Hosts::mirrored(&[&gone], &upstream);
    drop(gone);
    hosts.registry().manifest(&app(), None, None).await.unwrap();
}

#[tokio::test]
async fn when_all_fail_each_is_told_and_the_last_decides() {
    let mirror = Server::start(|_| Answer::status(403)).await;
    let upstream = Server::start(|_| Answer::status(404)).await;
    let hosts = Hosts::mirrored(&[&mirror], &upstream);
    let error = hosts.registry().manifest(&app(), None, None).await.unwrap_err();
    assert!(matches!(&error, Error::AllFailed { tries, .. } if tries.len() == 2), "{error}");
    assert_eq!(error.kind(), Kind::NotFound);
    let message = error.to_string();
    assert!(message.contains(&mirror.url()) && message.contains(&upstream.url()), "{message}");
}

#[tokio::test]
async fn a_mirror_with_other_content_is_passed_over_when_the_digest_is_known() {
    let mirror = Server::start(|_| Answer::ok("tampered")).await;
    let upstream = Server::start(|_| Answer::ok("{}")).await;
    let hosts = Hosts::mirrored(&[&mirror], &upstream);
    let digest = Digest::sha256(b"{}");
    let manifest = hosts.registry().manifest(&app(), Some(&digest), None).await.unwrap();
    assert_eq!(manifest.bytes, b"{}");
    assert_eq!(hosts.registry().blob_bytes(&app(), &digest, 100, None).await.unwrap(), b"{}");
}

#[tokio::test]
async fn a_host_that_may_not_resolve_is_not_asked_for_tags() {
    let mirror = Server::start(|_| Answer::ok("{}")).await;
    let upstream = Server::start(|_| Answer::ok("{}")).await;
    let text = format!("server = {:?}\n[host.{:?}]\ncapabilities = [\"pull\"]", upstream.url(), mirror.url());
    let hosts = Hosts::new("upstream.example", &text);
    hosts.registry().manifest(&app(), None, None).await.unwrap();
    assert!(mirror.seen().is_empty());
    hosts.registry().manifest(&app(), Some(&Digest::sha256(b"{}")), None).await.unwrap();
    assert_eq!(mirror.seen().len(), 1);
}

#[tokio::test]
async fn when_no_host_may_be_asked_the_configuration_is_blamed() {
    let hosts = Hosts::new("upstream.example", "capabilities = [\"push\"]");
    let error = hosts.registry().manifest(&app(), None, None).await.unwrap_err();
    assert_eq!(error.kind(), Kind::FailedPrecondition);
    assert!(error.to_string().contains("lets no host be asked"), "{error}");
    let (_, digest) = content(1);
    let error = hosts.registry().blob(&app(), &digest, 1, None).await.unwrap_err();
    assert_eq!(error.kind(), Kind::FailedPrecondition);
}

#[tokio::test]
async fn a_mirror_never_sees_the_credentials() {
    let challenge = || Answer::challenge("Basic realm=mirror");
    let mirror = Server::start(move |_| challenge()).await;
    let upstream = Server::start(|_| Answer::ok("{}")).await;
    let hosts = Hosts::mirrored(&[&mirror], &upstream);
    hosts.registry().manifest(&app(), None, Some(&basic())).await.unwrap();
    assert!(mirror.seen().iter().all(|request| request.header("authorization").is_none()));
    assert!(upstream.seen().iter().all(|request| request.header("authorization").is_none()));
}

#[tokio::test]
async fn a_mirrors_token_service_is_asked_anonymously() {
    let mirror = Server::start(|request| {
        match (request.target.starts_with("/token"), request.header("authorization")) {
            (true, None) => Answer::ok(r#"{"access_token":"anonymous"}"#),
            (false, Some("Bearer anonymous")) => Answer::ok("{}"),
            (false, None) => {
                let host = request.header("host").unwrap();
                Answer::challenge(&format!(
                    "Bearer realm=\"http://{host}/token\",scope=\"repository:cache/team/app:pull\""
                ))
            }
            _ => Answer::status(400),
        }
    })
    .await;
    let upstream = Server::start(|_| Answer::status(500)).await;
    let hosts = Hosts::mirrored(&[&mirror], &upstream);
    hosts.registry().manifest(&app(), None, Some(&basic())).await.unwrap();
    assert!(
        mirror.targets()[1].contains("scope=repository%3Acache%2Fteam%2Fapp%3Apull"),
        "{:?}",
        mirror.targets()
    );
}

/// A server that gives a token only for ann's password, and content only for that token.
async fn guarded() -> Server {
    Server::start(|request| {
        let authorization = request.header("authorization").unwrap_or_default();
        match (request.target.starts_with("/token"), authorization) {
            (true, "Basic YW5uOnMzY3JldA==") => Answer::ok(r#"{"access_token":"hers"}"#),
            (false, "Bearer hers") => Answer::ok("{}"),
            (false, _) => {
                let host = request.header("host").unwrap();
                Answer::challenge(&format!("Bearer realm=\"http://{host}/token\""))
            }
            _ => Answer::status(401),
        }
    })
    .await
}

#[tokio::test]
async fn a_mirror_gets_a_token_for_its_own_credentials() {
    let mirror = guarded().await;
    let upstream = Server::start(|_| Answer::status(500)).await;
    let text = format!(
        "server = {:?}\n[host.{:?}.header]\nauthorization = \"Basic YW5uOnMzY3JldA==\"",
        upstream.url(),
        mirror.url()
    );
    let hosts = Hosts::new("upstream.example", &text);
    let other = Credentials::Basic { user: "bob".to_owned(), password: "other".to_owned() };
    hosts.registry().manifest(&app(), None, Some(&other)).await.unwrap();
    assert!(upstream.seen().is_empty());
}

#[tokio::test]
async fn a_server_elsewhere_is_shown_the_credentials() {
    let server = guarded().await;
    let hosts = Hosts::mirrored(&[], &server);
    hosts.registry().manifest(&app(), None, Some(&basic())).await.unwrap();
}

#[tokio::test]
async fn credentials_that_were_not_shown_are_not_called_missing() {
    for answer in [Answer::challenge("Basic realm=mirror"), Answer::status(403)] {
        let server = Server::start(move |_| answer.clone()).await;
        let hosts = Hosts::new("_default", &format!("server = {:?}", server.url()));
        let error = hosts.registry().manifest(&app(), None, Some(&basic())).await.unwrap_err();
        let said = "the credentials given are for upstream.example and were not shown to it";
        assert!(error.to_string().ends_with(said), "{error}");
        let error = hosts.registry().manifest(&app(), None, None).await.unwrap_err();
        assert!(!error.to_string().contains("not shown"), "{error}");
    }
}

#[tokio::test]
async fn headers_go_to_their_host_and_not_past_a_redirect() {
    let storage = Server::start(|_| Answer::ok("{}")).await;
    let location = format!("{}/x", storage.url());
    let mirror = Server::start(move |_| Answer::redirect(&location)).await;
    let text = format!("[host.{:?}.header]\nX-Key = \"secret\"", mirror.url());
    let hosts = Hosts::new("upstream.example", &text);
    hosts.registry().manifest(&app(), None, None).await.unwrap();
    assert_eq!(mirror.seen()[0].header("x-key"), Some("secret"));
    assert_eq!(storage.seen()[0].header("x-key"), None);
}

#[tokio::test]
async fn a_blob_is_finished_at_another_host_when_the_first_breaks_down() {
    let (bytes, digest) = content(10_000);
    let (whole, rest) = (bytes.clone(), bytes.clone());
    let mirror = Server::start(move |request| match request.offset() {
        0 => Answer::ok(whole.clone()).cut_after(4000),
        _ => Answer::status(404),
    })
    .await;
    let upstream = Server::start(move |request| Answer::range(&rest, request)).await;
    let hosts = Hosts::mirrored(&[&mirror], &upstream);
    let mut blob = hosts.registry().blob(&app(), &digest, 10_000, None).await.unwrap();
    let mut all = Vec::new();
    while let Some(chunk) = blob.chunk().await.unwrap() {
        all.extend_from_slice(&chunk);
    }
    assert_eq!(all, bytes);
    assert_eq!(upstream.seen()[0].offset(), 4000);
}

#[tokio::test]
async fn a_registry_that_fails_under_way_is_waited_for_though_its_mirror_has_nothing() {
    let (bytes, digest) = content(10_000);
    let count = AtomicUsize::new(0);
    let sent = bytes.clone();
    let mirror = Server::start(|_| Answer::status(404)).await;
    let upstream = Server::start(move |request| match count.fetch_add(1, Ordering::SeqCst) {
        0 => Answer::ok(sent.clone()).cut_after(4000),
        1 => Answer::status(503),
        _ => Answer::range(&sent, request),
    })
    .await;
    let hosts = Hosts::mirrored(&[&mirror], &upstream);
    let mut blob = hosts.registry().blob(&app(), &digest, 10_000, None).await.unwrap();
    let mut length = 0;
    while let Some(chunk) = blob.chunk().await.unwrap() {
        length += chunk.len();
    }
    assert_eq!((length, upstream.seen().len()), (10_000, 3));
}

#[tokio::test]
async fn the_configuration_is_read_at_every_pull() {
    let (one, two) = (Server::start(|_| Answer::ok("1")).await, Server::start(|_| Answer::ok("2")).await);
    let hosts = Hosts::mirrored(&[], &one);
    let registry = hosts.registry();
    assert_eq!(registry.manifest(&app(), None, None).await.unwrap().bytes, b"1");
    let file = hosts.0.path().join("upstream.example/hosts.toml");
    fs::write(file, format!("server = {:?}", two.url())).unwrap();
    assert_eq!(registry.manifest(&app(), None, None).await.unwrap().bytes, b"2");
}
