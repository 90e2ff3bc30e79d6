//! H at runtime level: devices whose other side disappears. Unix only.

use std::{
    io::{self, Write as _},
    os::fd::OwnedFd,
};

use reactor::{Io, Pollable, Ready, Source};

use super::prelude::*;
use crate::line::line;

pub(super) const ROWS: &[Row] = &[
    row("B4r2", "a device resumed and paused in one turn stays paused, and does not spin", SOCKETS, toggled),
    row("H9r", "a terminal's hang-up comes after its bytes, as one end", SOCKETS, |fixture| {
        hang_up(fixture, false)
    }),
    row("H9r2", "a hang-up during a pause does not spin, and ends it after", SOCKETS, |fixture| {
        hang_up(fixture, true)
    }),
];

/// A terminal that yields bytes. Some systems report a hang-up as an empty read, and this turns that into
/// EIO.
struct Terminal(OwnedFd);

impl Pollable for Terminal {
    type Event<'a> = &'a [u8];

    fn source(&self) -> Source<'_> {
        Source::of(&self.0)
    }

    fn step<'a>(&mut self, _: Ready, io: &mut Io<'_>, buffer: &'a mut [u8]) -> io::Result<Option<&'a [u8]>> {
        match io.read(self.source(), buffer)? {
            0 => Err(io::Error::from_raw_os_error(libc::EIO)),
            count => Ok(Some(&buffer[..count])),
        }
    }
}

#[derive(Default)]
struct Noting {
    bytes: Vec<u8>,
    ends: Vec<Option<i32>>,
}

impl Service for Noting {}

impl Handle<Terminal> for Noting {
    fn handle(&mut self, _: &mut Context<Self>, _: Id<Terminal>, bytes: &[u8]) -> Result {
        self.bytes.extend_from_slice(bytes);
        Ok(())
    }

    fn closed(&mut self, _: &mut Context<Self>, _: Id<Terminal>, _: Terminal, why: Closed) {
        self.ends.push(why.io().and_then(io::Error::raw_os_error));
    }
}

fn hang_up(fixture: &mut Fixture<'_>, paused: bool) -> Outcome {
    let mut rig = Rig::new(fixture)?;
    let noting = rig.add(Noting::default())?;
    let (near, mut far) = line()?;
    let id = rig.with(noting, |_, cx| cx.add(Terminal(near)).map_err(|rejected| rejected.error))?;
    far.write_all(b"bytes")?;
    rig.until("the bytes have come", |rig| rig.get(noting).bytes == b"bytes")?;
    if paused {
        rig.with(noting, |_, cx| cx.pause(id));
        rig.settle()?;
    }
    far.write_all(b" last")?;
    drop(far);
    if paused {
        rig.settle()?;
        rig.rests()?;
        check!(rig.get(noting).ends.is_empty(), "it ended during the pause");
        rig.with(noting, |_, cx| cx.resume(id));
    }
    rig.until("it has ended", |rig| !rig.get(noting).ends.is_empty())?;
    rig.settle()?;
    let Noting { bytes, ends } = rig.get(noting);
    check!(bytes == b"bytes last", "{:?} came", bytes.escape_ascii().to_string());
    check!(ends[..] == [Some(libc::EIO)], "it ended with {ends:?}");
    rig.finish()
}

fn toggled(fixture: &mut Fixture<'_>) -> Outcome {
    let mut rig = Rig::new(fixture)?;
    let noting = rig.add(Noting::default())?;
    let (near, mut far) = line()?;
    let id = rig.with(noting, |_, cx| cx.add(Terminal(near)).map_err(|rejected| rejected.error))?;
    rig.settle()?;
    // Try it from both states: while the terminal was read, and while it was paused.
    for _ in 0..2 {
        rig.with(noting, |_, cx| {
            cx.resume(id);
            cx.pause(id);
        });
        rig.settle()?;
    }
    far.write_all(b"bytes")?;
    rig.rests()?;
    check!(rig.get(noting).bytes.is_empty(), "bytes came during the pause");
    rig.with(noting, |_, cx| {
        cx.pause(id);
        cx.resume(id);
    });
    rig.until("the bytes have come", |rig| rig.get(noting).bytes == b"bytes")?;
    rig.with(noting, |_, cx| cx.close(id));
    rig.finish()
}
