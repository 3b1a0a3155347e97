use std::{
    fs,
    io::{Read, Write},
    process::{Child, Command, Stdio},
};

use berth_tests::{berth::Berth, waiting::until};

use crate::restart::shim_of;

#[tokio::test(flavor = "multi_thread")]
async fn root_a_client_that_vanishes_takes_its_command_along() {
    let mut berth = Berth::start().await;
    let image = berth.busybox().await;
    let (_, id) = berth.run_alone("left", &image, "exec sleep 1000").await;
    let mut client = crictl(&berth, &["exec", &id, "sh", "-c", "echo begun; sleep 8765431; true"]);
    read_line(&mut client, "begun\n");
    until("the exec runs", || sleeping("8765431") == 1).await;
    end(client);
    until("nothing is left", || sleeping("8765431") == 0 && sessions(&berth, &id) == 0).await;
    assert_eq!(berth.shell(&id, "echo fine").await, "fine\n");
    berth.remove_all_pods().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn root_a_killed_daemon_leaves_commands_that_the_next_one_ends() {
    let mut berth = Berth::start().await;
    let image = berth.busybox().await;
    let (_, id) = berth.run_alone("forsaken", &image, "exec sleep 1000").await;
    let scripts = [
        "echo begun; sleep 8765432; true",
        "sleep 8765432 & echo begun; sleep 8765432; true",
        "echo begun; sleep 8765432 | while :; do echo y; done",
    ];
    let mut clients = scripts.map(|script| crictl(&berth, &["exec", &id, "sh", "-c", script]));
    clients.iter_mut().for_each(|client| read_line(client, "begun\n"));
    until("every exec runs", || sleeping("8765432") == 4).await;
    berth.kill();
    clients.into_iter().for_each(end);
    berth.restart().await;
    until("nothing is left", || sleeping("8765432") == 0 && sessions(&berth, &id) == 0).await;
    assert_eq!(berth.shell(&id, "echo fine").await, "fine\n");
    berth.remove_all_pods().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn root_those_attached_go_with_the_daemon_and_the_container_goes_on() {
    let mut berth = Berth::start().await;
    let image = berth.busybox().await;
    let sandbox = berth_tests::pod::pod(&berth, "asked");
    let pod = berth.run(&sandbox).await.unwrap();
    let script = "while read -r word; do echo \"$word!\"; done; exit 5";
    let mut config = berth_tests::pod::shell("asked", &image, script);
    (config.stdin, config.stdin_once) = (true, false);
    let id = berth.create(&pod, &sandbox, config).await.unwrap();
    berth.start_container(&id).await.unwrap();
    let shim = shim_of(&pod).as_raw();

    let mut clients = [(); 3].map(|()| crictl(&berth, &["attach", "-i", &id]));
    until("each is attached", || attached(shim) == 6).await;
    say(&mut clients[0], "one\n");
    clients.iter_mut().for_each(|client| read_line(client, "one!\n"));
    berth.kill();
    clients.into_iter().for_each(end);
    until("none is attached", || attached(shim) == 0).await;

    berth.restart().await;
    let mut client = crictl(&berth, &["attach", "-i", &id]);
    until("it is attached", || attached(shim) == 2).await;
    say(&mut client, "two\n");
    read_line(&mut client, "two!\n");
    berth.stop_container(&id, 0).await.unwrap();
    client.wait().unwrap();
    let log = berth.log_of("asked", "asked");
    assert_eq!(log, ["one!", "two!"].map(|line| ("stdout".into(), line.into())));
    berth.remove_all_pods().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn root_input_that_is_given_once_ends_with_whoever_gave_it() {
    let mut berth = Berth::start().await;
    let image = berth.busybox().await;
    let sandbox = berth_tests::pod::pod(&berth, "once");
    let pod = berth.run(&sandbox).await.unwrap();
    let mut config = berth_tests::pod::shell("once", &image, "cat; echo over; exit 5");
    (config.stdin, config.stdin_once) = (true, true);
    // Attach must work for a container without a log, too.
    config.log_path = String::new();
    let id = berth.create(&pod, &sandbox, config).await.unwrap();
    berth.start_container(&id).await.unwrap();
    let mut client = crictl(&berth, &["attach", "-i", &id]);
    say(&mut client, "mine\n");
    read_line(&mut client, "mine\n");
    drop(client.stdin.take());
    read_line(&mut client, "over\n");
    client.wait().unwrap();
    assert_eq!(berth.ended(&id).await.exit_code, 5);
    berth.remove_all_pods().await;
}

fn crictl(berth: &Berth, args: &[&str]) -> Child {
    let endpoint = format!("unix://{}", berth.path().join("berth.sock").display());
    Command::new(berth_tests::program("BERTH_TEST_CRICTL"))
        .args(["--runtime-endpoint", &endpoint])
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit())
        .spawn()
        .unwrap()
}

fn end(mut client: Child) {
    client.kill().unwrap();
    client.wait().unwrap();
}

fn say(client: &mut Child, text: &str) {
    client.stdin.as_mut().unwrap().write_all(text.as_bytes()).unwrap();
}

/// Reads exactly as many bytes as the line has, and compares them.
fn read_line(client: &mut Child, line: &str) {
    let mut read = vec![0; line.len()];
    client.stdout.as_mut().unwrap().read_exact(&mut read).unwrap();
    assert_eq!(String::from_utf8(read).unwrap(), line);
}

/// Number of a container's session directories, which hold the named pipes.
fn sessions(berth: &Berth, id: &str) -> usize {
    let directory = berth.path().join("run/containers").join(id).join("sessions");
    fs::read_dir(directory).map_or(0, Iterator::count)
}

/// Number of session pipes that a shim has open.
fn attached(shim: i32) -> usize {
    let descriptors = fs::read_dir(format!("/proc/{shim}/fd")).unwrap().flatten();
    let paths = descriptors.filter_map(|one| fs::read_link(one.path()).ok());
    paths.filter(|path| path.to_string_lossy().contains("/sessions/")).count()
}

/// Number of processes on the host that run `sleep SECONDS`.
fn sleeping(seconds: &str) -> usize {
    let command = format!("sleep\0{seconds}\0");
    let processes = fs::read_dir("/proc").unwrap().flatten();
    processes
        .filter(|one| fs::read_to_string(one.path().join("cmdline")).is_ok_and(|line| line == command))
        .count()
}
