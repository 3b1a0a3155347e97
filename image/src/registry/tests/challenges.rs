use super::super::challenge::Challenge;

fn parse(header: &str) -> Vec<Challenge> {
    Challenge::parse_all(header)
}

fn schemes(header: &str) -> Vec<String> {
    parse(header).into_iter().map(|challenge| challenge.scheme).collect()
}

#[test]
fn a_bearer_challenge_has_its_parameters() {
    let all = parse(
        r#"Bearer realm="https://auth.docker.io/token",service="registry.docker.io",scope="a:b:pull,push""#,
    );
    assert_eq!(all.len(), 1);
    assert_eq!(all[0].scheme, "bearer");
    assert_eq!(all[0].parameter("realm"), Some("https://auth.docker.io/token"));
    assert_eq!(all[0].parameter("service"), Some("registry.docker.io"));
    assert_eq!(all[0].parameter("scope"), Some("a:b:pull,push"));
    assert_eq!(all[0].parameter("error"), None);
}

#[test]
fn several_challenges_share_a_header() {
    let all =
        parse(r#"Negotiate, Digest qop="auth, auth-int" , Basic realm=simple,BEARER Realm = "x", Service=y"#);
    let schemes: Vec<_> = all.iter().map(|challenge| challenge.scheme.as_str()).collect();
    assert_eq!(schemes, ["negotiate", "digest", "basic", "bearer"]);
    assert_eq!(all[1].parameter("qop"), Some("auth, auth-int"));
    assert_eq!(all[2].parameter("realm"), Some("simple"));
    assert_eq!((all[3].parameter("realm"), all[3].parameter("service")), (Some("x"), Some("y")));
}

#[test]
fn a_token68_is_passed_over() {
    assert_eq!(schemes(r#"Negotiate YII/abc+d==, Basic realm="x""#), ["negotiate", "basic"]);
    assert_eq!(schemes("NTLM TlRMTVNTUAAC, Bearer realm=x"), ["ntlm", "bearer"]);
}

#[test]
fn quotes_are_undone() {
    assert_eq!(
        parse(r#"Basic realm="say \"hi\" \\ or, not""#)[0].parameter("realm"),
        Some(r#"say "hi" \ or, not"#)
    );
}

#[test]
fn what_is_malformed_ends_the_list() {
    assert!(parse("").is_empty());
    assert!(parse(" ,, ").is_empty());
    assert!(parse("realm=x").is_empty());
    assert_eq!(parse(r#"Basic realm="never closed"#)[0].parameter("realm"), None);
    assert_eq!(schemes("Basic realm=, Bearer"), ["basic", "bearer"]);
}

#[test]
fn any_bytes_are_parsed_without_panic() {
    const PIECES: [&str; 16] = [
        "Bearer", " ", ",", "=", "\"", "\\", "realm", "é", "\t", "basic", "==", "/", "a=b", "\"x\"", "\u{0}",
        "日",
    ];
    let mut state = 0x9e37_79b9_u32;
    for _ in 0..20_000 {
        let mut header = String::new();
        for _ in 0..state % 12 {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            header += PIECES[(state >> 28) as usize];
        }
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223) ^ (state >> 13);
        parse(&header);
    }
}
