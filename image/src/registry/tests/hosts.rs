use std::fs;
use std::path::Path;
use std::time::Duration;

use super::super::hosts::{Endpoint, resolve};
use super::super::hosts_toml::HostsToml;
use super::super::{Credentials, Error, Kind};

async fn endpoints(dir: &Path, registry: &str) -> Vec<Endpoint> {
    resolve(&[dir.to_owned()], registry).await.unwrap()
}

async fn bases(dir: &Path, registry: &str) -> Vec<String> {
    endpoints(dir, registry).await.into_iter().map(|endpoint| endpoint.base.to_string()).collect()
}

fn write(dir: &Path, host: &str, text: &str) {
    fs::create_dir_all(dir.join(host)).unwrap();
    fs::write(dir.join(host).join("hosts.toml"), text).unwrap();
}

#[tokio::test]
async fn without_configuration_a_registry_is_where_its_name_says() {
    let dir = tempfile::tempdir().unwrap();
    let cases: [(&str, &[&str]); 9] = [
        ("docker.io", &["https://registry-1.docker.io/v2/"]),
        ("example.com", &["https://example.com/v2/"]),
        ("example.com:5000", &["https://example.com:5000/v2/"]),
        ("[2001:db8::1]:5000", &["https://[2001:db8::1]:5000/v2/"]),
        ("localhost", &["https://localhost/v2/"]),
        ("localhost:443", &["https://localhost/v2/"]),
        ("localhost:80", &["http://localhost/v2/"]),
        ("127.1.2.3:5000", &["https://127.1.2.3:5000/v2/", "http://127.1.2.3:5000/v2/"]),
        ("[::1]:5000", &["https://[::1]:5000/v2/", "http://[::1]:5000/v2/"]),
    ];
    for (registry, expected) in cases {
        assert_eq!(bases(dir.path(), registry).await, expected, "{registry}");
    }
    let local = endpoints(dir.path(), "localhost:5000").await;
    assert!(local.iter().all(|endpoint| endpoint.tls.skip_verify && endpoint.owns_credentials));
    assert_eq!(local.iter().map(|endpoint| endpoint.is_plain_fallback).collect::<Vec<_>>(), [false, true]);
}

#[tokio::test]
async fn mirrors_come_in_the_files_order_and_the_server_last() {
    let dir = tempfile::tempdir().unwrap();
    write(
        dir.path(),
        "docker.io",
        r#"
        server = "https://registry-1.docker.io"
        [host."https://zeta.example:5000"]
        capabilities = ["pull", "resolve"]
        [host."http://alpha.example/cache/v2"]
        capabilities = ["pull"]
        [host."mid.example/api"]
        override_path = true
        "#,
    );
    let all = endpoints(dir.path(), "docker.io").await;
    let bases: Vec<_> = all.iter().map(|endpoint| endpoint.base.as_str()).collect();
    assert_eq!(
        bases,
        [
            "https://zeta.example:5000/v2/",
            "http://alpha.example/cache/v2/",
            "https://mid.example/api/",
            "https://registry-1.docker.io/v2/"
        ]
    );
    assert_eq!(all.iter().map(|it| it.resolves).collect::<Vec<_>>(), [true, false, true, true]);
    assert_eq!(all.iter().map(|it| it.owns_credentials).collect::<Vec<_>>(), [false, false, false, true]);
    assert_eq!(all[0].namespace.as_deref(), Some("docker.io"));
    assert_eq!(all[3].namespace, None);
}

#[tokio::test]
async fn the_directory_of_a_host_outweighs_the_default_one() {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), "_default", "server = \"https://default.example\"");
    write(dir.path(), "a.example:5000", "server = \"https://plain.example\"");
    write(dir.path(), "b.example_5000_", "server = \"https://escaped.example\"");
    assert_eq!(bases(dir.path(), "a.example:5000").await, ["https://plain.example/v2/"]);
    assert_eq!(bases(dir.path(), "b.example:5000").await, ["https://escaped.example/v2/"]);
    assert_eq!(bases(dir.path(), "c.example").await, ["https://default.example/v2/"]);
}

#[tokio::test]
async fn the_first_directory_that_knows_the_host_counts() {
    let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    write(one.path(), "a.example", "server = \"https://one.example\"");
    write(two.path(), "a.example", "server = \"https://two.example\"");
    write(two.path(), "b.example", "server = \"https://two.example\"");
    let dirs = [one.path().to_owned(), two.path().to_owned()];
    assert_eq!(resolve(&dirs, "a.example").await.unwrap()[0].origin(), "https://one.example");
    assert_eq!(resolve(&dirs, "b.example").await.unwrap()[0].origin(), "https://two.example");
}

#[tokio::test]
async fn the_server_of_a_registrys_own_file_is_the_registry_wherever_it_is() {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), "a.example", "server = \"https://other.example:5000\"");
    write(dir.path(), "b.example:5000", "server = \"http://b.example:5000\"");
    write(dir.path(), "_default", "server = \"https://all.example\"");
    assert!(endpoints(dir.path(), "a.example").await[0].owns_credentials);
    assert!(endpoints(dir.path(), "b.example:5000").await[0].owns_credentials);
    assert!(!endpoints(dir.path(), "c.example").await[0].owns_credentials, "it stands in for all");
    assert!(endpoints(dir.path(), "all.example").await[0].owns_credentials);
    assert_eq!(endpoints(dir.path(), "a.example").await[0].namespace.as_deref(), Some("a.example"));
}

#[tokio::test]
async fn a_mirrors_own_credentials_are_read_from_its_headers() {
    let dir = tempfile::tempdir().unwrap();
    let of = |value: &str| format!("[host.\"https://m.example\".header]\nAuthorization = {value:?}");
    let cases = [
        ("Basic YW5uOnMzOmNyZXQ=", true),
        ("basic YW5uOnMzOmNyZXQ=", true),
        ("Bearer abc", false),
        ("Basic ?", false),
    ];
    for (value, has) in cases {
        write(dir.path(), "a.example", &of(value));
        let expected = Credentials::Basic { user: "ann".to_owned(), password: "s3:cret".to_owned() };
        assert_eq!(
            endpoints(dir.path(), "a.example").await[0].credentials,
            has.then_some(expected),
            "{value}"
        );
    }
}

#[tokio::test]
async fn settings_at_the_top_are_the_servers() {
    let dir = tempfile::tempdir().unwrap();
    write(
        dir.path(),
        "a.example",
        "skip_verify = true\ndial_timeout = \"1m2.5s\"\n[header]\nX-Key = [\"one\", \"two\"]",
    );
    let all = endpoints(dir.path(), "a.example").await;
    assert_eq!(all.len(), 1);
    assert!(all[0].tls.skip_verify);
    assert_eq!(all[0].tls.dial_timeout, Some(Duration::from_millis(62_500)));
    let values: Vec<_> =
        all[0].headers.get_all("x-key").iter().map(|value| value.to_str().unwrap()).collect();
    assert_eq!(values, ["one", "two"]);
}

#[tokio::test]
async fn certificates_may_be_written_in_every_documented_form() {
    let dir = tempfile::tempdir().unwrap();
    write(
        dir.path(),
        "a.example",
        r#"
        ca = "ca.pem"
        client = "both.pem"
        [host."https://m1.example"]
        ca = ["ca.pem", "ca.pem"]
        client = [["cert.pem", "key.pem"]]
        [host."https://m2.example"]
        client = ["both.pem"]
        "#,
    );
    for name in ["ca.pem", "both.pem", "cert.pem", "key.pem"] {
        fs::write(dir.path().join("a.example").join(name), name).unwrap();
    }
    let all = endpoints(dir.path(), "a.example").await;
    let identities: Vec<_> =
        all.iter().map(|it| String::from_utf8(it.tls.identity.clone().unwrap().1).unwrap()).collect();
    assert_eq!(identities, ["cert.pem\nkey.pem", "both.pem", "both.pem"]);
    assert_eq!(all.iter().map(|it| it.tls.ca.len()).collect::<Vec<_>>(), [2, 0, 1]);
}

#[tokio::test]
async fn a_directory_in_dockers_layout_gives_its_certificates() {
    let dir = tempfile::tempdir().unwrap();
    let host = dir.path().join("a.example");
    fs::create_dir(&host).unwrap();
    for name in ["ca.crt", "client.cert", "client.key"] {
        fs::write(host.join(name), name).unwrap();
    }
    let all = endpoints(dir.path(), "a.example").await;
    assert_eq!(all[0].base.as_str(), "https://a.example/v2/");
    assert_eq!(all[0].tls.ca, [(host.join("ca.crt"), b"ca.crt".to_vec())]);
    assert_eq!(all[0].tls.identity, Some((host.join("client.cert"), b"client.cert\nclient.key".to_vec())));
}

#[tokio::test]
async fn a_local_registry_with_its_own_ca_is_verified() {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), "localhost:5000", "ca = \"ca.pem\"");
    fs::write(dir.path().join("localhost:5000/ca.pem"), "").unwrap();
    assert!(!endpoints(dir.path(), "localhost:5000").await[0].tls.skip_verify);
}

#[tokio::test]
async fn a_broken_file_is_an_error_that_names_it() {
    let cases = [
        ("server = ", "TOML"),
        ("server = 5", "server must be a string, not integer"),
        ("host = 5", "host must be a table"),
        ("skip_verify = \"yes\"", "boolean"),
        ("server = \"ftp://a.example\"", "neither http nor https"),
        ("server = \"https://user:pass@a.example\"", "only scheme, host, port and path"),
        ("server = \"https://\"", "host"),
        ("[host.\"https://m.example\"]\ncapabilities = [\"fly\"]", "fly"),
        ("[host.\"https://m.example\"]\ndial_timeout = \"soon\"", "dial_timeout \"soon\" is no duration"),
        ("[host.\"https://m.example\".header]\n\"bad name\" = \"x\"", "header \"bad name\""),
        ("ca = \"missing.pem\"", "No such file"),
    ];
    for (text, expected) in cases {
        let dir = tempfile::tempdir().unwrap();
        write(dir.path(), "a.example", text);
        let error = resolve(&[dir.path().to_owned()], "a.example").await.unwrap_err();
        assert!(matches!(error, Error::Config { .. }), "{text}: {error}");
        assert_eq!(error.kind(), Kind::FailedPrecondition);
        let message = error.to_string();
        assert!(message.contains("a.example/") && message.contains(expected), "{text}: {message}");
    }
}

#[test]
fn unknown_keys_are_noted_with_their_place() {
    let text = "sever = \"x\"\n[host.\"https://m.example\"]\ncapabilites = []\n";
    let file = HostsToml::parse(text, Path::new("/")).unwrap();
    assert_eq!(file.unknown_keys, ["sever", "host.\"https://m.example\".capabilites"]);
}

#[test]
fn durations_are_read_as_go_writes_them() {
    let parsed = |text: &str| {
        let file = HostsToml::parse(&format!("dial_timeout = {text:?}"), Path::new("/"));
        file.ok().and_then(|file| file.server_settings.dial_timeout)
    };
    assert_eq!(parsed("3s"), Some(Duration::from_secs(3)));
    assert_eq!(parsed("1h30m"), Some(Duration::from_secs(5400)));
    assert_eq!(parsed("250ms"), Some(Duration::from_millis(250)));
    for bad in ["", "3", "s", "-3s", "3 s", "3d", "1..5s", "99999999999999999999h"] {
        assert_eq!(parsed(bad), None, "{bad:?}");
    }
}
