use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::Path,
    time::{Duration, Instant},
};

use berth_cri::v1;
use berth_tests::{
    berth::Berth,
    pod::pod,
    waiting::{eventually, until},
};
use nix::unistd::Pid;
use tonic::Code;

use crate::{
    kills::Frozen,
    restart::{command_line, pids, processes_with, shim_of},
};

/// Limit of a start that waits for nothing. Even on a busy machine it is much shorter; one that waits is much longer.
const STARTUP_LIMIT: Duration = Duration::from_secs(5);

/// A network whose CNI plugin answers at once, but hangs on a command if a file has its name, and fails on it if a file has
/// its name after `fail-`.
struct Plugin(tempfile::TempDir);

impl Plugin {
    fn install() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let script = format!(
            "#!/bin/sh\ncat > /dev/null\necho $CNI_COMMAND $CNI_CONTAINERID >> {0}/log\n\
             [ ! -e {0}/$CNI_COMMAND ] || exec sleep 7654\n\
             [ ! -e {0}/fail-$CNI_COMMAND ] || {{ echo '{{\"code\":7,\"msg\":\"not now\"}}'; exit 1; }}\n\
             [ $CNI_COMMAND != ADD ] || echo '{{\"cniVersion\":\"1.1.0\",\"ips\":[{{\"address\":\"10.0.0.2/24\"}}]}}'\n",
            directory.path().display()
        );
        executable(&directory.path().join("stub"), &script);
        let network = r#"{"cniVersion":"1.1.0","name":"stubs","plugins":[{"type":"stub"}]}"#;
        fs::create_dir(directory.path().join("conf")).unwrap();
        fs::write(directory.path().join("conf/10-stubs.conflist"), network).unwrap();
        Self(directory)
    }

    /// Network configuration with a plugin timeout of 10 minutes.
    fn patient(&self) -> String {
        self.configuration(600)
    }

    fn configuration(&self, seconds: u32) -> String {
        let bin = self.0.path();
        format!(
            "provider = \"cni\"\n[network.cni]\nconf_dir = {:?}\nbin_dirs = [{bin:?}]\nplugin_timeout_seconds = {seconds}\n",
            bin.join("conf"),
        )
    }

    fn say(&self, what: &str) {
        fs::write(self.0.path().join(what), "").unwrap();
    }

    fn unsay(&self, what: &str) {
        fs::remove_file(self.0.path().join(what)).unwrap();
    }

    fn calls(&self, command: &str) -> usize {
        let log = fs::read_to_string(self.0.path().join("log")).unwrap_or_default();
        log.lines().filter(|line| line.starts_with(command)).count()
    }

    /// Number of hanging plugin processes of this network, by CNI command.
    fn hanging(&self, command: &str) -> usize {
        let own = format!("CNI_PATH={}", self.0.path().display());
        let environment = |pid: i32| fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        let hangs = |pid: &i32| {
            let environment = String::from_utf8_lossy(&environment(*pid)).into_owned();
            let has = |variable: &str| environment.split('\0').any(|one| one == variable);
            has(&own) && has(&format!("CNI_COMMAND={command}"))
        };
        pids().filter(hangs).count()
    }
}

fn executable(path: &Path, script: &str) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, script).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
}

/// Shim processes of the daemon, except those of pods in `known`.
fn unknown_shims(berth: &Berth, known: &[String]) -> Vec<Pid> {
    let bundles = berth.path().join("run/sandboxes").display().to_string();
    let of_unknown = |pid: &i32| {
        let line = command_line(*pid);
        line.contains(&bundles) && !known.iter().any(|id| line.contains(id.as_str()))
    };
    pids().filter(of_unknown).map(Pid::from_raw).collect()
}

async fn ready_pods(berth: &mut Berth) -> Vec<String> {
    let state = Some(v1::PodSandboxStateValue { state: v1::PodSandboxState::SandboxReady.into() });
    let filter = Some(v1::PodSandboxFilter { state, ..Default::default() });
    let pods = berth.runtime.list_pod_sandbox(v1::ListPodSandboxRequest { filter }).await.unwrap();
    let mut ids: Vec<_> = pods.into_inner().items.into_iter().map(|pod| pod.id).collect();
    ids.sort();
    ids
}

fn run_later(berth: &Berth, name: &str) -> tokio::task::JoinHandle<bool> {
    let mut client = berth.runtime.clone();
    let config = Some(pod(berth, name));
    let request = v1::RunPodSandboxRequest { config, runtime_handler: String::new() };
    tokio::spawn(async move { client.run_pod_sandbox(request).await.is_ok() })
}

/// Config of a pod on the host's network.
fn on_host(berth: &Berth, name: &str) -> v1::PodSandboxConfig {
    let mut sandbox = pod(berth, name);
    let options = v1::NamespaceOption { network: v1::NamespaceMode::Node.into(), ..Default::default() };
    sandbox.linux.as_mut().unwrap().security_context =
        Some(v1::LinuxSandboxSecurityContext { namespace_options: Some(options), ..Default::default() });
    sandbox
}

#[tokio::test(flavor = "multi_thread")]
async fn root_a_start_is_held_up_by_nothing_that_hangs_and_what_hung_is_made_up_for() {
    let plugin = Plugin::install();
    let mut berth = Berth::with_network(&plugin.patient()).await;
    let mut known = Vec::new();
    for number in 0..8 {
        known.push(berth.run(&pod(&berth, &format!("p{number}"))).await.unwrap());
    }
    known.sort();
    plugin.say("ADD");
    let half: Vec<_> = (0..6).map(|number| run_later(&berth, &format!("half{number}"))).collect();
    until("six pods are being attached", || plugin.hanging("ADD") == 6).await;
    berth.kill();
    for run in half {
        assert!(!run.await.unwrap());
    }
    // The shims of pods that are to be undone, and one shim that is to be taken up.
    let mut frozen: Vec<_> = unknown_shims(&berth, &known).into_iter().map(Frozen::freeze).collect();
    assert!(frozen.len() >= 6);
    let silent = Frozen::freeze(shim_of(&known[0]));
    plugin.unsay("ADD");
    plugin.say("DEL");
    plugin.say("STATUS");
    executable(&berth.path().join("nri/plugins/10-hangs"), "#!/bin/sh\nexec sleep 7654\n");

    let took = berth.restart().await;
    println!("the first answer came after {took:?}");
    assert!(took < STARTUP_LIMIT, "{took:?}");
    let begun = Instant::now();
    assert_eq!(ready_pods(&mut berth).await, known, "all that is on record is shown");
    let status = berth.runtime.status(v1::StatusRequest { verbose: true }).await.unwrap().into_inner();
    let network =
        status.status.unwrap().conditions.into_iter().find(|one| one.r#type == "NetworkReady").unwrap();
    assert!(!network.status && network.message.contains("not told yet"), "{}", network.message);
    assert!(begun.elapsed() < STARTUP_LIMIT);
    let host = berth.run(&on_host(&berth, "host")).await.unwrap();
    berth.remove_pod(&host).await.unwrap();
    let error = berth.stop_pod(&known[0]).await.unwrap_err();
    assert_eq!(error.code(), Code::DeadlineExceeded);
    assert!(error.message().contains("has not answered since the daemon was started"), "{}", error.message());
    assert_eq!(plugin.hanging("ADD"), 0, "nobody adds what is taken back");

    // Nothing hangs any more.
    plugin.unsay("DEL");
    plugin.unsay("STATUS");
    end_hanging(&plugin);
    drop((frozen.drain(..), silent));
    let left = async || unknown_shims(&berth, &known).len();
    eventually(left, |left| *left == 0).await;
    until("all addresses are given back", || network_records(&berth) == known.len() * 2).await;
    for id in &known {
        berth.remove_pod(id).await.unwrap();
    }
    assert_eq!(network_records(&berth), 0);
    assert_eq!(processes_with(&berth.path().join("run/sandboxes").display().to_string()), 0);
}

/// Kills the plugin's hanging processes, as an administrator would.
fn end_hanging(plugin: &Plugin) {
    let own = format!("CNI_PATH={}", plugin.0.path().display());
    for pid in pids() {
        let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        if String::from_utf8_lossy(&environment).contains(&own) {
            let _ = nix::sys::signal::kill(Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL);
        }
    }
}

/// Number of files that record attachments: two for each attached pod.
fn network_records(berth: &Berth) -> usize {
    fs::read_dir(berth.path().join("root/cni")).unwrap().count()
}

#[tokio::test(flavor = "multi_thread")]
async fn root_what_an_undone_pod_could_not_give_back_is_given_back_later_by_the_same_daemon() {
    let plugin = Plugin::install();
    let mut berth = Berth::with_network(&plugin.patient()).await;
    plugin.say("fail-ADD");
    plugin.say("fail-DEL");
    let error = berth.run(&pod(&berth, "unlucky")).await.unwrap_err();
    assert!(error.message().contains("not now"), "{}", error.message());
    assert_eq!(network_records(&berth), 1, "what is not given back is on record");
    let failed = async || {
        let status = berth.runtime.status(v1::StatusRequest { verbose: true }).await.unwrap().into_inner();
        status.info["network"].clone()
    };
    eventually(failed, |network| network.contains("\"attempts\":2")).await;
    let before = plugin.calls("DEL");
    plugin.unsay("fail-DEL");
    until("it is given back", || network_records(&berth) == 0).await;
    assert!(plugin.calls("DEL") > before);
}
