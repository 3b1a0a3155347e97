use std::fs;
use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use tempfile::TempDir;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::server::WebPkiClientVerifier;
use tokio_rustls::rustls::{RootCertStore, ServerConfig};

use super::super::{Config, Error, Kind, Registry};
use super::server::{Answer, Server};
use super::{app_at, basic, config, registry};
use crate::reference::Reference;

/// A certificate authority of the test.
struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::new([]).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    /// Issues a certificate for 127.0.0.1, with its key.
    fn issue(&self) -> (rcgen::Certificate, KeyPair) {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(["127.0.0.1".to_owned()]).unwrap();
        (params.signed_by(&key, &self.0).unwrap(), key)
    }

    /// Accepts TLS with a certificate of this authority; demands one of `clients` from the client if given.
    fn acceptor(&self, clients: Option<&Authority>) -> TlsAcceptor {
        let (certificate, key) = self.issue();
        let builder = match clients {
            None => ServerConfig::builder().with_no_client_auth(),
            Some(clients) => {
                let mut roots = RootCertStore::empty();
                roots.add(clients.0.der().clone()).unwrap();
                let verifier = WebPkiClientVerifier::builder(Arc::new(roots)).build().unwrap();
                ServerConfig::builder().with_client_cert_verifier(verifier)
            }
        };
        let key = key.serialize_der().try_into().unwrap();
        let config = builder.with_single_cert(vec![certificate.der().clone()], key).unwrap();
        TlsAcceptor::from(Arc::new(config))
    }
}

/// Configures a registry client that fetches images of upstream.example from `server` with these `settings`.
fn configured(server: &Server, settings: &str) -> (TempDir, Registry) {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("upstream.example")).unwrap();
    let text = format!("server = {:?}\n{settings}", server.url());
    fs::write(dir.path().join("upstream.example/hosts.toml"), text).unwrap();
    let registry = Registry::new(Config { hosts_dirs: vec![dir.path().to_owned()], ..config() }).unwrap();
    (dir, registry)
}

fn put(dir: &TempDir, name: &str, text: &str) {
    fs::write(dir.path().join("upstream.example").join(name), text).unwrap();
}

fn app() -> Reference {
    "upstream.example/team/app:v1".parse().unwrap()
}

#[tokio::test]
async fn a_certificate_of_an_unknown_authority_is_refused() {
    let server = Server::start_tls(Authority::new().acceptor(None), |_| Answer::ok("{}")).await;
    let other = Authority::new();
    let (dir, registry) = configured(&server, "ca = \"ca.pem\"");
    put(&dir, "ca.pem", &other.0.pem());
    let error = registry.manifest(&app(), None, None).await.unwrap_err();
    assert!(matches!(error, Error::Unreachable { .. }), "{error}");
    assert!(server.seen().is_empty());
}

#[tokio::test]
async fn an_authority_of_ones_own_is_trusted_where_configured() {
    let authority = Authority::new();
    let server = Server::start_tls(authority.acceptor(None), |_| Answer::ok("{}")).await;
    let (dir, registry) = configured(&server, "ca = \"ca.pem\"");
    put(&dir, "ca.pem", &authority.0.pem());
    registry.manifest(&app(), None, None).await.unwrap();
}

#[tokio::test]
async fn verification_may_be_skipped_for_one_host() {
    let server = Server::start_tls(Authority::new().acceptor(None), |_| Answer::ok("{}")).await;
    let (_dir, registry) = configured(&server, "skip_verify = true");
    registry.manifest(&app(), None, None).await.unwrap();
}

#[tokio::test]
async fn a_registry_on_this_machine_may_speak_tls_with_any_certificate() {
    let server = Server::start_tls(Authority::new().acceptor(None), |_| Answer::ok("{}")).await;
    registry().manifest(&app_at(&server), None, None).await.unwrap();
}

#[tokio::test]
async fn an_answer_over_tls_is_final_for_a_registry_on_this_machine() {
    let server = Server::start_tls(Authority::new().acceptor(None), |_| Answer::status(404)).await;
    let error = registry().manifest(&app_at(&server), None, None).await.unwrap_err();
    assert!(matches!(&error, Error::NotFound { host, .. } if *host == server.url()), "{error}");
}

#[tokio::test]
async fn a_client_certificate_is_shown() {
    let (authority, clients) = (Authority::new(), Authority::new());
    let server = Server::start_tls(authority.acceptor(Some(&clients)), |_| Answer::ok("{}")).await;
    let (dir, registry) = configured(&server, "ca = \"ca.pem\"\nclient = [[\"client.pem\", \"client.key\"]]");
    let (certificate, key) = clients.issue();
    put(&dir, "ca.pem", &authority.0.pem());
    put(&dir, "client.pem", &certificate.pem());
    put(&dir, "client.key", &key.serialize_pem());
    registry.manifest(&app(), None, None).await.unwrap();

    let (dir, without) = configured(&server, "ca = \"ca.pem\"");
    put(&dir, "ca.pem", &authority.0.pem());
    let error = without.manifest(&app(), None, None).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Unavailable, "{error}");
}

#[tokio::test]
async fn replaced_certificates_count_from_the_next_pull_on() {
    let (authority, other) = (Authority::new(), Authority::new());
    let server = Server::start_tls(authority.acceptor(None), |_| Answer::ok("{}")).await;
    let (dir, registry) = configured(&server, "ca = \"ca.pem\"");
    put(&dir, "ca.pem", &other.0.pem());
    registry.manifest(&app(), None, None).await.unwrap_err();
    put(&dir, "ca.pem", &authority.0.pem());
    registry.manifest(&app(), None, None).await.unwrap();
}

#[tokio::test]
async fn files_without_certificates_are_told() {
    let server = Server::start_tls(Authority::new().acceptor(None), |_| Answer::ok("{}")).await;
    for settings in ["ca = \"junk.pem\"", "skip_verify = true\nclient = \"junk.pem\""] {
        let (dir, registry) = configured(&server, settings);
        put(&dir, "junk.pem", "nothing here");
        let error = registry.manifest(&app(), None, None).await.unwrap_err();
        assert!(matches!(&error, Error::Config { path, .. } if path.ends_with("junk.pem")), "{error}");
    }
}

#[tokio::test]
async fn a_tag_may_not_be_redirected_to_plain_http_but_verified_content_may() {
    let storage = Server::start(|_| Answer::ok("{}")).await;
    let location = format!("{}/x", storage.url());
    let server =
        Server::start_tls(Authority::new().acceptor(None), move |_| Answer::redirect(&location)).await;
    let error = registry().manifest(&app_at(&server), None, None).await.unwrap_err();
    assert!(error.to_string().contains("redirects to plain HTTP"), "{error}");
    let digest = crate::digest::Digest::sha256(b"{}");
    registry().manifest(&app_at(&server), Some(&digest), None).await.unwrap();
}

#[tokio::test]
async fn credentials_are_not_sent_unencrypted_to_a_token_service() {
    let tokens = Server::start(|_| Answer::ok(r#"{"token":"t"}"#)).await;
    let challenge = format!("Bearer realm=\"{}/token\"", tokens.url());
    let server =
        Server::start_tls(Authority::new().acceptor(None), move |_| Answer::challenge(&challenge)).await;
    let error = registry().manifest(&app_at(&server), None, Some(&basic())).await.unwrap_err();
    assert!(error.to_string().contains("not sent unencrypted"), "{error}");
    assert!(tokens.seen().is_empty());
}
