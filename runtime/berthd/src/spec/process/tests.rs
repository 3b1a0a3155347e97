#![allow(clippy::unwrap_used)]
use std::path::Path;

use super::*;
use crate::spec::tests::{Given, words};

#[test]
fn a_command_replaces_the_entrypoint_and_arguments_replace_the_images() {
    type Case<'a> = (&'a str, [&'a [&'a str]; 4], Option<&'a [&'a str]>);
    let cases: [Case<'_>; 12] = [
        ("the image's own", [&[], &[], &["e"], &["c"]], Some(&["e", "c"])),
        ("an entrypoint alone", [&[], &[], &["e", "f"], &[]], Some(&["e", "f"])),
        ("a cmd alone", [&[], &[], &[], &["c"]], Some(&["c"])),
        ("a command", [&["x"], &[], &["e"], &["c"]], Some(&["x"])),
        ("a command and arguments", [&["x"], &["y"], &["e"], &["c"]], Some(&["x", "y"])),
        ("arguments", [&[], &["y"], &["e"], &["c"]], Some(&["e", "y"])),
        ("arguments for no entrypoint", [&[], &["y"], &[], &["c"]], Some(&["y"])),
        ("an entrypoint taken away", [&[], &[], &[""], &["c"]], Some(&["c"])),
        ("empty words further on", [&["x", ""], &[""], &[], &[]], Some(&["x", "", ""])),
        ("nothing at all", [&[], &[], &[], &[]], None),
        ("an entrypoint taken away and no cmd", [&[], &[], &[""], &[]], None),
        ("an empty command", [&[""], &["y"], &["e"], &["c"]], None),
    ];
    for (name, [command, arguments, entrypoint, cmd], expected) in cases {
        let container =
            ContainerConfig { command: words(command), args: words(arguments), ..Default::default() };
        let image = ImageDefaults { entrypoint: words(entrypoint), cmd: words(cmd), ..Default::default() };
        assert_eq!(args(&container, &image), expected.map(words).ok_or(Error::NoCommand), "{name}");
    }
}

#[test]
fn a_word_with_a_nul_byte_is_refused() {
    let container = ContainerConfig { command: words(&["x", "a\0b"]), ..Default::default() };
    let error = args(&container, &ImageDefaults::default()).unwrap_err();
    assert_eq!(error, Error::invalid("command", "a\0b", "holds a NUL byte"));
}

#[test]
fn it_runs_in_the_containers_directory_then_the_images_then_the_root() {
    let cases = [
        ("nowhere said", "", "", Ok("/")),
        ("the image's", "", "/app", Ok("/app")),
        ("the image's, relative", "", "app", Ok("/app")),
        ("the container's", "/srv/a b", "/app", Ok("/srv/a b")),
        ("the container's, relative", "srv", "/app", Err("is not an absolute path")),
        ("the container's, with a NUL byte", "/a\0", "", Err("holds a NUL byte")),
    ];
    for (name, own, of_image, expected) in cases {
        let container = ContainerConfig { working_dir: own.to_owned(), ..Default::default() };
        let image = ImageDefaults { working_dir: of_image.to_owned(), ..Default::default() };
        let expected =
            expected.map(str::to_owned).map_err(|reason| Error::invalid("working_dir", own, reason));
        assert_eq!(working_dir(&container, &image), expected, "{name}");
    }
}

#[test]
fn a_process_is_who_and_what_it_was_asked_to_be() {
    let mut given = Given::usual();
    given.container.tty = true;
    given.container.security.no_new_privs = true;
    given.user = ResolvedUser { uid: 7, gid: 8, additional_gids: vec![8, 9], home: "/home/seven".to_owned() };
    let process = build(&given.inputs()).unwrap();
    assert_eq!((process.user().uid(), process.user().gid()), (7, 8));
    assert_eq!(*process.user().additional_gids(), Some(vec![8, 9]));
    assert!(process.env().as_ref().unwrap().contains(&"HOME=/home/seven".to_owned()));
    assert_eq!((process.terminal(), process.no_new_privileges()), (Some(true), Some(true)));
    assert_eq!(process.cwd(), Path::new("/"));
    assert_eq!((process.console_size(), process.user().umask()), (None, None));
    assert_eq!((process.rlimits(), process.apparmor_profile()), (&None, &None));
}

#[test]
fn a_process_that_asks_for_nothing_gets_nothing_special() {
    let process = build(&Given::usual().inputs()).unwrap();
    assert_eq!((process.terminal(), process.no_new_privileges()), (Some(false), Some(false)));
    assert_eq!((process.user().uid(), process.oom_score_adj()), (0, None));
}
