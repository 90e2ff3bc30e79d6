//! Files on a simulated disk: replaced as a whole or not at all, copied by a reader and a writer, listed and
//! moved.

use std::{cell::RefCell, rc::Rc, time::Duration};

use reactor::{
    Closed, Context, Error, Flow, Handle, Id, Receive, Result, Service,
    file::{DirEntry, FileEvent, FileReader, FileWriter, OpenOptions, Opened, Operation, WriterEvent},
};
use sim::{Chance, DiskOptions, World};

/// Replaces one file again and again, with content that shows whether it is whole.
struct Replacer {
    outside: Rc<RefCell<Replaced>>,
    next: u64,
    listed: Vec<DirEntry>,
}

#[derive(Default)]
struct Replaced {
    /// The last content that was acknowledged, and the last that was requested.
    acknowledged: u64,
    asked: u64,
    failed: u64,
}

struct Kept(Result<(), Error>);
struct Listed(Result<Vec<DirEntry>, Error>);

/// Repeats the number nine hundred times, so that a mixture shows.
fn content(number: u64) -> Vec<u8> {
    format!("{number} ").repeat(900).into_bytes()
}

impl Replacer {
    fn new(outside: &Rc<RefCell<Replaced>>) -> Replacer {
        Replacer { outside: outside.clone(), next: 0, listed: Vec::new() }
    }

    fn ask(&mut self, cx: &mut Context<Self>) -> Result {
        let mut outside = self.outside.borrow_mut();
        outside.asked += 1;
        self.next = outside.asked;
        cx.file(Operation::replace("/state/value", content(self.next)), Kept)?;
        Ok(())
    }
}

impl Service for Replacer {
    fn start(&mut self, cx: &mut Context<Self>) -> Result {
        self.ask(cx)
    }
}

impl Receive<Kept> for Replacer {
    fn receive(&mut self, cx: &mut Context<Self>, Kept(result): Kept) -> Result {
        match result {
            Ok(()) => self.outside.borrow_mut().acknowledged = self.next,
            Err(_) => self.outside.borrow_mut().failed += 1,
        }
        self.ask(cx)
    }
}

impl Receive<Listed> for Replacer {
    fn receive(&mut self, _: &mut Context<Self>, Listed(entries): Listed) -> Result {
        self.listed = entries?;
        Ok(())
    }
}

/// Returns the number of this content, or `None` for a mixture.
fn number_of(bytes: &[u8]) -> Option<u64> {
    let number = std::str::from_utf8(bytes).ok()?.split(' ').next()?.parse().ok()?;
    (content(number) == bytes).then_some(number)
}

fn replace_through_cuts(seed: u64, options: &DiskOptions) -> (u64, u64, bool) {
    let mut world = World::new(seed);
    let outside = Rc::new(RefCell::new(Replaced::default()));
    let kept = outside.clone();
    let node = world.add(move |runtime| runtime.add(Replacer::new(&kept)));
    world.put_file(node, "/state/value", &content(0));
    world.set_disk(node, options.clone());
    let mut chance = Chance::new(seed);
    let mut is_newer = false;
    for _ in 0..40 {
        world.run_for(Duration::from_micros(chance.between(0, 20_000)));
        if chance.below(4) == 0 {
            world.crash(node)
        } else {
            world.power_off(node)
        }
        let bytes = world.file(node, "/state/value").expect("there is always one");
        let number = number_of(&bytes).unwrap_or_else(|| panic!("seed {seed}: a mixture"));
        let outside = outside.borrow();
        assert!(number >= outside.acknowledged, "seed {seed}: {number} after {}", outside.acknowledged);
        assert!(number <= outside.asked, "seed {seed}");
        is_newer |= number > outside.acknowledged;
        drop(outside);
        world.restart(node);
    }
    let outside = outside.borrow();
    (outside.acknowledged, outside.failed, is_newer)
}

#[test]
fn a_file_is_replaced_whole_or_not_at_all_whenever_the_power_goes() {
    let (mut acknowledged, mut newer) = (0, 0);
    for seed in 0..25 {
        let (last, failed, is_newer) = replace_through_cuts(seed, &DiskOptions::default());
        assert_eq!(failed, 0, "seed {seed}");
        acknowledged += last;
        newer += u32::from(is_newer);
    }
    assert!(acknowledged > 500 && newer > 0, "{acknowledged} {newer}");
}

#[test]
fn a_replace_that_fails_leaves_the_old_content_and_no_temporary_file() {
    let mut options = DiskOptions::default();
    (options.write_errors, options.sync_errors) = (300_000, 200_000);
    let failed: u64 = (100..110).map(|seed| replace_through_cuts(seed, &options).1).sum();
    assert!(failed > 20, "{failed}");

    // Without a power cut, a failure leaves nothing behind.
    let mut world = World::new(1);
    let outside = Rc::new(RefCell::new(Replaced::default()));
    let kept = outside.clone();
    let node = world.add(move |runtime| runtime.add(Replacer::new(&kept)));
    world.put_file(node, "/state/value", &content(0));
    let mut full = DiskOptions::default();
    full.capacity = content(0).len() as u64 + 100;
    world.set_disk(node, full);
    world.run_for(Duration::from_millis(200));
    assert!(outside.borrow().failed > 10);
    assert_eq!(number_of(&world.file(node, "/state/value").expect("it is there")), Some(0));
    let asked = world.with(node, |_, cx| cx.file(Operation::read_directory("/state", 9), Listed).is_ok());
    assert_eq!(asked, Some(true));
    world.run_for(Duration::from_millis(5));
    let names: Vec<_> =
        world.service(node).expect("it is up").listed.iter().map(|entry| &entry.name).collect();
    assert_eq!(names, ["value"]);
}

/// Copies a file by a reader and a writer. The writer's marks pace the reader.
#[derive(Default)]
struct Copier {
    reader: Option<Id<FileReader>>,
    writer: Option<Id<FileWriter>>,
    source: Option<Opened>,
    pauses: u32,
    closed: Vec<String>,
}

struct Source(Result<Opened, Error>);
struct Target(Result<Opened, Error>);

impl Service for Copier {
    fn start(&mut self, cx: &mut Context<Self>) -> Result {
        cx.file(Operation::open("/from", OpenOptions::read()), Source)?;
        Ok(())
    }
}

impl Receive<Source> for Copier {
    fn receive(&mut self, cx: &mut Context<Self>, Source(opened): Source) -> Result {
        self.source = Some(opened?);
        cx.file(Operation::open("/to", OpenOptions::write()), Target)?;
        Ok(())
    }
}

impl Receive<Target> for Copier {
    fn receive(&mut self, cx: &mut Context<Self>, Target(opened): Target) -> Result {
        self.writer = Some(cx.add(FileWriter::new(opened?.file).synced(true))?);
        let source = self.source.take().ok_or("it was opened before")?;
        // Each chunk is above the writer's high mark.
        let reader = FileReader::new(source.file).range(0..source.metadata.len).chunk(300 << 10);
        self.reader = Some(cx.add(reader)?);
        Ok(())
    }
}

impl Handle<FileReader> for Copier {
    fn handle(&mut self, cx: &mut Context<Self>, id: Id<FileReader>, event: FileEvent<'_>) -> Result {
        let writer = self.writer.ok_or("it was added before")?;
        match event {
            FileEvent::Chunk(bytes) => {
                if cx.send(writer, bytes) == Flow::High {
                    self.pauses += 1;
                    cx.pause(id);
                }
            }
            FileEvent::End => cx.close(writer),
        }
        Ok(())
    }

    fn closed(&mut self, _: &mut Context<Self>, _: Id<FileReader>, _: FileReader, why: Closed) {
        self.closed.push(format!("reader {why}"));
    }
}

impl Handle<FileWriter> for Copier {
    fn handle(&mut self, cx: &mut Context<Self>, _: Id<FileWriter>, _: WriterEvent) -> Result {
        if let Some(reader) = self.reader {
            cx.resume(reader);
        }
        Ok(())
    }

    fn closed(&mut self, cx: &mut Context<Self>, _: Id<FileWriter>, _: FileWriter, why: Closed) {
        self.closed.push(format!("writer {why}"));
        // This timer keeps the node up.
        cx.after(Duration::from_secs(1_000_000), Forever);
    }
}

struct Forever;

impl Receive<Forever> for Copier {
    fn receive(&mut self, _: &mut Context<Self>, Forever: Forever) -> Result {
        Ok(())
    }
}

#[test]
fn a_copy_that_was_synced_and_named_survives_the_power_cut_after_it() {
    let mut world = World::new(3);
    let node = world.add(|runtime| runtime.add(Copier::default()));
    let content: Vec<u8> = (0..3_000_000_u32).map(|at| (at / 7 % 251) as u8).collect();
    world.put_file(node, "/from", &content);
    world.put_file(node, "/to", b"");
    world.run_for(Duration::from_secs(5));
    let copier = world.service(node).expect("it is up");
    assert_eq!(copier.closed, ["reader closed", "writer closed"]);
    assert!(copier.pauses > 0, "the writer's marks were never reached");
    assert!(world.file(node, "/to").is_some_and(|copy| copy == content));
    world.power_off(node);
    assert!(world.file(node, "/to").is_some_and(|copy| copy == content), "it was synced");
}
