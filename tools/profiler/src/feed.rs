//! Where profiles come from: files, another thread, another process.

use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::sync::mpsc::{self, Receiver, Sender, TryRecvError};
use wgpu_llm::low_level::base::{Error, Result};
use wgpu_llm::low_level::profile::Record;
use wgpu_llm::low_level::profile::{Observer, Profile, chrome};

/// Records of a frame at most, so that the window answers while many wait.
const AT_ONCE: usize = 2000;
/// No line of a pipe is longer than this: a prompt's record with all its events has some hundred kilobytes.
const MOST_BYTES: u64 = 256 << 20;

/// Records that come as they are made.
pub struct Feed {
    records: Receiver<Record>,
    open: bool,
}

impl Feed {
    /// A feed, and the [`Observer`] that a session tells its records to. The session never waits for it.
    pub fn channel() -> (Sender<Record>, Feed) {
        let (sender, records) = mpsc::channel();
        (sender, Feed { records, open: true })
    }

    /// The records in the lines of a pipe, read by a thread of its own. Ends with the pipe, or with a line that is none.
    pub fn lines(from: impl Read + Send + 'static) -> Feed {
        let (sender, feed) = Feed::channel();
        std::thread::spawn(move || {
            let mut lines = BufReader::new(from);
            loop {
                let mut line = Vec::new();
                match (&mut lines).take(MOST_BYTES).read_until(b'\n', &mut line) {
                    Ok(n) if n > 0 => {}
                    _ => return,
                }
                let Ok(record) = serde_json::from_slice(&line) else { return };
                if sender.send(record).is_err() {
                    return;
                }
            }
        });
        feed
    }

    /// Adds to `profile` what has come; whether anything has. Does not wait.
    pub fn poll(&mut self, profile: &mut Profile) -> bool {
        let mut any = false;
        for _ in 0..AT_ONCE {
            match self.records.try_recv() {
                Ok(record) => profile.observe(&record),
                Err(TryRecvError::Empty) => break,
                Err(TryRecvError::Disconnected) => {
                    self.open = false;
                    break;
                }
            }
            any = true;
        }
        any
    }

    /// Whether more may come.
    pub fn is_open(&self) -> bool {
        self.open
    }
}

/// The profile in a trace file.
pub fn open(path: &Path) -> Result<Profile> {
    let text = std::fs::read_to_string(path).map_err(|e| Error::io("can't read the trace", e).at(path.display()))?;
    let json = serde_json::from_str(&text)
        .map_err(|e| Error::format("this is no JSON").because(e).help("name a file that --trace wrote"))
        .map_err(|e| e.at(path.display()))?;
    chrome::from_json(&json).map_err(|e| e.at(path.display()))
}
