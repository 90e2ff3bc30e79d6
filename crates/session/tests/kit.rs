//! The kit itself: one seed means the same run for ever, and its counts match the run.

use std::cell::RefCell;
use std::rc::Rc;

use session::kit::{self, Garbage, Peer, PreambleError, Toy, ToyError, codec};
use session::{Codec, Decoded, Io, Layer, Next, Outgoing, Result, Stack, Step};

/// All received bytes, as one number (FNV-1a).
#[derive(Clone)]
struct Heard(Rc<RefCell<(u64, usize)>>);

impl Heard {
    fn new() -> Self {
        Heard(Rc::new(RefCell::new((0xcbf2_9ce4_8422_2325, 0))))
    }

    fn add(&self, bytes: &[u8]) {
        let mut heard = self.0.borrow_mut();
        for byte in [bytes, b"|"].concat() {
            heard.0 = (heard.0 ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
        heard.1 += bytes.len();
    }

    fn number(&self) -> u64 {
        self.0.borrow().0
    }

    fn bytes(&self) -> usize {
        self.0.borrow().1
    }
}

/// A layer that passes everything through, and records its input.
struct Ear(Heard);

impl Layer for Ear {
    const INPUT_MAX: usize = 0;

    fn ready(&self) -> bool {
        true
    }

    fn open(&mut self, input: &mut [u8], io: &mut Io<'_>) -> Result<Step> {
        self.0.add(input);
        io.up.extend_from_slice(input);
        Ok(Step { used: input.len(), next: Next::Wait })
    }

    fn seal(&mut self, clear: &[u8], io: &mut Io<'_>) -> Result<usize> {
        io.down.put(clear);
        Ok(clear.len())
    }
}

impl Codec for Ear {
    type In<'a> = usize;
    type Out<'a> = &'a [u8];

    fn decode(&mut self, input: &mut [u8]) -> Result<Decoded<usize>> {
        self.0.add(input);
        Ok(if input.len() < 3 { Decoded::More } else { Decoded::Item(3, 3) })
    }

    fn encode(&mut self, item: &[u8], out: &mut Outgoing) -> Result {
        out.put(item);
        Ok(())
    }
}

#[test]
fn the_same_number_is_the_same_garbage_for_ever() {
    let heard = Heard::new();
    let counted = kit::garbage(|| (Ear(heard.clone()), Ear(heard.clone())));
    assert_eq!(counted, Garbage { runs: 800, refused: 0, forged: 759 });
    assert_eq!((heard.bytes(), heard.number()), (13_943_267, 0x1317_f24d_7d47_8705));
    let heard = Heard::new();
    assert_eq!(codec::garbage(|| Ear(heard.clone()), |len| len, b"some bytes of input", 3), 339);
    assert_eq!((heard.bytes(), heard.number()), (76_681, 0x053e_5821_edff_0d99));
}

#[test]
fn large_items_go_both_ways() {
    // All sizes three times, those of b with half the length plus one, and one record byte by byte.
    let (to_a, to_b) = (Heard::new(), Heard::new());
    kit::bulk(|| (Ear(to_a.clone()), Ear(to_b.clone())));
    assert_eq!((to_a.bytes(), to_a.number()), (868_838, 0xd0c7_21ba_4b75_e1bd));
    assert_eq!((to_b.bytes(), to_b.number()), (1_737_617, 0xe882_8578_2140_cb3e));
}

#[test]
fn a_dialogue_is_cut_once_at_each_of_its_bytes() {
    let heard = Heard::new();
    kit::every_cut(|| (Ear(heard.clone()), Ear(heard.clone())));
    assert_eq!((heard.bytes(), heard.number()), (2_333_256, 0x141d_e3cb_bc2a_717b));
}

/// The toys' output never changes, so a later version can still replay a recorded test.
#[test]
fn the_toys_say_the_same_for_ever() {
    let (mut a, mut b) = (Peer::new(Toy::client(7)), Peer::new(Toy::server(11)));
    let mut said = Vec::new();
    let mut say = |from: &mut Peer<Toy>, to: &mut Peer<Toy>| {
        let flight = from.flight();
        to.feed(&flight);
        said.push(flight);
    };
    say(&mut a, &mut b);
    say(&mut b, &mut a);
    for round in 0..3 {
        a.send(b"from the client");
        b.send(&[round; 20]);
        say(&mut a, &mut b);
        say(&mut b, &mut a);
    }
    let heard = Heard::new();
    said.iter().for_each(|flight| heard.add(flight));
    assert_eq!(said[0], b"T\0\0\0\0\0\0\0\0\x07\xba\xd8\xd5\xd7\x1c\xc1\x1e\xec");
    assert_eq!((heard.bytes(), heard.number()), (207, 0x1174_1b51_bf13_211e));
}

#[test]
fn the_suites_count_what_they_did() {
    assert_eq!(kit::every_cut(|| ((), ())), 12 + 12 + 1_500 + 3);
    let flips = kit::flips(|| {
        (Stack::new(Toy::client(1), Toy::client(2)), Stack::new(Toy::server(3), Toy::server(4)))
    });
    assert_eq!((flips.runs, flips.noticed, flips.harmless), (1_808, 1_786, 22));
}

#[test]
fn what_the_test_layers_refuse_they_name() {
    assert_eq!(PreambleError.to_string(), "the peer began with another preamble");
    let texts = [
        (ToyError::Hello, "not a hello"),
        (ToyError::Tag, "a record with a wrong tag"),
        (ToyError::Kind(9), "a record of unknown kind 9"),
        (ToyError::TooLong, "a record of more than 1024 bytes"),
        (ToyError::Alert, "the peer sent an alert"),
        (ToyError::NotReady, "the handshake is not done"),
    ];
    texts.iter().for_each(|(error, text)| assert_eq!(error.to_string(), *text));
}
