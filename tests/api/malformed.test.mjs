// Requests that are no HTTP, or are made to be read in two ways: each is refused by the server itself, on the text route
// and on the picture route, none reaches a worker, and the server goes on.
import assert from 'node:assert/strict';
import { connect } from 'node:net';
import test, { before } from 'node:test';
import { startServer } from '../support/server.mjs';

let server;
before(async (t) => (server = await startServer(t)));

const host = 'Host: localhost\r\n';
const smuggled = 'GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n';
const post = (path, head, body = '') => `POST ${path} HTTP/1.1\r\n${host}${head}\r\n${body}`;
const get = (line, head = host) => `${line}\r\n${head}\r\n`;

const broken = (path) => ({
  'length and chunks': post(path, 'Content-Length: 4\r\nTransfer-Encoding: chunked\r\n', `0\r\n\r\n${smuggled}`),
  'two lengths': post(path, 'Content-Length: 0\r\nContent-Length: 4\r\n', 'abcd'),
  'a list of lengths': post(path, 'Content-Length: 4, 4\r\n', 'abcd'),
  'a signed length': post(path, 'Content-Length: +4\r\n', 'abcd'),
  'a length in hex': post(path, 'Content-Length: 0x4\r\n', 'abcd'),
  'a length beyond all': post(path, 'Content-Length: 99999999999999999999999\r\n', 'abcd'),
  'a negative length': post(path, 'Content-Length: -1\r\n', 'abcd'),
  'a space before the colon': post(path, 'Content-Length : 4\r\n', 'abcd'),
  'an unknown coding': post(path, 'Transfer-Encoding: xchunked\r\n', `0\r\n\r\n${smuggled}`),
  'chunked is not the last coding': post(path, 'Transfer-Encoding: chunked, identity\r\n', `0\r\n\r\n${smuggled}`),
  'chunks in HTTP/1.0': `POST ${path} HTTP/1.0\r\n${host}Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n${smuggled}`,
  'a chunk size that overflows': post(path, 'Transfer-Encoding: chunked\r\n', 'fffffffffffffffff5\r\nabcde\r\n0\r\n\r\n'),
  'a chunk size in C': post(path, 'Transfer-Encoding: chunked\r\n', '0x5\r\nabcde\r\n0\r\n\r\n'),
  'chunks without CR': post(path, 'Transfer-Encoding: chunked\r\n', '5\nabcde\n0\n\n'),
  'a folded header': get(`GET ${path} HTTP/1.1`, `${host}X: a\r\n b\r\n`),
  'lines without CR': `GET ${path} HTTP/1.1\nHost: a\n\n`,
  'a CR in a value': get(`GET ${path} HTTP/1.1`, `${host}X: a\rY: b\r\n`),
  'a NUL in a value': get(`GET ${path} HTTP/1.1`, `${host}X: a\0b\r\n`),
  'a space in a name': get(`GET ${path} HTTP/1.1`, `${host}X Y: b\r\n`),
  'no colon': get(`GET ${path} HTTP/1.1`, `${host}justtext\r\n`),
  'no Host': get(`GET ${path} HTTP/1.1`, ''),
  'two Hosts': get(`GET ${path} HTTP/1.1`, `${host}Host: b\r\n`),
  'a space in the target': get(`GET ${path} q HTTP/1.1`),
  'a method in lower case': get(`get ${path} HTTP/1.1`),
  'CONNECT': get('CONNECT a:80 HTTP/1.1'),
  'HTTP/2.0': get(`GET ${path} HTTP/2.0`),
  'HTTP/0.9': `GET ${path}\r\n\r\n`,
  'TLS': '\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03' + '\0'.repeat(100),
  'a header of 100 KiB': get(`GET ${path} HTTP/1.1`, `${host}X: ${'a'.repeat(102400)}\r\n`),
});

// The status of the first answer; null when the connection ended without one.
function send(bytes) {
  return new Promise((done) => {
    let text = '';
    const socket = connect(server.port, '127.0.0.1', () => socket.write(bytes, 'latin1'));
    const end = () => {
      socket.destroy();
      const m = /HTTP\/1\.[01] (\d{3})/.exec(text);
      done(m ? Number(m[1]) : null);
    };
    socket.setTimeout(3000, end);
    socket.on('data', (d) => {
      text += d.toString('latin1');
      if (/HTTP\/1\.[01] \d{3}/.test(text)) end();
    }).on('close', end).on('error', end);
  });
}

for (const path of ['/v1/chat/completions', '/v1/images/generations']) {
  for (const [name, bytes] of Object.entries(broken(path))) {
    test(`${path}: ${name}`, async () => {
      const status = await send(bytes);
      assert.ok((status >= 400 && status < 500) || [501, 505].includes(status), `answered ${status}`);
    });
  }
}

test('none of them reached a worker, and the server works', async () => {
  assert.equal(server.requests('llm').length, 0);
  assert.deepEqual(server.requests('sd').map((r) => r.url).filter((url) => url !== '/internal/load'), []);
  assert.equal(server.exit, null);
  assert.equal((await server.postJson('/v1/images/generations', { prompt: 'a boat' })).status, 200);
});
