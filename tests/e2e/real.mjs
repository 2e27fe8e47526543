// Starts the server that was built, with its real workers and the starter models, on free ports and with a home
// of its own; everything that was started is gone after the test, and the log is shown when it failed.
import { spawn } from 'node:child_process';
import { mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { freePort, until } from '../support/server.mjs';

export const bin = resolve(process.env.MYSTI_BIN ?? fileURLToPath(new URL('../../build/bin', import.meta.url)));
const READY_MS = 60000; // the slowest machine that CI has, and a cold page cache

export class RealServer {
  constructor(home, port) {
    Object.assign(this, { home, port, base: `http://127.0.0.1:${port}`, log: '', exit: null });
  }

  start(args = []) {
    this.exit = null;
    this.child = spawn(join(bin, 'mysti_server'),
      ['--listen-port', String(this.port), '--sd-port', '0', '--llm-port', '0', '--home', this.home, ...args],
      { cwd: '/', stdio: ['ignore', 'pipe', 'pipe'] }); // from another folder: nothing may hang on it
    for (const stream of [this.child.stdout, this.child.stderr])
      stream.setEncoding('utf8').on('data', (text) => (this.log += text));
    this.child.on('exit', (code, signal) => (this.exit = { code, signal }));
  }

  health() {
    return fetch(`${this.base}/health`).then((r) => r.json(), () => null);
  }

  worker(kind) {
    return fetch(`${this.base}/v1/workers/${kind}`).then((r) => r.json(), () => null);
  }

  async ready(kinds = ['sd', 'llm']) {
    await until(`workers ${kinds} are ready with a model`, async () => {
      if (this.exit) throw new Error(`mysti_server ended: ${JSON.stringify(this.exit)}\n${this.log}`);
      const health = await this.health();
      return health && kinds.every((kind) => health.workers[kind].state === 'ready' && health.workers[kind].model);
    }, READY_MS).catch((error) => {
      throw new Error(`${error.message}\n${this.log}`);
    });
  }

  async post(path, body, options = {}) {
    return fetch(this.base + path, { method: 'POST', body: JSON.stringify(body), ...options,
      headers: { 'Content-Type': 'application/json' } });
  }

  async stop(signal = 'SIGTERM') {
    if (!this.exit) {
      this.child.kill(signal);
      await until('mysti_server ends', () => this.exit, 10000);
    }
  }
}

/** Options: args of mysti_server, ready: the kinds to wait for. */
export async function startReal(t, { args = [], ready = ['sd', 'llm'] } = {}) {
  const server = new RealServer(mkdtempSync(join(tmpdir(), 'mysti-e2e-')), await freePort());
  server.start(args);
  t.after(async () => {
    await server.stop().catch(() => server.child.kill('SIGKILL'));
    rmSync(server.home, { recursive: true, force: true });
    if (process.env.MYSTI_TEST_LOG) console.log(server.log);
  });
  await server.ready(ready);
  return server;
}

/** The processes whose environment names this home or this server's pid as theirs: [{pid, argv0}]. */
export function processesOf(serverPid) {
  const found = [];
  for (const pid of readdirSync('/proc').filter((name) => /^\d+$/.test(name))) {
    try {
      const environment = readFileSync(`/proc/${pid}/environ`, 'latin1').split('\0');
      if (!environment.includes(`MYSTI_SERVER_PID=${serverPid}`)) continue;
      const argv = readFileSync(`/proc/${pid}/cmdline`, 'latin1').split('\0');
      if (argv[0]) found.push({ pid: Number(pid), argv0: argv[0] });
    } catch {
      // gone while we looked
    }
  }
  return found;
}

/** Reads a chat stream; calls onToken(text, ms since the request) for each piece and returns the whole text. */
export async function streamChat(server, idea, onToken = () => {}) {
  const began = performance.now();
  const res = await server.post('/v1/chat/completions', {
    stream: true, messages: [{ role: 'user', content: idea }], max_tokens: 160 });
  if (res.status !== 200) throw new Error(`chat: ${res.status} ${await res.text()}`);
  let text = '';
  let rest = '';
  for await (const chunk of res.body.pipeThrough(new TextDecoderStream())) {
    rest += chunk;
    for (let end; (end = rest.indexOf('\n\n')) >= 0; rest = rest.slice(end + 2)) {
      const line = rest.slice(0, end);
      if (!line.startsWith('data: ') || line === 'data: [DONE]') continue;
      const event = JSON.parse(line.slice(6));
      if (event.error) throw new Error(event.error.message);
      const piece = event.choices[0]?.delta?.content;
      if (piece) {
        text += piece;
        onToken(piece, performance.now() - began);
      }
    }
  }
  return text;
}

export { sleep };
