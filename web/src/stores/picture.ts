// The pictures that are being made, and those that were: one request at a time from this page, its progress from the server's
// stream, cancelled by leaving the request, which takes its job along and no one else's.
import { defineStore } from 'pinia'
import { computed, ref } from 'vue'

import * as api from '../api/client'
import { percentOf, statusOf } from '../progress'
import { drawingOf, editOf, pictureFields, variationsOf, type PictureFields } from '../request'
import { keep } from './keep'
import { useServer } from './server'
import { useStart } from './start'

/** A picture that this server has, and what it was drawn with. */
export interface OwnPicture {
  url: string
  name: string
  prompt: string
  seed: number | null
}

export const usePicture = defineStore('picture', () => {
  const fields = ref(pictureFields())
  keep('mysti-fields', fields)
  const progress = ref<api.Progress | null>(null)
  const note = ref('')
  const made = ref<OwnPicture[]>([]) // by the newest request
  const shown = ref(0) // which of them
  const preview = ref<string | null>(null) // of the one that is being drawn
  const recent = ref<api.Picture[]>([])
  const busy = ref(false)
  let request: AbortController | null = null
  let job = ''

  const current = computed(() => made.value[shown.value] ?? null)
  const percent = computed(() => (progress.value ? percentOf(progress.value) : 0))
  const status = computed(() => statusOf(progress.value, note.value))

  async function refresh(): Promise<void> {
    recent.value = await api.recentPictures()
  }

  function take(picture: api.DrawnPicture, prompt: string, seed: number | null, isFirst: boolean): void {
    if (isFirst) made.value = []
    made.value.push({ url: new URL(picture.url).pathname, name: picture.file, prompt, seed })
    shown.value = made.value.length - 1
    preview.value = null
    void refresh().catch(() => {})
  }

  /** Resolves false when it was cancelled. Throws a Failure. */
  async function make(what: api.Making, said: api.Fields, files: Record<string, Blob> | null, prompt: string): Promise<boolean> {
    const mine = new AbortController()
    const follow = new AbortController()
    let count = 0
    request = mine
    busy.value = true
    progress.value = null
    note.value = job = ''
    // the stream is about whatever runs
    api.followProgress((p) => (progress.value = p.job === job && p.phase !== 'waiting' ? p : null), follow.signal).catch(() => {})
    try {
      await api.makePictures(what, said, files, {
        onJob: (id) => (job = id),
        onNote: (text) => (note.value = text),
        onPreview: (url) => (preview.value = url),
        onPicture: (picture) => take(picture, prompt, what === 'upscale' ? null : (picture.seed ?? null), count++ === 0),
      }, mine.signal)
      return true
    } catch (error) {
      if (mine.signal.aborted) return false
      throw error
    } finally {
      follow.abort()
      busy.value = false
      progress.value = null
      preview.value = null
      void useServer().refresh()
    }
  }

  /** From nothing, or from the picture that was chosen; then the prompt may be empty. */
  async function draw(prompt: string): Promise<boolean> {
    const start = useStart()
    const from = start.picture
    if (!from) return make('generations', drawingOf(prompt, fields.value), null, prompt)
    const what = prompt.trim() ? 'edits' : 'variations'
    const mask = await start.maskFile()
    const files = { image: from.file, ...(mask ? { mask } : {}) }
    return make(what, editOf(prompt.trim(), fields.value, start.fields, from, mask !== null), files, prompt)
  }

  /** Pictures like this one. */
  async function vary(own: OwnPicture): Promise<boolean> {
    const file = await api.pictureFile(own.url)
    const size = await createImageBitmap(file)
    return make('variations', variationsOf(own.prompt, fields.value, size), { image: file }, own.prompt)
  }

  /** factor null: the network's own. */
  async function upscale(picture: Blob, upscaler: string, factor: number | null, prompt: string): Promise<boolean> {
    return make('upscale', { upscaler, ...(factor === null ? {} : { factor }) }, { image: picture }, prompt)
  }

  function cancel(): void {
    request?.abort()
  }

  function useSettings(settings: PictureFields): void {
    fields.value = settings
  }

  return { fields, progress, percent, status, preview, made, shown, current, recent, busy, refresh, draw, vary, upscale, cancel, useSettings }
})
