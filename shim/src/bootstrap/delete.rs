//! Cleanup after a shim that died, for the container or pod of one bundle.

use super::start::bundle;
use super::{Error, Flags, failed, socket};
use crate::cgroup::Cgroup;
use crate::exit::Exit;
use crate::foreign;
use crate::process::KILL_TIMEOUT;
use crate::sandbox::Record;
use crate::service::runtime;
use crate::spec::Spec;
use berth_failpoint::failpoint;
use containerd_shim_protos::api::DeleteResponse;
use containerd_shim_protos::protobuf::{Message, MessageField};
use std::fs;
use std::io::{self, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;

/// Kills remaining processes, removes cgroups and the pin of the network namespace, and prints the exit on standard
/// output: from the exit record, or code 137 without one.
pub fn delete(flags: &Flags) -> Result<(), Error> {
    let bundle = bundle(flags)?;
    // Its failure is reported last: a foreign shim that does not answer must not prevent our own cleanup.
    let seen = foreign::clean_up(&flags.id, &bundle, &flags.namespace, &flags.address);
    if let Some(path) = cgroup_path(&bundle)? {
        end(&Cgroup::of_container(&path, &flags.id))?;
        failpoint!(DEAD_CGROUP_REMOVED)?;
    }
    if let Some(record) = Record::read(&bundle).map_err(failed("read the record in", &bundle))? {
        end(&Cgroup::of_pod(&record.cgroup_path, &flags.id))?;
        record.unpin().map_err(failed("unpin the network namespace of", &bundle))?;
        failpoint!(DEAD_UNPINNED)?;
    }
    remove_dead_socket(flags);
    let exit = exit(&bundle, seen.map_err(failed("end what a foreign shim has of", &bundle))?)?;
    let response = DeleteResponse {
        exit_status: exit.code,
        exited_at: MessageField::some(crate::events::timestamp(exit.finished_at)),
        ..Default::default()
    };
    let bytes = response.write_to_bytes().unwrap_or_default();
    io::stdout().write_all(&bytes).map_err(failed("write to", Path::new("standard output")))
}

/// The cgroup path in config.json; `None` for a pod's own bundle, which has no config.json.
fn cgroup_path(bundle: &Path) -> Result<Option<String>, Error> {
    let path = bundle.join("config.json");
    let json = match fs::read(&path) {
        Ok(json) => json,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed("read", &path)(error)),
    };
    let spec: Spec = serde_json::from_slice(&json).map_err(|error| failed("parse", &path)(error.into()))?;
    // The root cgroup never belongs to a container.
    Ok(Some(spec.linux.cgroups_path).filter(|path| !path.trim_matches('/').is_empty()))
}

fn end(cgroup: &Cgroup) -> Result<(), Error> {
    let runtime = runtime().map_err(failed("make a runtime for", Path::new("the clean-up")))?;
    Ok(runtime.block_on(cgroup.kill_and_remove(KILL_TIMEOUT))?)
}

/// The exit record; without one, the exit seen just now, or code 137.
fn exit(bundle: &Path, seen: Option<Exit>) -> Result<Exit, Error> {
    if let Some(exit) = Exit::read(bundle).map_err(failed("read the exit record in", bundle))? {
        return Ok(exit);
    }
    let exit = seen.unwrap_or_else(|| Exit::now(137, "the shim died"));
    exit.write(bundle).map_err(failed("write the exit record in", bundle))?;
    failpoint!(DEAD_WRITTEN)?;
    Ok(exit)
}

/// Removes a socket without a listener. The socket of a container in a pod is named after the pod and not removed here.
fn remove_dead_socket(flags: &Flags) {
    if flags.address.is_empty() {
        return;
    }
    let path = socket::path(&socket::directory(&flags.address), &flags.namespace, &flags.id);
    if UnixStream::connect(&path).is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused) {
        // If this fails, the next start of the same pod replaces it.
        let _ = fs::remove_file(path);
    }
}
