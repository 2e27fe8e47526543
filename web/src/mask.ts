// The part of a picture that is drawn anew, as pixels of its own: 1 is drawn, 0 stays. It needs no canvas, so it is tested without
// a browser. It may be smaller than its picture, the server stretches it; its edge is blurred there anyway. Undo keeps whole copies: they are
// simple, a megabyte at most, and few.

const SIDE_MAX = 1024
const UNDO_MAX = 40

export interface Box {
  x: number
  y: number
  width: number
  height: number
}

export interface Point {
  x: number
  y: number
}

/** How large the mask of a picture is. */
export function maskSize(width: number, height: number): { width: number; height: number } {
  const share = Math.min(1, SIDE_MAX / Math.max(width, height))
  return { width: Math.max(1, Math.round(width * share)), height: Math.max(1, Math.round(height * share)) }
}

export class Mask {
  readonly width: number
  readonly height: number
  pixels: Uint8Array // [height, width]
  private past: Uint8Array[] = []

  constructor(size: { width: number; height: number }) {
    this.width = size.width
    this.height = size.height
    this.pixels = new Uint8Array(size.width * size.height)
  }

  get isEmpty(): boolean {
    return !this.pixels.includes(1)
  }

  get canUndo(): boolean {
    return this.past.length > 0
  }

  get whole(): Box {
    return { x: 0, y: 0, width: this.width, height: this.height }
  }

  /** What follows, up to the next begin(), is one thing to undo. */
  begin(): void {
    this.past.push(this.pixels.slice())
    if (this.past.length > UNDO_MAX) this.past.shift()
  }

  undo(): void {
    this.pixels = this.past.pop() ?? this.pixels
  }

  clear(): void {
    this.begin()
    this.pixels.fill(0)
  }

  invert(): void {
    this.begin()
    for (let i = 0; i < this.pixels.length; i++) this.pixels[i]! ^= 1
  }

  /** A round brush from one point to another; returns the box that it touched. */
  stroke(from: Point, to: Point, radius: number, value: 0 | 1): Box {
    const x0 = Math.max(0, Math.floor(Math.min(from.x, to.x) - radius))
    const y0 = Math.max(0, Math.floor(Math.min(from.y, to.y) - radius))
    const x1 = Math.min(this.width, Math.ceil(Math.max(from.x, to.x) + radius))
    const y1 = Math.min(this.height, Math.ceil(Math.max(from.y, to.y) + radius))
    const dx = to.x - from.x
    const dy = to.y - from.y
    const length2 = dx * dx + dy * dy
    for (let y = y0; y < y1; y++) {
      for (let x = x0; x < x1; x++) {
        const px = x + 0.5 - from.x
        const py = y + 0.5 - from.y
        const along = length2 ? Math.min(1, Math.max(0, (px * dx + py * dy) / length2)) : 0
        if ((px - along * dx) ** 2 + (py - along * dy) ** 2 <= radius * radius) this.pixels[y * this.width + x] = value
      }
    }
    return { x: x0, y: y0, width: Math.max(0, x1 - x0), height: Math.max(0, y1 - y0) }
  }
}

export type Rgba = [number, number, number, number]

/** A pixel as one number of a canvas's memory. */
const packed = (colour: Rgba) => new Uint32Array(Uint8Array.from(colour).buffer)[0]!

/** A box of the mask as pixels of a canvas. Several colours are diagonal stripes, so wide: one alone is lost on a picture that has it. */
export function coloured(mask: Mask, box: Box, drawn: Rgba[], kept: Rgba, wide = 1): Uint8ClampedArray<ArrayBuffer> {
  const out = new Uint32Array(box.width * box.height) // four times as fast as bytes: this runs while somebody paints
  const stripes = drawn.map(packed)
  const rest = packed(kept)
  for (let y = 0, i = 0; y < box.height; y++)
    for (let x = 0, at = (box.y + y) * mask.width + box.x; x < box.width; x++, at++, i++)
      out[i] = mask.pixels[at] ? stripes[Math.floor((box.x + x + box.y + y) / wide) % stripes.length]! : rest
  return new Uint8ClampedArray(out.buffer)
}
