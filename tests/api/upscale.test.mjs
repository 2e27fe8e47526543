// Pictures made larger: the form and JSON on their way to the worker, the line they wait in, restarts, bad input.
import assert from 'node:assert/strict';
import { existsSync, mkdirSync, readFileSync, readdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import test from 'node:test';
import { makePng } from '../support/png.mjs';
import { sseEvents, startServer, until } from '../support/server.mjs';

const sent = (server) => server.requests('sd', '/internal/generate').map((r) => JSON.parse(r.body));
const inputs = (server) => existsSync(join(server.home, 'inputs')) ? readdirSync(join(server.home, 'inputs')) : [];
const gone = (server) => until('the files are gone', () => inputs(server).length === 0);
const picture = makePng({ width: 64, height: 64 });
const route = '/v1/images/upscale';

function form(fields) {
  const f = new FormData();
  for (const [name, value] of fields)
    f.append(name, Buffer.isBuffer(value) ? new Blob([value], { type: 'image/png' }) : value, ...(Buffer.isBuffer(value) ? ['x.png'] : []));
  return f;
}

async function upscale(server, fields, headers = {}) {
  const res = await fetch(`${server.base}${route}`, { method: 'POST', body: form(fields), headers });
  return { status: res.status, json: await res.json() };
}

test('a form and JSON: the worker gets the picture and what is asked for', async (t) => {
  const server = await startServer(t, { sd: { step_ms: 50, default_steps: 10 } });
  const answer = upscale(server, [['image', picture], ['upscaler', '4x-Ultra'], ['factor', '2.5'], ['prompt', 'unknown here']]);
  await until('the worker has it', () => sent(server).length);
  const job = sent(server)[0];
  assert.deepEqual(readFileSync(job.start.image), picture);
  assert.deepEqual(job.upscale, { upscaler: '4x-Ultra', factor: 2.5 });
  assert.deepEqual([job.prompt, job.seed, job.count, job.width, job.steps], ['', 0, 1, undefined, undefined]);
  const { status, json } = await answer;
  assert.equal(status, 200, JSON.stringify(json));
  assert.equal(json.model, '4x-Ultra');
  assert.ok(Buffer.from(json.data[0].b64_json, 'base64').subarray(1, 4).equals(Buffer.from('PNG')));
  assert.ok(existsSync(join(server.root, 'outputs', json.data[0].file)));
  const base64 = picture.toString('base64');
  for (const [body, wanted] of [[{}, { upscaler: 'lanczos', factor: 0 }], [{ upscaler: 'Nearest', scale: 3 }, { upscaler: 'nearest', factor: 3 }],
    [{ upscaler_1: 'sub/x2.pth', upscaling_resize: 2 }, { upscaler: 'sub/x2.pth', factor: 2 }]]) {
    const { status: code, json: whole } = await server.postJson(route, { image: base64, ...body });
    assert.equal(code, 200, JSON.stringify(whole));
    assert.deepEqual(sent(server).at(-1).upscale, wanted);
  }
  const url = await server.postJson(route, { image: base64, response_format: 'url' });
  assert.match(url.json.data[0].url, /^http:.*\/outputs\/img-/);
  await gone(server);
});

test('it is a job: tiles in the stream, its phase, the queue, the list', async (t) => {
  const server = await startServer(t, { sd: { step_ms: 20, default_steps: 5 } });
  const res = await fetch(`${server.base}${route}`, { method: 'POST', body: form([['image', picture], ['upscaler', 'x'], ['stream', 'true']]) });
  const events = [];
  const comments = [];
  const phases = new Set();
  for await (const e of sseEvents(res)) {
    if (e.comment) comments.push(e.comment);
    if (e.data) events.push(JSON.parse(e.data));
    phases.add((await server.getJson('/v1/progress')).json.phase);
  }
  assert.deepEqual(events.map((e) => e.type), ['image_upscale.completed']);
  assert.ok(comments.includes('tile 3/5'), comments.join());
  assert.ok(phases.has('upscaling'), [...phases].join());
  const { json } = await server.getJson('/v1/jobs');
  assert.deepEqual(json.data[0].request.upscale, { upscaler: 'x', factor: 0 });
  assert.equal(json.data[0].state, 'done');
});

test('no picture model is needed, and none is loaded for it', async (t) => {
  const server = await startServer(t, { args: ['--diffusion-model', 'none'], ready: ['llm'] });
  const drawn = await server.postJson('/v1/images/generations', { prompt: 'p' });
  assert.equal(drawn.status, 503);
  const { status, json } = await server.postJson(route, { image: picture.toString('base64') });
  assert.equal(status, 200, JSON.stringify(json));
  assert.equal(server.requests('sd', '/internal/load').length, 0);
});

test('a kept one survives the server; the same again is the same job', async (t) => {
  const server = await startServer(t, { sd: { step_ms: 100, default_steps: 100 } });
  const fields = [['image', picture], ['upscaler', 'x'], ['factor', '2']];
  const key = { 'Idempotency-Key': 'one' };
  const lost = upscale(server, fields, key).catch((e) => e);
  await until('the worker has it', () => sent(server).length);
  server.child.kill('SIGKILL');
  await lost;
  server.plan('sd', { step_ms: 1, default_steps: 4 });
  await server.startAgain();
  const { status, json } = await upscale(server, fields, key);
  assert.equal(status, 200, JSON.stringify(json));
  const [first, second] = sent(server).slice(-2);
  assert.deepEqual(first, second);
  const again = await upscale(server, fields, key);
  assert.deepEqual([again.status, again.json.model, again.json.size], [200, 'x', json.size], 'the answer of the one that has ended');
  assert.equal((await upscale(server, [...fields.slice(0, 2), ['factor', '3']], key)).status, 409);
  await gone(server);
});

test('a client that leaves ends it', async (t) => {
  const server = await startServer(t, { sd: { step_ms: 100, default_steps: 100 } });
  const leaving = new AbortController();
  const answer = fetch(`${server.base}${route}`, { method: 'POST', body: form([['image', picture]]), signal: leaving.signal });
  await until('the worker has it', () => sent(server).length);
  leaving.abort();
  await assert.rejects(answer);
  await until('the worker has stopped', () => server.records('sd').some((r) => r.event === 'job_cancelled'));
  await gone(server);
});

test('what there is to choose from', async (t) => {
  const server = await startServer(t);
  const names = async () => (await server.getJson('/v1/upscalers')).json.data.map((u) => u.name);
  assert.deepEqual(await names(), ['lanczos', 'nearest']);
  const folder = join(server.root, 'models/upscalers');
  mkdirSync(folder, { recursive: true });
  for (const name of ['b.v2.pth', 'a.safetensors', '.hidden.pth', 'notes.txt']) writeFileSync(join(folder, name), '');
  assert.deepEqual(await names(), ['lanczos', 'nearest', 'a', 'b.v2']);
  const start = server.records('sd').find((r) => r.event === 'start');
  assert.equal(start.options[start.options.indexOf('--upscaler-dir') + 1], folder);
});

test('bad input gets a sentence and leaves no file', async (t) => {
  const server = await startServer(t);
  const ok = ['image', picture];
  for (const [fields, param, text] of [
    [[['factor', '2']], 'image', /image is missing/], [[ok, ok], 'image', /more than one/], [[ok, ['mask', picture]], 'mask', /no meaning/],
    [[ok, ['factor', '9']], 'factor', /1 to 8/], [[ok, ['scale', '0.5']], 'scale', /1 to 8/], [[ok, ['factor', 'much']], 'factor', /number/],
    [[ok, ['upscaler', '../x']], 'upscaler', /not a path to somewhere else/], [[ok, ['upscaler', '/etc/passwd']], 'upscaler', /not a path/],
    [[ok, ['response_format', 'gif']], 'response_format', /b64_json, url/]]) {
    const { status, json } = await upscale(server, fields);
    assert.equal(status, 400, JSON.stringify(json));
    assert.equal(json.error.param, param, JSON.stringify(json));
    assert.match(json.error.message, text);
  }
  await gone(server);
  assert.equal(sent(server).length, 0);
});

test('how long one takes is learned apart from drawings: who waits behind one hears what ones like it took', async (t) => {
  const server = await startServer(t, { sd: { step_ms: 60, default_steps: 10 } });
  const fields = [['image', picture], ['upscaler', '4x-Ultra']];
  const behind = async () => {
    const before = sent(server).length, first = upscale(server, fields);
    await until('it runs', () => sent(server).length > before);
    const { json } = await server.postJson('/v1/jobs', { prompt: 'a boat' });
    const eta = (await server.getJson(`/v1/jobs/${json.id}`)).json.eta_ms;
    assert.equal((await first).status, 200);
    await until('the other is done, too', async () => (await server.getJson(`/v1/jobs/${json.id}`)).json.state === 'done');
    return eta;
  };
  assert.equal((await server.postJson('/v1/images/generations', { prompt: 'a boat' })).status, 200);
  assert.equal(await behind(), null, 'a drawing was measured, but nothing of this kind');
  const eta = await behind();
  assert.ok(eta > 100 && eta < 10000, `${eta} ms`);
});
