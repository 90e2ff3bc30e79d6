//! A service that holds child processes, for the rows about them.

use std::process::{Command, ExitStatus};

use reactor::{
    Error,
    process::{Process, SpawnOptions, Standard},
};

use super::prelude::*;

/// Holds children, and records their events in order.
#[derive(Default)]
pub(super) struct Parent {
    pub(super) told: Vec<(usize, ChildEvent)>,
    /// In the order in which they started.
    pub(super) children: Vec<Kept>,
    pub(super) output: Vec<u8>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum ChildEvent {
    Exit(ExitStatus),
    Gone,
    OutputEnd,
    OutputClosed,
    InputEnd,
    InputClosed { failed: bool },
}

pub(super) struct Kept {
    pub(super) process: Id<Process>,
    pub(super) pid: u32,
    pub(super) input: Option<Id<In>>,
    pub(super) output: Option<Id<Out>>,
}

pub(super) struct Input;
pub(super) type In = Stream<Bytes, (), Input>;
pub(super) type Out = Stream<Bytes>;

impl Parent {
    pub(super) fn start(
        &mut self,
        cx: &mut Context<'_, Parent>,
        script: &str,
        options: &SpawnOptions,
    ) -> Result<usize, Error> {
        let child = cx.spawn(Command::new("/bin/sh").args(["-c", script]), options)?;
        let pid = child.process.pid();
        let process = cx.add(child.process).map_err(|rejected| rejected.error)?;
        let input = child.stdin.map(|stdin| cx.add(Stream::new(Bytes).role().through(stdin)));
        let input = input.transpose().map_err(|rejected| rejected.error)?;
        let output = child.stdout.map(|stdout| cx.add(Stream::new(Bytes).through(stdout)));
        let output = output.transpose().map_err(|rejected| rejected.error)?;
        self.children.push(Kept { process, pid, input, output });
        Ok(self.children.len() - 1)
    }

    pub(super) fn of(&self, child: usize) -> Vec<ChildEvent> {
        self.told.iter().filter(|(of, _)| *of == child).map(|(_, told)| *told).collect()
    }

    pub(super) fn has(&self, child: usize, told: ChildEvent) -> bool {
        self.told.contains(&(child, told))
    }

    pub(super) fn exited(&self) -> usize {
        self.told.iter().filter(|(_, told)| matches!(told, ChildEvent::Exit(_))).count()
    }
}

impl Service for Parent {}

impl Handle<Process> for Parent {
    fn handle(&mut self, _: &mut Context<'_, Self>, id: Id<Process>, status: ExitStatus) -> Result {
        let at = self.children.iter().position(|child| child.process == id).ok_or("a child of ours")?;
        self.told.push((at, ChildEvent::Exit(status)));
        Ok(())
    }

    fn closed(&mut self, _: &mut Context<'_, Self>, id: Id<Process>, _: Process, _: Closed) {
        let at = self.children.iter().position(|child| child.process == id);
        self.told.push((at.expect("a child of ours"), ChildEvent::Gone));
    }
}

impl Handle<Out> for Parent {
    fn handle(&mut self, _: &mut Context<'_, Self>, id: Id<Out>, event: Event<'_, Bytes>) -> Result {
        match event {
            Event::Received(bytes) => self.output.extend_from_slice(bytes),
            Event::End => {
                let at = self.children.iter().position(|child| child.output == Some(id));
                self.told.push((at.ok_or("a child of ours")?, ChildEvent::OutputEnd));
            }
            Event::Open | Event::Drained | Event::HungUp => (),
        }
        Ok(())
    }

    fn closed(&mut self, _: &mut Context<'_, Self>, id: Id<Out>, _: Out, _: Closed) {
        let at = self.children.iter().position(|child| child.output == Some(id));
        self.told.push((at.expect("a child of ours"), ChildEvent::OutputClosed));
    }
}

impl Handle<In> for Parent {
    fn handle(&mut self, _: &mut Context<'_, Self>, id: Id<In>, event: Event<'_, Bytes>) -> Result {
        if let Event::End = event {
            let at = self.children.iter().position(|child| child.input == Some(id));
            self.told.push((at.ok_or("a child of ours")?, ChildEvent::InputEnd));
        }
        Ok(())
    }

    fn closed(&mut self, _: &mut Context<'_, Self>, id: Id<In>, _: In, why: Closed) {
        let failed = why.io().is_some_and(|error| error.kind() == ErrorKind::BrokenPipe);
        let at = self.children.iter().position(|child| child.input == Some(id));
        self.told.push((at.expect("a child of ours"), ChildEvent::InputClosed { failed }));
    }
}

/// Returns the options of a child without pipes.
pub(super) fn silent() -> SpawnOptions {
    let mut options = SpawnOptions::default();
    (options.stdin, options.stdout, options.stderr) = (Standard::Null, Standard::Null, Standard::Null);
    options
}

/// Returns the options of a child that inherits our stderr.
pub(super) fn spoken() -> SpawnOptions {
    let mut options = SpawnOptions::default();
    options.stderr = Standard::Inherited;
    options
}

/// Reports whether a process with this number exists. Our own zombies count.
pub(super) fn exists(pid: u32) -> bool {
    let Ok(stat) = std::fs::read_to_string(format!("/proc/{pid}/stat")) else { return false };
    // We cannot reap orphans of a child, and their new parent may take its time. Ignore such zombies.
    let ours = stat.contains(&format!(" {} ", std::process::id()));
    ours || !stat.contains(") Z ")
}

pub(super) fn until_gone(pids: &[u32]) -> Outcome {
    let end = std::time::Instant::now() + Duration::from_secs(10);
    while let Some(pid) = pids.iter().find(|pid| exists(**pid)) {
        check!(std::time::Instant::now() < end, "process {pid} is still there");
        std::thread::yield_now();
    }
    Ok(())
}
