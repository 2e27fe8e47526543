// Many mixed jobs on a machine that is far too small for all of them: texts of several models, pictures, loads with other layers.
// The devices are simulated, the workers scripted. Nothing may ever lie on a device beyond its size, and whatever gave way was told,
// with numbers and a reason. Both are seen from outside twice: in the stream of events, as the server foresees it; and in
// what the workers wrote down about their lives, which knows nothing of the server's sums.
//
//   node --test tests/chaos/budget.test.mjs      200 jobs, about 20 s
//   MYSTI_CHAOS_JOBS=2000 ...                    as make chaos does; MYSTI_CHAOS_SEED repeats a plan
import assert from 'node:assert/strict';
import { writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import test from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { writeGguf, writeSafetensors } from '../support/models.mjs';
import { sseEvents, startServer, until } from '../support/server.mjs';
import { Chance } from './chance.mjs';

const SEED = Number(process.env.MYSTI_CHAOS_SEED ?? Date.now() % 1e6);
const JOBS = Number(process.env.MYSTI_CHAOS_JOBS ?? 200);
const CLIENTS = 6;
const GIB = 1024 ** 3;
const DEVICES = { ram: 6 * GIB, card: 3 * GIB };
const MODELS = { 'a.gguf': 2 * GIB, 'b.gguf': 2 * GIB, 'c.gguf': 1 * GIB, 'd.gguf': 3 * GIB };
const LAYERS = 8;
const CACHE = 16384; // bytes of a token: 8 layers, 4 heads of 128, keys and values, two bytes each
const PAINTER = 1 * GIB; // the picture model
const QUIET_MS = 2500; // longer than --memory-quiet
const PICTURE = 1.5 * GIB; // what a picture needs beside it

function shelf(server) {
  for (const [name, bytes] of Object.entries(MODELS))
    writeGguf(join(server.models, name), { bytes, numbers: { 'llama.block_count': LAYERS, 'llama.context_length': 32768,
      'llama.embedding_length': 2048, 'llama.attention.head_count': 16, 'llama.attention.head_count_kv': 4 },
      tensors: ['token_embd.weight', ...Array.from({ length: LAYERS }, (_, i) => `blk.${i}.ffn_up.weight`)] });
  writeSafetensors(join(server.models, 'p.safetensors'), { bytes: PAINTER });
}

// ---- the jobs ----

const KINDS = { text: 50, stream: 20, picture: 12, job: 6, load: 12 };

async function whole(res) {
  return { status: res.status, text: await res.text() };
}

const acts = {
  // one that asks for a long answer needs a long context
  text: (server, model, chance) => server.post('/v1/chat/completions', { model, max_tokens: chance.one([50, 50, 6000]), messages: [{ role: 'user', content: 'hello' }] }).then(whole),
  stream: (server, model) => server.post('/v1/chat/completions', { model, stream: true, messages: [{ role: 'user', content: 'hello' }] }).then(whole),
  picture: (server) => server.post('/v1/images/generations', { prompt: 'a boat' }).then(whole),
  load: (server, model, chance) => server.post('/v1/llm/load', { model, gpu_layers: chance.one([0, 4, LAYERS]), context: chance.one([0, 2048, 16384]) }).then(whole),
  async job(server) {
    const { id } = await (await server.post('/v1/jobs', { prompt: 'a boat' })).json();
    const job = await until(`job ${id} ends`, async () => {
      const now = (await server.getJson(`/v1/jobs/${id}`)).json;
      return ['done', 'failed', 'cancelled'].includes(now.state) && now;
    }, 60000);
    return { status: job.state === 'done' ? 200 : 500, text: JSON.stringify(job) };
  },
};

const has = {
  text: /"finish_reason":"stop"/, stream: /data: \[DONE\]\s*$/, picture: /"b64_json"/, job: /"done"/, load: /"model"/,
};

// A load is for people, who are told that something works at this moment, and what; everything else waits for its turn.
const mayBeRefused = (kind, { status, text }) => kind === 'load' && status === 409 && /busy|waited for memory|about to|is being/.test(text);

async function client(server, chance, work) {
  while (work.left-- > 0) {
    const kind = chance.weighted(KINDS), model = chance.one(Object.keys(MODELS));
    const answer = await acts[kind](server, model, chance);
    const well = answer.status === 200 && has[kind].test(answer.text);
    if (!well && !mayBeRefused(kind, answer)) work.failures.push(`${kind} ${model}: ${answer.status} ${answer.text.slice(-400)}`);
    work.count[well ? kind : 'refused'] = (work.count[well ? kind : 'refused'] ?? 0) + 1;
    await sleep(chance.whole(0, 30));
  }
}

// ---- as the server tells it ----

async function listen(server, signal, events) {
  const res = await server.get('/v1/events?types=worker,memory,move', { signal });
  for await (const { event, id, data } of sseEvents(res)) if (data) events.push({ event, id, at: Date.now(), data: JSON.parse(data) });
}

function checkEvents(events) {
  assert.ok(!events.some((e) => e.event === 'gap'), 'nothing was missed');
  const told = events.filter((e) => e.event === 'memory').flatMap((e) => e.data.devices);
  for (const d of told) assert.ok(d.foreseen <= d.total, `${d.foreseen} bytes are foreseen on ${d.name}, which has ${d.total}`);
  return told.length;
}

function checkMoves(events) {
  const moves = events.filter((e) => e.event === 'move').map((e) => e.data);
  moves.forEach((m, i) => {
    assert.equal(m.number, moves[0].number + i, 'each move is told, in order');
    assert.ok(m.bytes > 0 && m.device in DEVICES && m.of, JSON.stringify(m));
    assert.match(m.reason, /\d+\.\d\d GiB/, JSON.stringify(m));
    assert.ok(m.reason.includes(m.of), JSON.stringify(m));
  });
  return moves;
}

// Who left memory has a move, or the wish of a person for another model, that says so.
function checkParked(events, moves) {
  const parked = events.filter((e) => e.event === 'worker' && e.data.state === 'parked').map((e) => e.data);
  for (const w of parked) {
    assert.match(w.reason, /^parked: (.* needs \d+\.\d\d GiB|its (layers|context) comes? back|.* was wanted)/, JSON.stringify(w));
    assert.ok(/was wanted/.test(w.reason) || moves.some((m) => m.of === w.wanted), `${w.wanted} left memory, and no move says why`);
  }
  return parked.length;
}

// ---- as the workers lived it ----

const layersOf = (options) => {
  const at = options.indexOf('--gpu-layers');
  return at < 0 ? LAYERS : Math.min(Number(options[at + 1]), LAYERS);
};

const numberOf = (options, name) => Number(options[options.indexOf(name) + 1]);

// What a text model's file and its context put where: the token table and the other layers lie in memory, each layer's cache with it.
function weights(options) {
  const bytes = MODELS[options[options.indexOf('--model') + 1].split('/').at(-1)];
  if (!bytes) return { card: 0, ram: 0 }; // the starter is small
  const layers = layersOf(options), each = bytes / (LAYERS + 1);
  const cache = CACHE * numberOf(options, '--context') * numberOf(options, '--slots') / LAYERS;
  return { card: (each + cache) * layers, ram: bytes - each * layers + cache * (LAYERS - layers) };
}

/* Changes in time: { at, pid, what, ram, card }. A process has its bytes from its start to its end; a picture from the request on. */
function changes(server) {
  const list = [], lives = new Map(), add = (r, what, { ram = 0, card = 0 }) => list.push({ at: r.at, order: list.length, what, ram, card });
  for (const kind of ['llm', 'sd'])
    for (const r of server.records(kind)) {
      const life = lives.get(r.pid) ?? { ram: 0, card: 0 };
      if (r.event === 'start' && kind === 'llm' && !r.options.includes('--check')) {
        Object.assign(life, weights(r.options));
        add(r, `start of ${r.options[r.options.indexOf('--model') + 1]}`, life);
      } else if (r.url === '/internal/load') {
        add(r, 'the picture model', { ram: PAINTER - life.ram });
        life.ram = PAINTER;
      } else if (r.url === '/internal/generate') {
        add(r, 'a picture', { ram: PICTURE });
      } else if (r.event === 'job_done') {
        add(r, 'the end of a picture', { ram: -PICTURE });
      } else if (r.event === 'end') {
        add(r, 'the end of a process', { ram: -life.ram, card: -life.card });
        lives.delete(r.pid);
        continue;
      }
      lives.set(r.pid, life);
    }
  // of one millisecond what ends comes first: the clock is no finer
  return list.sort((a, b) => a.at - b.at || (a.ram + a.card) - (b.ram + b.card));
}

function checkLives(server) {
  const now = { ram: 0, card: 0 }, most = { ram: 0, card: 0 };
  for (const c of changes(server))
    for (const device of Object.keys(now)) {
      now[device] += c[device];
      most[device] = Math.max(most[device], now[device]);
      assert.ok(now[device] <= DEVICES[device] + 1, `${(now[device] / GIB).toFixed(2)} GiB lay on ${device} with ${c.what}`); // 1: ninths are rounded
    }
  return most;
}

async function keep(server, events) {
  const file = join(tmpdir(), `mysti-budget-${SEED}.json`);
  const state = await Promise.all(['memory', 'queue', 'workers'].map(async (what) => (await server.getJson(`/v1/${what}`)).json));
  writeFileSync(file, JSON.stringify({ events, state, log: server.logText, llm: server.records('llm'), sd: server.records('sd') }));
  return file;
}

test(`${JOBS} mixed jobs on devices that are too small: nothing beyond their size, every move explained`, async (t) => {
  t.diagnostic(`seed ${SEED}`);
  const chance = new Chance(SEED), events = [], leave = new AbortController();
  const server = await startServer(t, { prepare: shelf, sd: { resident_bytes: PAINTER, needs_bytes: PICTURE, step_ms: 15 }, llm: { token_ms: 5 },
    args: ['--simulate-device', `ram=${DEVICES.ram}`, '--simulate-device', `card=${DEVICES.card}`, '--memory-margin', '0', '--memory-quiet', '1',
      '--llm-resident', '8', '--client-queue-limit', '1000'] });
  assert.equal((await server.postJson('/v1/models/load', { model: 'p.safetensors' })).status, 200);
  const listening = listen(server, leave.signal, events).catch((e) => e.name === 'AbortError' || Promise.reject(e));
  await until('it is heard', () => events.some((e) => e.event === 'snapshot'));
  const work = { left: JOBS, failures: [], count: {} };
  try {
    await Promise.all(Array.from({ length: CLIENTS }, () => client(server, chance.child(), work)));
    await until('all is quiet, and nothing more comes back', () => Date.now() - events.at(-1).at > QUIET_MS, 60000);
    leave.abort();
    await listening;
    const moves = checkMoves(events);
    const summary = { ...work.count, moves: moves.length, kinds: [...new Set(moves.map((m) => m.move))], parked: checkParked(events, moves),
      looks: checkEvents(events), most: checkLives(server) };
    t.diagnostic(JSON.stringify(summary));
    assert.deepEqual(work.failures, []);
    assert.ok(moves.length > JOBS / 20, 'the machine was too small');
    for (const kind of ['trim', 'park']) assert.ok(summary.kinds.includes(kind), `${kind} was needed`);
    for (const device of Object.keys(DEVICES)) assert.ok(summary.most[device] > DEVICES[device] / 2, `${device} was in use`);
  } catch (error) {
    const file = await keep(server, events);
    throw new Error(`seed ${SEED}: ${error.message}; everything that was told is in ${file}`, { cause: error });
  }
});
