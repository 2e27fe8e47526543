// A conversation with the real llama-server, parked between two turns: the second one reads at most 1 % of what it has read
// already; also when the server ended meanwhile.
import assert from 'node:assert/strict';
import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { until } from '../support/server.mjs';
import { startReal } from './real.mjs';

const ARGS = ['--llm-slots', '1', '--llm-context', '1024'];
const story = Array.from({ length: 60 }, (_, i) => `boat ${i} at night on the sea`).join(', ');

const turn = async (server, messages) => {
  const res = await server.post('/v1/chat/completions', { messages, max_tokens: 8, temperature: 0 });
  assert.equal(res.status, 200);
  return res.json();
};

const tokensOf = async (server, prompt) => (await turn(server, prompt)).timings;

test('after park and unpark the next turn reads only what is new', async (t) => {
  const server = await startReal(t, { args: ARGS });
  const messages = [{ role: 'user', content: story }];
  const first = await turn(server, messages);
  const read = first.timings.prompt_n + first.timings.cache_n;
  assert.ok(read > 300, `${read} tokens`);
  const parked = await (await server.post('/v1/workers/llm/park', {})).json();
  assert.equal(parked.state, 'parked');
  assert.ok(parked.saved_context.tokens >= read, JSON.stringify(parked.saved_context));
  assert.equal(parked.pid, null);

  const again = await tokensOf(server, messages); // brings it back; the very same prompt
  assert.ok(again.prompt_n <= Math.max(1, read * 0.01), `${again.prompt_n} of ${read} tokens were read again`);
  assert.ok(again.cache_n >= read * 0.99);
  assert.match(server.log, /Restored the context of starter-writer.gguf/);
});

test('nor when the server was ended, or killed, while it was parked', async (t) => {
  const server = await startReal(t, { args: ARGS });
  const messages = [{ role: 'user', content: story }];
  const { timings } = await turn(server, messages);
  const read = timings.prompt_n + timings.cache_n;
  for (const signal of ['SIGTERM', 'SIGKILL']) {
    assert.equal((await (await server.post('/v1/workers/llm/park', {})).json()).state, 'parked');
    await until('it is recorded', () => existsSync(join(server.home, 'contexts.json')) && /kv"/.test(readFileSync(join(server.home, 'contexts.json'))));
    await until('as parked', () => /parked/.test(readFileSync(join(server.home, 'desired.json'))));
    await server.stop(signal);
    server.start(ARGS);
    await server.ready(['sd']);
    assert.equal((await server.worker('llm')).state, 'parked');
    const again = await tokensOf(server, messages);
    assert.ok(again.prompt_n <= Math.max(1, read * 0.01), `after ${signal} ${again.prompt_n} of ${read} tokens were read again`);
    assert.ok(again.cache_n >= read * 0.99);
  }
});
