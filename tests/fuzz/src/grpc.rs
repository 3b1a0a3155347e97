//! The gRPC surface: every method of both services, with any bytes as its message.

use berthd::fuzz::{Daemon, container_spec};
use prost::Message;
use prost_types::FileDescriptorSet;
use tokio::runtime::{Builder, Runtime};

thread_local! {
    static DAEMON: TestDaemon = TestDaemon::open();
}

struct TestDaemon {
    tokio: Runtime,
    daemon: Daemon,
    methods: Vec<String>,
}

impl TestDaemon {
    fn open() -> Self {
        let tokio = Builder::new_current_thread().enable_all().build().unwrap();
        let daemon = tokio.block_on(Daemon::open());
        Self { tokio, daemon, methods: methods() }
    }
}

/// Calls the method that the first byte selects (by its index in the contract) with the rest as the message. A spec that
/// the daemon makes of a CreateContainer request must be one that the shim can parse.
pub fn grpc(data: &[u8]) {
    let Some((&method, message)) = data.split_first() else { return };
    DAEMON.with(|world| {
        let path = &world.methods[usize::from(method) % world.methods.len()];
        world.tokio.block_on(world.daemon.call(path, message));
        let spec = path.ends_with("/CreateContainer").then(|| container_spec(message));
        if let Some(Ok(spec)) = spec {
            serde_json::from_slice::<berth_shim::spec::Spec>(&spec).unwrap();
        }
    });
}

/// Paths of all methods, in the order of the contract.
pub fn methods() -> Vec<String> {
    let contract = FileDescriptorSet::decode(berth_cri::DESCRIPTORS).unwrap();
    let services = contract.file.iter().flat_map(|file| file.service.iter().map(move |one| (file, one)));
    let methods =
        services.flat_map(|(file, service)| service.method.iter().map(move |one| (file, service, one)));
    methods
        .map(|(file, service, method)| format!("/{}.{}/{}", file.package(), service.name(), method.name()))
        .collect()
}
