import { describe, expect, it } from 'vitest'

import { coloured, Mask, maskSize } from '../src/mask'

const rows = (mask: Mask) =>
  Array.from({ length: mask.height }, (_, y) => [...mask.pixels.slice(y * mask.width, (y + 1) * mask.width)].map((p) => '.#'[p]).join(''))
const at = (x: number, y: number) => ({ x, y })

describe('Mask', () => {
  it('is as large as its picture, up to a bound', () => {
    expect(maskSize(768, 512)).toEqual({ width: 768, height: 512 })
    expect(maskSize(4096, 1024)).toEqual({ width: 1024, height: 256 })
    expect(maskSize(5000, 1)).toEqual({ width: 1024, height: 1 })
  })

  it('paints a round brush from point to point, and erases with it', () => {
    const mask = new Mask({ width: 9, height: 5 })
    expect(mask.stroke(at(2.5, 2.5), at(2.5, 2.5), 1.5, 1)).toEqual({ x: 1, y: 1, width: 3, height: 3 })
    expect(rows(mask)).toEqual(['.........', '.###.....', '.###.....', '.###.....', '.........'])
    mask.stroke(at(2.5, 2.5), at(7.5, 2.5), 1, 1)
    expect(rows(mask)).toEqual(['.........', '.#######.', '.########', '.#######.', '.........'])
    mask.stroke(at(4.5, 0), at(4.5, 5), 0.5, 0)
    expect(rows(mask)[2]).toBe('.###.####')
  })

  it('takes points beyond its edges', () => {
    const mask = new Mask({ width: 4, height: 3 })
    expect(mask.stroke(at(-20, -20), at(-20, -20), 3, 1)).toMatchObject({ width: 0, height: 0 })
    mask.stroke(at(-2, 1.5), at(9, 1.5), 0.5, 1)
    expect(rows(mask)).toEqual(['....', '####', '....'])
  })

  it('undoes stroke by stroke, also what was cleared and inverted, and not for ever', () => {
    const mask = new Mask({ width: 4, height: 1 })
    const states = [rows(mask)]
    mask.begin()
    mask.stroke(at(0.5, 0.5), at(0.5, 0.5), 0.6, 1)
    mask.stroke(at(1.5, 0.5), at(1.5, 0.5), 0.6, 1) // of the same begin()
    states.push(rows(mask))
    mask.invert()
    states.push(rows(mask))
    mask.clear()
    expect(states).toEqual([['....'], ['##..'], ['..##']])
    expect(mask.isEmpty).toBe(true)
    for (const state of states.reverse()) {
      mask.undo()
      expect(rows(mask)).toEqual(state)
    }
    expect(mask.canUndo).toBe(false)
    mask.undo()
    for (let i = 0; i < 100; i++) mask.begin()
    let steps = 0
    for (; mask.canUndo; steps++) mask.undo()
    expect(steps).toBe(40)
  })

  it('becomes pixels of a canvas, a box of it as well', () => {
    const mask = new Mask({ width: 3, height: 2 })
    mask.stroke(at(1.5, 1.5), at(1.5, 1.5), 0.6, 1)
    expect([...coloured(mask, { x: 1, y: 1, width: 2, height: 1 }, [[1, 2, 3, 4]], [5, 6, 7, 8])]).toEqual([1, 2, 3, 4, 5, 6, 7, 8])
    expect(coloured(mask, mask.whole, [[1, 2, 3, 4]], [5, 6, 7, 8])).toHaveLength(24)
    mask.invert()
    mask.stroke(at(0, 0), at(3, 2), 9, 1)
    const stripes = coloured(mask, mask.whole, [[1, 1, 1, 1], [2, 2, 2, 2]], [0, 0, 0, 0], 2)
    expect([...stripes].filter((_, i) => i % 4 === 0)).toEqual([1, 1, 2, 1, 2, 2])
  })
})
