//! System calls that no safe library offers. The only unsafe code of the project.

mod alarm;
pub(crate) mod bpf;
pub(crate) mod child;
pub(crate) mod heap;
mod keys;
mod link;
mod mount;
mod priority;
mod process;
mod ready;
pub(crate) mod seccomp;

pub(crate) use alarm::interrupt_after;
pub(crate) use heap::sleep_without_heap;
pub(crate) use keys::{join_session_keyring, revoke_key, set_key_permissions};
pub(crate) use link::bring_up;
pub(crate) use mount::{MountAttributes, mount_setattr};
pub(crate) use priority::{SchedAttr, ioprio_set, sched_setattr, set_personality};
pub(crate) use process::{
    LEGACY_CLONE, clone_child, clone_sibling, close_all, close_others, exit_quietly_on_children, fork,
    keep_only, leave, legacy_clone_sibling, place, reset_signals, setns, unshare,
};
pub(crate) use ready::{watched, watched_for_errors, watched_for_priority};
