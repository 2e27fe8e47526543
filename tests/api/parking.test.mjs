// Text models that leave memory for a while, with their context, and come back.
import assert from 'node:assert/strict';
import { existsSync, readFileSync, readdirSync, statSync, utimesSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import test from 'node:test';
import { writeGguf } from '../support/models.mjs';
import { startServer, until } from '../support/server.mjs';

const messages = [{ role: 'user', content: 'hello' }];
const files = (server) => readdirSync(join(server.home, 'kv'));
const record = (server) => JSON.parse(readFileSync(join(server.home, 'contexts.json'), 'utf8')).contexts;
const slots = (server, action) => server.requests('llm').filter((r) => r.url.endsWith(`action=${action}`)).map((r) => r.url);

async function park(server, name = 'llm') {
  const { status, json } = await server.postJson(`/v1/workers/${name}/park`);
  assert.equal(status, 200, JSON.stringify(json));
  return json;
}

test('parked: the process is gone, its context is in files that others cannot read; a request brings both back', async (t) => {
  const server = await startServer(t, { llm: { slot_tokens: [40, 7] } });
  const parked = await park(server);
  assert.equal(parked.state, 'parked');
  assert.equal(parked.pid, null);
  assert.equal(parked.wanted, 'starter-writer.gguf');
  assert.deepEqual(parked.saved_context, { tokens: 47, bytes: 47 });
  assert.match(parked.reason, /parked: somebody asked for it/);
  assert.equal(files(server).length, 2);
  assert.equal(statSync(join(server.home, 'kv')).mode & 0o777, 0o700);
  for (const file of files(server)) assert.equal(statSync(join(server.home, 'kv', file)).mode & 0o777, 0o600);
  assert.equal((await server.postJson('/v1/chat/completions', { messages })).status, 200);
  assert.equal(slots(server, 'restore').length, 2);
  const order = server.requests('llm').map((r) => r.url);
  assert.ok(order.findIndex((u) => u.endsWith('action=restore')) < order.indexOf('/v1/chat/completions'), 'before the request');
  await server.logged(/Restored the context of starter-writer.gguf: 47 tokens in 2 slots/);
});

test('what runs ends first', async (t) => {
  const server = await startServer(t, { llm: { first_ms: 500 } });
  const chat = server.postJson('/v1/chat/completions', { messages });
  await until('it runs', async () => (await server.worker('llm')).busy);
  assert.equal((await park(server)).state, 'parked');
  assert.equal((await chat).status, 200);
});

test('empty slots are not kept; the files go with the unload', async (t) => {
  const server = await startServer(t);
  await park(server);
  await until('one file', () => files(server).length === 1);
  assert.equal((await server.postJson('/v1/llm/unload')).status, 200);
  await until('no file', () => files(server).length === 0);
});

test('a context is not put into another model, or another file of that name', async (t) => {
  const server = await startServer(t, { prepare: (s) => writeGguf(join(s.models, 'a.gguf')) });
  await server.postJson('/v1/llm/load', { model: 'a' });
  await park(server);
  utimesSync(join(server.models, 'a.gguf'), new Date(1e12), new Date(1e12));
  assert.equal((await server.postJson('/v1/workers/llm/unpark')).json.state, 'ready');
  assert.deepEqual(slots(server, 'restore'), []);
  await until('the stale file is removed', () => files(server).length === 0);
});

test('one that comes back with less than was saved is not believed', async (t) => {
  const server = await startServer(t, { llm: { restore: 'short' } });
  await park(server);
  assert.equal((await server.postJson('/v1/workers/llm/unpark')).json.saved_context.tokens, 0);
  await server.logged(/The context of slot 0 did not come back/);
  assert.equal((await server.postJson('/v1/chat/completions', { messages })).status, 200);
});

test('where it does not help nothing is saved, and that is said', async (t) => {
  const server = await startServer(t, { prepare: (s) => {
    writeGguf(join(s.models, 'window.gguf'), { architecture: 'gemma3', numbers: { 'gemma3.attention.sliding_window': 512 } });
  } });
  await server.postJson('/v1/llm/load', { model: 'window' });
  await park(server);
  assert.deepEqual(slots(server, 'save'), []);
  await server.logged(/The context of window.gguf is not saved: its attention has a sliding window/);
  assert.equal((await server.postJson('/v1/chat/completions', { messages })).status, 200);
});

test('saved contexts are bounded, the oldest go; strays that an earlier server left are removed', async (t) => {
  const server = await startServer(t, { args: ['--kv-files', '1'], prepare: (s) => writeGguf(join(s.models, 'a.gguf')) });
  await server.postJson('/v1/llm/load', { model: 'a' });
  await park(server, 'llm-2');
  await park(server, 'llm');
  await until('one is left', () => files(server).length === 1);
  const { json } = await server.getJson('/v1/workers');
  assert.equal(json['llm-2'].saved_context.tokens, 0);
  assert.equal(json.llm.saved_context.tokens, 40);
  await until('it is recorded', () => existsSync(join(server.home, 'contexts.json')) && record(server).flatMap((c) => c.saved).length === 1);
  writeFileSync(join(server.home, 'kv', 'left'), 'x');
  server.child.kill('SIGKILL');
  await server.startAgain();
  assert.ok(!existsSync(join(server.home, 'kv', 'left')));
  assert.equal(files(server).length, 1);
});

for (const signal of ['SIGTERM', 'SIGKILL'])
  test(`what is parked stays so when the server ends by ${signal}, and comes back with its context`, async (t) => {
    const server = await startServer(t, { args: ['--llm-resident', '1'], llm: { slot_tokens: [40, 7] }, prepare: (s) => writeGguf(join(s.models, 'a.gguf')) });
    await park(server);
    await server.postJson('/v1/llm/load', { model: 'a' });
    await park(server);
    await until('both are recorded', () => existsSync(join(server.home, 'contexts.json')) && record(server).length === 2 && record(server).every((c) => c.saved.length === 2));
    await until('that it is parked, too', () => JSON.parse(readFileSync(join(server.home, 'desired.json'), 'utf8')).text.every((w) => w.parked));
    const before = files(server).sort();
    const starts = server.records('llm').filter((r) => r.event === 'start').length;
    server.child.kill(signal);
    await server.startAgain();
    assert.deepEqual(files(server).sort(), before);
    for (const file of before) assert.equal(statSync(join(server.home, 'kv', file)).mode & 0o777, 0o600);
    const { json } = await server.getJson('/v1/workers');
    const text = Object.values(json).filter((w) => w.name !== 'sd');
    assert.deepEqual(text.map((w) => `${w.wanted} ${w.state} ${w.saved_context.tokens}`).sort(),
      ['a.gguf parked 47', 'starter-writer.gguf parked 47']);
    assert.equal(server.records('llm').filter((r) => r.event === 'start').length, starts, 'nothing was started');
    assert.equal((await server.postJson('/v1/chat/completions', { messages })).status, 200);
    assert.equal((await server.postJson('/v1/chat/completions', { messages, model: 'starter-writer' })).status, 200);
    await server.logged(/Restored the context of a.gguf: 47 tokens in 2 slots/);
    await server.logged(/Restored the context of starter-writer.gguf: 47 tokens in 2 slots/);
    await until('it is not parked any more', () => JSON.parse(readFileSync(join(server.home, 'desired.json'), 'utf8')).text.some((w) => w.model.endsWith('starter-writer.gguf') && !w.parked));
  });

test('a loaded model gets back after a restart what was saved when it was parked', async (t) => {
  const server = await startServer(t);
  await park(server);
  await server.postJson('/v1/workers/llm/unpark');
  await until('it is not parked any more', () => !JSON.parse(readFileSync(join(server.home, 'desired.json'), 'utf8')).text[0].parked);
  server.child.kill('SIGKILL');
  await server.startAgain();
  await server.ready();
  assert.equal(slots(server, 'restore').length, 2, 'once before and once after');
});

test('a saved context that is not as it was recorded is not believed', async (t) => {
  const server = await startServer(t, { llm: { slot_tokens: [40, 7] } });
  await park(server);
  await until('both are recorded', () => existsSync(join(server.home, 'contexts.json')) && record(server)[0]?.saved.length === 2);
  const { file } = record(server)[0].saved.find((s) => s.tokens === 40);
  const { file: other } = record(server)[0].saved.find((s) => s.tokens === 7);
  server.child.kill('SIGKILL');
  await until('it is gone', () => server.exit);
  writeFileSync(join(server.home, 'kv', file), 'cut short');
  await server.startAgain();
  assert.deepEqual(files(server), [other]);
  assert.equal((await server.worker('llm')).saved_context.tokens, 7);
  server.child.kill('SIGKILL');
  await until('it is gone', () => server.exit);
  writeFileSync(join(server.home, 'contexts.json'), '{"version": 1, "contexts": [{"model": ');
  await server.startAgain();
  assert.deepEqual(files(server), []);
  assert.equal((await server.postJson('/v1/chat/completions', { messages })).status, 200);
});

test('a model that nobody uses leaves memory, never during an answer, and the next request brings it back', async (t) => {
  const server = await startServer(t, { args: ['--llm-idle-timeout', '1'], llm: { first_ms: 2500 } });
  const { pid } = await server.worker('llm');
  assert.equal((await server.postJson('/v1/chat/completions', { messages })).status, 200);
  assert.equal((await server.worker('llm')).pid, pid, 'not during the answer');
  await until('it is parked', async () => (await server.worker('llm')).state === 'parked');
  assert.match((await server.worker('llm')).reason, /nobody used it for 1 s/);
  assert.equal((await server.postJson('/v1/chat/completions', { messages })).status, 200);
  assert.equal((await server.postJson('/v1/llm/load', { model: 'starter-writer.gguf', idle_timeout: 0 })).status, 200);
  assert.equal((await server.worker('llm')).wished.idle_timeout, 0);
});

test('one that is wanted takes the place of one that idles', async (t) => {
  const server = await startServer(t, { args: ['--llm-resident', '1'], prepare: (s) => writeGguf(join(s.models, 'a.gguf')) });
  await park(server);
  assert.equal((await server.postJson('/v1/chat/completions', { messages, model: 'a' })).status, 200);
  assert.equal((await server.postJson('/v1/chat/completions', { messages, model: 'starter-writer' })).status, 200);
  const { json } = await server.getJson('/v1/workers');
  assert.deepEqual(Object.values(json).filter((w) => w.name !== 'sd').map((w) => `${w.wanted} ${w.state}`).sort(),
    ['a.gguf parked', 'starter-writer.gguf ready']);
});
