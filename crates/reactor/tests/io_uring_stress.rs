//! Random operations on the engine `io_uring`, with a ring of four entries and four buffers: accepts,
//! pauses, resumes, closes, releases and stops, and file operations. The bytes reveal a wrong position.
//!
//! `URING_SEED=7 cargo test -p io-reactor --features io-uring --test io_uring_stress` repeats a run.
#![cfg(all(target_os = "linux", feature = "io-uring"))]

mod disk;
mod scratch;

use std::{
    collections::BTreeMap,
    env, fs,
    io::{ErrorKind, Read as _, Write as _},
    net::TcpStream,
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    path::PathBuf,
    sync::{
        Mutex, PoisonError,
        mpsc::{Sender, channel},
    },
    time::Duration,
};

use disk::Disk;
use reactor::{
    Address, Key, ListenOptions,
    engine::{Chunk, Ending, Engine, Event, IoUring, IoUringOptions, Outgoing, Role, Transport},
    file::{Action, File, FileJob},
};
use socket2::SockRef;

fn tight(in_pieces: bool) -> IoUring {
    let mut options = IoUringOptions::default();
    (options.entries, options.completions) = (4, 8);
    (options.buffers, options.buffer_bytes) = (4, 64);
    options.operations.pieces = in_pieces;
    IoUring::with_options(options).expect("this kernel has io_uring")
}

/// xorshift64*, which yields the same numbers for the same seed on every system.
struct Chance(u64);

impl Chance {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) as usize % limit
    }
}

/// Returns the byte at a position of the stream with this salt.
fn byte(salt: usize, at: usize) -> u8 {
    (at ^ (at >> 7) ^ salt.wrapping_mul(151)) as u8
}

/// A connection of the engine, and the test's end of it.
struct Lane {
    peer: TcpStream,
    salt: usize,
    /// Bytes that the peer wrote, and how many of them the engine has reported.
    written: usize,
    told: usize,
    /// Bytes that the engine accepted, and how many of them the peer has read.
    sent: usize,
    read: usize,
    queue: Option<Box<Outgoing>>,
    is_over: bool,
    /// The stream is being released, so nothing more is sent under this key.
    is_leaving: bool,
}

struct Stress {
    engine: IoUring,
    disk: Disk,
    chance: Chance,
    listener: Key,
    address: std::net::SocketAddr,
    lanes: BTreeMap<Key, Lane>,
    /// Connected but not yet accepted peers, by their own address.
    waiting: BTreeMap<String, (TcpStream, usize)>,
    kept: Vec<Chunk>,
    slots: u32,
    salts: usize,
    done: BTreeMap<&'static str, u64>,
}

impl Stress {
    fn new(seed: u64, in_pieces: bool) -> Stress {
        let mut engine = tight(in_pieces);
        let listener = Key::new(0, 0, 1);
        let address: Address = "127.0.0.1:0".parse().expect("an address");
        let transport = engine.listen(&address, &ListenOptions::default()).expect("a port");
        engine.attach(listener, transport, Role::Listener).expect("the key is free");
        let address = engine.local(listener).expect("bound").ip().expect("an IP address");
        Stress {
            engine,
            disk: Disk::new(),
            chance: Chance(seed | 1),
            listener,
            address,
            lanes: BTreeMap::new(),
            waiting: BTreeMap::new(),
            kept: Vec::new(),
            slots: 1,
            salts: 0,
            done: BTreeMap::new(),
        }
    }

    fn note(&mut self, what: &'static str) {
        *self.done.entry(what).or_default() += 1;
    }

    fn any(&mut self) -> Option<Key> {
        let count = self.lanes.len();
        (count > 0).then(|| self.chance.below(count)).and_then(|at| self.lanes.keys().nth(at).copied())
    }

    fn connect(&mut self) {
        if self.lanes.len() + self.waiting.len() >= LANES_MAX {
            return;
        }
        let peer = TcpStream::connect(self.address).expect("it listens");
        peer.set_nonblocking(true).expect("a socket");
        // With linger zero, a peer that leaves early does not block its port in TIME_WAIT for a minute.
        SockRef::from(&peer).set_linger(Some(Duration::ZERO)).expect("a socket");
        self.salts += 1;
        self.waiting.insert(peer.local_addr().expect("bound").to_string(), (peer, self.salts));
        self.note("connects");
    }

    /// Performs one random operation.
    fn step(&mut self) {
        match self.chance.below(24) {
            0 => self.connect(),
            1 => {
                let on = self.chance.below(4) > 0;
                self.engine.reading(self.listener, on);
                self.note("listener pauses and resumes");
            }
            2..=6 => self.write(),
            7..=8 => self.with_any("pauses", |stress, key| stress.engine.reading(key, false)),
            9..=11 => self.with_any("resumes", |stress, key| stress.engine.reading(key, true)),
            12..=14 => self.with_any("sends", Stress::send),
            15 => {
                let how = if self.chance.below(2) == 0 { Ending::Orderly } else { Ending::Reset };
                let is_time = self.chance.below(8) == 0;
                if is_time {
                    self.with_any("closes", |stress, key| {
                        stress.engine.close(key, how);
                        stress.lanes.remove(&key);
                    });
                }
            }
            16 if self.chance.below(8) == 0 => self.with_any("releases", |stress, key| {
                stress.engine.detach(key);
                stress.lanes.get_mut(&key).expect("it was chosen").is_leaving = true;
            }),
            17..=18 => drop(self.kept.pop()),
            20..=23 => self.disk.step(&mut self.engine, &mut self.chance),
            _ => self.turn(),
        }
    }

    fn with_any(&mut self, what: &'static str, act: impl FnOnce(&mut Stress, Key)) {
        if let Some(key) = self.any() {
            act(self, key);
            self.note(what);
        }
    }

    fn write(&mut self) {
        let len = 1 + self.chance.below(300);
        let Some(key) = self.any() else { return };
        let lane = self.lanes.get_mut(&key).expect("it was chosen");
        let bytes = (0..len).map(|at| byte(lane.salt, lane.written + at)).collect::<Vec<_>>();
        if let Ok(count) = lane.peer.write(&bytes) {
            lane.written += count;
        }
        self.note("writes");
    }

    fn send(&mut self, key: Key) {
        let len = 1 + self.chance.below(500);
        let lane = self.lanes.get_mut(&key).expect("it was chosen");
        let Some(mut queue) = lane.queue.take_if(|_| !lane.is_leaving) else { return };
        let at = lane.sent + queue.len();
        let bytes = (at..at + len).map(|at| byte(lane.salt + 1, at)).collect::<Vec<_>>();
        queue.put(&bytes);
        assert!(self.engine.send(key, queue).is_none(), "it comes back later");
    }

    fn turn(&mut self) {
        self.wait(Duration::ZERO);
    }

    fn wait(&mut self, timeout: Duration) {
        self.engine.wait(Some(timeout)).expect("the engine is whole");
        while let Some((key, event)) = self.engine.next() {
            self.told(key, event);
        }
        self.disk.look();
    }

    fn told(&mut self, key: Key, event: Event) {
        if let Event::Accepted(transport, peer) = event {
            assert_eq!(key, self.listener);
            return self.accepted(transport, &peer.to_string());
        }
        let lane = self.lanes.get_mut(&key).expect("what is told of is there");
        match event {
            Event::Got(mut chunk) => {
                assert!(!lane.is_over && !chunk.bytes().is_empty());
                for found in chunk.bytes() {
                    assert_eq!(*found, byte(lane.salt, lane.told), "at {} of {key:?}", lane.told);
                    lane.told += 1;
                }
                assert!(lane.told <= lane.written);
                chunk.bytes().fill(0xdd);
                if self.kept.len() < KEPT_MAX && self.chance.below(16) == 0 {
                    self.kept.push(chunk);
                } else {
                    self.engine.give(chunk);
                }
                self.note("chunks");
            }
            Event::Sent(sent) => {
                lane.sent += sent.result.unwrap_or(0);
                lane.queue = Some(sent.queue);
                self.drain(key);
            }
            Event::Detached(transport) => {
                // The transport goes on in the same engine, under a new key.
                let mut lane = self.lanes.remove(&key).expect("it was looked up");
                lane.is_leaving = false;
                self.add(transport, lane);
            }
            Event::End | Event::Broken(_) => lane.is_over = true,
            other => panic!("{other:?}"),
        }
    }

    /// Reads bytes that the engine sent.
    fn drain(&mut self, key: Key) {
        let lane = self.lanes.get_mut(&key).expect("it is there");
        let mut bytes = [0; 4096];
        match lane.peer.read(&mut bytes) {
            Ok(count) => {
                for found in &bytes[..count] {
                    assert_eq!(*found, byte(lane.salt + 1, lane.read), "at {} of {key:?}", lane.read);
                    lane.read += 1;
                }
            }
            Err(e) => assert_eq!(e.kind(), ErrorKind::WouldBlock),
        }
    }

    fn accepted(&mut self, transport: Transport, peer: &str) {
        self.note("accepts");
        let (peer, salt) = self.waiting.remove(peer).expect("it is one of ours");
        let queue = Some(Box::new(Outgoing::new()));
        let lane = Lane {
            peer,
            salt,
            written: 0,
            told: 0,
            sent: 0,
            read: 0,
            queue,
            is_over: false,
            is_leaving: false,
        };
        self.add(transport, lane);
    }

    fn add(&mut self, transport: Transport, lane: Lane) {
        let key = Key::new(self.slots & 0xff, self.slots >> 8, 1);
        self.slots += 1;
        if let Err(refused) = self.engine.attach(key, transport, Role::Stream) {
            // A long-lived stream has the slot, so this connection ends.
            assert_eq!(refused.error.kind(), ErrorKind::AlreadyExists);
            return;
        }
        self.lanes.insert(key, lane);
    }

    /// Checks that the engine reports all written bytes, whatever happened before.
    fn settle(&mut self) {
        self.kept.clear();
        let keys = self.lanes.keys().copied().collect::<Vec<_>>();
        keys.iter().for_each(|key| self.engine.reading(*key, true));
        self.engine.reading(self.listener, true);
        for _ in 0..SETTLE_TURNS_MAX {
            let is_whole = |lane: &Lane| lane.told == lane.written && lane.queue.is_some();
            if self.lanes.values().all(is_whole) && self.waiting.is_empty() && self.disk.is_idle() {
                break;
            }
            self.wait(Duration::from_millis(100));
        }
        assert!(self.disk.is_idle(), "all is answered");
        for (key, lane) in &self.lanes {
            assert_eq!((lane.told, lane.queue.is_some()), (lane.written, true), "{key:?}");
        }
        assert!(self.waiting.is_empty(), "{} were not accepted", self.waiting.len());
    }

    fn close_all(&mut self) {
        self.kept.clear();
        self.disk.settled();
        for key in std::mem::take(&mut self.lanes).into_keys() {
            self.engine.close(key, Ending::Orderly);
        }
        for _ in 0..SETTLE_TURNS_MAX {
            if self.engine.descriptors() == 1 {
                break;
            }
            self.engine.wait(Some(Duration::ZERO)).expect("the engine is whole");
            assert!(self.engine.next().is_none(), "all keys are gone");
        }
        assert_eq!((self.engine.descriptors(), self.engine.lent()), (1, 0), "only the listener is left");
    }
}

fn open_descriptors() -> usize {
    fs::read_dir("/proc/self/fd").expect("Linux").count()
}

fn stress(steps: usize, in_pieces: bool) {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let seed = env::var("URING_SEED").map_or(SEED, |seed| seed.parse().expect("a number"));
    println!("URING_SEED={seed}");
    let mut stress = Stress::new(seed, in_pieces);
    let before = open_descriptors();
    let rounds = 8;
    for round in 0..rounds {
        for _ in 0..steps / rounds {
            stress.step();
        }
        stress.settle();
        if round % 2 == 1 {
            stress.close_all();
            assert_eq!(open_descriptors(), before, "descriptors");
        }
    }
    println!("{:?} {:?}", stress.done, stress.disk.done);
    for what in ["accepts", "pauses", "resumes", "closes", "releases", "chunks"] {
        assert!(stress.done.get(what).is_some_and(|count| *count > 0), "no {what}: {:?}", stress.done);
    }
    for what in ["open", "whole", "read", "write", "set length", "stat", "sync", "rename", "remove", "close"]
    {
        assert!(stress.disk.done.contains_key(what), "no {what}: {:?}", stress.disk.done);
    }
    // Stop in the middle of everything. The kept chunks outlive their engine.
    (0..500).for_each(|_| stress.step());
    let Stress { engine, disk, kept, lanes, waiting, .. } = stress;
    drop(engine);
    disk.end();
    for mut chunk in kept {
        chunk.bytes().fill(1);
    }
    drop((lanes, waiting));
    assert_eq!(open_descriptors(), before - DESCRIPTORS_OF_ENGINE, "the engine's own are closed");
}

#[test]
fn random_operations_leave_everything_as_it_was() {
    [false, true].into_iter().for_each(|in_pieces| stress(20_000, in_pieces));
}

#[test]
#[ignore = "slow: the slow tests of .ci/run have it"]
fn a_million_random_operations_leave_everything_as_it_was() {
    [false, true].into_iter().for_each(|in_pieces| stress(1_000_000, in_pieces));
}

/// Panics this many times: on drop, and again on the drop of each panic's payload.
struct Bomb(u32);

impl Drop for Bomb {
    fn drop(&mut self) {
        if self.0 > 0 {
            resume_unwind(Box::new(Bomb(self.0 - 1)));
        }
    }
}

/// Submits file operations, of which every second answer panics. Some of them complete at once.
fn ask_for_bombs(engine: &mut IoUring, answers: &Sender<bool>) {
    for at in 0..BOMBED {
        let (tell, is_bomb) = (answers.clone(), at % 2 == 0);
        let (path, file) =
            (PathBuf::from("/proc/self/exe"), fs::File::open("/proc/self/exe").expect("Linux"));
        let action = match at % 4 {
            0 => Action::Read { file: File::new(file, &path), offset: 0, bytes_max: 0, buffer: Vec::new() },
            _ => Action::Stat { path },
        };
        let job = FileJob::new(action, move |result| {
            tell.send(result.is_ok()).expect("the test listens");
            if is_bomb {
                resume_unwind(Box::new(Bomb(at as u32 % 3)));
            }
        });
        assert!(engine.host_mut().run_file(job).is_none(), "this kernel knows all of these");
    }
    engine.submit();
}

#[test]
fn a_panic_of_an_answer_while_the_engine_goes_frees_nothing_that_the_kernel_uses() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let (tell, answers) = channel();
    for turns in 0..2 {
        let mut engine = IoUring::new().expect("this kernel has io_uring");
        ask_for_bombs(&mut engine, &tell);
        for _ in 0..turns {
            engine.wait(Some(Duration::ZERO)).expect("the engine is whole");
            assert!(engine.next().is_none());
        }
        assert!(
            catch_unwind(AssertUnwindSafe(|| drop(engine))).is_ok(),
            "an answer's panic ends with the answer"
        );
        // Records that the kernel fills have this size. If they had been freed too early, the kernel would
        // write to these.
        let fresh = (0..2 * BOMBED).map(|_| Box::new([0xaa_u8; 256])).collect::<Vec<_>>();
        assert_eq!(answers.try_iter().count(), BOMBED, "each is answered once, before the engine is gone");
        assert!(fresh.iter().all(|bytes| bytes.iter().all(|byte| *byte == 0xaa)), "the kernel was done");
    }
}

#[test]
fn a_panic_of_an_answer_costs_no_other_answer() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let mut engine = IoUring::new().expect("this kernel has io_uring");
    let (tell, answers) = channel();
    ask_for_bombs(&mut engine, &tell);
    let mut told = Vec::new();
    while told.len() < BOMBED {
        engine.wait(None).expect("the engine is whole");
        assert!(engine.next().is_none());
        told.extend(answers.try_iter());
    }
    assert!(told.iter().all(|is_ok| *is_ok), "and each has its own result");
}

#[test]
fn with_every_buffer_held_a_new_stream_still_works() {
    [false, true].into_iter().for_each(hold_every_buffer);
}

fn hold_every_buffer(in_pieces: bool) {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let mut stress = Stress::new(SEED, in_pieces);
    let until = |stress: &mut Stress, done: &dyn Fn(&Stress) -> bool| {
        for _ in 0..1_000 {
            if done(stress) {
                return;
            }
            stress.engine.wait(Some(Duration::from_millis(50))).expect("the engine is whole");
            while let Some((key, event)) = stress.engine.next() {
                match event {
                    Event::Got(chunk) if stress.kept.len() < 4 => {
                        // Streams that hold enough are paused.
                        stress.engine.reading(key, false);
                        stress.kept.push(chunk);
                    }
                    event => stress.told(key, event),
                }
            }
        }
        panic!("it did not happen");
    };
    for count in 1..=4 {
        stress.connect();
        until(&mut stress, &|stress| stress.lanes.len() == count);
    }
    for lane in stress.lanes.values_mut() {
        lane.peer.write_all(&[0; 64]).expect("there is room");
    }
    until(&mut stress, &|stress| stress.kept.len() == 4);
    assert_eq!(stress.engine.lent(), 4, "none is left");
    let old = stress.lanes.keys().copied().collect::<Vec<_>>();
    stress.connect();
    until(&mut stress, &|stress| stress.lanes.len() == 5);
    let new = *stress.lanes.keys().find(|key| !old.contains(key)).expect("it was accepted");
    for round in 1..=3 {
        let lane = stress.lanes.get_mut(&new).expect("it lives");
        let bytes = (0..200).map(|at| byte(lane.salt, lane.written + at)).collect::<Vec<_>>();
        lane.peer.write_all(&bytes).expect("there is room");
        lane.written += 200;
        until(&mut stress, &move |stress| stress.lanes[&new].told == round * 200);
    }
    // The engine waits for a buffer without spinning.
    let before = stress.engine.calls();
    stress.engine.wait(Some(Duration::from_millis(30))).expect("the engine is whole");
    assert!(stress.engine.next().is_none());
    assert!(stress.engine.calls() - before <= 3, "{} calls", stress.engine.calls() - before);
    stress.kept.clear();
    assert_eq!(stress.engine.lent(), 0);
}

static ALONE: Mutex<()> = Mutex::new(());

const SEED: u64 = 8154;
/// The most connections at once.
const LANES_MAX: usize = 24;
/// The most chunks kept at once. Usually one less than the buffers, sometimes all of them.
const KEPT_MAX: usize = 4;
const SETTLE_TURNS_MAX: usize = 20_000;
/// The ring, the waker's counter, the reserve, and the listener.
const DESCRIPTORS_OF_ENGINE: usize = 4;
/// How many file operations are submitted whose answers panic or not.
const BOMBED: usize = 400;
