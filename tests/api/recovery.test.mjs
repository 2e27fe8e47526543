// Workers that end by their own fault: named, counted, and not fed the same model for ever.
import assert from 'node:assert/strict';
import test from 'node:test';
import { startServer, until } from '../support/server.mjs';

const messages = [{ role: 'user', content: 'hello' }];
const chat = (server) => server.postJson('/v1/chat/completions', { messages });

test('the end is named: a fault, want of memory, a kill from outside', async (t) => {
  const server = await startServer(t, { llm: { chat: ['fault', 'ok', 'no_memory', 'ok'] } });
  assert.equal((await chat(server)).status, 200, 'sent again once, to the next process');
  let worker = await server.worker('llm');
  assert.deepEqual(worker.exit, { end: 'signal', signal: 11, code: 0, own_fault: true });
  assert.match(worker.last_exit, /killed by signal 11 \(Segmentation fault\)/);
  assert.equal((await chat(server)).status, 200);
  worker = await server.worker('llm');
  assert.deepEqual(worker.exit, { end: 'out_of_memory', signal: 6, code: 0, own_fault: true });
  process.kill(worker.pid, 'SIGKILL');
  await until('it was lost', async () => (await server.worker('llm')).restarts === 3);
  worker = await server.worker('llm');
  assert.equal(worker.exit.own_fault, worker.exit.end === 'out_of_memory', 'the kernel may have counted a kill of another process');
  await server.ready(['llm']);
});

test('a text model that ends its worker three times in a row is left alone until it is loaded again', async (t) => {
  const server = await startServer(t, { llm: { chat: 'fault' } });
  assert.equal((await chat(server)).status, 502);
  const third = await chat(server);
  assert.equal(third.status, 503);
  assert.match(third.json.error.message, /safe mode: the text worker ended 3 times in a row with .*starter-writer.gguf \(killed by signal 11/);
  const worker = await server.worker('llm');
  assert.deepEqual([worker.state, worker.safe_mode, worker.model], ['stopped', true, null]);
  const health = (await server.getJson('/health')).json;
  assert.equal(health.status, 'degraded');
  assert.match(health.workers.llm.reason, /safe mode/);
  const starts = server.records('llm').filter((r) => r.event === 'start').length;
  assert.equal((await server.postJson('/v1/chat/completions', { messages, model: 'starter-writer' })).status, 503, 'a request does not load it');
  assert.equal(server.records('llm').filter((r) => r.event === 'start').length, starts);
  server.plan('llm', {});
  assert.equal((await server.postJson('/v1/llm/load', { model: 'starter-writer.gguf' })).status, 200);
  assert.equal((await chat(server)).status, 200);
  assert.equal((await server.worker('llm')).safe_mode, false);
});

test('each process has a token of its own', async (t) => {
  const server = await startServer(t, { llm: { chat: ['ok', 'fault', 'ok'] } });
  await chat(server);
  await chat(server);
  const [first, second, third] = server.requests('llm', '/v1/chat/completions').map((r) => r.headers.authorization);
  assert.equal(first, second);
  assert.notEqual(second, third);
});
