#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::{
    io,
    os::unix::{
        fs::{MetadataExt, PermissionsExt},
        net::{UnixDatagram, UnixListener as StdListener, UnixStream},
    },
    path::Path,
    pin::pin,
    time::Duration,
};

use berth_cri::v1::{
    ContainerFilter, ListContainersRequest, ListImagesRequest, VersionRequest,
    image_service_client::ImageServiceClient, runtime_service_client::RuntimeServiceClient,
};
use hyper_util::rt::TokioIo;
use tokio::sync::oneshot;
use tonic::{
    Code,
    transport::{Channel, Endpoint},
};

use super::*;
use crate::{
    config::{Config, Socket},
    cri::samples,
};

/// Returns the default socket, owned by the user who runs the tests.
fn socket() -> Socket {
    let (uid, gid) = (rustix::process::getuid().as_raw(), rustix::process::getgid().as_raw());
    Socket { uid, gid, ..Config::default().socket }
}

fn mode(path: &Path) -> u32 {
    path.metadata().unwrap().permissions().mode() & 0o777
}

#[tokio::test]
async fn the_socket_has_its_mode_and_owner_and_answers() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("made/on/the/way/berth.sock");
    let socket: Socket =
        toml::from_str(&format!("mode = \"0600\"\nuid = {}\ngid = {}", socket().uid, socket().gid)).unwrap();
    let _listener = bind(&path, &socket).unwrap();
    assert_eq!(mode(&path), 0o600);
    assert_eq!(path.metadata().unwrap().uid(), socket.uid);
    assert!(UnixStream::connect(&path).is_ok());
    assert_eq!(path.parent().unwrap().read_dir().unwrap().count(), 1, "nothing else is left there");
}

#[tokio::test]
async fn root_gives_the_socket_to_another_owner() {
    assert!(rustix::process::getuid().is_root(), "type: sudo -E cargo test -p berthd server::tests::root_");
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("berth.sock");
    let _listener = bind(&path, &Socket { uid: 12, gid: 34, ..socket() }).unwrap();
    let made = path.metadata().unwrap();
    assert_eq!((made.uid(), made.gid(), mode(&path)), (12, 34, 0o660));
}

#[tokio::test]
async fn a_socket_that_nobody_listens_to_is_replaced() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("berth.sock");
    drop(StdListener::bind(&path).unwrap());
    assert!(UnixStream::connect(&path).is_err());
    let _listener = bind(&path, &socket()).unwrap();
    assert!(UnixStream::connect(&path).is_ok());
}

#[tokio::test]
async fn a_start_that_was_cut_off_is_no_hindrance() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("berth.sock");
    drop(StdListener::bind(directory.path().join("berth.sock~")).unwrap());
    assert!(bind(&path, &socket()).is_ok());
}

#[tokio::test]
async fn a_socket_that_someone_answers_is_left_alone() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("berth.sock");
    let other = StdListener::bind(&path).unwrap();
    let error = bind(&path, &socket()).unwrap_err();
    assert!(matches!(error, BindError::InUse(_)), "{error}");
    assert!(error.to_string().contains("berth.sock"), "{error}");
    UnixStream::connect(&path).unwrap();
    assert!(other.accept().is_ok());
}

#[tokio::test]
async fn a_file_that_is_no_socket_is_left_alone() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("berth.sock");
    std::fs::write(&path, "mine").unwrap();
    assert!(matches!(bind(&path, &socket()).unwrap_err(), BindError::NotASocket(_)));
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "mine");
}

#[tokio::test]
async fn a_path_that_is_too_long_is_refused_with_its_path() {
    let directory = tempfile::tempdir().unwrap();
    let error = bind(&directory.path().join("x".repeat(120)), &socket()).unwrap_err();
    assert!(error.to_string().contains("xxx"), "{error}");
}

#[tokio::test]
async fn a_second_daemon_on_the_same_root_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let root = directory.path().join("root");
    let lock = Lock::take(&root, Duration::ZERO).await.unwrap();
    let error = Lock::take(&root, Duration::from_millis(50)).await.unwrap_err();
    assert!(error.to_string().ends_with(&format!("process {}", std::process::id())), "{error}");
    drop(lock);
    assert!(Lock::take(&root, Duration::ZERO).await.is_ok());
}

/// The kernel may close the files of a killed daemon after its process looks dead.
#[tokio::test]
async fn a_daemon_waits_for_one_that_is_about_to_end() {
    let directory = tempfile::tempdir().unwrap();
    let ending = Lock::take(directory.path(), Duration::ZERO).await.unwrap();
    let mut taken = pin!(Lock::take(directory.path(), Duration::from_secs(60)));
    assert!(futures::poll!(&mut taken).is_pending(), "it is held");
    drop(ending);
    assert!(taken.await.is_ok());
}

#[tokio::test]
async fn a_lock_that_cannot_be_had_names_its_file() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("file");
    std::fs::write(&file, "").unwrap();
    let error = Lock::take(&file, Duration::ZERO).await.unwrap_err();
    assert!(matches!(&error, LockError::Io { path, .. } if path.ends_with("file/lock")), "{error}");
}

#[test]
fn the_service_manager_is_told_in_one_datagram() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("notify");
    let manager = UnixDatagram::bind(&path).unwrap();
    notify::send(path.as_os_str(), b"READY=1").unwrap();
    let mut message = [0; 16];
    let length = manager.recv(&mut message).unwrap();
    assert_eq!(&message[..length], b"READY=1");
}

#[test]
fn a_service_manager_that_is_gone_is_an_error_not_a_crash() {
    let error = notify::send("/nonexistent/notify".as_ref(), b"READY=1").unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::NotFound);
}

/// Connects as kubelet does: the authority is not a path.
async fn connect(path: &Path) -> Result<Channel, tonic::transport::Error> {
    let path = path.to_path_buf();
    let connector = tower::service_fn(move |_| {
        let path = path.clone();
        async move { tokio::net::UnixStream::connect(path).await.map(TokioIo::new) }
    });
    Endpoint::from_static("http://localhost").connect_with_connector(connector).await
}

/// Serves on a socket in a temporary directory, until the sender is used or dropped.
async fn serving() -> (std::path::PathBuf, oneshot::Sender<()>, tokio::task::JoinHandle<()>, tempfile::TempDir)
{
    let (cri, directory) = samples::cri().await;
    let path = directory.path().join("berth.sock");
    let listener = bind(&path, &socket()).unwrap();
    let (stop, stopped) = oneshot::channel::<()>();
    let stopped = async {
        let _ = stopped.await;
    };
    let server = serve(listener, Services::new(cri), stopped, Duration::from_secs(60));
    let server = tokio::spawn(async { server.await.unwrap() });
    (path, stop, server, directory)
}

#[tokio::test]
async fn both_services_answer_on_one_socket() {
    let (path, _stop, _server, _directory) = serving().await;
    let channel = connect(&path).await.unwrap();
    let version =
        RuntimeServiceClient::new(channel.clone()).version(VersionRequest::default()).await.unwrap();
    assert_eq!(version.into_inner().runtime_name, "berth");
    let images = ImageServiceClient::new(channel).list_images(ListImagesRequest::default()).await.unwrap();
    assert!(images.into_inner().images.is_empty());
}

#[tokio::test]
async fn messages_up_to_16_mib_are_taken() {
    let (path, _stop, _server, _directory) = serving().await;
    let mut client = RuntimeServiceClient::new(connect(&path).await.unwrap());
    let list = |size: usize| {
        let filter = Some(ContainerFilter { id: "x".repeat(size), ..Default::default() });
        let mut client = client.clone();
        async move { client.list_containers(ListContainersRequest { filter }).await }
    };
    assert!(list(15 << 20).await.is_ok());
    assert_eq!(list(17 << 20).await.unwrap_err().code(), Code::OutOfRange);
    assert!(client.version(VersionRequest::default()).await.is_ok(), "the next call works");
}

#[tokio::test]
async fn a_client_that_only_listens_does_not_hold_up_the_end() {
    let (path, stop, server, _directory) = serving().await;
    let mut client = RuntimeServiceClient::new(connect(&path).await.unwrap());
    client.version(VersionRequest::default()).await.unwrap();
    stop.send(()).unwrap();
    server.await.unwrap();
    assert!(client.version(VersionRequest::default()).await.is_err());
}
