//! The batcher on a thread of its own, and those who send it requests.

use super::batching::Batcher;
use super::compute::Compute;
use super::handle::Handle;
use super::inbox::Inbox;
use super::intake::Intake;
use super::request::Request;
use crate::base::{Error, Result};
use crate::run::schedule::Counts;
use std::sync::Arc;

/// Submits requests to a batcher that runs on its own thread; from any thread, and at any time.
pub struct Client {
    intake: Arc<Intake>,
    inbox: Arc<Inbox>,
}

impl<C: Compute> Batcher<C> {
    /// Runs the batcher on a thread named `engine`, which sleeps while there is nothing to do. The thread ends once every client is
    /// dropped and all work is done; or if the engine failed for good, after every request has failed.
    ///
    /// # Errors
    /// If there can be no thread, as in browsers: there [`Batcher::step_async`] is called in a loop.
    pub fn spawn(self) -> Result<Client>
    where
        C: Send + 'static,
        C::Pending: Send,
    {
        let client = Client::new(self.intake.clone(), self.inbox.clone());
        let thread = std::thread::Builder::new().name("engine".to_owned());
        thread.spawn(move || self.run()).map_err(|e| Error::io("starting the engine's thread", e))?;
        Ok(client)
    }

    /// Steps until nothing will ever be left to do.
    fn run(mut self) {
        loop {
            match self.step() {
                Ok(true) => {}
                Ok(false) if self.inbox.wait() => {}
                // Every request has failed.
                Ok(false) | Err(_) => return,
            }
        }
    }
}

impl Client {
    fn new(intake: Arc<Intake>, inbox: Arc<Inbox>) -> Self {
        inbox.enter();
        Client { intake, inbox }
    }

    /// Submits a request.
    ///
    /// # Errors
    /// As [`Batcher::submit`].
    pub fn submit(&self, request: Request) -> Result<Handle> {
        self.inbox.check_open()?;
        let (job, handle) = self.intake.prepare(request, &self.inbox)?;
        self.inbox.post(job, self.intake.queue)?;
        Ok(handle)
    }

    /// How many sequences run and wait, as of the last step.
    pub fn counts(&self) -> Counts {
        self.inbox.counts()
    }

    /// Drops all cached prefixes before the next step.
    pub fn forget_prefixes(&self) {
        self.inbox.forget_prefixes();
    }

    /// The most tokens of a sequence: prompt and answer.
    pub fn context(&self) -> usize {
        self.intake.context
    }
}

impl Clone for Client {
    fn clone(&self) -> Self {
        Client::new(self.intake.clone(), self.inbox.clone())
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        self.inbox.leave();
    }
}
