// A picture that is too large for the memory there is, on a simulated machine with the real engine: drawn in pieces, and
// nearly the picture that a larger machine draws.
import assert from 'node:assert/strict';
import test from 'node:test';
import { decodePng } from '../support/decode_png.mjs';
import { startReal } from './real.mjs';

const ask = { prompt: 'a red circle on a blue background', size: '768x768', seed: 1, steps: 2 };

async function draw(t, ram) {
  const server = await startReal(t, { ready: ['sd'],
    args: ['--simulate-device', `ram=${ram}`, '--memory-margin', '0', '--llm-model', 'none'] });
  const res = await server.post('/v1/images/generations', ask);
  const answer = await res.json();
  const { moves } = await fetch(`${server.base}/v1/memory`).then((r) => r.json());
  return { status: res.status, answer, moves, pixels: () => decodePng(Buffer.from(answer.data[0].b64_json, 'base64')).rgb };
}

test('a picture that does not fit at once is drawn in pieces, and looks the same', async (t) => {
  const large = await draw(t, '8G');
  const small = await draw(t, '80M');
  assert.deepEqual(large.moves, []);
  assert.equal(small.status, 200, JSON.stringify(small.answer));
  assert.deepEqual(small.moves.map((m) => m.move), ['low']);
  assert.match(small.moves[0].reason, /the picture is drawn in pieces: it would take 0.\d\d GiB on ram at once/);
  const [a, b] = [large.pixels(), small.pixels()];
  const difference = a.reduce((sum, v, i) => sum + Math.abs(v - b[i]), 0) / a.length;
  assert.ok(difference > 0 && difference < 8, `${difference} of 255 on average`);
});

test('one that fits in no pieces is refused with the numbers', async (t) => {
  const { status, answer } = await draw(t, '16M');
  assert.equal(status, 503);
  assert.match(answer.error.message, /the picture needs 0.\d\d GiB on ram, at least 0.\d\d GiB in pieces/);
});
