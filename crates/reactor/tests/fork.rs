//! A child of a fork shares its parent's sockets, epoll instance, ring and terminal, and has none of its threads.
//! Whatever the child does with what is its parent's, the parent goes on as if there were no child.
#![cfg(target_os = "linux")]
#![allow(unsafe_code)]

use std::{
    fs::{File, OpenOptions},
    io::{Read as _, Write as _},
    net::TcpStream,
    os::fd::OwnedFd,
    panic::{AssertUnwindSafe, catch_unwind},
    time::Duration,
};

use reactor::{
    Address, Bytes, Context, Event, Handle, Id, Reactor, Receive, Refused, Reply, Result, Runtime,
    RuntimeOptions, Service, ServiceId, Stream, Unanswered, engine::Candidates, file::Operation, stdio::Raw,
};
use rustix::{pty, termios};

/// An echo that records messages, and forks on request.
#[derive(Default)]
struct Echo {
    address: Option<Address>,
    noted: Vec<u64>,
    open: usize,
    forks: bool,
    /// The result of fork(2) inside a handler.
    forked: Option<i32>,
}

impl Service for Echo {
    fn start(&mut self, cx: &mut Context<Self>) -> Result {
        let listener = cx.listen("127.0.0.1:0", |_| Some(Stream::new(Bytes)))?;
        self.address = Some(cx.local(listener)?);
        Ok(())
    }
}

impl Handle<Stream> for Echo {
    fn handle(&mut self, cx: &mut Context<Self>, id: Id<Stream>, event: Event<Bytes>) -> Result {
        match event {
            Event::Open => self.open += 1,
            Event::Received(bytes) => _ = cx.send(id, bytes),
            _ => (),
        }
        Ok(())
    }
}

impl Receive<u64> for Echo {
    fn receive(&mut self, cx: &mut Context<Self>, note: u64) -> Result {
        self.noted.push(note);
        if std::mem::take(&mut self.forks) {
            self.forked = Some(fork());
            if self.forked == Some(0) {
                // Calls whose work is deferred to the end of the child's turn must not harm the parent
                // either.
                cx.listen("127.0.0.1:0", |_| Some(Stream::new(Bytes))).map(drop).unwrap_or_default();
                cx.stop(Duration::ZERO);
            }
        }
        Ok(())
    }
}

/// Asks how many messages were noted.
struct Count(Reply<usize>);

impl Receive<Count> for Echo {
    fn receive(&mut self, _: &mut Context<Self>, count: Count) -> Result {
        count.0.send(self.noted.len());
        Ok(())
    }
}

/// Forks. The kernel ends a child that hangs.
fn fork() -> i32 {
    // SAFETY: the child only uses memory and descriptors, and ends by _exit.
    let child = unsafe { libc::fork() };
    assert!(child >= 0, "it forks");
    if child == 0 {
        // SAFETY: the call takes no pointer.
        unsafe { libc::alarm(60) };
    }
    child
}

fn exit(is_well: bool) -> ! {
    // SAFETY: the call takes no pointer.
    unsafe { libc::_exit(if is_well { 0 } else { 1 }) }
}

fn ended_well(child: i32) -> bool {
    let mut status = 0;
    // SAFETY: the child is ours, and the status outlives the call.
    assert_eq!(unsafe { libc::waitpid(child, &mut status, 0) }, child);
    libc::WIFEXITED(status) && libc::WEXITSTATUS(status) == 0
}

/// Whether all is well in a child of this process, which also ends well.
fn is_well_in_a_child(check: impl FnOnce() -> bool) -> bool {
    let child = fork();
    if child == 0 {
        exit(catch_unwind(AssertUnwindSafe(check)).unwrap_or(false));
    }
    ended_well(child)
}

fn reactor() -> Reactor<Echo> {
    Reactor::spawn(|runtime| runtime.add(Echo::default())).expect("it starts")
}

/// A terminal, and what keeps it from hanging up.
fn terminal() -> (File, OwnedFd) {
    let screen = pty::openpt(pty::OpenptFlags::RDWR | pty::OpenptFlags::NOCTTY).expect("a pseudo-terminal");
    pty::grantpt(&screen).expect("it is ours");
    pty::unlockpt(&screen).expect("it is ours");
    let name = pty::ptsname(&screen, Vec::new()).expect("it has a name").into_string().expect("in ASCII");
    (OpenOptions::new().read(true).write(true).open(name).expect("it is there"), screen)
}

fn is_raw(terminal: &File) -> bool {
    let modes = termios::tcgetattr(terminal).expect("it is a terminal").local_modes;
    !modes.contains(termios::LocalModes::ICANON)
}

struct Parent {
    runtime: Runtime,
    echo: ServiceId<Echo>,
    peers: Vec<TcpStream>,
}

impl Parent {
    fn new(engine: &str) -> Parent {
        let mut options = RuntimeOptions::default();
        options.engine = Some(engine.to_owned());
        let mut runtime = Runtime::with_options(options).expect("the engine opens");
        let echo = runtime.add(Echo::default()).expect("it starts");
        let mut parent = Parent { runtime, echo, peers: Vec::new() };
        parent.connect();
        // Start the threads for files, and an operation of the ring. A child has neither.
        parent.look_at_a_file();
        parent
    }

    fn until(&mut self, what: &str, done: impl Fn(&Echo) -> bool) {
        for _ in 0..1_000 {
            if done(self.runtime.service(self.echo).expect("it lives")) {
                return;
            }
            self.runtime.turn(Some(Duration::from_millis(100))).expect("the engine is whole");
        }
        panic!("it did not happen: {what}");
    }

    fn connect(&mut self) {
        let address = self.runtime.service(self.echo).and_then(|echo| echo.address.clone());
        let address = address.and_then(|address| address.ip()).expect("it listens");
        self.peers.push(TcpStream::connect(address).expect("it listens"));
        let count = self.peers.len();
        self.until("a connection is accepted", |echo| echo.open == count);
    }

    fn look_at_a_file(&mut self) {
        let before = self.noted();
        self.runtime
            .with(self.echo, |_, cx| cx.file(Operation::stat("/"), |_| 7_u64).map_err(drop))
            .expect("it lives")
            .expect("there is room");
        self.until("the file is looked at", |echo| echo.noted.len() > before);
    }

    fn noted(&self) -> usize {
        self.runtime.service(self.echo).expect("it lives").noted.len()
    }

    /// Checks that everything still works: connections, accepts, commands from another thread, and blocking
    /// work.
    fn goes_on(&mut self) {
        self.connect();
        for at in 0..self.peers.len() {
            self.peers[at].write_all(b"still there?").expect("the connection lives");
            self.peers[at].set_nonblocking(true).expect("a socket");
            let mut answer = Vec::new();
            for _ in 0..1_000 {
                self.runtime.turn(Some(Duration::from_millis(20))).expect("the engine is whole");
                let mut bytes = [0; 64];
                match self.peers[at].read(&mut bytes) {
                    Ok(count) => answer.extend_from_slice(&bytes[..count]),
                    Err(error) => assert_eq!(error.kind(), std::io::ErrorKind::WouldBlock, "{at}"),
                }
                if answer.len() >= 12 {
                    break;
                }
            }
            assert_eq!(answer, b"still there?", "of peer {at}");
        }
        let (before, controller) = (self.noted(), self.runtime.controller(self.echo));
        std::thread::scope(|scope| {
            scope.spawn(|| controller.send(1_u64).expect("there is room"));
            self.until("a command wakes it", |echo| echo.noted.len() > before);
        });
        drop(controller);
        self.look_at_a_file();
    }
}

fn for_each_engine(run: impl Fn(&str)) {
    for engine in Candidates::default().names() {
        println!("on {engine}");
        run(engine);
    }
}

#[test]
fn a_runtime_that_a_child_drops_goes_on_in_the_parent() {
    for_each_engine(|engine| {
        let mut parent = Parent::new(engine);
        let child = fork();
        if child == 0 {
            drop(parent);
            exit(true);
        }
        assert!(ended_well(child), "{engine}");
        parent.goes_on();
    });
}

#[test]
fn a_runtime_that_a_child_uses_says_so_and_goes_on_in_the_parent() {
    for_each_engine(|engine| {
        let mut parent = Parent::new(engine);
        let child = fork();
        if child == 0 {
            let turn = parent.runtime.turn(Some(Duration::ZERO)).err();
            // A runtime in a child refuses each of these calls, and the error of a turn has to name the
            // cause.
            let says_so = turn.is_some_and(|error| error.to_string().contains("turn runtime"))
                && parent.runtime.add(Echo::default()).is_err()
                && parent.runtime.with(parent.echo, |_, _| ()).is_none()
                && parent.runtime.run().is_err();
            drop(parent);
            exit(says_so);
        }
        assert!(ended_well(child), "{engine}");
        parent.goes_on();
    });
}

#[test]
fn a_handler_may_fork() {
    for_each_engine(|engine| {
        let mut parent = Parent::new(engine);
        let controller = parent.runtime.controller(parent.echo);
        parent.runtime.service_mut(parent.echo).expect("it lives").forks = true;
        controller.send(2_u64).expect("there is room");
        drop(controller);
        let mut turns = Ok(true);
        while parent.runtime.service(parent.echo).expect("it lives").forked.is_none() && turns.is_ok() {
            turns = parent.runtime.turn(Some(Duration::from_millis(100)));
        }
        let child = parent.runtime.service(parent.echo).expect("it lives").forked.expect("it forked");
        if child == 0 {
            let is_error = parent.runtime.turn(None).is_err();
            drop(parent);
            exit(is_error);
        }
        assert!(ended_well(child), "{engine}");
        parent.goes_on();
    });
}

#[test]
fn a_child_may_make_a_runtime_of_its_own() {
    for_each_engine(|engine| {
        let mut parent = Parent::new(engine);
        let child = fork();
        if child == 0 {
            Parent::new(engine).goes_on();
            exit(true);
        }
        assert!(ended_well(child), "{engine}");
        parent.goes_on();
    });
}

#[test]
fn a_stream_outside_of_a_runtime_that_a_child_drops_is_not_reset_in_the_parent() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let mut peer = TcpStream::connect(listener.local_addr().expect("bound")).expect("it listens");
    let (ours, _) = listener.accept().expect("one waits");
    let stream = Stream::new(Bytes).on(ours).expect("a socket").queue(b"not sent").expect("bytes");
    let child = fork();
    if child == 0 {
        drop(stream);
        exit(true);
    }
    assert!(ended_well(child));
    drop(stream.into_transport().expect("it has one"));
    peer.set_read_timeout(Some(Duration::from_secs(20))).expect("a socket");
    assert_eq!(peer.read(&mut [0; 16]).expect("it ends in order"), 0);
}

#[test]
fn a_reactor_that_a_child_drops_or_joins_goes_on_in_the_parent() {
    for joins in [false, true] {
        let reactor = reactor();
        let controller = reactor.controller();
        let mut reactor = Some(reactor);
        let is_well = is_well_in_a_child(|| {
            let reactor = reactor.take().expect("nobody has taken it");
            match joins {
                true => reactor.join().is_err_and(|error| error.to_string().contains("forked")),
                false => {
                    drop(reactor);
                    true
                }
            }
        });
        assert!(is_well, "joined: {joins}");
        controller.send(1_u64).expect("it lives");
        assert_eq!(controller.ask(Count).wait().expect("it lives"), 1);
        controller.stop(Duration::ZERO);
        reactor.take().expect("only the child has taken it").join().expect("it stops");
    }
}

#[test]
fn commands_of_a_child_are_refused_and_reach_nobody() {
    let reactor = reactor();
    let controller = reactor.controller();
    let sender = controller.sender::<u64>();
    assert_eq!(controller.ask(Count).wait().expect("it lives"), 0);
    let is_well = is_well_in_a_child(|| {
        let copy = controller.clone();
        copy.stop(Duration::ZERO);
        let refused = [
            copy.send(1_u64),
            copy.send_timeout(1_u64, Duration::from_secs(1)),
            sender.send(1_u64),
            sender.send_timeout(1_u64, Duration::from_secs(1)),
        ];
        drop(copy);
        refused.iter().all(|refused| matches!(refused, Err(Refused::Gone(1))))
            && matches!(controller.ask(Count).wait(), Err(Unanswered::Gone))
            && matches!(controller.ask(Count).try_take(), Some(Err(Unanswered::Gone)))
    });
    assert!(is_well);
    assert_eq!(controller.ask(Count).wait().expect("it lives"), 0, "a command of the child");
    drop((controller, sender));
    drop(reactor);
}

#[test]
fn an_answer_that_the_parent_waits_for_is_none_for_a_child() {
    let loop_thread = std::thread::spawn(|| std::thread::current().id()).join().expect("it only looks");
    for waits in [true, false] {
        let (reply, pending) = Reply::channel(loop_thread);
        let (mut reply, mut pending) = (Some(reply), Some(pending));
        let is_well = is_well_in_a_child(|| {
            let reply = reply.take().expect("nobody has taken it");
            let is_gone = !reply.is_wanted();
            reply.send(1_u64);
            let mut pending = pending.take().expect("nobody has taken it");
            is_gone
                && match waits {
                    true => matches!(pending.wait(), Err(Unanswered::Gone)),
                    false => matches!(pending.try_take(), Some(Err(Unanswered::Gone))),
                }
        });
        assert!(is_well, "waits: {waits}");
        reply.take().expect("only the child has taken it").send(2);
        let answer = pending.take().expect("only the child has taken it").wait();
        assert_eq!(answer.expect("it was sent"), 2);
    }
}

#[test]
fn a_terminal_that_the_parent_has_made_raw_stays_so_whatever_a_child_does() {
    let ((ours, _ours_screen), (childs, _childs_screen)) = (terminal(), terminal());
    let mut raw = Some(Raw::enter(&ours).expect("it is a terminal"));
    assert!(is_raw(&ours) && !is_raw(&childs));
    let left = is_well_in_a_child(|| raw.take().expect("nobody has taken it").leave().is_err());
    assert!(left && is_raw(&ours), "a child has left it: {left}");
    assert!(is_well_in_a_child(|| {
        drop(raw.take());
        true
    }));
    assert!(is_raw(&ours), "a child has dropped it");
    let child = fork();
    if child == 0 {
        // What it makes raw itself is restored.
        let entered = Raw::enter(&childs);
        // SAFETY: the call takes no pointer. The functions that it calls are those of this library alone.
        unsafe { libc::exit(if entered.is_ok() { 0 } else { 1 }) }
    }
    assert!(ended_well(child));
    assert!(is_raw(&ours), "a child has exited");
    assert!(!is_raw(&childs), "the child's own is still raw");
    raw.take().expect("only children have taken it").leave().expect("it is there");
    assert!(!is_raw(&ours));
}
