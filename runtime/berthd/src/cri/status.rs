//! Errors on their way out: which gRPC code each kind gets, and what of it is told.

use tonic::{Code, Status};

use crate::error::{Error, Kind};

/// The longest message sent; trailers of a call are limited, and what a plugin printed may be long.
const LONGEST_MESSAGE: usize = 4096;

/// The error as the caller gets it.
pub(super) fn status(error: &Error) -> Status {
    Status::new(code(error.kind()), shortened(error.to_string(), LONGEST_MESSAGE))
}

/// At most the first `longest` bytes of a text.
pub(super) fn shortened(mut text: String, longest: usize) -> String {
    if text.len() > longest {
        text.truncate(text.floor_char_boundary(longest));
        text.push('…');
    }
    text
}

/// The gRPC code of a kind of error.
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
