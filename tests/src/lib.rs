//! Parts that Berth's integration tests and its benchmark share.

#![forbid(unsafe_code)]
