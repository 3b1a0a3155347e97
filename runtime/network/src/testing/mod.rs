//! A machine for tests: network and mount namespaces of its own, so that nothing touches the real one.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod bridge;
mod cni;
mod dial;
mod host_networks;
mod measure;

use std::collections::HashSet;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};

use super::{Attachment, Backend, Network, PodNetwork, PortMapping, Protocol, netns};

/// Timeout that a passing test does not reach, even on a loaded machine.
const TEST_TIMEOUT: Duration = Duration::from_secs(30);
/// Time after which a packet that has not arrived counts as dropped.
const DROPPED_AFTER: Duration = Duration::from_millis(700);

/// A test machine; its directory is removed with it.
pub(super) struct TestHost {
    directory: tempfile::TempDir,
}

/// A pod's network namespace, pinned as the shim pins it.
pub(super) struct PodNetns {
    path: PathBuf,
    file: File,
}

/// Runs `test` on a machine of its own, with all threads inside its namespaces.
pub(super) fn on_test_host<F: Future<Output = ()>>(test: impl FnOnce(TestHost) -> F + Send + 'static) {
    assert!(
        rustix::process::geteuid().is_root(),
        "this test makes network namespaces and needs root: sudo -E cargo test -p berth-network -- root_"
    );
    let host = thread::spawn(|| {
        unshare(CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS).unwrap();
        mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>).unwrap();
        fs::create_dir_all("/var/lib/cni").unwrap();
        mount(Some("tmpfs"), "/var/lib/cni", Some("tmpfs"), MsFlags::empty(), None::<&str>).unwrap();
        ip("link set lo up");
        let host = TestHost { directory: tempfile::tempdir().unwrap() };
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
        runtime.unwrap().block_on(test(host));
    });
    if let Err(panic) = host.join() {
        std::panic::resume_unwind(panic);
    }
}

impl Network {
    /// Does what a starting daemon does when only the pods in `live` exist.
    pub(super) async fn retain(&self, live: &HashSet<String>) {
        let on_record = self.recorded_pods().await.unwrap();
        self.release_gone(on_record.into_iter().filter(|pod| !live.contains(pod)).collect(), &[]).await;
    }
}

impl TestHost {
    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Creates a directory of the machine, if absent, and returns its path.
    pub(super) fn directory(&self, name: &str) -> PathBuf {
        let path = self.path(name);
        fs::create_dir_all(&path).unwrap();
        path
    }

    /// A new network namespace with its loopback up.
    pub(super) fn netns(&self, name: &str) -> PodNetns {
        let path = self.path(name);
        File::create(&path).unwrap();
        thread::scope(|scope| {
            let made = scope.spawn(|| {
                unshare(CloneFlags::CLONE_NEWNET).unwrap();
                ip("link set lo up");
                let own = Some("/proc/thread-self/ns/net");
                mount(own, &path, None::<&str>, MsFlags::MS_BIND, None::<&str>).unwrap();
            });
            made.join().unwrap();
        });
        PodNetns { file: File::open(&path).unwrap(), path }
    }

    /// A network beyond the host: it has only 198.51.100.0/24, in which the host is .1 and it is .2.
    pub(super) fn outside(&self) -> PodNetns {
        let outside = self.netns("outside");
        ip("link add up0 type veth peer name up1");
        ip("address add 198.51.100.1/24 dev up0");
        ip("link set up0 up");
        let command = format!("link set up1 netns {}", outside.path.display());
        ip(&command);
        outside.inside(|| {
            ip("address add 198.51.100.2/24 dev up1");
            ip("link set up1 up");
            Ok(())
        });
        outside
    }
}

impl PodNetns {
    /// Path at which the namespace is pinned.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Runs `work` inside the namespace.
    pub(super) fn inside<T: Send>(&self, work: impl FnOnce() -> io::Result<T> + Send) -> T {
        netns::inside(&self.file, work).unwrap()
    }

    /// Returns a pod in this namespace.
    pub(super) fn pod(&self, id: &str) -> PodNetwork {
        PodNetwork {
            id: id.into(),
            name: format!("name-{id}"),
            namespace: "default".into(),
            uid: format!("uid-{id}"),
            netns: self.path.clone(),
            ..PodNetwork::default()
        }
    }

    /// Returns a pod in this namespace that publishes `ports` as (protocol, host ip, host port, container port).
    pub(super) fn publishing(&self, id: &str, ports: &[(Protocol, &str, u16, u16)]) -> PodNetwork {
        let mapping = |(protocol, ip, host_port, container_port): &(Protocol, &str, u16, u16)| PortMapping {
            protocol: *protocol,
            host_port: *host_port,
            container_port: *container_port,
            host_ip: ip.parse().ok(),
        };
        PodNetwork { port_mappings: ports.iter().map(mapping).collect(), ..self.pod(id) }
    }

    /// Unpins the namespace, as when the pod's shim is gone.
    pub(super) fn unpin(&self) {
        umount2(&self.path, MntFlags::MNT_DETACH).unwrap();
        fs::remove_file(&self.path).unwrap();
    }

    pub(super) fn listen(&self, port: u16) -> TcpListener {
        self.inside(|| TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)))
    }

    /// Connects from here to `to`. Returns the source address that `listener` sees; none if the connection fails.
    pub(super) fn reaches(&self, to: &str, listener: &TcpListener) -> Option<String> {
        self.inside(|| Ok(reaches(to, listener)))
    }
}

impl Drop for PodNetns {
    fn drop(&mut self) {
        // The test may have unpinned the namespace itself.
        let _ = umount2(&self.path, MntFlags::MNT_DETACH);
        let _ = fs::remove_file(&self.path);
    }
}

/// As [`PodNetns::reaches`], from the calling thread's namespace. A refused connection fails at once, a dropped one
/// after `DROPPED_AFTER`.
pub(super) fn reaches(to: &str, listener: &TcpListener) -> Option<String> {
    let to: SocketAddr = to.parse().unwrap();
    let mut stream = TcpStream::connect_timeout(&to, DROPPED_AFTER).ok()?;
    let (mut accepted, peer) = listener.accept().unwrap();
    accepted.write_all(b"hello").unwrap();
    drop(accepted);
    stream.set_read_timeout(Some(TEST_TIMEOUT)).unwrap();
    let mut greeting = String::new();
    stream.read_to_string(&mut greeting).unwrap();
    assert_eq!(greeting, "hello");
    Some(peer.ip().to_string())
}

/// Whether a datagram sent to `to` is answered by `server`.
pub(super) fn echoes(to: &str, server: &UdpSocket) -> bool {
    let client = UdpSocket::bind("0.0.0.0:0").unwrap();
    client.connect(to).unwrap();
    client.set_read_timeout(Some(TEST_TIMEOUT)).unwrap();
    server.set_read_timeout(Some(TEST_TIMEOUT)).unwrap();
    client.send(b"ping").unwrap();
    let mut buffer = [0; 16];
    let (length, from) = server.recv_from(&mut buffer).unwrap();
    server.send_to(&buffer[..length], from).unwrap();
    client.recv(&mut buffer).is_ok_and(|length| &buffer[..length] == b"ping")
}

pub(super) fn ip(arguments: &str) -> String {
    command("ip", &arguments.split_whitespace().collect::<Vec<_>>())
}

/// Runs a program that must succeed and returns its output.
pub(super) fn command(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {arguments:?}: {stderr}");
    String::from_utf8(output.stdout).unwrap()
}

/// Lists the interfaces in the calling thread's namespace, except `lo`.
pub(super) fn interfaces() -> Vec<String> {
    let output = ip("-o link show");
    let name =
        |line: &str| line.split(": ").nth(1).map(|name| name.split('@').next().unwrap_or(name).to_owned());
    output.lines().filter_map(name).filter(|name| name != "lo").collect()
}

/// The reference plugins, which `hack/tools cni` makes.
pub(super) fn reference_plugins() -> PathBuf {
    berth_programs::program("BERTH_TEST_CNI")
}

pub(super) fn primary(attachment: &Attachment) -> String {
    attachment.ips[0].to_string()
}

/// Installs a shell script as a plugin. Another process writes it: a concurrent fork of this one would inherit the
/// descriptor open for writing, and executing the script would fail with ETXTBSY.
pub(super) fn install(directory: &Path, name: &str, script: &str) {
    let path = directory.join(name);
    let mut writer = Command::new("sh")
        .args(["-c", r#"cat > "$1" && chmod 755 "$1""#, "sh"])
        .arg(&path)
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    writer.stdin.take().unwrap().write_all(format!("#!/bin/sh\n{script}\n").as_bytes()).unwrap();
    assert!(writer.wait().unwrap().success());
}
