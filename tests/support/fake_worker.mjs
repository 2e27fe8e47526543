// A scriptable stand-in for mysti_sd_worker and mysti_llm_worker (= llama-server).
//
//   node fake_worker.mjs sd|llm FOLDER [the worker's own options...]
//
// It speaks the workers' HTTP exactly as the real ones do and misbehaves on command. FOLDER holds
//   plan.json      what to do, read again before every decision, so that a test can change it while it runs
//   records.jsonl  what happened: starts with their arguments, ends that were asked for, every request, clients that left
//   counts.json    how often each decision was taken, kept over crashes
// A decision in the plan is one word or a list of words; a list is worked off one word per occasion and its last
// word stays: {"generate": ["crash", "ok"]} dies at the first job and paints from then on.
//
//   start     ok | crash | hang (never listens) | slow (start_ms)      exit_code
//   health    ok | hang | garbage
//   load      ok | crash | hang | out_of_memory | bad_file             load_ms
//   estimate  ok | busy | crash | fault (SIGSEGV) | slow (estimate_ms)
//   generate  ok | crash | crash_mid (killed from outside) | fault | fault_mid (SIGSEGV) | crash_second (in the second picture) | crash_end (after the last) | stall | garbage | out_of_memory | error_mid | truncate | unauthorized
//             think (computes for think_ms without a word)
//             step_ms, picture_bytes (extra bytes in the picture), resident_bytes (of the model), needs_bytes, low_bytes (of a picture, at once and at least)
//   save, restore (of a slot's context)  ok | anything else fails; slot_tokens: how many each slot holds; save_ms
//             (fault: by SIGSEGV; crash: killed from outside)
//   chat      ok | fault | no_memory | crash | crash_head (after the head of a stream) | crash_mid | stall | garbage | error | slow  tokens, token_ms, first_ms
import { createServer } from 'node:http';
import { appendFileSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { makePng } from './png.mjs';

const [kind, folder, ...options] = process.argv.slice(2);
const file = (name) => join(folder, name);

function readJson(name, fallback) {
  try {
    return JSON.parse(readFileSync(file(name), 'utf8'));
  } catch {
    return fallback;
  }
}

const plan = (key, fallback) => readJson('plan.json', {})[key] ?? fallback;

function decide(key) {
  const words = [].concat(plan(key, 'ok'));
  const counts = readJson('counts.json', {});
  const n = counts[key] ?? 0;
  counts[key] = n + 1;
  writeFileSync(file('counts.json'), JSON.stringify(counts));
  return words[Math.min(n, words.length - 1)];
}

function record(what) {
  const line = { at: Date.now(), pid: process.pid, ...what };
  appendFileSync(file('records.jsonl'), JSON.stringify(line) + '\n');
}

function option(name) {
  const i = options.indexOf(name);
  return i >= 0 ? options[i + 1] : undefined;
}

const die = (signal = 'SIGKILL') => process.kill(process.pid, signal);
const token = process.env.MYSTI_WORKER_TOKEN ?? '';

// The server's own death must not leave this process behind even where the kernel's parent-death signal was
// lost in the shell between the two.
const parent = process.ppid;
setInterval(() => process.ppid !== parent && process.exit(0), 500).unref();

function sendJson(res, status, value) {
  const text = JSON.stringify(value);
  res.writeHead(status, { 'Content-Type': 'application/json', 'Content-Length': Buffer.byteLength(text) });
  res.end(text);
}

function sendError(res, status, code, message, type = 'server_error') {
  sendJson(res, status, { error: { message, type, param: null, code } });
}

function readBody(req) {
  return new Promise((resolve, reject) => {
    const parts = [];
    req.on('data', (d) => parts.push(d)).on('end', () => resolve(Buffer.concat(parts))).on('error', reject);
  });
}

// ---------------------------------------------------------------------------------------- the picture worker

const sd = { state: 'empty', model: null, error: null, cancelled: false };

const sdFacts = () => ({
  model: sd.model, family: 'sd1', parameters: 1000, resident_bytes: plan('resident_bytes', 4096), default_width: 128,
  default_height: 128, default_steps: plan('default_steps', 4), default_cfg_scale: 5, default_sampler: 'euler',
  default_scheduler: 'normal', prediction: 'eps',
});

async function sdLoad(path) {
  const before = { ...sd };
  sd.state = 'loading';
  await sleep(plan('load_ms', 0));
  const how = decide('load');
  if (how === 'crash') die();
  if (how === 'hang') await new Promise(() => {});
  if (how !== 'ok') {
    Object.assign(sd, { state: before.model ? 'ready' : 'empty', model: before.model });
    sd.error = how === 'bad_file' ? `${path}: not a model` : `${path} needs 9.1 GiB, 7.8 GiB free`;
    return how;
  }
  Object.assign(sd, { state: 'ready', model: path, error: null });
  return null;
}

const jobSizes = (job) => ({
  width: job.width ?? 128, height: job.height ?? 128, steps: job.steps ?? plan('default_steps', 4),
  seed: job.seed >= 0 ? job.seed : 4242, count: job.count ?? 1,
});

async function sdGenerate(req, res, job) {
  if (sd.state === 'busy') return sendError(res, 409, 'busy', 'a job is running', 'conflict_error');
  if (!sd.model && !job.upscale) return sendError(res, 503, 'unavailable', 'no model is loaded', 'unavailable_error');
  const how = decide('generate');
  if (how === 'crash') die();
  if (how === 'fault') return void die('SIGSEGV');
  if (how === 'unauthorized') return sendError(res, 401, 'unauthorized', 'no token', 'authentication_error');
  if (how === 'out_of_memory')
    return sendError(res, 503, 'out_of_memory', 'the job needs 9.1 GiB, 7.8 GiB free', 'unavailable_error');

  let gone = false;
  res.on('close', () => {
    if (!res.writableFinished) {
      gone = true;
      record({ event: 'client_gone', url: req.url });
    }
  });
  Object.assign(sd, { state: 'busy', cancelled: false });
  res.writeHead(200, { 'Content-Type': 'application/x-ndjson' });
  const say = (o) => res.write(JSON.stringify(o) + '\n');
  const stop = () => {
    sd.state = sd.model ? 'ready' : 'empty';
    res.end();
  };
  if (how === 'garbage') {
    res.write('this is not json\n\u0000\u0001{"event":"image","bytes":-5}\n');
    return stop();
  }
  const { width, height, steps, seed, count } = jobSizes(job);
  for (const [, name] of job.prompt.matchAll(/<lora:([^:>]+)/g))
    say({ event: 'lora', name, text: 0.5, unet: 1, matched: 9, unmatched: 1, first_unmatched: 'lora_te2_x.alpha' });
  for (const [, name] of job.prompt.matchAll(/embedding:(\w+)/g)) say({ event: 'embedding', name, vectors: 2 });
  for (let image = 0; image < count; image++) {
    for (const phase of job.upscale ? ['upscale'] : ['encode', 'sample']) say({ event: 'phase', phase });
    for (let step = 1; step <= steps; step++) {
      await sleep(plan('step_ms', 5));
      if (gone || sd.cancelled) {
        say({ event: 'error', error: { message: 'cancelled', type: 'cancelled_error', param: null, code: 'cancelled' } });
        record({ event: 'job_cancelled', step });
        return stop();
      }
      say({ event: 'step', step, steps, image, elapsed_ms: step * 5, eta_ms: (steps - step) * 5 });
      if (job.preview_ms >= 0) {
        const small = makePng({ width: width / 8, height: height / 8, parameters: '' });
        say({ event: 'preview', image, step, steps, width: width / 8, height: height / 8, bytes: small.length });
        res.write(small);
        res.write('\n');
      }
      if (how === 'crash_second' && image === 1) return die();
      if (how === 'fault_mid' && step === Math.ceil(steps / 2)) return void die('SIGSEGV');
      if (how === 'crash_mid' && step === Math.ceil(steps / 2)) return die();
      if (how === 'stall' && step === 1) return;
      if (how === 'think' && step === 1) await think(plan('think_ms', 3000));
      if (how === 'error_mid' && step === 2) {
        say({ event: 'error', error: { message: 'the engine gave up', type: 'server_error', param: null, code: 'internal_error' } });
        return stop();
      }
    }
    if (!job.upscale) say({ event: 'phase', phase: 'decode' });
    const own = job.seeds?.[image] ?? seed + image;
    const parameters = parametersText(job, { width, height, steps, seed: own });
    const png = makePng({ width, height, parameters, padding: plan('picture_bytes', 0) });
    say({ event: 'image', index: image, seed: own, width, height, parameters, bytes: png.length });
    if (how === 'truncate') {
      res.write(png.subarray(0, 40));
      return stop();
    }
    res.write(png);
    res.write('\n');
  }
  if (how === 'crash_end') return setTimeout(die, 50); // when the picture is on its way
  say({ event: 'done', elapsed_ms: 5 * steps });
  record({ event: 'job_done' });
  stop();
}

// Uses the processor, but leaves health checks their turn.
async function think(ms) {
  for (const end = Date.now() + ms; Date.now() < end;) {
    for (const slice = Date.now() + 40; Date.now() < slice;);
    await sleep(10);
  }
}

function parametersText(job, { width, height, steps, seed }) {
  const negative = job.negative_prompt ? `Negative prompt: ${job.negative_prompt}\n` : '';
  return `${job.prompt}\n${negative}Steps: ${steps}, Sampler: Euler, Schedule type: Normal, CFG scale: `
    + `${job.cfg_scale ?? 5}, Seed: ${seed}, Size: ${width}x${height}, Model: fake, Version: Mysti 0.1.0`;
}

async function sdRoute(req, res, body) {
  const job = () => JSON.parse(body.toString() || '{}');
  switch (`${req.method} ${req.url}`) {
    case 'GET /internal/health':
      return sendJson(res, 200, { ok: true, worker: 'sd', state: sd.state, model: sd.model, backend: 'fake',
        progress: sd.state === 'loading' ? 0.4 : 0, error: sd.error, ...(sd.model ? { facts: sdFacts() } : {}) });
    case 'POST /internal/load': {
      if (sd.state === 'busy') return sendError(res, 409, 'busy', 'a job is running', 'conflict_error');
      const failure = await sdLoad(job().path);
      if (!failure) return sendJson(res, 200, sdFacts());
      return sendError(res, failure === 'bad_file' ? 400 : 503, failure, sd.error,
        failure === 'bad_file' ? 'invalid_request_error' : 'unavailable_error');
    }
    case 'POST /internal/unload':
      if (sd.state === 'busy') return sendError(res, 409, 'busy', 'a job is running', 'conflict_error');
      Object.assign(sd, { state: 'empty', model: null });
      return sendJson(res, 200, {});
    case 'POST /internal/estimate': {
      const how = decide('estimate');
      if (how === 'busy') return sendError(res, 409, 'busy', 'a job is running', 'conflict_error');
      if (how === 'crash') return void die();
      if (how === 'fault') return void die('SIGSEGV');
      if (how === 'slow') await sleep(plan('estimate_ms', 60000));
      const needs = plan('needs_bytes', 1 << 20);
      const takes = Math.max(Math.min(needs, job().budget_bytes ?? needs), plan('low_bytes', needs));
      return sendJson(res, 200, { peak_bytes: plan('resident_bytes', 4096) + takes, resident_bytes: plan('resident_bytes', 4096) });
    }
    case 'POST /internal/cancel': {
      const running = sd.state === 'busy';
      sd.cancelled = running;
      return sendJson(res, 200, { cancelled: running });
    }
    case 'POST /internal/sharing':
      return sendJson(res, 200, {});
    case 'POST /internal/generate':
      return sdGenerate(req, res, job());
    default:
      return sendError(res, 404, 'not_found', `no route ${req.method} ${req.url}`, 'not_found_error');
  }
}

// ------------------------------------------------------------------------------------------ the text worker

const llm = { ready: false, busy: 0 };
const llamaError = (res, code, message, type) => sendJson(res, code, { error: { code, message, type } });

async function llmText(req, res, body) {
  const request = JSON.parse(body.toString() || '{}');
  const chat = req.url.startsWith('/v1/chat');
  const how = decide('chat');
  record({ event: 'text_begin', busy: ++llm.busy, model: option('--model')?.split('/').at(-1), tag: request.user });
  res.on('close', () => record({ event: 'text_end', busy: --llm.busy, tag: request.user }));
  if (how === 'crash') die();
  if (how === 'fault') return void die('SIGSEGV');
  if (how === 'no_memory') {
    console.error("terminate called after throwing an instance of 'std::bad_alloc'");
    return void die('SIGABRT');
  }
  if (how === 'error') return llamaError(res, 400, 'the prompt is too long', 'exceed_context_size_error');
  if (how === 'garbage') return void res.socket.end('not http at all\r\n\r\n');
  if (how === 'slow') await sleep(plan('first_ms', 1500));
  let gone = false;
  res.on('close', () => {
    if (!res.writableFinished) {
      gone = true;
      record({ event: 'client_gone', url: req.url });
    }
  });
  const words = plan('tokens', ['Hello', ' from', ' the', ' fake', ' writer', '.']);
  const common = { id: 'chatcmpl-fake', created: 1, model: request.model ?? 'fake' };
  if (!request.stream) {
    await sleep(plan('first_ms', 0));
    const text = words.join('');
    const choice = chat ? { message: { role: 'assistant', content: text } } : { text };
    return sendJson(res, 200, { ...common, object: chat ? 'chat.completion' : 'text_completion',
      choices: [{ index: 0, finish_reason: 'stop', ...choice }],
      usage: { prompt_tokens: 3, completion_tokens: words.length, total_tokens: 3 + words.length } });
  }
  if (how === 'crash_head') await sleep(plan('first_ms', 0));
  res.writeHead(200, { 'Content-Type': 'text/event-stream', 'X-Fake': 'yes' });
  if (how === 'crash_head') {
    res.flushHeaders();
    await sleep(50);
    die();
  }
  const object = chat ? 'chat.completion.chunk' : 'text_completion';
  const say = (choice) => res.write(`data: ${JSON.stringify({ ...common, object, choices: [{ index: 0, finish_reason: null, ...choice }] })}\n\n`);
  for (let i = 0; i < words.length && !gone; i++) {
    if (i > 0) await sleep(plan('token_ms', 5));
    if (how === 'crash_mid' && i === 2) return die();
    if (how === 'stall' && i === 2) return;
    say(chat ? { delta: { content: words[i] } } : { text: words[i] });
  }
  if (gone) return;
  say({ ...(chat ? { delta: {} } : { text: '' }), finish_reason: 'stop' });
  res.end('data: [DONE]\n\n');
}

async function llmRoute(req, res, body) {
  if (!llm.ready) return llamaError(res, 503, 'Loading model', 'unavailable_error');
  const json = () => JSON.parse(body.toString() || '{}');
  switch (`${req.method} ${req.url.split('?')[0]}`) {
    case 'POST /v1/chat/completions':
    case 'POST /v1/completions':
      return llmText(req, res, body);
    case 'POST /v1/embeddings':
      if (option('--task') !== 'embedding') return llamaError(res, 501, 'This server does not support embeddings', 'not_supported_error');
      return sendJson(res, 200, { object: 'list', model: 'fake', usage: { prompt_tokens: 1, total_tokens: 1 },
        data: [].concat(json().input).map((text, index) => ({ object: 'embedding', index, embedding: [text.length, 0.5] })) });
    case 'POST /v1/rerank':
      if (option('--task') !== 'rerank') return llamaError(res, 501, 'This server does not support reranking', 'not_supported_error');
      return sendJson(res, 200, { object: 'list', model: 'fake', results: json().documents.map((d, index) => ({ index, relevance_score: d.length })) });
    case 'POST /tokenize':
      return sendJson(res, 200, { tokens: [...Buffer.from(json().content ?? '')] });
    case 'POST /detokenize':
      return sendJson(res, 200, { content: Buffer.from(json().tokens ?? []).toString() });
    case 'GET /props':
      return sendJson(res, 200, { total_slots: 1, model_path: option('--model') ?? '' });
    case 'POST /slots/0':
    case 'POST /slots/1': {
      const slot = Number(req.url.split('?')[0].at(-1));
      const path = join(option('--kv-folder'), json().filename);
      if (req.url.endsWith('action=save')) {
        await sleep(plan('save_ms', 0));
        if (decide('save') !== 'ok') return llamaError(res, 400, 'cannot be saved', 'invalid_request_error');
        const n = plan('slot_tokens', [40, 0])[slot];
        writeFileSync(path, 'x'.repeat(n), { mode: 0o600 });
        return sendJson(res, 200, { id_slot: slot, filename: json().filename, n_saved: n, n_written: n });
      }
      const n = readFileSync(path).length;
      return sendJson(res, 200, { id_slot: slot, n_restored: decide('restore') === 'ok' ? n : 0, n_read: n });
    }
    case 'GET /slots':
      return sendJson(res, 200, plan('slot_tokens', [40, 0]).map((n, id) => ({ id, is_processing: false, ...(n && { n_prompt_tokens: n }) })));
    default:
      return llamaError(res, 404, 'File Not Found', 'not_found_error');
  }
}

// ------------------------------------------------------------------------------------------------- both kinds

async function answer(req, res) {
  const body = await readBody(req);
  const health = req.url === (kind === 'sd' ? '/internal/health' : '/health');
  if (!health)
    record({ event: 'request', method: req.method, url: req.url, headers: req.headers, body: body.toString() });
  const open = kind === 'llm' && health;
  if (!open && req.headers.authorization !== `Bearer ${token}`)
    return sendError(res, 401, 'unauthorized', 'this worker answers to its server only', 'authentication_error');
  if (health) {
    const how = decide('health');
    if (how === 'hang') return undefined;
    if (how === 'garbage') return sendJson(res, 200, 'garbage');
    if (kind === 'llm')
      return llm.ready ? sendJson(res, 200, { status: 'ok' }) : llamaError(res, 503, 'Loading model', 'unavailable_error');
  }
  return kind === 'sd' ? sdRoute(req, res, body) : llmRoute(req, res, body);
}

if (options.includes('--check')) process.exit(plan('check', 'ok') === 'ok' ? 0 : 1);
for (const signal of ['SIGTERM', 'SIGINT']) process.on(signal, () => {
  record({ event: 'end' });
  process.exit(0);
});
record({ event: 'start', options, token: token !== '', env: Object.keys(process.env) });
const how = decide('start');
if (how === 'crash') {
  console.error(`fake ${kind} worker: told to crash at its start`);
  process.exit(plan('exit_code', 3));
}
if (how === 'hang') await new Promise(() => setInterval(() => {}, 1000));
if (how === 'slow') await sleep(plan('start_ms', 500));

const server = createServer((req, res) => {
  answer(req, res).catch((e) => {
    console.error(`fake ${kind} worker: ${e.stack}`);
    res.destroy();
  });
});
server.keepAliveTimeout = 60000;
server.listen(Number(option('--listen-port') ?? 0), '127.0.0.1', async () => {
  process.stdout.write(`listening 127.0.0.1:${server.address().port}\n`);
  console.error(`fake ${kind} worker is listening`);
  const model = option('--model');
  if (kind === 'sd') {
    if (model) await sdLoad(model);
  } else {
    await sleep(plan('load_ms', 0));
    const loading = decide('load');
    if (loading === 'crash') process.exit(1);
    if (loading !== 'hang') llm.ready = true;
  }
});
