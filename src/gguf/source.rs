//! The bytes of one file: mapped, or read into memory. The only file of this room with `unsafe`.
//!
//! A mapped file that shrinks (somebody writes a new model over it) raises SIGBUS in whoever reads the lost pages. On
//! Unix a handler puts zero pages in their place and marks the map, so that [`Source::check`] gives an error and the
//! process lives; a SIGBUS anywhere else goes to the handler that was there before. Windows refuses to shrink mapped files.
#![allow(unsafe_code)]

use super::aligned::{Words, is_aligned};
use super::stream::ReadAt;
use crate::base::{Error, ErrorKind, Result};
use std::fs::File;
use std::path::Path;

/// Whether to map a file or to read it into memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mmap {
    /// Map: opens at once, shares memory between processes, loads pages as they are used.
    Yes,
    /// Read: takes the whole file's size of memory, and does not mind what becomes of the file.
    No,
}

/// The bytes of one file, starting on a multiple of 8.
#[derive(Debug)]
pub struct Source {
    name: String,
    storage: Storage,
}

enum Storage {
    Bytes(Vec<u8>),
    Words(Words),
    Streamed(Box<dyn ReadAt>),
    #[cfg(not(target_arch = "wasm32"))]
    Mapped(mapped::Mapped),
}

impl std::fmt::Debug for Storage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Storage::Bytes(_) | Storage::Words(_) => "in memory",
            Storage::Streamed(_) => "read piece by piece",
            #[cfg(not(target_arch = "wasm32"))]
            Storage::Mapped(_) => "mapped",
        })
    }
}

impl Source {
    /// Opens a regular file. Fails where it is missing, no file, unreadable, or bigger than the memory it would take.
    pub fn open(path: impl AsRef<Path>, mmap: Mmap) -> Result<Source> {
        let path = path.as_ref();
        let name = path.display().to_string();
        open(path, mmap).map(|storage| Source { name: name.clone(), storage }).map_err(|e| e.at(name))
    }

    /// Bytes that are in memory already.
    pub fn from_bytes(bytes: Vec<u8>) -> Source {
        let storage = if is_aligned(&bytes) { Storage::Bytes(bytes) } else { Storage::Words(Words::copy(&bytes)) };
        Source { name: "bytes in memory".to_owned(), storage }
    }

    /// A file that is read piece by piece, and never lies in memory as a whole.
    pub fn streamed_from(file: Box<dyn ReadAt>) -> Source {
        Source { name: "a file".to_owned(), storage: Storage::Streamed(file) }
    }

    /// The file, if it is read piece by piece.
    pub(super) fn streamed(&self) -> Option<&dyn ReadAt> {
        match &self.storage {
            Storage::Streamed(file) => Some(&**file),
            _ => None,
        }
    }

    /// Whether it is read piece by piece: then there are no [`bytes`](Self::bytes).
    pub fn is_streamed(&self) -> bool {
        self.streamed().is_some()
    }

    /// The same bytes under another name in error messages.
    pub fn named(self, name: impl Into<String>) -> Source {
        Source { name: name.into(), ..self }
    }

    /// What error messages call it: the path.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// All bytes; none of a file that is read piece by piece. Of a mapped file that has shrunk, the lost ones are zero or about
    /// to be.
    pub fn bytes(&self) -> &[u8] {
        match &self.storage {
            Storage::Bytes(bytes) => bytes,
            Storage::Words(words) => words.bytes(),
            Storage::Streamed(_) => &[],
            #[cfg(not(target_arch = "wasm32"))]
            Storage::Mapped(mapped) => mapped.bytes(),
        }
    }

    /// How many bytes there are.
    pub fn len(&self) -> u64 {
        self.streamed().map_or(self.bytes().len() as u64, ReadAt::length)
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Fails if the file was mapped and pages of it turned out to be gone when they were read.
    pub fn check(&self) -> Result<()> {
        match &self.storage {
            #[cfg(not(target_arch = "wasm32"))]
            Storage::Mapped(mapped) if mapped.is_poisoned() => Err(self.shrunk()),
            _ => Ok(()),
        }
    }

    /// Copies the bytes from `offset` on into `into`; of a mapped file by reading it, so that no page needs to be mapped.
    pub fn read_at(&self, offset: u64, into: &mut [u8]) -> Result<()> {
        if offset.checked_add(into.len() as u64).is_none_or(|end| end > self.len()) {
            let what = format!("bytes {offset} + {} of a file of {}", into.len(), self.len());
            return Err(Error::usage(what).at(&self.name));
        }
        match &self.storage {
            Storage::Streamed(file) => file.read_at(offset, into).map_err(|e| e.at(&self.name)),
            #[cfg(not(target_arch = "wasm32"))]
            Storage::Mapped(mapped) => mapped.read_at(offset, into).map_err(|e| match e.kind() {
                std::io::ErrorKind::UnexpectedEof => self.shrunk(),
                _ => Error::io("can't read the file", e).at(&self.name),
            }),
            _ => {
                // What is in memory can be addressed.
                into.copy_from_slice(&self.bytes()[offset as usize..][..into.len()]);
                Ok(())
            }
        }
    }

    #[cfg(not(target_arch = "wasm32"))]
    fn shrunk(&self) -> Error {
        Error::new(ErrorKind::Io, "the file shrank or could not be read while it was in use").at(&self.name).help(
            "restore the file and load the model again; replace model files by renaming, not by writing over them",
        )
    }
}

fn open(path: &Path, mmap: Mmap) -> Result<Storage> {
    let failed = |e: std::io::Error| {
        let help = match e.kind() {
            std::io::ErrorKind::NotFound => "check the path",
            std::io::ErrorKind::PermissionDenied => "check the permissions",
            _ => "check the disk",
        };
        Error::io("can't open the file", e).help(help)
    };
    // Asked before opening: opening a pipe would wait for a writer.
    if !std::fs::metadata(path).map_err(failed)?.is_file() {
        return Err(Error::usage("not a file").help("give the path of a .gguf file"));
    }
    let file = File::open(path).map_err(failed)?;
    let length = file.metadata().map_err(failed)?.len();
    let length = usize::try_from(length).map_err(|_| {
        Error::new(ErrorKind::OutOfSystemMemory, format!("{length} bytes are more than this machine can address"))
    })?;
    #[cfg(not(target_arch = "wasm32"))]
    if mmap == Mmap::Yes && length > 0 {
        return mapped::Mapped::new(file).map(Storage::Mapped).map_err(|e| Error::io("can't map the file", e));
    }
    let _ = mmap;
    Words::read(file, length).map(Storage::Words)
}

#[cfg(not(target_arch = "wasm32"))]
mod mapped {
    use std::fs::File;
    use std::io;

    /// A mapped file.
    pub(super) struct Mapped {
        // Dropped in this order: the range must be forgotten before another mapping can take its place.
        #[cfg(unix)]
        range: super::sigbus::Range,
        map: memmap2::Mmap,
        file: File,
    }

    impl Mapped {
        pub(super) fn new(file: File) -> io::Result<Mapped> {
            // SAFETY: whoever writes to the file changes the bytes under us; they are only ever read as plain numbers,
            // checked before use as sizes, so that any value is harmless. Pages that go away are sigbus's business.
            let map = unsafe { memmap2::Mmap::map(&file)? };
            Ok(Mapped {
                #[cfg(unix)]
                range: super::sigbus::guard(&map)?,
                map,
                file,
            })
        }

        pub(super) fn bytes(&self) -> &[u8] {
            &self.map
        }

        pub(super) fn is_poisoned(&self) -> bool {
            #[cfg(unix)]
            return self.range.is_poisoned();
            #[cfg(not(unix))]
            false
        }

        #[cfg(unix)]
        pub(super) fn read_at(&self, offset: u64, into: &mut [u8]) -> io::Result<()> {
            std::os::unix::fs::FileExt::read_exact_at(&self.file, into, offset)
        }

        #[cfg(windows)]
        pub(super) fn read_at(&self, mut offset: u64, mut into: &mut [u8]) -> io::Result<()> {
            while !into.is_empty() {
                let n = std::os::windows::fs::FileExt::seek_read(&self.file, into, offset)?;
                if n == 0 {
                    return Err(io::ErrorKind::UnexpectedEof.into());
                }
                (offset, into) = (offset + n as u64, &mut into[n..]);
            }
            Ok(())
        }
    }
}

/// Survives reads of mapped pages that the file has lost.
#[cfg(unix)]
mod sigbus {
    use std::io;
    use std::mem::MaybeUninit;
    use std::ptr;
    use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicUsize, Ordering::SeqCst};
    use std::sync::{Mutex, OnceLock};

    /// A mapped range. Entries are never freed nor used again (48 bytes per file mapped): the handler may be reading them.
    struct Entry {
        range: std::ops::Range<usize>,
        mapped: AtomicBool,
        poisoned: AtomicBool,
        next: *const Entry,
    }

    // SAFETY: `next` is null or points to another entry that lives for ever; the rest is immutable or atomic.
    unsafe impl Sync for Entry {}

    /// The list of entries, newest first. Only ever grows; changes hold `CHANGES`, the handler just reads.
    static ENTRIES: AtomicPtr<Entry> = AtomicPtr::new(ptr::null_mut());
    static CHANGES: Mutex<()> = Mutex::new(());
    /// What was done about SIGBUS before.
    static PREVIOUS: OnceLock<libc::sigaction> = OnceLock::new();
    static PAGE: AtomicUsize = AtomicUsize::new(0);

    /// A guarded range; dropping it ends the guard.
    pub(super) struct Range(&'static Entry);

    impl Range {
        pub(super) fn is_poisoned(&self) -> bool {
            self.0.poisoned.load(SeqCst)
        }
    }

    impl Drop for Range {
        fn drop(&mut self) {
            self.0.mapped.store(false, SeqCst);
        }
    }

    fn entries() -> impl Iterator<Item = &'static Entry> {
        // SAFETY: the head and every `next` are null or leaked boxes, complete before they were published.
        std::iter::successors(unsafe { ENTRIES.load(SeqCst).as_ref() }, |e| unsafe { e.next.as_ref() })
    }

    /// Guards a mapping until the result is dropped, which must be before it is unmapped.
    pub(super) fn guard(map: &[u8]) -> io::Result<Range> {
        let _changing = CHANGES.lock().unwrap_or_else(|e| e.into_inner());
        install()?;
        let range = map.as_ptr_range();
        let entry = Box::leak(Box::new(Entry {
            range: range.start as usize..range.end as usize,
            mapped: true.into(),
            poisoned: false.into(),
            next: ENTRIES.load(SeqCst),
        }));
        ENTRIES.store(entry, SeqCst);
        Ok(Range(entry))
    }

    /// Installs the handler, once per process. `CHANGES` is held.
    fn install() -> io::Result<()> {
        if PREVIOUS.get().is_some() {
            return Ok(());
        }
        // SAFETY: plain calls with valid pointers; the handler only does what a signal handler may.
        unsafe {
            PAGE.store(libc::sysconf(libc::_SC_PAGESIZE) as usize, SeqCst);
            let mut action = MaybeUninit::<libc::sigaction>::zeroed();
            if libc::sigaction(libc::SIGBUS, ptr::null(), action.as_mut_ptr()) != 0 {
                return Err(io::Error::last_os_error());
            }
            PREVIOUS.get_or_init(|| action.assume_init());
            let mut action = MaybeUninit::<libc::sigaction>::zeroed().assume_init();
            let handler: extern "C" fn(libc::c_int, *mut libc::siginfo_t, *mut libc::c_void) = handle;
            action.sa_sigaction = handler as usize;
            action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK;
            libc::sigemptyset(&mut action.sa_mask);
            if libc::sigaction(libc::SIGBUS, &action, ptr::null_mut()) != 0 {
                return Err(io::Error::last_os_error());
            }
        }
        Ok(())
    }

    /// The handler. Reads atomics, maps zero pages, calls sigaction and raise: nothing that allocates or locks.
    extern "C" fn handle(signal: libc::c_int, info: *mut libc::siginfo_t, context: *mut libc::c_void) {
        // SAFETY: the kernel passes a valid siginfo (SA_SIGINFO).
        let (address, sent) = unsafe { ((*info).si_addr() as usize, (*info).si_code <= 0) };
        if !sent && rescue(address) {
            return;
        }
        pass_on(signal, info, context, sent);
    }

    /// If `address` lies in a guarded range: marks it, and puts zeros in place of it and all that follows, since where one
    /// page is lost the rest is too (one signal instead of one per page).
    fn rescue(address: usize) -> bool {
        for entry in entries() {
            if !entry.range.contains(&address) || !entry.mapped.load(SeqCst) {
                continue;
            }
            entry.poisoned.store(true, SeqCst);
            let page = address & !(PAGE.load(SeqCst) - 1);
            let flags = libc::MAP_FIXED | libc::MAP_PRIVATE | libc::MAP_ANON | libc::MAP_NORESERVE;
            // SAFETY: replaces pages of a mapping that is ours and alive (its Range is not dropped) and that nobody can
            // read without faulting. mmap is a bare system call, safe in a handler.
            let mapped = unsafe { libc::mmap(page as *mut _, entry.range.end - page, libc::PROT_READ, flags, -1, 0) };
            return mapped != libc::MAP_FAILED;
        }
        false
    }

    /// Does what would have been done without us. `sent`: by a process, not by a fault, so that returning won't repeat it.
    fn pass_on(signal: libc::c_int, info: *mut libc::siginfo_t, context: *mut libc::c_void, sent: bool) {
        let previous = PREVIOUS.get().expect("set before the handler is installed");
        // SAFETY: a handler is called the way its flags say; the default is restored by a plain call with valid pointers.
        unsafe {
            match previous.sa_sigaction {
                libc::SIG_IGN if sent => {}
                libc::SIG_IGN | libc::SIG_DFL => {
                    let mut default = MaybeUninit::<libc::sigaction>::zeroed().assume_init();
                    default.sa_sigaction = libc::SIG_DFL;
                    libc::sigaction(signal, &default, ptr::null_mut());
                    // Delivered when the handler returns.
                    libc::raise(signal);
                }
                handler if previous.sa_flags & libc::SA_SIGINFO != 0 => {
                    let handler: extern "C" fn(libc::c_int, *mut libc::siginfo_t, *mut libc::c_void) =
                        std::mem::transmute(handler);
                    handler(signal, info, context);
                }
                handler => {
                    let handler: extern "C" fn(libc::c_int) = std::mem::transmute(handler);
                    handler(signal);
                }
            }
        }
    }
}

#[cfg(all(test, unix))]
mod tests {
    use super::{Mmap, Source};
    use std::os::unix::process::ExitStatusExt;

    /// A SIGBUS in somebody else's mapping must still kill: in a child process, since it does.
    #[test]
    fn foreign_sigbus_is_passed_on() {
        const CHILD: &str = "WGPU_LLM_TEST_FOREIGN_SIGBUS";
        if let Some(path) = std::env::var_os(CHILD) {
            let _ours = Source::open(&path, Mmap::Yes).unwrap();
            let file = std::fs::OpenOptions::new().read(true).write(true).open(&path).unwrap();
            // SAFETY: reading it is meant to fault.
            let foreign = unsafe { memmap2::Mmap::map(&file).unwrap() };
            file.set_len(0).unwrap();
            let byte = std::hint::black_box(&foreign)[0];
            panic!("read {byte} from a page that is gone");
        }
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), [1; 100]).unwrap();
        let test = std::thread::current().name().expect("tests are named").to_owned();
        let mut child = std::process::Command::new(std::env::current_exe().unwrap());
        let output = child.args(["--exact", &test, "--nocapture"]).env(CHILD, file.path()).output().unwrap();
        assert_eq!(output.status.signal(), Some(libc::SIGBUS), "{}", String::from_utf8_lossy(&output.stderr));
    }
}
