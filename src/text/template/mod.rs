//! Chat templates: from messages to a prompt whose every character knows who wrote it.
//!
//! Templates are Jinja2 as Hugging Face transformers runs it. They come with model files, from strangers, and they mix
//! the text of users with control tokens. `environment` runs them on minijinja, with `python`'s texts of values; `meter`
//! bounds what they may cost; `provenance` tells which characters of the result users wrote, so that a [`Prompt`] is a list
//! of [`Segment`](crate::text::Segment)s and the tokenizer looks for control tokens in the template's segments only.

mod clock;
mod control;
mod environment;
mod mask;
mod meter;
mod named;
mod probe;
mod prompt;
mod provenance;
mod python;
mod render;

pub use clock::Clock;
pub use control::ControlTokens;
pub use prompt::Prompt;
pub use render::{Capabilities, ChatTemplate, RenderOptions};

#[cfg(test)]
mod engine_tests;
#[cfg(test)]
mod golden_tests;
#[cfg(test)]
mod hostile_tests;
