//! Berth's seccomp profile: it allows the system calls that containerd 2.4 and Docker allow, so that the same programs
//! run.
//!
//! All other calls are denied. Left out on purpose: calls that change the kernel or the host (modules, swap, quota, the
//! clock, namespaces, mounts), calls that were used to escape containers (keyctl, userfaultfd, io_uring, bpf,
//! perf_event_open, sockets of AF_ALG and AF_VSOCK), and obsolete calls. A capability that a container has allows the
//! calls that need it.

use oci_spec::runtime::{Capability, LinuxSeccompAction, LinuxSeccompOperator};

use super::{COMPAT_ARCHITECTURES, Conditions, NATIVE_ARCHITECTURE, Profile, Rule, argument};

/// Calls that are always allowed, by topic.
const ALLOWED: &[&str] = &[
    // Files, by path.
    "access chdir chmod chown chown32 creat faccessat faccessat2 fchmodat fchmodat2 fchownat fstatat64 futimesat getcwd \
     lchown lchown32 link linkat lstat lstat64 mkdir mkdirat mknod mknodat name_to_handle_at newfstatat open openat openat2 \
     readlink readlinkat rename renameat renameat2 rmdir stat stat64 statfs statfs64 statx symlink symlinkat truncate \
     truncate64 umask unlink unlinkat utime utimensat utimensat_time64 utimes",
    // Extended attributes.
    "fgetxattr flistxattr fremovexattr fsetxattr getxattr getxattrat lgetxattr listxattr listxattrat llistxattr lremovexattr \
     lsetxattr removexattr removexattrat setxattr setxattrat",
    // Files, by descriptor.
    "_llseek close close_range copy_file_range dup dup2 dup3 fadvise64 fadvise64_64 fallocate fchdir fchmod fchown fchown32 \
     fcntl fcntl64 fdatasync flock fstat fstat64 fstatfs fstatfs64 fsync ftruncate ftruncate64 getdents getdents64 ioctl lseek \
     pipe pipe2 pread64 preadv preadv2 pwrite64 pwritev pwritev2 read readahead readv sendfile sendfile64 splice sync \
     sync_file_range syncfs tee vmsplice write writev",
    // Waiting for descriptors.
    "_newselect epoll_create epoll_create1 epoll_ctl epoll_ctl_old epoll_pwait epoll_pwait2 epoll_wait epoll_wait_old eventfd \
     eventfd2 fanotify_mark inotify_add_watch inotify_init inotify_init1 inotify_rm_watch poll ppoll ppoll_time64 pselect6 \
     pselect6_time64 select signalfd signalfd4",
    // Asynchronous input and output.
    "io_cancel io_destroy io_getevents io_pgetevents io_pgetevents_time64 io_setup io_submit ioprio_get ioprio_set",
    // Mounts, reading only.
    "listmount statmount",
    // Memory.
    "brk cachestat madvise map_shadow_stack membarrier memfd_create memfd_secret mincore mlock mlock2 mlockall mmap mmap2 \
     mprotect mremap mseal msync munlock munlockall munmap pkey_alloc pkey_free pkey_mprotect remap_file_pages",
    // Processes and threads.
    "alarm capget capset execve execveat exit exit_group fork get_robust_list get_thread_area getcpu getpgid getpgrp getpid \
     getppid getpriority getrlimit getrusage getsid gettid pause pidfd_open pidfd_send_signal prctl prlimit64 process_mrelease \
     rseq seccomp set_robust_list set_thread_area set_tid_address setpgid setpriority setrlimit setsid ugetrlimit uretprobe \
     vfork wait4 waitid waitpid",
    // User and group ids.
    "getegid getegid32 geteuid geteuid32 getgid getgid32 getgroups getgroups32 getresgid getresgid32 getresuid getresuid32 \
     getuid getuid32 setfsgid setfsgid32 setfsuid setfsuid32 setgid setgid32 setgroups setgroups32 setregid setregid32 \
     setresgid setresgid32 setresuid setresuid32 setreuid setreuid32 setuid setuid32",
    // Self-restriction.
    "landlock_add_rule landlock_create_ruleset landlock_restrict_self lsm_get_self_attr lsm_list_modules lsm_set_self_attr",
    // Signals.
    "kill restart_syscall rt_sigaction rt_sigpending rt_sigprocmask rt_sigqueueinfo rt_sigreturn rt_sigsuspend rt_sigtimedwait \
     rt_sigtimedwait_time64 rt_tgsigqueueinfo sigaltstack sigprocmask sigreturn tgkill tkill",
    // Locks.
    "futex futex_requeue futex_time64 futex_wait futex_waitv futex_wake",
    // Scheduling.
    "sched_get_priority_max sched_get_priority_min sched_getaffinity sched_getattr sched_getparam sched_getscheduler \
     sched_rr_get_interval sched_rr_get_interval_time64 sched_setaffinity sched_setattr sched_setparam sched_setscheduler \
     sched_yield",
    // Time.
    "adjtimex clock_adjtime clock_adjtime64 clock_getres clock_getres_time64 clock_gettime clock_gettime64 clock_nanosleep \
     clock_nanosleep_time64 getitimer gettimeofday nanosleep setitimer time timer_create timer_delete timer_getoverrun \
     timer_gettime timer_gettime64 timer_settime timer_settime64 timerfd_create timerfd_gettime timerfd_gettime64 \
     timerfd_settime timerfd_settime64 times",
    // Open sockets; socket(2) itself is below.
    "accept accept4 bind connect getpeername getsockname getsockopt listen recv recvfrom recvmmsg recvmmsg_time64 recvmsg send \
     sendmmsg sendmsg sendto setsockopt shutdown socketcall socketpair",
    // Inter-process communication.
    "ipc mq_getsetattr mq_notify mq_open mq_timedreceive mq_timedreceive_time64 mq_timedsend mq_timedsend_time64 mq_unlink \
     msgctl msgget msgrcv msgsnd semctl semget semop semtimedop semtimedop_time64 shmat shmctl shmdt shmget",
    // Machine information.
    "getrandom sysinfo uname",
];

/// Calls that are allowed on this architecture only.
const OF_ARCHITECTURE: &str = if cfg!(target_arch = "aarch64") {
    "arm_fadvise64_64 arm_sync_file_range breakpoint cacheflush set_tls sync_file_range2"
} else {
    "arch_prctl modify_ldt"
};

/// Allowed from this kernel on, in which the filter runs after ptrace: before, a tracer could change a call that had
/// passed the filter.
const PTRACE_CALLS: &str = "process_vm_readv process_vm_writev ptrace";
const PTRACE_FIRST_KERNEL: (u32, u32) = (4, 8);

/// Calls that are allowed with a capability.
const BY_CAPABILITY: &[(Capability, &str)] = &[
    (Capability::Bpf, "bpf"),
    (Capability::DacReadSearch, "open_by_handle_at"),
    (Capability::Perfmon, "perf_event_open"),
    (
        Capability::SysAdmin,
        "bpf clone clone3 fanotify_init fsconfig fsmount fsopen fspick lookup_dcookie mount mount_setattr move_mount open_tree \
         perf_event_open quotactl quotactl_fd setdomainname sethostname setns syslog umount umount2 unshare",
    ),
    (Capability::SysBoot, "reboot"),
    (Capability::SysChroot, "chroot"),
    (Capability::SysModule, "delete_module finit_module init_module"),
    (Capability::SysNice, "get_mempolicy mbind set_mempolicy set_mempolicy_home_node"),
    (Capability::SysPacct, "acct"),
    (Capability::SysPtrace, "kcmp pidfd_getfd process_madvise process_vm_readv process_vm_writev ptrace"),
    (Capability::SysRawio, "ioperm iopl"),
    (Capability::SysTime, "clock_settime clock_settime64 settimeofday stime"),
    (Capability::SysTtyConfig, "vhangup"),
    (Capability::Syslog, "syslog"),
];

/// Socket families: all below AF_ALG, AF_NFC, and AF_KCM to AF_MCTP. Not AF_ALG (38), the kernel's cryptography, nor
/// AF_VSOCK (40), which reaches other virtual machines of the host whatever network the container is in.
const FIRST_FORBIDDEN_FAMILY: u64 = 38;
const OTHER_FAMILIES: [u64; 6] = [39, 41, 42, 43, 44, 45];

/// PER_LINUX and PER_LINUX32, each with and without UNAME26; 0xffffffff only queries, personality(2).
const PERSONALITIES: [u64; 5] = [0x0, 0x8, 0x20000, 0x20008, 0xffff_ffff];

/// All CLONE_NEW* flags of clone(2): without CAP_SYS_ADMIN no new namespaces, because a process has all capabilities in
/// a new user namespace.
const NEW_NAMESPACE_FLAGS: u64 = 0x7e02_0000;
const ENOSYS: u32 = 38;

pub(super) fn profile() -> Profile {
    let mut rules: Vec<_> = ALLOWED.iter().map(|names| allowed(names)).collect();
    rules.push(allowed(OF_ARCHITECTURE));
    rules.push(Rule {
        only: Conditions { kernel: Some(PTRACE_FIRST_KERNEL), ..Default::default() },
        ..allowed(PTRACE_CALLS)
    });
    rules.extend(arguments());
    rules.extend(
        BY_CAPABILITY.iter().map(|(capability, names)| Rule { only: having(*capability), ..allowed(names) }),
    );
    rules.extend(new_processes());
    Profile {
        action: LinuxSeccompAction::ScmpActErrno,
        errno: None,
        architectures: [&[NATIVE_ARCHITECTURE], COMPAT_ARCHITECTURES].concat(),
        flags: Vec::new(),
        listener: Default::default(),
        rules,
    }
}

/// Returns the rules that depend on the first argument.
fn arguments() -> Vec<Rule> {
    use LinuxSeccompOperator::{ScmpCmpEq, ScmpCmpLt};
    let first = |value, op| vec![argument(0, value, None, op)];
    let families = OTHER_FAMILIES.iter().map(|family| allowed("socket").with(first(*family, ScmpCmpEq)));
    let personalities = PERSONALITIES.iter().map(|one| allowed("personality").with(first(*one, ScmpCmpEq)));
    let mut rules = vec![allowed("socket").with(first(FIRST_FORBIDDEN_FAMILY, ScmpCmpLt))];
    rules.extend(families.chain(personalities));
    rules
}

/// New namespaces need CAP_SYS_ADMIN. A filter cannot read the flags of clone3, which are in memory; with ENOSYS the C
/// library falls back to clone.
fn new_processes() -> [Rule; 2] {
    let unless = having(Capability::SysAdmin);
    let no_namespaces = argument(0, NEW_NAMESPACE_FLAGS, Some(0), LinuxSeccompOperator::ScmpCmpMaskedEq);
    let mut clone3 = Rule::new(words("clone3"), LinuxSeccompAction::ScmpActErrno);
    clone3.calls.set_errno_ret(Some(ENOSYS));
    [Rule { unless: unless.clone(), ..allowed("clone").with(vec![no_namespaces]) }, Rule { unless, ..clone3 }]
}

fn allowed(names: &str) -> Rule {
    Rule::new(words(names), LinuxSeccompAction::ScmpActAllow)
}

fn words(names: &str) -> Vec<String> {
    names.split_whitespace().map(str::to_owned).collect()
}

fn having(capability: Capability) -> Conditions {
    Conditions { capabilities: [capability].into(), ..Default::default() }
}
