//! Proving who we are to a registry.

use std::fmt;

/// What a registry may ask for, as given with a pull.
///
/// Credentials belong to the registry that the image's name begins with. They are sent to no other host: not to a
/// mirror, not after a redirect to another origin; only the token service that the registry itself names gets them.
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

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Basic { user, .. } => f.debug_struct("Basic").field("user", user).finish_non_exhaustive(),
            Self::IdentityToken(_) => f.write_str("IdentityToken(..)"),
            Self::RegistryToken(_) => f.write_str("RegistryToken(..)"),
        }
    }
}
