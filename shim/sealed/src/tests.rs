#![allow(clippy::unwrap_used)]
use super::*;
use rustix::fs::{AtFlags, Gid, Timespec, Timestamps, Uid, XattrFlags};
use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};

/// Copies a program of the host to another name in a new directory, and makes a sealed copy of it.
fn copied(program: &str, name: &str) -> (tempfile::TempDir, PathBuf, Sealed) {
    assert!(rustix::process::geteuid().is_root(), "needs root: sudo -E cargo test -p berth-sealed root_");
    let directory = tempfile::tempdir().unwrap();
    let copy = directory.path().join(name);
    fs::copy(fs::canonicalize(Path::new("/bin").join(program)).unwrap(), &copy).unwrap();
    let sealed = Sealed::copy_of(&copy).unwrap();
    (directory, copy, sealed)
}

#[test]
fn root_the_copy_runs_under_the_programs_name_also_when_nobody_holds_it_any_more() {
    let (_directory, _, sealed) = copied("cat", "speaker");
    // Its output shows that its execve is over: spawn returns before the kernel has set its name.
    let mut running = Command::new(sealed.path())
        .args(["/proc/self/comm", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut name = String::new();
    BufReader::new(running.stdout.take().unwrap()).read_line(&mut name).unwrap();
    drop(sealed);
    assert_eq!(name, "speaker\n");
    assert!(is_sealed(File::open(format!("/proc/{}/exe", running.id())).unwrap()).unwrap());
    assert!(!is_sealed(File::open("/proc/self/exe").unwrap()).unwrap());
    drop(running.stdin.take());
    assert!(running.wait().unwrap().success());
}

#[test]
fn root_a_script_is_found_by_its_interpreter() {
    let directory = tempfile::tempdir().unwrap();
    let program = directory.path().join("script");
    fs::write(&program, "#!/bin/sh\necho ran $1").unwrap();
    let sealed = Sealed::copy_of(&program).unwrap();
    let said = Command::new(sealed.path()).arg("well").output().unwrap();
    assert_eq!(said.stdout, b"ran well\n", "{said:?}");
}

#[test]
fn root_who_has_the_file_of_a_running_copy_can_change_nothing_of_it() {
    let (_directory, program, sealed) = copied("sleep", "sleeper");
    let mut running = Command::new(sealed.path()).arg("1000").spawn().unwrap();
    let file = File::open(format!("/proc/{}/exe", running.id())).unwrap();
    running.kill().unwrap();
    running.wait().unwrap();
    // No process runs from it any more, so the error is from the file system and not ETXTBSY.
    let again = format!("/proc/self/fd/{}", file.as_raw_fd());
    let read_only = |error: io::Error| Errno::from_io_error(&error) == Some(Errno::ROFS);
    assert!(read_only(File::options().write(true).open(&again).unwrap_err()));
    assert!(read_only(fs::set_permissions(&again, fs::Permissions::from_mode(0o4777)).unwrap_err()));
    let root = (Some(Uid::ROOT), None::<Gid>);
    let times = Timestamps {
        last_access: Timespec { tv_sec: 1, tv_nsec: 0 },
        last_modification: Timespec { tv_sec: 1, tv_nsec: 0 },
    };
    assert_eq!(rustix::fs::fchown(&file, root.0, root.1), Err(Errno::ROFS));
    assert_eq!(rustix::fs::futimens(&file, &times), Err(Errno::ROFS));
    assert_eq!(rustix::fs::ftruncate(&file, 0), Err(Errno::INVAL), "it is open for reading only");
    let kept = rustix::fs::fsetxattr(&file, "security.capability", &[0; 20], XattrFlags::empty());
    assert_eq!(kept, Err(Errno::ROFS));
    let beside = rustix::fs::linkat(&file, "", rustix::fs::CWD, &program, AtFlags::EMPTY_PATH);
    assert!(beside.is_err());
    assert_eq!(fs::read(&again).unwrap(), fs::read(&program).unwrap());
}

#[test]
fn root_no_mount_call_makes_the_copy_writable() {
    let (_directory, _, sealed) = copied("sleep", "sleeper");
    let file = File::open(sealed.path()).unwrap();
    let again = format!("/proc/self/fd/{}", file.as_raw_fd());
    for target in [&again, &sealed.path().parent().unwrap().display().to_string()] {
        let remounted = rustix::mount::mount_remount(target.as_str(), rustix::mount::MountFlags::BIND, c"");
        assert!(remounted.is_err(), "{target}");
    }
    let flags = rustix::mount::FsPickFlags::FSPICK_EMPTY_PATH;
    assert_eq!(fspick(&file, "", flags).unwrap_err(), Errno::INVAL, "the file leads to the file system");
    assert!(File::options().write(true).open(&again).is_err());
}

#[test]
fn root_a_file_that_is_replaced_is_another() {
    let (_directory, program, sealed) = copied("sleep", "sleeper");
    assert!(sealed.is_of(&program));
    fs::remove_file(&program).unwrap();
    assert!(!sealed.is_of(&program));
    fs::write(&program, "another").unwrap();
    assert!(!sealed.is_of(&program));
}

#[test]
fn a_program_that_is_not_there_is_an_error_that_names_it() {
    let error = Sealed::copy_of(Path::new("/no/such/program")).unwrap_err();
    assert_eq!(error.to_string(), "open /no/such/program");
}

#[test]
fn root_children_that_other_threads_make_meanwhile_do_not_disturb() {
    let (_directory, program, _sealed) = copied("sleep", "sleeper");
    let done = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(std::sync::atomic::Ordering::Relaxed) {
                Command::new("/bin/true").status().unwrap();
            }
        });
        let made: Vec<_> = (0..100).map(|_| Sealed::copy_of(&program)).collect();
        done.store(true, std::sync::atomic::Ordering::Relaxed);
        assert!(made.iter().all(Result::is_ok), "{:?}", made.into_iter().find(Result::is_err));
    });
}
