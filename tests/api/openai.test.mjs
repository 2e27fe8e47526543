// The official client library, unchanged, with only its base URL set.
import assert from 'node:assert/strict';
import test from 'node:test';
import OpenAI from 'openai';
import { readPng } from '../support/png.mjs';
import { startServer, until } from '../support/server.mjs';

const messages = [{ role: 'user', content: 'hello' }];

const clientOf = (server, options) => new OpenAI({ baseURL: `${server.base}/v1`, apiKey: 'not-needed', ...options });

test('models', async (t) => {
  const client = clientOf(await startServer(t));
  const ids = [];
  for await (const model of client.models.list()) ids.push(model.id);
  assert.deepEqual(ids, ['starter-painter.safetensors', 'starter-writer.gguf']);
});

test('chat, whole and streamed, with and without a model', async (t) => {
  const client = clientOf(await startServer(t));
  const whole = await client.chat.completions.create({ model: 'starter-writer', messages });
  assert.equal(whole.choices[0].message.content, 'Hello from the fake writer.');
  const stream = await client.chat.completions.create({ model: 'starter-writer.gguf', messages, stream: true });
  let text = '';
  for await (const chunk of stream) text += chunk.choices[0]?.delta?.content ?? '';
  assert.equal(text, 'Hello from the fake writer.');
  const completion = await client.completions.create({ model: 'starter-writer', prompt: 'once' });
  assert.equal(completion.choices[0].text, 'Hello from the fake writer.');
});

test('comments while a model loads are invisible to it', async (t) => {
  const client = clientOf(await startServer(t, { llm: { load_ms: 1500 }, ready: [] }));
  const stream = await client.chat.completions.create({ model: '', messages, stream: true });
  let text = '';
  for await (const chunk of stream) text += chunk.choices[0]?.delta?.content ?? '';
  assert.equal(text, 'Hello from the fake writer.');
});

test('a failure in the middle of a stream is raised', async (t) => {
  const client = clientOf(await startServer(t, { llm: { chat: 'crash_mid' } }));
  const stream = await client.chat.completions.create({ model: 'starter-writer', messages, stream: true });
  let text = '';
  await assert.rejects(async () => {
    for await (const chunk of stream) text += chunk.choices[0]?.delta?.content ?? '';
  }, (e) => e instanceof OpenAI.APIError && e.message.length > 10);
  assert.equal(text, 'Hello from');
});

test('a stream that is left stops the worker', async (t) => {
  const server = await startServer(t, { llm: { tokens: Array(100).fill('x'), token_ms: 50 } });
  const stream = await clientOf(server).chat.completions.create({ model: 'starter-writer', messages, stream: true });
  for await (const chunk of stream) if (chunk) break;
  await until('the worker notices', () => server.records('llm').some((r) => r.event === 'client_gone'));
});

test('pictures, as base64, as URL, and streamed', async (t) => {
  const client = clientOf(await startServer(t));
  const one = await client.images.generate({ model: 'starter-painter', prompt: 'a boat', size: '256x256', n: 2 });
  assert.equal(one.data.length, 2);
  assert.equal(readPng(Buffer.from(one.data[0].b64_json, 'base64')).width, 256);
  const two = await client.images.generate({ prompt: 'a boat', response_format: 'url', steps: 3, seed: 7 });
  const png = readPng(Buffer.from(await (await fetch(two.data[0].url)).arrayBuffer()));
  assert.match(png.texts.parameters, /Steps: 3, .*Seed: 7/);
  const types = [];
  for await (const event of await client.images.generate({ prompt: 'a boat', stream: true, partial_images: 1 })) {
    types.push(event.type);
    if (event.type === 'image_generation.completed') assert.equal(readPng(Buffer.from(event.b64_json, 'base64')).width, 128);
  }
  assert.deepEqual(types, ['image_generation.partial_image', 'image_generation.completed']);
});

test('errors become the library\'s own kinds, with their sentences', async (t) => {
  const server = await startServer(t, { sd: { step_ms: 200, default_steps: 50 }, args: ['--queue-limit', '1'] });
  const client = clientOf(server, { maxRetries: 0 });
  await assert.rejects(client.chat.completions.create({ model: 'nothing-like-it', messages }),
    (e) => e instanceof OpenAI.NotFoundError && e.code === 'model_not_found' && e.param === 'model');
  await assert.rejects(client.images.generate({ prompt: 'x', size: '100x100' }),
    (e) => e instanceof OpenAI.BadRequestError && e.param === 'size' && /multiple of 8/.test(e.message));
  await assert.rejects(client.embeddings.create({ model: 'starter-writer', input: 'x' }), (e) => e.status === 400 && /was not made for embeddings/.test(e.message));
  const running = ['a', 'b'].map((prompt) => client.images.generate({ prompt }).catch((e) => e));
  while ((await server.getJson('/v1/progress')).json.waiting < 1) await new Promise((r) => setTimeout(r, 20));
  await assert.rejects(client.images.generate({ prompt: 'c' }), (e) => e instanceof OpenAI.RateLimitError && e.code === 'queue_full');
  await server.postJson('/v1/images/cancel', { all: true });
  for (const e of await Promise.all(running)) assert.equal(e.status, 499);
});

test('what must not come again is not sent again, although the library repeats by itself', async (t) => {
  const server = await startServer(t, { sd: { generate: 'fault_mid' } });
  await assert.rejects(clientOf(server).images.generate({ prompt: 'x' }), (e) => e.status === 502);
  assert.equal(server.requests('sd', '/internal/generate').length, 2, 'one job, run twice by the server itself');
});
