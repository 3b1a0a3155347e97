//! Common to every call: its deadline, cancellation when the caller disconnects, and its line in the log.

use std::{
    future::Future,
    time::{Duration, Instant},
};

use futures::stream::{self, BoxStream, Stream, StreamExt};
use tonic::{Request, Response, Status, codegen, metadata::MetadataMap};
use tracing::{debug, error, info, warn};

use super::{
    log_subject::LogSubject,
    status::{shortened, status},
};
use crate::error::{Error, Kind, Result};
use berth_work::progress::Progress;

/// Longest subject of a call in the log, in bytes. Ids and names are shorter, but a caller may send anything in their
/// place.
const MAX_SUBJECT_BYTES: usize = 512;

/// Answers a call that is cancelled when its caller disconnects or its deadline passes.
pub(super) async fn answer<Q: LogSubject, A: LogSubject, F>(
    method: &'static str,
    request: Request<Q>,
    work: impl FnOnce(Q) -> F,
) -> Result<Response<A>, Status>
where
    F: Future<Output = Result<A>>,
{
    let call = Call::begin(method, request.get_ref());
    let limit = deadline(request.metadata());
    let result = within(limit, work(request.into_inner())).await;
    call.end(result.unwrap_or_else(|limit| Err(timed_out(method, limit, "it was given up"))))
}

/// Answers a call that changes something. It runs to its end even when its caller disconnects or its deadline passes,
/// so that nothing stays half done; the same call made again joins it or finds it done.
pub(super) async fn complete<Q: LogSubject, A: LogSubject + Send + 'static, F>(
    method: &'static str,
    request: Request<Q>,
    work: impl FnOnce(Q) -> F,
) -> Result<Response<A>, Status>
where
    F: Future<Output = Result<A>> + Send + 'static,
{
    let call = Call::begin(method, request.get_ref());
    let limit = deadline(request.metadata());
    let work = work(request.into_inner());
    let progress = Progress::default();
    let task = tokio::spawn(progress.clone().scope(async move { call.end(work.await) }));
    match within(limit, task).await {
        Ok(Ok(answer)) => answer,
        Ok(Err(cut_off)) => Err(status(&Error::caused(Kind::Internal, method, cut_off))),
        Err(limit) => {
            let step = progress.step().map(|step| format!("it waits to {step}; ")).unwrap_or_default();
            let then = format!("{step}it goes on, and the same call again joins it");
            Err(status(&timed_out(method, limit, &then)))
        }
    }
}

/// Answers a call with a stream of messages, each made when the caller takes it. The stream ends at the deadline or
/// when the caller disconnects, and the call is logged only then.
pub(super) async fn answer_stream<Q: LogSubject, A: Send + 'static, F, S>(
    method: &'static str,
    request: Request<Q>,
    work: impl FnOnce(Q) -> F,
) -> Result<Response<codegen::BoxStream<A>>, Status>
where
    F: Future<Output = Result<S>>,
    S: Stream<Item = Result<A>> + Send + 'static,
{
    let call = Call::begin(method, request.get_ref());
    let limit = deadline(request.metadata());
    let begun = within(limit, work(request.into_inner())).await;
    match begun.unwrap_or_else(|limit| Err(timed_out(method, limit, "it was given up"))) {
        Ok(messages) => {
            let state = StreamState { call, messages: messages.boxed(), limit };
            Ok(Response::new(stream::unfold(Some(state), StreamState::next).boxed()))
        }
        Err(error) => Err(call.fail(&error)),
    }
}

/// The state of a stream between two messages.
struct StreamState<A> {
    call: Call,
    messages: BoxStream<'static, Result<A>>,
    limit: Option<Duration>,
}

impl<A> StreamState<A> {
    /// Returns the next message and the rest of the stream; there is no rest after an error.
    async fn next(state: Option<Self>) -> Option<(Result<A, Status>, Option<Self>)> {
        let mut state = state?;
        let left = state.limit.map(|limit| limit.saturating_sub(state.call.started.elapsed()));
        let error = match within(left, state.messages.next()).await {
            Ok(Some(Ok(message))) => return Some((Ok(message), Some(state))),
            Ok(Some(Err(error))) => error,
            Ok(None) => {
                state.call.succeed("");
                return None;
            }
            Err(_) => timed_out(state.call.method, state.limit.unwrap_or_default(), "it was given up"),
        };
        Some((Err(state.call.fail(&error)), None))
    }
}

/// Awaits `future`, or returns the limit as an error once it has passed.
async fn within<T>(limit: Option<Duration>, future: impl Future<Output = T>) -> Result<T, Duration> {
    match limit {
        Some(limit) => tokio::time::timeout(limit, future).await.map_err(|_| limit),
        None => Ok(future.await),
    }
}

fn timed_out(method: &str, limit: Duration, then: &str) -> Error {
    Error::new(Kind::DeadlineExceeded, format!("{method} is not done after {limit:?}; {then}"))
}

/// Returns the caller's deadline less a little, so that our answer arrives before the caller's own time-out.
fn deadline(metadata: &MetadataMap) -> Option<Duration> {
    let limit = parse_timeout(metadata.get("grpc-timeout")?.to_str().ok()?)?;
    Some(limit - (limit / 10).min(Duration::from_millis(500)))
}

/// Parses `grpc-timeout`: at most eight digits and a unit, as the gRPC over HTTP/2 protocol defines it.
fn parse_timeout(text: &str) -> Option<Duration> {
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    let value: u64 = digits.parse().ok().filter(|_| digits.len() <= 8)?;
    Some(match unit {
        "H" => Duration::from_secs(value * 3600),
        "M" => Duration::from_secs(value * 60),
        "S" => Duration::from_secs(value),
        "m" => Duration::from_millis(value),
        "u" => Duration::from_micros(value),
        "n" => Duration::from_nanos(value),
        _ => return None,
    })
}

/// A call from its beginning to its one line in the log.
struct Call {
    method: &'static str,
    subject: String,
    at_info: bool,
    started: Instant,
    ended: bool,
}

impl Call {
    fn begin<Q: LogSubject>(method: &'static str, request: &Q) -> Self {
        let subject = shortened(request.log_subject(), MAX_SUBJECT_BYTES);
        Self { method, subject, at_info: Q::AT_INFO, started: Instant::now(), ended: false }
    }

    fn end<A: LogSubject>(self, result: Result<A>) -> Result<Response<A>, Status> {
        match result {
            Ok(answer) => {
                self.succeed(&answer.log_subject());
                Ok(Response::new(answer))
            }
            Err(error) => Err(self.fail(&error)),
        }
    }

    fn succeed(mut self, answer: &str) {
        self.ended = true;
        let (method, about, elapsed) = (self.method, &self.subject, self.started.elapsed());
        match self.at_info {
            true => info!(method, about, answer, ?elapsed, "done"),
            false => debug!(method, about, answer, ?elapsed, "done"),
        }
    }

    fn fail(mut self, error: &Error) -> Status {
        self.ended = true;
        log_failure(self.method, &self.subject, self.started.elapsed(), error);
        status(error)
    }
}

/// Logs a call whose caller disconnected before the answer.
impl Drop for Call {
    fn drop(&mut self) {
        if !self.ended {
            let (method, about, elapsed) = (self.method, &self.subject, self.started.elapsed());
            info!(method, about, ?elapsed, "cut off");
        }
    }
}

fn log_failure(method: &str, about: &str, elapsed: Duration, error: &Error) {
    let kind = error.kind();
    match kind {
        Kind::Internal | Kind::DataLoss => error!(method, about, ?kind, %error, ?elapsed, "failed"),
        Kind::NotFound => info!(method, about, ?kind, %error, ?elapsed, "failed"),
        _ => warn!(method, about, ?kind, %error, ?elapsed, "failed"),
    }
}

#[cfg(test)]
mod tests;
