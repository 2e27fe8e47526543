// Vectors and ranks: which models give them, how they are found, and what the others say.
import assert from 'node:assert/strict';
import { join } from 'node:path';
import test from 'node:test';
import { writeGguf } from '../support/models.mjs';
import { startServer } from '../support/server.mjs';

function shelf(s) {
  writeGguf(join(s.models, 'minilm.gguf'), { architecture: 'bert' });
  writeGguf(join(s.models, 'embedder.gguf'), { architecture: 'qwen3', numbers: { 'qwen3.pooling_type': 3 } });
  writeGguf(join(s.models, 'ranker.gguf'), { architecture: 'bert', numbers: { 'bert.pooling_type': 4 } });
  writeGguf(join(s.models, 'writer.gguf'));
}

const optionsOf = (server, model) => server.records('llm').findLast((r) => r.event === 'start'
  && r.options[r.options.indexOf('--model') + 1].endsWith(model)).options;

test('a model made for embeddings is known by its file, loaded beside the writing one, and gives vectors', async (t) => {
  const server = await startServer(t, { prepare: shelf });
  for (const model of ['minilm', 'embedder.gguf']) {
    const { status, json } = await server.postJson('/v1/embeddings', { model, input: ['a', 'bcd'] });
    assert.equal(status, 200);
    assert.deepEqual(json.data.map((d) => d.embedding[0]), [1, 3]);
  }
  assert.equal(optionsOf(server, 'minilm.gguf').at(optionsOf(server, 'minilm.gguf').indexOf('--pooling') + 1), 'mean', 'its file does not say');
  assert.ok(!optionsOf(server, 'embedder.gguf').includes('--pooling'), 'its file says how');
  assert.ok(!optionsOf(server, 'starter-writer.gguf').includes('--task'));
  const { json } = await server.postJson('/v1/chat/completions', { messages: [{ role: 'user', content: 'hi' }] });
  assert.match(json.choices[0].message.content, /fake writer/, 'and the writing one is the default as before');
  const without = await server.postJson('/v1/embeddings', { input: 'xy' });
  assert.equal(without.json.data[0].embedding[0], 2, 'without a name the resident one of that kind answers');
});

test('a model that writes says that it was not made for it, unless it was loaded for it', async (t) => {
  const server = await startServer(t, { prepare: shelf });
  for (const model of ['starter-writer', 'writer']) {
    const { status, json } = await server.postJson('/v1/embeddings', { model, input: 'x' });
    assert.equal(status, 400);
    assert.match(json.error.message, /'(starter-)?writer.gguf' was not made for embeddings: .*"task": "embedding"/);
  }
  assert.match((await server.postJson('/v1/embeddings', { input: 'x' })).json.error.message, /no model for embeddings is loaded/);
  assert.match((await server.postJson('/v1/embeddings', {})).json.error.message, /input is missing/);
  assert.equal((await server.postJson('/v1/llm/load', { model: 'writer', task: 'embedding' })).status, 200);
  assert.equal((await server.postJson('/v1/embeddings', { model: 'writer', input: 'x' })).status, 200);
  assert.equal((await server.worker('llm')).present.task, 'embedding');
  const wrong = await server.postJson('/v1/llm/load', { model: 'writer', task: 'singing' });
  assert.match(wrong.json.error.message, /task must be one of auto, chat, embedding, rerank, not "singing"/);
});

test('ranks come from a model made for ranks', async (t) => {
  const server = await startServer(t, { prepare: shelf });
  const ask = { query: 'q', documents: ['a', 'bcd'] };
  assert.match((await server.postJson('/v1/rerank', { ...ask, model: 'minilm' })).json.error.message, /'minilm.gguf' was not made for reranking/);
  const { status, json } = await server.postJson('/v1/rerank', { ...ask, model: 'ranker' });
  assert.equal(status, 200);
  assert.deepEqual(json.results.map((r) => r.relevance_score), [1, 3]);
  assert.match((await server.postJson('/v1/rerank', { documents: [] })).json.error.message, /query is missing/);
});
