// A long context of which little is used, on a simulated machine with the real engines: the rest of its cache makes room for a
// picture, what the conversation holds stays, and text is answered while the picture is drawn.
import assert from 'node:assert/strict';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { until } from '../support/server.mjs';
import { startReal } from './real.mjs';

const MIB = 1024 ** 2;
const starter = fileURLToPath(new URL('../../models/starter/starter-writer.gguf', import.meta.url));
const picture = { prompt: 'a red circle on a blue background', size: '768x768', steps: 6 };
const messages = [{ role: 'user', content: Array.from({ length: 30 }, (_, i) => `boat ${i} at night on the sea`).join(', ') }];

// The starter says that it was trained for 1024 tokens, and llama-server gives a slot no more: this copy says 16384.
function withLongContext(t) {
  const folder = mkdtempSync(join(tmpdir(), 'mysti-trim-'));
  t.after(() => rmSync(folder, { recursive: true }));
  const bytes = readFileSync(starter);
  const key = 'llama.context_length';
  bytes.writeUInt32LE(16384, bytes.indexOf(key) + key.length + 4); // behind the type of the value
  writeFileSync(join(folder, 'long.gguf'), bytes);
  return join(folder, 'long.gguf');
}

const start = (t, model, ram) => startReal(t, { args: ['--simulate-device', `ram=${ram}`, '--memory-margin', '0',
  '--llm-model', model, '--llm-slots', '1', '--llm-context', '16384', '--memory-quiet', '1'] });
const memory = (server) => fetch(`${server.base}/v1/memory`).then((r) => r.json());

async function turn(server) {
  const res = await server.post('/v1/chat/completions', { messages, max_tokens: 8, temperature: 0 });
  assert.equal(res.status, 200);
  return (await res.json()).timings;
}

/** What all models take together. */
async function measure(t, model) {
  const server = await start(t, model, '64G');
  const { foreseen } = (await memory(server)).devices[0];
  await server.stop();
  return foreseen;
}

test('a picture is drawn in what the text model had left over, and the next turn reads nothing again', async (t) => {
  const model = withLongContext(t);
  // the picture takes 90 MiB, the cache of 16384 tokens 96
  const server = await start(t, model, await measure(t, model) + 45 * MIB);
  const first = await turn(server);
  const read = first.prompt_n + first.cache_n;
  await until('how much is used is known', async () => (await memory(server)).residents.some((r) => r.context?.kept < 4096));
  const drawn = server.post('/v1/images/generations', picture);
  await until('it was started anew', async () => (await memory(server)).residents.some((r) => r.context?.present < 4096));
  const beside = await turn(server);
  assert.equal((await server.worker('sd')).state, 'busy', 'the picture is still being drawn');
  assert.ok(beside.prompt_n <= Math.max(1, read * 0.01), `${beside.prompt_n} of ${read} tokens were read again`);
  assert.equal((await drawn).status, 200);
  await until('its context is back', async () => (await memory(server)).residents.some((r) => r.context?.present === 16384));
  assert.ok((await turn(server)).prompt_n <= Math.max(1, read * 0.01));
  assert.deepEqual((await memory(server)).moves.map((m) => m.move), ['trim', 'grow']);
});
