//! Traffic limits from the Kubernetes bandwidth annotations, which are quantities of bits per second.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::error::Error;

const INGRESS: &str = "kubernetes.io/ingress-bandwidth";
const EGRESS: &str = "kubernetes.io/egress-bandwidth";

/// Limits in bits per second; none means unlimited.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bandwidth {
    /// Towards the pod.
    pub ingress: Option<u64>,
    /// Out of the pod.
    pub egress: Option<u64>,
}

impl Bandwidth {
    /// Reads `kubernetes.io/ingress-bandwidth` and `kubernetes.io/egress-bandwidth`; none when neither is set. Fails on
    /// anything but a positive quantity.
    pub fn from_annotations(annotations: &BTreeMap<String, String>) -> Result<Option<Bandwidth>, Error> {
        let read = |key: &'static str| match annotations.get(key) {
            None => Ok(None),
            Some(value) => match quantity(value) {
                Some(rate) if rate >= 1 => Ok(Some(rate)),
                _ => Err(Error::InvalidPod {
                    field: key,
                    value: value.clone(),
                    why: "must be a positive quantity of bits per second, such as 10M",
                }),
            },
        };
        let bandwidth = Bandwidth { ingress: read(INGRESS)?, egress: read(EGRESS)? };
        Ok((bandwidth != Bandwidth::default()).then_some(bandwidth))
    }
}

/// Parses a Kubernetes quantity into an integer, rounding fractions up; none when it is malformed or too large.
fn quantity(text: &str) -> Option<u64> {
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, suffix) = text.split_at(digits);
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if whole.is_empty() && fraction.is_empty() || fraction.contains('.') || number.len() > 30 {
        return None;
    }
    let mantissa: u128 = format!("{whole}{fraction}").parse().ok()?;
    let (scale, divisor) = scale(suffix)?;
    let divisor = 10u128.checked_pow(u32::try_from(fraction.len()).ok()?)?.checked_mul(divisor)?;
    u64::try_from(mantissa.checked_mul(scale)?.div_ceil(divisor)).ok()
}

/// Returns the factor and the divisor of a quantity's suffix.
fn scale(suffix: &str) -> Option<(u128, u128)> {
    const DECIMAL: [&str; 7] = ["", "k", "M", "G", "T", "P", "E"];
    const BINARY: [&str; 7] = ["", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei"];
    let place =
        |table: [&str; 7]| table.iter().position(|s| *s == suffix).and_then(|n| u32::try_from(n).ok());
    if let Some(n) = place(DECIMAL) {
        return Some((1000u128.pow(n), 1));
    }
    if let Some(n) = place(BINARY) {
        return Some((1024u128.pow(n), 1));
    }
    match suffix {
        "m" => Some((1, 1000)),
        "u" => Some((1, 1_000_000)),
        "n" => Some((1, 1_000_000_000)),
        _ => exponent(suffix.strip_prefix(['e', 'E'])?),
    }
}

fn exponent(text: &str) -> Option<(u128, u128)> {
    let power: i32 = text.parse().ok()?;
    let factor = 10u128.checked_pow(power.unsigned_abs())?;
    Some(if power < 0 { (1, factor) } else { (factor, 1) })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn quantities_are_read_as_kubernetes_writes_them() {
        let cases = [
            ("10M", 10_000_000),
            ("1Gi", 1 << 30),
            ("500k", 500_000),
            ("1.5M", 1_500_000),
            ("1e6", 1_000_000),
            ("12E-1", 2),
            ("100m", 1),
            (".5k", 500),
            ("7", 7),
            ("1E", 1_000_000_000_000_000_000),
        ];
        for (text, expected) in cases {
            assert_eq!(quantity(text), Some(expected), "{text}");
        }
    }

    #[test]
    fn what_is_no_quantity_is_refused() {
        for text in ["", ".", "M", "10 M", "10Q", "-1", "1.2.3", "1e", "99E", "1e99", "1e-99", "٣"] {
            assert_eq!(quantity(text), None, "{text:?}");
        }
    }

    #[test]
    fn annotations_give_limits_and_a_wrong_one_is_named() {
        let annotations = |ingress: &str| BTreeMap::from([(INGRESS.to_owned(), ingress.to_owned())]);
        let bandwidth = Bandwidth::from_annotations(&annotations("1M")).unwrap().unwrap();
        assert_eq!(bandwidth, Bandwidth { ingress: Some(1_000_000), egress: None });
        assert_eq!(Bandwidth::from_annotations(&BTreeMap::new()).unwrap(), None);
        for wrong in ["fast", "0"] {
            let error = Bandwidth::from_annotations(&annotations(wrong)).unwrap_err().to_string();
            assert!(error.contains(INGRESS) && error.contains(wrong), "{error}");
        }
    }
}
