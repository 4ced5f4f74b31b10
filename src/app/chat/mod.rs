//! `chat`: a conversation with a model, in a terminal or from lines of text.

mod screen;
mod settings;

use super::args::Length;
use super::cache_file::{self, CacheFile};
use super::complete::speed;
use super::input;
use super::load::{self, EngineArgs};
use super::repl::{Editor, HELP, Input, ReplCommand, Topic};
use super::sampling::SamplingArgs;
use super::term::{self, Stream};
use crate::base::{Error, ErrorKind, Result};
use crate::chat::{Chat, ChatOptions, Conversation, Reply, WhenFull};
use crate::model::Model;
use crate::run::schedule::FinishReason;
use crate::run::{Generation, SavedCache, Session};
use crate::text::{ChatTemplate, Message};
use clap::Args;
use screen::Screen;
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};

/// Arguments of `chat`.
#[derive(Debug, Args)]
pub struct ChatArgs {
    /// The first prompt. On a terminal the chat goes on after its answer. What is piped in at once goes before it.
    #[arg(short, long, value_name = "TEXT", env = "WGPU_LLM_PROMPT")]
    prompt: Option<OsString>,
    /// A file whose text goes before the first prompt, or is it; - for standard input, which is waited for then.
    #[arg(short, long, value_name = "FILE", env = "WGPU_LLM_FILE")]
    file: Option<PathBuf>,
    /// [-sys] What the model is told before the chat; an empty text leaves out the template's own.
    #[arg(long, value_name = "TEXT", env = "WGPU_LLM_SYSTEM_PROMPT", conflicts_with = "system_prompt_file")]
    system_prompt: Option<OsString>,
    /// [-sysf] A file with what the model is told before the chat.
    #[arg(long, value_name = "FILE", env = "WGPU_LLM_SYSTEM_PROMPT_FILE")]
    system_prompt_file: Option<PathBuf>,
    /// Tokens of an answer at most; -1 for as many as the model wants, with old turns forgotten for it where the context is full; -2
    /// until the context is full.
    #[arg(short, long, value_name = "N", default_value = "-1", env = "WGPU_LLM_N_PREDICT")]
    n_predict: Length,
    /// The chat template: the name of a well-known one (chatml, llama3 …), or a file. Default: the model's own.
    #[arg(long, value_name = "NAME|FILE", env = "WGPU_LLM_CHAT_TEMPLATE")]
    chat_template: Option<OsString>,
    /// Keep what was computed in FILE: a chat that begins as the last one did, with the same system prompt or as /load FILE goes on with it, only has
    /// the rest of it computed. The file is made if it is not there, and written anew at the end of the chat. It holds the conversation: on
    /// Unix only its owner can read it.
    #[arg(long, value_name = "FILE", env = "WGPU_LLM_CACHE_FILE")]
    cache_file: Option<PathBuf>,
    /// Show in a window beside the terminal where the time goes.
    #[arg(long, env = "WGPU_LLM_PROFILE")]
    profile: bool,
    #[command(flatten)]
    engine: EngineArgs,
    #[command(flatten)]
    sampling: SamplingArgs,
}

/// Chats until the end of the input.
pub fn run(args: &ChatArgs) -> Result<()> {
    if args.n_predict == Length::AtMost(0) {
        return Err(Error::usage("-n 0 leaves no room for an answer").help("use 1 or more, or -1 for no limit"));
    }
    let mut conversation = Conversation::default();
    if let Some(system) = system(args)? {
        conversation.set_system(system);
    }
    let sampling = args.sampling.options()?;
    let first = first_prompt(args)?;
    let mut editor = Editor::new()?;
    let mut cache = args.cache_file.as_deref().map(CacheFile::open).transpose()?;
    let mut session = load::session_with(&args.engine, cache.as_mut())?;
    let window = if args.profile { Some(load::watch(&mut session)?) } else { None };
    let template = template(session.model(), args.chat_template.as_deref())?;
    let when_full = if args.n_predict == Length::UntilFull { WhenFull::Forget } else { WhenFull::ForgetAndGoOn };
    let options = ChatOptions { limit: args.n_predict.limit(), when_full, sampling, ..ChatOptions::default() };
    let mut console = Console {
        chat: Chat::new(session.model(), session.context(), template, options)?,
        session,
        conversation,
        sampling: args.sampling.clone(),
        on_terminal: editor.is_terminal(),
        attached: String::new(),
        last: None,
    };
    let mut done = console.go_on(first, &mut editor);
    // Of a chat that was never begun, or forgotten, nothing is kept: the file stays as it was.
    let messages = console.conversation.messages();
    if let Some(cache) = cache.filter(|_| !messages.iter().all(Message::is_system)) {
        let kept = console.chat.keep_only(&mut console.session, &console.conversation);
        done = cache.finish(&mut console.session, messages, done.and(kept));
    }
    load::finish(&args.engine, &mut console.session, done)?;
    if let Some(mut window) = window {
        console.session.engine().set_trace(false)?;
        window.finish();
    }
    Ok(())
}

/// The first prompt, if the command line has one: a text from a file or a pipe goes before the question.
fn first_prompt(args: &ChatArgs) -> Result<Option<String>> {
    let question = args.prompt.as_deref().map(|text| input::argument(text, "the prompt"));
    let text = match &args.file {
        Some(path) => Some(input::prompt_file(path)?),
        None if question.is_some() => input::beside_question()?,
        None => None,
    };
    match (text.filter(|text| !text.trim().is_empty()), question) {
        (Some(text), Some(question)) => Ok(Some(format!("{}\n\n{question}", text.trim_end()))),
        (Some(text), None) => Ok(Some(text.trim_end().to_string())),
        (None, None) if args.file.is_some() => Err(Error::usage("an empty prompt")
            .at(input::place(args.file.as_deref()))
            .help("write something into it, or ask with -p")),
        (None, question) => Ok(question),
    }
}

fn system(args: &ChatArgs) -> Result<Option<String>> {
    match (&args.system_prompt, &args.system_prompt_file) {
        (Some(text), _) => Ok(Some(input::argument(text, "the system prompt"))),
        (None, Some(path)) => input::small_file(path).map(|text| Some(text.trim_end().to_string())),
        (None, None) => Ok(None),
    }
}

/// The template that is meant: a file's, a well-known one, or the model's.
pub(super) fn template(model: &Model, meant: Option<&OsStr>) -> Result<ChatTemplate> {
    let Some(name) = meant else { return model.chat_template() };
    let path = Path::new(name);
    if path.exists() && !path.is_dir() {
        return model.chat_template_from(&input::small_file(path)?).map_err(|e| e.at(path.display()));
    }
    model.chat_template_named(&name.to_string_lossy())
}

/// A chat under way.
struct Console {
    session: Session,
    chat: Chat,
    conversation: Conversation,
    sampling: SamplingArgs,
    on_terminal: bool,
    /// Text of files for the next prompt.
    attached: String,
    last: Option<Reply>,
}

impl Console {
    /// Takes the prompt there is from the beginning, and what comes, until there is no more. Mistakes are told, and the chat goes on;
    /// a script's ends with an error then.
    fn go_on(&mut self, prompt: Option<String>, editor: &mut Editor) -> Result<()> {
        let has_first = prompt.is_some();
        if let Some(prompt) = prompt {
            match self.ask(prompt) {
                Err(e) if self.on_terminal && can_go_on(&e) => {
                    term::report(&e);
                }
                done => {
                    done?;
                }
            }
        } else if self.on_terminal {
            term::note("/help lists the commands, Ctrl-D leaves");
        }
        let (mut inputs, mut failures) = (0, 0);
        // A prompt given in a script is the whole chat: its standard input may never end.
        while self.on_terminal || !has_first {
            // What ends it: an input that cannot be read; for a script also a model's file that cannot be.
            let (done, ends) = match editor.next_input() {
                Ok(Some(Input::Prompt(text))) => (self.ask(text), !self.on_terminal),
                Ok(Some(Input::Command(command))) => (self.obey(command), false),
                Ok(None) => break,
                Err(e) => (Err(e), true),
            };
            inputs += 1;
            match done {
                Ok(true) => break,
                Ok(false) => {}
                Err(e) if !can_go_on(&e) || (ends && e.kind() == ErrorKind::Io) => return Err(e),
                Err(e) if self.on_terminal => {
                    term::report(&e);
                }
                Err(e) => {
                    failures += 1;
                    term::report(&e.at(editor.place()));
                }
            }
        }
        if failures > 0 {
            return Err(
                Error::format(format!("{failures} of {inputs} prompts and commands failed")).at(input::place(None))
            );
        }
        Ok(())
    }

    /// Answers a prompt, what was read before it included; never to leave.
    fn ask(&mut self, text: String) -> Result<bool> {
        let (attached, before) = (std::mem::take(&mut self.attached), self.conversation.clone());
        self.conversation.ask(format!("{attached}{text}"));
        self.answer(before).map(|()| false)
    }

    /// Answers the last question. Without an answer, be it a failure or Ctrl-C, the conversation is as it was `before`.
    fn answer(&mut self, before: Conversation) -> Result<()> {
        let mut screen = Screen::new();
        let reply = self.chat.reply(&mut self.session, &mut self.conversation, &mut |delta| screen.show(&delta));
        let reply = reply.and_then(|reply| screen.finish().map(|()| reply));
        let said = reply.as_ref().is_ok_and(|reply| !reply.is_empty());
        if !said {
            self.conversation = before;
        }
        let reply = reply?;
        if said && reply.forgotten > 0 {
            let turns =
                if reply.forgotten == 1 { "turn was".into() } else { format!("{} turns were", reply.forgotten) };
            let context = self.session.context();
            term::warn(format_args!(
                "the context of {context} tokens is full: the oldest {turns} forgotten (-c makes it larger)"
            ));
        }
        match reply.generation.finish {
            FinishReason::Context => term::warn("the context is full: the answer ends here (-c makes it larger)"),
            FinishReason::Limit => {
                dim(format_args!("the answer has {} tokens, the limit of -n", reply.generation.tokens.len()));
            }
            FinishReason::Cancelled if self.on_terminal && said => dim("stopped"),
            FinishReason::Cancelled if self.on_terminal => {
                dim("stopped before the answer: as if nothing had been asked")
            }
            FinishReason::Cancelled | FinishReason::Deadline | FinishReason::Failed => term::check_interrupt()?,
            FinishReason::Stop => {}
        }
        if Stream::Stderr.is_terminal() && self.on_terminal {
            dim(self.stats(&reply.generation));
        }
        self.last = Some(reply);
        term::clear_interrupt();
        Ok(())
    }

    fn stats(&self, generation: &Generation) -> String {
        let (used, context) = (self.session.cached_tokens().len(), self.session.context());
        format!("{}; {used} of {context} tokens of context", speed(generation))
    }

    /// Does what a command says; whether that is to leave.
    fn obey(&mut self, command: ReplCommand) -> Result<bool> {
        match command {
            ReplCommand::Help => term::note(HELP.trim_end()),
            ReplCommand::Exit => return Ok(true),
            ReplCommand::Clear => {
                self.conversation.clear();
                self.attached.clear();
                dim("the chat is forgotten, but not the system prompt");
            }
            ReplCommand::Set { key, value } => self.set(&key, &value)?,
            ReplCommand::Show(topic) => term::note(self.show(topic).trim_end()),
            ReplCommand::Load(path) => self.load(&path)?,
            ReplCommand::Save(path) => {
                self.conversation.save(&path)?;
                term::note(format_args!("{} messages in {}", self.conversation.messages().len(), path.display()));
            }
            ReplCommand::SaveCache(path) => {
                self.chat.keep_only(&mut self.session, &self.conversation)?;
                cache_file::save(&mut self.session, &path, self.conversation.messages())?;
                let (messages, tokens) = (self.conversation.messages().len(), self.session.cached_tokens().len());
                let tokens = cache_file::count(tokens);
                term::note(format_args!("{messages} messages and {tokens} in {}", path.display()));
            }
            ReplCommand::Read(path) => {
                let text = input::small_file(&path)?;
                self.attached += &format!("{}\n\n", text.trim_end());
                term::note(format_args!("{} characters for the next prompt", text.chars().count()));
            }
            ReplCommand::Regen => self.regenerate()?,
        }
        Ok(false)
    }

    /// Goes on with a saved chat, and with its cache if the file has it.
    fn load(&mut self, path: &Path) -> Result<()> {
        let mut cached = String::new();
        self.conversation = match SavedCache::is_at(path) {
            false => Conversation::from_json(&input::small_file(path)?).map_err(|e| e.at(path.display()))?,
            true => {
                let saved =
                    SavedCache::open(path)?.ok_or_else(|| Error::usage("the file is gone").at(path.display()))?;
                let messages = saved.messages().to_vec();
                let tokens = cache_file::count(saved.tokens().len());
                // The messages are whole, whatever became of the cells or of the model.
                match self.session.load_cache(saved) {
                    Ok(()) => cached = format!(" and {tokens}"),
                    Err(e) if matches!(e.kind(), ErrorKind::Usage | ErrorKind::Format) && !messages.is_empty() => {
                        term::warn(format_args!("{}; the messages are computed anew", e.without_help()));
                    }
                    Err(e) => return Err(e),
                }
                Conversation::from(messages)
            }
        };
        term::note(format_args!("{} messages{cached}", self.conversation.messages().len()));
        Ok(())
    }

    /// Another answer to the last question; the old one comes back where that fails.
    fn regenerate(&mut self) -> Result<()> {
        let before = self.conversation.clone();
        self.conversation
            .reopen()
            .ok_or_else(|| Error::usage("nothing was answered yet").help("write a prompt first"))?;
        if self.chat.options().sampling.temp <= 0.0 {
            dim("at temperature 0 the answer is always the same; /set temp 0.8 gives others");
        }
        self.answer(before)
    }

    fn set(&mut self, key: &str, value: &str) -> Result<()> {
        match key {
            "system" => self.conversation.set_system(value),
            "think" => {
                let think = match value {
                    "on" => Some(true),
                    "off" => Some(false),
                    "auto" => None,
                    _ => return Err(Error::usage(format!("think {value}")).help("write on, off or auto")),
                };
                self.chat.set_think(think);
                if !self.chat.template().capabilities().thinking {
                    term::note("this model's template does not turn thinking on and off");
                }
            }
            key => {
                let args = settings::set(&self.sampling, key, value)?;
                let sampling = args.options()?;
                let options = ChatOptions { sampling, ..self.chat.options().clone() };
                self.chat.set_options(self.session.model(), self.session.context(), options)?;
                self.sampling = args;
            }
        }
        dim(format_args!("{key}: {value}"));
        Ok(())
    }

    fn show(&mut self, topic: Topic) -> String {
        match topic {
            Topic::Model => self.model(),
            Topic::Settings => settings::show(&self.chat.options().sampling),
            Topic::System => {
                self.conversation.system().unwrap_or_else(|| "none: what the template has of its own".into())
            }
            Topic::Template => self.chat.template().source().to_string(),
            Topic::Stats => match &self.last {
                Some(reply) => self.stats(&reply.generation),
                None => "nothing was answered yet".into(),
            },
            Topic::History => {
                let line = |m: &Message| {
                    let text = m.content.as_ref().and_then(|c| c.as_text()).unwrap_or_default();
                    format!("{}: {text}\n", m.role.as_str())
                };
                let said: String = self.conversation.messages().iter().map(line).collect();
                if said.is_empty() { "nothing was said yet".into() } else { said }
            }
        }
    }

    fn model(&mut self) -> String {
        let session = &mut self.session;
        let model = session.model().clone();
        let spec = model.spec();
        let device = match session.engine().device() {
            Some(device) => device.info().name.clone(),
            None => "CPU".into(),
        };
        let row = |name: &str, value: String| vec![name.to_string(), value];
        term::table(&[
            row("architecture", spec.architecture().to_string()),
            row("layers", spec.layers.len().to_string()),
            row("weights", term::bytes(model.weight_bytes())),
            row("context", format!("{} of {} tokens", session.context(), spec.context_length)),
            row("device", device),
        ])
    }
}

/// Whether a chat may go on after `error`: the machine is sound, only what was asked cannot be.
fn can_go_on(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::Usage | ErrorKind::Format | ErrorKind::Unsupported | ErrorKind::Io)
        && !term::interrupted()
        && !term::is_broken_pipe(error)
}

/// Says on stderr what matters little.
fn dim(text: impl std::fmt::Display) {
    term::note(term::paint(Stream::Stderr, "2", &text.to_string()));
}
