//! Invariants for any hosts.toml.
#![allow(clippy::unwrap_used)]

use super::*;

/// Parses `data` as the hosts.toml of a registry, and checks the URL of every host in it.
pub fn hosts_toml(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let dir = Path::new("/etc/berth/certs.d/example.com");
    let Ok(file) = HostsToml::parse(text, dir) else { return };
    let server = file.server.iter().map(|server| (server, &file.server_settings));
    for (host, settings) in file.hosts.iter().map(|(host, settings)| (host, settings)).chain(server) {
        check_host(host, settings);
    }
}

fn check_host(host: &str, settings: &Settings) {
    let Ok(base) = base_url(host, settings.override_path) else { return };
    assert!(matches!(base.scheme(), "http" | "https") && base.has_host());
    assert!(base.path().ends_with(if settings.override_path { "/" } else { "/v2/" }), "{base}");
    assert!(base.query().is_none() && base.fragment().is_none() && base.username().is_empty());
    assert_eq!(Url::parse(base.as_str()).as_ref(), Ok(&base));
    let manifest = base.join("library/busybox/manifests/latest").unwrap();
    assert_eq!(manifest.origin(), base.origin());
    let _ = (is_loopback(&base), is_home_of(&base, "example.com"), is_home_of(&base, "docker.io"));
}
