//! The kernel's side of the built-in network: rtnetlink requests, sent and answered synchronously.
//!
//! The kernel handles a request inside `send`, so the answer is there when it returns and nothing here
//! ever waits; an asynchronous connection would only add a task and two wake-ups to each request.

use std::fs::File;
use std::io;
use std::net::Ipv4Addr;
use std::os::fd::AsRawFd;

use rtnetlink::packet_core::{
    NLM_F_ACK, NLM_F_CREATE, NLM_F_DUMP, NLM_F_EXCL, NLM_F_REPLACE, NLM_F_REQUEST, NetlinkMessage,
    NetlinkPayload,
};
use rtnetlink::packet_route::RouteNetlinkMessage;
use rtnetlink::packet_route::address::AddressAttribute;
use rtnetlink::packet_route::link::{
    InfoData, InfoKind, InfoVeth, LinkAttribute, LinkInfo, LinkMessage, State,
};
use rtnetlink::sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};
use rtnetlink::{
    AddressMessageBuilder, LinkBridge, LinkBridgePort, LinkMessageBuilder, LinkUnspec, LinkVeth,
    RouteMessageBuilder,
};
use rustix::io::Errno;

const CREATE_FLAGS: u16 = NLM_F_CREATE | NLM_F_EXCL;
/// Larger than any answer the kernel puts into one datagram.
const ANSWER_BUFFER_BYTES: usize = 32 << 10;

/// A netlink socket. It belongs to the network namespace it was opened in, whatever thread uses it.
pub(super) struct Netlink {
    socket: Socket,
    sequence: u32,
}

/// The attributes of an interface that matter here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Link {
    pub(super) index: u32,
    pub(super) is_bridge: bool,
    /// The operational state is up: it passes packets.
    pub(super) is_up: bool,
    pub(super) bridge: Option<u32>,
}

/// A veth pair to be created: one end on a bridge here, `eth0` in a pod.
pub(super) struct Pair<'a> {
    pub(super) host_end: &'a str,
    pub(super) bridge: u32,
    pub(super) netns: &'a File,
    pub(super) mac: [u8; 6],
    pub(super) mtu: u32,
}

impl Netlink {
    /// Opens a socket in the calling thread's network namespace.
    pub(super) fn open() -> io::Result<Netlink> {
        let mut socket = Socket::new(NETLINK_ROUTE)?;
        socket.bind_auto()?;
        socket.connect(&SocketAddr::new(0, 0))?;
        Ok(Netlink { socket, sequence: 0 })
    }

    /// Finds the interface called `name`. Since kernel 6.8 the request also applies a pending change of the carrier,
    /// which otherwise waits for a kernel worker.
    pub(super) fn find(&mut self, name: &str) -> io::Result<Option<Link>> {
        let request = RouteNetlinkMessage::GetLink(LinkUnspec::new_with_name(name).build());
        let answers = match self.ask(&[(request, 0)]) {
            Err(error) if is(&error, Errno::NODEV) => return Ok(None),
            answers => answers?,
        };
        Ok(answers.into_iter().find_map(|answer| match answer {
            RouteNetlinkMessage::NewLink(link) => Some(Link::from(link)),
            _ => None,
        }))
    }

    /// Creates a bridge and brings it up. Its hardware address is fixed; otherwise it would change with the ports.
    pub(super) fn add_bridge(&mut self, name: &str, mac: [u8; 6], mtu: u32) -> io::Result<()> {
        let bridge = with_mtu(LinkBridge::new(name).address(mac.to_vec()), mtu);
        self.ask(&[(RouteNetlinkMessage::NewLink(bridge.build()), CREATE_FLAGS)]).map(drop)
    }

    /// Adds an address to an interface; no effect if it has it already.
    pub(super) fn add_address(&mut self, index: u32, address: Ipv4Addr, prefix: u8) -> io::Result<()> {
        let message = address_message(index, address, prefix);
        self.ask(&[(message, NLM_F_CREATE | NLM_F_REPLACE)]).map(drop)
    }

    /// Creates both ends at once: the host's up and on the bridge, the pod's directly in its namespace. The pod's end
    /// cannot be created up: the veth driver refuses to open an end that has no peer yet.
    pub(super) fn add_pair(&mut self, pair: &Pair<'_>) -> io::Result<()> {
        let pod_end = LinkMessageBuilder::<LinkUnspec>::new().name("eth0").address(pair.mac.to_vec());
        let pod_end = with_mtu(pod_end.setns_by_fd(pair.netns.as_raw_fd()), pair.mtu).build();
        let host_end = LinkMessageBuilder::<LinkVeth>::new_with_info_kind(InfoKind::Veth)
            .set_info_data(InfoData::Veth(InfoVeth::Peer(pod_end)))
            .name(pair.host_end)
            .controller(pair.bridge)
            .up();
        let message = RouteNetlinkMessage::NewLink(with_mtu(host_end, pair.mtu).build());
        self.ask(&[(message, CREATE_FLAGS)]).map(drop)
    }

    /// Brings the pod's end up with its address and the default route, in one datagram whose last request applies the
    /// change of the carrier, as [`Netlink::find`] does.
    pub(super) fn set_up_pod(&mut self, address: Ipv4Addr, prefix: u8, gateway: Ipv4Addr) -> io::Result<()> {
        let eth0 = self.find("eth0")?.ok_or(Errno::NODEV)?;
        let route = RouteMessageBuilder::<Ipv4Addr>::new().gateway(gateway).output_interface(eth0.index);
        let up = RouteNetlinkMessage::SetLink(LinkUnspec::new_with_index(eth0.index).up().build());
        self.ask(&[
            (up, 0),
            (address_message(eth0.index, address, prefix), CREATE_FLAGS),
            (RouteNetlinkMessage::NewRoute(route.build()), CREATE_FLAGS),
            (RouteNetlinkMessage::GetLink(LinkUnspec::new_with_index(eth0.index).build()), 0),
        ])
        .map(drop)
    }

    /// Turns on hairpin mode: the bridge may send a packet back to the port it came from. A pod needs it to reach a
    /// port that it publishes itself, on a host whose bridges pass packets to netfilter (br_netfilter).
    pub(super) fn reflect(&mut self, port: u32) -> io::Result<()> {
        let message = LinkBridgePort::new(port).hairpin(true).build();
        self.ask(&[(RouteNetlinkMessage::NewLink(message), 0)]).map(drop)
    }

    /// Lists the IPv4 addresses of the interface with `index`.
    pub(super) fn addresses(&mut self, index: u32) -> io::Result<Vec<Ipv4Addr>> {
        let request = AddressMessageBuilder::<Ipv4Addr>::new().index(index).build();
        let answers = self.ask(&[(RouteNetlinkMessage::GetAddress(request), NLM_F_DUMP)])?;
        let addresses = answers.into_iter().filter_map(|answer| match answer {
            RouteNetlinkMessage::NewAddress(message) if message.header.index == index => {
                message.attributes.into_iter().find_map(|attribute| match attribute {
                    AddressAttribute::Local(std::net::IpAddr::V4(address)) => Some(address),
                    _ => None,
                })
            }
            _ => None,
        });
        Ok(addresses.collect())
    }

    /// Returns the name of the interface with `index`. Fails with ENODEV when it is gone.
    pub(super) fn name(&mut self, index: u32) -> io::Result<String> {
        let request = RouteNetlinkMessage::GetLink(LinkUnspec::new_with_index(index).build());
        let name = self.ask(&[(request, 0)])?.into_iter().find_map(|answer| match answer {
            RouteNetlinkMessage::NewLink(message) => {
                message.attributes.into_iter().find_map(|attribute| match attribute {
                    LinkAttribute::IfName(name) => Some(name),
                    _ => None,
                })
            }
            _ => None,
        });
        Ok(name.unwrap_or_else(|| index.to_string()))
    }

    /// Removes an address from an interface; no effect if it does not have it.
    pub(super) fn remove_address(&mut self, index: u32, address: Ipv4Addr, prefix: u8) -> io::Result<()> {
        let RouteNetlinkMessage::NewAddress(message) = address_message(index, address, prefix) else {
            return Ok(());
        };
        match self.ask(&[(RouteNetlinkMessage::DelAddress(message), 0)]) {
            Err(error) if is(&error, Errno::ADDRNOTAVAIL) => Ok(()),
            outcome => outcome.map(drop),
        }
    }

    /// Deletes the interface called `name` and its peer, if any; an absent one is not an error.
    pub(super) fn delete(&mut self, name: &str) -> io::Result<()> {
        let request = RouteNetlinkMessage::DelLink(LinkUnspec::new_with_name(name).build());
        match self.ask(&[(request, 0)]) {
            Err(error) if is(&error, Errno::NODEV) => Ok(()),
            outcome => outcome.map(drop),
        }
    }

    /// Sends all requests in one datagram, reads every answer, and fails with the first error.
    pub(super) fn ask(
        &mut self,
        requests: &[(RouteNetlinkMessage, u16)],
    ) -> io::Result<Vec<RouteNetlinkMessage>> {
        let mut datagram = Vec::new();
        for (request, flags) in requests {
            self.sequence += 1;
            let mut message = NetlinkMessage::from(request.clone());
            message.header.flags = NLM_F_REQUEST | NLM_F_ACK | flags;
            message.header.sequence_number = self.sequence;
            message.finalize();
            let start = datagram.len();
            datagram.resize(start + message.buffer_len().next_multiple_of(4), 0);
            message.serialize(&mut datagram[start..]);
        }
        self.socket.send(&datagram, 0)?;
        self.answers(requests.len())
    }

    /// Reads answers until `requests` of them are acknowledged, refused or (a dump) done.
    fn answers(&mut self, requests: usize) -> io::Result<Vec<RouteNetlinkMessage>> {
        let (mut settled, mut answers, mut refused) = (0, Vec::new(), Ok(()));
        let mut buffer = vec![0; ANSWER_BUFFER_BYTES];
        while settled < requests {
            let received = self.socket.recv(&mut &mut buffer[..], 0)?;
            let mut rest = &buffer[..received.min(ANSWER_BUFFER_BYTES)];
            while !rest.is_empty() {
                let message =
                    NetlinkMessage::<RouteNetlinkMessage>::deserialize(rest).map_err(io::Error::other)?;
                let length = (message.header.length as usize).next_multiple_of(4).min(rest.len());
                rest = &rest[length..];
                match message.payload {
                    NetlinkPayload::InnerMessage(answer) => answers.push(answer),
                    NetlinkPayload::Error(error) => {
                        settled += 1;
                        refused = refused.and(if error.code.is_some() { Err(error.to_io()) } else { Ok(()) });
                    }
                    NetlinkPayload::Done(_) => settled += 1,
                    _ => {}
                }
            }
        }
        refused.map(|()| answers)
    }
}

/// Whether `error` carries `errno`.
pub(super) fn is(error: &io::Error, errno: Errno) -> bool {
    error.raw_os_error() == Some(errno.raw_os_error())
}

fn with_mtu<T>(builder: LinkMessageBuilder<T>, mtu: u32) -> LinkMessageBuilder<T> {
    match mtu {
        0 => builder,
        mtu => builder.mtu(mtu),
    }
}

fn address_message(index: u32, address: Ipv4Addr, prefix: u8) -> RouteNetlinkMessage {
    let message = AddressMessageBuilder::<Ipv4Addr>::new().index(index).address(address, prefix);
    RouteNetlinkMessage::NewAddress(message.build())
}

impl From<LinkMessage> for Link {
    fn from(message: LinkMessage) -> Link {
        let mut link = Link { index: message.header.index, is_bridge: false, is_up: false, bridge: None };
        for attribute in message.attributes {
            match attribute {
                LinkAttribute::OperState(state) => link.is_up = state == State::Up,
                LinkAttribute::Controller(index) => link.bridge = Some(index),
                LinkAttribute::LinkInfo(infos) => {
                    link.is_bridge = infos.contains(&LinkInfo::Kind(InfoKind::Bridge));
                }
                _ => {}
            }
        }
        link
    }
}
