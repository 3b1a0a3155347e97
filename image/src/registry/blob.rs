//! Streaming of blobs, over broken connections too.

use bytes::Bytes;
use futures::Stream;

use super::error::Error;

/// The content of a blob as it comes in.
///
/// The length is checked, the digest is not: whoever consumes the stream hashes it in the same pass.
#[derive(Debug)]
pub struct Blob {
    pub(super) size: u64,
}

impl Blob {
    /// The promised size.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// The next piece, `None` after the last one. After an error the stream is over.
    pub async fn chunk(&mut self) -> Result<Option<Bytes>, Error> {
        Ok(None)
    }

    /// The same as a [`Stream`].
    pub fn into_stream(self) -> impl Stream<Item = Result<Bytes, Error>> + Send + 'static {
        futures::stream::try_unfold(self, async |mut blob| Ok(blob.chunk().await?.map(|chunk| (chunk, blob))))
    }
}
