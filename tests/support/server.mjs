// Starts the real mysti_server for a test: on free ports, with a home, models and pictures of its own under /tmp,
// and with scriptable fakes where its workers should be.
//
//   const server = await startServer(t, { sd: { generate: ['crash', 'ok'] } });
//   const res = await server.post('/v1/images/generations', { prompt: 'a boat' });
//
// The server looks for its workers beside its own executable, so a copy of it is put into a folder of its own,
// with the fakes under the workers' names and the starter models' folder where they belong. Nothing in the server
// knows about tests. MYSTI_BIN names the folder of the build under test (default: build/bin).
import { chmodSync, copyFileSync, cpSync, existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { execFileSync, spawn } from 'node:child_process';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { dirname, join, resolve } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { writeGguf, writeSafetensors } from './models.mjs';
import { checkAnswer } from './openapi.mjs';

const here = dirname(fileURLToPath(import.meta.url));
export const binFolder = resolve(process.env.MYSTI_BIN ?? join(here, '../../build/bin'));

export function freePort() {
  return new Promise((done, fail) => {
    const s = createServer().on('error', fail).listen(0, '127.0.0.1', () => {
      const { port } = s.address();
      s.close(() => done(port));
    });
  });
}

// Waits until `check` returns something true and returns that; the sentence of the failure says what was awaited.
export async function until(what, check, timeoutMs = 30000) {
  const end = Date.now() + timeoutMs;
  for (;;) {
    const value = await check();
    if (value) return value;
    if (Date.now() > end) throw new Error(`waited ${timeoutMs} ms in vain for: ${what}`);
    await sleep(20);
  }
}

// diesWithParent: the kernel kills a fake when its parent dies, as it does the real workers.
export function layOut(root, plans, { diesWithParent = false } = {}) {
  const bin = join(root, 'bin');
  for (const folder of ['bin/models/starter', 'bin/public', 'home', 'models', 'outputs'])
    mkdirSync(join(root, folder), { recursive: true });
  copyFileSync(join(binFolder, 'mysti_server'), join(bin, 'mysti_server'));
  if (existsSync(join(binFolder, 'public'))) cpSync(join(binFolder, 'public'), join(bin, 'public'), { recursive: true });
  else writeFileSync(join(bin, 'public/index.html'), '<!doctype html><title>Mysti</title>');
  for (const kind of ['sd', 'llm']) {
    const folder = join(root, kind);
    mkdirSync(folder);
    writeFileSync(join(folder, 'plan.json'), JSON.stringify(plans[kind] ?? {}));
    writeFileSync(join(folder, 'records.jsonl'), '');
    const fake = join(bin, `mysti_${kind}_worker`);
    const program = `exec '${process.execPath}' '${join(here, 'fake_worker.mjs')}' ${kind} '${folder}' "$@"`;
    writeFileSync(fake, diesWithParent
      ? `#!/bin/sh\nif [ -z "$FAKE_CAGED" ]; then FAKE_CAGED=1 exec setpriv --pdeathsig KILL "$0" "$@"; fi\n`
        + `[ "$PPID" = "$MYSTI_SERVER_PID" ] || exit\n${program}\n`
      : `#!/bin/sh\n${program}\n`);
    chmodSync(fake, 0o755);
  }
  writeSafetensors(join(bin, 'models/starter/starter-painter.safetensors'));
  writeGguf(join(bin, 'models/starter/starter-writer.gguf'));
  return bin;
}

class TestServer {
  constructor(root, port) {
    Object.assign(this, { root, port, base: `http://127.0.0.1:${port}`, logText: '', exit: null });
    this.outputs = join(root, 'outputs');
    this.models = join(root, 'models');
    this.home = join(root, 'home');
  }

  // fileLimitKiB: no file of the server may grow beyond it; the shell between sets that and becomes the server.
  // unprivileged: as nobody when the tests run as root, whom no permission stops.
  // under: a program and its arguments that start the server in their own way.
  start(bin, { args, env, fileLimitKiB, unprivileged, under = [] }) {
    const nobody = unprivileged && process.getuid() === 0 ? { uid: 65534, gid: 65534 } : {};
    if (nobody.uid) execFileSync('chown', ['-R', `${nobody.uid}:${nobody.gid}`, this.root]);
    const limit = fileLimitKiB ? `trap '' XFSZ; ulimit -f ${fileLimitKiB};` : '';
    this.child = spawn('/bin/bash', ['-c', `${limit} exec "$@"`, 'bash', ...under, join(bin, 'mysti_server'),
      '--listen-port', String(this.port), '--sd-port', '0', '--llm-port', '0', '--home', this.home,
        '--model-dir', this.models, '--output-dir', this.outputs, ...args],
      { env: { ...process.env, ...env }, stdio: ['ignore', 'pipe', 'pipe'], ...nobody });
    for (const stream of [this.child.stdout, this.child.stderr])
      stream.setEncoding('utf8').on('data', (text) => (this.logText += text));
    this.child.on('exit', (code, signal) => (this.exit = { code, signal }));
    this.startAgain = async () => { // a killed one's connections may break before its exit is told
      await until('the server before has ended', () => this.exit);
      this.exit = null;
      this.start(bin, { args, env, fileLimitKiB, unprivileged, under });
      await this.answersHealth();
    };
  }

  /* A line may arrive a moment after the answer to the request that caused it: it goes through a thread and a pipe. */
  async logged(pattern) {
    await until(`the log says ${pattern}`, () => pattern.test(this.logText));
  }

  async answersHealth() {
    await until('the server answers /health', async () => {
      if (this.exit) throw new Error(`the server ended with ${JSON.stringify(this.exit)}:\n${this.logText}`);
      return fetch(`${this.base}/health`).then((r) => r.ok, () => false);
    });
  }

  async ready(kinds = ['sd', 'llm']) {
    for (const kind of kinds)
      await until(`worker ${kind} is ready\n${this.logText}`, async () => (await this.worker(kind)).state === 'ready');
  }

  async worker(kind) {
    return (await fetch(`${this.base}/v1/workers/${kind}`)).json();
  }

  get(path, options) {
    return fetch(this.base + path, options);
  }

  post(path, body, options = {}) {
    const text = typeof body === 'string' ? body : JSON.stringify(body ?? {});
    return fetch(this.base + path, { method: 'POST', body: text, ...options,
      headers: { 'Content-Type': 'application/json', ...options.headers } });
  }

  // Status and JSON of an answer in one step, held against docs/openapi.yaml.
  async postJson(path, body, options) {
    return this.#checked('POST', path, await this.post(path, body, options));
  }

  async getJson(path, options) {
    return this.#checked(options?.method ?? 'GET', path, await this.get(path, options));
  }

  async #checked(method, path, res) {
    const json = await res.json();
    checkAnswer(method, path, res.status, res.headers.get('content-type'), json);
    return { status: res.status, headers: res.headers, json };
  }

  plan(kind, plan) {
    writeFileSync(join(this.root, kind, 'plan.json'), JSON.stringify(plan));
    rmSync(join(this.root, kind, 'counts.json'), { force: true });
  }

  records(kind) {
    const text = readFileSync(join(this.root, kind, 'records.jsonl'), 'utf8');
    return text.split('\n').slice(0, -1).map((l) => JSON.parse(l)); // the last one is being written
  }

  requests(kind, url) {
    return this.records(kind).filter((r) => r.event === 'request' && (!url || r.url === url));
  }

  async stop() {
    if (!this.exit) {
      this.child.kill('SIGTERM');
      await until('the server ends', () => this.exit, 8000).catch(() => this.child.kill('SIGKILL'));
    }
    rmSync(this.root, { recursive: true, force: true });
  }
}

// t: the test's context (stops the server after it, and prints its log if the test failed). Options: sd, llm (the
// fakes' plans), args, env, ready: the kinds to wait for (default both), prepare(server): lay out more files first.
export async function startServer(t, { sd, llm, args = [], env = {}, ready = ['sd', 'llm'], prepare, fileLimitKiB, unprivileged, under } = {}) {
  const root = mkdtempSync(join(tmpdir(), 'mysti-test-'));
  const bin = layOut(root, { sd, llm });
  const server = new TestServer(root, await freePort());
  await prepare?.(server);
  server.start(bin, { args: [...args, ...(server.extraArgs ?? [])], env, fileLimitKiB, unprivileged, under });
  t.after(async () => {
    await server.stop();
    if (process.env.MYSTI_TEST_LOG) console.log(server.logText);
  });
  await server.answersHealth();
  await server.ready(ready);
  return server;
}

// The events of a text/event-stream answer as they come: { event, data, comment, at }.
export async function* sseEvents(res) {
  let text = '';
  const decoder = new TextDecoder();
  for await (const part of res.body) {
    text += decoder.decode(part, { stream: true });
    for (let end; (end = text.indexOf('\n\n')) >= 0; text = text.slice(end + 2)) {
      const event = { at: Date.now() };
      for (const line of text.slice(0, end).split('\n')) {
        if (line.startsWith(':')) event.comment = line.slice(1).trim();
        else if (line.startsWith('event:')) event.event = line.slice(6).trim();
        else if (line.startsWith('id:')) event.id = line.slice(3).trim();
        else if (line.startsWith('data:')) event.data = (event.data ? `${event.data}\n` : '') + line.slice(5).trimStart();
      }
      yield event;
    }
  }
}
