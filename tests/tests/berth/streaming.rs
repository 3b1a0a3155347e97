use std::{
    collections::BTreeSet,
    io::{Read, Write},
    net::{Shutdown, TcpStream},
    process::Stdio,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use berth_cri::v1;
use berth_tests::{
    berth::Berth,
    crictl::{Running, TRANSPORTS, Terminal, crictl, run},
    image::sha256,
    pod::{pod, shell},
    waiting::eventually,
};
use tokio::task::JoinSet;

/// Script of a container that echoes every connection on port 8080.
pub const ECHO: &str = "exec busybox tcpsvd -c 200 -b 200 0 8080 cat";

#[tokio::test(flavor = "multi_thread")]
async fn root_a_command_prints_reads_and_ends_with_its_code() {
    let mut berth = Berth::start().await;
    let image = berth.busybox().await;
    let (_, id) = berth.run_alone("exec", &image, "exec sleep 1000").await;
    for transport in TRANSPORTS {
        let script = "echo out; echo err >&2; exit 3";
        let ended = run(&mut crictl(&berth, "exec", transport, &[&id, "sh", "-c", script]), b"");
        let errors = String::from_utf8(ended.stderr).unwrap();
        assert_eq!((ended.stdout.as_slice(), ended.status.success()), (&b"out\n"[..], false), "{transport}");
        assert!(errors.contains("\nerr\n") && errors.contains("exit code 3"), "{transport}: {errors}");

        let input = vec![b'x'; 3_000_000];
        let counted = run(&mut crictl(&berth, "exec", transport, &["-i", &id, "wc", "-c"]), &input);
        assert!(counted.status.success(), "{transport}: {counted:?}");
        assert_eq!(String::from_utf8(counted.stdout).unwrap().trim(), "3000000", "{transport}");

        let unread = run(&mut crictl(&berth, "exec", transport, &["-i", &id, "true"]), &input);
        assert!(unread.status.success(), "{transport}: {unread:?}");

        let missing = run(&mut crictl(&berth, "exec", transport, &[&id, "/no/such/command"]), b"");
        let errors = String::from_utf8(missing.stderr).unwrap();
        assert!(!missing.status.success() && errors.contains("/no/such/command"), "{transport}: {errors}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn root_a_command_has_a_terminal_that_follows_the_clients() {
    let mut berth = Berth::start().await;
    let image = berth.busybox().await;
    let (_, id) = berth.run_alone("tty", &image, "exec sleep 1000").await;
    for transport in TRANSPORTS {
        let mut terminal =
            Terminal::start(&mut crictl(&berth, "exec", transport, &["-it", &id, "sh"]), 91, 31);
        let size = |columns, rows| format!("{rows} {columns}\r\n");
        terminal
            .write("busybox tty; while [ \"$(busybox stty size)\" != '31 91' ]; do :; done; echo si''zed\n");
        let seen = terminal.until("sized");
        assert!(seen.contains("/dev/pts/"), "{transport}: {seen}");
        terminal.resize(120, 40);
        terminal.write("while [ \"$(busybox stty size)\" != '40 120' ]; do :; done; busybox stty size\n");
        terminal.until(&size(120, 40));
        terminal.write("exit 7\n");
        terminal.until("exit code 7");
        assert!(!terminal.wait().success(), "{transport}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn root_much_output_arrives_intact() {
    let mut berth = Berth::start().await;
    let image = berth.busybox().await;
    let (_, id) = berth.run_alone("much", &image, "exec sleep 1000").await;
    let script = "busybox seq 1 1000000 > /tmp/n; for i in $(busybox seq 15); do cat /tmp/n; done";
    let numbers: String = (1..=1_000_000).map(|n| format!("{n}\n")).collect();
    let expected = numbers.repeat(15);
    assert!(expected.len() > 100_000_000);
    for transport in TRANSPORTS {
        let begun = std::time::Instant::now();
        let ended = run(&mut crictl(&berth, "exec", transport, &[&id, "sh", "-c", script]), b"");
        assert!(ended.status.success(), "{transport}");
        assert_eq!(ended.stdout.len(), expected.len(), "{transport}");
        assert_eq!(sha256(&ended.stdout), sha256(expected.as_bytes()), "{transport}");
        eprintln!("{transport}: {} MB in {:?}", expected.len() / 1_000_000, begun.elapsed());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn root_whoever_attaches_sees_what_comes_next_and_may_type() {
    let mut berth = Berth::start().await;
    let image = berth.busybox().await;
    let sandbox = pod(&berth, "attach");
    let pod = berth.run(&sandbox).await.unwrap();
    let script = "echo before; while read -r line; do echo \"got $line\"; done; echo ended";
    let config = v1::ContainerConfig { stdin: true, ..shell("attach", &image, script) };
    let id = berth.create(&pod, &sandbox, config).await.unwrap();
    berth.start_container(&id).await.unwrap();
    eventually(async || berth.log_of("attach", "attach").len(), |&lines| lines == 1).await;
    for transport in TRANSPORTS {
        let mut command = crictl(&berth, "attach", transport, &["-i", &id]);
        let mut attached = Running::start(command.stdin(Stdio::piped()));
        let line = format!("{transport}\n");
        attached.0.stdin.as_mut().unwrap().write_all(line.as_bytes()).unwrap();
        let seen = attached.until(&line);
        assert_eq!(seen, format!("got {line}"), "only what came after");
        attached.kill();
        assert_eq!(berth.status(&id).await.unwrap().state(), v1::ContainerState::ContainerRunning);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn root_a_client_that_is_attached_is_told_of_the_end() {
    let mut berth = Berth::start().await;
    let image = berth.busybox().await;
    for transport in TRANSPORTS {
        let script = "while ! [ -e /tmp/go ]; do echo tick; sleep 0.1; done; echo last words; exit 5";
        let (_, id) = berth.run_alone(transport, &image, script).await;
        let mut attached = Running::start(&mut crictl(&berth, "attach", transport, &[&id]));
        attached.until("tick\n");
        berth.shell(&id, "echo > /tmp/go").await;
        attached.until("last words\n");
        assert!(attached.0.wait().unwrap().success(), "{transport}");
    }
}

/// Starts `crictl port-forward` and returns it with its local port.
pub fn forward(berth: &Berth, transport: &str, pod: &str, port: u16) -> (Running, u16) {
    let mut forward =
        Running::start(&mut crictl(berth, "port-forward", transport, &[pod, &format!("0:{port}")]));
    let said = forward.until(&format!("-> {port}"));
    let local = said.split("127.0.0.1:").nth(1).and_then(|rest| rest.split(' ').next()).unwrap().parse();
    (forward, local.unwrap())
}

/// 10 MB of data that differ for each `number`.
fn payload(number: usize) -> Vec<u8> {
    let mut state = number as u64 + 1;
    let mut bytes = Vec::with_capacity(10_000_000);
    while bytes.len() < 10_000_000 {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        bytes.extend(state.to_be_bytes());
    }
    bytes
}

/// Sends 10 MB to an echo server. Returns whether the same bytes came back.
pub async fn comes_back(port: u16, number: usize) -> bool {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let sent = payload(number);
    let (mut from, mut to) = tokio::net::TcpStream::connect(("127.0.0.1", port)).await.unwrap().into_split();
    let mut came = Vec::with_capacity(sent.len());
    let send = async {
        to.write_all(&sent).await.unwrap();
        to.shutdown().await.unwrap();
    };
    let (read, ()) = tokio::join!(from.read_to_end(&mut came), send);
    read.unwrap();
    came == sent
}

#[tokio::test(flavor = "multi_thread")]
async fn root_fifty_connections_at_once_arrive_intact() {
    let mut berth = Berth::start().await;
    let image = berth.busybox().await;
    let (pod, _) = berth.run_alone("echo", &image, ECHO).await;
    for transport in TRANSPORTS {
        let (_forward, port) = forward(&berth, transport, &pod, 8080);
        let begun = std::time::Instant::now();
        let mut connections: JoinSet<bool> = (0..50).map(|number| comes_back(port, number)).collect();
        while let Some(intact) = connections.join_next().await {
            assert!(intact.unwrap(), "{transport}");
        }
        eprintln!("{transport}: 500 MB each way in {:?}", begun.elapsed());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn root_a_connection_that_nobody_reads_does_not_stop_the_others() {
    let mut berth = Berth::start().await;
    let image = berth.busybox().await;
    let script = "busybox tcpsvd 0 8081 sleep 1000 & exec busybox tcpsvd 0 8080 cat";
    let (pod, _) = berth.run_alone("stalled", &image, script).await;
    for transport in TRANSPORTS {
        let (_other, port) = forward(&berth, transport, &pod, 8080);
        let mut both = crictl(&berth, "port-forward", transport, &[&pod, "0:8081", "0:8080"]);
        let mut both = Running::start(&mut both);
        let said = both.until("-> 8080");
        let stalled: u16 =
            said.split("127.0.0.1:").nth(1).unwrap().split(' ').next().unwrap().parse().unwrap();
        let lively = said.rsplit("127.0.0.1:").next().unwrap().split(' ').next().unwrap().parse().unwrap();
        let mut full = TcpStream::connect(("127.0.0.1", stalled)).unwrap();
        full.set_write_timeout(Some(Duration::from_secs(1))).unwrap();
        // More than the socket buffer in the pod, less than a connection's limit of unread data in the daemon.
        let _ = full.write_all(&payload(0));
        assert!(comes_back(lively, 1).await, "{transport}");
        assert!(comes_back(port, 2).await, "{transport}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn root_a_port_where_nothing_listens_is_named() {
    let mut berth = Berth::start().await;
    let image = berth.busybox().await;
    let (pod, _) = berth.run_alone("deaf", &image, "exec sleep 1000").await;
    for transport in TRANSPORTS {
        let (mut forward, port) = forward(&berth, transport, &pod, 4321);
        let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
        assert!(!matches!(stream.read(&mut [0]), Ok(1..)));
        let mut errors = String::new();
        forward.0.stderr.take().unwrap().read_to_string(&mut errors).unwrap();
        assert!(errors.contains(&format!("port 4321 to pod {pod}")), "{transport}: {errors}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn root_a_port_of_a_pod_on_the_hosts_network_is_one_of_the_host() {
    let mut berth = Berth::start().await;
    let mut sandbox = pod(&berth, "hostnet");
    let options = v1::NamespaceOption { network: v1::NamespaceMode::Node.into(), ..Default::default() };
    sandbox.linux.as_mut().unwrap().security_context =
        Some(v1::LinuxSandboxSecurityContext { namespace_options: Some(options), ..Default::default() });
    let pod = berth.run(&sandbox).await.unwrap();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (_forward, port) = forward(&berth, "spdy", &pod, listener.local_addr().unwrap().port());
    let client = std::thread::spawn(move || {
        let stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        std::io::read_to_string(stream).unwrap()
    });
    let (mut accepted, _) = listener.accept().await.unwrap();
    tokio::io::AsyncWriteExt::write_all(&mut accepted, b"host").await.unwrap();
    drop(accepted);
    assert_eq!(client.join().unwrap(), "host");
}

/// Targets of the daemon's open descriptors.
fn open_files(berth: &Berth) -> BTreeSet<String> {
    let directory = std::fs::read_dir(format!("/proc/{}/fd", berth.pid())).unwrap();
    let targets = directory.flatten().filter_map(|entry| std::fs::read_link(entry.path()).ok());
    targets.map(|target| target.display().to_string()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn root_a_client_that_vanishes_leaves_nothing_behind() {
    let mut berth = Berth::start().await;
    let image = berth.busybox().await;
    let (pod, id) = berth.run_alone("vanish", &image, ECHO).await;
    // A first session, so that descriptors which the daemon opens once and keeps are open before the count.
    run(&mut crictl(&berth, "exec", "spdy", &[&id, "true"]), b"");
    let (processes, files) = (berth.shell(&id, "ps").await.lines().count(), open_files(&berth));
    for transport in TRANSPORTS {
        let mut execs: Vec<_> = (0..5)
            .map(|_| {
                let loud = ["-i", &id, "sh", "-c", "while :; do echo noise; done"];
                Running::start(crictl(&berth, "exec", transport, &loud).stdin(Stdio::piped()))
            })
            .collect();
        execs.push(Running::start(&mut crictl(&berth, "exec", transport, &[&id, "sleep", "4321"])));
        execs.push(Running::start(&mut crictl(&berth, "attach", transport, &[&id])));
        let (forward, port) = forward(&berth, transport, &pod, 8080);
        let kept: Vec<_> = (0..5).map(|_| TcpStream::connect(("127.0.0.1", port)).unwrap()).collect();
        eventually(
            async || berth.shell(&id, "ps").await,
            |ps| {
                ps.contains("sleep 4321")
                    && ps.matches("noise").count() >= 5
                    && ps.matches(" cat").count() >= 5
            },
        )
        .await;
        execs.push(forward);
        execs.iter_mut().for_each(Running::kill);
        drop(kept);
        eventually(async || berth.shell(&id, "ps").await, |ps| ps.lines().count() == processes).await;
        eventually(async || open_files(&berth), |now| *now == files).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn root_a_client_that_vanishes_with_more_to_say_than_anyone_reads_is_noticed() {
    let mut berth = Berth::start().await;
    let image = berth.busybox().await;
    let (_, id) = berth.run_alone("talker", &image, "exec sleep 1000").await;
    for transport in TRANSPORTS {
        let mut exec = crictl(&berth, "exec", transport, &["-i", &id, "sleep", "4321"]);
        let mut exec = Running::start(exec.stdin(Stdio::piped()));
        let mut stdin = exec.0.stdin.take().unwrap();
        let said = Arc::new(AtomicUsize::new(0));
        let saying = Arc::clone(&said);
        std::thread::spawn(move || {
            while stdin.write_all(&[0; 4096]).is_ok() {
                saying.fetch_add(4096, Ordering::SeqCst);
            }
        });
        let progress = async || {
            let before = said.load(Ordering::SeqCst);
            tokio::time::sleep(Duration::from_millis(500)).await;
            (before, said.load(Ordering::SeqCst))
        };
        eventually(progress, |(before, now)| before == now && *now > 16 << 20).await;
        assert!(berth.shell(&id, "ps").await.contains("sleep 4321"));
        exec.kill();
        eventually(async || berth.shell(&id, "ps").await, |ps| !ps.contains("sleep 4321")).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn root_sessions_end_with_the_daemon_and_pods_do_not() {
    let mut berth = Berth::start().await;
    let image = berth.busybox().await;
    let (_, id) = berth.run_alone("daemon", &image, "exec sleep 1000").await;
    for transport in TRANSPORTS {
        let script = "echo begun; exec sleep 4321";
        let mut exec = Running::start(&mut crictl(&berth, "exec", transport, &[&id, "sh", "-c", script]));
        exec.until("begun");
        assert!(berth.terminate().success(), "{transport}");
        let mut errors = String::new();
        exec.0.stderr.take().unwrap().read_to_string(&mut errors).unwrap();
        assert!(errors.contains("the container runtime stops"), "{transport}: {errors}");
        berth.restart().await;
        assert_eq!(berth.status(&id).await.unwrap().state(), v1::ContainerState::ContainerRunning);
        eventually(async || berth.shell(&id, "ps").await, |ps| !ps.contains("4321")).await;
    }
}
