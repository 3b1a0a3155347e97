use super::*;
use crate::error::of_image;

#[test]
fn each_kind_of_error_has_its_code() {
    for (kind, expected) in [
        (Kind::InvalidArgument, Code::InvalidArgument),
        (Kind::NotFound, Code::NotFound),
        (Kind::AlreadyExists, Code::AlreadyExists),
        (Kind::FailedPrecondition, Code::FailedPrecondition),
        (Kind::PermissionDenied, Code::PermissionDenied),
        (Kind::Unauthenticated, Code::Unauthenticated),
        (Kind::ResourceExhausted, Code::ResourceExhausted),
        (Kind::DeadlineExceeded, Code::DeadlineExceeded),
        (Kind::Unavailable, Code::Unavailable),
        (Kind::Unimplemented, Code::Unimplemented),
        (Kind::DataLoss, Code::DataLoss),
        (Kind::Internal, Code::Internal),
    ] {
        assert_eq!(status(&Error::new(kind, "x")).code(), expected);
    }
}

#[test]
fn the_caller_is_told_the_step_and_every_cause() {
    let cause = std::io::Error::other("no such device");
    let error = Error::caused(Kind::Internal, "mount the overlay", cause).during("create container web");
    assert_eq!(status(&error).message(), "create container web: mount the overlay: no such device");
}

#[test]
fn a_long_message_is_cut_between_characters() {
    let told = status(&Error::new(Kind::Internal, "é".repeat(MAX_STATUS_MESSAGE_BYTES)));
    assert!(told.message().len() <= MAX_STATUS_MESSAGE_BYTES + '…'.len_utf8());
    assert!(told.message().ends_with("é…"));
}

#[test]
fn an_unknown_image_is_not_found() {
    let unknown = berth_image::Error::Unknown { image: "busybox".into() };
    let told = status(&of_image("pull busybox", unknown));
    assert_eq!(
        (told.code(), told.message()),
        (Code::NotFound, "pull busybox: image busybox is not in the store")
    );
}
