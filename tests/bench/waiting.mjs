#!/usr/bin/env node
// A thousand clients who wait: what they cost the server, whether they hear of it in time, how fast a place is given
// up when one leaves.
//
// usage: tests/bench/waiting.mjs [--clients 1000] [--seconds 10] [--bin build/bin]
//
// Scripted workers take the first requests and never end them, so everybody else waits: once with pictures, once with
// texts. Prints what docs/bench.md has: memory (RssAnon and swap) before and with all of them, the longest time
// between two signs of life to one client, the longest time until a client that left is out of the queue.
import { readFileSync } from 'node:fs';
import { connect } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';
import { parseArgs } from 'node:util';

const { values: options } = parseArgs({ options: {
  clients: { type: 'string', default: '1000' }, seconds: { type: 'string', default: '10' }, bin: { type: 'string' } } });
if (options.bin) process.env.MYSTI_BIN = options.bin;
const { startServer, until } = await import('../support/server.mjs');
const CLIENTS = Number(options.clients);
const LEAVING = 50;
const SERVED = 2; // the first ones do not wait: one picture, two slots for text

const memory = (pid) => {
  const status = readFileSync(`/proc/${pid}/status`, 'utf8');
  return ['RssAnon', 'VmSwap'].reduce((sum, name) => sum + Number(new RegExp(`^${name}:\\s+(\\d+)`, 'm').exec(status)?.[1] ?? 0), 0) / 1024;
};

// One streaming request on a socket of its own, which notes when something came.
function wait(port, path, body) {
  const text = JSON.stringify({ ...body, stream: true });
  const client = { socket: connect(port, '127.0.0.1'), heard: [] };
  client.socket.on('data', () => client.heard.push(performance.now())).on('error', () => {}).write(
    `POST ${path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: ${Buffer.byteLength(text)}\r\n\r\n${text}`);
  return client;
}

const longest = (list) => list.reduce((a, b) => Math.max(a, b), 0);
const gaps = (client, end) => [...client.heard, end].slice(1).map((at, i) => at - client.heard[i]);

// How many are in the queue, both kinds together.
async function inQueue(server) {
  const { images, text } = await (await server.get('/v1/queue')).json();
  return images.length + text.length;
}

async function measure(server, name, path, body) {
  const { pid } = server.child;
  const before = memory(pid);
  const clients = [];
  for (let i = 0; i < CLIENTS; i++) {
    clients.push(wait(server.port, path, body));
    if (i % 50 === 49) await sleep(10);
  }
  await until('everybody has heard something', () => clients.every((c) => c.heard.length > 0));
  for (const c of clients) c.heard = c.heard.slice(-1);
  await sleep(Number(options.seconds) * 1000);
  const end = performance.now();
  const grown = memory(pid) - before;
  const silences = clients.slice(SERVED).map((c) => longest(gaps(c, end)));
  const left = [];
  let there = await inQueue(server);
  for (const client of there >= LEAVING ? clients.splice(-LEAVING) : []) {
    const at = performance.now();
    client.socket.destroy();
    while (await inQueue(server) >= there && performance.now() - at < 5000);
    left.push(performance.now() - at);
    there--;
  }
  for (const c of clients) c.socket.destroy();
  console.log(`| ${name} | ${grown.toFixed(1)} | ${(longest(silences) / 1000).toFixed(2)} | ${left.length ? longest(left).toFixed(0) : '-'} |`);
}

// A server of its own for each, for memory that was used once stays with a process.
async function withServer(name, path, body) {
  const cleanUps = [];
  try {
    const server = await startServer({ after: (f) => cleanUps.push(f) }, {
      args: ['--queue-limit', String(2 * CLIENTS), '--client-queue-limit', String(2 * CLIENTS), '--text-queue-limit', String(2 * CLIENTS), '--max-connections', String(4 * CLIENTS)],
      sd: { step_ms: 3_600_000, default_steps: 2 }, llm: { chat: 'slow', first_ms: 3_600_000 } });
    await measure(server, name, path, body);
  } finally {
    for (const f of cleanUps) await f();
  }
}

console.log(`${CLIENTS} clients, ${options.seconds} s\n`);
console.log('| what they wait for | MB more | longest silence, s | longest until gone, ms |\n|---|---|---|---|');
await withServer('pictures', '/v1/images/generations', { prompt: 'a boat' });
await withServer('texts', '/v1/chat/completions', { messages: [{ role: 'user', content: 'hello' }] });
