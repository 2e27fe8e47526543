// A thousand clients that leave in the middle of their answer: afterwards no descriptor, no half-closed socket and no
// work is left, in the server as in the worker.
import assert from 'node:assert/strict';
import { readFileSync, readdirSync } from 'node:fs';
import { connect } from 'node:net';
import test from 'node:test';
import { startServer, until } from '../support/server.mjs';

const CLIENTS = 1000;
const AT_ONCE = 20;
const descriptors = (pid) => readdirSync(`/proc/${pid}/fd`).length;

// Sockets in CLOSE_WAIT (state 08 of /proc/net/tcp) that have one of the ports at either end.
function closeWait(ports) {
  const wanted = ports.map((port) => port.toString(16).toUpperCase().padStart(4, '0'));
  return readFileSync('/proc/net/tcp', 'utf8').split('\n').slice(1).map((line) => line.trim().split(/\s+/))
    .filter(([, local, remote, state]) => state === '08' && wanted.some((p) => local.endsWith(`:${p}`) || remote.endsWith(`:${p}`))).length;
}

// Every second client leaves before the first token, the others after it.
function leaveEarly(server, i) {
  const body = JSON.stringify({ messages: [{ role: 'user', content: `${i}` }], stream: true });
  return new Promise((done) => {
    const socket = connect(server.port, '127.0.0.1', () => {
      socket.write(`POST /v1/chat/completions HTTP/1.1\r\nHost: a\r\nContent-Length: ${Buffer.byteLength(body)}\r\n\r\n${body}`);
      if (i % 2) setTimeout(() => socket.destroy(), 20);
    });
    socket.on('data', () => socket.destroy()).on('error', () => {}).on('close', done);
  });
}

test(`${CLIENTS} streams that are left`, async (t) => {
  const server = await startServer(t, { llm: { tokens: Array(1000).fill(' x'), token_ms: 200 } });
  await leaveEarly(server, 0);
  const worker = await until('idle', async () => {
    const now = await server.worker('llm');
    return !now.busy && now;
  });
  const before = [server.child.pid, worker.pid].map(descriptors);
  for (let i = 0; i < CLIENTS; i += AT_ONCE) {
    await Promise.all(Array.from({ length: AT_ONCE }, (_, k) => leaveEarly(server, i + k)));
    // the scripted worker is slower than the server; it must not fall so far behind that it is taken for hung
    await fetch(`http://127.0.0.1:${worker.port}/health`);
  }
  await until('the worker is idle', async () => !(await server.worker('llm')).busy);
  // fetch keeps a few connections of this test's own open, hence the small allowance
  await until('descriptors are back', () => [server.child.pid, worker.pid].map(descriptors).every((n, i) => n <= before[i] + 8));
  // a connection that was closed before the worker has accepted it waits in the kernel until it does
  await until('no socket waits to be closed', () => closeWait([server.port, worker.port]) === 0);
  assert.equal((await server.worker('llm')).pid, worker.pid, 'the worker has lived through it');
  const { status } = await server.postJson('/v1/chat/completions', { messages: [{ role: 'user', content: 'still there?' }] });
  assert.equal(status, 200);
});
