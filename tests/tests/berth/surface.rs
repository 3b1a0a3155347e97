use std::collections::HashMap;

use berth_cri::v1::{self, runtime_service_client::RuntimeServiceClient};
use berth_tests::{
    berth::Berth,
    pod::{container, pod, shell},
};
use tonic::{Code, Status, transport::Channel};

use crate::bad_input::assert_says;

/// Largest message that crictl and kubelet accept, in bytes.
const MAX_MESSAGE_BYTES: usize = 16 << 20;

type Client = RuntimeServiceClient<Channel>;

/// Name of a call, its field with the id, whether an unknown id is no error, and the answer.
type Answer = (&'static str, &'static str, bool, Result<(), Status>);

/// Makes each of these calls with one id.
macro_rules! ask {
    ($client:expr, $id:expr, [$($call:ident($request:ident { $field:ident $(, $more:ident: $value:expr)* }) $unknown_is_fine:literal),+ $(,)?]) => {
        vec![$((
            stringify!($call),
            stringify!($field),
            $unknown_is_fine,
            $client.clone().$call(v1::$request { $field: $id.into(), $($more: $value,)* ..Default::default() }).await.map(drop),
        )),+]
    };
}

/// Makes every call about a pod.
#[allow(clippy::needless_update)] // Some requests have no other field.
async fn ask_about_pod(client: &Client, id: &str) -> Vec<Answer> {
    let resources = || Some(v1::LinuxContainerResources::default());
    ask!(client, id, [
        pod_sandbox_status(PodSandboxStatusRequest { pod_sandbox_id }) false,
        pod_sandbox_stats(PodSandboxStatsRequest { pod_sandbox_id }) false,
        port_forward(PortForwardRequest { pod_sandbox_id }) false,
        create_container(CreateContainerRequest { pod_sandbox_id }) false,
        checkpoint_pod(CheckpointPodRequest { pod_sandbox_id, output_path: "/x".into(), container_ids: vec!["c".into()] }) false,
        update_pod_sandbox_resources(UpdatePodSandboxResourcesRequest { pod_sandbox_id, resources: resources() }) false,
        stop_pod_sandbox(StopPodSandboxRequest { pod_sandbox_id }) true,
        remove_pod_sandbox(RemovePodSandboxRequest { pod_sandbox_id }) true,
    ])
}

/// Makes every call about a container.
#[allow(clippy::needless_update)] // Some requests have no other field.
async fn ask_about_container(client: &Client, id: &str) -> Vec<Answer> {
    let command = || vec!["true".to_owned()];
    let resources = || Some(v1::LinuxContainerResources::default());
    ask!(client, id, [
        container_status(ContainerStatusRequest { container_id }) false,
        container_stats(ContainerStatsRequest { container_id }) false,
        exec_sync(ExecSyncRequest { container_id, cmd: command() }) false,
        exec(ExecRequest { container_id, cmd: command(), stdout: true }) false,
        attach(AttachRequest { container_id, stdout: true }) false,
        reopen_container_log(ReopenContainerLogRequest { container_id }) false,
        update_container_resources(UpdateContainerResourcesRequest { container_id, linux: resources() }) false,
        checkpoint_container(CheckpointContainerRequest { container_id, location: "/x".into() }) false,
        start_container(StartContainerRequest { container_id }) false,
        stop_container(StopContainerRequest { container_id }) true,
        remove_container(RemoveContainerRequest { container_id }) true,
    ])
}

async fn ask_about(client: &Client, id: &str) -> Vec<Answer> {
    let mut answers = ask_about_pod(client, id).await;
    answers.extend(ask_about_container(client, id).await);
    answers
}

#[tokio::test(flavor = "multi_thread")]
async fn root_every_call_refuses_an_id_that_is_empty_or_cannot_be_one_and_finds_none_that_is_unknown() {
    let mut berth = Berth::start().await;
    let image = berth.busybox().await;
    let (_, bystander) = berth.run_alone("bystander", &image, "exec sleep 1000").await;
    let long = "f".repeat(100_000);
    for id in ["", "a\0b", "a\nb", "\u{7f}", long.as_str()] {
        for (call, field, _, answer) in ask_about(&berth.runtime, id).await {
            let error = answer.expect_err(call);
            assert_says(&error, Code::InvalidArgument, &[field]);
            assert!(error.message().len() < 1000, "{call}: {error:?}");
        }
    }
    let unknown = "0".repeat(64);
    for id in [unknown.as_str(), "../../etc", "zz", "%s", "é"] {
        for (call, _, fine, answer) in ask_about(&berth.runtime, id).await {
            let code = answer.map_or_else(|error| error.code(), |()| Code::Ok);
            assert_eq!(code, if fine { Code::Ok } else { Code::NotFound }, "{call} {id}");
        }
    }
    assert_unharmed(&mut berth, &bystander).await;
    assert!(!berth.log().contains(&long), "a long id is not repeated in the log");
}

#[tokio::test(flavor = "multi_thread")]
async fn root_the_beginning_of_an_id_is_enough_for_every_call_unless_several_begin_so() {
    let mut berth = Berth::start().await;
    let image = berth.busybox().await;
    let (mut pods, mut containers) = (Vec::new(), Vec::new());
    for number in 0..17 {
        let (pod, container) = berth.run_alone(&format!("p{number}"), &image, "exec sleep 1000").await;
        pods.push(pod);
        containers.push(container);
    }
    let mut refused = ask_about_pod(&berth.runtime, shared_beginning(&pods)).await;
    refused.extend(ask_about_container(&berth.runtime, shared_beginning(&containers)).await);
    for (call, .., answer) in refused {
        assert_says(&answer.expect_err(call), Code::InvalidArgument, &["beginning of several"]);
    }
    for (pod, container) in pods.iter().zip(&containers) {
        assert_eq!(berth.pod_status(pod).await.unwrap().state(), v1::PodSandboxState::SandboxReady);
        assert_eq!(berth.status(container).await.unwrap().state(), v1::ContainerState::ContainerRunning);
    }

    // Some of these calls fail for another reason. The last of each kind removes the container or pod.
    let mut found = ask_about_container(&berth.runtime, &containers[0][..20]).await;
    assert_eq!(berth.status(&containers[0]).await.unwrap_err().code(), Code::NotFound);
    found.extend(ask_about_pod(&berth.runtime, &pods[0][..20]).await);
    assert_eq!(berth.pod_status(&pods[0]).await.unwrap_err().code(), Code::NotFound);
    let not_found = [format!("{:?}", &containers[0][..20]), format!("{:?}", &pods[0][..20])];
    for (call, .., answer) in found {
        let said = answer.map_or_else(|error| error.message().to_owned(), |()| String::new());
        assert!(!not_found.iter().any(|id| said.contains(id)), "{call}: {said}");
    }
}

/// A first hex digit that at least two ids have: of seventeen ids, two must share one of sixteen digits.
fn shared_beginning(ids: &[String]) -> &str {
    let shared = |id: &&String| ids.iter().filter(|other| other[..1] == id[..1]).count() > 1;
    &ids.iter().find(shared).unwrap()[..1]
}

#[tokio::test(flavor = "multi_thread")]
async fn root_filters_take_any_text_and_want_nothing_of_what_there_is_not() {
    let mut berth = Berth::start().await;
    let image = berth.busybox().await;
    berth.run_alone("bystander", &image, "exec sleep 1000").await;
    for id in ["zz", "a\0b", "../../etc", &"0".repeat(100_000)] {
        let label_selector = HashMap::from([(id.to_owned(), id.to_owned())]);
        let pods = [
            v1::PodSandboxFilter { id: id.into(), ..Default::default() },
            v1::PodSandboxFilter { label_selector: label_selector.clone(), ..Default::default() },
        ];
        for filter in pods {
            let request = v1::ListPodSandboxRequest { filter: Some(filter) };
            assert!(berth.runtime.list_pod_sandbox(request).await.unwrap().into_inner().items.is_empty());
        }
        let containers = [
            v1::ContainerFilter { id: id.into(), ..Default::default() },
            v1::ContainerFilter { pod_sandbox_id: id.into(), ..Default::default() },
            v1::ContainerFilter { label_selector, ..Default::default() },
        ];
        for filter in containers {
            let request = v1::ListContainersRequest { filter: Some(filter) };
            assert!(berth.runtime.list_containers(request).await.unwrap().into_inner().containers.is_empty());
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn root_control_characters_arrive_and_a_variable_that_is_no_text_is_refused() {
    let mut berth = Berth::start().await;
    let image = berth.busybox().await;
    let (pod_id, bystander) = berth.run_alone("bystander", &image, "exec sleep 1000").await;
    let sandbox = pod(&berth, "bystander");
    let value = (1..=127_u8).collect::<Vec<_>>();
    let text = String::from_utf8(value.clone()).unwrap();
    let mut config = container("control", &image, &["sh", "-c", "while :; do sleep 1; done", &text]);
    config.linux.as_mut().unwrap().security_context = Some(v1::LinuxContainerSecurityContext {
        namespace_options: Some(v1::NamespaceOption {
            pid: v1::NamespaceMode::Container.into(),
            ..Default::default()
        }),
        ..Default::default()
    });
    config.envs = vec![v1::KeyValue { key: "A\nB".into(), value: value.clone() }];
    config.labels = HashMap::from([(text.clone(), text.clone())]);
    config.annotations = config.labels.clone();
    let id = berth.create(&pod_id, &sandbox, config).await.unwrap();
    berth.start_container(&id).await.unwrap();
    for (file, before) in [("environ", b"A\nB=".as_slice()), ("cmdline", b"done\0")] {
        let seen = berth.exec(&id, &["cat", &format!("/proc/1/{file}")]).await.unwrap().stdout;
        let wanted = [before, &value, b"\0"].concat();
        assert!(seen.windows(wanted.len()).any(|part| part == wanted), "{file}: {seen:?}");
    }
    let status = berth.status(&id).await.unwrap();
    assert_eq!((&status.labels[&text], &status.annotations[&text]), (&text, &text));

    for value in [b"a\xffb".to_vec(), b"\xc3".to_vec(), vec![0xed, 0xa0, 0x80]] {
        let mut config = shell("bytes", &image, "true");
        config.envs = vec![v1::KeyValue { key: "BYTES".into(), value }];
        let error = berth.create(&pod_id, &sandbox, config).await.unwrap_err();
        assert_says(&error, Code::InvalidArgument, &["BYTES", "UTF-8"]);
    }
    assert_unharmed(&mut berth, &bystander).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn root_ten_thousand_labels_are_kept_shown_and_found_by() {
    let mut berth = Berth::start().await;
    berth.runtime = berth.runtime.clone().max_decoding_message_size(MAX_MESSAGE_BYTES);
    let image = berth.busybox().await;
    let labels: HashMap<_, _> =
        (0..10_000).map(|number| (format!("label-{number}"), "x".repeat(100))).collect();
    let mut sandbox = pod(&berth, "labels");
    (sandbox.labels, sandbox.annotations) = (labels.clone(), labels.clone());
    let pod_id = berth.run(&sandbox).await.unwrap();
    let mut config = shell("labels", &image, "exec sleep 1000");
    (config.labels, config.annotations) = (labels.clone(), labels.clone());
    let id = berth.create(&pod_id, &sandbox, config).await.unwrap();
    berth.start_container(&id).await.unwrap();
    berth.kill();
    berth.restart().await;
    berth.runtime = berth.runtime.clone().max_decoding_message_size(MAX_MESSAGE_BYTES);
    let (pod, container) = (berth.pod_status(&pod_id).await.unwrap(), berth.status(&id).await.unwrap());
    assert!(pod.labels == labels && pod.annotations == labels);
    assert!(container.labels == labels && container.annotations == labels);
    let filter = v1::ContainerFilter { label_selector: labels, ..Default::default() };
    let request = v1::ListContainersRequest { filter: Some(filter) };
    assert_eq!(berth.runtime.list_containers(request).await.unwrap().into_inner().containers.len(), 1);
}

/// Asserts that an unrelated container still runs, and that the daemon's log has no panic.
pub async fn assert_unharmed(berth: &mut Berth, bystander: &str) {
    assert_eq!(berth.shell(bystander, "echo fine").await, "fine\n");
    let log = berth.log();
    assert!(!log.contains("panicked"), "{log}");
}
