//! The default configuration as a file that explains itself.

use documented::DocumentedFields;
use serde::Serialize;
use toml::{Table, Value};

use super::Config;
use crate::handlers;

const INTRO: &str =
    "Berth's configuration. Every key is shown with its default; leave out what shall stay so.";

/// Returns the defaults, each key below the comment that explains it. Parsing the text gives [`Config::default`].
pub fn default_text() -> String {
    let config = Config::default();
    let mut text = comment(INTRO) + "\n";
    text += &keys(&config);
    text += &section::<Config, _>("socket", &config.socket);
    text += &section::<Config, _>("log", &config.log);
    text += &section::<Config, _>("images", &config.images);
    text += &section::<Config, _>("pods", &config.pods);
    text += &section::<Config, _>("cdi", &config.cdi);
    text += &section::<Config, _>("network", &config.network);
    text += &section::<berth_network::Config, _>("network.cni", &config.network.cni);
    text += &section::<berth_network::Config, _>("network.bridge", &config.network.bridge);
    text += &section::<Config, _>("streaming", &config.streaming);
    text += &section::<Config, _>("nri", &config.nri);
    text + &handler()
}

/// Returns a `[handlers.NAME]` section with every line commented out, since no handler is configured by default.
fn handler() -> String {
    let about = Config::get_field_docs("handlers").map(comment).unwrap_or_default();
    let keys = handlers::Config::FIELD_NAMES.iter().zip(handlers::Config::FIELD_DOCS);
    let keys = keys.map(|(name, about)| key(name, about, None)).collect::<String>();
    format!("\n{about}# [handlers.NAME]\n{keys}")
}

/// Returns one `[path]` section with its keys. `Parent` is the struct that has the section as a field, and so its
/// comment.
fn section<Parent: DocumentedFields, T: DocumentedFields + Serialize>(path: &str, value: &T) -> String {
    let field = path.rsplit('.').next().unwrap_or(path);
    let about = Parent::get_field_docs(field).map(comment).unwrap_or_default();
    format!("\n{about}[{path}]\n{}", keys(value))
}

fn keys<T: DocumentedFields + Serialize>(value: &T) -> String {
    let table = Table::try_from(value).unwrap_or_default();
    let documented = T::FIELD_NAMES.iter().zip(T::FIELD_DOCS);
    documented.map(|(name, about)| key(name, about, table.get(*name))).collect()
}

fn key(name: &str, about: &str, value: Option<&Value>) -> String {
    match value {
        Some(Value::Table(_)) => String::new(),
        Some(value) => format!("{}{name} = {value}\n", comment(about)),
        None => format!("{}# {name} =\n", comment(about)),
    }
}

fn comment(text: &str) -> String {
    text.lines().map(|line| format!("# {line}\n")).collect()
}
