//! Numbered lines at full speed on both streams, while the daemon is killed again and again and the log is rotated as
//! kubelet does it. Every line must be there once, in order.

use std::{
    collections::HashMap,
    fs::{self, File},
    io::{BufRead, BufReader, BufWriter, Write},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use berth_cri::v1;

use crate::{Score, client::Client, node::Node};

const KILLS: u64 = 10;
const ROTATE_AT: u64 = 50_000_000;
/// Length of a line in bytes: its number, padding, and the newline.
const LINE: usize = 100;
const POLL_INTERVAL: Duration = Duration::from_millis(5);

/// Rotations of the log.
#[derive(Default)]
struct Rotations {
    /// Files that were moved away, oldest first.
    parts: Vec<PathBuf>,
    /// ReopenContainerLog calls that failed because the daemon was killed.
    cut_off: u64,
}

pub(crate) async fn endure(bytes: u64, score: &mut Score) {
    let mut node = Node::start().await;
    let mut client = Client::new(&mut node.berth).await;
    let lines = bytes / LINE as u64 / 2;
    let source = node.berth.path().join("lines");
    write_lines(&source, lines);
    let begun = Instant::now();
    let pod = client.run_pod("logs", true).await.unwrap();
    let mount = v1::Mount {
        host_path: source.display().to_string(),
        container_path: "/lines".into(),
        readonly: true,
        ..Default::default()
    };
    let script = "cat /lines >&2 & cat /lines; wait";
    let id = client.start(&pod, &["sh", "-c", script], vec![mount]).await.unwrap();

    let log = client.log("logs");
    let written = Arc::new(AtomicU64::new(0));
    let rotating = tokio::spawn(rotate(client.clone(), id.clone(), log.clone(), Arc::clone(&written)));
    let kills = kill_again_and_again(&mut node, &written, bytes, &rotating).await;
    let rotations = rotating.await.unwrap();
    let code = client.ended(&id).await.unwrap();
    let took = begun.elapsed();
    println!(
        "logs: {} lines on each of two streams, {bytes} bytes in {took:.1?}; {kills} kills, {} rotations, {} calls cut off",
        lines,
        rotations.parts.len(),
        rotations.cut_off
    );
    score.count("the container that logs ends by itself", (code != 0).then(|| format!("exit code {code}")));
    score.count("the daemon was killed ten times", (kills != KILLS).then(|| format!("{kills} times")));
    for stream in ["stdout", "stderr"] {
        let parts = rotations.parts.iter().chain([&log]);
        score.count(&format!("every line of {stream} is there once, in order"), check(parts, stream, lines));
    }
    client.remove(&pod).await.unwrap();
}

/// Kills and restarts the daemon each time another part of the lines is in the log. Returns how often.
async fn kill_again_and_again(
    node: &mut Node,
    written: &AtomicU64,
    bytes: u64,
    rotating: &tokio::task::JoinHandle<Rotations>,
) -> u64 {
    let mut kills = 0;
    while kills < KILLS && !rotating.is_finished() {
        if written.load(Ordering::Relaxed) >= bytes / (KILLS + 2) * (kills + 1) {
            node.berth.kill();
            node.berth.restart().await;
            kills += 1;
        }
        tokio::time::sleep(POLL_INTERVAL).await;
    }
    kills
}

/// Moves the log away whenever it is large, and has it reopened, as kubelet does: when that fails, moves it back.
async fn rotate(mut client: Client, id: String, log: PathBuf, written: Arc<AtomicU64>) -> Rotations {
    let mut rotations = Rotations::default();
    let mut before = 0;
    loop {
        let size = fs::metadata(&log).map_or(0, |file| file.len());
        written.store(before + size, Ordering::Relaxed);
        if size >= ROTATE_AT {
            let moved = log.with_extension(format!("{:03}", rotations.parts.len()));
            fs::rename(&log, &moved).unwrap();
            let request = v1::ReopenContainerLogRequest { container_id: id.clone() };
            match client.cri.reopen_container_log(request).await {
                Ok(_) => {
                    before += fs::metadata(&moved).unwrap().len();
                    rotations.parts.push(moved);
                }
                Err(_) if !log.exists() => {
                    rotations.cut_off += 1;
                    fs::rename(&moved, &log).unwrap();
                }
                // The shim has reopened the log, but the daemon was killed before it answered.
                Err(_) => {
                    rotations.cut_off += 1;
                    rotations.parts.push(moved);
                }
            }
        }
        let request = v1::ContainerStatusRequest { container_id: id.clone(), verbose: false };
        let status = client.cri.container_status(request).await.ok().and_then(|it| it.into_inner().status);
        if status.is_some_and(|status| status.state() == v1::ContainerState::ContainerExited) {
            return rotations;
        }
        tokio::time::sleep(POLL_INTERVAL).await;
    }
}

fn line(number: u64) -> String {
    format!("{number:0>10}{:x>fill$}", "", fill = LINE - 11)
}

fn write_lines(path: &Path, count: u64) {
    let mut file = BufWriter::with_capacity(1 << 20, File::create(path).unwrap());
    for number in 0..count {
        writeln!(file, "{}", line(number)).unwrap();
    }
    file.flush().unwrap();
}

/// Checks the lines of one stream over all files, oldest first. Returns the first thing wrong.
fn check<'a>(parts: impl Iterator<Item = &'a PathBuf>, stream: &str, count: u64) -> Option<String> {
    let mut begun: HashMap<String, String> = HashMap::new();
    let mut next = 0;
    for part in parts {
        for (number, record) in
            BufReader::with_capacity(1 << 20, File::open(part).unwrap()).lines().enumerate()
        {
            let place = || format!("{}:{}", part.display(), number + 1);
            let Ok(record) = record else { return Some(format!("{}: no text", place())) };
            let fields: Vec<&str> = record.splitn(4, ' ').collect();
            let [_, of, tag, text] = fields[..] else { return Some(format!("{}: {record:?}", place())) };
            if of != stream {
                continue;
            }
            let begun = begun.entry(of.to_owned()).or_default();
            begun.push_str(text);
            if tag == "F" {
                if *begun != line(next) {
                    return Some(format!("{}: {begun:?} instead of line {next}", place()));
                }
                begun.clear();
                next += 1;
            }
        }
    }
    (next != count).then(|| format!("{next} lines of {count}"))
}
