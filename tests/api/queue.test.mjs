// The queue: order, position, its limit, cancelling, and clients that leave.
import assert from 'node:assert/strict';
import test from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { sseEvents, startServer, until } from '../support/server.mjs';

const slowly = { step_ms: 100, default_steps: 140 };
const prompts = (server) => server.requests('sd', '/internal/generate').map((r) => JSON.parse(r.body).prompt);
const progress = async (server) => (await server.getJson('/v1/progress')).json;
const begun = (server, n = 1) => until(`${n} jobs reached the worker`, () => prompts(server).length >= n);

test('first come, first served, one at a time; everybody learns the position', async (t) => {
  const server = await startServer(t, { sd: { step_ms: 40 } });
  const order = [];
  const streams = [];
  for (const prompt of ['a', 'b', 'c']) {
    streams.push((async () => {
      const res = await server.post('/v1/images/generations', { prompt, stream: true });
      const comments = [];
      for await (const event of sseEvents(res)) {
        if (event.comment) comments.push(event.comment);
        if (event.event === 'image_generation.completed') order.push(prompt);
      }
      return comments;
    })());
    await sleep(30);
  }
  const [, , last] = await Promise.all(streams);
  assert.deepEqual(order, ['a', 'b', 'c']);
  assert.deepEqual(prompts(server), ['a', 'b', 'c']);
  assert.ok(last.some((c) => /^queue position=1( eta_ms=\d+)?$/.test(c)), last.join(' | '));
});

test('one more than the queue holds is 429, with the time to come back', async (t) => {
  const server = await startServer(t, { sd: slowly, args: ['--queue-limit', '2'] });
  const running = server.postJson('/v1/images/generations', { prompt: 'running' });
  await begun(server);
  const waiting = ['b', 'c'].map((prompt) => server.postJson('/v1/images/generations', { prompt }));
  await until('two wait', async () => (await progress(server)).waiting === 2);
  const { status, json, headers } = await server.postJson('/v1/images/generations', { prompt: 'd' });
  assert.equal(status, 429);
  assert.equal(json.error.code, 'queue_full');
  assert.match(json.error.message, /2 picture requests are waiting already/);
  assert.ok(Number(headers.get('retry-after')) > 0);
  await server.postJson('/v1/images/cancel', { all: true });
  for (const answer of [await running, ...await Promise.all(waiting)]) assert.equal(answer.status, 499);
});

test('cancel stops the running picture within a step; the next one begins', async (t) => {
  const server = await startServer(t, { sd: slowly });
  const first = server.postJson('/v1/images/generations', { prompt: 'first' });
  await begun(server);
  const second = server.postJson('/v1/images/generations', { prompt: 'second', steps: 2 });
  await until('the second waits', async () => (await progress(server)).waiting === 1);
  const { job } = await progress(server);
  assert.deepEqual((await server.postJson('/v1/images/cancel')).json, { cancelled: [job] });
  const answer = await first;
  assert.equal(answer.status, 499);
  assert.equal(answer.json.error.code, 'cancelled');
  assert.equal(answer.headers.get('x-should-retry'), 'false');
  assert.equal((await second).status, 200);
  const cancelled = server.records('sd').find((r) => r.event === 'job_cancelled');
  assert.ok(cancelled.step < 100, `stopped at step ${cancelled.step}`);
});

test('one waiting job can be cancelled by its id, an unknown one not, and nothing at all is no error', async (t) => {
  const server = await startServer(t, { sd: slowly });
  assert.deepEqual((await server.postJson('/v1/images/cancel')).json, { cancelled: [] });
  assert.equal((await server.postJson('/v1/images/cancel', { job: 'job-0-0' })).status, 404);
  assert.equal((await server.postJson('/v1/images/cancel', { job: 7 })).status, 400);
  const first = server.postJson('/v1/images/generations', { prompt: 'first', steps: 8 });
  await begun(server);
  const res = await server.post('/v1/images/generations', { prompt: 'second', stream: true });
  const id = res.headers.get('x-mysti-job');
  assert.deepEqual((await server.postJson('/v1/images/cancel', { job: id })).json, { cancelled: [id] });
  const events = [];
  for await (const event of sseEvents(res)) events.push(event);
  assert.equal(JSON.parse(events.find((e) => e.data).data).error.code, 'cancelled');
  assert.equal((await first).status, 200);
  assert.deepEqual(prompts(server), ['first']);
});

test('a client that leaves takes its job along, running or waiting', async (t) => {
  const server = await startServer(t, { sd: slowly });
  const draw = (prompt, signal) => server.post('/v1/images/generations', { prompt, stream: prompt === 'waiting' }, { signal })
    .then((res) => res.text()).catch((e) => e.name);
  const leave = [new AbortController(), new AbortController()];
  const running = draw('running', leave[0].signal);
  await begun(server);
  const waiting = draw('waiting', leave[1].signal);
  await until('one waits', async () => (await progress(server)).waiting === 1);
  const stays = server.postJson('/v1/images/generations', { prompt: 'stays', steps: 1 });
  await until('two wait', async () => (await progress(server)).waiting === 2);
  leave[1].abort();
  await until('one waits', async () => (await progress(server)).waiting === 1);
  const left = Date.now();
  leave[0].abort();
  const noticed = await until('the worker notices', () => server.records('sd').find((r) => r.event === 'client_gone'));
  assert.ok(noticed.at - left < 2000, `noticed after ${noticed.at - left} ms`);
  assert.deepEqual(await Promise.all([running, waiting]), ['AbortError', 'AbortError']);
  assert.equal((await stays).status, 200);
  assert.deepEqual(prompts(server).filter((p) => p !== 'stays'), ['running']);
});

test('fifty clients that leave in the middle leave nothing behind', async (t) => {
  const server = await startServer(t, { sd: { step_ms: 20, default_steps: 100 } });
  for (let i = 0; i < 50; i++) {
    const leave = new AbortController();
    const request = server.post('/v1/images/generations', { prompt: `${i}`, stream: i % 2 === 0 }, { signal: leave.signal })
      .then((res) => res.text()).catch(() => {});
    await sleep(i % 5 * 10);
    leave.abort();
    await request;
  }
  await until('idle', async () => (await progress(server)).phase === 'idle');
  await until('the worker is idle', async () => !(await server.worker('sd')).busy);
  assert.equal((await server.postJson('/v1/images/generations', { prompt: 'x', steps: 1 })).status, 200);
});
