// Every request of the page, typed by what docs/openapi.yaml promises. A failure becomes a Failure with the
// server's own sentence, because that sentence already says what to do.
import { readEvents } from './sse'

export class Failure extends Error {
  constructor(
    message: string,
    readonly status: number,
    readonly code: string | null = null,
  ) {
    super(message)
  }
}

export type Kind = 'sd' | 'llm'
export type WorkerState =
  | 'stopped' | 'waiting' | 'starting' | 'loading' | 'ready' | 'busy' | 'parking' | 'parked' | 'stopping' | 'restarting' | 'failed'

export interface WorkerHealth {
  state: WorkerState
  model: string | null
  reason: string | null
}

export interface Health {
  status: 'ok' | 'degraded'
  workers: Record<Kind, WorkerHealth>
}

export interface Model {
  id: string
  type: string
  active: boolean
  default: boolean
}

export interface PlannedMove {
  move: string
  of: string | null // null: of the one that asks
  device: string
  reason: string
}

/** Somebody waits until leave is given for others to give way. */
export interface LeaveQuestion {
  id: number
  for: string
  moves: PlannedMove[]
}

export interface Progress {
  job: string | null
  image: number
  images: number
  step: number
  steps: number
  time: number
  phase: string
  label: string
  eta_ms: number | null
}

export interface Picture {
  name: string
  url: string
  params: Record<string, unknown>
}

export interface Named {
  name: string
  label: string
}

/** The fields of a request for pictures, as docs/openapi.yaml names them. */
export type Fields = Record<string, string | number | boolean | object>

/** What is to be made: the last part of the route. */
export type Making = 'generations' | 'edits' | 'variations' | 'upscale'

export interface DrawnPicture {
  url: string
  file: string
  seed?: number
}

// The key of a server that asks for one: for this tab, as a header of every request, and as a cookie for what the browser
// fetches by itself (the pictures).
const KEY = 'mysti-key'
let onLocked = () => {}

export function setKey(key: string): void {
  sessionStorage.setItem(KEY, key)
  document.cookie = `mysti_key=${encodeURIComponent(key)}; path=/; SameSite=Strict`
}

/** Calls back when the server wants a key and has none, or another one. */
export function whenLocked(callback: () => void): void {
  onLocked = callback
}

async function failureOf(answer: Response): Promise<Failure> {
  const text = await answer.text()
  try {
    const error = JSON.parse(text).error
    return new Failure(error.message, answer.status, error.code)
  } catch {
    return new Failure(text.slice(0, 300) || `The server answered ${answer.status}.`, answer.status)
  }
}

async function send(method: string, path: string, body?: unknown, signal?: AbortSignal): Promise<Response> {
  const key = sessionStorage.getItem(KEY)
  let answer: Response
  try {
    answer = await fetch(path, {
      method,
      signal: signal ?? null,
      headers: {
        ...(body === undefined || body instanceof FormData ? {} : { 'Content-Type': 'application/json' }),
        ...(key === null ? {} : { Authorization: `Bearer ${key}` }),
      },
      body: body === undefined ? null : body instanceof FormData ? body : JSON.stringify(body),
    })
  } catch (error) {
    if ((error as Error).name === 'AbortError') throw error
    throw new Failure('Mysti does not answer. Is mysti_server still running?', 0)
  }
  if (answer.status === 401) onLocked()
  if (!answer.ok) throw await failureOf(answer)
  return answer
}

async function json<T>(method: string, path: string, body?: unknown, signal?: AbortSignal): Promise<T> {
  return (await send(method, path, body, signal)).json() as Promise<T>
}

export const health = () => json<Health>('GET', '/health')

export const models = async () => (await json<{ data: Model[] }>('GET', '/v1/models')).data

export const loadModel = (kind: Kind, id: string) =>
  json<unknown>('POST', kind === 'sd' ? '/v1/models/load' : '/v1/llm/load', { model: id })

export const startWorker = (kind: Kind) => json<unknown>('POST', `/v1/workers/${kind}/start`, {})

export const leaveQuestions = async () => (await json<{ questions: LeaveQuestion[] }>('GET', '/v1/memory')).questions

export const giveLeave = (id: number, leave: boolean) => json<unknown>('POST', '/v1/memory/leave', { id, leave })

export const samplersAndSchedules = () =>
  json<{ samplers: Named[]; schedulers: Named[]; dialects: string[] }>('GET', '/v1/options/samplers')

/** The names of the files of one kind that requests may ask for. */
export const namesOf = async (kind: 'loras' | 'vaes' | 'upscalers') =>
  (await json<{ data: { name: string }[] }>('GET', `/v1/${kind}`)).data.map((file) => file.name)

export const recentPictures = () => json<Picture[]>('GET', '/v1/history/images')

/** The bytes of a picture that this server has. */
export const pictureFile = async (url: string) => (await send('GET', url)).blob()

const PREVIEWS = 16 // the most that may be asked for

export interface PictureEvents {
  onJob: (id: string) => void
  onNote: (text: string) => void // what the server says while nothing comes yet: "queue position=2", "loading ..."
  onPreview: (url: string) => void // a small look at what becomes
  onPicture: (picture: DrawnPicture) => void
}

function asForm(fields: Fields, files: Record<string, Blob>): FormData {
  const form = new FormData()
  for (const [name, value] of Object.entries(fields)) form.append(name, String(value))
  for (const [name, file] of Object.entries(files)) form.append(name, file, `${name}.png`)
  return form
}

/** Makes pictures from fields and the pictures that go with them (image, mask); resolves when the last one is there. */
export async function makePictures(
  what: Making,
  fields: Fields,
  files: Record<string, Blob> | null,
  on: PictureEvents,
  signal: AbortSignal,
): Promise<void> {
  const all = { ...fields, response_format: 'url', stream: true, ...(what === 'upscale' ? {} : { partial_images: PREVIEWS }) }
  const answer = await send('POST', `/v1/images/${what}`, files ? asForm(all, files) : all, signal)
  let failure: Failure | null = null
  let isThere = false
  on.onJob(answer.headers.get('X-Mysti-Job') ?? '')
  await readEvents(
    answer.body!,
    ({ data }) => {
      const event = JSON.parse(data)
      if (event.error) failure = new Failure(event.error.message, 200, event.error.code)
      else if (event.type.endsWith('.partial_image')) on.onPreview(`data:image/png;base64,${event.b64_json}`)
      else {
        isThere = true
        on.onPicture(event as DrawnPicture)
      }
    },
    on.onNote,
  )
  if (failure) throw failure
  if (!isThere) throw new Failure('The answer ended without a picture. The log of mysti_server says why.', 200)
}

/** Follows the progress of pictures until the signal ends it. */
export async function followProgress(onProgress: (progress: Progress) => void, signal: AbortSignal): Promise<void> {
  const answer = await send('GET', '/v1/stream/progress', undefined, signal)
  await readEvents(answer.body!, ({ data }) => onProgress(JSON.parse(data) as Progress))
}

export interface ChatMessage {
  role: 'system' | 'user' | 'assistant'
  content: string
}

/** Streams an answer; onText gets each new piece, onWait what the server says while nothing comes yet. */
export async function chat(
  messages: ChatMessage[],
  onText: (piece: string) => void,
  onWait: (note: string) => void,
  signal: AbortSignal,
): Promise<void> {
  const answer = await send('POST', '/v1/chat/completions', { messages, stream: true }, signal)
  let failure: Failure | null = null
  await readEvents(
    answer.body!,
    ({ data }) => {
      if (data === '[DONE]') return
      const chunk = JSON.parse(data)
      if (chunk.error) failure = new Failure(chunk.error.message, 200, chunk.error.code)
      const delta = chunk.choices?.[0]?.delta
      const piece = delta?.content ?? delta?.reasoning_content
      if (piece) onText(piece)
    },
    onWait,
  )
  if (failure) throw failure
}
