// The two commands of the first screen, at the same moment, with the real engines.
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { mkdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import test from 'node:test';
import { decodePng } from '../support/decode_png.mjs';
import { writeTinyUpscaler } from '../support/tiny_painter.mjs';
import { bin, startReal } from './real.mjs';

function mysti(server, args) {
  const child = spawn(join(bin, 'mysti'), args, { env: { ...process.env, MYSTI_SERVER: server.base }, stdio: ['ignore', 'pipe', 'pipe'] });
  const run = { out: '', err: '', firstMs: null };
  const began = performance.now();
  child.stdout.setEncoding('utf8').on('data', (text) => {
    run.firstMs ??= performance.now() - began;
    run.out += text;
  });
  child.stderr.setEncoding('utf8').on('data', (text) => (run.err += text));
  return new Promise((done) => child.on('close', (code) => done({ ...run, code, totalMs: performance.now() - began })));
}

test('mysti draw and mysti write at the same moment', async (t) => {
  const server = await startReal(t);
  const out = join(server.home, 'circle.png');
  const [drawn, written] = await Promise.all([
    mysti(server, ['draw', 'a red circle on a blue background', '-o', out, '--seed', '3', '--progress']),
    mysti(server, ['write', 'a boat at night']),
  ]);
  assert.equal(drawn.code, 0, drawn.err);
  assert.equal(drawn.out, `${out}  seed 3\n`);
  assert.match(drawn.err, /\[#+-*\] \d+\/\d+ drawing/);
  const file = readFileSync(out);
  const picture = decodePng(file);
  assert.deepEqual([picture.width, picture.height], [128, 128]);
  assert.match(file.toString('latin1'), /tEXtparameters\0a red circle on a blue background\nSteps: \d+, Sampler: .*Seed: 3, Size: 128x128/);
  assert.equal(written.code, 0, written.err);
  assert.ok(written.out.trim().length > 40, written.out); // what it says is the card's business
  assert.ok(written.firstMs < written.totalMs, 'the text came in pieces');
});

test('mysti status, and a picture after unload and load', async (t) => {
  const server = await startReal(t, { ready: ['sd', 'llm'] });
  const status = await mysti(server, ['status']);
  assert.equal(status.code, 0, status.out + status.err);
  const id = status.out.match(/^pictures +ready +(\S+)/m)[1];
  assert.equal((await mysti(server, ['unload', 'sd'])).code, 0);
  assert.equal((await mysti(server, ['load', id])).code, 0);
  const drawn = await mysti(server, ['draw', 'a green square', '--steps', '2', '-o', join(server.home, 'square.png')]);
  assert.equal(drawn.code, 0, drawn.err);
});

test('a picture drawn with hires fix, and made larger by a network when no model is loaded', async (t) => {
  const server = await startReal(t);
  const at = (name) => join(server.home, name);
  const size = (name) => (({ width, height }) => [width, height])(decodePng(readFileSync(at(name))));
  mkdirSync(at('models/upscalers'), { recursive: true });
  writeTinyUpscaler(at('models/upscalers/tiny-x4.safetensors'));
  const drawn = await mysti(server, ['draw', 'a red circle', '-o', at('hires.png'), '--seed', '3', '--steps', '4', '--hires', '1.5']);
  assert.equal(drawn.code, 0, drawn.err);
  assert.deepEqual(size('hires.png'), [192, 192]);
  assert.match(readFileSync(at('hires.png'), 'latin1'), /Size: 128x128.*Hires upscale: 1.5, Hires upscaler: Latent/);
  assert.equal((await mysti(server, ['unload', 'sd'])).code, 0);
  const larger = await mysti(server, ['upscale', at('hires.png'), at('large.png'), '-u', 'tiny-x4', '--progress']);
  assert.equal(larger.code, 0, larger.err);
  assert.match(larger.err, /1\/1 upscaling/);
  assert.deepEqual(size('large.png'), [768, 768]);
  assert.match(readFileSync(at('large.png'), 'latin1'), /Postprocess upscale by: 4, Postprocess upscaler: tiny-x4/);
  assert.equal((await mysti(server, ['upscale', at('large.png'), at('same.png'), '-f', '1'])).code, 0);
  assert.deepEqual(size('same.png'), [768, 768]);
});
