//! The response to a client: its status, its head, and the part of the file to send.

use std::{fmt::Write, ops, path::Path};

use reactor::file::Metadata;

use crate::{
    date,
    request::{Range, Request},
};

/// Builds a response without a file, which consists of its status and the reason phrase.
pub(crate) fn refusal(status: u16, keep: bool, is_head: bool, more: &str, now: u64) -> String {
    let text = format!("{status} {}\n", reason(status));
    let mut head = begin(status, now, keep);
    let _ = write!(head, "Content-Type: text/plain\r\nContent-Length: {}\r\n", text.len());
    head.push_str(more);
    head.push_str("\r\n");
    if !is_head {
        head.push_str(&text);
    }
    head
}

/// Builds the head of a response with a file, or of a 304, and returns the range of bytes to send after it.
pub(crate) fn file(request: &Request, metadata: &Metadata, now: u64) -> (String, ops::Range<u64>) {
    let len = metadata.len;
    let modified = metadata.modified.map(date::seconds).unwrap_or_default();
    let tag = tag(metadata);
    let (status, part) =
        if is_unchanged(request, &tag, modified) { (304, 0..0) } else { part(request, &tag, modified, len) };
    let mut head = begin(status, now, request.keep);
    if status == 416 {
        let _ = write!(head, "Content-Range: bytes */{len}\r\nContent-Length: 0\r\n\r\n");
        return (head, 0..0);
    }
    let _ = write!(head, "ETag: {tag}\r\nLast-Modified: {}\r\n", date::format(modified));
    if status != 304 {
        let kind = content_type(&request.path);
        let length = part.end - part.start;
        let _ = write!(head, "Content-Type: {kind}\r\nContent-Length: {length}\r\nAccept-Ranges: bytes\r\n");
    }
    if status == 206 {
        let _ = write!(head, "Content-Range: bytes {}-{}/{len}\r\n", part.start, part.end - 1);
    }
    head.push_str("\r\n");
    (head, if request.is_head { 0..0 } else { part })
}

/// Returns a tag that changes with the contents, as far as their length and time (to the nanosecond) show
/// it.
fn tag(metadata: &Metadata) -> String {
    let modified = metadata.modified.and_then(|time| time.duration_since(std::time::UNIX_EPOCH).ok());
    format!("\"{:x}-{:x}\"", modified.unwrap_or_default().as_nanos(), metadata.len)
}

/// Evaluates the conditions. By RFC 9110, 13.2.2, a tag takes precedence, and the date is then ignored.
fn is_unchanged(request: &Request, tag: &str, modified: u64) -> bool {
    let same = |listed: &str| listed == "*" || listed.strip_prefix("W/").unwrap_or(listed) == tag;
    match &request.none_match {
        Some(tags) => tags.split(',').any(|listed| same(listed.trim())),
        None => request.modified_since.is_some_and(|since| modified <= since),
    }
}

fn part(request: &Request, tag: &str, modified: u64, len: u64) -> (u16, ops::Range<u64>) {
    let whole = (200, 0..len);
    let Some(range) = request.range else { return whole };
    let is_same = |which: &String| which == tag || date::parse(which) == Some(modified);
    if !request.if_range.as_ref().is_none_or(is_same) {
        return whole;
    }
    match range {
        Range::From(first, _) if first >= len => (416, 0..0),
        Range::From(first, last) => (206, first..last.map_or(len, |last| len.min(last.saturating_add(1)))),
        Range::Last(0) => (416, 0..0),
        Range::Last(_) if len == 0 => (416, 0..0),
        Range::Last(count) => (206, len.saturating_sub(count)..len),
    }
}

fn begin(status: u16, now: u64, keep: bool) -> String {
    let mut head = format!("HTTP/1.1 {status} {}\r\nDate: {}\r\n", reason(status), date::format(now));
    if !keep {
        head.push_str("Connection: close\r\n");
    }
    head
}

fn reason(status: u16) -> &'static str {
    match status {
        200 => "OK",
        206 => "Partial Content",
        301 => "Moved Permanently",
        304 => "Not Modified",
        400 => "Bad Request",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        408 => "Request Timeout",
        416 => "Range Not Satisfiable",
        431 => "Request Header Fields Too Large",
        503 => "Service Unavailable",
        _ => "Internal Server Error",
    }
}

fn content_type(path: &Path) -> &'static str {
    let suffix = path.extension().and_then(|suffix| suffix.to_str()).unwrap_or_default();
    match suffix.to_ascii_lowercase().as_str() {
        "html" | "htm" => "text/html; charset=utf-8",
        "css" => "text/css; charset=utf-8",
        "js" | "mjs" => "text/javascript; charset=utf-8",
        "txt" | "md" | "log" => "text/plain; charset=utf-8",
        "json" => "application/json",
        "xml" => "application/xml",
        "pdf" => "application/pdf",
        "wasm" => "application/wasm",
        "gz" => "application/gzip",
        "zip" => "application/zip",
        "png" => "image/png",
        "jpg" | "jpeg" => "image/jpeg",
        "gif" => "image/gif",
        "svg" => "image/svg+xml",
        "webp" => "image/webp",
        "ico" => "image/x-icon",
        "mp3" => "audio/mpeg",
        "mp4" => "video/mp4",
        "webm" => "video/webm",
        "woff2" => "font/woff2",
        _ => "application/octet-stream",
    }
}
