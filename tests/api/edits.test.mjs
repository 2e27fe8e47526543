// Pictures that begin with a picture: OpenAI's form and JSON, the files on their way to the worker, restarts, bad input.
import assert from 'node:assert/strict';
import { existsSync, readFileSync, readdirSync, utimesSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import test from 'node:test';
import { makePng } from '../support/png.mjs';
import { sseEvents, startServer, until } from '../support/server.mjs';

const sent = (server) => server.requests('sd', '/internal/generate').map((r) => JSON.parse(r.body));
const inputs = (server) => existsSync(join(server.home, 'inputs')) ? readdirSync(join(server.home, 'inputs')) : [];
const gone = (server) => until('the files are gone', () => inputs(server).length === 0);
const slowly = { step_ms: 100, default_steps: 100 };
const picture = makePng({ width: 64, height: 64 });
const mask = makePng({ width: 32, height: 32 });

function form(fields) {
  const f = new FormData();
  for (const [name, value] of fields)
    f.append(name, Buffer.isBuffer(value) ? new Blob([value], { type: 'image/png' }) : value, ...(Buffer.isBuffer(value) ? ['x.png'] : []));
  return f;
}

async function edit(server, fields, headers = {}) {
  const res = await fetch(`${server.base}/v1/images/edits`, { method: 'POST', body: form(fields), headers });
  return { status: res.status, json: await res.json() };
}

test('a form: the worker gets the files, every field, and the answer is a picture', async (t) => {
  const server = await startServer(t, { sd: { step_ms: 50, default_steps: 20 } });
  const answer = edit(server, [['image[]', picture], ['mask', mask], ['prompt', '42'], ['n', '1'], ['size', '128x64'], ['seed', '7'],
    ['strength', '0.5'], ['mask_blur', '2.5'], ['padding', '8'], ['crop', 'false'], ['only_masked', 'true'], ['fill', 'latent noise'],
    ['sampler', 'euler'], ['vae', '840000'], ['unknown', 'x']]);
  await until('the worker has it', () => sent(server).length);
  const { start, ...rest } = sent(server)[0];
  assert.deepEqual(readFileSync(start.image), picture);
  assert.deepEqual(readFileSync(start.mask), mask);
  delete start.image;
  delete start.mask;
  assert.deepEqual(start, { strength: 0.5, mask_blur: 2.5, padding: 8, crop: false, only_masked: true, fill: 'latent noise' });
  assert.deepEqual(rest, { prompt: '42', count: 1, width: 128, height: 64, seed: 7, sampler: 'euler', vae: '840000' });
  const { status, json } = await answer;
  assert.equal(status, 200, JSON.stringify(json));
  assert.ok(Buffer.from(json.data[0].b64_json, 'base64').subarray(1, 4).equals(Buffer.from('PNG')));
  await gone(server);
});

test('JSON: base64, data URLs, OpenAI\'s list', async (t) => {
  const server = await startServer(t);
  const base64 = picture.toString('base64');
  for (const body of [{ image: base64, mask: `data:image/png;base64,${base64}` }, { image: [base64] }, { images: [{ image_url: `data:image/png;base64,${base64}` }] }]) {
    const { status, json } = await server.postJson('/v1/images/edits', { prompt: 'p', denoising_strength: 0.25, ...body });
    assert.equal(status, 200, JSON.stringify(json));
    assert.deepEqual([sent(server).at(-1).start.strength, sent(server).at(-1).start.crop], [0.25, true]);
  }
  await gone(server);
});

test('variations: OpenAI\'s form, no prompt, half the way; with more fields they are edits', async (t) => {
  const server = await startServer(t);
  const vary = (fields) => fetch(`${server.base}/v1/images/variations`, { method: 'POST', body: form(fields) });
  const plain = await vary([['image', picture], ['n', '2'], ['size', '128x128'], ['user', 'me']]);
  assert.equal(plain.status, 200);
  assert.equal((await plain.json()).data.length, 2);
  assert.deepEqual([sent(server)[0].prompt, sent(server)[0].count, sent(server)[0].start.strength], ['', 2, 0.5]);
  const more = await server.postJson('/v1/images/variations', { image: picture.toString('base64'), prompt: 'in winter', strength: 0.75, variation_strength: 0.1 });
  assert.equal(more.status, 200, JSON.stringify(more.json));
  assert.deepEqual([sent(server)[1].prompt, sent(server)[1].start.strength], ['in winter', 0.75]);
  for (const [fields, param] of [[[['n', '1']], 'image'], [[['image', picture], ['prompt', '  ']], 'prompt']]) {
    const res = await vary(fields);
    assert.equal(res.status, 400);
    assert.equal((await res.json()).error.param, param);
  }
  assert.equal((await edit(server, [['image', picture]])).json.error.param, 'prompt', 'an edit needs one');
  await gone(server);
});

test('variations with an Idempotency-Key are one job, running and ended; anything else in the request is another one', async (t) => {
  const server = await startServer(t, { sd: { step_ms: 50, default_steps: 20 } });
  const vary = async (more = []) => {
    const res = await fetch(`${server.base}/v1/images/variations`, { method: 'POST', body: form([['image', picture], ['n', '2'], ...more]),
      headers: { 'Idempotency-Key': 'v' } });
    return { status: res.status, job: res.headers.get('x-mysti-job'), json: await res.json() };
  };
  const [first, second] = await Promise.all([vary(), vary()]);
  assert.equal(first.status, 200, JSON.stringify(first.json));
  const ended = await vary();
  assert.deepEqual([second.job, ended.job], [first.job, first.job]);
  assert.deepEqual(ended.json.data.map((p) => p.b64_json), first.json.data.map((p) => p.b64_json));
  const stream = await fetch(`${server.base}/v1/images/variations`, { method: 'POST', body: form([['image', picture], ['n', '2'], ['stream', 'true']]),
    headers: { 'Idempotency-Key': 'v' } });
  const told = [];
  for await (const e of sseEvents(stream)) if (e.data) told.push(JSON.parse(e.data));
  assert.deepEqual(told.map((e) => [e.type, e.index, e.b64_json]), first.json.data.map((p, i) => ['image_edit.completed', i, p.b64_json]));
  for (const more of [['strength', '0.4'], ['variation_strength', '0.1'], ['model', 'starter-painter'], ['prompt', 'p']])
    assert.equal((await vary([more])).status, 409, more[0]);
  assert.equal(sent(server).length, 1);
  await gone(server);
});

test('a stream has the events of an edit', async (t) => {
  const server = await startServer(t);
  const res = await fetch(`${server.base}/v1/images/edits`, { method: 'POST', body: form([['image', picture], ['prompt', 'p'], ['stream', 'true'], ['n', '2']]) });
  const events = [];
  for await (const e of sseEvents(res)) if (e.data) events.push(JSON.parse(e.data).type);
  assert.deepEqual(events, ['image_edit.completed', 'image_edit.completed']);
});

test('a client that leaves takes its files with it', async (t) => {
  const server = await startServer(t, { sd: slowly });
  const leaving = new AbortController();
  const answer = fetch(`${server.base}/v1/images/edits`, { method: 'POST', body: form([['image', picture], ['prompt', 'p']]), signal: leaving.signal });
  await until('the worker has it', () => sent(server).length);
  assert.equal(inputs(server).length, 1);
  leaving.abort();
  await assert.rejects(answer);
  await gone(server);
});

test('a kept job and its files survive the server; the same form again is the same job', async (t) => {
  const server = await startServer(t, { sd: slowly });
  const fields = [['image', picture], ['mask', mask], ['prompt', 'p'], ['seed', '3']];
  const key = { 'Idempotency-Key': 'one' };
  const lost = edit(server, fields, key).catch((e) => e);
  await until('the worker has it', () => sent(server).length);
  writeFileSync(join(server.home, 'inputs/old'), 'left behind');
  utimesSync(join(server.home, 'inputs/old'), 1e9, 1e9);
  server.child.kill('SIGKILL');
  await lost;
  server.plan('sd', { step_ms: 1, default_steps: 4 });
  await server.startAgain();
  const { status, json } = await edit(server, fields, key);
  assert.equal(status, 200, JSON.stringify(json));
  assert.equal(json.data[0].seed, 3);
  const [first, second] = sent(server).slice(-2).map((job) => job.start.image);
  assert.equal(first, second);
  const other = await edit(server, [...fields, ['strength', '0.1']], key);
  assert.equal(other.status, 409);
  await gone(server);
});

test('bad input gets a sentence and leaves no file', async (t) => {
  const server = await startServer(t);
  const ok = ['image', picture], p = ['prompt', 'p'];
  const cases = [
    [[p], 'image', /image is missing/], [[ok], 'prompt', /prompt is missing/],
    [[p, ok, ok], 'image', /more than one/], [[p, ['image', Buffer.alloc(0)]], 'image', /empty file/],
    [[p, ok, ['strength', '2']], 'strength', /0 to 1/], [[p, ok, ['strength', 'much']], 'strength', /number/],
    [[p, ok, ['fill', 'glitter']], 'fill', /latent noise/], [[p, ok, ['padding', '-1']], 'padding', /0 to 2048/],
    [[p, ok, ['crop', 'maybe']], 'crop', /true or false/], [[p, ok, ['model', 'none']], 'model', /none/], [[p, ok, ['n', '99']], 'n', /n must be/],
  ];
  for (const [fields, param, text] of cases) {
    const { status, json } = await edit(server, fields);
    assert.ok(status === 400 || status === 404, JSON.stringify(json));
    assert.equal(json.error.param, param, JSON.stringify(json));
    assert.match(json.error.message, text);
  }
  for (const [type, body, text] of [
    ['multipart/form-data', '', /names no boundary/], ['multipart/form-data; boundary=b', '--c\r\n', /not in it/],
    ['multipart/form-data; boundary=b', '--b\r\nContent-Disposition: form-data; name="image"; filename="a"\r\n\r\nx', /before its last boundary/],
    ['multipart/form-data; boundary=b', '--b\r\n\r\nx\r\n--b--', /no name/], ['application/json', '{"prompt":"p","image":"*"}', /not base64/],
    ['application/json', '{"prompt":"p","image":["YQ==","YQ=="]}', /2 pictures/], ['application/json', '{"prompt":"p","image":7}', /base64/]]) {
    const res = await fetch(`${server.base}/v1/images/edits`, { method: 'POST', body, headers: { 'Content-Type': type } });
    assert.equal(res.status, 400);
    assert.match((await res.json()).error.message, text);
  }
  await gone(server);
  assert.equal(sent(server).length, 0);
});
