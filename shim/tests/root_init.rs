//! Containers made, started, entered and ended through the shim's init, on this machine's own kernel.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use support::{Place, block_on};

#[test]
fn root_a_container_runs_and_its_output_and_exit_code_come_back() {
    let place = Place::new();
    let (code, output) = place.run("echo hello; hostname; exit 7", |_| {});
    assert_eq!((code, output.as_str()), (7, "hello\npod-host\n"));
}

#[test]
fn root_an_exec_runs_beside_the_first_process() {
    let place = Place::new();
    block_on(async {
        let running = place.create("c1", &["/bin/sleep", "1000"], |_| {}).await.unwrap().start().await;
        let (code, output) = running.sh("ps -o pid,args; exit 3").await;
        assert_eq!(code, 3);
        assert!(output.contains("/bin/sleep 1000"), "{output}");
        assert_eq!(running.end(), 128 + 9);
    });
}
