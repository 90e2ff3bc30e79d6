//! M at runtime level: memory is freed, and exists only once.

use std::{
    fs,
    rc::Weak,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use reactor::{ConnectOptions, Controller, Shared};

use super::prelude::*;
use crate::suite::open_descriptors;

pub(super) const ROWS: &[Row] = &[
    slow("M1r", "thousands of connections come and go, and nothing grows", &[], churn),
    row("M2r", "after a burst the queues hold nothing, and a second one takes no more memory", &[], bursts),
    row("M5r", "what is shared by many streams is there once", &[], fan_out),
    row("M6r", "a service that holds its own controller is freed", &[], cycle),
];

fn churn(fixture: &mut Fixture<'_>) -> Outcome {
    let mut rig = Rig::new(fixture)?;
    let (echo, address) = rig.echo()?;
    let client = rig.add(Probe::acting(|cx, id, what| {
        if let (Some(id), What::Got(_)) = (id, what) {
            cx.abort(id);
        }
        Ok(())
    }))?;
    rig.get_mut(client).forget();
    let rounds = sized(fixture, 50, 5);
    let mut first = None;
    for round in 0..rounds {
        let size = sized(fixture, 100, 20);
        for _ in 0..size {
            let id = rig.connect(client, &address, Stream::new(Bytes))?;
            rig.with(client, |_, cx| cx.send(id, b"x"));
        }
        rig.until("all have come and gone", |rig| {
            rig.get(client).closed.len() == size && rig.get(echo).closed == (round + 1) * size
        })?;
        rig.get_mut(client).closed.clear();
        rig.get_mut(client).open.clear();
        let counters = rig.counters();
        let now = (open_descriptors(), counters.resources, counters.queue_bytes, counters.timers);
        check!(*first.get_or_insert(now) == now, "in round {round} it is {now:?}, it was {first:?}");
    }
    rig.finish()
}

/// Returns the resident memory of the process, if the system reports it.
fn resident() -> Option<usize> {
    let text = fs::read_to_string("/proc/self/statm").ok()?;
    text.split(' ').nth(1)?.parse::<usize>().ok().map(|pages| pages * 4_096)
}

fn bursts(fixture: &mut Fixture<'_>) -> Outcome {
    let mut rig = Rig::new(fixture)?;
    let (server, client) = (rig.add(Probe::quiet())?, rig.add(Probe::quiet())?);
    let (_, address) = rig.listen(server, || Stream::new(Bytes))?;
    let count = sized(fixture, 12, 4);
    let ids: Vec<_> =
        (0..count).map(|_| rig.connect(client, &address, Stream::new(Bytes))).collect::<Result<_, _>>()?;
    rig.until("all are open", |rig| rig.get(server).open.len() == count)?;
    rig.get_mut(server).forget();
    let item = vec![7; sized(fixture, 2 << 20, 3_000)];
    let (mut memory, open) = (Vec::new(), rig.get(server).open.clone());
    for burst in 1..=3 {
        rig.with(client, |_, cx| ids.iter().for_each(|id| _ = cx.send(*id, &item)));
        rig.until("the burst has arrived", |rig| {
            open.iter().all(|id| rig.get(server).received(*id) == burst * item.len())
        })?;
        rig.settle()?;
        check!(rig.counters().queue_bytes == 0, "{} bytes are queued", rig.counters().queue_bytes);
        memory.extend(resident());
    }
    if let [first, .., last] = memory[..] {
        check!(last < first + (16 << 20), "resident were {memory:?} bytes after each burst");
    }
    rig.with(client, |_, cx| ids.iter().for_each(|id| cx.abort(*id)));
    rig.finish()
}

fn fan_out(fixture: &mut Fixture<'_>) -> Outcome {
    let (count, size) = (sized(fixture, 60, 20), sized(fixture, 4 << 20, 300_000));
    let mut rig = Rig::new(fixture)?;
    let (server, client) = (rig.add(Probe::quiet())?, rig.add(Probe::quiet())?);
    let options = StreamOptions::with(|options| options.item = 16 << 20);
    let (_, address) = rig.listen(server, move || Stream::new(Bytes).options(options.clone()))?;
    let ids: Vec<_> = (0..count)
        .map(|_| rig.connect_with(client, &address, &narrow(), Stream::new(Bytes)))
        .collect::<Result<_, _>>()?;
    rig.until("all are open", |rig| rig.get(server).open.len() + rig.get(client).open.len() == 2 * count)?;
    rig.with(client, |_, cx| ids.iter().for_each(|id| cx.pause(*id)));
    rig.settle()?;
    let before = resident();
    let shared = Shared::from(vec![7; size]);
    let to = rig.get(server).open.clone();
    rig.with(server, |_, cx| to.iter().for_each(|id| _ = cx.send_shared(*id, &shared)));
    rig.settle()?;
    let queued = rig.counters().queue_bytes;
    check!(queued > (count * size / 8) as u64, "only {queued} bytes are queued");
    if let (Some(before), Some(after), false) = (before, resident(), fixture.is_virtual()) {
        let grown = after.saturating_sub(before);
        check!(grown < count * size / 8, "{grown} bytes for {size} shared by {count}");
    }
    rig.with(client, |_, cx| ids.iter().for_each(|id| cx.abort(*id)));
    rig.until("all have ended", |rig| rig.get(server).closed.len() == count)?;
    rig.finish()
}

/// Returns the options of a connection that receives little at a time.
fn narrow() -> ConnectOptions {
    let mut options = ConnectOptions::default();
    options.socket.receive_buffer = Some(4 << 10);
    options
}

/// Holds its own controller, and marks that show whether it was freed.
struct Holder {
    controller: Option<Controller<Holder>>,
    _mark: Rc<()>,
    _count: Arc<AtomicUsize>,
}

impl Service for Holder {
    fn start(&mut self, cx: &mut Context<'_, Self>) -> Result {
        self.controller = Some(cx.controller());
        Ok(())
    }
}

impl Receive<Arc<AtomicUsize>> for Holder {
    fn receive(&mut self, _: &mut Context<'_, Self>, count: Arc<AtomicUsize>) -> Result {
        count.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }
}

fn cycle(fixture: &mut Fixture<'_>) -> Outcome {
    for stops in [true, false] {
        let mut rig = Rig::new(fixture)?;
        let (mark, count) = (Rc::new(()), Arc::new(AtomicUsize::new(0)));
        let weak: Weak<()> = Rc::downgrade(&mark);
        let id = rig.add(Holder { controller: None, _mark: mark, _count: count.clone() })?;
        let controller = rig.runtime.controller(id);
        for _ in 0..3 {
            controller.send(count.clone()).map_err(|refused| refused.to_string())?;
        }
        rig.settle()?;
        check!(count.load(Ordering::Relaxed) == 3, "the commands were not executed");
        // One more message is in the queue, and shares ownership with the service.
        controller.send(count.clone()).map_err(|refused| refused.to_string())?;
        if stops {
            rig.finish()?
        } else {
            drop(rig)
        }
        check!(weak.upgrade().is_none(), "the service is not freed");
        check!(Arc::strong_count(&count) == 1, "{} owners are left", Arc::strong_count(&count));
        check!(controller.send(count.clone()).is_err(), "a runtime that is gone takes commands");
    }
    Ok(())
}
