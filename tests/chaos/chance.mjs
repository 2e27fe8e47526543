// Chance that can be repeated: the same seed, the same plan of who is killed, how and after how long.
export class Chance {
  #state;

  constructor(seed) {
    this.seed = seed;
    this.#state = seed >>> 0;
  }

  // 0 <= x < 1 (mulberry32)
  next() {
    this.#state = (this.#state + 0x6d2b79f5) >>> 0;
    let t = this.#state;
    t = Math.imul(t ^ (t >>> 15), t | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
  }

  whole(from, to) {
    return from + Math.floor(this.next() * (to - from + 1));
  }

  one(list) {
    return list[Math.floor(this.next() * list.length)];
  }

  // { KILL: 8, SEGV: 1 } -> mostly 'KILL'
  weighted(weights) {
    let at = this.next() * Object.values(weights).reduce((a, b) => a + b);
    for (const [key, weight] of Object.entries(weights)) if ((at -= weight) < 0) return key;
    return Object.keys(weights).at(-1);
  }

  // A source of its own for somebody else, so that the order of their questions does not matter.
  child() {
    return new Chance(this.whole(0, 2 ** 31));
  }
}
