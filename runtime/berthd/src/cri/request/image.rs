//! Image names, and credentials for a pull.

use base64::{Engine, prelude::BASE64_STANDARD};
use berth_cri::v1;
use berth_image::{reference::Reference, registry::Credentials};

use super::field::{image_name, invalid, required};
use crate::error::{Error, Kind, Result};

/// Returns the image to pull, and the credentials for its registry.
pub(crate) fn pull(request: v1::PullImageRequest) -> Result<(Reference, Option<Credentials>)> {
    let text = image(request.image)?;
    let reference: Reference = text
        .parse()
        .map_err(|error| Error::caused(Kind::InvalidArgument, format!("image.image = {text:?}"), error))?;
    let credentials = request.auth.map(|auth| credentials(auth, reference.registry())).transpose()?;
    Ok((reference, credentials.flatten()))
}

/// Returns the requested name or id of an image.
pub(crate) fn image(spec: Option<v1::ImageSpec>) -> Result<String> {
    image_name("image.image", required("image", spec)?.image)
}

/// Returns `None` when the credentials name another registry.
fn credentials(auth: v1::AuthConfig, registry: &str) -> Result<Option<Credentials>> {
    if !auth.server_address.is_empty() && !is_of(&auth.server_address, registry) {
        return Ok(None);
    }
    Ok(match auth {
        auth if !auth.username.is_empty() => {
            Some(Credentials::Basic { user: auth.username, password: auth.password })
        }
        auth if !auth.identity_token.is_empty() => Some(Credentials::IdentityToken(auth.identity_token)),
        auth if !auth.auth.is_empty() => Some(decode(&auth.auth)?),
        auth if !auth.registry_token.is_empty() => Some(Credentials::RegistryToken(auth.registry_token)),
        _ => None,
    })
}

/// Decodes `user:password` in base64, as `docker login` stores it. Errors do not show the value, because it is a
/// secret.
fn decode(auth: &str) -> Result<Credentials> {
    let refused = |why| invalid("auth.auth", "(not shown)", why);
    let bytes = BASE64_STANDARD.decode(auth).map_err(|_| refused("is not base64"))?;
    let text = String::from_utf8(bytes).map_err(|_| refused("is not text once decoded"))?;
    let (user, password) =
        text.split_once(':').ok_or_else(|| refused("is not user:password once decoded"))?;
    Ok(Credentials::Basic { user: user.to_owned(), password: password.trim_end_matches('\0').to_owned() })
}

/// Whether an address as `docker login` stores it, with or without scheme and path, names this registry.
fn is_of(address: &str, registry: &str) -> bool {
    let rest = address.split_once("://").map_or(address, |(_, rest)| rest);
    let host = rest.split('/').next().unwrap_or(rest);
    canonical(host) == canonical(registry)
}

/// Maps the three names of Docker Hub to one.
fn canonical(host: &str) -> &str {
    match host {
        "index.docker.io" | "registry-1.docker.io" => "docker.io",
        other => other,
    }
}
