//! Parser of the WWW-Authenticate header: the proofs a server accepts (RFC 9110, section 11).

/// One challenge of possibly several.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Challenge {
    /// The scheme in lower case, such as `bearer`.
    pub(super) scheme: String,
    /// The parameters in order, names in lower case.
    parameters: Vec<(String, String)>,
}

impl Challenge {
    /// Returns the first parameter of that name.
    pub(super) fn parameter(&self, name: &str) -> Option<&str> {
        self.parameters.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// Returns all challenges of one header. A malformed part ends the list, as nothing after it can be trusted.
    pub(super) fn parse_all(header: &str) -> Vec<Self> {
        let mut cursor = Cursor(header);
        let mut challenges: Vec<Self> = Vec::new();
        while let Some(item) = cursor.next_item() {
            match (item, challenges.last_mut()) {
                (Item::Scheme(scheme), _) => challenges.push(Self { scheme, parameters: Vec::new() }),
                (Item::Parameter(name, value), Some(challenge)) => challenge.parameters.push((name, value)),
                (Item::Parameter(..), None) => break,
            }
        }
        challenges
    }
}

#[derive(Debug)]
enum Item {
    Scheme(String),
    Parameter(String, String),
}

/// The unread rest of the header.
struct Cursor<'a>(&'a str);

impl<'a> Cursor<'a> {
    /// Returns the next scheme or parameter; skips a token68 (as in `Negotiate abc==`), which no supported scheme has.
    fn next_item(&mut self) -> Option<Item> {
        self.skip(|byte| matches!(byte, b' ' | b'\t' | b','));
        let token = self.token()?;
        let spaces = self.skip(|byte| matches!(byte, b' ' | b'\t'));
        if !self.0.starts_with('=') {
            if spaces > 0 {
                self.skip_token68();
            }
            return Some(Item::Scheme(token.to_ascii_lowercase()));
        }
        self.0 = &self.0[1..];
        self.skip(|byte| matches!(byte, b' ' | b'\t'));
        let value = match self.0.strip_prefix('"') {
            Some(quoted) => self.quoted(quoted)?,
            None => self.token()?.to_owned(),
        };
        Some(Item::Parameter(token.to_ascii_lowercase(), value))
    }

    /// Skips the bytes that match and returns how many they were.
    fn skip(&mut self, matches: impl Fn(u8) -> bool) -> usize {
        let len = self.0.bytes().take_while(|byte| matches(*byte)).count();
        self.0 = &self.0[len..];
        len
    }

    fn token(&mut self) -> Option<&'a str> {
        let rest = self.0;
        match self.skip(is_token_byte) {
            0 => None,
            len => Some(&rest[..len]),
        }
    }

    /// Reads the rest of a quoted string, after its opening quote; `None` if it is never closed.
    fn quoted(&mut self, text: &'a str) -> Option<String> {
        let mut value = String::new();
        let mut characters = text.char_indices();
        while let Some((position, character)) = characters.next() {
            match character {
                '"' => {
                    self.0 = &text[position + 1..];
                    return Some(value);
                }
                '\\' => value.push(characters.next()?.1),
                other => value.push(other),
            }
        }
        None
    }

    /// Skips a token68: it stands where the first parameter would, and ends at a comma or the end.
    fn skip_token68(&mut self) {
        let end = self.0.find(',').unwrap_or(self.0.len());
        let candidate = self.0[..end].trim_end();
        let body = candidate.trim_end_matches('=');
        let is_token68 = !body.is_empty() && body.bytes().all(|byte| is_token_byte(byte) || byte == b'/');
        let is_scheme_alone = candidate.is_empty();
        if is_token68 && !is_scheme_alone {
            self.0 = &self.0[end..];
        }
    }
}

fn is_token_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}
