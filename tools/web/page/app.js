// The page: what is seen of the engine. Everything it knows of models it knows through wgpu-llm.js.

import { Llm } from "./wgpu-llm.js";

const $ = (id) => document.getElementById(id);
const size = (bytes) => (bytes >= 1 << 30 ? `${(bytes / 2 ** 30).toFixed(1)} GiB` : `${Math.ceil(bytes / 2 ** 20)} MiB`);
const query = new URLSearchParams(location.search);

const llm = new Llm();
let messages = [];
let busy = false;
let model = null;
// For whoever looks inside, as tests do.
const page = (globalThis.page = { llm, answers: [] });

function notice(text) {
  $("notice").textContent = text ?? "";
  $("notice").hidden = !text;
}

function show(...ids) {
  for (const id of ["load", "loading", "chat"]) $(id).hidden = !ids.includes(id);
}

// Loading ------------------------------------------------------------------------------------------------------------

async function load(source, title) {
  notice();
  show("loading");
  $("progress").removeAttribute("value");
  $("progress-label").textContent = `Opening ${title}`;
  // Some browsers ask the user, some have no such thing; either way the model loads.
  if ($("keep").checked) navigator.storage?.persist?.().catch(() => {});
  const number = (id) => ($(id).value === "" ? undefined : Number($(id).value));
  const device = query.get("device") ?? $("device").value;
  try {
    model = await llm.load(source, {
      device,
      context: number("context"),
      keep: $("keep").checked,
      memory: query.has("memory") ? Number(query.get("memory")) : undefined,
      without: query.get("without")?.split(",") ?? [],
      endpoint: query.get("endpoint") ?? undefined,
      onprogress({ phase, done, total }) {
        const part = total ? ` ${size(done)} of ${size(total)}` : "";
        $("progress-label").textContent = `${phase === "download" ? "Downloading" : "Loading"} ${title}:${part}`;
        if (total) $("progress").value = done / total;
      },
    });
    $("model").textContent = `${model.name} on ${model.device}, ${model.context} tokens of context`;
    $("change").hidden = false;
    document.body.dataset.state = "ready";
    show("chat");
    if (!model.gpu && device !== "cpu") notice(withoutGpu());
    if ($("profile").open) await llm.profile(true);
    draw();
    $("prompt").focus();
  } catch (e) {
    model = null;
    $("model").textContent = "No model";
    show("load");
    notice(e.kind === "AbortError" ? "Cancelled. What was downloaded stays, and the rest comes the next time." : e.message);
    await list();
  }
}

/** Why the CPU has to do. */
function withoutGpu() {
  if (!isSecureContext) return "Pages have a GPU (WebGPU) only over https or on localhost: this model runs on the CPU, slowly.";
  if (!navigator.gpu) return "This browser has no WebGPU: models run on the CPU here, slowly.";
  return "This browser has WebGPU, but no GPU for it (a blocked driver, or hardware acceleration turned off): the model runs on the CPU, slowly.";
}

async function list() {
  const kept = await llm.kept();
  $("kept-box").hidden = !kept.length;
  $("kept").replaceChildren(...kept.map(({ id, name, bytes, complete }) => {
    const open = button(`${name} (${size(bytes)}${complete ? "" : ", not all of it yet"})`, () => load({ kept: id }, name));
    const remove = button("Remove", async () => {
      await llm.forget(id);
      await list();
    });
    remove.setAttribute("aria-label", `Remove ${name} from this browser`);
    const item = document.createElement("li");
    item.append(open, remove);
    return item;
  }));
}

/** What `wgpu-llm web` has on this computer; other hosts have no such list. */
async function listLocal() {
  const response = await fetch("models.json").catch(() => null);
  const models = response?.ok ? await response.json().catch(() => []) : [];
  $("local-box").hidden = !models.length;
  $("local").replaceChildren(...models.map(({ url, name, bytes }) => {
    const item = document.createElement("li");
    item.append(button(`${name} (${size(bytes)})`, () => load(url, name)));
    return item;
  }));
}

function button(text, action) {
  const made = document.createElement("button");
  made.type = "button";
  made.textContent = text;
  made.addEventListener("click", action);
  return made;
}

$("file").addEventListener("change", () => {
  const files = [...$("file").files];
  if (files.length) load(files, files[0].name);
  $("file").value = "";
});
$("address-form").addEventListener("submit", (e) => {
  e.preventDefault();
  const address = $("address").value.trim();
  if (address) load(address, address.split("/").pop());
});
$("cancel").addEventListener("click", () => llm.abort());
$("change").addEventListener("click", async () => {
  await llm.abort();
  await llm.unload();
  model = null;
  delete document.body.dataset.state;
  $("model").textContent = "No model";
  $("change").hidden = true;
  show("load");
  await list();
});
for (const kind of ["dragover", "dragleave", "drop"]) {
  document.addEventListener(kind, (e) => {
    e.preventDefault();
    $("drop").classList.toggle("over", kind === "dragover");
    if (kind === "drop" && e.dataTransfer.files.length) load([...e.dataTransfer.files], e.dataTransfer.files[0].name);
  });
}

// Chat ---------------------------------------------------------------------------------------------------------------

function settings() {
  const options = {};
  for (const id of ["temperature", "top_k", "top_p", "min_p", "repeat_penalty", "seed", "limit"]) {
    const value = $(id).value;
    if (value !== "" && $(id).checkValidity()) options[id] = Number(value);
  }
  return options;
}

function entry(message, i) {
  const item = document.createElement("li");
  item.className = message.role;
  const part = (tag, name, text) => {
    const made = document.createElement(tag);
    made.className = name;
    made.textContent = text;
    item.append(made);
    return made;
  };
  part("p", "who", message.role === "user" ? "You" : "Model");
  if (message.reasoning_content) part("p", "reasoning", message.reasoning_content);
  part("p", "text", message.content);
  if (message.role === "assistant" && !busy) {
    const tools = part("div", "tools", "");
    if (navigator.clipboard) tools.append(button("Copy", () => navigator.clipboard.writeText(message.content)));
    if (i === messages.length - 1) tools.append(button("Regenerate", regenerate));
  }
  return item;
}

function draw() {
  $("log").replaceChildren(...messages.map(entry));
  $("log").scrollTop = $("log").scrollHeight;
  $("send").hidden = busy;
  $("stop").hidden = !busy;
}

async function answer() {
  busy = true;
  notice();
  draw();
  const system = $("system").value.trim();
  const asked = [...(system ? [{ role: "system", content: system }] : []), ...messages];
  const said = { role: "assistant", content: "", reasoning_content: "" };
  messages.push(said);
  draw();
  const item = $("log").lastElementChild;
  const text = item.querySelector(".text");
  const begin = performance.now();
  let tokens = 0;
  try {
    const stream = llm.chat(asked, settings());
    let piece;
    while (!(piece = await stream.next()).done) {
      if (piece.value.recovered) {
        notice(piece.value.recovered);
        continue;
      }
      said.content += piece.value.text;
      said.reasoning_content += piece.value.reasoning;
      tokens += 1;
      // Not in a frame's time: frames do not come in hidden tabs.
      const atEnd = $("log").scrollTop + $("log").clientHeight > $("log").scrollHeight - 40;
      text.textContent = said.content || said.reasoning_content;
      if (atEnd) $("log").scrollTop = $("log").scrollHeight;
      $("speed").textContent = `${tokens} tokens in ${((performance.now() - begin) / 1000).toFixed(1)} s`;
    }
    // With what was held back until the end.
    said.content = piece.value.text;
    said.reasoning_content = piece.value.reasoning;
    page.answers.push(piece.value);
    tell(piece.value);
  } catch (e) {
    notice(e.message);
  }
  if (!said.content && !said.reasoning_content) messages.pop();
  if (!said.reasoning_content) delete said.reasoning_content;
  busy = false;
  draw();
  await kernels();
  document.body.dataset.answers = Number(document.body.dataset.answers ?? 0) + 1;
  $("prompt").focus();
}

function tell({ tokens, seconds, promptTokens, promptSeconds, used, stop, forgotten }) {
  const rate = (n, s) => (s > 0 ? (n / s).toFixed(1) : "–");
  const why = { stopped: "stopped; ", limit: "limit reached; ", context: "context full; ", end: "" }[stop];
  const left = forgotten ? `; ${forgotten} old turns left out` : "";
  $("speed").textContent =
    `${why}${rate(tokens.length - 1, seconds)} tokens/s, prompt ${promptTokens} at ${rate(promptTokens, promptSeconds)} tokens/s; ` +
    `${used} of ${model.context} tokens of context${left}`;
}

async function regenerate() {
  if (busy || messages.at(-1)?.role !== "assistant") return;
  messages.pop();
  await answer();
}

$("composer").addEventListener("submit", async (e) => {
  e.preventDefault();
  const text = $("prompt").value.trim();
  if (!text || busy) return;
  $("prompt").value = "";
  messages.push({ role: "user", content: text });
  await answer();
});
$("prompt").addEventListener("keydown", (e) => {
  if (e.key === "Enter" && !e.shiftKey && !e.isComposing) {
    e.preventDefault();
    $("composer").requestSubmit();
  }
});
$("stop").addEventListener("click", () => llm.abort());
$("clear").addEventListener("click", () => {
  if (busy) return;
  messages = [];
  $("speed").textContent = "";
  draw();
});

// Settings and figures -----------------------------------------------------------------------------------------------

$("show-settings").addEventListener("click", () => {
  const open = $("settings").hidden;
  $("settings").hidden = !open;
  $("show-settings").setAttribute("aria-expanded", String(open));
  if (open) $("system").focus();
});
$("settings-form").addEventListener("submit", (e) => e.preventDefault());
$("profile").addEventListener("toggle", () => {
  if (model) llm.profile($("profile").open).catch((e) => notice(e.message));
});

async function kernels() {
  const stats = await llm.stats();
  $("figures").textContent = `WebAssembly's memory: ${size(stats.heap)}. ${model?.timestamps || !model?.gpu ? "" : "This GPU does not tell times."}`;
  if (!$("profile").open) return;
  const summary = await llm.summary().catch(() => null);
  const rows = summary?.answer.kernels ?? [];
  $("kernels").replaceChildren(...rows.slice(0, 30).map((k) => {
    const row = document.createElement("tr");
    const cells = [
      k.kernel, k.count, (k.total_ns / 1e6).toFixed(2), (k.fraction * 100).toFixed(1), (k.bytes_per_second / 1e9).toFixed(1),
    ];
    row.append(...cells.map((text) => Object.assign(document.createElement("td"), { textContent: text })));
    return row;
  }));
}

// Settings outlive the visit; conversations do not.
const saved = ["system", "temperature", "top_k", "top_p", "min_p", "repeat_penalty", "seed", "limit", "context", "device"];
for (const id of saved) {
  try {
    $(id).value = localStorage.getItem(`wgpu-llm.${id}`) ?? $(id).value;
    $(id).addEventListener("change", () => localStorage.setItem(`wgpu-llm.${id}`, $(id).value));
  } catch {
    // No storage here: then they last as long as the page.
  }
}
if (!navigator.gpu) notice(withoutGpu());
list();
listLocal();
if (query.has("model")) load(query.get("model"), query.get("model").split("/").pop());
