//! The versions of Kubernetes' protocol for the standard streams of a command, and their features.

/// A version. Newer ones compare greater.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Protocol {
    /// `channel.k8s.io`: streams, and errors as text. Also for clients that name no version.
    V1,
    /// `v2.channel.k8s.io`: as version 1; only the closing of streams differed.
    V2,
    /// `v3.channel.k8s.io`: terminals can be resized.
    V3,
    /// `v4.channel.k8s.io`: the end of a command is reported as a JSON object, with its exit code.
    V4,
    /// `v5.channel.k8s.io`, WebSocket only: a client can close its channels one by one.
    V5,
}

impl Protocol {
    /// Whether there is a stream for the sizes of the terminal.
    pub(super) fn resizes(self) -> bool {
        self >= Self::V3
    }

    /// Whether the end of a command is reported as a JSON object.
    pub(super) fn tells_status(self) -> bool {
        self >= Self::V4
    }

    /// Whether a message can close a channel.
    pub(super) fn closes_channels(self) -> bool {
        self >= Self::V5
    }
}
