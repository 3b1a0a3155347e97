//! Conversion of errors to gRPC status.

use tonic::{Code, Status};

use crate::error::{Error, Kind};

/// Longest message in bytes: gRPC sends it in the trailers, whose size is limited, and output of plugins may be long.
const MAX_STATUS_MESSAGE_BYTES: usize = 4096;

/// Returns the error as a gRPC status.
pub(super) fn status(error: &Error) -> Status {
    Status::new(code(error.kind()), shortened(error.to_string(), MAX_STATUS_MESSAGE_BYTES))
}

/// Returns a text cut to at most `longest` bytes, with an ellipsis when it was longer.
pub(super) fn shortened(mut text: String, longest: usize) -> String {
    if text.len() > longest {
        text.truncate(text.floor_char_boundary(longest));
        text.push('…');
    }
    text
}

/// Returns the gRPC code of a kind of error.
pub(super) fn code(kind: Kind) -> Code {
    match kind {
        Kind::InvalidArgument => Code::InvalidArgument,
        Kind::NotFound => Code::NotFound,
        Kind::AlreadyExists => Code::AlreadyExists,
        Kind::FailedPrecondition => Code::FailedPrecondition,
        Kind::PermissionDenied => Code::PermissionDenied,
        Kind::Unauthenticated => Code::Unauthenticated,
        Kind::ResourceExhausted => Code::ResourceExhausted,
        Kind::DeadlineExceeded => Code::DeadlineExceeded,
        Kind::Unavailable => Code::Unavailable,
        Kind::Unimplemented => Code::Unimplemented,
        Kind::DataLoss => Code::DataLoss,
        Kind::Internal => Code::Internal,
    }
}

#[cfg(test)]
mod tests;
