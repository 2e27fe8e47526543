// The page in a real browser, against the real server: it loads, the wand streams words into the box, Generate
// shows progress and a picture, Cancel stops one.
import assert from 'node:assert/strict';
import test from 'node:test';
import { until } from '../support/server.mjs';
import { openPage } from './browser.mjs';
import { startReal } from './real.mjs';

test('the page: load, wand, draw, cancel', async (t) => {
  const server = await startReal(t);
  const { page, see, shoot, errors, cut, unnamed } = await openPage(t, server.base);

  await t.test('it loads and shows both workers', async () => {
    await see('worker-llm').getByText('ready').waitFor();
    await see('worker-sd').getByText('ready').waitFor();
    await shoot('loaded');
  });

  await t.test('the wand streams words into the box, undo brings the idea back', async () => {
    await see('prompt').fill('a boat at night');
    await see('wand').click();
    const lengths = new Set();
    await until('the wand has finished', async () => {
      lengths.add((await see('prompt').inputValue()).length);
      return (await see('undo').count()) === 1;
    }, 30000);
    const written = await see('prompt').inputValue();
    assert.match(written, /boat/i);
    assert.ok(written.length > 40, `too short: ${written}`);
    await shoot('written');
    await see('undo').click();
    assert.equal(await see('prompt').inputValue(), 'a boat at night');
  });

  await t.test('Generate shows progress, then the picture, which is also among the recent ones', async () => {
    await see('prompt').fill('a red circle on a blue background');
    const begun = see('progress').waitFor(); // it may be over before we look
    await see('draw').click();
    await begun;
    await see('picture').waitFor({ timeout: 60000 });
    const width = await see('picture').evaluate((img) => img.decode().then(() => img.naturalWidth));
    assert.equal(width, 128);
    await until('the picture is among the recent ones', async () => (await see('recent').locator('img').count()) === 1);
    await shoot('drawn');
  });

  await t.test('a LoRA is chosen from a list, survives the wand, and the picture is another one', async () => {
    const plain = await see('picture').getAttribute('src');
    await see('prompt').fill('a red circle on a blue background');
    await see('lora').click();
    await page.getByRole('option', { name: 'starter-ink' }).click();
    assert.equal(await see('prompt').inputValue(), 'a red circle on a blue background <lora:starter-ink:1>');
    await see('lora').getByText('Add a LoRA').waitFor();
    await see('draw').click();
    await until('another picture', async () => (await see('recent').locator('img').count()) === 2);
    assert.notEqual(await see('picture').getAttribute('src'), plain);
    await shoot('lora');
    await see('wand').click();
    await until('the wand has finished', async () => (await see('undo').count()) === 1, 30000);
    assert.match(await see('prompt').inputValue(), /circle.* <lora:starter-ink:1>$/s);
    await see('undo').click();
  });

  await t.test('a long picture shows how it becomes; Cancel stops it at once', async () => {
    await page.getByText('More control').click();
    await page.getByLabel('Steps').fill('150');
    await page.getByLabel('Width').fill('512');
    await page.getByLabel('Height').fill('512');
    await page.getByLabel('Height').press('Tab');
    await see('draw').click();
    await see('preview').waitFor({ timeout: 60000 });
    assert.equal(await see('preview').evaluate((img) => img.decode().then(() => img.naturalWidth)), 64);
    await page.getByText(/^Sampling: step \d+ of 150/).waitFor();
    await shoot('preview');
    await see('cancel').click();
    await see('draw').waitFor();
    await until('the picture worker is idle again', async () => (await server.worker('sd')).state === 'ready');
    assert.equal(await see('recent').locator('img').count(), 2);
    await shoot('cancelled');
  });

  await t.test('on a telephone everything is within the screen, and has a name', async () => {
    await page.setViewportSize({ width: 375, height: 800 });
    assert.deepEqual(await cut(), []);
    assert.deepEqual(await unnamed(), []);
    await shoot('telephone', { fullPage: true });
  });

  await t.test('nothing went wrong on the way', () => {
    assert.deepEqual(errors(), []);
  });
});
