//! Fuzz targets: one function for each parser of bytes from outside. Each panics when an invariant does not hold; the
//! invariants are beside the parser, in its `fuzz.rs`.

#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used)]

mod grpc;

use berth_image::reference::Reference;
use tempfile::TempDir;
use tokio::runtime::{Builder, Runtime};

pub use berth_image::fuzz::{hosts_toml, manifest};
pub use berth_network::fuzz::cni_result;
pub use grpc::{grpc, methods};

thread_local! {
    /// Tokio's timers panic outside a runtime, even when they are never awaited.
    static TOKIO: Runtime = Builder::new_current_thread().enable_all().build().unwrap();
    /// Directory below `TMPDIR` that layers are unpacked in.
    static UNPACK_DIRECTORY: TempDir = tempfile::tempdir().unwrap();
}

/// SPDY frames, and the streams they make.
pub fn spdy(data: &[u8]) {
    TOKIO.with(|tokio| {
        let _entered = tokio.enter();
        berthd::fuzz::spdy(data);
    });
}

/// WebSocket messages: the channels of a command, and tunnelled SPDY.
pub fn websocket(data: &[u8]) {
    TOKIO.with(|tokio| {
        let _entered = tokio.enter();
        berthd::fuzz::websocket(data);
    });
}

/// A seccomp profile, as a file and as the daemon passes it to the shim. The shim must take every section that the daemon
/// makes of a file, except where it refuses for one of two reasons that only the shim checks.
pub fn seccomp(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let _ = berth_shim::fuzz::seccomp(text);
    for section in berthd::fuzz::seccomp(text) {
        if let Err(why) = berth_shim::fuzz::seccomp(&section) {
            let known = why.contains("no agent is asked") || why.contains("of which the kernel takes");
            assert!(known, "{why}: {section}");
        }
    }
}

/// An image layer. Needs root.
pub fn tar_layer(data: &[u8]) {
    UNPACK_DIRECTORY.with(|place| berth_image::fuzz::tar_layer(data, place.path()));
}

/// An image reference: its printed forms must parse to the same reference.
pub fn image_reference(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let Ok(reference) = text.parse::<Reference>() else { return };
    assert_eq!(reference.to_string().parse().as_ref(), Ok(&reference));
    assert_eq!(reference.familiar().parse().as_ref(), Ok(&reference));
    assert_eq!(reference.name(), format!("{}/{}", reference.registry(), reference.repository()));
    assert!(reference.tag().is_some() || reference.digest().is_some());
    for tag in [reference.tag().unwrap_or("latest"), text] {
        if let Ok(tagged) = reference.with_tag(tag) {
            assert_eq!(tagged.to_string().parse().as_ref(), Ok(&tagged));
        }
    }
    if let Some(digest) = reference.digest() {
        let pinned = reference.with_digest(digest.clone());
        assert_eq!(pinned.to_string().parse().as_ref(), Ok(&pinned));
    }
}
