//! Regular files outside the loop: operations, their order and bounds, read-ahead, and files that change.
#![cfg(unix)]

mod common;
mod scratch;

use std::{
    collections::VecDeque,
    fs,
    io::ErrorKind,
    os::unix::fs::{FileExt, MetadataExt as _, PermissionsExt as _, chown, symlink},
    path::PathBuf,
};

use common::{for_each_engine, until, until_woken};
use reactor::{
    Closed, Context, Error, Handle, Id, Limits, Receive, Refused, Result, Runtime, Service, ServiceId,
    file::{Action, DirEntry, File, FileEvent, FileKind, FileReader, OpenOptions, Opened, Operation},
};
use scratch::{Scratch, hang};

/// Records the results of its operations.
#[derive(Default)]
struct Clerk {
    opened: VecDeque<Result<Opened, Error>>,
    bytes: VecDeque<Result<Vec<u8>, Error>>,
    done: VecDeque<Result<(), Error>>,
    entries: Vec<DirEntry>,
    chunks: Vec<Vec<u8>>,
    ends: usize,
    closed: Vec<(Closed, u64)>,
    /// Readers that were released.
    back: Vec<FileReader>,
    /// Pauses after each chunk.
    pauses: bool,
}

impl Service for Clerk {}

struct Listed(Result<Vec<DirEntry>, Error>);

impl Receive<Result<Opened, Error>> for Clerk {
    fn receive(&mut self, _: &mut Context<Self>, result: Result<Opened, Error>) -> Result {
        self.opened.push_back(result);
        Ok(())
    }
}

impl Receive<Result<Vec<u8>, Error>> for Clerk {
    fn receive(&mut self, _: &mut Context<Self>, result: Result<Vec<u8>, Error>) -> Result {
        self.bytes.push_back(result);
        Ok(())
    }
}

impl Receive<Result<(), Error>> for Clerk {
    fn receive(&mut self, _: &mut Context<Self>, result: Result<(), Error>) -> Result {
        self.done.push_back(result);
        Ok(())
    }
}

impl Receive<Listed> for Clerk {
    fn receive(&mut self, _: &mut Context<Self>, Listed(result): Listed) -> Result {
        self.entries = result?;
        Ok(())
    }
}

impl Handle<FileReader> for Clerk {
    fn handle(&mut self, cx: &mut Context<Self>, id: Id<FileReader>, event: FileEvent<'_>) -> Result {
        match event {
            FileEvent::Chunk(bytes) => self.chunks.push(bytes.to_vec()),
            FileEvent::End => self.ends += 1,
        }
        if self.pauses {
            cx.pause(id);
        }
        Ok(())
    }

    fn closed(&mut self, _: &mut Context<Self>, _: Id<FileReader>, reader: FileReader, why: Closed) {
        self.closed.push((why, reader.position()));
        self.back.push(reader);
    }
}

/// A runtime with one clerk.
struct Desk {
    runtime: Runtime,
    clerk: ServiceId<Clerk>,
}

impl Desk {
    fn new(engine: common::Engine, change: impl FnOnce(&mut Limits)) -> Desk {
        let mut runtime = engine.with(change);
        let clerk = runtime.add(Clerk::default()).expect("it starts");
        Desk { runtime, clerk }
    }

    fn with<T>(&mut self, f: impl FnOnce(&mut Clerk, &mut Context<Clerk>) -> T) -> T {
        self.runtime.with(self.clerk, f).expect("it lives")
    }

    fn until(&mut self, mut done: impl FnMut(&Clerk) -> bool) {
        let clerk = self.clerk;
        until(&mut self.runtime, |runtime| done(runtime.service(clerk).expect("it lives")));
    }

    fn open(&mut self, path: &std::path::Path, options: OpenOptions) -> Result<Opened, Error> {
        let operation = Operation::open(path, options);
        self.with(|_, cx| cx.file(operation, |result| result)).expect("room");
        self.until(|clerk| !clerk.opened.is_empty());
        self.with(|clerk, _| clerk.opened.pop_front()).expect("it was seen")
    }

    fn file(&mut self, path: &std::path::Path) -> File {
        self.open(path, OpenOptions::read()).expect("it is there").file
    }

    fn bytes(&mut self, operation: Operation<Vec<u8>>) -> Result<Vec<u8>, Error> {
        self.with(|_, cx| cx.file(operation, |result| result)).expect("room");
        self.until(|clerk| !clerk.bytes.is_empty());
        self.with(|clerk, _| clerk.bytes.pop_front()).expect("it was seen")
    }

    fn done(&mut self, operation: Operation<()>) -> Result<(), Error> {
        self.with(|_, cx| cx.file(operation, |result| result)).expect("room");
        self.until(|clerk| !clerk.done.is_empty());
        self.with(|clerk, _| clerk.done.pop_front()).expect("it was seen")
    }
}

fn kind(result: Result<impl std::fmt::Debug, Error>) -> ErrorKind {
    result.expect_err("it fails").io().expect("by the system").kind()
}

#[test]
fn operations_do_what_they_say_and_errors_name_them() {
    for_each_engine(|engine| {
        let dir = Scratch::new();
        let mut desk = Desk::new(engine, |_| ());
        let log = dir.path("log");
        let how = OpenOptions::with(|options| {
            options.read = true;
            options.append = true;
            options.create_new = true;
        });
        let file = desk.open(&log, how.clone()).expect("made").file;
        assert_eq!(kind(desk.open(&log, how)), ErrorKind::AlreadyExists);
        desk.done(Operation::append(&file, *b"one ")).expect("written");
        desk.done(Operation::append(&file, *b"two")).expect("written");
        desk.done(Operation::sync(&file)).expect("synced");
        desk.done(Operation::sync_directory(dir.path(""))).expect("synced");
        assert_eq!(desk.bytes(Operation::read_at(&file, 4, 99)).expect("read"), b"two");
        assert_eq!(desk.bytes(Operation::read_at(&file, 99, 9)).expect("read"), b"");

        let how = OpenOptions::with(|options| {
            options.prefetch = 3;
            options.read = true;
            options.write = true;
        });
        let opened = desk.open(&log, how).expect("opened");
        assert_eq!((opened.metadata.len, opened.metadata.kind), (7, FileKind::Regular));
        assert_eq!(opened.prefetched, b"one");
        desk.done(Operation::write_at(&opened.file, 1, *b"NE")).expect("written");
        desk.done(Operation::set_len(&opened.file, 4)).expect("cut");
        assert_eq!(desk.bytes(Operation::read(&log, 4)).expect("limit fits"), b"oNE ");
        assert_eq!(kind(desk.bytes(Operation::read(&log, 3))), ErrorKind::FileTooLarge);
        desk.done(Operation::close(opened.file)).expect("closed");

        desk.done(Operation::create_directory(dir.path("sub"))).expect("made");
        desk.done(Operation::rename(&log, dir.path("sub/moved"))).expect("moved");
        desk.with(|_, cx| cx.file(Operation::read_directory(dir.path(""), 8), Listed).is_ok());
        desk.until(|clerk| !clerk.entries.is_empty());
        let entries = desk.with(|clerk, _| clerk.entries.clone());
        assert_eq!(entries, [DirEntry { name: "sub".into(), kind: FileKind::Directory }]);
        desk.done(Operation::remove(dir.path("sub/moved"))).expect("removed");

        let error = desk.bytes(Operation::read(&log, 3)).expect_err("it is gone");
        let text = error.to_string();
        assert!(text.starts_with(&format!("read {}: ", log.display())), "{text}");
        // Opening a directory succeeds and reports its kind. Writing to it does not.
        assert_eq!(
            desk.open(&dir.path(""), OpenOptions::read()).expect("opened").metadata.kind,
            FileKind::Directory
        );
    });
}

#[test]
fn a_full_disk_is_the_error_of_that_operation_only() {
    for_each_engine(|engine| {
        let dir = Scratch::new();
        let mut desk = Desk::new(engine, |_| ());
        let write = OpenOptions::with(|options| options.write = true);
        // On full(4), each write fails with ENOSPC.
        let full = desk.open("/dev/full".as_ref(), write).expect("Linux has it").file;
        let good = desk.open(&dir.path("good"), OpenOptions::write()).expect("made").file;
        assert_eq!(kind(desk.done(Operation::write_at(&full, 0, *b"x"))), ErrorKind::StorageFull);
        desk.done(Operation::write_at(&good, 0, *b"x")).expect("another file is not concerned");
    });
}

#[test]
fn replace_leaves_the_new_content_and_no_other_file() {
    for_each_engine(|engine| {
        let dir = Scratch::new();
        let mut desk = Desk::new(engine, |_| ());
        let path = dir.path("state");
        for content in [&b"first"[..], b"second, and longer", b""] {
            desk.done(Operation::replace(&path, content)).expect("replaced");
            assert_eq!(fs::read(&path).expect("it is there"), content);
            assert_eq!(dir.names(), ["state"]);
        }
    });
}

#[test]
fn a_replace_keeps_long_names_links_and_owners() {
    for_each_engine(|engine| {
        let dir = Scratch::new();
        let mut desk = Desk::new(engine, |_| ());
        for name in ["n".repeat(239), "n".repeat(240), "n".repeat(255), "é".repeat(127)] {
            let path = dir.path(&name);
            desk.done(Operation::replace(&path, *b"one")).expect("made");
            desk.done(Operation::replace(&path, *b"two")).expect("replaced");
            assert_eq!(fs::read(&path).expect("it is there"), b"two", "{} bytes", name.len());
            fs::remove_file(&path).expect("it is ours");
        }
        assert_eq!(
            kind(desk.done(Operation::replace(dir.path("n".repeat(256)), *b"x"))),
            ErrorKind::InvalidFilename
        );
        // A symbolic link remains one: to a file, to another link, and to a file that does not exist yet.
        fs::create_dir(dir.path("in")).expect("a directory");
        let target = dir.file("in/target", b"old");
        symlink("in/target", dir.path("link")).expect("a link");
        symlink(dir.path("link"), dir.path("far")).expect("a link");
        symlink("in/none", dir.path("dangling")).expect("a link");
        for (link, at) in [("link", "in/target"), ("far", "in/target"), ("dangling", "in/none")] {
            desk.done(Operation::replace(dir.path(link), link)).expect("replaced");
            assert!(fs::symlink_metadata(dir.path(link)).expect("it is there").is_symlink(), "{link}");
            assert_eq!(fs::read_to_string(dir.path(at)).expect("it is there"), link);
        }
        symlink("round", dir.path("round")).expect("a link");
        desk.done(Operation::replace(dir.path("round"), *b"x")).expect_err("it leads nowhere");
        // Only a process that may give files away can set this case up.
        if chown(&target, Some(12_345), Some(23_456)).is_ok() {
            fs::set_permissions(&target, fs::Permissions::from_mode(0o640)).expect("it is ours");
            desk.done(Operation::replace(&target, *b"theirs")).expect("replaced");
            let of = fs::metadata(&target).expect("it is there");
            assert_eq!((of.uid(), of.gid(), of.mode() & 0o777), (12_345, 23_456, 0o640));
        }
        let mut names = dir.names();
        names.sort();
        assert_eq!(names, ["dangling", "far", "in", "link", "round"], "no temporary file is left");
    });
}

#[test]
fn what_was_opened_for_the_other_way_of_writing_is_refused() {
    for_each_engine(|engine| {
        let dir = Scratch::new();
        let path = dir.file("file", b"0123456789");
        let mut desk = Desk::new(engine, |_| ());
        let writes = OpenOptions::with(|options| options.write = true);
        let appends = OpenOptions::with(|options| options.append = true);
        let (placed, log) =
            (desk.open(&path, writes).expect("opened").file, desk.open(&path, appends).expect("opened").file);
        // Including a file that the standard library opened.
        let theirs = fs::OpenOptions::new().append(true).open(&path).expect("opened");
        let theirs = File::new(theirs, &path);
        for operation in [
            Operation::append(&placed, *b"x"),
            Operation::append_synced(&placed, *b"x"),
            Operation::write_at(&log, 0, *b"x"),
            Operation::write_at(&theirs, 0, *b"x"),
        ] {
            let name = operation.action().to_string();
            assert_eq!(kind(desk.done(operation)), ErrorKind::InvalidInput, "{name}");
        }
        desk.done(Operation::write_at(&placed, 0, *b"a")).expect("written");
        desk.done(Operation::append(&log, *b"b")).expect("written");
        desk.done(Operation::append_synced(&theirs, *b"c")).expect("written and synced");
        assert_eq!(fs::read(&path).expect("it is there"), b"a123456789bc");
    });
}

#[test]
#[cfg(target_os = "linux")]
fn special_files_are_the_same_on_each_engine_and_hang_no_thread() {
    for_each_engine(|engine| {
        let dir = Scratch::new();
        let pipe = dir.path("pipe");
        let made = std::process::Command::new("mkfifo").arg(&pipe).status();
        assert!(made.expect("coreutils are there").success());
        let mut desk = Desk::new(engine, |limits| limits.file_threads = 1);
        // Nothing has the other end open.
        let writes = OpenOptions::with(|options| options.write = true);
        let refused = desk.open(&pipe, writes.clone()).expect_err("nobody reads");
        assert_eq!(refused.io().and_then(std::io::Error::raw_os_error), Some(libc::ENXIO));
        assert_eq!(desk.bytes(Operation::read(&pipe, 100)).expect("it has no writer"), b"");
        let reader = desk.open(&pipe, OpenOptions::read()).expect("opened");
        assert_eq!(reader.metadata.kind, FileKind::Other);
        assert_eq!(kind(desk.bytes(Operation::read_at(&reader.file, 0, 9))), ErrorKind::NotSeekable);
        let writer = desk.open(&pipe, writes).expect("opened").file;
        assert_eq!(kind(desk.done(Operation::write_at(&writer, 0, *b"x"))), ErrorKind::NotSeekable);
        desk.done(Operation::append(&writer, *b"through")).expect("there is room");
        assert_eq!(kind(desk.bytes(Operation::read(&pipe, 3))), ErrorKind::FileTooLarge);
        let full = vec![0; 1 << 20];
        assert_eq!(kind(desk.done(Operation::append(&writer, full))), ErrorKind::WouldBlock);
        let status = "/proc/self/status";
        let whole = desk.bytes(Operation::read(status, 1 << 20)).expect("read");
        assert!(whole.starts_with(b"Name:"));
        let opened = desk.open(std::path::Path::new(status), OpenOptions::read()).expect("opened");
        assert_eq!((opened.metadata.kind, opened.metadata.len), (FileKind::Regular, 0));
        assert_eq!(desk.bytes(Operation::read_at(&opened.file, 0, 5)).expect("read"), b"Name:");
        assert_eq!(desk.bytes(Operation::read("/dev/null", 9)).expect("read"), b"");
        desk.done(Operation::sync(&writer)).expect_err("nothing to sync");
    });
}

/// Files of the kernel that claim to be regular and empty. Their readers wait for news.
#[cfg(target_os = "linux")]
const WAITING: [&str; 2] = ["/proc/kmsg", "/sys/kernel/tracing/trace_pipe"];

#[test]
#[cfg(target_os = "linux")]
fn a_file_of_the_kernel_that_waits_for_news_is_answered_on_each_engine() {
    for_each_engine(|engine| {
        let mut desk = Desk::new(engine, |limits| limits.file_threads = 1);
        // A file of the kernel that has news but is always readable. Everyone may read it.
        let mounts = desk.bytes(Operation::read("/proc/self/mounts", 1 << 20)).expect("read");
        assert!(mounts.windows(5).any(|part| part == b"/proc"), "{}", mounts.escape_ascii());
        assert_eq!(kind(desk.bytes(Operation::read("/proc/self/mounts", 1))), ErrorKind::FileTooLarge);
        for path in WAITING {
            if let Err(error) = fs::File::open(path) {
                eprintln!("skipped: {path}: {error}");
                continue;
            }
            // After its current contents there is nothing more.
            for _ in 0..2 {
                assert_eq!(
                    kind(desk.bytes(Operation::read(path, 32 << 20))),
                    ErrorKind::WouldBlock,
                    "{path}"
                );
            }
            let opened = desk.open(std::path::Path::new(path), OpenOptions::read()).expect("opened");
            assert_eq!((opened.metadata.kind, opened.metadata.len), (FileKind::Regular, 0), "{path}");
            // The kernel may append a message at any time, and not every such file has positions.
            if let Err(error) = desk.bytes(Operation::read_at(&opened.file, 0, 1 << 16)) {
                let expected = [ErrorKind::WouldBlock, ErrorKind::NotSeekable];
                assert!(expected.contains(&kind(Err::<(), _>(error))), "{path}");
            }
        }
    });
}

#[test]
fn a_replace_that_fails_leaves_the_old_file_and_no_other() {
    for_each_engine(|engine| {
        let dir = Scratch::new();
        let mut desk = Desk::new(engine, |_| ());
        // A file cannot replace a directory: the rename fails after the temporary file was written.
        fs::create_dir(dir.path("state")).expect("made");
        assert_eq!(kind(desk.done(Operation::replace(dir.path("state"), *b"new"))), ErrorKind::IsADirectory);
        assert_eq!(dir.names(), ["state"]);
        assert_eq!(kind(desk.done(Operation::replace(dir.path("none/state"), *b"new"))), ErrorKind::NotFound);
        assert_eq!(kind(desk.done(Operation::replace("/", *b"new"))), ErrorKind::InvalidFilename);
    });
}

#[test]
fn the_limit_of_operations_gives_the_operation_back() {
    for_each_engine(|engine| {
        let hung = hang();
        let mut desk = Desk::new(engine, |limits| (limits.file_operations, limits.file_threads) = (2, 1));
        let file = hung.file.clone();
        desk.with(|_, cx| {
            assert!(cx.file(Operation::append(&file, *b"a"), |result| result).is_ok(), "limit - 1");
            assert!(cx.file(Operation::append(&file, *b"b"), |result| result).is_ok(), "limit");
            match cx.file(Operation::append(&file, *b"c"), |result| result) {
                Err(Refused::Full(operation)) => {
                    assert!(matches!(operation.action(), Action::Append { bytes, .. } if bytes == b"c"));
                }
                _ => panic!("limit + 1"),
            }
        });
        drop(hung);
        desk.until(|clerk| clerk.done.len() == 2);
        let room = desk.with(|_, cx| cx.file(Operation::append(&file, *b"d"), |result| result).is_ok());
        assert!(room, "again");
        desk.until(|clerk| clerk.done.len() == 3);
    });
}

#[test]
fn the_largest_numbers_mean_nothing_else() {
    for_each_engine(|engine| {
        let dir = Scratch::new();
        let path = dir.file("data", b"here");
        let mut desk = Desk::new(engine, |limits| limits.file_bytes = usize::MAX);
        assert_eq!(desk.bytes(Operation::read(&path, usize::MAX)).expect("without a limit"), b"here");
        assert_eq!(kind(desk.bytes(Operation::read(dir.path(""), 9))), ErrorKind::IsADirectory);
        let how = OpenOptions::with(|options| {
            options.read = true;
            options.write = true;
        });
        let file = desk.open(&path, how).expect("opened").file;
        assert_eq!(kind(desk.bytes(Operation::read_at(&file, u64::MAX, 4))), ErrorKind::InvalidInput);
        assert_eq!(kind(desk.done(Operation::write_at(&file, u64::MAX, *b"no"))), ErrorKind::InvalidInput);
        assert_eq!(desk.bytes(Operation::read(&path, 9)).expect("as before"), b"here");
    });
}

#[test]
fn the_limit_of_bytes_counts_what_is_out() {
    for_each_engine(|engine| {
        let hung = hang();
        let mut desk = Desk::new(engine, |limits| limits.file_bytes = 100);
        let file = hung.file.clone();
        let mut ask = |bytes| {
            let operation = Operation::append(&file, vec![0; bytes]);
            desk.with(|_, cx| cx.file(operation, |result| result).is_ok())
        };
        assert!(!ask(101), "limit + 1 at once");
        assert!(ask(99), "limit - 1");
        assert!(ask(1), "limit");
        assert!(!ask(1), "limit + 1");
        assert!(ask(0), "what has no bytes has room");
        drop(hung);
        desk.until(|clerk| clerk.done.len() == 3);
        let room =
            desk.with(|_, cx| cx.file(Operation::append(&file, vec![0; 100]), |result| result).is_ok());
        assert!(room, "all of it again");
        desk.until(|clerk| clerk.done.len() == 4);
    });
}

#[test]
fn more_operations_than_threads_wait_for_one() {
    for_each_engine(|engine| {
        let dir = Scratch::new();
        let path = dir.file("data", b"here");
        for threads in [1, 2] {
            let hung: Vec<_> = (0..2).map(|_| hang()).collect();
            let mut desk = Desk::new(engine, |limits| limits.file_threads = threads);
            // All threads but one hang, and operations on other files do not wait.
            for hung in &hung[1..threads] {
                let operation = Operation::append(&hung.file, *b"x");
                desk.with(|_, cx| cx.file(operation, |result| result)).expect("room");
            }
            assert_eq!(desk.bytes(Operation::read(&path, 9)).expect("limit - 1 hang"), b"here");
            // All threads hang, so the operations wait until one is free.
            let operation = Operation::append(&hung[0].file, *b"x");
            desk.with(|_, cx| cx.file(operation, |result| result)).expect("room");
            desk.with(|_, cx| cx.file(Operation::read(&path, 9), |result| result)).expect("room");
            common::settle(&mut desk.runtime);
            // An engine that reads by itself needs no thread.
            let is_native = engine.0 == "io_uring";
            assert_eq!(
                desk.with(|clerk, _| clerk.bytes.len()),
                usize::from(is_native),
                "{threads} threads hang"
            );
            drop(hung);
            desk.until(|clerk| clerk.bytes.len() == 1 && clerk.done.len() == threads);
        }
    });
}

#[test]
fn without_threads_an_operation_is_answered_with_an_error() {
    for_each_engine(|engine| {
        let dir = Scratch::new();
        let mut desk = Desk::new(engine, |limits| limits.file_threads = 0);
        // No engine of the operating system replaces a file by itself.
        let operation = Operation::replace(dir.path("state"), *b"new");
        let error = desk.done(operation).expect_err("nobody does it");
        assert!(error.to_string().contains("no thread"), "{error}");
    });
}

#[test]
fn a_reader_hands_over_each_byte_once_and_then_the_end() {
    for_each_engine(|engine| {
        let dir = Scratch::new();
        let content: Vec<u8> = (0..300_000_u32).map(|at| (at % 251) as u8).collect();
        let path = dir.file("large", &content);
        let mut desk = Desk::new(engine, |_| ());
        let file = desk.file(&path);
        for (range, chunk) in [(None, 64 << 10), (Some(10..299_990), 1_000), (Some(0..0), 7)] {
            let reader = FileReader::new(file.clone()).chunk(chunk);
            let reader = range.clone().into_iter().fold(reader, FileReader::range);
            desk.with(|clerk, cx| {
                clerk.chunks.clear();
                cx.add(reader).map_err(|rejected| rejected.error).expect("room");
            });
            desk.until(|clerk| !clerk.closed.is_empty());
            let (closed, ends) = desk.with(|clerk, _| (clerk.closed.pop(), std::mem::take(&mut clerk.ends)));
            assert!(matches!(closed, Some((Closed::Done, _))), "{closed:?}");
            assert_eq!(ends, 1);
            let range = range.map_or(0..content.len(), |range| range.start as usize..range.end as usize);
            let chunks = desk.with(|clerk, _| clerk.chunks.clone());
            assert!(chunks.iter().all(|bytes| !bytes.is_empty() && bytes.len() <= chunk));
            assert_eq!(chunks.concat(), content[range]);
        }
    });
}

#[test]
fn a_paused_reader_reads_ahead_up_to_its_bound_and_no_further() {
    for_each_engine(|engine| {
        for ahead in [1, 3] {
            let dir = Scratch::new();
            let path = dir.file("ten", b"0123456789");
            let mut desk = Desk::new(engine, |_| ());
            let file = desk.file(&path);
            desk.with(|clerk, _| clerk.pauses = true);
            let reader = FileReader::new(file).chunk(1).ahead(ahead);
            let id = desk.with(|_, cx| cx.add(reader).map_err(|rejected| rejected.error)).expect("room");
            desk.until(|clerk| clerk.chunks.len() == 1);
            // The delivered chunk is out of the buffer. The reader reads `ahead` more bytes, which only its
            // position shows.
            let clerk = desk.clerk;
            let place = |runtime: &mut Runtime| {
                runtime.with(clerk, |_, cx| cx.get(id).map(FileReader::position)).expect("it lives")
            };
            until(&mut desk.runtime, |runtime| place(runtime) == Some(1 + ahead as u64));
            common::settle(&mut desk.runtime);
            assert_eq!(place(&mut desk.runtime), Some(1 + ahead as u64));
            for seen in 1..10 {
                desk.until(|clerk| clerk.chunks.len() == seen);
                desk.with(|_, cx| cx.resume(id));
            }
            desk.with(|clerk, _| clerk.pauses = false);
            desk.until(|clerk| clerk.chunks.len() == 10);
            desk.with(|_, cx| cx.resume(id));
            desk.until(|clerk| clerk.closed.len() == 1);
            assert_eq!(desk.with(|clerk, _| clerk.chunks.concat()), b"0123456789");
        }
    });
}

#[test]
fn a_reader_that_ends_while_it_waits_leaves_its_turn_to_the_next() {
    for_each_engine(|engine| {
        // One, and more than the loop would call in one turn.
        for gone in [1, 200] {
            let dir = Scratch::new();
            let hung = hang();
            let mut desk = Desk::new(engine, |limits| (limits.file_operations, limits.file_threads) = (1, 1));
            let file =
                File::new(fs::File::open(dir.file("file", b"0123456789")).expect("it is there"), "file");
            desk.with(|_, cx| cx.file(Operation::append(&hung.file, *b"x"), |done| done)).expect("room");
            let ids: Vec<_> = desk.with(|_, cx| {
                let reader = |_| cx.add(FileReader::new(file.clone())).map_err(|rejected| rejected.error);
                (0..=gone).map(reader).collect::<Result<_, _>>().expect("room")
            });
            common::settle(&mut desk.runtime);
            assert!(desk.with(|clerk, _| clerk.chunks.is_empty()), "the only place is taken");
            desk.with(|_, cx| ids[..gone].iter().for_each(|id| cx.abort(*id)));
            drop(hung);
            let clerk = desk.clerk;
            until_woken(&mut desk.runtime, |runtime| {
                runtime.service(clerk).is_some_and(|clerk| clerk.closed.len() == gone + 1)
            });
            assert_eq!(
                desk.with(|clerk, _| (clerk.chunks.concat(), clerk.ends)),
                (b"0123456789".to_vec(), 1)
            );
        }
    });
}

#[test]
fn a_reader_of_large_chunks_is_not_overtaken_for_ever_by_readers_of_small_ones() {
    for_each_engine(|engine| {
        let dir = Scratch::new();
        let path = dir.sparse("file", 10_000);
        let mut desk = Desk::new(engine, |limits| limits.file_bytes = 100);
        let file = File::new(fs::File::open(path).expect("it is there"), "file");
        desk.with(|_, cx| {
            for (chunk, end) in [(40, 10_000), (40, 10_000), (100, 100)] {
                let reader = FileReader::new(file.clone()).chunk(chunk).ahead(1).range(0..end);
                cx.add(reader).map_err(|rejected| rejected.error).expect("room");
            }
        });
        desk.until(|clerk| clerk.closed.len() == 3);
        let order: Vec<u64> = desk.with(|clerk, _| clerk.closed.iter().map(|(_, at)| *at).collect());
        assert_eq!(order, [100, 10_000, 10_000]);
    });
}

#[test]
fn a_reader_of_a_range_that_ends_before_it_begins_is_refused_in_words() {
    for_each_engine(|engine| {
        let dir = Scratch::new();
        let mut desk = Desk::new(engine, |_| ());
        let file = desk.file(&dir.file("file", b"0123456789"));
        let mut add = |begin, end| {
            let reader = FileReader::new(file.clone()).range(begin..end);
            desk.with(|_, cx| cx.add(reader).map_err(|rejected| rejected.error.to_string()))
        };
        let refused = add(5, 4).expect_err("backwards");
        assert!(refused.contains("ends before it begins"), "{refused}");
        add(5, 5).expect("nothing is a range, too");
        desk.until(|clerk| clerk.closed.len() == 1);
        assert!(desk.with(|clerk, _| matches!(clerk.closed[..], [(Closed::Done, 5)]) && clerk.ends == 1));
    });
}

#[test]
fn a_released_reader_goes_on_behind_what_the_service_has_seen() {
    for_each_engine(|engine| {
        let dir = Scratch::new();
        // Full chunks, a short one, and less than one chunk; seen: nothing, or the first of them.
        for (len, is_first_seen) in
            [(150_000, false), (150_000, true), (131_072, true), (100, false), (0, false)]
        {
            let content: Vec<u8> = (0..len).map(|at| (at / 7 % 251) as u8).collect();
            let path = dir.file("file", &content);
            let mut desk = Desk::new(engine, |_| ());
            let file = desk.file(&path);
            let id = desk.with(|clerk, cx| {
                clerk.pauses = true;
                let id = cx.add(FileReader::new(file)).map_err(|rejected| rejected.error).expect("room");
                if !is_first_seen {
                    cx.pause(id);
                }
                id
            });
            let ahead = if is_first_seen { len } else { len.min(131_072) } as u64;
            let clerk = desk.clerk;
            until(&mut desk.runtime, |runtime| {
                let at = runtime.with(clerk, |_, cx| cx.get(id).map(FileReader::position));
                at == Some(Some(ahead))
            });
            desk.with(|_, cx| cx.release(id)).expect("a reader always can");
            desk.until(|clerk| clerk.closed.len() == 1);
            let seen: usize = desk.with(|clerk, _| clerk.chunks.iter().map(Vec::len).sum());
            let (why, at) = desk.with(|clerk, _| clerk.closed.remove(0));
            assert!(matches!(why, Closed::Released), "{why:?}");
            assert_eq!(at, seen as u64, "of {len} bytes");
            desk.with(|clerk, cx| {
                clerk.pauses = false;
                let reader = clerk.back.remove(0);
                cx.add(reader).map_err(|rejected| rejected.error).expect("room");
            });
            desk.until(|clerk| clerk.closed.len() == 1);
            let (chunks, ends) = desk.with(|clerk, _| (clerk.chunks.concat(), clerk.ends));
            assert!(chunks == content, "{} of {len} bytes", chunks.len());
            assert_eq!(ends, 1);
        }
    });
}

#[test]
fn a_file_that_is_cut_off_while_it_is_read_ends_its_reader_only() {
    for_each_engine(|engine| {
        let dir = Scratch::new();
        let path = dir.file("shrinks", &[7; 100]);
        let other = dir.file("stays", &[8; 100]);
        let mut desk = Desk::new(engine, |_| ());
        let (file, other) = (desk.file(&path), desk.file(&other));
        desk.with(|clerk, _| clerk.pauses = true);
        let reader = FileReader::new(file).range(0..100).chunk(10).ahead(1);
        let id = desk.with(|_, cx| cx.add(reader).map_err(|rejected| rejected.error)).expect("room");
        desk.until(|clerk| clerk.chunks.len() == 1);
        fs::OpenOptions::new().write(true).open(&path).and_then(|file| file.set_len(15)).expect("cut");
        desk.with(|clerk, cx| {
            clerk.pauses = false;
            cx.resume(id);
        });
        desk.until(|clerk| !clerk.closed.is_empty());
        let closed = desk.with(|clerk, _| clerk.closed.pop());
        assert!(matches!(closed, Some((Closed::Truncated(_), _))), "{closed:?}");
        assert_eq!(desk.with(|clerk, _| clerk.ends), 0);
        assert_eq!(desk.bytes(Operation::read_at(&other, 0, 9)).expect("the loop lives"), [8; 9]);
    });
}

#[test]
fn readers_that_find_no_room_wait_for_it() {
    for_each_engine(|engine| {
        let dir = Scratch::new();
        let path = dir.file("data", &[7; 1_000]);
        let mut desk = Desk::new(engine, |limits| (limits.file_operations, limits.file_bytes) = (1, 100));
        let file = desk.file(&path);
        for _ in 0..20 {
            let reader = FileReader::new(file.clone()).chunk(100);
            desk.with(|_, cx| cx.add(reader).map_err(|rejected| rejected.error)).expect("room");
        }
        desk.until(|clerk| clerk.closed.len() == 20);
        assert_eq!(desk.with(|clerk, _| clerk.chunks.concat().len()), 20_000);
        // A reader that can never fit fails at once, and does not wait for ever.
        let reader = FileReader::new(file).chunk(101);
        desk.with(|_, cx| cx.add(reader).map_err(|rejected| rejected.error)).expect("room");
        desk.until(|clerk| clerk.closed.len() == 21);
        let closed = desk.with(|clerk, _| clerk.closed.pop());
        assert!(matches!(closed, Some((Closed::Failed(_), 0))), "{closed:?}");
    });
}

#[test]
fn an_operation_that_hangs_delays_neither_other_files_nor_offloaded_work_nor_the_stop() {
    for_each_engine(|engine| {
        let dir = Scratch::new();
        let path = dir.file("data", b"here");
        let hung = hang();
        let mut desk = Desk::new(engine, |limits| limits.job_threads = 1);
        for _ in 0..2 {
            let operation = Operation::append(&hung.file, *b"x");
            desk.with(|_, cx| cx.file(operation, |result| result)).expect("room");
        }
        assert_eq!(desk.bytes(Operation::read(&path, 9)).expect("another file"), b"here");
        desk.with(|_, cx| cx.offload(|| Ok::<Vec<u8>, Error>(b"job".to_vec())).is_ok());
        desk.until(|clerk| clerk.bytes.len() == 1);
        desk.with(|_, cx| cx.stop(std::time::Duration::ZERO));
        let receipt = desk.runtime.run().expect("it ends");
        // On a busy machine the second thread may not have started yet.
        assert_eq!(receipt.file_operations_running + receipt.file_operations_dropped, 2);
        drop(hung);
    });
}

#[test]
fn what_is_out_keeps_a_runtime_alive_until_it_is_answered() {
    for_each_engine(|engine| {
        let dir = Scratch::new();
        let path: PathBuf = dir.file("data", b"here");
        let mut desk = Desk::new(engine, |_| ());
        desk.with(|_, cx| cx.file(Operation::read(&path, 9), |result| result)).expect("room");
        let receipt = desk.runtime.run().expect("it ends by itself");
        assert_eq!((receipt.file_operations_running, receipt.file_operations_dropped), (0, 0));
        let clerk = desk.runtime.service(desk.clerk).expect("it is there");
        assert_eq!(clerk.bytes[0].as_ref().expect("read"), b"here");
    });
}

#[test]
fn a_panic_in_the_making_of_the_message_is_a_fault() {
    for_each_engine(|engine| {
        let mut desk = Desk::new(engine, |_| ());
        let then =
            |_: Result<(), Error>| -> Result<(), Error> { std::panic::resume_unwind(Box::new("then")) };
        desk.with(|_, cx| cx.file(Operation::sync_directory("/"), then)).expect("room");
        let receipt = desk.runtime.run().expect("it ends");
        assert_eq!(receipt.services[0].faults, 1);
    });
}

#[test]
fn written_places_are_written_and_others_are_not() {
    for_each_engine(|engine| {
        let dir = Scratch::new();
        let path = dir.file("data", &[0; 64]);
        let mut desk = Desk::new(engine, |_| ());
        let file = desk.open(&path, OpenOptions::with(|options| options.write = true)).expect("there").file;
        // All at once and in any order, because they do not overlap.
        desk.with(|_, cx| {
            for at in (0..64_u64).step_by(2) {
                cx.file(Operation::write_at(&file, at, [at as u8 + 1]), |result| result).expect("room");
            }
        });
        desk.until(|clerk| clerk.done.len() == 32);
        let mut content = [9; 64];
        fs::File::open(&path).and_then(|file| file.read_exact_at(&mut content, 0)).expect("read");
        for (at, byte) in content.into_iter().enumerate() {
            assert_eq!(byte, if at % 2 == 0 { at as u8 + 1 } else { 0 });
        }
    });
}
