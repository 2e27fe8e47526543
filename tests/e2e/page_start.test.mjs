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
  const { page, see, shoot, errors, cut, choose, unnamed } = await openPage(t, server.base);
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
    await drawn(4);
    assert.equal(await see('made').locator('button').count(), 4);
    const { params } = await newest();
    assert.equal(params.prompt, 'a yellow star on a blue background');
    assert.match(params.text, /Denoising strength: 0.5/);
    await shoot('variations');
  });

  await t.test('a part is painted over and drawn anew, the rest stays bit for bit', async () => {
    await page.getByRole('button', { name: 'Start from it' }).click();
    const before = await shownPixels();
    await see('part').click();
    await see('brush').fill('30');
    await see('mask').scrollIntoViewIfNeeded();
    const box = await see('mask').boundingBox();
    const to = (x, y) => page.mouse.move(box.x + x * box.width, box.y + y * box.height, { steps: 4 });
    await to(0.2, 0.2);
    await page.mouse.down();
    await to(0.2, 0.8);
    await page.mouse.up();
    await see('more').locator('summary').click();
    await page.getByLabel('Blur of its edge').fill('0');
    await choose('Begins with', 'noise');
    await see('strength').fill('100');
    await see('prompt').fill('a green background');
    await shoot('mask', { fullPage: true });
    await see('draw').click();
    await drawn();
    const after = await shownPixels();
    let changed = 0;
    for (let y = 0; y < 128; y++)
      for (let x = 0; x < 128; x++) {
        const same = [0, 1, 2].every((c) => after.rgb[3 * (128 * y + x) + c] === before.rgb[3 * (128 * y + x) + c]);
        if (!same) changed++;
        assert.ok(same || x < 46, `${x}, ${y} is outside of what was painted`); // 0.2 and half a brush of 0.3, of 128
      }
    assert.ok(changed > 1000, `${changed} pixels changed`);
    await shoot('masked', { fullPage: true });
  });

  /** How many of a hundred pixels are painted. */
  const painted = () => see('mask').evaluate((canvas) => {
    const { data } = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height);
    return Math.round((100 * data.filter((_, i) => i % 4 === 3 && data[i] > 0).length) / (canvas.width * canvas.height));
  });

  await t.test('undo, invert, clear, eraser, and all of it by keyboard', async () => {
    const first = await painted();
    assert.ok(first > 15 && first < 35, `${first} %`);
    await page.getByRole('button', { name: 'Invert' }).click();
    assert.equal(await painted(), 100 - first);
    await see('mask-undo').click();
    assert.equal(await painted(), first);
    await page.getByRole('button', { name: 'Clear' }).click();
    assert.equal(await painted(), 0);
    await see('brush').focus();
    await page.keyboard.press('Shift+Tab');
    assert.equal(await see('mask').evaluate((canvas) => canvas === document.activeElement), true);
    await page.getByText('Arrow keys move the brush').waitFor();
    await page.keyboard.press('Space');
    const dab = await painted();
    assert.ok(dab > 5, `${dab} %`);
    await page.keyboard.press('ArrowLeft');
    assert.equal(await painted(), dab, 'it only moves');
    await page.keyboard.press('Shift+ArrowRight');
    await page.keyboard.press('Shift+ArrowRight');
    const line = await painted();
    assert.ok(line > dab, `${line} %`);
    await shoot('mask-keyboard');
    await page.getByRole('button', { name: 'Eraser' }).click();
    await see('mask').focus();
    await page.keyboard.press(']');
    await page.keyboard.press('Space');
    assert.ok(await painted() < line);
    for (let i = 0; i < 4; i++) await page.keyboard.press('Control+z');
    assert.equal(await painted(), 0);
    await see('whole').click();
    assert.equal(await see('mask').count(), 0);
    await page.getByRole('button', { name: 'Remove' }).click();
  });

  await t.test('only the painted part is drawn, in full size, and put back', async () => {
    await arrive('drop', 'large.png', 'image/png', makePng({ width: 400, height: 400 }));
    await see('part').click();
    await see('mask').scrollIntoViewIfNeeded();
    await see('mask').click(); // in its middle
    await page.getByText('What is painted is drawn anew').waitFor();
    await see('only-masked').click();
    await page.getByLabel('Padding around it').fill('8');
    await page.getByLabel('Padding around it').press('Tab');
    await see('draw').click();
    await drawn();
    const { width, height, rgb } = await shownPixels();
    assert.deepEqual([width, height], [400, 400], 'it keeps its size');
    const at = (x, y) => [...rgb.slice(3 * (400 * y + x), 3 * (400 * y + x) + 3)];
    assert.deepEqual(at(10, 10), at(390, 390));
    assert.notDeepEqual(at(10, 10), at(200, 200));
    await page.getByRole('button', { name: 'Remove' }).click();
  });

  await t.test('on a telephone everything is within the screen, and has a name', async () => {
    await page.getByRole('button', { name: 'Start from it' }).click();
    await see('start').waitFor();
    await see('part').click();
    await page.setViewportSize({ width: 375, height: 800 });
    assert.deepEqual(await cut(), []);
    assert.deepEqual(await unnamed(), []);
    await shoot('start-telephone', { fullPage: true });
    await page.setViewportSize({ width: 1280, height: 900 });
  });

  await t.test('nothing went wrong on the way', () => assert.deepEqual(errors(), []));
});
