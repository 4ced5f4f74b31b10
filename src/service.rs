//! Many requests at once.

use crate::base::Result;
use crate::chat::ChatOptions;
use crate::facade::{self, Loader};
use crate::model;
use crate::open::Opened;
use crate::run::batcher::{Client, Handle, Request};
use crate::run::schedule::Counts;
use crate::text::{Message, Segment};
use std::sync::Arc;

/// A model that answers many requests at once, on a thread of its own. Clones are the same model; it goes when the last is dropped and all
/// requests have ended.
///
/// What requests have in common at their beginnings is computed once, and answers are computed together. What a request gets does not
/// depend on the others, with one exception: if its prompt contains an answer that another request got, the keys and values of that answer are taken
/// from the cache. They were rounded as answers are, a little more finely than prompts. [`Request::cache_answer`] keeps answers out of the cache.
///
/// ```no_run
/// use wgpu_llm::{Event, Loader, SamplerOptions};
///
/// let service = Loader::new("model.gguf").context(2048).serve(8)?;
/// let handles = ["Once", "Twice"].map(|text| service.complete(text, 32, &SamplerOptions::default()));
/// for handle in handles {
///     for event in handle? {
///         match event {
///             Event::Token { text, .. } => print!("{text}"),
///             Event::Done { text, .. } => println!("{text}"),
///             Event::Failed { error } => eprintln!("{error}"),
///             _ => {}
///         }
///     }
/// }
/// # Ok::<(), wgpu_llm::Error>(())
/// ```
#[derive(Clone)]
pub struct Service {
    client: Client,
    file: Arc<model::Model>,
    placed: String,
}

impl Loader {
    /// Loads the model for up to `sequences` answers at a time; more requests wait. Each has the context that
    /// [`Loader::context`] says, as far as the caches have room for all.
    ///
    /// # Errors
    /// As [`Loader::load`]; `Io` if there can be no thread.
    pub fn serve(mut self, sequences: usize) -> Result<Service> {
        self.open.options.sequences = sequences.max(1);
        let file = Arc::new(model::Model::open_with(&self.path, &self.overrides)?);
        let Opened { session, fit, why } = self.open.open(file.clone())?;
        let placed = facade::placed(&fit.device_map, &why);
        Ok(Service { client: session.into_batcher().spawn()?, file, placed })
    }
}

impl Service {
    /// Submits a request. Its events come through the handle; a handle that is dropped cancels it.
    ///
    /// # Errors
    /// `Usage` for an empty prompt, one that does not fit the context, or options that make no sense; what the engine failed with.
    pub fn submit(&self, request: Request) -> Result<Handle> {
        self.client.submit(request)
    }

    /// Continues `text` as it stands, without a chat template and without control tokens in it, by at most `limit` tokens.
    ///
    /// # Errors
    /// As [`Service::submit`].
    pub fn complete(&self, text: &str, limit: usize, sampling: &crate::SamplerOptions) -> Result<Handle> {
        let prompt = self.file.tokenizer()?.encode(&[Segment::Text(text)], true)?;
        self.submit(Request { sampling: sampling.clone(), ..Request::new(prompt, limit) })
    }

    /// Replies to the last of `messages`, by the model's own chat template. Reasoning comes as the model writes it, between its tags.
    ///
    /// # Errors
    /// As [`Service::submit`]; `Unsupported` or `Format` if the model has no chat template, or one that cannot be read.
    pub fn chat(&self, messages: &[Message], options: &ChatOptions) -> Result<Handle> {
        let (prompt, _) = self.file.prompt(&self.file.chat_template()?, messages, options.think)?;
        let request = Request::new(prompt, options.limit);
        self.submit(Request { sampling: options.sampling.clone(), stops: options.stops.clone(), ..request })
    }

    /// How many requests are computed and wait, as of the last step.
    pub fn counts(&self) -> Counts {
        self.client.counts()
    }

    /// Tokens of context of each request, prompt and answer together.
    pub fn context(&self) -> usize {
        self.client.context()
    }

    /// Where the model runs and why, in words.
    pub fn placed(&self) -> &str {
        &self.placed
    }

    /// The model file: its metadata, tokenizer and templates.
    pub fn file(&self) -> &model::Model {
        &self.file
    }
}
