//! The way in: a model from a file, chats with it, replies that come piece by piece.

use crate::base::{Error, ErrorKind, Result};
use crate::chat::{self, ChatOptions, Conversation, Delta, Reply};
use crate::model;
use crate::open::{self, DeviceOptions, Listener, Notice};
use crate::plan::Options;
use crate::run::{Generation, Session};
use crate::sample::SamplerOptions;
use crate::text::{DetokenizeOptions, Detokenizer, Message, Segment};
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

/// Opens a model: on the fastest GPU there is or on the CPU, split between them if the GPU's memory does not suffice.
///
/// ```no_run
/// use wgpu_llm::{DeviceChoice, Loader};
///
/// let model = Loader::new("model.gguf").device(DeviceChoice::Cpu).context(2048).load()?;
/// # Ok::<(), wgpu_llm::Error>(())
/// ```
#[derive(Clone)]
pub struct Loader {
    path: PathBuf,
    overrides: model::Overrides,
    open: open::Loader,
}

impl Loader {
    /// Opens the GGUF file at `path`; of a split file, the first part.
    pub fn new(path: impl Into<PathBuf>) -> Loader {
        Loader { path: path.into(), overrides: model::Overrides::default(), open: open::Loader::default() }
    }

    /// On this device; [`DeviceOptions`] also say how much of the model and of the GPU's memory. By default the fastest real GPU, with
    /// as many layers as fit and pay.
    pub fn device(mut self, device: impl Into<DeviceOptions>) -> Loader {
        self.open.device = device.into();
        self
    }

    /// With so many tokens of context, prompt and reply together. By default as many as the model was trained with, or fewer if memory
    /// is short.
    pub fn context(mut self, tokens: usize) -> Loader {
        self.open.context = Some(tokens);
        self
    }

    /// With these types of the cache, threads, sizes of batches and precisions. Context and placement in it are planned anew.
    pub fn options(mut self, options: Options) -> Loader {
        self.open.options = options;
        self
    }

    /// With these changes of what the file says of itself.
    pub fn overrides(mut self, overrides: model::Overrides) -> Loader {
        self.overrides = overrides;
        self
    }

    /// Hands notes, warnings and progress to `hear`, whose error ends the loading. By default they are logged.
    pub fn on_notice(mut self, hear: impl Fn(Notice) -> Result<()> + Send + Sync + 'static) -> Loader {
        self.open.listener = Listener::new(hear);
        self
    }

    /// Loads the model. Takes seconds: weights are read and, for the CPU, packed.
    pub fn load(self) -> Result<Model> {
        let file = Arc::new(model::Model::open_with(&self.path, &self.overrides)?);
        let opened = self.open.open(file.clone())?;
        let on = match &opened.fit.placement.single() {
            Some(crate::graph::Place::Cpu) => "the CPU",
            Some(crate::graph::Place::Gpu) => "the GPU",
            None => "GPU and CPU",
        };
        let shared = Shared { file, placed: format!("{on}: {}", opened.why), session: Mutex::new(opened.session) };
        Ok(Model { shared: Arc::new(shared) })
    }
}

/// A loaded model. Clones are the same model; it goes when the last is dropped.
///
/// Replies come one at a time: whoever asks while another reply is under way waits for it. What prompts have in common with the tokens in
/// the cache is not computed again.
#[derive(Clone)]
pub struct Model {
    shared: Arc<Shared>,
}

struct Shared {
    file: Arc<model::Model>,
    placed: String,
    session: Mutex<Session>,
}

impl Shared {
    /// The session, when nobody else has it. After a panic in it, its cache is forgotten.
    fn session(&self) -> MutexGuard<'_, Session> {
        self.session.lock().unwrap_or_else(|poisoned: PoisonError<_>| {
            self.session.clear_poison();
            let mut session = poisoned.into_inner();
            session.truncate(0);
            session
        })
    }
}

impl Model {
    /// Begins a conversation by the model's own chat template.
    pub fn chat(&self, options: ChatOptions) -> Result<Chat> {
        let template = self.shared.file.chat_template()?;
        let replies = chat::Chat::new(&self.shared.session(), template, options)?;
        Ok(Chat { model: self.clone(), inner: Some((replies, Conversation::default())) })
    }

    /// Continues `text` as it stands, without a chat template and without control tokens in it, by at most `limit` tokens; `on_text` gets what comes and may end it.
    pub fn complete(
        &self,
        text: &str,
        limit: usize,
        sampling: &SamplerOptions,
        on_text: &mut dyn FnMut(&str) -> ControlFlow<()>,
    ) -> Result<Generation> {
        let tokenizer = self.shared.file.tokenizer()?;
        let prompt = tokenizer.encode(&[Segment::Text(text)], true)?;
        let mut session = self.shared.session();
        let mut sampler = self.shared.file.sampler(sampling, session.context())?;
        let mut out = Detokenizer::new(tokenizer, DetokenizeOptions { show_special: false, continued: true });
        let done = session.generate(&prompt, &mut sampler, limit, &mut |token| on_text(out.push(token)))?;
        // The end is reached in any case.
        let _ = on_text(out.finish());
        Ok(done)
    }

    /// Tokens of context, prompt and reply together.
    pub fn context(&self) -> usize {
        self.shared.session().context()
    }

    /// Where the model runs and why, in words.
    pub fn placed(&self) -> &str {
        &self.shared.placed
    }

    /// The model file: its metadata, tokenizer and templates.
    pub fn file(&self) -> &model::Model {
        &self.shared.file
    }
}

/// A conversation with a model.
pub struct Chat {
    model: Model,
    // Away while a reply is under way.
    inner: Option<(chat::Chat, Conversation)>,
}

impl Chat {
    /// Sets the system prompt.
    pub fn set_system(&mut self, text: impl Into<String>) {
        if let Some((_, conversation)) = &mut self.inner {
            conversation.set_system(text);
        }
    }

    /// The messages so far.
    pub fn messages(&self) -> &[Message] {
        self.inner.as_ref().map_or(&[], |(_, conversation)| conversation.messages())
    }

    /// Asks, and returns the reply as it comes. A reply that is dropped before its end is stopped, and what came of it stays in the
    /// conversation. If nothing came, or it failed, the question does not stay either.
    pub fn ask(&mut self, text: impl Into<String>) -> Result<Response<'_>> {
        let Some((mut replies, mut conversation)) = self.inner.take() else {
            return Err(Error::usage("this conversation was lost in a panic").help("begin another one"));
        };
        let before = conversation.clone();
        conversation.ask(text);
        let (model, (send, deltas)) = (self.model.clone(), channel());
        let worker = std::thread::Builder::new().name("reply".into()).spawn(move || {
            let reply = reply(&model, &mut replies, &mut conversation, &send);
            if !reply.as_ref().is_ok_and(|reply| !reply.is_empty()) {
                // Without a reply it is as if nothing had been asked.
                conversation = before;
            }
            (replies, conversation, reply)
        });
        let worker = worker.map_err(|e| Error::io("no thread for the reply could be started", e))?;
        Ok(Response { chat: self, worker: Some(worker), deltas: Some(deltas), reply: None })
    }
}

fn reply(
    model: &Model,
    replies: &mut chat::Chat,
    conversation: &mut Conversation,
    send: &Sender<Delta>,
) -> Result<Reply> {
    // Whoever no longer listens wants no more.
    let mut on_delta = |delta| send.send(delta).map_or(ControlFlow::Break(()), |()| ControlFlow::Continue(()));
    replies.reply(&mut model.shared.session(), conversation, &mut on_delta)
}

type Worker = JoinHandle<(chat::Chat, Conversation, Result<Reply>)>;

/// A reply that is under way: an iterator over what each token adds to it.
pub struct Response<'c> {
    chat: &'c mut Chat,
    worker: Option<Worker>,
    deltas: Option<Receiver<Delta>>,
    reply: Option<Reply>,
}

impl Response<'_> {
    /// Waits for the end; returns the whole reply, with its counts, times and reason to end.
    pub fn finish(mut self) -> Result<Reply> {
        for delta in &mut self {
            delta?;
        }
        let ended = || Error::usage("this reply had failed, as was said");
        self.reply.take().ok_or_else(ended)
    }

    /// Takes back what the worker had.
    fn join(&mut self) -> Option<Error> {
        self.deltas = None;
        match self.worker.take()?.join() {
            Ok((replies, conversation, reply)) => {
                self.chat.inner = Some((replies, conversation));
                reply.map(|reply| self.reply = Some(reply)).err()
            }
            Err(_) => Some(Error::new(ErrorKind::Io, "the reply ended in a panic").help("please report it")),
        }
    }
}

impl Iterator for Response<'_> {
    type Item = Result<Delta>;

    fn next(&mut self) -> Option<Result<Delta>> {
        match self.deltas.as_ref()?.recv() {
            Ok(delta) => Some(Ok(delta)),
            Err(_) => self.join().map(Err),
        }
    }
}

impl Drop for Response<'_> {
    fn drop(&mut self) {
        let _ = self.join();
    }
}
