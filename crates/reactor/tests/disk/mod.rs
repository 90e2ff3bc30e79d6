//! Random file operations on an engine. Compares the answers with the expected contents of the files.

use std::{
    collections::BTreeMap,
    fs,
    io::ErrorKind,
    path::PathBuf,
    sync::mpsc::{Receiver, Sender, channel},
};

use reactor::{
    Error,
    engine::{Engine, IoUring},
    file::{Action, Answer, File, FileJob, FileKind, OpenOptions},
};

use crate::{Chance, byte, scratch::Scratch};

type Result = std::result::Result<Answer, Error>;

/// Some files, each with at most one operation in flight.
pub(crate) struct Disk {
    dir: Scratch,
    pages: Vec<Page>,
    tell: Sender<(usize, Result)>,
    answers: Receiver<(usize, Result)>,
    asked: u64,
    answered: u64,
    pub(crate) done: BTreeMap<&'static str, u64>,
}

/// The expected state of one file.
#[derive(Default)]
struct Page {
    name: String,
    /// `None` if the file does not exist.
    content: Option<Vec<u8>>,
    handle: Option<File>,
    out: Option<Out>,
    writes: usize,
}

/// An operation in flight, with the values on which its answer depends.
enum Out {
    Open { prefetch: usize },
    Read { at: usize, len: usize },
    Whole { limit: usize },
    Write { at: usize, bytes: Vec<u8> },
    SetLen(usize),
    Sync,
    Stat,
    Rename(String),
    Remove,
    Close,
}

impl Disk {
    pub(crate) fn new() -> Disk {
        let pages = (0..PAGES).map(|at| Page { name: format!("page-{at}"), ..Page::default() }).collect();
        let (tell, answers) = channel();
        Disk { dir: Scratch::new(), pages, tell, answers, asked: 0, answered: 0, done: BTreeMap::new() }
    }

    /// Submits an operation on a random file, unless that file has one in flight.
    pub(crate) fn step(&mut self, engine: &mut IoUring, chance: &mut Chance) {
        let at = chance.below(PAGES);
        let page = &mut self.pages[at];
        if page.out.is_some() {
            return;
        }
        let path = self.dir.path(&page.name);
        let (what, action, out) = match (page.handle.clone(), page.content.is_some(), chance.below(8)) {
            (None, _, 0) => ("whole", whole(path, chance), None),
            (None, true, 1) => ("stat", Action::Stat { path }, Some(Out::Stat)),
            (None, true, 2) => ("remove", Action::Remove { path }, Some(Out::Remove)),
            (None, _, _) => {
                let prefetch = chance.below(300);
                let options = OpenOptions::with(|options| {
                    options.read = true;
                    options.write = true;
                    options.create = true;
                    options.prefetch = prefetch;
                });
                ("open", Action::Open { path, options }, Some(Out::Open { prefetch }))
            }
            (Some(file), _, 0..=1) => {
                let (offset, len) = (chance.below(LEN_MAX), chance.below(600));
                let action =
                    Action::Read { file, offset: offset as u64, bytes_max: len, buffer: vec![0xdd; 16] };
                ("read", action, Some(Out::Read { at: offset, len }))
            }
            (Some(file), _, 2..=3) => {
                page.writes += 1;
                let (offset, len) = (chance.below(LEN_MAX), chance.below(600));
                let bytes = (0..len).map(|at| byte(page.writes, at)).collect::<Vec<_>>();
                let action = Action::Write { file, offset: offset as u64, bytes: bytes.clone() };
                ("write", action, Some(Out::Write { at: offset, bytes }))
            }
            (Some(file), _, 4) => {
                let len = chance.below(LEN_MAX);
                ("set length", Action::SetLen { file, len: len as u64 }, Some(Out::SetLen(len)))
            }
            (Some(file), _, 5) if chance.below(16) == 0 => ("sync", Action::Sync { file }, Some(Out::Sync)),
            (Some(file), _, 5) => ("stat", Action::StatFile { file }, Some(Out::Stat)),
            (Some(_), _, 6) => {
                let name = format!("page-{at}-{}", page.writes);
                let action = Action::Rename { from: path, to: self.dir.path(&name) };
                ("rename", action, Some(Out::Rename(name)))
            }
            (Some(_), ..) => ("close", Action::Close { file: page.handle.take() }, Some(Out::Close)),
        };
        let out = out.unwrap_or_else(|| Out::Whole { limit: action.bytes() });
        self.pages[at].out = Some(out);
        self.ask(engine, at, action);
        *self.done.entry(what).or_default() += 1;
    }

    fn ask(&mut self, engine: &mut IoUring, at: usize, action: Action) {
        let tell = self.tell.clone();
        let job = FileJob::new(action, move |result| tell.send((at, result)).expect("the disk is there"));
        self.asked += 1;
        assert!(engine.host_mut().run_file(job).is_none(), "this kernel knows all of these");
    }

    /// Compares the answers that have arrived.
    pub(crate) fn look(&mut self) {
        while let Ok((at, result)) = self.answers.try_recv() {
            self.answered += 1;
            self.pages[at].compare(result);
        }
    }

    /// Returns whether no operation is in flight.
    pub(crate) fn is_idle(&self) -> bool {
        self.asked == self.answered
    }

    /// Closes all open files, and checks the contents of each. No operation may be in flight.
    pub(crate) fn settled(&mut self) {
        for page in &mut self.pages {
            page.handle = None;
            assert_eq!(fs::read(self.dir.path(&page.name)).ok(), page.content, "{}", page.name);
        }
    }

    /// Checks, after the engine has gone, that each operation got exactly one answer, of any kind.
    pub(crate) fn end(self) {
        let Disk { tell, answers, asked, answered, .. } = self;
        drop(tell);
        assert_eq!(answered + answers.iter().count() as u64, asked, "each is answered once");
    }
}

fn whole(path: PathBuf, chance: &mut Chance) -> Action {
    Action::ReadWhole { path, bytes_max: 1 + chance.below(LEN_MAX * 2) }
}

impl Page {
    fn compare(&mut self, result: Result) {
        let kind = result.as_ref().err().map(|error| error.io().expect("by the system").kind());
        match (self.out.take().expect("one is out"), result) {
            (Out::Open { prefetch }, Ok(Answer::Opened(opened))) => {
                let content = self.content.get_or_insert_default();
                assert_eq!(opened.metadata.kind, FileKind::Regular);
                assert_eq!(opened.metadata.len, content.len() as u64);
                assert_eq!(opened.prefetched, content[..prefetch.min(content.len())]);
                self.handle = Some(opened.file);
            }
            (Out::Read { at, len }, Ok(Answer::Bytes(bytes))) => {
                let content = self.content.as_deref().expect("it is open");
                let end = content.len().min(at + len);
                assert_eq!(bytes, content[at.min(end)..end]);
            }
            (Out::Whole { limit }, result) => match (&self.content, result) {
                (Some(content), Ok(Answer::Bytes(bytes))) => {
                    assert!(content.len() <= limit);
                    assert_eq!(&bytes, content);
                }
                (Some(content), Err(_)) => {
                    assert_eq!((kind, content.len() > limit), (Some(ErrorKind::FileTooLarge), true));
                }
                (None, _) => assert_eq!(kind, Some(ErrorKind::NotFound)),
                (Some(_), other) => panic!("{other:?}"),
            },
            (Out::Write { at, bytes }, Ok(Answer::Done)) => {
                let content = self.content.as_mut().expect("it is open");
                if !bytes.is_empty() {
                    content.resize(content.len().max(at + bytes.len()), 0);
                    content[at..at + bytes.len()].copy_from_slice(&bytes);
                }
            }
            (Out::SetLen(len), Ok(Answer::Done)) => {
                self.content.as_mut().expect("it is open").resize(len, 0);
            }
            (Out::Stat, Ok(Answer::Metadata(metadata))) => {
                let len = self.content.as_ref().expect("it is there").len() as u64;
                assert_eq!((metadata.len, metadata.kind), (len, FileKind::Regular));
            }
            (Out::Rename(name), Ok(Answer::Done)) => self.name = name,
            (Out::Remove, Ok(Answer::Done)) => self.content = None,
            (Out::Sync | Out::Close, Ok(Answer::Done)) => {}
            (_, result) => panic!("{result:?}"),
        }
    }
}

const PAGES: usize = 8;
const LEN_MAX: usize = 5_000;
