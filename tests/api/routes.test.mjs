// The routes as a whole: the table in the server, the description in docs/openapi.yaml and what a stranger meets who
// does not know either.
import assert from 'node:assert/strict';
import test, { before } from 'node:test';
import { openapi } from '../support/openapi.mjs';
import { startServer } from '../support/server.mjs';

let server;
before(async (t) => (server = await startServer(t)));

test('the table of routes and docs/openapi.yaml name the same routes', async () => {
  const { json } = await server.getJson('/v1');
  const served = json.routes.map((r) => `${r.method} ${r.path.replace('/outputs/*', '/outputs/{name}')}`).sort();
  const described = Object.entries(openapi.paths)
    .flatMap(([path, item]) => Object.keys(item).filter((m) => m !== 'parameters').map((m) => `${m.toUpperCase()} ${path}`)).sort();
  assert.deepEqual(served, described);
  for (const route of json.routes) assert.ok(route.help.length > 5, `${route.path} says what it does`);
});

test('an unknown path is told the nearest route', async () => {
  for (const [path, nearest] of [['/helth', '/health'], ['/v1/modles', '/v1/models'], ['/v1/chat/completion', '/v1/chat/completions'],
    ['/v1/image/generations', '/v1/images/generations']]) {
    const { status, json } = await server.getJson(path);
    assert.equal(status, 404);
    assert.match(json.error.message, new RegExp(`did you mean ${nearest}\\?$`));
    assert.equal(json.error.code, 'not_found');
  }
  const { json } = await server.getJson('/v1/zzzzzzzzzzzzzzzzzzzzzzzzzz');
  assert.match(json.error.message, /GET \/v1 lists every route$/);
});

test('a wrong method is refused with the right ones in Allow', async () => {
  const one = await server.getJson('/v1/models', { method: 'DELETE' });
  assert.equal(one.status, 405);
  assert.equal(one.headers.get('allow'), 'GET, HEAD');
  assert.match(one.json.error.message, /\/v1\/models takes GET, HEAD, not DELETE/);
  const two = await server.getJson('/v1/images/generations');
  assert.equal(two.status, 405);
  assert.equal(two.headers.get('allow'), 'POST');
});

test('HEAD is GET without a body; a slash at the end does not matter', async () => {
  const head = await server.get('/v1/models', { method: 'HEAD' });
  assert.equal(head.status, 200);
  assert.equal(await head.text(), '');
  assert.equal((await server.getJson('/v1/models/')).status, 200);
});

test('every answer carries a request id, the client\'s own when it is plain', async () => {
  assert.match((await server.get('/health')).headers.get('x-request-id'), /^req_/);
  const mine = await server.get('/health', { headers: { 'x-request-id': 'mine-1' } });
  assert.equal(mine.headers.get('x-request-id'), 'mine-1');
});

test('a page on this machine may call; its requested headers are echoed; a foreign page may not', async () => {
  const preflight = await server.get('/v1/chat/completions', { method: 'OPTIONS', headers: {
    Origin: 'http://localhost:5173', 'Access-Control-Request-Method': 'POST',
    'Access-Control-Request-Headers': 'content-type,x-stainless-lang' } });
  assert.equal(preflight.status, 204);
  assert.equal(preflight.headers.get('access-control-allow-origin'), 'http://localhost:5173');
  assert.match(preflight.headers.get('access-control-allow-headers'), /x-stainless-lang/);
  const foreign = await server.getJson('/v1/models', { headers: { Origin: 'https://evil.example' } });
  assert.equal(foreign.status, 403);
  const local = await server.get('/v1/models', { headers: { Origin: 'http://127.0.0.1:8080' } });
  assert.equal(local.headers.get('access-control-allow-origin'), 'http://127.0.0.1:8080');
});

test('the page is served at /', async () => {
  const res = await server.get('/');
  assert.equal(res.status, 200);
  assert.match(res.headers.get('content-type'), /text\/html/);
  assert.match(await res.text(), /<title>/);
  assert.equal((await server.get('/no-such-file.js')).status, 404);
});
