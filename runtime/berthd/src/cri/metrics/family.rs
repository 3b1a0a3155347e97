//! Metrics of one name: how it is described, and where its values are found. Both come from the same entry of a table,
//! so that they always agree.

use berth_cri::v1::{Metric, MetricDescriptor, MetricType, UInt64Value};

/// Labels of every metric, in this order; those of a family follow.
pub(super) const LABELS: [&str; 5] = ["id", "image", "namespace", "pod", "container"];

/// Metrics of one name. `Find` finds their values in what was seen.
pub(super) struct Family<Find> {
    pub(super) name: &'static str,
    pub(super) help: &'static str,
    /// Labels beside [`LABELS`].
    pub(super) labels: &'static [&'static str],
    pub(super) kind: MetricType,
    pub(super) find: Find,
}

/// One value, with those of the family's own labels.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Value {
    pub(super) labels: Vec<String>,
    pub(super) value: u64,
    /// When it was found out, nanoseconds since the epoch; 0 is now.
    pub(super) at: i64,
}

impl<Find> Family<Find> {
    /// What only grows.
    pub(super) const fn counter(
        name: &'static str,
        help: &'static str,
        labels: &'static [&'static str],
        find: Find,
    ) -> Self {
        Self { name, help, labels, kind: MetricType::Counter, find }
    }

    /// What goes up and down.
    pub(super) const fn gauge(
        name: &'static str,
        help: &'static str,
        labels: &'static [&'static str],
        find: Find,
    ) -> Self {
        Self { name, help, labels, kind: MetricType::Gauge, find }
    }

    pub(super) fn descriptor(&self) -> MetricDescriptor {
        MetricDescriptor {
            name: self.name.into(),
            help: self.help.into(),
            label_keys: LABELS.iter().chain(self.labels).map(ToString::to_string).collect(),
        }
    }

    /// The metrics of what was `seen`, whose labels have these values.
    pub(super) fn metrics<S>(&self, labels: &[String; LABELS.len()], seen: &S) -> Vec<Metric>
    where
        Find: Fn(&S) -> Vec<Value>,
    {
        let metric = |found: Value| Metric {
            name: self.name.into(),
            timestamp: found.at,
            metric_type: self.kind.into(),
            label_values: labels.iter().cloned().chain(found.labels).collect(),
            value: Some(UInt64Value { value: found.value }),
        };
        (self.find)(seen).into_iter().map(metric).collect()
    }
}

/// A value of a family without labels of its own.
pub(super) fn one(value: u64) -> Vec<Value> {
    vec![Value { value, ..Value::default() }]
}

/// None when it is not known.
pub(super) fn known(value: Option<u64>) -> Vec<Value> {
    value.map(one).unwrap_or_default()
}

impl Value {
    pub(super) fn of<const N: usize>(labels: [&str; N], value: u64) -> Self {
        Self { labels: labels.map(str::to_owned).into(), value, at: 0 }
    }
}
