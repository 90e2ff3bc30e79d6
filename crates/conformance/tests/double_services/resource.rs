//! A user's own resource over a virtual source.

use super::*;

/// A user's own resource over a virtual source.
struct Wire(Source<'static>);

impl Resource for Wire {
    type Event<'a> = &'a [u8];

    fn source(&self) -> Source<'_> {
        self.0
    }

    fn step<'a>(
        &mut self,
        _: Ready,
        io: &mut Io<'_>,
        buffer: &'a mut [u8],
    ) -> std::io::Result<Option<&'a [u8]>> {
        let count = io.read(self.0, buffer)?;
        Ok((count > 0).then_some(&buffer[..count]))
    }
}

impl Output for Wire {
    type Item<'a> = &'a [u8];

    fn encode(&mut self, item: &[u8], out: &mut Outgoing) -> Result {
        out.put(item);
        Ok(())
    }
}

struct Repeater;

impl Service for Repeater {}

impl Handle<Wire> for Repeater {
    fn handle(&mut self, cx: &mut Context<Self>, id: Id<Wire>, bytes: &[u8]) -> Result {
        cx.send(id, bytes);
        Ok(())
    }
}

#[test]
fn a_resource_of_a_users_own_works_over_a_virtual_source() {
    for_each_world(|network, seed| {
        let mut runtime = Runtime::with_engine(network.double());
        let repeater = runtime.add(Repeater).expect("it starts");
        let feed = network.source();
        let id = runtime
            .with(repeater, |_, cx| cx.add(Wire(feed.source())).map_err(|rejected| rejected.error))
            .expect("it lives")
            .expect("it is watched");
        let (bytes, mut put, mut taken) = (pattern(800), 0, Vec::new());
        until(&mut [&mut runtime], || {
            if put < bytes.len() {
                feed.put(&bytes[put..put + 50]);
                put += 50;
            }
            feed.allow(37);
            taken.extend(feed.taken());
            taken.len() == bytes.len()
        });
        assert!(taken == bytes, "seed {seed}");
        runtime.with(repeater, |_, cx| cx.close(id));
        runtime.turn(Some(Duration::ZERO)).expect("the double does not break");
    });
}
