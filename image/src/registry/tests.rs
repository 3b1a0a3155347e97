#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod auth;
mod blobs;
mod challenges;
mod hosts;
mod manifests;
mod mirrors;
mod server;
mod tls;

use std::time::Duration;

use self::server::Server;
use super::{Config, Credentials, Registry, Retry};
use crate::digest::Digest;
use crate::reference::Reference;

/// Returns a configuration with short pauses and no hosts.
fn config() -> Config {
    let retry =
        Retry { limit: 3, first_pause: Duration::from_millis(1), longest_pause: Duration::from_millis(4) };
    Config { retry, ..Config::default() }
}

fn registry() -> Registry {
    Registry::new(config()).unwrap()
}

/// The image `team/app:v1` at `server`.
fn app_at(server: &Server) -> Reference {
    format!("{}/team/app:v1", server.authority()).parse().unwrap()
}

fn basic() -> Credentials {
    Credentials::Basic { user: "ann".to_owned(), password: "s3cret".to_owned() }
}

/// Returns deterministic content of a given length, and its digest.
fn content(length: usize) -> (Vec<u8>, Digest) {
    let bytes: Vec<u8> = (0..length).map(|i| u8::try_from(i.wrapping_mul(31) % 251).unwrap()).collect();
    let digest = Digest::sha256(&bytes);
    (bytes, digest)
}

#[test]
fn a_user_agent_that_fits_no_header_is_refused_at_once() {
    let error = Registry::new(Config { user_agent: "two\nlines".to_owned(), ..config() }).unwrap_err();
    assert_eq!(error.kind(), super::Kind::FailedPrecondition);
}
