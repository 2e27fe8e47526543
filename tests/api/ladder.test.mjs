// Models that share a memory which is too small for all of them: who gives way, what is said about it, and the way back.
// The machine is simulated; the workers are scripted.
import assert from 'node:assert/strict';
import { join } from 'node:path';
import test from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { checkSchema } from '../support/openapi.mjs';
import { writeGguf, writeSafetensors } from '../support/models.mjs';
import { makePng } from '../support/png.mjs';
import { sseEvents, startServer, until } from '../support/server.mjs';

const GIB = 1024 ** 3;
const messages = [{ role: 'user', content: 'hello' }];

function shelf(server) {
  for (const name of ['a.gguf', 'b.gguf', 'c.gguf']) writeGguf(join(server.models, name), { bytes: 2 * GIB });
  writeGguf(join(server.models, 'huge.gguf'), { bytes: 20 * GIB });
}

const start = (t, ram, more = {}) => startServer(t, { prepare: shelf, ...more,
  args: ['--simulate-device', `ram=${ram}`, '--memory-margin', '0', '--llm-resident', '8', ...(more.args ?? [])] });

async function load(server, model, more = {}) {
  const { status, json } = await server.postJson('/v1/llm/load', { model, ...more });
  assert.equal(status, 200, JSON.stringify(json));
}

const memory = async (server) => (await server.getJson('/v1/memory')).json;

async function states(server) {
  const { json } = await server.getJson('/v1/workers');
  return Object.fromEntries(Object.values(json).filter((w) => w.wanted).map((w) => [w.wanted.split('.')[0], w.state]));
}

const chat = (server, model) => server.postJson('/v1/chat/completions', { messages, model });
const draw = (server) => server.postJson('/v1/images/generations', { prompt: 'a boat' });

test('the one used least recently is parked for one more, with numbers and a reason; a request brings it back', async (t) => {
  const server = await start(t, '5G');
  await load(server, 'a.gguf');
  await load(server, 'b.gguf');
  assert.equal((await chat(server, 'a')).status, 200);
  await load(server, 'c.gguf');
  assert.deepEqual(await states(server), { 'starter-writer': 'ready', 'starter-painter': 'ready', a: 'ready', b: 'parked', c: 'ready' });
  const now = await memory(server);
  checkSchema('Memory', now);
  const [move] = now.moves;
  assert.equal(now.moves.length, 1, 'the small starter is not asked, it would not help');
  assert.equal(move.move, 'park');
  assert.equal(move.of, 'b.gguf');
  assert.ok(move.bytes > 2 * GIB && move.bytes < 2.1 * GIB);
  assert.match(move.reason, /b.gguf is parked and gives back 2.0\d GiB on ram, because c.gguf needs 2.0\d GiB there and 0.9\d GiB are free/);
  await server.logged(/\[Memory\] b.gguf is parked/);
  assert.equal((await chat(server, 'b')).status, 200);
  const after = await states(server);
  assert.equal(after.b, 'ready');
  assert.equal(Object.values(after).filter((s) => s === 'parked').length, 1);
});

test('a picture has text models parked, those who ask meanwhile wait and see why, and are answered afterwards', async (t) => {
  const server = await start(t, '3G', { sd: { needs_bytes: 2 * GIB, step_ms: 200 } });
  await load(server, 'a.gguf');
  const events = await server.get('/v1/events?types=move');
  const picture = draw(server);
  for await (const { event, data } of sseEvents(events)) {
    if (event !== 'move') continue;
    const move = JSON.parse(data);
    checkSchema('Move', move);
    assert.match(move.reason, /because the picture needs 2.00 GiB there/);
    break;
  }
  await until('it is parked', async () => (await states(server)).a === 'parked');
  const res = await server.post('/v1/chat/completions', { messages, model: 'a', stream: true });
  let seen = '';
  for await (const { comment, data } of sseEvents(res)) seen += `${comment ?? data}\n`;
  assert.match(seen, /queue position=1 a.gguf parked: the picture needs 2.00 GiB/);
  assert.match(seen, /Hello/);
  assert.equal((await picture).status, 200);
});

test('what gave way comes back by itself when nothing worked for a while', async (t) => {
  const server = await start(t, '3G', { sd: { needs_bytes: 2 * GIB }, args: ['--memory-quiet', '3'] });
  await load(server, 'a.gguf');
  assert.equal((await draw(server)).status, 200);
  const asked = Date.now();
  assert.equal((await states(server)).a, 'parked');
  await until('it is back', async () => (await states(server)).a === 'ready');
  assert.ok(Date.now() - asked > 2000, 'not at once: another picture may follow');
  assert.deepEqual((await memory(server)).moves.map((m) => m.move), ['park', 'unpark']);
});

test('a text model has the picture model parked, and the next picture brings it back', async (t) => {
  const server = await start(t, '3G', { sd: { resident_bytes: 1.5 * GIB } });
  await load(server, 'a.gguf');
  assert.equal((await states(server))['starter-painter'], 'parked');
  assert.equal((await draw(server)).status, 200);
  const after = await states(server);
  assert.equal(after['starter-painter'], 'ready');
});

test('a picture worker that dies comes back into its own room: nobody gives way for it', async (t) => {
  const server = await start(t, '5G', { sd: { resident_bytes: 2 * GIB },
    prepare: (s) => (shelf(s), writeSafetensors(join(s.models, 'p.safetensors'), { bytes: 2 * GIB })) });
  await load(server, 'a.gguf');
  await server.postJson('/v1/models/unload', {});
  assert.equal((await server.postJson('/v1/models/load', { model: 'p.safetensors' })).status, 200);
  process.kill((await server.worker('sd')).pid, 'SIGKILL');
  await until('it is back', async () => { const w = await server.worker('sd'); return w.restarts === 1 && w.model === 'p.safetensors'; });
  assert.deepEqual((await memory(server)).moves, []);
  assert.equal((await states(server)).a, 'ready');
});

test('what is pinned stays: refused with the numbers and the way out, and nobody gave way for nothing', async (t) => {
  const server = await start(t, '5G');
  await load(server, 'a.gguf');
  await load(server, 'b.gguf');
  for (const name of ['llm', 'llm-3']) assert.equal((await server.postJson(`/v1/workers/${name}/pin`)).status, 200);
  const refused = await server.postJson('/v1/llm/load', { model: 'c.gguf' });
  assert.equal(refused.status, 503);
  assert.equal(refused.json.error.code, 'out_of_memory');
  assert.match(refused.json.error.message, /c.gguf needs 2.0\d GiB on ram; 0.9\d of 5.00 GiB are free .* unload or unpin a model, or ask for less/);
  assert.deepEqual((await memory(server)).moves, []);
  const residents = (await memory(server)).residents.filter((r) => r.pinned);
  assert.deepEqual(residents.map((r) => [r.may_give_way, r.why_not]), [[false, 'it is pinned'], [false, 'it is pinned']]);
});

test('a model that is larger than the memory, alone in it, is started all the same: its weights are pages of its file', async (t) => {
  const server = await start(t, '3G');
  await server.postJson('/v1/llm/unload', {});
  await server.postJson('/v1/models/unload', {});
  await load(server, 'huge.gguf');
  await server.logged(/huge.gguf needs 20.\d\d GiB on ram; .* started all the same/);
});

test('policy manual: nothing gives way by itself, and that is said', async (t) => {
  const server = await start(t, '3G', { args: ['--memory-policy', 'manual'] });
  await load(server, 'a.gguf');
  const refused = await server.postJson('/v1/llm/load', { model: 'b.gguf' });
  assert.equal(refused.status, 503);
  assert.match(refused.json.error.message, /the memory policy is manual, so nothing gives way by itself; park or unload a model/);
  assert.equal((await server.postJson('/v1/workers/llm/park')).status, 200);
  await load(server, 'b.gguf');
});

test('policy ask: who needs room waits for leave, and is told yes or no', async (t) => {
  const server = await start(t, '3G', { args: ['--memory-policy', 'ask'] });
  await load(server, 'a.gguf');
  const question = () => until('it asks', async () => (await memory(server)).questions[0]);
  const first = server.postJson('/v1/llm/load', { model: 'b.gguf' });
  const asked = await question();
  assert.equal(asked.for, 'b.gguf');
  assert.deepEqual(asked.moves.map((m) => [m.move, m.worker]), [['park', 'llm'], ['fits', null]]);
  assert.equal((await states(server)).b, 'waiting');
  assert.equal((await server.postJson('/v1/memory/leave', { id: asked.id, leave: false })).status, 200);
  const refused = await first;
  assert.equal(refused.status, 503);
  assert.match(refused.json.error.message, /leave was refused/);
  assert.equal((await states(server)).a, 'ready');

  const second = server.postJson('/v1/llm/load', { model: 'b.gguf' });
  assert.equal((await server.postJson('/v1/memory/leave', { id: (await question()).id })).status, 200);
  assert.equal((await second).status, 200);
  assert.equal((await states(server)).a, 'parked');
  assert.equal((await server.postJson('/v1/memory/leave', { id: 99 })).status, 404);
});

test('names are told as they are, not their beginnings', async (t) => {
  const name = 'Meta-Llama-3.1-8B-Instruct-Q4_K_M-imatrix.gguf';
  const server = await start(t, '3G', { prepare: (s) => (shelf(s), writeGguf(join(s.models, name), { bytes: 2 * GIB })) });
  await load(server, name);
  await load(server, 'b.gguf');
  const [move] = (await memory(server)).moves;
  assert.equal(move.of, name);
  assert.match(move.reason, /^Meta-Llama-3.1-8B-Instruct-Q4_K_M-imatrix.gguf is parked and .* are free$/);
});

test('what would happen is told without doing it', async (t) => {
  const server = await start(t, '3G');
  await load(server, 'a.gguf');
  const { status, json } = await server.postJson('/v1/memory/plan', { model: 'b' });
  assert.equal(status, 200);
  assert.equal(json.admits, true);
  assert.deepEqual(json.moves.map((m) => m.move), ['park', 'fits']);
  assert.equal(json.predicted.weights, 2 * GIB);
  const huge = await server.postJson('/v1/memory/plan', { model: 'huge' });
  assert.equal(huge.json.admits, false);
  assert.deepEqual(huge.json.moves.map((m) => m.move), ['refuse']);
  const picture = await server.postJson('/v1/memory/plan', { picture_bytes: GIB / 2 });
  assert.deepEqual(picture.json.moves.map((m) => m.move), ['fits']);
  assert.equal((await states(server)).a, 'ready');
  assert.equal((await server.postJson('/v1/memory/plan', {})).status, 400);
  assert.equal((await server.postJson('/v1/memory/plan', { model: 'nobody' })).status, 404);
});

test('a picture that never fits fails with the numbers', async (t) => {
  const server = await start(t, '3G', { sd: { needs_bytes: 9 * GIB } });
  const { status, json } = await draw(server);
  assert.equal(status, 503);
  assert.match(json.error.message, /the picture needs 9.00 GiB on ram; 2.9\d of 3.00 GiB are free/);
});

const drawnBy = (server) => JSON.parse(server.requests('sd', '/internal/generate')[0].body);

test('a picture that does not fit at once is drawn in pieces, in the room that there is, after others gave way', async (t) => {
  const server = await start(t, '4G', { sd: { needs_bytes: 9 * GIB, low_bytes: 2 * GIB } });
  await load(server, 'a.gguf');
  const { status } = await draw(server);
  assert.equal(status, 200);
  const drawn = drawnBy(server);
  assert.ok(drawn.budget_bytes > 2 * GIB && drawn.budget_bytes < 4 * GIB, `${drawn.budget_bytes}`);
  const { moves } = await memory(server);
  checkSchema('Memory', await memory(server));
  assert.deepEqual(moves.map((m) => m.move), ['park', 'low'], JSON.stringify(moves));
  assert.match(moves.at(-1).reason, /the picture is drawn in pieces: it would take 9.00 GiB on ram at once, and [23].\d\d GiB are free for it/);
  await server.logged(/\[Memory\] the picture is drawn in pieces/);
});

test('a picture that fits is drawn at once, and nobody speaks of pieces; one that fits in no pieces is refused', async (t) => {
  const server = await start(t, '4G', { sd: { needs_bytes: 2 * GIB, low_bytes: GIB } });
  assert.equal((await draw(server)).status, 200);
  assert.equal(drawnBy(server).budget_bytes, undefined);
  assert.deepEqual((await memory(server)).moves, []);
  const small = await start(t, '1G', { sd: { needs_bytes: 9 * GIB, low_bytes: 2 * GIB } });
  const { status, json } = await draw(small);
  assert.equal(status, 503);
  assert.match(json.error.message, /the picture needs 9.00 GiB on ram, at least 2.00 GiB in pieces; 0.9\d of 1.00 GiB are free/);
});

test('the worker is busy, killed, or fails by itself at either question about memory: the picture is drawn all the same', async (t) => {
  for (const estimate of [['busy', 'ok'], ['ok', 'busy', 'ok'], ['ok', 'crash', 'ok'], ['ok', 'fault', 'ok']]) {
    const server = await start(t, '4G', { sd: { needs_bytes: 9 * GIB, low_bytes: 2 * GIB, estimate } });
    const { status, json } = await draw(server);
    assert.equal(status, 200, `${estimate}: ${JSON.stringify(json)}`);
    assert.ok(drawnBy(server).budget_bytes > 2 * GIB, `${estimate}`);
    assert.deepEqual((await memory(server)).moves.map((m) => m.move), ['low'], `${estimate}`);
  }
});

test('a client that leaves during either question leaves nothing behind', async (t) => {
  for (const before of [[], ['ok']]) {
    const server = await start(t, '4G', { sd: { needs_bytes: 9 * GIB, low_bytes: 2 * GIB, estimate: [...before, 'slow', 'ok'] } });
    const leaving = new AbortController();
    const left = server.post('/v1/images/generations', { prompt: 'a boat' }, { signal: leaving.signal });
    await until('it is asked', () => server.requests('sd', '/internal/estimate').length === before.length + 1);
    leaving.abort();
    await assert.rejects(left);
    assert.equal((await draw(server)).status, 200);
    assert.deepEqual((await server.getJson('/v1/jobs')).json.data.map((j) => j.state), ['done', 'cancelled']);
    assert.equal(server.requests('sd', '/internal/generate').length, 1);
  }
});

test('a picture that waits for leave: cancelled, its question is gone; refused, it is drawn in pieces if that takes from nobody', async (t) => {
  const server = await start(t, '4G', { args: ['--memory-policy', 'ask'], sd: { needs_bytes: 3 * GIB, low_bytes: GIB } });
  await load(server, 'a.gguf');
  const question = () => until('it asks', async () => (await memory(server)).questions[0]);
  const { json: job } = await server.postJson('/v1/jobs', { prompt: 'a boat' });
  const { id } = await question();
  assert.equal((await server.getJson(`/v1/jobs/${job.id}`, { method: 'DELETE' })).status, 200);
  assert.deepEqual((await memory(server)).questions, []);
  assert.equal((await server.postJson('/v1/memory/leave', { id })).status, 404);

  const picture = draw(server);
  assert.equal((await server.postJson('/v1/memory/leave', { id: (await question()).id, leave: false })).status, 200);
  assert.equal((await picture).status, 200);
  assert.ok(drawnBy(server).budget_bytes < 3 * GIB);
  assert.deepEqual((await memory(server)).moves.map((m) => m.move).at(-1), 'low');
  assert.equal((await states(server)).a, 'ready');
});

test('a picture that is made larger asks for room, too: text gives way, and what never fits is refused with the numbers', async (t) => {
  const server = await start(t, '3G', { sd: { needs_bytes: 2 * GIB } });
  await load(server, 'a.gguf');
  const image = makePng({ width: 64, height: 64 }).toString('base64');
  assert.equal((await server.postJson('/v1/images/upscale', { image })).status, 200);
  assert.deepEqual((await memory(server)).moves.map((m) => m.move), ['park']);
  server.plan('sd', { needs_bytes: 9 * GIB });
  const { status, json } = await server.postJson('/v1/images/upscale', { image });
  assert.equal(status, 503);
  assert.match(json.error.message, /the picture needs 9.00 GiB on ram; 2.9\d of 3.00 GiB are free/);
});

const layered = (server) => {
  for (const name of ['a.gguf', 'b.gguf'])
    writeGguf(join(server.models, name), { bytes: 2 * GIB, numbers: { 'llama.block_count': 8 },
      tensors: ['token_embd.weight', ...Array.from({ length: 8 }, (_, i) => `blk.${i}.ffn_up.weight`)] });
};
const layersOf = (server, model) => server.records('llm').filter((r) => r.event === 'start' && r.options.join(' ').includes(model))
  .map((r) => r.options[r.options.indexOf('--gpu-layers') + 1]);

test('a card that is too small: the model before moves layers to memory, as many as must go, and gets them back', async (t) => {
  const server = await startServer(t, { prepare: layered,
    args: ['--simulate-device', 'card=3G', '--simulate-device', 'ram=64G', '--memory-margin', '0', '--memory-quiet', '1'] });
  await server.postJson('/v1/llm/unload', {});
  await load(server, 'a.gguf', { gpu_layers: 8 });
  await load(server, 'b.gguf', { gpu_layers: 8 });
  await until('a has started again with fewer', () => layersOf(server, 'a.gguf').length === 2);
  assert.deepEqual(layersOf(server, 'a.gguf'), ['8', '5']);
  assert.deepEqual(layersOf(server, 'b.gguf'), ['8']);
  const residents = Object.fromEntries((await memory(server)).residents.map((r) => [r.model, r]));
  assert.equal(residents['a.gguf'].device, 'card');
  assert.deepEqual([residents['a.gguf'].layers.wished, residents['a.gguf'].layers.present], [8, 5]);
  await server.postJson('/v1/llm/unload', { model: 'b' });
  await until('its layers are back', () => layersOf(server, 'a.gguf').at(-1) === '8');
  assert.deepEqual((await memory(server)).moves.map((m) => m.move), ['layers', 'regain']);
});

test('all layers that left a card come back, too', async (t) => {
  const server = await startServer(t, { prepare: layered,
    args: ['--simulate-device', 'card=2G', '--simulate-device', 'ram=64G', '--memory-margin', '0', '--memory-quiet', '1'] });
  await server.postJson('/v1/llm/unload', {});
  await load(server, 'a.gguf', { gpu_layers: 8 });
  await load(server, 'b.gguf', { gpu_layers: 8 });
  await until('a has started again without any', () => layersOf(server, 'a.gguf').at(-1) === '0');
  await server.postJson('/v1/llm/unload', { model: 'b' });
  await until('they are back', () => layersOf(server, 'a.gguf').at(-1) === '8');
});

test('the parts in memory of a model on a card are asked for, too', async (t) => {
  const server = await startServer(t, { prepare: layered,
    args: ['--simulate-device', 'card=8G', '--simulate-device', 'ram=1G', '--memory-margin', '0'] });
  await server.postJson('/v1/llm/unload', {});
  const refused = await server.postJson('/v1/llm/load', { model: 'a.gguf', gpu_layers: 2 });
  assert.equal(refused.status, 503);
  assert.match(refused.json.error.message, /a.gguf needs 1.5\d GiB on ram; [01].\d\d of 1.00 GiB are free/);
  await load(server, 'a.gguf', { gpu_layers: 6 });
});

test('a model that is larger than the card gets as many layers as fit', async (t) => {
  const server = await startServer(t, { prepare: layered, args: ['--simulate-device', 'card=1G', '--memory-margin', '0'] });
  await load(server, 'a.gguf');
  assert.deepEqual(layersOf(server, 'a.gguf'), ['4']);
  assert.match((await memory(server)).moves[0].reason, /a.gguf gets 4 of its 8 layers on card: 1.00 GiB are free there, and all would take 1.8\d GiB/);
});

test('a model that is larger than the card, which others have: they give way, and it gets as many layers as fit then', async (t) => {
  const shelved = (server) => (layered(server), writeGguf(join(server.models, 'd.gguf'), { bytes: 4 * GIB, numbers: { 'llama.block_count': 8 },
    tensors: ['token_embd.weight', ...Array.from({ length: 8 }, (_, i) => `blk.${i}.ffn_up.weight`)] }));
  const server = await startServer(t, { prepare: shelved,
    args: ['--simulate-device', 'card=2G', '--simulate-device', 'ram=64G', '--memory-margin', '0', '--memory-quiet', '600'] });
  await server.postJson('/v1/llm/unload', {});
  await load(server, 'a.gguf', { gpu_layers: 8 });
  await load(server, 'd.gguf', { gpu_layers: 8 });
  const d = (await memory(server)).residents.find((r) => r.model === 'd.gguf');
  assert.equal(d.device, 'card');
  assert.equal(d.layers.wished, 8);
  assert.ok(d.layers.present >= 3 && d.layers.present < 8, `${d.layers.present} of 8 layers of 0.44 GiB on a card with 2`);
  assert.equal((await chat(server, 'd')).status, 200);
});

test('a device that is none is refused at the start', async (t) => {
  for (const [value, says] of [['ram', /must be a name and a size, like ram=8G/], ['ram=many', /must be a size like/]]) {
    await assert.rejects(startServer(t, { args: ['--simulate-device', value] }), says);
  }
});

// a context of 16384 tokens in each of two slots takes 1 GiB, the weights another one
const roomy = (server) => {
  for (const name of ['a.gguf', 'b.gguf'])
    writeGguf(join(server.models, name), { bytes: GIB, numbers: { 'llama.block_count': 8, 'llama.context_length': 32768,
      'llama.embedding_length': 4096, 'llama.attention.head_count': 32, 'llama.attention.head_count_kv': 8 },
      tensors: ['token_embd.weight', ...Array.from({ length: 8 }, (_, i) => `blk.${i}.ffn_up.weight`)] });
};
const optionOf = (server, option, model) => server.records('llm').filter((r) => r.event === 'start' && r.options.join(' ').includes(model))
  .map((r) => r.options[r.options.indexOf(option) + 1]);
const contextsOf = (server, model) => optionOf(server, '--context', model);
const resident = async (server, model) => (await memory(server)).residents.find((r) => r.model === model);

test('a picture takes what nobody uses of a context: the text model answers beside it, and gets the rest back', async (t) => {
  const server = await startServer(t, { prepare: roomy, sd: { needs_bytes: 1.5 * GIB, step_ms: 300 },
    args: ['--simulate-device', 'ram=3G', '--memory-margin', '0', '--memory-quiet', '1', '--llm-slots', '2'] });
  await server.postJson('/v1/llm/unload', {});
  await load(server, 'a.gguf', { context: 16384 });
  await until('how much is used is known', async () => (await resident(server, 'a.gguf')).context.kept === 2304);
  const picture = draw(server);
  await until('it was started anew', () => contextsOf(server, 'a.gguf').length === 2);
  assert.equal((await chat(server, 'a')).status, 200);
  assert.deepEqual((await resident(server, 'a.gguf')).context, { wished: 16384, present: 2304, kept: 2304 });
  assert.equal((await server.getJson('/v1/queue')).json.images.length, 1, 'the picture is still being drawn');
  assert.equal((await picture).status, 200);
  await until('its context is back', () => contextsOf(server, 'a.gguf').length === 3);
  assert.deepEqual(contextsOf(server, 'a.gguf'), ['16384', '2304', '16384']);
  await server.logged(/Restored the context of a.gguf: 40 tokens in 1 slots/);
  const { moves } = await memory(server);
  assert.deepEqual(moves.map((m) => m.move), ['trim', 'grow']);
  moves.forEach((move) => checkSchema('Move', move));
  assert.match(moves[0].reason, /a.gguf gives back 0.86 GiB of context cache that nobody uses \(2304 of 16384 tokens stay\), because the picture needs 1.50 GiB/);
});

test('a request that may need the whole context waits until it is back, smaller ones pass', async (t) => {
  const server = await startServer(t, { prepare: roomy, sd: { needs_bytes: 1.5 * GIB, step_ms: 400 },
    args: ['--simulate-device', 'ram=3G', '--memory-margin', '0', '--memory-quiet', '600', '--llm-slots', '2'] });
  await server.postJson('/v1/llm/unload', {});
  await load(server, 'a.gguf', { context: 16384 });
  await until('how much is used is known', async () => (await resident(server, 'a.gguf')).context.kept === 2304);
  const picture = draw(server);
  await until('it was started anew', () => contextsOf(server, 'a.gguf').length === 2);
  const long = server.postJson('/v1/chat/completions', { messages, model: 'a', max_tokens: 4000 });
  const much = server.post('/v1/chat/completions', { messages: [{ role: 'user', content: 'word '.repeat(2000) }], model: 'a', stream: true });
  assert.equal((await chat(server, 'a')).status, 200);
  assert.equal((await server.getJson('/v1/queue')).json.text.filter((p) => p.state === 'waiting').length, 2);
  assert.equal((await picture).status, 200);
  assert.equal((await long).status, 200);
  let seen = '';
  for await (const { comment, data } of sseEvents(await much)) seen += `${comment ?? data}\n`;
  assert.match(seen, /queue position=\d the model's whole context is awaited/);
  assert.match(seen, /Hello/);
  assert.deepEqual(contextsOf(server, 'a.gguf'), ['16384', '2304', '16384'], 'long before it was quiet');
  assert.match((await memory(server)).moves.at(-1).reason, /gets its whole context back, because a request may need it .16384 tokens instead of 2304./);
});

test('what is saved is more than was known: that much stays', async (t) => {
  const server = await startServer(t, { prepare: roomy, sd: { needs_bytes: 1.25 * GIB }, llm: { slot_tokens: [100, 0] },
    args: ['--simulate-device', 'ram=3G', '--memory-margin', '0', '--memory-quiet', '600', '--llm-slots', '2'] });
  await server.postJson('/v1/llm/unload', {});
  await load(server, 'a.gguf', { context: 16384 });
  await until('how much is used is known', async () => (await resident(server, 'a.gguf')).context.kept === 2304);
  server.plan('llm', { slot_tokens: [5000, 0] });
  assert.equal((await draw(server)).status, 200);
  await until('it was started anew', () => contextsOf(server, 'a.gguf').length === 2);
  assert.deepEqual(contextsOf(server, 'a.gguf'), ['16384', '7168']);
  await server.logged(/Restored the context of a.gguf: 5000 tokens in 1 slots/);
});

test('a card: the context of one model is trimmed for the other, before layers leave', async (t) => {
  const server = await startServer(t, { prepare: roomy,
    args: ['--simulate-device', 'card=3584M', '--simulate-device', 'ram=64G', '--memory-margin', '0', '--memory-quiet', '1', '--llm-slots', '2'] });
  await server.postJson('/v1/llm/unload', {});
  await load(server, 'a.gguf', { gpu_layers: 8, context: 16384 });
  await until('how much is used is known', async () => (await resident(server, 'a.gguf')).context.kept === 2304);
  await load(server, 'b.gguf', { gpu_layers: 8, context: 16384 });
  await until('it was started anew', () => contextsOf(server, 'a.gguf').length === 2);
  assert.deepEqual(contextsOf(server, 'a.gguf'), ['16384', '2304']);
  assert.deepEqual(optionOf(server, '--gpu-layers', 'a.gguf'), ['8', '8']);
  await server.postJson('/v1/llm/unload', { model: 'b' });
  await until('its context is back', () => contextsOf(server, 'a.gguf').at(-1) === '16384');
  assert.deepEqual((await memory(server)).moves.map((m) => m.move), ['trim', 'grow']);
});

test('two models that are wanted at once, with room for one: each answers those who wait before it gives way', async (t) => {
  const server = await start(t, '3G', { args: ['--memory-quiet', '600'], llm: { first_ms: 30 } });
  await server.postJson('/v1/llm/unload', {});
  await load(server, 'a.gguf');
  await load(server, 'b.gguf');
  const answers = await Promise.all(Array.from({ length: 12 }, (_, i) => chat(server, i % 2 ? 'a' : 'b')));
  assert.deepEqual(answers.map((a) => a.status), answers.map(() => 200));
  const { moves } = await memory(server);
  assert.ok(moves.length < 8, `${moves.length} moves for twelve answers: they took each other's place`);
});

test('a model that waits for memory has its turn, though the one that is there is asked without a pause', async (t) => {
  const server = await start(t, '3G', { args: ['--memory-quiet', '600', '--text-queue-age', '1'], llm: { first_ms: 300 } });
  await server.postJson('/v1/llm/unload', {});
  await load(server, 'a.gguf');
  await load(server, 'b.gguf');
  let ended = false;
  const askAgain = async () => { while (!ended) { const { status, json } = await chat(server, 'b'); assert.equal(status, 200, JSON.stringify(json)); } };
  const others = Array.from({ length: 4 }, askAgain);
  await until('b works', async () => (await states(server)).b === 'busy');
  const began = Date.now();
  assert.equal((await chat(server, 'a')).status, 200);
  assert.ok(Date.now() - began < 15000, `after ${Date.now() - began} ms`);
  ended = true;
  await Promise.all(others);
});

test('who waits for a model that gave way to a picture keeps nobody of another model waiting', async (t) => {
  const server = await start(t, '5G', { args: ['--memory-quiet', '600', '--text-queue-age', '1'], sd: { needs_bytes: 2.5 * GIB, step_ms: 1500 } });
  await server.postJson('/v1/llm/unload', {});
  await load(server, 'a.gguf');
  await load(server, 'b.gguf');
  assert.equal((await server.postJson(`/v1/workers/${(await resident(server, 'b.gguf')).worker}/pin`)).status, 200);
  let isDrawn = false;
  const picture = draw(server).then((answer) => { isDrawn = true; return answer; });
  await until('a has given way', async () => (await states(server)).a === 'parked');
  const waits = chat(server, 'a');
  await sleep(1500);
  assert.equal((await chat(server, 'b')).status, 200);
  assert.equal(isDrawn, false, 'b was there all the time');
  assert.equal((await picture).status, 200);
  assert.equal((await waits).status, 200);
});

test('policy ask: a question that nobody answers keeps no other model waiting', async (t) => {
  const server = await start(t, '3G', { args: ['--memory-policy', 'ask', '--text-queue-age', '1'] });
  await server.postJson('/v1/llm/unload', {});
  await load(server, 'a.gguf');
  const waits = chat(server, 'b');
  const { id } = await until('it asks', async () => (await memory(server)).questions[0]);
  await sleep(1500);
  const answer = chat(server, 'a');
  assert.equal(await Promise.race([answer.then((r) => r.status), sleep(5000)]), 200);
  assert.equal((await server.postJson('/v1/memory/leave', { id })).status, 200);
  assert.equal((await waits).status, 200);
});

// a with as much of its context as is used, because b has the rest
async function startShort(t, { args = [], a = {}, ...more } = {}) {
  const server = await startServer(t, { prepare: roomy, ...more,
    args: ['--simulate-device', 'ram=3G', '--memory-margin', '0', '--memory-quiet', '600', '--llm-slots', '2', '--llm-resident', '8', ...args] });
  await server.postJson('/v1/llm/unload', {});
  await load(server, 'a.gguf', { context: 16384, ...a });
  await until('how much is used is known', async () => (await resident(server, 'a.gguf')).context.kept === 2304);
  const loaded = load(server, 'b.gguf', { context: 4096 });
  const question = args.includes('ask') && await until('it asks', async () => (await memory(server)).questions[0]);
  if (question) assert.equal((await server.postJson('/v1/memory/leave', { id: question.id })).status, 200);
  await loaded;
  await until('a is short', async () => (await states(server)).a === 'ready' && contextsOf(server, 'a.gguf').at(-1) === '2304');
  return server;
}
const chatLong = (server) => server.postJson('/v1/chat/completions', { messages, model: 'a', max_tokens: 4000 });

test('policy ask: a request that may need the whole context does not wait for a question about something else', async (t) => {
  const server = await startShort(t, { args: ['--memory-policy', 'ask'], sd: { needs_bytes: 2.5 * GIB } });
  const picture = draw(server);
  const { id } = await until('it asks', async () => (await memory(server)).questions[0]);
  assert.equal(await Promise.race([chatLong(server).then((r) => r.status), sleep(5000)]), 200);
  assert.equal((await server.postJson('/v1/memory/leave', { id })).status, 200);
  assert.equal((await picture).status, 200);
});

test('a request that may need the whole context has its turn, though the model beside it is asked without a pause', async (t) => {
  const server = await startShort(t, { args: ['--text-queue-age', '1'], llm: { first_ms: 300 } });
  let ended = false;
  const askAgain = async () => { while (!ended) assert.equal((await chat(server, 'b')).status, 200); };
  const others = Array.from({ length: 4 }, askAgain);
  await until('b works', async () => (await states(server)).b === 'busy');
  assert.equal(await Promise.race([chatLong(server).then((r) => r.status), sleep(15000)]), 200);
  ended = true;
  await Promise.all(others);
});

test('a short one that nobody used comes back as short as it was, where there is no room for more', async (t) => {
  const server = await startShort(t, { a: { idle_timeout: 1 } });
  const { worker } = await resident(server, 'b.gguf');
  assert.equal((await server.postJson(`/v1/workers/${worker}/pin`)).status, 200);
  await until('a is parked', async () => (await states(server)).a === 'parked');
  const { status, json } = await chat(server, 'a');
  assert.equal(status, 200, JSON.stringify(json));
  assert.equal(contextsOf(server, 'a.gguf').at(-1), '2304');
});

test('the server is killed while a model comes back with a shorter context: it is there again after a while', async (t) => {
  const server = await startServer(t, { prepare: roomy, sd: { needs_bytes: 1.5 * GIB },
    args: ['--simulate-device', 'ram=3G', '--memory-margin', '0', '--memory-quiet', '1', '--llm-slots', '2'] });
  await server.postJson('/v1/llm/unload', {});
  await load(server, 'a.gguf', { context: 16384 });
  await until('how much is used is known', async () => (await resident(server, 'a.gguf')).context.kept === 2304);
  server.plan('llm', { start: 'slow', start_ms: 2000 });
  const picture = draw(server).catch(() => null);
  await until('it was started anew', () => contextsOf(server, 'a.gguf').length === 2);
  await sleep(300);
  process.kill(server.child.pid, 'SIGKILL');
  await picture;
  server.plan('llm', {});
  await server.startAgain();
  await until('it is there', async () => (await states(server)).a === 'ready');
});

test('a picture that is taken back while a context is saved for it: what was saved still comes back whole', async (t) => {
  const server = await startServer(t, { prepare: roomy, sd: { needs_bytes: 1.25 * GIB }, llm: { slot_tokens: [100, 0] },
    args: ['--simulate-device', 'ram=3G', '--memory-margin', '0', '--memory-quiet', '600', '--llm-slots', '2'] });
  await server.postJson('/v1/llm/unload', {});
  await load(server, 'a.gguf', { context: 16384 });
  await until('how much is used is known', async () => (await resident(server, 'a.gguf')).context.kept === 2304);
  server.plan('llm', { slot_tokens: [5000, 0], save_ms: 500 });
  const { json: job } = await server.postJson('/v1/jobs', { prompt: 'a boat' });
  await until('it is saved', async () => (await states(server)).a === 'parking');
  const waits = chat(server, 'a');
  assert.equal((await server.getJson(`/v1/jobs/${job.id}`, { method: 'DELETE' })).status, 200);
  assert.equal((await waits).status, 200);
  assert.deepEqual(contextsOf(server, 'a.gguf'), ['16384', '7168']);
});

test('the memory is free again before a model has started with less of its context: it gets the rest once it is there', async (t) => {
  const server = await startServer(t, { prepare: roomy, sd: { needs_bytes: 1.5 * GIB },
    args: ['--simulate-device', 'ram=3G', '--memory-margin', '0', '--memory-quiet', '0', '--llm-slots', '2'] });
  await server.postJson('/v1/llm/unload', {});
  await load(server, 'a.gguf', { context: 16384 });
  await until('how much is used is known', async () => (await resident(server, 'a.gguf')).context.kept === 2304);
  server.plan('llm', { start: 'slow', start_ms: 2000 });
  assert.equal((await draw(server)).status, 200);
  await until('its context is back', () => contextsOf(server, 'a.gguf').length === 3);
  assert.deepEqual((await memory(server)).moves.map((m) => m.move), ['trim', 'grow']);
});
