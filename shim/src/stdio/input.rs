//! Input of a process from a FIFO.

use super::fifo;
use super::output::{Read, read, write_all};
use super::uri::Input;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use tokio::io::unix::AsyncFd;
use tokio::sync::watch;
use tokio::task::JoinHandle;

const BUFFER_BYTES: usize = 4096;

/// The task that copies from the FIFO.
#[derive(Debug)]
pub(super) struct StdinPump {
    task: JoinHandle<()>,
    closing: watch::Sender<bool>,
    ended: watch::Receiver<bool>,
}

impl StdinPump {
    pub(super) fn start(input: Input, fifo: AsyncFd<OwnedFd>, sink: Arc<AsyncFd<OwnedFd>>) -> Self {
        let (closing, closed) = watch::channel(false);
        let (ending, ended) = watch::channel(false);
        let task = tokio::spawn(async move {
            feed(input, fifo, sink, closed).await;
            ending.send_replace(true);
        });
        Self { task, closing, ended }
    }

    /// Becomes true once the process's stdin is closed.
    pub(super) fn ended(&self) -> watch::Receiver<bool> {
        self.ended.clone()
    }

    /// Passes on what is in the FIFO, then closes.
    pub(super) fn close(&self) {
        self.closing.send_replace(true);
    }
}

impl Drop for StdinPump {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Ends when the process closes its stdin, on [`StdinPump::close`], and with `once` when the last writer leaves.
async fn feed(
    input: Input,
    mut fifo: AsyncFd<OwnedFd>,
    sink: Arc<AsyncFd<OwnedFd>>,
    mut closing: watch::Receiver<bool>,
) {
    let mut buffer = Vec::with_capacity(BUFFER_BYTES);
    loop {
        let closed = *closing.borrow();
        match read_when(&fifo, &mut buffer, closed, &mut closing).await {
            Read::Some => {
                if write_all(&sink, &buffer).await.is_err() {
                    return;
                }
            }
            Read::Nothing if !closed => {}
            // The last writer has left. Open the FIFO again before closing it, or bytes of the next writer could be lost.
            Read::End if !closed && !input.once => match fifo::open_reader(&input.fifo) {
                Ok(again) => fifo = again,
                Err(_) => return,
            },
            Read::Nothing | Read::End => return,
        }
    }
}

async fn read_when(
    fifo: &AsyncFd<OwnedFd>,
    buffer: &mut Vec<u8>,
    closed: bool,
    closing: &mut watch::Receiver<bool>,
) -> Read {
    if closed {
        return read(fifo, buffer);
    }
    tokio::select! {
        ready = fifo.readable() => match ready {
            Ok(mut ready) => {
                ready.retain_ready();
                read(fifo, buffer)
            }
            Err(_) => Read::End,
        },
        _ = closing.changed() => Read::Nothing,
    }
}
