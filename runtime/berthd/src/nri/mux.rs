//! Two connections multiplexed over one socket, as in NRI: each frame names the connection that its bytes belong to.
//!
//! ```text
//! | connection, 4 bytes | length, 4 bytes | payload |      both numbers big-endian
//! ```
//! Bytes from a plugin are passed on as they come and never stored: a connection that is not read blocks the socket,
//! and with it only this plugin. Towards the plugin a ttrpc message becomes one frame, or two when it is longer than
//! [`MAX_FIRST_FRAME_BYTES`]: the official stub reads through a buffer of that size, and loses what does not fit.

use std::io::{self, Error, ErrorKind};

use tokio::{
    io::{
        AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader, DuplexStream, ReadHalf, copy, duplex,
        sink, split,
    },
    net::UnixStream,
    sync::Mutex,
};

/// The connection that the plugin serves.
const PLUGIN_CONNECTION: u32 = 1;
/// The connection that the runtime serves.
const RUNTIME_CONNECTION: u32 = 2;
/// Bytes of a ttrpc header: length (4), stream (4), type and flags.
const MESSAGE_HEADER_BYTES: usize = 10;
const MAX_MESSAGE_BYTES: usize = MESSAGE_HEADER_BYTES + (4 << 20);
const MAX_FIRST_FRAME_BYTES: usize = 4096;
/// Bytes buffered in each direction of a connection.
const BUFFER_BYTES: usize = 64 << 10;

/// Our ends of the two connections.
pub(super) struct Connections {
    /// The connection that the plugin serves.
    pub plugin: DuplexStream,
    /// The connection that the runtime serves.
    pub runtime: DuplexStream,
}

/// Splits `trunk`. The future carries the bytes: it ends with the trunk, returns the reason, and ends both connections.
pub(super) fn split_trunk(trunk: UnixStream) -> (Connections, impl Future<Output = Error>) {
    let (plugin, far_plugin) = duplex(BUFFER_BYTES);
    let (runtime, far_runtime) = duplex(BUFFER_BYTES);
    (Connections { plugin, runtime }, carry(trunk, far_plugin, far_runtime))
}

async fn carry(trunk: UnixStream, plugin: DuplexStream, runtime: DuplexStream) -> Error {
    let (from_plugin, to_trunk) = trunk.into_split();
    let trunk = Mutex::new(to_trunk);
    let (plugin_reads, plugin_writes) = split(plugin);
    let (runtime_reads, runtime_writes) = split(runtime);
    let ended = tokio::select! {
        ended = receive(BufReader::new(from_plugin), plugin_writes, runtime_writes) => ended,
        ended = send(PLUGIN_CONNECTION, plugin_reads, &trunk) => ended,
        ended = send(RUNTIME_CONNECTION, runtime_reads, &trunk) => ended,
    };
    match ended {
        Err(error) => error,
        Ok(()) => Error::from(ErrorKind::UnexpectedEof),
    }
}

/// Passes frames on to the connections they are for; those of unknown connections are dropped.
async fn receive(
    mut trunk: impl AsyncRead + Unpin,
    mut plugin: impl AsyncWrite + Unpin,
    mut runtime: impl AsyncWrite + Unpin,
) -> io::Result<()> {
    loop {
        let (connection, length) = (trunk.read_u32().await?, trunk.read_u32().await?);
        if length as usize > MAX_MESSAGE_BYTES {
            let text = format!("a frame of {length} bytes, where {MAX_MESSAGE_BYTES} is the most");
            return Err(Error::new(ErrorKind::InvalidData, text));
        }
        let mut payload = (&mut trunk).take(length.into());
        let copied = match connection {
            PLUGIN_CONNECTION => copy(&mut payload, &mut plugin).await?,
            RUNTIME_CONNECTION => copy(&mut payload, &mut runtime).await?,
            _ => copy(&mut payload, &mut sink()).await?,
        };
        if copied < length.into() {
            return Err(ErrorKind::UnexpectedEof.into());
        }
    }
}

/// Sends the messages of one connection, each without others in between.
async fn send(
    connection: u32,
    mut messages: ReadHalf<DuplexStream>,
    trunk: &Mutex<impl AsyncWrite + Unpin>,
) -> io::Result<()> {
    loop {
        let message = read_message(&mut messages).await?;
        let (first, rest) = message.split_at(message.len().min(MAX_FIRST_FRAME_BYTES));
        let mut trunk = trunk.lock().await;
        write_frame(&mut *trunk, connection, first).await?;
        if !rest.is_empty() {
            write_frame(&mut *trunk, connection, rest).await?;
        }
    }
}

async fn read_message(messages: &mut (impl AsyncRead + Unpin)) -> io::Result<Vec<u8>> {
    let mut message = vec![0; MESSAGE_HEADER_BYTES];
    messages.read_exact(&mut message).await?;
    let length = message.first_chunk().map_or(0, |length| u32::from_be_bytes(*length));
    message.resize(MESSAGE_HEADER_BYTES + length as usize, 0);
    messages.read_exact(&mut message[MESSAGE_HEADER_BYTES..]).await?;
    Ok(message)
}

async fn write_frame(
    trunk: &mut (impl AsyncWrite + Unpin),
    connection: u32,
    payload: &[u8],
) -> io::Result<()> {
    let length = u32::try_from(payload.len()).map_err(|_| ErrorKind::InvalidData)?;
    let mut header = [0; 8];
    header[..4].copy_from_slice(&connection.to_be_bytes());
    header[4..].copy_from_slice(&length.to_be_bytes());
    trunk.write_all(&header).await?;
    trunk.write_all(payload).await
}

#[cfg(test)]
mod tests;
