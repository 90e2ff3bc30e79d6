//! The file operations of a simulated disk.

use std::{
    io::{self, ErrorKind},
    path::Path,
    sync::Arc,
};

use reactor::file::{Action, Answer, DirEntry, File, FileKind, Metadata, OpenOptions, Opened};

use super::{Disk, Moment, inode::Inode, names, names::Named};
use crate::{error, world::clock::wall_time};

/// An open file of a disk.
pub(super) struct Open {
    /// `None` for a directory.
    number: Option<u64>,
    read: bool,
    write: bool,
    append: bool,
    _open: Option<Arc<()>>,
}

impl Disk {
    /// Performs a whole operation.
    pub(crate) fn perform(&mut self, action: &mut Action, moment: &mut Moment<'_>) -> io::Result<Answer> {
        self.counts.operations += 1;
        match action {
            Action::Open { path, options } => self.open(path, options, moment).map(Answer::Opened),
            Action::Read { file, offset, bytes_max, .. } => {
                let number = open(file)?.number(|open| open.read)?;
                self.read(number, *offset, *bytes_max, moment).map(Answer::Bytes)
            }
            Action::ReadWhole { path, bytes_max } => {
                let number = self.file_of(path)?;
                if self.inode(number)?.content.len() > *bytes_max {
                    return Err(ErrorKind::FileTooLarge.into());
                }
                self.read(number, 0, *bytes_max, moment).map(Answer::Bytes)
            }
            Action::Write { file, offset, bytes } => {
                let number = open(file)?.number(|open| open.write)?;
                open(file)?.must(|open| !open.append)?;
                self.write(number, *offset, bytes, moment)
            }
            Action::Append { file, bytes } => self.append(file, bytes, moment),
            Action::AppendSynced { file, bytes } => {
                self.append(file, bytes, moment)?;
                let number = open(file)?.number(|open| open.write)?;
                self.sync(number, moment)
            }
            Action::SetLen { file, len } => {
                let number = open(file)?.number(|open| open.write)?;
                self.set_len(number, *len, moment.now)
            }
            Action::Sync { file } => match open(file)?.number {
                Some(number) => self.sync(number, moment),
                None => self.sync_directory(file.path()),
            },
            Action::SyncDirectory { path } => self.sync_directory(path),
            Action::Stat { path } => self.stat(&names::normal(path)?).map(Answer::Metadata),
            Action::StatFile { file } => self.stat_open(open(file)?).map(Answer::Metadata),
            Action::Rename { from, to } => self.rename(from, to),
            Action::Remove { path } => self.remove(path),
            Action::CreateDirectory { path } => {
                let path = names::normal(path)?;
                self.names.parent_of(&path)?;
                if self.names.get(&path).is_some() {
                    return Err(ErrorKind::AlreadyExists.into());
                }
                self.names.set(&path, Some(Named::Directory));
                Ok(Answer::Done)
            }
            Action::ReadDirectory { path, entries_max } => self.list(path, *entries_max).map(Answer::Entries),
            Action::Replace { path, bytes } => self.replace(path, bytes, REPLACE_STEPS, moment),
            Action::Close { file } => {
                file.take();
                Ok(Answer::Done)
            }
            _ => Err(ErrorKind::Unsupported.into()),
        }
    }

    fn append(&mut self, file: &File, bytes: &[u8], moment: &mut Moment<'_>) -> io::Result<Answer> {
        let number = open(file)?.number(|open| open.write)?;
        open(file)?.must(|open| open.append)?;
        let end = self.inode(number)?.content.len() as u64;
        self.write(number, end, bytes, moment)
    }

    fn inode(&mut self, number: u64) -> io::Result<&mut Inode> {
        self.inodes.get_mut(&number).ok_or_else(|| error::os(error::BAD_DESCRIPTOR))
    }

    fn file_of(&self, path: &Path) -> io::Result<u64> {
        match self.names.get(&names::normal(path)?) {
            Some(Named::File(number)) => Ok(number),
            Some(Named::Directory) => Err(ErrorKind::IsADirectory.into()),
            None => Err(ErrorKind::NotFound.into()),
        }
    }

    pub(super) fn create(&mut self, path: &str, now: u64) -> u64 {
        self.next_inode += 1;
        let number = self.next_inode;
        self.inodes.insert(number, Inode::new(now));
        self.names.set(path, Some(Named::File(number)));
        number
    }

    fn open(&mut self, path: &Path, how: &OpenOptions, moment: &mut Moment<'_>) -> io::Result<Opened> {
        let name = match &how.beneath {
            None => names::normal(path)?,
            Some(root) => names::beneath(root.path(), path)?,
        };
        let write = how.write || how.append;
        if !how.read && !write {
            return Err(ErrorKind::InvalidInput.into());
        }
        let number = match self.names.get(&name) {
            Some(_) if how.create_new => return Err(ErrorKind::AlreadyExists.into()),
            Some(Named::Directory) if write => return Err(ErrorKind::IsADirectory.into()),
            Some(Named::Directory) => None,
            Some(Named::File(number)) => Some(number),
            None if how.create || how.create_new => {
                self.names.parent_of(&name)?;
                Some(self.create(&name, moment.now))
            }
            None => return Err(ErrorKind::NotFound.into()),
        };
        let mut prefetched = Vec::new();
        let mut held = None;
        if let Some(number) = number {
            if how.truncate && write {
                self.set_len(number, 0, moment.now)?;
            }
            if how.prefetch > 0 {
                prefetched = self.read(number, 0, how.prefetch, moment)?;
            }
            held = Some(self.inode(number)?.open.clone());
        }
        let open = Open { number, read: how.read, write, append: how.append, _open: held };
        let metadata = self.stat_open(&open)?;
        Ok(Opened { file: File::hosted(open, format!("/{name}")), metadata, prefetched })
    }

    fn read(
        &mut self,
        number: u64,
        offset: u64,
        bytes_max: usize,
        moment: &mut Moment<'_>,
    ) -> io::Result<Vec<u8>> {
        if moment.chance.per_million(self.options.read_errors) {
            self.counts.errors += 1;
            return Err(error::os(error::IO));
        }
        let rots = moment.chance.per_million(self.options.rot);
        let inode = self.inode(number)?;
        let start = inode.content.len().min(usize::try_from(offset).unwrap_or(usize::MAX));
        let end = inode.content.len().min(start.saturating_add(bytes_max));
        if rots && start < end {
            let at = start + moment.chance.below((end - start) as u64) as usize;
            inode.rot(at, moment.chance.below(8) as u32);
            self.counts.rotten += 1;
        }
        Ok(self.inode(number)?.content[start..end].to_vec())
    }

    fn write(
        &mut self,
        number: u64,
        offset: u64,
        bytes: &[u8],
        moment: &mut Moment<'_>,
    ) -> io::Result<Answer> {
        let fails = moment.chance.per_million(self.options.write_errors);
        let len = self.inode(number)?.content.len() as u64;
        let free = self.options.capacity.saturating_sub(self.used);
        // An overwrite within the file takes no room. A gap before the write takes as much room as content.
        let room = usize::try_from((len + free).saturating_sub(offset)).unwrap_or(usize::MAX);
        let mut taken = bytes.len().min(room);
        if fails {
            taken = moment.chance.below(taken as u64 + 1) as usize;
        }
        if taken > 0 {
            let inode = self.inode(number)?;
            inode.write(offset, &bytes[..taken], moment.now);
            self.used += inode.content.len() as u64 - len;
        }
        if fails {
            self.counts.errors += 1;
            Err(error::os(error::IO))
        } else if taken < bytes.len() {
            self.counts.full += 1;
            Err(error::os(error::NO_SPACE))
        } else {
            Ok(Answer::Done)
        }
    }

    fn set_len(&mut self, number: u64, len: u64, now: u64) -> io::Result<Answer> {
        let before = self.inode(number)?.content.len() as u64;
        let used = self.used - before + len;
        if len > before && used > self.options.capacity {
            self.counts.full += 1;
            return Err(error::os(error::NO_SPACE));
        }
        self.used = used;
        self.inode(number)?.set_len(len, now);
        Ok(Answer::Done)
    }

    fn sync(&mut self, number: u64, moment: &mut Moment<'_>) -> io::Result<Answer> {
        if moment.chance.per_million(self.options.sync_errors) {
            self.counts.errors += 1;
            self.inode(number)?.sync_badly(moment.chance);
            return Err(error::os(error::IO));
        }
        self.inode(number)?.sync();
        Ok(Answer::Done)
    }

    fn sync_directory(&mut self, path: &Path) -> io::Result<Answer> {
        let path = names::normal(path)?;
        match self.names.get(&path) {
            Some(Named::Directory) => {
                self.names.sync(&path);
                self.collect();
                Ok(Answer::Done)
            }
            Some(Named::File(_)) => Err(ErrorKind::NotADirectory.into()),
            None => Err(ErrorKind::NotFound.into()),
        }
    }

    fn stat(&mut self, name: &str) -> io::Result<Metadata> {
        match self.names.get(name) {
            Some(Named::File(number)) => self.stat_inode(Some(number)),
            Some(Named::Directory) => self.stat_inode(None),
            None => Err(ErrorKind::NotFound.into()),
        }
    }

    fn stat_open(&mut self, open: &Open) -> io::Result<Metadata> {
        self.stat_inode(open.number)
    }

    fn stat_inode(&mut self, number: Option<u64>) -> io::Result<Metadata> {
        let Some(number) = number else {
            return Ok(Metadata { len: 0, kind: FileKind::Directory, modified: None });
        };
        let inode = self.inode(number)?;
        let modified = wall_time(inode.modified as i64);
        let len = inode.content.len() as u64;
        Ok(Metadata { len, kind: FileKind::Regular, modified: Some(modified) })
    }

    fn rename(&mut self, from: &Path, to: &Path) -> io::Result<Answer> {
        let (from, to) = (names::normal(from)?, names::normal(to)?);
        let named = self.names.get(&from).filter(|_| !from.is_empty()).ok_or(ErrorKind::NotFound)?;
        self.names.parent_of(&to)?;
        match (named, self.names.get(&to)) {
            _ if from == to => return Ok(Answer::Done),
            (Named::Directory, _) if to.starts_with(&format!("{from}/")) => {
                return Err(ErrorKind::InvalidInput.into());
            }
            (Named::File(_), Some(Named::Directory)) => return Err(ErrorKind::IsADirectory.into()),
            (Named::Directory, Some(Named::File(_))) => return Err(ErrorKind::NotADirectory.into()),
            (Named::Directory, Some(Named::Directory)) if self.names.list(&to).next().is_some() => {
                return Err(ErrorKind::DirectoryNotEmpty.into());
            }
            _ => (),
        }
        self.names.rename(&from, &to);
        Ok(Answer::Done)
    }

    fn remove(&mut self, path: &Path) -> io::Result<Answer> {
        self.file_of(path)?;
        self.names.set(&names::normal(path)?, None);
        Ok(Answer::Done)
    }

    fn list(&self, path: &Path, entries_max: usize) -> io::Result<Vec<DirEntry>> {
        let path = names::normal(path)?;
        match self.names.get(&path) {
            Some(Named::Directory) => (),
            Some(Named::File(_)) => return Err(ErrorKind::NotADirectory.into()),
            None => return Err(ErrorKind::NotFound.into()),
        }
        let kind = |named| match named {
            Named::File(_) => FileKind::Regular,
            Named::Directory => FileKind::Directory,
        };
        let entries = self.names.list(&path);
        let entries: Vec<DirEntry> =
            entries.map(|(name, named)| DirEntry { name: name.into(), kind: kind(named) }).collect();
        if entries.len() > entries_max { Err(ErrorKind::FileTooLarge.into()) } else { Ok(entries) }
    }

    /// Performs the first steps of a replace: create, write, sync, rename, sync the directory.
    pub(super) fn replace(
        &mut self,
        path: &Path,
        bytes: &[u8],
        steps: u64,
        moment: &mut Moment<'_>,
    ) -> io::Result<Answer> {
        let path = names::normal(path)?;
        let directory = self.names.parent_of(&path)?;
        if self.names.get(&path) == Some(Named::Directory) {
            return Err(ErrorKind::IsADirectory.into());
        }
        self.next_temporary += 1;
        let name =
            format!(".{}.{}.replace", path.rsplit('/').next().unwrap_or_default(), self.next_temporary);
        let temporary = if directory.is_empty() { name } else { format!("{directory}/{name}") };
        if steps < 1 {
            return Ok(Answer::Done);
        }
        let number = self.create(&temporary, moment.now);
        let written = if steps < 2 { Ok(Answer::Done) } else { self.write(number, 0, bytes, moment) };
        let synced = if steps < 3 { written } else { written.and_then(|_| self.sync(number, moment)) };
        if synced.is_err() {
            self.names.set(&temporary, None);
            self.collect();
            return synced;
        }
        if steps >= 4 {
            self.names.rename(&temporary, &path);
        }
        if steps >= REPLACE_STEPS {
            self.names.sync(&directory);
        }
        self.collect();
        Ok(Answer::Done)
    }
}

impl Open {
    /// Returns the inode's number, if the file is open for this access.
    fn number(&self, may: impl FnOnce(&Open) -> bool) -> io::Result<u64> {
        match self.number {
            None => Err(ErrorKind::IsADirectory.into()),
            Some(_) if !may(self) => Err(error::os(error::BAD_DESCRIPTOR)),
            Some(number) => Ok(number),
        }
    }

    /// Checks that the file was opened for this access.
    fn must(&self, be: impl FnOnce(&Open) -> bool) -> io::Result<()> {
        if be(self) { Ok(()) } else { Err(ErrorKind::InvalidInput.into()) }
    }
}

fn open(file: &File) -> io::Result<&Open> {
    file.hosted_as().ok_or_else(|| io::Error::new(ErrorKind::Unsupported, "a file of the system's"))
}

/// The number of steps of a replace.
pub(super) const REPLACE_STEPS: u64 = 5;
