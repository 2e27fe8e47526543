// The worker processes: seen, stopped, started, restarted.
import assert from 'node:assert/strict';
import test from 'node:test';
import { startServer, until } from '../support/server.mjs';

const alive = (pid) => {
  try {
    return process.kill(pid, 0);
  } catch {
    return false;
  }
};

test('a worker shows its process, its age and its last lines', async (t) => {
  const server = await startServer(t);
  const { json } = await server.getJson('/v1/workers');
  assert.ok(alive(json.sd.pid) && alive(json.llm.pid));
  const { json: sd } = await server.getJson('/v1/workers/sd');
  assert.equal(sd.name, 'sd');
  assert.ok(sd.log.some((line) => line.includes('fake sd worker is listening')), sd.log.join('\n'));
  await server.logged(/\[SD\] fake sd worker is listening/);
  await server.logged(/\[LLM\] fake llm worker is listening/);
  const unknown = await server.getJson('/v1/workers/gpu');
  assert.equal(unknown.status, 404);
  assert.match(unknown.json.error.message, /they are 'sd' and 'llm'/);
});

test('stop, start, restart', async (t) => {
  const server = await startServer(t);
  const { pid } = await server.worker('sd');
  const stopped = await server.postJson('/v1/workers/sd/stop');
  assert.equal(stopped.json.state, 'stopped');
  assert.equal(stopped.json.pid, null);
  assert.equal(alive(pid), false);
  const { json: health } = await server.getJson('/health');
  assert.deepEqual([health.status, health.sd_worker, health.llm_worker], ['degraded', 'stopped', 'running']);
  assert.match(health.workers.sd.reason, /stopped/);
  const draw = await server.postJson('/v1/images/generations', { prompt: 'a boat' });
  assert.equal(draw.status, 503);
  const started = await server.postJson('/v1/workers/sd/start');
  assert.equal(started.json.state, 'ready');
  assert.equal(started.json.model, 'starter-painter.safetensors', 'what it had loaded comes back with it');
  const restarted = await server.postJson('/v1/workers/sd/restart');
  assert.equal(restarted.json.state, 'ready');
  assert.notEqual(restarted.json.pid, started.json.pid);
  assert.equal(restarted.json.restarts, 0, 'what the user asked for is not counted');
  assert.equal((await server.postJson('/v1/images/generations', { prompt: 'a boat' })).status, 200);
});

test('a busy worker is not stopped, unless forced', async (t) => {
  const server = await startServer(t, { sd: { step_ms: 100, default_steps: 40 } });
  const drawing = server.postJson('/v1/images/generations', { prompt: 'a boat' });
  await until('busy', async () => (await server.worker('sd')).busy);
  const polite = await server.postJson('/v1/workers/sd/stop');
  assert.equal(polite.status, 409);
  assert.equal(polite.json.error.code, 'busy');
  assert.equal((await server.postJson('/v1/workers/sd/restart', {})).status, 409);
  assert.equal((await server.postJson('/v1/workers/sd/stop', { force: 'yes' })).status, 400);
  assert.equal((await server.postJson('/v1/workers/sd/stop', { force: true })).json.state, 'stopped');
  assert.equal((await drawing).status, 503);
});

test('a worker that is killed comes back by itself, with its model, and says what happened', async (t) => {
  const server = await startServer(t);
  const { pid } = await server.worker('llm');
  process.kill(pid, 'SIGKILL');
  const back = await until('another process', async () => {
    const worker = await server.worker('llm');
    return worker.pid && worker.pid !== pid && worker.state === 'ready' && worker;
  });
  assert.equal(back.restarts, 1);
  assert.match(back.last_exit, /signal 9/);
  assert.equal(back.model, 'starter-writer.gguf');
  await server.logged(/Detected LLM Worker failure. Restarting.../);
  await until('restored', () => /LLM model restored successfully\./.test(server.logText));
});
