// Clients that do not stop: texts, streamed and not, pictures that are waited for, and jobs that are not. Each knows
// what it was promised and says so in the story when it was not kept.
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { readPng } from '../support/png.mjs';
import { until } from '../support/server.mjs';

const PROMISE = {
  text: 'a text request of which nothing had been answered succeeds after its worker died',
  stream: 'a text that had begun ends whole or with an error event',
  picture: 'a picture is drawn, whoever dies meanwhile',
  job: 'a job that was accepted is finished',
};

const FULL_MS = 300; // after a 429
const OVER = ['done', 'failed', 'cancelled'];

export class Load {
  constructor(world, story, chance) {
    Object.assign(this, { world, story, chance, running: true, clients: [], serial: 0, jobs: new Map(),
      paused: Promise.resolve(), active: 0 });
    this.count = { texts: 0, streams: 0, streamsCut: 0, pictures: 0, jobs: 0, refused: 0, serverLost: 0 };
  }

  begin({ texts = 3, pictures = 2, jobs = 1 } = {}) {
    const start = (n, once) => {
      for (let i = 0; i < n; i++) this.clients.push(this.#repeat(once.bind(this), this.chance.child()));
    };
    start(texts, this.#text);
    start(pictures, this.#picture);
    start(jobs, this.#job);
  }

  async end() {
    this.running = false;
    await Promise.all(this.clients);
    this.clients = [];
  }

  // Lets everybody finish, does something, and lets them go on.
  async meanwhile(act) {
    let resume;
    this.paused = new Promise((done) => (resume = done));
    await until('the clients have their answers', () => this.active === 0, 120000);
    await until('the queue is empty', async () => (await this.world.json('GET', '/v1/progress')).json?.phase === 'idle', 120000);
    await act().finally(resume);
  }

  async #repeat(once, chance) {
    while (this.running) {
      await this.paused;
      this.active++;
      await once(chance, ++this.serial);
      this.active--;
      await sleep(chance.whole(0, 60));
    }
  }

  // What may excuse a failure between then and now.
  #excuse(kind, began) {
    const now = this.story.now();
    const between = (what, o) => this.story.killsBetween(what, began, now, o);
    return { server: between('server') > 0, kills: between(kind), own: between(kind, { own: true }) };
  }

  // "This picture failed its worker twice" is a fair answer when it looks like that. A kill from outside does not.
  #failedTwice(excuse) {
    return excuse.own > 1;
  }

  #broke(promise, n, answer, began) {
    const { status, error, text } = answer;
    this.story.promise(false, `${PROMISE[promise]}: request ${n}, begun at ${(began / 1000).toFixed(3)}: `
      + `${status} ${error?.message ?? ''} ${text.slice(-300)}`);
  }

  async #text(chance, n) {
    const stream = chance.next() < 0.6;
    const began = this.story.now();
    let tokens = 0;
    const answer = await this.world.ask('POST', '/v1/chat/completions',
      { stream, seed: n, max_tokens: 40, messages: [{ role: 'user', content: `idea ${n}` }] },
      { onPart: (part) => (tokens += part.split('"content":"').length - 1) });
    const excuse = this.#excuse('llm', began);
    if (excuse.server) {
      this.count.serverLost++;
      return;
    }
    const whole = answer.status === 200 && !answer.error && (stream ? /data: \[DONE\]\s*$/.test(answer.text) : /"finish_reason"/.test(answer.text));
    const errorEvent = !answer.error && /data: \{"error":\{[^\n]*\}\}\s*$/.test(answer.text);
    const proper = errorEvent || (answer.status >= 500 && /"error"/.test(answer.text));
    if (whole) this.count[stream ? 'streams' : 'texts']++;
    else if (stream && tokens > 0 && errorEvent && excuse.kills > 0) this.count.streamsCut++; // had begun
    else if (proper && excuse.kills > 1) this.count.refused++; // it is sent again once
    else this.#broke(tokens > 0 ? 'stream' : 'text', n, answer, began);
  }

  async #picture(chance, n) {
    const began = this.story.now();
    const answer = await this.world.ask('POST', '/v1/images/generations', { prompt: `picture ${n}`, seed: n, n: chance.next() < 0.2 ? 2 : 1 });
    const excuse = this.#excuse('sd', began);
    if (excuse.server) this.count.serverLost++;
    else if (answer.status === 200 && !answer.error && this.#arePictures(answer)) this.count.pictures++;
    else if (answer.status >= 500 && this.#failedTwice(excuse)) this.count.refused++;
    else if (answer.status === 429) await sleep(FULL_MS);
    else this.#broke('picture', n, answer, began);
  }

  #arePictures(answer) {
    const { data } = JSON.parse(answer.text);
    for (const { b64_json: png } of data) readPng(Buffer.from(png, 'base64'));
    return data.length > 0;
  }

  // Accepted is what was answered with 202. Whether it was finished is asked in the end.
  async #job(chance, n) {
    const began = this.story.now();
    const answer = await this.world.json('POST', '/v1/jobs', { prompt: `job ${n}`, seed: n });
    const excuse = this.#excuse('sd', began);
    if (answer.status === 202) this.jobs.set(answer.json.id, { n, began });
    else if (excuse.server) this.count.serverLost++;
    else if (answer.status === 429) await sleep(FULL_MS);
    else this.#broke('job', n, answer, began);
    await sleep(chance.whole(50, 250));
  }

  // Every accepted job: done, with its pictures, or failed with a reason that chaos explains. Those whose client was cut
  // off while it waited are jobs, too, and none may stand still.
  // They end in their order, so each may take that long after the one before it, however many there are.
  async jobsEnd(timeoutMs) {
    for (const [id, { n, began }] of this.jobs) {
      const answer = await this.#ended(id, timeoutMs);
      const { state, pictures } = answer.json ?? {};
      if (state === 'done' && await this.#haveFiles(pictures)) this.count.jobs++;
      else if (state === 'failed' && this.#failedTwice(this.#excuse('sd', began))) this.count.refused++;
      else this.#broke('job', n, answer, began);
    }
    for (const job of (await this.world.json('GET', '/v1/jobs?limit=200')).json.data) {
      const { json } = await this.#ended(job.id, timeoutMs);
      this.story.promise(OVER.includes(json?.state), `${job.id} ("${job.request?.prompt}") ends, and is not ${json?.state}`);
    }
  }

  async #ended(id, timeoutMs) {
    for (const end = performance.now() + timeoutMs;;) {
      const answer = await this.world.json('GET', `/v1/jobs/${id}`);
      if (OVER.includes(answer.json?.state) || answer.status === 404 || performance.now() > end) return answer;
      await sleep(50);
    }
  }

  async #haveFiles(pictures) {
    for (const { file } of pictures) readPng(readFileSync(join(this.world.outputs, file)));
    return pictures.length > 0;
  }
}
