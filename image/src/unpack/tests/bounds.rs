//! Bounds on the memory and work that an archive can cost its reader.

use super::*;

/// Makes an archive of `count` entries by `of`, each with a name nearly as long as the kernel allows.
fn many(count: usize, of: impl Fn(Tarball, &str) -> Tarball) -> Tarball {
    let long = format!("{}/", "d".repeat(255)).repeat(15);
    (0..count).fold(Tarball::new(), |tarball, number| of(tarball, &format!("{long}{number}")))
}

#[test]
fn root_names_of_directories_are_limited_together() {
    let directories = |tarball: Tarball, path: &str| tarball.pax(&[("path", path.as_bytes())]).dir("", 0o755);
    assert!(Layer::try_of(&many(100, directories).bytes()).is_ok());
    let error = refused(many(4500, directories));
    assert!(matches!(error, Error::Entry { .. }), "{error:?}");
}

#[test]
fn root_hard_links_into_lower_layers_are_limited_together() {
    let links = |tarball: Tarball, path: &str| {
        let name = &path[path.len() - 10..];
        tarball.pax(&[("linkpath", path.as_bytes())]).hard_link(name, "")
    };
    assert!(Layer::try_of(&many(100, links).bytes()).is_ok());
    let error = refused(many(1200, links));
    assert!(matches!(error, Error::Entry { step: "remember the link", .. }), "{error:?}");
}

#[test]
fn root_extension_headers_in_a_row_are_limited() {
    let headers = |count| (0..count).fold(Tarball::new(), |tarball, _| tarball.pax(&[("comment", b"c")]));
    assert!(Layer::try_of(&headers(16).file("a", b"").bytes()).is_ok());
    let error = refused(headers(17).file("a", b""));
    assert!(matches!(error, Error::Archive { .. }), "{error:?}");
}

fn unpacked_within(bytes: u64, archive: &[u8]) -> Result<(), Error> {
    must_be_root();
    let into = tempfile::tempdir().unwrap();
    unpack(archive, into.path(), Limits { bytes, entries: 1000 }).map(drop)
}

#[test]
fn root_extension_headers_and_what_follows_the_archive_count_as_bytes() {
    let comment = [b'c'; 10_000];
    let extended = (0..10).fold(Tarball::new(), |tarball, number| {
        tarball.pax(&[("comment", &comment)]).file(&number.to_string(), b"")
    });
    let extended = extended.bytes();
    assert!(unpacked_within(200_000, &extended).is_ok());
    assert!(matches!(unpacked_within(90_000, &extended), Err(Error::Limit { what: "bytes", .. })));
    let followed = [Tarball::new().file("a", b"").bytes(), vec![0; 100_000]].concat();
    assert!(unpacked_within(200_000, &followed).is_ok());
    assert!(matches!(unpacked_within(90_000, &followed), Err(Error::Limit { what: "bytes", .. })));
}

/// Hard links to a file of a lower layer that the layer itself removes.
fn links_to_removed(count: usize) -> Tarball {
    let whiteout = Tarball::new().file(".wh.big", b"");
    (0..count).fold(whiteout, |tarball, number| tarball.hard_link(&format!("link{number}"), "big"))
}

#[test]
fn root_links_to_a_lower_file_share_one_copy_though_the_layer_removes_it() {
    let lower = Layer::of(Tarball::new().file("big", &[7; 50_000]));
    let mut upper = Layer::of(links_to_removed(100));
    upper.complete_on(&[&lower]).unwrap();
    assert!(upper.is_whiteout("big"));
    assert_eq!((upper.stat("link0").nlink(), upper.stat("link99").size()), (100, 50_000));
}

#[test]
fn root_what_is_copied_up_counts_as_bytes() {
    must_be_root();
    let lower = Layer::of(Tarball::new().file("big", &[7; 50_000]).file("other", &[7; 50_000]));
    let into = tempfile::tempdir().unwrap();
    let archive = Tarball::new().hard_link("a", "big").hard_link("b", "other").bytes();
    let limits = Limits { bytes: 80_000, entries: 10 };
    let mut upper = unpack(&archive[..], into.path(), limits).unwrap();
    let error = complete(&mut upper, &lower.layers()).unwrap_err();
    assert!(matches!(error, Error::Limit { what: "bytes", .. }), "{error:?}");
}

/// The upper layer uses many symlinks of the lower one: the cost of a rename must not grow with the number of names.
#[test]
fn root_what_lies_behind_many_symlinks_of_a_lower_layer_is_moved_to_where_they_lead() {
    const LINKS: usize = 3000;
    let lower = (0..LINKS).fold(Tarball::new().dir("real/", 0o755), |tarball, number| {
        tarball
            .dir(&format!("real/{number}/"), 0o711)
            .symlink(&format!("link{number}"), &format!("real/{number}"))
    });
    let lower = Layer::of(lower);
    let upper = (0..LINKS).fold(Tarball::new(), |tarball, number| {
        tarball.file(&format!("link{number}/file"), b"").dir(&format!("link{number}/named/"), 0o700)
    });
    let mut upper = Layer::of(upper);
    upper.complete_on(&[&lower]).unwrap();
    for number in [0, 1, LINKS / 2, LINKS - 1] {
        let real = upper.stat(&format!("real/{number}"));
        assert_eq!(real.mode() & 0o7777, 0o711);
        assert!(upper.path(&format!("real/{number}/file")).exists());
        assert_eq!(upper.stat(&format!("real/{number}/named")).mtime(), 1_000_000_000);
        assert!(!upper.path(&format!("link{number}")).exists());
    }
}

#[test]
fn root_what_lies_deep_behind_a_symlink_of_a_lower_layer_is_moved_without_stack() {
    let lower = Layer::of(Tarball::new().dir("usr/", 0o755).dir("usr/lib/", 0o755).symlink("lib", "usr/lib"));
    let deep = "d/".repeat(1900);
    let file = |tarball: Tarball, name: &str| tarball.pax(&[("path", name.as_bytes())]).file("", b"");
    let here = file(Tarball::new(), &format!("usr/lib/{deep}here"));
    let mut upper = Layer::of(file(here, &format!("lib/{deep}behind")));
    on_a_small_stack(|| upper.complete_on(&[&lower])).unwrap();
    assert!(upper.path(&format!("usr/lib/{deep}here")).exists());
    assert!(upper.path(&format!("usr/lib/{deep}behind")).exists());
    assert!(!upper.path("lib").exists());
    crate::tree::remove(&upper.path("")).unwrap();
}

#[test]
fn root_symlinks_behind_symlinks_are_followed_one_after_the_other() {
    let lower = Tarball::new()
        .dir("a/", 0o755)
        .dir("a/real/", 0o755)
        .dir("a/real/deep/", 0o711)
        .symlink("a/second", "real")
        .symlink("first", "a")
        .symlink("a/real/third", "/a/real/deep");
    let lower = Layer::of(lower);
    let mut upper = Layer::of(Tarball::new().file("first/second/third/file", b"found"));
    upper.complete_on(&[&lower]).unwrap();
    assert_eq!(upper.text("a/real/deep/file"), "found");
    assert_eq!(upper.stat("a/real/deep").mode() & 0o7777, 0o711);
    assert!(!upper.path("first").exists() && !upper.path("a/second").exists());
}

#[test]
fn root_nothing_is_taken_from_below_an_opaque_root() {
    let lower = Layer::of(Tarball::new().dir("usr/", 0o755).dir("usr/lib/", 0o711).symlink("lib", "usr/lib"));
    let mut upper = Layer::of(Tarball::new().file(".wh..wh..opq", b"").file("lib/x", b""));
    assert!(upper.unpacked.hides_all_below);
    upper.complete_on(&[&lower]).unwrap();
    assert!(upper.path("lib/x").exists());
    assert_eq!(upper.stat("lib").mode() & 0o7777, 0o755);
}
