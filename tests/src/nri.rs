//! Runs the NRI plugins of tests/nri, which use the official stub, and reads what they record.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use serde_json::{Value, json};

use crate::{berth::Berth, waiting::until};

/// A running plugin. Dropping it kills it.
pub struct Plugin {
    child: Child,
    record: PathBuf,
}

/// One event as the plugin received it.
#[derive(Clone, Debug)]
pub struct ReceivedEvent {
    pub event: String,
    pub all: Value,
}

impl ReceivedEvent {
    /// Name of the event's container, or of its pod if it has no container.
    pub fn subject(&self) -> &str {
        let name = |what: &str| self.all[what]["name"].as_str();
        name("container").or_else(|| name("pod")).unwrap_or_default()
    }

    /// The event as `event subject`.
    pub fn short(&self) -> String {
        format!("{} {}", self.event, self.subject()).trim_end().to_owned()
    }
}

impl Plugin {
    /// Starts a plugin that connects to the daemon, and waits until the daemon's log says that it takes part.
    pub async fn connect(berth: &Berth, kind: &str, identity: &str, config: Value) -> Self {
        let line = format!("takes part plugin={identity}");
        let before = berth.log().matches(&line).count();
        let plugin = Self::start(berth, kind, identity, config).await;
        until(&format!("{identity} takes part"), || berth.log().matches(&line).count() > before).await;
        plugin
    }

    /// Starts a plugin that connects to the daemon, without waiting for it.
    pub async fn start(berth: &Berth, kind: &str, identity: &str, mut config: Value) -> Self {
        let (index, name) = identity.split_once('-').unwrap();
        let socket = berth.path().join("nri.sock");
        until("the daemon listens for plugins", || socket.exists()).await;
        let record = berth.path().join(format!("{identity}.events"));
        config["record"] = json!(record);
        let output = fs::File::options()
            .create(true)
            .append(true)
            .open(berth.path().join(format!("{identity}.log")))
            .unwrap();
        let child = Command::new(binary(kind))
            .args(["-name", name, "-idx", index, "-config", &config.to_string(), "-socket"])
            .arg(socket)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(output)
            .spawn()
            .unwrap();
        Self { child, record }
    }

    pub fn is_alive(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// All events so far.
    pub fn events(&self) -> Vec<ReceivedEvent> {
        received_events(&self.record)
    }

    /// All events so far except Configure and Synchronize, as `event subject`.
    pub fn short_events(&self) -> Vec<String> {
        let all = self.events();
        let later = all.iter().filter(|told| !["Configure", "Synchronize"].contains(&told.event.as_str()));
        later.map(ReceivedEvent::short).collect()
    }

    /// Waits for an event, and returns the first one. An empty `subject` matches any.
    pub async fn wait_for(&self, event: &str, subject: &str) -> ReceivedEvent {
        let find = || {
            let mut events = self.events().into_iter();
            events.find(|told| told.event == event && (subject.is_empty() || told.subject() == subject))
        };
        until(&format!("{event} {subject} in {:?}", self.record), || find().is_some()).await;
        find().unwrap()
    }
}

impl Drop for Plugin {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Path of the binary of a kind of plugin.
pub fn binary(kind: &str) -> PathBuf {
    crate::program("BERTH_TEST_NRI").join(kind)
}

/// Events that a recorder has written to its file so far.
pub fn received_events(record: &Path) -> Vec<ReceivedEvent> {
    let text = fs::read_to_string(record).unwrap_or_default();
    // The last line may be half-written.
    let whole = text.rfind('\n').map_or("", |end| &text[..end]);
    let all = whole.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    all.map(|all| ReceivedEvent { event: all["event"].as_str().unwrap().to_owned(), all }).collect()
}
