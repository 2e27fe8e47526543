import { describe, expect, it } from 'vitest'

import { EventParser, type ServerEvent } from '../src/api/sse'
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

describe('withoutThoughts', () => {
  it('drops thoughts, finished or not', () => {
    expect(withoutThoughts('<think>hm</think>\n A boat')).toBe('A boat')
    expect(withoutThoughts('A boat <think>still')).toBe('A boat ')
  })
})
