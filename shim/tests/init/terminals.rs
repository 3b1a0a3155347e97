//! Processes with a terminal.

use super::support::{Fixture, block_on, shown, wait};
use berth_shim::init::{self, ExecProcess, Stdio};
use serde_json::json;
use std::os::fd::AsFd;

const SCRIPT: &str = "tty; test -t 0 && test -t 2 && echo all; stty size; echo x > /dev/tty; stat -c %u /dev/pts/0; test -c /dev/console && echo console";

#[test]
fn root_a_container_with_a_terminal_leads_its_session() {
    let fixture = Fixture::new();
    block_on(async {
        let rootfs = fixture.overlay("c1", &[fixture.image()]);
        let created = fixture.create_on_terminal(&rootfs, &["/bin/sh", "-c", SCRIPT], |spec| {
            spec["process"]["consoleSize"] = json!({ "height": 40, "width": 100 });
            spec["process"]["user"] = json!({ "uid": 1000, "gid": 1000 });
        });
        let created = created.await.unwrap();
        created.barrier.start().await.unwrap();
        assert_eq!(shown(created.console), "/dev/pts/0\nall\n40 100\nx\n1000\nconsole\n");
        assert_eq!(wait(created.pidfd.as_fd()), 0);
        created.cgroup.remove().unwrap();
    });
}

#[test]
fn root_an_exec_with_a_terminal_leads_its_session() {
    let fixture = Fixture::new();
    block_on(async {
        let running = fixture.create("c1", &["/bin/sleep", "1000"], |_| {}).await.unwrap().start().await;
        let args = ["sh", "-c", "tty; echo x > /dev/tty"].map(String::from);
        let execed =
            init::exec(running.request(ExecProcess::Args(&args), true, Stdio::default())).await.unwrap();
        assert_eq!(shown(execed.console), "/dev/pts/0\nx\n");
        assert_eq!(wait(execed.pidfd.as_fd()), 0);
        running.end();
    });
}

#[test]
fn root_a_terminal_multiplexer_that_is_none_is_refused() {
    let fixture = Fixture::new();
    block_on(async {
        let running = fixture.create("c1", &["/bin/sleep", "1000"], |_| {}).await.unwrap().start().await;
        running.sh("umount /dev/pts; mount -t tmpfs t /dev/pts; echo > /dev/pts/ptmx").await;
        // Without CAP_SYS_ADMIN the container cannot do that to itself: its mount namespace is entered from the host.
        running.change_mounts("umount /dev/pts; echo fake > /dev/pts/ptmx");
        let args = ["true".to_owned()];
        let error = init::exec(running.request(ExecProcess::Args(&args), true, Stdio::default()))
            .await
            .map(drop)
            .unwrap_err();
        assert!(error.to_string().contains("not a terminal multiplexer"), "{error}");
        running.end();
    });
}
