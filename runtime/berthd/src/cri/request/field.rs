//! Checks of single fields. Each error names the field as the CRI spells it, the value, and the reason.

use std::fmt::Debug;

use crate::error::{Error, Kind, Result};

/// Number of characters of a refused value that the error repeats.
const MAX_SHOWN_CHARS: usize = 128;
/// Longest path that the kernel accepts (PATH_MAX without the NUL).
const MAX_PATH_BYTES: usize = 4095;

/// Returns the error for a field with an invalid value.
pub(super) fn invalid(field: &str, value: impl Debug, why: &str) -> Error {
    refused(Kind::InvalidArgument, field, value, why)
}

/// Returns the error for a field that asks for an unsupported feature.
pub(super) fn unsupported(field: &str, value: impl Debug) -> Error {
    refused(Kind::Unimplemented, field, value, "not supported")
}

fn refused(kind: Kind, field: &str, value: impl Debug, why: &str) -> Error {
    let mut shown: String = format!("{value:?}").chars().take(MAX_SHOWN_CHARS + 1).collect();
    if shown.chars().count() > MAX_SHOWN_CHARS {
        shown.push('…');
    }
    Error::new(kind, format!("{field} = {shown}: {why}"))
}

/// Returns `value` if `holds`, else an `InvalidArgument` error.
pub(super) fn check<T: Debug>(holds: bool, field: &str, value: T, why: &str) -> Result<T> {
    if holds { Ok(value) } else { Err(invalid(field, value, why)) }
}

/// Returns a message field, which must be set.
pub(super) fn required<T>(field: &str, value: Option<T>) -> Result<T> {
    value.ok_or_else(|| Error::new(Kind::InvalidArgument, format!("{field}: missing")))
}

/// Returns the value of an enumeration; fails for numbers that this version of the CRI does not define.
pub(in crate::cri) fn known<E: TryFrom<i32>>(field: &str, value: i32) -> Result<E> {
    E::try_from(value).map_err(|_| invalid(field, value, "no such value"))
}

/// Text of at most `longest` bytes without control characters; may be empty.
pub(super) fn text(field: &str, value: String, longest: usize) -> Result<String> {
    let value = check(value.len() <= longest, field, value, &format!("longer than {longest} bytes"))?;
    check(!value.chars().any(char::is_control), field, value, "holds a control character")
}

/// A name: text that is not empty.
pub(super) fn name(field: &str, value: String) -> Result<String> {
    text(field, not_empty(field, value)?, 253)
}

/// An image's name or id. A name with registry, tag and digest may be longer than other names.
pub(super) fn image_name(field: &str, value: String) -> Result<String> {
    text(field, not_empty(field, value)?, 1024)
}

fn not_empty(field: &str, value: String) -> Result<String> {
    check(!value.is_empty(), field, value, "must not be empty")
}

/// A string for a system call: anything without NUL bytes.
pub(super) fn argument(field: &str, value: String) -> Result<String> {
    check(!value.contains('\0'), field, value, "holds a NUL byte")
}

/// An absolute path.
pub(super) fn absolute(field: &str, value: String) -> Result<String> {
    let value = text(field, value, MAX_PATH_BYTES)?;
    check(value.starts_with('/'), field, value, "must be an absolute path")
}

/// An absolute path, or empty.
pub(super) fn absolute_or_empty(field: &str, value: String) -> Result<String> {
    if value.is_empty() { Ok(value) } else { absolute(field, value) }
}

/// A user or group id. 4294967295 is excluded: it means "no change" to chown(2) and setresuid(2).
pub(super) fn id(field: &str, value: i64) -> Result<u32> {
    match u32::try_from(value) {
        Ok(id) if id != u32::MAX => Ok(id),
        _ => Err(invalid(field, value, "must be from 0 to 4294967294")),
    }
}

/// Applies a check to each element, named `field[0]` and so on.
pub(super) fn each<T, U>(
    field: &str,
    values: Vec<T>,
    parse: impl Fn(&str, T) -> Result<U>,
) -> Result<Vec<U>> {
    values.into_iter().enumerate().map(|(i, value)| parse(&format!("{field}[{i}]"), value)).collect()
}

/// A duration in whole seconds; the caller defines the meaning of 0.
pub(super) fn seconds(field: &str, value: i64) -> Result<std::time::Duration> {
    match u64::try_from(value) {
        Ok(seconds) => Ok(std::time::Duration::from_secs(seconds)),
        Err(_) => Err(invalid(field, value, "must not be negative")),
    }
}
