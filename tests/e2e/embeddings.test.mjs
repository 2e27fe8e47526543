// Vectors from the real llama-server, beside a writing model and beside the picture model. There is no embedding model
// among the starters, so the writer serves as one under another name: what a model that was made for writing gives as
// vectors is no good for searching, but it is deterministic, has a length, and goes through all the same doors.
import assert from 'node:assert/strict';
import { copyFileSync, mkdirSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { bin, startReal, streamChat } from './real.mjs';

const cosine = (a, b) => {
  const dot = (x, y) => x.reduce((sum, v, i) => sum + v * y[i], 0);
  return dot(a, b) / Math.sqrt(dot(a, a) * dot(b, b));
};

test('a model loaded for embeddings gives vectors while another one writes', async (t) => {
  const models = mkdtempSync(join(tmpdir(), 'mysti-e2e-models-'));
  t.after(() => rmSync(models, { recursive: true, force: true }));
  mkdirSync(models, { recursive: true });
  copyFileSync(join(bin, 'models/starter/starter-writer.gguf'), join(models, 'vectors.gguf'));
  const server = await startReal(t, { args: ['--model-dir', models] });
  const json = async (path, body) => {
    const res = await server.post(path, body);
    return { status: res.status, json: await res.json() };
  };
  const refused = await json('/v1/embeddings', { model: 'starter-writer', input: 'a boat' });
  assert.equal(refused.status, 400);
  assert.match(refused.json.error.message, /was not made for embeddings/);

  assert.equal((await json('/v1/llm/load', { model: 'vectors', task: 'embedding' })).status, 200);
  const [{ status, json: answer }, text] = await Promise.all([
    json('/v1/embeddings', { model: 'vectors', input: ['a boat at night', 'a boat at night', 'seven green apples'] }),
    streamChat(server, 'a boat at night')]);
  assert.equal(status, 200);
  assert.ok(text.length > 20);
  const [one, same, other] = answer.data.map((d) => d.embedding);
  assert.ok(one.length >= 64, `${one.length} numbers`);
  assert.ok(cosine(one, same) > 0.9999);
  assert.ok(cosine(one, other) < 0.999);
  const { json: packed } = await json('/v1/embeddings', { input: 'a boat at night', encoding_format: 'base64' });
  const bytes = Buffer.from(packed.data[0].embedding, 'base64');
  assert.ok(Math.abs(bytes.readFloatLE(0) - one[0]) < 1e-5);
  const chat = await json('/v1/chat/completions', { model: 'vectors', max_tokens: 8, messages: [{ role: 'user', content: 'a boat' }] });
  assert.equal(chat.status, 200, 'a model made for writing goes on writing');
});
