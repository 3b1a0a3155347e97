use std::{collections::BTreeMap, fs};

use berth_tests::berth::Berth;
use bytes::{Buf, BufMut};
use tonic::{
    Code, Request, Status,
    client::Grpc,
    codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder},
    transport::Channel,
};

use crate::surface::assert_unharmed;

const MAX_MESSAGE_BYTES: usize = 16 << 20;

/// Calls that refuse an empty message, and the field that they name. The other calls accept it.
const NEEDED: [(&str, &str); 24] = [
    ("Attach", "container_id"),
    ("CheckpointContainer", "location"),
    ("CheckpointPod", "output_path"),
    ("ContainerStats", "container_id"),
    ("ContainerStatus", "container_id"),
    ("CreateContainer", "pod_sandbox_id"),
    ("Exec", "container_id"),
    ("ExecSync", "container_id"),
    ("ImageStatus", "image"),
    ("PodSandboxStats", "pod_sandbox_id"),
    ("PodSandboxStatus", "pod_sandbox_id"),
    ("PortForward", "pod_sandbox_id"),
    ("PullImage", "image"),
    ("RemoveContainer", "container_id"),
    ("RemoveImage", "image"),
    ("RemovePodSandbox", "pod_sandbox_id"),
    ("ReopenContainerLog", "container_id"),
    ("RestorePod", "checkpoint_path"),
    ("RunPodSandbox", "config"),
    ("StartContainer", "container_id"),
    ("StopContainer", "container_id"),
    ("StopPodSandbox", "pod_sandbox_id"),
    ("UpdateContainerResources", "container_id"),
    ("UpdatePodSandboxResources", "pod_sandbox_id"),
];

/// Codec that passes bytes through, so that any message can be sent to any call.
#[derive(Default)]
struct Bytes;

impl Codec for Bytes {
    type Encode = Vec<u8>;
    type Decode = Vec<u8>;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for Bytes {
    type Item = Vec<u8>;
    type Error = Status;

    fn encode(&mut self, item: Vec<u8>, to: &mut EncodeBuf<'_>) -> Result<(), Status> {
        to.put_slice(&item);
        Ok(())
    }
}

impl Decoder for Bytes {
    type Item = Vec<u8>;
    type Error = Status;

    fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<Vec<u8>>, Status> {
        Ok(Some(from.copy_to_bytes(from.remaining()).to_vec()))
    }
}

/// Every call of the contract, as `service/call`.
fn calls() -> Vec<String> {
    let mut service = "";
    let mut calls = Vec::new();
    for line in include_str!("../../../proto/cri/proto/api.proto").lines() {
        let mut words = line.split([' ', '(']).filter(|word| !word.is_empty());
        match (words.next(), words.next()) {
            (Some("service"), Some(name)) => service = name,
            (Some("rpc"), Some(name)) => calls.push(format!("runtime.v1.{service}/{name}")),
            _ => {}
        }
    }
    assert_eq!(calls.len(), 43);
    calls
}

/// Sends `message` as the request of a call. Does not read a stream of answers.
async fn send(channel: &Channel, call: &str, message: Vec<u8>) -> Result<(), Status> {
    let mut client = Grpc::new(channel.clone());
    client.ready().await.unwrap();
    let path = format!("/{call}").parse().unwrap();
    client.server_streaming(Request::new(message), path, Bytes).await.map(drop)
}

/// Sends `message` to every call. Returns the answers by name of the call.
async fn send_to_all(berth: &Berth, message: &[u8]) -> BTreeMap<String, Result<(), Status>> {
    let channel = berth.connect().await;
    let mut answers = BTreeMap::new();
    for call in calls() {
        let answer = send(&channel, &call, message.to_vec()).await;
        answers.insert(call.rsplit('/').next().unwrap().to_owned(), answer);
    }
    answers
}

/// A message of `size` bytes with nothing but a field that no message of the contract has.
fn padded(size: usize) -> Vec<u8> {
    // Field 1000, length-delimited; the length in four groups of seven bits.
    let length = size - 6;
    let groups = [length & 127 | 128, length >> 7 & 127 | 128, length >> 14 & 127 | 128, length >> 21];
    let mut message = vec![0xc2, 0x3e];
    message.extend(groups.map(|group| u8::try_from(group).unwrap()));
    message.resize(size, b'x');
    message
}

#[tokio::test(flavor = "multi_thread")]
async fn root_a_message_without_anything_is_refused_for_what_its_call_needs_however_long_it_is() {
    let mut berth = Berth::start().await;
    let image = berth.busybox().await;
    let (_, bystander) = berth.run_alone("bystander", &image, "exec sleep 1000").await;
    let needed = BTreeMap::from(NEEDED);
    for size in [0, MAX_MESSAGE_BYTES] {
        let message = if size == 0 { Vec::new() } else { padded(size) };
        for (call, answer) in send_to_all(&berth, &message).await {
            let refused = answer.map_err(|error| (error.code(), error.message().to_owned()));
            match (needed.get(call.as_str()), refused) {
                (None, Ok(())) => {}
                (Some(field), Err((Code::InvalidArgument, said))) if said.starts_with(field) => {}
                (_, answer) => panic!("{call} with {size} bytes: {answer:?}"),
            }
        }
    }
    assert_unharmed(&mut berth, &bystander).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn root_bytes_that_are_no_message_are_refused_by_every_call() {
    let mut berth = Berth::start().await;
    let image = berth.busybox().await;
    let (_, bystander) = berth.run_alone("bystander", &image, "exec sleep 1000").await;
    // A field number that does not end, a string shorter than its length, and the end of a group that was not begun.
    for message in [[0xff; 11].as_slice(), &[0x0a, 0x7f], &[0x0c]] {
        for (call, answer) in send_to_all(&berth, message).await {
            assert_eq!(answer.unwrap_err().code(), Code::Internal, "{call} {message:?}");
        }
    }
    // A string that is no UTF-8, where the first field is a string.
    for (call, answer) in send_to_all(&berth, &[0x0a, 0x01, 0xff]).await {
        let code = answer.map_or_else(|error| error.code(), |()| Code::Ok);
        assert!(matches!(code, Code::Ok | Code::Internal), "{call}: {code:?}");
    }
    let channel = berth.connect().await;
    for call in ["runtime.v1.RuntimeService/NoSuchCall", "runtime.v1alpha2.RuntimeService/Version", "x"] {
        assert_eq!(send(&channel, call, Vec::new()).await.unwrap_err().code(), Code::Unimplemented, "{call}");
    }
    assert_unharmed(&mut berth, &bystander).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn root_a_message_over_the_limit_is_refused_by_every_call_before_it_takes_memory() {
    let mut berth = Berth::start().await;
    let image = berth.busybox().await;
    let (_, bystander) = berth.run_alone("bystander", &image, "exec sleep 1000").await;
    send_to_all(&berth, &padded(1000)).await;
    let before = memory(&berth);
    for (call, answer) in send_to_all(&berth, &padded(MAX_MESSAGE_BYTES + 1)).await {
        let code = answer.unwrap_err().code();
        assert!(matches!(code, Code::OutOfRange | Code::ResourceExhausted), "{call}: {code:?}");
    }
    assert!(memory(&berth) < before + (4 << 20), "{before} bytes have become {}", memory(&berth));
    assert_unharmed(&mut berth, &bystander).await;
}

/// Resident anonymous memory of the daemon, in bytes.
fn memory(berth: &Berth) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", berth.pid())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() << 10
}
