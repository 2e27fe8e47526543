// Who has how much memory, and pinning.
import assert from 'node:assert/strict';
import { existsSync, utimesSync } from 'node:fs';
import { join } from 'node:path';
import test from 'node:test';
import { checkSchema } from '../support/openapi.mjs';
import { writeGguf } from '../support/models.mjs';
import { startServer, until } from '../support/server.mjs';

const messages = [{ role: 'user', content: 'hi' }];

test('each resident with what was foreseen and what is measured', async (t) => {
  const server = await startServer(t);
  const { status, json } = await server.getJson('/v1/memory');
  assert.equal(status, 200);
  checkSchema('Memory', json);
  assert.ok(json.ram.available > 0 && json.ram.available <= json.ram.total);
  assert.ok(json.server.resident > 0 && json.server.anonymous <= json.server.resident);
  const text = json.residents.find((r) => r.type === 'text');
  assert.equal(text.model, 'starter-writer.gguf');
  assert.equal(text.predicted.total, text.predicted.weights + text.predicted.cache + text.predicted.compute);
  assert.ok(text.measured.anonymous > 0);
  const image = json.residents.find((r) => r.type === 'image');
  assert.equal(image.worker, 'sd');
  assert.ok(image.measured.resident > 0);

  await server.postJson('/v1/workers/sd/stop');
  const after = (await server.getJson('/v1/memory')).json.residents.find((r) => r.type === 'image');
  assert.equal(after.measured, null);
});

test('a pinned model does not give way, and stays pinned over a restart of the server', async (t) => {
  const server = await startServer(t, { args: ['--llm-resident', '1'], prepare: (s) => writeGguf(join(s.models, 'a.gguf')) });
  const pinned = await server.postJson('/v1/workers/llm/pin');
  assert.equal(pinned.status, 200);
  assert.equal(pinned.json.pinned, true);
  const refused = await server.postJson('/v1/chat/completions', { messages, model: 'a' });
  assert.equal(refused.status, 503);
  assert.match(refused.json.error.message, /pinned/);

  server.child.kill('SIGTERM');
  await server.startAgain();
  await until('it is back', async () => (await server.worker('llm')).state === 'ready');
  assert.equal((await server.worker('llm')).pinned, true);
  assert.equal((await server.postJson('/v1/workers/llm/pin', { pinned: false })).json.pinned, false);
  assert.equal((await server.postJson('/v1/chat/completions', { messages, model: 'a' })).status, 200);
});

test('a model can be pinned while it is being loaded', async (t) => {
  const server = await startServer(t, { llm: { load_ms: 400 }, prepare: (s) => writeGguf(join(s.models, 'a.gguf')) });
  const loading = server.postJson('/v1/llm/load', { model: 'a.gguf' });
  const worker = await until('it is being loaded', async () => Object.values((await server.getJson('/v1/workers')).json)
    .find((w) => w.wanted === 'a.gguf' && w.state !== 'ready'));
  assert.equal((await server.postJson(`/v1/workers/${worker.name}/pin`)).json.pinned, true);
  assert.equal((await loading).status, 200);
  const loaded = Object.values((await server.getJson('/v1/workers')).json).find((w) => w.model === 'a.gguf');
  assert.equal(loaded.pinned, true);
});

test('what cannot be pinned is told so', async (t) => {
  const server = await startServer(t);
  assert.equal((await server.postJson('/v1/workers/llm/pin', { pinned: 'yes' })).status, 400);
  assert.equal((await server.postJson('/v1/workers/nobody/pin')).status, 404);
  await server.postJson('/v1/models/unload');
  const { status, json } = await server.postJson('/v1/workers/sd/pin');
  assert.equal(status, 409);
  assert.match(json.error.message, /no model that could be pinned/);
});

test('the next prediction is what it took the last time, also after a restart of the server', async (t) => {
  const server = await startServer(t);
  const text = async () => (await server.getJson('/v1/memory')).json.residents.find((r) => r.type === 'text');
  const first = await text();
  assert.equal(first.predicted.learned, false);
  assert.equal((await server.postJson('/v1/chat/completions', { messages })).status, 200);
  await until('it is written', () => existsSync(join(server.home, 'measured.json')));
  server.child.kill('SIGTERM');
  await server.startAgain();
  await server.ready();
  const again = await text();
  assert.equal(again.predicted.learned, true);
  assert.notEqual(again.predicted.total, first.predicted.total);
  assert.ok(Math.abs(again.predicted.total - again.measured.resident) < again.measured.resident / 4);
  assert.equal(again.predicted.total, again.predicted.weights + again.predicted.cache + again.predicted.compute);
  server.child.kill('SIGTERM');
  await until('it has ended', () => server.exit);
  utimesSync(join(server.root, 'bin/models/starter/starter-writer.gguf'), new Date(1e12), new Date(1e12));
  await server.startAgain();
  await server.ready();
  assert.equal((await text()).predicted.learned, false, 'another file of that name');
});
