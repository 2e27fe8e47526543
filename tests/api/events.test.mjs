// One stream of everything: what it says, how it goes on after a broken connection, what it refuses.
import assert from 'node:assert/strict';
import test from 'node:test';
import { checkSchema } from '../support/openapi.mjs';
import { sseEvents, startServer, until } from '../support/server.mjs';

/* The events so far; leave() ends the connection. */
function follow(server, query = '', headers = {}) {
  const stop = new AbortController();
  const list = [];
  const done = (async () => {
    const res = await server.get(`/v1/events${query}`, { signal: stop.signal, headers });
    assert.equal(res.status, 200);
    for await (const event of sseEvents(res))
      if (event.data) list.push({ id: event.id, name: event.event, data: JSON.parse(event.data) });
  })().catch((e) => {
    if (e.name !== 'AbortError') throw e;
  });
  return { list, of: (name) => list.filter((e) => e.name === name), leave: () => (stop.abort(), done) };
}

const number = (e) => Number(e.id.split('-')[1]);

test('first everything as it is, then what happens, numbered without holes', async (t) => {
  const server = await startServer(t, { sd: { step_ms: 30 } });
  const me = follow(server);
  await until('the state', () => me.list.length > 0);
  assert.equal(me.list[0].name, 'snapshot');
  checkSchema('Everything', me.list[0].data);
  assert.equal(me.list[0].data.workers.sd.state, 'ready');

  await server.postJson('/v1/images/generations', { prompt: 'a boat', steps: 4 });
  await until('the job has ended', () => me.of('job').some((e) => e.data.state === 'done'));
  for (const e of me.of('job')) checkSchema('JobEvent', e.data);
  const states = me.of('job').map((e) => e.data.state).filter((s, i, all) => s !== all[i - 1]);
  assert.deepEqual(states, ['waiting', 'preparing', 'encoding', 'sampling', 'decoding', 'saving', 'done']);
  await until('the worker was busy and is not', () => me.of('worker').some((e) => e.data.name === 'sd' && e.data.busy)
    && me.of('worker').filter((e) => e.data.name === 'sd').at(-1).data.busy === false);
  await until('the queue is empty again', () => me.of('queue').length > 1 && me.of('queue').at(-1).data.images.length === 0);
  assert.ok(me.of('log').some((e) => e.data.source === 'orchestrator' && /\[Queue\]/.test(e.data.line)));
  await me.leave();

  const numbers = me.list.slice(1).map(number);
  assert.deepEqual(numbers, numbers.map((_, i) => number(me.list[0]) + 1 + i));
});

test('who comes back gets exactly what was missed', async (t) => {
  const server = await startServer(t, { sd: { step_ms: 1 } });
  const first = follow(server, '?types=job');
  await until('the state', () => first.list.length === 1);
  await server.postJson('/v1/images/generations', { prompt: 'a boat' });
  await until('an end', () => first.of('job').some((e) => e.data.state === 'done'));
  await first.leave();
  const last = first.list.at(-1);

  await server.postJson('/v1/images/generations', { prompt: 'a house' }); // nobody listens
  const second = follow(server, '?types=job', { 'last-event-id': last.id });
  await until('what was missed', () => second.of('job').some((e) => e.data.state === 'done'));
  assert.equal(second.of('snapshot').length, 0);
  assert.equal(second.list[0].data.state, 'waiting');
  assert.notEqual(second.list[0].data.id, last.data.id);
  assert.ok(second.list.every((e) => number(e) > number(last)));
  await second.leave();

  const third = follow(server, `?types=job&last_event_id=${second.list.at(-1).id}`);
  await server.postJson('/v1/images/generations', { prompt: 'a tree' });
  await until('only the new', () => third.of('job').some((e) => e.data.state === 'done'));
  assert.ok(third.list.every((e) => number(e) > number(second.list.at(-1))));
  await third.leave();
});

test('a hole is said, and the state follows', async (t) => {
  const server = await startServer(t);
  const cases = [
    ['0000000000000000-7', /started anew/],
    ['nonsense', /started anew/],
  ];
  for (const [id, reason] of cases) {
    const me = follow(server, '', { 'last-event-id': id });
    await until('gap and state', () => me.list.length >= 2);
    assert.equal(me.list[0].name, 'gap');
    assert.match(me.list[0].data.reason, reason);
    assert.equal(me.list[1].name, 'snapshot');
    await me.leave();
  }
  const me = follow(server);
  await until('the state', () => me.list.length > 0);
  await me.leave();
  const boot = me.list[0].id.split('-')[0];
  const ahead = follow(server, '', { 'last-event-id': `${boot}-999999` });
  await until('gap and state', () => ahead.list.length >= 2);
  assert.match(ahead.list[0].data.reason, /no event with this id/);
  await ahead.leave();
});

test('more has happened than is kept', async (t) => {
  const server = await startServer(t, { sd: { step_ms: 0 } });
  const first = follow(server, '?types=job');
  await until('the state', () => first.list.length === 1);
  await first.leave();
  for (let i = 0; i < 12; i++)
    assert.equal((await server.postJson('/v1/images/generations', { prompt: 'a boat', steps: 100 })).status, 200);
  const again = follow(server, '?types=job', { 'last-event-id': first.list[0].id });
  await until('gap and state', () => again.list.length >= 2);
  assert.equal(again.list[0].name, 'gap');
  assert.match(again.list[0].data.reason, /more has happened/);
  assert.equal(again.list[1].name, 'snapshot');
  await again.leave();
});

test('lines of the log up to a level, and only what was asked for', async (t) => {
  const server = await startServer(t, { sd: { generate: ['error_mid'] } });
  const errors = follow(server, '?types=log&log=error');
  const all = follow(server, '?types=log,worker&log=info');
  await until('both states', () => errors.list.length && all.list.length);
  await server.postJson('/v1/images/generations', { prompt: 'a boat' });
  await until('an error line', () => errors.of('log').length > 0);
  await until('other lines', () => all.of('log').some((e) => e.data.level === 'info'));
  assert.ok(errors.of('log').every((e) => e.data.level === 'error'));
  assert.ok(all.list.every((e) => ['snapshot', 'log', 'worker'].includes(e.name)));
  assert.ok(!JSON.stringify(all.list).includes('Bearer'));
  await errors.leave();
  await all.leave();
});

test('unknown words are refused with the known ones', async (t) => {
  const server = await startServer(t);
  for (const [query, param] of [['?types=worker,jobs', 'types'], ['?log=loud', 'log']]) {
    const { status, json } = await server.getJson(`/v1/events${query}`);
    assert.equal(status, 400);
    assert.equal(json.error.param, param);
    assert.match(json.error.message, /is none of/);
  }
});

test('previews of every picture go to who names them, and to nobody else', async (t) => {
  const server = await startServer(t, { sd: { step_ms: 30 } });
  const draw = () => server.postJson('/v1/images/generations', { prompt: 'a boat', steps: 3 });
  const all = follow(server);
  await until('the state', () => all.list.length > 0);
  await draw();
  await until('the job has ended', () => all.of('job').some((e) => e.data.state === 'done'));
  assert.equal(all.of('preview').length, 0);
  assert.equal(JSON.parse(server.requests('sd').findLast((r) => r.url === '/internal/generate').body).preview_ms, undefined, 'none are made for nobody');
  const some = follow(server, '?types=preview,job');
  await until('the state', () => some.list.length > 0);
  await draw();
  await until('the job has ended', () => some.of('job').some((e) => e.data.state === 'done'));
  assert.deepEqual(some.of('preview').map((e) => [e.id, e.data.step, e.data.steps]), [[undefined, 1, 3], [undefined, 2, 3], [undefined, 3, 3]]);
  assert.equal(some.of('preview')[0].data.id, some.of('job')[0].data.id);
  assert.equal(Buffer.from(some.of('preview')[0].data.b64_json, 'base64').readUInt32BE(16), 16, 'the width in a PNG');
  assert.equal(all.of('preview').length, 0);
  await some.leave();
  await draw();
  assert.equal(JSON.parse(server.requests('sd').findLast((r) => r.url === '/internal/generate').body).preview_ms, undefined);
  await all.leave();
});
