//! Templates for models that bring none: the formats of well-known families, in our own words, for `--chat-template`.

use super::render::ChatTemplate;
use crate::base::{Error, Result};

/// Names and sources.
const NAMED: [(&str, &str); 10] = [
    (
        "chatml",
        "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>\n' }}{% endfor %}\
         {% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}",
    ),
    (
        "llama3",
        "{{ bos_token }}{% for m in messages %}\
         {{ '<|start_header_id|>' + m.role + '<|end_header_id|>\n\n' + m.content|trim + '<|eot_id|>' }}{% endfor %}\
         {% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}",
    ),
    (
        "llama2",
        "{% set ns = namespace(system='') %}{% for m in messages %}{% if m.role == 'system' %}\
         {% set ns.system = '<<SYS>>\n' + m.content + '\n<</SYS>>\n\n' %}{% elif m.role == 'assistant' %}\
         {{ ' ' + m.content|trim + ' ' + eos_token }}{% else %}\
         {{ bos_token + '[INST] ' + ns.system + m.content|trim + ' [/INST]' }}{% set ns.system = '' %}{% endif %}{% endfor %}",
    ),
    (
        "mistral",
        "{{ bos_token }}{% set ns = namespace(system='') %}{% for m in messages %}{% if m.role == 'system' %}\
         {% set ns.system = m.content + '\n\n' %}{% elif m.role == 'assistant' %}{{ ' ' + m.content|trim + eos_token }}\
         {% else %}{{ '[INST] ' + ns.system + m.content|trim + ' [/INST]' }}{% set ns.system = '' %}{% endif %}{% endfor %}",
    ),
    (
        "gemma",
        "{{ bos_token }}{% set ns = namespace(system='') %}{% for m in messages %}{% if m.role == 'system' %}\
         {% set ns.system = m.content|trim + '\n\n' %}{% else %}\
         {{ '<start_of_turn>' + ('model' if m.role == 'assistant' else 'user') + '\n' + ns.system + m.content|trim \
         + '<end_of_turn>\n' }}{% set ns.system = '' %}{% endif %}{% endfor %}\
         {% if add_generation_prompt %}{{ '<start_of_turn>model\n' }}{% endif %}",
    ),
    (
        "phi3",
        "{% for m in messages %}{{ '<|' + m.role + '|>\n' + m.content + '<|end|>\n' }}{% endfor %}\
         {% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% endif %}",
    ),
    (
        "zephyr",
        "{% for m in messages %}{{ '<|' + m.role + '|>\n' + m.content + eos_token + '\n' }}{% endfor %}\
         {% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% endif %}",
    ),
    (
        "deepseek",
        "{{ bos_token }}{% for m in messages %}{% if m.role == 'user' %}{{ '<｜User｜>' + m.content }}\
         {% elif m.role == 'assistant' %}{{ '<｜Assistant｜>' + m.content + eos_token }}{% else %}{{ m.content }}{% endif %}\
         {% endfor %}{% if add_generation_prompt %}{{ '<｜Assistant｜>' }}{% endif %}",
    ),
    (
        "command-r",
        "{{ bos_token }}{% for m in messages %}{% set who = {'system': 'SYSTEM', 'assistant': 'CHATBOT'}[m.role]|d('USER') %}\
         {{ '<|START_OF_TURN_TOKEN|><|' + who + '_TOKEN|>' + m.content|trim + '<|END_OF_TURN_TOKEN|>' }}{% endfor %}\
         {% if add_generation_prompt %}{{ '<|START_OF_TURN_TOKEN|><|CHATBOT_TOKEN|>' }}{% endif %}",
    ),
    (
        "vicuna",
        "{% for m in messages %}{% if m.role == 'system' %}{{ m.content + '\n\n' }}{% elif m.role == 'assistant' %}\
         {{ 'ASSISTANT: ' + m.content + eos_token + '\n' }}{% else %}{{ 'USER: ' + m.content + '\n' }}{% endif %}{% endfor %}\
         {% if add_generation_prompt %}{{ 'ASSISTANT:' }}{% endif %}",
    ),
];

impl ChatTemplate {
    /// The names [`ChatTemplate::named`] knows.
    pub fn names() -> impl Iterator<Item = &'static str> {
        NAMED.iter().map(|(name, _)| *name)
    }

    /// A template of our own for a well-known format, such as `chatml`. Fails, listing the names, if there is none.
    pub fn named(name: &str, bos: &str, eos: &str) -> Result<ChatTemplate> {
        match NAMED.iter().find(|(known, _)| *known == name) {
            Some((_, source)) => ChatTemplate::new(source, bos, eos),
            None => Err(Error::usage(format!("no chat template is called {name:?}")).help(format!(
                "name one of {}, or a file with a Jinja template",
                Self::names().collect::<Vec<_>>().join(", ")
            ))),
        }
    }

    /// The error for a model without a template.
    pub fn missing() -> Error {
        let names = Self::names().collect::<Vec<_>>().join(", ");
        Error::unsupported("the model brings no chat template").help(format!(
            "name the format it was trained with, as --chat-template chatml (known: {names}), or use `complete`"
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::text::{Message, RenderOptions};

    fn render(name: &str) -> String {
        let talk = [Message::system("S"), Message::user("U"), Message::assistant("A"), Message::user("V")];
        let template = ChatTemplate::named(name, "<s>", "</s>").unwrap();
        assert!(template.capabilities().system, "{name}");
        template.render(&talk, &RenderOptions::default()).unwrap().text().to_string()
    }

    #[test]
    fn well_known_formats() {
        let expected = [
            (
                "chatml",
                "<|im_start|>system\nS<|im_end|>\n<|im_start|>user\nU<|im_end|>\n<|im_start|>assistant\nA<|im_end|>\n<|im_start|>user\nV<|im_end|>\n<|im_start|>assistant\n",
            ),
            (
                "llama3",
                "<s><|start_header_id|>system<|end_header_id|>\n\nS<|eot_id|><|start_header_id|>user<|end_header_id|>\n\nU<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\nA<|eot_id|><|start_header_id|>user<|end_header_id|>\n\nV<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n",
            ),
            ("llama2", "<s>[INST] <<SYS>>\nS\n<</SYS>>\n\nU [/INST] A </s><s>[INST] V [/INST]"),
            ("mistral", "<s>[INST] S\n\nU [/INST] A</s>[INST] V [/INST]"),
            (
                "gemma",
                "<s><start_of_turn>user\nS\n\nU<end_of_turn>\n<start_of_turn>model\nA<end_of_turn>\n<start_of_turn>user\nV<end_of_turn>\n<start_of_turn>model\n",
            ),
            (
                "phi3",
                "<|system|>\nS<|end|>\n<|user|>\nU<|end|>\n<|assistant|>\nA<|end|>\n<|user|>\nV<|end|>\n<|assistant|>\n",
            ),
            ("zephyr", "<|system|>\nS</s>\n<|user|>\nU</s>\n<|assistant|>\nA</s>\n<|user|>\nV</s>\n<|assistant|>\n"),
            ("deepseek", "<s>S<｜User｜>U<｜Assistant｜>A</s><｜User｜>V<｜Assistant｜>"),
            (
                "command-r",
                "<s><|START_OF_TURN_TOKEN|><|SYSTEM_TOKEN|>S<|END_OF_TURN_TOKEN|><|START_OF_TURN_TOKEN|><|USER_TOKEN|>U<|END_OF_TURN_TOKEN|><|START_OF_TURN_TOKEN|><|CHATBOT_TOKEN|>A<|END_OF_TURN_TOKEN|><|START_OF_TURN_TOKEN|><|USER_TOKEN|>V<|END_OF_TURN_TOKEN|><|START_OF_TURN_TOKEN|><|CHATBOT_TOKEN|>",
            ),
            ("vicuna", "S\n\nUSER: U\nASSISTANT: A</s>\nUSER: V\nASSISTANT:"),
        ];
        assert_eq!(expected.map(|(name, _)| name).to_vec(), ChatTemplate::names().collect::<Vec<_>>());
        for (name, text) in expected {
            assert_eq!(render(name), text, "{name}");
        }
    }

    #[test]
    fn an_unknown_name_lists_the_known_ones() {
        let error = ChatTemplate::named("chatlm", "", "").unwrap_err().to_string();
        assert!(error.contains("\"chatlm\"") && error.contains("chatml, llama3"), "{error}");
        assert!(ChatTemplate::missing().to_string().contains("--chat-template chatml"));
    }
}
