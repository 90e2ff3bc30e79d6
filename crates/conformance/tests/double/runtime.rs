//! An ordinary service over the double: the runtime handles completion.

use reactor::{Bytes, Context, Handle, Id, Result, Runtime, Service, Stream};

use super::*;

struct Echo;

impl Service for Echo {
    fn start(&mut self, cx: &mut Context<Self>) -> Result {
        cx.listen("127.0.0.1:7007", |_| Some(Stream::new(Bytes)))?;
        Ok(())
    }
}

impl Handle<Stream> for Echo {
    fn handle(&mut self, cx: &mut Context<Self>, id: Id<Stream>, event: reactor::Event<Bytes>) -> Result {
        if let reactor::Event::Received(bytes) = event {
            cx.send(id, bytes);
        }
        Ok(())
    }
}

#[test]
fn an_echo_service_is_byte_exact_over_completion() {
    for seed in SEEDS {
        let network = Network::new(Tuning::tight(seed));
        let mut runtime = Runtime::with_engine(network.double());
        runtime.add(Echo).expect("the service starts");
        let mut peer = network.connect("127.0.0.1:7007").expect("the service listens");
        let sent = pattern(3_000);
        let (mut written, mut received, mut ended) = (0, Vec::new(), false);
        for _ in 0..TURNS_MAX {
            if written < sent.len() {
                written += peer.write(&sent[written..]).unwrap_or(0);
                if written == sent.len() {
                    peer.shutdown().expect("it is connected");
                }
            }
            runtime.turn(Some(Duration::ZERO)).expect("the double does not break");
            if read_available(&mut peer, &mut received) {
                ended = true;
                break;
            }
        }
        assert!(
            ended,
            "the service closes after the end: {} of {written} bytes, seed {seed}",
            received.len()
        );
        assert_eq!(received, sent, "seed {seed}");
        drop(peer);
        drop(runtime);
        let leaks = network.leaks();
        assert!(leaks.is_clean(), "seed {seed}: {leaks}");
    }
}
