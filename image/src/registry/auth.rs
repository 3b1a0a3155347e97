//! Proving who we are to a registry.
//!
//! A request goes out with whatever was accepted last; a 401 brings a challenge, which is answered once. Tokens are
//! kept per host, repository and credentials until they expire, and requests that need the same one wait for one fetch.

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

/// How long basic credentials are sent without being challenged for them.
const BASIC_LIFETIME: Duration = Duration::from_secs(3600);

/// Why a registry that wants to be shown something gets nothing.
pub(super) const NONE_GIVEN: &str = "no credentials were given";

/// What a registry may ask for, as given with a pull.
///
/// Credentials belong to the registry that the image's name begins with. They are sent to no other host: not to a
/// mirror, not after a redirect to another origin; only the token service that the registry itself names gets them. Where
/// hosts.toml says that the registry's server is elsewhere, that is the registry.
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
    /// User and password of an Authorization header, if there is one that has them.
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

/// What goes into the Authorization header.
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

/// Who asks whom for what: the key of a proof.
#[derive(Clone, PartialEq, Eq, Hash)]
pub(super) struct Subject {
    /// The registry's origin, such as `https://registry-1.docker.io`.
    pub(super) origin: String,
    /// The repository that is pulled from.
    pub(super) repository: String,
    /// What may be shown to that registry.
    pub(super) credentials: Option<Credentials>,
}

#[derive(Clone)]
struct Granted {
    proof: Proof,
    until: Instant,
}

/// The proof for one subject; held locked while a new one is fetched, so that others wait for it.
type Slot = Arc<tokio::sync::Mutex<Option<Granted>>>;

/// The proofs that were accepted.
#[derive(Default)]
pub(super) struct Proofs {
    slots: Mutex<HashMap<Subject, Slot>>,
}

impl Proofs {
    /// What to send to begin with.
    pub(super) async fn current(&self, subject: &Subject) -> Option<Proof> {
        let slot = self.slots.lock().unwrap_or_else(PoisonError::into_inner).get(subject).cloned()?;
        let granted = slot.lock().await;
        granted.as_ref().filter(|granted| granted.is_valid()).map(|granted| granted.proof.clone())
    }

    /// The answer to `challenges`, after `refused` was sent. Another request may have got it meanwhile.
    pub(super) async fn renew(
        &self,
        subject: &Subject,
        refused: Option<&Proof>,
        challenges: &[Challenge],
        service: &TokenService<'_>,
    ) -> Result<Proof, Error> {
        let slot = self.slot(subject);
        let mut granted = slot.lock().await;
        if let Some(newer) = granted.as_ref().filter(|it| it.is_valid() && Some(&it.proof) != refused) {
            return Ok(newer.proof.clone());
        }
        *granted = None;
        let fresh = answer(subject, challenges, service).await?;
        *granted = Some(fresh.clone());
        Ok(fresh.proof)
    }

    fn slot(&self, subject: &Subject) -> Slot {
        let mut slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        slots.retain(|_, slot| is_needed(slot));
        slots.entry(subject.clone()).or_default().clone()
    }
}

/// A slot that is locked or handed out is in use; any other lives as long as its proof.
fn is_needed(slot: &Slot) -> bool {
    Arc::strong_count(slot) > 1
        || slot.try_lock().is_ok_and(|granted| granted.as_ref().is_some_and(Granted::is_valid))
}

impl Granted {
    fn is_valid(&self) -> bool {
        Instant::now() < self.until
    }
}

/// Answers the strongest challenge that the credentials allow.
async fn answer(
    subject: &Subject,
    challenges: &[Challenge],
    service: &TokenService<'_>,
) -> Result<Granted, Error> {
    let offers = |scheme: &str| challenges.iter().find(|challenge| challenge.scheme == scheme);
    let until = Instant::now() + BASIC_LIFETIME;
    if let (Some(Credentials::RegistryToken(token)), true) =
        (&subject.credentials, offers("bearer").is_some())
    {
        return Ok(Granted { proof: Proof::Bearer(token.clone()), until });
    }
    if let Some(bearer) = offers("bearer") {
        let token::Token { value, until } = service.fetch(bearer, subject).await?;
        return Ok(Granted { proof: Proof::Bearer(value), until });
    }
    match (offers("basic"), &subject.credentials) {
        (Some(_), Some(Credentials::Basic { user, password })) => {
            Ok(Granted { proof: Proof::Basic { user: user.clone(), password: password.clone() }, until })
        }
        (Some(_), None) => Err(service.unauthorized(NONE_GIVEN)),
        (Some(_), Some(_)) => Err(service.unauthorized("a token was given, it wants user and password")),
        (None, _) => Err(service.unauthorized("it offers no authentication we know (basic, bearer)")),
    }
}
