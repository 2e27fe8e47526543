// The promise of the first screen: a picture and a streamed text at the same moment, from one port, and the
// picture is what was asked for.
import assert from 'node:assert/strict';
import test from 'node:test';
import { middleAndBorder, nearestColor } from '../support/colors.mjs';
import { decodePng } from '../support/decode_png.mjs';
import { startReal, streamChat } from './real.mjs';

test('a picture is drawn while text streams, and is what was asked for', async (t) => {
  const server = await startReal(t);
  let drawing = true;
  const picture = server.post('/v1/images/generations',
    { prompt: 'a large red circle in the center on a blue background', seed: 3, steps: 60 })
    .then(async (res) => {
      drawing = false;
      return { status: res.status, json: await res.json() };
    });
  let whileDrawing = 0;
  let texts = 0;
  do {
    const text = await streamChat(server, 'a boat at night', () => (whileDrawing += drawing));
    assert.match(text, /boat/i);
    texts++;
  } while (drawing && texts < 200);
  const { status, json } = await picture;
  assert.equal(status, 200, JSON.stringify(json));
  assert.ok(whileDrawing > 3, `only ${whileDrawing} tokens came while the picture was drawn`);

  const png = Buffer.from(json.data[0].b64_json ?? '', 'base64');
  const { middle, border } = middleAndBorder(decodePng(png));
  assert.deepEqual([nearestColor(middle), nearestColor(border)], ['red', 'blue'], `${middle} on ${border}`);
});

test('the same seed gives the same picture, another seed another', async (t) => {
  const server = await startReal(t, { ready: ['sd'] });
  const draw = async (seed) => {
    const res = await server.post('/v1/images/generations', { prompt: 'a green square', seed, steps: 4 });
    assert.equal(res.status, 200);
    return (await res.json()).data[0].b64_json;
  };
  const [a, b, c] = [await draw(7), await draw(7), await draw(8)];
  assert.equal(a, b);
  assert.notEqual(a, c);
});
