use std::time::Instant;

use berth_cri::v1;
use berth_tests::{
    berth::Berth,
    pod::{container, pod},
    waiting::until,
};
use tokio::task::JoinSet;
use tonic::{Code, Status};

/// Largest message that kubelet and crictl accept, in bytes.
const MAX_MESSAGE_BYTES: usize = 16 << 20;
const PODS: usize = 4;

#[tokio::test(flavor = "multi_thread")]
async fn root_two_thousand_containers_are_listed_alike_whole_and_in_parts() {
    let mut berth = Berth::start().await;
    berth.runtime = berth.runtime.clone().max_decoding_message_size(MAX_MESSAGE_BYTES);
    let mut pods = fill(&mut berth, "many", 2000, 7_000).await;

    let whole = list(&mut berth, None).await.unwrap();
    assert_eq!(whole.len(), 2000);
    let (streamed, parts) = stream(&mut berth, None).await;
    assert_eq!(streamed, whole);
    assert!(parts > 10, "{parts}");

    let filter = v1::ContainerFilter { pod_sandbox_id: pods[1].clone(), ..Default::default() };
    let whole = list(&mut berth, Some(filter.clone())).await.unwrap();
    assert_eq!(whole.len(), 500);
    assert_eq!(stream(&mut berth, Some(filter)).await.0, whole);

    // With 400 more containers, the list is larger than a message may be.
    pods.extend(fill(&mut berth, "more", 400, 10_000).await);
    let error = list(&mut berth, None).await.unwrap_err();
    assert_eq!(error.code(), Code::ResourceExhausted);
    assert!(error.message().contains("StreamContainers"), "{}", error.message());
    let mut ids: Vec<_> = stream(&mut berth, None).await.0.into_iter().map(|one| one.id).collect();
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), 2400);
    remove(&berth, pods).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn root_pods_and_images_are_streamed_as_they_are_listed_and_nothing_is_the_end_at_once() {
    let mut berth = Berth::start().await;
    assert_eq!(stream(&mut berth, None).await, (Vec::new(), 0));
    let nothing = berth.images.stream_images(v1::StreamImagesRequest::default()).await.unwrap();
    assert!(nothing.into_inner().message().await.unwrap().is_none());

    berth.busybox().await;
    for name in ["one", "two", "three"] {
        let sandbox = pod(&berth, name);
        berth.run(&sandbox).await.unwrap();
    }
    let labels = [("name".to_owned(), "two".to_owned())].into();
    let by_label = v1::PodSandboxFilter { label_selector: labels, ..Default::default() };
    for (filter, count) in [(None, 3), (Some(by_label), 1)] {
        let request = v1::StreamPodSandboxesRequest { filter: filter.clone() };
        let mut streaming = berth.runtime.stream_pod_sandboxes(request).await.unwrap().into_inner();
        let streamed = streaming.message().await.unwrap().unwrap().pod_sandboxes;
        assert!(streaming.message().await.unwrap().is_none());
        let listed = berth.runtime.list_pod_sandbox(v1::ListPodSandboxRequest { filter }).await.unwrap();
        assert_eq!((streamed.len(), &streamed), (count, &listed.into_inner().items));
    }
    let listed = berth.images.list_images(v1::ListImagesRequest::default()).await.unwrap().into_inner();
    let streaming = berth.images.stream_images(v1::StreamImagesRequest::default()).await.unwrap();
    let streamed = streaming.into_inner().message().await.unwrap().unwrap();
    assert_eq!(streamed.images, listed.images);

    let state = Some(v1::PodSandboxStateValue { state: 7 });
    let filter = Some(v1::PodSandboxFilter { state, ..Default::default() });
    let error =
        berth.runtime.stream_pod_sandboxes(v1::StreamPodSandboxesRequest { filter }).await.unwrap_err();
    assert_eq!(error.code(), Code::InvalidArgument);
}

/// A client that reads only the first part of a stream holds up no other call, and its own call ends when it leaves.
#[tokio::test(flavor = "multi_thread")]
async fn root_a_client_that_stops_reading_a_list_costs_nobody_anything() {
    let mut berth = Berth::start().await;
    let pods = fill(&mut berth, "heavy", 40, 200_000).await;
    let request = v1::StreamContainersRequest::default();
    let mut stalled = berth.runtime.stream_containers(request.clone()).await.unwrap().into_inner();
    assert!(stalled.message().await.unwrap().is_some());
    assert_eq!(stream(&mut berth, None).await.0.len(), 40);
    remove(&berth, pods).await;
    assert!(list(&mut berth, None).await.unwrap().is_empty());
    drop(stalled);
    until("the log says so", || berth.log().contains("cut off")).await;
}

/// Makes four pods with `containers` containers in all, each with an annotation of `bytes` bytes. Returns the pods' ids.
async fn fill(berth: &mut Berth, name: &str, containers: usize, bytes: usize) -> Vec<String> {
    let image = berth.busybox().await;
    let begun = Instant::now();
    let mut creating = JoinSet::new();
    let mut pods = Vec::new();
    for number in 0..PODS {
        let image = image.clone();
        let sandbox = pod(berth, &format!("{name}{number}"));
        let id = berth.run(&sandbox).await.unwrap();
        pods.push(id.clone());
        let config = move |number| {
            let mut config = container(&format!("c{number}"), &image, &["true"]);
            config.annotations.insert("note".into(), "x".repeat(bytes));
            config
        };
        creating.spawn(create(berth.runtime.clone(), id, sandbox, containers / PODS, config));
    }
    creating.join_all().await;
    println!("{containers} containers were created in {:?}", begun.elapsed());
    pods
}

type Client = v1::runtime_service_client::RuntimeServiceClient<tonic::transport::Channel>;

async fn create(
    mut runtime: Client,
    pod_sandbox_id: String,
    sandbox: v1::PodSandboxConfig,
    containers: usize,
    config: impl Fn(usize) -> v1::ContainerConfig,
) {
    for number in 0..containers {
        let request = v1::CreateContainerRequest {
            pod_sandbox_id: pod_sandbox_id.clone(),
            config: Some(config(number)),
            sandbox_config: Some(sandbox.clone()),
        };
        runtime.create_container(request).await.unwrap();
    }
}

async fn remove(berth: &Berth, pods: Vec<String>) {
    let mut removing = JoinSet::new();
    for pod_sandbox_id in pods {
        let mut runtime = berth.runtime.clone();
        let request = v1::RemovePodSandboxRequest { pod_sandbox_id };
        removing.spawn(async move { runtime.remove_pod_sandbox(request).await.unwrap() });
    }
    removing.join_all().await;
}

async fn list(berth: &mut Berth, filter: Option<v1::ContainerFilter>) -> Result<Vec<v1::Container>, Status> {
    let begun = Instant::now();
    let listed = berth.runtime.list_containers(v1::ListContainersRequest { filter }).await?;
    println!("listed in {:?}", begun.elapsed());
    Ok(listed.into_inner().containers)
}

/// Streams the containers. Returns them and the number of parts.
async fn stream(berth: &mut Berth, filter: Option<v1::ContainerFilter>) -> (Vec<v1::Container>, usize) {
    let begun = Instant::now();
    let request = v1::StreamContainersRequest { filter };
    let mut streaming = berth.runtime.stream_containers(request).await.unwrap().into_inner();
    let (mut containers, mut parts) = (Vec::new(), 0);
    while let Some(part) = streaming.message().await.unwrap() {
        assert!(!part.containers.is_empty());
        containers.extend(part.containers);
        parts += 1;
    }
    println!("streamed in {:?}, {parts} parts", begun.elapsed());
    (containers, parts)
}

/// Compares only attributes, names and labels, because the values change between two calls.
#[tokio::test(flavor = "multi_thread")]
async fn root_statistics_and_metrics_are_streamed_as_they_are_listed() {
    let mut berth = Berth::start().await;
    let image = berth.busybox().await;
    for name in ["one", "two", "three"] {
        berth.run_alone(name, &image, "exec sleep 1000").await;
    }
    let mut client = berth.runtime.clone();
    let labels: std::collections::HashMap<_, _> = [("name".to_owned(), "two".to_owned())].into();
    for (label_selector, count) in [(Default::default(), 3), (labels, 1)] {
        let filter = Some(v1::PodSandboxStatsFilter { label_selector, ..Default::default() });
        let request = v1::ListPodSandboxStatsRequest { filter: filter.clone() };
        let listed = client.list_pod_sandbox_stats(request).await.unwrap().into_inner().stats;
        let request = v1::StreamPodSandboxStatsRequest { filter };
        let mut stream = client.stream_pod_sandbox_stats(request).await.unwrap().into_inner();
        let streamed = stream.message().await.unwrap().unwrap().pod_sandbox_stats;
        assert!(stream.message().await.unwrap().is_none());
        let attributes =
            |stats: &[v1::PodSandboxStats]| Vec::from_iter(stats.iter().map(|one| one.attributes.clone()));
        assert_eq!((streamed.len(), attributes(&streamed)), (count, attributes(&listed)));
    }
    let listed = client.list_container_stats(v1::ListContainerStatsRequest::default()).await.unwrap();
    let stream = client.stream_container_stats(v1::StreamContainerStatsRequest::default()).await.unwrap();
    let streamed = stream.into_inner().message().await.unwrap().unwrap().container_stats;
    let attributes =
        |stats: &[v1::ContainerStats]| Vec::from_iter(stats.iter().map(|one| one.attributes.clone()));
    assert_eq!(attributes(&streamed), attributes(&listed.into_inner().stats));

    let listed = client.list_pod_sandbox_metrics(v1::ListPodSandboxMetricsRequest {}).await.unwrap();
    let stream = client.stream_pod_sandbox_metrics(v1::StreamPodSandboxMetricsRequest {}).await.unwrap();
    let streamed = stream.into_inner().message().await.unwrap().unwrap().pod_sandbox_metrics;
    let names = |pods: &[v1::PodSandboxMetrics]| {
        let metrics = pods.iter().flat_map(|pod| &pod.container_metrics).flat_map(|one| &one.metrics);
        Vec::from_iter(metrics.map(|metric| (metric.name.clone(), metric.label_values.clone())))
    };
    assert_eq!(names(&streamed), names(&listed.into_inner().pod_metrics));
    assert_eq!(streamed.len(), 3);
}
