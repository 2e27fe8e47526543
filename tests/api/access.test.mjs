// Who may ask what: keys and their scopes, the name a request was sent to, pages of other sites.
import assert from 'node:assert/strict';
import { spawn, spawnSync } from 'node:child_process';
import { chmodSync, mkdirSync, mkdtempSync, readFileSync, statSync, writeFileSync } from 'node:fs';
import { request } from 'node:http';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { binFolder, freePort, startServer, until } from '../support/server.mjs';

const program = join(binFolder, 'mysti_server');
const infer = 'a-key-for-asking-1234';
const admin = 'a-key-for-everything-5678';
const bearer = (key) => ({ headers: { Authorization: `Bearer ${key}` } });
const chat = { messages: [{ role: 'user', content: 'hello' }] };

const withKeys = (t, options = {}) => startServer(t, {
  ready: [], ...options,
  prepare: (server) => {
    writeFileSync(join(server.home, 'keys'), `# name scope key\nclass infer ${infer}\n\nboss  admin\t${admin}\n`, { mode: 0o600 });
  },
});

async function ready(server) {
  await until('the workers are ready', async () => {
    const { workers } = await (await server.get('/health', bearer(infer))).json();
    return workers.sd.state === 'ready' && workers.llm.state === 'ready';
  });
}

// A request with any Host, which fetch does not allow.
function raw(server, { method = 'GET', path = '/v1/models', headers = {}, host }) {
  return new Promise((done, fail) => {
    const req = request({ host: '127.0.0.1', port: server.port, method, path, headers: { ...headers, ...(host && { Host: host }) } }, (res) => {
      let text = '';
      res.on('data', (d) => (text += d)).on('end', () => done({ status: res.statusCode, headers: res.headers, text }));
    });
    req.on('error', fail).end();
  });
}

test('without a key: the page, a word about health, and a sentence that says how to get one', async (t) => {
  const server = await withKeys(t);
  assert.deepEqual((await server.getJson('/health')).json, { status: 'ok' });
  assert.equal((await server.get('/')).status, 200);
  for (const [method, path] of [['GET', '/v1/models'], ['POST', '/v1/chat/completions'], ['GET', '/v1/workers'], ['POST', '/v1/llm/unload'], ['GET', '/outputs/x.png']]) {
    const res = await fetch(server.base + path, { method, body: method === 'POST' ? '{}' : undefined });
    assert.equal(res.status, 401, path);
    assert.match(res.headers.get('www-authenticate'), /Bearer/);
    const { error } = await res.json();
    assert.equal(error.code, 'unauthorized');
    assert.match(error.message, /mysti_server --new-key NAME (infer|admin)/);
  }
  for (const key of ['', 'wrong', infer.slice(0, -1), `${infer}x`, infer.toUpperCase(), `${infer}${infer}`])
    assert.equal((await server.get('/v1/models', bearer(key))).status, 401, key);
  assert.doesNotMatch(server.logText, new RegExp(`${infer}|${admin}`));
  await server.logged(/2 keys in .*keys: requests want one/);
});

test('a key of each scope, in every way that clients send one', async (t) => {
  const server = await withKeys(t);
  await ready(server);
  const basic = (user, key) => ({ headers: { Authorization: `Basic ${Buffer.from(`${user}:${key}`).toString('base64')}` } });
  const ways = [bearer(infer), { headers: { authorization: `bearer  ${infer}` } }, { headers: { 'x-api-key': infer } }, basic('any', infer), basic('', infer)];
  for (const way of ways) assert.equal((await server.get('/v1/models', way)).status, 200, JSON.stringify(way));
  assert.equal((await server.postJson('/v1/chat/completions', chat, bearer(infer))).status, 200);
  const refused = await server.get('/v1/workers', bearer(infer));
  assert.equal(refused.status, 403);
  assert.match((await refused.json()).error.message, /the key 'class' is for infer; this takes one for admin/);
  assert.equal((await server.post('/v1/llm/unload', {}, bearer(infer))).status, 403);
  assert.equal((await server.get('/v1/workers', bearer(admin))).status, 200);
  assert.equal((await server.get('/v1/system', bearer(admin))).status, 200);
});

test('what makes pictures and lists what can be asked for takes any key, a local name, and no foreign page', async (t) => {
  const server = await withKeys(t);
  const routes = [['GET', '/v1/loras'], ['GET', '/v1/upscalers'], ['GET', '/v1/vaes'], ['POST', '/v1/images/upscale'], ['POST', '/v1/images/variations'], ['POST', '/v1/images/edits']];
  for (const [method, path] of routes) {
    const ask = async (headers, host) => (await raw(server, { method, path, headers, host })).status;
    assert.equal(await ask({}), 401, path);
    assert.equal(await ask({ Cookie: `mysti_key=${infer}` }), method === 'GET' ? 200 : 401, path);
    for (const key of [infer, admin]) assert.equal(await ask(bearer(key).headers), method === 'GET' ? 200 : 400, path);
    assert.equal(await ask(bearer(admin).headers, 'evil.example'), 403, path);
    assert.equal(await ask({ ...bearer(admin).headers, Origin: 'https://evil.example' }), 403, path);
  }
  for (const [method, path] of [['GET', '/v1/memory'], ['POST', '/v1/memory/leave'], ['POST', '/v1/memory/plan'], ['GET', '/v1/events']])
    assert.equal((await raw(server, { method, path, headers: bearer(infer).headers })).status, 403, path);
});

test('the command line takes its key from the environment', async (t) => {
  const server = await withKeys(t);
  const models = (env) => spawnSync(join(binFolder, 'mysti'), ['models', '--server', server.base], { encoding: 'utf8', env: { ...process.env, ...env } });
  assert.equal(models({ MYSTI_API_KEY: infer }).status, 0);
  const refused = models({ MYSTI_API_KEY: '' });
  assert.equal(refused.status, 1);
  assert.match(refused.stderr, /wants a key/);
});

test('a cookie reads and changes nothing', async (t) => {
  const server = await withKeys(t);
  const cookie = (value) => ({ headers: { Cookie: value } });
  assert.equal((await server.get('/v1/models', cookie(`a=b; mysti_key=${infer}; c=d`))).status, 200);
  assert.equal((await server.get('/v1/models', cookie(`not_mysti_key=${infer}`))).status, 401);
  assert.equal((await server.post('/v1/images/generations', { prompt: 'x' }, cookie(`mysti_key=${infer}`))).status, 401);
});

test("a client's key stays here, and the workers get their own secret", async (t) => {
  const server = await withKeys(t);
  await ready(server);
  await server.postJson('/v1/chat/completions', chat, { headers: { ...bearer(infer).headers, 'x-api-key': infer, 'x-internal-token': 'mine', Cookie: `mysti_key=${infer}` } });
  const [sent] = server.requests('llm', '/v1/chat/completions');
  assert.ok(!JSON.stringify(sent).includes(infer));
  for (const name of ['x-api-key', 'x-internal-token', 'cookie']) assert.equal(sent.headers[name], undefined, name);
  assert.match(sent.headers.authorization, /^Bearer [0-9a-f]{64}$/);
});

test('a name that is not ours is refused: a page cannot make its name point here', async (t) => {
  const server = await startServer(t, { args: ['--allowed-host', 'mysti.example'] });
  for (const host of ['evil.example', 'evil.example:1234', 'localhost.evil.example', '127.0.0.1.evil.example', 'mysti.example.evil'])  {
    const { status, text } = await raw(server, { host });
    assert.equal(status, 403, host);
    assert.match(JSON.parse(text).error.message, /--allowed-host/);
  }
  for (const host of ['localhost', `localhost:${server.port}`, '127.0.0.1', '[::1]:80', '192.168.1.7', 'a.localhost', 'MYSTI.example:80'])
    assert.equal((await raw(server, { host })).status, 200, host);
});

test('a page of another site may be let in to ask, but never to administer', async (t) => {
  const server = await startServer(t, { args: ['--cors-origin', 'https://app.example'] });
  const from = (origin) => ({ Origin: origin });
  assert.equal((await raw(server, { headers: from('https://evil.example') })).status, 403);
  assert.equal((await raw(server, { headers: from('https://app.example') })).status, 200);
  const refused = await raw(server, { path: '/v1/workers', headers: from('https://app.example') });
  assert.equal(refused.status, 403);
  assert.match(JSON.parse(refused.text).error.message, /not administer/);
  assert.equal((await raw(server, { method: 'POST', path: '/v1/workers/sd/stop', headers: from('https://app.example') })).status, 403);
  assert.equal((await raw(server, { path: '/v1/workers', headers: from('http://localhost:5173') })).status, 200);
});

test('bound to the network it does not start without keys, and says how to make one', async (t) => {
  const home = mkdtempSync(join(tmpdir(), 'mysti-keys-'));
  const args = ['--home', home, '--listen-ip', '0.0.0.0', '--listen-port', String(await freePort()), '--sd-port', '0', '--llm-port', '0',
    '--llm-model', 'none', '--diffusion-model', 'none'];
  const bare = spawnSync(program, args, { encoding: 'utf8' });
  assert.equal(bare.status, 1);
  assert.match(bare.stdout + bare.stderr, /anybody in the network.*--new-key NAME infer/);

  const made = spawnSync(program, ['--home', home, '--new-key', 'laptop', 'admin'], { encoding: 'utf8' });
  assert.equal(made.status, 0, made.stderr);
  const secret = made.stdout.trim();
  assert.match(secret, /^[0-9a-f]{64}$/);
  assert.equal(statSync(join(home, 'keys')).mode & 0o777, 0o600);
  assert.match(readFileSync(join(home, 'keys'), 'utf8'), new RegExp(`^laptop admin ${secret}$`, 'm'));
  const again = spawnSync(program, ['--home', home, '--new-key', 'laptop', 'infer'], { encoding: 'utf8' });
  assert.equal(again.status, 1);
  assert.match(again.stderr, /has a key 'laptop' already/);
  assert.equal(spawnSync(program, ['--home', home, '--new-key', 'phone', 'root'], { encoding: 'utf8' }).status, 2);
  assert.equal(spawnSync(program, ['--home', home, '--new-key', 'phone'], { encoding: 'utf8' }).status, 2);

  const child = spawn(program, args, { stdio: 'ignore' });
  t.after(() => child.kill('SIGKILL'));
  const url = `http://127.0.0.1:${args[5]}`;
  await until('it serves', () => fetch(`${url}/health`).then((r) => r.ok, () => false));
  assert.equal((await fetch(`${url}/v1/models`)).status, 401);
  assert.equal((await fetch(`${url}/v1/models`, bearer(secret))).status, 200);
});

test('a file of keys that others may read, or that is wrong, is one sentence', async (t) => {
  const home = mkdtempSync(join(tmpdir(), 'mysti-keys-'));
  mkdirSync(home, { recursive: true });
  const path = join(home, 'keys');
  const start = () => spawnSync(program, ['--home', home, '--listen-port', '0', '--sd-port', '0', '--llm-port', '0'], { encoding: 'utf8' });
  const cases = [
    ['a infer 0123456789abcdef\n', 0o644, /chmod 600/], ['a infer\n', 0o600, /line 1: a line is NAME SCOPE KEY/],
    ['\na root 0123456789abcdef\n', 0o600, /line 2: there is no scope 'root'/], ['a infer short\n', 0o600, /16 to 256/],
    ['a infer 0123456789abcdef\na admin 0123456789abcdeg\n', 0o600, /'a' stands there twice/], ['ä infer 0123456789abcdef\n', 0o600, /letters, digits/],
  ];
  for (const [text, mode, says] of cases) {
    writeFileSync(path, text);
    chmodSync(path, mode);
    const { status, stdout, stderr } = start();
    assert.equal(status, 1, text);
    assert.match(stdout + stderr, says);
    assert.doesNotMatch(stdout + stderr, /0123456789abcdef/);
  }
});
