// Language models in a browser tab: the API. Types and explanations: wgpu-llm.d.ts.

/** An error of the engine; `kind` says what sort it is. */
export class LlmError extends Error {
  constructor({ message, kind }) {
    super(message);
    this.name = "LlmError";
    this.kind = kind;
  }
}

export class Llm extends EventTarget {
  #worker;
  #calls = new Map();
  #next = 0;
  #hearing = null;
  #onprogress = null;

  constructor({ worker = new URL("./worker.js", import.meta.url) } = {}) {
    super();
    this.#worker = new Worker(worker, { type: "module" });
    this.#worker.onmessage = ({ data }) => this.#hear(data);
    // What ends the worker ends all that is waited for.
    this.#worker.onerror = (e) => {
      const error = new LlmError({ message: e.message || "the worker cannot be started", kind: "Worker" });
      for (const { reject } of this.#calls.values()) reject(error);
      this.#calls.clear();
    };
  }

  #hear(data) {
    if (data.event) {
      if (data.event === "progress") this.#onprogress?.(data);
      if (["text", "recovered"].includes(data.event)) this.#hearing?.(data);
      this.dispatchEvent(new CustomEvent(data.event, { detail: data }));
      return;
    }
    const call = this.#calls.get(data.id);
    this.#calls.delete(data.id);
    if (data.error) call?.reject(new LlmError(data.error));
    else call?.resolve(data.result);
  }

  #call(method, ...args) {
    return new Promise((resolve, reject) => {
      const id = this.#next++;
      this.#calls.set(id, { resolve, reject });
      this.#worker.postMessage({ id, method, args });
    });
  }

  async load(source, { onprogress, signal, ...options } = {}) {
    this.#onprogress = onprogress ?? null;
    const abort = () => this.abort();
    signal?.addEventListener("abort", abort);
    try {
      // A FileList cannot be sent to a worker; an array can.
      const sent = typeof FileList !== "undefined" && source instanceof FileList ? [...source] : source;
      return await this.#call("load", sent, options);
    } finally {
      signal?.removeEventListener("abort", abort);
      this.#onprogress = null;
    }
  }

  async *chat(messages, { signal, ...options } = {}) {
    if (this.#hearing) throw new LlmError({ message: "an answer is under way", kind: "Usage" });
    const heard = [];
    let wake = () => {};
    let answer, failed;
    this.#hearing = (data) => {
      if (data.event === "text") heard.push({ text: data.text, reasoning: data.reasoning, token: data.token });
      else heard.push({ text: "", reasoning: "", recovered: data.message });
      wake();
    };
    const abort = () => this.abort();
    signal?.addEventListener("abort", abort);
    const done = this.#call("chat", messages, options).then(
      (result) => { answer = result; wake(); },
      (e) => { failed = e; wake(); },
    );
    try {
      for (;;) {
        if (heard.length) yield heard.shift();
        else if (failed) throw failed;
        else if (answer) return answer;
        else await new Promise((resolve) => { wake = resolve; });
      }
    } finally {
      // Whoever leaves the loop has heard enough.
      if (!answer && !failed) this.abort();
      await done;
      signal?.removeEventListener("abort", abort);
      this.#hearing = null;
    }
  }

  abort() { return this.#call("abort"); }
  stats() { return this.#call("stats"); }
  profile(on = true) { return this.#call("profile", on); }
  summary() { return this.#call("summary"); }
  kept() { return this.#call("kept"); }
  forget(id) { return this.#call("forget", id); }
  unload() { return this.#call("unload"); }
  check(device = "cpu", options = {}) { return this.#call("check", device, options); }
  loseDevice() { return this.#call("loseDevice"); }

  close() {
    this.#worker.terminate();
    for (const { reject } of this.#calls.values()) reject(new LlmError({ message: "closed", kind: "Worker" }));
    this.#calls.clear();
  }
}
