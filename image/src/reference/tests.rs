#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use super::*;

fn parse(text: &str) -> Reference {
    text.parse().unwrap_or_else(|error| panic!("{text}: {error}"))
}

fn refused(text: &str) -> ParseError {
    match text.parse::<Reference>() {
        Ok(reference) => panic!("{text:?} was read as {reference}"),
        Err(error) => error,
    }
}

fn digest() -> Digest {
    Digest::sha256(b"x")
}

#[test]
fn what_users_leave_out_is_added() {
    let cases = [
        ("busybox", "docker.io/library/busybox:latest"),
        ("busybox:1.36", "docker.io/library/busybox:1.36"),
        ("docker.io/busybox", "docker.io/library/busybox:latest"),
        ("index.docker.io/busybox", "docker.io/library/busybox:latest"),
        ("library/busybox", "docker.io/library/busybox:latest"),
        ("bitnami/redis:7", "docker.io/bitnami/redis:7"),
        ("a/b/c", "docker.io/a/b/c:latest"),
        ("localhost/app", "localhost/app:latest"),
        ("localhost:5000/app", "localhost:5000/app:latest"),
        ("host:5000/app:v1", "host:5000/app:v1"),
        ("127.0.0.1:5000/a/b", "127.0.0.1:5000/a/b:latest"),
        ("[::1]:5000/app", "[::1]:5000/app:latest"),
        ("[2001:db8::1]/app", "[2001:db8::1]/app:latest"),
        ("registry.k8s.io/pause:3.10", "registry.k8s.io/pause:3.10"),
        ("quay.io/a.b/c__d/e-f---g_h:X_y.z-1", "quay.io/a.b/c__d/e-f---g_h:X_y.z-1"),
        ("HOST/app", "HOST/app:latest"),
        ("notahost/app", "docker.io/notahost/app:latest"),
        ("xn--n3h.com/app", "xn--n3h.com/app:latest"),
    ];
    for (text, normalized) in cases {
        assert_eq!(parse(text).to_string(), normalized);
    }
}

#[test]
fn the_parts_can_be_had() {
    let text = format!("localhost:5000/team/app:v1@{}", digest());
    let reference = parse(&text);
    assert_eq!(reference.registry(), "localhost:5000");
    assert_eq!(reference.repository(), "team/app");
    assert_eq!(reference.name(), "localhost:5000/team/app");
    assert_eq!(reference.tag(), Some("v1"));
    assert_eq!(reference.digest(), Some(&digest()));
    assert_eq!(reference.to_string(), text);
}

#[test]
fn a_reference_by_digest_has_no_tag() {
    let reference = parse(&format!("busybox@{}", digest()));
    assert_eq!((reference.tag(), reference.digest()), (None, Some(&digest())));
    assert_eq!(reference.to_string(), format!("docker.io/library/busybox@{}", digest()));
}

#[test]
fn tag_and_digest_replace_each_other() {
    let reference = parse("busybox:1");
    let pinned = reference.with_digest(digest());
    assert_eq!(pinned.to_string(), format!("docker.io/library/busybox@{}", digest()));
    assert_eq!(pinned.with_tag("2").unwrap().to_string(), "docker.io/library/busybox:2");
    assert!(reference.with_tag("no spaces").is_err());
}

#[test]
fn the_familiar_form_leaves_out_what_users_do() {
    let cases = [
        ("busybox", "busybox:latest"),
        ("bitnami/redis:7", "bitnami/redis:7"),
        ("docker.io/library/a/b", "library/a/b:latest"),
        ("quay.io/library/app", "quay.io/library/app:latest"),
    ];
    for (text, familiar) in cases {
        assert_eq!(parse(text).familiar(), familiar);
        assert_eq!(parse(familiar), parse(text), "the familiar form of {text} means something else");
    }
}

#[test]
fn the_familiar_form_leaves_out_nothing_that_tells_it_from_something_else() {
    let like_an_id = format!("docker.io/library/{}", "ab".repeat(32));
    for (text, familiar) in [
        ("docker.io/quay.io/app:1", "docker.io/quay.io/app:1"),
        ("docker.io/library/quay.io/app:1", "library/quay.io/app:1"),
        ("docker.io/localhost/app:1", "docker.io/localhost/app:1"),
        (like_an_id.as_str(), &format!("library/{}:latest", "ab".repeat(32))),
    ] {
        assert_eq!(parse(text).familiar(), familiar);
        assert_eq!(parse(familiar), parse(text));
    }
}

#[test]
fn what_is_no_reference_is_refused() {
    let long = "a".repeat(256);
    let long_tag = format!("busybox:{}", "t".repeat(129));
    for text in [
        "",
        ":",
        "@",
        "/",
        ":tag",
        "busybox:",
        "busybox@",
        "busybox@sha256:123",
        "Busybox",
        "a//b",
        "/a",
        "a/",
        "a/./b",
        "a/../b",
        "../../etc/passwd",
        "a..b",
        "a___b",
        "a._b",
        "-a",
        "a-",
        "_a",
        "a b",
        "busybox ",
        " busybox",
        "busybox\n",
        "busybox:la test",
        "busybox:-x",
        "busybox:.x",
        "busybox:a:b",
        "host:port/app",
        "host:99999/app",
        "host:/app",
        ".host.com/app",
        "host..com/app",
        "-host.com/app",
        "[::1/app",
        "[zz::]/app",
        "::1/app",
        "localhost:5000",
        "localhost:5000/",
        "http://host/app",
        "café",
        "a/日本",
        "a?b",
        "a#b",
        "a%2fb",
        "user@host/app",
        &long,
        &long_tag,
    ] {
        if text == "localhost:5000" {
            assert_eq!(parse(text).to_string(), "docker.io/library/localhost:5000", "as docker reads it");
            continue;
        }
        refused(text);
    }
}

#[test]
fn the_error_says_what_is_wrong() {
    assert!(refused("Team/App").to_string().contains("\"App\""));
    assert!(refused("team/App").to_string().contains("lower-case"));
    assert!(refused("busybox:no way").to_string().contains("invalid tag \"no way\""));
    assert_eq!(refused(""), ParseError::Empty);
    assert!(matches!(refused(&"a1".repeat(32)), ParseError::ImageId(_)));
    assert_eq!(refused(&"ab-".repeat(90).trim_end_matches('-').replace('-', "0")), ParseError::TooLong(287));
    assert!(refused("host:port/app").to_string().contains("\"host:port\""));
}

#[test]
fn lengths_up_to_the_limits_are_accepted() {
    let name = format!("h.io/{}", "a".repeat(250));
    assert_eq!(parse(&name).name().len(), 255);
    assert_eq!(refused(&format!("{name}a")), ParseError::TooLong(256));
    assert_eq!(parse(&format!("busybox:{}", "t".repeat(128))).tag().map(str::len), Some(128));
}

#[test]
fn references_are_kept_as_text() {
    let reference = parse("busybox");
    let json = serde_json::to_string(&reference).unwrap();
    assert_eq!(json, "\"docker.io/library/busybox:latest\"");
    assert_eq!(serde_json::from_str::<Reference>(&json).unwrap(), reference);
    assert!(serde_json::from_str::<Reference>("\"No Name\"").is_err());
}

/// Pieces that make valid and nearly valid references; a fixed seed makes a failure repeatable.
#[test]
fn any_text_is_refused_or_reads_back_the_same() {
    let digest = digest().to_string();
    let pieces = [
        "a",
        "busybox",
        "/",
        ":",
        "@",
        ".",
        "-",
        "_",
        "__",
        "localhost",
        "docker.io",
        "index.docker.io",
        "library",
        "[::1]",
        "5000",
        "é",
        "\0",
        " ",
        "A",
        "latest",
        "sha256",
        &digest,
        "..",
        "0",
        "f",
    ];
    let mut state = 88_172_645_463_325_252_u64;
    let mut next = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        usize::try_from(state >> 33).unwrap()
    };
    let mut accepted = 0;
    for _ in 0..100_000 {
        let count = next() % 9;
        let text: String = (0..count).map(|_| pieces[next() % pieces.len()]).collect();
        let Ok(reference) = text.parse::<Reference>() else { continue };
        accepted += 1;
        let normalized = reference.to_string();
        assert_eq!(parse(&normalized), reference, "{text:?}");
        assert_eq!(parse(&reference.familiar()), reference, "{text:?}");
        assert_eq!(format!("{}/{}", reference.registry(), reference.repository()), reference.name());
        assert!(reference.tag().is_some() || reference.digest().is_some(), "{text:?}");
    }
    assert!(accepted > 1000, "only {accepted} were accepted");
}
