//! How the daemon's work is done, whatever the work is: queued by key, tried again with growing pauses, naming the step it is
//! at, and with as many descriptors as it may have.

#![forbid(unsafe_code)]

mod backoff;
pub mod descriptors;
mod keyed_mutex;
pub mod progress;

pub use backoff::retry_delays;
pub use keyed_mutex::KeyedMutex;
