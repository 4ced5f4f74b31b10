//! The program on a terminal of the test's own making.

use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};
use std::ffi::OsStr;
use std::fs::File;
use std::io::{Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

/// Nothing takes longer, even on a busy machine.
const TIMEOUT: Duration = Duration::from_secs(60);

/// A terminal with a program on it.
pub struct Terminal {
    keys: File,
    screen: Receiver<Vec<u8>>,
    /// What was seen and not yet passed over.
    seen: String,
    /// All that was ever seen.
    all: String,
    child: Child,
}

/// Which of the program's streams do not go to the terminal.
#[derive(Default)]
pub struct Elsewhere {
    pub stdout: Option<File>,
    pub stderr: Option<File>,
}

impl Terminal {
    /// Starts the program with the terminal as its controlling one.
    pub fn start(mut command: Command, elsewhere: Elsewhere) -> Terminal {
        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).expect("a terminal");
        grantpt(&master).and_then(|()| unlockpt(&master)).expect("is ours");
        let name = ptsname(&master, Vec::new()).expect("has a name");
        let noctty = OpenptFlags::NOCTTY.bits() as i32;
        let terminal =
            File::options().read(true).write(true).custom_flags(noctty).open(OsStr::from_bytes(name.to_bytes()));
        let terminal = terminal.expect("opens");
        tcsetwinsize(&terminal, Winsize { ws_row: 24, ws_col: 80, ws_xpixel: 0, ws_ypixel: 0 }).expect("has a size");
        let own = || Stdio::from(terminal.try_clone().expect("a copy"));
        command.stdin(own()).stdout(elsewhere.stdout.map_or_else(own, Stdio::from));
        command.stderr(elsewhere.stderr.map_or_else(own, Stdio::from));
        // SAFETY: between fork and exec only two system calls are made.
        unsafe {
            command.pre_exec(|| {
                rustix::process::setsid()?;
                rustix::process::ioctl_tiocsctty(rustix::stdio::stdin())?;
                Ok(())
            });
        }
        let child = command.spawn().expect("runs");
        let keys = File::from(master);
        let mut output = keys.try_clone().expect("a copy");
        let (send, screen) = channel();
        std::thread::spawn(move || {
            let mut bytes = [0; 4096];
            // Once the program has left the terminal, reading fails.
            while let Ok(n @ 1..) = output.read(&mut bytes) {
                if send.send(bytes[..n].to_vec()).is_err() {
                    return;
                }
            }
        });
        Terminal { keys, screen, seen: String::new(), all: String::new(), child }
    }

    /// Types all of `keys` at once.
    pub fn send(&mut self, keys: &str) {
        self.keys.write_all(keys.as_bytes()).expect("typed");
    }

    /// Waits until the screen shows `what`, and gives what came before it; what was seen is passed over.
    #[track_caller]
    pub fn wait_for(&mut self, what: &str) -> String {
        let end = Instant::now() + TIMEOUT;
        while !self.seen.contains(what) {
            match self.screen.recv_timeout(end.saturating_duration_since(Instant::now())) {
                Ok(bytes) => self.see(&bytes),
                Err(e) => panic!("{e}: no {what:?} in {:?} of {:?}", self.seen, self.all),
            }
        }
        let (before, after) = self.seen.split_once(what).expect("it is there");
        let (before, after) = (before.to_string(), after.to_string());
        self.seen = after;
        before
    }

    /// The code that the program ends with.
    #[track_caller]
    pub fn wait(mut self) -> Option<i32> {
        // What it still says must be taken, or it cannot end.
        while let Ok(bytes) = self.screen.recv_timeout(TIMEOUT) {
            self.see(&bytes);
        }
        for _ in 0..100 {
            match self.child.try_wait().expect("is ours") {
                Some(status) => return status.code(),
                None => std::thread::sleep(Duration::from_millis(50)),
            }
        }
        let _ = self.child.kill();
        panic!("it does not end: {:?}", self.all);
    }

    fn see(&mut self, bytes: &[u8]) {
        let text = String::from_utf8_lossy(bytes);
        self.seen += &text;
        self.all += &text;
    }
}
