#![allow(clippy::unwrap_used)]
use super::*;

use std::io::Read as _;
use tempfile::TempDir;

const TEST_TIMEOUT: Duration = Duration::from_secs(60);

fn fifo(directory: &TempDir, name: &str) -> String {
    let path = directory.path().join(name);
    rustix::fs::mknodat(rustix::fs::CWD, &path, rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
    path.to_str().unwrap().to_owned()
}

fn open_now(path: &str) -> File {
    OpenOptions::new().read(true).write(true).custom_flags(libc::O_NONBLOCK).open(path).unwrap()
}

fn start(stdin: &str, stdout: &str) -> (Stdio, Pumps) {
    let (stdio, shim_stdio) = connect(&Streams::parse(stdin, stdout, "", false).unwrap()).unwrap();
    (stdio, shim_stdio.start(None).unwrap())
}

/// Reads a pipe to its end without blocking the runtime.
async fn read_to_end(fd: OwnedFd) -> Vec<u8> {
    let read = move || {
        let mut bytes = Vec::new();
        File::from(fd).read_to_end(&mut bytes).map(|_| bytes)
    };
    tokio::task::spawn_blocking(read).await.unwrap().unwrap()
}

#[tokio::test]
async fn a_file_gets_the_bytes_as_they_are_and_keeps_what_it_had() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("out");
    std::fs::write(&path, "before ").unwrap();
    let (stdio, pumps) = start("", &format!("file://{}", path.display()));
    File::from(stdio.stdout.unwrap()).write_all(b"after").unwrap();
    pumps.finish(TEST_TIMEOUT).await;
    assert_eq!(std::fs::read(&path).unwrap(), b"before after");
}

#[tokio::test]
async fn a_log_is_complete_when_its_pumps_have_finished() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("0.log");
    let (stdio, pumps) = start("", &format!("cri-log://{}", path.display()));
    File::from(stdio.stdout.unwrap()).write_all(b"one\ntwo").unwrap();
    pumps.finish(TEST_TIMEOUT).await;
    let log = std::fs::read_to_string(&path).unwrap();
    let lines: Vec<&str> = log.lines().map(|line| &line[timestamp::LENGTH..]).collect();
    assert_eq!(lines, [" stdout F one", " stdout P two"]);
}

#[tokio::test]
async fn a_pipe_that_somebody_keeps_open_does_not_hang_the_end() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("0.log");
    let (stdio, pumps) = start("", &format!("cri-log://{}", path.display()));
    let mut kept = File::from(stdio.stdout.unwrap());
    kept.write_all(b"said\n").unwrap();
    pumps.finish(Duration::from_millis(1)).await;
    assert!(std::fs::read_to_string(&path).unwrap().ends_with(" stdout F said\n"));
}

#[tokio::test]
async fn a_fifo_reader_may_come_after_the_process_has_printed() {
    let directory = tempfile::tempdir().unwrap();
    let path = fifo(&directory, "out");
    let (stdio, pumps) = start("", &path);
    File::from(stdio.stdout.unwrap()).write_all(b"hello").unwrap();
    let reader = File::open(&path).unwrap();
    pumps.finish(TEST_TIMEOUT).await;
    assert_eq!(read_to_end(reader.into()).await, b"hello");
}

/// Like a client that is still opening its FIFOs when its exec has already ended.
#[tokio::test]
async fn a_fifo_reader_may_even_come_after_the_process_has_ended() {
    let directory = tempfile::tempdir().unwrap();
    let path = fifo(&directory, "out");
    let (stdio, pumps) = start("", &path);
    File::from(stdio.stdout.unwrap()).write_all(b"hello").unwrap();
    let finished = tokio::spawn(pumps.finish(TEST_TIMEOUT));
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
    let reader = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(&path).unwrap();
    finished.await.unwrap();
    assert_eq!(read_to_end(reader.into()).await, b"hello");
}

#[tokio::test]
async fn a_fifo_reader_that_leaves_breaks_nothing_for_the_next() {
    let directory = tempfile::tempdir().unwrap();
    let path = fifo(&directory, "out");
    let (stdio, pumps) = start("", &path);
    drop(open_now(&path));
    File::from(stdio.stdout.unwrap()).write_all(b"hello").unwrap();
    let reader = open_now(&path);
    pumps.finish(TEST_TIMEOUT).await;
    let mut bytes = [0; 10];
    assert_eq!((&reader).read(&mut bytes).unwrap(), 5);
}

#[tokio::test]
async fn a_fifo_that_nobody_reads_does_not_hang_the_end() {
    let directory = tempfile::tempdir().unwrap();
    let (stdio, pumps) = start("", &fifo(&directory, "out"));
    let writer = File::from(stdio.stdout.unwrap());
    let more_than_all_pipes_hold = async {
        tokio::task::spawn_blocking(move || (&writer).write_all(&[b'x'; 512 * 1024])).await.unwrap()
    };
    let (written, ()) = tokio::join!(more_than_all_pipes_hold, pumps.finish(Duration::from_millis(1)));
    assert_eq!(written.unwrap_err().kind(), io::ErrorKind::BrokenPipe);
}

#[tokio::test]
async fn input_given_once_ends_with_its_writer() {
    let directory = tempfile::tempdir().unwrap();
    let path = fifo(&directory, "in");
    let (stdio, _pumps) = start(&format!("{path}?once=1"), "");
    OpenOptions::new().write(true).open(&path).unwrap().write_all(b"all of it").unwrap();
    assert_eq!(read_to_end(stdio.stdin.unwrap()).await, b"all of it");
}

#[tokio::test]
async fn other_input_goes_on_with_the_next_writer_until_it_is_closed() {
    let directory = tempfile::tempdir().unwrap();
    let path = fifo(&directory, "in");
    let (stdio, pumps) = start(&path, "");
    let stdin = asynchronous(stdio.stdin.unwrap()).unwrap();
    let mut buffer = Vec::with_capacity(100);
    for text in ["first", "second"] {
        OpenOptions::new().write(true).open(&path).unwrap().write_all(text.as_bytes()).unwrap();
        while read(&stdin, &mut buffer) == Read::Nothing {
            stdin.readable().await.unwrap().retain_ready();
        }
        assert_eq!(buffer, text.as_bytes());
    }
    OpenOptions::new().write(true).open(&path).unwrap().write_all(b"last").unwrap();
    pumps.close_stdin();
    let mut all = Vec::new();
    loop {
        match read(&stdin, &mut buffer) {
            Read::Some => all.extend_from_slice(&buffer),
            Read::End => break,
            Read::Nothing => stdin.readable().await.unwrap().retain_ready(),
        }
    }
    assert_eq!(all, b"last");
}

#[test]
fn a_stream_that_cannot_be_opened_is_named() {
    let directory = tempfile::tempdir().unwrap();
    let missing = directory.path().join("missing/0.log");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let _entered = runtime.enter();
    for uri in
        [format!("cri-log://{}", missing.display()), missing.display().to_string(), "/etc/passwd".into()]
    {
        let error = connect(&Streams::parse("", &uri, "", false).unwrap()).unwrap_err().to_string();
        assert!(error.contains(uri.trim_start_matches("cri-log://")), "{error}");
    }
    assert!(!missing.exists());
}

#[test]
fn a_fifo_in_the_place_of_a_file_is_refused_at_once() {
    let directory = tempfile::tempdir().unwrap();
    let path = fifo(&directory, "0.log");
    for scheme in ["cri-log", "file"] {
        let streams = Streams::parse("", &format!("{scheme}://{path}"), "", false).unwrap();
        let (told, opened) = std::sync::mpsc::channel();
        std::thread::spawn(move || told.send(connect(&streams).is_err()));
        assert_eq!(opened.recv_timeout(TEST_TIMEOUT), Ok(true), "{scheme}");
    }
}

#[tokio::test]
async fn a_copy_stops_growing_and_its_writer_goes_on() {
    let directory = tempfile::tempdir().unwrap();
    let (from, to) = (fifo(&directory, "log"), directory.path().join("copy"));
    std::fs::write(&to, "before").unwrap();
    copy(Path::new(&from), &to).unwrap();
    let write = move || OpenOptions::new().write(true).open(from).unwrap().write_all(&[b'x'; 1 << 20]);
    tokio::task::spawn_blocking(write).await.unwrap().unwrap();
    assert_eq!(std::fs::metadata(&to).unwrap().len(), MAX_COPY_BYTES);
}
