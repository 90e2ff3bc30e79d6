//! H: devices, as far as an engine handles them. Unix only.

use std::io::Write as _;

use reactor::{Interest, Source};

use crate::{
    line::{is_hang_up, line},
    suite::{Need, Outcome, Row, check},
    world::World,
};

pub(super) const ROWS: &[Row] = &[Row {
    id: "H9",
    name: "a terminal's hang-up is told after its bytes, and not after it was let go",
    needs: &[Need::Sockets],
    slow: false,
    run: hang_up,
}];

fn hang_up(world: &mut World<'_>) -> Outcome {
    let drive = &mut world.drive();
    let (near, mut far) = line()?;
    let key = drive.watch(Source::of(&near), Interest::Read)?;
    drive.rests()?;
    far.write_all(b"bytes")?;
    drive.until("there are bytes", |drive| drive.told(key).ready.iter().any(|ready| ready.can_read()))?;
    let mut bytes = [0; 16];
    let mut count = drive.engine.read(Source::of(&near), &mut bytes)?;
    far.write_all(b" last")?;
    drop(far);
    let mut read = Ok(1);
    drive.until("the hang-up is read", |drive| {
        let before = std::mem::take(&mut drive.note(key).ready).len();
        if before > 0 {
            read = drive.engine.read(Source::of(&near), &mut bytes[count..]);
            count += *read.as_ref().unwrap_or(&0);
        }
        is_hang_up(&read)
    })?;
    check!(&bytes[..count] == b"bytes last", "{:?} came", bytes[..count].escape_ascii().to_string());
    // An engine that cannot distinguish a hang-up from input repeats the event until the resource is
    // unwatched.
    drive.unwatch(key, Source::of(&near));
    drive.rests()
}
