// Where text requests wait: as many at once as the model has slots, the rest in line, and what they hear there.
import assert from 'node:assert/strict';
import { join } from 'node:path';
import test from 'node:test';
import { writeGguf } from '../support/models.mjs';
import { sseEvents, startServer, until } from '../support/server.mjs';

const messages = [{ role: 'user', content: 'hello' }];

const ask = (server, tag, body = {}, options) => server.postJson('/v1/chat/completions', { messages, user: tag, ...body }, options);
const begun = (server) => server.records('llm').filter((r) => r.event === 'text_begin');
const reached = (server, tag) => until(`${tag} reached the worker`, () => begun(server).find((r) => r.tag === tag));

async function comments(server, tag, body = {}) {
  const res = await server.post('/v1/chat/completions', { messages, user: tag, stream: true, ...body });
  const heard = [];
  let text = '';
  for await (const event of sseEvents(res)) {
    if (event.comment) heard.push(event.comment);
    else if (event.data !== '[DONE]') text += JSON.parse(event.data).choices[0].delta.content ?? '';
  }
  return { heard, text };
}

// Requests that arrive one after the other, each known to be waiting or working before the next is sent.
async function lineUp(server, tags, body) {
  const answers = [];
  for (const tag of tags) {
    const before = (server.logText.match(/Text request \S+ waiting/g) ?? []).length;
    answers.push(ask(server, tag, body?.(tag)));
    await until(`${tag} is in`, () => begun(server).some((r) => r.tag === tag)
      || (server.logText.match(/Text request \S+ waiting/g) ?? []).length > before);
  }
  return answers;
}

test('ten requests against two slots all succeed, in order, never more than two at once', async (t) => {
  const server = await startServer(t, { args: ['--verbose'], llm: { first_ms: 120 } });
  const tags = Array.from({ length: 10 }, (_, i) => `r${i}`);
  for (const { status } of await Promise.all(await lineUp(server, tags))) assert.equal(status, 200);
  assert.deepEqual(begun(server).map((r) => r.tag), tags);
  assert.equal(Math.max(...begun(server).map((r) => r.busy)), 2);
  await server.logged(/\[Queue\] Initialized with max concurrent requests: 2/);
  await server.logged(/\[Queue\] Text request \S+ released after/);
});

test('a model that was loaded with four slots answers four at once', async (t) => {
  const server = await startServer(t, { llm: { first_ms: 300 } });
  assert.equal((await server.postJson('/v1/llm/load', { model: 'starter-writer.gguf', slots: 4 })).status, 200);
  await Promise.all(['a', 'b', 'c', 'd', 'e'].map((tag) => ask(server, tag)));
  assert.equal(Math.max(...begun(server).map((r) => r.busy)), 4);
});

test('who waits for a stream hears position and estimate, then the tokens', async (t) => {
  const server = await startServer(t, { args: ['--llm-slots', '1'], llm: { first_ms: 700 } });
  await ask(server, 'warm');
  const first = ask(server, 'first');
  await reached(server, 'first');
  server.plan('llm', { tokens: Array(40).fill(' x'), token_ms: 60 });
  const [one, two] = await Promise.all([comments(server, 'one'), (async () => {
    await until('one is before it', () => begun(server).some((r) => r.tag === 'one'));
    return comments(server, 'two');
  })()]);
  assert.equal((await first).status, 200);
  assert.equal(one.text, ' x'.repeat(40));
  assert.equal(two.text, ' x'.repeat(40));
  assert.ok(two.heard.length >= 2, JSON.stringify(two.heard));
  for (const comment of two.heard.slice(0, -1)) assert.match(comment, /^queue position=1 eta_ms=\d+$/);
});

test('one more than may wait is told when to come again; a place that a client leaves is free at once', async (t) => {
  const server = await startServer(t, { args: ['--verbose', '--llm-slots', '1', '--text-queue-limit', '1'], llm: { chat: 'stall', tokens: Array(9).fill(' x') } });
  const leave = new AbortController();
  const running = server.post('/v1/chat/completions', { messages, user: 'running', stream: true }, { signal: leave.signal }).catch((e) => e);
  await reached(server, 'running');
  const impatient = new AbortController();
  const waiting = ask(server, 'impatient', {}, { signal: impatient.signal }).catch((e) => e.name);
  await until('it waits', () => /Text request \S+ waiting/.test(server.logText));
  const refused = await ask(server, 'refused');
  assert.equal(refused.status, 429);
  assert.equal(refused.json.error.code, 'queue_full');
  assert.match(refused.json.error.message, /1 text requests are waiting for this model already/);
  assert.match(refused.headers.get('retry-after'), /^[1-9]\d*$/);
  impatient.abort();
  assert.equal(await waiting, 'AbortError');
  server.plan('llm', {});
  const [patient] = await lineUp(server, ['patient']);
  leave.abort();
  await running;
  assert.equal((await patient).status, 200);
  assert.deepEqual(begun(server).map((r) => r.tag), ['running', 'patient']);
});

test('a request for a model in memory overtakes one that has to wait for a load', async (t) => {
  const server = await startServer(t, { args: ['--verbose', '--llm-resident', '1', '--text-queue-age', '600'], llm: { first_ms: 1500 },
    prepare: (s) => writeGguf(join(s.models, 'other.gguf')) });
  const answers = await lineUp(server, ['a1', 'other', 'a2'], (tag) => (tag === 'other' ? { model: 'other' } : {}));
  for (const { status } of await Promise.all(answers)) assert.equal(status, 200);
  assert.deepEqual(begun(server).map((r) => r.tag), ['a1', 'a2', 'other']);
});

test('but not for ever: one that has waited long enough has its model loaded although others keep coming', async (t) => {
  const server = await startServer(t, { args: ['--llm-resident', '1', '--text-queue-age', '1'], llm: { first_ms: 100 },
    prepare: (s) => writeGguf(join(s.models, 'other.gguf')) });
  let over = false;
  const stream = async (tag) => {
    let n = 0;
    for (; !over; n++) assert.equal((await ask(server, tag, { model: 'starter-writer' })).status, 200);
    return n;
  };
  const streams = [stream('x'), stream('y'), stream('z')];
  await reached(server, 'z');
  assert.equal((await ask(server, 'other', { model: 'other' })).status, 200);
  over = true;
  for (const n of await Promise.all(streams)) assert.ok(n > 1);
});

test('token ids are answered beside the slots', async (t) => {
  const server = await startServer(t, { args: ['--llm-slots', '1'], llm: { chat: 'stall', tokens: Array(9).fill(' x') } });
  const leave = new AbortController();
  const running = server.post('/v1/chat/completions', { messages, user: 'running', stream: true }, { signal: leave.signal }).catch((e) => e);
  await reached(server, 'running');
  assert.deepEqual((await server.postJson('/v1/tokenize', { content: 'hi' })).json.tokens, [104, 105]);
  leave.abort();
  await running;
});
