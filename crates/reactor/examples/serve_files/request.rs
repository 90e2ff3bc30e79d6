//! A client's request: the fields of its head that matter to this server.

use std::path::PathBuf;

use crate::{
    date,
    head::{self, Head},
};

/// A request for a file.
#[derive(Debug)]
pub(crate) struct Request {
    /// The client wants only the head of the response.
    pub(crate) is_head: bool,
    /// The connection stays open for another request.
    pub(crate) keep: bool,
    /// As the client sent it, without the host.
    pub(crate) target: String,
    /// Relative to the served directory.
    pub(crate) path: PathBuf,
    /// `Range: bytes=..`, if it is a single range.
    pub(crate) range: Option<Range>,
    /// The tags of `If-None-Match`.
    pub(crate) none_match: Option<String>,
    /// `If-Modified-Since`, in seconds since 1970.
    pub(crate) modified_since: Option<u64>,
    /// `If-Range`: a tag or a date.
    pub(crate) if_range: Option<String>,
}

/// The part of a file that the client requests.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Range {
    /// From the first offset to the second, inclusive, or to the end.
    From(u64, Option<u64>),
    /// This many of the last bytes.
    Last(u64),
}

/// The result of parsing the bytes so far.
pub(crate) enum Parsed {
    /// The beginning of a head.
    Partial,
    /// A request, and its length in bytes.
    Whole(usize, Request),
    /// Invalid. The server can only send this status and close the connection.
    Bad(u16),
}

/// Parses the head of the next request.
pub(crate) fn parse(bytes: &[u8]) -> Parsed {
    match head::parse(bytes) {
        Ok(None) => Parsed::Partial,
        Ok(Some(head)) => match understand(&head) {
            Ok(request) => Parsed::Whole(head.len, request),
            Err(status) => Parsed::Bad(status),
        },
        Err(status) => Parsed::Bad(status),
    }
}

fn understand(head: &Head<'_>) -> Result<Request, u16> {
    let is_head = match head.method {
        "GET" => false,
        "HEAD" => true,
        _ => return Err(405),
    };
    let target = origin(head.target)?;
    let mut request = Request {
        is_head,
        keep: head.is_new,
        target: target.to_owned(),
        path: path(target)?,
        range: None,
        none_match: None,
        modified_since: None,
        if_range: None,
    };
    let (mut hosts, mut closes) = (0, false);
    for (name, value) in &head.fields {
        let is = |what: &str| name.eq_ignore_ascii_case(what);
        let value = str::from_utf8(value);
        if is("host") {
            hosts += 1;
            if hosts > 1 || !value.is_ok_and(|value| value.is_empty() || is_authority(value)) {
                return Err(400);
            }
        } else if is("transfer-encoding") || is("content-length") && value != Ok("0") {
            // To find the next request, the server would have to read a body, and no client sends one with
            // GET.
            return Err(400);
        }
        let Ok(value) = value else { continue };
        if is("connection") {
            let says = |what: &str| value.split(',').any(|part| part.trim().eq_ignore_ascii_case(what));
            // `close` wins over any `keep-alive` before or after it.
            closes |= says("close");
            request.keep |= says("keep-alive");
        } else if is("range") {
            request.range = range(value);
        } else if is("if-none-match") {
            request.none_match = Some(value.to_owned());
        } else if is("if-modified-since") {
            request.modified_since = date::parse(value);
        } else if is("if-range") {
            request.if_range = Some(value.to_owned());
        }
    }
    request.keep &= !closes;
    if head.is_new && hosts != 1 { Err(400) } else { Ok(request) }
}

/// Returns the part of a target that names a file: all of `/path?query`, or the part after the host in
/// `http://host/path?query`, which every server must accept (RFC 9112, 3.2.2).
fn origin(target: &str) -> Result<&str, u16> {
    if target.starts_with('/') {
        return Ok(target);
    }
    let (scheme, rest) = target.split_once("://").ok_or(400_u16)?;
    let (host, path) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
    if !scheme.eq_ignore_ascii_case("http") || !is_authority(host) {
        return Err(400);
    }
    match path {
        "" => Ok("/"),
        path if path.starts_with('/') => Ok(path),
        // A query without a path.
        _ => Err(400),
    }
}

/// Returns whether this is `host` or `host:port` as in RFC 3986 (3.2), without a user name.
fn is_authority(text: &str) -> bool {
    let is_digits = |port: &str| port.bytes().all(|byte| byte.is_ascii_digit());
    if let Some((inside, port)) = text.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        let is_one = |byte: u8| byte.is_ascii_hexdigit() || b":.".contains(&byte);
        let is_port = port.is_empty() || port.strip_prefix(':').is_some_and(is_digits);
        return !inside.is_empty() && inside.bytes().all(is_one) && is_port;
    }
    let (host, port) = text.split_once(':').unwrap_or((text, ""));
    let is_one = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~%!$&'()*+,;=".contains(&byte);
    !host.is_empty() && host.bytes().all(is_one) && is_digits(port)
}

/// Returns the path of a target, decoded and without its query. Rejects a path that leads upwards. Symbolic
/// links are checked when the file is opened.
fn path(target: &str) -> Result<PathBuf, u16> {
    let path = target.split(['?', '#']).next().unwrap_or_default();
    let path = path.strip_prefix('/').ok_or(400_u16)?;
    let mut bytes = Vec::with_capacity(path.len());
    let mut rest = path.bytes();
    while let Some(byte) = rest.next() {
        let digit = |byte: Option<u8>| char::from(byte.unwrap_or_default()).to_digit(16);
        bytes.push(match byte {
            b'%' => {
                let (high, low) = (digit(rest.next()), digit(rest.next()));
                (high.ok_or(400_u16)? * 16 + low.ok_or(400_u16)?) as u8
            }
            byte => byte,
        });
    }
    let mut path = String::from_utf8(bytes).map_err(|_| 404_u16)?;
    if path.contains('\0') {
        return Err(400);
    }
    if path.starts_with('/') || path.split('/').any(|part| part == "..") {
        return Err(403);
    }
    if path.is_empty() || path.ends_with('/') {
        path.push_str("index.html");
    }
    Ok(path.into())
}

/// Parses a single range of bytes. RFC 9110 (14.2) allows a server to answer several ranges, and invalid
/// ones, with the whole file.
fn range(value: &str) -> Option<Range> {
    let (first, last) = value.strip_prefix("bytes=")?.split_once('-')?;
    // `parse` alone would accept a sign.
    let number = |text: &str| text.bytes().all(|b| b.is_ascii_digit()).then(|| text.parse().ok())?;
    match (first.trim(), last.trim()) {
        ("", last) => Some(Range::Last(number(last)?)),
        (first, "") => Some(Range::From(number(first)?, None)),
        (first, last) => {
            let (first, last) = (number(first)?, number(last)?);
            (first <= last).then_some(Range::From(first, Some(last)))
        }
    }
}
