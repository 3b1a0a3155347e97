//! Compiled filters on disk, so that a profile is compiled for its first container only.
//!
//! The file name is a hash of the section and of the identity of the shim's binary. Both are also in the file and
//! compared, so a hash collision only costs time. A damaged file counts as missing and is compiled anew.
//!
//! ```text
//! "berth-seccomp-1\n"  length of the key  instructions  flags  hash of the flags and the program  key  program      (numbers: 4, 4, 4, 8 bytes)
//! ```

use super::Filter;
use crate::sys::seccomp::Instruction;
use rustix::fs::{AtFlags, CWD, Dir, Mode, OFlags, fstat, mkdirat, openat, renameat, unlinkat};
use rustix::process::geteuid;
use std::fs::File;
use std::hash::{DefaultHasher, Hasher};
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

const MAGIC: &[u8; 16] = b"berth-seccomp-1\n";
const HEADER_BYTES: usize = 16 + 4 + 4 + 4 + 8;
const INSTRUCTION_BYTES: usize = size_of::<Instruction>();
/// Maximum file size: many times a usual profile, and 4096 instructions.
const MAX_FILE_BYTES: u64 = 1 << 20;
/// Maximum number of files, which take up memory. When it is reached all are removed; those in use are compiled again.
const MAX_ENTRIES: usize = 128;

/// The directory, verified to be accessible to root only.
#[derive(Debug)]
pub(super) struct Cache {
    directory: OwnedFd,
    /// Identity of the compiling binary.
    compiler: String,
}

impl Cache {
    /// Opens the directory, creating it if missing. `None` when it cannot be used: then every filter is compiled.
    pub(super) fn open(path: &Path) -> Option<Self> {
        let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let open = || openat(CWD, path, flags, Mode::empty());
        let directory = open().or_else(|_| {
            let _ = mkdirat(CWD, path.parent().unwrap_or(path), Mode::RWXU);
            let _ = mkdirat(CWD, path, Mode::RWXU);
            open()
        });
        let directory = directory.ok()?;
        let status = fstat(&directory).ok()?;
        let binary = std::fs::metadata("/proc/self/exe").ok()?;
        let alone = status.st_uid == geteuid().as_raw() && status.st_mode & 0o077 == 0;
        // Device and inode are left out: the binary runs from a sealed copy, of which each daemon makes its own.
        let built = (binary.mtime(), binary.mtime_nsec());
        let compiler = format!("{}:{}:{}:{}", env!("CARGO_PKG_VERSION"), binary.size(), built.0, built.1);
        alone.then_some(Self { directory, compiler })
    }

    /// The filter compiled from this section.
    pub(super) fn find(&self, section: &str) -> Option<Filter> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let key = self.key(section);
        let file = openat(&self.directory, name(&key), flags, Mode::empty()).ok()?;
        let mut bytes = Vec::new();
        File::from(file).take(MAX_FILE_BYTES).read_to_end(&mut bytes).ok()?;
        decode(&bytes, key.as_bytes())
    }

    /// Stores a filter. Errors are ignored: the container works without the cache.
    pub(super) fn keep(&self, section: &str, filter: &Filter) {
        let key = self.key(section);
        let temporary = format!("tmp-{}", std::process::id());
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let Ok(file) = openat(&self.directory, &temporary, flags, Mode::RUSR | Mode::WUSR) else { return };
        let written = File::from(file).write_all(&encode(filter, key.as_bytes()));
        self.make_room();
        if written.is_err() || renameat(&self.directory, &temporary, &self.directory, name(&key)).is_err() {
            let _ = unlinkat(&self.directory, &temporary, AtFlags::empty());
        }
    }

    fn key(&self, section: &str) -> String {
        format!("{}\n{section}", self.compiler)
    }

    fn make_room(&self) {
        let Ok(entries) = Dir::read_from(&self.directory) else { return };
        let entries = entries.flatten().map(|entry| entry.file_name().to_owned());
        let kept: Vec<_> = entries
            .filter(|name| !name.to_bytes().starts_with(b".") && !name.to_bytes().starts_with(b"tmp-"))
            .collect();
        if kept.len() < MAX_ENTRIES {
            return;
        }
        for name in kept {
            let _ = unlinkat(&self.directory, &name, AtFlags::empty());
        }
    }
}

fn name(key: &str) -> String {
    format!("{:016x}", hash(key.as_bytes()))
}

fn hash(bytes: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    hasher.write(bytes);
    hasher.finish()
}

fn sum(flags: u32, program: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    hasher.write_u32(flags);
    hasher.write(program);
    hasher.finish()
}

fn encode(filter: &Filter, key: &[u8]) -> Vec<u8> {
    let program: Vec<u8> = filter.program.iter().flat_map(bytes_of).collect();
    let mut bytes = MAGIC.to_vec();
    for number in [key.len() as u32, filter.program.len() as u32, filter.flags] {
        bytes.extend(number.to_ne_bytes());
    }
    bytes.extend(sum(filter.flags, &program).to_ne_bytes());
    bytes.extend(key);
    bytes.extend(program);
    bytes
}

/// `None` for anything but the output of [`encode`] for this key.
fn decode(bytes: &[u8], key: &[u8]) -> Option<Filter> {
    let (header, body) = bytes.split_at_checked(HEADER_BYTES)?;
    let number = |at: usize| Some(u32::from_ne_bytes(header.get(at..at + 4)?.try_into().ok()?));
    let (flags, stored_sum) = (number(24)?, u64::from_ne_bytes(header.get(28..36)?.try_into().ok()?));
    let (stored_key, program) = body.split_at_checked(number(16)? as usize)?;
    let whole = program.len() == number(20)? as usize * INSTRUCTION_BYTES;
    if !header.starts_with(MAGIC) || stored_key != key || !whole || sum(flags, program) != stored_sum {
        return None;
    }
    let program = program.chunks_exact(INSTRUCTION_BYTES).map(instruction).collect();
    Some(Filter { flags, program })
}

fn bytes_of(instruction: &Instruction) -> [u8; INSTRUCTION_BYTES] {
    let ([a, b], [c, d, e, f]) = (instruction.operation.to_ne_bytes(), instruction.value.to_ne_bytes());
    [a, b, instruction.if_true, instruction.if_false, c, d, e, f]
}

fn instruction(bytes: &[u8]) -> Instruction {
    Instruction {
        operation: u16::from_ne_bytes([bytes[0], bytes[1]]),
        if_true: bytes[2],
        if_false: bytes[3],
        value: u32::from_ne_bytes([bytes[4], bytes[5], bytes[6], bytes[7]]),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::fs;

    const SECTION: &str = r#"{"defaultAction":"SCMP_ACT_ERRNO","flags":["SECCOMP_FILTER_FLAG_LOG"],"syscalls":[{"names":["read"],"action":"SCMP_ACT_ALLOW"}]}"#;

    fn place() -> (tempfile::TempDir, Cache, Filter) {
        let place = tempfile::tempdir().unwrap();
        let cache = Cache::open(&place.path().join("new/seccomp")).unwrap();
        (place, cache, Filter::compile(SECTION).unwrap())
    }

    fn only_file(place: &tempfile::TempDir) -> std::path::PathBuf {
        let files: Vec<_> = fs::read_dir(place.path().join("new/seccomp")).unwrap().collect();
        assert_eq!(files.len(), 1);
        files.into_iter().next().unwrap().unwrap().path()
    }

    #[test]
    fn what_is_kept_is_found_again_and_nothing_else() {
        let (place, cache, filter) = place();
        assert_eq!(cache.find(SECTION), None);
        cache.keep(SECTION, &filter);
        assert_eq!(cache.find(SECTION), Some(filter));
        assert_eq!(cache.find("{}"), None);
        only_file(&place);
    }

    #[test]
    fn no_damaged_byte_goes_unnoticed() {
        let (place, cache, filter) = place();
        cache.keep(SECTION, &filter);
        let path = only_file(&place);
        let good = fs::read(&path).unwrap();
        for at in 0..good.len() {
            let mut bad = good.clone();
            bad[at] ^= 4;
            fs::write(&path, bad).unwrap();
            assert_eq!(cache.find(SECTION), None, "byte {at}");
        }
        for length in [0, 10, HEADER_BYTES, good.len() - 8, good.len() - 1] {
            fs::write(&path, &good[..length]).unwrap();
            assert_eq!(cache.find(SECTION), None, "{length} bytes");
        }
        cache.keep(SECTION, &filter);
        assert_eq!(cache.find(SECTION), Some(filter), "and it is replaced");
    }

    #[test]
    fn another_section_with_the_same_hash_is_not_mistaken() {
        let (place, cache, filter) = place();
        cache.keep(SECTION, &filter);
        let other = cache.key("{ }");
        fs::rename(only_file(&place), place.path().join("new/seccomp").join(name(&other))).unwrap();
        assert_eq!(cache.find("{ }"), None);
    }

    #[test]
    fn a_directory_that_others_may_write_to_is_not_used() {
        let place = tempfile::tempdir().unwrap();
        fs::set_permissions(place.path(), std::os::unix::fs::PermissionsExt::from_mode(0o777)).unwrap();
        assert!(Cache::open(place.path()).is_none());
        std::os::unix::fs::symlink("/root", place.path().join("link")).unwrap();
        assert!(Cache::open(&place.path().join("link")).is_none());
    }

    #[test]
    fn it_does_not_grow_without_end() {
        let (place, cache, filter) = place();
        for number in 0..2 * MAX_ENTRIES {
            cache.keep(&number.to_string(), &filter);
        }
        assert!(fs::read_dir(place.path().join("new/seccomp")).unwrap().count() <= MAX_ENTRIES);
        assert_eq!(cache.find(&(2 * MAX_ENTRIES - 1).to_string()), Some(filter));
    }
}
