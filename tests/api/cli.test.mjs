// The command line against the real server with scripted workers.
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:http';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { writeGguf } from '../support/models.mjs';
import { openapi } from '../support/openapi.mjs';
import { makePng } from '../support/png.mjs';
import { binFolder, freePort, startServer, until } from '../support/server.mjs';

const program = join(binFolder, 'mysti');
let folder;
before(() => (folder = mkdtempSync(join(tmpdir(), 'mysti-cli-'))));
after(() => rmSync(folder, { recursive: true, force: true }));

function start(args, { server, env = {}, input } = {}) {
  const child = spawn(program, args, { cwd: folder, env: { PATH: process.env.PATH, ...(server && { MYSTI_SERVER: server.base }), ...env }, stdio: ['pipe', 'pipe', 'pipe'] });
  const run = { child, out: Buffer.alloc(0), err: '' };
  child.stdout.on('data', (d) => (run.out = Buffer.concat([run.out, d])));
  child.stderr.setEncoding('utf8').on('data', (d) => (run.err += d));
  child.stdin.on('error', () => {}).end(input ?? ''); // it may end without reading
  run.end = new Promise((done) => child.on('close', (code, signal) => done({ code, signal, out: run.out.toString(), err: run.err, raw: run.out })));
  return run;
}
function writePicture(name) {
  writeFileSync(join(folder, name), makePng({ width: 32, height: 32 }));
  return join(folder, name);
}
// from a PNG's first chunk
const sizeOf = (png) => (png.toString('latin1', 1, 4) === 'PNG' ? [png.readUInt32BE(16), png.readUInt32BE(20)] : []);
const mysti = (args, options) => start(args, options).end;

test('help, version and mistakes need no server', async () => {
  const help = await mysti(['--help']);
  assert.equal(help.code, 0);
  for (const command of ['draw', 'upscale', 'write', 'status', 'models', 'load', 'unload', 'leave']) {
    assert.match(help.out, new RegExp(`^  ${command} `, 'm'));
    const own = await mysti([command, '--help']);
    assert.equal(own.code, 0);
    assert.match(own.out, new RegExp(`^Usage: mysti ${command} `));
    assert.match(own.out, /--server URL/);
  }
  assert.match((await mysti(['--version'])).out, /^mysti \d+\.\d+\.\d+\n$/);
  const wrong = [
    [[], /Usage/], [['drow'], /perhaps 'draw'/], [['draw'], /PROMPT is missing/], [['draw', 'x', '--sampel', 'a'], /perhaps --sampler/],
    [['draw', 'x', '-o'], /--out needs a value/], [['draw', 'x', '--steps', '0'], /1 to 150/], [['draw', 'x', '--cfg', 'high'], /--cfg/],
    [['draw', 'x', '-o', '-', '--count', '2'], /one picture/],
    [['models', 'x'], /one word too many/], [['upscale', 'x'], /IN OUT is missing/], [['upscale', 'a', 'b', 'c'], /'c' is one word too many/],
    [['upscale', 'a', 'b', '-f', '9'], /1 and 8/], [['upscale', 'no-such.png', 'b'], /no-such\.png/], [['load'], /NAME is missing/], [['unload', 'everything'], /'sd' .* 'llm'/], [['leave'], /yes\|no \[ID\] is missing/], [['leave', 'perhaps'], /'perhaps' is neither 'yes' nor 'no'/], [['leave', 'yes', 'all'], /ID/], [['status', '--jsn'], /perhaps --json/],
  ];
  for (const [args, text] of wrong) {
    const run = await mysti(args);
    assert.equal(run.code, 2, args.join(' '));
    assert.match(run.err, text);
    assert.equal(run.out, '');
  }
});

// a file of the safetensors format with one tensor of zeros per entry
function tensors(entries, metadata = {}) {
  const header = { __metadata__: metadata };
  let at = 0;
  for (const [name, shape] of Object.entries(entries)) {
    const bytes = shape.reduce((a, b) => a * b, 2);
    header[name] = { dtype: 'F16', shape, data_offsets: [at, at + bytes] };
    at += bytes;
  }
  const json = Buffer.from(JSON.stringify(header));
  const length = Buffer.alloc(8);
  length.writeBigUInt64LE(BigInt(json.length));
  return Buffer.concat([length, json, Buffer.alloc(at)]);
}

test('inspect says what a file is, without a server', async () => {
  const help = await mysti(['inspect', '--help']);
  assert.equal(help.code, 0);
  assert.match(help.out, /^Usage: mysti inspect \[options\] FILE\n[^]*--json/);
  assert.match((await mysti(['--help'])).out, /^ {2}inspect /m);

  const painter = join(binFolder, 'models/starter/starter-painter.safetensors');
  const whole = await mysti(['inspect', painter]);
  assert.equal(whole.code, 0, whole.err);
  assert.match(whole.out, /^ {2}a picture model/m);
  assert.match(whole.out, /^ {2}format +safetensors, 20\.1 MB, 562 tensors/m);
  assert.match(whole.out, /^ {2}parts +U-Net: 5\.6 million/m);
  assert.match(whole.out, /^ {2}missing +nothing\n {2}left over +nothing\n {2}Mysti +draws with it\n$/m);
  const json = JSON.parse((await mysti(['inspect', '--json', painter])).out);
  assert.deepEqual([json.kind, json.draws, json.missing.count], ['checkpoint', true, 0]);

  // names and texts in a file may hold anything, also what would move the terminal's cursor
  const odd = join(folder, '-odd.safetensors');
  const stem = 'model.diffusion_model.input_blocks.';
  writeFileSync(odd, tensors({ [`${stem}0.0.weight`]: [8, 9, 3, 3], [`${stem}1.1.transformer_blocks.0.attn2.to_k.weight`]: [8, 768], 'odd\x1b[2J\u009b': [1] }, { 'modelspec.title': '\x1b]0;mine\x07' }));
  const part = await mysti(['inspect', '--', '-odd.safetensors']);
  assert.equal(part.code, 0, part.err);
  assert.match(part.out, /SD 1\.x, distilled \(1 of 16 cross-attentions\), for inpainting/);
  assert.match(part.out, /needs +a text encoder\n +a VAE, named with each picture/);
  assert.match(part.out, /missing +\d{2}\n[^]*and \d+ more/);
  assert.match(part.out, /left over +1\n +odd\?\[2J\?\n/);
  assert.match(part.out, /title: \?\]0;mine\?\n/);
  assert.match(part.out, /does not draw with it: \S/);

  writeFileSync(join(folder, 'noise.gguf'), 'GGUF\x03\0\0\0\xff\xff\xff\xff\xff\xff\xff\x7f\0\0\0\0\0\0\0\0', 'latin1');
  for (const [file, sentence] of [['noise.gguf', /noise\.gguf: /], ['nothing.gguf', /cannot open/]]) {
    const run = await mysti(['inspect', file]);
    assert.deepEqual([run.code, run.out], [1, ''], file);
    assert.match(run.err, sentence);
  }
  assert.match((await mysti(['inspect', '--json', 'nothing.gguf'])).err, /nothing\.gguf/);
  const shelf = await mysti(['inspect', '.']);
  assert.equal(shelf.code, 0, shelf.err);
  assert.match(shelf.out, /-odd\.safetensors\n {2}the U-Net alone of a picture model, SD 1\.x[^\n]*\n[^]*noise\.gguf\n {2}\S/);
  assert.deepEqual(JSON.parse((await mysti(['inspect', '--json', '.'])).out).map((r) => r.kind), ['unet', 'broken']);
  assert.equal((await mysti(['inspect'])).code, 2);
  const lost = await mysti(['inspect', painter], { env: { MYSTI_SD_WORKER_PROGRAM: join(folder, 'no-such-program') } });
  assert.equal(lost.code, 1);
  assert.match(lost.err, /cannot start .*no-such-program/);
});

test('no server there is exit code 3, and the sentence says where it looked', async () => {
  const port = await freePort();
  for (const args of [['draw', 'x'], ['upscale', writePicture('sent.png'), 'y.png'], ['write', 'x'], ['status'], ['models'], ['load', 'x'], ['unload', 'sd'], ['leave', 'yes']]) {
    const run = await mysti([...args, '--server', `http://127.0.0.1:${port}`]);
    assert.equal(run.code, 3, args[0]);
    assert.match(run.err, new RegExp(`no server at http://127.0.0.1:${port}`));
  }
});

test('another program on the port is said to be one', async (t) => {
  const other = createServer((req, res) => res.end('<html>hello</html>')).listen(0, '127.0.0.1');
  t.after(() => other.close());
  await until('it listens', () => other.address());
  const run = await mysti(['status', '--server', `http://127.0.0.1:${other.address().port}/`]);
  assert.equal(run.code, 1);
  assert.match(run.err, /another program/);
});

test('draw writes the picture, with what was asked for', async (t) => {
  const server = await startServer(t);
  const out = join(folder, 'one.png');
  const run = await mysti(['draw', 'a', 'red circle', '-o', out, '--size', '128x64', '--steps', '3', '--seed', '7', '--cfg', '2.5', '--negative', 'blue', '--sampler', 'Euler a', '--scheduler', 'karras',
    '--hires', '2', '--hires-upscaler', 'x4', '--hires-steps', '5', '--hires-strength', '0.5'], { server });
  assert.equal(run.code, 0, run.err);
  assert.equal(run.out, `${out}  seed 7\n`);
  assert.equal(run.err, '');
  assert.deepEqual(sizeOf(readFileSync(out)), [128, 64]);
  const [sent] = server.requests('sd', '/internal/generate');
  const job = typeof sent.body === 'string' ? JSON.parse(sent.body) : sent.body;
  assert.equal(job.prompt, 'a red circle');
  assert.equal(job.negative_prompt, 'blue');
  assert.deepEqual([job.width, job.height, job.steps, job.seed, job.cfg_scale], [128, 64, 3, 7, 2.5]);
  assert.deepEqual([job.sampler, job.scheduler], ['euler_a', 'karras']);
  assert.deepEqual(job.hires, { scale: 2, upscaler: 'x4', steps: 5, strength: 0.5 });
});

// Of the API's fields, those that are the command's own business.
const elsewhere = ['prompt', 'n', 'stream', 'response_format', 'output_format', 'partial_images', 'width', 'height', 'size', 'model', 'hires'];

test('draw reaches every option of a picture, and of one that it begins with', async (t) => {
  const server = await startServer(t);
  const image = writePicture('first.png');
  const options = { size: '128x64', negative: 'blue', seed: 7, variation: 0.25, 'variation-seed': 9, steps: 3, cfg: 2.5, sampler: 'Euler a',
    scheduler: 'karras', dialect: 'comfy', 'clip-skip': 2, prediction: 'v', vae: 'ft-mse', eta: 0.5, 's-churn': 3, 's-tmin': 0.1, 's-tmax': 9, 's-noise': 1.003,
    'sde-r': 0.4, 's-min-uncond': 1.5, rho: 5, ensd: 31337, rng: 'cpu', seamless: 'x', 'original-height': 1, 'original-width': 2, 'crop-top': 3, 'crop-left': 4,
    'target-height': 5, 'target-width': 6 };
  const start = { image, mask: image, strength: 0.5, 'mask-blur': 2, fill: 'fill', padding: 8 };
  const given = (o) => Object.entries(o).flatMap(([k, v]) => [`--${k}`, String(v)]);
  const help = (await mysti(['draw', '--help'])).out;
  const offered = [...help.matchAll(/--([a-z-]+)/g)].map((m) => m[1]);
  const asked = [...Object.keys(options), ...Object.keys(start), 'only-masked', 'stretch', 'vae-tiling'];
  assert.deepEqual(offered.filter((o) => !asked.includes(o) && !o.startsWith('hires')).sort(),
    ['count', 'help', 'model', 'out', 'progress', 'quiet', 'server'], 'each option of the help is tried here');
  const run = await mysti(['draw', 'a boat', '-o', join(folder, 'all.png'), ...given(options), ...given(start), '--only-masked', '--stretch', '--vae-tiling'], { server });
  assert.equal(run.code, 0, run.err);
  const { prompt, count, start: sent, width, height, ...job } = JSON.parse(server.requests('sd', '/internal/generate')[0].body);
  assert.deepEqual({ prompt, count, width, height }, { prompt: 'a boat', count: 1, width: 128, height: 64 });
  assert.deepEqual(job, { negative_prompt: 'blue', seed: 7, variation_strength: 0.25, variation_seed: 9, steps: 3, cfg_scale: 2.5, sampler: 'euler_a',
    scheduler: 'karras', dialect: 'comfy', clip_skip: 2, prediction: 'v', vae: 'ft-mse', eta: 0.5, s_churn: 3, s_tmin: 0.1, s_tmax: 9, s_noise: 1.003, r: 0.4,
    s_min_uncond: 1.5, rho: 5, vae_tiling: true, ensd: 31337, rng: 'cpu', seamless: 'x', original_height: 1, original_width: 2, crop_top: 3, crop_left: 4, target_height: 5, target_width: 6 });
  assert.deepEqual({ ...sent, image: !!sent.image, mask: !!sent.mask },
    { image: true, mask: true, strength: 0.5, mask_blur: 2, fill: 'fill', padding: 8, only_masked: true, crop: false });
  const fields = Object.keys(openapi.components.schemas.ImageRequest.properties).filter((f) => !elsewhere.includes(f));
  assert.deepEqual(fields.filter((f) => !(f in job)), [], 'what the API takes has an option');
});

test('draw: what is about a first picture needs one, and it has to be there', async (t) => {
  const server = await startServer(t);
  for (const [args, sentence] of [[['--strength', '0.5'], /--strength is for a picture that is changed: --image says which/],
    [['--mask', 'm.png'], /--mask is for/], [['--image', '/nowhere/p.png'], /nowhere/]]) {
    const run = await mysti(['draw', 'x', ...args, '-o', join(folder, 'never.png')], { server });
    assert.equal(run.code, 2);
    assert.match(run.err, sentence);
  }
});

test('draw --count numbers the files; -o - is standard output; --quiet is silent', async (t) => {
  const server = await startServer(t);
  const three = await mysti(['draw', 'x', '-o', join(folder, 'many.png'), '--count', '3', '--seed', '5'], { server });
  assert.equal(three.code, 0, three.err);
  for (const i of [1, 2, 3]) assert.ok(existsSync(join(folder, `many-${i}.png`)));
  assert.deepEqual(three.out.trim().split('\n').map((l) => l.match(/seed (\d+)/)[1]), ['5', '6', '7']);
  const pipe = await mysti(['draw', 'x', '-o', '-'], { server });
  assert.equal(pipe.code, 0);
  assert.deepEqual(sizeOf(pipe.raw), [128, 128]);
  const quiet = await mysti(['draw', 'x', '-q', '-o', join(folder, 'quiet.png')], { server });
  assert.deepEqual([quiet.code, quiet.out, quiet.err], [0, '', '']);
});

test('draw shows a bar', async (t) => {
  const server = await startServer(t, { sd: { step_ms: 40, default_steps: 5 } });
  const run = await mysti(['draw', 'x', '--progress', '-o', join(folder, 'bar.png')], { server });
  assert.equal(run.code, 0, run.err);
  assert.match(run.err, /\[#{12}-{18}\] 2\/5 drawing/);
  assert.match(run.err, /s left/);
  assert.ok(run.err.endsWith('\r\x1b[K'), 'the bar is wiped away');
});

test('upscale sends the picture and writes the larger one', async (t) => {
  const server = await startServer(t, { sd: { step_ms: 40, default_steps: 5 } });
  const [sent, out] = [writePicture('small.png'), join(folder, 'large.png')];
  const run = await mysti(['upscale', sent, out, '-u', 'x4', '--factor', '2.5', '--progress'], { server });
  assert.equal(run.code, 0, run.err);
  assert.equal(run.out, `${out}  128x128\n`);
  assert.match(run.err, /2\/5 upscaling/);
  assert.deepEqual(sizeOf(readFileSync(out)), [128, 128]);
  const jobs = () => server.requests('sd', '/internal/generate').map((r) => JSON.parse(r.body).upscale);
  assert.deepEqual(jobs(), [{ upscaler: 'x4', factor: 2.5 }]);
  const pipe = await mysti(['upscale', sent, '-', '-q'], { server });
  assert.deepEqual([pipe.code, pipe.err, sizeOf(pipe.raw)], [0, '', [128, 128]]);
  assert.deepEqual(jobs()[1], { upscaler: 'lanczos', factor: 0 });
  const refused = await mysti(['upscale', sent, out, '-u', '../x4'], { server });
  assert.equal(refused.code, 1);
  assert.match(refused.err, /not a path to somewhere else/);
});

test('draw tells what the server refused', async (t) => {
  const server = await startServer(t, { sd: { generate: ['error_mid', 'out_of_memory', 'ok'] } });
  const out = join(folder, 'refused.png');
  const sampler = await mysti(['draw', 'x', '--sampler', 'dpm_slow', '-o', out], { server });
  assert.equal(sampler.code, 1);
  assert.match(sampler.err, /euler.*dpm_slow/);
  const middle = await mysti(['draw', 'x', '-o', out], { server });
  assert.equal(middle.code, 1);
  assert.match(middle.err, /the engine gave up/);
  const memory = await mysti(['draw', 'x', '-o', out], { server });
  assert.equal(memory.code, 1);
  assert.match(memory.err, /9\.1 GiB/);
  assert.ok(!existsSync(out));
  const nowhere = await mysti(['draw', 'x', '-o', join(folder, 'no/such/folder.png')], { server });
  assert.equal(nowhere.code, 1);
  assert.match(nowhere.err, /no\/such/);
});

test('draw passes on that the server could not keep its own copy', async (t) => {
  const server = await startServer(t);
  rmSync(server.outputs, { recursive: true });
  writeFileSync(server.outputs, 'in the way');
  const out = join(folder, 'unsaved.png');
  const run = await mysti(['draw', 'x', '-o', out], { server });
  assert.equal(run.code, 0, run.err);
  assert.ok(existsSync(out));
  assert.match(run.err, /^mysti draw: .*outputs/);
});

test('Ctrl-C cancels the job', async (t) => {
  const server = await startServer(t, { sd: { step_ms: 100, default_steps: 100 } });
  const run = start(['draw', 'x', '-o', join(folder, 'never.png')], { server });
  await until('the job runs', async () => (await server.getJson('/v1/progress')).json.step > 0);
  run.child.kill('SIGINT');
  const { code, err } = await run.end;
  assert.equal(code, 130);
  assert.match(err, /cancelled/);
  await until('the worker has stopped', () => server.records('sd').some((r) => r.event === 'job_cancelled'));
  assert.ok(!existsSync(join(folder, 'never.png')));
});

test('write prints the tokens as they come', async (t) => {
  const server = await startServer(t, { llm: { token_ms: 150 } });
  const run = start(['write', 'a boat', 'at night', '--max-tokens', '50', '--temperature', '0.5', '--system', 'be brief'], { server });
  await until('the first tokens are there', () => run.out.length > 0);
  assert.ok(!run.out.toString().includes('writer.'), 'it did not wait for the end');
  const { code, out, err } = await run.end;
  assert.deepEqual([code, out, err], [0, 'Hello from the fake writer.\n', '']);
  const sent = server.requests('llm', '/v1/chat/completions')[0];
  const body = typeof sent.body === 'string' ? JSON.parse(sent.body) : sent.body;
  assert.deepEqual(body.messages, [{ role: 'system', content: 'be brief' }, { role: 'user', content: 'a boat at night' }]);
  assert.deepEqual([body.stream, body.max_tokens, body.temperature], [true, 50, 0.5]);
  const piped = await mysti(['write', '-'], { server, input: 'from a pipe' });
  assert.equal(piped.code, 0);
});

test('write says when the answer breaks off', async (t) => {
  const server = await startServer(t, { llm: { chat: ['crash_mid', 'error', 'ok'] } });
  const broken = await mysti(['write', 'x'], { server });
  assert.equal(broken.code, 1);
  assert.match(broken.err, /^mysti write: .{10,}/m);
  await server.ready(['llm']);
  const refused = await mysti(['write', 'x'], { server });
  assert.equal(refused.code, 1);
  assert.match(refused.err, /too long/);
});

test('status, models, load and unload', async (t) => {
  const server = await startServer(t);
  const status = await mysti(['status'], { server });
  assert.equal(status.code, 0, status.err);
  assert.match(status.out, /^server +ok /m);
  assert.match(status.out, /^pictures +ready +.*starter-painter/m);
  assert.match(status.out, /^text +ready +.*starter-writer/m);
  assert.match(status.out, /^memory +[\d.]+ GiB available/m);
  assert.equal(JSON.parse((await mysti(['status', '--json'], { server })).out).status, 'ok');
  for (const before of [['--server', server.base], [`--server=${server.base}`]]) // before the command as well as behind it
    assert.equal((await mysti([...before, 'status'], { env: { MYSTI_SERVER: 'http://127.0.0.1:9' } })).code, 0);

  const models = await mysti(['models'], { server });
  assert.match(models.out, /^\* pictures .*starter-painter/m);
  assert.match(models.out, /^\* text .*starter-writer/m);
  const id = models.out.match(/pictures.* (\S+)\n/)[1];

  const unloaded = await mysti(['unload', 'sd'], { server });
  assert.equal(unloaded.code, 0, unloaded.err);
  assert.match((await mysti(['models'], { server })).out, /^ {2}pictures/m);
  const nothing = await mysti(['unload', 'sd'], { server });
  assert.equal(nothing.code, 0);
  const loaded = await mysti(['load', id], { server });
  assert.equal(loaded.code, 0, loaded.err);
  assert.match(loaded.out, /^loaded .*starter-painter/);
  const wrong = await mysti(['load', id.replace('painter', 'pianter')], { server });
  assert.equal(wrong.code, 1);
  assert.match(wrong.err, /painter/);
});

test('status fails while a worker is down', async (t) => {
  const server = await startServer(t);
  await server.post('/v1/workers/sd/stop');
  const run = await mysti(['status'], { server });
  assert.equal(run.code, 1);
  assert.match(run.out, /^pictures +stopped/m);
});

test('status shows what waits for leave, leave answers it', async (t) => {
  const shelf = (s) => ['a.gguf', 'b.gguf'].forEach((name) => writeGguf(join(s.models, name), { bytes: 2 * 1024 ** 3 }));
  const server = await startServer(t, { prepare: shelf,
    args: ['--simulate-device', 'ram=3G', '--memory-margin', '0', '--llm-resident', '8', '--memory-policy', 'ask'] });
  assert.match((await mysti(['leave', 'yes'], { server })).err, /nothing waits for leave/);
  assert.equal((await mysti(['load', 'a'], { server })).code, 0);
  const asked = async () => {
    const load = mysti(['load', 'b'], { server });
    let shown;
    await until('it is asked', async () => /b.gguf waits for room/.test(shown = (await mysti(['status'], { server })).out));
    return { load, shown };
  };
  const first = await asked();
  assert.match(first.shown, /^leave {5}b.gguf waits for room: mysti leave yes 1, or mysti leave no 1\n {12}then a.gguf is parked and gives back 2.0\d GiB on ram/m);
  const no = await mysti(['leave', 'no', '1'], { server });
  assert.deepEqual([no.code, no.out], [0, 'everything stays\n'], no.err);
  const refused = await first.load;
  assert.equal(refused.code, 1);
  assert.match(refused.err, /leave was refused/);
  const second = await asked();
  const yes = await mysti(['leave', 'yes'], { server });
  assert.deepEqual([yes.code, yes.out], [0, 'room is made\n'], yes.err);
  assert.equal((await second.load).code, 0);
  assert.equal((await mysti(['leave', 'no', '99'], { server })).code, 1);
});
