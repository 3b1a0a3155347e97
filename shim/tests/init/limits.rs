//! Limits read back from the cgroup's files as the kernel has taken them.

use super::support::{Fixture, Running, block_on};
use berth_shim::cgroup::Cgroup;
use berth_shim::spec::Resources;
use serde_json::{Value, json};

async fn sleeping(fixture: &Fixture, resources: Value) -> Running {
    let container =
        fixture.create("c1", &["/bin/sleep", "1000"], |spec| spec["linux"]["resources"] = resources);
    container.await.unwrap().start().await
}

/// Reads the file of the version that is mounted.
fn read(fixture: &Fixture, files: [(&str, &str); 2]) -> String {
    let path = fixture.cgroup_path("c1");
    let [(hierarchy, v1), (_, v2)] = files;
    let old = format!("/sys/fs/cgroup/{hierarchy}{path}/{v1}");
    let new = format!("/sys/fs/cgroup{path}/{v2}");
    std::fs::read_to_string(old).or_else(|_| std::fs::read_to_string(new)).unwrap().trim().to_owned()
}

#[test]
fn root_limits_are_in_force_before_the_process_runs_and_can_be_changed() {
    let fixture = Fixture::new();
    block_on(async {
        let running = sleeping(
            &fixture,
            json!({
                "memory": { "limit": 67108864, "swap": 67108864 }, "pids": { "limit": 20 },
                "cpu": { "shares": 512, "quota": 50000, "period": 100000, "cpus": "0" },
                "hugepageLimits": [{ "pageSize": "2MB", "limit": 0 }]
            }),
        )
        .await;
        assert_eq!(read(&fixture, [("memory", "memory.limit_in_bytes"), ("", "memory.max")]), "67108864");
        assert_eq!(read(&fixture, [("pids", "pids.max"), ("", "pids.max")]), "20");
        assert_eq!(read(&fixture, [("cpuset", "cpuset.cpus"), ("", "cpuset.cpus")]), "0");
        assert!(
            ["50000", "50000 100000"]
                .contains(&read(&fixture, [("cpu", "cpu.cfs_quota_us"), ("", "cpu.max")]).as_str())
        );
        assert!(
            ["512", "20"].contains(&read(&fixture, [("cpu", "cpu.shares"), ("", "cpu.weight")]).as_str())
        );
        for limit in [134_217_728_i64, 33_554_432] {
            let change: Resources =
                serde_json::from_value(json!({ "memory": { "limit": limit }, "cpu": { "quota": -1 } }))
                    .unwrap();
            running.cgroup.update(&change).unwrap();
            let now = read(&fixture, [("memory", "memory.limit_in_bytes"), ("", "memory.max")]);
            assert_eq!(now, limit.to_string());
        }
        assert_eq!(running.cgroup.stats().unwrap().memory.limit, 33_554_432);
        running.end();
    });
}

/// Memory and shares are changed before the cpuset is refused.
#[test]
fn root_limits_change_all_or_none() {
    let fixture = Fixture::new();
    block_on(async {
        let limits = json!({
            "memory": { "limit": 67108864, "swap": 134217728 },
            "cpu": { "shares": 512, "quota": 50000, "period": 100000 },
        });
        let running = sleeping(&fixture, limits).await;
        let now = || {
            [
                [("memory", "memory.limit_in_bytes"), ("", "memory.max")],
                [("memory", "memory.memsw.limit_in_bytes"), ("", "memory.swap.max")],
                [("cpu", "cpu.shares"), ("", "cpu.weight")],
                [("cpu", "cpu.cfs_quota_us"), ("", "cpu.max")],
                [("cpu", "cpu.cfs_period_us"), ("", "cpu.max")],
                [("cpuset", "cpuset.cpus"), ("", "cpuset.cpus")],
            ]
            .map(|files| read(&fixture, files))
        };
        let before = now();
        for wrong in [
            json!({ "memory": { "limit": 268435456, "swap": 268435456 }, "cpu": { "shares": 1024, "cpus": "4095" } }),
            json!({ "memory": { "limit": 33554432, "swap": 33554432 }, "cpu": { "cpus": "0", "quota": 20000, "period": 1 } }),
            json!({ "cpu": { "shares": 2, "quota": -1 }, "hugepageLimits": [{ "pageSize": "3MB", "limit": 1 }] }),
        ] {
            let change: Resources = serde_json::from_value(wrong.clone()).unwrap();
            running.cgroup.update(&change).unwrap_err();
            assert_eq!(now(), before, "{wrong}");
        }
        running.end();
    });
}

#[test]
fn root_a_container_of_one_process_can_be_made_and_entered() {
    let fixture = Fixture::new();
    block_on(async {
        let running = sleeping(&fixture, json!({ "pids": { "limit": 1 } })).await;
        let args = ["true".to_owned()];
        let (execed, _) = running.exec(berth_shim::init::ExecProcess::Args(&args)).await.unwrap();
        super::support::wait(std::os::fd::AsFd::as_fd(&execed.pidfd));
        assert_eq!(running.cgroup.stats().unwrap().pids.limit, 1);
        running.end();
    });
}

#[test]
fn root_a_process_killed_for_lack_of_memory_is_counted() {
    let fixture = Fixture::new();
    block_on(async {
        let container = fixture.create(
            "c1",
            &["/bin/sh", "-c", "dd if=/dev/zero of=/dev/null bs=100M count=1"],
            |spec| {
                spec["linux"]["resources"] = json!({ "memory": { "limit": 16777216, "swap": 16777216 } });
            },
        );
        let running = container.await.unwrap().start().await;
        super::support::wait(std::os::fd::AsFd::as_fd(&running.pidfd));
        assert!(running.cgroup.oom_kills() >= 1);
        running.cgroup.remove().unwrap();
    });
}

#[test]
fn root_devices_that_are_not_allowed_cannot_be_opened() {
    let fixture = Fixture::new();
    let (_, output) = fixture.run("cat /dev/kmsg-like; echo ok > /dev/null && echo null works", |spec| {
        spec["linux"]["devices"] =
            json!([{ "path": "/dev/kmsg-like", "type": "c", "major": 1, "minor": 11 }]);
    });
    assert!(output.contains("Operation not permitted"), "{output}");
    assert!(output.ends_with("null works\n"), "{output}");
}

#[test]
fn root_a_frozen_container_stands_still_until_thawed() {
    let fixture = Fixture::new();
    block_on(async {
        let running = sleeping(&fixture, json!({})).await;
        running.cgroup.freeze(std::time::Duration::from_secs(10)).await.unwrap();
        assert_eq!(running.cgroup.procs().unwrap(), [running.pid]);
        running.cgroup.thaw().unwrap();
        assert_eq!(running.sh("exit 5").await.0, 5);
        running.end();
    });
}

#[test]
fn root_removing_takes_groups_below_along_and_is_repeatable() {
    let fixture = Fixture::new();
    let outer = Cgroup::create(&fixture.cgroup_path("outer"), "outer", &Resources::default()).unwrap();
    Cgroup::create(&fixture.cgroup_path("outer/a/b"), "b", &Resources::default()).unwrap();
    outer.remove().unwrap();
    outer.remove().unwrap();
    assert!(!fixture.has_cgroup("outer"));
    assert!(outer.procs().unwrap().is_empty());
}

#[test]
fn root_a_limit_the_kernel_refuses_is_reported_and_the_group_is_gone() {
    let fixture = Fixture::new();
    let refused: Resources = serde_json::from_value(json!({ "cpu": { "cpus": "4000" } })).unwrap();
    let error = Cgroup::create(&fixture.cgroup_path("bad"), "bad", &refused).unwrap_err();
    assert!(error.to_string().contains("cpuset.cpus"), "{error}");
    assert!(!fixture.has_cgroup("bad"));
    for path in ["", "/", "/a/../../b"] {
        assert!(Cgroup::create(path, "c", &Resources::default()).is_err(), "{path}");
    }
}

#[test]
fn root_a_group_that_is_there_is_refused_and_stays_as_it_is() {
    let fixture = Fixture::new();
    let path = fixture.cgroup_path("c1");
    Cgroup::create(&path, "somebody", &Resources::default()).unwrap();
    block_on(async {
        let error = fixture.create("c1", &["/bin/true"], |_| {}).await.err().unwrap();
        assert!(error.to_string().contains("c1") && error.to_string().contains("File exists"), "{error}");
    });
    assert!(fixture.has_cgroup("c1"));
    Cgroup::of_container(&path, "c1").remove().unwrap();
    assert!(fixture.has_cgroup("c1"), "removed by one for whom it was not made");
    Cgroup::of_container(&path, "somebody").remove().unwrap();
    assert!(!fixture.has_cgroup("c1"));
}

/// A foreign runtime sets no mark.
#[test]
fn root_a_group_without_a_mark_is_its_who_has_its_name_if_nobody_else_can() {
    let fixture = Fixture::new();
    for (id, removed) in [("c1", false), ("0123456789abcdef".repeat(4).as_str(), true)] {
        let path = fixture.cgroup_path(id);
        let directories = super::pods::directories(&path);
        directories.iter().for_each(|directory| std::fs::create_dir(directory).unwrap());
        Cgroup::of_container(&path, "c2").remove().unwrap();
        Cgroup::of_container(&path, id).remove().unwrap();
        assert_eq!(directories.iter().all(|directory| !directory.exists()), removed, "{id}");
        directories.iter().for_each(|directory| drop(std::fs::remove_dir(directory)));
    }
}

/// Like the cleanup after a dead shim, by a caller that has only the path.
#[test]
fn root_only_for_whom_a_group_was_made_can_kill_in_it() {
    let fixture = Fixture::new();
    block_on(async {
        let running = sleeping(&fixture, json!({})).await;
        let path = fixture.cgroup_path("c1");
        Cgroup::of_container(&path, "c2").kill_and_remove(std::time::Duration::ZERO).await.unwrap();
        Cgroup::of_pod(&format!("/{}", fixture.name), "pod")
            .kill_and_remove(std::time::Duration::ZERO)
            .await
            .unwrap();
        assert_eq!(running.sh("exit 7").await.0, 7);
        // The processes are this test's children, and stay in the cgroup until they are reaped.
        let ended = Cgroup::of_container(&path, "c1").kill_and_remove(std::time::Duration::ZERO).await;
        assert_eq!(super::support::wait(std::os::fd::AsFd::as_fd(&running.pidfd)), 128 + 9, "{ended:?}");
        Cgroup::of_container(&path, "c1").kill_and_remove(std::time::Duration::from_secs(10)).await.unwrap();
        assert!(!fixture.has_cgroup("c1"));
    });
}
