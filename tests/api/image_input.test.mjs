// Picture requests that are wrong: each is answered with one sentence that names the field, what it must be and what
// it was, and none of them reaches the worker.
import assert from 'node:assert/strict';
import test, { before } from 'node:test';
import { startServer } from '../support/server.mjs';

let server;
before(async (t) => (server = await startServer(t)));

const p = { prompt: 'a boat' };
const cases = [
  ['no body', '', null, /the request has no body/],
  ['no object', '"a boat"', null, /body must be a JSON object|not valid JSON/],
  ['broken JSON', '{"prompt": "a boat",\n "steps": }', null, /not valid JSON at line 2, column \d+/],
  ['a comma too many', '{"prompt": "a",}', null, /not valid JSON at line 1, column 16/],
  ['no prompt', {}, 'prompt', /prompt is missing/],
  ['an empty prompt', { prompt: '' }, 'prompt', /prompt is missing/],
  ['a blank prompt', { prompt: ' \n\t' }, 'prompt', /prompt is missing/],
  ['a null prompt', { prompt: null }, 'prompt', /prompt is missing/],
  ['a prompt that is a list', { prompt: ['a'] }, 'prompt', /prompt must be a text, not \["a"\]/],
  ['a prompt without end', { prompt: 'x'.repeat(20000) }, 'prompt', /prompt is too long: 20000 bytes, at most 16384/],
  ['steps as text', { ...p, steps: 'many' }, 'steps', /steps must be a whole number from 1 to 150, not "many"/],
  ['no steps', { ...p, steps: 0 }, 'steps', /steps must be a whole number from 1 to 150, not 0/],
  ['half a step', { ...p, steps: 1.5 }, 'steps', /steps must be a whole number from 1 to 150, not 1.5/],
  ['too many steps', { ...p, sample_steps: 1e9 }, 'sample_steps', /sample_steps must be a whole number from 1 to 150/],
  ['no pictures', { ...p, n: 0 }, 'n', /n must be a whole number from 1 to \d+, not 0/],
  ['too many pictures', { ...p, n: 1000 }, 'n', /n must be a whole number from 1 to \d+, not 1000/],
  ['a side that is no multiple of 8', { ...p, width: 100 }, 'width', /width must be a multiple of 8, not 100: 96 and 104 are the nearest/],
  ['a size that is no multiple of 8', { ...p, size: '128x129' }, 'size', /multiple of 8, not 129: 128 and 136/],
  ['a side that is too large', { ...p, height: 100000 }, 'height', /height must be from 64 to \d+ pixels, not 100000/],
  ['a side that is too small', { ...p, size: '8x8' }, 'size', /size must be from 64 to \d+ pixels, not 8/],
  ['a negative side', { ...p, width: -64 }, 'width', /width must be a whole number/],
  ['a size in words', { ...p, size: 'large' }, 'size', /size must be WIDTHxHEIGHT, such as 512x512, or auto, not "large"/],
  ['a size with a tail', { ...p, size: '512x512px' }, 'size', /size must be WIDTHxHEIGHT/],
  ['a signed size', { ...p, size: '+512x512' }, 'size', /size must be WIDTHxHEIGHT/],
  ['half a size', { ...p, size: '512x' }, 'size', /size must be WIDTHxHEIGHT/],
  ['two sizes', { ...p, size: '128x128', width: 256 }, 'size', /size says 128x128, width and height say otherwise/],
  ['an unknown sampler', { ...p, sampler: 'dpm_slow' }, 'sampler', /sampler must be one of euler, euler_a, heun.*er_sde, not "dpm_slow"/],
  ['an unknown dialect', { ...p, dialect: 'latin' }, 'dialect', /dialect must be one of a1111, comfy, not "latin"/],
  ['an unknown generator', { ...p, rng: 'dice' }, 'rng', /rng must be one of nv, cpu, not "dice"/],
  ['too much fresh noise', { ...p, eta: 11 }, 'eta', /eta must be a number from 0 to 10, not 11/],
  ['a second look nowhere', { ...p, r: 0 }, 'r', /r must be a number from 0.01 to 1, not 0/],
  ['an unknown scheduler', { ...p, scheduler: 'x' }, 'scheduler', /scheduler must be one of normal, simple, karras.*not "x"/],
  ['guidance as text', { ...p, cfg_scale: '7' }, 'cfg_scale', /cfg_scale must be a number from 0 to 30, not "7"/],
  ['guidance beyond', { ...p, guidance_scale: 31 }, 'guidance_scale', /guidance_scale must be a number from 0 to 30, not 31/],
  ['a seed beyond', { ...p, seed: 4294967296 }, 'seed', /seed must be a whole number from -1 to 4294967295/],
  ['another format', { ...p, output_format: 'jpeg' }, 'output_format', /png \(the only format for now\), not "jpeg"/],
  ['a transparent picture', { ...p, background: 'transparent' }, 'background', /background must be one of opaque, auto/],
  ['an unknown delivery', { ...p, response_format: 'ftp' }, 'response_format', /response_format must be one of b64_json, url/],
  ['stream as text', { ...p, stream: 'true' }, 'stream', /stream must be true or false, not "true"/],
  ['an unknown model', { ...p, model: 'starter-painer' }, 'model', /there is no model 'starter-painer'; did you mean 'starter-painter.safetensors'\?/, 404],
  ['a way out of the folder', { ...p, model: '../../etc/passwd' }, 'model', /a path below the model folder/],
  ['a text model', { ...p, model: 'starter-writer.gguf' }, 'model', /is a text model, not a picture model/],
];

for (const [name, body, param, message, status = 400] of cases) {
  test(name, async () => {
    const answer = await server.postJson('/v1/images/generations', body);
    assert.equal(answer.status, status);
    assert.match(answer.json.error.message, message);
    assert.equal(answer.json.error.param, param);
  });
}

test('none of them reached the worker, and the server still draws', async () => {
  assert.equal(server.requests('sd', '/internal/generate').length, 0);
  assert.equal((await server.postJson('/v1/images/generations', p)).status, 200);
});

test('a body over the limit is 413 and says the limit', async (t) => {
  const small = await startServer(t, { args: ['--body-limit', '65536'] });
  const { status, json } = await small.postJson('/v1/images/generations', { prompt: 'x'.repeat(100000) });
  assert.equal(status, 413);
  assert.match(json.error.message, /65536|64 KiB/);
  assert.equal(json.error.code, 'too_large');
  assert.equal((await small.getJson('/health')).status, 200);
});

test('what the worker itself refuses comes with the worker\'s sentence', async (t) => {
  const tight = await startServer(t, { sd: { generate: ['out_of_memory', 'ok'] } });
  const { status, json } = await tight.postJson('/v1/images/generations', p);
  assert.equal(status, 503);
  assert.equal(json.error.code, 'out_of_memory');
  assert.match(json.error.message, /the job needs 9.1 GiB, 7.8 GiB free/);
  assert.equal((await tight.postJson('/v1/images/generations', p)).status, 200);
});
