use std::{fs, os::unix::fs::PermissionsExt, path::PathBuf};

use berth_cri::v1;
use berth_tests::{
    berth::Berth,
    nri::Plugin,
    pod::{pod, shell},
};
use serde_json::{Value, json};

/// Starts a plugin that adjusts the container `c`.
async fn adjuster(berth: &Berth, identity: &str, adjust: Value) -> Plugin {
    Plugin::connect(berth, "adjuster", identity, json!({"adjust": {"c": adjust}})).await
}

/// Writes a hook program that appends its first argument and its standard input to a file. Returns the paths of both.
fn hook(berth: &Berth) -> (PathBuf, PathBuf) {
    let (program, told) = (berth.path().join("hook"), berth.path().join("hooks"));
    fs::write(
        &program,
        format!("#!/bin/sh\nprintf '%s ' \"$1\" >> {0}; cat >> {0}; echo >> {0}\n", told.display()),
    )
    .unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    (program, told)
}

#[tokio::test(flavor = "multi_thread")]
async fn root_hooks_that_plugins_add_are_run_with_the_state_of_the_container() {
    let mut berth = Berth::start().await;
    let image = berth.busybox().await;
    let (program, told) = hook(&berth);
    let one = |name: &str| json!([{"path": program, "args": ["hook", name], "timeout": {"value": 10}}]);
    let hooks = json!({"hooks": {
        "prestart": one("prestart"), "create_runtime": one("create_runtime"),
        "create_container": one("create_container"), "poststart": one("poststart"), "poststop": one("poststop"),
        "start_container": [{"path": "/bin/sh", "args": ["sh", "-c", "cat > /started"]}],
    }});
    let _plugin = adjuster(&berth, "10-hooks", hooks).await;
    let sandbox = pod(&berth, "p");
    let id = berth.run(&sandbox).await.unwrap();
    let container = berth.create(&id, &sandbox, shell("c", &image, "exec sleep 1000")).await.unwrap();
    let names = || -> Vec<(String, String)> {
        let text = fs::read_to_string(&told).unwrap_or_default();
        let split = |line: &str| {
            let (name, state) = line.split_once(' ').unwrap();
            let state: Value = serde_json::from_str(state).unwrap();
            assert_eq!(state["id"].as_str(), Some(container.as_str()));
            (name.to_owned(), state["status"].as_str().unwrap().to_owned())
        };
        text.lines().map(split).collect()
    };
    let pair = |name: &str, status: &str| (name.to_owned(), status.to_owned());
    let mut expected = vec![
        pair("prestart", "creating"),
        pair("create_runtime", "creating"),
        pair("create_container", "creating"),
    ];
    assert_eq!(names(), expected);
    berth.start_container(&container).await.unwrap();
    expected.push(pair("poststart", "running"));
    assert_eq!(names(), expected);
    let state: Value = serde_json::from_str(&berth.shell(&container, "cat /started").await).unwrap();
    assert_eq!(state["status"], "created");
    berth.stop_container(&container, 0).await.unwrap();
    berth.remove_container(&container).await.unwrap();
    expected.push(pair("poststop", "stopped"));
    assert_eq!(names(), expected, "a container is removed when its last hooks are done");
}

#[tokio::test(flavor = "multi_thread")]
async fn root_a_hook_that_fails_or_hangs_fails_the_container_and_leaves_nothing() {
    let mut berth = Berth::start().await;
    let image = berth.busybox().await;
    let sandbox = pod(&berth, "p");
    let id = berth.run(&sandbox).await.unwrap();
    for (number, (when, script, word)) in [
        ("create_runtime", "echo no such thing >&2; exit 3", "no such thing"),
        ("create_container", "exit 4", "4"),
        ("create_runtime", "sleep 1000", "1 s"),
    ]
    .into_iter()
    .enumerate()
    {
        let hook = json!([{"path": "/bin/sh", "args": ["sh", "-c", script], "timeout": {"value": 1}}]);
        let _plugin = adjuster(&berth, &format!("1{number}-hooks"), json!({"hooks": {when: hook}})).await;
        let failed = berth.create(&id, &sandbox, shell("c", &image, "true")).await.unwrap_err();
        assert!(
            failed.message().contains(word) && failed.message().contains("/bin/sh"),
            "{}",
            failed.message()
        );
        assert!(fs::read_dir(berth.path().join("run/containers")).unwrap().next().is_none());
    }
    let hook = json!([{"path": "/bin/sh", "args": ["sh", "-c", "exit 5"]}]);
    let _plugin = adjuster(&berth, "20-hooks", json!({"hooks": {"start_container": hook}})).await;
    let container = berth.create(&id, &sandbox, shell("c", &image, "true")).await.unwrap();
    let failed = berth.start_container(&container).await.unwrap_err();
    assert!(failed.message().contains("/bin/sh"), "{}", failed.message());
    assert_eq!(berth.status(&container).await.unwrap().reason, "StartError");
}

#[tokio::test(flavor = "multi_thread")]
async fn root_hooks_of_devices_and_of_plugins_run_in_the_order_in_which_they_were_added() {
    let directory = tempfile::tempdir().unwrap();
    let mut berth = Berth::start_with(&format!("[cdi]\ndirs = [{:?}]\n", directory.path())).await;
    let image = berth.busybox().await;
    let (program, told) = hook(&berth);
    let args = |moment: &str, whose: &str| json!(["hook", format!("{moment}:{whose}")]);
    let device = |name: &str| {
        let hooks = ["createRuntime", "poststop"]
            .map(|moment| json!({"hookName": moment, "path": program, "args": args(moment, name)}));
        json!({"name": name, "containerEdits": {"env": [format!("DEVICE_{name}=yes")], "hooks": hooks}})
    };
    let devices = [device("asked"), device("added")];
    let file = json!({"cdiVersion": "0.7.0", "kind": "vendor.com/d", "devices": devices});
    fs::write(directory.path().join("d.json"), file.to_string()).unwrap();
    let hooks = |whose: &str| {
        json!({
            "create_runtime": [{"path": program, "args": args("createRuntime", whose)}],
            "poststop": [{"path": program, "args": args("poststop", whose)}],
        })
    };
    let added = json!([{"name": "vendor.com/d=added"}, {"name": "vendor.com/d=asked"}]);
    let _second = adjuster(&berth, "20-second", json!({"hooks": hooks("second")})).await;
    let _first = adjuster(&berth, "10-first", json!({"hooks": hooks("first"), "CDI_devices": added})).await;
    let sandbox = pod(&berth, "p");
    let id = berth.run(&sandbox).await.unwrap();
    let mut config = shell("c", &image, "exec sleep 1000");
    config.cdi_devices = vec![v1::CdiDevice { name: "vendor.com/d=asked".into() }];
    let container = berth.create(&id, &sandbox, config).await.unwrap();
    berth.start_container(&container).await.unwrap();
    assert_eq!(berth.shell(&container, "echo $DEVICE_asked$DEVICE_added").await, "yesyes\n");
    berth.remove_container(&container).await.unwrap();
    let text = fs::read_to_string(&told).unwrap();
    let names: Vec<_> = text.lines().map(|line| line.split(' ').next().unwrap()).collect();
    let all = ["createRuntime", "poststop"]
        .map(|moment| ["asked", "first", "second", "added"].map(|whose| format!("{moment}:{whose}")));
    assert_eq!(names, all.concat());
}
