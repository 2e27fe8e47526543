// What becomes of a picture when its worker dies, hangs or talks nonsense under it.
import assert from 'node:assert/strict';
import test from 'node:test';
import { readPng } from '../support/png.mjs';
import { sseEvents, startServer, until } from '../support/server.mjs';

const draw = (server, body) => server.postJson('/v1/images/generations', { prompt: 'a boat', ...body });
const jobs = (server) => server.requests('sd', '/internal/generate').map((r) => JSON.parse(r.body));

async function stillDraws(server) {
  const { status } = await draw(server);
  assert.equal(status, 200);
}

for (const how of ['crash', 'crash_mid']) {
  test(`the worker dies (${how}): the same picture is drawn again when it is back`, async (t) => {
    const server = await startServer(t, { sd: { generate: [how, 'ok'] } });
    const begun = Date.now();
    const { status, json } = await draw(server);
    assert.equal(status, 200);
    assert.ok(Date.now() - begun < 15000, `it took ${Date.now() - begun} ms`);
    const [one, two] = jobs(server);
    assert.deepEqual(one, two, 'the second run is the same job, seed included');
    assert.equal(json.data[0].seed, one.seed);
    await server.logged(/Detected SD Worker failure. Restarting.../);
    await until('restored', () => /SD model restored successfully\./.test(server.logText));
  });
}

test('after the first of three pictures, only the other two are drawn again', async (t) => {
  const server = await startServer(t, { sd: { generate: ['crash_second', 'ok'] } });
  const { status, json } = await draw(server, { n: 3, seed: 10 });
  assert.equal(status, 200);
  assert.deepEqual(jobs(server).map((j) => [j.count, j.seed]), [[3, 10], [2, 11]]);
  assert.deepEqual(json.data.map((d) => d.seed), [10, 11, 12]);
  for (const d of json.data) readPng(Buffer.from(d.b64_json, 'base64'));
});

test('a job that kills its worker twice ends with a sentence', async (t) => {
  const server = await startServer(t, { sd: { generate: ['fault_mid', 'fault_mid', 'ok'] } });
  const { status, json, headers } = await draw(server);
  assert.equal(status, 502);
  assert.equal(json.error.code, 'worker_failed');
  assert.match(json.error.message, /failed twice at this picture/);
  assert.equal(headers.get('x-should-retry'), 'false', 'or client libraries would send it two more times');
  assert.equal(jobs(server).length, 2);
  await server.ready(['sd']);
  await stillDraws(server);
});

test('as a stream, the same failure is an error event', async (t) => {
  const server = await startServer(t, { sd: { generate: ['fault_mid', 'fault_mid', 'ok'] } });
  const res = await server.post('/v1/images/generations', { prompt: 'a boat', stream: true });
  assert.equal(res.status, 200);
  const events = [];
  for await (const event of sseEvents(res)) events.push(event);
  const { error } = JSON.parse(events.filter((e) => e.data).at(-1).data);
  assert.equal(error.code, 'worker_failed');
  await server.ready(['sd']);
  await stillDraws(server);
});

for (const how of ['garbage', 'truncate', 'unauthorized']) {
  test(`the worker answers with ${how}: tried again, and never passed on`, async (t) => {
    const server = await startServer(t, { sd: { generate: [how, how, 'ok'] } });
    const { status, json } = await draw(server);
    assert.equal(status, 502);
    assert.match(json.error.message, /failed twice/);
    await until('the worker is back', async () => (await server.worker('sd')).state === 'ready');
    await stillDraws(server);
  });
}

test('an error in the middle comes with the engine\'s sentence and is not tried again', async (t) => {
  const server = await startServer(t, { sd: { generate: ['error_mid', 'ok'] } });
  const { status, json } = await draw(server);
  assert.equal(status, 500);
  assert.equal(json.error.message, 'the engine gave up');
  assert.equal(jobs(server).length, 1);
  await stillDraws(server);
});

test('a worker that says nothing any more is restarted; the job fails, the next one works', async (t) => {
  const server = await startServer(t, { sd: { generate: ['stall', 'ok'] }, args: ['--first-byte-timeout', '1'] });
  const pid = (await server.worker('sd')).pid;
  const { status, json } = await draw(server);
  assert.equal(status, 504);
  assert.match(json.error.message, /said nothing for \d+ s and was restarted/);
  await until('another process', async () => {
    const worker = await server.worker('sd');
    return worker.pid && worker.pid !== pid && worker.state === 'ready';
  });
  await stillDraws(server);
});

test('a worker that computes for longer than the limit without a word is let', async (t) => {
  const server = await startServer(t, { sd: { generate: 'think', think_ms: 3500 }, args: ['--first-byte-timeout', '1'] });
  const { pid } = await server.worker('sd');
  assert.equal((await draw(server)).status, 200);
  assert.equal((await server.worker('sd')).pid, pid);
});

test('a job that waits while its worker is killed from outside is drawn', async (t) => {
  const server = await startServer(t, { sd: { step_ms: 50, default_steps: 10 } });
  const answers = ['a', 'b'].map((prompt) => draw(server, { prompt }));
  await until('drawing', async () => (await server.getJson('/v1/progress')).json.step > 2);
  process.kill((await server.worker('sd')).pid, 'SIGKILL');
  for (const answer of await Promise.all(answers)) assert.equal(answer.status, 200);
});

test('text goes on while the picture worker dies', async (t) => {
  const server = await startServer(t, { sd: { generate: ['crash_mid', 'ok'] }, llm: { tokens: Array(20).fill(' x'), token_ms: 40 } });
  const text = server.post('/v1/chat/completions', { messages: [{ role: 'user', content: 'hi' }], stream: true }).then((r) => r.text());
  const { status } = await draw(server);
  assert.equal(status, 200);
  assert.match(await text, /data: \[DONE\]/);
});

test('a worker that dies after the last picture and before it said so has done its job', async (t) => {
  const server = await startServer(t, { sd: { generate: ['crash_end', 'ok'] } });
  const { status, json } = await server.postJson('/v1/images/generations', { prompt: 'a boat', seed: 5, n: 2 });
  assert.equal(status, 200, JSON.stringify(json));
  assert.equal(json.data.length, 2);
  await server.ready(['sd']);
  assert.equal(server.requests('sd', '/internal/generate').length, 1, 'nothing is missing, so nothing is drawn again');
  assert.equal((await server.postJson('/v1/images/generations', { prompt: 'another' })).status, 200);
});
