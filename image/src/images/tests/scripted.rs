//! A registry on loopback that answers as a test demands: also wrongly, partly, or late.

use std::collections::{HashMap, HashSet};
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex};
use std::thread::JoinHandle;

use serde_json::{Value, json};

use crate::digest::Digest;

pub(super) const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
pub(super) const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
pub(super) const OCI_CONFIG: &str = "application/vnd.oci.image.config.v1+json";
pub(super) const GZIP: &str = "application/vnd.oci.image.layer.v1.tar+gzip";
pub(super) const ZSTD: &str = "application/vnd.oci.image.layer.v1.tar+zstd";
pub(super) const PLAIN: &str = "application/vnd.oci.image.layer.v1.tar";

#[derive(Clone)]
struct Answer {
    media_type: String,
    bytes: Vec<u8>,
    /// Bytes that are really sent; the headers promise all.
    sent: usize,
}

#[derive(Default)]
struct State {
    answers: HashMap<String, Answer>,
    asked: HashMap<String, usize>,
    /// Requests other than HEAD.
    fetched: HashMap<String, usize>,
    /// Paths whose answers stop half way until [`Scripted::let_go`].
    held: HashSet<String>,
    /// HEAD is answered with 404.
    has_no_head: bool,
    closed: bool,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

pub(super) struct Scripted {
    pub(super) address: SocketAddr,
    shared: Arc<Shared>,
    serving: Option<JoinHandle<()>>,
}

impl Scripted {
    pub(super) fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Shared::default());
        let serving = Arc::clone(&shared);
        let serving = std::thread::spawn(move || serve(&listener, &serving));
        Scripted { address, shared, serving: Some(serving) }
    }

    /// Returns a reference into this registry.
    pub(super) fn name(&self, rest: &str) -> String {
        format!("{}/{rest}", self.address)
    }

    pub(super) fn put(&self, path: &str, media_type: &str, bytes: &[u8]) {
        let answer = Answer { media_type: media_type.to_owned(), bytes: bytes.to_vec(), sent: bytes.len() };
        self.shared.state.lock().unwrap().answers.insert(path.to_owned(), answer);
    }

    pub(super) fn blob(&self, repository: &str, bytes: &[u8]) -> Digest {
        let digest = Digest::sha256(bytes);
        self.put(&blob_path(repository, &digest), "application/octet-stream", bytes);
        digest
    }

    /// Stores a manifest or index under its digest and `tag`.
    pub(super) fn manifest(&self, repository: &str, tag: &str, media_type: &str, document: &Value) -> Digest {
        let bytes = serde_json::to_vec(document).unwrap();
        let digest = Digest::sha256(&bytes);
        for name in [tag, &digest.to_string()] {
            self.put(&format!("/v2/{repository}/manifests/{name}"), media_type, &bytes);
        }
        digest
    }

    pub(super) fn cut(&self, path: &str, sent: usize) {
        self.shared.state.lock().unwrap().answers.get_mut(path).unwrap().sent = sent;
    }

    pub(super) fn asked(&self, path: &str) -> usize {
        self.shared.state.lock().unwrap().asked.get(path).copied().unwrap_or(0)
    }

    /// Returns how often `path` was asked for with GET, which registries count as pulls.
    pub(super) fn fetched(&self, path: &str) -> usize {
        self.shared.state.lock().unwrap().fetched.get(path).copied().unwrap_or(0)
    }

    pub(super) fn remove(&self, path: &str) {
        self.shared.state.lock().unwrap().answers.remove(path);
    }

    pub(super) fn answer_no_head(&self) {
        self.shared.state.lock().unwrap().has_no_head = true;
    }

    pub(super) fn hold(&self, path: &str) {
        self.shared.state.lock().unwrap().held.insert(path.to_owned());
    }

    pub(super) fn let_go(&self) {
        self.shared.state.lock().unwrap().held.clear();
        self.shared.changed.notify_all();
    }

    /// Waits until `count` of the paths, in any order, were asked for.
    pub(super) fn wait_for_some(&self, paths: &[String], count: usize) {
        let state = self.shared.state.lock().unwrap();
        let lacking =
            |state: &mut State| paths.iter().filter(|path| state.asked.contains_key(*path)).count() < count;
        drop(self.shared.changed.wait_while(state, lacking).unwrap());
    }

    /// Waits until `path` was asked for `times` times.
    pub(super) fn wait_for(&self, path: &str, times: usize) {
        let state = self.shared.state.lock().unwrap();
        let lacking = |state: &mut State| state.asked.get(path).copied().unwrap_or(0) < times;
        drop(self.shared.changed.wait_while(state, lacking).unwrap());
    }
}

impl Drop for Scripted {
    fn drop(&mut self) {
        self.shared.state.lock().unwrap().closed = true;
        self.let_go();
        drop(TcpStream::connect(self.address));
        self.serving.take().unwrap().join().unwrap();
    }
}

pub(super) fn blob_path(repository: &str, digest: &Digest) -> String {
    format!("/v2/{repository}/blobs/{digest}")
}

fn serve(listener: &TcpListener, shared: &Arc<Shared>) {
    for stream in listener.incoming() {
        if shared.state.lock().unwrap().closed {
            return;
        }
        let shared = Arc::clone(shared);
        std::thread::spawn(move || stream.map(|stream| answer(&stream, &shared)));
    }
}

/// Answers one request and closes the connection. A client that hangs up is no error.
fn answer(mut stream: &TcpStream, shared: &Shared) -> std::io::Result<()> {
    let mut lines = BufReader::new(stream).lines();
    let request = lines.next().unwrap_or_else(|| Ok(String::new()))?;
    let headers: Vec<String> = lines
        .map_while(|line| line.ok().filter(|line| !line.is_empty()))
        .map(|line| line.to_lowercase())
        .collect();
    let path = request.split(' ').nth(1).unwrap_or_default();
    let path = path.split('?').next().unwrap_or_default().to_owned();
    let is_head = request.starts_with("HEAD");
    let answer = {
        let mut state = shared.state.lock().unwrap();
        *state.asked.entry(path.clone()).or_default() += 1;
        *state.fetched.entry(path.clone()).or_default() += usize::from(!is_head);
        shared.changed.notify_all();
        state.answers.get(&path).cloned().filter(|_| !(is_head && state.has_no_head))
    };
    let Some(answer) = answer else {
        return stream.write_all(b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
    };
    let from = range_start(&headers);
    let status = if from > 0 { "206 Partial Content" } else { "200 OK" };
    let total = answer.bytes.len();
    let range = format!("content-range: bytes {from}-{}/{total}\r\n", total.saturating_sub(1));
    write!(
        stream,
        "HTTP/1.1 {status}\r\n{}docker-content-digest: {}\r\ncontent-type: {}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
        if from > 0 { &range } else { "" },
        Digest::sha256(&answer.bytes),
        answer.media_type,
        total - from
    )?;
    if is_head {
        return Ok(());
    }
    let sent = &answer.bytes[from.min(answer.sent)..answer.sent];
    let (first, second) = sent.split_at(sent.len() / 2);
    stream.write_all(first)?;
    stream.flush()?;
    let state = shared.state.lock().unwrap();
    drop(shared.changed.wait_while(state, |state| state.held.contains(&path)).unwrap());
    stream.write_all(second)
}

fn range_start(headers: &[String]) -> usize {
    let range = headers.iter().find_map(|header| header.strip_prefix("range: bytes="));
    range.and_then(|range| range.split('-').next()?.parse().ok()).unwrap_or(0)
}

/// An image to publish; a test may make any part of it wrong.
#[derive(Clone)]
pub(super) struct Published {
    /// Media type, blob and diff id of each layer.
    pub(super) layers: Vec<(String, Vec<u8>, Digest)>,
    pub(super) architecture: String,
    pub(super) config: Value,
    pub(super) config_type: String,
}

impl Published {
    /// Makes an image of these uncompressed layers, served with gzip.
    pub(super) fn of(layers: &[Vec<u8>]) -> Self {
        let layers = layers.iter().map(|tar| (GZIP.to_owned(), gzip(tar), Digest::sha256(tar)));
        Published {
            layers: layers.collect(),
            architecture: crate::Platform::host().architecture,
            config: json!({"Env": ["A=b"], "Cmd": ["/bin/true"]}),
            config_type: OCI_CONFIG.to_owned(),
        }
    }

    pub(super) fn configuration(&self) -> Vec<u8> {
        let diff_ids: Vec<_> = self.layers.iter().map(|(_, _, diff_id)| diff_id).collect();
        let document = json!({
            "os": "linux", "architecture": self.architecture, "config": self.config, "history": null,
            "created": "2026-01-02T03:04:05Z", "rootfs": {"type": "layers", "diff_ids": diff_ids},
        });
        serde_json::to_vec(&document).unwrap()
    }

    pub(super) fn manifest(&self) -> Value {
        let layer = |(media_type, blob, _): &(String, Vec<u8>, Digest)| json!({"mediaType": media_type, "digest": Digest::sha256(blob), "size": blob.len()});
        let configuration = self.configuration();
        json!({
            "schemaVersion": 2, "mediaType": OCI_MANIFEST,
            "config": {
                "mediaType": self.config_type, "digest": Digest::sha256(&configuration), "size": configuration.len(),
            },
            "layers": self.layers.iter().map(layer).collect::<Vec<_>>(),
        })
    }

    /// Puts the image into a registry; returns the digest of its manifest.
    pub(super) fn publish(&self, at: &Scripted, repository: &str, tag: &str) -> Digest {
        for (_, blob, _) in &self.layers {
            at.blob(repository, blob);
        }
        at.blob(repository, &self.configuration());
        at.manifest(repository, tag, OCI_MANIFEST, &self.manifest())
    }

    pub(super) fn id(&self) -> Digest {
        Digest::sha256(&self.configuration())
    }

    pub(super) fn layer_path(&self, repository: &str, layer: usize) -> String {
        blob_path(repository, &Digest::sha256(&self.layers[layer].1))
    }
}

pub(super) fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}
