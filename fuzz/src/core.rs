//! The parsers of the core: addresses, notices, records of inotify(7), and what the kernel says of a datagram.

use reactor::{Address, systemd::Notice};

use crate::bytes::Bytes;

/// Parses an address, and parses its text again.
pub fn address(data: &[u8]) {
    let Ok(text) = str::from_utf8(data) else { return };
    let Ok(address) = text.parse::<Address>() else { return };
    assert_eq!(address.to_string().parse(), Ok(address));
}

/// Puts any text into notices: each must stay the lines that it has.
pub fn notice(data: &[u8]) {
    let Ok(text) = str::from_utf8(data) else { return };
    let is_lines = |notice: &Notice, names: &[&str]| {
        let lines: Vec<_> = notice.text().split_terminator('\n').collect();
        lines.len() == names.len() && lines.iter().zip(names).all(|(line, name)| line.starts_with(name))
    };
    let (status, forget) = (Notice::status(text), Notice::forget(text));
    assert!(is_lines(&status, &["STATUS="]), "{:?}", status.text());
    assert!(is_lines(&forget, &["FDSTOREREMOVE=1", "FDNAME="]), "{:?}", forget.text());
    assert!(!status.text().contains('\r') && forget.text().is_ascii());
}

/// Reads a batch of records of inotify(7).
pub fn inotify(data: &[u8]) {
    // A record takes 16 bytes or more, and each makes at most one change.
    let count = reactor::fuzzing::changes(data).inspect(|change| _ = format!("{change:?}")).count();
    assert!(count <= data.len() / 16, "{count} changes in {} bytes", data.len());
}

/// Reads a sender's name and control messages. The name must have a text that can be parsed again.
pub fn datagram(data: &[u8]) {
    let mut bytes = Bytes(data);
    let len = bytes.below(130);
    let name = bytes.take(len);
    let from = reactor::fuzzing::datagram(name, bytes.0);
    if from != Address::Unnamed {
        let text = from.to_string();
        assert_eq!(text.parse::<Address>().map(|again| again.to_string()), Ok(text));
    }
}
