//! Limits a pod's traffic with a token bucket filter (tbf) at the end of the veth pair that sends in that direction.

use std::io;

use rtnetlink::packet_core::{DefaultNla, NLM_F_CREATE, NLM_F_REPLACE};
use rtnetlink::packet_route::RouteNetlinkMessage;
use rtnetlink::packet_route::tc::{TcAttribute, TcHandle, TcMessage, TcOption};

use super::link::Netlink;

/// Attributes of tbf, from linux/pkt_sched.h.
const TCA_TBF_PARMS: u16 = 1;
const TCA_TBF_RATE64: u16 = 4;
const TCA_TBF_BURST: u16 = 6;
/// Packets count with their own length; 0 (unaware) would require a rate table.
const TC_LINKLAYER_ETHERNET: u8 = 1;

/// Burst in bytes: divisor of the rate (20 ms), and the minimum of one packet of the largest size.
const BURST: (u64, u64) = (50, 64 << 10);
/// Divisor of the rate for the queue: 100 ms wait, beyond the burst, before packets are dropped.
const QUEUE_DIVISOR: u64 = 10;

impl Netlink {
    /// Limits what the interface with `index` sends to `rate` bits per second.
    pub(super) fn limit(&mut self, index: u32, rate: u64) -> io::Result<()> {
        let mut message = TcMessage::with_index(i32::try_from(index).map_err(io::Error::other)?);
        message.header.parent = TcHandle::ROOT;
        message.header.handle = TcHandle { major: 1, minor: 0 };
        message.attributes =
            vec![TcAttribute::Kind("tbf".to_owned()), TcAttribute::Options(options((rate / 8).max(1)))];
        let request = RouteNetlinkMessage::NewQueueDiscipline(message);
        self.ask(&[(request, NLM_F_CREATE | NLM_F_REPLACE)]).map(drop)
    }
}

/// Builds the options for a rate in bytes per second.
fn options(rate: u64) -> Vec<TcOption> {
    let burst = capped((rate / BURST.0).max(BURST.1));
    let option = |kind, value: &[u8]| TcOption::Other(DefaultNla::new(kind, value.to_vec()));
    vec![
        option(TCA_TBF_PARMS, &parameters(rate, capped(u64::from(burst) + rate / QUEUE_DIVISOR))),
        option(TCA_TBF_RATE64, &rate.to_ne_bytes()),
        option(TCA_TBF_BURST, &burst.to_ne_bytes()),
    ]
}

/// Builds `struct tc_tbf_qopt`: two `struct tc_ratespec` (rate, and peak rate, which is unused), then limit, buffer and
/// mtu.
fn parameters(rate: u64, limit: u32) -> [u8; 36] {
    let mut bytes = [0; 36];
    bytes[1] = TC_LINKLAYER_ETHERNET;
    bytes[8..12].copy_from_slice(&capped(rate).to_ne_bytes());
    bytes[24..28].copy_from_slice(&limit.to_ne_bytes());
    bytes
}

fn capped(value: u64) -> u32 {
    u32::try_from(value).unwrap_or(u32::MAX)
}
