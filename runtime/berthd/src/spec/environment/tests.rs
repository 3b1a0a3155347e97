#![allow(clippy::unwrap_used)]
use super::*;
use crate::spec::tests::{Given, words};

fn environment(given: &Given) -> Result<Vec<String>, Error> {
    build(&given.inputs(), "/root")
}

#[test]
fn a_container_starts_with_a_path_its_name_and_its_home() {
    let expected = words(&[&format!("PATH={DEFAULT_PATH}"), "HOSTNAME=web-0", "HOME=/root"]);
    assert_eq!(environment(&Given::usual()), Ok(expected));
}

#[test]
fn a_terminal_has_a_type() {
    let mut given = Given::usual();
    given.container.tty = true;
    assert!(environment(&given).unwrap().contains(&"TERM=xterm".to_owned()));
    given.image.env = words(&["TERM=vt100"]);
    let named: Vec<_> =
        environment(&given).unwrap().into_iter().filter(|entry| entry.starts_with("TERM=")).collect();
    assert_eq!(named, ["TERM=vt100"]);
}

#[test]
fn the_containers_variables_win_over_the_images_and_those_over_the_defaults() {
    let mut given = Given::usual();
    given.image.env = words(&["PATH=/bin", "A=image", "B=image", "HOME=/srv", "HOSTNAME", "=x", "EMPTY="]);
    given.container.env = [("B", "container"), ("C", "first"), ("C", "a=b"), ("D", "")]
        .map(|(name, value)| (name.to_owned(), value.as_bytes().to_vec()))
        .into();
    let expected = words(&["PATH=/bin", "A=image", "B=container", "HOME=/srv", "EMPTY=", "C=a=b", "D="]);
    assert_eq!(environment(&given), Ok(expected));
}

#[test]
fn a_variable_that_cannot_be_passed_on_is_refused_by_name_without_its_value() {
    let cases: [(&str, &[u8], &str); 5] = [
        ("", b"x", "has no name"),
        ("A=B", b"x", "has '=' in its name"),
        ("A\0", b"x", "has a NUL byte in its name"),
        ("SECRET", b"hunter2\0", "has a NUL byte in its value"),
        ("SECRET", b"hunter2\xff", "has a value that is not UTF-8, which an OCI specification cannot carry"),
    ];
    for (name, value, reason) in cases {
        let mut given = Given::usual();
        given.container.env = vec![(name.to_owned(), value.to_vec())];
        let error = environment(&given).unwrap_err();
        assert_eq!(error, Error::Environment { name: name.to_owned(), reason });
        assert!(!error.to_string().contains("hunter2"), "{error}");
    }
}
