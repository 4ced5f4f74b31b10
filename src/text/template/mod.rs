//! Chat templates: from messages to a prompt whose every character knows who wrote it.
//!
//! Templates are Jinja2 as Hugging Face transformers runs it (`trim_blocks`, `lstrip_blocks`, loop controls,
//! `{% generation %}`, `raise_exception`, `strftime_now`, its `tojson`). They come with model files, from strangers, and
//! they mix the text of users with control tokens. Two things must hold that a general engine cannot give:
//!
//! 1. **Control tokens in user text never become control tokens.** A [`Prompt`] is a list of
//!    [`Segment`](crate::text::Segment)s, each of template or of user text, and the tokenizer looks for control tokens inside template segments only. Templates
//!    concatenate, trim, split, replace and serialize user text, so origin has to follow the characters through every
//!    operation. Marks in the text itself could be forged, and would change lengths, comparisons and splits. Rendering
//!    twice with altered user text and comparing fails where a template looks at the text (`'</think>' in content`).
//!    So strings here carry their origin beside the characters (`taint`), and every operation passes it on: nothing in
//!    band, nothing to forge, and a template computes exactly what it would with plain strings.
//! 2. **A hostile template costs a bounded amount** of time, memory and stack (`limits`). Counting an engine's
//!    instructions is not enough: forty doublings of a string are a hundred instructions and a terabyte.
//!
//! Hence an engine of our own: `lexer` and `parser` give a tree (`ast`), `interp` and `eval` run it over `value`s.

mod ast;
mod checks;
mod clock;
mod eval;
mod fault;
mod filters;
mod filters_seq;
mod format;
mod functions;
mod interp;
mod json;
mod lexer;
mod limits;
mod methods;
mod methods_str;
mod named;
mod operators;
mod parser;
mod parser_expr;
mod probe;
mod prompt;
mod render;
mod repr;
mod scope;
mod taint;
mod value;

pub use clock::Clock;
pub use prompt::Prompt;
pub use render::{Capabilities, ChatTemplate, RenderOptions};

#[cfg(test)]
mod engine_tests;
#[cfg(test)]
mod golden_tests;
#[cfg(test)]
mod hostile_tests;
