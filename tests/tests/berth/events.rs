use std::{collections::HashMap, time::Instant};

use berth_cri::v1::{
    self, ContainerEventResponse, ContainerEventType as Type, ContainerState, PodSandboxState,
};
use berth_tests::{
    berth::Berth,
    pod::{pod, shell},
};
use tokio::task::JoinSet;
use tonic::{Code, Status, Streaming};

use crate::restart::shim_of;

pub async fn listen(berth: &mut Berth) -> Streaming<ContainerEventResponse> {
    berth.runtime.get_container_events(v1::GetEventsRequest {}).await.unwrap().into_inner()
}

/// Events up to the deletion of the pod or container with the id `last`.
async fn heard(events: &mut Streaming<ContainerEventResponse>, last: &str) -> Vec<ContainerEventResponse> {
    let mut heard = Vec::new();
    loop {
        let event = events.message().await.unwrap().unwrap();
        let done = event.container_id == last && event.container_event_type() == Type::ContainerDeletedEvent;
        heard.push(event);
        if done {
            return heard;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn root_a_life_is_told_step_by_step_with_the_state_of_the_pod_at_each() {
    let mut berth = Berth::start().await;
    let image = berth.busybox().await;
    let mut events = listen(&mut berth).await;
    let (pod, id) = berth.run_alone("told", &image, "exec sleep 1000").await;
    berth.stop_container(&id, 0).await.unwrap();
    berth.remove_container(&id).await.unwrap();
    berth.remove_pod(&pod).await.unwrap();

    let heard = heard(&mut events, &pod).await;
    let said: Vec<_> =
        heard.iter().map(|event| (event.container_id.as_str(), event.container_event_type())).collect();
    let (pod, id) = (pod.as_str(), id.as_str());
    assert_eq!(
        said,
        [
            (pod, Type::ContainerCreatedEvent),
            (pod, Type::ContainerStartedEvent),
            (id, Type::ContainerCreatedEvent),
            (id, Type::ContainerStartedEvent),
            (id, Type::ContainerStoppedEvent),
            (id, Type::ContainerDeletedEvent),
            (pod, Type::ContainerStoppedEvent),
            (pod, Type::ContainerDeletedEvent),
        ]
    );
    assert!(heard.is_sorted_by_key(|event| event.created_at));
    let states: Vec<_> = heard
        .iter()
        .map(|event| Vec::from_iter(event.containers_statuses.iter().map(|one| one.state())))
        .collect();
    let (created, running, exited) =
        (ContainerState::ContainerCreated, ContainerState::ContainerRunning, ContainerState::ContainerExited);
    assert_eq!(states, [vec![], vec![], vec![created], vec![running], vec![exited], vec![], vec![], vec![]]);
    assert_eq!(heard[4].containers_statuses[0].exit_code, 137);
    for event in heard {
        let status = event.pod_sandbox_status.unwrap();
        let over =
            event.container_id == pod && event.container_event_type >= Type::ContainerStoppedEvent.into();
        let state = if over { PodSandboxState::SandboxNotready } else { PodSandboxState::SandboxReady };
        assert_eq!(
            (status.metadata.unwrap().uid.as_str(), PodSandboxState::try_from(status.state).unwrap()),
            ("uid-told", state)
        );
    }
}

/// Many short lives at once: every listener gets all events of each, in order.
#[tokio::test(flavor = "multi_thread")]
async fn root_no_event_of_many_lives_at_once_is_lost_or_out_of_order() {
    const LIVES: usize = 40;
    let mut berth = Berth::start().await;
    let image = berth.busybox().await;
    let mut listeners = [listen(&mut berth).await, listen(&mut berth).await];
    let mut lives = JoinSet::new();
    for number in 0..LIVES {
        let sandbox = pod(&berth, &format!("life{number}"));
        lives.spawn(live(berth.runtime.clone(), sandbox, shell("short", &image, "exit 3")));
    }
    let ids: Vec<_> = lives.join_all().await.into_iter().flatten().collect();
    let all = [
        Type::ContainerCreatedEvent,
        Type::ContainerStartedEvent,
        Type::ContainerStoppedEvent,
        Type::ContainerDeletedEvent,
    ];
    for events in &mut listeners {
        let mut of: HashMap<String, Vec<Type>> = HashMap::new();
        let mut latest = 0;
        for _ in 0..ids.len() * all.len() {
            let event = events.message().await.unwrap().unwrap();
            assert!(event.created_at >= latest);
            latest = event.created_at;
            of.entry(event.container_id.clone()).or_default().push(event.container_event_type());
        }
        assert_eq!(of.len(), 2 * LIVES);
        for id in &ids {
            assert_eq!(of[id], all, "{id}");
        }
    }
}

type Client = v1::runtime_service_client::RuntimeServiceClient<tonic::transport::Channel>;

/// Runs a container in a pod and removes both. Returns the ids of pod and container.
async fn live(
    mut runtime: Client,
    sandbox: v1::PodSandboxConfig,
    config: v1::ContainerConfig,
) -> [String; 2] {
    let run = v1::RunPodSandboxRequest { config: Some(sandbox.clone()), ..Default::default() };
    let pod = runtime.run_pod_sandbox(run).await.unwrap().into_inner().pod_sandbox_id;
    let create = v1::CreateContainerRequest {
        pod_sandbox_id: pod.clone(),
        config: Some(config),
        sandbox_config: Some(sandbox),
    };
    let container_id = runtime.create_container(create).await.unwrap().into_inner().container_id;
    let start = v1::StartContainerRequest { container_id: container_id.clone() };
    runtime.start_container(start).await.unwrap();
    let remove = v1::RemovePodSandboxRequest { pod_sandbox_id: pod.clone() };
    runtime.remove_pod_sandbox(remove).await.unwrap();
    [pod, container_id]
}

#[tokio::test(flavor = "multi_thread")]
async fn root_what_ends_by_itself_or_cannot_be_started_is_told_too() {
    let mut berth = Berth::start().await;
    let image = berth.busybox().await;
    let (pod, _) = berth.run_alone("shim", &image, "exec sleep 1000").await;
    let mut events = listen(&mut berth).await;
    let sandbox = berth_tests::pod::pod(&berth, "shim");
    let wrong = berth_tests::pod::container("wrong", &image, &["/no/such/command"]);
    let wrong = berth.create(&pod, &sandbox, wrong).await.unwrap();
    assert!(berth.start_container(&wrong).await.is_err());
    berth.remove_container(&wrong).await.unwrap();
    let told: Vec<_> =
        heard(&mut events, &wrong).await.iter().map(|event| event.container_event_type()).collect();
    assert_eq!(told, [Type::ContainerCreatedEvent, Type::ContainerStoppedEvent, Type::ContainerDeletedEvent]);

    let request = v1::PodSandboxStatusRequest { pod_sandbox_id: pod.clone(), verbose: false };
    let answer = berth.runtime.pod_sandbox_status(request).await.unwrap().into_inner();
    assert_eq!(answer.containers_statuses.len(), 1);
    assert!(answer.timestamp > answer.containers_statuses[0].started_at);
    nix::sys::signal::kill(shim_of(&pod), nix::sys::signal::Signal::SIGKILL).unwrap();
    let mut ended = Vec::new();
    for _ in 0..2 {
        let event = events.message().await.unwrap().unwrap();
        assert_eq!(event.container_event_type(), Type::ContainerStoppedEvent);
        ended.push(event.container_id);
    }
    assert_eq!(ended[1], pod, "the pod is over when its containers are");
}

#[tokio::test(flavor = "multi_thread")]
async fn root_a_listener_does_not_hold_up_the_daemons_end_and_is_told_of_it() {
    let mut berth = Berth::start().await;
    let mut events = listen(&mut berth).await;
    let begun = Instant::now();
    let hearing = tokio::spawn(async move { events.message().await });
    assert!(berth.terminate().success());
    assert!(begun.elapsed().as_secs() < 3, "{:?}", begun.elapsed());
    let end: Status = hearing.await.unwrap().unwrap_err();
    assert_eq!(end.code(), Code::Unavailable, "{end:?}");
    assert!(end.message().contains("stopping"), "{end:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn root_a_listener_that_leaves_is_forgotten_and_the_others_hear_on() {
    let mut berth = Berth::start().await;
    let image = berth.busybox().await;
    let (leaving, mut staying) = (listen(&mut berth).await, listen(&mut berth).await);
    drop(leaving);
    let (pod, _) = berth.run_alone("heard", &image, "exit 0").await;
    berth.remove_pod(&pod).await.unwrap();
    assert_eq!(heard(&mut staying, &pod).await.len(), 8);
}
