// What the picture worker hears about text that runs beside it.
import assert from 'node:assert/strict';
import test from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { startServer, until } from '../support/server.mjs';

const heard = (server) => server.requests('sd', '/internal/sharing').map((r) => JSON.parse(r.body));
const running = (policy) => ({ policy, text_running: true });
const quiet = (policy) => ({ policy, text_running: false });
const draw = (server) => server.postJson('/v1/images/generations', { prompt: 'a boat' });
const write = async (server) => (await server.post('/v1/completions', { prompt: 'x', stream: true })).text();
const option = (server, kind) => {
  const { options } = server.records(kind).find((r) => r.event === 'start');
  return options[options.indexOf('--sharing') + 1];
};

test('while both run it is told, when text has ended it is told again; both workers know the policy', async (t) => {
  const server = await startServer(t, { sd: { step_ms: 40, default_steps: 60 }, llm: { tokens: Array(15).fill(' x'), token_ms: 20 } });
  assert.deepEqual([option(server, 'sd'), option(server, 'llm')], ['text-first', 'text-first']);
  const picture = draw(server);
  await until('drawing', async () => (await server.getJson('/v1/progress')).json.step > 1);
  assert.deepEqual(heard(server), []);
  await write(server);
  await until('the end is told', () => heard(server).length === 2);
  assert.deepEqual(heard(server), [running('text-first'), quiet('text-first')]);
  assert.equal((await picture).status, 200);
});

test('text that runs when a picture begins is told, too; the policy is the one asked for', async (t) => {
  const server = await startServer(t, { args: ['--sharing', 'image-first'], sd: { step_ms: 30, default_steps: 10 }, llm: { tokens: Array(80).fill(' x'), token_ms: 20 } });
  assert.deepEqual([option(server, 'sd'), option(server, 'llm')], ['image-first', 'image-first']);
  assert.equal((await server.getJson('/v1/system')).json.sharing, 'image-first');
  const text = write(server);
  await until('text runs', async () => (await server.worker('llm')).state === 'busy');
  await draw(server);
  assert.deepEqual(heard(server), [running('image-first')]);
  await text;
});

test('a chat with short gaps is one message; text alone is none', async (t) => {
  const server = await startServer(t, { sd: { step_ms: 30, default_steps: 60 }, llm: { tokens: [' x'] } });
  for (let i = 0; i < 3; i++) await write(server);
  assert.deepEqual(heard(server), []);
  const picture = draw(server);
  await until('drawing', async () => (await server.getJson('/v1/progress')).json.step > 1);
  for (let i = 0; i < 5; i++) {
    await write(server);
    await sleep(20);
  }
  assert.deepEqual(heard(server).filter((m) => m.text_running).length, 1);
  await picture;
});

test('a worker that died while drawing is told again', async (t) => {
  const server = await startServer(t, { sd: { generate: ['crash_mid', 'ok'], step_ms: 30, default_steps: 12 }, llm: { tokens: Array(400).fill(' x'), token_ms: 20 } });
  const left = new AbortController();
  const text = server.post('/v1/completions', { prompt: 'x', stream: true }, { signal: left.signal }).then((r) => r.text()).catch(() => {});
  await until('text runs', async () => (await server.worker('llm')).state === 'busy');
  assert.equal((await draw(server)).status, 200);
  const pids = server.requests('sd', '/internal/sharing').map((r) => r.pid);
  assert.equal(new Set(pids).size, 2, 'each process was told once');
  assert.equal(pids.length, 2);
  left.abort();
  await text;
});

test('a policy that is changed while the server runs reaches the picture worker at once, the text worker with its next start', async (t) => {
  const server = await startServer(t);
  const { status, json } = await server.postJson('/v1/config', { sharing: 'image-first' });
  assert.deepEqual([status, json], [200, { now: ['sharing'], at_load: [] }]);
  await until('the picture worker is told', () => heard(server).length);
  assert.deepEqual(heard(server), [quiet('image-first')]);
  assert.equal((await server.getJson('/v1/system')).json.sharing, 'image-first');
  await server.logged(/Sharing: image-first from now on; the text worker takes its new place when it is restarted/);
  await server.postJson('/v1/workers/llm/restart');
  const last = server.records('llm').filter((r) => r.event === 'start').at(-1).options;
  assert.equal(last[last.indexOf('--sharing') + 1], 'image-first');
  await server.postJson('/v1/config', { sharing: 'fair' }).then((r) => assert.equal(r.status, 400));
});

test('a word that is none of the three is refused before anything starts', async () => {
  const { spawnSync } = await import('node:child_process');
  const { binFolder } = await import('../support/server.mjs');
  const { status, stderr } = spawnSync(`${binFolder}/mysti_server`, ['--sharing', 'fair'], { encoding: 'utf8' });
  assert.equal(status, 2);
  assert.match(stderr, /--sharing must be one of text-first\|equal\|image-first, not "fair"/);
});
