//! Failpoints: named places after each step that changes the host, where a test build can be killed or made to fail.
//!
//! ```text
//! $BERTH_FAILPOINTS/armed/<point>   action and number of the pass it is due at: "kill 1", "error 3"
//! $BERTH_FAILPOINTS/fired/<point>   the file above, moved here just before the point acts
//! $BERTH_FAILPOINTS/passed/<point>  one byte for each pass
//! ```
//! The state is in files because the daemon, its shims and the stages they fork all need it, and because it must outlive
//! a killed process. A point acts once. There is no point behind pivot_root: inside a container these paths are not found.
//!
//! Without the feature `on` the macros do nothing, and the names of the points are not in the binary.

#![forbid(unsafe_code)]

#[cfg(any(feature = "on", test))]
mod act;
pub mod points;

#[cfg(any(feature = "on", test))]
pub use act::pass;
pub use points::{POINTS, Point, Process};

use std::{fmt, io};

/// Environment variable with the directory of these files. While it is unset, no point acts.
pub const VARIABLE: &str = "BERTH_FAILPOINTS";

/// Injected error of a step that itself succeeded.
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

/// Passes a point of [`points`] where an error can be returned: `failpoint!(POD_RECORDED)?`.
#[cfg(feature = "on")]
#[macro_export]
macro_rules! failpoint {
    ($point:ident) => {
        $crate::pass(&$crate::points::$point)
    };
}

/// Passes a point of [`points`] where an error can be returned: `failpoint!(POD_RECORDED)?`.
#[cfg(not(feature = "on"))]
#[macro_export]
macro_rules! failpoint {
    ($point:ident) => {
        Ok::<(), $crate::Injected>(())
    };
}

/// Passes a point of [`points`] where no error can be returned: the process is killed or goes on.
#[cfg(feature = "on")]
#[macro_export]
macro_rules! killpoint {
    ($point:ident) => {{
        let _ = $crate::pass(&$crate::points::$point);
    }};
}

/// Passes a point of [`points`] where no error can be returned: the process is killed or goes on.
#[cfg(not(feature = "on"))]
#[macro_export]
macro_rules! killpoint {
    ($point:ident) => {};
}
