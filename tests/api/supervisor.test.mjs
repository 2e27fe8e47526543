// What the supervisor does with workers that misbehave while they start or load, and what it remembers over the
// death of the server. The workers are scripted.
import assert from 'node:assert/strict';
import { readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { startServer, until } from '../support/server.mjs';
import { writeGguf } from '../support/models.mjs';

const lines = (server) => server.logText.split('\n');
const says = (server, text) => lines(server).some((line) => line.includes(text));
const started = (server, kind) => server.records(kind).filter((r) => r.event === 'start').map((r) => r.at);

// Killed as a whole, and started again on the same home.
async function killAndStart(server) {
  server.child.kill('SIGKILL');
  await until('the server is gone', () => server.exit);
  Object.assign(server, { exit: null, logText: '' });
  server.start(join(server.root, 'bin'), { args: [], env: {} });
  await server.answersHealth();
}

test('a worker that crashes at its start is tried again after 1 s, then 2 s; a success ends the waiting', async (t) => {
  const server = await startServer(t, { sd: { start: ['crash', 'crash', 'ok'] }, ready: ['llm'] });
  await server.ready(['sd']);
  const [first, second, third] = started(server, 'sd');
  assert.ok(second - first >= 1000 && second - first < 2900, `${second - first} ms`);
  assert.ok(third - second >= 2000 && third - second < 4900, `${third - second} ms`);
  assert.ok(says(server, '[SD] fake sd worker: told to crash at its start'));
  const worker = await server.worker('sd');
  assert.match(worker.last_exit, /exited with code 3/);
  process.kill(worker.pid, 'SIGKILL'); // from outside: no back-off is left of it
  await until('another process', () => started(server, 'sd').length === 4);
  await server.ready(['sd']);
  assert.equal((await server.worker('sd')).restarts, 3);
});

test('a worker that never comes up is failed, with the reason, and those who wait for it are told', async (t) => {
  const server = await startServer(t, { llm: { start: 'crash' }, ready: ['sd'] });
  await until('it is failed', async () => (await server.worker('llm')).state === 'failed', 15000);
  const health = (await server.getJson('/health')).json;
  assert.equal(health.status, 'degraded');
  assert.match(health.workers.llm.reason, /exited with code 3/);
  const chat = await server.postJson('/v1/chat/completions', { messages: [{ role: 'user', content: 'hi' }] });
  assert.equal(chat.status, 503);
  assert.match(chat.json.error.message, /exited with code 3/);
});

test('loading is healthy, however long it takes', async (t) => {
  const server = await startServer(t, { llm: { load_ms: 9000 }, ready: ['sd'] });
  const pid = (await server.worker('llm')).pid;
  await until('it is ready', async () => (await server.worker('llm')).state === 'ready', 15000);
  assert.equal((await server.worker('llm')).pid, pid);
  assert.equal((await server.worker('llm')).restarts, 0);
});

test('three checks without an answer are a hang, one or two are not', async (t) => {
  const server = await startServer(t, { sd: { health: ['ok', 'hang', 'hang', 'ok'] } });
  const checks = () => readFileSync(join(server.root, 'sd', 'counts.json'), 'utf8').match(/"health":(\d+)/)?.[1] ?? 0;
  await until('the checks went by', () => checks() >= 6, 20000);
  assert.equal((await server.worker('sd')).restarts, 0);
  server.plan('sd', { health: ['hang', 'hang', 'hang', 'ok'] });
  await until('it is found out', () => says(server, 'SD Worker unresponsive (HTTP).'), 20000);
  await until('it is replaced', async () => (await server.worker('sd')).restarts === 1);
  await server.ready(['sd']);
  assert.ok(says(server, 'SD model restored successfully.'));
});

test('what was loaded last comes back after a kill of the server; what failed to load does not', async (t) => {
  const server = await startServer(t, {});
  writeGguf(join(server.models, 'second.gguf'));
  writeGguf(join(server.models, 'third.gguf'));
  assert.equal((await server.post('/v1/llm/load', { model: 'second.gguf' })).status, 200);
  await until('it is saved', () => lines(server).filter((l) => l.endsWith('Saved LLM model state')).length === 2);
  server.plan('llm', { load: ['crash', 'ok'] });
  const failed = await server.postJson('/v1/llm/load', { model: 'third.gguf' });
  assert.ok(failed.status >= 400, `${failed.status}`);
  await server.ready(['llm']);
  assert.equal((await server.worker('llm')).model, 'second.gguf');
  await killAndStart(server);
  await server.ready();
  assert.equal((await server.worker('llm')).model, 'second.gguf');
  assert.ok(says(server, 'LLM model restored successfully.'));
});

test('a model that is gone when the server starts gives way to the starter', async (t) => {
  const server = await startServer(t, {});
  const file = writeGguf(join(server.models, 'second.gguf'));
  assert.equal((await server.post('/v1/llm/load', { model: 'second.gguf' })).status, 200);
  await until('it is saved', () => lines(server).filter((l) => l.endsWith('Saved LLM model state')).length === 2);
  rmSync(file);
  await killAndStart(server);
  await server.ready(['llm']);
  assert.equal((await server.worker('llm')).model, 'starter-writer.gguf');
  assert.ok(says(server, `LLM model ${file} is gone: taking the starter instead`));
});

test('what was unloaded stays unloaded after a kill of the worker and of the server', async (t) => {
  const server = await startServer(t, {});
  assert.equal((await server.post('/v1/models/unload', { type: 'image' })).status, 200);
  assert.equal((await server.post('/v1/llm/unload')).status, 200);
  const { pid } = await server.worker('sd');
  process.kill(pid, 'SIGKILL');
  await until('another process', async () => ![0, null, pid].includes((await server.worker('sd')).pid));
  await until('it is ready', async () => (await server.worker('sd')).state === 'ready');
  assert.equal((await server.worker('sd')).model, null);
  await killAndStart(server);
  await until('it is ready', async () => (await server.worker('sd')).state === 'ready');
  assert.equal((await server.worker('sd')).model, null);
  assert.equal((await server.worker('llm')).state, 'stopped');
});

test('a record that was damaged is said, and the starters are served', async (t) => {
  const server = await startServer(t, { prepare: (s) => writeFileSync(join(s.home, 'desired.json'), '{"version":1,') });
  assert.ok(says(server, 'desired.json is damaged'));
  assert.equal((await server.worker('llm')).model, 'starter-writer.gguf');
});

test('--model goes where the file belongs', async (t) => {
  const tensors = ['model.diffusion_model.input_blocks.0.0.weight'];
  const server = await startServer(t, {
    prepare(s) {
      writeGguf(join(s.models, 'painter.gguf'), { architecture: 'sd1', tensors });
      writeFileSync(join(s.root, 'mysti.yaml'), 'model: painter.gguf\nverbose: true\n');
      s.extraArgs = ['--config', join(s.root, 'mysti.yaml')];
    },
  });
  assert.ok(says(server, 'Smart fallback: Moving GGUF... from --model to --diffusion-model'));
  assert.equal((await server.worker('sd')).model, 'painter.gguf');
  assert.equal((await server.worker('llm')).model, 'starter-writer.gguf');
});
