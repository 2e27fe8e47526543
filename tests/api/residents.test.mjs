// Several text models in memory at once: each in a worker of its own, one of them the default.
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import test from 'node:test';
import { startServer, until } from '../support/server.mjs';
import { writeGguf } from '../support/models.mjs';

const messages = [{ role: 'user', content: 'hello' }];

function shelf(server) {
  for (const name of ['a.gguf', 'b.gguf', 'c.gguf']) writeGguf(join(server.models, name));
}

const load = async (server, model, more = {}) => {
  const { status, json } = await server.postJson('/v1/llm/load', { model, ...more });
  assert.equal(status, 200, JSON.stringify(json));
};

async function residents(server) {
  const { json } = await server.getJson('/v1/workers');
  return Object.fromEntries(Object.values(json).filter((w) => w.name !== 'sd').map((w) => [w.name, w.model]));
}

// Which model a chat without `model` reaches: by the process that got the request.
async function answeredBy(server, body = {}) {
  const { status } = await server.postJson('/v1/chat/completions', { messages, ...body });
  assert.equal(status, 200);
  const { pid } = server.requests('llm', '/v1/chat/completions').at(-1);
  const start = server.records('llm').find((r) => r.event === 'start' && r.pid === pid);
  return start.options[start.options.indexOf('--model') + 1].split('/').at(-1);
}

test('a second model is loaded beside the first and becomes the default; each answers requests that name it', async (t) => {
  const server = await startServer(t, { prepare: shelf });
  const first = await server.worker('llm');
  await load(server, 'a.gguf');
  assert.deepEqual(await residents(server), { llm: 'a.gguf', 'llm-2': 'starter-writer.gguf' });
  const { json: all } = await server.getJson('/v1/workers');
  assert.equal(all['llm-2'].pid, first.pid, 'the first was not touched');
  assert.notEqual(all.llm.port, all['llm-2'].port);
  const listed = (await server.getJson('/v1/llm/models')).json.data;
  assert.deepEqual(listed.filter((m) => m.active).map((m) => [m.id, m.default]), [['a.gguf', true], ['starter-writer.gguf', false]]);
  assert.equal(await answeredBy(server), 'a.gguf');
  assert.equal(await answeredBy(server, { model: 'starter-writer' }), 'starter-writer.gguf');
  assert.equal(await answeredBy(server), 'a.gguf', 'naming a model does not make it the default');
  assert.equal((await server.getJson('/v1/workers/llm-2')).json.name, 'llm-2');
  assert.deepEqual(Object.keys((await server.getJson('/health')).json.workers).sort(), ['llm', 'llm-2', 'sd']);
});

test('a request has its model loaded beside the others, and that is not the default', async (t) => {
  const server = await startServer(t, { prepare: shelf });
  assert.equal(await answeredBy(server, { model: 'b' }), 'b.gguf');
  assert.deepEqual(await residents(server), { llm: 'starter-writer.gguf', 'llm-2': 'b.gguf' });
  assert.equal(await answeredBy(server), 'starter-writer.gguf');
});

test('beyond --llm-resident the one used least recently gives way', async (t) => {
  const server = await startServer(t, { prepare: shelf, args: ['--llm-resident', '2'] });
  await load(server, 'a.gguf');
  await answeredBy(server, { model: 'starter-writer' });
  await load(server, 'b.gguf');
  assert.deepEqual(Object.values(await residents(server)).sort(), ['b.gguf', 'starter-writer.gguf']);
  assert.equal(await answeredBy(server), 'b.gguf');
});

test('what works does not give way, unless forced', async (t) => {
  const server = await startServer(t, { prepare: shelf, args: ['--llm-resident', '2'], llm: { first_ms: 1500 } });
  await load(server, 'a.gguf');
  const running = ['a', 'starter-writer'].map((model) => server.postJson('/v1/chat/completions', { messages, model }));
  await until('both are busy', async () => {
    const { json } = await server.getJson('/v1/workers');
    return json.llm.busy && json['llm-2'].busy;
  });
  const refused = await server.postJson('/v1/llm/load', { model: 'b.gguf' });
  assert.equal(refused.status, 409);
  assert.match(refused.json.error.message, /b.gguf does not fit beside .* busy: wait, or load it with force/);
  for (const answer of await Promise.all(running)) assert.equal(answer.status, 200);
});

test('a load that fails leaves the others and the default', async (t) => {
  const server = await startServer(t, { prepare: shelf });
  server.plan('llm', { load: 'crash' });
  const { status } = await server.postJson('/v1/llm/load', { model: 'a.gguf' });
  assert.ok(status >= 400);
  assert.deepEqual(await residents(server), { llm: 'starter-writer.gguf' });
  server.plan('llm', {});
  assert.equal(await answeredBy(server), 'starter-writer.gguf');
});

test('unload takes the model that is named, else the default; then another is the default', async (t) => {
  const server = await startServer(t, { prepare: shelf });
  await load(server, 'a.gguf');
  await load(server, 'b.gguf');
  assert.deepEqual((await server.postJson('/v1/llm/unload', { model: 'a' })).json, { status: 'success', model: 'a.gguf' });
  assert.deepEqual(Object.values(await residents(server)).sort(), ['b.gguf', 'starter-writer.gguf']);
  assert.deepEqual((await server.postJson('/v1/llm/unload')).json, { status: 'success', model: 'b.gguf' });
  assert.deepEqual(await residents(server), { llm: 'starter-writer.gguf' });
  assert.equal(await answeredBy(server), 'starter-writer.gguf');
  const unknown = await server.postJson('/v1/llm/unload', { model: 'c' });
  assert.equal(unknown.status, 404);
  assert.match(unknown.json.error.message, /no text model 'c' is loaded/);
});

test('the same model with other options is started anew in its own worker', async (t) => {
  const server = await startServer(t, { prepare: shelf });
  await load(server, 'a.gguf', { context: 512, slots: 3, gpu_layers: 7 });
  const before = await server.worker('llm');
  assert.deepEqual(before.wished, { gpu_layers: 7, context: 512, slots: 3, task: 'auto', cache_type: 'auto', idle_timeout: -1 });
  assert.deepEqual(before.present, { gpu_layers: 7, context: 512, slots: 3, task: 'chat', cache_type: 'f16', idle_timeout: 0 });
  await load(server, 'a.gguf', { gpu_layers: 3 });
  const after = await server.worker('llm');
  assert.equal(after.id, before.id);
  assert.notEqual(after.pid, before.pid);
  assert.equal(after.present.gpu_layers, 3);
  assert.deepEqual(Object.keys(await residents(server)).sort(), ['llm', 'llm-2']);
});

test('all of them come back after a kill of the server, each with its options, the default as it was', async (t) => {
  const server = await startServer(t, { prepare: shelf });
  await load(server, 'a.gguf', { context: 512, cache_type: 'q5_1' });
  await load(server, 'b.gguf');
  await load(server, 'a.gguf', { context: 512, cache_type: 'q5_1' }); // resident already: the default again, and nothing is started
  assert.equal(server.records('llm').filter((r) => r.event === 'start').length, 3);
  const record = () => JSON.parse(readFileSync(join(server.home, 'desired.json'), 'utf8')).text?.map((m) => m.model.split('/').at(-1));
  await until('it is stored', () => JSON.stringify(record()) === '["a.gguf","starter-writer.gguf","b.gguf"]');
  server.child.kill('SIGKILL');
  await until('the server is gone', () => server.exit);
  Object.assign(server, { exit: null, logText: '' });
  server.start(join(server.root, 'bin'), { args: [], env: {} });
  await server.answersHealth();
  await server.ready(['sd', 'llm', 'llm-2', 'llm-3']);
  assert.deepEqual(await residents(server), { llm: 'a.gguf', 'llm-2': 'starter-writer.gguf', 'llm-3': 'b.gguf' });
  assert.equal((await server.worker('llm')).present.cache_type, 'q5_1');
  assert.equal((await server.worker('llm')).present.context, 512);
});

test('one that is killed comes back alone', async (t) => {
  const server = await startServer(t, { prepare: shelf });
  await load(server, 'a.gguf');
  const before = (await server.getJson('/v1/workers')).json;
  process.kill(before['llm-2'].pid, 'SIGKILL');
  await until('another process', async () => (await server.worker('llm-2')).restarts === 1);
  await server.ready(['llm-2']);
  const after = (await server.getJson('/v1/workers')).json;
  assert.equal(after['llm-2'].model, 'starter-writer.gguf');
  assert.equal(after.llm.pid, before.llm.pid);
});

test('the type of the cache is handed over, and halves what is foreseen for it', async (t) => {
  const cached = (server) => writeGguf(join(server.models, 'a.gguf'), { numbers: { 'llama.block_count': 8, 'llama.context_length': 8192,
    'llama.embedding_length': 1024, 'llama.attention.head_count': 16 } });
  const server = await startServer(t, { prepare: cached });
  const cacheOf = async (options) => {
    await load(server, 'a.gguf', options);
    return (await server.getJson('/v1/memory')).json.residents.find((r) => r.model === 'a.gguf').predicted.cache;
  };
  const starts = () => server.records('llm').filter((r) => r.event === 'start' && r.options.join(' ').includes('a.gguf'))
    .map((r) => r.options.join(' ').match(/--cache-type (\S+)/)?.[1]);
  const full = await cacheOf({ context: 4096, slots: 1 });
  assert.equal(full, 4096 * 8 * 2 * 1024 * 2);
  assert.equal(await cacheOf({ context: 4096, slots: 1, cache_type: 'q8_0' }), full * 34 / 64);
  assert.deepEqual(starts(), [undefined, 'q8_0']);
  const { status, json } = await server.postJson('/v1/llm/load', { model: 'a.gguf', cache_type: 'q9' });
  assert.equal(status, 400);
  assert.match(json.error.message, /cache_type must be one of auto, f16, .*, not "q9"/);
});

test('--llm-cache-type is what a load does not say', async (t) => {
  const server = await startServer(t, { prepare: shelf, args: ['--llm-cache-type', 'q4_0'] });
  assert.equal((await server.worker('llm')).present.cache_type, 'q4_0');
  await load(server, 'a.gguf', { cache_type: 'f16' });
  const { wished, present } = await server.worker('llm');
  assert.deepEqual([wished.cache_type, present.cache_type], ['f16', 'f16']);
});
