//! A file system that hangs: FUSE with a server that reads no requests, or reads them and does not answer.

use std::{
    ffi::CString,
    fs,
    os::fd::{AsRawFd, OwnedFd},
    path::{Path, PathBuf},
};

use rustix::{
    fs::{Mode, OFlags, open},
    io::{Errno, read, write},
    mount::{MountFlags, UnmountFlags, mount, unmount},
};

/// Opcodes of the kernel's protocol (linux/fuse.h).
const LOOKUP: u32 = 1;
const FORGET: u32 = 2;
const GETATTR: u32 = 3;
const INIT: u32 = 26;
const BATCH_FORGET: u32 = 42;
/// How long the kernel may cache attributes, in seconds: longer than any test.
const ATTRIBUTES_VALID_SECONDS: u64 = 1 << 20;
/// `S_IFDIR | 0755`
const DIRECTORY_MODE: u32 = 0o040_755;
/// Size of the buffer for a request, larger than any request.
const MAX_REQUEST_BYTES: usize = 1 << 20;

/// A mounted file system that hangs. Dropping it unmounts it, which makes every open request fail.
pub struct DeadFs {
    at: PathBuf,
    _device: Option<OwnedFd>,
}

impl DeadFs {
    /// Requests are not read. A process that waits for one can be killed.
    pub fn unread(at: &Path) -> Self {
        Self { at: at.to_owned(), _device: Some(mounted(at)) }
    }

    /// Requests are read and not answered. A process that waits for one cannot be killed.
    pub fn unanswered(at: &Path) -> Self {
        let device = mounted(at);
        answer_init(&device);
        std::thread::spawn(move || while read(&device, &mut vec![0; MAX_REQUEST_BYTES]).is_ok() {});
        Self { at: at.to_owned(), _device: None }
    }

    /// The root directory exists, but lookups in it are not answered. A process that waits for one cannot be killed.
    pub fn lookups_unanswered(at: &Path) -> Self {
        let device = mounted(at);
        answer_init(&device);
        std::thread::spawn(move || {
            let mut request = vec![0; MAX_REQUEST_BYTES];
            while read(&device, &mut request).is_ok() {
                answer_getattr(&device, &request);
            }
        });
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

/// Answers FUSE_INIT, before which the kernel sends no other request.
fn answer_init(device: &OwnedFd) {
    let mut request = vec![0; MAX_REQUEST_BYTES];
    read(device, &mut request).unwrap();
    assert_eq!(operation(&request), INIT);
    let mut init = [0; 64];
    init[0..4].copy_from_slice(&7u32.to_ne_bytes());
    init[4..8].copy_from_slice(&31u32.to_ne_bytes());
    init[20..24].copy_from_slice(&4096u32.to_ne_bytes());
    answer(device, &request, 0, &init);
}

fn answer_getattr(device: &OwnedFd, request: &[u8]) {
    match operation(request) {
        LOOKUP | FORGET | BATCH_FORGET => {}
        GETATTR => {
            let mut attributes = [0; 104];
            attributes[0..8].copy_from_slice(&ATTRIBUTES_VALID_SECONDS.to_ne_bytes());
            attributes[16..24].copy_from_slice(&1u64.to_ne_bytes());
            attributes[76..80].copy_from_slice(&DIRECTORY_MODE.to_ne_bytes());
            attributes[80..84].copy_from_slice(&2u32.to_ne_bytes());
            answer(device, request, 0, &attributes);
        }
        _ => answer(device, request, Errno::NOSYS.raw_os_error(), &[]),
    }
}

fn operation(request: &[u8]) -> u32 {
    u32::from_ne_bytes(request[4..8].try_into().unwrap())
}

/// Writes `fuse_out_header` and `body`; `error` is 0 or a positive errno.
fn answer(device: &OwnedFd, request: &[u8], error: i32, body: &[u8]) {
    let length = u32::try_from(16 + body.len()).unwrap();
    write(device, &[&length.to_ne_bytes(), &(-error).to_ne_bytes(), &request[8..16], body].concat()).unwrap();
}
