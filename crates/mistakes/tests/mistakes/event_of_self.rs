//! Returns an event from the resource's own buffer, instead of the lent one.
use reactor::*;

struct Device {
    file: std::fs::File,
    mine: Vec<u8>,
}

impl Pollable for Device {
    type Event<'a> = &'a [u8];

    fn source(&self) -> Source<'_> {
        Source::of(&self.file)
    }

    fn step<'a>(&mut self, _: Ready, _: &mut Io<'_>, _: &'a mut [u8]) -> std::io::Result<Option<&'a [u8]>> {
        Ok(Some(&self.mine))
    }
}

fn main() {}
