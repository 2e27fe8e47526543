import { describe, expect, it } from 'vitest'

import { EventParser, readEvents, type ServerEvent } from '../src/api/sse'
import { restored } from '../src/stores/keep'
import { withoutThoughts } from '../src/stores/prompt'

function parse(pieces: string[]): { events: ServerEvent[]; comments: string[] } {
  const events: ServerEvent[] = []
  const comments: string[] = []
  const parser = new EventParser((e) => events.push(e), (c) => comments.push(c))
  pieces.forEach((piece) => parser.push(piece))
  return { events, comments }
}

describe('EventParser', () => {
  it('finds the same events however the bytes are cut', () => {
    const text = ': waiting\r\n\r\nevent: a\r\ndata: one\r\ndata: two\r\n\r\ndata:x\n\n\rdata: [DONE]\r\r'
    const whole = parse([text, '\n'])
    expect(whole.events).toEqual([
      { event: 'a', data: 'one\ntwo' },
      { event: 'message', data: 'x' },
      { event: 'message', data: '[DONE]' },
    ])
    expect(whole.comments).toEqual(['waiting'])
    for (let cut = 1; cut < text.length; cut++)
      expect(parse([text.slice(0, cut), text.slice(cut), '\n'])).toEqual(whole)
  })

  it('gives no event before its empty line', () => {
    expect(parse(['data: half']).events).toEqual([])
  })
})

describe('readEvents', () => {
  const body = (end: (c: ReadableStreamDefaultController<Uint8Array>) => void) => {
    let isBegun = false
    return new ReadableStream<Uint8Array>({
      pull(c) {
        if (isBegun) return end(c)
        isBegun = true
        c.enqueue(new TextEncoder().encode('data: one\n\n'))
      },
    })
  }

  it('gives what came, and says that the connection broke', async () => {
    const seen: string[] = []
    await readEvents(body((c) => c.close()), ({ data }) => seen.push(data))
    await expect(readEvents(body((c) => c.error(new TypeError('network error'))), ({ data }) => seen.push(data))).rejects.toThrow(/connection to Mysti broke/)
    await expect(readEvents(body((c) => c.error(new DOMException('left', 'AbortError'))), () => {})).rejects.toThrow('left')
    expect(seen).toEqual(['one', 'one'])
  })
})

describe('restored', () => {
  it('keeps what is known, and begins anew where nothing can be read', () => {
    expect(restored({ a: 1, b: null as number | null }, '{"a":2,"gone":3}')).toEqual({ a: 2, b: null })
    expect(restored({ a: 1 }, null)).toEqual({ a: 1 })
    expect(restored({ a: 1 }, '{torn')).toEqual({ a: 1 })
  })
})

describe('withoutThoughts', () => {
  it('drops thoughts, finished or not', () => {
    expect(withoutThoughts('<think>hm</think>\n A boat')).toBe('A boat')
    expect(withoutThoughts('A boat <think>still')).toBe('A boat ')
  })
})
