// The page in a real browser: Debian's Chromium, its errors collected, screenshots in build/screenshots.
import assert from 'node:assert/strict';
import { existsSync, mkdirSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { chromium } from 'playwright-core';

const executablePath = ['/usr/bin/chromium', '/usr/bin/chromium-browser', '/usr/bin/google-chrome'].find(existsSync);
const shots = fileURLToPath(new URL('../../build/screenshots', import.meta.url));

// Without a network of its own the browser must not look for one: its own requests only delay the test.
const launch = { executablePath, args: ['--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run',
  '--disable-background-networking', '--disable-component-update', '--disable-sync'] };

/** Opens a server's page: {page, see(test id), shoot(name), errors(), choose(label, option), cut(), unnamed()}. */
export async function openPage(t, base) {
  assert.ok(executablePath, 'no Chromium here: deps/system.sh test installs it or says how');
  mkdirSync(shots, { recursive: true });
  const browser = await chromium.launch(launch);
  t.after(() => browser.close());
  const page = await browser.newPage({ viewport: { width: 1280, height: 900 } });
  const errors = [];
  page.on('pageerror', (error) => errors.push(String(error)));
  page.on('console', (message) => message.type() === 'error' && errors.push(message.text()));
  await page.goto(base);
  return {
    page,
    see: (id) => page.getByTestId(id),
    shoot: (name, options = {}) => page.screenshot({ path: `${shots}/${name}.png`, animations: 'disabled', ...options }),
    // a request that was cancelled shows as a failed load in the console, and is meant to
    errors: () => errors.filter((e) => !/ERR_ABORTED|AbortError/.test(e)),
    async choose(label, option) {
      await page.getByLabel(label, { exact: true }).click();
      await page.getByRole('option', { name: option, exact: true }).click();
    },
    /** Controls that a screen reader could not name. */
    unnamed: () => page.evaluate(() => [...document.querySelectorAll('button, input, textarea, canvas, a, [role=combobox], [role=switch]')]
      .filter((e) => e.checkVisibility() && !e.closest('[aria-hidden=true]') && !e.ariaLabel && !e.title && !e.innerText?.trim()
        && !e.querySelector('img[alt]:not([alt=""])') && ![...(e.labels ?? [])].some((label) => label.innerText.trim())).map((e) => e.outerHTML.slice(0, 120))),
    /** What reaches beyond the screen's sides. */
    cut: () => page.evaluate(() => [...document.querySelectorAll('header *, main *, [role=dialog] *')].filter((e) => e.checkVisibility()
      && (e.getBoundingClientRect().right > innerWidth || e.getBoundingClientRect().left < 0)).map((e) => e.outerHTML.slice(0, 80))),
  };
}
