//! Which operations on files are taken, and how each begins.
//!
//! What the kernel does not know, what it would do otherwise than the calls, and what is not in order is left to the
//! threads: they do it, or find the error.
#![allow(unsafe_code)]

use std::{ffi::CString, mem, os::unix::ffi::OsStrExt as _, path::Path};

use io_uring::opcode;

use super::ask::{Ask, From, Step, Synced, Then, WHERE_IT_STANDS};
use crate::{
    engine::io_uring::probe::Known,
    file::{Action, Answer, File, OpenOptions},
    sys,
};

/// The first step of an action; `None`, and the action as it was, if it is for the threads.
pub(super) fn begin(action: &mut Action, known: Known) -> Option<Step> {
    let can = |code| known.has(code).then_some(());
    Some(Step::Ask(match action {
        Action::Open { path, options } => {
            can(opcode::OpenAt2::CODE)?;
            open(path, options)?
        }
        Action::Read { file, offset, bytes_max, buffer } => {
            can(opcode::Read::CODE)?;
            let from = From::Shared(plain(file)?);
            let (mut buffer, bytes_max) = (mem::take(buffer), *bytes_max);
            buffer.clear();
            if bytes_max == 0 {
                return Some(Step::Done(Ok(Answer::Bytes(buffer))));
            }
            buffer.reserve_exact(bytes_max);
            Ask::Read { from, at: *offset, buffer, bytes_max }
        }
        Action::ReadWhole { path, bytes_max } => {
            can(opcode::OpenAt2::CODE).and(can(opcode::Read::CODE))?;
            let then = Then::ReadWhole { bytes_max: *bytes_max };
            Ask::Open { path: name(path)?, beneath: None, how: how(&OpenOptions::read(), 0)?, then }
        }
        Action::Write { file, offset, bytes } => {
            can(opcode::Write::CODE)?;
            return Some(write(plain(file)?, *offset, mem::take(bytes)));
        }
        Action::Append { file, bytes } => {
            can(opcode::Write::CODE)?;
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
                None => return Some(Step::Done(Ok(Answer::Done))),
            }
        }
        // There is no operation that reads a directory. A replace that began is to be brought to its end even if the
        // engine is dropped meanwhile, and sets permissions, for which there is none either.
        Action::ReadDirectory { .. } | Action::Replace { .. } => return None,
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
    // SAFETY: the struct is plain numbers, for which zeros are a value; the kernel wants what is not known zeroed.
    let mut how: Box<libc::open_how> = Box::new(unsafe { mem::zeroed() });
    (how.flags, how.mode) = sys::open_flags(options).ok()?;
    how.resolve = resolve;
    Some(how)
}

fn write(to: File, at: u64, bytes: Vec<u8>) -> Step {
    match bytes.is_empty() {
        true => Step::Done(Ok(Answer::Done)),
        false => Step::Ask(Ask::Write { to, at, bytes, written: 0 }),
    }
}

/// A path as the kernel takes it; none with a zero in it.
fn name(path: &Path) -> Option<CString> {
    CString::new(path.as_os_str().as_bytes()).ok()
}

fn of_the_system(file: &File) -> Option<File> {
    file.system().map(|_| file.clone())
}

/// A file on which reads and writes have a place, and wait in the kernel. A pipe, which the ring would read without
/// minding the place, is for the threads.
fn plain(file: &File) -> Option<File> {
    file.is_plain().then(|| file.clone())
}
