#![allow(clippy::unwrap_used, clippy::expect_used, clippy::type_complexity)]
use super::*;
use std::collections::HashMap;
use std::fs;

/// One record: stream, tag, content.
type Record = (String, char, Vec<u8>);

fn parse(log: &[u8]) -> Vec<Record> {
    assert!(log.is_empty() || log.ends_with(b"\n"), "a record without its end");
    log.split_inclusive(|&byte| byte == b'\n').map(parse_record).collect()
}

fn parse_record(line: &[u8]) -> Record {
    let mut fields = line[..line.len() - 1].splitn(4, |&byte| byte == b' ');
    let time = fields.next().unwrap();
    assert_eq!((time.len(), time[10], time[time.len() - 1]), (LENGTH, b'T', b'Z'));
    let stream = String::from_utf8(fields.next().unwrap().to_vec()).unwrap();
    let tag = fields.next().unwrap();
    assert_eq!(tag.len(), 1);
    (stream, tag[0] as char, fields.next().unwrap().to_vec())
}

/// Output of each stream as a reader of the log reassembles it.
fn contents(records: &[Record]) -> HashMap<String, Vec<u8>> {
    let mut contents: HashMap<String, Vec<u8>> = HashMap::new();
    for (stream, tag, bytes) in records {
        let content = contents.entry(stream.clone()).or_default();
        content.extend_from_slice(bytes);
        if *tag == 'F' {
            content.push(b'\n');
        }
    }
    contents
}

struct Fixture {
    _directory: tempfile::TempDir,
    path: PathBuf,
    log: CriLog,
}

impl Fixture {
    fn new(max_line: usize) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("0.log");
        Self { log: CriLog::open(&path, max_line).unwrap(), path, _directory: directory }
    }

    fn records(&self) -> Vec<Record> {
        parse(&fs::read(&self.path).unwrap())
    }
}

#[test]
fn pieces_become_records() {
    let table: &[(&[&str], &[(char, &str)])] = &[
        (&[], &[]),
        (&["a\n"], &[('F', "a")]),
        (&["\n\n"], &[('F', ""), ('F', "")]),
        (&["a", "b\nc", "\n"], &[('F', "ab"), ('F', "c")]),
        (&["no end"], &[('P', "no end")]),
        (&["an end\n", "and none"], &[('F', "an end"), ('P', "and none")]),
        (&["12345678\n"], &[('F', "12345678")]),
        (&["12345678", "\n"], &[('F', "12345678")]),
        (&["123456789\n"], &[('P', "12345678"), ('F', "9")]),
        (&["12345678", "9\n"], &[('P', "12345678"), ('F', "9")]),
        (&["1234567890123456"], &[('P', "12345678"), ('P', "90123456")]),
        (&["x\r\n"], &[('F', "x\r")]),
    ];
    for (pieces, expected) in table {
        let fixture = Fixture::new(8);
        pieces.iter().for_each(|piece| fixture.log.append(Stream::Stdout, piece.as_bytes()));
        fixture.log.end(Stream::Stdout);
        let expected: Vec<Record> =
            expected.iter().map(|(tag, line)| ("stdout".into(), *tag, line.as_bytes().to_vec())).collect();
        assert_eq!(fixture.records(), expected, "{pieces:?}");
    }
}

#[test]
fn a_line_without_end_is_not_written_before_the_stream_ends() {
    let fixture = Fixture::new(100);
    fixture.log.append(Stream::Stderr, b"wait");
    assert!(fixture.records().is_empty());
    fixture.log.end(Stream::Stderr);
    fixture.log.end(Stream::Stderr);
    assert_eq!(fixture.records(), [("stderr".into(), 'P', b"wait".to_vec())]);
}

#[test]
fn lines_of_two_streams_never_mix() {
    let fixture = Fixture::new(100);
    for (stream, piece) in [
        (Stream::Stdout, "out"),
        (Stream::Stderr, "err"),
        (Stream::Stdout, "put\n"),
        (Stream::Stderr, "or\n"),
    ] {
        fixture.log.append(stream, piece.as_bytes());
    }
    let record = |stream: &str, line: &str| (stream.to_owned(), 'F', line.as_bytes().to_vec());
    assert_eq!(fixture.records(), [record("stdout", "output"), record("stderr", "error")]);
}

/// A small generator with a fixed sequence, so that a failure can be reproduced.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % limit
    }

    fn bytes(&mut self, length: usize) -> Vec<u8> {
        (0..length).map(|_| if self.below(40) == 0 { b'\n' } else { self.below(256) as u8 }).collect()
    }
}

#[test]
fn any_bytes_in_any_pieces_come_out_as_they_went_in() {
    for seed in 0..60 {
        let mut random = Random(seed);
        let max_line = 1 + random.below(300);
        let fixture = Fixture::new(max_line);
        let mut sent: HashMap<String, Vec<u8>> = HashMap::new();
        for _ in 0..random.below(60) {
            let length = random.below(900);
            let bytes = random.bytes(length);
            let (stream, name) =
                if random.below(2) == 0 { (Stream::Stdout, "stdout") } else { (Stream::Stderr, "stderr") };
            fixture.log.append(stream, &bytes);
            sent.entry(name.into()).or_default().extend(bytes);
        }
        fixture.log.end(Stream::Stdout);
        fixture.log.end(Stream::Stderr);
        let records = fixture.records();
        assert!(records.iter().all(|(_, _, line)| line.len() <= max_line), "seed {seed}");
        sent.retain(|_, bytes| !bytes.is_empty());
        assert_eq!(contents(&records), sent, "seed {seed}");
    }
}

#[test]
fn output_larger_than_a_batch_is_written_completely() {
    let fixture = Fixture::new(16 * 1024);
    let line = [b'x'; 999];
    let output: Vec<u8> = (0..300).flat_map(|_| line.iter().copied().chain([b'\n'])).collect();
    fixture.log.append(Stream::Stdout, &output);
    let records = fixture.records();
    assert_eq!(records.len(), 300);
    assert!(records.iter().all(|(_, tag, content)| *tag == 'F' && content == &line));
}

#[test]
fn rotation_under_load_loses_and_splits_nothing() {
    const LINES: usize = 20_000;
    let fixture = Fixture::new(64);
    let old = |n: usize| fixture.path.with_extension(n.to_string());
    std::thread::scope(|scope| {
        for (stream, start) in [(Stream::Stdout, 0), (Stream::Stderr, LINES)] {
            let log = &fixture.log;
            scope.spawn(move || {
                (start..start + LINES).for_each(|n| log.append(stream, format!("line {n}\n").as_bytes()));
            });
        }
        for n in 0..50 {
            fs::rename(&fixture.path, old(n)).unwrap();
            fixture.log.reopen().unwrap();
        }
    });
    let files = (0..50).map(old).chain([fixture.path.clone()]);
    let records: Vec<Record> = files.flat_map(|file| parse(&fs::read(file).unwrap())).collect();
    for (stream, start) in [("stdout", 0), ("stderr", LINES)] {
        let lines: Vec<&[u8]> =
            records.iter().filter(|record| record.0 == stream).map(|record| record.2.as_slice()).collect();
        let expected: Vec<Vec<u8>> =
            (start..start + LINES).map(|n| format!("line {n}").into_bytes()).collect();
        assert!(lines == expected, "{stream}");
    }
}

#[test]
fn a_failed_reopen_changes_nothing_and_makes_nothing() {
    let fixture = Fixture::new(64);
    let directory = fixture.path.parent().unwrap();
    let moved = directory.with_extension("moved");
    fs::rename(directory, &moved).unwrap();
    assert!(fixture.log.reopen().is_err());
    assert!(!directory.exists());
    fixture.log.append(Stream::Stdout, b"kept\n");
    fs::rename(&moved, directory).unwrap();
    assert_eq!(fixture.records(), [("stdout".into(), 'F', b"kept".to_vec())]);
}

#[test]
fn root_a_full_disk_drops_lines_and_recovers() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("0.log");
    let full = rustix::fs::makedev(1, 7);
    let (kind, mode) = (rustix::fs::FileType::CharacterDevice, Mode::RUSR | Mode::WUSR);
    rustix::fs::mknodat(CWD, &path, kind, mode, full).expect("needs root: sudo -E cargo test -p berth-shim");
    let log = CriLog::open(&path, 64).unwrap();
    log.append(Stream::Stdout, b"lost\nlost too\nbegun");
    assert_eq!(log.state().dropped, 2);
    fs::remove_file(&path).unwrap();
    log.reopen().unwrap();
    log.append(Stream::Stdout, b" and kept\n");
    assert_eq!(log.state().dropped, 0);
    assert_eq!(parse(&fs::read(&path).unwrap()), [("stdout".into(), 'F', b"begun and kept".to_vec())]);
}

#[test]
fn a_record_that_was_written_by_half_is_cut_off() {
    let fixture = Fixture::new(64);
    fs::write(&fixture.path, b"first\nsecond\nhal").unwrap();
    let state = &mut *fixture.log.state();
    let (batch, written) = (b"second\nhalf\nthird\n", b"second\nhal".len());
    state.drop_after(batch, written, &io::Error::from_raw_os_error(libc::ENOSPC), &fixture.path);
    assert_eq!(fs::read(&fixture.path).unwrap(), b"first\nsecond\n");
    assert_eq!(state.dropped, 2);
}

#[test]
fn no_link_is_followed_neither_at_first_nor_when_it_is_opened_anew() {
    let place = tempfile::tempdir().unwrap();
    let at = |name: &str| place.path().join(name);
    std::fs::create_dir(at("elsewhere")).unwrap();
    std::fs::write(at("elsewhere/precious"), "kept").unwrap();
    std::os::unix::fs::symlink(at("elsewhere"), at("directory")).unwrap();
    let link = || std::os::unix::fs::symlink(at("elsewhere/precious"), at("0.log")).unwrap();
    link();
    for path in ["directory/new", "directory/precious", "0.log"] {
        let refused = CriLog::open(&at(path), 80).unwrap_err();
        assert_eq!(refused.raw_os_error(), Some(libc::ELOOP), "{path}");
    }
    std::fs::remove_file(at("0.log")).unwrap();
    let log = CriLog::open(&at("0.log"), 80).unwrap();
    std::fs::rename(at("0.log"), at("0.log.1")).unwrap();
    link();
    assert!(log.reopen().is_err());
    log.append(Stream::Stdout, b"line\n");
    assert_eq!(std::fs::read(at("elsewhere/precious")).unwrap(), b"kept");
    assert!(!at("elsewhere/new").exists() && at("0.log.1").metadata().unwrap().len() > 0);
}
