// Dawn's WebGPU, of npm's package `webgpu`, as a browser would offer it.

import { join } from "node:path";
import { pathToFileURL } from "node:url";

/** `navigator.gpu`; FOLDER holds node_modules. WebGPU's classes become global, as in a browser. */
export async function gpuOf(folder, options) {
  const { create, globals } = await import(pathToFileURL(join(folder, "node_modules", "webgpu", "index.js")));
  Object.assign(globalThis, globals);
  const gpu = create(options);
  // A set in browsers; what the package has lacks iterators.
  const value = new Set(gpu.wgslLanguageFeatures);
  Object.defineProperty(gpu, "wgslLanguageFeatures", { value, configurable: true });
  return gpu;
}

/** An adapter; ends the process with 3 where there is none. */
export async function adapterOf(gpu, options) {
  const adapter = await gpu.requestAdapter();
  if (adapter) return adapter;
  console.error(`Dawn finds no adapter with ${options.join(" ")}`);
  process.exit(3);
}
