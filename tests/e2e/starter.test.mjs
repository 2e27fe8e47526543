// A quick version of the starter models' cards through the real server: twenty held-out ideas, and twelve held-out
// pictures judged by the colours of their middle and of their border. The whole cards are measured by
// training/writer/evaluate.py and training/painter/score.py.
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import test from 'node:test';
import { middleAndBorder, nearestColor } from '../support/colors.mjs';
import { decodePng } from '../support/decode_png.mjs';
import { startReal } from './real.mjs';

const read = (path) => JSON.parse(readFileSync(new URL(`../../${path}`, import.meta.url), 'utf8'));

test('the writer keeps the subject and ends by itself', async (t) => {
  const server = await startReal(t, { ready: ['llm'] });
  const ideas = read('training/writer/heldout_small.json').filter((idea) => idea.subject).slice(0, 20);
  const squeeze = (text) => ` ${text.toLowerCase().replace(/["'.,!?;:()]/g, ' ').split(/\s+/).filter(Boolean).join(' ')} `;
  const lost = [];
  for (const { user, subject } of ideas) {
    const res = await server.post('/v1/chat/completions',
      { messages: [{ role: 'user', content: user }], temperature: 0, seed: 1 });
    const { choices: [{ message, finish_reason: reason }] } = await res.json();
    assert.equal(reason, 'stop', `"${user}" did not end by itself: ${message.content}`);
    assert.ok(message.content.split(/\s+/).length <= 90, `"${user}": more than 90 words`);
    if (!squeeze(message.content).includes(squeeze(subject))) lost.push(`${user} -> ${message.content}`);
  }
  assert.ok(ideas.length === 20 && lost.length <= 2, `lost the subject:\n${lost.join('\n')}`);
});

test('the painter paints the colours that were asked for', async (t) => {
  const server = await startReal(t, { ready: ['sd'] });
  const prompts = read('training/painter/heldout.json')
    .filter((p) => p.count === 1 && p.place === 'center' && p.style === 'flat' && p.shape !== 'star').slice(0, 12);
  const wrong = [];
  for (const { prompt, seed, color, background } of prompts) {
    const res = await server.post('/v1/images/generations', { prompt, seed });
    const { middle, border } = middleAndBorder(decodePng(Buffer.from((await res.json()).data[0].b64_json, 'base64')));
    const got = [nearestColor(middle), nearestColor(border)];
    if (got[0] !== color || got[1] !== background) wrong.push(`${prompt}: ${got}`);
  }
  assert.ok(prompts.length === 12 && wrong.length <= 1, wrong.join('\n'));
});

test('the negative prompt and the guidance scale work', async (t) => {
  const server = await startReal(t, { ready: ['sd'] });
  const draw = async (body) => {
    const res = await server.post('/v1/images/generations', { prompt: 'a large red circle on a white background', seed: 5, ...body });
    assert.equal(res.status, 200);
    return decodePng(Buffer.from((await res.json()).data[0].b64_json, 'base64')).rgb;
  };
  const difference = (a, b) => a.reduce((sum, v, i) => sum + Math.abs(v - b[i]), 0) / a.length;
  const plain = await draw({});
  assert.ok(difference(plain, await draw({ negative_prompt: 'a red circle' })) > 1, 'the negative prompt changed nothing');
  assert.ok(difference(plain, await draw({ cfg_scale: 1 })) > 1, 'the guidance scale changed nothing');
  assert.equal(difference(plain, await draw({})), 0);
});

test('the ink LoRA draws outlines on pale colours, and is gone without a trace', async (t) => {
  const server = await startReal(t, { ready: ['sd'] });
  const prompts = read('training/painter/heldout.json')
    .filter((p) => p.count === 1 && p.size === 'large' && p.style === 'flat' && ![p.color, p.background].includes('black')).slice(0, 8);
  const draw = async (prompt, seed) => {
    const res = await server.post('/v1/images/generations', { prompt, seed });
    const { data: [picture] } = await res.json();
    return { loras: picture.loras, ...decodePng(Buffer.from(picture.b64_json, 'base64')) };
  };
  const share = (rgb, holds) => {
    let count = 0;
    for (let i = 0; i < rgb.length; i += 3) count += holds(rgb[i], rgb[i + 1], rgb[i + 2]);
    return count / (rgb.length / 3);
  };
  // darker than what lies on both sides of it: a line
  const light = (rgb, i) => rgb[i] + rgb[i + 1] + rgb[i + 2];
  const lines = ({ rgb, width }) => {
    let count = 0;
    for (let i = 0; i < rgb.length; i += 3) {
      const x = (i / 3) % width;
      const darker = (d) => light(rgb, i) < light(rgb, i + 3 * d) - 60;
      count += x >= 6 && x < width - 6 && darker(-6) && darker(6);
    }
    return count / (rgb.length / 3);
  };
  const strong = ({ rgb }) => share(rgb, (r, g, b) => Math.max(r, g, b) - Math.min(r, g, b) > 150);
  for (const { prompt, seed } of prompts) {
    const plain = await draw(prompt, seed);
    const inked = await draw(`${prompt} <lora:starter-ink:1>`, seed);
    assert.deepEqual(inked.loras, [{ name: 'starter-ink', text: 1, unet: 1, matched: 276, unmatched: 0 }]);
    assert.ok(lines(inked) > lines(plain) + 0.01, `${prompt}: lines ${lines(plain)} -> ${lines(inked)}`);
    assert.ok(strong(inked) <= strong(plain) / 10, `${prompt}: strong colours ${strong(plain)} -> ${strong(inked)}`);
    assert.deepEqual(Buffer.from((await draw(prompt, seed)).rgb), Buffer.from(plain.rgb));
  }
  assert.equal(prompts.length, 8);
});
