// Pictures, the good case: what the worker is asked, what the client gets, what lies on the disk afterwards.
import assert from 'node:assert/strict';
import { mkdirSync, readFileSync, readdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import test, { before } from 'node:test';
import { checkSchema } from '../support/openapi.mjs';
import { readPng } from '../support/png.mjs';
import { writeSafetensors } from '../support/models.mjs';
import { sseEvents, startServer, until } from '../support/server.mjs';

let server;
before(async (t) => (server = await startServer(t, { prepare: (s) => writeSafetensors(join(s.models, 'other.safetensors')) })));

const draw = (body) => server.postJson('/v1/images/generations', body);
const jobs = () => server.requests('sd', '/internal/generate').map((r) => JSON.parse(r.body));

test('the shortest request draws with the model\'s own defaults', async () => {
  const { status, json, headers } = await draw({ prompt: 'a red boat' });
  assert.equal(status, 200);
  assert.equal(json.data.length, 1);
  assert.equal(json.size, '128x128');
  assert.equal(json.model, 'starter-painter.safetensors');
  assert.match(headers.get('x-mysti-job'), /^job-/);
  const png = readPng(Buffer.from(json.data[0].b64_json, 'base64'));
  assert.deepEqual([png.width, png.height], [128, 128]);
  assert.match(png.texts.parameters, /^a red boat\n/);
  const job = jobs().at(-1);
  assert.deepEqual(Object.keys(job).sort(), ['count', 'prompt', 'seed'], 'what was left open is left to the model');
  assert.equal(job.seed, json.data[0].seed, 'the seed is drawn here, so that a second run is the same picture');
});

test('every setting reaches the worker, under any of its names', async () => {
  await draw({ prompt: 'p', negative_prompt: 'n', size: '256x192', steps: 7, seed: 11, cfg_scale: 3.5,
    sampler: 'euler_a', scheduler: 'karras' });
  const want = { prompt: 'p', negative_prompt: 'n', width: 256, height: 192, steps: 7, seed: 11, count: 1, cfg_scale: 3.5,
    sampler: 'euler_a', scheduler: 'karras' };
  assert.deepEqual(jobs().at(-1), want);
  await draw({ prompt: 'p', negative_prompt: 'n', width: 256, height: 192, sample_steps: 7, seed: 11,
    guidance_scale: 3.5, sampling_method: 'Euler a', scheduler: 'Karras' });
  assert.deepEqual(jobs().at(-1), want);
  await draw({ prompt: 'p', sampler: 'DPM++ 2M Karras', quality: 'high', style: 'vivid', user: 'me', moderation: 'low',
    size: 'auto', extra: { a: 1 } });
  const { sampler, scheduler, width } = jobs().at(-1);
  assert.deepEqual([sampler, scheduler, width], ['dpmpp_2m', 'karras', undefined]);
  await draw({ prompt: 'p', sampler: 'DPM++ SDE', scheduler: 'automatic', eta: 0.5, s_churn: 3, s_tmin: 0.1, s_tmax: 9, s_noise: 1.003, r: 0.4,
    s_min_uncond: 1.5, rho: 5, vae_tiling: true, ensd: 31337, clip_skip: 2, rng: 'cpu', dialect: 'Comfy', prediction: 'v', vae: 'ft-mse', original_height: 1536, crop_left: 0, target_width: 96 });
  const { prompt, seed, count, ...rest } = jobs().at(-1);
  assert.deepEqual(rest, { sampler: 'dpmpp_sde', scheduler: 'karras', eta: 0.5, s_churn: 3, s_tmin: 0.1, s_tmax: 9, s_noise: 1.003, r: 0.4,
    s_min_uncond: 1.5, rho: 5, vae_tiling: true, ensd: 31337, clip_skip: 2, rng: 'cpu', dialect: 'comfy', prediction: 'v', vae: 'ft-mse', original_height: 1536, crop_left: 0, target_width: 96 });
  await draw({ prompt: 'p', vae: 'Automatic' });
  assert.equal(jobs().at(-1).vae, undefined);
});

test('samplers and schedules are listed, and each of them is taken', async () => {
  const { json: lists } = await server.getJson('/v1/options/samplers');
  assert.deepEqual([lists.samplers.length, lists.schedulers.length, lists.dialects], [25, 12, ['a1111', 'comfy']]);
  for (const { name, label, automatic_scheduler } of lists.samplers) {
    await draw({ prompt: 'p', sampler: label, scheduler: 'automatic' });
    assert.deepEqual([jobs().at(-1).sampler, jobs().at(-1).scheduler], [name, automatic_scheduler]);
  }
  for (const { name, label } of lists.schedulers) {
    await draw({ prompt: 'p', scheduler: label });
    assert.equal(jobs().at(-1).scheduler, name);
  }
});

test('several pictures count their seeds up and are all saved', async () => {
  const { json } = await draw({ prompt: 'three', n: 3, seed: 4294967294 });
  assert.deepEqual(json.data.map((d) => d.seed), [4294967294, 4294967295, 4294967296]);
  const files = json.data.map((d) => d.file);
  assert.equal(new Set(files).size, 3);
  for (const [i, file] of files.entries()) {
    assert.match(file, /^img-\d{16}-\d+\.png$/);
    assert.deepEqual(readFileSync(join(server.outputs, file)), Buffer.from(json.data[i].b64_json, 'base64'));
  }
  assert.ok(readdirSync(server.outputs).every((f) => f.endsWith('.png')), 'no temporary file is left');
});

test('as a URL, the picture is fetched from where it was asked for', async () => {
  const { json } = await draw({ prompt: 'by url', response_format: 'url' });
  const [{ url, b64_json, file }] = json.data;
  assert.equal(b64_json, undefined);
  assert.equal(url, `${server.base}/outputs/${file}`);
  const res = await fetch(url);
  assert.equal(res.headers.get('content-type'), 'image/png');
  assert.match(readPng(Buffer.from(await res.arrayBuffer())).texts.parameters, /^by url/);
});

test('the LoRAs of a picture come with it, whole, streamed and in the log; without any there is no word of them', async () => {
  const want = [{ name: 'ink', text: 0.5, unet: 1, matched: 9, unmatched: 1, first_unmatched: 'lora_te2_x.alpha' }];
  const { json } = await draw({ prompt: 'a boat <lora:ink:0.5:1>', n: 2 });
  assert.deepEqual(json.data.map((picture) => picture.loras), [want, want]);
  const log = server.logText.match(/LoRA 'ink'.*/g);
  assert.deepEqual(log, ["LoRA 'ink', text 0.5, U-Net 1: 9 of its 10 keys change the model; not, for one: lora_te2_x.alpha"]);
  const res = await server.post('/v1/images/generations', { prompt: '<lora:ink:0.5:1>', stream: true });
  let streamed;
  for await (const event of sseEvents(res)) if (event.data) streamed = JSON.parse(event.data).loras;
  assert.deepEqual(streamed, want);
  assert.equal((await draw({ prompt: 'a boat' })).json.data[0].loras, undefined);
});

test('so do its textual inversions; both are known of a finished job that is asked for again, and after a restart', async (t) => {
  const own = await startServer(t);
  const ask = { prompt: 'a embedding:sketch boat <lora:ink:0.5:1>' }, headers = { 'Idempotency-Key': 'again' };
  const post = async () => (await (await fetch(`${own.base}/v1/images/generations`, { method: 'POST', body: JSON.stringify(ask),
    headers: { 'Content-Type': 'application/json', ...headers } })).json());
  const loras = [{ name: 'ink', text: 0.5, unet: 1, matched: 9, unmatched: 1, first_unmatched: 'lora_te2_x.alpha' }];
  const embeddings = [{ name: 'sketch', vectors: 2 }];
  const first = await post();
  assert.deepEqual([first.data[0].loras, first.data[0].embeddings], [loras, embeddings]);
  assert.match(own.logText, /textual inversion 'sketch', 2 vectors/);
  const again = await post();
  assert.equal(again.data[0].file, first.data[0].file);
  assert.deepEqual([again.data[0].loras, again.data[0].embeddings], [loras, embeddings]);
  const { json: jobs } = await own.getJson('/v1/jobs');
  assert.deepEqual(jobs.data[0].pictures.map((p) => [p.loras, p.embeddings]), [[loras, embeddings]]);
});

test('the VAEs that there are, and their folder is the worker\'s', async (t) => {
  const folder = join(server.root, 'my vaes');
  const other = await startServer(t, { args: ['--vae-dir', folder, '--vae', 'tiny', '--preview-method', 'taesd'], prepare: () => {
    mkdirSync(join(folder, 'xl'), { recursive: true });
    mkdirSync(join(folder, 'tiny'));
    for (const name of ['ft-mse.vae.pt', 'xl/fix.safetensors', 'notes.txt', 'tiny/config.json', 'tiny/diffusion_pytorch_model.safetensors'])
      writeFileSync(join(folder, name), 'four');
  } });
  const { json: list } = await other.getJson('/v1/vaes');
  checkSchema('VaeList', list);
  assert.deepEqual(list.data.map(({ name, size_bytes }) => [name, size_bytes]), [['automatic', undefined], ['ft-mse.vae', 4], ['tiny', 4], ['xl/fix', 4]]);
  assert.deepEqual((await server.getJson('/v1/vaes')).json.data, [{ name: 'automatic' }]);
  const start = other.records('sd').find((r) => r.event === 'start');
  assert.equal(start.options[start.options.indexOf('--vae-dir') + 1], folder);
  assert.equal(start.options[start.options.indexOf('--vae') + 1], 'tiny');
  assert.equal(start.options[start.options.indexOf('--preview-method') + 1], 'taesd');
});

test('the LoRAs that there are: those of --lora-dir and of the starters, as they are named in prompts', async (t) => {
  const other = await startServer(t, { ready: [], args: ['--lora-dir', join(server.root, 'my loras')], prepare: () => {
    mkdirSync(join(server.root, 'my loras', 'styles'), { recursive: true });
    for (const name of ['ink.safetensors', 'styles/wash.pt', 'notes.txt']) writeFileSync(join(server.root, 'my loras', name), 'four');
    const header = JSON.stringify({ __metadata__: { 'modelspec.trigger_phrase': 'fine lines', ss_base_model_version: 'sd_v1' } });
    const length = Buffer.alloc(8);
    length.writeUInt32LE(header.length);
    writeFileSync(join(server.root, 'my loras', 'told.safetensors'), Buffer.concat([length, Buffer.from(header)]));
  } });
  const list = (await (await fetch(`${other.base}/v1/loras`)).json());
  checkSchema('LoraList', list);
  assert.deepEqual(list.data.map(({ name, size_bytes }) => [name, size_bytes > 4 ? 'more' : size_bytes]), [['ink', 4], ['styles/wash', 4], ['told', 'more']]);
  assert.deepEqual(list.data.map(({ trigger, base }) => [trigger, base]), [[undefined, undefined], [undefined, undefined], ['fine lines', 'sd_v1']]);
  assert.ok(Math.abs(list.data[0].modified - Date.now() / 1000) < 600);
  assert.deepEqual((await (await fetch(`${server.base}/v1/loras`)).json()).data, [], 'no folder is no LoRA');
});

test('seeds: a list has one for each picture; a variation keeps the seed and counts its own up', async () => {
  const many = await draw({ prompt: 'seeds', seed: [9, 4, 4294967295] });
  assert.deepEqual(jobs().at(-1).seeds, [9, 4, 4294967295]);
  assert.deepEqual(many.json.data.map((picture) => picture.seed), [9, 4, 4294967295]);
  await draw({ prompt: 'varied', n: 2, seed: 7, variation_strength: 0.25, variation_seed: 30 });
  const { seed, count, variation_strength: strength, variation_seed: variation } = jobs().at(-1);
  assert.deepEqual({ seed, count, strength, variation }, { seed: 7, count: 2, strength: 0.25, variation: 30 });
  await draw({ prompt: 'varied', variation_strength: 0.25 });
  assert.ok(Number.isInteger(jobs().at(-1).variation_seed), 'drawn in the server, for a second run must draw the same');
});

test('an UTF-8 prompt survives the way there and back', async () => {
  const prompt = 'Füchse 🦊 im „Schnee“\nzweite Zeile';
  const { json } = await draw({ prompt });
  assert.equal(jobs().at(-1).prompt, prompt);
  assert.ok(readPng(Buffer.from(json.data[0].b64_json, 'base64')).texts.parameters.startsWith(prompt));
});

test('a stream: steps as comments, each picture as one event', async () => {
  const res = await server.post('/v1/images/generations', { prompt: 'streamed', n: 2, stream: true, partial_images: 2, seed: 5 });
  assert.match(res.headers.get('content-type'), /text\/event-stream/);
  assert.match(res.headers.get('x-mysti-job'), /^job-/);
  const events = [];
  for await (const event of sseEvents(res)) events.push(event);
  const pictures = events.filter((e) => e.event === 'image_generation.completed').map((e) => JSON.parse(e.data));
  for (const picture of pictures) checkSchema('ImageCompletedEvent', picture);
  assert.deepEqual(pictures.map((p) => [p.index, p.seed]), [[0, 5], [1, 6]]);
  assert.equal(readPng(Buffer.from(pictures[0].b64_json, 'base64')).width, 128);
  const comments = events.filter((e) => e.comment).map((e) => e.comment);
  assert.ok(comments.includes('picture 1/2 step 1/4'), comments.join(' | '));
  assert.ok(comments.includes('picture 2/2 step 4/4'), comments.join(' | '));
  assert.ok(!events.some((e) => e.data === '[DONE]'));
  const partial = events.filter((e) => e.event === 'image_generation.partial_image').map((e) => JSON.parse(e.data));
  for (const preview of partial) checkSchema('ImagePartialEvent', preview);
  assert.deepEqual(partial.map((p) => [p.index, p.partial_image_index]), [[0, 0], [0, 1], [1, 0], [1, 1]], 'as many as were asked for');
  assert.equal(readPng(Buffer.from(partial[0].b64_json, 'base64')).width, 16);
});

test('previews are made for nobody who did not ask', async () => {
  const res = await server.post('/v1/images/generations', { prompt: 'plain', stream: true });
  const events = [];
  for await (const { event } of sseEvents(res)) if (event) events.push(event);
  assert.deepEqual(events, ['image_generation.completed']);
  assert.equal('preview_ms' in JSON.parse(server.requests('sd', '/internal/generate').at(-1).body), false);
  const { status, json } = await draw({ prompt: 'x', partial_images: 99 });
  assert.equal(status, 400);
  assert.match(json.error.message, /partial_images/);
});

test('a request that names another model has it loaded first', async () => {
  const { json } = await draw({ prompt: 'x', model: 'other' });
  assert.equal(json.model, 'other.safetensors');
  assert.equal((await draw({ prompt: 'x' })).json.model, 'other.safetensors', 'and it stays');
  assert.equal((await draw({ prompt: 'x', model: 'starter-painter.safetensors' })).json.model, 'starter-painter.safetensors');
});

test('a stream while the model loads gets 200 and comments, a whole answer waits', async (t) => {
  const slow = await startServer(t, { sd: { load_ms: 2300 }, ready: [] });
  const whole = slow.postJson('/v1/images/generations', { prompt: 'whole' });
  const res = await slow.post('/v1/images/generations', { prompt: 'streamed', stream: true });
  assert.equal(res.status, 200);
  const comments = [];
  let picture;
  for await (const event of sseEvents(res)) {
    if (event.comment) comments.push(event.comment);
    if (event.data) picture = JSON.parse(event.data);
  }
  assert.ok(comments.includes('queue position=1'), comments.join(' | '));
  assert.equal(picture.type, 'image_generation.completed');
  assert.equal((await whole).status, 200);
});

test('a long step is not a dead connection: something is heard every few seconds', async (t) => {
  const slow = await startServer(t, { sd: { step_ms: 6500 } });
  const begun = Date.now();
  const heard = [];
  for await (const event of sseEvents(await slow.post('/v1/images/generations', { prompt: 'x', steps: 1, stream: true })))
    if (event.comment) heard.push(event.at - begun);
  assert.ok(heard.some((at) => at > 4500 && at < 6500), `heard after ${heard} ms`);
});

test('after all of it nothing is running and nothing waits', async () => {
  await until('idle', async () => (await server.getJson('/v1/progress')).json.phase === 'idle');
  assert.equal((await server.worker('sd')).busy, false);
});
