// The picture worker by itself: the real process, the real engine, a tiny model with random weights.
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { chmodSync, mkdirSync, mkdtempSync, readFileSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { decodePng } from '../support/decode_png.mjs';
import { startPictureWorker, takeApart, workerProgram } from '../support/picture_worker.mjs';
import { makePng } from '../support/png.mjs';
import { freePort, until } from '../support/server.mjs';
import { writeTinyEmbedding, writeTinyLora, writeTinyPainter, writeTinyUpscaler, writeTinyTaesd, writeTinyVae } from '../support/tiny_painter.mjs';

let folder;
let model;
const long = { prompt: 'a long one', width: 256, height: 256, steps: 150, count: 16, seed: 1 };

before(() => {
  folder = mkdtempSync(join(tmpdir(), 'mysti-sd-'));
  chmodSync(folder, 0o755);
  model = writeTinyPainter(join(folder, 'tiny.safetensors'));
});
after(() => rmSync(folder, { recursive: true, force: true }));

async function ready(t, options) {
  const worker = await startPictureWorker(t, options);
  await until('the engine is open', async () => (await worker.health()).backend);
  const { status, body } = await worker.json('POST', '/internal/load', { path: model });
  assert.equal(status, 200, JSON.stringify(body));
  worker.facts = body;
  return worker;
}

const pixels = ({ images }) => Buffer.from(decodePng(images[0].png).rgb);

test('nothing is answered without the token', async (t) => {
  const worker = await startPictureWorker(t);
  for (const token of [null, '', 'wrong', 'a-secret-of-this-tes', 'a-secret-of-this-test2', 'A-secret-of-this-test']) {
    for (const [method, path] of [['GET', '/internal/health'], ['POST', '/internal/generate'], ['GET', '/nowhere']]) {
      const { status, body } = await worker.json(method, path, undefined, token);
      assert.equal(status, 401);
      assert.deepEqual(Object.keys(body.error).sort(), ['code', 'message', 'param', 'type']);
    }
  }
  assert.equal((await worker.json('GET', '/internal/health')).status, 200);
});

test('the token stands neither in argv nor in the environment that others may read', async (t) => {
  const worker = await startPictureWorker(t);
  const pid = worker.child.pid;
  assert.ok(!readFileSync(`/proc/${pid}/cmdline`, 'latin1').includes(worker.token));
  assert.ok(!readFileSync(`/proc/${pid}/environ`, 'latin1').includes(worker.token));
  assert.equal(readFileSync(`/proc/${pid}/comm`, 'latin1').trim(), 'mysti_sd_worker');
});

test('without a token or with wrong options it says so and does not start', async () => {
  const cases = [
    [[], {}, 1, /MYSTI_WORKER_TOKEN is not set/],
    [['--listen-prot', '3'], { MYSTI_WORKER_TOKEN: 'x' }, 2, /perhaps --listen-port/],
    [['--listen-port', '70000'], { MYSTI_WORKER_TOKEN: 'x' }, 2, /65535/],
    [['--sharing', 'fast'], { MYSTI_WORKER_TOKEN: 'x' }, 2, /text-first, equal or image-first/],
    [['extra'], { MYSTI_WORKER_TOKEN: 'x' }, 2, /extra/],
    [[], { MYSTI_WORKER_TOKEN: 'x', MYSTI_SERVER_PID: '1' }, 1, /server .* is gone/],
  ];
  for (const [args, env, code, text] of cases) {
    const child = spawn(workerProgram, args, { env: { PATH: process.env.PATH, ...env }, stdio: ['ignore', 'pipe', 'pipe'] });
    let log = '';
    child.stderr.on('data', (d) => (log += d));
    const exit = await new Promise((done) => child.on('close', done));
    assert.equal(exit, code, log);
    assert.match(log, text);
  }
});

test('a taken port is one line and exit code 1', async (t) => {
  const worker = await startPictureWorker(t, { args: ['--listen-port', String(await freePort())] });
  const child = spawn(workerProgram, ['--listen-port', String(worker.port)],
    { env: { ...process.env, MYSTI_WORKER_TOKEN: 'x' }, stdio: ['ignore', 'pipe', 'pipe'] });
  let log = '';
  child.stderr.on('data', (d) => (log += d));
  assert.equal(await new Promise((done) => child.on('close', done)), 1);
  assert.match(log, new RegExp(String(worker.port)));
});

test('a model is loaded, draws, and is unloaded', async (t) => {
  const worker = await startPictureWorker(t);
  await until('the engine is open', async () => (await worker.health()).backend);
  assert.equal((await worker.health()).state, 'empty');
  assert.equal((await worker.draw({ prompt: 'x' })).status, 503);
  const { body: facts } = await worker.json('POST', '/internal/load', { path: model });
  assert.equal(facts.model, model);
  assert.equal(facts.family, 'sd1');
  assert.equal(facts.prediction, 'eps');
  assert.deepEqual([facts.default_width, facts.default_height, facts.default_steps, facts.default_cfg_scale], [64, 64, 4, 5]);
  assert.equal(facts.default_sampler, 'euler');
  assert.ok(facts.parameters > 800000 && facts.resident_bytes > 0);
  let health = await worker.health();
  assert.deepEqual([health.state, health.model, health.error], ['ready', model, null]);

  const { status, type, events, images } = await worker.draw({ prompt: 'a red circle', seed: 42 });
  assert.equal(status, 200);
  assert.equal(type, 'application/x-ndjson');
  assert.deepEqual(events.filter((e) => e.event === 'phase').map((e) => e.phase), ['encode', 'sample', 'decode']);
  assert.deepEqual(events.filter((e) => e.event === 'step').map((e) => [e.step, e.steps, e.image]), [[1, 4, 0], [2, 4, 0], [3, 4, 0], [4, 4, 0]]);
  assert.equal(events.at(-1).event, 'done');
  assert.ok(events.at(-1).elapsed_ms >= events.find((e) => e.step === 4).elapsed_ms);
  const [{ head, png }] = images;
  assert.deepEqual([head.index, head.seed, head.width, head.height], [0, 42, 64, 64]);
  assert.match(head.parameters, /^a red circle\nSteps: 4, Sampler: Euler, Schedule type: Normal, CFG scale: 5, Seed: 42, Size: 64x64, Model: tiny, RNG: NV, Version: Mysti /);
  const picture = decodePng(png);
  assert.deepEqual([picture.width, picture.height], [64, 64]);
  assert.ok(png.includes(`tEXtparameters\0${head.parameters}`));

  assert.equal((await worker.json('POST', '/internal/unload')).status, 200);
  health = await worker.health();
  assert.deepEqual([health.state, health.model], ['empty', null]);
});

test('the same seed draws the same picture, count counts seeds up, a job says what it asked for', async (t) => {
  const worker = await ready(t);
  const one = await worker.draw({ prompt: 'a', seed: 7 });
  const again = await worker.draw({ prompt: 'a', seed: 7 });
  const two = await worker.draw({ prompt: 'a', seed: 6, count: 2 });
  const other = await worker.draw({ prompt: 'b', seed: 7 });
  assert.ok(one.images[0].png.equals(again.images[0].png));
  assert.deepEqual(two.images.map((i) => [i.head.index, i.head.seed]), [[0, 6], [1, 7]]);
  const pixels = (image) => Buffer.from(decodePng(image.png).rgb);
  assert.ok(pixels(two.images[1]).equals(pixels(one.images[0])));
  assert.ok(!pixels(two.images[0]).equals(pixels(one.images[0])));
  assert.ok(!pixels(other.images[0]).equals(pixels(one.images[0])));
  const all = await worker.draw({ prompt: 'ünï 猫', negative_prompt: 'c', width: 128, height: 64, steps: 2, cfg_scale: 1.5, seed: 5, sampler: 'DPM++ 2M Karras', rng: 'cpu' });
  assert.equal(all.images[0].head.parameters.split(', Model')[0],
    'ünï 猫\nNegative prompt: c\nSteps: 2, Sampler: DPM++ 2M, Schedule type: Karras, CFG scale: 1.5, Seed: 5, Size: 128x64');
  const random = [await worker.draw({ prompt: 'a' }), await worker.draw({ prompt: 'a', seed: -1 })];
  assert.notEqual(random[0].images[0].head.seed, random[1].images[0].head.seed);
  const wordy = await worker.draw({ prompt: `${'a '.repeat(100)} b`, seed: 7 });
  const wordier = await worker.draw({ prompt: `${'a '.repeat(100)} c`, seed: 7 });
  assert.ok(!pixels(wordy.images[0]).equals(pixels(wordier.images[0])), 'the 101st token counts');
  const skipped = await worker.draw({ prompt: 'a', seed: 7, clip_skip: 2 });
  assert.ok(!pixels(skipped.images[0]).equals(pixels(one.images[0])));
  assert.match(skipped.images[0].head.parameters, /, Clip skip: 2,/);
  const heavy = await worker.draw({ prompt: '(a:1.3)', seed: 7 });
  assert.ok(!pixels(heavy.images[0]).equals(pixels(one.images[0])));
});

test('a prompt may change on the way, and several may draw together', async (t) => {
  const worker = await ready(t);
  const pixels = async (prompt, more) => Buffer.from(decodePng((await worker.draw({ prompt, seed: 7, ...more })).images[0].png).rgb);
  const [a, b] = [await pixels('a red circle'), await pixels('two yellow stars')];
  assert.ok((await pixels('[a red circle:two yellow stars:0]')).equals(b));
  assert.ok((await pixels('[a red circle:two yellow stars:1.0]')).equals(a));
  for (const prompt of ['[a red circle:two yellow stars:0.3]', '[a red circle|two yellow stars]', 'a red circle AND two yellow stars']) {
    const picture = await pixels(prompt);
    assert.ok(!picture.equals(a) && !picture.equals(b), prompt);
  }
  assert.ok(!(await pixels('a red circle', { negative_prompt: '[blue|two yellow stars]' })).equals(a));
  const many = await worker.json('POST', '/internal/generate', { prompt: `[${'x|'.repeat(2000)}]` });
  assert.deepEqual([many.status, many.body.error.param], [400, 'prompt']);
  assert.match(many.body.error.message, /more than 1000 alternatives/);
});

test('a job may start from a picture: what the mask leaves alone stays, wrong files get a sentence', async (t) => {
  const worker = await ready(t);
  const path = (name) => join(folder, name);
  const plain = (await worker.draw({ prompt: 'a', seed: 7 })).images[0].png;
  writeFileSync(path('image.png'), plain);
  writeFileSync(path('mask.png'), makePng({ width: 64, height: 64 })); // grey, darker than half: mostly kept
  writeFileSync(path('text.png'), 'no picture');
  const start = (more) => ({ prompt: 'b', seed: 7, start: { image: path('image.png'), ...more } });

  const moved = await worker.draw(start({ strength: 0.5 }));
  assert.deepEqual(moved.events.filter((e) => e.event === 'step').map((e) => [e.step, e.steps]), [[1, 3], [2, 3], [3, 3]]);
  assert.match(moved.images[0].head.parameters, /Denoising strength: 0.5/);
  const pixels = (png) => Buffer.from(decodePng(png).rgb);
  assert.ok(!pixels(moved.images[0].png).equals(pixels(plain)));
  writeFileSync(path('wide.png'), makePng({ width: 300, height: 75 }));
  const wide = await worker.draw(start({ image: path('wide.png') })); // its proportions, with as many pixels as the model's own size
  assert.match(wide.images[0].head.parameters, /Size: 128x32/);
  assert.match((await worker.draw({ ...start({ image: path('wide.png') }), width: 64, height: 64 })).images[0].head.parameters, /Size: 64x64/);
  const { body: with_ } = await worker.json('POST', '/internal/estimate', start({}));
  const { body: without } = await worker.json('POST', '/internal/estimate', { prompt: 'b' });
  assert.ok(with_.peak_bytes > without.peak_bytes);

  const cases = [
    [{ image: path('text.png') }, null, /neither PNG nor JPEG nor WebP/], [{ image: path('none.png') }, 'image', /none\.png/],
    [{ image: 'image.png' }, 'image', /absolute/], [{ image: null }, 'image', /no 'image'/],
    [{ mask: path('text.png') }, null, /the mask/], [{ mask: path('none.png') }, 'mask', /none\.png/],
    [{ strength: 2 }, 'strength', /0 to 1/], [{ fill: 'glitter' }, 'inpainting_fill', /latent noise/],
    [{ crop: 'yes' }, 'crop', /true or false/], [{ padding: 1e6 }, 'padding', /2048/], [{ mask_blur: 300 }, 'mask_blur', /256/],
  ];
  for (const [more, param, text] of cases) {
    const { status, body } = await worker.json('POST', '/internal/generate', start(more));
    assert.ok(status === 400 || status === 404, JSON.stringify(body));
    assert.equal(body.error.param, param, JSON.stringify(body));
    assert.match(body.error.message, text);
  }
  assert.equal((await worker.json('POST', '/internal/generate', { prompt: 'x', start: 'there' })).body.error.param, 'start');
  assert.equal((await worker.health()).state, 'ready');
});

test('previews come while it draws when they are asked for, and change nothing', async (t) => {
  const worker = await ready(t);
  const plain = await worker.draw({ prompt: 'a', seed: 7 });
  assert.equal(plain.previews.length, 0);
  const watched = await worker.draw({ prompt: 'a', seed: 7, preview_ms: 0, count: 2 });
  assert.deepEqual(watched.previews.map(({ head }) => [head.image, head.step, head.steps, head.width, head.height]),
    [[0, 1, 4, 8, 8], [0, 2, 4, 8, 8], [0, 3, 4, 8, 8], [1, 1, 4, 8, 8], [1, 2, 4, 8, 8], [1, 3, 4, 8, 8]]);
  for (const { png } of watched.previews) assert.deepEqual([decodePng(png).width, decodePng(png).height], [8, 8]);
  assert.ok(watched.images[0].png.equals(plain.images[0].png));
  const rare = await worker.draw({ prompt: 'a', seed: 7, preview_ms: 60000, count: 2 });
  assert.equal(rare.previews.length, 1);
});

test('--weights int8: fewer bytes of the model stay in memory, and it draws nearly the same', async (t) => {
  const whole = await ready(t), rounded = await ready(t, { args: ['--weights', 'int8'] });
  assert.ok(rounded.facts.resident_bytes < whole.facts.resident_bytes, `${rounded.facts.resident_bytes} and ${whole.facts.resident_bytes}`);
  const [a, b] = await Promise.all([whole, rounded].map((w) => w.draw({ prompt: 'a', seed: 7 })));
  const [x, y] = [a, b].map(({ images }) => decodePng(images[0].png).rgb);
  const difference = x.reduce((sum, v, i) => sum + Math.abs(v - y[i]), 0) / x.length;
  assert.ok(difference > 0 && difference < 20, `${difference} of 255 on average`);
});

test('previews by TAESD are pictures, where its file is there', async (t) => {
  const vaes = join(folder, 'previews');
  mkdirSync(vaes, { recursive: true });
  const args = ['--vae-dir', vaes, '--preview-method', 'taesd'];
  const ask = { prompt: 'a', seed: 7, preview_ms: 0 };
  const without = await (await ready(t, { args })).draw(ask);
  assert.deepEqual(without.previews.map(({ png }) => decodePng(png).width), [8, 8, 8]);
  writeTinyTaesd(join(vaes, 'taesd.safetensors'));
  const drawn = await (await ready(t, { args })).draw(ask);
  assert.deepEqual(drawn.previews.map(({ head, png }) => [head.width, decodePng(png).width]), [[64, 64], [64, 64], [64, 64]]);
  assert.ok(drawn.images[0].png.equals(without.images[0].png));
});

test('a wrong job is refused with its field, and nothing starts', async (t) => {
  const worker = await ready(t);
  const cases = [
    [{}, 'prompt', /prompt/], [{ prompt: 3 }, 'prompt', /string/],
    [{ prompt: 'x', width: 100 }, 'width', /multiple of 8/], [{ prompt: 'x', height: 1 << 20 }, 'height', /2048/],
    [{ prompt: 'x', width: 0 }, 'width', /0/], [{ prompt: 'x', steps: 0 }, 'steps', /0/],
    [{ prompt: 'x', steps: 1e30 }, 'steps', /whole/], [{ prompt: 'x', steps: 2.5 }, 'steps', /whole/],
    [{ prompt: 'x', count: -3 }, 'count', /range/], [{ prompt: 'x', cfg_scale: 'a' }, 'cfg_scale', /number/],
    [{ prompt: 'x', cfg_scale: -1 }, 'cfg_scale', /number/], [{ prompt: 'x', seed: 'a' }, 'seed', /whole/],
    [{ prompt: 'x', sampler: 'dpm_slow' }, 'sampler', /euler, euler_a, heun/], [{ prompt: 'x', clip_skip: 99 }, 'clip_skip', /clip_skip is 99, 1 to \d+ are possible/], [{ prompt: 'x', dialect: 'latin' }, 'dialect', /a1111 and comfy/],
    [{ prompt: 'x', eta: 'much' }, 'eta', /number/], [{ prompt: 'x', s_noise: 11 }, 's_noise', /0 to 10/],
    [{ prompt: 'x', scheduler: 'bong_tangent' }, 'scheduler', /normal, simple, karras/], [{ prompt: 'x', rng: 'dice' }, 'rng', /nv/],
    [{ prompt: 'x', prediction: 'flow' }, 'prediction', /eps and v/], [{ prompt: 'x', crop_top: 99999 }, 'crop_top', /16384/],
  ];
  for (const [job, param, text] of cases) {
    const { status, body } = await worker.json('POST', '/internal/generate', job);
    assert.equal(status, 400, JSON.stringify(job));
    assert.equal(body.error.param, param, JSON.stringify(body));
    assert.match(body.error.message, text);
  }
  const broken = await worker.json('POST', '/internal/generate', '{"prompt": "x",\n oops}');
  assert.equal(broken.status, 400);
  assert.match(broken.body.error.message, /line 2/);
  assert.equal((await worker.json('POST', '/internal/generate', '[1]')).status, 400);
  assert.equal((await worker.json('POST', '/internal/generate', `{"prompt":"${'x'.repeat(2 << 20)}"}`)).status, 413);
  assert.equal((await worker.json('GET', '/internal/nothing')).status, 404);
  assert.equal((await worker.json('GET', '/internal/generate')).status, 405);
  assert.equal((await worker.health()).state, 'ready');
});

test('one job at a time; health answers at once meanwhile', async (t) => {
  const worker = await ready(t);
  const job = await worker.open('POST', '/internal/generate', long);
  await new Promise((done) => job.once('data', done));
  job.resume();
  const waits = [];
  for (let i = 0; i < 40; i++) {
    const began = performance.now();
    const health = await worker.health();
    waits.push(performance.now() - began);
    assert.equal(health.state, 'busy');
    await sleep(10);
  }
  assert.ok(Math.max(...waits) < 100, `health took up to ${Math.max(...waits)} ms`);
  await until('a step is done', async () => (await worker.health()).progress > 0);
  for (const [path, body] of [['generate', { prompt: 'x' }], ['load', { path: model }], ['unload', undefined], ['estimate', {}]]) {
    const { status, body: answer } = await worker.json('POST', `/internal/${path}`, body);
    assert.equal(status, 409);
    assert.equal(answer.error.code, 'busy');
  }
  job.destroy();
});

test('a client that leaves cancels its job', async (t) => {
  const worker = await ready(t);
  const job = await worker.open('POST', '/internal/generate', long);
  await new Promise((done) => job.once('data', done));
  job.destroy();
  const began = performance.now();
  await until('the worker is free', async () => (await worker.health()).state === 'ready', 2000);
  assert.ok(performance.now() - began < 1000);
  assert.equal((await worker.draw({ prompt: 'x' })).events.at(-1).event, 'done');
});

test('POST /internal/cancel ends the stream with an error event', async (t) => {
  const worker = await ready(t);
  assert.deepEqual((await worker.json('POST', '/internal/cancel')).body, { cancelled: false });
  const job = await worker.open('POST', '/internal/generate', long);
  const parts = [];
  const end = new Promise((done) => job.on('data', (d) => parts.push(d)).on('end', done));
  await until('the job has begun', () => parts.length);
  assert.deepEqual((await worker.json('POST', '/internal/cancel')).body, { cancelled: true });
  await end;
  const last = takeApart(Buffer.concat(parts)).events.at(-1);
  assert.equal(last.event, 'error');
  assert.equal(last.error.code, 'cancelled');
  assert.equal((await worker.health()).state, 'ready');
});

test('the memory of a job is known before it runs', async (t) => {
  const worker = await ready(t);
  const { status, body: small } = await worker.json('POST', '/internal/estimate', { width: 64, height: 64 });
  assert.equal(status, 200);
  const { body: large } = await worker.json('POST', '/internal/estimate', { width: 512, height: 512 });
  assert.ok(large.peak_bytes > small.peak_bytes + 10e6, JSON.stringify({ small, large }));
  assert.ok(small.peak_bytes > small.resident_bytes && small.resident_bytes > 0);
  const refused = await worker.json('POST', '/internal/estimate', { width: 63 });
  assert.equal(refused.status, 400);
});

test('a broken file is one sentence, and the model before it stays', async (t) => {
  const worker = await ready(t);
  const whole = readFileSync(model);
  const at = (name) => join(folder, name);
  const head = (text) => {
    const length = Buffer.alloc(8);
    length.writeBigUInt64LE(BigInt(text.length));
    return Buffer.concat([length, Buffer.from(text)]);
  };
  writeFileSync(at('cut.safetensors'), whole.subarray(0, whole.length - 1000));
  writeFileSync(at('cut-head.safetensors'), whole.subarray(0, 500));
  writeFileSync(at('empty.safetensors'), '');
  writeFileSync(at('absurd.safetensors'), Buffer.concat([Buffer.alloc(8, 0xff), whole.subarray(8, 1000)]));
  writeFileSync(at('text.safetensors'), 'this is not a model, only a text with a misleading name');
  writeFileSync(at('nojson.safetensors'), head('{"a": {"dtype": "F32", '));
  writeFileSync(at('overlap.safetensors'), head('{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4294967296]}}'));
  writeTinyPainter(at('shape.safetensors'), (shapes) => (shapes['model.diffusion_model.middle_block.1.proj_in.weight'] = [32, 31, 1, 1]));
  writeTinyPainter(at('missing.safetensors'), (shapes) => delete shapes['model.diffusion_model.out.2.weight']);
  writeTinyPainter(at('meta.safetensors'), (_, meta) => (meta['mysti.prediction'] = 'x0'));
  writeFileSync(at('gguf.gguf'), Buffer.concat([Buffer.from('GGUF'), Buffer.alloc(60, 0xee)]));
  mkdirSync(at('folder.safetensors'));
  const files = ['cut', 'cut-head', 'empty', 'absurd', 'text', 'nojson', 'overlap', 'shape', 'missing', 'meta', 'folder'];
  for (const name of [...files.map((f) => `${f}.safetensors`), 'gguf.gguf']) {
    const { status, body } = await worker.json('POST', '/internal/load', { path: at(name) });
    assert.equal(status, 400, `${name}: ${JSON.stringify(body)}`);
    assert.ok(body.error.message.length > 20 && !body.error.message.includes('\n'), `${name}: ${body.error.message}`);
    const health = await worker.health();
    assert.equal(health.model, model);
    assert.equal(health.error, body.error.message);
  }
  const gone = await worker.json('POST', '/internal/load', { path: at('nowhere.safetensors') });
  assert.equal(gone.status, 404);
  assert.equal((await worker.json('POST', '/internal/load', { path: 'relative' })).status, 400);
  assert.equal((await worker.draw({ prompt: 'still there' })).images.length, 1);
  await worker.json('POST', '/internal/load', { path: model });
  assert.equal((await worker.health()).error, null);
});

test('--model loads at the start; a broken one leaves the worker up and says why', async (t) => {
  const good = await startPictureWorker(t, { args: ['--model', model] });
  await until('the model is there', async () => (await good.health()).state === 'ready');
  const bad = await startPictureWorker(t, { args: ['--model', join(folder, 'none.safetensors')] });
  await until('the load has failed', async () => (await bad.health()).error);
  assert.equal((await bad.health()).state, 'empty');
});

// The place of every thread in the scheduler, from /proc: [class, nice]; 0 is the ordinary class, 3 batch.
function places(pid) {
  return readdirSync(`/proc/${pid}/task`).flatMap((id) => {
    try {
      const stat = readFileSync(`/proc/${pid}/task/${id}/stat`, 'latin1');
      const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
      const name = stat.slice(stat.indexOf('(') + 1, stat.lastIndexOf(')'));
      return [{ id: Number(id), name, place: [Number(fields[38]), Number(fields[16])] }];
    } catch {
      return []; // it has ended meanwhile
    }
  });
}

const computePlaces = (worker) => places(worker.child.pid).filter((th) => th.name === 'compute').map((th) => th.place);
const share = (worker, policy, more) => worker.json('POST', '/internal/sharing', { policy, text_running: true, ...more });
const GIVES_WAY = [3, 12];
const EQUAL = [0, 0];

test('compute threads take the place of the policy, the HTTP thread stays', async (t) => {
  for (const [args, place] of [[[], GIVES_WAY], [['--sharing', 'equal'], EQUAL], [['--sharing', 'image-first'], EQUAL]]) {
    const worker = await ready(t, { args: [...args, '--threads', '2'] });
    for (const own of computePlaces(worker)) assert.deepEqual(own, EQUAL, 'a model loads at full weight');
    await worker.draw({ prompt: 'x', steps: 1 });
    const main = places(worker.child.pid).filter((th) => th.id === worker.child.pid);
    assert.deepEqual(main.map((th) => th.place), [EQUAL]);
    const compute = computePlaces(worker); // helpers inherit the name
    assert.ok(compute.length >= 1);
    for (const own of compute) assert.deepEqual(own, place);
  }
});

test('a policy that changes holds at once downwards, by the next picture upwards, also without privileges', async (t) => {
  const worker = await ready(t, { args: ['--sharing', 'equal', '--threads', '2'], unprivileged: true });
  const job = await worker.open('POST', '/internal/generate', long);
  await new Promise((done) => job.once('data', done));
  job.resume().on('error', () => {});
  assert.deepEqual([...new Set(computePlaces(worker).map(String))], [String(EQUAL)]);
  assert.equal((await share(worker, 'text-first', { rest_percent: 0 })).status, 200);
  assert.deepEqual([...new Set(computePlaces(worker).map(String))], [String(GIVES_WAY)]);
  assert.equal((await worker.health()).sharing, 'text-first');
  job.destroy();
  await until('it is free', async () => (await worker.health()).state === 'ready');
  await share(worker, 'image-first');
  const { images } = await worker.draw({ prompt: 'x', steps: 1, seed: 3 });
  await until('the old threads have gone', () => computePlaces(worker).every((p) => String(p) === String(EQUAL)));
  await share(worker, 'text-first');
  const again = await worker.draw({ prompt: 'x', steps: 1, seed: 3 });
  assert.deepEqual([...new Set(computePlaces(worker).map(String))], [String(GIVES_WAY)]);
  assert.ok(again.images[0].png.equals(images[0].png), 'another thread, the same picture');
  await worker.json('POST', '/internal/load', { path: model });
  assert.ok(computePlaces(worker).some((p) => String(p) === String(EQUAL)), 'a model loads at full weight');
});

test('between its steps it rests while text runs, and ends a rest when text ends or the picture is cancelled', async (t) => {
  const worker = await ready(t, { args: ['--backend', 'ref'] }); // slow steps: rests of seconds
  const big = { ...long, width: 512, height: 512, count: 1, steps: 3 };
  const rests = () => until('it rests', async () => (await worker.health()).resting);
  const works = () => until('it works on', async () => !(await worker.health()).resting, 1000);
  await share(worker, 'text-first', { rest_percent: 90 });
  const job = worker.draw(big);
  await rests();
  await share(worker, 'text-first', { rest_percent: 90, text_running: false });
  await works();
  assert.equal((await job).events.at(-1).event, 'done');

  await share(worker, 'text-first', { rest_percent: 90 });
  const second = worker.draw(big);
  await rests();
  await worker.json('POST', '/internal/cancel');
  await works();
  assert.equal((await second).events.at(-1).error.code, 'cancelled');

  await share(worker, 'text-first'); // on a processor, weights do it
  let rested = false;
  const third = worker.draw(big);
  while (!(await Promise.race([third, sleep(5)]))) rested ||= (await worker.health()).resting;
  assert.equal(rested, false);
});

test('a wrong word about sharing is refused and changes nothing', async (t) => {
  const worker = await ready(t);
  for (const [body, text] of [['{', /policy/], [{ policy: 'fair', text_running: true }, /image-first/], [{ policy: 'equal' }, /text_running/],
    [{ policy: 'equal', text_running: 1 }, /text_running/], [{ policy: 'equal', text_running: true, rest_percent: 100 }, /0 to 90/],
    [{ policy: 'equal', text_running: true, rest_percent: 'a' }, /0 to 90/]]) {
    const { status, body: answer } = await worker.json('POST', '/internal/sharing', body);
    assert.equal(status, 400, JSON.stringify(body));
    assert.match(answer.error.message, text);
    assert.equal((await worker.health()).sharing, 'text-first');
  }
});

test('LoRAs are laid over the loaded model, counted, and taken off bit for bit', async (t) => {
  const loras = join(folder, 'loras');
  mkdirSync(join(loras, 'styles'), { recursive: true });
  writeTinyLora(join(loras, 'styles', 'tiny-ink.safetensors'));
  writeTinyLora(join(loras, 'wide.safetensors'), (shapes) =>
    Object.assign(shapes, { 'lora_unet_middle_block_1_transformer_blocks_0_attn1_to_q.lora_up.weight': [640, 2] }));
  writeFileSync(join(loras, 'torn.safetensors'), 'no more than this');
  const worker = await ready(t, { args: ['--lora-dir', '/nowhere', '--lora-dir', loras] });
  const ask = { prompt: 'a boat', seed: 3 };
  const plain = await worker.draw(ask);
  const inked = await worker.draw({ ...ask, prompt: 'a boat <lora:tiny-ink:0.5:2>' });
  assert.equal(inked.status, 200, JSON.stringify(inked.body));
  assert.deepEqual(inked.events.filter((e) => e.event === 'lora'), [{ event: 'lora', name: 'tiny-ink', text: 0.5, unet: 2,
    matched: 6, unmatched: 1, first_unmatched: 'lora_te2_text_model_encoder_layers_0_mlp_fc1.alpha' }]);
  assert.ok(!pixels(inked).equals(pixels(plain)));
  assert.match(inked.images[0].head.parameters, /^a boat <lora:tiny-ink:0\.5:2>\n/, 'the picture tells how it was made');
  assert.ok(pixels(await worker.draw(ask)).equals(pixels(plain)));
  assert.ok(pixels(await worker.draw({ ...ask, prompt: 'a <lora:styles/tiny-ink:0.5:2>boat' })).equals(pixels(inked)));
  for (const [prompt, sentence] of [
    ['<lora:tiny-inc>', /no LoRA 'tiny-inc' in the LoRA folder, which has 3; perhaps 'tiny-ink'/],
    ['<lora:../tiny>', /not a path to somewhere else/],
    ['<lora:tiny-ink:strong>', /strength 'strong'/],
    ['<lora:wide>', /LoRA 'wide'.*640 x 32 values.*has 32 x 32/],
    ['<lora:torn>', /LoRA 'torn'/]]) {
    const { status, body } = await worker.draw({ ...ask, prompt });
    assert.equal(status, 400, prompt);
    assert.equal(body.error.param, 'prompt');
    assert.match(body.error.message, sentence);
  }
  assert.ok(pixels(await worker.draw(ask)).equals(pixels(plain)));
});

test('variations: from the picture of one seed towards that of another; a list of seeds', async (t) => {
  const worker = await ready(t);
  const draw = (job) => worker.draw({ prompt: 'a', ...job });
  const from = await draw({ seed: 7 });
  const to = await draw({ seed: 20 });
  const near = await draw({ seed: 7, variation_strength: 0.1, variation_seed: 20, count: 2 });
  const all = await draw({ seed: 7, variation_strength: 1, variation_seed: 20 });
  assert.ok(pixels(await draw({ seed: 7, variation_strength: 0, variation_seed: 20 })).equals(pixels(from)));
  assert.deepEqual(near.images.map(({ head }) => head.seed), [7, 7]);
  assert.match(near.images[1].head.parameters, /Variation seed: 21, Variation seed strength: 0.1/);
  const distance = (a, b) => pixels(a).reduce((sum, v, i) => sum + Math.abs(v - pixels(b)[i]), 0);
  assert.ok(!pixels(near).equals(pixels(from)) && distance(near, from) < distance(near, to) / 2);
  assert.ok(distance(all, to) * 100 < distance(all, from), 'at 1 it is the other one');
  const listed = await draw({ seeds: [20, 7], count: 2 });
  assert.deepEqual(listed.images.map(({ head }) => head.seed), [20, 7]);
  assert.ok(pixels(listed).equals(pixels(to)));
  for (const [job, param, sentence] of [[{ variation_strength: 2 }, 'variation_strength', /is 2, 0 to 1/],
    [{ seeds: [1], count: 2 }, 'seeds', /list of 2/], [{ seeds: ['a'], count: 1 }, 'seeds', /whole/], [{ seeds: [-3], count: 1 }, 'seed', /is -3/]]) {
    const { status, body } = await draw(job);
    assert.equal(status, 400, JSON.stringify(job));
    assert.equal(body.error.param, param);
    assert.match(body.error.message, sentence);
  }
});

test('hires fix: drawn, made larger, drawn over; one job with the steps of both', async (t) => {
  const upscalers = join(folder, 'hires-upscalers');
  mkdirSync(upscalers);
  writeTinyUpscaler(join(upscalers, 'tiny-x4.safetensors'));
  const worker = await ready(t, { args: ['--upscaler-dir', upscalers] });
  const draw = (hires) => worker.draw({ prompt: 'a', seed: 7, steps: 3, width: 64, height: 64, hires });
  const seen = [];
  for (const upscaler of [undefined, 'latent-nearest', 'lanczos', 'tiny-x4']) {
    const drawn = await draw({ scale: 1.5, steps: 2, strength: 0.5, ...(upscaler && { upscaler }) });
    assert.equal(drawn.status, 200, JSON.stringify(drawn.body));
    assert.deepEqual([drawn.images[0].head.width, drawn.images[0].head.height], [96, 96]);
    assert.deepEqual(drawn.events.filter((e) => e.event === 'step').map((e) => [e.step, e.steps]), [1, 2, 3, 4, 5].map((s) => [s, 5]));
    assert.ok(drawn.events.some((e) => e.phase === 'upscale'));
    assert.match(drawn.images[0].head.parameters, /Size: 64x64.*Denoising strength: 0.5, Hires upscale: 1.5, Hires steps: 2, Hires upscaler: /);
    assert.ok(!seen.includes(pixels(drawn).toString('hex')), upscaler);
    seen.push(pixels(drawn).toString('hex'));
  }
  assert.match((await draw({ scale: 2, upscaler: 'none' })).body.error.message, /no upscaler 'none'/);
  assert.match((await draw({ scale: 2, upscaler: '/etc/passwd' })).body.error.message, /no path/);
  assert.match((await draw({ scale: 20 })).body.error.message, /scale up to 8/);
  assert.match((await draw(2)).body.error.message, /an object/);
  const peak = async (job) => (await worker.json('POST', '/internal/estimate', { prompt: 'a', width: 64, height: 64, ...job })).body.peak_bytes;
  assert.ok(await peak({ hires: { scale: 2 } }) >= await peak({ width: 128, height: 128 }));
});

test('a picture is made larger, with a network or without one, whether a model is loaded or not', async (t) => {
  const upscalers = join(folder, 'upscalers');
  mkdirSync(upscalers);
  writeTinyUpscaler(join(upscalers, 'tiny-x4.safetensors'));
  writeFileSync(join(upscalers, 'torn.safetensors'), 'no more than this');
  const image = join(folder, 'small.png');
  writeFileSync(image, makePng({ width: 200, height: 50, parameters: 'a boat\nSteps: 3' }));
  const worker = await startPictureWorker(t, { args: ['--upscaler-dir', upscalers] });
  await until('the engine is open', async () => (await worker.health()).backend);
  const job = (upscaler, factor) => ({ start: { image }, upscale: { upscaler, ...(factor && { factor }) } });

  const { status, events, images, body } = await worker.draw(job('tiny-x4'));
  assert.equal(status, 200, JSON.stringify(body));
  assert.deepEqual(events.map((e) => e.event), ['phase', 'step', 'step', 'image', 'done'], JSON.stringify(events));
  assert.equal(events[0].phase, 'upscale');
  assert.deepEqual(events.slice(1, 3).map((e) => [e.step, e.steps]), [[1, 2], [2, 2]], '200 pixels are two tiles');
  const [{ head, png }] = images;
  assert.deepEqual([head.width, head.height, head.seed, head.parameters], [800, 200, 0, 'a boat\nSteps: 3']);
  assert.ok(png.includes('Postprocess upscale by: 4, Postprocess upscaler: tiny-x4'));
  const colors = (p) => new Set(Array.from({ length: 100 }, (_, i) => decodePng(p).rgb[3000 * i])).size;
  assert.ok(colors(png) > 1, 'there is something to see');
  assert.equal((await worker.health()).state, 'empty');

  const { body: needs } = await worker.json('POST', '/internal/estimate', job('tiny-x4'));
  assert.equal(needs.resident_bytes, 0);
  assert.ok(needs.peak_bytes > 192 * 50 * 16 * 4 * 4, 'a tile of four channels at the full size');
  assert.ok((await worker.json('POST', '/internal/estimate', job('lanczos', 8))).body.peak_bytes >= 1600 * 400 * 10);

  await worker.json('POST', '/internal/load', { path: model });
  assert.deepEqual((({ width, height }) => [width, height])((await worker.draw(job('Nearest', 1.5))).images[0].head), [300, 75]);
  for (const [ask, param, sentence] of [
    [job('tiny-x3'), 'upscaler', /no upscaler 'tiny-x3' in the upscaler folder, which has 2; perhaps 'tiny-x4'/],
    [job('/etc/passwd'), 'upscaler', /no path to somewhere else/],
    [job('torn'), '', /torn/],
    [job('tiny-x4', 9), 'factor', /1 to 8/],
    [{ upscale: { upscaler: 'lanczos' } }, 'image', /needs a picture/],
    [{ ...job('lanczos'), upscale: 7 }, 'upscale', /an object/],
    [{ ...job('lanczos'), start: { image: '/nowhere' } }, 'image', /nowhere/]]) {
    const { status: code, body: { error } } = await worker.draw(ask);
    assert.ok(code === 400 || code === 404, JSON.stringify(error));
    assert.equal(error.param ?? '', param, JSON.stringify(error));
    assert.match(error.message, sentence);
  }
});

test('a textual inversion is a word of prompts as long as its file is there', async (t) => {
  const embeddings = join(folder, 'embeddings');
  mkdirSync(join(embeddings, 'bad'), { recursive: true });
  const worker = await ready(t, { args: ['--embedding-dir', embeddings] });
  const ask = { prompt: 'a Mine boat', seed: 3 };
  const plain = await worker.draw(ask);
  writeTinyEmbedding(join(embeddings, 'mine.safetensors'));
  writeTinyEmbedding(join(embeddings, 'bad', 'boat.safetensors'), 768); // for another family: the word stays text
  const drawn = await worker.draw(ask);
  assert.equal(drawn.status, 200, JSON.stringify(drawn.body));
  assert.ok(!pixels(drawn).equals(pixels(plain)));
  assert.match(drawn.images[0].head.parameters, /^a Mine boat\n/);
  const named = await worker.draw({ ...ask, prompt: 'a embedding:mine boat', dialect: 'comfy' });
  assert.equal(named.status, 200, JSON.stringify(named.body));
  for (const [prompt, sentence] of [['embedding:mime', /no textual inversion 'mime' among the 2 in the folder; perhaps 'mine'/], ['embedding:bad/boat', /for another family/]]) {
    const { status, body } = await worker.draw({ ...ask, prompt, dialect: 'comfy' });
    assert.equal(status, 400, prompt);
    assert.equal(body.error.param, 'prompt');
    assert.match(body.error.message, sentence);
  }
  rmSync(join(embeddings, 'mine.safetensors'));
  assert.ok(pixels(await worker.draw(ask)).equals(pixels(plain)));
});

test('a job may name another VAE; one that is the model\'s own draws the same', async (t) => {
  const vaes = join(folder, 'vae');
  mkdirSync(join(vaes, 'bad'), { recursive: true });
  const worker = await ready(t, { args: ['--vae-dir', vaes] });
  writeTinyVae(join(vaes, 'other.safetensors'));
  writeTinyPainter(join(vaes, 'own.safetensors'));
  writeTinyVae(join(vaes, 'bad', 'wide.safetensors'), (shapes) => { shapes['decoder.conv_in.weight'] = [8, 16, 3, 3]; });
  const ask = { prompt: 'a', seed: 7 };
  const plain = await worker.draw(ask);
  const drawn = await worker.draw({ ...ask, vae: 'other' });
  assert.equal(drawn.status, 200, JSON.stringify(drawn.body));
  assert.ok(!pixels(drawn).equals(pixels(plain)));
  assert.match(drawn.images[0].head.parameters, /, VAE: other\.safetensors,/);
  for (const vae of ['own', 'automatic', undefined]) assert.ok(pixels(await worker.draw({ ...ask, vae })).equals(pixels(plain)), vae);
  for (const [vae, sentence] of [['othr', /no VAE 'othr' in the VAE folder, which has 3; perhaps 'other'/], ['wide', /latents of 16 channels/]]) {
    const { status, body } = await worker.draw({ ...ask, vae });
    assert.equal(status, 400, vae);
    assert.equal(body.error.param, 'vae');
    assert.match(body.error.message, sentence);
  }
  assert.ok(pixels(await worker.draw(ask)).equals(pixels(plain)));
  const second = await ready(t, { args: ['--vae-dir', vaes, '--vae', 'other'] });
  assert.ok(pixels(await second.draw(ask)).equals(pixels(drawn)), 'the one that is for all jobs');
  assert.ok(pixels(await second.draw({ ...ask, vae: 'none' })).equals(pixels(plain)), 'none is the model\'s own');
});

test('a seamless picture is another one, says so, and the next is as before', async (t) => {
  const worker = await ready(t);
  const plain = await worker.draw({ prompt: 'a', seed: 7 });
  const seen = [pixels(plain).toString('hex')];
  for (const [seamless, text] of [['x', 'Tiling: X'], ['y', 'Tiling: Y'], ['both', 'Tiling: True']]) {
    const drawn = await worker.draw({ prompt: 'a', seed: 7, seamless });
    assert.ok(drawn.images[0].head.parameters.includes(text));
    assert.ok(!seen.includes(pixels(drawn).toString('hex')), seamless);
    seen.push(pixels(drawn).toString('hex'));
  }
  assert.equal(pixels(await worker.draw({ prompt: 'a', seed: 7, seamless: 'none' })).toString('hex'), seen[0]);
  assert.match((await worker.draw({ prompt: 'a', seamless: 'up' })).body.error.message, /none, x, y and both/);
});

test('SIGTERM ends it in the middle of a job', async (t) => {
  const worker = await ready(t);
  const job = await worker.open('POST', '/internal/generate', long);
  await new Promise((done) => job.once('data', done));
  job.on('error', () => {}).resume();
  worker.child.kill('SIGTERM');
  await until('it has ended', () => worker.exit, 2000);
  assert.deepEqual(worker.exit, { code: 0, signal: null });
});

test('it dies with its parent, whatever kills the parent', async (t) => {
  const parent = spawn(process.execPath, ['-e', `
    const { spawn } = require('node:child_process');
    const env = { ...process.env, MYSTI_WORKER_TOKEN: 'x', MYSTI_SERVER_PID: String(process.pid) };
    const child = spawn(process.argv[1], [], { env, stdio: ['ignore', 'pipe', 'inherit'], detached: true });
    child.stdout.on('data', (d) => process.stdout.write(child.pid + ' ' + d));
    setInterval(() => {}, 1000);`, workerProgram], { stdio: ['ignore', 'pipe', 'inherit'] });
  t.after(() => parent.kill('SIGKILL'));
  let out = '';
  parent.stdout.on('data', (d) => (out += d));
  await until('the worker listens', () => out.includes('listening'));
  const pid = Number(out.split(' ')[0]);
  process.kill(pid, 0);
  parent.kill('SIGKILL');
  await until('the worker is gone', () => {
    try {
      return readFileSync(`/proc/${pid}/stat`, 'latin1').split(') ')[1][0] === 'Z';
    } catch {
      return true;
    }
  }, 2000);
});
