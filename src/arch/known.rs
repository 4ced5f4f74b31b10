//! All metadata keys that model files are known to have, and what becomes of each here: nothing that would change a model's answers
//! is passed over in silence. Source: the key tables of llama.cpp (October 2026) and of the GGUF specification.

use super::keys::Keys;
use crate::base::{Error, Result};
use crate::gguf::{Metadata, Value};

/// What becomes of a key.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Use {
    /// The code of this room asks for it.
    Read,
    /// It tells nothing that a text's logits depend on, or what the tensors tell as well.
    Harmless,
    /// What it asks for is not done here: anything but an absent value, zero, no, or one of these is refused.
    Neutral(&'static [f64]),
    /// As `Neutral`, but for the value of another key.
    SameAs(&'static str),
    /// A no is refused.
    Yes,
}

use Use::{Harmless, Neutral, Read, SameAs, Yes};

/// Keys under the architecture's name.
#[rustfmt::skip]
const KEYS: &[(&str, Use)] = &[
    ("activation.situ_beta", Neutral(&[])),
    ("activation.situ_linear_beta", Neutral(&[])),
    ("adapters.count", Neutral(&[])),
    ("adapters.lora_rank", Neutral(&[])),
    ("adapters.router_gain", Neutral(&[])),
    ("adapters.token_ids_activate", Neutral(&[])),
    ("adapters.token_ids_substitute", Neutral(&[])),
    ("attention.causal", Yes),
    ("attention.clamp_kqv", Read),
    ("attention.compress_ratios", Neutral(&[])),
    ("attention.compress_rope_freq_base", Neutral(&[])),
    ("attention.decay_lora_rank", Neutral(&[])),
    ("attention.gate_lora_rank", Neutral(&[])),
    ("attention.group_norm_epsilon", Neutral(&[])),
    ("attention.group_norm_groups", Neutral(&[])),
    ("attention.head_count", Read),
    ("attention.head_count_kv", Read),
    ("attention.iclr_lora_rank", Neutral(&[])),
    ("attention.indexer.block_size", Neutral(&[])),
    ("attention.indexer.head_count", Neutral(&[])),
    ("attention.indexer.key_length", Neutral(&[])),
    ("attention.indexer.kpool", Neutral(&[])),
    ("attention.indexer.kpool_select_tail", Neutral(&[])),
    ("attention.indexer.local_blocks", Neutral(&[])),
    ("attention.indexer.top_k", Neutral(&[])),
    ("attention.indexer.types", Neutral(&[])),
    ("attention.key_length", Read),
    ("attention.key_length_mla", Neutral(&[])),
    ("attention.key_length_mla_swa", Neutral(&[])),
    ("attention.key_length_swa", SameAs("attention.key_length")),
    ("attention.kv_lora_rank", Neutral(&[])),
    ("attention.kv_lora_rank_swa", Neutral(&[])),
    ("attention.layer_norm_epsilon", Read),
    ("attention.layer_norm_rms_epsilon", Read),
    ("attention.max_alibi_bias", Read),
    ("attention.output_group_count", Neutral(&[])),
    ("attention.output_lora_rank", Neutral(&[])),
    ("attention.output_scale", Neutral(&[1.0])),
    ("attention.q_lora_rank", Neutral(&[])),
    ("attention.recurrent_layers", Neutral(&[])),
    ("attention.relative_buckets_count", Neutral(&[])),
    ("attention.rope_pattern", Read),
    ("attention.scale", Read),
    ("attention.shared_kv_layers", Neutral(&[])),
    ("attention.sliding_window", Read),
    ("attention.sliding_window_pattern", Read),
    ("attention.temperature_length", Neutral(&[])),
    ("attention.temperature_scale", Read),
    ("attention.value_length", Read),
    ("attention.value_length_mla", Neutral(&[])),
    ("attention.value_length_mla_swa", Neutral(&[])),
    ("attention.value_length_swa", SameAs("attention.value_length")),
    ("attention.value_residual_mix_lora_rank", Neutral(&[])),
    ("attention.value_scale", Neutral(&[1.0])),
    ("attn_logit_softcapping", Read),
    ("attn_res.block_size", Neutral(&[])),
    ("block_count", Read),
    ("block_size", Neutral(&[])),
    ("classifier.output_labels", Harmless),
    ("classifier.pooling_type", Harmless),
    ("context_length", Read),
    ("conv_group_size", Neutral(&[])),
    ("conv_kernel_size", Neutral(&[])),
    ("convnext.block_count", Neutral(&[])),
    ("convnext.embedding_length", Neutral(&[])),
    ("decoder_block_count", Neutral(&[])),
    ("decoder_start_token_id", Harmless),
    // Vision's features, added to the first layers: text has none.
    ("deepstack_mapping", Harmless),
    // Heads of embedding models.
    ("dense_2_feat_in", Harmless),
    ("dense_2_feat_out", Harmless),
    ("dense_3_feat_in", Harmless),
    ("dense_3_feat_out", Harmless),
    ("embedding_length", Read),
    ("embedding_length_out", SameAs("embedding_length")),
    ("embedding_length_per_layer_input", Neutral(&[])),
    ("embedding_scale", Read),
    ("expert_chunk_feed_forward_length", Neutral(&[])),
    ("expert_count", Read),
    ("expert_feed_forward_length", Harmless),
    ("expert_gating_func", Read),
    ("expert_group_count", Read),
    ("expert_group_scale", Neutral(&[1.0])),
    ("expert_group_used_count", Harmless),
    ("expert_latent_length", Neutral(&[])),
    ("expert_shared_count", Harmless),
    ("expert_shared_feed_forward_length", Harmless),
    ("expert_used_count", Read),
    ("expert_weights_norm", Read),
    ("expert_weights_scale", Read),
    ("experts_per_group", Neutral(&[])),
    ("features_length", Neutral(&[])),
    ("feed_forward_length", Read),
    ("final_logit_softcapping", Read),
    ("full_attention_interval", Neutral(&[])),
    ("hash_layer_count", Neutral(&[])),
    ("hidden_activation", Neutral(&[])),
    ("hrm.h_cycles", Neutral(&[])),
    ("hrm.l_cycles", Neutral(&[])),
    ("hrm.layers_per_stack", Neutral(&[])),
    ("hrm.prefix_lm", Neutral(&[])),
    ("hyper_connection.count", Neutral(&[])),
    ("hyper_connection.epsilon", Neutral(&[])),
    ("hyper_connection.low_rank", Neutral(&[])),
    ("hyper_connection.magnitude", Neutral(&[])),
    ("hyper_connection.sinkhorn_iterations", Neutral(&[])),
    ("interleave_moe_layer_step", Harmless),
    ("kda.gate_lower_bound", Neutral(&[])),
    ("kda.head_dim", Neutral(&[])),
    ("kda.safe_gate", Neutral(&[])),
    ("leading_dense_block_count", Harmless),
    ("logit_scale", Read),
    ("moe_every_n_layers", Harmless),
    ("moe_latent_size", Neutral(&[])),
    ("n_deepstack_layers", Harmless),
    ("nextn_predict_layers", Read),
    ("norm_before_fc", Neutral(&[])),
    ("norm_before_residual", Neutral(&[])),
    ("num_loops", Neutral(&[1.0])),
    ("ple.conv_kernel", Neutral(&[])),
    ("ple.eos_token_id", Harmless),
    ("ple.head_offsets", Neutral(&[])),
    ("ple.head_vocab_sizes", Neutral(&[])),
    ("ple.heads_per_ngram", Neutral(&[])),
    ("ple.image_token_id", Harmless),
    ("ple.layer_multipliers", Neutral(&[])),
    ("ple.layers", Neutral(&[])),
    ("ple.ngram_size", Neutral(&[])),
    // How an embedding model sums up: it can go on with a text all the same.
    ("pooling_type", Harmless),
    ("posnet.block_count", Neutral(&[])),
    ("posnet.embedding_length", Neutral(&[])),
    ("rescale_every_n_layers", Neutral(&[])),
    ("residual_scale", Read),
    ("rope.dimension_count", Read),
    ("rope.dimension_count_swa", SameAs("rope.dimension_count")),
    ("rope.dimension_sections", Read),
    ("rope.freq_base", Read),
    ("rope.freq_base_swa", Read),
    ("rope.scale_linear", Read),
    ("rope.scaling.alpha", Read),
    ("rope.scaling.attn_factor", Read),
    ("rope.scaling.factor", Read),
    ("rope.scaling.finetuned", Read),
    ("rope.scaling.original_context_length", Read),
    ("rope.scaling.type", Read),
    ("rope.scaling.yarn_attn_factor", Read),
    ("rope.scaling.yarn_beta_fast", Read),
    ("rope.scaling.yarn_beta_slow", Read),
    ("rope.scaling.yarn_ext_factor", Read),
    ("rope.scaling.yarn_log_multiplier", Read),
    ("router_logit_softcapping", Neutral(&[])),
    ("selector_rank", Neutral(&[])),
    ("selector_top_k", Neutral(&[])),
    ("shortconv.l_cache", Neutral(&[])),
    ("skip_loop_final_norm", Neutral(&[])),
    ("ssm.conv_kernel", Neutral(&[])),
    ("ssm.dt_b_c_rms", Neutral(&[])),
    ("ssm.group_count", Neutral(&[])),
    ("ssm.inner_size", Neutral(&[])),
    ("ssm.state_size", Neutral(&[])),
    ("ssm.time_step_rank", Neutral(&[])),
    ("swiglu_clamp_exp", Neutral(&[])),
    ("swiglu_clamp_shexp", Neutral(&[])),
    ("swin_norm", Neutral(&[])),
    ("target_hidden_size", Neutral(&[])),
    // Which layers a drafter looks at.
    ("target_layers", Harmless),
    ("tensor_data_layout", Harmless),
    ("time_decay_extra_dim", Neutral(&[])),
    ("time_mix_extra_dim", Neutral(&[])),
    ("token_shift_count", Neutral(&[])),
    ("use_parallel_residual", Read),
    ("vocab_size", Harmless),
    ("wkv.head_size", Neutral(&[])),
];

/// Beginnings of keys that tell where a file comes from and how it was made, or that belong to other rooms.
#[rustfmt::skip]
const ELSEWHERE: &[&str] = &[
    "general.", "split.", "quantize.", "adapter.", "imatrix.", "clip.", "mradermacher.",
    "tokenizer.chat_template", "tokenizer.chat_templates", "tokenizer.huggingface.", "tokenizer.rwkv.",
];

/// Keys under `tokenizer.ggml.`: the tokenizer reads all that it needs.
#[rustfmt::skip]
const TOKENIZER: &[&str] = &[
    "add_bos_token", "add_eos_token", "add_sep_token", "add_space_prefix", "bos_token_id", "cls_token_id", "eom_token_id",
    "eos_token_id", "eot_token_id", "fim_mid_token_id", "fim_pad_token_id", "fim_pre_token_id", "fim_rep_token_id",
    "fim_sep_token_id", "fim_suf_token_id", "mask_token_id", "merges", "middle_token_id", "model", "normalizer.lowercase",
    "normalizer.strip_accents", "padding_token_id", "pre", "precompiled_charsmap", "prefix_token_id", "remove_extra_whitespaces",
    "scores", "seperator_token_id", "suffix_token_id", "suppress_tokens", "token_type", "token_type_count", "tokens",
    "unknown_token_id",
];

/// Whole names of the keys that no prefix stands before.
const WHOLE: &[(&str, Use)] = &[
    ("xielu.alpha_n", Neutral(&[])),
    ("xielu.alpha_p", Neutral(&[])),
    ("xielu.beta", Neutral(&[])),
    ("xielu.eps", Neutral(&[])),
];

/// The keys of the file that stand in no table, in its order. Fails if a known key asks for something that is not done here.
pub(super) fn check(metadata: &Metadata, keys: &Keys) -> Result<Vec<String>> {
    let prefix = keys.name("");
    let mut unknown = Vec::new();
    for (name, value) in metadata.iter() {
        let own = name.strip_prefix(&prefix).and_then(|key| find(KEYS, key));
        let Some(what) = own.or_else(|| find(WHOLE, name)) else {
            let tokenizer = name.strip_prefix("tokenizer.ggml.").is_some_and(|key| TOKENIZER.contains(&key));
            if !tokenizer && !ELSEWHERE.iter().any(|start| name.starts_with(start)) {
                unknown.push(name.to_owned());
            }
            continue;
        };
        let fine = match what {
            Read | Harmless => true,
            Yes => *value != Value::Bool(false),
            Neutral(values) => is_neutral(value, values),
            SameAs(other) => {
                let other = metadata.get(&keys.name(other)).and_then(number);
                is_neutral(value, &other.map_or(Vec::new(), |n| vec![n]))
            }
        };
        if !fine {
            return Err(Error::unsupported(format!(
                "models of the architecture {} with this key",
                keys.architecture()
            ))
            .at(format!("key {name} = {value}"))
            .help(
                "a newer version may run them; --override-kv can set the key to 0, but the answers may then be wrong",
            ));
        }
    }
    Ok(unknown)
}

fn find(table: &[(&str, Use)], key: &str) -> Option<Use> {
    table.iter().find(|(name, _)| *name == key).map(|(_, what)| *what)
}

fn number(value: &Value) -> Option<f64> {
    match value {
        Value::Bool(b) => Some(f64::from(u8::from(*b))),
        Value::F32(x) => Some(f64::from(*x)),
        Value::F64(x) => Some(*x),
        value => value.integer().map(|n| n as f64),
    }
}

/// Whether a value asks for nothing: zero, no, infinite, empty, a size that nobody set, or one of `values`; or many of these.
fn is_neutral(value: &Value, values: &[f64]) -> bool {
    let neutral = |x: f64| !x.is_finite() || [0.0, -1.0, f64::from(u32::MAX)].contains(&x) || values.contains(&x);
    match value {
        Value::String(s) => s.is_empty(),
        Value::Array(array) => (0..array.len()).all(|i| array.get(i).as_ref().and_then(number).is_some_and(neutral)),
        value => number(value).is_some_and(neutral),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gguf::Array;

    #[test]
    fn keys_are_in_order_and_those_called_read_are_read() {
        assert!(KEYS.windows(2).all(|w| w[0].0 < w[1].0));
        let code = [include_str!("spec.rs"), include_str!("rope.rs")].concat();
        for (name, what) in KEYS {
            let read = code.contains(&format!("\"{name}\""));
            assert_eq!(read, *what == Read, "{name}");
        }
    }

    #[test]
    fn only_what_asks_for_something_is_refused() {
        let check = |key: &str, value: Value| {
            let mut metadata = Metadata::new();
            metadata.set("llama.attention.key_length", Value::U32(64));
            metadata.set(key, value);
            check(&metadata, &Keys::new(&metadata, "llama"))
        };
        for (key, value) in [
            ("llama.ssm.inner_size", Value::U32(0)),
            ("llama.pooling_type", Value::U32(3)),
            ("llama.attention.causal", Value::Bool(true)),
            ("llama.attention.key_length_swa", Value::U32(64)),
            ("llama.swiglu_clamp_exp", Value::Array(Array::F32(vec![0.0, 0.0]))),
            ("llama.kda.gate_lower_bound", Value::F32(f32::NEG_INFINITY)),
            ("llama.num_loops", Value::U32(1)),
            ("general.anything", Value::U32(1)),
        ] {
            assert_eq!(check(key, value).unwrap(), Vec::<String>::new(), "{key}");
        }
        for (key, value) in [
            ("llama.ssm.inner_size", Value::U32(16)),
            ("llama.attention.causal", Value::Bool(false)),
            ("llama.attention.key_length_swa", Value::U32(32)),
            ("llama.swiglu_clamp_exp", Value::Array(Array::F32(vec![0.0, 7.0]))),
            ("llama.num_loops", Value::U32(2)),
            ("xielu.beta", Value::F32(0.5)),
        ] {
            let e = check(key, value).unwrap_err().to_string();
            assert!(e.contains(key), "{e}");
        }
        assert_eq!(check("llama.rope.freq_bass", Value::F32(1e4)).unwrap(), ["llama.rope.freq_bass"]);
        assert_eq!(check("mistral.rope.freq_base", Value::F32(1e4)).unwrap(), ["mistral.rope.freq_base"]);
    }
}
