//! The public interface: a model from a file, chats with it, replies that come piece by piece.

use crate::base::{Error, ErrorKind, Result};
use crate::chat::{self, ChatOptions, Conversation, Delta, Reply, ResponseStream};
use crate::graph::Place;
use crate::model;
use crate::open::{self, DeviceOptions, Listener, Notice};
use crate::plan::{DeviceMap, Options};
use crate::run::schedule::FinishReason;
use crate::run::{Generation, SavedCache, Session};
use crate::sample::SamplerOptions;
use crate::text::{Message, Segment, StopStrings};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
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
    pub(crate) path: PathBuf,
    pub(crate) overrides: model::Overrides,
    pub(crate) open: open::Loader,
}

impl Loader {
    /// Opens the GGUF file at `path`; of a split file, the first part.
    pub fn new(path: impl Into<PathBuf>) -> Loader {
        Loader { path: path.into(), overrides: model::Overrides::default(), open: open::Loader::default() }
    }

    /// On this device; [`DeviceOptions`] also say how much of the model and of the GPU's memory. By default the fastest real GPU, with
    /// as many layers as fit and make it faster.
    pub fn device(mut self, device: impl Into<DeviceOptions>) -> Loader {
        self.open.device = device.into();
        self
    }

    /// With so many tokens of context, prompt and reply together; 0 for as many as the model was trained with. By default that, or fewer if
    /// memory is short.
    pub fn context(mut self, tokens: usize) -> Loader {
        self.open.context = Some(tokens);
        self
    }

    /// With these types of the cache, threads, sizes of batches and precisions. What else is in it is planned: context, device map, layers on
    /// the GPU, system memory.
    pub fn options(mut self, options: Options) -> Loader {
        self.open.options = options;
        self
    }

    /// With these changes of what the file says of itself.
    pub fn overrides(mut self, overrides: model::Overrides) -> Loader {
        self.overrides = overrides;
        self
    }

    /// Hands notes, warnings and progress to `hear`, whose error ends the loading. By default notes and warnings go to the `tracing` crate:
    /// without a subscriber nobody sees them.
    pub fn on_notice(mut self, hear: impl Fn(Notice) -> Result<()> + Send + Sync + 'static) -> Loader {
        self.open.listener = Listener::new(hear);
        self
    }

    /// Loads the model. Takes seconds: weights are read and, for the CPU, packed.
    ///
    /// # Errors
    /// `Io` and `Format` for the file; `Unsupported` if no architecture here is the model's, or nothing reads some of its tensors; `NoDevice`;
    /// `OutOfMemory` or `OutOfSystemMemory` if it does not fit; and what the notices' listener returns.
    pub fn load(self) -> Result<Model> {
        let file = Arc::new(model::Model::open_with(&self.path, &self.overrides)?);
        let opened = self.open.open(file.clone())?;
        let (placed, context) = (placed(&opened.fit.device_map, &opened.why), opened.session.context());
        let shared = Shared { file, placed, context, session: Mutex::new(opened.session) };
        Ok(Model { shared: Arc::new(shared) })
    }
}

/// Where a model runs and why, in words.
pub(crate) fn placed(device_map: &DeviceMap, why: &str) -> String {
    let on = match device_map.single() {
        Some(Place::Cpu) => "the CPU",
        Some(Place::Gpu) => "the GPU",
        None => "GPU and CPU",
    };
    format!("{on}: {why}")
}

/// A loaded model. Clones are the same model; it goes when the last is dropped.
///
/// Replies come one at a time: a question that comes while another reply is under way waits for it. What prompts have in common with the tokens in
/// the cache is not computed again.
#[derive(Clone)]
pub struct Model {
    shared: Arc<Shared>,
}

struct Shared {
    file: Arc<model::Model>,
    placed: String,
    context: usize,
    session: Mutex<Session>,
}

impl Shared {
    /// The session, when nobody else has it, to be stopped by `stop`. After a panic in it, its cache is forgotten.
    fn session(&self, stop: Arc<AtomicBool>) -> MutexGuard<'_, Session> {
        let mut session = self.session.lock().unwrap_or_else(|poisoned: PoisonError<_>| {
            self.session.clear_poison();
            let mut session = poisoned.into_inner();
            session.truncate(0);
            session
        });
        session.stop_when(move || stop.load(Ordering::Relaxed));
        session
    }
}

impl Model {
    /// Begins a conversation by the model's own chat template. Unless `options` limit it, a reply of a model that finds no end goes on
    /// until it is dropped.
    ///
    /// # Errors
    /// `Unsupported` or `Format` if the model has no chat template, or one that cannot be read; `Usage` for options that make no sense for it.
    pub fn chat(&self, options: ChatOptions) -> Result<Chat> {
        let replies = Some(self.replies(&options)?);
        Ok(Chat { model: self.clone(), options, conversation: Conversation::default(), replies })
    }

    fn replies(&self, options: &ChatOptions) -> Result<chat::Chat> {
        let file = &self.shared.file;
        chat::Chat::new(file, self.shared.context, file.chat_template()?, options.clone())
    }

    /// Continues `text` as it stands, without a chat template and without control tokens in it, by at most `limit` tokens; `on_text` gets
    /// what comes and may end it. It must not ask the model for anything: it would wait for itself.
    ///
    /// # Errors
    /// `Usage` for an empty text, one that does not fit the context, or options that make no sense; a device that failed for good.
    pub fn complete(
        &self,
        text: &str,
        limit: usize,
        sampling: &SamplerOptions,
        on_text: &mut dyn FnMut(&str) -> ControlFlow<()>,
    ) -> Result<Generation> {
        let tokenizer = self.shared.file.tokenizer()?;
        let prompt = tokenizer.encode(&[Segment::Text(text)], true)?;
        let mut session = self.shared.session(Arc::default());
        let mut sampler = self.shared.file.sampler(sampling, self.shared.context)?;
        let mut out = ResponseStream::plain(tokenizer, StopStrings::default());
        let mut wanted = ControlFlow::Continue(());
        let mut hear = |delta: Delta| {
            if wanted.is_continue() && !delta.content.is_empty() {
                wanted = on_text(&delta.content);
            }
            wanted
        };
        let done = session.generate(&prompt, &mut sampler, limit, &mut |token| hear(out.push(token)))?;
        // The end is reached in any case.
        let _ = hear(out.finish());
        Ok(done)
    }

    /// Tokens of context, prompt and reply together.
    pub fn context(&self) -> usize {
        self.shared.context
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
    options: ChatOptions,
    conversation: Conversation,
    // Away while a reply is under way; made anew if it does not come back.
    replies: Option<chat::Chat>,
}

impl Chat {
    /// Sets the system prompt.
    pub fn set_system(&mut self, text: impl Into<String>) {
        self.conversation.set_system(text);
    }

    /// Puts `messages` in the place of those so far: a conversation that was kept goes on, or none is begun anew.
    pub fn set_messages(&mut self, messages: Vec<Message>) {
        self.conversation = Conversation::from(messages);
    }

    /// The messages so far.
    pub fn messages(&self) -> &[Message] {
        self.conversation.messages()
    }

    /// Writes the messages so far into a file at `path`, with the tokens, keys and values of them that the model's cache holds: all, if this chat was
    /// the last to be replied to. A file of that name is replaced when the new one is whole; on Unix only its owner may read it. Returns its size in bytes:
    /// as many as the cache takes for these tokens, so hundreds of megabytes for a long conversation. Waits for a reply that is under way.
    ///
    /// # Errors
    /// `Usage` if there is a file that is no saved cache, or no folder for it, or if the cache holds nothing of this chat; `Io`, as when the disk is
    /// full; a device that failed for good.
    pub fn save_cache(&self, path: impl AsRef<Path>) -> Result<u64> {
        let (mut session, mut size) = (self.model.shared.session(Arc::default()), 0);
        match &self.replies {
            Some(replies) => replies.keep_only(&mut session, &self.conversation)?,
            None => self.model.replies(&self.options)?.keep_only(&mut session, &self.conversation)?,
        }
        session.save_cache(path.as_ref(), self.messages(), &mut |bytes| size = bytes)?;
        Ok(size)
    }

    /// Goes on with the conversation in a file that [`save_cache`](Self::save_cache) wrote, by this model on any device: the next reply has only
    /// what is new computed. Returns the number of tokens in it, which take the place of those in the model's cache. Waits for a reply
    /// that is under way.
    ///
    /// # Errors
    /// `Io` if there is no such file; `Usage` if there is no such folder, or it is no saved cache, of another model, or does not fit the options that
    /// this one was loaded with; `Unsupported` for another version's; `Format` if it is damaged: the model's cache may be empty then. The messages
    /// stay as they are in each case.
    pub fn load_cache(&mut self, path: impl AsRef<Path>) -> Result<usize> {
        let path = path.as_ref();
        let missing = || Error::new(ErrorKind::Io, "there is no such file").at(path.display());
        let saved = SavedCache::open(path)?.ok_or_else(missing)?;
        let (tokens, messages) = (saved.tokens().len(), saved.messages().to_vec());
        self.model.shared.session(Arc::default()).load_cache(saved)?;
        self.set_messages(messages);
        Ok(tokens)
    }

    /// Replies as `options` say from now on, with the seed's random numbers from the beginning.
    ///
    /// # Errors
    /// `Usage` for options that make no sense for the model; then those before stay.
    pub fn set_options(&mut self, options: ChatOptions) -> Result<()> {
        self.replies = Some(self.model.replies(&options)?);
        self.options = options;
        Ok(())
    }

    /// Asks, and returns the reply as it comes. A reply that is dropped before its end is stopped, and what came of it stays in the
    /// conversation. If nothing came before it was stopped, or it failed, the question does not stay either.
    ///
    /// # Errors
    /// `Io` if no thread can be started. What else may happen comes from the reply: a prompt that does not fit, a device that failed for good.
    pub fn ask(&mut self, text: impl Into<String>) -> Result<Response<'_>> {
        let mut replies = match self.replies.take() {
            Some(replies) => replies,
            None => self.model.replies(&self.options)?,
        };
        let mut conversation = self.conversation.clone();
        conversation.ask(text);
        let (send, deltas) = channel();
        let stop = Arc::new(AtomicBool::new(false));
        let (model, stopped) = (self.model.clone(), stop.clone());
        let worker = std::thread::Builder::new().name("reply".into()).spawn(move || {
            let reply = reply(&model, &mut replies, &mut conversation, &send, stopped);
            (replies, conversation, reply)
        });
        let worker = worker.map_err(|e| Error::io("no thread for the reply could be started", e))?;
        Ok(Response { chat: self, worker: Some(worker), deltas: Some(deltas), stop, heard: false, reply: None })
    }
}

/// Replies when nobody else has the session. A receiver that is gone ends the reply.
fn reply(
    model: &Model,
    replies: &mut chat::Chat,
    conversation: &mut Conversation,
    send: &Sender<Delta>,
    stop: Arc<AtomicBool>,
) -> Result<Reply> {
    let mut session = model.shared.session(stop);
    let mut on_delta = |delta| send.send(delta).map_or(ControlFlow::Break(()), |()| ControlFlow::Continue(()));
    replies.reply(&mut session, conversation, &mut on_delta)
}

type Worker = JoinHandle<(chat::Chat, Conversation, Result<Reply>)>;

/// A reply that is under way: an iterator over what each token adds to it.
pub struct Response<'c> {
    chat: &'c mut Chat,
    worker: Option<Worker>,
    deltas: Option<Receiver<Delta>>,
    stop: Arc<AtomicBool>,
    // Whether anything of it was handed out.
    heard: bool,
    reply: Option<Reply>,
}

impl Response<'_> {
    /// Waits for the end; returns the whole reply, with its counts, times and reason to end.
    ///
    /// # Errors
    /// What happened meanwhile; that it failed, if the error was an item already.
    pub fn finish(mut self) -> Result<Reply> {
        for delta in &mut self {
            delta?;
        }
        let failed = || Error::new(ErrorKind::Io, "the reply has failed; the error was an item of it");
        self.reply.take().ok_or_else(failed)
    }

    /// Takes back what the worker had.
    fn join(&mut self) -> Option<Error> {
        self.deltas = None;
        match self.worker.take()?.join() {
            Ok((replies, conversation, reply)) => {
                self.chat.replies = Some(replies);
                match reply {
                    Ok(reply) => {
                        // What nobody has heard was stopped: it is as if nothing had been asked.
                        if !reply.is_empty() && (self.heard || reply.generation.finish != FinishReason::Cancelled) {
                            self.chat.conversation = conversation;
                        }
                        self.reply = Some(reply);
                        None
                    }
                    Err(e) => Some(e),
                }
            }
            Err(_) => Some(Error::new(ErrorKind::Io, "the reply ended in a panic").help("please report it")),
        }
    }
}

impl Iterator for Response<'_> {
    type Item = Result<Delta>;

    fn next(&mut self) -> Option<Result<Delta>> {
        match self.deltas.as_ref()?.recv() {
            Ok(delta) => {
                self.heard = true;
                Some(Ok(delta))
            }
            Err(_) => self.join().map(Err),
        }
    }
}

impl Drop for Response<'_> {
    /// Stops it: in the prompt after the batch that is being computed, else after the token. Waits for that.
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        let _ = self.join();
    }
}
