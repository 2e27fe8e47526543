// The picture that is being made, and those that were: one job at a time from this page, its progress from
// the server's stream, cancelled by leaving the request (the server stops the work) and by saying so.
import { defineStore } from 'pinia'
import { computed, ref } from 'vue'

import * as api from '../api/client'

export const pictureFields = () => ({
  negative: '',
  width: null as number | null,
  height: null as number | null,
  steps: null as number | null,
  cfg: null as number | null,
  seed: null as number | null,
  sampler: null as string | null,
  scheduler: null as string | null,
})

export const usePicture = defineStore('picture', () => {
  const fields = ref(pictureFields())
  const progress = ref<api.Progress | null>(null)
  const current = ref<api.DrawnPicture | null>(null)
  const preview = ref<string | null>(null) // of the one that is being drawn
  const recent = ref<api.Picture[]>([])
  let job: AbortController | null = null
  const busy = ref(false)

  const percent = computed(() => {
    const p = progress.value
    return p && p.steps > 0 ? Math.round((100 * p.step) / p.steps) : 0
  })

  async function refresh(): Promise<void> {
    recent.value = await api.recentPictures()
  }

  /** Draws; resolves false when it was cancelled. Throws a Failure. */
  async function draw(prompt: string): Promise<boolean> {
    const f = fields.value
    const request: api.PictureRequest = { prompt }
    if (f.negative.trim()) request.negative_prompt = f.negative
    if (f.width && f.height) request.size = `${f.width}x${f.height}`
    if (f.steps) request.steps = f.steps
    if (f.cfg !== null) request.cfg_scale = f.cfg
    if (f.seed !== null) request.seed = f.seed
    if (f.sampler) request.sampler = f.sampler
    if (f.scheduler) request.scheduler = f.scheduler

    job = new AbortController()
    const follow = new AbortController()
    busy.value = true
    progress.value = null
    api.followProgress((p) => (progress.value = p), follow.signal).catch(() => {})
    try {
      current.value = await api.drawPicture(request, (url) => (preview.value = url), job.signal)
      return true
    } catch (error) {
      if (job.signal.aborted) return false
      throw error
    } finally {
      follow.abort()
      busy.value = false
      progress.value = null
      preview.value = null
      await refresh().catch(() => {})
    }
  }

  function cancel(): void {
    job?.abort()
    api.cancelPicture().catch(() => {})
  }

  return { fields, progress, percent, preview, current, recent, busy, refresh, draw, cancel }
})
