//! Replaces a file in one step: whoever opens it, at any moment and after any crash, finds the old bytes or the new.
//!
//! [`replace`] writes the bytes to a temporary file in the same directory, flushes it to the disk, renames it over the
//! file, and flushes the directory. Before the rename nothing has touched the old file; after it the new one is whole.
//!
//! **What is replaced** is a regular file, or nothing that exists yet. A symbolic link is followed, so the file that it
//! leads to is replaced and the link stays. Directories, devices, pipes and sockets are refused. The new file has the
//! mode, owner and group of the old one; one that did not exist is made as the process's umask says. Hard links to the
//! old file keep the old bytes.
//!
//! **Temporary files** are named `.retrograd-<16 hex digits>.tmp`. A process that is killed leaves one behind. The next
//! save into that directory removes it, and knows it from one that another process is still writing by its lock: a
//! saver holds an exclusive lock on its temporary file from before the first byte until the rename. The system lifts
//! the lock of a process that dies, whatever its number was and in whichever container it ran. Where the file system
//! has no locks, temporary files are left alone.

use std::ffi::OsStr;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;

use crate::init::{FNV_START, fnv1a};

const PREFIX: &str = ".retrograd-";
const SUFFIX: &str = ".tmp";
/// Links that are followed before a chain of them is taken for a ring, as Linux does.
const MOST_LINKS: usize = 40;
/// Times that a save starts again because its temporary file was taken away or its name was there.
const ATTEMPTS: usize = 16;

/// Why a file was not replaced.
pub(super) enum Refused {
    /// What is there is no regular file; what it is instead.
    NotAFile(PathBuf, &'static str),
    /// The system refused: what was tried, and on which file.
    System(&'static str, PathBuf, io::Error),
}

/// What a file is, if it is not a regular one.
pub(super) fn irregular(metadata: &fs::Metadata) -> Option<&'static str> {
    let kind = metadata.file_type();
    #[cfg(unix)]
    {
        use std::os::unix::fs::FileTypeExt;
        let special = [
            (kind.is_block_device(), "a block device"),
            (kind.is_char_device(), "a character device"),
            (kind.is_fifo(), "a pipe"),
            (kind.is_socket(), "a socket"),
        ];
        if let Some((_, what)) = special.into_iter().find(|(is, _)| *is) {
            return Some(what);
        }
    }
    match (kind.is_file(), kind.is_dir()) {
        (true, _) => None,
        (_, true) => Some("a directory"),
        _ => Some("no regular file"),
    }
}

/// Puts a file with these bytes in the place of `path`. The bytes are on the disk before the rename, and the rename is
/// on the disk before this returns.
///
/// On an error the file is the old one, with one exception: where only the flush of the directory fails, the new file is
/// in place, but a loss of power may still bring back the old one.
pub(super) fn replace(path: &Path, bytes: &[u8]) -> Result<(), Refused> {
    let system = |action: &'static str| move |reason: io::Error| Refused::System(action, path.to_path_buf(), reason);
    let target = follow(path).map_err(system("write"))?;
    let old = match fs::metadata(&target) {
        Ok(old) => Some(old),
        Err(e) if e.kind() == ErrorKind::NotFound => None,
        Err(e) => return Err(system("write")(e)),
    };
    if let Some(what) = old.as_ref().and_then(irregular) {
        return Err(Refused::NotAFile(path.to_path_buf(), what));
    }
    let directory = match target.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let open_directory = Directory::open(directory).map_err(system("write"))?;
    // The standard library panics where the system will not close a directory; the save does not depend on it.
    let _ = std::panic::catch_unwind(|| remove_stale(directory));

    for attempt in 1.. {
        match write_and_rename(directory, &target, old.as_ref(), bytes) {
            // A cleaner on another machine, which does not see our lock, has taken the temporary file away.
            Err(e) if e.kind() == ErrorKind::NotFound && attempt < ATTEMPTS && directory.is_dir() => {}
            Err(e) => return Err(system("write")(e)),
            Ok(()) => break,
        }
    }
    open_directory.flush().map_err(system("flush the directory, after the new file was put in place, of"))
}

/// Where the bytes go: `path`, or what it leads to if it is a symbolic link, which need not exist.
fn follow(path: &Path) -> io::Result<PathBuf> {
    let mut target = path.to_path_buf();
    for _ in 0..=MOST_LINKS {
        // `model/` asks for a directory, and `.`, `..` and `/` are directories.
        let ends_in_separator = path_ends_in_separator(&target);
        if target.file_name().is_none() || ends_in_separator {
            return Err(io::Error::new(ErrorKind::InvalidInput, "the path does not name a file"));
        }
        match fs::symlink_metadata(&target) {
            Ok(metadata) if metadata.file_type().is_symlink() => {
                let to = fs::read_link(&target)?;
                // A link that is not absolute starts from its own directory.
                target = target.parent().unwrap_or(Path::new("")).join(to);
            }
            Ok(_) => return Ok(target),
            Err(e) if e.kind() == ErrorKind::NotFound => return Ok(target),
            Err(e) => return Err(e),
        }
    }
    Err(io::Error::new(ErrorKind::InvalidInput, "too many levels of symbolic links"))
}

fn path_ends_in_separator(path: &Path) -> bool {
    path.as_os_str().as_encoded_bytes().last().is_some_and(|&b| std::path::is_separator(char::from(b)))
}

/// Writes a temporary file and renames it over the target. Nothing is left of it on an error.
fn write_and_rename(directory: &Path, target: &Path, old: Option<&fs::Metadata>, bytes: &[u8]) -> io::Result<()> {
    let (temporary, mut file) = create(directory, old.is_some())?;
    let mut write = || {
        file.write_all(bytes)?;
        if let Some(old) = old {
            take_over(&file, old)?;
        }
        file.sync_all()?;
        fs::rename(&temporary, target)
    };
    let written = write();
    if written.is_err() {
        // The first error is the one to tell of. What cannot be removed now is removed by a later save.
        let _ = fs::remove_file(&temporary);
    }
    written
}

/// A new temporary file, locked. One that will replace another is private until it has that one's mode.
fn create(directory: &Path, is_private: bool) -> io::Result<(PathBuf, File)> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    if is_private {
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    }
    #[cfg(not(unix))]
    let _ = is_private;
    for _ in 0..ATTEMPTS {
        let temporary = directory.join(fresh_name());
        let file = match options.open(&temporary) {
            Err(e) if e.kind() == ErrorKind::AlreadyExists => continue,
            opened => opened?,
        };
        match file.try_lock() {
            // A cleaner that saw the file before it was locked has it, or had it and has removed it.
            Err(TryLockError::WouldBlock) => continue,
            Ok(()) if is_removed(&file, &temporary) => continue,
            // Without locks nobody cleans up either.
            Ok(()) | Err(TryLockError::Error(_)) => return Ok((temporary, file)),
        }
    }
    Err(io::Error::new(ErrorKind::AlreadyExists, "no temporary file of a new name can be made in the directory"))
}

/// A name that no other save has at this time, as far as one can tell: should it be there, another is tried. (The random
/// numbers of the system are not asked, since they can be refused.)
fn fresh_name() -> String {
    static SERIAL: AtomicU64 = AtomicU64::new(0);
    let serial = SERIAL.fetch_add(1, Ordering::Relaxed);
    let nanoseconds = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |d| d.as_nanos() as u64);
    // Where the stack lies differs from process to process, also of those with the same number in two containers.
    let place = &raw const serial as u64;
    let numbers = [u64::from(std::process::id()), serial, nanoseconds, place];
    let hash = numbers.iter().fold(FNV_START, |hash, n| fnv1a(hash, &n.to_le_bytes()));
    format!("{PREFIX}{hash:016x}{SUFFIX}")
}

fn is_temporary(name: &OsStr) -> bool {
    let middle = name.to_str().and_then(|n| n.strip_prefix(PREFIX)?.strip_suffix(SUFFIX));
    middle.is_some_and(|m| m.len() == 16 && m.bytes().all(|b| b.is_ascii_hexdigit()))
}

/// Whether the open file has lost its name.
#[cfg(unix)]
fn is_removed(file: &File, _: &Path) -> bool {
    file.metadata().is_ok_and(|m| std::os::unix::fs::MetadataExt::nlink(&m) == 0)
}

#[cfg(not(unix))]
fn is_removed(_: &File, path: &Path) -> bool {
    !path.exists()
}

/// Removes what killed savers have left. A save does not depend on it, so whatever the system refuses is passed over.
fn remove_stale(directory: &Path) {
    let Ok(entries) = fs::read_dir(directory) else { return };
    for entry in entries.flatten() {
        let is_ours = is_temporary(&entry.file_name()) && entry.file_type().is_ok_and(|t| t.is_file());
        if !is_ours {
            continue;
        }
        let path = entry.path();
        // It may have got the mode of the file that it was to replace.
        let open = File::open(&path).or_else(|_| OpenOptions::new().write(true).open(&path));
        let Ok(file) = open else { continue };
        // A saver has its lock until the file has its final name, and a lock that is taken here keeps a saver that has
        // just made the file from going on with it. Names are not used again.
        if file.try_lock().is_ok() {
            let _ = fs::remove_file(&path);
        }
    }
}

/// Gives the new file the owner, group and mode of the old one.
#[cfg(unix)]
fn take_over(file: &File, old: &fs::Metadata) -> io::Result<()> {
    use std::os::unix::fs::{MetadataExt, PermissionsExt, fchown};
    let new = file.metadata()?;
    let mut mode = old.permissions().mode() & 0o777;
    if new.uid() != old.uid() {
        // Only the superuser can give files away; for others the file becomes their own.
        let _ = fchown(file, Some(old.uid()), None);
    }
    if new.gid() != old.gid() && fchown(file, None, Some(old.gid())).is_err() {
        // What the old group may do is nothing that another group may: it may do what everybody may.
        mode = mode & 0o707 | (mode & 0o007) << 3;
    }
    match file.metadata()?.permissions().mode() & 0o777 == mode {
        true => Ok(()),
        false => file.set_permissions(fs::Permissions::from_mode(mode)),
    }
}

#[cfg(not(unix))]
fn take_over(_: &File, _: &fs::Metadata) -> io::Result<()> {
    Ok(())
}

/// A directory that is flushed once a file in it has got its name.
///
/// It is opened before anything is written, so that a save that could not be made durable fails with the old file in
/// place. Directories can be opened and flushed on Unix only; elsewhere, and where we may write to a directory but not
/// read it, or its file system has no such flush, a rename is as durable as the system makes it.
struct Directory {
    #[cfg(unix)]
    open: Option<File>,
}

#[cfg(unix)]
impl Directory {
    fn open(path: &Path) -> io::Result<Directory> {
        match File::open(path) {
            Ok(open) => Ok(Directory { open: Some(open) }),
            Err(e) if e.kind() == ErrorKind::PermissionDenied => Ok(Directory { open: None }),
            Err(e) => Err(e),
        }
    }

    fn flush(&self) -> io::Result<()> {
        match self.open.as_ref().map_or(Ok(()), File::sync_all) {
            Err(e) if matches!(e.kind(), ErrorKind::InvalidInput | ErrorKind::Unsupported) => Ok(()),
            flushed => flushed,
        }
    }
}

#[cfg(not(unix))]
impl Directory {
    fn open(_: &Path) -> io::Result<Directory> {
        Ok(Directory {})
    }

    fn flush(&self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(all(test, unix))]
mod tests;
