// What is said about a picture that is not there yet. There are two sources: the stream of the request itself, which knows its
// place in the line, and the server's progress, which knows steps and the time left, of whichever job runs.
import type { Progress } from './api/client'

/** How many of a hundred; a request for several pictures is one way. */
export function percentOf(p: Progress): number {
  if (!p.steps) return 0
  const pictures = Math.max(p.images, 1)
  return Math.round((100 * (Math.min(p.image, pictures - 1) + p.step / p.steps)) / pictures)
}

function duration(ms: number): string {
  const seconds = Math.round(ms / 1000)
  return seconds < 100 ? `${seconds} s` : `${Math.round(seconds / 60)} min`
}

const left = (ms: number | null) => (ms !== null && ms >= 1000 ? `, about ${duration(ms)} left` : '')

/** One line: p where it is about our job, else the last comment of our own stream. */
export function statusOf(p: Progress | null, note: string): string {
  if (!p) {
    const place = /^queue position=(\d+)(?: eta_ms=(\d+))?/.exec(note)
    if (!place) return note && !note.includes('=') ? note : 'waiting for its turn'
    const before = Number(place[1])
    const wait = place[2] ? left(Number(place[2])) : ''
    return before > 0 ? `waiting: ${before} before it${wait}` : 'waiting for its turn'
  }
  const label = p.label.replace(/\.+$/, '')
  const which = p.images > 1 ? `picture ${p.image + 1} of ${p.images}, ` : ''
  const part = p.phase === 'upscaling' ? 'part' : 'step'
  return p.steps ? `${label}: ${which}${part} ${p.step} of ${p.steps}${left(p.eta_ms)}` : label
}
