// Compiles WGSL by Tint, the compiler of Chromium, without a browser: in Dawn for Node (npm's package `webgpu`).
//
//   node compile.mjs FOLDER IN.json OUT.json [--spirv DIR] [DAWN OPTION ...]
//
// FOLDER holds node_modules. IN.json is `[{name, wgsl, features, shared, invocations}]`: the WebGPU features that a shader needs, its workgroups'
// bytes of memory and invocations. OUT.json is `{adapter, features, compiled, pipelines, skipped, failed: [{name, line, message}]}`; shaders are
// skipped where the adapter lacks a feature, and no pipelines are made where it lacks room.
//
// Dawn's options are `backend=null`, which compiles for every feature and needs no driver at all, or `backend=vulkan`, which takes the driver that
// VK_ICD_FILENAMES names. The latter can write SPIR-V: `--spirv DIR` makes a file NAME.spvasm of each pipeline, and NAME.spv where spirv-as
// (Debian's spirv-tools) is installed, for `kernel-stats --peer DIR`.
//
// Exits with 3 where there is no adapter.

import { execFileSync, spawnSync } from "node:child_process";
import { closeSync, mkdirSync, mkdtempSync, openSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { adapterOf, gpuOf } from "./adapter.mjs";

const [folder, input, output, ...rest] = process.argv.slice(2);
if (!output) throw new Error("usage: node compile.mjs FOLDER IN.json OUT.json [--spirv DIR] [DAWN OPTION ...]");

/** What the largest shaders need beyond what every device promises. */
const ROOM = ["maxComputeWorkgroupStorageSize", "maxComputeInvocationsPerWorkgroup", "maxComputeWorkgroupSizeX"];

async function compile(options) {
  const shaders = JSON.parse(readFileSync(input, "utf8"));
  const gpu = await gpuOf(folder, options);
  const adapter = await adapterOf(gpu, options);
  const wanted = [...new Set(shaders.flatMap((s) => s.features))].filter((f) => adapter.features.has(f));
  const requiredLimits = Object.fromEntries(ROOM.map((name) => [name, adapter.limits[name]]));
  const device = await adapter.requestDevice({ requiredFeatures: wanted });
  const roomy = await (await adapterOf(gpu, options)).requestDevice({ requiredFeatures: wanted, requiredLimits });
  const fits = ({ limits }, { shared, invocations }) =>
    shared <= limits.maxComputeWorkgroupStorageSize && invocations <= limits.maxComputeInvocationsPerWorkgroup;
  const about = adapter.info.description || adapter.info.device || adapter.info.architecture;
  // Pipelines are kept: freed in the midst of it by the garbage collector, they take lavapipe 25 with them.
  const kept = [];
  const result = { adapter: about, features: wanted, compiled: 0, pipelines: 0, skipped: 0, failed: [] };
  for (const shader of shaders) {
    const { name, wgsl, features } = shader;
    if (features.some((f) => !wanted.includes(f))) {
      result.skipped++;
      continue;
    }
    const on = fits(device, shader) ? device : roomy;
    on.pushErrorScope("validation");
    // Dumped text shows the first line, and so whose SPIR-V follows.
    const module = on.createShaderModule({ code: `${wgsl}\n// wgpu-llm: ${name}\n` });
    const errors = (await module.getCompilationInfo()).messages.filter((m) => m.type === "error");
    for (const m of errors) result.failed.push({ name, line: m.lineNum, message: m.message });
    if (errors.length === 0 && fits(on, shader)) {
      kept.push(on.createComputePipeline({ layout: "auto", compute: { module } }));
    }
    const error = await on.popErrorScope();
    if (error && errors.length === 0) result.failed.push({ name, line: 0, message: error.message });
    result.compiled++;
  }
  result.pipelines = kept.length;
  writeFileSync(output, JSON.stringify(result));
}

/** Runs itself, and makes files of what Dawn says of its shaders. */
function writeSpirv(dir, options) {
  mkdirSync(dir, { recursive: true });
  const aside = mkdtempSync(join(tmpdir(), "tint-"));
  const said = join(aside, "said");
  const out = openSync(said, "w");
  const command = [fileURLToPath(import.meta.url), folder, input, output, ...options, "enable-dawn-features=dump_shaders"];
  const run = spawnSync(process.execPath, command, { stdio: ["ignore", out, "inherit"] });
  closeSync(out);
  let name = null;
  let written = 0;
  for (const part of readFileSync(said, "utf8").split(/^info:$/m)) {
    name = /^\/\/ wgpu-llm: (.*)$/m.exec(part)?.[1] ?? name;
    const at = part.indexOf("; SPIR-V");
    if (at < 0 || !name) continue;
    const plain = name.replace(/[^A-Za-z0-9_.-]+/g, "_").replace(/^_|_$/g, "");
    // File systems take 255 bytes.
    const file = join(dir, plain.length > 200 ? `${plain.slice(0, 200)}_${written}` : plain);
    // Debian's assembler does not know this; without it, how subgroups converge is the driver's choice.
    const text = part.slice(at).replace(/^.*(SPV_KHR_maximal_reconvergence|MaximallyReconvergesKHR).*\n/gm, "");
    const version = /^; Version: ([\d.]+)$/m.exec(text)[1];
    writeFileSync(`${file}.spvasm`, text);
    try {
      execFileSync("spirv-as", ["--target-env", `spv${version}`, `${file}.spvasm`, "-o", `${file}.spv`]);
    } catch (e) {
      if (e.code !== "ENOENT") throw e;
    }
    written++;
    name = null;
  }
  rmSync(aside, { recursive: true });
  console.log(`${written} SPIR-V files in ${dir}`);
  return run.status ?? 1;
}

const spirv = rest.indexOf("--spirv");
if (spirv < 0) await compile(rest);
else process.exitCode = writeSpirv(rest[spirv + 1], rest.filter((_, i) => i < spirv || i > spirv + 1));
// Dawn's threads would keep the process.
process.exit();
