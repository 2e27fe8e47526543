// Jobs: accepted once they are on disk, done or failed with a reason whatever is killed, and found again.
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { readFileSync, readdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import test from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { sseEvents, startServer, until } from '../support/server.mjs';

const sent = (server) => server.requests('sd', '/internal/generate').map((r) => JSON.parse(r.body));
const job = async (server, id) => (await server.getJson(`/v1/jobs/${id}`)).json;
const add = async (server, body, headers) => server.postJson('/v1/jobs', body, { headers });
const ended = (server, id) => until(`${id} has ended`, async () => {
  const j = await job(server, id);
  return j.ended_ms !== null && j;
});
const slowly = { step_ms: 100, default_steps: 100 };

async function events(server, id) {
  const list = [];
  for await (const e of sseEvents(await server.get(`/v1/jobs/${id}/events`))) list.push({ ...e, json: e.data && JSON.parse(e.data) });
  return list;
}

test('a job is accepted, drawn, and found with its pictures', async (t) => {
  const server = await startServer(t);
  const { status, json, headers } = await add(server, { prompt: 'a boat', n: 2, seed: 7, steps: 3 });
  assert.equal(status, 202);
  assert.equal(headers.get('location'), json.urls.self);
  const done = await ended(server, json.id);
  assert.equal(done.state, 'done');
  assert.equal(done.request.prompt, 'a boat');
  assert.deepEqual(done.pictures.map((p) => p.seed), [7, 8]);
  for (const p of done.pictures) assert.equal((await server.get(p.url)).status, 200);
  assert.ok(done.created_ms <= done.begun_ms && done.begun_ms <= done.ended_ms);
  const { json: list } = await server.getJson('/v1/jobs?state=done&limit=1');
  assert.deepEqual(list.data.map((j) => j.id), [json.id]);
});

test('its events: waiting with position, acquired, progress, pictures, and the end', async (t) => {
  const server = await startServer(t, { sd: { step_ms: 30, default_steps: 40 } });
  const first = (await add(server, { prompt: 'a' })).json;
  const second = (await add(server, { prompt: 'b', steps: 2 })).json;
  const [one, two] = await Promise.all([events(server, first.id), events(server, second.id)]);
  const waiting = two.filter((e) => e.event === 'queue_status').map((e) => e.json);
  assert.deepEqual([waiting[0].status, waiting[0].position, waiting[0].run_id], ['waiting', 1, second.id]);
  assert.equal(waiting.at(-1).status, 'acquired');
  assert.ok(waiting.length >= 3, 'once a second while it waits');
  assert.ok(one.every((e) => e.event !== 'queue_status' || e.json.status === 'acquired'), 'the first did not wait');
  assert.ok(one.filter((e) => e.event === 'progress').some((e) => e.json.step === 20 && e.json.steps === 40));
  assert.deepEqual(one.filter((e) => e.event === 'picture').map((e) => e.json.index), [0]);
  assert.equal(one.at(-1).event, 'done');
  assert.equal(one.at(-1).json.pictures.length, 1);
  const late = await events(server, first.id);
  assert.deepEqual(late.map((e) => e.event), ['done']);
  await server.logged(/\[Queue\] job-\S+: acquired after/);
  await server.logged(/\[Queue\] job-\S+: released after \d/);
  await server.logged(/\[Queue\] Initialized with max concurrent requests: 1/);
});

// Reads the events until enough(list) or the end, as somebody whose connection breaks then.
async function follow(server, id, after, enough = () => false) {
  const leave = new AbortController(), list = [];
  const res = await server.get(`/v1/jobs/${id}/events`, { signal: leave.signal, headers: after ? { 'Last-Event-ID': after } : {} });
  if (res.status !== 200) return { status: res.status, list };
  for await (const e of sseEvents(res)) {
    if (e.data) list.push(e);
    if (enough(list)) break;
  }
  leave.abort();
  return { status: res.status, list };
}

test('its events have ids; who comes back with the last one gets what it missed, and 204 after the end', async (t) => {
  const server = await startServer(t, { sd: { step_ms: 20, default_steps: 20 } });
  const { id } = (await add(server, { prompt: 'a', n: 2 })).json;
  const whole = follow(server, id);
  const { list: first } = await follow(server, id, null, (l) => l.filter((e) => e.event === 'progress').length > 5);
  await until('a picture is there', async () => (await server.getJson(`/v1/jobs/${id}`)).json.pictures.length === 1);
  const { list: rest } = await follow(server, id, first.at(-1).id);
  const { list: all } = await whole;
  const known = all.findIndex((e) => e.id === first.at(-1).id);
  assert.ok(known > 0);
  assert.deepEqual(rest.map((e) => [e.id, e.event, e.data]), all.slice(known + 1).map((e) => [e.id, e.event, e.data]));
  assert.deepEqual(rest.filter((e) => e.event === 'picture').map((e) => JSON.parse(e.data).index), [0, 1]);
  const numbers = rest.map((e) => Number(e.id.split('-').at(-1)));
  numbers.forEach((n, i) => assert.equal(n, numbers[0] + i));
  assert.equal(rest.at(-1).event, 'done');
  assert.equal((await follow(server, id, rest.at(-1).id)).status, 204);
  assert.deepEqual((await follow(server, id, rest.at(-2).id)).list.map((e) => [e.id, e.event]), [[rest.at(-1).id, 'done']]);
});

test('what cannot be followed is said, and the state as it is comes instead', async (t) => {
  const server = await startServer(t, { sd: { step_ms: 10, default_steps: 150 } });
  const { id } = (await add(server, { prompt: 'a', n: 3 })).json;
  const { list: first } = await follow(server, id, null, (l) => l.some((e) => e.event === 'progress'));
  assert.deepEqual((await follow(server, id, 'nobody-1-7', (l) => l.length === 3)).list.map((e) => e.event), ['gap', 'queue_status', 'progress']);
  await until('two pictures are there', async () => (await server.getJson(`/v1/jobs/${id}`)).json.pictures.length === 2, 60000);
  const late = (await follow(server, id, first[0].id, (l) => l.filter((e) => e.event === 'picture').length === 2)).list;
  assert.deepEqual(late.map((e) => e.event), ['gap', 'queue_status', 'progress', 'picture', 'picture'], 'more has happened than is kept');
  assert.ok(!late[0].id);
  server.child.kill('SIGKILL');
  await server.startAgain();
  assert.equal((await follow(server, id, late.at(-1).id, (l) => l.length === 1)).list[0].event, 'gap');
  server.plan('sd', { step_ms: 0, default_steps: 4 });
  assert.equal((await ended(server, id)).state, 'done');
  server.child.kill('SIGKILL');
  await server.startAgain();
  const over = (await follow(server, id, late.at(-1).id)).list;
  assert.deepEqual(over.map((e) => e.event), ['gap', 'done']);
  assert.equal((await follow(server, id, over.at(-1).id)).status, 204);
  assert.equal((await follow(server, 'job-0', 'end')).status, 204);
});

test('previews of a job go to who asked for them before it began', async (t) => {
  const server = await startServer(t, { sd: { step_ms: 30, default_steps: 10 } });
  await add(server, { prompt: 'a' });
  const { id } = (await add(server, { prompt: 'b', steps: 3 })).json;
  const seen = [];
  for await (const e of sseEvents(await server.get(`/v1/jobs/${id}/events?previews=true`))) if (e.event === 'preview') {
    seen.push(JSON.parse(e.data));
    assert.equal(e.id, undefined, 'none is told twice');
  }
  assert.deepEqual(seen.map((p) => [p.image, p.step, p.steps, p.width]), [[0, 1, 3, 16], [0, 2, 3, 16], [0, 3, 3, 16]]);
  assert.equal(Buffer.from(seen[0].b64_json, 'base64').readUInt32BE(16), 16, 'the width in a PNG');
});

test('cancelling: running, waiting, ended, unknown', async (t) => {
  const server = await startServer(t, { sd: slowly });
  const [a, b] = [(await add(server, { prompt: 'a' })).json.id, (await add(server, { prompt: 'b' })).json.id];
  await until('the first runs', () => sent(server).length);
  const remove = (id) => server.getJson(`/v1/jobs/${id}`, { method: 'DELETE' });
  for (const id of [b, a]) {
    const { status, json } = await remove(id);
    assert.deepEqual([status, json.state], [200, 'cancelled']);
  }
  const again = await remove(a);
  assert.equal(again.status, 409);
  assert.match(again.json.error.message, /has ended already: cancelled/);
  assert.equal((await remove('job-1-1')).status, 404);
  assert.equal((await server.getJson('/v1/jobs/job-1-1')).status, 404);
  assert.equal((await server.get('/v1/jobs/job-1-1/events')).status, 404);
  assert.equal((await server.getJson('/v1/jobs?state=lost')).status, 400);
});

test('the server is killed: what was accepted is done after its restart, with the same seeds, in its order', async (t) => {
  const server = await startServer(t, { sd: slowly });
  const ids = [];
  for (const [prompt, n] of [['a', 1], ['b', 2], ['c', 1]]) ids.push((await add(server, { prompt, n })).json.id);
  await until('the first runs', () => sent(server).length);
  const seed = sent(server)[0].seed;
  server.child.kill('SIGKILL');
  await until('it is dead', () => server.exit);
  server.plan('sd', { step_ms: 1, default_steps: 2 });
  await server.startAgain();
  const jobs = [];
  for (const id of ids) jobs.push(await ended(server, id));
  assert.deepEqual(jobs.map((j) => [j.state, j.pictures.length]), [['done', 1], ['done', 2], ['done', 1]]);
  assert.deepEqual(sent(server).slice(1).map((r) => r.prompt), ['a', 'b', 'c']);
  assert.equal(sent(server)[1].seed, seed);
  await server.logged(/3 picture job\(s\) of before are taken up again/);
  const check = 'import sqlite3, sys; print(sqlite3.connect(sys.argv[1]).execute("PRAGMA integrity_check").fetchone()[0])';
  const sound = execFileSync('python3', ['-c', check, join(server.home, 'mysti.db')], { encoding: 'utf8' });
  assert.equal(sound.trim(), 'ok');
});

test('the server ends in order: kept jobs go on with the next one, and pictures that are there are not drawn again', async (t) => {
  const server = await startServer(t, { sd: { step_ms: 10, default_steps: 10 } });
  const { id } = (await add(server, { prompt: 'a', n: 3 })).json;
  await until('one picture is there', async () => (await job(server, id)).pictures.length === 1);
  server.child.kill('SIGTERM');
  await until('it has ended', () => server.exit);
  assert.equal(server.exit.code, 0);
  await server.startAgain();
  const done = await ended(server, id);
  assert.deepEqual([done.state, done.pictures.length, done.attempts], ['done', 3, 0]);
  assert.equal(new Set(done.pictures.map((p) => p.seed)).size, 3);
  assert.equal(readdirSync(server.outputs).filter((f) => f.endsWith('.png')).length, 3);
  assert.ok(sent(server).at(-1).count < 3);
});

test('a worker that is killed from outside costs no attempt; one that fails by itself twice ends the job', async (t) => {
  const server = await startServer(t, { sd: { generate: ['crash', 'crash_mid', 'crash', 'ok'] } });
  const killed = await ended(server, (await add(server, { prompt: 'a' })).json.id);
  assert.deepEqual([killed.state, killed.attempts], ['done', 0]);
  assert.equal(sent(server).length, 4);
  server.plan('sd', { generate: ['fault', 'crash', 'ok'] });
  const once = await ended(server, (await add(server, { prompt: 'b' })).json.id);
  assert.deepEqual([once.state, once.attempts], ['done', 1]);
  server.plan('sd', { generate: ['fault', 'crash', 'fault_mid', 'ok'] });
  const twice = await ended(server, (await add(server, { prompt: 'c' })).json.id);
  assert.deepEqual([twice.state, twice.attempts], ['failed', 2]);
  assert.match(twice.error.message, /failed twice/);
  // three faults on one model are a crash loop for the supervisor, which wants the model to be asked for again
  assert.equal((await server.postJson('/v1/models/load', { model: 'starter-painter.safetensors' })).status, 200);
  assert.equal((await ended(server, (await add(server, { prompt: 'd' })).json.id)).state, 'done');
});

test('the same Idempotency-Key with the same body is one job, waiting, running and ended; another body is refused', async (t) => {
  const server = await startServer(t, { sd: { step_ms: 20, default_steps: 30 } });
  const key = { 'Idempotency-Key': 'k-1' };
  const body = { prompt: 'a', seed: 5 };
  const [first, second] = await Promise.all([add(server, body, key), add(server, body, key)]);
  assert.equal(first.json.id, second.json.id);
  assert.deepEqual([first.status, second.status].toSorted(), [200, 202]);
  const other = await add(server, { prompt: 'b' }, key);
  assert.equal(other.status, 409);
  assert.match(other.json.error.message, /used for another request/);
  const blocking = await server.postJson('/v1/images/generations', body, { headers: key });
  assert.equal(blocking.status, 200);
  assert.ok(blocking.json.data[0].b64_json.length > 50);
  const after = await server.postJson('/v1/images/generations', body, { headers: key });
  assert.deepEqual(after.json.data, blocking.json.data);
  assert.equal(sent(server).length, 1);
  assert.notEqual((await add(server, body)).json.id, first.json.id, 'two people who ask for the same get two');
});

test('a client with a key that leaves finds its picture; one without takes its job along', async (t) => {
  const server = await startServer(t, { sd: { step_ms: 20, default_steps: 30 } });
  const leave = new AbortController();
  const request = (headers) => server.post('/v1/images/generations', { prompt: 'a' }, { headers, signal: leave.signal }).catch((e) => e.name);
  const left = request({ 'Idempotency-Key': 'k-2' });
  await until('it runs', () => sent(server).length);
  leave.abort();
  assert.equal(await left, 'AbortError');
  const { status } = await server.postJson('/v1/images/generations', { prompt: 'a' }, { headers: { 'Idempotency-Key': 'k-2' } });
  assert.equal(status, 200);
  assert.equal(sent(server).length, 1);
});

test("an SDK's retry joins the job that is there, when it says that it is one", async (t) => {
  const server = await startServer(t, { sd: { step_ms: 20, default_steps: 40 } });
  const ask = (count) => server.postJson('/v1/images/generations', { prompt: 'a' }, { headers: { 'x-stainless-retry-count': count } });
  const first = ask('0');
  await until('it runs', () => sent(server).length);
  const [a, b] = await Promise.all([first, ask('1')]);
  assert.deepEqual([a.status, b.status], [200, 200]);
  assert.equal(a.json.data[0].seed, b.json.data[0].seed);
  assert.equal(sent(server).length, 1);
});

test('GET /v1/queue shows both lines', async (t) => {
  const server = await startServer(t, { sd: slowly, llm: { chat: 'slow', tokens: 100, token_ms: 50 } });
  for (const prompt of ['a', 'b']) await add(server, { prompt });
  const chats = [1, 2, 3].map(() => server.post('/v1/chat/completions', { messages: [{ role: 'user', content: 'x' }], stream: true }));
  const queue = await until('all are there', async () => {
    const { json } = await server.getJson('/v1/queue');
    return json.images.length === 2 && json.text.length === 3 && json;
  });
  assert.deepEqual(queue.images.map((j) => j.position), [0, 1]);
  assert.ok(queue.text.some((p) => p.state === 'running'));
  for (const chat of await Promise.allSettled(chats)) chat.value?.body?.cancel();
});

test('more than one client may have waiting is 429 with a time that was computed', async (t) => {
  const server = await startServer(t, { sd: { step_ms: 10, default_steps: 10 }, args: ['--client-queue-limit', '2'] });
  await ended(server, (await add(server, { prompt: 'measured' })).json.id);
  for (const prompt of ['a', 'b', 'c']) await add(server, { prompt, steps: 100 });
  const { status, json, headers } = await add(server, { prompt: 'd' });
  assert.equal(status, 429);
  assert.match(json.error.message, /limit of one client/);
  assert.ok(Number(headers.get('retry-after')) >= 1);
});

test('a database that is damaged is set aside, and the server works', async (t) => {
  const server = await startServer(t, { prepare: (s) => writeFileSync(join(s.home, 'mysti.db'), 'this is no database, but long enough to be taken for one '.repeat(50)) });
  const done = await ended(server, (await add(server, { prompt: 'a' })).json.id);
  assert.equal(done.state, 'done');
  const aside = readdirSync(server.home).find((f) => f.startsWith('mysti.db.damaged-'));
  await server.logged(new RegExp(`mysti.db is damaged \\(file is not a database\\): it was set aside as \\S+${aside}, .*"sqlite3 \\S+${aside} .recover"`));
  assert.match(readFileSync(join(server.home, aside), 'utf8'), /this is no database/);
});

test('a database of a newer Mysti is refused at the start with one sentence, and left as it is', async (t) => {
  const server = await startServer(t);
  await ended(server, (await add(server, { prompt: 'a' })).json.id);
  server.child.kill('SIGTERM');
  await until('it ends', () => server.exit);
  const python = (code) => execFileSync('python3', ['-c', `import sqlite3, sys\nc = sqlite3.connect(sys.argv[1])\n${code}\nc.commit()`, join(server.home, 'mysti.db')], { encoding: 'utf8' });
  python('c.execute("PRAGMA user_version = 99")');
  server.logText = '';
  await assert.rejects(server.startAgain());
  assert.deepEqual(server.exit, { code: 1, signal: null });
  await server.logged(/mysti.db was written by a newer Mysti \(its version is 99, this one knows \d+\): start that one, choose another --home, or move the file away/);
  assert.equal(python('print(c.execute("SELECT count(*) FROM job").fetchone()[0])').trim(), '1');
  assert.deepEqual(readdirSync(server.home).filter((f) => /damaged|foreign/.test(f)), []);
});

test('a job that cannot be stored is refused with a sentence, and nothing is drawn', async (t) => {
  const server = await startServer(t, { fileLimitKiB: 8 });
  const { status, json } = await add(server, { prompt: 'x'.repeat(9000) });
  assert.equal(status, 507);
  assert.match(json.error.message, /could not be stored/);
  await sleep(200);
  assert.equal(sent(server).length, 0);
});
