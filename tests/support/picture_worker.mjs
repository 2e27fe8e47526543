// Starts the real mysti_sd_worker by itself, as the server would, and speaks its protocol.
//
//   const worker = await startPictureWorker(t);
//   await worker.json('POST', '/internal/load', { path });
//   const { events, images } = await worker.draw({ prompt: 'a boat' });
import { spawn } from 'node:child_process';
import { request } from 'node:http';
import { join } from 'node:path';
import { binFolder, until } from './server.mjs';

export const workerProgram = join(binFolder, 'mysti_sd_worker');

export class PictureWorker {
  constructor(child, token) {
    Object.assign(this, { child, token, out: '', log: '', exit: null });
    child.stdout.setEncoding('utf8').on('data', (text) => (this.out += text));
    child.stderr.setEncoding('utf8').on('data', (text) => (this.log += text));
    child.on('exit', (code, signal) => (this.exit = { code, signal }));
  }

  async listens() {
    await until(`the worker listens\n${this.log}`, () => this.exit || /^listening 127\.0\.0\.1:\d+$/m.test(this.out));
    if (this.exit) throw new Error(`the worker ended: ${JSON.stringify(this.exit)} ${this.log}`);
    this.port = Number(this.out.match(/:(\d+)/)[1]);
  }

  // The raw request; the answer as a stream.
  open(method, path, body, token = this.token) {
    return new Promise((done, fail) => {
      const headers = token === null ? {} : { Authorization: `Bearer ${token}` };
      const req = request({ host: '127.0.0.1', port: this.port, method, path, headers, agent: false }, done);
      req.on('error', fail).end(body === undefined ? undefined : typeof body === 'string' ? body : JSON.stringify(body));
    });
  }

  async json(method, path, body, token) {
    const res = await this.open(method, path, body, token);
    const parts = [];
    for await (const part of res) parts.push(part);
    return { status: res.statusCode, body: JSON.parse(Buffer.concat(parts).toString()) };
  }

  async health() {
    return (await this.json('GET', '/internal/health')).body;
  }

  // A whole job: status, events without pictures, pictures as { head, png }.
  async draw(job) {
    const res = await this.open('POST', '/internal/generate', job);
    const parts = [];
    for await (const part of res) parts.push(part);
    const bytes = Buffer.concat(parts);
    if (res.statusCode !== 200) return { status: res.statusCode, body: JSON.parse(bytes.toString()) };
    return { status: 200, type: res.headers['content-type'], ...takeApart(bytes) };
  }
}

export function takeApart(bytes) {
  const events = [];
  const images = [];
  const previews = [];
  while (bytes.length) {
    const end = bytes.indexOf(10);
    const event = JSON.parse(bytes.subarray(0, end).toString());
    bytes = bytes.subarray(end + 1);
    events.push(event);
    if (event.event === 'image' || event.event === 'preview') {
      (event.event === 'image' ? images : previews).push({ head: event, png: bytes.subarray(0, event.bytes) });
      if (bytes[event.bytes] !== 10) throw new Error('no newline after the picture');
      bytes = bytes.subarray(event.bytes + 1);
    }
  }
  return { events, images, previews };
}

// unprivileged: as nobody when the tests run as root, whom no limit of priorities holds.
export async function startPictureWorker(t, { args = [], env = {}, unprivileged = false } = {}) {
  const token = 'a-secret-of-this-test';
  const nobody = unprivileged && process.getuid() === 0 ? { uid: 65534, gid: 65534 } : {};
  const child = spawn(workerProgram, args, { env: { ...process.env, MYSTI_WORKER_TOKEN: token, ...env }, stdio: ['ignore', 'pipe', 'pipe'], ...nobody });
  const worker = new PictureWorker(child, token);
  t.after(() => {
    if (!worker.exit) child.kill('SIGKILL');
    if (process.env.MYSTI_TEST_LOG) console.log(worker.log);
  });
  await worker.listens();
  return worker;
}
