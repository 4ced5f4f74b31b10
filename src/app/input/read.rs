//! Whole inputs as bytes: files, pipes and terminals alike, without waiting for what never comes.

use crate::app::term;
use crate::base::Error;
use std::fs::File;
use std::io::{self, IsTerminal, Read};
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::time::Duration;

/// Why an input is not there.
#[derive(Debug)]
pub enum Failure {
    /// The system's error.
    Io(io::Error),
    /// It has more bytes than this.
    TooLong(u64),
    /// Ctrl-C.
    Stopped(Error),
}

impl From<io::Error> for Failure {
    fn from(e: io::Error) -> Self {
        Failure::Io(e)
    }
}

/// What standard input is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A file, which ends.
    File,
    /// A pipe or the like, which may say something or never.
    Pipe,
    /// A terminal or another device.
    Other,
}

/// What this process's standard input is.
pub fn kind_of_stdin() -> Kind {
    if io::stdin().is_terminal() { Kind::Other } else { metadata().map_or(Kind::Pipe, |m| kind(&m.file_type())) }
}

fn metadata() -> io::Result<std::fs::Metadata> {
    #[cfg(unix)]
    let copy = std::os::fd::AsFd::as_fd(&io::stdin()).try_clone_to_owned()?;
    #[cfg(windows)]
    let copy = std::os::windows::io::AsHandle::as_handle(&io::stdin()).try_clone_to_owned()?;
    File::from(copy).metadata()
}

fn kind(file: &std::fs::FileType) -> Kind {
    if file.is_file() {
        return Kind::File;
    }
    #[cfg(unix)]
    {
        use std::os::unix::fs::FileTypeExt;
        if !file.is_fifo() && !file.is_socket() {
            return Kind::Other;
        }
    }
    Kind::Pipe
}

/// How often a wait looks whether Ctrl-C was pressed.
const LOOK: Duration = Duration::from_millis(50);

/// All bytes of `input`, or `None` if neither one nor the end comes within `patience`. Then a thread of the process still waits
/// for them. Fails if there are more than `limit`.
pub fn all(
    input: impl Read + Send + 'static,
    limit: u64,
    patience: Option<Duration>,
) -> Result<Option<Vec<u8>>, Failure> {
    let pieces = pieces(input)?;
    let mut bytes = Vec::new();
    let mut wait = patience.unwrap_or(LOOK);
    loop {
        match pieces.recv_timeout(wait) {
            Ok(piece) => bytes.extend(piece?),
            Err(RecvTimeoutError::Disconnected) => return Ok(Some(bytes)),
            Err(RecvTimeoutError::Timeout) if bytes.is_empty() && patience.is_some() => return Ok(None),
            Err(RecvTimeoutError::Timeout) => {}
        }
        if bytes.len() as u64 > limit {
            return Err(Failure::TooLong(limit));
        }
        term::check_interrupt().map_err(Failure::Stopped)?;
        wait = LOOK;
    }
}

/// What comes of `input`, read by a thread of its own: a read that waits cannot be called off.
fn pieces(mut input: impl Read + Send + 'static) -> io::Result<Receiver<io::Result<Vec<u8>>>> {
    let (send, receive) = sync_channel(4);
    let work = move || {
        let mut buffer = vec![0; 64 << 10];
        loop {
            let piece = match input.read(&mut buffer) {
                Ok(0) => return,
                Ok(n) => Ok(buffer[..n].to_vec()),
                Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                Err(e) => Err(e),
            };
            let failed = piece.is_err();
            // Nobody takes more if the text was too long.
            if send.send(piece).is_err() || failed {
                return;
            }
        }
    };
    std::thread::Builder::new().name("input".into()).spawn(work)?;
    Ok(receive)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[test]
    fn an_input_is_read_to_its_end_if_it_begins_in_time() {
        assert_eq!(all(&b"text"[..], 4, None).unwrap().as_deref(), Some(&b"text"[..]));
        assert!(matches!(all(&b"text"[..], 3, None), Err(Failure::TooLong(3))));
        assert!(matches!(all(io::repeat(b'x'), 1 << 20, None), Err(Failure::TooLong(_))));
        let short = Some(Duration::from_millis(100));
        assert_eq!(all(io::empty(), 4, short).unwrap(), Some(Vec::new()));

        let (reader, mut writer) = io::pipe().unwrap();
        assert_eq!(all(reader.try_clone().unwrap(), 9, short).unwrap(), None);
        writer.write_all(b"x").unwrap();
        drop(writer);

        let (reader, mut writer) = io::pipe().unwrap();
        writer.write_all(b"one").unwrap();
        let later = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(400));
            writer.write_all(b" two").unwrap();
        });
        assert_eq!(all(reader, 9, short).unwrap().as_deref(), Some(&b"one two"[..]));
        later.join().unwrap();
    }
}
