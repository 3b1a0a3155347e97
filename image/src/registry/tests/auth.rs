use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::super::{Credentials, Error, Kind};
use super::server::{Answer, Request, Server};
use super::{app_at, basic, content, registry};

/// `ann:s3cret`
const BASIC: &str = "Basic YW5uOnMzY3JldA==";
const SCOPE: &str = "repository:team/app:pull";

fn authorization(request: &Request) -> Option<&str> {
    request.header("authorization")
}

fn path(request: &Request) -> &str {
    request.target.split('?').next().unwrap()
}

fn query(request: &Request) -> Vec<(String, String)> {
    let query = request.target.split_once('?').map_or("", |(_, query)| query);
    url::form_urlencoded::parse(query.as_bytes()).into_owned().collect()
}

fn pair(name: &str, value: &str) -> (String, String) {
    (name.to_owned(), value.to_owned())
}

/// A registry whose own `/token` issues token-1, token-2, and so on. Only the newest is valid, for `lifetime` uses.
async fn bearer_registry(
    lifetime: usize,
    token_answer: impl Fn(&Request) -> Option<Answer> + Send + Sync + 'static,
) -> Server {
    let (given, used) = (AtomicUsize::new(0), AtomicUsize::new(0));
    Server::start(move |request| {
        if path(request) == "/token" {
            let refusal = token_answer(request);
            return refusal.unwrap_or_else(|| {
                used.store(0, Ordering::SeqCst);
                let number = given.fetch_add(1, Ordering::SeqCst) + 1;
                Answer::ok(format!(r#"{{"token":"token-{number}","expires_in":300}}"#))
            });
        }
        let good = format!("Bearer token-{}", given.load(Ordering::SeqCst));
        if authorization(request) == Some(&good) && used.fetch_add(1, Ordering::SeqCst) < lifetime {
            return Answer::ok("{}");
        }
        let host = request.header("host").unwrap();
        Answer::challenge(&format!(
            r#"Bearer realm="http://{host}/token",service="the \"registry\"",scope="{SCOPE}""#
        ))
    })
    .await
}

fn token_requests(server: &Server) -> Vec<Request> {
    server.seen().into_iter().filter(|request| path(request) == "/token").collect()
}

#[tokio::test]
async fn basic_credentials_are_sent_when_challenged_and_then_at_once() {
    let server = Server::start(|request| match authorization(request) {
        Some(BASIC) => Answer::ok("{}"),
        _ => Answer::challenge(r#"Basic realm="here""#),
    })
    .await;
    let registry = registry();
    for _ in 0..2 {
        registry.manifest(&app_at(&server), None, Some(&basic())).await.unwrap();
    }
    let sent: Vec<_> =
        server.seen().iter().map(|request| request.header("authorization").is_some()).collect();
    assert_eq!(sent, [false, true, true]);
}

#[tokio::test]
async fn wrong_credentials_are_unauthenticated_and_tried_once() {
    let server = Server::start(|_| {
        Answer::challenge(r#"Basic realm="here""#)
            .body(r#"{"errors":[{"code":"UNAUTHORIZED","message":"no such user"}]}"#)
    })
    .await;
    let error = registry().manifest(&app_at(&server), None, Some(&basic())).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Unauthenticated);
    assert!(error.to_string().ends_with("no such user"), "{error}");
    assert_eq!(server.seen().len(), 2);
}

#[tokio::test]
async fn missing_credentials_are_told() {
    let server = Server::start(|_| Answer::challenge(r#"Basic realm="here""#)).await;
    let error = registry().manifest(&app_at(&server), None, None).await.unwrap_err();
    assert!(error.to_string().ends_with("no credentials were given"), "{error}");
    let token = Credentials::IdentityToken("refresh".to_owned());
    let error = registry().manifest(&app_at(&server), None, Some(&token)).await.unwrap_err();
    assert!(error.to_string().ends_with("wants user and password"), "{error}");
}

#[tokio::test]
async fn an_unknown_scheme_is_told() {
    let server = Server::start(|_| Answer::challenge("Negotiate abc==")).await;
    let error = registry().manifest(&app_at(&server), None, Some(&basic())).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Unauthenticated);
    assert!(error.to_string().contains("no authentication we know"), "{error}");
}

#[tokio::test]
async fn an_anonymous_token_is_fetched_once_and_reused() {
    let server = bearer_registry(usize::MAX, |_| None).await;
    let registry = registry();
    for _ in 0..3 {
        registry.manifest(&app_at(&server), None, None).await.unwrap();
    }
    let tokens = token_requests(&server);
    assert_eq!(tokens.len(), 1);
    assert_eq!(query(&tokens[0]), [pair("service", "the \"registry\""), pair("scope", SCOPE)]);
    assert_eq!((tokens[0].method.as_str(), authorization(&tokens[0])), ("GET", None));
}

#[tokio::test]
async fn a_token_is_asked_for_with_user_and_password() {
    let server = bearer_registry(usize::MAX, |request| {
        (request.header("authorization") != Some(BASIC)).then(|| Answer::status(401))
    })
    .await;
    registry().manifest(&app_at(&server), None, Some(&basic())).await.unwrap();
    assert!(query(&token_requests(&server)[0]).contains(&pair("account", "ann")));

    let error = registry().manifest(&app_at(&server), None, None).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Unauthenticated);
}

#[tokio::test]
async fn an_identity_token_is_exchanged_by_post() {
    let server = bearer_registry(usize::MAX, |_| None).await;
    let identity = Credentials::IdentityToken("re fresh&".to_owned());
    registry().manifest(&app_at(&server), None, Some(&identity)).await.unwrap();
    let request = &token_requests(&server)[0];
    assert_eq!(request.method, "POST");
    let form: Vec<_> = url::form_urlencoded::parse(request.body.as_bytes()).into_owned().collect();
    for expected in [
        pair("grant_type", "refresh_token"),
        pair("refresh_token", "re fresh&"),
        pair("scope", SCOPE),
        pair("service", "the \"registry\""),
    ] {
        assert!(form.contains(&expected), "{form:?}");
    }
}

#[tokio::test]
async fn a_registry_token_is_sent_as_it_is() {
    let server = Server::start(|request| match authorization(request) {
        Some("Bearer given") => Answer::ok("{}"),
        _ => Answer::challenge(r#"Bearer realm="http://unused.invalid/""#),
    })
    .await;
    let token = Credentials::RegistryToken("given".to_owned());
    registry().manifest(&app_at(&server), None, Some(&token)).await.unwrap();
}

#[tokio::test]
async fn a_token_refused_after_some_use_is_renewed_once() {
    let server = bearer_registry(2, |_| None).await;
    let registry = registry();
    for _ in 0..4 {
        registry.manifest(&app_at(&server), None, None).await.unwrap();
    }
    assert_eq!(token_requests(&server).len(), 2);
}

#[tokio::test]
async fn a_token_that_is_refused_at_once_is_not_renewed_for_ever() {
    let server = bearer_registry(0, |_| None).await;
    let error = registry().manifest(&app_at(&server), None, None).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Unauthenticated);
    assert_eq!(token_requests(&server).len(), 1);
}

#[tokio::test]
async fn requests_at_once_wait_for_one_token() {
    let server = bearer_registry(usize::MAX, |_| None).await;
    let (registry, image) = (registry(), Arc::new(app_at(&server)));
    let pulls = (0..8).map(|_| {
        let (registry, image) = (registry.clone(), image.clone());
        tokio::spawn(async move { registry.manifest(&image, None, None).await.map(|_| ()) })
    });
    for pull in pulls.collect::<Vec<_>>() {
        pull.await.unwrap().unwrap();
    }
    assert_eq!(token_requests(&server).len(), 1);
}

#[tokio::test]
async fn a_token_is_not_shared_between_credentials() {
    let server = bearer_registry(usize::MAX, |_| None).await;
    let registry = registry();
    registry.manifest(&app_at(&server), None, Some(&basic())).await.unwrap();
    registry.manifest(&app_at(&server), None, None).await.unwrap();
    let sent: Vec<_> =
        token_requests(&server).iter().map(|it| authorization(it).map(str::to_owned)).collect();
    assert_eq!(sent, [Some(BASIC.to_owned()), None]);
}

#[tokio::test]
async fn the_token_service_may_fail_in_any_way() {
    let cases: [(Answer, Kind); 7] = [
        (Answer::ok("{}"), Kind::Internal),
        (Answer::ok(r#"{"token":""}"#), Kind::Internal),
        (Answer::ok(r#"{"token":"with\nnewline"}"#), Kind::Internal),
        (Answer::ok("not json"), Kind::Internal),
        (Answer::redirect("http://elsewhere.invalid/"), Kind::Internal),
        (Answer::status(403), Kind::PermissionDenied),
        (Answer::status(429).header("Retry-After", "100"), Kind::ResourceExhausted),
    ];
    for (answer, kind) in cases {
        let server = bearer_registry(1, move |_| Some(answer.clone())).await;
        let error = registry().manifest(&app_at(&server), None, Some(&basic())).await.unwrap_err();
        assert_eq!(error.kind(), kind, "{error}");
    }
}

#[tokio::test]
async fn a_challenge_without_a_usable_realm_is_a_bad_response() {
    for challenge in ["Bearer", r#"Bearer realm="not an address""#, r#"Bearer realm="file:///etc/shadow""#] {
        let server = Server::start(move |_| Answer::challenge(challenge)).await;
        let error = registry().manifest(&app_at(&server), None, None).await.unwrap_err();
        assert!(matches!(error, Error::BadResponse { .. }), "{challenge}: {error}");
    }
}

#[tokio::test]
async fn credentials_do_not_follow_a_redirect_to_another_host() {
    let (bytes, digest) = content(100);
    let sent = bytes.clone();
    let storage = Server::start(move |_| Answer::ok(sent.clone())).await;
    let location = format!("{}/storage?signature=abc", storage.url());
    let server = Server::start(move |request| match authorization(request) {
        Some(BASIC) => Answer::redirect(&location),
        _ => Answer::challenge("Basic realm=here"),
    })
    .await;
    let fetched = registry().blob_bytes(&app_at(&server), &digest, 100, Some(&basic())).await.unwrap();
    assert_eq!(fetched, bytes);
    assert_eq!(authorization(&storage.seen()[0]), None);
}

#[tokio::test]
async fn a_challenge_of_a_redirects_target_is_not_answered() {
    let (_, digest) = content(100);
    let storage = Server::start(|_| Answer::challenge("Basic realm=storage")).await;
    let location = format!("{}/storage", storage.url());
    let server = Server::start(move |_| Answer::redirect(&location)).await;
    let error = registry().blob_bytes(&app_at(&server), &digest, 100, Some(&basic())).await.unwrap_err();
    assert!(matches!(&error, Error::Unauthorized { host, .. } if *host == storage.url()), "{error}");
    assert_eq!((storage.seen().len(), authorization(&storage.seen()[0])), (1, None));
}

#[test]
fn credentials_keep_their_secrets_when_printed() {
    let all = [
        Credentials::Basic { user: "ann".to_owned(), password: "SECRET".to_owned() },
        Credentials::IdentityToken("SECRET".to_owned()),
        Credentials::RegistryToken("SECRET".to_owned()),
    ];
    let printed = format!("{all:?}");
    assert!(printed.contains("ann") && !printed.contains("SECRET"), "{printed}");
}
