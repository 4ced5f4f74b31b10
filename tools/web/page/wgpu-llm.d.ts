/** Where a model comes from. Of a split model: all of its files, or the address of the first. */
export type Source =
  /** Files that the user chose or dropped. */
  | File
  | File[]
  | FileList
  /** An address; or `hf:user/repo:quant`. */
  | string
  | string[]
  /** What the browser keeps from an earlier visit: an `id` of {@link Llm.kept}. */
  | { kept: string };

export interface Progress {
  phase: "download" | "load";
  /** Bytes. */
  done: number;
  total: number;
}

export interface LoadOptions {
  /** `auto` takes the GPU where the browser has WebGPU, else the CPU. */
  device?: "auto" | "gpu" | "cpu";
  /** Tokens of context; the model's own, up to 4096, where it is absent. */
  context?: number;
  /** A well-known chat template (`chatml`, `llama3` …) in place of the model's own. */
  template?: string;
  /** Bytes of GPU memory that may be used. A model that needs more is refused before it is uploaded. */
  memory?: number;
  /** Whether the browser keeps the model for the next visit; it does where it is absent. */
  keep?: boolean;
  /** WebGPU features that are not to be used: `shader-f16`, `subgroups`, `timestamp-query`. */
  without?: string[];
  /** Bytes that a GPU binding may span; tensors are cut to fit it. */
  maxBinding?: number;
  /** The hub that `hf:` names are of. */
  endpoint?: string;
  onprogress?: (progress: Progress) => void;
  signal?: AbortSignal;
}

export interface Model {
  name: string;
  /** Its id, where the browser keeps it. */
  kept: string | null;
  bytes: number;
  architecture: string;
  layers: number;
  weights: number;
  context: number;
  /** The GPU's name, or `CPU`. */
  device: string;
  gpu: boolean;
  /** Bytes of GPU memory in use: weights, cache and the rest. */
  gpuBytes: number;
  subgroups: [number, number] | null;
  f16: boolean;
  timestamps: boolean;
  /** Whether the template can turn thinking on and off. */
  thinking: boolean;
}

/** A message in OpenAI's shape. */
export interface Message {
  role: "system" | "user" | "assistant";
  content: string;
  reasoning_content?: string;
}

/** How an answer is made; the sampler's names are llama.cpp's. What is absent has the program's default. */
export interface ChatOptions {
  /** Most tokens of the answer. */
  limit?: number;
  think?: boolean;
  seed?: number;
  temperature?: number;
  top_k?: number;
  top_p?: number;
  min_p?: number;
  typical_p?: number;
  repeat_penalty?: number;
  repeat_last_n?: number;
  presence_penalty?: number;
  frequency_penalty?: number;
  dry_multiplier?: number;
  xtc_probability?: number;
  mirostat?: 0 | 1 | 2;
  signal?: AbortSignal;
}

/** A piece of an answer. With `recovered` it has no text: the GPU was lost, and this says how the answer goes on. */
export interface Piece {
  text: string;
  reasoning: string;
  token?: number;
  recovered?: string;
}

export interface Answer {
  text: string;
  reasoning: string;
  tokens: number[];
  stop: "end" | "limit" | "context" | "stopped";
  /** Tokens of the prompt that had to be computed; the rest lay in the cache. */
  promptTokens: number;
  promptSeconds: number;
  /** From the first token to the last. */
  seconds: number;
  /** Tokens in the cache. */
  used: number;
  /** Turns that were left out, so that the rest fits the context. */
  forgotten: number;
}

export interface Stats {
  /** Bytes of WebAssembly's memory, which holds no weights where there is a GPU. It never shrinks. */
  heap: number;
  heapPeak: number;
  /** Figures of the last answer. */
  last: Partial<Omit<Answer, "text" | "reasoning" | "tokens"> & { tokens: number }>;
  model: Model | null;
}

export interface Kept {
  id: string;
  name: string;
  bytes: number;
  /** Of a download that ended early it is false: loading it goes on with that. */
  complete: boolean;
}

/** What the engine throws; `kind` is one of the library's kinds of errors, such as `OutOfMemory`, `Usage` or `DeviceLost`. */
export class LlmError extends Error {
  kind: string;
}

/**
 * A model in a worker. Events: `recovered` (the GPU was lost; with `message`, and `gpu`: whether it is one again), `kept` (the browser keeps the model from now on),
 * `notKept`.
 */
/** How the operations did. */
export interface Check {
  /** The CPU's instructions: `simd128`. */
  level?: string;
  /** The GPU's name, as far as the browser tells it. */
  device?: string;
  subgroups?: [number, number] | null;
  f16?: boolean;
  cases: number;
  runs: number;
  /** Cases that a kernel is not for; others are. */
  refused: number;
  /** Runs by operation and kernel. */
  kernels: Record<string, number>;
  /** What went wrong; empty where all is well. */
  failures: string[];
}

export class Llm extends EventTarget {
  constructor(options?: { worker?: string | URL });
  /** Loads a model; the one before it is unloaded. */
  load(source: Source, options?: LoadOptions): Promise<Model>;
  /** Answers a conversation, piece by piece; the generator's return value is the whole answer. Leaving the loop ends the answer. */
  chat(messages: Message[], options?: ChatOptions): AsyncGenerator<Piece, Answer>;
  /** Ends the answer, or the download, that is under way. */
  abort(): Promise<void>;
  stats(): Promise<Stats>;
  /** Begins to note how long kernels take, or ends it. */
  profile(on?: boolean): Promise<void>;
  /** What was noted: the JSON of `wgpu-llm chat --profile-json`. */
  summary(): Promise<object | null>;
  /** The models that the browser keeps. */
  kept(): Promise<Kept[]>;
  forget(id: string): Promise<void>;
  /** Frees the GPU's memory. */
  unload(): Promise<void>;
  /**
   * Compares every operation with exact results, on the CPU or with each kernel that the GPU can run: what it ran on, how often each
   * kernel was run, and what is wrong. On a GPU, `quick` runs as many cases as meet every kernel, `ops` names the operations that are
   * meant, and `without` the features that are not to be used.
   */
  check(device?: "cpu" | "gpu", options?: { quick?: boolean; ops?: string[]; without?: string[] }): Promise<Check>;
  /** Destroys the GPU device as if it had been lost, to try out what happens then. */
  loseDevice(): Promise<void>;
  /** Ends the worker. */
  close(): void;
}
