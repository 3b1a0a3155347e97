//! System calls and their numbers for each architecture whose programs the machine can run.

use syscalls::{aarch64, arm, x86, x86_64};

/// Set in the numbers of x32, whose architecture token is that of x86_64.
pub(super) const X32_BIT: u32 = 0x4000_0000;

/// Architectures of the specification besides [`Architecture`]. Their programs cannot run on supported machines, so
/// there is nothing to filter.
const FOREIGN: &[&str] = &[
    "LOONGARCH64",
    "M68K",
    "MIPS",
    "MIPS64",
    "MIPS64N32",
    "MIPSEL",
    "MIPSEL64",
    "MIPSEL64N32",
    "PARISC",
    "PARISC64",
    "PPC",
    "PPC64",
    "PPC64LE",
    "RISCV64",
    "S390",
    "S390X",
    "SH",
    "SHEB",
];

/// From 512 on x32 has its own calls in place of those whose structures differ, linux/arch/x86/entry/syscalls.
const X32_OWN: &[&str] = &[
    "rt_sigaction",
    "rt_sigreturn",
    "ioctl",
    "readv",
    "writev",
    "recvfrom",
    "sendmsg",
    "recvmsg",
    "execve",
    "ptrace",
    "rt_sigpending",
    "rt_sigtimedwait",
    "rt_sigqueueinfo",
    "sigaltstack",
    "timer_create",
    "mq_notify",
    "kexec_load",
    "waitid",
    "set_robust_list",
    "get_robust_list",
    "vmsplice",
    "move_pages",
    "preadv",
    "pwritev",
    "rt_tgsigqueueinfo",
    "recvmmsg",
    "sendmmsg",
    "process_vm_readv",
    "process_vm_writev",
    "setsockopt",
    "getsockopt",
    "io_setup",
    "io_submit",
    "execveat",
    "preadv2",
    "pwritev2",
];
const X32_FIRST_OWN: u32 = 512;

/// Calls of arm that the library's table lacks: a second name, and private ones.
const ARM_OWN: &[(u32, &str)] =
    &[(341, "sync_file_range2"), (0xf0001, "breakpoint"), (0xf0002, "cacheflush"), (0xf0005, "set_tls")];

/// Calls multiplexed by socketcall(2) and ipc(2) on x86, by their first argument.
const SOCKETCALL: &[(u32, &str)] = &[
    (1, "socket"),
    (2, "bind"),
    (3, "connect"),
    (4, "listen"),
    (5, "accept"),
    (6, "getsockname"),
    (7, "getpeername"),
    (8, "socketpair"),
    (9, "send"),
    (10, "recv"),
    (11, "sendto"),
    (12, "recvfrom"),
    (13, "shutdown"),
    (14, "setsockopt"),
    (15, "getsockopt"),
    (16, "sendmsg"),
    (17, "recvmsg"),
    (18, "accept4"),
    (19, "recvmmsg"),
    (20, "sendmmsg"),
];
const IPC: &[(u32, &str)] = &[
    (1, "semop"),
    (2, "semget"),
    (3, "semctl"),
    (4, "semtimedop"),
    (11, "msgsnd"),
    (12, "msgrcv"),
    (13, "msgget"),
    (14, "msgctl"),
    (21, "shmat"),
    (22, "shmdt"),
    (23, "shmget"),
    (24, "shmctl"),
];

/// An architecture; its programs can run on this machine or a like one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Architecture {
    X86_64,
    /// 32-bit programs on x86_64.
    X86,
    /// Programs of x86_64 with pointers of 32 bits.
    X32,
    Aarch64,
    /// 32-bit programs on aarch64.
    Arm,
}

/// Result of looking up a name from a profile.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Named {
    /// Its programs may run here.
    Known(Architecture),
    /// Its programs run on other machines only.
    Foreign,
}

impl Architecture {
    /// The architecture of this binary.
    pub(super) const NATIVE: Self =
        if cfg!(target_arch = "aarch64") { Architecture::Aarch64 } else { Architecture::X86_64 };

    /// Looks up the specification's name, such as `SCMP_ARCH_X86`.
    pub(super) fn named(name: &str) -> Option<Named> {
        Some(Named::Known(match name.strip_prefix("SCMP_ARCH_")? {
            "NATIVE" => Self::NATIVE,
            "X86_64" => Self::X86_64,
            "X86" => Self::X86,
            "X32" => Self::X32,
            "AARCH64" => Self::Aarch64,
            "ARM" => Self::Arm,
            other if FOREIGN.contains(&other) => return Some(Named::Foreign),
            _ => return None,
        }))
    }

    /// The kernel's token for it, `AUDIT_ARCH_*`.
    pub(super) fn token(self) -> u32 {
        match self {
            Self::X86_64 | Self::X32 => 0xc000_003e,
            Self::X86 => 0x4000_0003,
            Self::Aarch64 => 0xc000_00b7,
            Self::Arm => 0x4000_0028,
        }
    }

    /// Whether arguments have 64 bits; otherwise the upper halves have no meaning.
    pub(super) fn is_wide(self) -> bool {
        matches!(self, Self::X86_64 | Self::Aarch64)
    }

    /// All its calls by number; those of x32 without their bit.
    pub(super) fn calls(self) -> Vec<(u32, &'static str)> {
        match self {
            Self::X86_64 => named(x86_64::Sysno::table_size(), |n| Some(x86_64::Sysno::new(n)?.name())),
            Self::X86 => named(x86::Sysno::table_size(), |n| Some(x86::Sysno::new(n)?.name())),
            Self::X32 => x32(),
            Self::Aarch64 => named(aarch64::Sysno::table_size(), |n| Some(aarch64::Sysno::new(n)?.name())),
            Self::Arm => {
                let mut calls = named(arm::Sysno::table_size(), |n| Some(arm::Sysno::new(n)?.name()));
                calls.retain(|(number, _)| ARM_OWN.iter().all(|(own, _)| own != number));
                calls.extend(ARM_OWN);
                calls.sort_unstable();
                calls
            }
        }
    }

    /// The calls multiplexed by the call `name`, each with its first argument.
    pub(super) fn behind(self, name: &str) -> &'static [(u32, &'static str)] {
        match (self, name) {
            (Self::X86, "socketcall") => SOCKETCALL,
            (Self::X86, "ipc") => IPC,
            _ => &[],
        }
    }
}

fn named(size: usize, name: impl Fn(usize) -> Option<&'static str>) -> Vec<(u32, &'static str)> {
    (0..size).filter_map(|number| Some((number as u32, name(number)?))).collect()
}

fn x32() -> Vec<(u32, &'static str)> {
    let mut calls = Architecture::X86_64.calls();
    calls.retain(|(number, name)| *number < X32_FIRST_OWN && !X32_OWN.contains(name));
    calls.extend((X32_FIRST_OWN..).zip(X32_OWN.iter().copied()));
    calls
}

#[cfg(test)]
mod tests {
    use super::*;

    fn number(architecture: Architecture, name: &str) -> Option<u32> {
        architecture.calls().into_iter().find(|(_, have)| *have == name).map(|(number, _)| number)
    }

    #[test]
    fn calls_have_the_kernels_numbers() {
        use Architecture::*;
        for (architecture, name, expected) in [
            (X86_64, "read", Some(0)),
            (X86_64, "execve", Some(59)),
            (X86_64, "uretprobe", Some(335)),
            (X86_64, "fchmodat2", Some(452)),
            (X86_64, "socketcall", None),
            (X86, "socketcall", Some(102)),
            (X86, "chown32", Some(212)),
            (X32, "read", Some(0)),
            (X32, "execve", Some(520)),
            (X32, "pwritev2", Some(547)),
            (Aarch64, "read", Some(63)),
            (Aarch64, "fork", None),
            (Arm, "set_tls", Some(0xf0005)),
            (Arm, "sync_file_range2", Some(341)),
        ] {
            assert_eq!(number(architecture, name), expected, "{name} on {architecture:?}");
        }
    }

    #[test]
    fn calls_are_in_order_and_each_number_is_there_once() {
        use Architecture::*;
        for architecture in [X86_64, X86, X32, Aarch64, Arm] {
            let calls = architecture.calls();
            assert!(calls.len() > 300 && calls.is_sorted_by(|a, b| a.0 < b.0), "{architecture:?}");
        }
    }

    #[test]
    fn names_are_those_of_the_specification() {
        assert_eq!(Architecture::named("SCMP_ARCH_X32"), Some(Named::Known(Architecture::X32)));
        assert_eq!(Architecture::named("SCMP_ARCH_S390X"), Some(Named::Foreign));
        for unknown in ["SCMP_ARCH_Z80", "x86_64", "SCMP_ARCH_", ""] {
            assert_eq!(Architecture::named(unknown), None, "{unknown}");
        }
    }
}
