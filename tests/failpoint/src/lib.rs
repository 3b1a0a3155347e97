//! Named places behind each step that changes the world, where a build for tests can be killed, or made to fail.
//!
//! ```text
//! $BERTH_FAILPOINTS/armed/<point>   what is to happen there and at which pass: "kill 1", "error 3"
//! $BERTH_FAILPOINTS/fired/<point>   it happened: the file above, moved here first
//! $BERTH_FAILPOINTS/passed/<point>  one byte for each pass
//! ```
//! Files reach the daemon, its shims and the stages they fork alike, and outlive whoever is killed. A point acts once. One
//! that a process passes in a container's root directory would not find them: there are none.
//!
//! Without the feature `on` the macros expand to nothing, and neither the names nor this text are in the program.

#![forbid(unsafe_code)]

#[cfg(any(feature = "on", test))]
mod act;
pub mod points;

#[cfg(any(feature = "on", test))]
pub use act::pass;
pub use points::{POINTS, Point, Process};

use std::{fmt, io};

/// Directory of the files that say what is to happen; unset, nothing does.
pub const VARIABLE: &str = "BERTH_FAILPOINTS";

/// The failure of a step that worked.
#[derive(Debug)]
pub struct Injected(&'static str);

impl fmt::Display for Injected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "injected at {}", self.0)
    }
}

impl std::error::Error for Injected {}

impl From<Injected> for io::Error {
    fn from(injected: Injected) -> Self {
        Self::other(injected)
    }
}

/// A point of [`points`] where a step may also fail: `failpoint!(POD_RECORDED)?`.
#[cfg(feature = "on")]
#[macro_export]
macro_rules! failpoint {
    ($point:ident) => {
        $crate::pass(&$crate::points::$point)
    };
}

/// A point of [`points`] where a step may also fail: `failpoint!(POD_RECORDED)?`.
#[cfg(not(feature = "on"))]
#[macro_export]
macro_rules! failpoint {
    ($point:ident) => {
        Ok::<(), $crate::Injected>(())
    };
}

/// A point of [`points`] where no step can fail: the process is killed, or goes on.
#[cfg(feature = "on")]
#[macro_export]
macro_rules! killpoint {
    ($point:ident) => {{
        let _ = $crate::pass(&$crate::points::$point);
    }};
}

/// A point of [`points`] where no step can fail: the process is killed, or goes on.
#[cfg(not(feature = "on"))]
#[macro_export]
macro_rules! killpoint {
    ($point:ident) => {};
}
