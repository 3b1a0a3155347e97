#![allow(clippy::unwrap_used)]
use super::*;

fn directory(files: &[(&str, &str)]) -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    for (name, content) in files {
        let path = directory.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }
    directory
}

fn parse(content: &str) -> Result<NetworkConf, String> {
    let directory = directory(&[("10-net.conflist", content)]);
    NetworkConf::from_file(&directory.path().join("10-net.conflist"))
}

#[test]
fn networks_come_in_order_of_name_and_broken_files_cost_only_themselves() {
    let directory = directory(&[
        ("20-b.conf", r#"{"cniVersion":"0.3.1","name":"b","type":"ptp"}"#),
        ("00-broken.conflist", "{"),
        (
            "10-a.conflist",
            r#"{"cniVersion":"1.0.0","name":"a","plugins":[{"type":"bridge"},{"type":"portmap"}]}"#,
        ),
        ("30-c.json", r#"{"cniVersion":"0.4.0","name":"c","type":"macvlan"}"#),
        ("README", "no configuration"),
    ]);
    let loaded = Loaded::from_directory(directory.path());
    let names: Vec<&str> = loaded.networks.iter().map(|network| network.name.as_str()).collect();
    assert_eq!(names, ["a", "b", "c"]);
    assert_eq!(loaded.networks[0].plugins[1].kind(), "portmap");
    assert_eq!(loaded.broken.len(), 1);
    assert!(loaded.broken[0].0.ends_with("00-broken.conflist"));
}

#[test]
fn an_absent_directory_is_reported_and_gives_no_network() {
    let loaded = Loaded::from_directory(Path::new("/no/such/directory"));
    assert!(loaded.networks.is_empty());
    assert_eq!(loaded.broken[0].0, Path::new("/no/such/directory"));
}

#[test]
fn the_newest_version_both_sides_speak_is_used() {
    let with = |versions| {
        parse(&format!(r#"{{{versions},"name":"n","plugins":[{{"type":"x"}}]}}"#)).unwrap().version
    };
    assert_eq!(with(r#""cniVersion":"0.3.1""#), Version::V0_3_1);
    assert_eq!(with(r#""cniVersion":"0.4.0","cniVersions":["1.1.0","9.0.0"]"#), Version::V1_1_0);
    assert_eq!(with(r#""cniVersion":"9.0.0","cniVersions":["1.0.0"]"#), Version::V1_0_0);
}

#[test]
fn flags_may_be_written_as_text() {
    let network = parse(
        r#"{"cniVersion":"1.1.0","name":"n","disableCheck":"True","disableGC":true,"plugins":[{"type":"x"}]}"#,
    )
    .unwrap();
    assert!(network.disable_check && network.disable_gc);
}

#[test]
fn plugins_in_a_directory_named_like_the_network_are_chained_after_the_inlined_ones() {
    let list = |more| format!(r#"{{"cniVersion":"1.1.0","name":"net"{more},"plugins":[{{"type":"a"}}]}}"#);
    let kinds = |list: &str| {
        let directory = directory(&[
            ("1.conflist", list),
            ("net/2.conf", r#"{"type":"c"}"#),
            ("net/1.conf", r#"{"type":"b"}"#),
        ]);
        let network = NetworkConf::from_file(&directory.path().join("1.conflist")).unwrap();
        network.plugins.iter().map(|plugin| plugin.kind().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(kinds(&list("")), ["a", "b", "c"]);
    assert_eq!(kinds(&list(r#","loadOnlyInlinedPlugins":true"#)), ["a"]);
}

#[test]
fn what_cannot_be_used_is_refused_with_the_reason() {
    let cases = [
        ("[]", "no JSON object"),
        (r#"{"cniVersion":"1.0.0","plugins":[{"type":"x"}]}"#, "no name"),
        (r#"{"cniVersion":"1.0.0","name":"../x","plugins":[{"type":"x"}]}"#, "must be letters"),
        (r#"{"cniVersion":"1.0.0","name":7,"plugins":[{"type":"x"}]}"#, "name is no text but 7"),
        (r#"{"name":"n","plugins":[{"type":"x"}]}"#, "no cniVersion"),
        (r#"{"cniVersion":"0.2.0","name":"n","plugins":[{"type":"x"}]}"#, "not between 0.3.0 and 1.1.0"),
        (r#"{"cniVersion":"1.0.0","name":"n","plugins":[]}"#, "no plugins"),
        (r#"{"cniVersion":"1.0.0","name":"n"}"#, "no plugins"),
        (r#"{"cniVersion":"1.0.0","name":"n","plugins":{}}"#, "plugins is no list"),
        (r#"{"cniVersion":"1.0.0","name":"n","plugins":[7]}"#, "no JSON object"),
        (r#"{"cniVersion":"1.0.0","name":"n","plugins":[{}]}"#, "no type"),
        (r#"{"cniVersion":"1.0.0","name":"n","plugins":[{"type":"../sh"}]}"#, "slash"),
        (r#"{"cniVersion":"1.0.0","name":"n","disableCheck":3,"plugins":[{"type":"x"}]}"#, "disableCheck"),
    ];
    for (content, reason) in cases {
        let why = parse(content).unwrap_err();
        assert!(why.contains(reason), "{content}: {why}");
    }
}
