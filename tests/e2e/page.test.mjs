// The page in a real browser, against the real server: it loads, the wand streams words into the box, Generate
// shows progress and a picture, Cancel stops one.
import assert from 'node:assert/strict';
import { existsSync, mkdirSync } from 'node:fs';
import test from 'node:test';
import { fileURLToPath } from 'node:url';
import { chromium } from 'playwright-core';
import { until } from '../support/server.mjs';
import { startReal } from './real.mjs';

const executablePath = ['/usr/bin/chromium', '/usr/bin/chromium-browser', '/usr/bin/google-chrome'].find(existsSync);
const shots = fileURLToPath(new URL('../../build/screenshots', import.meta.url));

// Without a network of its own the browser must not look for one: its own requests only delay the test.
const launch = { executablePath, args: ['--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run',
  '--disable-background-networking', '--disable-component-update', '--disable-sync'] };

test('the page: load, wand, draw, cancel', async (t) => {
  assert.ok(executablePath, 'no Chromium here: deps/system.sh test installs it or says how');
  const server = await startReal(t);
  const browser = await chromium.launch(launch);
  t.after(() => browser.close());
  const page = await browser.newPage({ viewport: { width: 1280, height: 900 } });
  const errors = [];
  page.on('pageerror', (error) => errors.push(String(error)));
  page.on('console', (message) => message.type() === 'error' && errors.push(message.text()));
  mkdirSync(shots, { recursive: true });
  const see = (id) => page.getByTestId(id);

  await t.test('it loads and shows both workers', async () => {
    await page.goto(server.base);
    await see('worker-llm').getByText('ready').waitFor();
    await see('worker-sd').getByText('ready').waitFor();
    await page.screenshot({ path: `${shots}/loaded.png` });
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
    await page.screenshot({ path: `${shots}/written.png` });
    await see('undo').click();
    assert.equal(await see('prompt').inputValue(), 'a boat at night');
  });

  await t.test('Generate shows progress, then the picture, which is also among the recent ones', async () => {
    await see('prompt').fill('a red circle on a blue background');
    await see('draw').click();
    await see('progress').waitFor();
    await see('picture').waitFor({ timeout: 60000 });
    const width = await see('picture').evaluate((img) => img.decode().then(() => img.naturalWidth));
    assert.equal(width, 128);
    await until('the picture is among the recent ones', async () => (await see('recent').locator('img').count()) === 1);
    await page.screenshot({ path: `${shots}/drawn.png` });
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
    await page.screenshot({ path: `${shots}/lora.png` });
    await see('wand').click();
    await until('the wand has finished', async () => (await see('undo').count()) === 1, 30000);
    assert.match(await see('prompt').inputValue(), /circle.* <lora:starter-ink:1>$/s);
    await see('undo').click();
  });

  await t.test('a long picture shows how it becomes; Cancel stops it at once', async () => {
    await page.getByRole('button', { name: 'More control' }).click();
    await page.getByLabel('Steps').fill('150');
    await page.getByLabel('Width').fill('512');
    await page.getByLabel('Height').fill('512');
    await page.getByLabel('Height').press('Tab');
    await see('draw').click();
    await see('preview').waitFor({ timeout: 60000 });
    assert.equal(await see('preview').evaluate((img) => img.decode().then(() => img.naturalWidth)), 64);
    await page.getByText(/^Sampling: step \d+ of 150/).waitFor();
    await page.screenshot({ path: `${shots}/preview.png` });
    await see('cancel').click();
    await see('draw').waitFor();
    await until('the picture worker is idle again', async () => (await server.worker('sd')).state === 'ready');
    assert.equal(await see('recent').locator('img').count(), 2);
    await page.screenshot({ path: `${shots}/cancelled.png` });
  });

  await t.test('on a telephone everything is within the screen', async () => {
    await page.setViewportSize({ width: 400, height: 900 });
    const cut = await page.evaluate(() => [...document.querySelectorAll('header *, main *')].filter((e) => e.checkVisibility()
      && (e.getBoundingClientRect().right > innerWidth || e.getBoundingClientRect().left < 0)).map((e) => e.outerHTML.slice(0, 80)));
    assert.deepEqual(cut, []);
    await page.screenshot({ path: `${shots}/telephone.png`, fullPage: true });
  });

  await t.test('nothing went wrong on the way', () => {
    // a request that was cancelled shows as a failed load in the console, and is meant to
    assert.deepEqual(errors.filter((e) => !/ERR_ABORTED|AbortError/.test(e)), []);
  });
});
