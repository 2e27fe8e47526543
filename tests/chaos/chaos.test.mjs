// Kills at random moments, under load: what was promised must be kept, whoever dies.
//
//   node --test tests/chaos                      the short form, about 40 s
//   make chaos                                   200 kills of workers, 200 of the server, with both kinds of workers
//
// Variables: MYSTI_CHAOS_WORKER_KILLS, MYSTI_CHAOS_SERVER_KILLS how often; MYSTI_CHAOS_WORKERS scripted, real or both
// (default); MYSTI_CHAOS_SEED to repeat a plan: the moments depend on the machine, whom, how and how long after on the
// seed alone. A failure shows its story; the whole of it and the server's log stay in the file that is named.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { until } from '../support/server.mjs';
import { Chance } from './chance.mjs';
import { Load } from './load.mjs';
import { Story } from './story.mjs';
import { World } from './world.mjs';

const SEED = Number(process.env.MYSTI_CHAOS_SEED ?? Date.now() % 1e6);
const WORKER_KILLS = Number(process.env.MYSTI_CHAOS_WORKER_KILLS ?? 8);
const SERVER_KILLS = Number(process.env.MYSTI_CHAOS_SERVER_KILLS ?? 4);
const WORKERS = process.env.MYSTI_CHAOS_WORKERS ?? 'both';
const RESPAWN_MS = 2000;
const ENOUGH = 20; // broken promises: more would not say more
const MEMORY_KIB = 8 * 1024; // what the allocator may keep of a busy hour

// KILL comes from outside; SEGV and ABRT look like the worker's own failure. A stopped one is found by its health, which
// takes seconds: once in the middle of a short attack, every fiftieth time in a long one.
const SIGNALS = { KILL: 74, SEGV: 14, ABRT: 12 };
const STOP_EVERY = 50;
const HUNG_START_MS = 40000; // a start may take 30 s, and one that failed is tried again after 1 s
const FAILURES = ['SEGV', 'ABRT'];
// A worker that fails by itself three times in a row stays without its model until somebody loads one: after two, chaos
// does.
const FAULTS_MAX = 2;
const PARKED = 0.3; // of the kills of the text worker come while it is being parked
const ROUTES = { sd: '/v1/models', llm: '/v1/llm' };

async function attack(t, real, name, act) {
  const story = new Story();
  const chance = new Chance(SEED);
  const world = new World({ real }, story);
  const load = new Load(world, story, chance.child());
  t.diagnostic(`seed ${SEED}`);
  try {
    await world.begin();
    await act({ world, story, chance, load });
  } catch (error) {
    story.promise(false, error.message);
  } finally {
    load.running = false;
    const file = story.broken.length ? world.keepLog(`mysti-chaos-${name}-${SEED}.log`) : null;
    await world.end();
    await load.end();
    t.diagnostic(JSON.stringify(load.count));
    assert.equal(story.broken.length, 0, `seed ${SEED}, ${story.broken.length} promise(s) broken; everything is in ${file}\n`
      + `${story.broken.slice(0, 5).join('\n')}\n---- the last of the story ----\n${story.text(40)}`);
  }
}

// What a user does after a row of crashes: loads the model.
async function loadAgain({ world, story, load }, kind) {
  await load.meanwhile(async () => {
    await world.ready();
    const { model } = await world.worker(kind);
    await world.json('POST', `${ROUTES[kind]}/unload`, {});
    const { status, text } = await world.json('POST', `${ROUTES[kind]}/load`, { model });
    story.promise(status === 200, `${model} can be loaded again: ${status} ${text}`);
    story.tell(`${kind}: ${model} was loaded again`);
  });
  story.faults[kind] = 0;
}

// Sets the text model aside in the middle of everything, a moment before its worker is killed.
async function park({ world, story }) {
  const { status, text } = await world.json('POST', '/v1/workers/llm/park', {});
  story.tell(`llm is to be parked: ${status}`);
  story.promise([200, 409].includes(status) || /"code":"(unavailable|worker_failed)"/.test(text), `a park ends well or with a reason: ${status} ${text}`);
}

// One kill and the respawn after it.
async function killWorker({ world, story, chance }, stop) {
  const kind = chance.one(['sd', 'llm']);
  let signal = stop ? 'STOP' : chance.weighted(SIGNALS);
  const before = await world.worker(kind);
  if (!before?.pid) return;
  const parks = kind === 'llm' && chance.next() < PARKED;
  const parked = parks ? park({ world, story }) : null;
  if (parks) await sleep(chance.whole(0, 80));
  if (FAILURES.includes(signal) && !['ready', 'busy'].includes(before.state)) signal = 'KILL';
  story.tell(`${kind} is ${before.state}`);
  try {
    process.kill(before.pid, `SIG${signal}`);
  } catch {
    return parked; // it was gone already
  }
  story.kill(kind, signal, before.pid);
  if (signal !== 'KILL') story.faults[kind]++;
  const killed = performance.now();
  const limit = signal !== 'STOP' ? RESPAWN_MS : before.state === 'starting' ? HUNG_START_MS : 30000;
  let now;
  const isAnother = () => (now?.pid && now.pid !== before.pid) || (parks && now?.state === 'parked');
  do {
    now = await world.worker(kind);
  } while (!isAnother() && performance.now() - killed < limit);
  story.promise(isAnother(), `${kind} is there again ${limit} ms after -${signal}, not ${now?.state}`);
  story.isBack(kind, 'is there again');
  await parked;
}

async function workersDie({ world, story, chance, load }) {
  load.begin();
  await sleep(1000); // everything that grows once has grown
  await load.end();
  await until('it is quiet', async () => (await world.json('GET', '/v1/progress')).json.phase === 'idle');
  const before = world.size();

  load.running = true;
  load.begin();
  for (let i = 0; i < WORKER_KILLS && story.broken.length < ENOUGH; i++) {
    await sleep(chance.whole(0, 500));
    await killWorker({ world, story, chance }, i % STOP_EVERY === Math.min(STOP_EVERY, WORKER_KILLS) >> 1 && (!world.real || WORKER_KILLS >= STOP_EVERY));
    for (const kind of ['sd', 'llm']) if (story.faults[kind] >= FAULTS_MAX) await loadAgain({ world, story, load }, kind);
    if (chance.next() < 0.6) await world.ready(); // else the next one comes while it starts or loads
  }
  await world.ready();
  await sleep(300);
  await load.end();
  await load.jobsEnd(60000);
  await until('descriptors are back', () => world.size().descriptors <= before.descriptors + 2, 5000).catch(() => {});
  const after = world.size();
  story.promise(after.descriptors <= before.descriptors + 2, `descriptors: ${before.descriptors} before, ${after.descriptors} after`);
  story.promise(after.kib <= before.kib + MEMORY_KIB, `memory: ${before.kib} KiB before, ${after.kib} KiB after`);
  for (const [file, verdict] of world.integrity()) story.promise(verdict === 'ok', `${file} is sound, not: ${verdict}`);
  for (const kind of ['texts', 'streams', 'pictures']) story.promise(load.count[kind] > 0, `there were ${kind}`);
}

async function serverDies({ world, story, chance, load }) {
  load.begin();
  for (let i = 0; i < SERVER_KILLS && story.broken.length < ENOUGH; i++) {
    await sleep(chance.whole(0, 1200));
    await world.killServer();
    if (chance.next() < 0.5) await world.ready(); // else the next one comes while workers start
  }
  await world.ready();
  await sleep(500);
  await load.end();
  await load.jobsEnd(60000);
  for (const [file, verdict] of world.integrity()) story.promise(verdict === 'ok', `${file} is sound, not: ${verdict}`);
  story.promise(world.integrity().length > 0, 'there is a database to look at');
  story.promise(load.count.jobs > 0, 'there were jobs');
}

for (const workers of WORKERS === 'both' ? ['scripted', 'real'] : [WORKERS]) {
  const real = workers === 'real';
  test(`${workers} workers are killed ${WORKER_KILLS} times under load: everything that was asked for is answered`, (t) => attack(t, real, `${workers}-workers`, workersDie));
  test(`the server with ${workers} workers is killed ${SERVER_KILLS} times: no orphan, every accepted job finished`, (t) => attack(t, real, `${workers}-server`, serverDies));
}
