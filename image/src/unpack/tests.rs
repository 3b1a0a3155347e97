#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod bounds;

use std::io::Write;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::PathBuf;

use rustix::fs::XattrFlags;
use tar::EntryType;
use tempfile::TempDir;

use super::*;
use crate::merged_view::Layers;
use crate::tarball::{Tarball, header, must_be_root};
use crate::tree::testing::on_a_small_stack;

/// A layer unpacked into a directory of its own, beside a file that must stay as it is.
struct Layer {
    around: TempDir,
    unpacked: Unpacked,
}

impl Layer {
    fn of(tarball: Tarball) -> Self {
        Layer::try_of(&tarball.bytes()).unwrap()
    }

    fn try_of(bytes: &[u8]) -> Result<Self, Error> {
        must_be_root();
        let around = tempfile::tempdir().unwrap();
        std::fs::create_dir(around.path().join("layer")).unwrap();
        std::fs::write(around.path().join("outside"), "untouched").unwrap();
        let unpacked = unpack(bytes, &around.path().join("layer"), Limits::default());
        let seen = std::fs::read_to_string(around.path().join("outside"));
        assert_eq!(seen.unwrap(), "untouched");
        assert_eq!(std::fs::read_dir(around.path()).unwrap().count(), 2);
        let unpacked = unpacked?;
        unpacked.finish()?;
        Ok(Layer { around, unpacked })
    }

    fn path(&self, name: &str) -> PathBuf {
        self.around.path().join("layer").join(name)
    }

    fn text(&self, name: &str) -> String {
        std::fs::read_to_string(self.path(name)).unwrap()
    }

    fn stat(&self, name: &str) -> std::fs::Metadata {
        std::fs::symlink_metadata(self.path(name)).unwrap()
    }

    fn is_whiteout(&self, name: &str) -> bool {
        let stat = self.stat(name);
        stat.file_type().is_char_device() && stat.rdev() == 0
    }

    fn xattr(&self, name: &str, key: &str) -> Option<Vec<u8>> {
        let mut value = vec![0; 256];
        let length = rustix::fs::lgetxattr(self.path(name), key, &mut value[..]).ok()?;
        value.truncate(length);
        Some(value)
    }

    fn is_opaque(&self, name: &str) -> bool {
        self.xattr(name, root::OPAQUE).as_deref() == Some(b"y")
    }

    fn layers(&self) -> Layers {
        Layers { lower: vec![self.path("")] }
    }

    fn complete_on(&mut self, parents: &[&Layer]) -> Result<(), Error> {
        let lower = parents.iter().map(|parent| parent.path("")).collect();
        complete(&mut self.unpacked, &Layers { lower })?;
        self.unpacked.finish()
    }
}

fn refused(tarball: Tarball) -> Error {
    Layer::try_of(&tarball.bytes()).err().expect("must be refused")
}

#[test]
fn root_files_keep_content_mode_owner_and_time() {
    let layer = Layer::of(
        Tarball::new()
            .dir("bin/", 0o755)
            .owned_file("bin/su", b"program", 0o4755, (0, 0))
            .owned_file("bin/mail", b"", 0o2711, (8, 12))
            .pax(&[("mtime", b"1234567890.123456789")])
            .file("bin/timed", b"x"),
    );
    assert_eq!(layer.text("bin/su"), "program");
    assert_eq!(layer.stat("bin/su").mode() & 0o7777, 0o4755);
    let mail = layer.stat("bin/mail");
    assert_eq!((mail.mode() & 0o7777, mail.uid(), mail.gid()), (0o2711, 8, 12));
    let timed = layer.stat("bin/timed");
    assert_eq!((timed.mtime(), timed.mtime_nsec()), (1_234_567_890, 123_456_789));
    assert_eq!(
        layer.stat("bin").mtime(),
        1_000_000_000,
        "the directory's own time, not that of its last change"
    );
}

#[test]
fn root_modes_are_exact_whatever_the_umask_would_take() {
    let layer = Layer::of(Tarball::new().owned_file("w", b"", 0o666, (0, 0)).dir("d", 0o1777));
    assert_eq!(layer.stat("w").mode() & 0o7777, 0o666);
    assert_eq!(layer.stat("d").mode() & 0o7777, 0o1777);
}

#[test]
fn root_files_in_a_set_gid_directory_have_their_own_group() {
    let mut group_dir = header(EntryType::Directory, b"mail/", 0o2775);
    group_dir.set_gid(8);
    let layer = Layer::of(Tarball::new().entry(group_dir, &[]).file("mail/a", b"").dir("mail/d", 0o755));
    assert_eq!(layer.stat("mail").mode() & 0o7777, 0o2775);
    assert_eq!(layer.stat("mail/a").gid(), 0);
    assert_eq!((layer.stat("mail/d").gid(), layer.stat("mail/d").mode() & 0o7777), (0, 0o755));
}

#[test]
fn root_large_files_and_names_longer_than_a_header_holds_arrive_whole() {
    let data: Vec<u8> = (0..1_000_003_u32).map(|i| i as u8).collect();
    let deep = format!("{}/{}", "d".repeat(200), "f".repeat(250));
    let mut builder = tar::Builder::new(Vec::new());
    let mut long = header(EntryType::Regular, b"", 0o644);
    long.set_size(data.len() as u64);
    builder.append_data(&mut long, &deep, &data[..]).unwrap();
    let target = "t".repeat(300);
    builder.append_link(&mut header(EntryType::Symlink, b"", 0o777), "link", &target).unwrap();
    let layer = Layer::try_of(&builder.into_inner().unwrap()).unwrap();
    assert_eq!(std::fs::read(layer.path(&deep)).unwrap(), data);
    assert_eq!(std::fs::read_link(layer.path("link")).unwrap().as_os_str(), target.as_str());
}

#[test]
fn root_pax_names_and_owners_beyond_the_header_count() {
    let name = "ü".repeat(120);
    let records = [("path", name.as_bytes()), ("uid", b"3000000"), ("gid", b"4000000"), ("comment", b"a\nb")];
    let layer = Layer::of(Tarball::new().pax(&records).file("short", b"x"));
    let stat = layer.stat(&name);
    assert_eq!((stat.uid(), stat.gid()), (3_000_000, 4_000_000));
}

#[test]
fn root_extended_attributes_arrive_byte_for_byte_and_those_of_overlay_do_not() {
    let capability = b"\x01\x00\x00\x02\x00\x0a\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00";
    let records: [(&str, &[u8]); 3] = [
        ("SCHILY.xattr.security.capability", capability),
        ("SCHILY.xattr.user.note", b"a=b\n"),
        ("SCHILY.xattr.trusted.overlay.redirect", b"/etc"),
    ];
    let layer = Layer::of(
        Tarball::new()
            .pax(&records)
            .owned_file("ping", b"x", 0o755, (7, 7))
            .pax(&records[1..])
            .dir("d/", 0o755),
    );
    assert_eq!(layer.xattr("ping", "security.capability").as_deref(), Some(&capability[..]));
    assert_eq!(layer.xattr("ping", "user.note").as_deref(), Some(&b"a=b\n"[..]));
    assert_eq!(layer.xattr("d", "user.note").as_deref(), Some(&b"a=b\n"[..]));
    assert_eq!(layer.xattr("ping", "trusted.overlay.redirect"), None);
    assert_eq!(layer.xattr("d", "trusted.overlay.redirect"), None);
}

#[test]
fn root_devices_fifos_and_symlinks_are_made_with_their_owners() {
    let layer = Layer::of(
        Tarball::new()
            .node(EntryType::Char, "null", (1, 3))
            .node(EntryType::Block, "disk", (8, 1))
            .node(EntryType::Fifo, "pipe", (0, 0))
            .symlink("link", "/absolute/elsewhere"),
    );
    let null = layer.stat("null");
    assert!(null.file_type().is_char_device());
    assert_eq!((null.rdev(), null.gid(), null.mode() & 0o7777), (fs::makedev(1, 3), 5, 0o620));
    assert!(layer.stat("disk").file_type().is_block_device());
    assert!(layer.stat("pipe").file_type().is_fifo());
    assert_eq!(layer.stat("pipe").mtime(), 1_000_000_000);
    assert_eq!(std::fs::read_link(layer.path("link")).unwrap(), PathBuf::from("/absolute/elsewhere"));
    assert_eq!(layer.stat("link").mtime(), 1_000_000_000);
}

#[test]
fn root_hard_links_share_their_file() {
    let layer = Layer::of(
        Tarball::new()
            .file("a", b"x")
            .hard_link("b", "a")
            .hard_link("c", "/a")
            .hard_link("d", "./b")
            .hard_link("a", "a"),
    );
    assert_eq!(layer.stat("a").nlink(), 4);
    assert_eq!(layer.stat("d").ino(), layer.stat("a").ino());
    assert!(layer.unpacked.stands_alone());
}

#[test]
fn root_the_later_of_two_entries_of_one_name_counts() {
    let layer = Layer::of(
        Tarball::new()
            .file("file", b"old")
            .file("file", b"new")
            .dir("was-dir/", 0o755)
            .file("was-dir/inner", b"")
            .file("was-dir", b"file now")
            .file("was-file", b"")
            .dir("was-file/", 0o700)
            .file("was-file/inner", b"in")
            .symlink("was-link", "/etc")
            .dir("was-link/", 0o755)
            .file("was-link/inner", b"in")
            .dir("kept/", 0o755)
            .file("kept/inner", b"in")
            .dir("kept/", 0o711),
    );
    assert_eq!(layer.text("file"), "new");
    assert_eq!(layer.text("was-dir"), "file now");
    assert_eq!(layer.text("was-file/inner"), "in");
    assert_eq!(layer.text("was-link/inner"), "in");
    assert_eq!(layer.text("kept/inner"), "in");
    assert_eq!(layer.stat("kept").mode() & 0o7777, 0o711);
}

#[test]
fn root_whiteouts_become_what_overlay_knows() {
    let layer = Layer::of(
        Tarball::new()
            .dir("d/", 0o755)
            .file("d/.wh.gone", b"")
            .dir("o/", 0o755)
            .file("o/.wh..wh..opq", b"")
            .file(".wh..wh.plnk/1.2", b"")
            .file("d/.wh..wh.aufs", b""),
    );
    assert!(layer.is_whiteout("d/gone"));
    assert!(layer.is_opaque("o"));
    assert_eq!(std::fs::read_dir(layer.path("d")).unwrap().count(), 1);
    assert_eq!(std::fs::read_dir(layer.path("")).unwrap().count(), 2);
}

#[test]
fn root_a_name_removed_and_made_again_in_one_layer_is_there_and_hides_what_was_below() {
    let layer = Layer::of(
        Tarball::new()
            .file(".wh.before", b"")
            .dir("before/", 0o755)
            .file("before/x", b"")
            .file(".wh.implied", b"")
            .file("implied/x", b"")
            .dir("after/", 0o755)
            .file(".wh.after", b"")
            .file("file", b"kept")
            .file(".wh.file", b"")
            .file(".wh.file2", b"")
            .file("file2", b"made"),
    );
    assert!(layer.is_opaque("before"));
    assert!(layer.is_opaque("implied"));
    assert!(layer.is_opaque("after"));
    assert_eq!(layer.text("file"), "kept");
    assert_eq!(layer.text("file2"), "made");
}

#[test]
fn root_whiteouts_of_nothing_that_could_exist_are_refused() {
    for name in [".wh.", ".wh..", ".wh...", "d/.wh.."] {
        let error = refused(Tarball::new().dir("d/", 0o755).file(name, b""));
        assert!(matches!(error, Error::Whiteout { .. }), "{name}: {error:?}");
    }
}

#[test]
fn root_names_that_leave_the_root_are_refused() {
    for name in ["../outside", "a/../../outside", "/../outside", ".."] {
        let error = refused(Tarball::new().file(name, b"owned"));
        assert!(matches!(error, Error::Escape { .. }), "{name}: {error:?}");
        let error = refused(Tarball::new().dir(name, 0o777));
        assert!(matches!(error, Error::Escape { .. }), "{name}: {error:?}");
    }
    let error = refused(Tarball::new().hard_link("in", "../outside"));
    assert!(matches!(error, Error::Escape { .. }), "{error:?}");
}

#[test]
fn root_absolute_names_are_inside() {
    let layer =
        Layer::of(Tarball::new().file("/etc/berth-test", b"in").hard_link("/link", "/etc/berth-test"));
    assert_eq!(layer.text("etc/berth-test"), "in");
    assert_eq!(layer.text("link"), "in");
    assert!(!std::path::Path::new("/etc/berth-test").exists());
}

#[test]
fn root_symlinks_to_the_outside_lead_inside() {
    let layer = Layer::of(
        Tarball::new()
            .symlink("up", "../..")
            .file("up/a", b"1")
            .symlink("abs", "/")
            .file("abs/b", b"2")
            .symlink("outside", "../outside")
            .file("outside", b"3")
            .symlink("magic", "/proc/self/root")
            .file("magic/c", b"4"),
    );
    assert_eq!(layer.text("a"), "1");
    assert_eq!(layer.text("b"), "2");
    assert_eq!(layer.text("outside"), "3", "the symlink is replaced, not followed");
    assert!(!std::path::Path::new("/c").exists());
}

#[test]
fn root_a_parent_swapped_for_a_symlink_leads_nowhere_outside() {
    let layer = Layer::of(
        Tarball::new()
            .dir("d/", 0o755)
            .file("d/first", b"")
            .symlink("d", "../../../../tmp")
            .file("d/berth-swapped", b"in"),
    );
    assert!(!std::path::Path::new("/tmp/berth-swapped").exists());
    assert_eq!(layer.text("tmp/berth-swapped"), "in");
}

#[test]
fn root_hard_links_through_symlinks_reach_nothing_outside() {
    let around = Tarball::new().symlink("up", "..").hard_link("in", "up/outside");
    let mut layer = Layer::of(around);
    assert!(matches!(layer.complete_on(&[]), Err(Error::LinkTarget { .. })));
    assert!(!layer.path("in").exists());
}

#[test]
fn root_a_chain_of_symlinks_without_end_is_an_error() {
    let error = refused(Tarball::new().symlink("a", "b").symlink("b", "a").file("a/x", b""));
    assert!(matches!(error, Error::Entry { .. }), "{error:?}");
}

/// With RESOLVE_IN_ROOT the kernel fails a look-up of `..` with EAGAIN if anything on the host is renamed meanwhile.
#[test]
fn root_renames_elsewhere_on_the_host_do_no_harm() {
    let layer = Layer::of(Tarball::new().dir("a/b/", 0o755).symlink("a/up", ".."));
    let root = Root::open(&layer.path("")).unwrap();
    let (one, other) = (layer.around.path().join("one"), layer.around.path().join("other"));
    std::fs::write(&one, "").unwrap();
    let done = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(std::sync::atomic::Ordering::Relaxed) {
                std::fs::rename(&one, &other).unwrap();
                std::fs::rename(&other, &one).unwrap();
            }
        });
        let found: Vec<_> = (0..20_000).map(|_| root.directory(b"a/up/a/b").map(drop)).collect();
        done.store(true, std::sync::atomic::Ordering::Relaxed);
        assert!(found.iter().all(Result::is_ok), "{:?}", found.iter().find(|one| one.is_err()));
    });
}

#[test]
fn root_symlinks_to_absent_directories_take_no_stack() {
    let target = |number: usize| format!("{number}/{}", "d/".repeat(2000));
    let chain = |tarball: Tarball, number: usize| {
        let next = target(number + 1);
        tarball.pax(&[("linkpath", next.as_bytes())]).symlink(&number.to_string(), "")
    };
    let tarball = (0..3).fold(Tarball::new(), chain).file("0/x", b"");
    let bytes = tarball.bytes();
    let layer = on_a_small_stack(|| Layer::try_of(&bytes)).unwrap();
    crate::tree::remove(&layer.path("")).unwrap();
}

#[test]
fn root_a_directory_deeper_than_the_stack_can_be_replaced() {
    let deep = "d/".repeat(2000);
    let names = [("a", deep.clone()), ("b", format!("a/{deep}"))];
    let links = names.iter().fold(Tarball::new(), |tarball, (name, target)| {
        tarball.pax(&[("linkpath", target.as_bytes())]).symlink(name, "")
    });
    let path = format!("b/{deep}x");
    let bytes = links.pax(&[("path", path.as_bytes())]).file("", b"").file("d", b"flat").bytes();
    let layer = on_a_small_stack(|| Layer::try_of(&bytes)).unwrap();
    assert_eq!(layer.text("d"), "flat");
}

#[test]
fn root_names_of_directories_that_are_only_implied_are_limited_together() {
    let long = format!("{}/", "d".repeat(255)).repeat(15);
    let tarball = (0..600).fold(Tarball::new(), |tarball, number| {
        let path = format!("{number}/{long}x");
        tarball.pax(&[("path", path.as_bytes())]).file("", b"")
    });
    let error = refused(tarball);
    assert!(matches!(error, Error::Entry { .. }), "{error:?}");
}

#[test]
fn root_a_file_cannot_be_a_parent() {
    let error = refused(Tarball::new().file("f", b"").file("f/x", b""));
    assert!(matches!(error, Error::Entry { .. }), "{error:?}");
}

#[test]
fn root_names_too_long_for_the_kernel_are_an_error_that_names_them() {
    let component = "x".repeat(300);
    let error = refused(Tarball::new().pax(&[("path", component.as_bytes())]).file("x", b""));
    assert!(error.to_string().contains(&component), "{error}");
    let path = "y/".repeat(3000);
    refused(Tarball::new().pax(&[("path", path.as_bytes())]).file("x", b""));
    refused(Tarball::new().pax(&[("path", b"nul\0byte")]).file("x", b""));
}

#[test]
fn root_archives_that_end_early_or_are_broken_are_refused() {
    let good = Tarball::new().file("a", &[7; 5000]).bytes();
    for length in [100, 512 + 100, 512 + 4999] {
        assert!(matches!(Layer::try_of(&good[..length]), Err(Error::Archive { .. })), "{length}");
    }
    let mut flipped = good.clone();
    flipped[0] ^= 1;
    assert!(matches!(Layer::try_of(&flipped), Err(Error::Archive { .. })));
    assert!(matches!(Layer::try_of(&[b'x'; 4096]), Err(Error::Archive { .. })));
    let unknown = Tarball::new().entry(header(EntryType::new(b'?'), b"odd", 0o644), &[]);
    assert!(matches!(refused(unknown), Error::Archive { .. }));
    let dangling = Tarball::new().pax(&[("path", b"nothing")]);
    assert!(matches!(refused(dangling), Error::Archive { .. }));
}

#[test]
fn root_an_empty_archive_is_an_empty_layer() {
    for bytes in [Tarball::new().bytes(), Vec::new()] {
        assert_eq!(std::fs::read_dir(Layer::try_of(&bytes).unwrap().path("")).unwrap().count(), 0);
    }
}

#[test]
fn root_an_extension_header_of_gigabytes_is_refused_before_it_is_read() {
    let mut huge = header(EntryType::XHeader, b"pax", 0o644);
    huge.set_size(8 << 30);
    huge.set_cksum();
    let error = Layer::try_of(huge.as_bytes()).err().unwrap();
    assert!(
        matches!(&error, Error::Archive { source, .. } if source.to_string().contains("1 MiB")),
        "{error:?}"
    );
}

#[test]
fn root_layers_beyond_the_limits_are_refused() {
    must_be_root();
    let directory = tempfile::tempdir().unwrap();
    let bytes = Tarball::new().file("a", &[0; 600]).file("b", &[0; 600]).bytes();
    let limited = |limits| unpack(&bytes[..], directory.path(), limits).err();
    let entries = limited(Limits { entries: 1, ..Limits::default() });
    assert!(matches!(entries, Some(Error::Limit { what: "entries", .. })));
    let size = limited(Limits { bytes: 1000, ..Limits::default() });
    assert!(matches!(size, Some(Error::Limit { what: "bytes", .. })));
}

#[test]
fn root_sparse_files_written_by_gnu_tar_in_every_format_are_restored() {
    must_be_root();
    let from = tempfile::tempdir().unwrap();
    let path = from.path().join("sparse");
    let mut file = std::fs::File::create(&path).unwrap();
    for i in 0..40_u64 {
        rustix::io::pwrite(&file, &[i as u8 + 1; 4096], i * 65_536 + 8192).unwrap();
    }
    file.flush().unwrap();
    file.set_len(4 << 20).unwrap();
    let expected = std::fs::read(&path).unwrap();
    let formats = [
        "--format=gnu",
        "--format=posix --sparse-version=0.0",
        "--format=posix --sparse-version=0.1",
        "--format=posix --sparse-version=1.0",
    ];
    for format in formats {
        let mut tar = std::process::Command::new("tar");
        tar.arg("-C").arg(from.path()).args(format.split(' ')).args(["--sparse", "-cf", "-", "sparse"]);
        let archive = tar.output().unwrap().stdout;
        assert!(archive.len() < 1 << 20, "{format}: stored sparsely");
        let layer = Layer::try_of(&archive).unwrap();
        assert_eq!(std::fs::read(layer.path("sparse")).unwrap(), expected, "{format}");
        assert!(layer.stat("sparse").blocks() * 512 < 1 << 20, "{format}: has holes");
    }
}

#[test]
fn root_sparse_maps_that_lie_are_refused() {
    let maps: [&[u8]; 4] = [b"0,3,2,1", b"10,4", b"0,5", b"0"];
    for map in maps {
        let records: [(&str, &[u8]); 2] = [("GNU.sparse.map", map), ("GNU.sparse.size", b"12")];
        let error = refused(Tarball::new().pax(&records).file("s", b"1234"));
        assert!(matches!(error, Error::Archive { .. }), "{map:?}");
    }
}

#[test]
fn root_what_a_layer_takes_is_counted() {
    let layer = Layer::of(Tarball::new().dir("d/", 0o755).file("d/a", &[0; 5000]).symlink("l", "d"));
    assert_eq!(layer.unpacked.usage, Usage { bytes: 4096 + 4096 + 8192, inodes: 4 });
}

#[test]
fn root_implied_directories_take_after_those_below() {
    let mut owned = header(EntryType::Directory, b"home/user/", 0o2750);
    owned.set_uid(1000);
    owned.set_gid(1001);
    let note: [(&str, &[u8]); 1] = [("SCHILY.xattr.user.note", b"kept")];
    let lower =
        Layer::of(Tarball::new().dir("home/", 0o711).pax(&note).entry(owned, &[]).file("home/user/a", b""));
    let mut upper = Layer::of(Tarball::new().file("home/user/b", b"").file("new/c", b""));
    assert!(lower.unpacked.stands_alone());
    assert!(!upper.unpacked.stands_alone());
    upper.complete_on(&[&lower]).unwrap();
    let user = upper.stat("home/user");
    assert_eq!((user.mode() & 0o7777, user.uid(), user.gid()), (0o2750, 1000, 1001));
    assert_eq!(user.mtime(), 1_000_000_000);
    assert_eq!(upper.xattr("home/user", "user.note").as_deref(), Some(&b"kept"[..]));
    assert_eq!(upper.stat("home").mode() & 0o7777, 0o711);
    assert_eq!((upper.stat("new").mode() & 0o7777, upper.stat("new").mtime()), (0o755, 0));
}

#[test]
fn root_a_hard_link_to_a_lower_file_gets_a_copy_of_it_to_link_to() {
    let capability = b"\x01\x00\x00\x02\x00\x0a\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00";
    let bottom = Layer::of(
        Tarball::new()
            .dir("usr/", 0o755)
            .dir("usr/bin/", 0o751)
            .pax(&[("SCHILY.xattr.security.capability", capability)])
            .owned_file("usr/bin/tool", b"program", 0o4711, (3, 4))
            .symlink("bin", "usr/bin"),
    );
    let mut upper = Layer::of(Tarball::new().hard_link("alias", "bin/tool").hard_link("second", "alias"));
    upper.complete_on(&[&bottom]).unwrap();
    assert_eq!(upper.text("alias"), "program");
    let (alias, tool) = (upper.stat("alias"), upper.stat("usr/bin/tool"));
    assert_eq!(alias.ino(), tool.ino());
    assert_eq!((alias.nlink(), alias.mode() & 0o7777, alias.uid(), alias.gid()), (3, 0o4711, 3, 4));
    assert_eq!(alias.mtime(), 1_000_000_000);
    assert_eq!(upper.xattr("alias", "security.capability").as_deref(), Some(&capability[..]));
    assert_eq!(upper.stat("usr/bin").mode() & 0o7777, 0o751);
}

#[test]
fn root_a_hard_link_to_a_lower_node_gets_one_with_the_same_mode() {
    let bottom = Layer::of(Tarball::new().node(EntryType::Fifo, "pipe", (0, 0)));
    let mut upper = Layer::of(Tarball::new().hard_link("alias", "pipe"));
    upper.complete_on(&[&bottom]).unwrap();
    assert!(upper.stat("alias").file_type().is_fifo());
    assert_eq!((upper.stat("alias").mode() & 0o7777, upper.stat("alias").gid()), (0o620, 5));
}

#[test]
fn root_entries_named_through_a_symlink_of_a_lower_layer_go_where_it_leads() {
    let lower = Layer::of(
        Tarball::new()
            .dir("usr/", 0o755)
            .dir("usr/lib/", 0o751)
            .file("usr/lib/base", b"base")
            .dir("usr/lib/sub/", 0o700)
            .symlink("lib", "usr/lib")
            .symlink("lib64", "/lib"),
    );
    let mut upper = Layer::of(
        Tarball::new()
            .file("usr/lib/own", b"own")
            .file("lib/a", b"a")
            .file("lib/sub/b", b"b")
            .file("lib64/c", b"c")
            .file("lib/.wh.base", b"")
            .hard_link("lib/link", "lib64/sub/../base"),
    );
    upper.complete_on(&[&lower]).unwrap();
    assert!(!upper.path("lib").exists() && !upper.path("lib64").exists());
    for (name, text) in [("own", "own"), ("a", "a"), ("sub/b", "b"), ("c", "c"), ("link", "base")] {
        assert_eq!(upper.text(&format!("usr/lib/{name}")), text);
    }
    assert!(upper.is_whiteout("usr/lib/base"));
    assert_eq!(upper.stat("usr/lib").mode() & 0o7777, 0o751);
    assert_eq!(upper.stat("usr/lib/sub").mode() & 0o7777, 0o700);
}

#[test]
fn root_a_hard_link_to_nothing_is_an_error_that_names_both_ends() {
    let lower = Layer::of(Tarball::new().dir("d/", 0o755));
    for target in ["missing", "d"] {
        let mut upper = Layer::of(Tarball::new().hard_link("link", target));
        let error = upper.complete_on(&[&lower]).unwrap_err().to_string();
        assert!(error.contains("\"link\"") && error.contains(target), "{error}");
    }
}

#[test]
fn root_a_parent_symlink_that_leads_into_a_lower_layer_is_followed() {
    let layer = Layer::of(
        Tarball::new()
            .symlink("var/run", "/run")
            .file("var/run/pid", b"1")
            .symlink("rel", "a/b")
            .file("rel/c", b"2"),
    );
    assert_eq!(layer.text("run/pid"), "1");
    assert_eq!(layer.text("a/b/c"), "2");
    assert_eq!(std::fs::read_link(layer.path("var/run")).unwrap(), PathBuf::from("/run"));
}

#[test]
fn root_the_merged_tree_is_read_as_overlay_would_show_it() {
    let bottom = Layer::of(
        Tarball::new()
            .dir("etc/", 0o755)
            .file("etc/passwd", b"bottom")
            .file("etc/gone", b"x")
            .dir("hidden/", 0o755)
            .file("hidden/old", b"x")
            .file("etc/only-bottom", b"deep")
            .dir("replaced/", 0o755)
            .file("replaced/x", b""),
    );
    let top = Layer::of(
        Tarball::new()
            .dir("etc/", 0o755)
            .file("etc/passwd", b"top")
            .file("etc/.wh.gone", b"")
            .dir("hidden/", 0o755)
            .file("hidden/.wh..wh..opq", b"")
            .file("hidden/new", b"y")
            .file("replaced", b"file")
            .symlink("etc/absolute", "/etc/only-bottom")
            .symlink("etc/escape", "../../../../../../etc/passwd")
            .symlink("loop", "loop")
            .node(EntryType::Fifo, "pipe", (0, 0)),
    );
    let layers = Layers { lower: vec![top.path(""), bottom.path("")] };
    let read = |path: &str| layers.read(path, 100).unwrap().map(|bytes| String::from_utf8(bytes).unwrap());
    assert_eq!(read("/etc/passwd").as_deref(), Some("top"));
    assert_eq!(read("etc/only-bottom").as_deref(), Some("deep"));
    assert_eq!(read("etc/absolute").as_deref(), Some("deep"));
    assert_eq!(read("etc/escape").as_deref(), Some("top"));
    assert_eq!(read("etc/../etc/./passwd").as_deref(), Some("top"));
    for absent in ["etc/gone", "hidden/old", "nothing/at/all", "replaced/x", "etc/passwd/x"] {
        assert_eq!(read(absent), None, "{absent}");
    }
    assert_eq!(read("hidden/new").as_deref(), Some("y"));
    for bad in ["loop", "pipe", "etc", "/"] {
        assert!(layers.read(bad, 100).is_err(), "{bad}");
    }
    assert!(layers.read("etc/passwd", 2).is_err(), "longer than the limit");
    assert_eq!(bottom.layers().read("etc/passwd", 100).unwrap().unwrap(), b"bottom");
}

#[test]
fn root_overlay_shows_the_unpacked_layers_as_meant() {
    let bottom = Layer::of(
        Tarball::new().dir("d/", 0o755).file("d/a", b"a").file("d/b", b"b").dir("o/", 0o755).file("o/x", b""),
    );
    let top = Layer::of(
        Tarball::new()
            .dir("d/", 0o755)
            .file("d/.wh.a", b"")
            .dir("o/", 0o755)
            .file("o/.wh..wh..opq", b"")
            .file("o/y", b""),
    );
    let script = format!(
        "mount -t overlay overlay -o lowerdir={}:{} /mnt && cd /mnt && find . -mindepth 1 | sort | tr '\\n' ' '",
        top.path("").display(),
        bottom.path("").display()
    );
    let seen = std::process::Command::new("unshare").args(["-m", "sh", "-c", &script]).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&seen.stdout), "./d ./d/b ./o ./o/y ", "{seen:?}");
}

#[test]
fn root_attributes_of_links_stay_on_the_link() {
    let layer = Layer::of(
        Tarball::new()
            .file("file", b"")
            .pax(&[("SCHILY.xattr.trusted.note", b"link")])
            .symlink("link", "file"),
    );
    assert_eq!(layer.xattr("link", "trusted.note").as_deref(), Some(&b"link"[..]));
    assert_eq!(layer.xattr("file", "trusted.note"), None);
    fs::lsetxattr(layer.path("file"), "trusted.note", b"own", XattrFlags::empty()).unwrap();
}
