#![allow(clippy::unwrap_used)]

use super::*;
use crate::{container::ContainerState, cri::samples, error::Kind, pod::PodState};

fn labels(pairs: &[(&str, &str)]) -> HashMap<String, String> {
    pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}

fn labelled_pod() -> Pod {
    let mut pod = samples::pod("abc1", PodState::Ready);
    pod.config.labels = labels(&[("app", "web"), ("tier", "front")]).into_iter().collect();
    pod
}

fn labelled_container() -> Container {
    let state = ContainerState::Running { pid: 7, started_at: 1 };
    let mut container = samples::container("def1", "abc1", state);
    container.config.labels = labels(&[("app", "web")]).into_iter().collect();
    container
}

#[test]
fn no_filter_wants_every_pod() {
    assert!(PodFilter::new(None).unwrap().wants(&labelled_pod()));
    assert!(PodFilter::new(Some(v1::PodSandboxFilter::default())).unwrap().wants(&labelled_pod()));
}

#[test]
fn every_condition_on_a_pod_must_hold() {
    let ready = v1::PodSandboxState::SandboxReady;
    let not_ready = v1::PodSandboxState::SandboxNotready;
    for (id, state, selector, wanted) in [
        ("abc1", None, labels(&[]), true),
        ("ab", None, labels(&[]), true),
        ("bc1", None, labels(&[]), false),
        ("", Some(ready), labels(&[]), true),
        ("", Some(not_ready), labels(&[]), false),
        ("", None, labels(&[("app", "web")]), true),
        ("", None, labels(&[("app", "web"), ("tier", "front")]), true),
        ("", None, labels(&[("app", "web"), ("tier", "back")]), false),
        ("", None, labels(&[("zone", "")]), false),
        ("abc1", Some(ready), labels(&[("app", "web")]), true),
        ("abc1", Some(not_ready), labels(&[("app", "web")]), false),
    ] {
        let told = format!("{id:?} {state:?} {selector:?}");
        let filter = v1::PodSandboxFilter {
            id: id.into(),
            state: state.map(|state| v1::PodSandboxStateValue { state: state.into() }),
            label_selector: selector,
        };
        assert_eq!(PodFilter::new(Some(filter)).unwrap().wants(&labelled_pod()), wanted, "{told}");
    }
}

#[test]
fn no_filter_wants_every_container() {
    assert!(ContainerFilter::new(None).unwrap().wants(&labelled_container()));
}

#[test]
fn every_condition_on_a_container_must_hold() {
    let running = v1::ContainerState::ContainerRunning;
    let exited = v1::ContainerState::ContainerExited;
    for (id, pod_id, state, selector, wanted) in [
        ("def", "", None, labels(&[]), true),
        ("abc", "", None, labels(&[]), false),
        ("", "abc", None, labels(&[]), true),
        ("", "def", None, labels(&[]), false),
        ("", "", Some(running), labels(&[]), true),
        ("", "", Some(exited), labels(&[]), false),
        ("", "", None, labels(&[("app", "web")]), true),
        ("", "", None, labels(&[("app", "db")]), false),
        ("def1", "abc1", Some(running), labels(&[("app", "web")]), true),
        ("def1", "abc2", Some(running), labels(&[("app", "web")]), false),
    ] {
        let told = format!("{id:?} {pod_id:?} {state:?} {selector:?}");
        let filter = v1::ContainerFilter {
            id: id.into(),
            pod_sandbox_id: pod_id.into(),
            state: state.map(|state| v1::ContainerStateValue { state: state.into() }),
            label_selector: selector,
        };
        assert_eq!(
            ContainerFilter::new(Some(filter)).unwrap().wants(&labelled_container()),
            wanted,
            "{told}"
        );
    }
}

#[test]
fn a_state_that_does_not_exist_is_refused() {
    let pods =
        v1::PodSandboxFilter { state: Some(v1::PodSandboxStateValue { state: 5 }), ..Default::default() };
    assert_eq!(PodFilter::new(Some(pods)).err().unwrap().kind(), Kind::InvalidArgument);
    let containers =
        v1::ContainerFilter { state: Some(v1::ContainerStateValue { state: -1 }), ..Default::default() };
    assert!(ContainerFilter::new(Some(containers)).err().unwrap().to_string().contains("filter.state = -1"));
}
