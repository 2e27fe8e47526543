// Kills: each worker and the server, with SIGKILL, again and again, with the real programs and the starter models.
// After every kill everything is back as it was, nothing is left over, and the log says so in the words that users'
// guides search for. MYSTI_KILLS sets how often (default 20).
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { createServer } from 'node:net';
import { mkdtempSync, readFileSync, readlinkSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { freePort, until } from '../support/server.mjs';
import { bin, processesOf, RealServer, startReal } from './real.mjs';

const KILLS = Number(process.env.MYSTI_KILLS ?? 20);
const RESPAWN_MS = 2000;
const TITLES = { sd: 'SD', llm: 'LLM' };

const alive = (pid) => {
  try {
    return !/^State:\tZ/m.test(readFileSync(`/proc/${pid}/status`, 'utf8'));
  } catch {
    return false;
  }
};

// The log comes through a pipe of its own: what a request already shows may still be on its way there.
const logged = async (server, line, times) => {
  await until(`the log says ${times} times: ${line}`, () => count(server.log, line) >= times, 3000).catch(() => {});
  assert.equal(count(server.log, line), times, line);
};

const count = (text, line) => text.split('\n').filter((l) => l === `[Orchestrator] ${line}`).length;

for (const kind of ['sd', 'llm']) {
  test(`the ${kind} worker, killed ${KILLS} times, comes back with its model`, async (t) => {
    const server = await startReal(t);
    const { model } = await server.worker(kind);
    const waits = [];
    for (let i = 0; i < KILLS; i++) {
      const before = await server.worker(kind);
      const killed = performance.now();
      process.kill(before.pid, 'SIGKILL');
      await until(`another ${kind} process`, async () => {
        const now = await server.worker(kind);
        return now.pid && now.pid !== before.pid;
      });
      waits.push(performance.now() - killed);
      await server.ready([kind]);
      const after = await server.worker(kind);
      assert.equal(after.model, model);
      assert.equal(after.restarts, i + 1);
      assert.match(after.last_exit, /signal 9/);
      assert.equal(alive(before.pid), false);
    }
    t.diagnostic(`respawned after ${Math.round(Math.max(...waits))} ms at the latest`);
    assert.ok(Math.max(...waits) < RESPAWN_MS, `respawned after ${waits} ms`);
    const title = TITLES[kind];
    await logged(server, `Detected ${title} Worker failure. Restarting...`, KILLS);
    await logged(server, `Restoring ${title} model...`, KILLS);
    await logged(server, `${title} model restored successfully.`, KILLS);
    assert.equal(processesOf(server.child.pid).length, 2);
  });
}

test(`the server, killed ${KILLS} times, leaves nothing and comes back with its state`, async (t) => {
  const server = await startReal(t);
  const models = (await server.health()).workers;
  for (let i = 0; i < KILLS; i++) {
    const pid = server.child.pid;
    const workers = processesOf(pid);
    assert.deepEqual(workers.map((w) => w.argv0.split('/').pop()).sort(), ['mysti_llm_worker', 'mysti_sd_worker']);
    await server.stop('SIGKILL');
    await until('no worker of it is left', () => workers.every((w) => !alive(w.pid)), 3000);
    assert.deepEqual(processesOf(pid), []);
    server.log = '';
    server.start(); // at once: port, folder and worker ports are free again
    await server.ready();
    const now = (await server.health()).workers;
    assert.equal(now.sd.model, models.sd.model);
    assert.equal(now.llm.model, models.llm.model);
    await logged(server, 'Restoring SD model...', 1);
    await logged(server, 'LLM model restored successfully.', 1);
  }
});

test('a server that is killed while its workers start leaves nothing either', async (t) => {
  const server = new RealServer(mkdtempSync(join(tmpdir(), 'mysti-e2e-')), await freePort());
  t.after(() => rmSync(server.home, { recursive: true, force: true }));
  for (let ms = 0; ms < 200; ms += 200 / KILLS) {
    server.start();
    const pid = server.child.pid;
    await new Promise((done) => setTimeout(done, ms));
    await server.stop('SIGKILL');
    await until(`nothing is left of a server killed after ${Math.round(ms)} ms`, () => processesOf(pid).length === 0, 3000);
  }
});

test('the literal lines of a first start, and a clean end', async (t) => {
  const [sdPort, llmPort] = [await freePort(), await freePort()];
  const server = await startReal(t, { args: ['--sd-port', String(sdPort), '--llm-port', String(llmPort)] });
  await until('both are saved', () => count(server.log, 'Saved SD model state') && count(server.log, 'Saved LLM model state'));
  for (const line of [`Starting Orchestrator on port ${server.port}...`, `Spawning SD Worker... on port ${sdPort}`,
    `Spawning LLM Worker... on port ${llmPort}`])
    assert.equal(count(server.log, line), 1, line);
  assert.ok(server.log.split('\n').some((l) => l.startsWith('[LLM] ')));
  assert.ok(server.log.split('\n').some((l) => l.startsWith('[SD] ')));
  assert.ok(server.log.split('\n').filter(Boolean).every((l) => /^\[(Orchestrator|SD|LLM)\] /.test(l)));
  const workers = processesOf(server.child.pid);
  const began = performance.now();
  await server.stop();
  assert.deepEqual(server.exit, { code: 0, signal: null });
  assert.ok(performance.now() - began < 4000);
  assert.ok(workers.every((w) => !alive(w.pid)));
});

test('no secret is in any argument, and the workers refuse who does not know it', async (t) => {
  const server = await startReal(t);
  const workers = processesOf(server.child.pid);
  const secrets = workers.flatMap(({ pid }) => readFileSync(`/proc/${pid}/environ`, 'latin1').split('\0')
    .map((v) => /^(?:MYSTI_WORKER_TOKEN|LLAMA_API_KEY)=(.{64})$/.exec(v)?.[1]).filter(Boolean));
  assert.ok(secrets.length >= 1); // the picture worker wipes its own
  for (const secret of secrets) {
    for (const { pid } of workers) assert.ok(!readFileSync(`/proc/${pid}/cmdline`, 'latin1').includes(secret));
    assert.ok(!server.log.includes(secret));
  }
  const sd = await server.worker('sd');
  const llm = await server.worker('llm');
  assert.equal((await fetch(`http://127.0.0.1:${sd.port}/internal/health`)).status, 401);
  assert.equal((await fetch(`http://127.0.0.1:${llm.port}/v1/models`)).status, 401);
  assert.match(readFileSync(`/proc/${llm.pid}/comm`, 'utf8'), /^mysti_llm_worke/);
  assert.match(readFileSync(`/proc/${sd.pid}/comm`, 'utf8'), /^mysti_sd_worker/);
  assert.equal(readlinkSync(`/proc/${llm.pid}/cwd`).includes('ggml'), true);
  assert.match(readFileSync(`/proc/${llm.pid}/status`, 'utf8'), /NoNewPrivs:\t1/);
});

const run = (args) => new Promise((done) => {
  const child = spawn(join(bin, 'mysti_server'), args, { stdio: ['ignore', 'pipe', 'pipe'] });
  let text = '';
  for (const stream of [child.stdout, child.stderr]) stream.setEncoding('utf8').on('data', (d) => (text += d));
  const timer = setTimeout(() => child.kill('SIGKILL'), 5000);
  child.on('exit', (code) => {
    clearTimeout(timer);
    done({ code, text });
  });
});

test('a taken port is one clear line and exit code 1, and nothing was spawned', async (t) => {
  const home = mkdtempSync(join(tmpdir(), 'mysti-e2e-'));
  t.after(() => rmSync(home, { recursive: true, force: true }));
  const taken = createServer();
  const port = await new Promise((done) => taken.listen(0, '127.0.0.1', () => done(taken.address().port)));
  t.after(() => taken.close());
  for (const option of ['--listen-port', '--sd-port', '--llm-port']) {
    const ports = { '--listen-port': '0', '--sd-port': '0', '--llm-port': '0', [option]: String(port) };
    const { code, text } = await run(['--home', home, ...Object.entries(ports).flat()]);
    assert.equal(code, 1, text);
    const lines = text.split('\n').filter((l) => l.includes(String(port)) && !l.includes('Starting'));
    assert.equal(lines.length, 1, text);
    assert.ok(!text.includes('Spawning'), text);
  }
});

test('a second server on the same state folder is told so', async (t) => {
  const server = await startReal(t);
  const { code, text } = await run(['--home', server.home, '--listen-port', '0', '--sd-port', '0', '--llm-port', '0']);
  assert.equal(code, 1);
  assert.match(text, new RegExp(`another mysti_server \\(pid ${server.child.pid}\\) uses the state folder`));
  assert.equal((await server.health()).status, 'ok');
});

test('a worker that stops answering is replaced', async (t) => {
  const server = await startReal(t);
  for (const kind of ['sd', 'llm']) {
    const before = await server.worker(kind);
    process.kill(before.pid, 'SIGSTOP');
    const began = performance.now();
    await until('it is noticed', () => server.log.includes(`[Orchestrator] ${TITLES[kind]} Worker unresponsive (HTTP).`), 20000);
    assert.ok(performance.now() - began > 3500, 'noticed too early');
    await until('another process', async () => ![0, null, before.pid].includes((await server.worker(kind)).pid));
    await server.ready([kind]);
    assert.equal(alive(before.pid), false);
  }
});

test('a model that cannot be loaded is refused, and the old one stays, also over a kill of the server', async (t) => {
  const server = await startReal(t);
  const load = (path, model) => server.post(path, { model });
  const before = (await server.health()).workers;
  const pids = processesOf(server.child.pid).map((p) => p.pid).sort();
  for (const [path, file, says] of [['/v1/llm/load', '/nowhere/x.gguf', /x/], ['/v1/llm/load', tmpdir(), /./],
    ['/v1/llm/load', '/etc/passwd', /./], ['/v1/models/load', '/etc/passwd', /./]]) {
    const res = await load(path, file);
    assert.ok(res.status >= 400 && res.status < 500, `${path} ${file}: ${res.status}`);
    assert.match((await res.json()).error.message, says);
  }
  assert.deepEqual(processesOf(server.child.pid).map((p) => p.pid).sort(), pids, 'something was spawned');
  await server.stop('SIGKILL');
  server.start();
  await server.ready();
  const after = (await server.health()).workers;
  assert.equal(after.llm.model, before.llm.model);
  assert.equal(after.sd.model, before.sd.model);
});
