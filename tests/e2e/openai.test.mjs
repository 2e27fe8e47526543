// The official client library against the real engines: what tests/api/openai.test.mjs shows with scripted workers
// holds with llama-server and the painter too.
import assert from 'node:assert/strict';
import test from 'node:test';
import OpenAI, { toFile } from 'openai';
import { readPng } from '../support/png.mjs';
import { startReal } from './real.mjs';

const messages = [{ role: 'user', content: 'a boat at night' }];

test('the official client talks, streams and draws', async (t) => {
  const server = await startReal(t);
  const client = new OpenAI({ baseURL: `${server.base}/v1`, apiKey: 'not-needed', maxRetries: 0 });

  await t.test('models are listed, and usable by their ids', async () => {
    const models = [];
    for await (const model of client.models.list()) models.push(model);
    const writer = models.find((m) => m.type === 'llm' && m.active);
    const painter = models.find((m) => m.type === 'diffusion' && m.active);
    const answer = await client.chat.completions.create({ model: writer.id, messages, max_tokens: 8 });
    assert.ok(answer.choices[0].message.content.length > 0);
    const drawn = await client.images.generate({ model: painter.id, prompt: 'a red circle', steps: 2 });
    assert.equal(drawn.model, painter.id);
  });

  await t.test('chat streams token by token, and the same text comes whole', async () => {
    const ask = { model: 'starter-writer', messages, temperature: 0, seed: 1, max_tokens: 60 };
    const stream = await client.chat.completions.create({ ...ask, stream: true, stream_options: { include_usage: true } });
    let text = '';
    let pieces = 0;
    let usage;
    for await (const chunk of stream) {
      text += chunk.choices[0]?.delta?.content ?? '';
      pieces += chunk.choices[0]?.delta?.content ? 1 : 0;
      usage = chunk.usage ?? usage;
    }
    assert.ok(pieces > 5, `${pieces} pieces: ${text}`);
    assert.ok(usage.completion_tokens >= pieces);
    const whole = await client.chat.completions.create(ask);
    assert.equal(whole.choices[0].message.content, text);
  });

  await t.test('the engine\'s own error passes through as the library\'s error', async () => {
    const long = [{ role: 'user', content: 'word '.repeat(200_000) }];
    await assert.rejects(client.chat.completions.create({ model: 'starter-writer', messages: long }),
      (e) => e instanceof OpenAI.APIError && e.status === 400 && e.message.length > 10);
  });

  await t.test('a stream that is left frees the text worker at once', async () => {
    const stream = await client.chat.completions.create({ model: 'starter-writer', messages, stream: true, max_tokens: 400, ignore_eos: true });
    for await (const chunk of stream) if (chunk.choices[0]?.delta?.content) break;
    const end = Date.now() + 5000;
    while ((await server.worker('llm')).busy && Date.now() < end) await new Promise((r) => setTimeout(r, 50));
    assert.equal((await server.worker('llm')).busy, false);
  });

  await t.test('pictures come as base64, as URL and as a stream, the same one for the same seed', async () => {
    const ask = { prompt: 'a red circle on a blue background', size: '128x128', steps: 4, seed: 11 };
    const base64 = (await client.images.generate(ask)).data[0].b64_json;
    const png = readPng(Buffer.from(base64, 'base64'));
    assert.deepEqual([png.width, png.height], [128, 128]);
    assert.match(png.texts.parameters, /^a red circle on a blue background\nSteps: 4, .*Seed: 11, Size: 128x128/);
    const image = await toFile(Buffer.from(base64, 'base64'), 'circle.png', { type: 'image/png' });
    const edited = (await client.images.edit({ ...ask, image, prompt: 'a blue circle', strength: 0.9 })).data[0].b64_json;
    assert.match(readPng(Buffer.from(edited, 'base64')).texts.parameters, /^a blue circle[^]*Denoising strength: 0.9/);
    assert.notEqual(edited, base64);
    const varied = await client.images.createVariation({ image: await toFile(Buffer.from(base64, 'base64'), 'circle.png', { type: 'image/png' }), n: 2, size: '256x256', response_format: 'b64_json' });
    assert.deepEqual(varied.data.map((p) => readPng(Buffer.from(p.b64_json, 'base64')).width), [256, 256]);
    const { url } = (await client.images.generate({ ...ask, response_format: 'url' })).data[0];
    assert.ok(Buffer.from(await (await fetch(url)).arrayBuffer()).equals(Buffer.from(base64, 'base64')));
    for await (const event of await client.images.generate({ ...ask, stream: true }))
      if (event.type === 'image_generation.completed') assert.equal(event.b64_json, base64);
  });

  await t.test('tokens there and back', async () => {
    const { tokens } = await (await server.post('/v1/tokenize', { text: 'a red boat' })).json();
    assert.ok(tokens.length >= 3);
    const { content } = await (await server.post('/v1/detokenize', { tokens })).json();
    assert.equal(content.trim(), 'a red boat');
  });
});
