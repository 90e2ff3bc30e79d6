//! A stop waits for work in flight: the disk has every acknowledged number when SIGTERM has ended the node.
#![cfg(unix)]

use std::{cell::RefCell, rc::Rc, time::Duration};

use reactor::{
    Context, Error, Hold, Receive, Result, Service,
    file::{File, OpenOptions, Opened, Operation},
    signals::{Graceful, Signal},
};
use sim::{Chance, Faults, Kind, World, WorldOptions};

/// Acknowledges numbers, and stores each in a file, by one of several ways.
struct Store {
    acknowledged: Rc<RefCell<Vec<u64>>>,
    file: Option<File>,
    is_stopping: bool,
}

struct Next;
struct Open(Result<Opened, Error>);
struct Computed(u64);
struct Told(u64);
struct Late(u64, Hold);
struct Kept(Result<(), Error>);

impl Store {
    fn keep(&mut self, cx: &mut Context<Self>, number: u64) -> Result {
        let file = self.file.as_ref().ok_or("it was opened first")?;
        cx.file(Operation::append(file, format!("{number}\n")), Kept)?;
        Ok(())
    }
}

impl Service for Store {
    fn start(&mut self, cx: &mut Context<Self>) -> Result {
        let how = OpenOptions::with(|options| options.append = true);
        cx.file(Operation::open("/state/log", how), Open)?;
        Ok(())
    }

    fn stop(&mut self, _: &mut Context<Self>) {
        self.is_stopping = true;
    }
}

impl Receive<Open> for Store {
    fn receive(&mut self, cx: &mut Context<Self>, Open(opened): Open) -> Result {
        self.file = Some(opened?.file);
        cx.after(Duration::ZERO, Next);
        Ok(())
    }
}

impl Receive<Next> for Store {
    fn receive(&mut self, cx: &mut Context<Self>, Next: Next) -> Result {
        if self.is_stopping {
            return Ok(());
        }
        let number = self.acknowledged.borrow().len() as u64;
        self.acknowledged.borrow_mut().push(number);
        match number % 4 {
            0 => self.keep(cx, number)?,
            1 => cx.offload(move || Computed(number)).map_err(|refused| refused.to_string())?,
            2 => cx.tell(cx.me(), Told(number)).map_err(|refused| refused.to_string())?,
            _ => {
                let message = Late(number, cx.hold());
                cx.after(Duration::from_millis(2), message);
            }
        }
        let after = Duration::from_micros(cx.random() % 800);
        cx.after(after, Next);
        Ok(())
    }
}

impl Receive<Computed> for Store {
    fn receive(&mut self, cx: &mut Context<Self>, Computed(number): Computed) -> Result {
        self.keep(cx, number)
    }
}

impl Receive<Told> for Store {
    fn receive(&mut self, cx: &mut Context<Self>, Told(number): Told) -> Result {
        self.keep(cx, number)
    }
}

impl Receive<Late> for Store {
    fn receive(&mut self, cx: &mut Context<Self>, Late(number, hold): Late) -> Result {
        self.keep(cx, number)?;
        // From here on, the stop waits for the operation itself.
        drop(hold);
        Ok(())
    }
}

impl Receive<Kept> for Store {
    fn receive(&mut self, _: &mut Context<Self>, Kept(result): Kept) -> Result {
        result?;
        Ok(())
    }
}

/// Returns faults that delay: work and file operations of up to a second, and completions that others
/// overtake.
fn slow() -> Faults {
    let kinds = [Kind::SlowJob, Kind::SlowFile, Kind::LateFile];
    kinds.into_iter().fold(Faults::none(), |faults, kind| faults.with(kind, 50_000))
}

#[test]
fn what_was_acknowledged_is_kept_when_sigterm_comes() {
    (0..300).for_each(|seed| stop(seed, Faults::none()));
}

#[test]
fn what_was_acknowledged_is_kept_although_work_and_disk_are_slow() {
    (0..300).for_each(|seed| stop(seed, slow()));
}

/// Stops a store in the middle, and compares its acknowledged numbers with its stored ones.
fn stop(seed: u64, faults: Faults) {
    let mut options = WorldOptions::default();
    options.faults = faults;
    let mut world = World::with_options(seed, options);
    let acknowledged = Rc::<RefCell<Vec<u64>>>::default();
    let shared = acknowledged.clone();
    let node = world.add(move |runtime| {
        runtime.add(Graceful::within(Duration::from_secs(10)))?;
        runtime.add(Store { acknowledged: shared.clone(), file: None, is_stopping: false })
    });
    world.put_file(node, "/state/log", b"");
    world.run_for(Duration::from_micros(Chance::new(seed).between(1_000, 50_000)));
    world.signal(node, Signal::TERM);
    world.run_for(Duration::from_secs(20));
    let ended = world.ended(node).expect("it ends within its grace");
    let receipt = ended.as_ref().expect("nothing failed");
    let left = (receipt.file_operations_dropped, receipt.jobs_dropped, receipt.holds);
    assert_eq!(left, (0, 0, 0), "seed {seed}");
    let text = world.file(node, "/state/log").expect("it is there");
    let mut kept: Vec<u64> =
        String::from_utf8(text).expect("text").lines().map(|line| line.parse().expect("a number")).collect();
    kept.sort_unstable();
    assert_eq!(kept, *acknowledged.borrow(), "seed {seed}: acknowledged and lost");
}
