// Who goes first, with the real engines: each policy's places in the scheduler, and that neither side stands still.
import assert from 'node:assert/strict';
import { readFileSync, readdirSync } from 'node:fs';
import { test } from 'node:test';
import { startReal, streamChat } from './real.mjs';

// [class, nice] of every thread of a process; 0 is the ordinary class, 3 batch.
const places = (pid) => readdirSync(`/proc/${pid}/task`).map((id) => {
  const stat = readFileSync(`/proc/${pid}/task/${id}/stat`, 'latin1');
  const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
  return { id: Number(id), name: stat.slice(stat.indexOf('(') + 1, stat.lastIndexOf(')')), place: `${fields[38]} ${fields[16]}` };
});

const BATCH_AND_LOW = { sd: '3 12', llm: '3 5' };
const ORDINARY = '0 0';

for (const policy of ['text-first', 'equal', 'image-first']) {
  test(`${policy}: text and pictures both go on, each in its place`, async (t) => {
    const server = await startReal(t, { args: ['--sharing', policy, '--llm-threads', '2'] });
    let texts = 0;
    let drawing = true;
    const chat = (async () => {
      while (drawing) {
        assert.ok((await streamChat(server, 'a boat at night')).length > 0);
        texts++;
      }
    })();
    for (let i = 0; i < 3; i++)
      assert.equal((await server.post('/v1/images/generations', { prompt: 'a red circle', steps: 20, seed: i })).status, 200);
    drawing = false;
    await chat;
    assert.ok(texts > 0);

    const [sd, llm] = [await server.worker('sd'), await server.worker('llm')];
    const compute = places(sd.pid).filter((th) => th.name === 'compute');
    assert.ok(compute.length > 0);
    for (const { place } of compute) assert.equal(place, policy === 'text-first' ? BATCH_AND_LOW.sd : ORDINARY);
    const text = places(llm.pid);
    const lower = text.filter((th) => th.place === BATCH_AND_LOW.llm);
    if (policy === 'image-first') {
      assert.equal(text.find((th) => th.id === llm.pid).place, BATCH_AND_LOW.llm, 'the thread that computes');
      assert.ok(lower.length >= 2 && lower.length < 10, `${lower.length} of ${text.length} threads are low`);
    }
    const others = policy === 'image-first' ? text.filter((th) => !lower.includes(th)) : text;
    for (const { place } of others) assert.equal(place, ORDINARY);
    for (const { pid } of [sd]) assert.equal(places(pid).find((th) => th.id === pid).place, ORDINARY);
  });
}
