#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::io::Write;

use super::*;

fn load(text: &str) -> Result<Config, Error> {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(text.as_bytes()).unwrap();
    Config::load(file.path())
}

/// Returns the error with its causes, as the daemon prints it.
fn refusal(text: &str) -> String {
    let error = load(text).expect_err(text);
    let source = std::error::Error::source(&error).map(ToString::to_string).unwrap_or_default();
    format!("{error}: {source}")
}

#[test]
fn an_empty_file_gives_the_defaults() {
    assert_eq!(load("").unwrap(), Config::default());
}

#[test]
fn the_printed_defaults_are_the_defaults() {
    assert_eq!(load(&default_text()).unwrap(), Config::default());
}

#[test]
fn every_key_is_printed_below_a_comment() {
    let text = default_text();
    let printed: toml::Table = toml::from_str(&text).unwrap();
    assert_eq!(printed, toml::Table::try_from(Config::default()).unwrap(), "a section is missing");
    let lines: Vec<&str> = text.lines().collect();
    for (above, line) in
        lines.iter().zip(&lines[1..]).filter(|(_, line)| line.contains(" = ") && !line.starts_with('#'))
    {
        assert!(above.starts_with("# "), "{line} has no comment");
    }
}

#[test]
fn keys_that_are_unset_are_printed_too() {
    let text = default_text();
    assert!(text.contains("\n# path =\n") && text.contains("\n# shim =\n"), "{text}");
}

#[test]
fn an_unknown_key_is_refused_by_name_and_line_in_every_section() {
    let mut sections = vec![String::new()];
    sections
        .extend(default_text().lines().filter(|line| line.starts_with('[')).map(|line| format!("{line}\n")));
    assert!(sections.len() > 4);
    for section in sections {
        let error = refusal(&format!("{section}colour = 1\n"));
        let line = section.lines().count() + 1;
        assert!(error.contains("unknown field `colour`"), "{section}{error}");
        assert!(error.contains(&format!("line {line}")), "{section}{error}");
    }
}

#[test]
fn an_unknown_section_is_refused() {
    assert!(refusal("[plugins.cri]\nx = 1\n").contains("unknown field `plugins`"));
}

#[test]
fn a_value_of_the_wrong_type_is_refused_with_its_line() {
    for (text, expected) in [
        ("root = 3", "expected path string"),
        ("\n[socket]\nmode = 660", "line 3"),
        ("[socket]\nmode = \"0888\"", "an octal mode such as"),
        ("[socket]\nmode = \"7777\"", "an octal mode such as"),
        ("[socket]\nuid = -1", "u32"),
        ("[log]\nformat = \"xml\"", "`text` or `json`"),
        ("[pods]\nrestrict_oom_score_adj = \"maybe\"", "`auto`"),
        ("[images]\nhosts_dirs = \"/etc\"", "sequence"),
        ("[streaming]\naddress = \"localhost\"", "socket address"),
        ("root = \"/a\"\nroot = \"/b\"", "duplicate key"),
        ("root", "line 1"),
    ] {
        let error = refusal(text);
        assert!(error.contains(expected), "{text}: {error}");
    }
}

#[test]
fn a_value_that_cannot_work_is_refused_with_its_key() {
    for (text, key) in [
        ("root = \"var\"", "root"),
        ("state = \"\"", "state"),
        ("[socket]\npath = \"berth.sock\"", "socket.path"),
        ("[log]\nlevel = \"loud=very\"", "log.level"),
        ("[images]\nhosts_dirs = [\"certs.d\"]", "images.hosts_dirs"),
        ("[images]\nmax_parallel_layers = 0", "images.max_parallel_layers"),
        ("[images]\npinned = [\"a b\"]", "images.pinned"),
        ("[pods]\nshim = \"shim\"", "pods.shim"),
        ("[pods]\ncgroup_root = \"/\"", "pods.cgroup_root"),
        ("[pods]\ncgroup_root = \"/a/../..\"", "pods.cgroup_root"),
        ("[pods]\nmax_log_line = 1", "pods.max_log_line"),
        ("[network]\nnetns_dir = \"netns\"", "network.netns_dir"),
        ("[streaming]\ntls_certificate = \"a.pem\"\ntls_key = \"/b.pem\"", "streaming.tls_certificate"),
        ("[streaming]\ntls_certificate = \"/a.pem\"\ntls_key = \"b.pem\"", "streaming.tls_key"),
        ("[streaming]\ntls_certificate = \"/a.pem\"", "streaming.tls_key"),
        ("[streaming]\ntls_key = \"/b.pem\"", "streaming.tls_key"),
        ("[streaming]\nidle_timeout_seconds = 0", "streaming.idle_timeout_seconds"),
        ("[streaming]\nidle_timeout_seconds = 9223372036854775807", "streaming.idle_timeout_seconds"),
    ] {
        let error = refusal(text);
        assert!(error.contains(&format!("key {key} =")), "{text}: {error}");
    }
}

#[test]
fn pinned_images_may_be_named_as_people_do() {
    let config = load("[images]\npinned = [\"busybox\", \"registry.example/pause:3\"]").unwrap();
    assert_eq!(
        config.images.pinned_names(),
        ["docker.io/library/busybox:latest", "registry.example/pause:3"]
    );
}

#[test]
fn a_missing_file_is_named() {
    let error = Config::load(Path::new("/nonexistent/berth.toml")).unwrap_err();
    assert!(error.to_string().contains("/nonexistent/berth.toml"));
}

#[test]
fn the_socket_follows_the_state_directory_unless_named() {
    let moved = load("state = \"/run/other\"").unwrap();
    assert_eq!(moved.socket_path(), Path::new("/run/other/berth.sock"));
    let named = load("[socket]\npath = \"/run/cri.sock\"\nmode = \"0600\"").unwrap();
    assert_eq!(named.socket_path(), Path::new("/run/cri.sock"));
    assert_eq!(named.socket.mode.bits(), 0o600);
}
