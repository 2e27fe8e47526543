// What the page does with pictures besides drawing them: larger ones, several, the hires fix, other VAEs. Real engines, real browser.
import assert from 'node:assert/strict';
import { mkdirSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import test from 'node:test';
import { until } from '../support/server.mjs';
import { writeTinyUpscaler, writeVaeOf } from '../support/tiny_painter.mjs';
import { openPage } from './browser.mjs';
import { bin, startReal } from './real.mjs';

const painter = join(bin, 'models/starter/starter-painter.safetensors');

test('the page: larger pictures, hires fix, VAEs, several at once', async (t) => {
  const models = mkdtempSync(join(tmpdir(), 'mysti-models-'));
  t.after(() => rmSync(models, { recursive: true, force: true }));
  for (const folder of ['upscalers', 'vae']) mkdirSync(join(models, folder));
  writeTinyUpscaler(join(models, 'upscalers/tiny-x4.safetensors'));
  writeVaeOf(painter, join(models, 'vae/other.safetensors'));
  const server = await startReal(t, { args: ['--model-dir', models, '--llm-model', 'none'], ready: ['sd'] });
  const { page, see, shoot, errors, choose, cut, unnamed } = await openPage(t, server.base);
  const history = () => fetch(`${server.base}/v1/history/images`).then((r) => r.json());
  const sizeOf = (locator) => locator.evaluate((img) => img.decode().then(() => [img.naturalWidth, img.naturalHeight]));
  const wordsOf = async (locator) => // what the file says about itself
    Buffer.from(await (await fetch(new URL(await locator.getAttribute('src'), server.base))).arrayBuffer()).toString('latin1');
  const drawn = (count) => until(`${count} pictures`, async () => (await see('recent').locator('img').count()) === count
    && (await see('draw').count()) === 1, 60000);

  await t.test('several pictures, another VAE: one beside the other, one of them large', async () => {
    await see('prompt').fill('a red circle on a blue background');
    await page.getByText('More control').click();
    await page.getByLabel('How many').fill('2');
    await page.getByLabel('Steps', { exact: true }).fill('4');
    await choose('VAE', 'other');
    await page.getByText('3 changed').waitFor();
    await see('draw').click();
    await drawn(2);
    assert.equal(await see('made').locator('button').count(), 2);
    const second = await see('picture').getAttribute('src');
    await see('made').getByLabel('picture 1 of 2').click();
    assert.notEqual(await see('picture').getAttribute('src'), second);
    const [newest] = await history();
    assert.match(newest.params.text, /VAE: other/);
    await shoot('several');
  });

  await t.test('hires fix: its fields appear when it is switched on', async () => {
    await page.getByText('Back to the model\'s own').click();
    assert.equal(await see('changed').count(), 0);
    assert.equal(await page.getByLabel('Times as large').count(), 0);
    await see('hires').click();
    await choose('Upscaler', 'tiny-x4');
    await page.getByLabel('Times as large').fill('1.5');
    await page.getByLabel('How much may change').fill('50');
    await page.getByLabel('Steps, the second time').fill('2');
    await page.getByLabel('Steps', { exact: true }).fill('3');
    await page.getByLabel('Steps', { exact: true }).press('Tab');
    await see('draw').click();
    await drawn(3);
    assert.deepEqual(await sizeOf(see('picture')), [192, 192]);
    const [newest] = await history();
    assert.match(newest.params.text, /Steps: 3.*Denoising strength: 0.5, Hires upscale: 1.5, Hires steps: 2, Hires upscaler: tiny-x4/s);
    await shoot('hires', { fullPage: true });
  });

  await t.test('a drawn picture is made larger, by the network first, and says what becomes of it', async () => {
    await page.getByRole('button', { name: 'Make larger' }).click();
    await see('larger').getByText('192 × 192 becomes 384 × 384 pixels').waitFor();
    assert.equal(await page.getByRole('combobox', { name: 'How', exact: true }).innerText(), 'tiny-x4');
    await shoot('larger');
    await see('upscale').click();
    await drawn(4);
    assert.deepEqual(await sizeOf(see('picture')), [384, 384]);
    assert.match(await wordsOf(see('picture')), /Postprocess upscaler: tiny-x4/);
  });

  await t.test('so is one of the recent ones, by resizing', async () => {
    await see('recent').locator('button').last().click();
    await page.getByText('128 × 128 · model starter-painter').waitFor();
    await page.getByRole('dialog').getByRole('button', { name: 'Make larger' }).click();
    await choose('How', 'Lanczos');
    await page.getByRole('dialog').getByLabel('Times as large').fill('3');
    await page.getByRole('dialog').getByLabel('Times as large').press('Tab');
    await see('larger').getByText('becomes 384 × 384').waitFor();
    await see('upscale').click();
    await drawn(5);
    assert.deepEqual(await sizeOf(see('picture')), [384, 384]);
    assert.match(await wordsOf(see('picture')), /Postprocess upscaler: Lanczos/);
  });

  await t.test('what a picture was drawn with comes back into the form, and outlives a reload', async () => {
    await page.getByText('Back to the model\'s own').click();
    await see('recent').locator('button').nth(2).click(); // the hires fix
    await page.getByText('Prompt and settings').click();
    await page.reload();
    assert.equal(await see('prompt').inputValue(), 'a red circle on a blue background');
    await see('more').locator('summary').click();
    assert.equal(await page.getByLabel('Width').inputValue(), '128');
    assert.equal(await page.getByLabel('Steps', { exact: true }).inputValue(), '3');
    assert.equal(await page.getByLabel('Times as large').inputValue(), '1.5');
    assert.equal(await page.getByRole('combobox', { name: 'Upscaler', exact: true }).innerText(), 'tiny-x4');
    const first = (await history())[2];
    await see('draw').click();
    await drawn(6);
    await see('facts').getByText(`192 × 192 · seed ${first.params.seed}`).waitFor();
    const bytes = (url) => fetch(server.base + url).then((r) => r.arrayBuffer()).then((b) => Buffer.from(b));
    assert.ok((await bytes(first.url)).equals(await bytes((await history())[0].url)), 'the same picture');
    await page.getByText('Back to the model\'s own').click();
  });

  await t.test('it says who is before it, and Cancel leaves their picture alone', async () => {
    const others = new AbortController();
    const long = server.post('/v1/images/generations', { prompt: 'a boat', size: '512x512', steps: 150 }, { signal: others.signal }).catch(() => {});
    await until('theirs is drawn', async () => (await server.worker('sd')).state === 'busy');
    await see('draw').click();
    await see('status').getByText('waiting: 1 before it').waitFor();
    await shoot('waiting');
    await see('cancel').click();
    await see('draw').waitFor();
    await until('ours has left the line', async () => (await (await fetch(`${server.base}/v1/queue`)).json()).images.length === 1);
    assert.equal((await server.worker('sd')).state, 'busy');
    others.abort();
    await long;
  });

  await t.test('an error is a sentence', async () => {
    await see('prompt').fill('a boat <lora:not-there:1>');
    await see('draw').click();
    await page.getByText(/no LoRA .not-there/).waitFor();
    await see('draw').waitFor();
  });

  await t.test('on a telephone everything is within the screen, and has a name', async () => {
    await page.setViewportSize({ width: 375, height: 800 });
    assert.deepEqual(await cut(), []);
    assert.deepEqual(await unnamed(), []);
    await shoot('pictures-telephone', { fullPage: true });
  });

  await t.test('nothing went wrong on the way', () => assert.deepEqual(errors().filter((e) => !/404|400/.test(e)), []));

  await t.test('a server that dies in the middle is a sentence as well', async () => {
    await see('prompt').fill('a boat');
    await page.getByLabel('Steps', { exact: true }).fill('150');
    await page.getByLabel('Width').fill('512');
    await page.getByLabel('Width').press('Tab');
    await see('draw').click();
    await see('preview').waitFor();
    await server.stop('SIGKILL');
    await page.getByText('The connection to Mysti broke in the middle').waitFor();
    await see('lost').waitFor();
    await see('draw').waitFor();
  });
});
