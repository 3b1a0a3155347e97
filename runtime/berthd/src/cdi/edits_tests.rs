#![allow(clippy::unwrap_used)]
use serde_json::{Value, json};

use super::*;
use crate::cdi::file::{Format, SpecFile};

/// Returns the specification after the edits of one device, which must have no nodes: those need a host.
fn edited(before: Value, edits: Value) -> Value {
    let file =
        json!({"cdiVersion": "1.1.0", "kind": "v/c", "devices": [{"name": "d", "containerEdits": edits}]});
    let file = SpecFile::parse(file.to_string().as_bytes(), Format::Json).unwrap();
    let part = &file.devices[0].container_edits;
    let edits = Edits {
        env: part.env.clone(),
        mounts: part.mounts.clone(),
        hooks: part.hooks.clone(),
        additional_gids: part.additional_gids.clone(),
        nodes: Vec::new(),
    };
    let mut spec: Spec = serde_json::from_value(before).unwrap();
    edits.apply(&mut spec);
    serde_json::to_value(spec).unwrap()
}

fn spec() -> Value {
    json!({
        "ociVersion": "1.2.0",
        "process": {
            "user": {"uid": 1000, "gid": 2000, "additionalGids": [5]}, "args": ["sh"], "cwd": "/",
            "env": ["PATH=/bin", "LIB=/usr/lib"],
        },
        "mounts": [
            {"destination": "/dev", "type": "tmpfs", "source": "tmpfs"},
            {"destination": "/opt/lib", "type": "bind", "source": "/old"},
        ],
        "linux": {"namespaces": [{"type": "mount"}]},
    })
}

#[test]
fn variables_and_mounts_take_the_place_of_those_of_the_same_name() {
    let spec = edited(
        spec(),
        json!({
            "env": ["LIB=/opt/lib", "MORE=1=2"],
            "mounts": [
                {"hostPath": "/usr/lib/vendor", "containerPath": "/opt/lib", "options": ["ro", "rbind"]},
                {"hostPath": "tmpfs", "containerPath": "/run", "type": "tmpfs", "options": ["mode=755"]},
            ],
            "additionalGids": [0, 5, 44],
        }),
    );
    assert_eq!(spec["process"]["env"], json!(["PATH=/bin", "LIB=/opt/lib", "MORE=1=2"]));
    assert_eq!(spec["process"]["user"]["additionalGids"], json!([5, 44]));
    let mounts: Vec<_> =
        spec["mounts"].as_array().unwrap().iter().map(|one| one["destination"].clone()).collect();
    assert_eq!(mounts, ["/dev", "/run", "/opt/lib"], "outer ones come first");
    let library = &spec["mounts"][2];
    assert_eq!((&library["type"], &library["source"]), (&json!("bind"), &json!("/usr/lib/vendor")));
    assert_eq!(library["options"], json!(["ro", "rbind"]));
}

#[test]
fn ids_of_mounts_are_mapped_in_a_user_namespace() {
    let mut before = spec();
    before["linux"]["namespaces"] = json!([{"type": "user"}]);
    let mount = json!({"mounts": [
        {"hostPath": "/a", "containerPath": "/a", "options": ["bind"]},
        {"hostPath": "tmpfs", "containerPath": "/b", "type": "tmpfs"},
    ]});
    let spec = edited(before, mount);
    assert_eq!(spec["mounts"][1]["options"], json!(["bind", "idmap"]));
    assert_eq!(spec["mounts"][2]["options"], json!([]));
}

#[test]
fn hooks_are_added_where_they_belong() {
    let hook =
        |name: &str| json!({"hookName": name, "path": "/bin/hook", "args": ["hook", name], "timeout": 3});
    let names = ["prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"];
    let spec = edited(spec(), json!({"hooks": names.map(hook)}));
    for name in names {
        assert_eq!(spec["hooks"][name], json!([{"path": "/bin/hook", "args": ["hook", name], "timeout": 3}]));
    }
}
