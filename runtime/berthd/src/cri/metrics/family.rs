//! A family: all metrics of one name. Its description and its values come from the same table entry, so that they
//! always agree.

use berth_cri::v1::{Metric, MetricDescriptor, MetricType, UInt64Value};

/// Labels of every metric, in this order; a family's own labels follow.
pub(super) const LABELS: [&str; 5] = ["id", "image", "namespace", "pod", "container"];

/// All metrics of one name. `Extract` computes their values from what was measured.
pub(super) struct Family<Extract> {
    pub(super) name: &'static str,
    pub(super) help: &'static str,
    /// Additional labels besides [`LABELS`].
    pub(super) labels: &'static [&'static str],
    pub(super) kind: MetricType,
    pub(super) extract: Extract,
}

/// One value, with the values of the family's own labels.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Value {
    pub(super) labels: Vec<String>,
    pub(super) value: u64,
    /// Time of the measurement in nanoseconds since the epoch; 0 is now.
    pub(super) at: i64,
}

impl<Extract> Family<Extract> {
    /// A value that only grows.
    pub(super) const fn counter(
        name: &'static str,
        help: &'static str,
        labels: &'static [&'static str],
        extract: Extract,
    ) -> Self {
        Self { name, help, labels, kind: MetricType::Counter, extract }
    }

    /// A value that goes up and down.
    pub(super) const fn gauge(
        name: &'static str,
        help: &'static str,
        labels: &'static [&'static str],
        extract: Extract,
    ) -> Self {
        Self { name, help, labels, kind: MetricType::Gauge, extract }
    }

    pub(super) fn descriptor(&self) -> MetricDescriptor {
        MetricDescriptor {
            name: self.name.into(),
            help: self.help.into(),
            label_keys: LABELS.iter().chain(self.labels).map(ToString::to_string).collect(),
        }
    }

    /// Returns the metrics of `seen`. `labels` are the values of [`LABELS`].
    pub(super) fn metrics<S>(&self, labels: &[String; LABELS.len()], seen: &S) -> Vec<Metric>
    where
        Extract: Fn(&S) -> Vec<Value>,
    {
        let metric = |found: Value| Metric {
            name: self.name.into(),
            timestamp: found.at,
            metric_type: self.kind.into(),
            label_values: labels.iter().cloned().chain(found.labels).collect(),
            value: Some(UInt64Value { value: found.value }),
        };
        (self.extract)(seen).into_iter().map(metric).collect()
    }
}

/// Returns one value without labels of its own.
pub(super) fn one(value: u64) -> Vec<Value> {
    vec![Value { value, ..Value::default() }]
}

/// Returns no value when it is unknown.
pub(super) fn known(value: Option<u64>) -> Vec<Value> {
    value.map(one).unwrap_or_default()
}

impl Value {
    pub(super) fn of<const N: usize>(labels: [&str; N], value: u64) -> Self {
        Self { labels: labels.map(str::to_owned).into(), value, at: 0 }
    }
}
