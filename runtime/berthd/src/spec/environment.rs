//! The environment of a container's first process.

use super::{Error, ImageDefaults, Inputs, error::without_nul};

const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Returns `NAME=value` entries: defaults, then the image's, then the container's own; later ones replace earlier ones
/// of the same name.
pub(crate) fn build(inputs: &Inputs<'_>, home: &str) -> Result<Vec<String>, Error> {
    let mut environment = Environment::default();
    environment.set("PATH", DEFAULT_PATH);
    if inputs.container.tty {
        environment.set("TERM", "xterm");
    }
    environment.set("HOSTNAME", inputs.hostname);
    environment.take_over(inputs.image)?;
    for (name, value) in &inputs.container.env {
        environment.set(checked_name(name)?, checked_value(name, value)?);
    }
    if !environment.has("HOME") {
        environment.set("HOME", home);
    }
    Ok(environment.variables.into_iter().map(|(name, value)| format!("{name}={value}")).collect())
}

#[derive(Default)]
struct Environment {
    variables: Vec<(String, String)>,
}

impl Environment {
    fn set(&mut self, name: &str, value: &str) {
        match self.variables.iter_mut().find(|(known, _)| known == name) {
            Some((_, old)) => value.clone_into(old),
            None => self.variables.push((name.to_owned(), value.to_owned())),
        }
    }

    fn has(&self, name: &str) -> bool {
        self.variables.iter().any(|(known, _)| known == name)
    }

    /// Applies the image's entries. A name without `=` removes the variable, as in Docker. Entries without a name are
    /// skipped, because a user of the image cannot fix them.
    fn take_over(&mut self, image: &ImageDefaults) -> Result<(), Error> {
        for entry in &image.env {
            without_nul("the image's env", entry)?;
            match entry.split_once('=') {
                Some(("", _)) => {}
                Some((name, value)) => self.set(name, value),
                None => self.variables.retain(|(name, _)| name != entry),
            }
        }
        Ok(())
    }
}

fn checked_name(name: &str) -> Result<&str, Error> {
    let reason = match name {
        "" => "has no name",
        name if name.contains('=') => "has '=' in its name",
        name if name.contains('\0') => "has a NUL byte in its name",
        name => return Ok(name),
    };
    Err(Error::Environment { name: name.to_owned(), reason })
}

fn checked_value<'a>(name: &str, value: &'a [u8]) -> Result<&'a str, Error> {
    let reason = match std::str::from_utf8(value) {
        Ok(value) if !value.contains('\0') => return Ok(value),
        Ok(_) => "has a NUL byte in its value",
        Err(_) => "has a value that is not UTF-8, which an OCI specification cannot carry",
    };
    Err(Error::Environment { name: name.to_owned(), reason })
}

#[cfg(test)]
mod tests;
