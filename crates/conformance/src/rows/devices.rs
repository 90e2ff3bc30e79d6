//! H: devices, as far as an engine handles them. Unix only.

use std::io::Write as _;

use super::prelude::*;
use crate::line::{is_hang_up, line};

pub(super) const ROWS: &[Row] = &[Row {
    id: "H9",
    name: "a terminal's hang-up is told after its bytes, and not after it was let go",
    needs: &[Need::Sockets],
    slow: false,
    run: hang_up,
}];

fn hang_up(fixture: &mut Fixture<'_>) -> Outcome {
    let driver = &mut fixture.driver();
    let (near, mut far) = line()?;
    let key = driver.watch(Source::of(&near), Interest::Read)?;
    driver.rests()?;
    far.write_all(b"bytes")?;
    driver
        .until("there are bytes", |driver| driver.events(key).ready.iter().any(|ready| ready.can_read()))?;
    let mut bytes = [0; 16];
    let mut count = driver.engine.read(Source::of(&near), &mut bytes)?;
    far.write_all(b" last")?;
    drop(far);
    let mut read = Ok(1);
    driver.until("the hang-up is read", |driver| {
        let before = std::mem::take(&mut driver.events_mut(key).ready).len();
        if before > 0 {
            read = driver.engine.read(Source::of(&near), &mut bytes[count..]);
            count += *read.as_ref().unwrap_or(&0);
        }
        is_hang_up(&read)
    })?;
    check!(&bytes[..count] == b"bytes last", "{:?} came", bytes[..count].escape_ascii().to_string());
    // An engine that cannot distinguish a hang-up from input repeats the event until the resource is
    // unwatched.
    driver.unwatch(key, Source::of(&near));
    driver.rests()
}
