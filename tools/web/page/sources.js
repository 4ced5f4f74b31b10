// Where a model's bytes come from: files of the user's, the browser's own storage (OPFS), a server. Runs in the worker.
//
// Everything is read at once when the engine asks for it, which workers may do: blobs through FileReaderSync, servers that
// give ranges through a synchronous XMLHttpRequest. So a model never lies in memory as a whole.

import { hubFiles, nameOfPage } from "./hub.js";

const FOLDER = "wgpu-llm-models";
const PIECE = 8 << 20;

/** An error for people: what happened, and what to do. */
export class SourceError extends Error {
  constructor(message, kind = "Network") {
    super(message);
    this.kind = kind;
  }
}

/** A part of a model in a blob: a file of the user's, or of the browser's storage. */
class BlobFile {
  constructor(name, blob) {
    this.name = name;
    this.blob = blob;
    this.length = blob.size;
  }
  read(offset, into) {
    const piece = this.blob.slice(offset, offset + into.length);
    const bytes = new FileReaderSync().readAsArrayBuffer(piece);
    if (bytes.byteLength !== into.length) throw new Error(`${this.name} is shorter than it was`);
    into.set(new Uint8Array(bytes));
  }
}

/** A part of a model on a server that gives ranges, where the browser keeps nothing. */
class RemoteFile {
  constructor(name, url, length) {
    this.name = name;
    this.url = url;
    this.length = length;
    this.held = { offset: 0, bytes: new Uint8Array() };
    this.next = 0;
    this.ahead = 0;
  }
  read(offset, into) {
    const at = offset - this.held.offset;
    if (at < 0 || at + into.length > this.held.bytes.length) {
      // What goes on where the last read ended will go on: more and more is asked for at once, since each time takes a round trip.
      this.ahead = offset === this.next ? Math.min(2 * this.ahead + (64 << 10), PIECE) : 0;
      this.next = offset + into.length;
      if (into.length >= this.ahead) return this.fetch(offset, into);
      this.held = { offset, bytes: new Uint8Array(Math.min(this.ahead, this.length - offset)) };
      this.fetch(offset, this.held.bytes);
    }
    this.next = offset + into.length;
    into.set(this.held.bytes.subarray(offset - this.held.offset, this.next - this.held.offset));
  }
  fetch(offset, into) {
    for (let at = 0; at < into.length; at += PIECE) {
      const end = Math.min(at + PIECE, into.length);
      const request = new XMLHttpRequest();
      request.open("GET", this.url, false);
      request.responseType = "arraybuffer";
      request.setRequestHeader("Range", `bytes=${offset + at}-${offset + end - 1}`);
      request.send();
      if (request.status !== 206 || request.response.byteLength !== end - at) {
        throw new Error(`${this.url} answers ${request.status} to a range`);
      }
      into.set(new Uint8Array(request.response), at);
    }
  }
}

const clean = (name) => name.replace(/[^A-Za-z0-9._-]+/g, "_").slice(-120) || "model";
const last = (path) => decodeURIComponent(path.split(/[?#]/)[0].split("/").pop() || path);

/** The names of the files of a split model, from the first one's; just that name where it is whole. */
export function splitNames(first) {
  const match = /^(.*)-00001-of-(\d{5})(\.gguf.*)$/.exec(first);
  if (!match) return [first];
  const [, stem, count, rest] = match;
  return Array.from({ length: Number(count) }, (_, i) => `${stem}-${String(i + 1).padStart(5, "0")}-of-${count}${rest}`);
}

async function folder(create) {
  const root = await navigator.storage.getDirectory();
  return root.getDirectoryHandle(FOLDER, { create });
}

/** Whether the browser has a storage of its own for files here: not in all private windows. */
async function hasStorage() {
  try {
    await folder(true);
    return "createSyncAccessHandle" in FileSystemFileHandle.prototype;
  } catch {
    return false;
  }
}

async function writeAll(directory, name, bytes) {
  const handle = await (await directory.getFileHandle(name, { create: true })).createSyncAccessHandle();
  try {
    handle.truncate(0);
    handle.write(bytes, { at: 0 });
    handle.flush();
  } finally {
    handle.close();
  }
}

async function readNote(directory) {
  try {
    return JSON.parse(await (await (await directory.getFileHandle("model.json")).getFile()).text());
  } catch {
    return null;
  }
}

const writeNote = (directory, note) =>
  writeAll(directory, "model.json", new TextEncoder().encode(JSON.stringify(note)));

/** The models that the browser keeps: `{id, name, bytes, complete}`; downloads that ended early too, so that they can be removed. */
export async function kept() {
  if (!(await hasStorage())) return [];
  const all = [];
  for await (const [id, directory] of (await folder(true)).entries()) {
    if (directory.kind !== "directory") continue;
    const note = await readNote(directory);
    const bytes = note?.parts.reduce((sum, p) => sum + p.length, 0);
    if (note?.complete || note?.urls) all.push({ id, name: note.name, bytes, complete: note.complete });
  }
  return all.sort((a, b) => a.name.localeCompare(b.name));
}

/** Forgets a model that the browser keeps. */
export async function forget(id) {
  if (await hasStorage()) await (await folder(true)).removeEntry(id, { recursive: true });
}

async function openKept(id, progress, signal) {
  const directory = await (await folder(false)).getDirectoryHandle(id);
  const note = await readNote(directory);
  if (note?.urls && !note.complete) return fetchKept(note.name, note.urls, progress, signal);
  if (!note?.complete) throw new SourceError(`${id} is not kept here: load it again`, "Usage");
  const files = [];
  for (const part of note.parts) {
    const blob = await (await directory.getFileHandle(part.file)).getFile();
    if (blob.size !== part.length) throw new SourceError(`${part.name} is damaged: remove it and load it again`, "Io");
    files.push(new BlobFile(part.name, blob));
  }
  return { name: note.name, files, kept: id };
}

/** The folder of a model, without what another model of that name left there. */
async function emptied(id) {
  const all = await folder(true);
  await all.removeEntry(id, { recursive: true }).catch((e) => {
    if (e.name !== "NotFoundError") throw e;
  });
  return all.getDirectoryHandle(id, { create: true });
}

/** Copies the user's files into the browser's storage, piece by piece. */
export async function keepFiles(name, blobs) {
  if (!(await hasStorage())) return null;
  const id = clean(name);
  const parts = blobs.map((blob, i) => ({ name: blob.name, file: `part-${i}`, length: blob.size, modified: blob.lastModified }));
  const note = await readNote(await (await folder(true)).getDirectoryHandle(id, { create: true }));
  if (note?.complete && JSON.stringify(note.parts) === JSON.stringify(parts)) return id;
  const directory = await emptied(id);
  if (!(await hasRoom(blobs.reduce((sum, b) => sum + b.size, 0)))) return null;
  await writeNote(directory, { name, parts, complete: false });
  for (const [i, blob] of blobs.entries()) {
    const handle = await (await directory.getFileHandle(`part-${i}`, { create: true })).createSyncAccessHandle();
    try {
      handle.truncate(0);
      for (let at = 0; at < blob.size; at += PIECE) {
        handle.write(new Uint8Array(await blob.slice(at, at + PIECE).arrayBuffer()), { at });
      }
      handle.flush();
    } finally {
      handle.close();
    }
  }
  await writeNote(directory, { name, parts, complete: true });
  return id;
}

async function hasRoom(bytes) {
  const { quota, usage } = (await navigator.storage.estimate?.()) ?? {};
  return quota === undefined || quota - usage > bytes;
}

const pause = (ms) => new Promise((done) => setTimeout(done, ms));

/** Asks for a file from byte `from` on. Gives the response, the byte that it begins with and the file's length. */
async function request(url, from, signal) {
  let response;
  try {
    response = await fetch(url, { headers: from ? { Range: `bytes=${from}-` } : {}, signal });
  } catch (e) {
    if (e.name === "AbortError") throw e;
    throw new SourceError(`${url} cannot be reached: ${e.message}. It may be down, or not allow other pages to read it (CORS)`);
  }
  if (response.status === 416) return { response, start: from, length: from };
  if (!response.ok) throw new SourceError(`${url} answers ${response.status} ${response.statusText}`.trim(), "Usage");
  const start = response.status === 206 ? from : 0;
  const left = Number(response.headers.get("Content-Length") ?? NaN);
  return { response, start, length: start + left, etag: response.headers.get("ETag") };
}

/**
 * Downloads a file into `handle`, going on where that ends, and trying again where the connection ends. `noted` writes down what
 * `part` says by then: nobody does where the tab is closed in the middle.
 */
async function download(url, handle, part, noted, progress, signal) {
  let tries = 0;
  for (;;) {
    let have = handle.getSize();
    try {
      const { response, start, length, etag } = await request(url, have, signal);
      if ((part.etag && etag && part.etag !== etag) || (have && part.length && length !== part.length)) {
        // Another file by now: from the start.
        await response.body?.cancel();
        handle.truncate(0);
        Object.assign(part, { etag: undefined, length: 0 });
        continue;
      }
      Object.assign(part, { etag: etag ?? undefined, length });
      await noted();
      if (start < have) handle.truncate((have = start));
      if (response.status !== 416) {
        const reader = response.body.getReader();
        for (;;) {
          const { done, value } = await reader.read();
          if (done) break;
          handle.write(value, { at: have });
          have += value.length;
          tries = 0;
          progress(have, length);
        }
      }
      handle.flush();
      if (Number.isNaN(length)) part.length = have;
      if (have === part.length) return;
      throw new SourceError(`${url} ended after ${have} of ${part.length} bytes`);
    } catch (e) {
      if (e.name === "AbortError" || e.kind === "Usage" || e.name === "QuotaExceededError" || ++tries > 5) throw e;
      await pause(250 * 2 ** tries);
    }
  }
}

/** Downloads `urls` into the browser's storage; what is there of them already is not downloaded again. */
async function fetchKept(name, urls, progress, signal) {
  const id = clean(name);
  let directory = await (await folder(true)).getDirectoryHandle(id, { create: true });
  let note = await readNote(directory);
  if (note?.complete && JSON.stringify(note.urls) === JSON.stringify(urls)) return openKept(id);
  if (JSON.stringify(note?.urls) !== JSON.stringify(urls)) {
    // What is there is of another model: its bytes are no beginning of this one.
    directory = await emptied(id);
    note = { name, urls, complete: false, parts: urls.map((url, i) => ({ name: last(url), file: `part-${i}`, length: 0 })) };
  }
  const noted = () => writeNote(directory, note);
  for (const [i, url] of urls.entries()) {
    const part = note.parts[i];
    const handle = await (await directory.getFileHandle(part.file, { create: true })).createSyncAccessHandle();
    try {
      await download(url, handle, part, noted, (done, total) => progress(i, done, total), signal);
    } finally {
      handle.close();
    }
  }
  note.complete = true;
  await noted();
  return openKept(id);
}

/** A server's files, without keeping them: range by range, or as a blob where the server gives no ranges. */
async function openRemote(name, urls, progress, signal) {
  const files = [];
  for (const [i, url] of urls.entries()) {
    const probe = await fetch(url, { headers: { Range: "bytes=0-3" }, signal });
    const range = /\/(\d+)$/.exec(probe.headers.get("Content-Range") ?? "");
    await probe.body?.cancel();
    if (probe.status === 206 && range) {
      files.push(new RemoteFile(last(url), url, Number(range[1])));
      continue;
    }
    const { response, length } = await request(url, 0, signal);
    const reader = response.body.getReader();
    // Blobs go to the disk where there are many.
    let blob = new Blob([]);
    for (;;) {
      const { done, value } = await reader.read();
      if (done) break;
      blob = new Blob([blob, value]);
      progress(i, blob.size, length);
    }
    files.push(new BlobFile(last(url), blob));
  }
  return { name, files };
}

/**
 * Opens what `source` means: a File or several, `{kept: id}`, an address, `hf:user/repo:quant`, or the address of its page on the hub.
 * Gives `{name, files, kept}`: the files can be read from anywhere at once.
 */
export async function open(source, { keep = true, endpoint, progress = () => {}, signal } = {}) {
  if (source instanceof Blob) source = [source];
  if (Array.isArray(source) && source[0] instanceof Blob) {
    const blobs = [...source].sort((a, b) => (a.name ?? "").localeCompare(b.name ?? ""));
    const files = blobs.map((blob) => new BlobFile(blob.name ?? "model.gguf", blob));
    return { name: files[0].name, files, blobs };
  }
  if (source?.kept) return openKept(source.kept, progress, signal);
  let urls, name;
  const wanted = typeof source !== "string" ? undefined : source.startsWith("hf:") ? source.slice(3) : nameOfPage(source, endpoint);
  if (wanted) {
    ({ urls, name } = await hubFiles(wanted, endpoint, signal));
  } else {
    const first = new URL(Array.isArray(source) ? source[0] : source, self.location.href).href;
    urls = Array.isArray(source) ? source.map((url) => new URL(url, self.location.href).href) : splitNames(first);
    name = last(first);
  }
  if (keep && (await hasStorage())) {
    try {
      return await fetchKept(name, urls, progress, signal);
    } catch (e) {
      // A full disk, or another tab that downloads the same: without keeping it, it still runs.
      if (!["QuotaExceededError", "NoModificationAllowedError", "InvalidStateError"].includes(e.name)) throw e;
      // What does not fit must not fill the disk either.
      if (e.name === "QuotaExceededError") await forget(clean(name)).catch(() => {});
    }
  }
  return openRemote(name, urls, progress, signal);
}
