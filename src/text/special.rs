//! Tokens with a role: which ids they have, which end an answer, which only a template may produce.
//!
//! Files often leave out roles or types, so some are known by their texts. Lists as in llama.cpp of October 2026.

use super::source::SpecialIds;
use super::vocab::{Class, Vocab};

/// End of turn, where the file names none; the first that exists.
const EOT: &[&str] = &[
    "<|eot_id|>",
    "<|im_end|>",
    "<|end|>",
    "<end_of_turn>",
    "<|endoftext|>",
    "<|end_of_text|>",
    "<EOT>",
    "_<EOT>",
    "[EOT]",
    "<｜end▁of▁sentence｜>",
    "<end_of_utterance>",
];
const EOM: &[&str] = &["<|eom_id|>"];
const FIM_PRE: &[&str] = &[
    "<|fim_prefix|>",
    "<fim-prefix>",
    "<fim_prefix>",
    "<｜fim▁begin｜>",
    "<PRE>",
    "▁<PRE>",
    "<|code_prefix|>",
    "<|prefix|>",
];
const FIM_SUF: &[&str] = &[
    "<|fim_suffix|>",
    "<fim-suffix>",
    "<fim_suffix>",
    "<｜fim▁hole｜>",
    "<SUF>",
    "▁<SUF>",
    "<|code_suffix|>",
    "<|suffix|>",
];
const FIM_MID: &[&str] = &[
    "<|fim_middle|>",
    "<fim-middle>",
    "<fim_middle>",
    "<｜fim▁end｜>",
    "<MID>",
    "▁<MID>",
    "<|code_middle|>",
    "<|middle|>",
];
const FIM_PAD: &[&str] = &["<|fim_pad|>", "<fim-pad>", "<fim_pad>", "<PAD>", "[PAD]"];
const FIM_REP: &[&str] = &["<|fim_repo|>", "<|repo_name|>", "<fim-repo>", "<REPO>", "<reponame>"];
const FIM_SEP: &[&str] = &["<|file_sep|>"];

/// All of these end an answer.
const ENDS: &[&str] = &[
    "<|eot_id|>",
    "<|im_end|>",
    "<|end|>",
    "<|return|>",
    "<|call|>",
    "<|flush|>",
    "<|calls|>",
    "<end_of_turn>",
    "<|endoftext|>",
    "<|eom_id|>",
    "<EOT>",
    "_<EOT>",
    "[EOT]",
    "[EOS]",
    "<|end_of_text|>",
    "<end_of_utterance>",
    "<eos>",
    "<turn|>",
    "<|tool_response>",
    "<｜end▁of▁sentence｜>",
    "[e~[",
];

/// Channel marks that frame the parts of an answer: control tokens, yet the answer's parser must see them.
const SHOWN: &[&str] = &["<|channel|>", "<|message|>", "<|start|>", "<|constrain|>"];

/// HTML elements that some vocabularies carry as user-defined tokens: text, unlike other tokens in angle brackets.
const HTML: &[&str] = &[
    "a",
    "b",
    "blockquote",
    "body",
    "br",
    "caption",
    "code",
    "col",
    "dd",
    "del",
    "div",
    "dl",
    "dt",
    "em",
    "h1",
    "h2",
    "h3",
    "h4",
    "h5",
    "h6",
    "head",
    "hr",
    "html",
    "i",
    "img",
    "li",
    "ol",
    "p",
    "pre",
    "span",
    "strong",
    "sub",
    "sup",
    "table",
    "tbody",
    "td",
    "tfoot",
    "th",
    "thead",
    "title",
    "tr",
    "u",
    "ul",
];

/// Whether a user-defined token is there for templates rather than for text, by its looks:
/// `<…>` other than HTML, or capitals in square brackets.
pub(super) fn is_markup(token: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(token) else { return false };
    if let Some(name) = inside(text, '<', '>') {
        let name = name.strip_prefix('/').unwrap_or(name);
        return !name.contains(char::is_whitespace) && !HTML.contains(&name.strip_suffix('/').unwrap_or(name));
    }
    inside(text, '[', ']').is_some_and(|name| name.chars().all(|c| matches!(c, 'A'..='Z' | '0'..='9' | '_' | '/')))
}

fn inside(text: &str, open: char, close: char) -> Option<&str> {
    text.strip_prefix(open)?.strip_suffix(close).filter(|name| !name.is_empty())
}

/// The roles of a vocabulary.
pub(super) struct Roles {
    /// Ids by role, all in range.
    pub ids: SpecialIds,
    /// Tokens that end an answer, ascending.
    pub ends: Vec<u32>,
}

impl Roles {
    /// Finds the roles; those that `stated` lacks by their texts. Marks the tokens found in `vocab` as control tokens.
    /// A stated id out of range is dropped with a warning: many files name a padding token past the end.
    pub fn new(stated: SpecialIds, defaults: SpecialIds, vocab: &mut Vocab) -> Roles {
        let mut ids = in_range(stated, defaults, vocab.tokens.len());
        // `</s>` ends an answer where it is a control token; elsewhere it is the HTML tag.
        let eos = vocab.id("</s>").filter(|&id| matches!(vocab.class(id), Class::Control { shown: false }));
        let control = Class::Control { shown: false };
        let mut find = |id: &mut Option<u32>, texts: &[&str]| {
            if id.is_none() {
                *id = texts.iter().find_map(|text| vocab.id(text));
                id.iter().for_each(|&id| vocab.classes[id as usize] = control);
            }
        };
        find(&mut ids.eot, EOT);
        find(&mut ids.eom, EOM);
        find(&mut ids.fim_pre, FIM_PRE);
        find(&mut ids.fim_suf, FIM_SUF);
        find(&mut ids.fim_mid, FIM_MID);
        find(&mut ids.fim_pad, FIM_PAD);
        find(&mut ids.fim_rep, FIM_REP);
        find(&mut ids.fim_sep, FIM_SEP);

        let mut ends: Vec<u32> = ENDS.iter().filter_map(|text| vocab.id(text)).collect();
        for &id in &ends {
            vocab.classes[id as usize] = control;
        }
        let shown: Vec<u32> = SHOWN.iter().filter_map(|text| vocab.id(text)).collect();
        for id in shown {
            vocab.classes[id as usize] = Class::Control { shown: true };
        }
        ends.extend([eos, ids.fim_pad, ids.fim_rep, ids.fim_sep, ids.eos, ids.eot, ids.eom].into_iter().flatten());
        except_inner_ends(&mut ends, vocab);
        ends.sort_unstable();
        ends.dedup();
        Roles { ids, ends }
    }
}

/// Harmony and Solar have several messages in an answer; `<|end|>` ends one of them, not the answer.
fn except_inner_ends(ends: &mut Vec<u32>, vocab: &mut Vocab) {
    let has = |text: &str| vocab.id(text).is_some_and(|id| ends.contains(&id));
    let many = (has("<|return|>") && has("<|call|>")) || (has("<|flush|>") && has("<|calls|>"));
    if let Some(id) = vocab.id("<|end|>").filter(|_| many) {
        ends.retain(|&end| end != id);
        vocab.classes[id as usize] = Class::Control { shown: true };
    }
}

fn in_range(mut stated: SpecialIds, mut defaults: SpecialIds, tokens: usize) -> SpecialIds {
    let exists = |id: &u32| (*id as usize) < tokens;
    for ((role, id), (_, default)) in stated.named_mut().into_iter().zip(defaults.named_mut()) {
        if let Some(wrong) = id.filter(|id| !exists(id)) {
            tracing::warn!("the {role} token {wrong} is past the end of a vocabulary of {tokens}; ignored");
        }
        *id = id.or(*default).filter(exists);
    }
    stated
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn markup_is_told_from_text() {
        for markup in
            ["<think>", "</tool_call>", "<|channel|>", "<unused7>", "[INST]", "[/INST]", "[TOOL_CALLS]", "<s>"]
        {
            assert!(is_markup(markup.as_bytes()), "{markup}");
        }
        for text in ["  ", "<table>", "</h1>", "<br/>", "<", "<>", "[]", "[a]", "<a b>", "\n\n", "x>"] {
            assert!(!is_markup(text.as_bytes()), "{text}");
        }
    }
}
