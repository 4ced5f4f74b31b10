//! What other threads leave for the batcher between two steps.

use super::intake::Job;
use crate::base::{Error, Result};
use crate::run::schedule::{Counts, SubmitError};
use std::sync::{Condvar, Mutex, MutexGuard};

/// Requests, cancellations and wishes that the batcher has not seen yet.
#[derive(Debug)]
pub(super) struct Inbox {
    mail: Mutex<Mail>,
    arrived: Condvar,
}

#[derive(Debug)]
pub(super) struct Mail {
    pub jobs: Vec<Job>,
    /// Some request was cancelled.
    pub cancels: bool,
    /// Cached prefixes are to be dropped.
    pub forgets: bool,
    /// Clients that may still leave something.
    clients: usize,
    /// Why nothing is taken any more.
    closed: Option<Error>,
    /// As of the last step.
    counts: Counts,
}

impl Inbox {
    pub fn new() -> Self {
        let counts = Counts { running: 0, waiting: 0, preemptions: 0 };
        let mail = Mail { jobs: Vec::new(), cancels: false, forgets: false, clients: 0, closed: None, counts };
        Inbox { mail: Mutex::new(mail), arrived: Condvar::new() }
    }

    fn lock(&self) -> MutexGuard<'_, Mail> {
        // No code that may panic runs under the lock.
        self.mail.lock().unwrap_or_else(|e| e.into_inner())
    }

    /// Leaves a request, if not more than `queue` wait then.
    pub fn post(&self, job: Job, queue: usize) -> Result<()> {
        let mut mail = self.lock();
        mail.check_open()?;
        let waiting = mail.counts.waiting + mail.jobs.len();
        if waiting >= queue {
            return Err(super::intake::refused(SubmitError::QueueFull { waiting }));
        }
        mail.jobs.push(job);
        self.arrived.notify_all();
        Ok(())
    }

    /// Some request was cancelled.
    pub fn notice_cancel(&self) {
        self.lock().cancels = true;
        self.arrived.notify_all();
    }

    /// Cached prefixes are to be dropped.
    pub fn forget_prefixes(&self) {
        self.lock().forgets = true;
        self.arrived.notify_all();
    }

    /// A client comes.
    pub fn enter(&self) {
        self.lock().clients += 1;
    }

    /// A client goes.
    pub fn leave(&self) {
        self.lock().clients -= 1;
        self.arrived.notify_all();
    }

    /// Takes out what is there: requests into `jobs`, which is empty; returns whether requests were cancelled, and whether prefixes are
    /// to be dropped. Leaves word of how many sequences there are.
    pub fn take(&self, jobs: &mut Vec<Job>, counts: Counts) -> (bool, bool) {
        let mut mail = self.lock();
        mail.counts = counts;
        std::mem::swap(jobs, &mut mail.jobs);
        (std::mem::take(&mut mail.cancels), std::mem::take(&mut mail.forgets))
    }

    /// Waits until there is something to take out; returns false if there will never be.
    pub fn wait(&self) -> bool {
        let mut mail = self.lock();
        loop {
            if !mail.is_empty() {
                return true;
            }
            if mail.clients == 0 {
                return false;
            }
            mail = self.arrived.wait(mail).unwrap_or_else(|e| e.into_inner());
        }
    }

    /// Whether there is nothing to take out.
    pub fn is_empty(&self) -> bool {
        self.lock().is_empty()
    }

    /// The counts as of the last step; what was left since then waits.
    pub fn counts(&self) -> Counts {
        let mail = self.lock();
        Counts { waiting: mail.counts.waiting + mail.jobs.len(), ..mail.counts }
    }

    /// # Errors
    /// The reason if nothing is taken any more.
    pub fn check_open(&self) -> Result<()> {
        self.lock().check_open()
    }

    /// Takes nothing any more, for a reason; returns what nobody took out.
    pub fn close(&self, reason: Error) -> Vec<Job> {
        let mut mail = self.lock();
        mail.closed.get_or_insert(reason);
        std::mem::take(&mut mail.jobs)
    }
}

impl Mail {
    fn is_empty(&self) -> bool {
        self.jobs.is_empty() && !self.cancels && !self.forgets
    }

    fn check_open(&self) -> Result<()> {
        self.closed.as_ref().map_or(Ok(()), |reason| Err(again(reason)))
    }
}

/// The same error once more: errors cannot be cloned, but one of the same kind with the same words can be made.
pub(super) fn again(error: &Error) -> Error {
    Error::new(error.kind(), error.to_string())
}
