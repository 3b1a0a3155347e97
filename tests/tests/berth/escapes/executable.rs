use std::{fs::File, path::PathBuf};

use berth_cri::v1;
use berth_tests::{
    berth::Berth,
    image::Tar,
    pod::{pod, shell},
};
use rustix::io::Errno;

use super::{ESCAPED, Entry, image_with};
use crate::restart::shim_of;

/// Waits until the shim's binary runs in the container, tries to change its mode, owner and times, then kills the process
/// and writes to the binary, where ETXTBSY no longer protects it.
const ATTACK: &str = "
    found=
    for i in $(seq 500); do
        for process in /proc/[0-9]*; do
            case \"$(readlink $process/exe)\" in *containerd-shim-berth-v1*) found=$process;; esac
        done
        [ -n \"$found\" ] && break
        sleep 0.01
    done
    [ \"$(head -c 4 $found/exe | tail -c 3)\" = ELF ] && echo found
    exec 3<$found/exe
    chmod 4777 $found/exe && echo ESCAPED by chmod
    busybox chown 1000 $found/exe && echo ESCAPED by chown
    touch $found/exe && echo ESCAPED by touch
    kill -9 ${found#/proc/}
    for i in $(seq 50); do
        (echo overwritten > /proc/self/fd/3) && echo ESCAPED by writing
        sleep 0.01
    done
    echo over";

fn on_disk() -> PathBuf {
    berth_tests::program("BERTH_TEST_BIN").join("containerd-shim-berth-v1")
}

/// CVE-2019-5736: a command whose interpreter is `/proc/self/exe` makes the runtime's binary run in the container. There
/// `/proc/PID/exe` is opened, the process killed, and the descriptor opened again for writing: the next container starts
/// the attacker's binary as root of the host. Owner and mode can be changed even while the binary runs.
#[tokio::test(flavor = "multi_thread")]
async fn root_cve_2019_5736_the_runtimes_program_is_not_changed_from_inside() {
    let mut berth = Berth::start().await;
    let script = Tar::default().file("entry", 0o755, b"#!/proc/self/exe pause\n");
    let image = image_with(&mut berth, "entry", script).await;
    let before = Entry::of(&on_disk());
    for (name, capabilities) in [("plain", vec![]), ("mighty", vec!["ALL".to_owned()])] {
        let sandbox = pod(&berth, name);
        let pod = berth.run(&sandbox).await.unwrap();
        let mut config = shell("c", &image, "exec sleep 1000");
        let add = v1::Capability { add_capabilities: capabilities, ..Default::default() };
        config.linux.as_mut().unwrap().security_context =
            Some(v1::LinuxContainerSecurityContext { capabilities: Some(add), ..Default::default() });
        let id = berth.create(&pod, &sandbox, config).await.unwrap();
        berth.start_container(&id).await.unwrap();
        let request =
            v1::ExecSyncRequest { container_id: id.clone(), cmd: vec!["/entry".into()], timeout: 30 };
        let mut runtime = berth.runtime.clone();
        let bait = tokio::spawn(async move { runtime.exec_sync(request).await });
        let said = berth.shell(&id, ATTACK).await;
        assert!(said.contains("found\n") && said.contains("over\n"), "{name}: {said}");
        assert!(!said.contains(ESCAPED), "{name}: {said}");
        bait.await.unwrap().unwrap();
    }
    assert_eq!(Entry::of(&on_disk()), before);
    let (_, id) = berth.run_alone("later", &image, "exec sleep 1000").await;
    assert_eq!(berth.shell(&id, "echo runs").await, "runs\n");
}

/// The same, by construction: a shim runs from a copy on a read-only file system, to which even root of the host cannot
/// write. All shims of a daemon share one copy, so that it costs no memory per pod; a new daemon makes a new one.
#[tokio::test(flavor = "multi_thread")]
async fn root_all_shims_run_from_one_copy_that_nobody_can_write_to() {
    let mut berth = Berth::start().await;
    let (one, two) = tokio::join!(run(&berth, "one"), run(&berth, "two"));
    berth.kill();
    berth.restart().await;
    let three = run(&berth, "three").await;
    let [one, two, three] = [one, two, three].map(|pod| {
        let program = format!("/proc/{}/exe", shim_of(&pod));
        let refused = File::options().write(true).open(&program).unwrap_err();
        assert_eq!(Errno::from_io_error(&refused), Some(Errno::ROFS), "{refused}");
        let found = rustix::fs::fstat(File::open(&program).unwrap()).unwrap();
        (found.st_dev, found.st_ino)
    });
    assert_eq!(one, two, "they started together");
    assert_ne!(one.0, three.0);
    berth.remove_all_pods().await;
}

/// Runs a pod on a connection of its own, so that several can be started at once.
fn run(berth: &Berth, name: &str) -> impl Future<Output = String> + use<> {
    let (mut runtime, config) = (berth.runtime.clone(), Some(pod(berth, name)));
    async move {
        let request = v1::RunPodSandboxRequest { config, ..Default::default() };
        runtime.run_pod_sandbox(request).await.unwrap().into_inner().pod_sandbox_id
    }
}
