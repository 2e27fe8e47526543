// Pictures on the disk: when they cannot be saved, what was drawn before, and who may read what.
import assert from 'node:assert/strict';
import { chmodSync, existsSync, mkdirSync, readdirSync, rmSync, statSync, symlinkSync, utimesSync, writeFileSync } from 'node:fs';
import { request } from 'node:http';
import { join } from 'node:path';
import test, { before } from 'node:test';
import { makePng, readPng } from '../support/png.mjs';
import { sseEvents, startServer } from '../support/server.mjs';

const draw = (server, body) => server.postJson('/v1/images/generations', { prompt: 'a boat', ...body });

// The path exactly as written: fetch would tidy it up.
function rawGet(server, path) {
  return new Promise((done, fail) => {
    request({ port: server.port, path }, (res) => {
      let text = '';
      res.setEncoding('utf8').on('data', (d) => (text += d)).on('end', () => done({ status: res.statusCode, text }));
    }).on('error', fail).end();
  });
}

test('the output folder is made with the first picture', async (t) => {
  const server = await startServer(t, { prepare: (s) => rmSync(s.outputs, { recursive: true }) });
  assert.deepEqual((await server.getJson('/v1/history/images')).json, []);
  assert.equal(existsSync(server.outputs), false, 'asking makes no folder');
  const { json } = await draw(server, { response_format: 'url' });
  assert.equal((await fetch(json.data[0].url)).status, 200);
});

// Each way in which saving can fail: [name, what is prepared, how the server is started].
const troubles = [
  ['the output folder is a file', (s) => {
    rmSync(s.outputs, { recursive: true });
    writeFileSync(s.outputs, '');
  }],
  ['no permission to write', (s) => chmodSync(s.outputs, 0o555), { unprivileged: true }],
  // a limit on the size of files makes write() fail in the middle of a picture, as a full disk does
  ['no space for the whole picture', () => {}, { fileLimitKiB: 16, sd: { picture_bytes: 100_000 } }],
];

for (const [name, prepare, options] of troubles) {
  test(`${name}: said in the answer, base64 is delivered all the same, a URL is 507`, async (t) => {
    const server = await startServer(t, { prepare, ...options });
    const { status, json } = await draw(server);
    assert.equal(status, 200);
    assert.equal(json.data[0].file, null);
    readPng(Buffer.from(json.data[0].b64_json, 'base64'));
    assert.ok(json.warning.includes(server.outputs), json.warning);
    assert.match(json.warning, /--output-dir/);
    const url = await draw(server, { response_format: 'url' });
    assert.equal(url.status, 507);
    assert.equal(url.json.error.code, 'storage');
    assert.ok(url.json.error.message.includes(server.outputs));
    assert.equal(url.headers.get('x-should-retry'), 'false');
    const res = await server.post('/v1/images/generations', { prompt: 'a boat', stream: true });
    const events = [];
    for await (const event of sseEvents(res)) events.push(event);
    assert.ok(JSON.parse(events.find((e) => e.event).data).warning.includes(server.outputs));
    if (statSync(server.outputs).isDirectory()) assert.deepEqual(readdirSync(server.outputs), [], 'nothing half written is left');
    assert.equal((await server.getJson('/health')).status, 200);
  });
}

const text = 'a red boat, on a lake\nin the evening\nNegative prompt: people,\nrain\n'
  + 'Steps: 20, Sampler: DPM++ 2M, Schedule type: Karras, CFG scale: 7.5, Seed: 123, Size: 512x768, Model hash: abc, '
  + 'Model: "a, b", Version: v1.10.1';

test('history: newest first, with what the pictures say of themselves', async (t) => {
  const server = await startServer(t, { prepare: (s) => {
    const put = (name, bytes, seconds) => {
      writeFileSync(join(s.outputs, name), bytes);
      if (seconds) utimesSync(join(s.outputs, name), seconds, seconds);
    };
    put('img-1700000000000001-1.png', makePng({ width: 64, height: 64, parameters: text }));
    put('img-1700000000000002-2.png', makePng({ width: 64, height: 64, parameters: 'just a prompt: with a colon, 🦊' }));
    put('img-1700000000000003-3.png', makePng({ width: 64, height: 64 }));
    put('upscale-1.png', makePng({ width: 64, height: 64, parameters: 'old' }), 1_600_000_000);
    put('from elsewhere.png', makePng({ width: 64, height: 64, parameters: 'café' }), 1_650_000_000);
    put('broken.png', Buffer.from('no picture'), 1_640_000_000);
    put('truncated.png', makePng({ width: 64, height: 64, parameters: text }).subarray(0, 60), 1_630_000_000);
    put('notes.txt', 'no picture');
    put('.hidden.png', makePng({ width: 64, height: 64 }));
    mkdirSync(join(s.outputs, 'folder.png'));
    symlinkSync('/etc/passwd', join(s.outputs, 'link.png'));
  } });
  const { json: [newest] } = await draw(server, { prompt: 'new', seed: 9 }).then(() => server.getJson('/v1/history/images'));
  assert.equal(newest.params.prompt, 'new');
  assert.equal(newest.params.seed, 9);
  assert.ok(Math.abs(newest.created - Date.now() / 1000) < 60);
  const { json } = await server.getJson('/v1/history/images');
  assert.deepEqual(json.slice(1).map((p) => p.name), ['img-1700000000000003-3.png', 'img-1700000000000002-2.png',
    'img-1700000000000001-1.png', 'from elsewhere.png', 'broken.png', 'truncated.png', 'upscale-1.png']);
  const [, three, two, one, elsewhere, broken] = json;
  const { text: whole, ...params } = one.params;
  assert.equal(whole, text);
  assert.deepEqual(params, { prompt: 'a red boat, on a lake\nin the evening', negative_prompt: 'people,\nrain', steps: 20, sampler: 'DPM++ 2M',
    scheduler: 'Karras', cfg_scale: 7.5, seed: 123, width: 512, height: 768, model: 'a, b' });
  assert.equal(one.created, 1700000000);
  assert.equal(two.params.prompt, 'just a prompt: with a colon, 🦊');
  assert.deepEqual(three.params, {});
  assert.deepEqual(broken.params, {});
  assert.equal(elsewhere.params.prompt, 'café');
  assert.equal(elsewhere.url, '/outputs/from%20elsewhere.png');
  assert.equal((await server.get(elsewhere.url)).status, 200);
});

test('history comes in pages', async (t) => {
  const server = await startServer(t, { ready: [], prepare: (s) => {
    const png = makePng({ width: 8, height: 8 });
    for (let i = 100; i < 350; i++) writeFileSync(join(s.outputs, `img-1700000000000${i}-1.png`), png);
  } });
  const { json: first } = await server.getJson('/v1/history/images');
  assert.equal(first.length, 200);
  const { json: rest } = await server.getJson(`/v1/history/images?before=${first.at(-1).name}`);
  assert.equal(rest.length, 50);
  assert.equal(new Set([...first, ...rest].map((p) => p.name)).size, 250);
  assert.equal((await server.getJson('/v1/history/images?limit=3')).json.length, 3);
  for (const limit of ['0', 'x', '-1', '5000', '1.5']) {
    const { status, json } = await server.getJson(`/v1/history/images?limit=${limit}`);
    assert.equal(status, 400);
    assert.match(json.error.message, /limit must be a whole number from 1 to 1000/);
  }
  const gone = await server.getJson('/v1/history/images?before=no-such.png');
  assert.equal(gone.status, 400);
  assert.match(gone.json.error.message, /which is no picture of the history/);
});

let server;
before(async (t) => (server = await startServer(t, { prepare: (s) => {
  writeFileSync(join(s.outputs, 'a.png'), makePng({ width: 8, height: 8 }));
  writeFileSync(join(s.root, 'secret.txt'), 'TOP SECRET');
  symlinkSync(join(s.root, 'secret.txt'), join(s.outputs, 'link.png'));
  writeFileSync(join(s.outputs, '.env'), 'TOP SECRET');
} })));

test('nothing outside the output folder can be read, however it is written', async () => {
  const paths = ['/outputs/../secret.txt', '/outputs/..%2fsecret.txt', '/outputs/%2e%2e/secret.txt',
    '/outputs/%2e%2e%2fsecret.txt', '/outputs/....//secret.txt', '/outputs//etc/passwd', '/outputs/%2fetc%2fpasswd', '/outputs/..\\secret.txt',
    '/outputs/a.png/../../secret.txt', '/outputs/link.png', '/outputs/.env',
    '/outputs/%00', '/outputs/a.png%00.txt', '/outputs/', '/outputs', '/outputs/./a.png/..', '/outputs/%252e%252e/secret.txt',
    '/../secret.txt', '/..%2f..%2fsecret.txt', '/public/../../secret.txt'];
  for (const path of paths) {
    const { status, text: body } = await rawGet(server, path);
    assert.ok(status >= 400 && status < 500, `${path} -> ${status}`);
    assert.ok(!body.includes('TOP SECRET') && !body.includes('root:'), path);
  }
  assert.equal((await rawGet(server, '/outputs/a.png')).status, 200);
});

test('a picture that is not there is 404, with an error object', async () => {
  const { status, json } = await server.getJson('/outputs/img-0-0.png');
  assert.equal(status, 404);
  assert.equal(json.error.code, 'not_found');
});

test('a picture is fetched once: the second time nothing is sent', async () => {
  const first = await server.get('/outputs/a.png');
  const again = await server.get('/outputs/a.png', { headers: { 'If-None-Match': first.headers.get('etag') } });
  assert.equal(again.status, 304);
});
