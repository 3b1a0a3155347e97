//! Over real connections, to a daemon without any pod.
#![allow(clippy::unwrap_used)]

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_rustls::{TlsConnector, rustls};

use super::*;
use crate::{
    cri::samples,
    streaming::{
        Command,
        testing::{Client, Reply},
    },
};

/// Starts a server. Returns its tokens, and a guard that keeps it running.
async fn served() -> (Tokens, impl Sized + use<>) {
    served_as(&config::Streaming::default()).await
}

async fn served_as(config: &config::Streaming) -> (Tokens, impl Sized + use<>) {
    served_by(Server::bind(config).await.unwrap()).await
}

async fn served_by(server: Server) -> (Tokens, impl Sized + use<>) {
    let (runtime, directory) = samples::runtime().await;
    let tokens = server.tokens();
    let mut task = JoinSet::new();
    task.spawn(server.serve(runtime.containers, runtime.pods, std::future::pending()));
    (tokens, (directory, task))
}

fn exec() -> Request {
    let wanted = crate::container::RequestedStreams { stdout: true, ..Default::default() };
    Request::Command(Command { container: "0".repeat(64), args: Some(vec!["true".into()]), wanted })
}

const SPDY: &str = "Connection: Upgrade\r\nUpgrade: SPDY/3.1\r\n";

/// Sends a request for the URL's path; returns the connection and the header of the answer.
async fn ask(method: &str, url: &str, fields: &str) -> (TcpStream, String) {
    let (address, path) = url.split_once("://").unwrap().1.split_once('/').unwrap();
    let mut stream = TcpStream::connect(address).await.unwrap();
    let request = format!("{method} /{path} HTTP/1.1\r\nHost: {address}\r\n{fields}\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut header = String::new();
    while !header.ends_with("\r\n\r\n") {
        header.push(stream.read_u8().await.unwrap().into());
    }
    (stream, header)
}

fn status(header: &str) -> &str {
    header.split(' ').nth(1).unwrap()
}

#[tokio::test]
async fn only_who_has_a_token_is_let_in_and_only_once() {
    let (tokens, _server) = served().await;
    let url = tokens.issue(exec()).unwrap();
    let wrong = url.replace("/exec/", "/attach/");
    let short = &url[..url.len() - 1];
    let host = url.split("/exec").next().unwrap();
    for nothing in [&wrong, short, &format!("{host}/"), &format!("{host}/exec/")] {
        assert_eq!(status(&ask("GET", nothing, SPDY).await.1), "404", "{nothing}");
    }
    assert_eq!(status(&ask("GET", &url, SPDY).await.1), "101");
    assert_eq!(status(&ask("GET", &url, SPDY).await.1), "404");
}

#[tokio::test]
async fn get_and_post_are_the_same_and_others_do_not_use_up_a_token() {
    let (tokens, _server) = served().await;
    for method in ["GET", "POST"] {
        let url = tokens.issue(exec()).unwrap();
        assert_eq!(status(&ask("PUT", &url, SPDY).await.1), "405");
        assert_eq!(status(&ask(method, &url, SPDY).await.1), "101");
    }
}

#[tokio::test]
async fn a_request_that_is_no_upgrade_or_offers_nothing_known_is_refused() {
    let (tokens, _server) = served().await;
    let offers = format!("{SPDY}X-Stream-Protocol-Version: v9.channel.k8s.io\r\n");
    for (fields, code) in [("", "400"), ("Connection: Upgrade\r\nUpgrade: h2c\r\n", "400"), (&offers, "403")]
    {
        assert_eq!(status(&ask("GET", &tokens.issue(exec()).unwrap(), fields).await.1), code, "{fields}");
    }
}

#[tokio::test]
async fn a_command_that_cannot_run_is_told_on_the_error_stream_and_the_connection_ends() {
    let (tokens, _server) = served().await;
    let offers = format!("{SPDY}X-Stream-Protocol-Version: v4.channel.k8s.io\r\n");
    let (stream, header) = ask("POST", &tokens.issue(exec()).unwrap(), &offers).await;
    for field in ["connection: upgrade", "upgrade: spdy/3.1", "x-stream-protocol-version: v4.channel.k8s.io"]
    {
        assert!(header.to_ascii_lowercase().contains(&format!("\r\n{field}\r\n")), "{header}");
    }
    let mut client = Client::new(stream);
    let error = client.open(&[("streamtype", "error")], true).await;
    client.open(&[("streamtype", "stdout")], true).await;
    let status: serde_json::Value = serde_json::from_slice(&client.read(error).await).unwrap();
    assert_eq!((&status["status"], &status["reason"]), (&"Failure".into(), &"InternalError".into()));
    assert!(status["message"].as_str().unwrap().contains("does not exist"));
    assert_eq!((client.reply().await, client.reply().await), (Some(Reply::GoAway(3)), None));
}

#[tokio::test]
async fn a_port_that_cannot_be_reached_is_told_and_the_next_one_is_tried() {
    let (tokens, _server) = served().await;
    let url = tokens.issue(Request::Forward { pod: "abcdef".into() }).unwrap();
    let mut client = Client::new(ask("POST", &url, SPDY).await.0);
    for request in ["0", "1"] {
        let fields = |kind| [("streamtype", kind), ("port", "80"), ("requestid", request)];
        let error = client.open(&fields("error"), true).await;
        let data = client.open(&fields("data"), false).await;
        let why = String::from_utf8(client.read(error).await).unwrap();
        assert!(why.contains("port 80") && why.contains("abcdef"), "{why}");
        assert_eq!(client.reply().await, Some(Reply::Reset(data, 5)));
    }
}

#[tokio::test]
async fn a_stream_of_a_forward_that_says_nothing_useful_is_refused() {
    let (tokens, _server) = served().await;
    let url = tokens.issue(Request::Forward { pod: "abcdef".into() }).unwrap();
    let mut client = Client::new(ask("POST", &url, SPDY).await.0);
    let id = client.open(&[("streamtype", "data")], false).await;
    assert_eq!(client.reply().await, Some(Reply::Reset(id, 3)));
}

#[tokio::test]
async fn noise_after_the_upgrade_ends_the_connection() {
    let (tokens, _server) = served().await;
    let (mut stream, _) = ask("GET", &tokens.issue(exec()).unwrap(), SPDY).await;
    stream.write_all(&[0xff; 64]).await.unwrap();
    assert!(stream.read(&mut [0; 1]).await.is_ok_and(|read| read == 0) || stream.peer_addr().is_err());
}

#[tokio::test]
async fn a_connection_on_which_nothing_happens_is_closed() {
    let config = config::Streaming { idle_timeout_seconds: 1, ..Default::default() };
    let (tokens, _server) = served_as(&config).await;
    let (mut stream, _) = ask("GET", &tokens.issue(exec()).unwrap(), SPDY).await;
    assert_eq!(stream.read(&mut [0; 1]).await.unwrap(), 0);
}

#[tokio::test]
async fn sessions_end_with_the_server() {
    let (tokens, server) = served().await;
    let url = tokens.issue(Request::Forward { pod: "abcdef".into() }).unwrap();
    let (mut stream, _) = ask("GET", &url, SPDY).await;
    drop(server);
    assert!(matches!(stream.read(&mut [0; 1]).await, Ok(0) | Err(_)));
}

#[tokio::test]
async fn a_server_that_is_told_to_stop_lets_its_clients_go_first() {
    let (runtime, _directory) = samples::runtime().await;
    let server = Server::bind(&config::Streaming::default()).await.unwrap();
    let url = server.tokens().issue(Request::Forward { pod: "abcdef".into() }).unwrap();
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let client = async {
        let mut client = Client::new(ask("GET", &url, SPDY).await.0);
        drop(stop);
        assert_eq!(client.reply().await, None);
    };
    let begun = std::time::Instant::now();
    tokio::join!(server.serve(runtime.containers, runtime.pods, async { _ = stopped.await }), client);
    assert!(begun.elapsed() < DISCONNECT_TIMEOUT);
}

#[test]
fn a_server_that_listens_everywhere_is_reached_on_this_machine() {
    for (bound, reached) in
        [("0.0.0.0:1", "127.0.0.1:1"), ("[::]:1", "[::1]:1"), ("10.0.0.1:1", "10.0.0.1:1")]
    {
        assert_eq!(reachable(bound.parse().unwrap()).to_string(), reached);
    }
}

#[tokio::test]
async fn an_address_that_is_none_of_this_machine_and_a_key_that_is_none_are_refused() {
    let elsewhere = config::Streaming { address: "192.0.2.1:1".parse().unwrap(), ..Default::default() };
    assert!(Server::bind(&elsewhere).await.err().unwrap().to_string().contains("192.0.2.1:1"));
    let missing = Some("/nonexistent/cert.pem".into());
    let keyless =
        config::Streaming { tls_certificate: missing.clone(), tls_key: missing, ..Default::default() };
    assert!(Server::bind(&keyless).await.err().unwrap().to_string().contains("/nonexistent/cert.pem"));
}

/// A certificate for this host, with its key, in the files that the configuration names.
fn certify(directory: &std::path::Path) -> (config::Streaming, rcgen::Certificate) {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let (certificate, key) = (directory.join("cert.pem"), directory.join("key.pem"));
    std::fs::write(&key, made.signing_key.serialize_pem()).unwrap();
    std::fs::write(&certificate, made.cert.pem()).unwrap();
    let config =
        config::Streaming { tls_certificate: Some(certificate), tls_key: Some(key), ..Default::default() };
    (config, made.cert)
}

/// The beginning of the answer to a client that trusts only this certificate; `None` when it does not trust the server.
async fn begin_over_tls(url: &str, trusted: &rcgen::Certificate) -> Option<[u8; 12]> {
    let (address, path) = url.strip_prefix("https://").unwrap().split_once('/').unwrap();
    let stream = TcpStream::connect(address).await.unwrap();
    let mut stream = trusting(trusted.der()).connect("localhost".try_into().unwrap(), stream).await.ok()?;
    let request = format!("GET /{path} HTTP/1.1\r\nHost: localhost\r\n{SPDY}\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut begin = [0; 12];
    stream.read_exact(&mut begin).await.unwrap();
    Some(begin)
}

#[tokio::test]
async fn with_a_certificate_it_speaks_tls() {
    let directory = tempfile::tempdir().unwrap();
    let (config, certificate) = certify(directory.path());
    let (tokens, _server) = served_as(&config).await;
    let begin = begin_over_tls(&tokens.issue(exec()).unwrap(), &certificate).await;
    assert_eq!(begin.as_ref(), Some(b"HTTP/1.1 101"));
}

#[tokio::test]
async fn a_renewed_certificate_is_used_without_a_restart_and_one_that_is_none_is_not() {
    let directory = tempfile::tempdir().unwrap();
    let (config, first) = certify(directory.path());
    let (tokens, _server) = served_as(&config).await;
    let url = || tokens.issue(exec()).unwrap();
    std::fs::write(directory.path().join("cert.pem"), "half written").unwrap();
    assert!(begin_over_tls(&url(), &first).await.is_some());
    let (_, second) = certify(directory.path());
    assert!(begin_over_tls(&url(), &first).await.is_none());
    assert!(begin_over_tls(&url(), &second).await.is_some());
}

#[tokio::test]
async fn clients_that_say_nothing_do_not_keep_others_out() {
    let (tokens, _server) = served().await;
    let url = tokens.issue(exec()).unwrap();
    let address = url.split_once("://").unwrap().1.split_once('/').unwrap().0;
    let mut silent = Vec::new();
    for _ in 0..MAX_PENDING_CLIENTS + 1 {
        silent.push(TcpStream::connect(address).await.unwrap());
    }
    assert_eq!(status(&ask("GET", &url, SPDY).await.1), "101");
    let begun = std::time::Instant::now();
    for mut one in silent {
        assert!(matches!(one.read(&mut [0; 1]).await, Ok(0) | Err(_)));
    }
    assert!(begun.elapsed() < REQUEST_TIMEOUT, "none has a place for as long as a request may take");
}

#[tokio::test]
async fn no_more_streams_are_opened_than_there_are_seats() {
    let server = Server::bind(&config::Streaming::default()).await.unwrap();
    let (tokens, _server) = served_by(Server { sessions: 2, ..server }).await;
    let mut open = Vec::new();
    let forward = || tokens.issue(Request::Forward { pod: "abcdef".into() }).unwrap();
    for _ in 0..2 {
        let (stream, header) = ask("GET", &forward(), SPDY).await;
        assert_eq!(status(&header), "101");
        open.push(stream);
    }
    let url = forward();
    assert_eq!(status(&ask("GET", &url, SPDY).await.1), "503");
    drop(open.pop());
    // Asked until the server notices that a client has left; the token is still good.
    while status(&ask("GET", &url, SPDY).await.1) != "101" {}
}

fn trusting(certificate: &rustls::pki_types::CertificateDer<'static>) -> TlsConnector {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(certificate.clone()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    TlsConnector::from(Arc::new(config.unwrap().with_root_certificates(roots).with_no_client_auth()))
}
