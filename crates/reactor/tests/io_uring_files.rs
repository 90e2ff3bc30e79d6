//! File operations of the engine `io_uring`: observed from outside by strace, and their fate when the engine
//! is dropped.
#![cfg(all(target_os = "linux", feature = "io-uring"))]

mod foreign;
mod programs;
mod scratch;
mod watched;

use std::{
    fs,
    io::{BufRead as _, BufReader, ErrorKind, Read as _, Write as _},
    net::TcpStream,
    process::{Child, Stdio},
    sync::mpsc::channel,
    time::Duration,
};

use programs::PATIENCE;
use reactor::{
    engine::{Engine as _, IoUring},
    file::{Action, Answer, File, FileJob},
};
use scratch::Scratch;

/// The example `serve_files` under strace. Killed and reaped on drop.
struct Traced(Child);

impl Drop for Traced {
    fn drop(&mut self) {
        // If strace were killed, its child would live on. strace exits when its child does.
        let pid = self.0.id();
        let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
        let children = children.split_whitespace().filter_map(|pid| pid.parse().ok());
        for pid in children.filter_map(rustix::process::Pid::from_raw) {
            // The child may already have exited, and nothing can be done about that.
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
        }
        let _ = self.0.wait();
    }
}

/// Requests the file on each connection, then reads all answers.
fn round(peers: &mut [TcpStream], content: &[u8]) {
    for peer in &mut *peers {
        peer.write_all(b"GET /small HTTP/1.1\r\nHost: x\r\n\r\n").expect("there is room");
    }
    for peer in peers {
        let mut answer = Vec::new();
        while !answer.windows(content.len()).any(|part| part == content) {
            let mut piece = [0; 4096];
            let count = peer.read(&mut piece).expect("it comes");
            assert!(count > 0, "{}", String::from_utf8_lossy(&answer));
            answer.extend_from_slice(&piece[..count]);
        }
    }
}

#[test]
fn a_small_file_is_served_by_one_thread_and_the_ring() {
    let Some(mut command) = foreign::command("strace") else { return };
    let (dir, trace) = (Scratch::new(), watched::temporary("strace"));
    let content = [7; 1_000];
    dir.file("small", &content);
    let program = programs::example("serve_files");
    command
        .args(["-f", "-qq", "-o"])
        .arg(&trace)
        .arg(program.get_program())
        .arg(dir.path(""))
        .arg("127.0.0.1:0");
    command.env("REACTOR_ENGINE", "io_uring").stdout(Stdio::piped()).stderr(Stdio::null());
    let mut server = Traced(command.spawn().expect("strace starts"));
    let mut line = String::new();
    let stdout = server.0.stdout.take().expect("it is piped");
    BufReader::new(stdout).read_line(&mut line).expect("text");
    let address = line.trim().strip_prefix("listening on ").expect("the example says where").to_owned();
    let mut peers = (0..16)
        .map(|_| {
            let peer = TcpStream::connect(&address).expect("it listens");
            peer.set_read_timeout(Some(PATIENCE)).expect("a socket");
            peer
        })
        .collect::<Vec<_>>();
    // Once each connection has had an answer, all are accepted.
    round(&mut peers, &content);
    let begin = fs::read_to_string(&trace).expect("strace writes").len();
    const ROUNDS: usize = 20;
    (0..ROUNDS).for_each(|_| round(&mut peers, &content));
    let text = fs::read_to_string(&trace).expect("strace writes");
    drop(server);
    fs::remove_file(&trace).expect("it is ours");
    // strace writes the call in which the server waited in two parts.
    let begin = begin + text[begin..].find('\n').map_or(0, |end| end + 1);
    let calls = text[begin..].lines().filter(|line| !line.contains("--- SIG")).collect::<Vec<_>>();
    let threads = calls.iter().filter_map(|line| line.split_whitespace().next());
    assert_eq!(threads.collect::<std::collections::BTreeSet<_>>().len(), 1, "one thread makes all calls");
    // The example stats each opened file, sets it to blocking mode, and closes it. The allocator may need
    // memory.
    let known = ["io_uring_enter", "statx", "fcntl", "close", "brk", "madvise"];
    let is_other =
        |line: &&&str| !known.iter().any(|call| line.contains(&format!("{call}("))) && line.contains('(');
    let others = calls.iter().filter(is_other).filter(|line| !line.contains("resumed")).collect::<Vec<_>>();
    assert!(others.is_empty(), "other calls in the steady state: {others:#?}");
    let looks = calls.iter().filter(|line| line.contains("statx(")).count();
    assert_eq!(looks, ROUNDS * peers.len(), "each answer opened the file");
}

/// Makes turns until this many answers have come.
fn answers<T>(engine: &mut IoUring, told: &std::sync::mpsc::Receiver<T>, count: usize) -> Vec<T> {
    let mut answers = Vec::new();
    for _ in 0..10_000 {
        answers.extend(told.try_iter());
        if answers.len() >= count {
            return answers;
        }
        engine.wait(Some(Duration::from_millis(100))).expect("the engine is whole");
        assert!(engine.next().is_none(), "nothing has a key");
    }
    panic!("{} of {count} answers came", answers.len());
}

#[test]
fn an_answer_never_comes_within_the_call_that_asked_and_a_wait_ends_with_it() {
    let mut engine = IoUring::new().expect("this kernel has io_uring");
    let file = File::new(fs::File::open("/proc/self/exe").expect("it is there"), "exe");
    for bytes_max in [0, 4] {
        let (tell, told) = channel();
        let action = Action::Read { file: file.clone(), offset: 0, bytes_max, buffer: Vec::new() };
        let job = FileJob::new(action, move |result| tell.send(result).expect("somebody listens"));
        assert!(engine.host_mut().run_file(job).is_none());
        assert!(told.try_recv().is_err(), "not yet");
        engine.wait(None).expect("the engine is whole");
        assert!(told.try_recv().is_err(), "a wait tells nothing");
        assert!(engine.next().is_none());
        let answer = told.try_recv().expect("it is answered").expect("it can be read");
        assert!(matches!(answer, Answer::Bytes(bytes) if bytes == b"\x7fELF"[..bytes_max]));
    }
}

#[test]
fn a_file_that_may_have_nothing_to_read_is_left_to_the_threads_and_answered_at_the_latest_by_a_drop() {
    // The file claims to be regular and empty, and it can be polled.
    let path = "/proc/self/mounts";
    let mut engine = IoUring::new().expect("this kernel has io_uring");
    let (tell, told) = channel();
    for bytes_max in [1 << 20, 1 << 21] {
        let tell = tell.clone();
        let job = FileJob::new(Action::ReadWhole { path: path.into(), bytes_max }, move |result| {
            tell.send(result).expect("somebody listens");
        });
        assert!(engine.host_mut().run_file(job).is_none(), "the engine opens it");
    }
    let mut left = Vec::new();
    while left.len() < 2 {
        engine.wait(None).expect("the engine is whole");
        assert!(engine.next().is_none(), "nothing has a key");
        left.extend(std::iter::from_fn(|| engine.host_mut().left_file()));
    }
    let limits = left.iter().map(|job| job.action().bytes()).collect::<Vec<_>>();
    assert_eq!(limits, [1 << 20, 1 << 21], "in the order asked");
    assert!(told.try_recv().is_err(), "nobody has read it");
    left.remove(0).perform(|_| Ok(Answer::Done));
    assert!(told.try_recv().expect("it is answered").is_ok());
    // One that the engine has received, and one that the kernel has yet to open.
    for count in [1, 2] {
        let tell = tell.clone();
        let action = Action::ReadWhole { path: path.into(), bytes_max: 9 };
        let job = FileJob::new(action, move |result| tell.send(result).expect("somebody listens"));
        assert!(engine.host_mut().run_file(job).is_none(), "the engine opens it");
        if count == 1 {
            engine.wait(None).expect("the engine is whole");
        }
    }
    drop(engine);
    for _ in 0..2 {
        told.try_recv().expect("it is answered").expect_err("nobody has read it");
    }
    assert!(told.try_recv().is_err(), "once");
}

#[test]
fn a_full_disk_is_told_with_the_operation_and_the_path() {
    let mut engine = IoUring::new().expect("this kernel has io_uring");
    // On full(4), each write fails with ENOSPC.
    let full = fs::OpenOptions::new().write(true).open("/dev/full").expect("Linux has it");
    let (tell, told) = channel();
    let action = Action::Write { file: File::new(full, "/dev/full"), offset: 0, bytes: vec![1; 10] };
    let job = FileJob::new(action, move |result| tell.send(result).expect("somebody listens"));
    assert!(engine.host_mut().run_file(job).is_none(), "the engine writes it");
    let error = answers(&mut engine, &told, 1).remove(0).expect_err("it is full");
    assert_eq!(error.io().map(std::io::Error::kind), Some(ErrorKind::StorageFull));
    assert!(error.to_string().starts_with("write /dev/full: "), "{error}");
}

#[test]
fn more_operations_than_the_ring_has_entries_are_all_answered_and_beyond_its_own_limit_given_back() {
    let mut options = reactor::engine::IoUringOptions::default();
    (options.entries, options.completions) = (2, 4);
    let mut engine = IoUring::with_options(options).expect("this kernel has io_uring");
    let file = File::new(fs::File::open("/proc/self/exe").expect("it is there"), "exe");
    let (tell, told) = channel();
    let mut back = 0;
    for offset in 0..1_025_u64 {
        let tell = tell.clone();
        let action = Action::Read { file: file.clone(), offset, bytes_max: 9, buffer: Vec::new() };
        let job = FileJob::new(action, move |result| tell.send((offset, result)).expect("somebody listens"));
        if let Some(job) = engine.host_mut().run_file(job) {
            assert_eq!(offset, 1_024, "1,023 and 1,024 are taken");
            back += 1;
            job.perform(|_| Ok(Answer::Bytes(Vec::new())));
        }
    }
    assert_eq!(back, 1, "limit + 1");
    let all = answers(&mut engine, &told, 1_025);
    let content = fs::read("/proc/self/exe").expect("it is there");
    for (offset, result) in all.into_iter().filter(|(offset, _)| *offset != 1_024) {
        let expected = &content[offset as usize..offset as usize + 9];
        assert!(matches!(result, Ok(Answer::Bytes(bytes)) if bytes == expected), "at {offset}");
    }
}

#[test]
fn an_engine_that_is_dropped_answers_what_is_out_and_frees_it() {
    let dir = Scratch::new();
    let path = dir.path("large");
    let file = File::new(fs::File::create(&path).expect("made"), &path);
    let mut engine = IoUring::new().expect("this kernel has io_uring");
    let (tell, told) = channel();
    for at in 0..16_usize {
        let tell = tell.clone();
        let bytes = vec![at as u8; 1 << 16];
        let action = Action::Write { file: file.clone(), offset: (at as u64) << 16, bytes };
        let job = FileJob::new(action, move |result| {
            tell.send(result.map(|_| at)).expect("somebody listens");
        });
        assert!(engine.host_mut().run_file(job).is_none());
    }
    // Some operations are submitted to the kernel, and some not yet.
    engine.submit();
    let last = Action::Write { file: file.clone(), offset: 16 << 16, bytes: vec![16; 1 << 16] };
    let job = FileJob::new(last, move |result| {
        tell.send(result.map(|_| 16)).expect("somebody listens");
    });
    assert!(engine.host_mut().run_file(job).is_none());
    drop(engine);
    let answered = told.iter().collect::<Vec<_>>();
    assert_eq!(answered.len(), 17, "each is answered once");
    // The bytes of each successful write are in the file.
    let content = fs::read(&path).expect("it is there");
    for at in answered.into_iter().filter_map(Result::ok) {
        assert!(content[at << 16..][..1 << 16].iter().all(|byte| usize::from(*byte) == at), "piece {at}");
    }
}
