// Text: requests reach the text worker as they were sent, answers come back as they were given, token by token; and
// what the client is told while it has to wait.
import assert from 'node:assert/strict';
import { join } from 'node:path';
import test from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { writeGguf, writeSafetensors } from '../support/models.mjs';
import { sseEvents, startServer, until } from '../support/server.mjs';

const messages = [{ role: 'user', content: 'hello' }];
const words = ['Hello', ' from', ' the', ' fake', ' writer', '.'];

async function streamed(server, body = {}, path = '/v1/chat/completions') {
  const res = await server.post(path, { messages, stream: true, ...body });
  const events = [];
  for await (const event of sseEvents(res)) events.push(event);
  const data = events.filter((e) => e.data && e.data !== '[DONE]').map((e) => ({ ...e, json: JSON.parse(e.data) }));
  return {
    res, events, data,
    text: data.map((e) => e.json.choices?.[0]?.delta?.content ?? e.json.choices?.[0]?.text ?? '').join(''),
    comments: events.filter((e) => e.comment !== undefined).map((e) => e.comment),
    error: data.map((e) => e.json.error).find(Boolean),
  };
}

test('a whole answer passes through', async (t) => {
  const server = await startServer(t);
  const { status, json } = await server.postJson('/v1/chat/completions', { messages, temperature: 0.5, unknown_key: [1, { a: 'ü' }] });
  assert.equal(status, 200);
  assert.equal(json.choices[0].message.content, words.join(''));
  const [request] = server.requests('llm', '/v1/chat/completions');
  assert.deepEqual(JSON.parse(request.body), { messages, temperature: 0.5, unknown_key: [1, { a: 'ü' }] });
  const { json: text } = await server.postJson('/v1/completions', { prompt: 'once' });
  assert.equal(text.choices[0].text, words.join(''));
});

test('the client\'s own key never reaches the worker', async (t) => {
  const server = await startServer(t);
  await server.post('/v1/chat/completions', { messages }, { headers: { Authorization: 'Bearer sk-of-the-client', 'X-Api-Key': 'k' } });
  const [request] = server.requests('llm', '/v1/chat/completions');
  assert.match(request.headers.authorization, /^Bearer .{16,}$/);
  assert.ok(!JSON.stringify(request.headers).includes('sk-of-the-client'));
  const starts = [...server.records('llm'), ...server.records('sd')].filter((r) => r.event === 'start');
  const token = request.headers.authorization.slice(7);
  for (const start of starts) {
    assert.ok(start.token, 'the token comes by the environment');
    assert.ok(!start.options.includes(token), 'and not in the arguments');
  }
  assert.ok(!server.logText.includes(token), 'and not in the log');
});

test('tokens come as they are made, with the worker\'s own head', async (t) => {
  const server = await startServer(t, { llm: { token_ms: 80 } });
  const { res, data, text } = await streamed(server);
  assert.equal(res.status, 200);
  assert.match(res.headers.get('content-type'), /text\/event-stream/);
  assert.equal(res.headers.get('x-fake'), 'yes');
  assert.equal(res.headers.get('x-accel-buffering'), 'no', 'or nginx in front holds the tokens back');
  assert.equal(text, words.join(''));
  const spread = data.at(-1).at - data[0].at;
  assert.ok(spread > 300, `the first token came ${spread} ms before the last one`);
  assert.equal((await streamed(server, { prompt: 'x', messages: undefined }, '/v1/completions')).text, words.join(''));
});

test('an error of the text engine passes through as the engine said it', async (t) => {
  const server = await startServer(t, { llm: { chat: 'error' } });
  const { status, json } = await server.postJson('/v1/chat/completions', { messages, stream: true });
  assert.equal(status, 400);
  assert.deepEqual(json.error, { code: 400, message: 'the prompt is too long', type: 'exceed_context_size_error' });
});

test('while the model loads, a streaming client gets 200 and comments, then its tokens', async (t) => {
  const server = await startServer(t, { llm: { load_ms: 1800 }, ready: [] });
  const [stream, whole] = await Promise.all([streamed(server), server.postJson('/v1/chat/completions', { messages })]);
  assert.equal(stream.res.status, 200);
  assert.ok(stream.comments.length >= 1, 'at least one comment came');
  assert.equal(stream.res.headers.get('x-accel-buffering'), 'no');
  assert.ok(stream.comments.some((c) => /starter-writer/.test(c)), JSON.stringify(stream.comments));
  assert.equal(stream.text, words.join(''));
  assert.equal(whole.json.choices[0].message.content, words.join(''));
});

test('a worker that dies before its first byte is asked again', async (t) => {
  const server = await startServer(t, { llm: { chat: ['crash', 'ok'] } });
  const { status, json } = await server.postJson('/v1/chat/completions', { messages });
  assert.equal(status, 200);
  assert.equal(json.choices[0].message.content, words.join(''));
  assert.equal(server.requests('llm', '/v1/chat/completions').length, 2);
  await server.logged(/Detected LLM Worker failure. Restarting.../);
});

for (const first_ms of [0, 800]) // before and after the server's own 200 to a client that waits
  test(`a worker that dies after the head of its stream and before the first token is asked again (${first_ms} ms)`, async (t) => {
    const server = await startServer(t, { llm: { chat: ['crash_head', 'ok'], first_ms } });
    const { res, text, error } = await streamed(server);
    assert.equal(res.status, 200);
    assert.equal(error, undefined);
    assert.equal(text, words.join(''));
    assert.equal(server.requests('llm', '/v1/chat/completions').length, 2);
  });

test('what the next worker says against the request becomes an error event under the first one\'s head', async (t) => {
  const server = await startServer(t, { llm: { chat: ['crash_head', 'error'] } });
  const { res, error } = await streamed(server);
  assert.equal(res.status, 200);
  assert.equal(error.message, 'the prompt is too long');
});

test('a worker that dies each time after its head ends in an error event', async (t) => {
  const server = await startServer(t, { llm: { chat: 'crash_head' } });
  const { res, text, error } = await streamed(server);
  assert.equal(res.status, 200);
  assert.equal(text, '');
  assert.equal(error.type, 'server_error');
  assert.equal(server.requests('llm', '/v1/chat/completions').length, 2);
});

test('a worker that dies each time ends in an error, not in a third try', async (t) => {
  const server = await startServer(t, { llm: { chat: 'crash' } });
  const { status, json } = await server.postJson('/v1/chat/completions', { messages });
  assert.equal(status, 502);
  assert.equal(json.error.type, 'server_error');
  assert.equal(server.requests('llm', '/v1/chat/completions').length, 2);
});

test('a failure after the first token is an error event that clients understand', async (t) => {
  const server = await startServer(t, { llm: { chat: ['crash_mid', 'ok'] } });
  const { res, text, error } = await streamed(server);
  assert.equal(res.status, 200);
  assert.equal(text, 'Hello from');
  assert.deepEqual(Object.keys(error).sort(), ['code', 'message', 'param', 'type']);
  await server.ready(['llm']);
  assert.equal((await streamed(server)).text, words.join(''), 'and the next request works');
});

test('a client that leaves stops the work in the worker', async (t) => {
  const server = await startServer(t, { llm: { tokens: Array(200).fill(' x'), token_ms: 50 } });
  const leave = new AbortController();
  const res = await server.post('/v1/chat/completions', { messages, stream: true }, { signal: leave.signal });
  for await (const event of sseEvents(res)) {
    if (event.data) break;
  }
  const left = Date.now();
  leave.abort();
  const gone = await until('the worker notices', () => server.records('llm').find((r) => r.event === 'client_gone'));
  assert.ok(gone.at - left < 2000, `noticed after ${gone.at - left} ms`);
  await until('the worker is idle', async () => !(await server.worker('llm')).busy);
});

test('tokenize and detokenize take the names of both worlds', async (t) => {
  const server = await startServer(t);
  for (const body of [{ content: 'hé' }, { text: 'hé' }, { input: 'hé' }, { prompt: 'hé', add_special_tokens: false }]) {
    const { status, json } = await server.postJson('/v1/tokenize', body);
    assert.equal(status, 200);
    assert.deepEqual(json.tokens, [104, 195, 169]);
  }
  assert.equal(JSON.parse(server.requests('llm', '/tokenize').at(-1).body).add_special, false);
  assert.equal((await server.postJson('/v1/detokenize', { tokens: [104, 105] })).json.content, 'hi');
  assert.match((await server.postJson('/v1/tokenize', {})).json.error.message, /content is missing/);
  for (const tokens of [undefined, 'hi', [1, 'x'], [-1], [1.5]])
    assert.match((await server.postJson('/v1/detokenize', { tokens })).json.error.message, /tokens must be a list of token ids/);
});

test('bad requests are refused before anything is loaded or forwarded for them', async (t) => {
  const server = await startServer(t, { prepare: (s) => writeSafetensors(join(s.models, 'painter.safetensors')) });
  const cases = [
    ['', 400, /has no body/],
    ['[]', 400, /must be a JSON object/],
    ['{"messages": [}', 400, /not valid JSON at line 1, column 15/],
    ['{"messages":\n [{"role": "user",}]}', 400, /not valid JSON at line 2, column 19/],
    ['{"a":"\xff"}', 400, /not valid JSON/],
    [`${'['.repeat(5000)}`, 400, /not valid JSON/],
    [{}, 400, /messages is missing/],
    [{ messages: [] }, 400, /at least one message/],
    [{ messages: 'hi' }, 400, /messages must be a list/],
    [{ messages, stream: 'yes' }, 400, /stream must be true or false, not "yes"/],
    [{ messages, model: 5 }, 400, /model must be a text, not 5/],
    [{ messages, model: 'gpt-9' }, 404, /there is no model 'gpt-9'/],
    [{ messages, model: 'starter-wrter.gguf' }, 404, /did you mean 'starter-writer.gguf'/],
    [{ messages, model: '../x.gguf' }, 400, /a path below the model folder/],
    [{ messages, model: 'painter.safetensors' }, 400, /is a picture model, not a text model/],
  ];
  for (const [body, status, message] of cases) {
    const payload = typeof body === 'string' ? Buffer.from(body, 'latin1') : JSON.stringify(body);
    const res = await server.get('/v1/chat/completions', { method: 'POST', body: payload });
    const json = await res.json();
    assert.equal(res.status, status, JSON.stringify(body)?.slice(0, 80));
    assert.match(json.error.message, message);
  }
  assert.equal(server.requests('llm', '/v1/chat/completions').length, 0);
});

test('with one text model at a time, a request that names another has it loaded behind the work that runs', async (t) => {
  const server = await startServer(t, { args: ['--llm-resident', '1', '--text-queue-age', '0'], llm: { tokens: Array(12).fill(' x'), token_ms: 60 },
    prepare: (s) => writeGguf(join(s.models, 'other.gguf')) });
  const first = streamed(server);
  await sleep(150);
  const second = streamed(server, { model: 'other.gguf' });
  await sleep(100);
  const third = streamed(server, { model: 'starter-writer' });
  assert.equal((await first).text, ' x'.repeat(12), 'the running answer was not disturbed');
  const two = await second;
  assert.equal(two.text, ' x'.repeat(12));
  assert.equal(two.res.status, 200);
  assert.ok(two.comments.length > 0, 'it was told that it waits');
  assert.equal((await third).text, ' x'.repeat(12), 'and the one after it got its own model back');
  const models = server.records('llm').filter((r) => r.event === 'start')
    .map((r) => r.options[r.options.indexOf('--model') + 1].split('/').at(-1));
  assert.deepEqual(models, ['starter-writer.gguf', 'other.gguf', 'starter-writer.gguf']);
});

test('twenty requests at once are all answered', async (t) => {
  const server = await startServer(t, { llm: { first_ms: 50 } });
  const answers = await Promise.all(Array.from({ length: 20 }, () => server.postJson('/v1/chat/completions', { messages })));
  for (const { status } of answers) assert.equal(status, 200);
});
