use std::fs;

use berth_cri::v1;
use berth_tests::{berth::Berth, pod::parse_log};

#[tokio::test(flavor = "multi_thread")]
async fn root_both_streams_and_a_last_line_without_an_end_are_logged() {
    let mut berth = Berth::start().await;
    let image = berth.busybox().await;
    let (_, id) = berth.run_alone("streams", &image, "echo out; echo err >&2; printf unfinished").await;
    berth.ended(&id).await;
    let mut log = berth.log_of("streams", "streams");
    log.sort();
    let expected = [("stderr", "err"), ("stdout", "out"), ("stdout", "unfinished")];
    assert_eq!(log, expected.map(|(stream, text)| (stream.to_owned(), text.to_owned())));
    // Readers add a newline after an `F` record, and this line has none.
    let text = fs::read_to_string(berth.path().join("logs/streams/streams.log")).unwrap();
    assert!(text.contains(" stdout P unfinished\n"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn root_a_long_line_is_split_and_can_be_joined_again() {
    let mut berth = Berth::start().await;
    let image = berth.busybox().await;
    let (_, id) = berth.run_alone("long", &image, "head -c 100000 /dev/zero | tr '\\0' x; echo").await;
    berth.ended(&id).await;
    assert_eq!(berth.log_of("long", "long"), [("stdout".into(), "x".repeat(100_000))]);
}

#[tokio::test(flavor = "multi_thread")]
async fn root_no_line_is_lost_when_the_log_is_moved_away_and_reopened_again_and_again() {
    let mut berth = Berth::start().await;
    let image = berth.busybox().await;
    let (_, id) = berth.run_alone("rotated", &image, "seq 1 200000").await;
    let path = berth.path().join("logs/rotated/rotated.log");
    let mut parts = Vec::new();
    for number in 0..20 {
        if berth.status(&id).await.unwrap().state() == v1::ContainerState::ContainerExited {
            break;
        }
        let moved = path.with_extension(number.to_string());
        if fs::rename(&path, &moved).is_ok() {
            let request = v1::ReopenContainerLogRequest { container_id: id.clone() };
            // The container may have ended in between: then there is nothing to reopen.
            let _ = berth.runtime.reopen_container_log(request).await;
            parts.push(moved);
        }
    }
    berth.ended(&id).await;
    let text: String =
        parts.iter().chain([&path]).map(|part| fs::read_to_string(part).unwrap_or_default()).collect();
    let numbers: Vec<u32> = parse_log(&text).iter().map(|(_, line)| line.parse().unwrap()).collect();
    assert_eq!(numbers.len(), 200_000);
    assert!(numbers.is_sorted());
}
