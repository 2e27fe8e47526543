// The page draws from a picture: a file that is chosen, dropped or pasted, one that was drawn, the masked part of one. Real engine,
// real browser.
import assert from 'node:assert/strict';
import { readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import test from 'node:test';
import { decodePng } from '../support/decode_png.mjs';
import { makePng } from '../support/png.mjs';
import { until } from '../support/server.mjs';
import { openPage } from './browser.mjs';
import { startReal } from './real.mjs';

test('the page draws from a picture', async (t) => {
  const server = await startReal(t, { args: ['--llm-model', 'none'], ready: ['sd'] });
  const { page, see, shoot, errors, cut } = await openPage(t, server.base);
  const newest = async () => (await (await fetch(`${server.base}/v1/history/images`)).json())[0];
  let count = 0;
  const drawn = async (more = 1) => {
    count += more;
    await until(`${count} pictures`, async () => (await see('recent').locator('img').count()) === count && (await see('draw').count()) === 1, 60000);
  };
  const shownPixels = async () =>
    decodePng(Buffer.from(await (await fetch(new URL(await see('picture').getAttribute('src'), server.base))).arrayBuffer()));
  /** Lets a file arrive as the browser would. */
  const arrive = (how, name, type, bytes) => page.evaluate(([event, fileName, fileType, base64]) => {
    const data = new DataTransfer();
    data.items.add(new File([Uint8Array.from(atob(base64), (c) => c.charCodeAt(0))], fileName, { type: fileType }));
    document.body.dispatchEvent(event === 'paste' ? new ClipboardEvent('paste', { clipboardData: data, bubbles: true, cancelable: true })
      : new DragEvent('drop', { dataTransfer: data, bubbles: true, cancelable: true }));
  }, [how, name, type, Buffer.from(bytes).toString('base64')]);

  await t.test('a file is chosen, drawn from in its own proportions, and the field says how much may change', async () => {
    const path = join(tmpdir(), `mysti-wide-${process.pid}.png`);
    writeFileSync(path, makePng({ width: 200, height: 100 }));
    t.after(() => rmSync(path, { force: true }));
    assert.equal(await see('draw').isDisabled(), true);
    await see('start-file').setInputFiles(path);
    await see('start').getByText('200 × 100').waitFor();
    await see('prompt').fill('a red circle on a blue background');
    await see('strength').fill('90');
    await see('strength').press('ArrowRight'); // by keyboard
    await see('start').getByText('91 %').waitFor();
    await see('draw').click();
    await drawn();
    const { params } = await newest();
    assert.deepEqual([params.width, params.height], [184, 88]); // as many pixels as 128 x 128
    assert.match(params.text, /Denoising strength: 0.91/);
    await shoot('start');
  });

  await t.test('a dropped and a pasted one take its place; what is no picture is a sentence', async () => {
    await arrive('drop', 'dropped.png', 'image/png', makePng({ width: 64, height: 72 }));
    await see('start').getByText('64 × 72, dropped.png').waitFor();
    await arrive('paste', 'pasted.png', 'image/png', makePng({ width: 80, height: 64 }));
    await see('start').getByText('80 × 64, pasted.png').waitFor();
    await arrive('drop', 'notes.txt', 'text/plain', 'no picture');
    await page.getByText('notes.txt is no picture that can be read here').waitFor();
    assert.equal(await see('start').getByText('pasted.png').count(), 1, 'the one before stays');
    // what the server does not read, the browser turns into what it does
    const gif = 'R0lGODdhAgABAIABAAAAAP///ywAAAAAAgABAAACAgwKADs=';
    await arrive('drop', 'old.gif', 'image/gif', Buffer.from(gif, 'base64'));
    await see('start').getByText('2 × 1, old.gif').waitFor();
  });

  await t.test('a file is made larger', async () => {
    await arrive('paste', 'small.png', 'image/png', makePng({ width: 40, height: 24 }));
    await see('start').getByText('small.png').waitFor();
    await see('start').getByRole('button', { name: 'Make larger' }).click();
    await see('larger').getByText('40 × 24 becomes 80 × 48 pixels').waitFor();
    await see('upscale').click();
    await drawn();
    const { width, height } = await shownPixels();
    assert.deepEqual([width, height], [80, 48]);
    await page.getByRole('button', { name: 'Remove' }).click();
    assert.equal(await see('start').count(), 0);
  });

  await t.test('what was drawn is drawn on, at its size; without words, too', async () => {
    await see('draw').click();
    await drawn();
    const before = await newest();
    await page.getByRole('button', { name: 'Start from it' }).click();
    await see('start').getByText(before.name).waitFor();
    await see('prompt').fill('a yellow star on a blue background');
    await see('draw').click();
    await drawn();
    const after = await newest();
    assert.deepEqual([after.params.width, after.params.height, after.params.prompt], [128, 128, 'a yellow star on a blue background']);
    assert.match(after.params.text, /Denoising strength: 0.75/);
    await see('prompt').fill('');
    await see('draw').click();
    await drawn();
    assert.equal((await newest()).params.prompt ?? '', '');
    await page.getByRole('button', { name: 'Remove' }).click();
  });

  await t.test('variations: four pictures like it', async () => {
    await see('recent').locator('button').nth(1).click(); // the star
    await page.getByRole('dialog').getByRole('button', { name: 'Variations' }).click();
    await see('progress').waitFor();
    await drawn(4);
    assert.equal(await see('made').locator('button').count(), 4);
    const { params } = await newest();
    assert.equal(params.prompt, 'a yellow star on a blue background');
    assert.match(params.text, /Denoising strength: 0.5/);
    await shoot('variations');
  });

  await t.test('on a telephone everything is within the screen', async () => {
    await page.getByRole('button', { name: 'Start from it' }).click();
    await see('start').waitFor();
    await page.setViewportSize({ width: 375, height: 800 });
    assert.deepEqual(await cut(), []);
    await shoot('start-telephone', { fullPage: true });
    await page.setViewportSize({ width: 1280, height: 900 });
  });

  await t.test('nothing went wrong on the way', () => assert.deepEqual(errors(), []));
});
