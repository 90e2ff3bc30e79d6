//! The head of an HTTP/1 request by RFC 9112: its first line and its fields. Copies nothing.

/// The most header fields of a request.
const FIELDS_MAX: usize = 64;

/// A complete head.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Head<'a> {
    pub(crate) method: &'a str,
    pub(crate) target: &'a str,
    /// The version is 1.1 or later, rather than 1.0.
    pub(crate) is_new: bool,
    /// Names and values. Values have no surrounding white space.
    pub(crate) fields: Vec<(&'a str, &'a [u8])>,
    /// The length in bytes, including the empty line at the end.
    pub(crate) len: usize,
}

/// Parses a head. Returns `None` if the bytes are the beginning of one.
///
/// # Errors
/// The status of the response that rejects the request.
pub(crate) fn parse(bytes: &[u8]) -> Result<Option<Head<'_>>, u16> {
    let mut lines = Lines { bytes, at: 0 };
    // Some clients send one empty line too many after the previous body.
    let first = loop {
        match lines.next()? {
            None => return Ok(None),
            Some([]) => (),
            Some(line) => break line,
        }
    };
    let (method, target, is_new) = first_line(first).ok_or(400_u16)?;
    let mut fields = Vec::new();
    loop {
        let Some(line) = lines.next()? else { return Ok(None) };
        if line.is_empty() {
            return Ok(Some(Head { method, target, is_new, fields, len: lines.at }));
        }
        if fields.len() == FIELDS_MAX {
            return Err(431);
        }
        fields.push(field(line).ok_or(400_u16)?);
    }
}

/// The lines of a head, without their line ends.
struct Lines<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Lines<'a> {
    /// Returns the next line if it is complete. Rejects a byte that no head may contain even before the line
    /// ends.
    fn next(&mut self) -> Result<Option<&'a [u8]>, u16> {
        let rest = &self.bytes[self.at..];
        let end = rest.iter().position(|byte| *byte == b'\n');
        let line = &rest[..end.unwrap_or(rest.len())];
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        if line.iter().any(|byte| byte.is_ascii_control() && *byte != b'\t') {
            return Err(400);
        }
        self.at += end.map_or(0, |end| end + 1);
        Ok(end.map(|_| line))
    }
}

/// Parses `GET /path HTTP/1.1`: three words, separated by one space each.
fn first_line(line: &[u8]) -> Option<(&str, &str, bool)> {
    let mut words = line.split(|byte| *byte == b' ');
    let (method, target, version) = (words.next()?, words.next()?, words.next()?);
    let [b'H', b'T', b'T', b'P', b'/', b'1', b'.', minor @ b'0'..=b'9'] = version else { return None };
    let is_whole = words.next().is_none() && is_token(method) && target.iter().all(u8::is_ascii_graphic);
    if target.is_empty() || !is_whole {
        return None;
    }
    Some((str::from_utf8(method).ok()?, str::from_utf8(target).ok()?, *minor > b'0'))
}

/// Parses `Name: value`. Rejects a line that begins with white space, because it would continue the previous
/// one.
fn field(line: &[u8]) -> Option<(&str, &[u8])> {
    let colon = line.iter().position(|byte| *byte == b':')?;
    let name = &line[..colon];
    if !is_token(name) {
        return None;
    }
    Some((str::from_utf8(name).ok()?, line[colon + 1..].trim_ascii()))
}

fn is_token(bytes: &[u8]) -> bool {
    let is_one = |byte: &u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(byte);
    !bytes.is_empty() && bytes.iter().all(is_one)
}
