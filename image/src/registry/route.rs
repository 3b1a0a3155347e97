//! Asks one host after the other until one has the content.

use std::sync::Arc;
use std::time::Duration;

use reqwest::Response;
use reqwest::header::CONTENT_TYPE;

use super::Retry;
use super::client::{self, Client, Get};
use super::error::Error;
use super::hosts::Endpoint;
use crate::digest::{Algorithm, Digest};

/// The hosts to ask, in order. The last one is the registry itself, unless it may not be asked.
#[derive(Clone, Debug)]
pub(super) struct Route {
    pub(super) client: Arc<Client>,
    pub(super) endpoints: Vec<Endpoint>,
}

/// A small piece of content; without bytes if only its digest was asked for.
pub(super) struct Document {
    pub(super) bytes: Vec<u8>,
    pub(super) content_type: String,
    pub(super) digest: Digest,
}

/// The failures of the hosts asked so far.
pub(super) struct HostFailures {
    what: String,
    /// Each failure with the host's position in the route.
    failures: Vec<(usize, Error)>,
}

impl HostFailures {
    pub(super) fn new(what: &str) -> Self {
        Self { what: what.to_owned(), failures: Vec::new() }
    }

    /// Whether to ask `endpoint`. A plain HTTP fallback is asked only right after its TLS twin was unreachable.
    pub(super) fn should_try(&self, endpoint: &Endpoint) -> bool {
        !endpoint.is_plain_fallback || matches!(self.failures.last(), Some((_, Error::Unreachable { .. })))
    }

    pub(super) fn add(&mut self, position: usize, endpoint: &Endpoint, failure: Error) {
        tracing::debug!(host = endpoint.origin(), error = %failure, "registry host failed");
        let is_an_answer = !matches!(failure, Error::Unreachable { .. });
        if endpoint.is_plain_fallback && is_an_answer {
            self.failures.pop();
        }
        self.failures.push((position, failure));
    }

    /// Returns the one failure, or all of them in the route's order, in whatever order they were asked.
    pub(super) fn into_error(mut self) -> Error {
        self.failures.sort_by_key(|(position, _)| *position);
        let mut failures: Vec<Error> = self.failures.into_iter().map(|(_, failure)| failure).collect();
        match failures.len() {
            1 => failures.swap_remove(0),
            _ => Error::AllFailed { what: self.what, tries: failures },
        }
    }
}

impl Route {
    /// Records that the host at `position` works: if it is a plain HTTP fallback, its TLS twin is removed from the
    /// route. Returns the host's new position.
    pub(super) fn confirm(&mut self, position: usize) -> usize {
        if !self.endpoints[position].is_plain_fallback {
            return position;
        }
        self.endpoints[position].is_plain_fallback = false;
        self.endpoints.remove(position - 1);
        position - 1
    }

    /// Fetches a document of at most `limit` bytes, retrying failures that may pass. If `digest` is given, a host that
    /// sends other content has failed.
    pub(super) async fn document(
        &self,
        get: &Get,
        limit: u64,
        digest: Option<&Digest>,
    ) -> Result<Document, Error> {
        let mut round = 0;
        loop {
            match self.document_once(get, limit, digest).await {
                Err(error) if round < self.client.config.retry.limit && error.may_pass() => {
                    let Some(pause) = self.client.config.retry.pause(round, &error) else {
                        return Err(error);
                    };
                    tokio::time::sleep(pause).await;
                    round += 1;
                }
                other => return other,
            }
        }
    }

    async fn document_once(&self, get: &Get, limit: u64, digest: Option<&Digest>) -> Result<Document, Error> {
        let mut host_failures = HostFailures::new(&get.what);
        for (position, endpoint) in self.endpoints.iter().enumerate() {
            if !host_failures.should_try(endpoint) {
                continue;
            }
            match self.document_from(endpoint, get, limit, digest).await {
                Ok(document) => return Ok(document),
                Err(failure) => host_failures.add(position, endpoint, failure),
            }
        }
        Err(host_failures.into_error())
    }

    async fn document_from(
        &self,
        endpoint: &Endpoint,
        get: &Get,
        limit: u64,
        digest: Option<&Digest>,
    ) -> Result<Document, Error> {
        let response = self.client.get(endpoint, get).await?;
        let host = response.url().origin().ascii_serialization();
        let content_type = content_type(&response);
        if get.is_head {
            let digest = digest.cloned().or_else(|| stated_digest(&response));
            let silent = || silent(get, host);
            return digest
                .map(|digest| Document { bytes: Vec::new(), content_type, digest })
                .ok_or_else(silent);
        }
        let bytes = client::read(response, limit, self.client.config.progress, &host, &get.what).await?;
        let algorithm = digest.map_or(Algorithm::Sha256, Digest::algorithm);
        let actual = Digest::of(algorithm, &bytes);
        match digest {
            Some(expected) if *expected != actual => Err(Error::DigestMismatch {
                what: get.what.clone(),
                host,
                expected: expected.clone(),
                actual,
            }),
            _ => Ok(Document { bytes, content_type, digest: actual }),
        }
    }
}

/// Returns the digest that the registry states, unverified.
fn stated_digest(response: &Response) -> Option<Digest> {
    response.headers().get("docker-content-digest")?.to_str().ok()?.trim().parse().ok()
}

fn silent(get: &Get, host: String) -> Error {
    Error::BadResponse { what: get.what.clone(), host, reason: "it does not say the digest".to_owned() }
}

/// Returns the media type without parameters.
fn content_type(response: &Response) -> String {
    let value =
        response.headers().get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    value.split(';').next().unwrap_or_default().trim().to_ascii_lowercase()
}

impl Retry {
    /// Returns how long to wait after failure number `round` (from 0); `None` if the registry asks for more than
    /// `longest_pause`.
    pub(super) fn pause(&self, round: u32, failure: &Error) -> Option<Duration> {
        let own = self.first_pause.saturating_mul(1 << round.min(16)).min(self.longest_pause);
        match failure.retry_after() {
            Some(asked) if asked > self.longest_pause => None,
            Some(asked) => Some(asked.max(own)),
            None => Some(own),
        }
    }
}
