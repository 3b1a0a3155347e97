//! Every parser of bytes that come from outside, fed with any bytes: one function for each target of cargo-fuzz. Each
//! panics when something does not hold that must. What must hold stands beside the parser, in its `fuzz.rs`.

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
    /// For timers, which nobody waits for here.
    static TOKIO: Runtime = Builder::new_current_thread().enable_all().build().unwrap();
    /// Below `TMPDIR`, for what layers hold.
    static PLACE: TempDir = tempfile::tempdir().unwrap();
}

/// Frames of SPDY, and the streams that they make.
pub fn spdy(data: &[u8]) {
    TOKIO.with(|tokio| {
        let _entered = tokio.enter();
        berthd::fuzz::spdy(data);
    });
}

/// Messages of WebSocket: channels of a command, and SPDY inside.
pub fn websocket(data: &[u8]) {
    TOKIO.with(|tokio| {
        let _entered = tokio.enter();
        berthd::fuzz::websocket(data);
    });
}

/// A profile as a file has it, and as the shim is told of it. The shim takes whatever the daemon makes of a file, but for
/// what only it can know.
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

/// A layer of an image. Needs root.
pub fn tar_layer(data: &[u8]) {
    PLACE.with(|place| berth_image::fuzz::tar_layer(data, place.path()));
}

/// A reference: what is printed of it can be read again, and means the same.
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
