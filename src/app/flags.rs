//! llama.cpp's flags: each is one here too, has nothing to do, or is refused with what to do instead.
//!
//! The rows are those of its common set and of the flags of llama-cli, llama-completion, llama-server, llama-perplexity,
//! llama-tokenize and llama-bench (common/arg.cpp and tools/llama-bench, summer of 2026), with some that older versions had. What the
//! parser knows under the same name needs no row.

use Fate::{Is, IsIn, Moot, MootIn, No};
use Takes::{Choice, Nothing, Value};

/// What becomes of a flag.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// A flag of this program, by its long name.
    Is(&'static str),
    /// The same in commands that have that flag; what to do instead in the others.
    IsIn(&'static str, &'static str),
    /// Accepted, and nothing is to be done: why.
    Moot(&'static str),
    /// The same in one command; what to do instead in the others.
    MootIn(&'static str, &'static str),
    /// Refused: why, or what to do instead.
    No(&'static str),
}

/// Whether a value follows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Takes {
    /// None.
    Nothing,
    /// One, whatever it looks like.
    Value,
    /// One of [`CHOICES`], or none.
    Choice,
}

/// What a [`Takes::Choice`] is followed by; the last four say no.
pub const CHOICES: &[&str] = &["on", "1", "true", "enabled", "auto", "-1", "off", "0", "false", "disabled"];

/// A flag of llama.cpp.
#[derive(Debug, Clone, Copy)]
pub struct Flag {
    /// All its names, separated by spaces.
    pub names: &'static str,
    /// Its value.
    pub takes: Takes,
    /// What becomes of it.
    pub fate: Fate,
}

impl Flag {
    /// Whether it has this name, dashes included.
    pub fn is(&self, name: &str) -> bool {
        self.names.split(' ').any(|n| n == name)
    }
}

/// The flag with this name, dashes included.
pub fn find(name: &str) -> Option<&'static Flag> {
    FLAGS.iter().find(|flag| flag.is(name))
}

/// Whether `value` after a [`Takes::Choice`] says no.
pub fn says_no(value: &str) -> bool {
    CHOICES[CHOICES.len() - 4..].contains(&value)
}

macro_rules! flags {
    ($($names:literal $takes:ident $fate:expr;)*) => {
        /// See [`self`].
        pub const FLAGS: &[Flag] = &[$(Flag { names: $names, takes: $takes, fate: $fate },)*];
    };
}

const ONE_GPU: &str = "one GPU and the CPU for now; --device says which GPU, -ngl and -ot what goes there";
const THREADS: &str = "the threads of -t do both prompts and answers";
const SYSTEM: &str = "the system's own tools do that: taskset, nice, numactl";
const LOGS: &str = "set RUST_LOG, as in RUST_LOG=debug; --trace and --profile-json record a run";
const NO_LOGS: &str = "2>/dev/null leaves out what goes to standard error";
const SERVER: &str = "there is no server for other programs yet; `web` serves the page";
const PRESET: &str = "name the model yourself: -m hf:user/repo:QUANT; `ls --aliases` has short names";
const DRAFTS: &str = "there are no draft models yet";
const TEXT: &str = "models take text alone, no pictures and no sound";
const GRAMMAR: &str = "answers cannot be held to a grammar or a schema yet";
const MERGE: &str = "merge it into the model's file";
const VECTORS: &str = "there are no embeddings and no ranking yet";
const SCORES: &str = "only the perplexity of a text is measured";
const TURNS: &str = "the chat template says how turns begin and end";
const REASONING: &str = "/set think on, off or auto in a chat; off a terminal thoughts are not printed";
const MEMORY: &str = "leave it out: files are mapped, what a device needs is copied once";
const CHATS: &str = "`chat` talks, `complete` goes on with a text";
const STOPS: &str = "an answer ends where the model ends it, or at -n tokens";
const FIT: &str = "-ngl auto, the default, makes things fit; -ngl all and -c are kept to";
const BREAKS: &str =
    "texts are taken as they are: in bash write $'a\\nb' for a line break, or put the text into a file for -f";
const SAVED: &str = "--cache-file is written anew after each run; copy the file to keep it as it is";

flags! {
    "-ngl --n-gpu-layers --gpu-layers" Value Is("--n-gpu-layers");
    "-ot --override-tensor" Value Is("--override-tensor");
    "-cmoe --cpu-moe" Nothing Is("--cpu-moe");
    "-ncmoe --n-cpu-moe" Value Is("--n-cpu-moe");
    "-nkvo --no-kv-offload" Nothing Is("--no-kv-offload");
    "-fitt --fit-target" Value Is("--vram-margin");
    "-hf -hfr --hf-repo" Value Is("--hf-repo");
    "-hff --hf-file" Value Is("--hf-file");
    "-mu --model-url" Value Is("--model");
    "-ctk --cache-type-k" Value Is("--cache-type-k");
    "-ctv --cache-type-v" Value Is("--cache-type-v");
    "-sys --system-prompt" Value Is("--system-prompt");
    "-sysf --system-prompt-file" Value Is("--system-prompt-file");
    "-dev --device" Value Is("--device");
    "-ub --ubatch-size" Value Is("--ubatch-size");
    "-pg --prompt-gen" Value Is("--prompt-gen");
    "-npl" Value Is("--parallel");
    "-npp" Value Is("--parallel-prompt");
    "-ntg" Value Is("--parallel-answer");
    "-n --predict --n-predict" Value Is("--n-predict");
    "--temp --temperature" Value Is("--temp");
    "--top-nsigma --top-n-sigma" Value Is("--top-nsigma");
    "--typical --typical-p" Value Is("--typical");
    "--sampler-seq --sampling-seq" Value Is("--sampler-seq");
    "-l --logit-bias" Value Is("--logit-bias");
    "--chat-template --chat-template-file" Value Is("--chat-template");
    "--prompt-cache" Value Is("--cache-file");
    "--rope-freq-base" Value Is("--rope-freq-base");
    "--rope-freq-scale" Value Is("--rope-freq-scale");
    "--rope-scale" Value Is("--rope-scale");
    "--rope-scaling" Value Is("--rope-scaling");
    "--yarn-orig-ctx" Value Is("--yarn-orig-ctx");
    "--yarn-ext-factor" Value Is("--yarn-ext-factor");
    "--yarn-attn-factor" Value Is("--yarn-attn-factor");
    "--yarn-beta-slow" Value Is("--yarn-beta-slow");
    "--yarn-beta-fast" Value Is("--yarn-beta-fast");
    "--override-kv" Value Is("--override-kv");
    "--no-parse-special" Nothing Is("--no-parse-special");

    "-fa --flash-attn" Choice Moot("attention is always fused here");
    "-cnv --conversation" Nothing MootIn("chat", CHATS);
    "-no-cnv --no-conversation" Nothing MootIn("complete", CHATS);
    "-i --interactive -if --interactive-first -ins --instruct" Nothing MootIn("chat", CHATS);
    "--context-shift" Nothing MootIn("chat", "it belongs to `complete`");
    "--no-context-shift" Nothing MootIn("complete", "with -n -2 a chat ends an answer where the context is full");
    "--jinja" Nothing Moot("chat templates are always Jinja here");
    "--simple-io" Nothing Moot("off a terminal nothing is painted");
    "--no-display-prompt" Nothing Moot("only what is new is printed");
    "--no-warmup" Nothing Moot("nothing is warmed up but in `bench`");
    "--no-escape" Nothing Moot("texts are taken as they are");
    "-kvo --kv-offload" Nothing Moot("the cache is where its layer is");
    "-kvu --kv-unified -no-kvu --no-kv-unified" Nothing Moot("all sequences share one cache");
    "--no-op-offload" Nothing Moot("steps run where their weights are");
    "--repack" Nothing Moot("weights are always repacked for the CPU");
    "--mmap" Nothing Moot("files are always mapped");
    "-bs --backend-sampling" Nothing Moot("the GPU draws where it can");
    "--no-mmproj --no-mmproj-auto" Nothing Moot("models take text alone");
    "-dt --defrag-thold" Value Moot("the cache has no holes");
    "--perf" Nothing Moot("times go to standard error");
    "--show-timings" Nothing Moot("times go to standard error");

    "-sm --split-mode" Value No(ONE_GPU);
    "-ts --tensor-split" Value No(ONE_GPU);
    "-mg --main-gpu" Value No(ONE_GPU);
    "--rpc" Value No("models run on this computer alone");
    "-tb --threads-batch" Value No(THREADS);
    "-C --cpu-mask -Cr --cpu-range -Cb --cpu-mask-batch -Crb --cpu-range-batch" Value No(SYSTEM);
    "--cpu-strict --cpu-strict-batch --prio --prio-batch --numa" Value No(SYSTEM);
    "--poll --poll-batch" Value No("threads wait as suits them; leave it out");
    "-ncffn --n-cpu-ffn" Value No("-ot does that: -ot 'blk\\.[0-3]\\.ffn_=cpu'");
    "-fit --fit" Choice No(FIT);
    "-fitp --fit-print" Choice No("`fit` prints what would go where");
    "-fitc --fit-ctx" Value No(FIT);
    "--no-mmap --mlock -dio --direct-io -ndio --no-direct-io" Nothing No(MEMORY);
    "-lm --load-mode -lzm --lazy-mode -mmp" Value No(MEMORY);
    "-nr --no-repack" Nothing No("weights are always repacked for the CPU");
    "--no-host" Nothing No("leave it out: there are no host buffers to pass over");
    "--op-offload" Nothing No("steps run where their weights are; -ngl and -ot say where that is");
    "-nopo" Value No("steps run where their weights are; leave it out");
    "--check-tensors" Nothing No("leave it out: logits that are not numbers end a run");
    "--warmup" Nothing No("nothing is warmed up but in `bench`");
    "--list-devices" Nothing No("write `wgpu-llm --list-devices`, without a command");

    "-hft --hf-token" Value No("set HF_TOKEN: everybody on a computer sees the flags of its programs");
    "-dr --docker-repo" Value No("models come from the hub or from files: -m hf:user/repo:QUANT");
    "-cl --cache-list" Nothing No("`ls` lists the models in the cache");
    "--lora" Value No(MERGE);
    "--lora-scaled" Value No(MERGE);
    "--control-vector --control-vector-scaled --control-vector-layer-range" Value No("there are no control vectors");
    "-mm --mmproj -mmu --mmproj-url -mmdev --mmproj-device" Value No(TEXT);
    "--mmproj-auto --mmproj-offload --no-mmproj-offload" Nothing No(TEXT);
    "--image --audio --video --image-min-tokens --image-max-tokens" Value No(TEXT);
    "--mtmd-batch-max-tokens --video-fps --video-timestamp-interval --video-ffmpeg-dir" Value No(TEXT);

    "-co --color" Choice No("colours follow the terminal; NO_COLOR and CLICOLOR_FORCE change that");
    "-o --output --output-file" Value No("only the answer goes to standard output: write > FILE behind the command");
    "--display-prompt" Nothing No("only what is new is printed");
    "--verbose-prompt" Nothing No("`tokenize` shows the tokens of a text");
    "-sp --special" Nothing No("special tokens are not printed; `complete --json` gives the numbers of all tokens");
    "-ptc --print-token-count" Value No("how many tokens there were stands on standard error");
    "--no-perf --no-show-timings" Nothing No(NO_LOGS);
    "-e --escape" Nothing No(BREAKS);
    "-bf --binary-file" Value No("-f takes files of text");
    "-mli --multiline-input" Nothing No("in a chat write \"\"\" before and after several lines");
    "-st --single-turn" Nothing No("write the prompt through a pipe: echo TEXT | wgpu-llm chat");
    "-r --reverse-prompt" Value No(STOPS);
    "--ignore-eos" Nothing No("forbid the token: --logit-bias ID-inf; `inspect` tells the ID of eos");
    "--keep" Value No("a chat always keeps the system prompt");
    "--in-prefix --in-suffix" Value No(TURNS);
    "--in-prefix-bos" Nothing No(TURNS);
    "--no-jinja" Nothing No("chat templates are always Jinja here; --chat-template takes another one");
    "--chat-template-kwargs" Value No(REASONING);
    "--skip-chat-parsing --no-skip-chat-parsing" Nothing No("answers are printed as they come; `complete` has no template");
    "-rea --reasoning" Choice No(REASONING);
    "--reasoning-format --reasoning-effort --reasoning-budget --reasoning-budget-message" Value No(REASONING);
    "--reasoning-preserve --no-reasoning-preserve" Nothing No(REASONING);
    "--prompt-cache-ro" Nothing No(SAVED);
    "--prompt-cache-all" Nothing Moot("--cache-file keeps the answer too");
    "--grammar --grammar-file -j --json-schema -jf --json-schema-file" Value No(GRAMMAR);
    "-gan --grp-attn-n -gaw --grp-attn-w" Value No("--rope-scaling makes contexts longer");
    "--pooling --attention" Value No(VECTORS);
    "-embd --embd-normalize --embd-output-format --embd-separator --cls-separator" Value No(VECTORS);

    "-v --verbose --log-verbose" Nothing No(LOGS);
    "-lv --verbosity --log-verbosity --log-file -ld --logdir" Value No(LOGS);
    "--log-jsonl --no-log-jsonl --log-prefix --no-log-prefix --log-timestamps --no-log-timestamps" Nothing No(LOGS);
    "--log-colors" Choice No("NO_COLOR and CLICOLOR_FORCE say whether there are colours");
    "--log-disable" Nothing No(NO_LOGS);
    "--log-prompts-dir" Value No("/save in a chat keeps the conversation");
    "--completion-bash" Nothing No("there are no completions for shells yet");
    "--usage" Nothing No("write --help");
    "-oe --output-err" Value No("-o says the form of the results; they go to standard output alone");

    "--hellaswag --winogrande --multiple-choice --kl-divergence" Nothing No(SCORES);
    "--hellaswag-tasks --winogrande-tasks --multiple-choice-tasks" Value No(SCORES);
    "--save-all-logits --kl-divergence-base --ppl-stride --ppl-output-type" Value No(SCORES);
    "--ids --show-count" Nothing No("--json gives the numbers of the tokens alone");
    "--stdin" Nothing No("without a text standard input is read");
    "--no-bos" Nothing No("--no-special leaves out what is added at both ends of a text");

    "--server-base --host --path --api-prefix --api-key --api-key-file -a --alias --tags" Value No(SERVER);
    "--cors-origins --cors-methods --cors-headers --ssl-key-file --ssl-cert-file --media-path" Value No(SERVER);
    "--reuse-port --cors-credentials --no-cors-credentials --metrics --props --slots --no-slots" Nothing No(SERVER);
    "--ui-config --webui-config --ui-config-file --webui-config-file" Value No(SERVER);
    "--ui --webui --no-ui --no-webui -ag --agent -no-ag --no-agent" Nothing No(SERVER);
    "--ui-mcp-proxy --webui-mcp-proxy --no-ui-mcp-proxy --no-webui-mcp-proxy" Nothing No(SERVER);
    "--tools --tools-runtime --mcp-servers-config --mcp-servers-json --port" Value No(SERVER);
    "-to --timeout --sse-ping-interval --threads-http --cache-reuse --slot-save-path --sleep-idle-seconds" Value No(SERVER);
    "--models-dir --models-preset --models-max -sps --slot-prompt-similarity" Value No(SERVER);
    "--models-autoload --no-models-autoload --cache-prompt --no-cache-prompt --lora-init-without-apply" Nothing No(SERVER);
    "--cache-idle-slots --no-cache-idle-slots -cb --cont-batching -nocb --no-cont-batching" Nothing No(SERVER);
    "-np --parallel" Value IsIn("--parallel", SERVER);
    "--kv-unified-per-slot -ctxcp --ctx-checkpoints --swa-checkpoints" Value No(SERVER);
    "-cms --checkpoint-min-step -cram --cache-ram" Value No(SERVER);
    "--prefill-assistant --no-prefill-assistant --spm-infill" Nothing No(SERVER);
    "--embedding --embeddings --rerank --reranking" Nothing No(VECTORS);
    "--embd-gemma-default --fim-qwen-1.5b-default --fim-qwen-3b-default --fim-qwen-7b-default" Nothing No(PRESET);
    "--fim-qwen-7b-spec --fim-qwen-14b-spec --fim-qwen-30b-default --gpt-oss-20b-default" Nothing No(PRESET);
    "--gpt-oss-120b-default --vision-gemma-4b-default --vision-gemma-12b-default" Nothing No(PRESET);

    "-lcs --lookup-cache-static -lcd --lookup-cache-dynamic" Value No(DRAFTS);
    "-hfd -hfrd --hf-repo-draft --spec-draft-hf -md --model-draft --spec-draft-model --spec-type" Value No(DRAFTS);
    "-td --threads-draft --spec-draft-threads -tbd --threads-batch-draft --spec-draft-threads-batch" Value No(DRAFTS);
    "-Cd --cpu-mask-draft --spec-draft-cpu-mask -Crd --cpu-range-draft --spec-draft-cpu-range" Value No(DRAFTS);
    "-Cbd --cpu-mask-batch-draft --spec-draft-cpu-mask-batch -Crbd --cpu-range-batch-draft" Value No(DRAFTS);
    "--spec-draft-cpu-range-batch --cpu-strict-draft --spec-draft-cpu-strict" Value No(DRAFTS);
    "--cpu-strict-batch-draft --spec-draft-cpu-strict-batch --prio-draft --spec-draft-prio" Value No(DRAFTS);
    "--prio-batch-draft --spec-draft-prio-batch --poll-draft --spec-draft-poll" Value No(DRAFTS);
    "--poll-batch-draft --spec-draft-poll-batch -ctkd --cache-type-k-draft --spec-draft-type-k" Value No(DRAFTS);
    "-ctvd --cache-type-v-draft --spec-draft-type-v -otd --override-tensor-draft" Value No(DRAFTS);
    "--spec-draft-override-tensor -ncmoed --n-cpu-moe-draft --spec-draft-n-cpu-moe --spec-draft-ncmoe" Value No(DRAFTS);
    "--spec-draft-n-max --spec-draft-n-min --spec-synth-len --spec-synth-rates" Value No(DRAFTS);
    "--draft-p-split --spec-draft-p-split --draft-p-min --spec-draft-p-min" Value No(DRAFTS);
    "-devd --device-draft --spec-draft-device -ngld --gpu-layers-draft --n-gpu-layers-draft --spec-draft-ngl" Value No(DRAFTS);
    "--spec-ngram-mod-n-min --spec-ngram-mod-n-max --spec-ngram-mod-n-match --spec-ngram-simple-size-n" Value No(DRAFTS);
    "--spec-ngram-simple-size-m --spec-ngram-simple-min-hits --spec-ngram-map-k-size-n" Value No(DRAFTS);
    "--spec-ngram-map-k-size-m --spec-ngram-map-k-min-hits --spec-ngram-map-k4v-size-n" Value No(DRAFTS);
    "--spec-ngram-map-k4v-size-m --spec-ngram-map-k4v-min-hits --spec-ngram-size-n" Value No(DRAFTS);
    "--spec-ngram-size-m --spec-ngram-min-hits --draft --draft-n --draft-max --draft-min --draft-n-min" Value No(DRAFTS);
    "-cmoed --cpu-moe-draft --spec-draft-cpu-moe --spec-draft-backend-sampling" Nothing No(DRAFTS);
    "--no-spec-draft-backend-sampling --spec-default --mtp --dflash --eagle3" Nothing No(DRAFTS);
}
