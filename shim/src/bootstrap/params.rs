//! Parameters that containerd passes to a starting shim, and the shim's answer.
//!
//! Since 2.3 both are protobuf messages. Before that the parameters are flags and environment, standard input has at most
//! the runtime's options as an `Any`, and the answer is JSON. An `Any` also parses as BootstrapParams, with its type URL
//! as the instance id. So parameters that do not name this shim and have no other fields count as the older format.

use super::{Error, Flags};
use containerd_shim_protos::bootstrap_api::{BootstrapParams, BootstrapResult};
use containerd_shim_protos::protobuf::Message;

/// Version of containerd's task service that the shim serves.
const TASK_VERSION: i32 = 3;

/// Format of the answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum AnswerFormat {
    Protobuf,
    Json,
}

/// Parameters of a starting shim besides the flags.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Params {
    pub(super) format: AnswerFormat,
    /// ttrpc socket for events; empty for none.
    pub(super) events: String,
    /// Directory of the shim's socket; derived from the daemon's address when absent.
    pub(super) socket_directory: Option<String>,
}

impl Params {
    /// Parses standard input. `environment` is the event address of the older format. Fails if the parameters are for
    /// another shim.
    pub(super) fn parse(input: &[u8], flags: &Flags, environment: String) -> Result<Self, Error> {
        let older = Self { format: AnswerFormat::Json, events: environment, socket_directory: None };
        let params = match BootstrapParams::parse_from_bytes(input) {
            Ok(params) if !input.is_empty() => params,
            _ => return Ok(older),
        };
        if params.instance_id == flags.id && params.namespace == flags.namespace {
            return Ok(Self {
                format: AnswerFormat::Protobuf,
                events: params.containerd_ttrpc_address,
                socket_directory: params.socket_dir.filter(|directory| !directory.is_empty()),
            });
        }
        if is_any(&params) {
            return Ok(older);
        }
        Err(Error::WrongShim {
            got: format!("{}/{}", params.namespace, params.instance_id),
            expected: format!("{}/{}", flags.namespace, flags.id),
        })
    }
}

/// Whether the message could be an `Any`, which has only these two fields.
fn is_any(params: &BootstrapParams) -> bool {
    let two_fields = BootstrapParams {
        instance_id: params.instance_id.clone(),
        namespace: params.namespace.clone(),
        ..Default::default()
    };
    *params == two_fields
}

impl AnswerFormat {
    /// Encodes the shim's address.
    pub(super) fn answer(self, address: &str) -> Vec<u8> {
        match self {
            Self::Protobuf => BootstrapResult {
                version: TASK_VERSION,
                address: address.to_owned(),
                protocol: "ttrpc".to_owned(),
                ..Default::default()
            }
            .write_to_bytes()
            .unwrap_or_default(),
            Self::Json => {
                let answer =
                    serde_json::json!({"version": TASK_VERSION, "address": address, "protocol": "ttrpc"});
                answer.to_string().into_bytes()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::bootstrap::Action;
    use containerd_shim_protos::protobuf::well_known_types::any::Any;

    fn parse(input: &[u8]) -> Result<Params, Error> {
        let flags = Flags {
            action: Action::Start,
            namespace: "n".into(),
            id: "a".into(),
            address: String::new(),
            bundle: "/".into(),
            debug: false,
        };
        Params::parse(input, &flags, "/from/environment".into())
    }

    fn params(id: &str) -> BootstrapParams {
        BootstrapParams {
            instance_id: id.into(),
            namespace: "n".into(),
            containerd_ttrpc_address: "/run/c.ttrpc".into(),
            socket_dir: Some("/run/s".into()),
            ..Default::default()
        }
    }

    #[test]
    fn the_protobuf_form_is_taken_at_its_word() {
        let params = parse(&params("a").write_to_bytes().unwrap()).unwrap();
        assert_eq!(params.format, AnswerFormat::Protobuf);
        assert_eq!(
            (params.events.as_str(), params.socket_directory.as_deref()),
            ("/run/c.ttrpc", Some("/run/s"))
        );
    }

    #[test]
    fn parameters_of_another_shim_are_refused() {
        let error = parse(&params("other").write_to_bytes().unwrap()).unwrap_err().to_string();
        assert!(error.contains("n/other") && error.contains("n/a"), "{error}");
    }

    #[test]
    fn everything_else_is_the_older_form() {
        let any = |value| Any { type_url: "containerd.runc.v1.Options".into(), value, ..Default::default() };
        for input in [
            Vec::new(),
            b"\xff\xfe\x01".to_vec(),
            any(Vec::new()).write_to_bytes().unwrap(),
            any(b"\x12\x01x".to_vec()).write_to_bytes().unwrap(),
        ] {
            let params = parse(&input).unwrap();
            assert_eq!(
                (params.format, params.events.as_str()),
                (AnswerFormat::Json, "/from/environment"),
                "{input:?}"
            );
        }
    }

    #[test]
    fn answers_are_read_back() {
        let result = BootstrapResult::parse_from_bytes(&AnswerFormat::Protobuf.answer("unix:///s")).unwrap();
        assert_eq!(
            (result.version, result.address.as_str(), result.protocol.as_str()),
            (3, "unix:///s", "ttrpc")
        );
        let json: serde_json::Value =
            serde_json::from_slice(&AnswerFormat::Json.answer("unix:///s")).unwrap();
        assert_eq!(json, serde_json::json!({"version": 3, "address": "unix:///s", "protocol": "ttrpc"}));
    }
}
