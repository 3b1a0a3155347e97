#![allow(clippy::unwrap_used)]

use super::*;

fn headers(fields: &[(&'static str, &str)]) -> HeaderMap {
    fields.iter().map(|&(name, value)| (HeaderName::from_static(name), value.parse().unwrap())).collect()
}

fn spdy(versions: &[&str]) -> HeaderMap {
    let mut headers = headers(&[("connection", "Upgrade"), ("upgrade", "SPDY/3.1")]);
    for version in versions {
        headers.append(STREAM_PROTOCOL, version.parse().unwrap());
    }
    headers
}

/// The example of RFC 6455, section 1.3.
fn websocket(protocols: &str) -> HeaderMap {
    headers(&[
        ("connection", "keep-alive, Upgrade"),
        ("upgrade", "WebSocket"),
        ("sec-websocket-version", "13"),
        ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
        ("sec-websocket-protocol", protocols),
    ])
}

fn header(answer: &Answer, name: &str) -> Option<String> {
    answer.headers().get(name).map(|value| value.to_str().unwrap().to_owned())
}

#[test]
fn the_first_version_that_the_client_offers_and_is_known_counts() {
    for (versions, expected, named) in [
        (&["v4.channel.k8s.io", "v3.channel.k8s.io"][..], Protocol::V4, Some("v4.channel.k8s.io")),
        (&["v5.channel.k8s.io", "v2.channel.k8s.io"], Protocol::V2, Some("v2.channel.k8s.io")),
        (&["v9.channel.k8s.io, v3.channel.k8s.io,channel.k8s.io"], Protocol::V3, Some("v3.channel.k8s.io")),
        (&["channel.k8s.io"], Protocol::V1, Some("channel.k8s.io")),
        (&[], Protocol::V1, None),
    ] {
        let (transport, answer) = command(&spdy(versions)).unwrap();
        assert_eq!(transport, CommandTransport::Spdy(expected), "{versions:?}");
        assert_eq!(answer.status(), StatusCode::SWITCHING_PROTOCOLS);
        assert_eq!(header(&answer, "upgrade").as_deref(), Some("SPDY/3.1"));
        assert_eq!(header(&answer, "connection").as_deref(), Some("Upgrade"));
        assert_eq!(header(&answer, "x-stream-protocol-version").as_deref(), named);
    }
}

#[test]
fn a_websocket_is_accepted_with_its_key_and_protocol() {
    for (offered, protocol, encoding) in [
        ("v5.channel.k8s.io", Protocol::V5, Encoding::Binary),
        ("v4.channel.k8s.io", Protocol::V4, Encoding::Binary),
        ("v4.base64.channel.k8s.io", Protocol::V4, Encoding::Base64),
        ("channel.k8s.io", Protocol::V1, Encoding::Binary),
        ("base64.channel.k8s.io", Protocol::V1, Encoding::Base64),
    ] {
        let (transport, answer) = command(&websocket(&format!("v9.channel.k8s.io, {offered}"))).unwrap();
        assert_eq!(transport, CommandTransport::WebSocket(protocol, encoding));
        assert_eq!(header(&answer, "sec-websocket-accept").as_deref(), Some("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="));
        assert_eq!(header(&answer, "sec-websocket-protocol").as_deref(), Some(offered));
        assert_eq!(header(&answer, "upgrade").as_deref(), Some("websocket"));
    }
}

#[test]
fn a_websocket_without_protocols_speaks_the_first() {
    let mut plain = websocket("");
    plain.remove(SEC_WEBSOCKET_PROTOCOL);
    let (transport, answer) = command(&plain).unwrap();
    assert_eq!(transport, CommandTransport::WebSocket(Protocol::V1, Encoding::Binary));
    assert_eq!(header(&answer, "sec-websocket-protocol"), None);
}

#[test]
fn port_forward_comes_over_spdy_or_in_a_tunnel() {
    let (transport, answer) = forward(&spdy(&["portforward.k8s.io"])).unwrap();
    assert_eq!(transport, ForwardTransport::Spdy);
    assert_eq!(header(&answer, "x-stream-protocol-version").as_deref(), Some("portforward.k8s.io"));
    let (transport, answer) = forward(&websocket("SPDY/3.1+portforward.k8s.io")).unwrap();
    assert_eq!(transport, ForwardTransport::Tunnel);
    assert_eq!(header(&answer, "sec-websocket-protocol").as_deref(), Some("SPDY/3.1+portforward.k8s.io"));
}

#[test]
fn what_has_nothing_in_common_is_forbidden_and_told_what_is_spoken() {
    let refused = [
        command(&spdy(&["v9.channel.k8s.io"])).unwrap_err(),
        command(&websocket("v9.channel.k8s.io")).unwrap_err(),
        forward(&spdy(&["v4.channel.k8s.io"])).unwrap_err(),
        forward(&websocket("v5.channel.k8s.io")).unwrap_err(),
    ];
    for Refusal { status, why } in refused {
        assert_eq!(status, StatusCode::FORBIDDEN);
        assert!(why.contains(".k8s.io\"]"), "{why}");
    }
}

#[test]
fn what_is_no_upgrade_is_a_bad_request() {
    let mut old = websocket("v5.channel.k8s.io");
    old.insert(SEC_WEBSOCKET_VERSION, HeaderValue::from_static("8"));
    let mut keyless = websocket("v5.channel.k8s.io");
    keyless.remove(SEC_WEBSOCKET_KEY);
    for wrong in [
        headers(&[]),
        headers(&[("upgrade", "SPDY/3.1")]),
        headers(&[("connection", "Upgrade"), ("upgrade", "h2c")]),
        headers(&[("connection", "Upgrade"), ("upgrade", "SPDY/2")]),
        old,
        keyless,
    ] {
        assert_eq!(command(&wrong).unwrap_err().status, StatusCode::BAD_REQUEST, "{wrong:?}");
    }
}
