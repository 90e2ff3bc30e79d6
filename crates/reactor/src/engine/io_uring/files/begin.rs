//! The file operations that the engine takes, and their first steps.
//!
//! The engine leaves an operation to the threads if the kernel does not have it or would behave otherwise
//! than the calls, and if its arguments are wrong. The threads perform it, or find the error.
#![allow(unsafe_code)]

use std::{ffi::CString, mem, os::unix::ffi::OsStrExt as _, path::Path};

use io_uring::opcode;

use super::step::{Ask, FileStep, From, Synced, Then, WHERE_IT_STANDS};
use crate::{
    engine::io_uring::probe::Known,
    host::file::{Action, Answer, File, OpenOptions, Writes},
    sys,
};

/// Returns the first step of an action. `None`, with the action unchanged, if it is for the threads.
pub(super) fn begin(action: &mut Action, known: Known) -> Option<FileStep> {
    let can = |code| known.has(code).then_some(());
    Some(FileStep::Ask(match action {
        Action::Open { path, options } => {
            can(opcode::OpenAt2::CODE)?;
            open(path, options)?
        }
        Action::Read { file, offset, bytes_max, buffer } => {
            can(opcode::Read::CODE)?;
            let (from, at) = (From::Shared(plain(file)?), place(*offset)?);
            let (mut buffer, bytes_max) = (mem::take(buffer), *bytes_max);
            buffer.clear();
            if bytes_max == 0 {
                return Some(FileStep::Done(Ok(Answer::Bytes(buffer))));
            }
            buffer.reserve_exact(bytes_max);
            Ask::Read { from, at, buffer, bytes_max }
        }
        Action::ReadWhole { path, bytes_max } => {
            can(opcode::OpenAt2::CODE).and(can(opcode::Read::CODE))?;
            let then = Then::ReadWhole { bytes_max: *bytes_max };
            Ask::Open { path: name(path)?, beneath: None, how: how(&OpenOptions::read(), 0)?, then }
        }
        Action::Write { file, offset, bytes } => {
            can(opcode::Write::CODE)?;
            raises_no_signal().and((file.writes() != Writes::AtItsEnd).then_some(()))?;
            return Some(write(plain(file)?, place(*offset)?, mem::take(bytes)));
        }
        Action::Append { file, bytes } => {
            can(opcode::Write::CODE)?;
            raises_no_signal().and((file.writes() != Writes::AtAPlace).then_some(()))?;
            return Some(write(plain(file)?, WHERE_IT_STANDS, mem::take(bytes)));
        }
        Action::SetLen { file, len } => {
            can(opcode::Ftruncate::CODE)?;
            Ask::SetLen { file: of_the_system(file)?, len: *len }
        }
        Action::Sync { file } => {
            can(opcode::Fsync::CODE)?;
            Ask::Sync { what: Synced::File(of_the_system(file)?) }
        }
        Action::SyncDirectory { path } => {
            can(opcode::OpenAt2::CODE).and(can(opcode::Fsync::CODE))?;
            let how = how(&OpenOptions::read(), 0)?;
            Ask::Open { path: name(path)?, beneath: None, how, then: Then::Sync }
        }
        Action::Stat { path } => {
            can(opcode::Statx::CODE)?;
            Ask::Stat { path: name(path)?, file: None, record: sys::statx_record() }
        }
        Action::StatFile { file } => {
            can(opcode::Statx::CODE)?;
            let file = Some(of_the_system(file)?);
            Ask::Stat { path: CString::default(), file, record: sys::statx_record() }
        }
        Action::Rename { from, to } => {
            can(opcode::RenameAt::CODE)?;
            Ask::Rename { from: name(from)?, to: name(to)? }
        }
        Action::Remove { path } => {
            can(opcode::UnlinkAt::CODE)?;
            Ask::Remove { path: name(path)? }
        }
        Action::CreateDirectory { path } => {
            can(opcode::MkDirAt::CODE)?;
            Ask::CreateDirectory { path: name(path)? }
        }
        Action::Close { file } => {
            can(opcode::Close::CODE)?;
            of_the_system(file.as_ref()?)?;
            match file.take().and_then(File::into_last) {
                Some(file) => Ask::Close { descriptor: file.into() },
                None => return Some(FileStep::Done(Ok(Answer::Done))),
            }
        }
        // The kernel has no operation that reads a directory. A synced append waits for its disk anyway. A
        // replace that has begun must be finished even if the engine is dropped meanwhile. It also sets
        // permissions, for which there is no operation either.
        Action::ReadDirectory { .. } | Action::AppendSynced { .. } | Action::Replace { .. } => return None,
    }))
}

fn open(path: &Path, options: &OpenOptions) -> Option<Ask> {
    let is_made_or_emptied = options.create || options.create_new || options.truncate;
    let is_misused = match (options.write, options.append) {
        (true, false) => false,
        (false, false) => is_made_or_emptied,
        (_, true) => options.truncate && !options.create_new,
    };
    if is_misused {
        return None;
    }
    let beneath = match &options.beneath {
        Some(root) => Some(of_the_system(root)?),
        None => None,
    };
    let resolve = if beneath.is_some() { sys::beneath_only() } else { 0 };
    let then = Then::HandOver { prefetch: options.prefetch };
    Some(Ask::Open { path: name(path)?, beneath, how: how(options, resolve)?, then })
}

fn how(options: &OpenOptions, resolve: u64) -> Option<Box<libc::open_how>> {
    // SAFETY: the struct is plain numbers, for which zero is a value. The kernel requires zeroes in fields
    // that it does not know.
    let mut how: Box<libc::open_how> = Box::new(unsafe { mem::zeroed() });
    (how.flags, how.mode) = sys::open_flags(options).ok()?;
    how.resolve = resolve;
    Some(how)
}

/// Returns whether a write raises no signal in the loop's thread, where the kernel performs it: whether there
/// is no limit of file size. The threads block such signals.
fn raises_no_signal() -> Option<()> {
    (!sys::has_file_size_limit()).then_some(())
}

fn write(to: File, at: u64, bytes: Vec<u8>) -> FileStep {
    match bytes.is_empty() {
        true => FileStep::Done(Ok(Answer::Done)),
        false => FileStep::Ask(Ask::Write { to, at, bytes, written: 0 }),
    }
}

/// Converts an offset in a file. `None` for the number that means the current position to the ring, and is
/// invalid in a call.
fn place(offset: u64) -> Option<u64> {
    Some(offset).filter(|offset| *offset != WHERE_IT_STANDS)
}

/// Converts a path for the kernel. `None` if it contains a zero.
fn name(path: &Path) -> Option<CString> {
    CString::new(path.as_os_str().as_bytes()).ok()
}

fn of_the_system(file: &File) -> Option<File> {
    file.system().map(|_| file.clone())
}

/// Returns a file whose reads and writes have an offset, and wait in the kernel. A pipe is for the threads,
/// because the ring would read it and ignore the offset.
fn plain(file: &File) -> Option<File> {
    file.is_plain().then(|| file.clone())
}

#[cfg(test)]
mod tests {
    use std::{fs, path::PathBuf};

    use super::*;
    use crate::engine::io_uring::{options::IoUringOptions, probe};

    fn file() -> File {
        let path = "/proc/self/exe";
        File::new(fs::File::open(path).expect("it is there"), path)
    }

    fn log() -> File {
        let log = fs::OpenOptions::new().append(true).open("/dev/null");
        File::new(log.expect("it is there"), "/dev/null")
    }

    /// Makes an action that needs these operations of the kernel.
    type Needs = (fn() -> Action, &'static [u8]);

    fn actions() -> Vec<Needs> {
        fn path() -> PathBuf {
            "somewhere".into()
        }
        vec![
            (|| Action::Open { path: path(), options: OpenOptions::read() }, &[opcode::OpenAt2::CODE]),
            (
                || Action::Read { file: file(), offset: 0, bytes_max: 1, buffer: vec![1] },
                &[opcode::Read::CODE],
            ),
            (
                || Action::ReadWhole { path: path(), bytes_max: 1 },
                &[opcode::OpenAt2::CODE, opcode::Read::CODE],
            ),
            (|| Action::Write { file: file(), offset: 0, bytes: vec![1] }, &[opcode::Write::CODE]),
            (|| Action::Append { file: log(), bytes: vec![1] }, &[opcode::Write::CODE]),
            (|| Action::SetLen { file: file(), len: 0 }, &[opcode::Ftruncate::CODE]),
            (|| Action::Sync { file: file() }, &[opcode::Fsync::CODE]),
            (|| Action::SyncDirectory { path: path() }, &[opcode::OpenAt2::CODE, opcode::Fsync::CODE]),
            (|| Action::Stat { path: path() }, &[opcode::Statx::CODE]),
            (|| Action::StatFile { file: file() }, &[opcode::Statx::CODE]),
            (|| Action::Rename { from: path(), to: path() }, &[opcode::RenameAt::CODE]),
            (|| Action::Remove { path: path() }, &[opcode::UnlinkAt::CODE]),
            (|| Action::CreateDirectory { path: path() }, &[opcode::MkDirAt::CODE]),
            (|| Action::Close { file: Some(file()) }, &[opcode::Close::CODE]),
        ]
    }

    #[test]
    fn an_operation_that_the_kernel_does_not_know_is_left_as_it_was_to_the_threads() {
        let (_, _, all) = probe::open(&IoUringOptions::default()).expect("this kernel has io_uring");
        for (make, needs) in actions() {
            let name = make().to_string();
            assert!(
                matches!(begin(&mut make(), all), Some(FileStep::Ask(_))),
                "{name}: this kernel knows all"
            );
            for code in needs {
                let mut action = make();
                assert!(begin(&mut action, all.without(*code)).is_none(), "{name} without {code}");
                assert_eq!(format!("{action:?}"), format!("{:?}", make()), "untouched");
            }
            let others = (0..64).filter(|code| !needs.contains(code));
            let without_others = others.fold(all, |known, code| known.without(code));
            assert!(begin(&mut make(), without_others).is_some(), "{name} needs no other");
        }
    }

    #[test]
    fn what_is_not_in_order_is_left_to_the_threads() {
        let (_, _, all) = probe::open(&IoUringOptions::default()).expect("this kernel has io_uring");
        let (reader, _writer) = std::io::pipe().expect("a pipe");
        let pipe = File::new(fs::File::from(std::os::fd::OwnedFd::from(reader)), "pipe");
        let hosted = File::hosted((), "hosted");
        let open = |options| Action::Open { path: "x".into(), options };
        let (read, nothing) = (OpenOptions::read(), OpenOptions::default());
        for mut action in [
            Action::Stat { path: "a\0b".into() },
            Action::Read { file: pipe, offset: 0, bytes_max: 1, buffer: Vec::new() },
            Action::Read { file: hosted.clone(), offset: 0, bytes_max: 1, buffer: Vec::new() },
            Action::Sync { file: hosted.clone() },
            Action::Read { file: file(), offset: u64::MAX, bytes_max: 1, buffer: vec![1] },
            Action::Write { file: file(), offset: u64::MAX, bytes: vec![1] },
            Action::Close { file: Some(hosted.clone()) },
            Action::Close { file: None },
            open(OpenOptions { beneath: Some(hosted), ..read.clone() }),
            open(OpenOptions { truncate: true, ..read.clone() }),
            open(OpenOptions { create: true, ..read }),
            open(OpenOptions { append: true, truncate: true, ..nothing.clone() }),
            open(nothing),
            Action::Append { file: file(), bytes: vec![1] },
            Action::AppendSynced { file: log(), bytes: vec![1] },
            Action::ReadDirectory { path: "/".into(), entries_max: 1 },
            Action::Replace { path: "x".into(), bytes: Vec::new() },
        ] {
            let before = format!("{action:?}");
            assert!(begin(&mut action, all).is_none(), "{before}");
            assert_eq!(format!("{action:?}"), before, "untouched");
        }
    }

    #[test]
    fn what_needs_no_operation_is_over_at_once() {
        let (_, _, all) = probe::open(&IoUringOptions::default()).expect("this kernel has io_uring");
        let file = file();
        for mut action in [
            Action::Read { file: file.clone(), offset: 0, bytes_max: 0, buffer: vec![1] },
            Action::Write { file: file.clone(), offset: 0, bytes: Vec::new() },
            // It is open elsewhere.
            Action::Close { file: Some(file.clone()) },
        ] {
            let name = action.to_string();
            assert!(matches!(begin(&mut action, all), Some(FileStep::Done(Ok(_)))), "{name}");
        }
    }
}
