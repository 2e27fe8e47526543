// Server-sent events out of a fetch body. EventSource cannot POST and hides the status of an answer, so the
// page reads the stream itself; the format is the HTML standard's: lines end in LF, CR or CRLF, a line that
// begins with ':' is a comment, an empty line ends the event.

export interface ServerEvent {
  event: string
  data: string
}

/** Feeds text in, in any pieces, and hands out whole events and comments. */
export class EventParser {
  private rest = ''
  private event = ''
  private data: string[] = []

  constructor(
    private readonly onEvent: (event: ServerEvent) => void,
    private readonly onComment: (text: string) => void = () => {},
  ) {}

  push(text: string): void {
    this.rest += text
    for (;;) {
      const end = this.rest.search(/[\r\n]/)
      // a CR at the very end may be the first half of CRLF
      if (end < 0 || (this.rest[end] === '\r' && end === this.rest.length - 1)) return
      const line = this.rest.slice(0, end)
      this.rest = this.rest.slice(end + (this.rest.startsWith('\r\n', end) ? 2 : 1))
      this.line(line)
    }
  }

  private line(line: string): void {
    if (line === '') {
      if (this.data.length) this.onEvent({ event: this.event || 'message', data: this.data.join('\n') })
      this.event = ''
      this.data = []
      return
    }
    if (line.startsWith(':')) return this.onComment(line.slice(1).trim())
    const colon = line.indexOf(':')
    const field = colon < 0 ? line : line.slice(0, colon)
    const value = colon < 0 ? '' : line.slice(colon + 1).replace(/^ /, '')
    if (field === 'event') this.event = value
    else if (field === 'data') this.data.push(value)
  }
}

async function readOn(reader: ReadableStreamDefaultReader<Uint8Array>): Promise<ReadableStreamReadResult<Uint8Array>> {
  try {
    return await reader.read()
  } catch (error) {
    // what browsers throw when a connection breaks; one that was left on purpose is an AbortError
    if (error instanceof TypeError) throw new Error('The connection to Mysti broke in the middle of the answer. Is mysti_server still running?')
    throw error
  }
}

/** Reads an answer's body to its end through the parser. */
export async function readEvents(
  body: ReadableStream<Uint8Array>,
  onEvent: (event: ServerEvent) => void,
  onComment?: (text: string) => void,
): Promise<void> {
  const parser = new EventParser(onEvent, onComment)
  const reader = body.getReader()
  const decoder = new TextDecoder()
  for (;;) {
    const { done, value } = await readOn(reader)
    if (done) return
    parser.push(decoder.decode(value, { stream: true }))
  }
}
