//! What a conversation needs of a model: its turns as tokens, and the sampler for its vocabulary.

use super::Model;
use crate::base::Result;
use crate::sample::{Sampler, SamplerOptions, VocabInfo, tokenize_breakers};
use crate::text::{ChatTemplate, Message, ReasoningStyle, RenderOptions};

impl Model {
    /// The tokens of a conversation by `template`, with the start of an answer; and the style of the reasoning that it begins in, if
    /// it does. `think` turns thinking on or off, where the template can. Models that take no system message get it with the first question.
    pub fn prompt(
        &self,
        template: &ChatTemplate,
        messages: &[Message],
        think: Option<bool>,
    ) -> Result<(Vec<u32>, Option<ReasoningStyle>)> {
        let folded;
        let messages = match template.capabilities().system {
            true => messages,
            false => {
                folded = Message::fold_system(messages);
                &folded
            }
        };
        let options = RenderOptions { enable_thinking: think, ..RenderOptions::default() };
        let prompt = template.render(messages, &options)?;
        let tokenizer = self.tokenizer()?;
        let mut ids = tokenizer.encode(&prompt.segments(), false)?;
        // Some templates begin with the first token, others leave it to the tokenizer; the last one would end the answer.
        if let Some(first) = tokenizer.added_first().filter(|first| ids.first() != Some(first)) {
            ids.insert(0, first);
        }
        Ok((ids, prompt.opened_reasoning()))
    }

    /// A sampler by `options` for contexts of so many tokens. Fails if the options make no sense for the model.
    pub fn sampler(&self, options: &SamplerOptions, context: usize) -> Result<Sampler> {
        let breakers = if options.dry_multiplier > 0.0 {
            let tokenizer = self.tokenizer()?;
            let piece = |id: u32| tokenizer.token_bytes(id).into();
            let tokenize =
                |text: &[u8]| tokenizer.encode_text(&String::from_utf8_lossy(text), false).unwrap_or_default();
            tokenize_breakers(&options.dry_sequence_breakers, tokenizer.len() as u32, piece, tokenize)
        } else {
            Vec::new()
        };
        let mut options = options.clone();
        // Tokens that the model's makers never want drawn; what the user says of one wins.
        let suppressed = self.gguf().metadata().i32s("tokenizer.ggml.suppress_tokens")?.unwrap_or_default();
        for token in suppressed
            .into_iter()
            .filter_map(|id| u32::try_from(id).ok())
            .filter(|id| (*id as usize) < self.spec().vocab)
        {
            if options.logit_bias.iter().all(|(biased, _)| *biased != token) {
                options.logit_bias.push((token, f32::NEG_INFINITY));
            }
        }
        Sampler::new(&options, &VocabInfo { tokens: self.spec().vocab, context, dry_breakers: &breakers })
    }
}
