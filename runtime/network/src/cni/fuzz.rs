//! Properties that must hold for any output of a plugin.
#![allow(clippy::unwrap_used)]

use std::process::ExitStatus;

use serde_json::Value;

use super::{
    plugin::PluginOutput,
    result::{addresses, convert, interfaces},
    version::Version,
};

/// Treats `data` as the output of a plugin, as a result and as an error. A result converted to a version must carry
/// that version, and converting it again must not change it.
pub fn cni_result(data: &[u8]) {
    let ended = PluginOutput { status: ExitStatus::default(), stdout: data.to_vec(), stderr: String::new() };
    let _ = ended.failure().to_string();
    let Ok(result) = serde_json::from_slice::<Value>(data) else { return };
    for version in Version::ALL {
        let Ok(converted) = convert(result.clone(), version) else { continue };
        assert_eq!(converted["cniVersion"], version.as_str());
        let ips = addresses(&converted).unwrap();
        assert_eq!(ips.len(), converted.get("ips").and_then(Value::as_array).map_or(0, Vec::len));
        let _ = interfaces(&converted);
        assert_eq!(convert(converted.clone(), version).as_ref(), Ok(&converted));
        for other in Version::ALL {
            assert_eq!(addresses(&convert(converted.clone(), other).unwrap()), Ok(ips.clone()));
        }
    }
}
