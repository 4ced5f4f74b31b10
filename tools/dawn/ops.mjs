// Every kernel of every operation against exact results, on Dawn (Chromium's WebGPU) without a browser: the page's WebAssembly in Node.
//
//   node ops.mjs FOLDER PAGE OUT.json [--quick] [--ops NAME,...] [DAWN OPTION ...]
//
// With --quick as many cases are run as meet every kernel. FOLDER holds node_modules, PAGE what tools/web/build.sh made (target/web). OUT.json is what `check("gpu")` of the page's API gives.
// Exits with 3 where there is no adapter.

import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { pathToFileURL } from "node:url";
import { adapterOf, gpuOf } from "./adapter.mjs";

const [folder, page, output, ...rest] = process.argv.slice(2);
if (!output) throw new Error("usage: node ops.mjs FOLDER PAGE OUT.json [--quick] [--ops NAME,...] [DAWN OPTION ...]");
const at = rest.indexOf("--ops");
const ops = at < 0 ? [] : rest[at + 1].split(",");
const options = rest.filter((option, i) => option !== "--quick" && (at < 0 || i < at || i > at + 1));

const gpu = await gpuOf(folder, options);
await adapterOf(gpu, options);
// To the library this is a worker of a browser.
const navigator = { gpu };
for (const [name, value] of Object.entries({ navigator, self: globalThis, WorkerGlobalScope: Object }))
  Object.defineProperty(globalThis, name, { value, configurable: true });

const module = (name) => import(pathToFileURL(join(page, name)));
const { prepareGpu } = await module("gpu.js");
const { default: init, checkGpu } = await module("wgpu_llm.js");
await init({ module_or_path: readFileSync(join(page, "wgpu_llm_bg.wasm")) });
const subgroups = await prepareGpu();
writeFileSync(output, await checkGpu(JSON.stringify({ device: "gpu", subgroups }), ops, rest.includes("--quick")));
// Dawn's threads would keep the process.
process.exit(0);
