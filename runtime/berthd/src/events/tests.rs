#![allow(clippy::unwrap_used)]
use super::*;
use crate::cri::samples::{container, pod};

fn numbered(number: i64) -> Event {
    Event { id: "c".into(), kind: EventKind::Created, at: number, pod: None, containers: Vec::new() }
}

#[tokio::test]
async fn every_listener_hears_everything_since_it_listens() {
    let events = Events::default();
    let mut first = events.listen().unwrap();
    events.publish(|| numbered(1));
    let mut second = events.listen().unwrap();
    events.publish(|| numbered(2));
    assert_eq!((first.next().await.unwrap().at, first.next().await.unwrap().at), (1, 2));
    assert_eq!(second.next().await.unwrap().at, 2);
}

#[test]
fn an_event_that_nobody_hears_is_not_even_made() {
    let events = Events::default();
    let mut made = 0;
    events.publish(|| numbered(1));
    drop(events.listen().unwrap());
    events.publish(|| numbered(2)); // notices that the listener is gone
    events.publish(|| {
        made += 1;
        numbered(3)
    });
    assert_eq!(made, 0);
}

#[test]
fn listeners_that_come_and_go_while_nothing_happens_leave_nothing() {
    let events = Events::default();
    for _ in 0..100 {
        drop(events.listen().unwrap());
    }
    assert_eq!(events.lock().queues.len(), 1);
}

#[tokio::test]
async fn a_listener_that_falls_behind_hears_what_was_kept_and_then_why_it_ends() {
    let events = Events::default();
    let (mut slow, mut quick) = (events.listen().unwrap(), events.listen().unwrap());
    for number in 0..2 * MAX_QUEUED_EVENTS as i64 {
        events.publish(|| numbered(number));
        assert_eq!(quick.next().await.unwrap().at, number);
    }
    for number in 0..MAX_QUEUED_EVENTS as i64 {
        assert_eq!(slow.next().await.unwrap().at, number);
    }
    let error = slow.next().await.unwrap_err();
    assert_eq!(error.kind(), Kind::ResourceExhausted);
    assert!(error.to_string().contains("4096 events"), "{error}");
}

#[tokio::test]
async fn a_daemon_that_stops_sends_its_listeners_away_and_takes_no_more() {
    let events = Events::default();
    let mut listener = events.listen().unwrap();
    events.publish(|| numbered(1));
    events.close();
    assert_eq!(listener.next().await.unwrap().at, 1);
    assert_eq!(listener.next().await.unwrap_err().kind(), Kind::Unavailable);
    assert_eq!(events.listen().unwrap_err().kind(), Kind::Unavailable);
}

#[test]
fn a_pod_that_is_shown_was_created_and_started() {
    let ready = Arc::new(pod("p", PodState::Ready));
    let over = Arc::new(pod("p", PodState::NotReady));
    assert_eq!(of_pod(None, Some(&ready)), [EventKind::Created, EventKind::Started]);
    assert_eq!(of_pod(Some(&ready), Some(&ready)), []);
    assert_eq!(of_pod(Some(&ready), Some(&over)), [EventKind::Stopped]);
    assert_eq!(of_pod(Some(&over), Some(&over)), []);
    assert_eq!(of_pod(Some(&over), None), [EventKind::Deleted]);
}

#[test]
fn each_step_of_a_containers_life_is_told_once() {
    let created = Arc::new(container("c", "p", ContainerState::Created { pid: 1 }));
    let running = Arc::new(created.started(1, 5));
    let ended = Arc::new(running.exited(0, 9, "Completed", String::new()));
    let killed = Arc::new(created.exited(137, 9, "Error", String::new()));
    assert_eq!(of_container(None, Some(&created)), [EventKind::Created]);
    assert_eq!(of_container(Some(&created), Some(&running)), [EventKind::Started]);
    assert_eq!(of_container(Some(&running), Some(&running)), [], "its limits were changed");
    assert_eq!(of_container(Some(&running), Some(&ended)), [EventKind::Stopped]);
    assert_eq!(of_container(Some(&created), Some(&killed)), [EventKind::Stopped]);
    assert_eq!(of_container(Some(&ended), Some(&ended)), []);
    assert_eq!(of_container(Some(&ended), None), [EventKind::Deleted]);
}
