//! Fetches access tokens from the service that a registry's bearer challenge names.

use std::time::{Duration, Instant};

use reqwest::RequestBuilder;
use serde::Deserialize;
use url::Url;
use url::form_urlencoded::Serializer;

use super::auth::{Credentials, Subject};
use super::challenge::Challenge;
use super::client::{self, Client};
use super::error::Error;
use super::hosts::Endpoint;

/// Our client id in OAuth 2 requests.
const CLIENT_ID: &str = "berth";
/// The most bytes an answer of a token service may have.
const MAX_ANSWER_BYTES: u64 = 1 << 20;
/// Lifetime of a token if the service states none, and the shortest assumed: the protocol promises 60 seconds.
const DEFAULT_LIFETIME: Duration = Duration::from_secs(60);
/// The longest lifetime assumed.
const MAX_LIFETIME: Duration = Duration::from_secs(24 * 3600);

/// An access token.
pub(super) struct Token {
    pub(super) value: String,
    pub(super) until: Instant,
}

/// The token service of a registry that has just refused a request.
pub(super) struct TokenService<'a> {
    pub(super) client: &'a Client,
    /// The registry.
    pub(super) endpoint: &'a Endpoint,
    /// Description of the content, for messages.
    pub(super) what: &'a str,
}

#[derive(Deserialize)]
struct Answer {
    token: Option<String>,
    access_token: Option<String>,
    expires_in: Option<f64>,
}

impl TokenService<'_> {
    /// Fetches a token in answer to `challenge`.
    pub(super) async fn fetch(&self, challenge: &Challenge, subject: &Subject) -> Result<Token, Error> {
        let realm = self.realm(challenge, subject)?;
        let host = realm.origin().ascii_serialization();
        let asked_at = Instant::now();
        let request = self.request(realm, challenge, subject)?;
        let response = client::send(request, &host, self.what).await?;
        let response = client::check(response, &host, self.what).await?;
        let body =
            client::read(response, MAX_ANSWER_BYTES, self.client.config.progress, &host, self.what).await?;
        let bad = |reason: &str| self.bad_response(&host, reason);
        let answer: Answer = serde_json::from_slice(&body).map_err(|error| bad(&error.to_string()))?;
        let until = asked_at + answer.lifetime();
        let given = [answer.token, answer.access_token].into_iter().flatten().find(|value| !value.is_empty());
        let value = given.ok_or_else(|| bad("it sent no token"))?;
        match value.bytes().all(|byte| byte.is_ascii_graphic()) {
            true => Ok(Token { value, until }),
            false => Err(bad("it sent a token that fits no header")),
        }
    }

    /// Makes the error for a registry that our credentials do not satisfy.
    pub(super) fn unauthorized(&self, reason: &str) -> Error {
        Error::Unauthorized {
            what: self.what.to_owned(),
            host: self.endpoint.origin(),
            reason: reason.to_owned(),
        }
    }

    fn bad_response(&self, host: &str, reason: &str) -> Error {
        let reason = format!("token service: {reason}");
        Error::BadResponse { what: self.what.to_owned(), host: host.to_owned(), reason }
    }

    fn realm(&self, challenge: &Challenge, subject: &Subject) -> Result<Url, Error> {
        let bad = |reason: String| self.bad_response(&self.endpoint.origin(), &reason);
        let text =
            challenge.parameter("realm").ok_or_else(|| bad("the challenge names no realm".to_owned()))?;
        let realm =
            Url::parse(text).map_err(|error| bad(format!("realm {}: {error}", client::line(text))))?;
        match realm.scheme() {
            "https" => Ok(realm),
            "http" if self.endpoint.base.scheme() == "https" && subject.credentials.is_some() => {
                Err(bad(format!("credentials are not sent unencrypted to {}", client::line(text))))
            }
            "http" => Ok(realm),
            _ => Err(bad(format!("realm {} is no web address", client::line(text)))),
        }
    }

    /// Makes an anonymous or basic GET, or for an identity token the POST of OAuth 2.
    fn request(
        &self,
        mut realm: Url,
        challenge: &Challenge,
        subject: &Subject,
    ) -> Result<RequestBuilder, Error> {
        let http = self.client.http(&realm, &self.endpoint.tls)?;
        let own_scope = format!("repository:{}:pull", subject.repository);
        let scope = challenge.parameter("scope").filter(|scope| !scope.is_empty()).unwrap_or(&own_scope);
        let service = challenge.parameter("service").unwrap_or_default();
        if let Some(Credentials::IdentityToken(token)) = &subject.credentials {
            return Ok(identity_request(&http, realm, token, service, scope));
        }
        if !service.is_empty() {
            realm.query_pairs_mut().append_pair("service", service);
        }
        for part in scope.split_ascii_whitespace() {
            realm.query_pairs_mut().append_pair("scope", part);
        }
        Ok(match &subject.credentials {
            Some(Credentials::Basic { user, password }) => {
                realm.query_pairs_mut().append_pair("account", user);
                http.get(realm).basic_auth(user, Some(password))
            }
            _ => http.get(realm),
        })
    }
}

fn identity_request(
    http: &reqwest::Client,
    realm: Url,
    token: &str,
    service: &str,
    scope: &str,
) -> RequestBuilder {
    let form = Serializer::new(String::new())
        .append_pair("grant_type", "refresh_token")
        .append_pair("client_id", CLIENT_ID)
        .append_pair("service", service)
        .append_pair("scope", scope)
        .append_pair("refresh_token", token)
        .finish();
    http.post(realm).header(reqwest::header::CONTENT_TYPE, "application/x-www-form-urlencoded").body(form)
}

impl Answer {
    /// Returns how long to use the token: 90 % of its lifetime, so that it does not expire while requests are sent.
    fn lifetime(&self) -> Duration {
        let stated = self.expires_in.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
        stated.unwrap_or(DEFAULT_LIFETIME).clamp(DEFAULT_LIFETIME, MAX_LIFETIME).mul_f64(0.9)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn a_stated_lifetime_is_believed_within_reason() {
        let seconds = |answer: &str| serde_json::from_str::<Answer>(answer).unwrap().lifetime().as_secs();
        assert_eq!(seconds(r#"{"expires_in":300}"#), 270);
        assert_eq!(seconds("{}"), 54);
        assert_eq!(seconds(r#"{"expires_in":0}"#), 54);
        assert_eq!(seconds(r#"{"expires_in":-5}"#), 54);
        assert_eq!(seconds(r#"{"expires_in":1e300}"#), 54);
        assert_eq!(seconds(r#"{"expires_in":1e9}"#), 24 * 3600 * 9 / 10);
    }
}
