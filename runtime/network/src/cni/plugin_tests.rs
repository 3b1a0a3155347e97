#![allow(clippy::unwrap_used)]
use super::*;
use std::fs;
use std::os::unix::fs::PermissionsExt;

/// A directory with one plugin named `p`, a shell script.
fn plugin(script: &str, limit: Duration) -> (tempfile::TempDir, Plugins) {
    let directory = tempfile::tempdir().unwrap();
    crate::testing::install(directory.path(), "p", script);
    let plugins = Plugins::new(vec!["/no/such/directory".into(), directory.path().into()], limit);
    (directory, plugins)
}

async fn run(script: &str) -> Result<Option<Value>, PluginFailure> {
    let (_directory, plugins) = plugin(script, Duration::from_secs(60));
    let call =
        Call { command: "ADD", pod: "abc", netns: "/run/netns/x", interface: "eth0", arguments: "A=1" };
    plugins.run("p", call, b"{\"name\":\"n\"}").await
}

#[tokio::test]
async fn a_plugin_gets_its_input_and_environment_and_its_answer_is_returned() {
    let script = r#"read -r input
        echo "{\"in\": $input, \"env\": \"$CNI_COMMAND $CNI_CONTAINERID $CNI_NETNS $CNI_IFNAME $CNI_ARGS\"}""#;
    let answer = run(script).await.unwrap().unwrap();
    assert_eq!(answer["in"]["name"], "n");
    assert_eq!(answer["env"], "ADD abc /run/netns/x eth0 A=1");
}

#[tokio::test]
async fn saying_nothing_is_an_answer_too_even_without_reading_the_input() {
    assert_eq!(run("exit 0").await.unwrap(), None);
}

#[tokio::test]
async fn a_missing_plugin_names_the_directories_searched() {
    let plugins = Plugins::new(vec!["/no/such/directory".into()], Duration::from_secs(60));
    let failure = plugins.run("p", Call::default(), b"").await.unwrap_err();
    assert!(matches!(&failure, PluginFailure::Missing { .. }), "{failure:?}");
    assert!(failure.to_string().contains("/no/such/directory"), "{failure}");
}

#[tokio::test]
async fn a_plugin_that_is_no_program_cannot_be_started() {
    let (directory, plugins) = plugin("", Duration::from_secs(60));
    fs::set_permissions(directory.path().join("p"), fs::Permissions::from_mode(0o644)).unwrap();
    let failure = plugins.run("p", Call::default(), b"").await.unwrap_err();
    assert!(matches!(failure, PluginFailure::Spawn(_)), "{failure:?}");
}

#[tokio::test]
async fn an_error_in_cni_form_is_reported_with_code_message_details_and_stderr() {
    let script = r#"echo oops >&2; echo '{"code": 11, "msg": "busy", "details": "later"}'; exit 1"#;
    let failure = run(script).await.unwrap_err().to_string();
    assert_eq!(failure, "failed with code 11: busy; later; oops");
}

#[tokio::test]
async fn an_end_without_an_error_object_is_told_with_its_status() {
    let failure = run("echo half; echo why >&2; exit 3").await.unwrap_err().to_string();
    assert_eq!(failure, "ended with exit status: 3 and no CNI error; half; why");
    let failure = run("kill -9 $$").await.unwrap_err().to_string();
    assert!(failure.contains("signal: 9"), "{failure}");
}

#[tokio::test]
async fn garbage_is_told_apart_from_failure() {
    let failure = run("echo hello").await.unwrap_err();
    assert!(matches!(failure, PluginFailure::Garbage { .. }), "{failure:?}");
    assert!(failure.to_string().contains("hello"), "{failure}");
}

#[tokio::test]
async fn an_endless_answer_is_cut_and_refused() {
    let failure = run("head -c 3000000 /dev/zero | tr '\\0' '['").await.unwrap_err();
    assert!(failure.to_string().contains("more than 1048576 bytes"), "{failure}");
    assert!(failure.to_string().len() < 2000);
}

#[tokio::test]
async fn a_hanging_plugin_is_killed_with_its_children() {
    let script = "echo waiting >&2; exec 9> $CNI_NETNS; sleep 1000 & wait";
    let (directory, plugins) = plugin(script, Duration::from_millis(1000));
    let fifo = directory.path().join("fifo");
    assert!(std::process::Command::new("mkfifo").arg(&fifo).status().unwrap().success());
    // The read ends when the last process that has the fifo open for writing, the child, is dead.
    let all_dead = tokio::task::spawn_blocking({
        let fifo = fifo.clone();
        move || fs::read(fifo).unwrap()
    });
    let call = Call { command: "ADD", netns: fifo.to_str().unwrap(), ..Call::default() };
    let failure = plugins.run("p", call, b"").await.unwrap_err();
    assert_eq!(failure.to_string(), "did not end within 1s and was killed; waiting");
    assert_eq!(all_dead.await.unwrap(), b"");
}

/// A cgroup of the v1 freezer, whose frozen processes do not die of SIGKILL; thawed and removed on drop.
struct Freezer(std::path::PathBuf);

impl Freezer {
    /// None without the v1 freezer: in cgroup v2 SIGKILL ends frozen processes.
    fn make() -> Option<Freezer> {
        let root = Path::new("/sys/fs/cgroup/freezer");
        let group = root.join(format!("berth-test-{}", std::process::id()));
        root.join("cgroup.procs").exists().then(|| fs::create_dir_all(&group).unwrap())?;
        Some(Freezer(group))
    }
}

impl Drop for Freezer {
    fn drop(&mut self) {
        let _ = fs::write(self.0.join("freezer.state"), "THAWED");
        for _ in 0..1000 {
            if fs::remove_dir(&self.0).is_ok() {
                return;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

#[tokio::test]
async fn root_a_plugin_that_cannot_be_killed_is_not_waited_for() {
    let Some(freezer) = Freezer::make() else { return };
    let group = freezer.0.display();
    let script = format!("echo $$ > {group}/cgroup.procs; echo FROZEN > {group}/freezer.state; sleep 1000");
    let (_directory, plugins) = plugin(&script, Duration::from_secs(1));
    let failure = plugins.run("p", Call::default(), b"").await.unwrap_err();
    assert_eq!(failure.to_string(), "did not end within 1s and cannot be killed");
}
