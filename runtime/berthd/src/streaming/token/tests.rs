#![allow(clippy::unwrap_used)]

use super::*;

fn forward(pod: &str) -> Request {
    Request::Forward { pod: pod.into() }
}

fn tokens() -> Tokens {
    Tokens::new("http://127.0.0.1:1")
}

fn path(url: &str) -> &str {
    url.strip_prefix("http://127.0.0.1:1").unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_token_is_good_once() {
    let tokens = tokens();
    let (one, other) = (tokens.issue(forward("a")).unwrap(), tokens.issue(forward("b")).unwrap());
    assert_ne!(one, other);
    assert_eq!(path(&one).len(), "/portforward/".len() + 64);
    assert_eq!(tokens.redeem(path(&one)), Some(forward("a")));
    assert_eq!(tokens.redeem(path(&one)), None);
    assert_eq!(tokens.redeem(path(&other)), Some(forward("b")));
}

#[tokio::test(start_paused = true)]
async fn a_token_is_good_for_what_it_was_issued_for_only() {
    let tokens = tokens();
    let url = tokens.issue(forward("a")).unwrap();
    let token = url.rsplit('/').next().unwrap();
    for wrong in [format!("/exec/{token}"), format!("/{token}"), format!("/portforward/{token}/"), "".into()]
    {
        assert_eq!(tokens.redeem(&wrong), None, "{wrong}");
    }
    assert_eq!(tokens.redeem(path(&url)), Some(forward("a")));
}

#[tokio::test(start_paused = true)]
async fn a_token_is_good_for_a_minute() {
    let tokens = tokens();
    let (used, late) = (tokens.issue(forward("a")).unwrap(), tokens.issue(forward("a")).unwrap());
    tokio::time::advance(Duration::from_secs(59)).await;
    assert!(tokens.redeem(path(&used)).is_some());
    tokio::time::advance(Duration::from_secs(1)).await;
    assert!(tokens.redeem(path(&late)).is_none());
}

#[tokio::test(start_paused = true)]
async fn tokens_that_nobody_uses_are_limited_and_make_room_with_time() {
    let tokens = tokens();
    for _ in 0..MAX_UNUSED_TOKENS {
        tokens.issue(forward("a")).unwrap();
    }
    assert_eq!(tokens.issue(forward("a")).unwrap_err().kind(), Kind::ResourceExhausted);
    tokio::time::advance(TOKEN_LIFETIME).await;
    tokens.issue(forward("a")).unwrap();
    assert_eq!(tokens.lock().len(), 1);
}
