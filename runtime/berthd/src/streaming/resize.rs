//! Terminal sizes from a client: JSON objects one after the other, `{"Width":80,"Height":24}`, cut into pieces
//! anywhere.

use bytes::BytesMut;
use serde::Deserialize;

use super::inbox::{Inbox, Next};

/// Longest text of one size, in bytes.
const MAX_SIZE_BYTES: usize = 1024;

/// Size of a terminal in characters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub(crate) struct Size {
    #[serde(rename = "Width", alias = "width")]
    pub(crate) width: u16,
    #[serde(rename = "Height", alias = "height")]
    pub(crate) height: u16,
}

/// Input that is no size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Malformed;

/// Returns the last complete size in `text`, the only one that counts, and the length of what was complete.
pub(crate) fn parse(text: &[u8]) -> Result<(Option<Size>, usize), Malformed> {
    let mut sizes = serde_json::Deserializer::from_slice(text).into_iter::<Size>();
    let (mut last, mut complete) = (None, 0);
    loop {
        match sizes.next() {
            None => return Ok((last, complete)),
            Some(Ok(size)) => (last, complete) = (Some(size), sizes.byte_offset()),
            Some(Err(error)) if error.is_eof() && text.len() - complete <= MAX_SIZE_BYTES => {
                return Ok((last, complete));
            }
            Some(Err(_)) => return Err(Malformed),
        }
    }
}

/// The sizes from a stream.
#[derive(Debug)]
pub(super) struct Sizes {
    inbox: Inbox,
    text: BytesMut,
}

impl Sizes {
    pub(super) fn new(inbox: Inbox) -> Self {
        Self { inbox, text: BytesMut::new() }
    }

    /// Returns the next size without a 0; `None` at the end of the stream, or when the input is malformed.
    pub(super) async fn next(&mut self) -> Option<Size> {
        loop {
            let Next::Piece(piece) = self.inbox.next().await else { return None };
            self.text.extend_from_slice(&piece.bytes);
            let (size, complete) = parse(&self.text).ok()?;
            let _ = self.text.split_to(complete);
            if let Some(size) = size.filter(|size| size.width > 0 && size.height > 0) {
                return Some(size);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIZE: Size = Size { width: 80, height: 24 };

    #[test]
    fn the_last_complete_size_counts_and_the_rest_waits() {
        let text = br#"{"Width":1,"Height":2}{"Width":80,"Height":24}"#;
        assert_eq!(parse(text), Ok((Some(SIZE), text.len())));
        let cut = [text.as_slice(), br#"{"Wid"#].concat();
        assert_eq!(parse(&cut), Ok((Some(SIZE), text.len())));
        assert_eq!(parse(br#"{"Wid"#), Ok((None, 0)));
        assert_eq!(parse(b""), Ok((None, 0)));
    }

    #[test]
    fn white_space_and_lower_case_are_fine_and_what_is_missing_is_zero() {
        assert_eq!(parse(b" {\"width\": 80,\n\"height\": 24}\n").map(|(size, _)| size), Ok(Some(SIZE)));
        assert_eq!(parse(b"{}"), Ok((Some(Size::default()), 2)));
    }

    #[test]
    fn what_is_no_size_is_malformed() {
        let endless = [br#"{"Width""#.as_slice(), &[b' '; MAX_SIZE_BYTES]].concat();
        for text in [b"80x24".as_slice(), b"[1,2]x", b"{\"Width\":65536}", b"{\"Width\":-1}", &endless] {
            assert_eq!(parse(text), Err(Malformed), "{}", String::from_utf8_lossy(text));
        }
    }
}
