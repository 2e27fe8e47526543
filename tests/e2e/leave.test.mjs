// The page asks before a model has to give way (--memory-policy ask). The browser and the page are real; the machine is
// simulated and the workers are scripted, because real models of a size that matters are not at hand.
import assert from 'node:assert/strict';
import { join } from 'node:path';
import test from 'node:test';
import { writeGguf } from '../support/models.mjs';
import { startServer, until } from '../support/server.mjs';
import { openPage } from './browser.mjs';

const GIB = 1024 ** 3;

test('the page asks whether a model may give way; no and yes', async (t) => {
  const server = await startServer(t, { prepare: (s) => ['a.gguf', 'b.gguf'].forEach((name) => writeGguf(join(s.models, name), { bytes: 2 * GIB })),
    args: ['--simulate-device', 'ram=3G', '--memory-margin', '0', '--llm-resident', '8', '--memory-policy', 'ask'] });
  assert.equal((await server.postJson('/v1/llm/load', { model: 'a.gguf' })).status, 200);
  const { page, see, shoot } = await openPage(t, server.base);
  await see('worker-llm').getByText('ready').waitFor();
  assert.equal(await see('leave').count(), 0, 'nothing is asked yet');

  const first = server.postJson('/v1/llm/load', { model: 'b.gguf' });
  await see('leave').getByText('May a.gguf leave memory for b.gguf?').waitFor();
  assert.match(await see('leave').innerText(), /Then a.gguf is parked and gives back 2.0\d GiB on ram, because b.gguf needs 2.0\d GiB there/);
  await shoot('leave');
  await see('leave-no').click();
  const refused = await first;
  assert.equal(refused.status, 503);
  assert.match(refused.json.error.message, /leave was refused/);
  await until('the question is gone', async () => (await see('leave').count()) === 0);

  await see('model-llm').click(); // this time the page itself loads it
  await page.getByRole('option', { name: 'b.gguf' }).click();
  await see('leave-yes').waitFor();
  await see('model-llm').getByText('b.gguf').waitFor();
  assert.match(await see('model-sd').innerText(), /starter-painter/, 'the other list stays as it is');
  await see('leave-yes').click();
  await until('it is loaded', async () => (await server.worker('llm')).model === 'b.gguf');
  await until('the question is gone', async () => (await see('leave').count()) === 0);
  assert.equal(Object.values((await server.getJson('/v1/workers')).json).find((w) => w.wanted === 'a.gguf').state, 'parked');
});
