//! Child processes: programs that a test writes, and that services start like real ones.

use std::{
    cell::RefCell,
    collections::{BTreeMap, HashMap},
    fmt, io,
    mem::take,
    process::Command,
    rc::Rc,
    time::Duration,
};

use reactor::{
    Source, Time,
    engine::{Ending, Transport},
    process::{Child as Started, Hosted, Process, SpawnOptions, Standard},
};

use crate::{
    engine::sources::Sources,
    error,
    ids::{ChildId, EndId, HostId, Id as _, SourceId},
    net::link::nanos,
    net::stream::{Mover, Streams},
    testing::source::VirtualSource,
    world::{
        World,
        base::Base,
        state::{Scheduled, State},
    },
};

/// A program in a simulated world. It defines the reactions of a child process, event by event.
///
/// [`Context::spawn`](reactor::Context::spawn) starts it by the name that
/// [`World::program`](crate::World::program) gave it.
///
/// ```
/// use sim::{ProgramContext, Program, World};
///
/// /// Echoes its input, and ends with it: `cat`.
/// struct Cat;
///
/// impl Program for Cat {
///     fn input(&mut self, cx: &mut ProgramContext<'_>, bytes: &[u8]) {
///         cx.say(bytes);
///     }
///
///     fn input_ended(&mut self, cx: &mut ProgramContext<'_>) {
///         cx.exit(0);
///     }
/// }
///
/// World::new(1).program("cat", |_args| Cat);
/// ```
pub trait Program: 'static {
    /// Runs when the child begins.
    fn begin(&mut self, cx: &mut ProgramContext<'_>) {
        let _ = cx;
    }

    /// Handles input, if the input is piped.
    fn input(&mut self, cx: &mut ProgramContext<'_>, bytes: &[u8]) {
        let _ = (cx, bytes);
    }

    /// Handles the end of the input. If the input is not piped, this is called at once.
    fn input_ended(&mut self, cx: &mut ProgramContext<'_>) {
        let _ = cx;
    }

    /// Handles a signal. By default the child dies of it. SIGKILL never arrives here, because the child
    /// always dies of it.
    fn signal(&mut self, cx: &mut ProgramContext<'_>, number: i32) {
        cx.die(number);
    }

    /// Handles the timer of [`ProgramContext::after`].
    fn time(&mut self, cx: &mut ProgramContext<'_>, token: u64) {
        let _ = (cx, token);
    }

    /// Handles a write to a pipe whose reader has closed. By default the child dies of SIGPIPE.
    fn unheard(&mut self, cx: &mut ProgramContext<'_>) {
        cx.die(PIPE);
    }
}

/// The operations of a running program. See [`Program`] for an example.
pub struct ProgramContext<'a> {
    state: &'a RefCell<State>,
    child: ChildId,
}

impl fmt::Debug for ProgramContext<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ProgramContext").field("child", &self.child).finish_non_exhaustive()
    }
}

impl ProgramContext<'_> {
    /// Returns the virtual time.
    pub fn now(&self) -> Time {
        Time::from_nanos(self.state.borrow().base.now())
    }

    /// Draws a random number from the world's seed.
    pub fn random(&mut self) -> u64 {
        self.state.borrow_mut().base.faults.chance.bits()
    }

    /// Returns the child's process id.
    pub fn pid(&self) -> u32 {
        pid(self.child)
    }

    /// Writes to the standard output. Bytes that do not fit in the pipe wait, and the child's end waits for
    /// them.
    pub fn say(&mut self, bytes: &[u8]) {
        self.write(0, bytes);
    }

    /// Writes to the standard error.
    pub fn complain(&mut self, bytes: &[u8]) {
        self.write(1, bytes);
    }

    fn write(&mut self, which: usize, bytes: &[u8]) {
        let state = &mut *self.state.borrow_mut();
        let child = state.children.known(self.child);
        if child.ending.is_none() && child.outs[which].is_some() {
            child.backlog[which].extend_from_slice(bytes);
            state.children.wake(&mut state.base, self.child);
        }
    }

    /// Starts or stops reading the input.
    pub fn listen(&mut self, on: bool) {
        let state = &mut *self.state.borrow_mut();
        let child = state.children.known(self.child);
        child.is_listening = on;
        if let Some(at) = child.stdin {
            state.streams.ends[at].wants = on;
            state.streams.look_at_end(&mut state.base, at);
            state.serve_movers();
        }
    }

    /// Closes the standard input. A later write to it fails with a broken pipe.
    pub fn close_input(&mut self) {
        let state = &mut *self.state.borrow_mut();
        if let Some(at) = state.children.known(self.child).stdin.take() {
            state.streams.close_end(&mut state.base, at, Ending::Orderly);
        }
    }

    /// Closes the standard output and standard error. The child lives on, and its waiting output is lost.
    pub fn close_output(&mut self) {
        let state = &mut *self.state.borrow_mut();
        state.children.close_outputs(&mut state.base, &mut state.streams, self.child);
    }

    /// Calls [`Program::time`] after this time.
    pub fn after(&mut self, time: Duration, token: u64) {
        let clock = &mut self.state.borrow_mut().base.clock;
        let at = clock.after(time);
        clock.schedule(at, Scheduled::Child { child: self.child, event: ChildEvent::Time(token) });
    }

    /// Leaves a descendant behind, which holds the output open for this long after the child's end, unless
    /// that end kills the group.
    pub fn leave_behind(&mut self, time: Duration) {
        self.state.borrow_mut().children.known(self.child).left_behind = Some(nanos(time));
    }

    /// Ends with this code.
    pub fn exit(&mut self, code: u8) {
        self.end(i32::from(code) << 8);
    }

    /// Ends by a signal.
    pub fn die(&mut self, signal: i32) {
        self.end(signal & 0x7f);
    }

    fn end(&mut self, status: i32) {
        self.state.borrow_mut().children.known(self.child).ending.get_or_insert(status);
    }
}

/// An event of a child.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum ChildEvent {
    Begin,
    /// The child's pipes have changed.
    Progress,
    Signal(i32),
    Time(u64),
    /// The descendant that the child left behind has gone, too.
    Rest,
}

/// All children and all programs.
#[derive(Default)]
pub(crate) struct Children {
    /// By number. A child leaves the map once it has ended and nobody holds its output. Numbers are not
    /// reused.
    all: BTreeMap<ChildId, Child>,
    next: u32,
    programs: HashMap<String, Known>,
}

/// The constructor of a program, or the error number with which its execution fails.
type Known = Result<Rc<dyn Fn(&[String]) -> Box<dyn Program>>, i32>;

struct Child {
    host: HostId,
    /// `None` during a call of the program, and after its end.
    program: Option<Box<dyn Program>>,
    stdin: Option<EndId>,
    outs: [Option<EndId>; 2],
    /// Output that does not fit in the pipe yet.
    backlog: [Vec<u8>; 2],
    /// The number of the source that delivers the exit status.
    status: SourceId,
    of_group: bool,
    ends_group: bool,
    left_behind: Option<u64>,
    is_listening: bool,
    /// The exit status of a child that ends as soon as all its output is in the pipes.
    ending: Option<i32>,
    is_over: bool,
    is_queued: bool,
}

impl Children {
    fn know(&mut self, name: &str, program: Known) {
        self.programs.insert(name.to_owned(), program);
    }

    fn next_id(&mut self) -> ChildId {
        self.next += 1;
        ChildId::new(self.next as usize - 1)
    }

    pub(crate) fn running(&self) -> usize {
        self.all.values().filter(|child| !child.is_over).count()
    }

    /// Returns a child that must exist, because its program is running or it was found just before.
    fn known(&mut self, number: ChildId) -> &mut Child {
        self.all.get_mut(&number).expect("it leaves only after its end")
    }
}

/// The handle that a [`Process`] has of its child.
struct ChildHandle {
    state: Rc<RefCell<State>>,
    child: ChildId,
    status: VirtualSource,
}

impl Hosted for ChildHandle {
    fn source(&self) -> Source<'_> {
        self.status.source()
    }

    fn signal(&self, number: i32) -> io::Result<()> {
        // The state is borrowed if a panic inside the world drops a process.
        let gone = || error::os(error::NO_PROCESS);
        let mut state = self.state.try_borrow_mut().map_err(|_| gone())?;
        if state.children.all.get(&self.child).is_none_or(|child| child.is_over) {
            return Err(gone());
        }
        if number != 0 {
            let clock = &mut state.base.clock;
            let event = ChildEvent::Signal(number);
            clock.schedule(clock.now(), Scheduled::Child { child: self.child, event });
        }
        Ok(())
    }
}

/// Starts a program on a host.
pub(crate) fn spawn(
    state: &Rc<RefCell<State>>,
    host: HostId,
    command: &Command,
    options: &SpawnOptions,
) -> io::Result<Started> {
    let name = command.get_program().to_string_lossy().into_owned();
    let args: Vec<String> = command.get_args().map(|arg| arg.to_string_lossy().into_owned()).collect();
    let known = state.borrow().children.programs.get(&name).cloned();
    let program = match known {
        Some(Ok(make)) => make(&args),
        Some(Err(number)) => return Err(error::os(number)),
        None => return Err(error::os(error::NO_ENTRY)),
    };
    let status = VirtualSource::new(state);
    let mut guard = state.borrow_mut();
    let world = &mut *guard;
    let number = world.children.next_id();
    let mut pipe = |standard: Standard, is_read_by_child: bool| {
        (standard == Standard::Piped).then(|| {
            let (reader, writer) = world.streams.add_pipe(host);
            let (theirs, ours) = if is_read_by_child { (reader, writer) } else { (writer, reader) };
            world.streams.give_end(theirs, Mover::Child(number));
            (theirs, world.streams.transport(&world.base, ours))
        })
    };
    let ends = [pipe(options.stdin, true), pipe(options.stdout, false), pipe(options.stderr, false)];
    let theirs = |at: usize| ends[at].as_ref().map(|(theirs, _)| *theirs);
    let child = Child {
        host,
        program: Some(program),
        stdin: theirs(0),
        outs: [theirs(1), theirs(2)],
        backlog: [Vec::new(), Vec::new()],
        status: status.id(),
        of_group: options.group,
        ends_group: options.group && options.kill_rest,
        left_behind: None,
        is_listening: true,
        ending: None,
        is_over: false,
        // Events of the pipes wait until the child begins.
        is_queued: true,
    };
    world.children.all.insert(number, child);
    world.base.record.digest.number(u64::from(number.number()) << 8 | 0xc4);
    let begins = world.base.now() + world.base.faults.chance.between(50_000, 1_000_000);
    world.base.clock.schedule(begins, Scheduled::Child { child: number, event: ChildEvent::Begin });
    drop(guard);
    let [stdin, stdout, stderr] = ends.map(|end| end.map(|(_, ours): (EndId, Transport)| ours));
    let handle = ChildHandle { state: state.clone(), child: number, status };
    Ok(Started { process: Process::hosted(Box::new(handle), pid(number), options), stdin, stdout, stderr })
}

/// Runs an event of a child. The world is not borrowed while the child's program runs.
pub(crate) fn happen(state: &RefCell<State>, number: ChildId, event: ChildEvent) {
    let program = {
        let mut state = state.borrow_mut();
        if event == ChildEvent::Rest {
            let state = &mut *state;
            return state.children.close_outputs(&mut state.base, &mut state.streams, number);
        }
        // Events of a child that has gone are ignored.
        let Some(child) = state.children.all.get_mut(&number) else { return };
        // A child that is ending reacts to nothing more, except that SIGKILL ends it at once.
        match (&mut child.program, child.ending) {
            (Some(_), None) => child.program.take(),
            _ => None,
        }
    };
    if let Some(mut program) = program {
        let cx = &mut ProgramContext { state, child: number };
        match event {
            ChildEvent::Begin => begin(&mut *program, cx),
            ChildEvent::Progress => progress(&mut *program, cx),
            ChildEvent::Signal(KILL) => cx.die(KILL),
            ChildEvent::Signal(signal) => program.signal(cx, signal),
            ChildEvent::Time(token) => program.time(cx, token),
            ChildEvent::Rest => (),
        }
        state.borrow_mut().children.known(number).program = Some(program);
    }
    let is_killed = event == ChildEvent::Signal(KILL);
    let state = &mut *state.borrow_mut();
    let State { base, streams, sources, children, .. } = state;
    children.end_if_due(base, streams, sources, number, is_killed);
    state.serve_movers();
}

fn begin(program: &mut dyn Program, cx: &mut ProgramContext<'_>) {
    program.begin(cx);
    let has_input = cx.state.borrow_mut().children.known(cx.child).stdin.is_some();
    if !has_input {
        program.input_ended(cx);
    }
    let state = &mut *cx.state.borrow_mut();
    state.children.known(cx.child).is_queued = false;
    state.children.wake(&mut state.base, cx.child);
}

fn progress(program: &mut dyn Program, cx: &mut ProgramContext<'_>) {
    let (is_heard, input) = {
        let state = &mut *cx.state.borrow_mut();
        let State { base, streams, children, .. } = state;
        children.known(cx.child).is_queued = false;
        (children.write_backlogs(base, streams, cx.child), children.input_of(base, streams, cx.child))
    };
    if !is_heard {
        return program.unheard(cx);
    }
    if let Some((bytes, has_ended)) = input {
        if !bytes.is_empty() {
            program.input(cx, &bytes);
        }
        if has_ended {
            program.input_ended(cx);
        }
    }
}

impl Children {
    /// Schedules a child's progress, because its pipes have changed.
    pub(crate) fn wake(&mut self, base: &mut Base, number: ChildId) {
        let Some(child) = self.all.get_mut(&number) else { return };
        if !child.is_over && !std::mem::replace(&mut child.is_queued, true) {
            let now = base.now();
            base.clock.schedule(now, Scheduled::Child { child: number, event: ChildEvent::Progress });
        }
    }

    fn input_of(
        &mut self,
        base: &mut Base,
        streams: &mut Streams,
        number: ChildId,
    ) -> Option<(Vec<u8>, bool)> {
        let child = self.known(number);
        let at = child.stdin.filter(|_| child.is_listening)?;
        Some(streams.read_end_of(base, at))
    }

    /// Writes the waiting output. Returns `false` if a reader has closed.
    fn write_backlogs(&mut self, base: &mut Base, streams: &mut Streams, number: ChildId) -> bool {
        let mut is_heard = true;
        for which in [0, 1] {
            let child = self.known(number);
            let Some(at) = child.outs[which] else { continue };
            let mut backlog = take(&mut child.backlog[which]);
            let has_sent = streams.ends[at].sent.is_some();
            if (has_sent || !backlog.is_empty()) && !streams.write_end(base, at, &mut backlog) {
                is_heard = false;
                backlog.clear();
            }
            self.known(number).backlog[which] = backlog;
        }
        is_heard
    }

    /// Ends a child that is ending, once all its output is in the pipes or nobody reads it.
    fn end_if_due(
        &mut self,
        base: &mut Base,
        streams: &mut Streams,
        sources: &mut Sources,
        number: ChildId,
        is_killed: bool,
    ) {
        let child = self.known(number);
        let Some(status) = child.ending.filter(|_| !child.is_over) else { return };
        child.is_queued = false;
        let is_heard = is_killed || self.write_backlogs(base, streams, number);
        let outs = self.known(number).outs;
        let waits = |at: EndId| streams.ends[at].parked.is_some();
        if !is_killed && is_heard && outs.into_iter().flatten().any(waits) {
            return;
        }
        self.end(base, streams, sources, number, if is_killed { KILL } else { status });
    }

    fn end(
        &mut self,
        base: &mut Base,
        streams: &mut Streams,
        sources: &mut Sources,
        number: ChildId,
        status: i32,
    ) {
        let is_killed = status & 0x7f != 0;
        let child = self.known(number);
        child.is_over = true;
        let is_alone = child.ends_group || child.of_group && is_killed;
        let (stdin, source, left_behind) = (child.stdin.take(), child.status, child.left_behind.take());
        child.program = None;
        base.record.digest.number(u64::from(number.number()) << 40 | (status as u64) << 8 | 0xde);
        if let Some(at) = stdin {
            streams.close_end(base, at, Ending::Orderly);
        }
        match left_behind.filter(|_| !is_alone) {
            Some(time) => {
                let at = base.now().saturating_add(time);
                base.clock.schedule(at, Scheduled::Child { child: number, event: ChildEvent::Rest });
            }
            None => self.close_outputs(base, streams, number),
        }
        sources.change(base, source, |source| source.finish(&status.to_ne_bytes()));
    }

    /// Closes the outputs. Forgets the child if it has ended, because only its number can refer to it now.
    fn close_outputs(&mut self, base: &mut Base, streams: &mut Streams, number: ChildId) {
        let Some(child) = self.all.get_mut(&number) else { return };
        child.backlog = Default::default();
        let outs = take(&mut child.outs);
        if child.is_over {
            self.all.remove(&number);
        }
        for at in outs.into_iter().flatten() {
            streams.close_end(base, at, Ending::Orderly);
        }
    }

    /// Ends the children of a host whose process has gone.
    pub(crate) fn end_process(
        &mut self,
        base: &mut Base,
        streams: &mut Streams,
        sources: &mut Sources,
        host: HostId,
    ) {
        let of_host = self.all.iter().filter(|(_, child)| child.host == host);
        let of_host: Vec<(ChildId, bool)> = of_host.map(|(number, child)| (*number, child.is_over)).collect();
        for (number, is_over) in of_host {
            if is_over {
                // Only the descendant that it left behind remains.
                self.close_outputs(base, streams, number);
            } else {
                self.known(number).left_behind = None;
                self.end(base, streams, sources, number, KILL);
            }
        }
    }
}

/// Child processes, on Unix only.
impl World {
    /// Registers a program, which any node may start by this name. `make` gets its arguments. Other programs
    /// cannot be executed (ENOENT).
    pub fn program<P: Program>(&mut self, name: &str, make: impl Fn(&[String]) -> P + 'static) {
        self.state.borrow_mut().children.know(name, Ok(Rc::new(move |args| Box::new(make(args)))));
    }

    /// Makes the execution of a program fail with this error number of Linux.
    pub fn refuse_program(&mut self, name: &str, number: i32) {
        self.state.borrow_mut().children.know(name, Err(number));
    }
}

fn pid(child: ChildId) -> u32 {
    child.number() + PID_FIRST
}

const PID_FIRST: u32 = 1000;
const KILL: i32 = 9;
const PIPE: i32 = 13;

#[cfg(test)]
mod tests;
