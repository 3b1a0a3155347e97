//! The metrics of a pod's network interface.

use super::family::{Family, Value};
use crate::stats::Interface;

type Extract = fn(&Interface) -> Vec<Value>;

const LABELS: &[&str] = &["interface"];

pub(super) const FAMILIES: &[Family<Extract>] = &[
    Family::counter("container_network_receive_bytes_total", "Bytes received.", LABELS, |i| {
        of(i, i.received.bytes)
    }),
    Family::counter("container_network_receive_packets_total", "Packets received.", LABELS, |i| {
        of(i, i.received.packets)
    }),
    Family::counter(
        "container_network_receive_packets_dropped_total",
        "Packets dropped while receiving.",
        LABELS,
        |i| of(i, i.received.dropped),
    ),
    Family::counter("container_network_receive_errors_total", "Errors while receiving.", LABELS, |i| {
        of(i, i.received.errors)
    }),
    Family::counter("container_network_transmit_bytes_total", "Bytes sent.", LABELS, |i| of(i, i.sent.bytes)),
    Family::counter("container_network_transmit_packets_total", "Packets sent.", LABELS, |i| {
        of(i, i.sent.packets)
    }),
    Family::counter(
        "container_network_transmit_packets_dropped_total",
        "Packets dropped while sending.",
        LABELS,
        |i| of(i, i.sent.dropped),
    ),
    Family::counter("container_network_transmit_errors_total", "Errors while sending.", LABELS, |i| {
        of(i, i.sent.errors)
    }),
];

fn of(interface: &Interface, value: u64) -> Vec<Value> {
    vec![Value::of([&interface.name], value)]
}
