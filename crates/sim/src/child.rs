//! Child processes: programs that a test writes, started by services as real ones are.

use std::{cell::RefCell, collections::HashMap, io, mem::take, process::Command, rc::Rc, time::Duration};

use reactor::{
    Source, Time,
    engine::{Ending, Transport},
    process::{Child as Started, Hosted, Process, SpawnOptions, Standard},
};

use crate::{
    error,
    feed::Feed,
    link::nanos,
    pipe::Mover,
    state::{State, What},
};

/// A program in a simulated world: what a child process does, event by event.
///
/// It is started by [`Context::spawn`](reactor::Context::spawn) under the name that
/// [`World::program`](crate::World::program) gave it.
///
/// ```
/// use sim::{Hand, Program, World};
///
/// /// Says what it is told, and ends with its input: `cat`.
/// struct Cat;
///
/// impl Program for Cat {
///     fn input(&mut self, hand: &mut Hand<'_>, bytes: &[u8]) {
///         hand.say(bytes);
///     }
///
///     fn input_ended(&mut self, hand: &mut Hand<'_>) {
///         hand.exit(0);
///     }
/// }
///
/// World::new(1).program("cat", |_args| Cat);
/// ```
pub trait Program: 'static {
    /// It begins.
    fn begin(&mut self, hand: &mut Hand<'_>) {
        let _ = hand;
    }

    /// Input came, if it is piped.
    fn input(&mut self, hand: &mut Hand<'_>, bytes: &[u8]) {
        let _ = (hand, bytes);
    }

    /// The input has ended; at once if it is not piped.
    fn input_ended(&mut self, hand: &mut Hand<'_>) {
        let _ = hand;
    }

    /// A signal came. By default it dies of it. SIGKILL comes never here: of that it dies.
    fn signal(&mut self, hand: &mut Hand<'_>, number: i32) {
        hand.die(number);
    }

    /// The time of [`Hand::after`] is over.
    fn time(&mut self, hand: &mut Hand<'_>, token: u64) {
        let _ = (hand, token);
    }

    /// It said something that nobody reads any more. By default it dies of SIGPIPE.
    fn unheard(&mut self, hand: &mut Hand<'_>) {
        hand.die(PIPE);
    }
}

/// What a program does with. See [`Program`] for an example.
pub struct Hand<'a> {
    state: &'a RefCell<State>,
    child: u32,
}

impl Hand<'_> {
    /// The virtual time.
    pub fn now(&self) -> Time {
        Time::from_nanos(self.state.borrow().now)
    }

    /// A random number, of the world's seed.
    pub fn random(&mut self) -> u64 {
        self.state.borrow_mut().chance.bits()
    }

    /// Its number.
    pub fn pid(&self) -> u32 {
        pid(self.child)
    }

    /// Writes to its standard output. What a pipe does not hold waits, and its end waits for that.
    pub fn say(&mut self, bytes: &[u8]) {
        self.write(0, bytes);
    }

    /// Writes to its standard error.
    pub fn complain(&mut self, bytes: &[u8]) {
        self.write(1, bytes);
    }

    fn write(&mut self, which: usize, bytes: &[u8]) {
        let mut state = self.state.borrow_mut();
        let child = &mut state.children.all[self.child as usize];
        if child.ending.is_none() && child.outs[which].is_some() {
            child.backlog[which].extend_from_slice(bytes);
            state.wake_child(self.child);
        }
    }

    /// Reads its input no more, until `true`.
    pub fn listen(&mut self, on: bool) {
        let mut state = self.state.borrow_mut();
        let child = &mut state.children.all[self.child as usize];
        child.is_listening = on;
        if let Some(at) = child.stdin {
            state.ends[at as usize].wants = on;
            state.look_at_end(at);
        }
    }

    /// Closes its standard input: whoever writes to it meets a broken pipe.
    pub fn close_input(&mut self) {
        let mut state = self.state.borrow_mut();
        if let Some(at) = state.children.all[self.child as usize].stdin.take() {
            state.close_end(at, Ending::Orderly);
        }
    }

    /// Closes its standard output and standard error, and lives on. What still waits there is lost.
    pub fn close_output(&mut self) {
        self.state.borrow_mut().close_outputs(self.child);
    }

    /// Has [`Program::time`] be called after so long.
    pub fn after(&mut self, time: Duration, token: u64) {
        let mut state = self.state.borrow_mut();
        let at = state.now.saturating_add(nanos(time));
        state.queue.put(at, What::Child { child: self.child, happening: Happening::Time(token) });
    }

    /// Leaves somebody behind, who holds its output open for so long after its end; unless that ends the group.
    pub fn leave_behind(&mut self, time: Duration) {
        self.state.borrow_mut().children.all[self.child as usize].left_behind = Some(nanos(time));
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
        self.state.borrow_mut().children.all[self.child as usize].ending.get_or_insert(status);
    }
}

/// What happens to a child.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Happening {
    Begin,
    /// Its pipes have something to tell.
    Progress,
    Signal(i32),
    Time(u64),
    /// Who was left behind has gone, too.
    Rest,
}

/// All children, and all programs.
#[derive(Default)]
pub(crate) struct Children {
    all: Vec<Child>,
    programs: HashMap<String, Known>,
}

/// How a program is made, or the number of the error that its execution ends with.
type Known = Result<Rc<dyn Fn(&[String]) -> Box<dyn Program>>, i32>;

struct Child {
    host: u32,
    /// `None` while it is called, and when it has ended.
    program: Option<Box<dyn Program>>,
    stdin: Option<u32>,
    outs: [Option<u32>; 2],
    /// Said, and not in the pipe yet.
    backlog: [Vec<u8>; 2],
    /// The number of the source that tells its status.
    status: u32,
    of_group: bool,
    ends_group: bool,
    left_behind: Option<u64>,
    is_listening: bool,
    /// It ends with this status, when all that it said is in the pipes.
    ending: Option<i32>,
    is_over: bool,
    is_queued: bool,
}

impl Children {
    pub(crate) fn know(&mut self, name: &str, program: Known) {
        self.programs.insert(name.to_owned(), program);
    }

    pub(crate) fn running(&self) -> usize {
        self.all.iter().filter(|child| !child.is_over).count()
    }
}

/// A child as its [`Process`] has it.
struct Handle {
    state: Rc<RefCell<State>>,
    child: u32,
    status: Feed,
}

impl Hosted for Handle {
    fn source(&self) -> Source<'_> {
        self.status.source()
    }

    fn signal(&self, number: i32) -> io::Result<()> {
        // A panic in the middle of the world drops what it holds.
        let gone = || error::os(error::NO_PROCESS);
        let mut state = self.state.try_borrow_mut().map_err(|_| gone())?;
        if state.children.all[self.child as usize].is_over {
            return Err(gone());
        }
        if number != 0 {
            let now = state.now;
            state.queue.put(now, What::Child { child: self.child, happening: Happening::Signal(number) });
        }
        Ok(())
    }
}

/// Starts a program on a host.
pub(crate) fn spawn(
    state: &Rc<RefCell<State>>,
    host: u32,
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
    let status = Feed::new(state);
    let mut guard = state.borrow_mut();
    let world = &mut *guard;
    let number = world.children.all.len() as u32;
    let mut pipe = |standard: Standard, is_read_by_child: bool| {
        (standard == Standard::Piped).then(|| {
            let (reader, writer) = world.add_pipe(host);
            let (theirs, ours) = if is_read_by_child { (reader, writer) } else { (writer, reader) };
            world.give_end(theirs, Mover::Child(number));
            (theirs, world.transport_of_end(ours))
        })
    };
    let ends = [pipe(options.stdin, true), pipe(options.stdout, false), pipe(options.stderr, false)];
    let theirs = |at: usize| ends[at].as_ref().map(|(theirs, _)| *theirs);
    world.children.all.push(Child {
        host,
        program: Some(program),
        stdin: theirs(0),
        outs: [theirs(1), theirs(2)],
        backlog: [Vec::new(), Vec::new()],
        status: status.number(),
        of_group: options.group,
        ends_group: options.group && options.kill_rest,
        left_behind: None,
        is_listening: true,
        ending: None,
        is_over: false,
        // Its pipes wait until it begins.
        is_queued: true,
    });
    world.digest.number(u64::from(number) << 8 | 0xc4);
    let begins = world.now + world.chance.between(50_000, 1_000_000);
    world.queue.put(begins, What::Child { child: number, happening: Happening::Begin });
    drop(guard);
    let [stdin, stdout, stderr] = ends.map(|end| end.map(|(_, ours): (u32, Transport)| ours));
    let handle = Handle { state: state.clone(), child: number, status };
    Ok(Started { process: Process::hosted(Box::new(handle), pid(number), options), stdin, stdout, stderr })
}

/// Lets something happen to a child, with no borrow of the world while its program is called.
pub(crate) fn happen(state: &RefCell<State>, number: u32, happening: Happening) {
    let program = {
        let mut state = state.borrow_mut();
        let child = &mut state.children.all[number as usize];
        if happening == Happening::Rest {
            return state.close_outputs(number);
        }
        // One that is ending does nothing more, but a signal ends it at once.
        match (&mut child.program, child.ending) {
            (Some(_), None) => child.program.take(),
            _ => None,
        }
    };
    if let Some(mut program) = program {
        let hand = &mut Hand { state, child: number };
        match happening {
            Happening::Begin => begin(&mut *program, hand),
            Happening::Progress => progress(&mut *program, hand),
            Happening::Signal(KILL) => hand.die(KILL),
            Happening::Signal(signal) => program.signal(hand, signal),
            Happening::Time(token) => program.time(hand, token),
            Happening::Rest => (),
        }
        state.borrow_mut().children.all[number as usize].program = Some(program);
    }
    let is_killed = happening == Happening::Signal(KILL);
    state.borrow_mut().end_child_if_due(number, is_killed);
}

fn begin(program: &mut dyn Program, hand: &mut Hand<'_>) {
    program.begin(hand);
    let has_input = hand.state.borrow().children.all[hand.child as usize].stdin.is_some();
    if !has_input {
        program.input_ended(hand);
    }
    let mut state = hand.state.borrow_mut();
    state.children.all[hand.child as usize].is_queued = false;
    state.wake_child(hand.child);
}

fn progress(program: &mut dyn Program, hand: &mut Hand<'_>) {
    let (is_heard, input) = {
        let mut state = hand.state.borrow_mut();
        state.children.all[hand.child as usize].is_queued = false;
        (state.write_backlogs(hand.child), state.input_of_child(hand.child))
    };
    if !is_heard {
        return program.unheard(hand);
    }
    if let Some((bytes, has_ended)) = input {
        if !bytes.is_empty() {
            program.input(hand, &bytes);
        }
        if has_ended {
            program.input_ended(hand);
        }
    }
}

impl State {
    /// A child's pipes have something to tell.
    pub(crate) fn wake_child(&mut self, number: u32) {
        let child = &mut self.children.all[number as usize];
        if !child.is_over && !std::mem::replace(&mut child.is_queued, true) {
            let now = self.now;
            self.queue.put(now, What::Child { child: number, happening: Happening::Progress });
        }
    }

    fn input_of_child(&mut self, number: u32) -> Option<(Vec<u8>, bool)> {
        let child = &self.children.all[number as usize];
        let at = child.stdin.filter(|_| child.is_listening)?;
        Some(self.read_end_of(at))
    }

    /// Writes what waits. `false`: somebody does not read any more.
    fn write_backlogs(&mut self, number: u32) -> bool {
        let mut is_heard = true;
        for which in [0, 1] {
            let Some(at) = self.children.all[number as usize].outs[which] else { continue };
            let mut backlog = take(&mut self.children.all[number as usize].backlog[which]);
            let has_sent = self.ends[at as usize].sent.is_some();
            if (has_sent || !backlog.is_empty()) && !self.write_end(at, &mut backlog) {
                is_heard = false;
                backlog.clear();
            }
            self.children.all[number as usize].backlog[which] = backlog;
        }
        is_heard
    }

    /// Ends a child that is ending, when all that it said is in its pipes, or nobody reads it.
    fn end_child_if_due(&mut self, number: u32, is_killed: bool) {
        let Some(status) = self.children.all[number as usize].ending else { return };
        if self.children.all[number as usize].is_over {
            return;
        }
        self.children.all[number as usize].is_queued = false;
        let is_heard = is_killed || self.write_backlogs(number);
        let child = &self.children.all[number as usize];
        let waits = |at: u32| self.ends[at as usize].parked.is_some();
        if !is_killed && is_heard && child.outs.iter().flatten().any(|at| waits(*at)) {
            return;
        }
        self.end_child(number, if is_killed { KILL } else { status });
    }

    fn end_child(&mut self, number: u32, status: i32) {
        let is_killed = status & 0x7f != 0;
        let child = &mut self.children.all[number as usize];
        child.is_over = true;
        let is_alone = child.ends_group || child.of_group && is_killed;
        let (stdin, feed, left_behind) = (child.stdin.take(), child.status, child.left_behind.take());
        child.program = None;
        self.digest.number(u64::from(number) << 40 | (status as u64) << 8 | 0xde);
        if let Some(at) = stdin {
            self.close_end(at, Ending::Orderly);
        }
        match left_behind.filter(|_| !is_alone) {
            Some(time) => {
                let at = self.now.saturating_add(time);
                self.queue.put(at, What::Child { child: number, happening: Happening::Rest });
            }
            None => self.close_outputs(number),
        }
        if let Some(Some(fed)) = self.feeds.get_mut(feed as usize) {
            fed.finish(&status.to_ne_bytes());
            self.look_at_feed(feed);
        }
    }

    fn close_outputs(&mut self, number: u32) {
        let child = &mut self.children.all[number as usize];
        child.backlog = Default::default();
        for at in take(&mut child.outs).into_iter().flatten() {
            self.close_end(at, Ending::Orderly);
        }
    }

    /// A host's process has gone, and its children with it.
    pub(crate) fn children_gone(&mut self, host: u32) {
        for number in 0..self.children.all.len() as u32 {
            let child = &mut self.children.all[number as usize];
            if child.host == host {
                child.left_behind = None;
                if !child.is_over {
                    self.end_child(number, KILL);
                }
                self.close_outputs(number);
            }
        }
    }
}

fn pid(child: u32) -> u32 {
    child + PID_FIRST
}

const PID_FIRST: u32 = 1000;
const KILL: i32 = 9;
const PIPE: i32 = 13;
