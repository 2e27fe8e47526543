// Progress: one answer for those who ask, a stream for those who listen.
import assert from 'node:assert/strict';
import test from 'node:test';
import { checkSchema } from '../support/openapi.mjs';
import { sseEvents, startServer, until } from '../support/server.mjs';

function listen(server, list) {
  const leave = new AbortController();
  const done = (async () => {
    const res = await server.get('/v1/stream/progress', { signal: leave.signal });
    assert.match(res.headers.get('content-type'), /text\/event-stream/);
    assert.match(res.headers.get('cache-control'), /no-cache|no-store/);
    for await (const event of sseEvents(res)) if (event.data) list.push(JSON.parse(event.data));
  })().catch((e) => {
    if (e.name !== 'AbortError') throw e;
  });
  return { leave, done };
}

test('a listener sees the state as it is, then every step of every picture, then idle again', async (t) => {
  const server = await startServer(t, { sd: { step_ms: 30 } });
  const seen = [];
  const { leave, done } = listen(server, seen);
  await until('the first state', () => seen.length === 1);
  assert.equal(seen[0].phase, 'idle');
  await server.postJson('/v1/images/generations', { prompt: 'a boat', n: 2 });
  await until('idle again', () => seen.at(-1).phase === 'idle' && seen.length > 5);
  leave.abort();
  await done;
  for (const state of seen) checkSchema('Progress', state);
  const phases = seen.map((s) => s.phase).filter((p, i, all) => p !== all[i - 1]);
  assert.deepEqual(phases, ['idle', 'preparing', 'encoding', 'sampling', 'decoding', 'saving',
    'encoding', 'sampling', 'decoding', 'saving', 'done', 'idle']);
  const steps = seen.filter((s) => s.phase === 'sampling' && s.step > 0).map((s) => `${s.image}:${s.step}/${s.steps}`);
  for (const image of [0, 1])
    for (const step of [1, 2, 3, 4]) assert.ok(steps.includes(`${image}:${step}/4`), `${image}:${step} in ${steps}`);
  assert.ok(seen.find((s) => s.step === 1).eta_ms > 0);
  assert.ok(seen.at(-2).time > 0.1);
});

test('a cancelled and a failed picture are told too', async (t) => {
  const server = await startServer(t, { sd: { step_ms: 100, generate: ['ok', 'error_mid'] } });
  const seen = [];
  const { leave, done } = listen(server, seen);
  const first = server.postJson('/v1/images/generations', { prompt: 'a boat' });
  await until('sampling', () => seen.some((s) => s.phase === 'sampling'));
  await server.postJson('/v1/images/cancel');
  await first;
  assert.equal((await server.postJson('/v1/images/generations', { prompt: 'a boat' })).status, 500);
  await until('failed', () => seen.some((s) => s.phase === 'failed'));
  assert.ok(seen.some((s) => s.phase === 'cancelled'));
  leave.abort();
  await done;
});

test('progress for those who ask', async (t) => {
  const server = await startServer(t, { sd: { step_ms: 100 } });
  const drawing = server.postJson('/v1/images/generations', { prompt: 'a boat', steps: 10 });
  const now = await until('a step is done', async () => {
    const { json } = await server.getJson('/v1/progress');
    return json.step >= 2 && json;
  });
  assert.equal(now.phase, 'sampling');
  assert.equal(now.label, 'Sampling...');
  assert.equal(now.steps, 10);
  assert.match(now.job, /^job-/);
  await drawing;
});
