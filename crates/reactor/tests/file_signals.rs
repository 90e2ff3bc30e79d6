//! A write that could raise a signal (SIGXFSZ, SIGPIPE) fails with an error instead, on each thread that
//! writes.
#![cfg(target_os = "linux")]
#![allow(unsafe_code)]

mod common;
mod scratch;

use std::{
    ffi::CString,
    fs, io,
    os::unix::{ffi::OsStrExt as _, fs::OpenOptionsExt as _},
    path::Path,
    process::Command,
};

use common::{Engine, for_each_engine, until};
use reactor::{
    Bytes, Closed, Context, Error, Event, Handle, Id, Receive, Result, Runtime, Service, ServiceId, Stream,
    file::{File, FileWriter, OpenOptions, Opened, Operation, WriterEvent},
    stdio,
};
use scratch::Scratch;

/// Names the engine for the child process, which the signals would kill.
const VARIABLE: &str = "FILE_SIGNALS_ENGINE";

#[test]
fn no_write_raises_a_signal() {
    for_each_engine(|engine| {
        let test = std::env::current_exe().expect("it runs");
        let name = "the_writes_of_a_process_whose_files_may_not_grow";
        let child = Command::new(test).args(["--ignored", "--exact", name]).env(VARIABLE, engine.0).output();
        let output = child.expect("it starts");
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success() && text.contains("1 passed"), "{}: {text}", output.status);
    });
}

/// Records the results of its writes.
#[derive(Default)]
struct Writer {
    errors: Vec<Option<i32>>,
    file: Option<File>,
}

fn errno(error: &Error) -> Option<i32> {
    error.io().and_then(io::Error::raw_os_error)
}

impl Service for Writer {}

impl Receive<Result<(), Error>> for Writer {
    fn receive(&mut self, _: &mut Context<Self>, result: Result<(), Error>) -> Result {
        self.errors.push(errno(&result.expect_err("it cannot grow")));
        Ok(())
    }
}

impl Receive<Result<Opened, Error>> for Writer {
    fn receive(&mut self, _: &mut Context<Self>, result: Result<Opened, Error>) -> Result {
        self.file = Some(result?.file);
        Ok(())
    }
}

impl Receive<io::Result<()>> for Writer {
    fn receive(&mut self, _: &mut Context<Self>, result: io::Result<()>) -> Result {
        self.errors.push(result.expect_err("it cannot grow").raw_os_error());
        Ok(())
    }
}

impl Handle<FileWriter> for Writer {
    fn handle(&mut self, _: &mut Context<Self>, _: Id<FileWriter>, _: WriterEvent) -> Result {
        Ok(())
    }

    fn closed(&mut self, _: &mut Context<Self>, _: Id<FileWriter>, _: FileWriter, why: Closed) {
        self.errors.push(why.io().and_then(io::Error::raw_os_error));
    }
}

impl Handle<Stream> for Writer {
    fn handle(&mut self, _: &mut Context<Self>, _: Id<Stream>, _: Event<Bytes>) -> Result {
        Ok(())
    }

    fn closed(&mut self, _: &mut Context<Self>, _: Id<Stream>, _: Stream, why: Closed) {
        self.errors.push(why.io().and_then(io::Error::raw_os_error));
    }
}

/// Performs the action, and returns the error with which it failed.
fn fails(
    runtime: &mut Runtime,
    writer: ServiceId<Writer>,
    act: impl FnOnce(&mut Writer, &mut Context<Writer>),
) -> Option<i32> {
    runtime.with(writer, act).expect("it lives");
    until(runtime, |runtime| !runtime.service(writer).expect("it lives").errors.is_empty());
    runtime.service_mut(writer).expect("it lives").errors.remove(0)
}

fn open(runtime: &mut Runtime, writer: ServiceId<Writer>, path: &Path, how: OpenOptions) -> File {
    let operation = Operation::open(path, how);
    runtime.with(writer, |_, cx| cx.file(operation, |opened| opened)).expect("it lives").expect("room");
    until(runtime, |runtime| runtime.service(writer).expect("it lives").file.is_some());
    runtime.service_mut(writer).expect("it lives").file.take().expect("it is open")
}

#[test]
#[ignore = "another test starts it, as a process of its own"]
fn the_writes_of_a_process_whose_files_may_not_grow() {
    // As one of the ignored tests it runs without an engine.
    let Ok(engine) = std::env::var(VARIABLE) else { return eprintln!("no engine to play on") };
    let engine = match engine.as_str() {
        "epoll" => Engine("epoll"),
        "poll" => Engine("poll"),
        "io_uring" => Engine("io_uring"),
        "mio" => Engine("mio"),
        "polling" => Engine("polling"),
        other => panic!("no engine {other}"),
    };
    let limit = libc::rlimit { rlim_cur: LIMIT as u64, rlim_max: LIMIT as u64 };
    // SAFETY: the pointer is to a live value.
    assert_eq!(unsafe { libc::setrlimit(libc::RLIMIT_FSIZE, &limit) }, 0);
    for signal in [libc::SIGPIPE, libc::SIGXFSZ] {
        // SAFETY: the default disposition is valid for any signal.
        unsafe { libc::signal(signal, libc::SIG_DFL) };
    }
    let dir = Scratch::new();
    let (mut runtime, too_much) = (engine.runtime(), vec![b'x'; 2 * LIMIT]);
    let writer = runtime.add(Writer::default()).expect("it starts");
    let file = open(&mut runtime, writer, &dir.path("written"), OpenOptions::write());
    let how = OpenOptions::with(|options| {
        options.append = true;
        options.create = true;
    });
    let log = open(&mut runtime, writer, &dir.path("log"), how);
    let asked = [
        Operation::write_at(&file, 2 * LIMIT as u64, *b"x"),
        Operation::write_at(&file, 0, too_much.clone()),
        Operation::append(&log, too_much.clone()),
        Operation::set_len(&file, 2 * LIMIT as u64),
        Operation::replace(dir.path("replaced"), too_much.clone()),
    ];
    for operation in asked {
        let name = operation.action().to_string();
        let error = fails(&mut runtime, writer, |_, cx| cx.file(operation, |result| result).expect("room"));
        assert_eq!(error, Some(libc::EFBIG), "{name}");
    }
    let error = fails(&mut runtime, writer, |_, cx| {
        let id = cx.add(FileWriter::new(file.clone())).expect("room");
        cx.send(id, &too_much);
    });
    assert_eq!(error, Some(libc::EFBIG), "a writer");
    // The loop's own thread writes to a file that stands for standard output.
    let standard = fs::File::create(dir.path("standard")).expect("a file");
    let output = stdio::output_to(std::os::fd::AsFd::as_fd(&standard)).expect("a file");
    let error = fails(&mut runtime, writer, |_, cx| {
        let id = cx.add(Stream::new(Bytes).through(output)).expect("room");
        cx.send(id, &too_much);
    });
    assert_eq!(error, Some(libc::EFBIG), "a stream to a file");
    let path = dir.path("by a job");
    let error = fails(&mut runtime, writer, |_, cx| {
        cx.offload(move || fs::write(path, vec![0; 2 * LIMIT])).expect("room");
    });
    assert_eq!(error, Some(libc::EFBIG), "a job");
    let pipe = dir.path("pipe");
    let name = CString::new(pipe.as_os_str().as_bytes()).expect("no zero");
    // SAFETY: the path ends with a zero, and outlives the call.
    assert_eq!(unsafe { libc::mkfifo(name.as_ptr(), 0o600) }, 0);
    let reader =
        fs::OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(&pipe).expect("a pipe");
    let how = OpenOptions::with(|options| options.append = true);
    let into = open(&mut runtime, writer, &pipe, how);
    drop(reader);
    let operation = Operation::append(&into, *b"x");
    let error = fails(&mut runtime, writer, |_, cx| cx.file(operation, |result| result).expect("room"));
    assert_eq!(error, Some(libc::EPIPE), "a pipe without a reader");
    // The loop's thread belongs to the program, so the library must not change its mask.
    // SAFETY: all zeros are a valid signal set.
    let mut mask: libc::sigset_t = unsafe { std::mem::zeroed() };
    // SAFETY: the pointer is to a live set, and the call changes nothing.
    unsafe { libc::pthread_sigmask(libc::SIG_BLOCK, std::ptr::null(), &mut mask) };
    for signal in [libc::SIGPIPE, libc::SIGXFSZ] {
        // SAFETY: the call above has filled the set.
        assert_eq!(unsafe { libc::sigismember(&mask, signal) }, 0, "signal {signal} is blocked");
    }
}

/// The longest file, in bytes.
const LIMIT: usize = 4096;
