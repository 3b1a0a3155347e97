//! The system calls that no safe library offers. The only unsafe code of the project is here.

pub(crate) mod child;
mod ready;
pub(crate) use ready::watched;
pub(crate) mod daemon;
pub(crate) mod heap;
pub(crate) use daemon::fork;
