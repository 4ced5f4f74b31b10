// The worker that holds the engine. Messages in: `{id, method, args}`; out: `{id, result}` or `{id, error}`, and `{event, ...}`
// in between. One call runs at a time; `abort`, `stats` and `kept` are answered at once.

import init, { Engine, checkCpu, checkGpu, stop, version } from "./wgpu_llm.js";
import { forget, keepFiles, kept, open } from "./sources.js";
import { prepareGpu } from "./gpu.js";

let memory;
let engine = null;
let loaded = null;
let lastStats = {};
let heapPeak = 0;
let downloading = null;
const open_files = new Map();

const tell = (event, more = {}) => self.postMessage({ event, ...more });
function failure(e) {
  // WebAssembly that stopped in the midst of something cannot go on; most often it has no memory left.
  if (e instanceof WebAssembly.RuntimeError) {
    return { message: `the engine stopped (${e.message}): reload the page, and choose a smaller model or context`, kind: "Worker" };
  }
  return { message: String(e?.message ?? e), kind: e?.kind ?? e?.name ?? "Error" };
}

// A message to oneself is the shortest way around the event loop; timers wait, and wait longer in hidden tabs.
const channel = new MessageChannel();
const waiting = [];
channel.port1.onmessage = () => waiting.shift()?.();

let shown = 0;
let reading = null;

function progress(phase, done, total, force) {
  const now = performance.now();
  if (!force && now - shown < 100 && done < total) return;
  shown = now;
  tell("progress", { phase, done, total });
}

self.wgpuLlmHost = {
  read(file, offset, into) {
    open_files.get(file).read(offset, into);
    if (!reading) return;
    reading.done += into.length;
    progress("load", Math.min(reading.done, reading.total), reading.total);
  },
  breathe() {
    return new Promise((done) => {
      waiting.push(done);
      channel.port2.postMessage(0);
    });
  },
  recovered(message, gpu) {
    tell("recovered", { message, gpu });
  },
};

function measureHeap() {
  // It only ever grows: what it is now is the most it was.
  heapPeak = Math.max(heapPeak, memory?.buffer.byteLength ?? 0);
}

function unload() {
  if (!engine) return;
  engine.unload();
  engine.free();
  engine = null;
  loaded = null;
  open_files.clear();
}

async function load(source, options = {}) {
  unload();
  memory ??= (await init()).memory;
  const sizes = [];
  downloading = new AbortController();
  let found;
  try {
    found = await open(source, {
      ...options,
      signal: downloading.signal,
      progress(part, done, total) {
        sizes[part] = [done, total];
        progress("download", sizes.reduce((s, [d]) => s + d, 0), sizes.reduce((s, [, t]) => s + t, 0));
      },
    });
  } finally {
    downloading = null;
  }
  const files = found.files.map((file, id) => {
    open_files.set(id, file);
    return { id, name: file.name, length: file.length };
  });
  const total = files.reduce((sum, file) => sum + file.length, 0);
  reading = { done: 0, total };
  progress("load", 0, total, true);
  const subgroups = options.device === "cpu" ? undefined : await prepareGpu(options.without);
  const { device, context, template, memory: most, maxBinding } = options;
  try {
    engine = await Engine.load(JSON.stringify({ files, device, context, template, memory: most, maxBinding, subgroups }));
  } catch (e) {
    open_files.clear();
    throw e;
  } finally {
    reading = null;
    measureHeap();
  }
  loaded = { name: found.name, kept: found.kept ?? null, bytes: total, ...JSON.parse(engine.facts()) };
  progress("load", total, total, true);
  if (found.blobs && options.keep !== false) {
    // In the background: the model can be talked to meanwhile.
    keepFiles(found.name, found.blobs).then(
      (id) => id && tell("kept", { id }),
      (e) => tell("notKept", failure(e)),
    );
  }
  return loaded;
}

async function chat(messages, options = {}) {
  if (!engine) throw Object.assign(new Error("no model is loaded"), { kind: "Usage" });
  const say = (text, reasoning, token) => tell("text", { text, reasoning, token });
  // Without a seed, others than the last time: WebAssembly has no randomness of its own.
  const seed = options.seed ?? crypto.getRandomValues(new Uint32Array(1))[0];
  const asked = JSON.stringify({ ...options, seed });
  try {
    const said = JSON.parse(await engine.chat(JSON.stringify(messages), asked, say));
    lastStats = { ...said, text: undefined, reasoning: undefined, tokens: said.tokens.length };
    // It may be on another device now.
    Object.assign(loaded, JSON.parse(engine.facts()));
    return said;
  } finally {
    measureHeap();
  }
}

const queued = {
  load,
  chat,
  async unload() {
    unload();
  },
  async profile(on) {
    engine?.profile(on);
  },
  async summary() {
    const text = engine?.summary();
    return text ? JSON.parse(text) : null;
  },
  async check(device, options = {}) {
    memory ??= (await init()).memory;
    if (device !== "gpu") return JSON.parse(checkCpu());
    const subgroups = await prepareGpu(options.without);
    return JSON.parse(await checkGpu(JSON.stringify({ device, subgroups }), options.ops ?? [], options.quick ?? false));
  },
  async loseDevice() {
    engine?.loseDevice();
  },
};

const atOnce = {
  abort() {
    downloading?.abort();
    if (memory) stop();
  },
  stats: () => ({ heap: memory?.buffer.byteLength ?? 0, heapPeak, last: lastStats, model: loaded }),
  kept,
  forget,
  version: async () => ((memory ??= (await init()).memory), version()),
};

let before = Promise.resolve();

self.onmessage = async ({ data: { id, method, args } }) => {
  const run = async () => {
    try {
      const result = await (queued[method] ?? atOnce[method])(...args);
      self.postMessage({ id, result });
    } catch (e) {
      self.postMessage({ id, error: failure(e) });
    }
  };
  if (method in queued) before = before.then(run);
  else await run();
};

tell("ready");
