// `hf:user/repo:quant`, or the address of a page of the hub, to addresses of files: which files of a repository make the wanted model.
// The rules are the program's.

import { SourceError, splitNames } from "./sources.js";

const PREFERENCE = [
  "Q4_K_M", "Q8_0", "Q5_K_M", "Q4_K_S", "Q6_K", "Q4_0", "Q4_1", "IQ4_NL", "Q5_K_S", "Q5_0", "Q5_1", "MXFP4",
  "Q3_K_M", "BF16", "F16", "F32",
];
const QUANT = /(?:^|[^0-9a-z])((?:UD-)?(?:I?Q\d[0-9A-Z_]*|TQ\d_\d|MXFP4(?:_MOE)?|NVFP4|BF16|FP?16|FP?32))[)\]]?$/i;
const HOSTS = ["huggingface.co", "www.huggingface.co", "hf.co", "www.hf.co"];

/** The quantization that a file's name tells, in capitals. */
export function quantOf(path) {
  const stem = path.replace(/\.gguf$/i, "").replace(/-\d{5}-of-\d{5}$/, "");
  return QUANT.exec(stem)?.[1].toUpperCase().replace("FP", "F");
}

/** The file (the first of a split one) among `paths` that `quant` means; the usual compromise where it is not given. */
export function pick(paths, quant) {
  const models = paths.filter(
    (p) => /\.gguf$/i.test(p) && !/mmproj|imatrix|ggml-vocab/i.test(p) && !/-(?!00001)\d{5}-of-\d{5}\.gguf$/i.test(p),
  );
  if (quant) {
    const same = (text) => text?.toLowerCase() === quant.toLowerCase();
    return models.find((p) => same(quantOf(p)) || same(p) || same(p.split("/").pop()));
  }
  for (const wanted of PREFERENCE) {
    const found = models.find((p) => quantOf(p) === wanted);
    if (found) return found;
  }
  return models[0];
}

/**
 * The model, as `user/repo` or `user/repo:quant`, that the address of a page of the hub names; nothing for another text. What
 * `/resolve/` gives is a file: that address is taken as it is.
 */
export function nameOfPage(text, endpoint) {
  const bare = HOSTS.some((host) => text.toLowerCase().startsWith(`${host}/`));
  if (!bare && !/^https?:\/\//i.test(text)) return undefined;
  let url, parts;
  try {
    url = new URL(bare ? `https://${text}` : text);
    parts = url.pathname.split("/").filter(Boolean).map(decodeURIComponent);
  } catch {
    return undefined;
  }
  if (!HOSTS.includes(url.host) && !(endpoint && url.origin === new URL(endpoint).origin)) return undefined;
  const [user, repo, page, branch, ...path] = parts;
  if (!repo || page === "resolve" || /\.gguf$/i.test(repo) || ["datasets", "spaces"].includes(user)) return undefined;
  const inside = page === "tree" || page === "blob";
  if (inside && branch && branch !== "main") {
    throw new SourceError(`${text}: models are fetched from the branch main, not from ${branch}`, "Usage");
  }
  const shown = url.searchParams.get("show_file_info");
  const file = /\.gguf$/i.test(path.at(-1) ?? "") ? path.join("/") : path.at(-1);
  const wanted = shown ?? (inside ? file : undefined);
  return wanted ? `${user}/${repo.split(":")[0]}:${wanted}` : `${user}/${repo}`;
}

/** The addresses of the model that `name` (`user/repo` or `user/repo:quant`) means. */
export async function hubFiles(name, endpoint = "https://huggingface.co", signal) {
  const [repo, quant] = name.split(":");
  endpoint = endpoint.replace(/\/+$/, "");
  if (!/^[\w.-]+\/[\w.-]+$/.test(repo)) throw new SourceError(`hf:${name} is no name: write hf:user/repo:quant`, "Usage");
  let response;
  try {
    response = await fetch(`${endpoint}/api/models/${repo}/revision/main?blobs=true`, { signal });
  } catch (e) {
    throw new SourceError(`the hub cannot be reached: ${e.message}`);
  }
  if (!response.ok) {
    throw new SourceError(`hf:${repo}: the hub answers ${response.status}: is the name right, and the repository public?`, "Usage");
  }
  const { sha, siblings = [] } = await response.json();
  const paths = siblings.map((s) => s.rfilename);
  const first = pick(paths, quant);
  if (!first) {
    const there = [...new Set(paths.filter((p) => /\.gguf$/i.test(p)).map((p) => quantOf(p) ?? p))];
    throw new SourceError(`hf:${repo} has no ${quant ?? "GGUF file"}${there.length ? `; it has ${there.join(", ")}` : ""}`, "Usage");
  }
  const url = (path) => `${endpoint}/${repo}/resolve/${sha}/${path.split("/").map(encodeURIComponent).join("/")}`;
  return { urls: splitNames(first).map(url), name: first.split("/").pop() };
}
