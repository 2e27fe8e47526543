// What the server says about itself, its workers and the machine.
import assert from 'node:assert/strict';
import { cpus, totalmem } from 'node:os';
import test from 'node:test';
import { startServer, until } from '../support/server.mjs';

test('health is ok when both workers are up, and names their models', async (t) => {
  const server = await startServer(t);
  const { json } = await server.getJson('/health');
  assert.equal(json.status, 'ok');
  assert.deepEqual([json.sd_worker, json.llm_worker], ['running', 'running']);
  assert.deepEqual(json.workers.sd, { state: 'ready', model: 'starter-painter.safetensors', reason: null });
  assert.deepEqual(json.workers.llm, { state: 'ready', model: 'starter-writer.gguf', reason: null });
});

test('health is degraded, with the reason, while a worker does not come up; the other one works', async (t) => {
  const server = await startServer(t, { llm: { start: 'crash', exit_code: 3 }, ready: ['sd'] });
  const health = await until('a reason in /health', async () => {
    const { json } = await server.getJson('/health');
    return json.workers.llm.reason && json;
  });
  assert.equal(health.status, 'degraded');
  assert.match(health.workers.llm.reason, /exited with code 3|code 3/);
  assert.equal(health.workers.sd.state, 'ready');
  assert.equal((await server.postJson('/v1/images/generations', { prompt: 'a boat' })).status, 200);
});

test('health tells that a model is being loaded', async (t) => {
  const server = await startServer(t, { llm: { load_ms: 700 }, ready: [] });
  const { json } = await server.getJson('/health');
  assert.ok(['starting', 'loading'].includes(json.workers.llm.state), json.workers.llm.state);
  await server.ready();
  assert.equal((await server.getJson('/health')).json.status, 'ok');
});

test('system says what the machine is', async (t) => {
  const server = await startServer(t);
  const { json } = await server.getJson('/v1/system');
  assert.equal(json.processor.name, cpus()[0].model.trim());
  assert.ok(json.processor.threads >= 1 && json.processor.threads <= cpus().length);
  assert.ok(Math.abs(json.memory.total - totalmem()) < 2 ** 20 || json.memory.limit !== null);
  assert.ok(json.memory.available > 0 && json.memory.available <= json.memory.total);
  assert.ok(json.memory.used_by.server > 500_000 && json.memory.used_by.server < 50_000_000);
  assert.ok(json.memory.used_by.sd > 1_000_000);
  assert.equal(json.sharing, 'text-first');
});
