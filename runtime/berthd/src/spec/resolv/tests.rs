#![allow(clippy::unwrap_used)]
use super::*;

fn words(list: &[&str]) -> Vec<String> {
    list.iter().map(|&word| word.to_owned()).collect()
}

fn dns(servers: &[&str], searches: &[&str], options: &[&str]) -> Dns {
    Dns { servers: words(servers), searches: words(searches), options: words(options) }
}

#[test]
fn resolv_conf_says_what_the_pod_asks_for() {
    let cases = [
        (
            "all three",
            dns(&["10.10.10.10"], &["google.com"], &["ndots:8"]),
            "search google.com\nnameserver 10.10.10.10\noptions ndots:8\n",
        ),
        (
            "several of each",
            dns(&["10.0.0.1", "fd00::1", "fe80::1%eth0"], &["a.b", "c"], &["ndots:5", "rotate"]),
            "search a.b c\nnameserver 10.0.0.1\nnameserver fd00::1\nnameserver fe80::1%eth0\noptions ndots:5 rotate\n",
        ),
        ("servers only", dns(&["::1"], &[], &[]), "nameserver ::1\n"),
        ("nothing", dns(&[], &[], &[]), ""),
    ];
    for (name, dns, expected) in cases {
        assert_eq!(resolv_conf(Some(&dns), "nameserver 127.0.0.53\n").as_deref(), Ok(expected), "{name}");
    }
}

#[test]
fn a_pod_that_says_nothing_gets_the_hosts_resolv_conf_as_it_is() {
    let host = "# by hand\nnameserver 127.0.0.53\n";
    assert_eq!(resolv_conf(None, host).as_deref(), Ok(host));
}

#[test]
fn what_would_say_something_else_in_resolv_conf_is_refused() {
    let cases = [
        ("a name for a server", dns(&["dns.example"], &[], &[]), "dns servers", "dns.example"),
        (
            "two servers in one",
            dns(&["10.0.0.1\nnameserver 6.6.6.6"], &[], &[]),
            "dns servers",
            "10.0.0.1\nnameserver 6.6.6.6",
        ),
        ("an empty server", dns(&[""], &[], &[]), "dns servers", ""),
        ("a link with a line break", dns(&["fe80::1%a\nb"], &[], &[]), "dns servers", "a\nb"),
        ("two domains in one", dns(&[], &["a b"], &[]), "dns searches", "a b"),
        ("an empty option", dns(&[], &[], &[""]), "dns options", ""),
        ("an option with NUL", dns(&[], &[], &["a\0"]), "dns options", "a\0"),
    ];
    for (name, dns, field, value) in cases {
        let error = resolv_conf(Some(&dns), "").unwrap_err();
        assert!(
            matches!(&error, Error::Invalid { field: f, value: v, .. } if (*f, v.as_str()) == (field, value)),
            "{name}: {error}"
        );
    }
}

#[test]
fn hosts_knows_the_pod_by_each_of_its_addresses() {
    let text = hosts("web-0", &["10.0.0.7".parse().unwrap(), "fd00::7".parse().unwrap()]);
    assert!(text.starts_with("127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n"));
    assert!(text.ends_with("10.0.0.7\tweb-0\nfd00::7\tweb-0\n"));
}

#[test]
fn hostname_holds_one_name_that_the_kernel_takes() {
    assert_eq!(hostname("web-0").as_deref(), Ok("web-0\n"));
    assert!(hostname(&"a".repeat(64)).is_ok());
    for name in ["", "a b", "a\nb", "a\0", &"a".repeat(65)] {
        assert!(matches!(hostname(name), Err(Error::Invalid { field: "hostname", .. })), "{name:?}");
    }
}

#[test]
fn a_resolver_on_the_hosts_loopback_is_replaced_by_those_that_it_asks() {
    let stub = "# made by systemd\nnameserver 127.0.0.53\noptions edns0 trust-ad\nsearch example.test\n";
    let upstream = "nameserver 192.0.2.1\nnameserver fe80::1%eth0\nsearch example.test\n";
    assert_eq!(beyond_loopback(stub, || upstream.to_owned()), upstream);
    let without = "# made by systemd\noptions edns0 trust-ad\nsearch example.test\n";
    for nothing in ["", "nameserver 127.0.0.1\n", "search x\n"] {
        assert_eq!(beyond_loopback(stub, || nothing.to_owned()), without);
    }
    assert!(!has_server(without) && has_server(upstream));
}

#[test]
fn of_several_servers_those_that_answer_pods_are_left_as_they_are_written() {
    let never = || -> String { unreachable!("the host has a server of its own") };
    let mixed = "nameserver 127.0.0.1\nnameserver\t192.0.2.1 # main\nnameserver ::1\nnameserver 0.0.0.0\nnameserver ::ffff:127.0.0.1\nnameserver ::\n";
    assert_eq!(beyond_loopback(mixed, never), "nameserver\t192.0.2.1 # main\n");
    let plain = "nameserver 192.0.2.1\n; a comment on 127.0.0.1\n";
    assert_eq!(beyond_loopback(plain, never), plain);
}
