// What happened, in order, so that a failure can be understood: kills, ends of requests, what was promised and not kept.
export class Story {
  #began = performance.now();
  #lines = [];
  faults = { sd: 0, llm: 0 }; // ends that look like the worker's own, since its model was loaded by somebody
  broken = []; // promises that were not kept
  kills = { sd: [], llm: [], server: [] }; // { at, back, signal, pid }; back: when it answered again

  now() {
    return performance.now() - this.#began;
  }

  tell(line) {
    this.#lines.push(`${(this.now() / 1000).toFixed(3).padStart(8)} ${line}`);
  }

  kill(what, signal, pid) {
    this.kills[what].push({ at: this.now(), back: Infinity, signal, pid });
    this.tell(`kill -${signal} ${what} (pid ${pid})`);
  }

  isBack(what, sentence) {
    const last = this.kills[what].at(-1);
    last.back = this.now();
    this.tell(`${what} ${sentence} after ${Math.round(last.back - last.at)} ms`);
  }

  // Kills of one kind between two moments, or whose gap reaches into that; own: only those that look like the worker's
  // own failure.
  killsBetween(what, from, to, { own = false } = {}) {
    return this.kills[what].filter((k) => k.back >= from && k.at <= to && (!own || k.signal !== 'KILL')).length;
  }

  promise(kept, sentence) {
    if (kept) return;
    this.tell(`BROKEN: ${sentence}`);
    this.broken.push(sentence);
  }

  text(last = Infinity) {
    return this.#lines.slice(-last).join('\n');
  }
}
