//! A model on a device, and one conversation's cache: what the page's worker loads, asks and frees.

use crate::chat::{Answer, AnswerOptions};
use crate::host::{self, File};
use crate::thrown;
use serde::Deserialize;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use wasm_bindgen::prelude::*;
use wgpu_llm::low_level::base::{DType, Error, ErrorKind, Result};
use wgpu_llm::low_level::chat::{Chat, ChatOptions, Conversation, Delta};
use wgpu_llm::low_level::gguf::{Gguf, Source};
use wgpu_llm::low_level::gpu::{self, Device};
use wgpu_llm::low_level::model::Model;
use wgpu_llm::low_level::plan::predict::Sizes;
use wgpu_llm::low_level::plan::{DeviceMap, Options};
use wgpu_llm::low_level::profile::summary;
use wgpu_llm::low_level::run::Session;
use wgpu_llm::low_level::text::Message;

/// Whether the answer under way is to end.
static STOP: AtomicBool = AtomicBool::new(false);

/// Ends the answer under way after the token, or the batch of the prompt, that is being computed.
#[wasm_bindgen]
pub fn stop() {
    STOP.store(true, Ordering::Relaxed);
}

fn stops() -> bool {
    STOP.load(Ordering::Relaxed)
}

/// Tokens of context where nobody asks for more: its cache is a small part of what GPUs have.
const CONTEXT: usize = 4096;
/// Tokens of a prompt that the CPU computes before the worker hears what was sent to it.
const CPU_BATCH: usize = 32;
/// What WebAssembly can address, less what programs and vocabularies take.
const HEAP: u64 = (4 << 30) - (512 << 20);

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FileOf {
    id: u32,
    name: String,
    length: u64,
}

/// How a model is loaded.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct LoadOptions {
    files: Vec<FileOf>,
    /// `auto`, `gpu` or `cpu`.
    device: Option<String>,
    context: Option<usize>,
    /// One of the well-known chat templates, in place of the model's own.
    template: Option<String>,
    /// Bytes of GPU memory that may be used.
    memory: Option<u64>,
    /// Smallest and largest subgroup, if the worker has subgroups turned on.
    subgroups: Option<(u32, u32)>,
    /// Bytes that a binding may span, to try out what lesser GPUs do.
    max_binding: Option<u64>,
}

/// A model that answers.
#[wasm_bindgen]
pub struct Engine {
    model: Arc<Model>,
    /// None once it was freed.
    session: Option<Session>,
    chat: Chat,
    profiled: bool,
}

#[wasm_bindgen]
impl Engine {
    /// Loads the model that `options` (JSON) names.
    pub async fn load(options: String) -> Result<Engine, JsValue> {
        Self::open(&options).await.map_err(thrown)
    }

    /// What was loaded, and where to, as JSON.
    pub fn facts(&mut self) -> String {
        let device = self.device();
        let (spec, info) = (self.model.spec(), device.as_ref().map(Device::info));
        let caps = device.as_ref().map(Device::caps);
        serde_json::json!({
            "architecture": spec.architecture().to_string(),
            "layers": spec.layers.len(),
            "weights": self.model.weight_bytes(),
            "context": self.session.as_ref().map(Session::context),
            "device": info.map_or("CPU", |i| if i.name.is_empty() { "GPU" } else { &i.name }),
            "gpu": info.is_some(),
            "gpuBytes": device.as_ref().map_or(0, |d| d.counters().bytes),
            "subgroups": caps.and_then(|c| c.subgroups),
            "f16": caps.is_some_and(|c| c.f16),
            "timestamps": device.as_ref().is_some_and(Device::has_timestamps),
            "thinking": self.chat.template().capabilities().thinking,
        })
        .to_string()
    }

    /// Answers the conversation `messages` (JSON, OpenAI's shape). `say` hears text, reasoning and token as they come.
    pub async fn chat(&mut self, messages: String, options: String, say: js_sys::Function) -> Result<String, JsValue> {
        STOP.store(false, Ordering::Relaxed);
        let answer = self.answer(&messages, &options, &say).await.map_err(thrown)?;
        Ok(serde_json::to_string(&answer).expect("plain data"))
    }

    /// Frees the GPU's memory.
    pub fn unload(&mut self) {
        let device = self.device();
        self.session = None;
        device.iter().for_each(Device::destroy);
    }

    /// Destroys the device as if it had been lost: for tests of what happens then.
    #[wasm_bindgen(js_name = loseDevice)]
    pub fn lose_device(&mut self) {
        self.device().iter().for_each(Device::destroy);
    }

    /// Begins to note how long kernels take, or ends it.
    pub fn profile(&mut self, on: bool) -> Result<(), JsValue> {
        self.profiled = on;
        let Some(session) = &mut self.session else { return Ok(()) };
        session.engine().set_trace(on).map_err(thrown)?;
        Ok(())
    }

    /// What was noted, as the JSON of `wgpu-llm chat --profile-json`.
    pub fn summary(&mut self) -> Result<Option<String>, JsValue> {
        let Some(session) = &mut self.session else { return Ok(None) };
        let profile = session.engine().trace().map_err(thrown)?;
        Ok(profile.map(|profile| summary::to_json(profile).to_string()))
    }
}

impl Engine {
    /// The GPU in use: another one after it was lost.
    fn device(&mut self) -> Option<Device> {
        self.session.as_mut().and_then(|session| session.engine().device().cloned())
    }

    async fn open(options: &str) -> Result<Engine> {
        let options: LoadOptions = parse(options, "options")?;
        let sources = options
            .files
            .iter()
            .map(|f| Source::streamed_from(Box::new(File { id: f.id, length: f.length })).named(f.name.clone()));
        let model = Arc::new(Model::new(Gguf::from_sources(sources.collect())?)?);
        let template = match &options.template {
            Some(name) => model.chat_template_named(name)?,
            None => model.chat_template()?,
        };
        let device = open_device(&options).await?;
        let session = session(&model, device, &options).await?;
        let chat = Chat::new(&model, session.context(), template, ChatOptions::default())?;
        Ok(Engine { model, session: Some(session), chat, profiled: false })
    }

    async fn answer(&mut self, messages: &str, options: &str, say: &js_sys::Function) -> Result<Answer> {
        let messages: Vec<Message> = parse(messages, "messages")?;
        let options: AnswerOptions = parse(options, "options")?;
        let Some(session) = &mut self.session else {
            return Err(Error::usage("the model was freed").help("load it again"));
        };
        if self.profiled && session.engine().trace()?.is_none() {
            session.engine().set_trace(true)?;
        }
        let options = ChatOptions::from(options);
        // Otherwise random numbers go on, so that another answer is another one.
        if options != *self.chat.options() {
            self.chat.set_options(&self.model, session.context(), options)?;
        }
        let mut hear = |delta: Delta| {
            // What was held back comes with the whole answer.
            if let Some(token) = delta.token {
                // An error of the callback does not end the answer.
                let _ = say.call3(&JsValue::NULL, &delta.content.into(), &delta.reasoning.into(), &token.into());
            }
            if stops() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        };
        let reply = self.chat.reply_async(session, &mut Conversation::from(messages), &mut hear).await?;
        Ok(Answer::new(reply, session.cached_tokens().len()))
    }
}

/// The device that is meant; none for the CPU.
pub async fn open_device(options: &LoadOptions) -> Result<Option<Device>> {
    let wanted = options.device.as_deref().unwrap_or("auto");
    if wanted == "cpu" {
        return Ok(None);
    }
    let adapter = match gpu::adapters().await.into_iter().next() {
        Some(adapter) => adapter,
        None if wanted == "auto" => return Ok(None),
        None => {
            return Err(Error::new(ErrorKind::NoDevice, "this browser offers no GPU (WebGPU)")
                .help("use a browser with WebGPU, or choose the CPU"));
        }
    };
    let mut device = Device::of(&adapter).await?;
    device.restrict(|caps| {
        // The browser has them where the worker asked for them; wgpu does not know that.
        caps.subgroups = options.subgroups.filter(|(least, _)| *least >= 4);
        caps.max_binding = options.max_binding.map_or(caps.max_binding, |most| caps.max_binding.min(most));
    });
    if let Some(bytes) = options.memory {
        device.set_budget(bytes);
    }
    Ok(Some(device))
}

/// A session of `model` on `device`; an error if that has too little memory, before anything is uploaded.
async fn session(model: &Arc<Model>, device: Option<Device>, options: &LoadOptions) -> Result<Session> {
    let spec = model.spec();
    let context = options.context.unwrap_or(CONTEXT.min(spec.context_length));
    let batch = if device.is_some() { 256 } else { CPU_BATCH };
    let options = Options { context, batch: batch.min(context), kv: DType::F16.into(), ..Options::default() };
    // A context that cannot be is the session's to refuse.
    let possible = Options { context: context.clamp(1, spec.context_length), ..options.clone() };
    let (sizes, layers) = (Sizes::of(model, device.as_ref(), &possible)?, spec.layers.len());
    let (need, have, kind, whose) = match &device {
        Some(device) => {
            let need = sizes.predict(&sizes.possible(DeviceMap::gpu(layers)), None)?.gpu_need();
            let name = if device.info().name.is_empty() { "the GPU" } else { &device.info().name };
            (need, device.probe_free_memory(need).await?, ErrorKind::OutOfMemory, format!("memory on {name}"))
        }
        None => (
            sizes.predict(&DeviceMap::cpu(layers), None)?.cpu_bytes(),
            HEAP,
            ErrorKind::OutOfSystemMemory,
            "memory in WebAssembly".into(),
        ),
    };
    drop(sizes);
    model.check_fits(need.saturating_sub(model.weight_bytes()), have, (kind, &whose))?;
    let mut session = Session::new_async(model.clone(), device, options).await?;
    session.stop_when(stops);
    session.pause_with(|| Box::pin(host::pause()));
    session.when_recovered(|recovery| host::recovered(&recovery.to_string(), recovery.device.is_some()));
    Ok(session)
}

/// Options and messages, as JavaScript sends them.
pub fn parse<T: for<'de> Deserialize<'de>>(json: &str, what: &str) -> Result<T> {
    serde_json::from_str(json).map_err(|e| Error::usage(format!("the {what} are not as they should be: {e}")))
}
