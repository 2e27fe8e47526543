// The server under attack: with scripted workers or the real engines, on a free port, with a home under /tmp that
// outlives it. What a kill may leave behind is looked for here, too.
import { execFileSync, spawn } from 'node:child_process';
import { existsSync, mkdtempSync, readFileSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { request } from 'node:http';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { processesOf } from '../e2e/real.mjs';
import { binFolder, freePort, layOut, until } from '../support/server.mjs';

const SCRIPTED = { sd: { step_ms: 12, default_steps: 12 }, llm: { tokens: Array(30).fill(' word'), token_ms: 10 } };

export class World {
  constructor({ real }, story) {
    Object.assign(this, { real, story, log: '', exit: null, root: mkdtempSync(join(tmpdir(), 'mysti-chaos-')) });
    this.home = join(this.root, 'home');
    this.outputs = join(this.root, 'outputs');
    this.bin = real ? binFolder : layOut(this.root, SCRIPTED, { diesWithParent: true });
  }

  async begin() {
    this.port = await freePort();
    this.start();
    await this.answers();
    await this.ready();
  }

  start() {
    this.exit = null;
    this.child = spawn(join(this.bin, 'mysti_server'), ['--listen-port', String(this.port), '--sd-port', '0', '--llm-port', '0',
      '--home', this.home, '--output-dir', this.outputs, '--queue-limit', '1000', '--job-history', '1000000', '--client-queue-limit', '1000'], { cwd: '/', stdio: ['ignore', 'pipe', 'pipe'] });
    const { child } = this;
    for (const stream of [child.stdout, child.stderr]) stream.setEncoding('utf8').on('data', (text) => (this.log += text));
    child.on('exit', (code, signal) => {
      if (child === this.child) this.exit = { code, signal };
    });
  }

  // A connection of its own for each request, so that none outlives it. Resolves with { status, headers, begun, text,
  // error }; never rejects: a connection that breaks is `error`.
  ask(method, path, body, { onPart, signal, headers } = {}) {
    return new Promise((done) => {
      const answer = { status: 0, headers: {}, text: '', error: null };
      const req = request({ host: '127.0.0.1', port: this.port, method, path, agent: false, signal,
        headers: { ...(body ? { 'Content-Type': 'application/json' } : {}), ...headers } }, (res) => {
        Object.assign(answer, { status: res.statusCode, headers: res.headers });
        res.setEncoding('utf8').on('data', (part) => {
          answer.text += part;
          onPart?.(part);
        }).on('end', () => {
          if (!res.complete) answer.error = new Error('the answer broke off');
          done(answer);
        }).on('error', (error) => {
          answer.error = error;
          done(answer);
        });
      });
      req.on('error', (error) => {
        answer.error ??= error;
        done(answer);
      }).end(body ? JSON.stringify(body) : undefined);
    });
  }

  async json(method, path, body) {
    const answer = await this.ask(method, path, body);
    try {
      return { ...answer, json: JSON.parse(answer.text) };
    } catch {
      return { ...answer, json: null };
    }
  }

  async worker(kind) {
    return (await this.json('GET', `/v1/workers/${kind}`)).json;
  }

  async answers() {
    await until('the server answers', async () => {
      if (this.exit) throw new Error(`mysti_server ended by itself: ${JSON.stringify(this.exit)}`);
      return (await this.json('GET', '/health')).status === 200;
    });
  }

  async ready() {
    for (const kind of ['sd', 'llm'])
      await until(`${kind} has its model`, async () => {
        const worker = await this.worker(kind);
        return worker?.state === 'parked' || (['ready', 'busy'].includes(worker?.state) && worker.model);
      }, 60000);
  }

  // Kills the server and looks for what it left 200 ms later; starts it again at once.
  async killServer() {
    const { pid } = this.child;
    this.story.kill('server', 'KILL', pid);
    const gone = new Promise((done) => this.child.once('exit', done));
    process.kill(pid, 'SIGKILL');
    await gone;
    const died = performance.now();
    let left;
    do {
      left = processesOf(pid);
    } while (left.length && performance.now() - died < 200);
    this.story.promise(left.length === 0, `200 ms after the server's death ${left.map((p) => `${p.argv0} (${p.pid})`)} lived on`);
    this.start();
    await this.answers();
    this.story.isBack('server', 'answers again');
  }

  // What grows when something leaks: the server's descriptors and its own memory.
  size() {
    const status = readFileSync(`/proc/${this.child.pid}/status`, 'utf8');
    const kib = (name) => Number(new RegExp(`^${name}:\\s+(\\d+)`, 'm').exec(status)?.[1] ?? 0);
    return { descriptors: readdirSync(`/proc/${this.child.pid}/fd`).length, kib: kib('RssAnon') + kib('VmSwap'),
      connections: readdirSync(`/proc/${this.child.pid}/fd`).length };
  }

  databases() {
    return existsSync(this.home) ? readdirSync(this.home).filter((f) => /\.(db|sqlite3?)$/.test(f)).map((f) => join(this.home, f)) : [];
  }

  // SQLite's own judgement of each database of the home: [file, "ok" or what is wrong].
  integrity() {
    const script = 'import sqlite3, sys\nc = sqlite3.connect(sys.argv[1])\nprint("; ".join(r[0] for r in c.execute("PRAGMA integrity_check")))';
    return this.databases().map((file) => [file, execFileSync('python3', ['-c', script, file], { encoding: 'utf8' }).trim()]);
  }

  keepLog(name) {
    const file = join(tmpdir(), name);
    writeFileSync(file, `${this.story.text()}\n\n---- the server's log ----\n${this.log}`);
    return file;
  }

  async end() {
    if (!this.exit && this.child) {
      const gone = new Promise((done) => this.child.once('exit', done));
      this.child.kill('SIGTERM');
      const timer = setTimeout(() => this.child.kill('SIGKILL'), 8000);
      await gone;
      clearTimeout(timer);
    }
    rmSync(this.root, { recursive: true, force: true });
  }
}
