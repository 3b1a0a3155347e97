//! A file system that hangs: FUSE without anybody who answers, or with one who takes every question and never answers.

#![allow(unreachable_pub)]

use std::{
    ffi::CString,
    fs,
    os::fd::{AsRawFd, OwnedFd},
    path::{Path, PathBuf},
};

use rustix::{
    fs::{Mode, OFlags, open},
    io::{read, write},
    mount::{MountFlags, UnmountFlags, mount, unmount},
};

/// FUSE_INIT of the kernel's protocol.
const INIT: u32 = 26;
/// More than any question.
const QUESTION: usize = 1 << 20;

/// Mounted until it is dropped, which makes every question fail that is open.
pub struct DeadFs {
    at: PathBuf,
    _device: Option<OwnedFd>,
}

impl DeadFs {
    /// Nobody takes a question: whoever asks can be killed.
    pub fn silent(at: &Path) -> Self {
        Self { at: at.to_owned(), _device: Some(mounted(at)) }
    }

    /// Questions are taken and not answered: whoever asks cannot be killed.
    pub fn deaf(at: &Path) -> Self {
        let device = mounted(at);
        greet(&device);
        std::thread::spawn(move || while read(&device, &mut vec![0; QUESTION]).is_ok() {});
        Self { at: at.to_owned(), _device: None }
    }
}

impl Drop for DeadFs {
    fn drop(&mut self) {
        let _ = unmount(&self.at, UnmountFlags::FORCE | UnmountFlags::DETACH);
    }
}

fn mounted(at: &Path) -> OwnedFd {
    fs::create_dir_all(at).unwrap();
    let device = open("/dev/fuse", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty()).unwrap();
    let data = format!("fd={},rootmode=40000,user_id=0,group_id=0,allow_other", device.as_raw_fd());
    mount("dead", at, "fuse", MountFlags::empty(), CString::new(data).unwrap().as_c_str()).unwrap();
    device
}

/// Answers the first question, after which the kernel asks others.
fn greet(device: &OwnedFd) {
    let mut question = vec![0; QUESTION];
    read(device, &mut question).unwrap();
    assert_eq!(question[4..8], INIT.to_ne_bytes());
    let mut init = [0; 64];
    init[0..4].copy_from_slice(&7u32.to_ne_bytes());
    init[4..8].copy_from_slice(&31u32.to_ne_bytes());
    init[20..24].copy_from_slice(&4096u32.to_ne_bytes());
    let head = [80u32.to_ne_bytes(), 0u32.to_ne_bytes()].concat();
    write(device, &[&head, &question[8..16], &init].concat()).unwrap();
}
