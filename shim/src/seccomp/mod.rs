//! The seccomp filter of a container: compiles the `linux.seccomp` section of `config.json` to the BPF program that the
//! kernel runs at every system call, seccomp(2).
//!
//! ```text
//! section --cache--> program --load--> in force
//!     `--profile, program--> program, kept for the next container
//! ```
//! Compiled and loaded only in processes on their way to execve; the shim itself never runs under a filter.

mod architecture;
mod cache;
mod profile;
pub(crate) mod program;

use crate::sys::seccomp::{self as kernel, Instruction};
use cache::Cache;
use profile::{Action, Profile};
use program::{Call, run};
use serde_json::value::RawValue;
use std::io;
use std::path::Path;

/// Directory of compiled filters, shared by all shims of the machine: accessible to root only, and gone with a reboot.
const CACHE: &str = "/run/berth-shim/seccomp";

/// Why a section cannot be compiled.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Error {
    /// Not JSON, or not of the shape that the specification defines.
    #[error("linux.seccomp: {0}")]
    Malformed(String),
    /// An unknown or impossible value.
    #[error("linux.seccomp.{field} {value:?}: {reason}")]
    Invalid {
        /// Path of the member, as `syscalls[3].action`.
        field: String,
        /// Its value.
        value: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// The program exceeds the kernel's limit.
    #[error("linux.seccomp: {0} instructions, of which the kernel takes 4096 at most")]
    TooLarge(usize),
}

/// A compiled filter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Filter {
    /// `SECCOMP_FILTER_FLAG_*`.
    flags: u32,
    program: Vec<Instruction>,
}

impl Filter {
    /// Returns the filter of this section from the cache, or compiles and caches it.
    pub(crate) fn prepare(section: &RawValue) -> Result<Self, Error> {
        let cache = Cache::open(Path::new(CACHE));
        let section = section.get();
        if let Some(filter) = cache.as_ref().and_then(|cache| cache.find(section)) {
            return Ok(filter);
        }
        let filter = Self::compile(section)?;
        if let Some(cache) = cache {
            cache.keep(section, &filter);
        }
        Ok(filter)
    }

    fn compile(section: &str) -> Result<Self, Error> {
        let profile = Profile::parse(section)?;
        Ok(Self { flags: profile.flags, program: program::compile(&profile)? })
    }

    /// Whether a native program may make all these calls, each given by its number and first arguments.
    pub(crate) fn allows(&self, calls: &[(libc::c_long, &[u64])]) -> bool {
        calls.iter().all(|(number, arguments)| {
            let call = Call::native(*number as u32, arguments);
            run(&self.program, &call).is_some_and(Action::passes)
        })
    }

    /// Loads the filter for the calling process and its descendants. Needs CAP_SYS_ADMIN or no_new_privs.
    pub(crate) fn load(&self) -> io::Result<()> {
        kernel::set_filter(&self.program, self.flags)
    }
}
