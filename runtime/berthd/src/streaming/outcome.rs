//! How a command ended, as the client is told on the error stream.

use bytes::Bytes;
use serde_json::{Value, json};

use super::protocol::Protocol;

/// The end of a command, or of an attachment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// The command ended with this exit code. An attachment has none and counts as 0.
    Exited(i32),
    /// The command could not be run, or its exit code is not known.
    Failed(String),
}

impl Outcome {
    /// Encodes the outcome for the error stream. Before version 4 success is empty: nothing is sent.
    pub(super) fn encode(&self, protocol: Protocol) -> Bytes {
        match (self, protocol.tells_status()) {
            (_, true) => self.status().to_string().into(),
            (Self::Exited(0), false) => Bytes::new(),
            (_, false) => self.message().into(),
        }
    }

    fn message(&self) -> String {
        match self {
            Self::Exited(code) => format!("command terminated with non-zero exit code: {code}"),
            Self::Failed(why) => why.clone(),
        }
    }

    /// Builds a `metav1.Status` of Kubernetes, with the fields that its clients read.
    fn status(&self) -> Value {
        match self {
            Self::Exited(0) => json!({"metadata": {}, "status": "Success"}),
            Self::Exited(code) => json!({
                "metadata": {},
                "status": "Failure",
                "message": self.message(),
                "reason": "NonZeroExitCode",
                "details": {"causes": [{"reason": "ExitCode", "message": code.to_string()}]},
            }),
            Self::Failed(why) => json!({
                "metadata": {},
                "status": "Failure",
                "message": format!("Internal error occurred: {why}"),
                "reason": "InternalError",
                "details": {"causes": [{"message": why}]},
                "code": 500,
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(outcome: &Outcome, protocol: Protocol) -> String {
        String::from_utf8(outcome.encode(protocol).into()).unwrap_or_default()
    }

    #[test]
    fn an_exit_code_is_told_as_kubernetes_reads_it() {
        let code = r#"{"details":{"causes":[{"message":"3","reason":"ExitCode"}]},"message":"command terminated with non-zero exit code: 3","metadata":{},"reason":"NonZeroExitCode","status":"Failure"}"#;
        assert_eq!(text(&Outcome::Exited(3), Protocol::V4), code);
        assert_eq!(text(&Outcome::Exited(3), Protocol::V5), code);
        assert_eq!(text(&Outcome::Exited(0), Protocol::V4), r#"{"metadata":{},"status":"Success"}"#);
    }

    #[test]
    fn a_failure_is_an_internal_error_with_its_reason() {
        let status = text(&Outcome::Failed("no such file".into()), Protocol::V4);
        let status: Value = serde_json::from_str(&status).unwrap_or_default();
        assert_eq!((&status["status"], &status["reason"]), (&json!("Failure"), &json!("InternalError")));
        assert_eq!(status["message"], "Internal error occurred: no such file");
    }

    #[test]
    fn older_versions_get_text_and_silence() {
        for protocol in [Protocol::V1, Protocol::V2, Protocol::V3] {
            assert_eq!(text(&Outcome::Exited(0), protocol), "");
            assert_eq!(text(&Outcome::Exited(2), protocol), "command terminated with non-zero exit code: 2");
            assert_eq!(text(&Outcome::Failed("gone".into()), protocol), "gone");
        }
    }
}
