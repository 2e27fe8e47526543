// Models: what is there, what is loaded, and every way in which a load can go wrong.
import assert from 'node:assert/strict';
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import test from 'node:test';
import { startServer, until } from '../support/server.mjs';
import { writeGguf, writeSafetensors, writeTorch } from '../support/models.mjs';

function shelf(server) {
  const at = (name) => join(server.models, name);
  writeGguf(at('chat/writer-b.gguf'));
  writeGguf(at('writer-c.gguf'));
  writeSafetensors(at('stable-diffusion/painter-b.safetensors'));
  writeGguf(at('flux.gguf'), { architecture: 'flux', tensors: ['double_blocks.0.img_attn.qkv.weight'] });
  writeTorch(at('stable-diffusion/old.ckpt'));
  writeTorch(at('embedding.pt'), { tensors: ['string_to_param'] });
  writeFileSync(at('broken.safetensors'), 'this is not a model');
  mkdirSync(at('folder.gguf'));
}

const ids = (list) => list.data.map((m) => m.id);

test('both kinds are listed with their type, the active ones marked, in compact JSON', async (t) => {
  const server = await startServer(t, { prepare: shelf });
  const text = await (await server.get('/v1/models')).text();
  assert.ok(text.includes('"active":true'), 'guides search for it without a space');
  const { json } = await server.getJson('/v1/models');
  assert.deepEqual(ids(json), ['chat/writer-b.gguf', 'flux.gguf', 'stable-diffusion/old.ckpt', 'stable-diffusion/painter-b.safetensors',
    'starter-painter.safetensors', 'starter-writer.gguf', 'writer-c.gguf']);
  assert.deepEqual(json.data.filter((m) => m.active).map((m) => `${m.type} ${m.id}`),
    ['diffusion starter-painter.safetensors', 'llm starter-writer.gguf']);
  assert.equal(json.data.find((m) => m.id === 'flux.gguf').type, 'diffusion');
  assert.deepEqual(ids((await server.getJson('/v1/llm/models')).json), ['chat/writer-b.gguf', 'starter-writer.gguf', 'writer-c.gguf']);
});

test('load makes a model the active one; unload leaves none', async (t) => {
  const server = await startServer(t, { prepare: shelf, args: ['--llm-resident', '1'] });
  const painter = await server.postJson('/v1/models/load', { model_id: 'stable-diffusion/painter-b.safetensors' });
  assert.deepEqual(painter.json, { status: 'success', model: 'stable-diffusion/painter-b.safetensors', type: 'diffusion' });
  const writer = await server.postJson('/v1/llm/load', { model: 'writer-b' });
  assert.deepEqual(writer.json, { status: 'success', model: 'chat/writer-b.gguf', type: 'llm' });
  const { json } = await server.getJson('/v1/models');
  assert.deepEqual(ids({ data: json.data.filter((m) => m.active) }), ['chat/writer-b.gguf', 'stable-diffusion/painter-b.safetensors']);
  await server.logged(/Saved SD model state/);
  await server.logged(/Saved LLM model state/);

  assert.deepEqual((await server.postJson('/v1/models/unload')).json, { status: 'success', model: 'stable-diffusion/painter-b.safetensors' });
  assert.deepEqual((await server.postJson('/v1/llm/unload')).json, { status: 'success', model: 'chat/writer-b.gguf' });
  assert.ok(!(await (await server.get('/v1/models')).text()).includes('"active":true'));
  const chat = await server.postJson('/v1/chat/completions', { messages: [{ role: 'user', content: 'hi' }] });
  assert.equal(chat.status, 503);
  const draw = await server.postJson('/v1/images/generations', { prompt: 'a boat' });
  assert.equal(draw.status, 503);
});

test('a text model can be loaded through /v1/models/load too, a picture model not through /v1/llm/load', async (t) => {
  const server = await startServer(t, { prepare: shelf });
  assert.equal((await server.postJson('/v1/models/load', { model: 'writer-c.gguf' })).json.type, 'llm');
  const { status, json } = await server.postJson('/v1/llm/load', { model: 'stable-diffusion/painter-b.safetensors' });
  assert.equal(status, 400);
  assert.match(json.error.message, /'stable-diffusion\/painter-b.safetensors' is a picture model, not a text model/);
});

test('bad names are told apart', async (t) => {
  const server = await startServer(t, { prepare: shelf });
  const cases = [
    [{}, 400, /model is missing/],
    [{ model: 7 }, 400, /model must be a text, not 7/],
    [{ model: 'writer-d.gguf' }, 404, /there is no model 'writer-d.gguf'; did you mean 'writer-[bc].gguf'\?|did you mean 'writer-c.gguf'/],
    [{ model: 'zzzzzzzzzzzzzzzzzzz' }, 404, /there is no model 'z+': GET \/v1\/models lists/],
    [{ model: '../secrets.gguf' }, 400, /a path below the model folder, not '\.\.\/secrets.gguf'/],
    [{ model: 'chat/../../x.gguf' }, 400, /a path below the model folder/],
    [{ model: '/etc/passwd' }, 400, /a path below the model folder/],
    [{ model: 'folder.gguf' }, 400, /'folder.gguf' is a folder, not a model file/],
    [{ model: 'chat' }, 400, /'chat' is a folder/],
    [{ model: 'broken.safetensors' }, 400, /broken.safetensors/],
  ];
  for (const [body, status, message] of cases) {
    const answer = await server.postJson('/v1/models/load', body);
    assert.equal(answer.status, status, JSON.stringify(body));
    assert.match(answer.json.error.message, message);
    if (status === 404) assert.equal(answer.json.error.code, 'model_not_found');
  }
  assert.equal(server.requests('sd', '/internal/load').length, 1, 'only the starter was ever sent to the worker');
});

test("a diffusers folder is one model", async (t) => {
  const folder = (name, { unet = true } = {}) => (server) => {
    const at = (file) => join(server.models, name, file);
    writeSafetensors(at('vae/diffusion_pytorch_model.safetensors'), { tensors: ['decoder.conv_in.weight'] });
    writeSafetensors(at('text_encoder/model.safetensors'), { tensors: ['text_model.final_layer_norm.weight'] });
    if (unet) writeSafetensors(at('unet/diffusion_pytorch_model.safetensors'), { tensors: ['conv_in.weight'] });
    writeFileSync(at('model_index.json'), '{"_class_name": "StableDiffusionPipeline"}');
  };
  const server = await startServer(t, { prepare: (s) => { shelf(s); folder('sd/dreams-v1.5')(s); folder('flux-folder', { unet: false })(s); } });
  const { json } = await server.getJson('/v1/models');
  assert.deepEqual(ids(json).filter((id) => /dreams|flux-folder|unet|vae/.test(id)), ['sd/dreams-v1.5']);
  const listed = json.data.find((m) => m.id === 'sd/dreams-v1.5');
  assert.equal(listed.type, 'diffusion');
  assert.ok(listed.size_bytes > 200 && listed.size_bytes < 2000, `${listed.size_bytes} is the sum of three small files`);
  const loaded = await server.postJson('/v1/models/load', { model: 'dreams-v1.5' });
  assert.deepEqual(loaded.json, { status: 'success', model: 'sd/dreams-v1.5', type: 'diffusion' });
  const { body } = server.requests('sd', '/internal/load').at(-1);
  assert.equal((typeof body === 'string' ? JSON.parse(body) : body).path, join(server.models, 'sd/dreams-v1.5'));
  assert.ok((await server.getJson('/v1/models')).json.data.find((m) => m.id === 'sd/dreams-v1.5').active);
  const other = await server.postJson('/v1/models/load', { model: 'flux-folder' });
  assert.equal(other.status, 400);
  assert.match(other.json.error.message, /'flux-folder' holds neither a text model nor a picture model/);
});

test('a load that fails leaves the model that was there, and says why', async (t) => {
  const server = await startServer(t, { prepare: shelf, sd: { load: ['ok', 'out_of_memory', 'bad_file'] } });
  const tight = await server.postJson('/v1/models/load', { model: 'painter-b' });
  assert.equal(tight.status, 503);
  assert.match(tight.json.error.message, /needs 9.1 GiB, 7.8 GiB free/);
  assert.equal(tight.json.error.code, 'out_of_memory');
  const bad = await server.postJson('/v1/models/load', { model: 'painter-b' });
  assert.equal(bad.status, 400);
  assert.match(bad.json.error.message, /not a model/);
  const { json } = await server.getJson('/v1/models');
  assert.ok(json.data.find((m) => m.id === 'starter-painter.safetensors').active);
  assert.equal((await server.postJson('/v1/images/generations', { prompt: 'a boat' })).status, 200);
});

test('a load while a picture is drawn is refused, unless forced', async (t) => {
  const server = await startServer(t, { prepare: shelf, sd: { step_ms: 150, default_steps: 20 } });
  const drawing = server.postJson('/v1/images/generations', { prompt: 'a boat' });
  await until('the worker is busy', async () => (await server.worker('sd')).busy);
  const { status, json } = await server.postJson('/v1/models/load', { model: 'painter-b' });
  assert.equal(status, 409);
  assert.equal(json.error.code, 'busy');
  assert.equal((await server.postJson('/v1/models/unload')).status, 409);
  await server.postJson('/v1/images/cancel');
  assert.equal((await drawing).status, 499);
});

test('a model outside the folders is listed under its path', async (t) => {
  let path;
  const server = await startServer(t, { args: ['--llm-model', '/proc/self/cwd'], ready: ['sd'], prepare: (s) => {
    path = writeGguf(join(s.root, 'elsewhere/mine.gguf'));
  } }).catch((e) => e);
  assert.ok(server instanceof Error, 'a folder is refused as --llm-model');
  const two = await startServer(t, { prepare: (s) => {
    path = writeGguf(join(s.root, 'elsewhere/mine.gguf'));
    s.extraArgs = ['--llm-model', path];
  } });
  const { json } = await two.getJson('/v1/models');
  assert.ok(json.data.find((m) => m.id === path)?.active);
  assert.equal((await two.postJson('/v1/chat/completions', { model: path, messages: [{ role: 'user', content: 'hi' }] })).status, 200);
});
