// The configuration while the server runs: shown, changed by request, read again by SIGHUP, all without stopping a model.
import assert from 'node:assert/strict';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { startServer, until } from '../support/server.mjs';

const option = async (server, name) => (await server.getJson('/v1/config')).json.options.find((o) => o.name === name);
const pids = async (server) => [(await server.worker('sd')).pid, (await server.worker('llm')).pid];

const withFile = (t, text, options = {}) => startServer(t, {
  ...options,
  prepare: (server) => {
    writeFileSync(join(server.root, 'mysti.yaml'), text);
    server.extraArgs = ['--config', join(server.root, 'mysti.yaml')];
  },
});

test('every option is shown with its value and where that comes from', async (t) => {
  const server = await withFile(t, 'max-steps: 40\n', { env: { MYSTI_MAX_IMAGE_COUNT: '3' } });
  assert.deepEqual(await option(server, 'max-steps'), { name: 'max-steps', value: 40, source: 'file', applies: 'now', help: 'most denoise steps of one picture' });
  assert.equal((await option(server, 'max-image-count')).source, 'environment');
  assert.equal((await option(server, 'listen-port')).source, 'argument');
  assert.equal((await option(server, 'queue-limit')).source, 'default');
});

test('a change counts at once and stops nothing', async (t) => {
  const server = await startServer(t);
  const before = await pids(server);
  const draw = () => server.postJson('/v1/images/generations', { prompt: 'a', steps: 30 });
  assert.equal((await draw()).status, 200);
  const { status, json } = await server.postJson('/v1/config', { 'max-steps': 20, cors_origin: ['https://a.example'], 'llm-slots': 4, verbose: true });
  assert.equal(status, 200);
  assert.deepEqual(json.now.toSorted(), ['cors-origin', 'max-steps', 'verbose']);
  assert.deepEqual(json.at_load, ['llm-slots']);
  const refused = await draw();
  assert.equal(refused.status, 400);
  assert.match(refused.json.error.message, /20/);
  assert.equal((await server.get('/v1/models', { headers: { Origin: 'https://a.example' } })).status, 200);
  assert.equal((await option(server, 'max-steps')).source, 'runtime');
  await until('it logs more', () => /GET \/v1\/models -> 200/.test(server.logText));
  assert.deepEqual(await pids(server), before);
});

test('all of a change or nothing, with a sentence that names the option', async (t) => {
  const server = await startServer(t);
  const cases = [
    [{ 'max-steps': 20, 'max-image-count': 'many' }, /max-image-count/], [{ 'max-steps': 20, 'listen-port': 9 }, /listen-port cannot change while/],
    [{ 'max-steps': 20, 'max-step': 1 }, /did you mean max-steps/], [{ 'max-steps': 0 }, /from 1 to/], [{ 'max-steps': { a: 1 } }, /whole number/],
    [{ 'cors-origin': ['a,b'] }, /without commas/], [{ sharing: 'mine' }, /text-first/], [{ 'body-limit': '3 apples' }, /size/],
  ];
  for (const [body, says] of cases) {
    const { status, json } = await server.postJson('/v1/config', body);
    assert.equal(status, 400, JSON.stringify(body));
    assert.match(json.error.message, says);
  }
  assert.equal((await option(server, 'max-steps')).value, 150);
});

test('SIGHUP reads the file again; what was set by request stays; a bad file changes nothing', async (t) => {
  const server = await withFile(t, 'max-steps: 40\nqueue-limit: 5\n');
  const before = await pids(server);
  await server.postJson('/v1/config', { 'queue-limit': 7 });
  writeFileSync(join(server.root, 'mysti.yaml'), 'max-steps: 50\nqueue-limit: 9\nlisten-ip: 127.0.0.2\nllm-context: 512\n');
  server.child.kill('SIGHUP');
  await until('it was read', () => /Configuration read again/.test(server.logText));
  assert.equal((await option(server, 'max-steps')).value, 50);
  assert.equal((await option(server, 'queue-limit')).value, 7);
  assert.equal((await option(server, 'llm-context')).value, 512);
  assert.equal((await option(server, 'listen-ip')).value, '127.0.0.1');
  await server.logged(/Configuration: changed: max-steps\n/);
  await server.logged(/Configuration: counts with the next load: llm-context\n/);
  await server.logged(/Configuration: counts after a restart: listen-ip\n/);
  writeFileSync(join(server.root, 'mysti.yaml'), 'max-steps: 60\nmax-image-side: wide\n');
  server.child.kill('SIGHUP');
  await until('it was refused', () => /The configuration stays as it is: .*max-image-side/.test(server.logText));
  assert.equal((await option(server, 'max-steps')).value, 50);
  assert.deepEqual(await pids(server), before);
});

test('SIGHUP takes keys away and brings new ones', async (t) => {
  const [old, fresh] = ['an-old-key-that-goes', 'a-new-key-that-comes'];
  const server = await startServer(t, {
    ready: [],
    prepare: (s) => writeFileSync(join(s.home, 'keys'), `a admin ${old}\n`, { mode: 0o600 }),
  });
  const status = async (key) => (await server.get('/v1/config', { headers: { Authorization: `Bearer ${key}` } })).status;
  assert.deepEqual([await status(old), await status(fresh)], [200, 401]);
  writeFileSync(join(server.home, 'keys'), `b admin ${fresh}\n`);
  server.child.kill('SIGHUP');
  await until('the new key counts', async () => (await status(fresh)) === 200);
  assert.equal(await status(old), 401);
  writeFileSync(join(server.home, 'keys'), '# nobody\n');
  server.child.kill('SIGHUP');
  await until('it was refused', () => /no key is left/.test(server.logText));
  assert.equal(await status(fresh), 200);
});
