#![allow(clippy::unwrap_used, clippy::panic)]
use super::super::{devices, files};
use super::*;
use crate::sys;
use rustix::fs::{CWD, FileType, Mode, OFlags, makedev, mknodat, open};
use rustix::io::Errno;
use std::fs::File;
use std::os::fd::AsFd;
use std::path::Path;

/// `+c 1:3 rw` allows, `-c 1:3 rw` denies.
fn rule(text: &str) -> DeviceRule {
    let mut words = text[1..].split([' ', ':']);
    let kind = words.next().unwrap().to_owned();
    let mut number = || words.next().filter(|word| *word != "*").map(|word| word.parse().unwrap());
    let (major, minor) = (number(), number());
    DeviceRule { allow: text.starts_with('+'), kind, major, minor, access: words.next().unwrap().into() }
}

fn rules(texts: &[&str]) -> Vec<DeviceRule> {
    texts.iter().map(|text| rule(text)).collect()
}

/// Interprets a program for one access to a device.
fn run(program: &[Instruction], kind: u32, major: u32, minor: u32, access: u32) -> bool {
    let context = [access << 16 | kind, major, minor];
    let (mut registers, mut at) = ([0u32; 11], 0usize);
    loop {
        let Instruction { operation, registers: both, offset, value } = program[at];
        let (to, from) = (usize::from(both & 15), usize::from(both >> 4));
        at += 1;
        match operation {
            LOAD => registers[to] = context[offset as usize / 4],
            COPY => registers[to] = registers[from],
            SET => registers[to] = value,
            AND => registers[to] &= value,
            SHIFT_RIGHT => registers[to] >>= value,
            IF_EQUAL if registers[to] == value => at += offset as usize,
            IF_NOT_EQUAL if registers[to] != value => at += offset as usize,
            IF_EQUAL | IF_NOT_EQUAL => {}
            EXIT => return registers[usize::from(RESULT)] == 1,
            other => panic!("operation {other:#x}"),
        }
    }
}

#[test]
fn the_last_rule_about_each_kind_of_access_counts() {
    const NONE: &[&str] = &["-a *:* rwm"];
    for (list, device, access, expected) in [
        (&["+a *:* rwm"][..], (CHARACTER, 1, 3), ALL, true),
        (NONE, (CHARACTER, 1, 3), READ, false),
        (&[], (CHARACTER, 1, 3), READ, false),
        (&["-a *:* rwm", "+c 1:3 rw"], (CHARACTER, 1, 3), READ | WRITE, true),
        (&["-a *:* rwm", "+c 1:3 rw"], (CHARACTER, 1, 3), MAKE, false),
        (&["-a *:* rwm", "+c 1:3 rw"], (CHARACTER, 1, 3), READ | MAKE, false),
        (&["-a *:* rwm", "+c 1:3 rw"], (BLOCK, 1, 3), READ, false),
        (&["-a *:* rwm", "+c 1:3 rw"], (CHARACTER, 1, 4), READ, false),
        (&["-a *:* rwm", "+c 1:3 rw"], (CHARACTER, 2, 3), READ, false),
        (&["-a *:* rwm", "+c 136:* rwm"], (CHARACTER, 136, 77), ALL, true),
        (&["-a *:* rwm", "+b *:5 r"], (BLOCK, 9, 5), READ, true),
        (&["-a *:* rwm", "+c 1:3 r", "+c 1:3 w"], (CHARACTER, 1, 3), READ | WRITE, true),
        (&["+a *:* rwm", "-c 1:3 w"], (CHARACTER, 1, 3), READ | WRITE, false),
        (&["+a *:* rwm", "-c 1:3 w"], (CHARACTER, 1, 3), READ, true),
        (&["+a *:* rwm", "-c 1:3 w", "+c 1:3 w"], (CHARACTER, 1, 3), READ | WRITE, true),
        (&["+c 1:3 rwm", "-a *:* rwm"], (CHARACTER, 1, 3), READ, false),
        (&["+a *:* r"], (BLOCK, 8, 0), READ, true),
        (&["+a *:* r"], (BLOCK, 8, 0), READ | WRITE, false),
    ] {
        let program = compile(&rules(list)).unwrap();
        let (kind, major, minor) = device;
        assert_eq!(run(&program, kind, major, minor, access), expected, "{list:?} {device:?} {access:b}");
    }
}

#[test]
fn what_an_earlier_rule_about_everything_hides_is_left_out() {
    let hidden = compile(&rules(&["+c 1:3 rwm", "-c 2:* r", "+a *:* rwm", "-b 8:0 w"])).unwrap();
    assert_eq!(hidden, compile(&rules(&["+a *:* rwm", "-b 8:0 w"])).unwrap());
}

#[test]
fn rules_that_cannot_be_are_refused_with_what_they_say() {
    for text in ["+x 1:3 rw", "+c 1:3 rwx", "+c 4294967296:1 r", "+p 1:3 r"] {
        let error = compile(&rules(&[text])).unwrap_err();
        assert!(
            error.kind() == io::ErrorKind::InvalidInput && error.to_string().contains("DeviceRule"),
            "{error}"
        );
    }
}

/// Results of `attempt` in a cgroup, after each of these rule lists in turn has replaced the previous one.
fn answers(lists: &[&[&str]], attempt: &dyn Fn() -> Vec<Option<Errno>>) -> Vec<Vec<Option<Errno>>> {
    assert!(rustix::process::geteuid().is_root(), "needs root: sudo -E cargo test -p berth-shim root_");
    let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap();
    let line = mounts.lines().find(|line| line.split(' ').nth(2) == Some("cgroup2")).unwrap();
    let root = Path::new(line.split(' ').nth(1).unwrap());
    let group = root.join(format!("berth-test-devices-{}-{}", std::process::id(), lists.len()));
    files::make(&group, &mut |_| Ok(())).unwrap();
    let directory = File::open(&group).unwrap();
    let answers = lists.iter().map(|list| {
        enforce(directory.as_fd(), &devices::complete(&rules(list))).unwrap();
        inside(&group, attempt)
    });
    let answers = answers.collect();
    files::remove(&group).unwrap();
    answers
}

/// Runs `attempt` in a process in the cgroup.
fn inside(group: &Path, attempt: &dyn Fn() -> Vec<Option<Errno>>) -> Vec<Option<Errno>> {
    let (read, write) = rustix::pipe::pipe().unwrap();
    let pid = sys::fork(|| {
        let entered = files::write(group, "cgroup.procs", "0");
        let answers = attempt();
        let numbers: Vec<u8> =
            answers.iter().map(|error| error.map_or(0, |error| error.raw_os_error() as u8)).collect();
        u8::from(entered.is_err() || rustix::io::write(&write, &numbers).is_err())
    });
    let pid = rustix::process::Pid::from_raw(pid.unwrap() as i32);
    let (_, status) = rustix::process::waitpid(pid, rustix::process::WaitOptions::empty()).unwrap().unwrap();
    assert_eq!(status.exit_status(), Some(0));
    let mut numbers = [0; 16];
    let count = rustix::io::read(&read, &mut numbers).unwrap();
    numbers[..count]
        .iter()
        .map(|number| (*number != 0).then(|| Errno::from_raw_os_error((*number).into())))
        .collect()
}

fn opened(path: &str, flags: OFlags) -> Option<Errno> {
    open(path, flags, Mode::empty()).err()
}

#[test]
fn root_the_kernel_enforces_the_rules_and_those_that_replace_them() {
    let place = tempfile::tempdir().unwrap();
    let node = place.path().join("node");
    let attempt = || {
        let made = mknodat(CWD, &node, FileType::CharacterDevice, Mode::RUSR, makedev(10, 200)).err();
        let _ = std::fs::remove_file(&node);
        vec![
            opened("/dev/null", OFlags::RDWR),
            opened("/dev/kmsg", OFlags::RDONLY),
            opened("/dev/kmsg", OFlags::WRONLY),
            made,
        ]
    };
    let denied = Some(Errno::PERM);
    let lists: &[&[&str]] =
        &[&["-a *:* rwm"], &["-a *:* rwm", "+c 1:11 r"], &["+a *:* rwm", "-c 1:11 r"], &["+a *:* rwm"]];
    let expected = [
        [None, denied, denied, None],
        [None, None, denied, None],
        [None, denied, None, None],
        [None, None, None, None],
    ];
    assert_eq!(answers(lists, &attempt), expected, "null, kmsg read, kmsg written, node made");
}
