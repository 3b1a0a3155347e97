//! Authentication to registries.
//!
//! A request is sent with the proof accepted last; a challenge in a 401 is answered once. Tokens are kept per host,
//! repository and credentials until they expire, and requests that need the same token wait for one fetch.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use reqwest::RequestBuilder;
use reqwest::header::{AUTHORIZATION, HeaderMap};

use super::challenge::Challenge;
use super::error::Error;
use super::token::{self, TokenService};

/// How long basic credentials, or a given registry token, are sent without a new challenge.
const BASIC_LIFETIME: Duration = Duration::from_secs(3600);

/// Reason in the error when a registry asks for credentials and the pull has none.
pub(super) const NONE_GIVEN: &str = "no credentials were given";

/// Credentials given with a pull.
///
/// They belong to the registry that the image's name begins with and are sent to no other host: not to a mirror, not
/// after a redirect to another origin; only the token service that the registry itself names gets them. If the
/// registry's own hosts.toml names a server elsewhere, that server is the registry.
#[derive(Clone, PartialEq, Eq, Hash)]
pub enum Credentials {
    /// User and password, for basic authentication or to get a token.
    Basic {
        /// The user's name.
        user: String,
        /// The password.
        password: String,
    },
    /// An OAuth 2 refresh token, exchanged for an access token at the registry's token service.
    IdentityToken(String),
    /// An access token, sent as it is.
    RegistryToken(String),
}

impl Credentials {
    /// Reads user and password from a basic Authorization header, if there is one.
    pub(super) fn from_header(headers: &HeaderMap) -> Option<Self> {
        let (scheme, encoded) = headers.get(AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
        let decoded =
            STANDARD.decode(encoded.trim()).ok().filter(|_| scheme.eq_ignore_ascii_case("basic"))?;
        let (user, password) = str::from_utf8(&decoded).ok()?.split_once(':')?;
        Some(Self::Basic { user: user.to_owned(), password: password.to_owned() })
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Basic { user, .. } => f.debug_struct("Basic").field("user", user).finish_non_exhaustive(),
            Self::IdentityToken(_) => f.write_str("IdentityToken(..)"),
            Self::RegistryToken(_) => f.write_str("RegistryToken(..)"),
        }
    }
}

/// Content of an Authorization header.
#[derive(Clone, PartialEq, Eq)]
pub(super) enum Proof {
    Basic { user: String, password: String },
    Bearer(String),
}

impl Proof {
    pub(super) fn apply(&self, request: RequestBuilder) -> RequestBuilder {
        match self {
            Self::Basic { user, password } => request.basic_auth(user, Some(password)),
            Self::Bearer(token) => request.bearer_auth(token),
        }
    }
}

/// Key of a proof: registry, repository and credentials.
#[derive(Clone, PartialEq, Eq, Hash)]
pub(super) struct Subject {
    /// The registry's origin, such as `https://registry-1.docker.io`.
    pub(super) origin: String,
    /// The repository pulled from.
    pub(super) repository: String,
    /// Credentials that may be sent to that registry.
    pub(super) credentials: Option<Credentials>,
}

#[derive(Clone)]
struct GrantedProof {
    proof: Proof,
    until: Instant,
}

/// The proof for one subject. Stays locked while a new one is fetched, so that other requests wait for it.
type ProofCell = Arc<tokio::sync::Mutex<Option<GrantedProof>>>;

/// The proofs accepted so far.
#[derive(Default)]
pub(super) struct Proofs {
    cells: Mutex<HashMap<Subject, ProofCell>>,
}

impl Proofs {
    /// Returns the proof to send with a first request, if a valid one is known.
    pub(super) async fn current(&self, subject: &Subject) -> Option<Proof> {
        let cell = self.cells.lock().unwrap_or_else(PoisonError::into_inner).get(subject).cloned()?;
        let granted = cell.lock().await;
        granted.as_ref().filter(|granted| granted.is_valid()).map(|granted| granted.proof.clone())
    }

    /// Returns a proof in answer to `challenges`, after `refused` was rejected: one that another request has fetched
    /// meanwhile, or a new one.
    pub(super) async fn renew(
        &self,
        subject: &Subject,
        refused: Option<&Proof>,
        challenges: &[Challenge],
        service: &TokenService<'_>,
    ) -> Result<Proof, Error> {
        let cell = self.cell(subject);
        let mut granted = cell.lock().await;
        if let Some(newer) = granted.as_ref().filter(|it| it.is_valid() && Some(&it.proof) != refused) {
            return Ok(newer.proof.clone());
        }
        *granted = None;
        let fresh = answer(subject, challenges, service).await?;
        *granted = Some(fresh.clone());
        Ok(fresh.proof)
    }

    fn cell(&self, subject: &Subject) -> ProofCell {
        let mut cells = self.cells.lock().unwrap_or_else(PoisonError::into_inner);
        cells.retain(|_, cell| is_needed(cell));
        cells.entry(subject.clone()).or_default().clone()
    }
}

/// True if the cell is in use (locked or cloned), or its proof is still valid.
fn is_needed(cell: &ProofCell) -> bool {
    Arc::strong_count(cell) > 1
        || cell.try_lock().is_ok_and(|granted| granted.as_ref().is_some_and(GrantedProof::is_valid))
}

impl GrantedProof {
    fn is_valid(&self) -> bool {
        Instant::now() < self.until
    }
}

/// Answers the bearer challenge if there is one, else the basic one. Fails if the credentials do not fit.
async fn answer(
    subject: &Subject,
    challenges: &[Challenge],
    service: &TokenService<'_>,
) -> Result<GrantedProof, Error> {
    let offers = |scheme: &str| challenges.iter().find(|challenge| challenge.scheme == scheme);
    let until = Instant::now() + BASIC_LIFETIME;
    if let (Some(Credentials::RegistryToken(token)), true) =
        (&subject.credentials, offers("bearer").is_some())
    {
        return Ok(GrantedProof { proof: Proof::Bearer(token.clone()), until });
    }
    if let Some(bearer) = offers("bearer") {
        let token::Token { value, until } = service.fetch(bearer, subject).await?;
        return Ok(GrantedProof { proof: Proof::Bearer(value), until });
    }
    match (offers("basic"), &subject.credentials) {
        (Some(_), Some(Credentials::Basic { user, password })) => {
            Ok(GrantedProof { proof: Proof::Basic { user: user.clone(), password: password.clone() }, until })
        }
        (Some(_), None) => Err(service.unauthorized(NONE_GIVEN)),
        (Some(_), Some(_)) => Err(service.unauthorized("a token was given, it wants user and password")),
        (None, _) => Err(service.unauthorized("it offers no authentication we know (basic, bearer)")),
    }
}
